"""Tests of the exercises of chapter 20, guarantees. The answers are not here."""

from collections.abc import Callable, Iterator
from math import exp, log

import torch

from .exercises_start import Answer, Test


def two_memories(answer: Answer) -> Iterator[Test]:
    """ex:who-remembers, chapter 20."""
    for mu, alpha0 in ((1.0, 0.2), (-0.7, 0.5)):
        flow, noisy = (float(nats) for nats in answer(mu, alpha0))
        yield "a flow with the velocity zero moves nothing", abs(flow - 0.5 * mu**2) < 1e-9
        left = mu  # Ẋ = −½βX in the mean: the sampler's drift with s = −x
        for _ in range(4000):
            left *= 1 + log(alpha0) / 4000
        yield (
            "the diffusion forgets by its own drift",
            abs(noisy / (0.5 * left**2) - 1) < 2e-3 and noisy > 0,
        )


def loss_of_a_ripple(answer: Answer) -> Iterator[Test]:
    """ex:ripple-loss, chapter 20."""
    x = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    weight = (-0.5 * x**2).exp()
    for c, omega, alpha0 in ((0.4, 1.0, 0.2), (0.3, 0.5, 0.6), (1.0, 4.0, 0.05)):
        square = (weight * (c * (omega * x).cos()) ** 2).sum() / weight.sum()
        nats = -log(alpha0) * square.item()  # ½∫g² = −log α₀
        yield (
            f"half the integral of g² times the mean square, for ω = {omega:g}",
            abs(float(answer(c, omega, alpha0)) - nats) < 1e-9,
        )


def charged(answer: Answer) -> Iterator[Test]:
    """ex:find-charge, chapter 20."""
    generator = torch.Generator().manual_seed(20)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    exact, learned = lambda x: -x, lambda x: -x + 0.3 * x.cos()
    for g, width in ((1.0, 2.0), (0.5, 0.7)):
        own = lambda x, width=width: -x / width
        product = (exact(x) - learned(x)) * (exact(x) - own(x))
        rate = 0.5 * g**2 * product.sum(1).mean()
        found = torch.as_tensor(answer(exact, learned, own, x, g), dtype=torch.float64)
        yield f"the second factor is the flow's own, for g = {g}", bool((found - rate).abs() < 1e-9)
        same = torch.as_tensor(answer(exact, learned, exact, x, g), dtype=torch.float64)
        yield "where the laws agree nothing grows", bool(same.abs() < 1e-12)


def budgets(answer: Answer) -> Iterator[Test]:
    """ex:guaranteed-budget, chapter 20."""
    for K, information, epsilon in ((0.66, 6.3, 0.01), (20.0, 300.0, 0.1), (3.0, 9.0, 0.5)):
        T, n = (float(value) for value in answer(K, information, epsilon))
        yield "the start costs its half", exp(-2 * T) * K <= epsilon / 2 * (1 + 1e-9)
        yield "and no horizon is wasted", exp(-2 * T) * K >= epsilon / 2 * (1 - 1e-9)
        yield "steps are whole numbers", n == int(n) and n > 0
        yield "the steps cost their half", T / n * information <= epsilon / 2 * (1 + 1e-9)
        yield "and one step less would not do", T / (n - 1) * information > epsilon / 2


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:who-remembers": two_memories,
    "ex:ripple-loss": loss_of_a_ripple,
    "ex:find-charge": charged,
    "ex:guaranteed-budget": budgets,
}
