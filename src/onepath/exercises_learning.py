"""Tests of the exercises of part II, learning. The answers are not here."""

from collections.abc import Callable, Iterator

import torch

from .calculus import gradient
from .exercises_start import Answer, Test
from .interpolants import linear, trigonometric, variance_preserving
from .measures import Mixture
from .metrics import wasserstein2
from .oracles import MixturePath
from .verify import continuity, fokker_planck


def _circle() -> tuple[MixturePath, torch.Tensor]:
    """The trigonometric path to two modes of the plane, and a few points."""
    target = Mixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.tensor([[-1.5, 0.5], [1.0, -1.0]], dtype=torch.float64),
        torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, 0.0], [0.0, 0.4]]], dtype=torch.float64),
    )
    x = torch.linspace(-2, 2, 14, dtype=torch.float64).reshape(7, 2)
    return MixturePath(trigonometric, target), x


def trigonometric_score(answer: Answer) -> Iterator[Test]:
    """ex:trigonometric-score, chapter 13."""
    path, x = _circle()
    for at in (0.2, 0.5, 0.9):
        t = torch.tensor(at, dtype=torch.float64)
        exact = gradient(path.log_density, t, x)
        error = answer(t, x, path.velocity(t, x)) - exact
        yield f"the gradient of the log-density at t = {at}", error.abs().max().item() < 1e-8


def fading_noise(answer: Answer) -> Iterator[Test]:
    """ex:fading-noise, chapter 13."""
    path, x = _circle()
    for c in (0.0, 0.5, 2.0):
        eta = lambda t, c=c: (2 * c * trigonometric.sigma(t)).sqrt()
        drift = lambda t, x, c=c: answer(t, x, path.velocity(t, x), c)
        for at in (0.3, 0.8):
            t = torch.tensor(at, dtype=torch.float64)
            residual = fokker_planck(path.log_density, drift, eta, t, x)
            yield (
                f"the densities satisfy Fokker–Planck for c = {c} at t = {at}",
                residual.abs().max().item() < 1e-8,
            )
    end = torch.tensor(1.0, dtype=torch.float64)
    value = answer(end, x, path.velocity(end, x), 1.0)
    yield "a finite drift at t = 1", bool(value.isfinite().all() and value.abs().max() < 1e3)


def class_copy(answer: Answer) -> Iterator[Test]:
    """ex:class-copy, chapter 13."""
    _, x = _circle()
    points = torch.tensor(
        [[-1.0, 0.2], [0.7, 0.9], [0.1, -1.3], [1.2, -0.4], [-0.6, -0.8]], dtype=torch.float64
    )
    labels = torch.tensor([0, 1, 0, 1, 1])
    for y in (0, 1):
        own = points[labels == y]

        def log_density(t, x, own=own):
            square = (x[:, None] - t * own).square().sum(2)
            return (-square / (2 * (1 - t) ** 2)).logsumexp(1) - 2 * (1 - t).log()

        field = lambda t, x, y=y: answer(points, labels, y, t, x)
        for at in (0.1, 0.6):
            t = torch.tensor(at, dtype=torch.float64)
            residual = continuity(log_density, field, t, x)
            yield (
                f"the density of the points of class {y} moves with this field at t = {at}",
                residual.abs().max().item() < 1e-8,
            )
        t = torch.tensor(0.99, dtype=torch.float64)
        landed = own + 0.01 * field(t, own)
        yield "a last step from near a point lands on it", (landed - own).abs().max().item() < 1e-6


def find_implicit(answer: Answer) -> Iterator[Test]:
    """ex:find-implicit, chapter 8."""
    generator = torch.Generator().manual_seed(8)
    for d in (1, 2, 3):
        x = torch.randn(6, d, generator=generator, dtype=torch.float64)
        M = torch.randn(d, d, generator=generator, dtype=torch.float64)
        net = lambda x, M=M: (x @ M.mT).sin()
        phase = x @ M.mT  # the derivative of sin in coordinate i by coordinate i
        exact = 0.5 * phase.sin().square().sum(1) + (phase.cos() * M.diagonal()).sum(1)
        error = answer(net, x) - exact
        yield f"the loss in {d} dimensions", error.abs().max().item() < 1e-9


