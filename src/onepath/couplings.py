r"""Couplings: which start is paired with which target.

A path between two laws leaves open who travels where. A coupling is any function of (x0, x1,
generator), batches of n starts and n targets drawn independently, that returns n pairs whose
margins are still the two laws. Here are the independent one, the optimal one between Gaussians, the
optimal one within a batch, which is biased towards independence, and entropic plans by Sinkhorn's
algorithm, at temperatures where the kernel itself underflows. Couplings that a model makes by
itself (reflow) and unbalanced plans are not covered here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf, isfinite, log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .measures import check_generator
from .metrics import Matrix, OtherPoints, Vector, check_samples
from .shapes import Points
from .transport import OtherWeights, Weights, gaussian_map, margin

Coupling = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # n starts and n targets

SPARE = 100.0  # logarithm of the largest scaling that is left outside the potentials
EVERY = 10  # iterations between two looks at the error
FALL = 4.0  # factor by which the temperature falls
RELAX = 1.8  # power of a scaling's correction while the error falls, else 1


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

    A permutation, exact, by POT's network simplex in float64: every point is used once, so the
    margins stay and nothing is drawn. It is optimal for the batch and not for the laws: its cost is
    above $W_2^2$, the less so the larger the batch and the lower the dimension.

    Source: Pooladian et al. (2023), Multisample flow matching; Tong et al. (2024), Improving and
    generalizing flow-based generative models with minibatch optimal transport.
    Book: eq:minibatch-plan.
    """
    from ot import emd  # here, because the import takes as long as that of torch

    _check_batch(x0, x1, generator)
    cost = _half_squares(x0, x1).cpu().numpy()
    plan, about = emd([], [], cost, numItermax=100_000_000, log=True)
    if about["warning"] is not None:
        raise ValueError(f"the transport problem was not solved: {about['warning']}.")
    return x0, x1[torch.from_numpy(plan.argmax(1)).to(x1.device)]


