"""A failed suite says why where it is seen: at the end, beside the verdict."""

import sys

import pytest

from suite import Suite, report, run


def done(script: str) -> Suite:
    suite = Suite("a suite", [sys.executable, "-c", script])
    run(suite)
    return suite


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        (["ok    book/a.ipynb", "STALE book/b.ipynb", "      why", "an order"], 2),
        (["FAILED tests/test_a.py::test_b - assert 1", "ERROR tests/test_c.py", "1 failed"], 2),
        (["Traceback", "a cause"], 2),
    ],
)
def test_the_reasons_of_a_failure_stand_in_the_summary(said, failed, capsys):
    suite = done(f"print(*{said!r}, sep='\\n'); raise SystemExit(1)")
    capsys.readouterr()
    assert not report([suite], browser=True)
    summary = capsys.readouterr().out
    assert len(suite.failed) == failed
    assert all(line in summary for line in suite.failed)


def test_a_suite_that_passes_has_nothing_to_say(capsys):
    suite = done("print('STALE is what a good run never prints'); print('3 passed')")
    assert report([suite], browser=True)
    assert not suite.failed
    assert "3 passed" in capsys.readouterr().out
