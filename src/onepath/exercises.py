"""Exercises that mark themselves.

A chapter states an exercise, gives a function whose body is `return todo()`, and calls `mark`. The
tests are here, so that they travel with the package to wherever the notebook runs; the answers are
not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .calculus import constant, rate
from .interpolants import linear
from .measures import Mixture
from .oracles import MixturePath
from .verify import continuity, fokker_planck, show

Answer = Callable[..., object]
Test = tuple[str, bool]  # what is asked of the answer, and whether it does it


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


def way_back(answer: Answer) -> Iterator[Test]:
    """ex:reverse, chapter 6."""
    path, x = _plane()
    back = lambda r, x: answer(path, r, x)
    density = lambda r, x: path.log_density(1 - r, x)
    for r in (0.2, 0.7):
        time = torch.tensor(r, dtype=torch.float64)
        residual = fokker_planck(density, back, constant(1.0), time, x).abs().max()
        yield f"Fokker–Planck in the clock r, with η = 1, at r = {r}", bool(residual < 1e-9)


def own_swirl(answer: Answer) -> Iterator[Test]:
    """ex:swirl, chapter 6."""
    path, x = _plane()
    t = torch.tensor(0.6, dtype=torch.float64)
    w = answer(path, t, x)
    yield "the field is not zero", bool(w.norm() > 1e-3)
    moved = lambda t, x: path.velocity(t, x) + answer(path, t, x)
    residual = continuity(path.log_density, moved, t, x).abs().max()
    yield "the continuity equation holds with the field added", bool(residual < 1e-8)
    turned = path.score(t, x) @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    factor = (w * turned).sum() / (turned * turned).sum()
    yield (
        "the field is not a multiple of the turned score",
        bool((w - factor * turned).norm() > 1e-3),
    )


def two_networks(answer: Answer) -> Iterator[Test]:
    """ex:two-networks, chapter 6."""
    for e_v, e_s in ((1.0, 1.0), (0.3, 2.0), (5.0, 0.1)):
        v, s = (torch.tensor(e, dtype=torch.float64) for e in (e_v, e_s))
        cost = lambda eta, v=v, s=s: (v**2 + 0.25 * eta**4 * s**2) / (2 * eta**2)
        eta = torch.as_tensor(answer(e_v, e_s), dtype=torch.float64)
        yield (
            f"the cost is stationary, for errors {e_v} and {e_s}",
            bool(rate(cost, eta).abs() < 1e-6),
        )


def _plane() -> tuple[MixturePath, Tensor]:
    """A path in the plane and points to test on, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    target = Mixture(
        weights=torch.tensor([0.4, 0.6], dtype=torch.float64),
        means=torch.tensor([[-1.5, 0.5], [1.0, -1.0]], dtype=torch.float64),
        covs=torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, -0.2], [-0.2, 0.4]]]).double(),
    )
    x = torch.randn(64, 2, generator=generator, dtype=torch.float64)
    return MixturePath(linear, target), x


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:reverse": way_back,
    "ex:swirl": own_swirl,
    "ex:two-networks": two_networks,
}
