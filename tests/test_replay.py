"""What of an output is kept and compared, and how closely."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import replay

ROOT = Path(__file__).resolve().parents[1]


# Text and numbers.


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("loss 0.12345", "loss 0.12345"),
        ("0.50004", "0.50005"),  # one unit of the last digit
        ("1.2e-05", "1.3e-05"),
        ("1234.5678", "1234.7000"),  # 2e-4 relative
        ("0.1", "0.101"),  # printed with %g, which drops zeros
        ("tensor([ 0.0001, 9.99])", "tensor([-0.0000, 10.00])"),  # width and sign of rounding
        ("3 of 4 in 0.25 s.e.", "3 of 4 in 0.26 s.e."),
        ("nan", "nan"),
        ("sha256 97f7d99a8e551c5e", "sha256 97f7d99a8e551c5e"),  # 8e551 is no float
    ],
)
def test_printed_floats_may_differ_by_rounding(found, expected):
    assert replay.alike(found, expected) and replay.alike(expected, found)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("loss 0.12345", "loss 0.12348"),
        ("0.1", "0.2001"),
        ("1.2e-05", "1.4e-05"),
        ("1.2e-05", "1.2e-04"),
        ("3 of 4", "4 of 4"),  # counts are exact
        ("tensor([1., 2.])", "tensor([2., 2.])"),  # so are whole numbers in a tensor of floats
        ("-0.53", "0.53"),
        ("0.53 held", "0.53 refuted"),
        ("nan", "0.0"),
        ("sha256 97f7d99a8e551c5e", "sha256 97f7d99a8e552c5e"),
        ("0.5", "0.5 0.5"),
    ],
)
def test_other_differences_are_found(found, expected):
    assert not replay.alike(found, expected) and not replay.alike(expected, found)


def output(text: str, **data: object) -> NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/plain": text, **data})


def record(error: float = 1e-12, **changes: object) -> NotebookNode:
    fields = {"label": "eq:a", "kind": "identity", "verdict": "held", "error": error}
    fields |= {"bound": 1e-9, "mistake": None, "sides": None}
    return output("a check", **{replay.CHECK: fields | changes})


def test_only_the_measured_error_of_a_check_may_differ():
    assert replay.difference([record(1e-12)], [record(5e-11)]) is None
    for change in ({"bound": 1e-8}, {"verdict": "refuted"}, {"mistake": "sign: flipped"}):
        assert replay.difference([record(**change)], [record()])


def test_a_missing_an_added_or_another_output_is_found():
    assert replay.difference([output("a")], [output("a")]) is None
    assert replay.difference([output("a")], [])
    assert replay.difference([], [output("a")])
    assert replay.difference([output("a"), output("b")], [output("b"), output("a")])
    stream = nbformat.v4.new_output("stream", name="stdout", text="a")
    assert replay.difference([stream], [output("a")])


def test_pictures_html_widgets_and_glued_values_are_not_kept():
    picture = output("<Figure size 640x480>", **{"image/png": "…"})
    widget = output("IntSlider(value=3)", **{replay.WIDGET: {"model_id": "5f"}})
    given = nbformat.v4.new_output("display_data", {replay.GLUED: "0.5"})
    html = nbformat.v4.new_output("display_data", {"text/html": "<b>a</b>"})
    (kept,) = replay.kept([picture, widget, given, html])
    assert kept.data == {"text/plain": "<Figure size 640x480>"}


def test_pieces_of_one_stream_are_one_output():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in ("a\n", "b\n")]
    whole = nbformat.v4.new_output("stream", name="stdout", text="a\nb\n")
    assert replay.difference(pieces, [whole]) is None
    assert [piece.text for piece in pieces] == ["a\n", "b\n"], "its input was changed"


# What a replay sees.


def replayed(folder: Path, **notebooks: NotebookNode) -> dict[str, str]:
    """What nbval with the rules of this repository says of the one cell of each notebook."""
    shutil.copy(ROOT / "conftest.py", folder)
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-rA", "--color=no", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    command += ["--nbval", "--nbval-current-env", *(f"{name}.ipynb" for name in notebooks)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    verdicts = re.findall(r"^(PASSED|FAILED|ERROR) (\w+)\.ipynb", done.stdout, re.M)
    return {name: verdict for verdict, name in verdicts}


def test_the_replay_compares_and_needs_an_execution(tmp_path):
    def printing(text: str, count: int | None) -> NotebookNode:
        source = "x = 1 / 3\nx;\nprint(f'{x:.4f}')"
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        return nbformat.v4.new_notebook(cells=[cell])

    close, far, never = printing("0.3334\n", 1), printing("0.3340\n", 1), printing("0.3333\n", None)
    found = replayed(tmp_path, close=close, far=far, never=never)
    assert found == {"close": "PASSED", "far": "FAILED", "never": "FAILED"}
