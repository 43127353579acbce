"""Tests of the exercises on flow matching, interpolants and couplings. The answers are not here."""

from collections.abc import Callable, Iterator
from math import cos, sin, tau

import torch

from .calculus import constant, gradient
from .exercises_start import Answer, Test, plane
from .interpolants import bridge, linear
from .measures import Mixture, gaussian
from .metrics import gaussian_wasserstein2
from .objectives import denoising_score_matching, flow_matching
from .oracles import MixturePath
from .verify import fokker_planck


def _islands() -> MixturePath:
    """The linear path from two islands of the plane to the target of `plane`, independent ends."""
    means = torch.tensor([[-1.0, 0.6], [1.2, -0.4]], dtype=torch.float64)
    covs = torch.tensor([[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]], dtype=torch.float64)
    return MixturePath(
        linear, plane()[0].target, Mixture(means.new_tensor([0.4, 0.6]), means, covs)
    )


def unused_base(answer: Answer) -> Iterator[Test]:
    """ex:unused-base, chapter 10."""
    path, generator = _islands(), torch.Generator().manual_seed(3)
    x0, x1 = path.ends(50, generator)
    t = torch.linspace(0.05, 0.9, 50, dtype=torch.float64)
    field = lambda t, x: torch.stack([x[:, 1].sin() + t, x[:, 0] * x[:, 1]], dim=1)
    expected = flow_matching(field, linear, t, x0, x1)
    found = answer(field, t, x0, x1)
    yield "one number for each pair", found.shape == (50,)
    yield (
        "the squared error of the field at the state between the two ends",
        bool(torch.allclose(found, expected)),
    )
    ends = answer(field, torch.ones(50, dtype=torch.float64), x0, x1)
    yield "finite at t = 1", bool(ends.isfinite().all())


def coloured_base(answer: Answer) -> Iterator[Test]:
    """ex:coloured-base, chapter 10."""
    path, _, x = plane()
    mean = torch.tensor([0.7, -1.1], dtype=torch.float64)
    cov = torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=torch.float64)
    coloured = MixturePath(linear, path.target, gaussian(mean, cov))
    for at in (0.0, 0.3, 0.8):
        t = torch.tensor(at, dtype=torch.float64)
        found = answer(t, x, coloured.velocity(t, x), mean, cov)
        exact = gradient(coloured.log_density, t, x)
        yield (
            f"the gradient of the log-density at t = {at}",
            bool((found - exact).abs().max() < 1e-8),
        )


def loss_floor(answer: Answer) -> Iterator[Test]:
    """ex:loss-floor, chapter 10."""
    turns = [(k + 0.5) / 4000 for k in range(4000)]  # the midpoint rule, in the angle of (1 - t, t)
    for A, C, r in ((1.0, 1.0, 0.0), (1.0, 2.5, 0.0), (0.4, 2.0, 0.6), (1.5, 0.7, -0.8)):
        K = r * (A * C) ** 0.5
        angles = [(u * tau / 4, tau / 4 / 4000) for u in turns]
        shape = lambda a: A * cos(a) ** 2 + C * sin(a) ** 2 + 2 * K * sin(a) * cos(a)
        exact = sum((A * C - K**2) / shape(a) * da for a, da in angles)
        yield (
            f"the mean conditional variance of the slope for A = {A}, C = {C}, r = {r}",
            abs(float(answer(A, C, r)) - exact) < 1e-5,
        )


