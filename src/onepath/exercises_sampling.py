"""Tests of the exercises of chapters 14 to 16, samplers and guidance. The answers are not here."""

from collections.abc import Callable, Iterator

import torch

from .dynamics import Dynamics
from .exercises_start import Answer, Test, plane
from .interpolants import linear, noising_diffusion, variance_exploding, variance_preserving
from .inverse import exact_likelihood, exact_posterior, linear_likelihood
from .measures import gaussian
from .oracles import MixturePath
from .samplers import ddim
from .solvers import integrate, rk4, times
from .verify import fokker_planck


def straight_score(answer: Answer) -> Iterator[Test]:
    """ex:straight-score, chapter 14."""
    x = torch.linspace(-1.5, 2, 6, dtype=torch.float64)[:, None]
    s = -x.sin() - 0.5
    for t, t_next, zeta in ((0.2, 0.6, 0.0), (0.2, 0.6, 1.0), (0.5, 0.9, 0.7)):
        square = lambda u: 2 * (1 - u) / u

        def both(u: torch.Tensor, m: torch.Tensor, zeta: float = zeta) -> torch.Tensor:
            drift = m[:, :1] / u + 0.5 * (1 + zeta**2) * square(u) * s
            return torch.cat([drift, 2 * m[:, 1:] / u + zeta**2 * square(u)], dim=1)

        start = torch.cat([x, 0 * x], dim=1)
        mean, variance = integrate(rk4(Dynamics(both)), start, times(100, t, t_next)).chunk(2, 1)
        found, spread = answer(x, s, t, t_next, zeta)
        where = f"from {t} to {t_next} at zeta = {zeta}"
        yield f"the mean {where}", bool((found - mean).abs().max() < 1e-6)
        yield f"the variance {where}", bool((spread - variance).abs().max() < 1e-6)


def flow_sde(answer: Answer) -> Iterator[Test]:
    """ex:flow-sde, chapter 14."""
    x = torch.linspace(-1.5, 2, 8, dtype=torch.float64).reshape(4, 2)
    v, draw = x.flip(1).sin() + 0.3, x.cos()
    for t, t_next in ((0.2, 0.6), (0.0, 0.3), (0.7, 1.0), (0.0, 1.0)):
        for zeta in (0.0, 1.0, 0.6):
            clock = torch.tensor([t, t_next], dtype=torch.float64)
            step = ddim(lambda s, y: y + (1 - s) * v, linear, zeta)
            exact, _ = step(x, clock[0], clock[1], lambda: draw, None)
            found = answer(x, v, t, t_next, zeta, draw)
            yield (
                f"from {t} to {t_next} at zeta = {zeta}",
                bool(found.isfinite().all() and (found - exact).abs().max() < 1e-8),
            )


def multistep_slip(answer: Answer) -> Iterator[Test]:
    """ex:multistep-slip, chapter 14."""
    for before, now, after in ((0.0, 1.0, 2.0), (0.0, 0.5, 2.0), (-1.0, 1.2, 1.5)):
        newest, older = (float(w) for w in answer(before, now, after))
        nodes = f"for {before}, {now}, {after}"
        yield f"a guess that stays is kept, {nodes}", abs(newest + older - 1) < 1e-9
        halfway = newest * now + older * before
        yield (
            f"one that moves along a line is met half way through the step, {nodes}",
            abs(halfway - 0.5 * (now + after)) < 1e-9,
        )


