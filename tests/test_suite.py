"""A failed suite says why where it is seen: at the end, beside the verdict."""

import sys

import pytest

from suite import Suite, report, run


def done(script: str) -> Suite:
    suite = Suite("a suite", [sys.executable, "-c", script])
    run(suite)
    return suite


STALE = ["STALE book/b.ipynb", "      stored text:", "      ", "      1"]
LONG = "FAILED tests/test_a.py::test_" + "b" * 100 + " - AssertionError: a reason"


@pytest.mark.parametrize(
    ("said", "reasons"),
    [
        (["ok    book/a.ipynb", *STALE, "an order"], STALE),
        (["F", LONG, "ERROR tests/test_c.py", "1 failed"], [LONG, "ERROR tests/test_c.py"]),
        ([str(k) for k in range(30)], [str(k) for k in range(10, 30)]),
    ],
)
def test_the_reasons_of_a_failure_stand_in_the_summary(said, reasons, capsys):
    suite = done(f"print(*{said!r}, sep='\\n'); raise SystemExit(1)")
    capsys.readouterr()
    assert suite.failed == tuple(reasons)
    assert not report([suite], browser=True)
    assert "\n".join(reasons) in capsys.readouterr().out


def test_what_the_chapters_took_stands_in_the_summary(capsys):
    suite = done("print('chapters take 600 s of one processor in all'); print('1 passed')")
    capsys.readouterr()
    assert report([suite], browser=True)
    assert "chapters take 600 s" in capsys.readouterr().out


def test_pytest_is_told_not_to_cut_its_reasons():
    suite = Suite(
        "a suite", [sys.executable, "-c", "import os; print(os.environ['COLUMNS'], 'passed')"]
    )
    run(suite)
    assert suite.counts["passed"] >= 200


def test_a_suite_that_passes_has_nothing_to_say(capsys):
    suite = done("print('STALE is what a good run never prints'); print('3 passed')")
    assert report([suite], browser=True)
    assert not suite.failed
    assert "3 passed" in capsys.readouterr().out
