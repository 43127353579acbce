"""Tests of the exercises of chapters 10 and 11, on flow matching and interpolants. The answers are
not here."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from math import cos, sin, tau

import torch

from .calculus import constant, gradient
from .exercises_start import Answer, Test, plane
from .interpolants import bridge, linear, noising_diffusion, trigonometric, variance_preserving
from .measures import Mixture, gaussian
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


def two_losses(answer: Answer) -> Iterator[Test]:
    """ex:two-losses, chapter 10."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    guess, slopes, chances = (
        draw(7, 2),
        draw(7, 3, 2),
        draw(7, 3).softmax(1),
    )  # three slopes a state
    velocity = (chances[..., None] * slopes).sum(1)
    square = lambda off: off.square().sum(-1)
    exact = {
        "loss on the slopes": (chances * square(guess[:, None] - slopes)).sum(1),
        "loss on the velocity": square(guess - velocity),
        "gap": (chances * square(slopes - velocity[:, None])).sum(1),
    }
    means = [torch.zeros(7, dtype=torch.float64) for _ in exact]
    for i, j in torch.cartesian_prod(torch.arange(3), torch.arange(3)).tolist():
        found = answer(guess, slopes[:, i], slopes[:, j])
        yield "three numbers for each state", [part.shape for part in found] == [(7,)] * 3
        means = [m + chances[:, i] * chances[:, j] * part for m, part in zip(means, found)]
    for (name, value), mean in zip(exact.items(), means):
        right = bool(torch.allclose(mean, value))
        yield f"the {name} in the mean over the two slopes, at every state", right


def hidden_score(answer: Answer) -> Iterator[Test]:
    """ex:hidden-score, chapter 10."""
    target, generator = plane()[0].target, torch.Generator().manual_seed(6)
    t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    off = lambda t, x: torch.stack([x[:, 1].sin() + t, x[:, 0] * t - 1], dim=1)
    for name, curves in {
        "linear": linear,
        "trigonometric": trigonometric,
        "variance-preserving": variance_preserving(),
    }.items():
        path, calls = MixturePath(curves, target), []
        noise, x1 = path.ends(50, generator)

        def network(t: torch.Tensor, x: torch.Tensor, p=path, calls=calls) -> torch.Tensor:
            calls.append(x)
            return p.velocity(t, x) + off(t, x)

        found = answer(network, curves, t, noise, x1)
        yield f"{name} path: one loss for each draw", found.shape == (50,)
        yield f"{name} path: one call of the network", len(calls) == 1
        steep = (2 / noising_diffusion(curves)(t) ** 2)[:, None]
        inside = lambda t, x, p=path, k=steep: p.score(t, x) + k * off(t, x)
        exact = denoising_score_matching(inside, curves, t, noise, x1)
        yield f"{name} path: the loss of the score inside", bool(torch.allclose(found, exact))


def two_works(answer: Answer) -> Iterator[Test]:
    """ex:two-works, chapter 10."""
    found = answer()
    yield "a work for each topic", set(found) == {"masked diffusion", "Markovian fitting"}
    yield "two works", len(set(found.values())) == 2
    marks = {"masked diffusion": "a9e3ded26663", "Markovian fitting": "ea5b0bf040e0"}
    for topic, known in marks.items():
        name, year = found[topic]
        author = f"{name[:1]}. {name.split()[-1]}"  # the first name may be written out
        here = sha256(f"{author}, {year}".encode()).hexdigest()[:12]
        yield f"first author and year of the work on {topic}", here == known


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
    "ex:two-losses": two_losses,
    "ex:hidden-score": hidden_score,
    "ex:two-works": two_works,
    "ex:third-guess": third_guess,
    "ex:own-speed": own_speed,
    "ex:find-gamma": found_gamma,
}
