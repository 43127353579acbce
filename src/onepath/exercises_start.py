"""Tests of the exercises of chapters 0 and 1. The answers are not here.

A test is a generator: it asks something of an answer, in words, and says whether the answer does
it. `exercises` runs it until the first refusal.
"""

from collections.abc import Callable, Iterator
from math import isclose, pi, sqrt
from types import SimpleNamespace

import torch
from torch import Tensor

from .calculus import constant
from .conventions import book, translate
from .interpolants import Interpolant, linear
from .measures import Mixture
from .oracles import MixturePath
from .papers import edm
from .shapes import per_point
from .verify import fokker_planck

Answer = Callable[..., object]
Test = tuple[str, bool]  # what is asked of the answer, and whether it does it


def plane() -> tuple[MixturePath, Tensor, Tensor]:
    """A path in the plane with correlated components, a time without symmetry, and some points."""
    target = Mixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.tensor([[-1.5, 0.5], [1.0, -1.0]], dtype=torch.float64),
        torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.6]]], dtype=torch.float64),
    )
    x = torch.linspace(-2, 2, 18, dtype=torch.float64).reshape(9, 2)
    return MixturePath(linear, target), torch.tensor(0.3, dtype=torch.float64), x


def noisy_flow(answer: Answer) -> Iterator[Test]:
    path, _, x = plane()
    t = torch.tensor(0.3, dtype=torch.float64)
    v = path.velocity(t, x)
    yield (
        "without noise the drift is the velocity itself",
        bool(torch.allclose(answer(t, x, v, 0.0), v)),
    )
    for eta in (0.5, 2.0):
        drift = lambda t, x, eta=eta: answer(t, x, path.velocity(t, x), eta)
        residual = fokker_planck(path.log_density, drift, constant(eta), t, x)
        yield (
            f"the densities of the path satisfy Fokker–Planck with this drift and η = {eta}",
            residual.abs().max().item() < 1e-8,
        )


def denoiser(answer: Answer) -> Iterator[Test]:
    path, _, x = plane()
    denoise = translate(path.velocity, given=book, wanted=edm())
    for t in (0.2, 0.5, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        error = answer(denoise, time, x) - path.velocity(time, x)
        yield f"the velocity of the linear path at t = {t}", error.abs().max().item() < 1e-8


def convention(answer: Answer) -> Iterator[Test]:
    path, _, x = plane()
    c = answer()
    law = MixturePath(
        Interpolant(sigma=lambda u: (pi * u / 2).sin(), alpha=lambda u: (pi * u / 2).cos()),
        path.target,
    )
    u = torch.tensor(0.3, dtype=torch.float64)
    there = translate(path.velocity, given=book, wanted=c)(u, x)
    yield (
        "from the book to this paper at u = 0.3: the mean of dy/du",
        torch.allclose(there, law.velocity(u, x)),
    )
    t = torch.tensor(0.7, dtype=torch.float64)
    back = translate(law.velocity, given=c, wanted=book)(t, x)
    yield (
        "from this paper to the book at t = 0.7: the velocity of the linear path",
        torch.allclose(back, path.velocity(t, x)),
    )


def score_transport(answer: Answer) -> Iterator[Test]:
    path, t, x = plane()
    v, s = path.velocity, path.score
    residual = lambda velocity, score: answer(SimpleNamespace(velocity=velocity, score=score), t, x)
    right = residual(v, s)
    yield "one vector per point", right.shape == x.shape
    yield "the equation holds on an exact path", right.abs().max().item() < 1e-8
    planted = {
        "a velocity that is late": (lambda t, x: v(t + 0.01, x), s),
        "a velocity that is 1 % too large": (lambda t, x: 1.01 * v(t, x), s),
        "a score on another scale": (v, lambda t, x: 1.1 * s(t, x)),
        "a velocity with a constant added": (lambda t, x: v(t, x) + 0.1, s),
    }
    for mistake, (velocity, score) in planted.items():
        yield f"it sees {mistake}", residual(velocity, score).abs().max().item() > 1e-5
    swirl = lambda t, x: v(t, x) + _turned(s(t, x))
    quiet = residual(swirl, s).abs().max().item() < 1e-8
    yield "a swirl that moves no density is no mistake", quiet


def planted_error(answer: Answer) -> Iterator[Test]:
    path, _, _ = plane()
    v, s = path.velocity, path.score
    right = lambda t, x: v(t, x) + 0.5 * s(t, x)
    swirling = lambda t, x: right(t, x) + 3 * _turned(s(t, x))
    wrong = {
        "a factor lost": lambda t, x: v(t, x) + s(t, x),
        "one part in a thousand": lambda t, x: 1.001 * v(t, x) + 0.5 * s(t, x),
        "late times only": lambda t, x: right(t, x) + per_point(torch.relu(t - 0.8)) * x,
        "early times only": lambda t, x: right(t, x) + per_point(torch.relu(0.1 - t)) * x,
    }
    for mistake, drift in wrong.items():
        drifts = {"plain": right, "strange": swirling, "third": drift}
        yield f"three drifts, one of them wrong: {mistake}", answer(path, drifts) == "third"
    drifts = {"c": wrong["a factor lost"], "a": swirling, "b": right}
    yield "the same in another order and with other names", answer(path, drifts) == "c"


def sample_size(answer: Answer) -> Iterator[Test]:
    for m, s, error, z in ((2.0, 3.0, 0.02, 6.0), (-0.7, 1.3, 0.013, 4.0), (1.0, 0.5, 0.1, 6.0)):
        n = answer(m, s, error, z)
        score = lambda n: sqrt(n) * abs(error * m) / s
        reached = n >= 1 and (score(n) > z or isclose(score(n), z, rel_tol=1e-12))
        yield f"mean {m}, spread {s}, {error:.1%} off: the score reaches {z}", reached
        yield "no smaller number does", score(n - 1) < z
        yield "a whole number", n == int(n)


def _turned(field: torch.Tensor) -> torch.Tensor:
    """The vectors turned by a right angle: added to a drift, a turned score moves no density."""
    return torch.stack([-field[:, 1], field[:, 0]], dim=1)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:noisy-flow": noisy_flow,
    "ex:denoiser": denoiser,
    "ex:convention": convention,
    "ex:score-transport": score_transport,
    "ex:planted": planted_error,
    "ex:samples": sample_size,
}
