r"""Learned bridges: fittings that repeat a regression until nothing moves.

Iterative Markovian fitting learns the process that pairs make, takes the pairs that it makes, and
so on; only the Schrödinger bridge is left as it was. It keeps both ends and the Brownian bridges,
and approaches a process without memory. Iterative proportional fitting learns a process backwards
and starts it at the other end; it has no memory and keeps one end at a time. Who trains is an
argument: anything that turns a loss into a field. Networks and images are not covered.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .bridge_matching import (
    Ends,
    LearnedBridge,
    backward,
    backward_matching,
    forward,
    forward_matching,
    made_backward,
    made_forward,
    rate_matching,
    stored,
)
from .couplings import Draw
from .dynamics import Dynamics
from .shapes import Field, Points, Values
from .solvers import euler, times, trajectory

Loss = Callable[[Field, torch.Generator], Tensor]  # losses (n,) of a batch that it draws itself
Learn = Callable[[Loss], Field]  # the field that makes a loss small


def projected(
    pairs: Draw, tau: float, learners: tuple[Learn, Learn], batch: int = 256
) -> LearnedBridge:
    """Both drifts of the Markovian projection of pairs filled with Brownian bridges.

    Args:
        learners: for the forward drift and for the backward one.

    Book: eq:markovian-projection.
    """
    ahead, behind = (
        learn(_loss(matching, pairs, tau, batch))
        for learn, matching in zip(learners, (forward_matching, backward_matching))
    )
    return LearnedBridge(ahead, behind, tau)


def markovian_fitting(
    ends: Ends,
    pairs: Draw,
    learners: tuple[Learn, Learn],
    generator: torch.Generator,
    steps: int = 50,
    keep: int = 4096,
    batch: int = 256,
) -> Iterator[LearnedBridge]:
    """Iterative Markovian fitting without end, the directions in turn.

    First both drifts of the projection of `pairs`. Then the pairs that the forward drift makes
    teach the backward one, whose pairs teach the forward one: in that way each end is put right in
    every second step, and errors of the margins do not add up.

    Args:
        pairs: to begin with, for instance `ends` itself.
        steps: of Euler's method, for the pairs that a drift makes.
        keep: pairs that are made for one regression.

    Source: Shi et al. (2023), Diffusion Schrödinger bridge matching; Peluchetti (2023), Diffusion
    bridge mixture transports. Book: eq:markovian-fitting.
    """
    _check_sizes(steps, keep, batch)
    pairs(1, generator)

    def fit() -> Iterator[LearnedBridge]:
        bridge = projected(stored(pairs, keep, generator), ends.tau, learners, batch)
        while True:
            yield bridge
            made = stored(made_forward(ends, bridge.drift, steps), keep, generator)
            behind = learners[1](_loss(backward_matching, made, ends.tau, batch))
            bridge = LearnedBridge(bridge.drift, behind, ends.tau)
            yield bridge
            made = stored(made_backward(ends, behind, steps), keep, generator)
            ahead = learners[0](_loss(forward_matching, made, ends.tau, batch))
            bridge = LearnedBridge(ahead, behind, ends.tau)

    return fit()


def reversal_fitting(
    ends: Ends,
    learners: tuple[Learn, Learn],
    generator: torch.Generator,
    steps: int = 50,
    keep: int = 1024,
    batch: int = 256,
) -> Iterator[LearnedBridge]:
    """Iterative proportional fitting with learned reversals, without end, from the reference.

    Whole paths are run from one end, the other drift of the same process is learned from their
    steps, and with it new paths are run from the other end. Both drifts of what is yielded belong
    to one process, whose first end is right in the first, third, … and whose last end in between.

    Args:
        steps: of a path; the learned drift is that of the steps.
        keep: paths that are made for one regression.

    Source: De Bortoli et al. (2021), Diffusion Schrödinger bridge; Vargas et al. (2021), Solving
    Schrödinger bridges via maximum likelihood. Book: eq:learned-reversal.
    """
    _check_sizes(steps, keep, batch)
    ends(1, generator)
    grid = times(steps)

    def fit() -> Iterator[LearnedBridge]:
        ahead: Field = lambda t, x: torch.zeros_like(x)
        while True:
            x0, _ = ends(keep, generator)
            with torch.no_grad():
                paths = trajectory(euler(forward(ahead, ends.tau)), x0, grid, generator)
            behind = learners[1](_reversal(paths, grid, batch, later=True))
            yield LearnedBridge(ahead, behind, ends.tau)
            _, x1 = ends(keep, generator)
            with torch.no_grad():
                paths = trajectory(euler(backward(behind, ends.tau)), x1, grid, generator).flip(0)
            ahead = learners[0](_reversal(paths, grid, batch, later=False))
            yield LearnedBridge(ahead, behind, ends.tau)

    return fit()


def path_divergence(
    process: Dynamics, drift: Field, start: Points, steps: int, generator: torch.Generator
) -> Values:
    r"""$\tfrac1{2\tau}\int_0^1|b_t(X_t)-b'_t(X_t)|^2dt$ along each path of a process with drift b.

    Its mean is the relative entropy of the process to the one with the drift b', the same noise and
    the same start, in nats; the integral is a sum over the steps of Euler's method.

    Book: eq:path-kl.
    """
    grid = times(steps)
    way = trajectory(euler(process), start, grid, generator)
    gaps = [process.drift(t, x) - drift(t, x) for t, x in zip(grid[:-1], way)]
    noise = process.eta(grid[:-1]) ** 2
    return sum(g.square().sum(1) / (2 * v) for g, v in zip(gaps, noise)) / steps


def settled(
    ends: Ends,
    bridges: Iterator[LearnedBridge],
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 20,
    steps: int = 50,
    keep: int = 4096,
) -> LearnedBridge:
    """The first of `bridges` that differs from the one before by at most `tolerance` nats.

    The difference is `path_divergence` of the forward drifts plus that of the backward ones. It has
    a floor, the error of the regressions, below which no tolerance is met.

    Raises ValueError with the difference that is left where `most` of them do not suffice.
    """
    if not (tolerance > 0 and most > 1):
        raise ValueError(f"tolerance is positive and most above 1, got {tolerance} and {most}.")
    old = next(bridges)
    for _ in range(most - 1):
        new = next(bridges)
        x0, x1 = ends(keep, generator)
        with torch.no_grad():
            on = path_divergence(
                forward(new.drift, ends.tau), old.drift, x0, steps, generator
            ).mean()
            past = backward(old.backward_drift, ends.tau).drift
            back = path_divergence(
                backward(new.backward_drift, ends.tau), past, x1, steps, generator
            ).mean()
        moved = (on + back).item()
        if moved <= tolerance:
            return new
        old = new
    raise ValueError(
        f"a fitting must settle within {tolerance:g} nats, got {moved:.3g} in the last of {most}; "
        "raise most, or the steps of the learners, for their error is a floor."
    )


def learner(net: nn.Module, steps: int, generator: torch.Generator, rate: float = 3e-3) -> Learn:
    """Adam on `net` from where it was left, and a frozen copy of it; the rate falls like a cosine.

    Raises ValueError where the loss is not finite.
    """
    if steps < 1:
        raise ValueError(f"a learner makes at least one step, got {steps}.")

    def learn(loss: Loss) -> Field:
        optimiser = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            value = loss(net, generator).mean()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            slower.step()
        if not isfinite(value.item()):
            raise ValueError(f"a loss must be finite, got {value.item():g}; lower the rate.")
        return deepcopy(net).requires_grad_(False)

    return learn


def _loss(matching: Callable, pairs: Draw, tau: float, batch: int) -> Loss:
    def loss(field: Field, generator: torch.Generator) -> Values:
        x0, x1 = pairs(batch, generator)
        like = {"generator": generator, "dtype": x0.dtype, "device": x0.device}
        return matching(
            field, tau, torch.rand(len(x0), **like), x0, x1, torch.randn(x0.shape, **like)
        )

    return loss


def _reversal(
    paths: Float[Tensor, "m n d"], grid: Float[Tensor, "m"], batch: int, later: bool
) -> Loss:
    """The loss for the drift over a step, seen from its later or from its earlier state."""
    steps, clock = len(grid) - 1, grid.to(paths)

    def loss(field: Field, generator: torch.Generator) -> Values:
        draw = {"generator": generator, "device": paths.device}
        k = torch.randint(steps, (batch,), **draw)
        i = torch.randint(paths.shape[1], (batch,), **draw)
        change, at = paths[k + 1, i] - paths[k, i], k + later
        return rate_matching(field, clock[at], paths[at, i], change, clock[k + 1] - clock[k])

    return loss


def _check_sizes(steps: int, keep: int, batch: int) -> None:
    if min(steps, keep, batch) < 1:
        raise ValueError(f"steps, keep and batch are at least 1, got {steps}, {keep} and {batch}.")
