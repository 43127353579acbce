"""Tests of the exercises of chapters 18 and 19: bridges."""

from collections.abc import Callable, Iterator
from math import log

import torch
from torch import Tensor

from .bridges import GaussianBridge
from .couplings import sinkhorn
from .exercises_start import Answer, Test
from .potentials import bridge_of_plan


def _clouds(n: int, m: int, seed: int, d: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=g, dtype=torch.float64) for k in (n, m))
    return x, 1.3 * y + 0.4


def steer_to_points(answer: Answer) -> Iterator[Test]:
    """ex:steer-to-points, chapter 18."""
    x, y = _clouds(9, 7, 1)
    for tau in (1.5, 0.3, 0.004):
        plan = sinkhorn(x, y, tau, tolerance=1e-9)
        bridge = bridge_of_plan(plan)
        for at in (0.0, 0.6, 0.98):
            t = torch.tensor(at, dtype=torch.float64)
            found = answer(plan.b, plan.g, y, tau, t, x)
            exact = bridge.drift(t, x)
            size = exact.abs().max()
            yield (
                f"the drift at temperature {tau} and t = {at}, finite and right",
                bool((found - exact).abs().max() < 1e-7 * size),
            )


def read_temperature(answer: Answer) -> Iterator[Test]:
    """ex:read-temperature, chapter 18."""
    g = torch.Generator().manual_seed(2)
    for d, tau in ((1, 0.7), (2, 1.6), (3, 0.2)):
        roots = torch.randn(2, d, d, generator=g, dtype=torch.float64)
        S0, S1 = roots @ roots.mT + 0.3 * torch.eye(d, dtype=torch.float64)
        zero = torch.zeros(d, dtype=torch.float64)
        C = GaussianBridge(zero, S0, zero, S1, tau).cross
        found = answer(S0, C, S1)
        right = found is not None and abs(float(found) - tau) < 1e-6
        yield f"temperature {tau} in {d} dimensions", right
        if d > 1:
            yield (
                "pairs that no bridge makes have no temperature",
                answer(S0, 0.9 * C, S1) is None and answer(S0, C.mT, S1) is None,
            )
        yield "nor have pairs that hold each other off", answer(S0, -C, S1) is None


def mislabelled_plan(answer: Answer) -> Iterator[Test]:
    """ex:mislabelled-plan, chapter 18."""

    def solve(cost: Tensor, reg: float) -> Tensor:
        """A plan as a library returns it: equal weights, the least <cost, P> + reg KL(P)."""
        n, m = cost.shape
        u, v = cost.new_zeros(n), cost.new_zeros(m)
        for _ in range(2000):
            u = -((v - cost / reg).logsumexp(1)) - log(n)
            v = -((u[:, None] - cost / reg).logsumexp(0)) - log(m)
        return (u[:, None] + v - cost / reg).exp()

    x, y = _clouds(8, 8, 3)
    for tau in (0.5, 2.0):
        plan = sinkhorn(x, y, tau, tolerance=1e-10).matrix
        middle = (0.5 * (x[:, None] + y)).square().sum(2)
        exact = (plan * middle).sum() + 2 * tau / 4
        found = float(answer(solve, x, y, tau))
        yield f"the second moment half-way at temperature {tau}", abs(found - exact.item()) < 1e-6


def sweep_in_logs(answer: Answer) -> Iterator[Test]:
    """ex:sweep-in-logs, chapter 18."""
    x, y = _clouds(10, 12, 4)
    cost = 0.5 * torch.cdist(x, y).square()
    g = torch.Generator().manual_seed(5)
    a, b = (torch.rand(k, generator=g, dtype=torch.float64) + 0.1 for k in (10, 12))
    a, b = a / a.sum(), b / b.sum()
    for tau in (1.0, 1e-4):
        plan = sinkhorn(x, y, tau, a, b, tolerance=1e-10)
        f, new = answer(plan.g, cost, a, b, tau)
        shift = new - plan.g
        yield (
            f"the potentials of the plan stay where they are, at temperature {tau}",
            bool(shift.isfinite().all() and (shift - shift.mean()).abs().max() < 1e-6),
        )
        start = torch.linspace(-1, 1, 12, dtype=torch.float64)
        f, new = answer(start, cost, a, b, tau)
        log_plan = a.log()[:, None] + b.log() + (f[:, None] + new - cost) / tau
        column = log_plan.logsumexp(0).exp()
        yield "after a sweep the second margin is exact", bool((column - b).abs().max() < 1e-9)
        log_plan = a.log()[:, None] + b.log() + (f[:, None] + start - cost) / tau
        row = log_plan.logsumexp(1).exp()
        yield "and half-way the first", bool((row - a).abs().max() < 1e-9)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:steer-to-points": steer_to_points,
    "ex:read-temperature": read_temperature,
    "ex:mislabelled-plan": mislabelled_plan,
    "ex:sweep-in-logs": sweep_in_logs,
}
