"""Tests of the exercises of chapter 21, the map. The answers are not here."""

from collections.abc import Callable, Iterator
from math import exp, log, sqrt

import torch

from .exercises_start import Answer, Test


def two_prices(answer: Answer) -> Iterator[Test]:
    """ex:price-of-the-mean, chapter 21."""
    for alpha, sigma, V in ((0.6, 0.8, 0.3), (0.3, 0.7, 2.0), (1.0, 1.5, 0.5)):
        noisy, flow = (float(price) for price in answer(alpha, sigma, V))
        ahead, back = (_denoised(alpha, sigma, V, x) for x in (0.7 + 1e-4, 0.7 - 1e-4))
        yield (
            "with noise it is the slope of the denoiser",
            abs(noisy - (ahead - back) / 2e-4) < 1e-6,
        )
        reached = flow**2 * (alpha**2 * V + sigma**2)
        yield "a flow widens the law of now to that of the data", abs(reached - V) < 1e-9
        yield "and keeps its order", flow > 0


def _denoised(alpha: float, sigma: float, V: float, x: float) -> float:
    """The mean of data N(0.4, V), given the state, by the sum over a fine grid."""
    data = torch.linspace(-14, 14, 28001, dtype=torch.float64)
    logs = -0.5 * (data - 0.4) ** 2 / V - 0.5 * (x - alpha * data) ** 2 / sigma**2
    return (logs.softmax(0) * data).sum().item()


def price_of_draws(answer: Answer) -> Iterator[Test]:
    """ex:price-from-draws, chapter 21."""
    z = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    for alpha, sigma, x in ((0.6, 0.8, 0.2), (0.9, 0.3, -1.0)):
        draws = 0.5 + 0.3 * z
        found = float(answer(lambda y: y, draws, x, alpha, sigma))
        yield (
            "of the mean it is the posterior variance, times α/σ²",
            abs(found - alpha / sigma**2 * 0.09) < 1e-3 * alpha / sigma**2,
        )
        settled = float(answer(torch.ones_like, draws, x, alpha, sigma))
        yield "a settled question has no price", abs(settled) < 1e-9
        wave = float(answer(torch.sin, draws, x, alpha, sigma))
        exact = alpha / sigma**2 * 0.09 * exp(-0.045) * torch.tensor(0.5).cos().item()
        yield "a wave is damped by what is open", abs(wave / exact - 1) < 1e-2


def weights_of_question(answer: Answer) -> Iterator[Test]:
    """ex:best-weight, chapter 21."""
    generator = torch.Generator().manual_seed(21)
    for n in (2, 7, 50):
        h, w = (0.1 + torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
        best, share = answer(h, w)
        yield "the best weight has the mean one", abs(best.mean().item() - 1) < 1e-9
        exposure = lambda weight, h=h: (h**2 / weight).mean() * weight.mean()
        yield "no other weight is exposed less", bool(exposure(best) <= exposure(w) + 1e-12)
        moved = best * (1 + 0.01 * torch.randn(n, generator=generator, dtype=torch.float64))
        yield "nor one close by", bool(exposure(best) <= exposure(moved) + 1e-12)
        right = (exposure(best) / exposure(w)).item()
        yield "the efficiency is the share of it", abs(float(share) - right) < 1e-9


def step_of_code(answer: Answer) -> Iterator[Test]:
    """ex:read-a-step, chapter 21."""
    for zeta, before, after in (
        (1.0, (0.3, 0.95), (0.6, 0.8)),
        (0.0, (0.5, 0.5), (0.7, 0.3)),
        (0.6, (1.0, 3.0), (1.0, 1.2)),
    ):
        h = log(after[0] / after[1]) - log(before[0] / before[1])
        keep = after[1] / before[1] * exp(-(zeta**2) * h)
        spread = after[1] * sqrt(1 - exp(-2 * zeta**2 * h))
        found, fits = answer(keep, spread, before, after)
        yield f"the noise is read off what is kept, for ζ = {zeta:g}", abs(found - zeta) < 1e-6
        yield "and its spread belongs to it", bool(fits) is True
        _, fits = answer(keep, spread + 0.1, before, after)
        yield "another spread does not", bool(fits) is False


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:price-of-the-mean": two_prices,
    "ex:price-from-draws": price_of_draws,
    "ex:best-weight": weights_of_question,
    "ex:read-a-step": step_of_code,
}
