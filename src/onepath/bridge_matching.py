r"""Bridges from samples: pairs in, drifts out, pairs out.

A source of pairs is a function (n, generator) -> (x0, x1). Filled with Brownian bridges it is a
process that in general remembers its start. Two regressions give the two drifts of the nearest
process that does not, the Markovian projection, which has the same law at each time; and a drift
makes pairs, run from one end or the other. Here are the sources, the regressions and the runs;
`bridge_fitting` repeats them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from .bridges import check_temperature
from .calculus import constant
from .couplings import Coupling, Draw, pool, sinkhorn
from .dynamics import Dynamics
from .measures import check_generator
from .metrics import check_samples
from .objectives import check_draws
from .shapes import Field, Points, Time, Values, per_point
from .solvers import euler, integrate, times

Sampler = Callable[[int, torch.Generator], Tensor]  # n points of one end


@dataclass(frozen=True)
class Ends:
    r"""What is given: samples of two laws, and the temperature of $dX = \sqrt\tau\,dW$.

    Called as `ends(n, generator)` it is a source of pairs, the independent one.

    Raises ValueError unless $0 < \tau < \infty$, and in a draw unless both samplers give n finite
    points of one dimension, on one device and of one dtype.
    """

    first: Sampler
    last: Sampler
    tau: float

    def __post_init__(self) -> None:
        check_temperature(self.tau)

    def __call__(self, n: int, generator: torch.Generator) -> tuple[Points, Points]:
        x0, x1 = both = self.first(n, generator), self.last(n, generator)
        alike = x0.shape == x1.shape and x0.dtype == x1.dtype and x0.device == x1.device
        if not alike or x0.ndim != 2 or len(x0) != n:
            got = " and ".join(f"{tuple(x.shape)} {x.dtype} on {x.device}" for x in both)
            raise ValueError(
                f"both ends give n = {n} points, (n, d), of one d, dtype and device, got {got}."
            )
        check_draws(first=x0, last=x1)
        return x0, x1


def heap(points: Points) -> Sampler:
    """Rows of a heap of samples, drawn with replacement.

    Raises ValueError for an empty heap, and unless points are finite and have the shape (n, d).
    """
    if points.ndim != 2:
        raise ValueError(f"a heap is (n, d), a point to a row, got {tuple(points.shape)}.")
    check_draws(heap=points)

    def draw(n: int, generator: torch.Generator) -> Points:
        check_generator(generator, points.device)
        return points[torch.randint(len(points), (n,), generator=generator, device=points.device)]

    return draw


@dataclass(frozen=True)
class LearnedBridge:
    r"""A process with the noise $\sqrt\tau\,dW$, by its two drifts.

    $$ v = \tfrac12(b^+ + b^-), \qquad \nabla\log\rho = \tfrac1\tau(b^+ - b^-) . $$

    Two drifts that were learned apart need not belong to one process; then v and the score are the
    ones of neither.

    Book: eq:bridge-drifts.
    """

    drift: Field
    backward_drift: Field
    tau: float

    def __post_init__(self) -> None:
        check_temperature(self.tau)

    def velocity(self, t: Time, x: Points) -> Points:
        return 0.5 * (self.drift(t, x) + self.backward_drift(t, x))

    def score(self, t: Time, x: Points) -> Points:
        return (self.drift(t, x) - self.backward_drift(t, x)) / self.tau


def forward(drift: Field, tau: float) -> Dynamics:
    r"""$dX = b^+_t\,dt + \sqrt\tau\,dW$, in the clock t."""
    check_temperature(tau)
    return Dynamics(drift, constant(tau**0.5))


def backward(backward_drift: Field, tau: float) -> Dynamics:
    r"""The way back in its own clock r = 1 − t, $dY = -b^-_{1-r}\,dr + \sqrt\tau\,dB$.

    Book: eq:reversed-drift.
    """
    return forward(lambda r, x: -backward_drift(1 - r, x), tau)


def coupled(ends: Ends, coupling: Coupling, size: int) -> Draw:
    """Pairs from plans between `size` and `size` samples; as many plans as a draw needs.

    Raises ValueError for a size below one.

    Book: eq:minibatch-plan.
    """
    if size < 1:
        raise ValueError(f"a plan has one pair or more, got size = {size}.")

    def draw(n: int, generator: torch.Generator) -> tuple[Points, Points]:
        x0, x1 = pool(ends, coupling, size, ceil(n / size), generator)
        keep = torch.randperm(len(x0), generator=generator, device=x0.device)[:n]
        return x0[keep], x1[keep]

    return draw


def entropic(tau: float, tolerance: float = 1e-4) -> Coupling:
    """The entropic plan of a batch: each start once, its end drawn from the plan given the start.

    Source: Tong et al. (2024), Simulation-free Schrödinger bridges via score and flow matching.
    Book: eq:entropic-plan.
    """
    check_temperature(tau)

    def coupling(x0: Points, x1: Points, generator: torch.Generator) -> tuple[Points, Points]:
        plan = sinkhorn(x0, x1, tau, tolerance=tolerance)
        return x0, x1[plan.partners(generator)]

    return coupling


def of_reference(ends: Ends) -> Draw:
    r"""Pairs of the reference: $x_0$ and $x_0 + \sqrt\tau\,z$, which know nothing of the end."""

    def draw(n: int, generator: torch.Generator) -> tuple[Points, Points]:
        x0, _ = ends(n, generator)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        return x0, x0 + ends.tau**0.5 * z

    return draw


def made_forward(ends: Ends, drift: Field, steps: int) -> Draw:
    """Pairs that a process makes, run from the first end by Euler's method."""
    run, grid = euler(forward(drift, ends.tau)), times(steps)

    def draw(n: int, generator: torch.Generator) -> tuple[Points, Points]:
        x0, _ = ends(n, generator)
        return x0, integrate(run, x0, grid, generator)

    return draw


