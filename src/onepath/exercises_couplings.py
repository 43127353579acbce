"""Tests of the exercises of chapter 12, on couplings and straightness. The answers are not here."""

from collections.abc import Callable, Iterator
from math import sin

import torch

from .calculus import gradient
from .exercises_start import Answer, Test, plane
from .metrics import gaussian_wasserstein2


def over_pairs(answer: Answer) -> Iterator[Test]:
    """ex:over-pairs, chapter 12."""
    far, x = torch.tensor([[30.0, -40.0]], dtype=torch.float64), plane()[2]
    starts = x.new_tensor([[-2.0, 0.0], [0.0, -1.0], [1.5, 0.5]])
    ends, weights = x.new_tensor([[1.0, 1.5], [0.5, -2.0], [-1.5, -0.5]]), x.new_tensor([2, 5, 3])
    slopes, weights, width = ends - starts, weights / 10, 0.6
    for at in (0.0, 0.35, 0.8):
        t, points = torch.tensor(at, dtype=torch.float64), torch.cat([x, far])
        found = answer(t, points, weights, starts, ends, width)
        yield f"one vector for each point, t = {at}", found.shape == points.shape
        yield f"finite far away from all lines, t = {at}", bool(found.isfinite().all())
        # the slope of the cumulants at zero: a mean that nobody had to write down
        away = -(torch.cdist(points, (1 - t) * starts + t * ends) / width).square() / 2
        tilted = lambda t, h, away=away: (weights.log() + away + h @ slopes.T).logsumexp(1)
        exact = gradient(tilted, t, torch.zeros_like(points))
        yield f"the mean slope of those who are here, t = {at}", bool(torch.allclose(found, exact))


def bent_flow(answer: Answer) -> Iterator[Test]:
    """ex:straightness, chapter 12."""
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shift = lambda t, x: torch.ones_like(x) + 0 * t
    yield "a flow that shifts everything is straight", bool(abs(answer(shift, x, 7)) < 1e-12)
    spread = lambda t, x: x / (1 + t)
    yield "so is one that scales at constant speed", bool(abs(answer(spread, x, 6)) < 1e-12)
    hurry = lambda t, x: 2 * t * torch.ones_like(x)
    mean = sum((2 * k / 8 - 7 / 8) ** 2 for k in range(8)) / 8
    found = float(answer(hurry, x, 8))
    yield "straight lines at a speed that changes are not", abs(found - 2 * mean) < 1e-12
    bending = lambda t, x: x.flip(1) * x.new_tensor([-1.0, 1.0]) * 3
    finer = abs(
        float(answer(bending, x, 4000)) / float(x.square().sum(1).mean()) - 9 + 4 * sin(1.5) ** 2
    )
    yield "a rotation by three radians loses what its chords save", finer < 0.05


def pairs_once(answer: Answer) -> Iterator[Test]:
    """ex:one-point, chapter 12."""
    draw = torch.Generator().manual_seed(6)
    x, y = (torch.randn(n, 2, generator=draw, dtype=torch.float64) for n in (300, 4))
    raw = torch.rand(300, 4, generator=draw, dtype=torch.float64) + 0.1
    matrix = raw / raw.sum(1, keepdim=True) / 300
    before = torch.get_rng_state()
    starts, partners = answer(matrix, x, y, torch.Generator().manual_seed(7))
    again = answer(matrix, x, y, torch.Generator().manual_seed(7))[1]
    other = answer(matrix, x, y, torch.Generator().manual_seed(8))[1]
    yield "every start once, in its place", torch.equal(starts, x)
    yield (
        "the generator decides, and nothing else",
        torch.equal(partners, again)
        and not torch.equal(partners, other)
        and torch.equal(before, torch.get_rng_state()),
    )
    hits = (torch.cdist(partners, y) < 1e-9).double()
    yield "each partner is one of the points", bool((hits.sum(1) == 1).all())
    for k in range(1, 100):
        pair = answer(matrix, x, y, torch.Generator().manual_seed(7 + k))[1]
        hits = hits + (torch.cdist(pair, y) < 1e-9).double()
    share = raw / raw.sum(1, keepdim=True)
    error = (hits / 100 - share) / (share * (1 - share) / 100).sqrt()
    yield "a partner is as likely as the plan says", bool(error.square().mean() < 1.3)


def warm_pairs(answer: Answer) -> Iterator[Test]:
    """ex:how-warm, chapter 12."""
    for s, temperature in ((1.0, 0.5), (1.8, 1.0), (0.6, 3.0)):
        low, high = 0.0, s  # the overlap c solves c² + τ c = s²
        for _ in range(80):
            middle = 0.5 * (low + high)
            below = middle**2 + temperature * middle < s**2
            low, high = (middle, high) if below else (low, middle)
        n, rest = 4000, s**2 - low**2
        at = [(k + 0.5) / n for k in range(n)]
        size = lambda t, c=low, s=s: (1 - t) ** 2 + s**2 * t**2 + 2 * c * t * (1 - t)
        spread = sum(rest / size(t) for t in at) / n
        cost = 1 + s**2 - 2 * low
        exact = (cost, spread, cost - spread - (s - 1) ** 2)
        for name, found, value in zip(
            ("cost", "spread", "straightness"), answer(s, temperature), exact
        ):
            yield (
                f"the {name} for s = {s} at temperature {temperature}",
                abs(float(found) - value) < 1e-5,
            )


def wasteful_pairs(answer: Answer) -> Iterator[Test]:
    """ex:wasteful, chapter 12."""
    generator = torch.Generator().manual_seed(9)
    for d in (2, 3):
        roots = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
        A, B = roots @ roots.mT + 0.3 * torch.eye(d, dtype=torch.float64)
        M = answer(A, B)
        arrives = (M @ A @ M.T - B).abs().max() < 1e-9
        yield f"the pairs arrive at the law, in {d} dimensions", bool(arrives)
        values = torch.linalg.eigvals(M)
        off_axis = (values.imag.abs() > 1e-6) | (values.real > 1e-6)
        yield "no eigenvalue is negative or zero: the lines do not meet", bool(off_axis.all())
        zero = torch.zeros(d, dtype=torch.float64)
        cost = (A + B - 2 * A @ M.T).trace().item()
        excess = cost - gaussian_wasserstein2(zero, A, zero, B) ** 2
        yield "the pairs are dearer than the optimal ones", excess > 0.01 * A.trace().item()


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:over-pairs": over_pairs,
    "ex:straightness": bent_flow,
    "ex:one-point": pairs_once,
    "ex:how-warm": warm_pairs,
    "ex:wasteful": wasteful_pairs,
}
