"""Exercises mark themselves, and never break the page they stand on."""

import sys
from types import SimpleNamespace

import pytest
import torch

from onepath import exercises
from onepath.exercises import Mark, judge, mark, todo

LABEL = "ex:double-for-the-tests"


@pytest.fixture(autouse=True)
def exercise(monkeypatch):
    """Twice the argument, asked in two ways."""

    def tests(answer):
        yield "answer(2) is 4", answer(2) == 4
        yield "answer(-1) is -2", answer(-1) == -2

    monkeypatch.setitem(exercises.TESTS, LABEL, tests)


@pytest.mark.parametrize(
    "answer, right, reason",
    [
        (lambda x: 2 * x, True, "right"),
        (lambda x: todo(), False, "not attempted"),
        (lambda x: 2 * x if x > 0 else todo(), False, "not attempted"),
        (lambda x: 3 * x, False, "not yet: answer(2) is 4"),
        (lambda x: x * x, False, "not yet: answer(-1) is -2"),
        (lambda x: None, False, "not yet: answer(2) is 4"),
        (lambda x: 1 / 0, False, "not yet: the answer raised ZeroDivisionError: division by zero"),
        (lambda: 4, False, "not yet: the answer raised TypeError"),
        (lambda x: torch.ones(2) * 4, False, "not yet: the answer raised RuntimeError"),
    ],
)
def test_an_answer_is_right_or_gets_the_first_reason_why_not(answer, right, reason):
    verdict = judge(LABEL, answer)
    assert verdict.right is right and verdict.reason.startswith(reason)
    assert str(verdict).startswith(f"{LABEL}: {reason}")


def test_marking_shows_the_verdict_and_nothing_else(monkeypatch):
    seen = []
    display = SimpleNamespace(display=lambda thing, **how: seen.append(thing))
    fake = SimpleNamespace(get_ipython=lambda: object(), display=display)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert mark(LABEL, lambda x: 2 * x) is None
    assert seen == [Mark(LABEL, True, "right")]
    assert seen[0]._repr_mimebundle_() == {"text/plain": f"{LABEL}: right"}


def test_an_exercise_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="exercises are .*, got 'ex:nothing'"):
        judge("ex:nothing", lambda: None)


def test_what_is_left_to_do_is_not_a_value_that_an_answer_could_have():
    assert todo() is todo() and todo() not in (None, 0, False, "")


def test_an_answer_that_is_right_at_all_points_but_one_is_not_right():
    def almost(t, x, v, eta):
        drift = v - eta**2 / (2 * (1 - t)) * (x - t * v)
        last = (torch.arange(len(x)) == len(x) - 1).to(x)[:, None]
        return drift + eta * last * x**2

    assert not judge("ex:noisy-flow", almost).right


def test_a_copying_field_that_misses_one_point_at_the_end_is_not_right():
    def almost(points, labels, y, t, x):
        own = points[labels == y]
        weights = (-(x[:, None] - t * own).square().sum(2) / (2 * (1 - t) ** 2)).softmax(1)
        astray = 0.1 * (torch.arange(len(x)) == 1)[:, None] if t > 0.9 else 0.0
        return (weights @ own - x) / (1 - t) + astray

    assert not judge("ex:class-copy", almost).right


def test_a_residual_that_forgives_the_swirl_at_one_point_only_is_not_right():
    calls = 0

    def answer(path, t, x):
        nonlocal calls
        calls += 1
        verdict = torch.zeros_like(x) if calls == 1 else torch.ones_like(x)
        verdict[0] = 0  # right at one point of the swirl, wrong at the others
        return verdict

    verdict = judge("ex:score-transport", answer)
    assert not verdict.right and "a swirl that moves no density" in verdict.reason