def gaussian_optimal(mean0: Vector, cov0: Matrix, mean1: Vector, cov1: Matrix) -> Coupling:
    r"""The optimal coupling of two Gaussians: each start with its image $T(x_0)$.

    T is `transport.gaussian_map`, and raises where that does. The targets of the batch are not
    used: the coupling makes its own. Precondition: the starts have the first law.

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
    """`plans` batches of `size` pairs, each coupled by itself, in one.

    Every pair has the law of the coupling at that size, whatever batches it is served in later. A
    run that is to be resumed solves its plans before it begins; its loss draws rows of the pool.

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
    """Batches of pairs without end, from one `pool` after the other, each gone through some times.

    Each time the pool is shuffled anew, and every pair comes once. The law of a pair, and with it
    the expectation of every loss, is that of the coupling at `size` exactly. What is lost: k steps
    see k batch / reuse different pairs instead of k batch.

    Args:
        size: points of a plan, which sets its bias; it need not be the batch.
        plans: solved at once; a batch mixes pairs of all of them.
        batch: pairs to a batch; it divides size * plans.
        reuse: times that a pool is gone through.

    Source: here. Book: eq:minibatch-plan.
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
        at = levels.new_empty(len(levels), 1).uniform_(generator=generator)
        return torch.searchsorted(levels, at * levels[:, -1:], right=True)[:, 0]


def sinkhorn(
    x: Points,
    y: OtherPoints,
    temperature: float,
    a: Weights | None = None,
    b: OtherWeights | None = None,
    tolerance: float = 1e-6,
    most: int = 20_000,
) -> EntropicPlan:
    r"""The entropic plan between two weighted samples, by Sinkhorn's algorithm.

    $$ u \leftarrow u\,(u\cdot K(b\,v))^{-\omega}, \quad v \leftarrow v\,(v\cdot
       K^\top(a\,u))^{-\omega}, \qquad K_{ij} = e^{(f_i + g_j - \frac12|x_i - y_j|^2)/\tau} $$

    The algorithm has ω = 1; 1.8 needs several times fewer iterations near the plan, and is given up
    when the error rises. With f = g = 0 whole rows of K underflow at small τ. So the temperature
    falls to τ by factors of four from the largest cost, where nothing underflows, and $f + \tau\log
    u$ and $g + \tau\log v$ are the f and g of the next one, whose K begins near the plan; they
    also take in scalings that have grown. An iteration is two products of a matrix and a vector, in
    float64, with 2nm numbers. The one truncation: entries of K below $10^{-323}$ are zero.

    Args:
        temperature: τ > 0, a cost ½|x−y|², at least 1e-9 of the largest one, for rounding reaches
            the plan below. At zero it is `transport.optimal_plan`.
        a, b: weights, equal unless given, positive, of sum 1 each.
        tolerance: of the margin that is not exact.
        most: iterations at one temperature. Raises ValueError where they do not suffice.

    Source: Cuturi (2013), Sinkhorn distances; Schmitzer (2019), Stabilized sparse scaling
    algorithms for entropy regularized transport problems; Thibault et al. (2021), Overrelaxed
    Sinkhorn–Knopp algorithm for regularized optimal transport, for ω.
    Book: eq:sinkhorn.
    """
    check_samples(x, y, same_size=False, least=1)
    a, b = margin(a, x), margin(b, y)
    cost = _half_squares(x, y)
    largest = cost.max().item()
    if not (0 < temperature < inf and temperature >= 1e-9 * largest):
        raise ValueError(
            f"a temperature is positive and at least 1e-9 of the largest cost {largest:.3g}, "
            f"got {temperature}; use transport.optimal_plan at temperature zero."
        )
    if not (tolerance > 0 and most > 0):
        raise ValueError(f"tolerance and most are positive, got {tolerance} and {most}.")
    f, g, iterations = torch.zeros_like(a), torch.zeros_like(b), 0
    falls = ceil(log(largest / temperature, FALL)) if largest > temperature else 0
    for k in range(falls, -1, -1):
        level = temperature * FALL**k
        f, g, error, used = _scale(cost, a, b, f, g, level, (100 if k else 1) * tolerance, most)
        iterations += used
    if not error <= tolerance:  # nan, too
        raise ValueError(
            f"the margins must reach the tolerance {tolerance:g}, got {error:.3g} after {most} "
            "iterations; raise temperature, tolerance or most."
        )
    return EntropicPlan(x, y, a, b, float(temperature), f, g, error, iterations)


def _scale(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, level: float, enough: float, most: int
) -> tuple[Tensor, Tensor, float, int]:
    """The potentials at one temperature, the error of the second margin, and the iterations."""
    kernel, u, relax, fast, before = torch.empty_like(cost), None, 1.0, RELAX, inf
    for k in range(1, most + 1):
        if u is None:
            torch.add(f[:, None], g, out=kernel).sub_(cost).div_(level).exp_()
            u, v = torch.ones_like(a), torch.ones_like(b)
        look = k % EVERY == 0 or k == most
        u = u * (u * (kernel @ (b * v))) ** (-1 if look else -relax)
        column = v * (kernel.mT @ (a * u))
        if look:
            error = (b * (column - 1).abs()).sum().item()
            fast = fast if error <= before else 1.0  # nan is no smaller
            relax, before = fast, error
            done = error <= enough or k == most
            if not isfinite(error):
                u = None  # from f and g again
            elif done or u.log().abs().max() > SPARE:  # v grows with u, up to a power of n
                f, g, u = f + level * u.log(), g + level * v.log(), None
            if done:
                break
            if u is None:
                continue
        v = v * column ** (-1 if look else -relax)
    return f, g, error, k


def _half_squares(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.double(), y.double()
    centre = x.mean(0)  # far from the origin the products inside cdist would cancel
    return torch.cdist(x - centre, y - centre).square_().mul_(0.5)


def _check_batch(x0: Tensor, x1: Tensor, generator: torch.Generator) -> None:
    check_samples(x0, x1, same_size=False, least=1)
    if len(x0) != len(x1):
        raise ValueError(
            f"a coupling pairs points one to one, got {len(x0)} and {len(x1)}; cut the larger one."
        )
    check_generator(generator, x0.device)
