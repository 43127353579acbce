"""Tests of the exercises of chapters 6 and 7, many dynamics and likelihood. The answers are not
here."""

from collections.abc import Callable, Iterator

import torch

from .calculus import constant, rate
from .exercises_start import Answer, Test, plane
from .verify import continuity, fokker_planck


def way_back(answer: Answer) -> Iterator[Test]:
    """ex:reverse, chapter 6."""
    path, _, x = plane()
    back = lambda r, x: answer(path, r, x)
    density = lambda r, x: path.log_density(1 - r, x)
    for r in (0.2, 0.7):
        time = torch.tensor(r, dtype=torch.float64)
        residual = fokker_planck(density, back, constant(1.0), time, x).abs().max()
        yield f"Fokker–Planck in the clock r, with η = 1, at r = {r}", bool(residual < 1e-9)


def own_swirl(answer: Answer) -> Iterator[Test]:
    """ex:swirl, chapter 6."""
    path, _, x = plane()
    t = torch.tensor(0.6, dtype=torch.float64)
    w = answer(path, t, x)
    yield "the field is not zero", bool(w.norm() > 1e-3)
    moved = lambda t, x: path.velocity(t, x) + answer(path, t, x)
    residual = continuity(path.log_density, moved, t, x).abs().max()
    yield "the continuity equation holds with the field added", bool(residual < 1e-8)
    far = torch.full((1, 2), 8.0, dtype=torch.float64)
    tail = path.log_density(t, far).exp() * answer(path, t, far).square().sum()
    yield (
        "the energy of the field is finite: far out, density times square is small",
        bool(tail < 1),
    )
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


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:reverse": way_back,
    "ex:swirl": own_swirl,
    "ex:two-networks": two_networks,
}
