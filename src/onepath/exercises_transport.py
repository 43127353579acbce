"""Tests of the exercises of chapters 2 and 3, measures in motion. The answers are not here."""

from collections.abc import Callable, Iterator
from math import isclose

import torch

from .calculus import gradient, jacobian, rate
from .exercises_start import Answer, Test, plane
from .measures import Pushforward
from .verify import continuity, current_correction


def _uneven(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A positive function of the point, different along the two axes."""
    return 1.5 + torch.sin(x[:, 0]) * torch.cos(0.5 * x[:, 1])


def _in_all_directions(a: Callable) -> Callable:
    eye = torch.eye(2, dtype=torch.float64)
    return lambda t, x: a(t, x)[:, None, None] * eye


def lost_divergence(answer: Answer) -> Iterator[Test]:
    """ex:lost-divergence, chapter 3."""
    path, _, x = plane()
    for name, a in {
        "constant noise": lambda t, x: torch.full_like(x[:, 0], 0.7),
        "noise that depends on the state": _uneven,
    }.items():
        matrix = _in_all_directions(a)
        over = lambda t, x, m=matrix: current_correction(path.log_density, m, t, x)
        drift = lambda t, x, over=over: path.velocity(t, x) + over(t, x)
        found = lambda t, x, drift=drift, a=a: answer(drift, a, path.score, t, x)
        for time in (0.3, 0.8):
            t = torch.tensor(time, dtype=torch.float64)
            yield f"one vector per point, {name}", found(t, x).shape == x.shape
            residual = continuity(path.log_density, found, t, x).abs().max()
            yield f"the continuity equation holds, {name}, t = {time}", bool(residual < 1e-8)


def resting_drift(answer: Answer) -> Iterator[Test]:
    """ex:standing, chapter 3."""
    path, t, x = plane()
    frozen = lambda _, x: path.log_density(torch.as_tensor(0.6, dtype=torch.float64), x)
    for name, a in {
        "constant noise": lambda t, x: torch.full_like(x[:, 0], 0.7),
        "noise that depends on the state": _uneven,
    }.items():
        b = answer(frozen, a, t, x)
        yield f"one vector per point, {name}", b.shape == x.shape
        rest = b - current_correction(frozen, _in_all_directions(a), t, x)
        yield f"the current velocity is zero, {name}", bool(rest.abs().max() < 1e-8)


def gaussian_step(answer: Answer) -> Iterator[Test]:
    """ex:jko-gaussian, chapter 3."""
    for m, s, h in ((1.0, 2.0, 0.5), (-0.7, 0.3, 0.1), (2.0, 1.0, 3.0)):
        mean, std = (torch.as_tensor(v, dtype=torch.float64) for v in answer(m, s, h))
        yield f"the deviation is positive, for {m}, {s}, {h}", bool(std > 0)

        def price(_, q, m=m, s=s, h=h):
            """KL to the standard normal up to a constant, and the squared distance over 2h."""
            relative = 0.5 * (q[:, 0] ** 2 + q[:, 1] ** 2) - q[:, 1].log()
            return relative + ((q[:, 0] - m) ** 2 + (q[:, 1] - s) ** 2) / (2 * h)

        slope = gradient(price, mean, torch.stack([mean, std])[None])[0]
        yield f"the mean is stationary, for {m}, {s}, {h}", bool(slope[0].abs() < 1e-9)
        yield f"the deviation is stationary, for {m}, {s}, {h}", bool(slope[1].abs() < 1e-9)


def entropy_change(answer: Answer) -> Iterator[Test]:
    """ex:entropy-sign, chapter 3."""
    for theta, eta, s, d in ((1.0, 0.5, 2.0, 1), (0.3, 1.7, 0.6, 3), (-0.4, 0.9, 1.3, 5)):
        variance = lambda t, k=theta, e=eta, s=s: (
            s**2 * torch.exp(-2 * k * t) + e**2 * (1 - torch.exp(-2 * k * t)) / (2 * k)
        )
        entropy = lambda t, d=d, variance=variance: 0.5 * d * variance(t).log()
        expected = rate(entropy, torch.zeros((), dtype=torch.float64)).item()
        asked = f"the rate for theta = {theta}, eta = {eta}, s = {s}, d = {d}"
        yield asked, isclose(float(answer(theta, eta, s, d)), expected, rel_tol=1e-9)


def coupling_layer(answer: Answer) -> Iterator[Test]:
    """ex:coupling-layer, chapter 2."""
    path, _, y = plane()
    shift = lambda x: 0.5 * x**2 - 1
    for name, k in {
        "k = 0": torch.zeros_like,
        "k = sin": torch.sin,
        "k = -|x|": lambda x: -x.abs(),
    }.items():
        forward = lambda x, k=k: torch.stack(
            [x[:, 0], x[:, 1] * k(x[:, 0]).exp() + shift(x[:, 0])], dim=1
        )
        inverse = lambda y, k=k: torch.stack(
            [y[:, 0], (y[:, 1] - shift(y[:, 0])) * (-k(y[:, 0])).exp()], dim=1
        )
        exact = Pushforward(path.target, forward, inverse).log_prob(y)
        found = answer(path.target.log_prob, k, shift, y)
        yield f"one number per point, {name}", found.shape == exact.shape
        yield f"the density of the images, {name}", bool((found - exact).abs().max() < 1e-9)


def _root(S: torch.Tensor) -> torch.Tensor:
    """The symmetric root of a positive definite matrix of size two, by Cayley and Hamilton."""
    det = torch.linalg.det(S).sqrt()
    return (S + det * torch.eye(2, dtype=S.dtype)) / (S.trace() + 2 * det).sqrt()


def wrong_root(answer: Answer) -> Iterator[Test]:
    """ex:wrong-root, chapter 2."""
    A, B, D = torch.tensor(
        [[[2.0, 0.9], [0.9, 0.5]], [[0.4, -0.5], [-0.5, 1.0]], [[3.0, 0.0], [0.0, 0.2]]],
        dtype=torch.float64,
    )
    pairs = {
        "A = B": (A, A),
        "A = I": (torch.eye(2, dtype=A.dtype), B),
        "diagonal and tilted": (D, A),
        "tilted against each other": (A, B),
    }
    for name, (first, second) in pairs.items():
        both = first @ second
        least = (both.trace() + 2 * torch.linalg.det(both).sqrt()).sqrt()  # tr of the right root
        expected = 2 * (least - (_root(first) @ _root(second)).trace())
        error = abs(float(answer(first, second)) - expected.item())
        yield f"the excess for {name}", error < 1e-7


def shortest_way(answer: Answer) -> Iterator[Test]:
    """ex:shortest-way, chapter 2."""
    _, _, y = plane()
    axes = torch.linalg.qr(torch.tensor([[1.0, 0.3], [0.5, 2.0]], dtype=torch.float64)).Q
    turned = lambda a, b: axes @ torch.diag(torch.tensor([a, b], dtype=torch.float64)) @ axes.T
    m0, m1 = torch.tensor([[0.5, -1.0], [-1.0, 0.8]], dtype=torch.float64)
    root_a, root_b = turned(1.5, 0.4), turned(0.5, 1.2)
    A, B = root_a @ root_a, root_b @ root_b

    def log_density(t, y):
        S = (1 - t) * root_a + t * root_b
        z = torch.linalg.solve(S, (y - (1 - t) * m0 - t * m1).T)
        return -0.5 * (z * z).sum(0) - S.logdet()

    v = lambda t, y: answer(t, y, m0, A, m1, B)
    for time in (0.0, 0.3, 1.0):
        t = torch.tensor(time, dtype=torch.float64)
        residual = continuity(log_density, v, t, y).abs().max()
        yield f"the densities of the geodesic move with it, t = {time}", bool(residual < 1e-8)
        along = torch.einsum("nij,nj->ni", jacobian(v, t, y), v(t, y))
        kept = (rate(lambda s: v(s, y), t) + along).abs().max()
        yield f"every particle keeps its velocity, t = {time}", bool(kept < 1e-8)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:coupling-layer": coupling_layer,
    "ex:wrong-root": wrong_root,
    "ex:shortest-way": shortest_way,
    "ex:lost-divergence": lost_divergence,
    "ex:standing": resting_drift,
    "ex:jko-gaussian": gaussian_step,
    "ex:entropy-sign": entropy_change,
}
