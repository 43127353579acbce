"""Every exercise: its solution is right, its blank not attempted, and wrong answers are caught."""

import re
from pathlib import Path

import pytest
import torch

from onepath import exercises

ROOT = Path(__file__).parents[1]
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.M | re.S)
BLOCK = re.compile(r"^```python (answer|wrong)\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"""\bmark\(["'](ex:[\w-]+)["'], (\w+)\)""")


def chapters() -> dict[str, str]:
    """The text of each chapter, by its number."""
    return {
        p.name[:2]: p.read_text("utf8") for p in sorted((ROOT / "book").glob("[0-9][0-9]-*.md"))
    }


def solutions() -> dict[str, list[tuple[str, str]]]:
    """The blocks (answer or wrong, code) of each exercise, by label."""
    found = {}
    for page in sorted((ROOT / "solutions").glob("[0-9][0-9].md")):
        for section in re.split(r"^## ", page.read_text("utf8"), flags=re.M)[1:]:
            found[section.split("\n", 1)[0].strip()] = BLOCK.findall(section)
    return found


CHAPTERS = chapters()
MARKED = {label: name for text in CHAPTERS.values() for label, name in MARK.findall(text)}
SOLVED = solutions()


def function(code: str, name: str) -> exercises.Answer:
    namespace = {"todo": exercises.todo, "mark": lambda *arguments: None}
    exec(compile(code, name, "exec"), namespace)
    return namespace[name]


def test_exercises_tests_and_solutions_are_the_same_set():
    assert set(MARKED) == set(exercises.TESTS) == set(SOLVED)


@pytest.mark.parametrize("label", sorted(SOLVED))
def test_the_solution_is_right_and_unique(label):
    (code,) = [code for kind, code in SOLVED[label] if kind == "answer"]
    mark = exercises.judge(label, function(code, MARKED[label]))
    assert mark.right, mark.reason


@pytest.mark.parametrize("label", sorted(SOLVED))
def test_the_blank_of_the_chapter_scores_nothing(label):
    name = MARKED[label]
    (blank,) = [
        cell
        for text in CHAPTERS.values()
        for cell in CELL.findall(text)
        if f"def {name}(" in cell and "todo()" in cell
    ]
    mark = exercises.judge(label, function(re.sub(r"^:.*\n", "", blank, flags=re.M), name))
    assert not mark.right and mark.reason == "not attempted"


@pytest.mark.parametrize("label", sorted(SOLVED))
def test_plausible_wrong_answers_score_nothing_and_do_not_crash(label):
    wrong = [code for kind, code in SOLVED[label] if kind == "wrong"]
    assert len(wrong) >= 2
    for code in wrong:
        mark = exercises.judge(label, function(code, MARKED[label]))
        assert not mark.right and "raised" not in mark.reason, mark.reason


def nudged(value, by: float, row: int):
    """The value, off by the share `by` of its size: a tensor in one row only."""
    if isinstance(value, tuple):
        return tuple(nudged(part, by, row) for part in value)
    if isinstance(value, torch.Tensor) and value.ndim:
        off = torch.zeros_like(value)
        off[row] = by * (1 + value.detach().abs().max())
        return value + off
    if isinstance(value, int):
        return value + (1 if by > 0 else -1)
    return value + by * (1 + abs(value))


NAMES = {"ex:convention", "ex:planted", "ex:two-works"}  # these answer by a name or a row
NUMBERS = sorted(set(SOLVED) - NAMES)


@pytest.mark.parametrize("label", NUMBERS)
def test_an_answer_that_is_a_little_off_in_one_row_is_not_right(label):
    (code,) = [code for kind, code in SOLVED[label] if kind == "answer"]
    answer = function(code, MARKED[label])
    for by in (0.01, -0.01):
        for row in (0, -1):
            off = lambda *arguments, by=by, row=row: nudged(answer(*arguments), by, row)
            assert not exercises.judge(label, off).right
