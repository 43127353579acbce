"""Exercises that mark themselves.

A chapter states an exercise, gives a function whose body is `return todo()`, and calls `mark`. The
tests are here, so that they travel with the package to wherever the notebook runs; the answers are
not.
"""

from dataclasses import dataclass

from . import (
    exercises_bridges,
    exercises_control,
    exercises_couplings,
    exercises_guarantees,
    exercises_learning,
    exercises_map,
    exercises_matching,
    exercises_motion,
    exercises_noising,
    exercises_sampling,
    exercises_start,
    exercises_transport,
)
from .exercises_start import Answer
from .verify import show


class NotAttempted(Exception):
    """Raised inside a test when the answer still returns `todo()`."""


_TODO = object()


def todo() -> object:
    """What an unwritten answer returns."""
    return _TODO


@dataclass(frozen=True)
class Mark:
    """The verdict on one answer: right, or the first reason why not."""

    label: str
    right: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        return {"text/plain": str(self)}


def mark(label: str, answer: Answer) -> None:
    """Display the verdict on an answer. Never raises on account of the answer."""
    show(judge(label, answer))


def judge(label: str, answer: Answer) -> Mark:
    """Run the tests of an exercise until one fails. Raises ValueError for an exercise that does not
    exist."""
    if label not in TESTS:
        raise ValueError(f"exercises are {', '.join(TESTS)}, got {label!r}.")

    def attempted(*arguments: object) -> object:
        result = answer(*arguments)
        if result is _TODO:
            raise NotAttempted
        return result

    try:
        for asked, passed in TESTS[label](attempted):
            if not passed:
                return Mark(label, False, f"not yet: {asked}")
    except NotAttempted:
        return Mark(label, False, "not attempted")
    except (
        Exception
    ) as error:  # whatever the reader's code raises is the verdict, not a crash of the page
        return Mark(label, False, f"not yet: the answer raised {type(error).__name__}: {error}")
    return Mark(label, True, "right")


TESTS = (
    exercises_start.TESTS
    | exercises_transport.TESTS
    | exercises_noising.TESTS
    | exercises_motion.TESTS
    | exercises_learning.TESTS
    | exercises_matching.TESTS
    | exercises_couplings.TESTS
    | exercises_sampling.TESTS
    | exercises_control.TESTS
    | exercises_bridges.TESTS
    | exercises_guarantees.TESTS
    | exercises_map.TESTS
)
