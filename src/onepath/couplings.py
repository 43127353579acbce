r"""Couplings: which start is paired with which target.

A path between two laws leaves open who travels where. A coupling takes a batch of starts and a
batch of targets, drawn independently, and returns them as pairs whose margins are the two laws
still. Here are the independent coupling, the optimal one between Gaussians, the optimal one within
a batch, which is biased towards independence, and the entropic one by Sinkhorn's algorithm, at
temperatures where the kernel itself underflows. Couplings that a model makes by itself (reflow) and
unbalanced plans are not covered here.

A coupling is any function of (x0, x1, generator), two batches of equal size, that returns such a
pair of batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .measures import check_generator, check_weights
from .metrics import Matrix, OtherPoints, Vector, check_samples
from .shapes import Points
from .transport import OtherWeights, Weights, gaussian_map

Coupling = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # n starts and n targets

SPARE = 100.0  # logarithm of the largest scaling that is left outside the potentials
EVERY = 10  # iterations between two looks at the error


def independent(x0: Points, x1: Points, generator: torch.Generator) -> tuple[Points, Points]:
    """Each start with a target drawn without looking: the targets are shuffled.

    Book: eq:minibatch-plan.
    """
    _check_batch(x0, x1, generator)
    order = torch.randperm(len(x1), generator=generator, device=x1.device)
    return x0, x1[order]


def paired(x0: Points, x1: Points, generator: torch.Generator) -> tuple[Points, Points]:
    """The pairs as they come, for data that are pairs already."""
    _check_batch(x0, x1, generator)
    return x0, x1


def minibatch_optimal(x0: Points, x1: Points, generator: torch.Generator) -> tuple[Points, Points]:
    r"""The starts as they come, each with its target under the optimal plan of the batch.

    $$ \bar\pi_n = \mathbb E\Big[\frac1n\sum_{i}\delta_{(x_0^i,\,x_1^{\pi(i)})}\Big], \qquad
       \pi = \operatorname*{argmin}_\pi\sum_i |x_0^i - x_1^{\pi(i)}|^2 $$

    The plan is a permutation, exact, by POT's network simplex in float64: every point is used once,
    so the margins stay and nothing is drawn (`generator` is there for the signature). It is optimal
    for the batch and not for the laws: its cost lies between $W_2^2$ and that of independent pairs,
    the closer to $W_2^2$ the larger the batch and the lower the dimension.

    Source: Pooladian et al. (2023), Multisample flow matching; Tong et al. (2024), Improving and
    generalizing flow-based generative models with minibatch optimal transport.
    Book: eq:minibatch-plan.
    """
    from ot import emd  # here, because the import takes as long as that of torch

    _check_batch(x0, x1, generator)
    x, y = x0.double().flatten(1), x1.double().flatten(1)
    centre = x.mean(0)  # far from the origin the products inside cdist would cancel
    cost = torch.cdist(x - centre, y - centre).square().cpu().numpy()
    plan, log = emd([], [], cost, numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise ValueError(f"the transport problem was not solved: {log['warning']}.")
    return x0, x1[torch.from_numpy(plan.argmax(1)).to(x1.device)]


def gaussian_optimal(mean0: Vector, cov0: Matrix, mean1: Vector, cov1: Matrix) -> Coupling:
    r"""The optimal coupling of two Gaussians: each start with its image $T(x_0)$.

    T is the map of `transport.gaussian_map`, in the dtype and on the device of the batch. The
    targets of the batch are not used: the coupling makes its own. Precondition: the starts have the
    first law, and the second is wanted.

    Raises ValueError where the first covariance is singular.

    Book: thm:brenier.
    """
    M, _ = gaussian_map(mean0, cov0, mean1, cov1)

    def coupling(x0: Points, x1: Points, generator: torch.Generator) -> tuple[Points, Points]:
        _check_batch(x0, x1, generator)
        return x0, mean1.to(x0) + (x0 - mean0.to(x0)) @ M.to(x0)

    return coupling


def pool(
    draw: Draw, coupling: Coupling, size: int, plans: int, generator: torch.Generator
) -> tuple[Points, Points]:
    """So many batches of `size` pairs, each coupled by itself, in one: `plans * size` pairs.

    Every pair has the law of the coupling at that size, whatever batches it is served in later. A
    run that is to be resumed from a checkpoint solves its plans before it begins, and its loss
    draws rows of the pool.

    Args:
        draw: independent starts and targets, n of each.

    Book: eq:minibatch-plan.
    """
    if min(size, plans) < 1:
        raise ValueError(f"a pool has plans of one pair or more, got {plans} of {size}.")
    parts = [coupling(*draw(size, generator), generator) for _ in range(plans)]
    x0, x1 = zip(*parts)
    return torch.cat(x0), torch.cat(x1)


def served(
    draw: Draw,
    coupling: Coupling,
    size: int,
    plans: int,
    batch: int,
    reuse: int,
    generator: torch.Generator,
) -> Iterator[tuple[Points, Points]]:
    r"""Batches of pairs without end, from one `pool` after the other, each gone through `reuse`
    times.

    A plan of n points costs about $n^2$ operations and serves `reuse` times as many steps. Each
    time the pool is shuffled anew and every pair comes once. What this changes: the law of a pair
    is that of the coupling at `size` exactly, and so is the expectation of every loss, but a run
    of k steps sees k batch / reuse different pairs instead of k batch. The times (and any latent
    noise) that a loss draws are fresh at every step.

    Args:
        size: points of a plan, which sets its bias; it need not be the batch.
        plans: solved at once. A batch mixes pairs of all of them.
        batch: pairs to a batch; it divides size * plans.

    Source: here.
    """
    if min(size, plans, batch, reuse) < 1 or size * plans % batch:
        raise ValueError(
            "size, plans, batch and reuse are at least 1 and batch divides size * plans, "
            f"got {size}, {plans}, {batch} and {reuse}."
        )

    def serve() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x0, x1 = pool(draw, coupling, size, plans, generator)
            for _ in range(reuse):
                order = torch.randperm(len(x0), generator=generator, device=x0.device)
                for rows in order.split(batch):
                    yield x0[rows], x1[rows]

    return serve()


@dataclass(frozen=True)
class EntropicPlan:
    r"""The plan that pays a temperature for every nat by which it differs from independence.

    $$ \pi_{ij} = a_i b_j\, e^{(f_i + g_j - \frac12|x_i - y_j|^2)/\tau}, \qquad \pi =
       \operatorname*{argmin}_\pi\sum_{ij}\pi_{ij}\tfrac12|x_i - y_j|^2
       + \tau\,\mathrm{KL}(\pi\,\|\,a\otimes b) $$

    The ½ belongs to the cost: a library that takes $|x-y|^2$ for the cost calls 2τ what is τ here.

    Args:
        f, g: the potentials, determined up to a constant that moves from f to g.
        error: $\sum_j|\sum_i\pi_{ij} - b_j|$. The other margin, $\sum_j\pi_{ij} = a_i$, and with it
            the mass 1 are exact up to rounding.
        iterations: pairs of scalings, rows and columns, at all temperatures.

    Book: eq:entropic-plan.
    """

    x: Points
    y: OtherPoints
    a: Weights
    b: OtherWeights
    temperature: float
    f: Weights
    g: OtherWeights
    error: float
    iterations: int

    @property
    def matrix(self) -> Float[Tensor, "n m"]:
        exponent = (self.f[:, None] + self.g - _half_squares(self.x, self.y)) / self.temperature
        return self.a[:, None] * self.b * exponent.exp()

    def partners(self, generator: torch.Generator) -> Int[Tensor, "n"]:
        """For each x its y, an index drawn from the plan given x: every x once, and every y as
        often, in expectation, as it weighs."""
        check_generator(generator, self.x.device)
        levels = self.matrix.cumsum(1)
        at = torch.rand(
            len(levels), 1, generator=generator, dtype=levels.dtype, device=levels.device
        )
        return torch.searchsorted(levels, at * levels[:, -1:], right=True)[:, 0]


def sinkhorn(
    x: Points,
    y: OtherPoints,
    temperature: float,
    a: Weights | None = None,
    b: OtherWeights | None = None,
    tolerance: float = 1e-6,
    most: int = 100_000,
) -> EntropicPlan:
    r"""The entropic plan between two weighted samples, by Sinkhorn's algorithm.

    $$ u \leftarrow 1/(K(b\,v)), \quad v \leftarrow 1/(K^\top(a\,u)), \qquad
       K_{ij} = e^{(f_i + g_j - \frac12|x_i - y_j|^2)/\tau} $$

    The kernel of f = g = 0 underflows at small τ. So the temperature falls to τ by factors of four
    from the largest cost, where nothing underflows, and potentials carry over: with
    $f \leftarrow f + \tau\log u$ and $g \leftarrow g + \tau\log v$ the kernel begins near the plan
    at every temperature. A scaling changes by a factor of at most $1/\min(a, b)$ an iteration, so
    that it is known when it has to go into the potentials, too. Between, an iteration is two
    products of a matrix and a vector. The one truncation: entries of K below $10^{-323}$ are 0,
    which is less than $10^{-100}$ of the plan. Everything is float64; memory is 3nm numbers.

    Args:
        temperature: τ > 0, in units of the cost ½|x−y|²; at most 10⁹ times smaller than the largest
            cost, where rounding would reach the plan. At zero it is `transport.optimal_plan`.
        a, b: weights, equal unless given, positive, of sum 1 each.
        tolerance: of the margin that is not exact, the sum of absolute errors.
        most: iterations at τ. Raises ValueError where they do not suffice.

    Source: Cuturi (2013), Sinkhorn distances; Schmitzer (2019), Stabilized sparse scaling
    algorithms for entropy regularized transport problems.
    Book: eq:sinkhorn.
    """
    check_samples(x, y, same_size=False, least=1)
    a, b = _margin(a, x), _margin(b, y)
    cost = _half_squares(x, y)
    largest = cost.max().item()
    if not (temperature > 0 and largest * 1e-9 <= temperature < float("inf")):
        raise ValueError(
            f"a temperature is positive and at least 1e-9 of the largest cost {largest:.3g}, "
            f"got {temperature}; use transport.optimal_plan at temperature zero."
        )
    if not (tolerance > 0 and most > 0):
        raise ValueError(f"tolerance and most are positive, got {tolerance} and {most}.")
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    level, iterations = max(temperature, largest), 0
    while True:
        last = level <= temperature
        f, g, error, used = _scale(cost, a, b, f, g, level, tolerance if last else 1e-2, most)
        iterations += used
        if last:
            break
        level = max(temperature, level / 4)
    if error > tolerance:
        raise ValueError(
            f"the margins must reach the tolerance {tolerance:g}, got {error:.3g} after {most} "
            "iterations; raise temperature, tolerance or most."
        )
    return EntropicPlan(x, y, a, b, float(temperature), f, g, error, iterations)


def _scale(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    level: float,
    tolerance: float,
    most: int,
) -> tuple[Tensor, Tensor, float, int]:
    """Potentials at one temperature, the error of the second margin, and the iterations used."""
    kernel = torch.empty_like(cost)
    u, v = torch.ones_like(a), torch.ones_like(b)

    def absorb() -> None:
        nonlocal f, g
        f, g = f + level * u.log(), g + level * v.log()
        torch.sub(f[:, None] + g, cost, out=kernel).div_(level).exp_()
        u.fill_(1), v.fill_(1)

    absorb()
    for k in range(1, most + 1):
        u = 1 / (kernel @ (b * v))
        column = kernel.mT @ (a * u)
        if k % EVERY == 0 or k == most:
            error = (b * (v * column - 1).abs()).sum().item()
            if error <= tolerance:
                break
            if max(u.log().abs().max(), v.log().abs().max()) > SPARE:
                absorb()
                continue
        v = 1 / column
    absorb()
    return f, g, error, k


def _half_squares(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.double(), y.double()
    centre = x.mean(0)  # far from the origin the products inside cdist would cancel
    return 0.5 * torch.cdist(x - centre, y - centre).square()


def _margin(w: Tensor | None, x: Tensor) -> Tensor:
    if w is None:
        return torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    if w.shape != (len(x),):
        raise ValueError(f"there is one weight per point, got {tuple(w.shape)} for {len(x)}.")
    check_weights(w)
    if w.min() == 0:
        raise ValueError("a point of a plan has positive weight, got 0; leave the point out.")
    return w.double() / w.double().sum()


def _check_batch(x0: Tensor, x1: Tensor, generator: torch.Generator) -> None:
    check_samples(x0, x1, same_size=False, least=1)
    if len(x0) != len(x1):
        raise ValueError(
            f"a coupling pairs points one to one, got {len(x0)} and {len(x1)}; cut the larger one."
        )
    check_generator(generator, x0.device)