def one_noise(answer: Answer) -> Iterator[Test]:
    """ex:one-noise, chapter 15."""
    generator = torch.Generator().manual_seed(15)
    dW = torch.randn(240, 50, 1, generator=generator, dtype=torch.float64) / 240**0.5
    x = torch.linspace(0.5, 2, 50, dtype=torch.float64)[:, None]
    for k in (1, 6, 40):
        moved = answer(torch.zeros_like, torch.ones_like, x, dW, k)
        right = bool(torch.allclose(moved, x + dW.sum(0)))
        yield f"pure noise arrives where Brownian motion does, k = {k}", right
        grown = answer(lambda x: 0.7 * x, lambda x: 0 * x, x, dW, k)
        steps = 240 // k
        yield (
            f"without noise, x' = 0.7 x in {steps} Euler steps",
            bool(torch.allclose(grown, x * (1 + 0.7 / steps) ** steps)),
        )
    exact = (-0.5 * 0.6**2 + 0.6 * dW.sum(0)).exp() * x
    gaps = [answer(torch.zeros_like, lambda x: 0.6 * x, x, dW, k) - exact for k in (40, 1)]
    coarse, fine = (gap.square().mean() for gap in gaps)
    yield "a finer run comes closer to the solution on the same noise", bool(6 * fine < coarse)


def twice(answer: Answer) -> Iterator[Test]:
    """ex:twice, chapter 15."""
    value = lambda h: 1.7 - 0.8 * h + 2.3 * h**2
    found = float(answer(value(0.4), value(0.2), value(0.1)))
    yield "exact where the error is C h + C' h²", abs(found - 1.7) < 1e-9
    cubic = lambda h: 1 + h**3
    left = float(answer(cubic(0.4), cubic(0.2), cubic(0.1))) - 1
    yield "of an error h³ an eighth is left", abs(left - 0.4**3 / 8) < 1e-9
    three = torch.tensor([[1.0, 2.0], [1.5, 1.5], [1.75, 1.25]], dtype=torch.float64)
    yield (
        "it takes tensors, and a mean of equal values is that value",
        bool(torch.allclose(answer(*three), torch.tensor([2.0, 1.0], dtype=torch.float64))),
    )


def remembering(answer: Answer) -> Iterator[Test]:
    """ex:remembering, chapter 15."""
    for h, p, q in ((0.3, 0.0, 1.0), (0.7, 1.0, 0.0), (1.5, 0.5, 0.5), (0.9, 0.8, -0.3)):
        a, size = 1 - h, (2 * h) ** 0.5
        state, both = 0.0, 0.0  # the variance, and the covariance with the last draw
        for _ in range(2000):
            state = a**2 * state + 2 * h * (p**2 + q**2) + 2 * a * size * p * both
            both = size * q
        found = float(answer(h, p, q))
        yield f"the variance at rest for h = {h}, p = {p}, q = {q}", abs(found - state) < 1e-8


def equal_worth(answer: Answer) -> Iterator[Test]:
    """ex:equal-worth, chapter 15."""
    fine = torch.linspace(0.2, 0.9, 2001, dtype=torch.float64)
    flat = answer(fine, torch.full_like(fine, 3.0), 7)
    even = torch.linspace(0.2, 0.9, 8, dtype=torch.float64)
    yield "equal weights, equal steps", bool(torch.allclose(flat, even, atol=1e-6))
    w = 1 / (1.0 - fine) ** 4  # its root integrates to 1 / (1 - t)
    grid = answer(fine, w, 10)
    yield (
        "n + 1 increasing times, with the ends",
        bool(
            grid.shape == (11,)
            and (grid.diff() > 0).all()
            and (grid[[0, -1]] - fine[[0, -1]]).abs().max() < 1e-6
        ),
    )
    exact = 1 - 1 / torch.linspace(1 / 0.8, 1 / 0.1, 11, dtype=torch.float64)
    yield "equal parts of the integral of the root", bool((grid - exact).abs().max() < 1e-3)


def other_member(answer: Answer) -> Iterator[Test]:
    """ex:other-member, chapter 16."""
    path, t, x = plane()
    part = MixturePath(path.interpolant, gaussian(path.target.means[0], path.target.covs[0]))
    push = part.score(t, x) - path.score(t, x)
    g = noising_diffusion(path.interpolant)(t).item()
    for eta in (0.0, 0.6, g, 2.0):
        found = answer(path.velocity(t, x), path.score(t, x), push, g, eta)
        exact = part.velocity(t, x) + 0.5 * eta**2 * part.score(t, x)
        yield (
            f"the drift for η = {eta:.2f} and g = {g:.2f}",
            bool((found - exact).abs().max() < 1e-8),
        )


