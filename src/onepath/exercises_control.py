"""Tests of the exercises of chapter 17, stochastic optimal control. The answers are not here."""

from collections.abc import Callable, Iterator

import torch

from .calculus import gradient, rate
from .control import hamilton_jacobi_bellman, no_cost, optimal_control
from .control_oracles import MixtureControl, brownian, relaxation
from .dynamics import mean_rate
from .exercises_start import Answer, Test
from .measures import Mixture, gaussian


def right_weight(answer: Answer) -> Iterator[Test]:
    """ex:find-weight, chapter 17."""
    generator = torch.Generator().manual_seed(1)
    u, xi = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    h, width = 0.2, torch.tensor(0.2, dtype=torch.float64).sqrt()
    normal = torch.distributions.Normal(0 * width, width)
    moved = h * u + h**0.5 * xi  # what the noise did, and what the uncontrolled noise must have
    exact = (normal.log_prob(moved) - normal.log_prob(moved - h * u)).sum()
    found = torch.as_tensor(answer(u, xi, h, 0.0), dtype=torch.float64)
    yield (
        "the weight is the ratio of two products of Gaussian densities",
        bool((found - exact).abs() < 1e-9),
    )
    worked = torch.as_tensor(answer(u, xi, h, 1.5), dtype=torch.float64)
    yield "work makes a run lighter", bool((worked - exact + 1.5).abs() < 1e-9)


def other_price(answer: Answer) -> Iterator[Test]:
    """ex:other-price, chapter 17."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    t = torch.tensor(0.3, dtype=torch.float64)
    law = gaussian(x.new_tensor([0.4]), x.new_tensor([[0.5]]))
    for eta, r in ((1.0, 2.0), (0.6, 1.0), (1.5, 0.7)):
        scale, factor = (torch.as_tensor(a, dtype=torch.float64) for a in answer(eta, r))
        problem = MixtureControl(brownian(eta), law)
        value = lambda t, x, k=scale, p=problem: k * p.value(t, x)
        square = (gradient(value, t, x) ** 2).sum(1) / (2 * r)
        residual = mean_rate(value, problem.process.dynamics, t, x) - square
        yield (
            f"−λ log ψ solves the equation of the least cost, for η = {eta} and r = {r}",
            bool(residual.abs().max() < 1e-9),
        )
        best = -gradient(value, t, x) / r
        push = factor * gradient(problem.log_psi, t, x)
        yield (
            f"the factor is that of the best control, for η = {eta} and r = {r}",
            bool((best - push).abs().max() < 1e-9),
        )


def home_push(answer: Answer) -> Iterator[Test]:
    """ex:pulled-home, chapter 17."""
    x = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
    for k, eta, c in ((0.5, 1.0, 2.0), (1.5, 0.7, 0.4)):
        gain = lambda t, k=k, eta=eta, c=c: -answer(k, eta, c, t, x)[0, 0] / (eta * x[0, 0])
        dynamics = relaxation(k, eta).dynamics
        for t in (0.1, 0.6, 0.95):
            time = torch.tensor(t, dtype=torch.float64)
            push = answer(k, eta, c, time, x)
            yield (
                "the push is linear in the state",
                bool((push - push[0, 0] / x[0, 0] * x).abs().max() < 1e-9),
            )
            known = lambda s, y, g=gain: 0.5 * g(s) * (y**2).sum(1)
            slack = hamilton_jacobi_bellman(known, dynamics, no_cost, time, x)
            spread = slack[0] - slack[1]  # what does not depend on the state is free
            yield (
                f"its gain solves Riccati's equation at t = {t}, for k = {k} and η = {eta}",
                bool(spread.abs() < 1e-8),
            )
            again = optimal_control(known, dynamics.eta)(time, x)
            yield "it is the control of that value", bool((again - push).abs().max() < 1e-8)
        end = gain(torch.ones((), dtype=torch.float64))
        yield "at the end it is the slope of the bill", bool((end - c).abs() < 1e-9)
        yield "the gain grows", bool(rate(gain, x.new_tensor(0.5)) > 0)


def fair_starts(answer: Answer) -> Iterator[Test]:
    """ex:fair-starts, chapter 17."""
    starts = torch.tensor([[-1.0], [0.2], [1.3]], dtype=torch.float64)
    law = Mixture(
        starts.new_tensor([0.4, 0.6]),
        starts.new_tensor([[-0.8], [1.5]]),
        0.2 + 0 * starts[:2, None],
    )
    process = relaxation(0.4)
    problem, zero = MixtureControl(process, law), torch.zeros((), dtype=torch.float64)
    shares = answer(problem.value(zero, starts))
    yield "probabilities sum to one", bool((shares.sum() - 1).abs() < 1e-9)
    y = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    mixed = torch.stack([s * problem.end(x).log_prob(y).exp() for s, x in zip(shares, starts)])
    means, spread = process.mean(zero) * starts, process.variance(zero).reshape(1, 1, 1)
    free = Mixture(torch.full_like(starts[:, 0], 1 / 3), means, spread.repeat(3, 1, 1))
    wanted = (free.log_prob(y) - problem.terminal(y)).exp()
    ratio = mixed.sum(0) / wanted
    yield (
        "the end is the uncontrolled end, weighed by the reward",
        bool((ratio / ratio[0] - 1).abs().max() < 1e-9),
    )


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:find-weight": right_weight,
    "ex:other-price": other_price,
    "ex:pulled-home": home_push,
    "ex:fair-starts": fair_starts,
}
