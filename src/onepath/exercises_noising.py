"""Tests of the exercises of chapters 4 and 5, noising and reversal. The answers are not here."""

from collections.abc import Callable, Iterator
from math import log

import torch

from .exercises_start import Answer, Test, plane
from .interpolants import (
    Interpolant,
    linear,
    noising_diffusion,
    trigonometric,
    variance_exploding,
    variance_preserving,
)
from .noising import noising_kernel
from .oracles import MixturePath
from .verify import fokker_planck


def schedule_map(answer: Answer) -> Iterator[Test]:
    """ex:schedule-map, chapter 4."""
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    omega = 0.5 * torch.pi
    noise = 5 * 0.02**t
    cases = {
        "linear": (linear, 2 * (1 - t) / t),
        "trigonometric": (trigonometric, 2 * omega / (omega * t).tan()),
        "VP": (variance_preserving(0.2, 8.0), 0.2 + (1 - t) * 7.8),
        "VE": (variance_exploding(0.1, 5.0), 2 * log(50) * noise**2),
    }
    for name, (path, square) in cases.items():
        found = torch.as_tensor(answer(path.alpha, path.sigma, t))
        yield f"one level per time, on the {name} schedule", found.shape == t.shape
        error = (found - square.sqrt()).abs().max()
        yield f"the noise level of the {name} schedule", bool(error < 1e-9)


def two_states(answer: Answer) -> Iterator[Test]:
    """ex:two-states, chapter 4: the answer is linear in its draws, so its law is a matrix."""
    one, nil = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for name, path in (("linear", linear), ("VP", variance_preserving(0.2, 8.0))):
        for t, s in ((0.3, 0.8), (0.5, 0.55)):
            t, s = (torch.tensor(time, dtype=torch.float64) for time in (t, s))
            parts = ((one, nil, nil), (nil, one, nil), (nil, nil, one))
            data, z, w = (
                torch.stack([torch.as_tensor(x).flatten()[0] for x in answer(path, t, s, *part)])
                for part in parts
            )
            cov = torch.outer(z, z) + torch.outer(w, w)
            scale, _ = noising_kernel(path, t, s)
            shared = scale * path.variance(s)
            for told, error in (
                ("the means", data - torch.stack([path.alpha(t), path.alpha(s)])),
                ("each variance", cov.diag() - torch.stack([path.variance(t), path.variance(s)])),
                ("the covariance of the two", cov[0, 1] - shared),
            ):
                yield (
                    f"{told}, given the data, on the {name} path at {t:g} and {s:g}",
                    bool(error.abs().max() < 1e-9),
                )


def own_schedule(answer: Answer) -> Iterator[Test]:
    """ex:own-schedule, chapter 4."""
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    for ell in (2.0, 5.0):
        alpha, sigma, g2, bound = answer(ell)
        snr = 2 * (alpha(t).log() - sigma(t).log())
        yield (
            f"the curves keep the variance, ell = {ell:g}",
            bool((alpha(t) ** 2 + sigma(t) ** 2 - 1).abs().max() < 1e-9),
        )
        yield (
            f"half the log-SNR is a line from {-ell:g} to {ell:g}",
            bool((0.5 * snr - ell * (2 * t - 1)).abs().max() < 1e-9),
        )
        square = noising_diffusion(Interpolant(sigma, alpha))(t) ** 2
        yield (
            f"the square of the noise level, ell = {ell:g}",
            bool((g2(t) - square).abs().max() < 1e-9),
        )
        start = 0.5 * snr[0].exp()
        yield f"the bound on the start, ell = {ell:g}", bool(abs(bound - start) < 1e-9)


def pasted_drift(answer: Answer) -> Iterator[Test]:
    """ex:pasted-drift, chapter 5."""
    path, _, x = plane()
    for low, high in ((0.2, 8.0), (3.0, 3.0)):
        beta = lambda r, low=low, high=high: low + r * (high - low)
        vp = MixturePath(variance_preserving(low, high), path.target)
        for t in (0.2, 0.7):
            now = torch.tensor(t, dtype=torch.float64)
            drift = lambda t, x, vp=vp, beta=beta: answer(beta, vp.score, t, x)
            level = lambda t, beta=beta: beta(1 - t).sqrt()
            residual = fokker_planck(vp.log_density, drift, level, now, x).abs().max()
            yield (
                f"Fokker–Planck with the noise of β, which is {beta(1 - t):g} at t = {t}",
                bool(residual < 1e-9),
            )


def forgetting(answer: Answer) -> Iterator[Test]:
    """ex:forgetting, chapter 5: the integral of η²/S by Simpson's rule."""
    share = torch.linspace(0, 1, 2001, dtype=torch.float64)
    weights = torch.ones(2001, dtype=torch.float64)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    for name, schedule in (("VP", variance_preserving(0.2, 8.0)), ("linear", linear)):
        for v, k, t, u in ((0.3, 1.0, 0.3, 0.8), (0.3, 2.0, 0.3, 0.8), (2.0, 0.5, 0.4, 0.7)):
            t, u = (torch.tensor(value, dtype=torch.float64) for value in (t, u))
            S = lambda r, schedule=schedule, v=v: v * schedule.alpha(r) ** 2 + schedule.variance(r)
            between = t + (u - t) * share
            rates = (k * noising_diffusion(schedule)(between)) ** 2 / S(between)
            forgotten = 0.5 * (u - t) * (rates @ weights) / 6000
            error = answer(schedule, v, k, t, u) - (S(t) * S(u)).sqrt() * (-forgotten).exp()
            yield (
                f"{name} path, variance {v:g}, noise {k:g} g, t = {t:g} and u = {u:g}",
                bool(error.abs() < 1e-9),
            )


def drift_to_gaussian(answer: Answer) -> Iterator[Test]:
    """ex:foellmer-gaussian, chapter 5."""
    z = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    for m, v in ((0.0, 0.25), (0.7, 0.5), (-1.0, 1.0)):
        log_f = lambda y, m=m, v=v: -0.5 * (y - m) ** 2 / v + 0.5 * y**2
        for t in (0.0, 0.4, 0.9):
            time = torch.tensor(t, dtype=torch.float64)
            log_h = lambda y, t=t, f=log_f: (
                f(y[:, None] + (1 - t) ** 0.5 * z) - 0.5 * z**2
            ).logsumexp(1)
            exact = torch.func.grad(lambda y: log_h(y).sum())(x)
            error = (answer(m, v, time.expand(7), x) - exact).abs().max()
            yield f"the target N({m:g}, {v:g}) at t = {t:g}", bool(error < 1e-6)
        end = answer(m, v, torch.ones(7, dtype=torch.float64), x)
        error = (end - torch.func.grad(lambda y: log_f(y).sum())(x)).abs().max()
        yield f"the target N({m:g}, {v:g}) at t = 1", bool(error < 1e-9)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:schedule-map": schedule_map,
    "ex:two-states": two_states,
    "ex:own-schedule": own_schedule,
    "ex:pasted-drift": pasted_drift,
    "ex:forgetting": forgetting,
    "ex:foellmer-gaussian": drift_to_gaussian,
}