def two_experts(answer: Answer) -> Iterator[Test]:
    """ex:two-experts, chapter 16."""
    path, _, x = plane()
    vp, target = variance_preserving(0.1, 20.0), path.target
    a, b = MixturePath(vp, target), MixturePath(vp, gaussian(target.means[1], target.covs[0]))
    both = lambda t, x: a.log_density(t, x) + b.log_density(t, x)
    beta = lambda t: 0.1 + 19.9 * (1 - t)
    drift = lambda t, x: beta(t) * (0.5 * x + a.score(t, x) + b.score(t, x))
    for at in (0.2, 0.7):
        t = torch.tensor(at, dtype=torch.float64)
        exact = fokker_planck(both, drift, lambda t: beta(t).sqrt(), t, x)
        found = answer(beta(t).item(), a.score(t, x), b.score(t, x))
        close = (found - exact).abs().max() < 1e-8 * exact.abs().max()
        yield f"what the density outgrows the sampler by, at t = {at}", bool(close)
    line = torch.tensor([[0.5], [-2.0]], dtype=torch.float64)  # two N(0, I): s = -x
    for d in (1, 3):
        s = line.expand(-1, d)
        found = answer(0.8, s, s)  # the product is N(0, I/2) up to a constant, at every time
        exact = 0.8 * (d * line[:, 0] ** 2 - 0.5 * d)
        yield f"two standard normals in d = {d}", bool((found - exact).abs().max() < 1e-9)


def honest_noise(answer: Answer) -> Iterator[Test]:
    """ex:honest-noise, chapter 16."""
    turn = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    y, x = turn.new_tensor([0.4, -1.0]), turn.new_tensor([[0.3, -0.2, 1.1], [2.0, 0.5, -0.7]])
    mean, eye = turn.new_tensor([0.5, -0.1, 0.2]), torch.eye(3, dtype=torch.float64)
    for c, at, noise in ((1.0, 0.3, 0.5), (2.5, 0.6, 0.1), (0.2, 0.9, 1.0)):
        path, t = MixturePath(linear, gaussian(mean, c * eye)), turn.new_tensor(at)
        kappa = float(answer(c, at, 1 - at, noise))
        found = linear_likelihood(path.denoiser, turn, y, kappa)(t, x)
        exact = exact_likelihood(path, turn, y, noise)(t, x)
        yield (
            f"the exact likelihood for c = {c}, t = {at} and noise {noise}",
            torch.allclose(found, exact, rtol=0, atol=1e-8),
        )


def told_start(answer: Answer) -> Iterator[Test]:
    """ex:told-start, chapter 16."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    for c, sigma, noise, y in ((1.0, 2.0, 0.5, 1.5), (4.0, 1.5, 1.0, -2.0)):
        after = exact_posterior(gaussian(zero, c * one), one, zero + y, noise)
        start = MixturePath(variance_exploding(0.01, sigma), after)
        mean, variance = (float(value) for value in answer(c, sigma, noise, y))
        yield "the mean of the start", abs(mean - start.means(zero[0]).item()) < 1e-9
        yield "its variance", abs(variance - start.covs(zero[0]).item()) < 1e-9


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:straight-score": straight_score,
    "ex:flow-sde": flow_sde,
    "ex:multistep-slip": multistep_slip,
    "ex:one-noise": one_noise,
    "ex:twice": twice,
    "ex:remembering": remembering,
    "ex:equal-worth": equal_worth,
    "ex:other-member": other_member,
    "ex:two-experts": two_experts,
    "ex:honest-noise": honest_noise,
    "ex:told-start": told_start,
}
