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


def steer_back(answer: Answer) -> Iterator[Test]:
    """ex:steer-back, chapter 18."""
    x, y = _clouds(9, 7, 1)
    a = torch.linspace(1, 3, 9, dtype=torch.float64)
    for tau in (1.5, 0.3, 0.004):
        plan = sinkhorn(x, y, tau, a / a.sum(), tolerance=1e-9)
        bridge = bridge_of_plan(plan)
        for at in (0.02, 0.4, 1.0):
            t = torch.tensor(at, dtype=torch.float64)
            found = answer(plan.a, plan.f, x, tau, t, y)
            exact = bridge.backward_drift(t, y)
            yield (
                f"the backward drift at temperature {tau} and t = {at}, finite and right",
                bool((found - exact).abs().max() < 1e-7 * exact.abs().max()),
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


def only_the_end(answer: Answer) -> Iterator[Test]:
    """ex:only-the-end, chapter 18."""
    x, y = _clouds(10, 12, 4)
    K = (-0.5 * torch.cdist(x, y).square() / 0.7).exp()
    g = torch.Generator().manual_seed(5)
    p0, p1 = (torch.rand(k, generator=g, dtype=torch.float64) + 0.1 for k in (10, 12))
    p0, p1 = p0 / p0.sum(), p1 / p1.sum()
    found = answer(K, p0, p1)
    yield "the end has its weights", bool((found.sum(0) - p1).abs().max() < 1e-9)
    walk = p0[:, None] * K / K.sum(1, keepdim=True)
    kl = lambda p, q: (p * (p / q).log()).sum()
    for _ in range(3):
        other = torch.rand(10, 12, generator=g, dtype=torch.float64)
        other = other * p1 / other.sum(0)
        rest = kl(other, walk) - kl(other, found) - kl(found, walk)
        yield "divergences from it add up as those of a projection do", bool(rest.abs() < 1e-9)


def guesses_to_fields(answer: Answer) -> Iterator[Test]:
    """ex:guesses-to-fields, chapter 19."""
    x, y = _clouds(6, 6, 6)
    spread = torch.diag(torch.tensor([0.5, 2.0], dtype=torch.float64))
    for tau in (0.3, 1.7):
        bridge = GaussianBridge(x[0], spread, y[0], spread.flip((0, 1)), tau)
        end = lambda t, x: x + (1 - t.reshape(-1, 1)) * bridge.drift(t, x)
        start = lambda t, x: x - t.reshape(-1, 1) * bridge.backward_drift(t, x)
        for t in (torch.tensor(0.3).double(), torch.linspace(0.1, 0.9, 6).double()):
            velocity, score = answer(end, start, tau, t, x)
            at = "one time" if t.ndim == 0 else "a time for each point"
            off = (velocity - bridge.velocity(t, x)).abs().max()
            yield f"the velocity at temperature {tau}, {at}", bool(off < 1e-8)
            off = (score - bridge.score(t, x)).abs().max()
            yield f"the score at temperature {tau}, {at}", bool(off < 1e-8)


def which_property(answer: Answer) -> Iterator[Test]:
    """ex:which-property, chapter 19."""
    t, tau, v0, v1 = 0.3, 0.81, 0.64, 1.96
    number = lambda v: torch.full((1, 1), v, dtype=torch.float64)
    own = GaussianBridge(number(0.0)[0], number(v0), number(0.0)[0], number(v1), tau).cross.item()

    def filled(c: float, level: float) -> Tensor:
        first, last = (1 - t) * v0 + t * c, (1 - t) * c + t * v1
        own = (1 - t) * first + t * last + level * t * (1 - t)
        rows = [[v0, first, c], [first, own, last], [c, last, v1]]
        return torch.tensor(rows, dtype=torch.float64)

    free = torch.tensor([[v0, 0.5, 0.0], [0.5, 0.9, 0.7], [0.0, 0.7, v1]], dtype=torch.float64)
    free[0, 2] = free[2, 0] = 0.5 * 0.7 / 0.9
    pulled = filled(0.2, tau)
    pulled[0, 1] = pulled[1, 0] = pulled[0, 1] + 0.05
    for what, cov, truth in (
        ("the bridge has both properties", filled(own, tau), (True, True)),
        ("independent ends, filled, remember", filled(0.0, tau), (False, True)),
        ("a Markov process may have other bridges", free, (True, False)),
        ("a filling of another temperature", filled(0.3, 2 * tau), (False, False)),
        ("a filling that is drawn to its start", pulled, (False, False)),
    ):
        found = answer(cov, t, tau)
        yield what, tuple(bool(v) for v in found) == truth


def gaussian_half_sweep(answer: Answer) -> Iterator[Test]:
    """ex:gaussian-half-sweep, chapter 19."""
    g = torch.Generator().manual_seed(8)
    for d in (1, 2, 3):
        root, other = (torch.randn(k, k, generator=g, dtype=torch.float64) for k in (2 * d, d))
        joint = root @ root.mT + torch.eye(2 * d, dtype=torch.float64)
        new = other @ other.mT + 0.4 * torch.eye(d, dtype=torch.float64)
        found = answer(joint.clone(), new.clone())
        near = lambda a, b: bool((a - b).abs().max() < 1e-8)
        yield f"the last end is right in {d} dimensions", near(found[d:, d:], new)
        yield "the matrix is symmetric", near(found, found.mT)
        # the precision of the first end, and its mixed block, are those of the law given the last
        old, now = torch.linalg.inv(joint), torch.linalg.inv(found)
        yield "the law of the first end given the last is kept", near(old[:d], now[:d])


def remade_pairs(answer: Answer) -> Iterator[Test]:
    """ex:remade-pairs, chapter 19."""
    g = torch.Generator().manual_seed(9)
    x0 = torch.randn(300, 2, generator=g, dtype=torch.float64)
    x1, tau, n = -2 * x0 + 1, 0.7, 40_000  # the start tells the end
    t, x, target = answer(x0, x1, tau, n, g)
    yield (
        "n times, states and targets",
        t.shape == (n, 1) and x.shape == (n, 2) and target.shape == (n, 2),
    )
    yield "times all over the unit interval", bool(t.min() < 0.01 and t.max() > 0.99)
    start = x - t * target
    of_heap = torch.cdist(start, x0).min(1).values.max()
    yield "the target is the rate at which the state left its start", bool(of_heap < 1e-6)
    noise = x - (1 - t) * start - t * (1 - 2 * start)
    unit = noise / (tau * t * (1 - t)).sqrt()
    yield "the state lies on a Brownian bridge", bool(abs(unit.mean()) < 0.02)
    for low, high in ((0.02, 0.3), (0.3, 0.7), (0.7, 0.98)):
        part = unit[((t > low) & (t < high))[:, 0]]
        yield f"of the variance τt(1 − t) for {low} < t < {high}", bool(abs(part.std() - 1) < 0.03)
    yield "and its noise is fresh", bool(abs((unit * start).mean()) < 0.03)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:steer-back": steer_back,
    "ex:read-temperature": read_temperature,
    "ex:mislabelled-plan": mislabelled_plan,
    "ex:only-the-end": only_the_end,
    "ex:guesses-to-fields": guesses_to_fields,
    "ex:which-property": which_property,
    "ex:gaussian-half-sweep": gaussian_half_sweep,
    "ex:remade-pairs": remade_pairs,
}
