r"""Optimal plans and maps: not only how far two laws are apart, but who goes where.

A plan says how much mass goes from each point of one sample to each point of another; the cheapest
one for the cost $|x-y|^2$ realises $W_2$, and its dual potentials prove that it is the cheapest.
Between Gaussians the plan is a linear map. Plans by entropic regularisation are not covered here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .measures import check_weights
from .metrics import Matrix, OtherPoints, Vector, check_gaussians, check_samples, square_root
from .shapes import Points

Weights = Float[Tensor, "n"]
OtherWeights = Float[Tensor, "m"]


@dataclass(frozen=True)
class Plan:
    r"""A plan between two samples and the potentials that certify it.

    $$ f_i + g_j \le \tfrac12|x_i - y_j|^2, \qquad
       \sum_i a_i f_i + \sum_j b_j g_j = \tfrac12\sum_{ij}\pi_{ij}\,|x_i - y_j|^2
       = \tfrac12 W_2^2 . $$

    The left inequality for all pairs makes every other plan at least as expensive; the ½ belongs to
    the cost. The potentials are determined up to a constant that moves from f to g.

    Book: eq:duality.
    """

    matrix: Float[Tensor, "n m"]
    f: Weights
    g: OtherWeights

    @property
    def permutation(self) -> Int[Tensor, "n"]:
        """The index j of the point to which each i goes. Raises ValueError if mass is split."""
        rows, columns = (self.matrix > 0).sum(1), (self.matrix > 0).sum(0)
        if (rows != 1).any() or (columns != 1).any():
            raise ValueError(
                "this plan splits the mass of a point, so it is no permutation; use its matrix."
            )
        return self.matrix.argmax(dim=1)


def optimal_plan(
    x: Points, y: OtherPoints, a: Weights | None = None, b: OtherWeights | None = None
) -> Plan:
    r"""The plan $\pi$ with margins a and b that makes $\sum_{ij}\pi_{ij}|x_i - y_j|^2$ least.

    Sizes may differ; weights are equal unless given, and must be positive, because a point without
    mass has no potential. By POT's network simplex, exactly, in float64. Memory is nm numbers. If
    several plans are optimal, one of them comes back.

    Source: Peyré and Cuturi (2019), Computational optimal transport.
    Book: eq:w2.
    """
    from ot import emd  # here, because the import takes as long as that of torch

    check_samples(x, y, same_size=False, least=1)
    a, b = margin(a, x), margin(b, y)
    cost = 0.5 * (x.double()[:, None] - y.double()).square().sum(2)
    matrix, log = emd(*(v.cpu().numpy() for v in (a, b, cost)), numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise ValueError(f"the transport problem was not solved: {log['warning']}.")
    parts = (torch.from_numpy(v).to(x.device) for v in (matrix, log["u"], log["v"]))
    return Plan(*parts)


def gaussian_map(
    mean_a: Vector, cov_a: Matrix, mean_b: Vector, cov_b: Matrix
) -> tuple[Matrix, Callable[[Tensor], Tensor]]:
    r"""The optimal map between two Gaussians: its matrix M, and the map itself on points (n, d).

    $$ T(x) = m_b + M\,(x - m_a), \qquad M = A^{-1/2}\,(A^{1/2}BA^{1/2})^{1/2}A^{-1/2} $$

    M is the only symmetric positive semidefinite matrix with $MAM=B$; a map with another matrix
    $M'AM'^\top=B$ reaches the same law at a higher cost. B may be singular. Raises ValueError if A
    is: mass that lies in a subspace may have to be split, and then there is no map.

    Source: Dowson and Landau (1982), The Fréchet distance between multivariate normal
    distributions.
    Book: thm:brenier.
    """
    check_gaussians(mean_a, cov_a, mean_b, cov_b)
    least = torch.linalg.eigvalsh(cov_a).min().item()
    if least <= torch.finfo(cov_a.dtype).eps * cov_a.abs().max().item():
        raise ValueError(
            f"a map needs a first covariance without zero eigenvalues, got {least:.3g}; "
            "exchange the two, or use optimal_plan."
        )
    root = square_root(cov_a)
    half = torch.linalg.solve(root, square_root(root @ cov_b @ root))
    matrix = torch.linalg.solve(root, half.mT)
    matrix = 0.5 * (matrix + matrix.mT)  # symmetric up to rounding already
    return matrix, lambda x: mean_b + (x - mean_a) @ matrix


def margin(w: Weights | None, x: Points) -> Weights:
    """The weights of a plan's points in float64, of sum one; equal ones for None.

    Raises ValueError unless there is one positive weight per point.
    """
    if w is None:
        return torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    if w.shape != (len(x),):
        raise ValueError(f"there is one weight per point, got {tuple(w.shape)} for {len(x)}.")
    check_weights(w)
    if w.min() == 0:
        raise ValueError("a point of a plan has positive weight, got 0; leave the point out.")
    w = w.double()
    return w / w.sum()  # rounding of a shorter dtype, which the solver would not forgive