def plugged_in(answer: Answer) -> Iterator[Test]:
    """ex:plugged-in, chapter 8."""
    _, x = _circle()
    for interpolant in (trigonometric, linear):
        path = MixturePath(interpolant, _circle()[0].target)
        for at in (0.3, 0.8):
            t = torch.tensor(at, dtype=torch.float64)
            spread = path.denoiser_cov(t, x).diagonal(dim1=1, dim2=2).sum(1)
            exact = interpolant.alpha(t) ** 2 / interpolant.variance(t) ** 2 * spread
            error = answer(path.denoiser, interpolant, t, x) - exact
            yield f"the distance at t = {at}", error.abs().max().item() < 1e-7


def quiet_target(answer: Answer) -> Iterator[Test]:
    """ex:quiet-target, chapter 8."""
    mean, noise = 0.4, torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
    for alpha, sigma, c in ((0.5, 0.5, 1.0), (0.9, 0.2, 0.3), (0.2, 1.5, 4.0)):
        state = 0.7
        data = (state - sigma * noise) / alpha  # all of them lead to the same state
        kappa = answer(alpha, sigma, c)
        targets = -kappa * noise / sigma - (1 - kappa) * (data - mean) / (c * alpha)
        spread = (targets - targets.mean()).abs().max().item()
        yield f"no variance for alpha, sigma, c = {alpha}, {sigma}, {c}", spread < 1e-9


def half_line(answer: Answer) -> Iterator[Test]:
    """ex:half-line, chapter 8."""
    x = torch.linspace(0, 40, 40_001, dtype=torch.float64)
    weight = torch.full_like(x, 1e-3)
    weight[[0, -1]] *= 0.5
    cases = {
        "waiting times": (lambda x: -x, lambda x: -torch.ones_like(x)),
        "the positive half of a normal": (lambda x: -0.5 * x**2, lambda x: -x),
    }
    for name, (log_density, score) in cases.items():
        law = weight * log_density(x).exp()
        law = law / law.sum()
        constant = 0.5 * law @ (x * score(x) ** 2)
        for field, slope in (
            (lambda x: torch.full_like(x, -0.5), torch.zeros_like),
            (lambda x: (2 * x).sin() - 1, lambda x: 2 * (2 * x).cos()),
        ):
            distance = 0.5 * law @ (x * (field(x) - score(x)) ** 2)
            loss = answer(field(x), slope(x), x)
            gap = (law @ loss + constant - distance).abs().item()
            yield f"half of the weighted distance, for {name}", gap < 1e-5
            ends = [0, 20_000, 40_000]
            alone = [answer(field(x[[i]]), slope(x[[i]]), x[[i]]) for i in ends]
            same = (torch.cat(alone) - loss[ends]).abs().max().item() < 1e-9
            yield "one loss for each point", same


def their_v(answer: Answer) -> Iterator[Test]:
    """ex:their-v, chapter 9."""
    _, x = _circle()
    for name, schedule in (("variance-preserving", variance_preserving()), ("linear", linear)):
        path = MixturePath(schedule, _circle()[0].target)

        def theirs(t, x, path=path, i=schedule):
            noise = -i.sigma(t) * gradient(path.log_density, t, x)
            return i.sigma(t) * path.denoiser(t, x) - i.alpha(t) * noise

        for at in (0.2, 0.7):
            t = torch.tensor(at, dtype=torch.float64)
            error = answer(schedule, theirs, t, x) - path.denoiser(t, x)
            yield (
                f"the mean of the data on the {name} path at t = {at}",
                error.abs().max().item() < 1e-8,
            )