def made_backward(ends: Ends, backward_drift: Field, steps: int) -> Draw:
    """Pairs that a process makes, run back from the last end by Euler's method."""
    run, grid = euler(backward(backward_drift, ends.tau)), times(steps)

    def draw(n: int, generator: torch.Generator) -> tuple[Points, Points]:
        _, x1 = ends(n, generator)
        return integrate(run, x1, grid, generator), x1

    return draw


def stored(pairs: Draw, n: int, generator: torch.Generator) -> Draw:
    """n pairs made once, then drawn from with replacement: pairs of a process are dear."""
    with torch.no_grad():
        x0, x1 = pairs(n, generator)

    def draw(n: int, generator: torch.Generator) -> tuple[Points, Points]:
        rows = torch.randint(len(x0), (n,), generator=generator, device=x0.device)
        return x0[rows], x1[rows]

    return draw


def forward_matching(
    field: Field, tau: float, t: Time, x0: Points, x1: Points, z: Points
) -> Values:
    r"""The error of guessing the end $X_1$ as $X_t + (1-t)F_t(X_t)$, over the time that is left.

    $$ \tfrac1{1-t}\big|X_t + (1-t)F - X_1\big|^2
       = \big|\sqrt{1-t}\,(F - x_1 + x_0) + \sqrt{\tau t}\,z\big|^2, \quad
       X_t = (1-t)x_0 + tx_1 + \sqrt{\tau t(1-t)}\,z . $$

    Its minimiser is $b^+_t(x) = \mathbb E[(X_1-x)/(1-t)\,|\,X_t=x]$; the right side is computed,
    which stays finite at both ends.

    Book: eq:guess-loss, eq:markovian-projection.
    """
    x, left, gone = _bridged(tau, t, x0, x1, z)
    return (left.sqrt() * (field(t, x) - x1 + x0) + (tau * gone).sqrt() * z).square().sum(1)


def backward_matching(
    field: Field, tau: float, t: Time, x0: Points, x1: Points, z: Points
) -> Values:
    r"""The error of guessing the beginning $X_0$ as $X_t - tF_t(X_t)$, over the time gone by.

    $$ \tfrac1t\big|X_t - tF - X_0\big|^2
       = \big|\sqrt t\,(F - x_1 + x_0) - \sqrt{\tau(1-t)}\,z\big|^2 . $$

    Its minimiser is $b^-_t(x) = \mathbb E[(x-X_0)/t\,|\,X_t=x]$.

    Book: eq:guess-loss, eq:bridge-drifts.
    """
    x, left, gone = _bridged(tau, t, x0, x1, z)
    return (gone.sqrt() * (field(t, x) - x1 + x0) - (tau * left).sqrt() * z).square().sum(1)


def rate_matching(field: Field, t: Time, x: Points, change: Points, h: Time) -> Values:
    r"""$\big|\sqrt h\,F_t(x) - (X_{t+h}-X_t)/\sqrt h\big|^2$, for a step of a process.

    With $x = X_t$ at the time t its minimiser is the forward drift over the step; with
    $x = X_{t+h}$ at the time t + h it is the backward drift, and that is a learned reversal.

    Source: Vargas et al. (2021), Solving Schrödinger bridges via maximum likelihood; De Bortoli
    et al. (2021), Diffusion Schrödinger bridge, with another target for the same drift.
    Book: eq:learned-reversal.
    """
    check_draws(states=x, changes=change)
    root = per_point(h).sqrt()
    return (root * field(t, x) - change / root).square().sum(1)


def _bridged(
    tau: float, t: Time, x0: Points, x1: Points, z: Points
) -> tuple[Points, Tensor, Tensor]:
    """A state of the Brownian bridge, the time that is left and the time gone by."""
    check_temperature(tau)
    check_draws(first=x0, last=x1, noise=z)
    check_samples(x0, x1, same_size=True, least=1)
    gone = per_point(t)
    left = 1 - gone
    return left * x0 + gone * x1 + (tau * gone * left).sqrt() * z, left, gone