def score_target(answer: Answer) -> Iterator[Test]:
    """ex:score-target, chapter 10."""
    normal, generator = plane()[0], torch.Generator().manual_seed(4)
    t = 0.05 + 0.85 * torch.rand(20_000, generator=generator, dtype=torch.float64)
    x0, x1 = normal.ends(20_000, generator)
    found = answer(t, x0, x1, normal.base.score)
    yield "one target for each pair, with the coordinates of a state", found.shape == x0.shape
    zero = lambda t, x: torch.zeros_like(x)
    usual = denoising_score_matching(zero, linear, t, x0, x1)
    yield (
        "a normal base: the target of denoising score matching",
        bool(torch.allclose(found.square().sum(1), usual)),
    )
    path = _islands()
    x0, x1 = path.ends(20_000, generator)
    x = linear(t, x0, x1)
    off = (answer(t, x0, x1, path.base.score) - path.score(t, x)) * (1 - t)[:, None]
    for name, test in (("1", torch.ones_like(x)), ("sin x", x.sin()), ("x", x)):
        product = (off * test).sum(1)
        errors = product.mean().abs() / (product.std() / len(product) ** 0.5)
        yield f"islands as base: the error is uncorrelated with {name}", bool(errors < 4.5)


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


def third_guess(answer: Answer) -> Iterator[Test]:
    """ex:third-guess, chapter 11."""
    for level in (0.4, 1.7):
        path, t, x = _two_sided(level)
        slope = path.denoiser(t, x) - path.base_denoiser(t, x)
        found = answer(level, t, x, slope, path.latent_denoiser(t, x))
        score = gradient(path.log_density, t, x)
        gap = (found - path.velocity(t, x) - 0.5 * level * score).abs().max()
        yield f"velocity plus half of τ times the score, at τ = {level}", bool(gap < 1e-9)


def own_speed(answer: Answer) -> Iterator[Test]:
    """ex:own-speed, chapter 11."""
    angles = (torch.arange(2000, dtype=torch.float64) + 0.5) * torch.pi / 2000
    t = (1 + angles.cos()) / 2
    for level, e_v, e_z in ((1.0, 1.0, 1.0), (0.3, 0.2, 1.5), (4.0, 2.0, 0.1)):
        gamma = (level * t * (1 - t)).sqrt()
        in_angle = (t * (1 - t)).sqrt() * torch.pi / 2000
        cost = lambda c, g=gamma, w=in_angle, v=e_v, z=e_z: (
            ((v**2 + c**2 * z**2) / (4 * c * g) * w).sum().item()
        )
        c, least = (float(value) for value in answer(level, e_v, e_z))
        yield (
            f"no better speed near by, for τ = {level} and errors {e_v} and {e_z}",
            c > 0 and cost(c) < min(cost(0.99 * c), cost(1.01 * c)),
        )
        yield "the bound at that speed", abs(least / cost(c) - 1) < 1e-4


def found_gamma(answer: Answer) -> Iterator[Test]:
    """ex:find-gamma, chapter 11."""
    for level in (0.4, 1.7):
        path, _, x = _two_sided(level)
        drift = lambda t, x, p=path, k=level: answer(p.velocity, p.latent_denoiser, k, t, x)
        for at in (0.15, 0.7):
            time = torch.tensor(at, dtype=torch.float64)
            eta = constant(level**0.5)
            residual = fokker_planck(path.log_density, drift, eta, time, x).abs().max()
            yield f"Fokker–Planck with η² = τ = {level}, at t = {at}", bool(residual < 1e-8)


def _two_sided(tau: float) -> tuple[MixturePath, torch.Tensor, torch.Tensor]:
    """A bridge between two mixtures that are not centred, with times and points to look at it."""
    path, _, x = plane()
    base = Mixture(path.target.weights, path.target.means.flip(1) + 0.5, 0.8 * path.target.covs)
    t = torch.linspace(0.1, 0.9, len(x), dtype=torch.float64)
    return MixturePath(bridge(tau), path.target, base), t, x


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:unused-base": unused_base,
    "ex:coloured-base": coloured_base,
    "ex:loss-floor": loss_floor,
    "ex:score-target": score_target,
    "ex:straightness": bent_flow,
    "ex:one-point": pairs_once,
    "ex:how-warm": warm_pairs,
    "ex:wasteful": wasteful_pairs,
    "ex:third-guess": third_guess,
    "ex:own-speed": own_speed,
    "ex:find-gamma": found_gamma,
}