def step_weight(answer: Answer) -> Iterator[Test]:
    """ex:step-weight, chapter 9."""
    for a, b in ((0.2, 0.5), (0.6, 0.65), (0.9, 0.99)):
        alpha, beyond = (torch.tensor(v, dtype=torch.float64) for v in (a, b))
        sigma, later = (1 - alpha**2).sqrt(), (1 - beyond**2).sqrt()
        kept = alpha * later / (beyond * sigma)  # of the noise in the state
        x1, eps, nu = (torch.tensor(v, dtype=torch.float64) for v in (0.7, -1.1, 0.4))
        x = alpha * x1 + sigma * eps
        guess = alpha * x - sigma * nu
        means = [beyond * m + kept * later * (x - alpha * m) / sigma for m in (x1, guess)]
        std = later * (1 - kept**2).sqrt()
        laws = (torch.distributions.Normal(mean, std) for mean in means)
        exact = torch.distributions.kl_divergence(*laws)
        error = answer(a, b) * (alpha * eps - sigma * x1 - nu) ** 2 - exact
        yield (
            f"the divergence of the two Gaussians for the step from {a} to {b}",
            bool(abs(error) < 1e-9),
        )


def several_noises(answer: Answer) -> Iterator[Test]:
    """ex:several-noises, chapter 9."""
    means = torch.tensor([3.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    variances = torch.tensor([0.2, 4.0, 1.0, 0.3], dtype=torch.float64)
    for n in (1, 3, 50):
        p = answer(means, variances, n)
        yield "probabilities, one for each bin", p.shape == (4,) and bool((p > 0).all())
        yield "they sum to one", bool((p.sum() - 1).abs() < 1e-9)
        second = lambda q, n=n: ((means**2 + variances / n) / q).sum()
        for k in range(4):
            for move in (1e-3, -1e-3):
                other = p * (1 + move * (torch.arange(4) == k))
                better = second(other / other.sum()) < second(p) - 1e-12
                yield f"no other probabilities are better, with n = {n}", not bool(better)


def shifted_data(answer: Answer) -> Iterator[Test]:
    """ex:shifted-data, chapter 9."""
    for alpha, sigma, m, C in ((0.3, 0.7, 2.0, 0.5), (1.0, 3.0, -1.0, 4.0), (0.8, 0.6, 0.0, 1.0)):
        skip, shift, out = (float(v) for v in answer(alpha, sigma, m, C))
        centre = m - skip * alpha * m - shift
        yield "the target has mean zero", abs(centre) < 1e-9
        left = lambda c, a=alpha, s=sigma, C=C: (1 - c * a) ** 2 * C + c**2 * s**2
        yield "the target has variance one", out > 0 and abs(left(skip) / out**2 - 1) < 1e-9
        least = min(left(skip + 1e-3), left(skip - 1e-3))
        yield "no other skip leaves less", left(skip) <= least


def class_pairs(answer: Answer) -> Iterator[Test]:
    """ex:class-pairs, chapter 13."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    x0 = torch.randn(24, 2, generator=generator, dtype=torch.float64)
    x1 = torch.randn(24, 2, generator=generator, dtype=torch.float64) + 2 * y[:, None]
    a, b, labels = answer(x0, x1, y, generator)
    known = {tuple(row): label for row, label in zip(x1.tolist(), y.tolist())}
    met = [known.get(tuple(row)) for row in b.tolist()]
    yield "each image comes with its own label", met == labels.tolist()
    for c in range(3):
        wanted, mine = sorted(x0[y == c].tolist()), sorted(a[labels == c].tolist())
        yield f"the noises of class {c} are those that stood beside it", wanted == mine
        cost = (a - b)[labels == c].square().sum().item()
        least = 8 * wasserstein2(x0[y == c], x1[y == c]) ** 2
        yield f"no pairs of class {c} are cheaper", abs(cost - least) < 1e-8


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:trigonometric-score": trigonometric_score,
    "ex:fading-noise": fading_noise,
    "ex:class-copy": class_copy,
    "ex:class-pairs": class_pairs,
    "ex:find-implicit": find_implicit,
    "ex:plugged-in": plugged_in,
    "ex:quiet-target": quiet_target,
    "ex:half-line": half_line,
    "ex:their-v": their_v,
    "ex:step-weight": step_weight,
    "ex:several-noises": several_noises,
    "ex:shifted-data": shifted_data,
}
