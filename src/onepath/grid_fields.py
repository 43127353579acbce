r"""Fields read off densities on a grid, so that particles can move by what a grid solver found.

Between the centres of the cells values are interpolated linearly, in space and in time; outside of
them the nearest value is repeated, which keeps a stray particle finite and nothing more.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .grids import Grid
from .shapes import Field, Points, Time, per_point


def score_field(grid: Grid, times: Float[Tensor, "m"], densities: Float[Tensor, "m ..."]) -> Field:
    r"""The score $\nabla\log p$ of densities on the grid, as a field that may be asked anywhere.

    Central differences of the logarithm (one-sided at the walls), interpolated linearly in space
    and time; asked outside of the centres or the times it answers with the value at the nearest
    point inside. In cells of width h the differences exceed $s_k$ by $\tfrac16h^2\partial_k^2s_k$
    and interpolation, on average over a cell, by $\tfrac1{12}h^2\partial_j^2s_k$ for each axis j.
    Both are taken off: at a point the error is of second order, but its average over a cell, which
    is what carries particles astray together, is of fourth.

    Raises ValueError unless there is one density per time, at two or more increasing times, and
    where a density is not positive and finite: there is no score.

    Source: here.
    Book: eq:current-velocity.
    """
    if times.ndim != 1 or len(times) < 2 or not (times.diff() > 0).all():
        raise ValueError(f"times are two or more and increase, got {times.tolist()}.")
    if densities.shape != (len(times), *grid.shape):
        raise ValueError(
            f"densities have one value per time and cell, {(len(times), *grid.shape)}, "
            f"got {tuple(densities.shape)}; use history()."
        )
    if not ((densities > 0) & (densities < torch.inf)).all():
        raise ValueError(
            f"a score needs a positive density, got least value {densities.min().item():g} and "
            f"largest {densities.max().item():g}; use a smaller box or wait until noise fills it."
        )
    slopes, dims = [], range(1, len(grid.axes) + 1)
    for k, width in zip(dims, grid.widths):
        slope = torch.gradient(densities.log(), spacing=width, dim=k)[0]
        excess = sum(_second_difference(slope, j) * (1 / 4 if j == k else 1 / 12) for j in dims)
        slopes.append(slope - excess)
    values, clock = torch.stack(slopes, -1), times.to(densities.device)

    def score(t: Time, x: Points) -> Points:
        at = t.to(clock).clamp(clock[0], clock[-1])
        if at.isnan().any() or at.ndim > 1 or (at.ndim and len(at) != len(x)):
            raise ValueError(f"a time has shape () or (n,) = ({len(x)},) and is no nan, got {t}.")
        k = torch.searchsorted(clock, at, right=True).clamp(1, len(clock) - 1)
        share = per_point(((at - clock[k - 1]) / (clock[k] - clock[k - 1])).to(values))
        result = torch.zeros_like(x)
        for weight, cell in _corners(grid, x):
            piece = torch.lerp(values[(k - 1, *cell)], values[(k, *cell)], share)
            result = result + weight[:, None] * piece
        return result

    return score


def _second_difference(values: Tensor, dim: int) -> Tensor:
    """Of neighbours along an axis; zero in the two outermost cells, next to one-sided slopes."""
    inner, result = values.shape[dim] - 4, torch.zeros_like(values)
    below, here, above = (values.narrow(dim, k, inner) for k in (1, 2, 3))
    result.narrow(dim, 2, inner).copy_(below - 2 * here + above)
    return result


def interpolate(grid: Grid, values: Float[Tensor, "..."], x: Points) -> Float[Tensor, "n ..."]:
    """Values at the centres of the cells, interpolated linearly at points; constant outside.

    Raises ValueError where the values do not begin with the shape of the grid, and where points
    have another number of coordinates than the grid has axes, or are nan.
    """
    if values.shape[: len(grid.axes)] != grid.shape:
        raise ValueError(
            f"there is a value for each cell, {grid.shape}, got shape {tuple(values.shape)}."
        )
    pieces = ((w, values[cell]) for w, cell in _corners(grid, x))
    return sum(w.reshape(-1, *[1] * (piece.ndim - 1)) * piece for w, piece in pieces)


def _corners(grid: Grid, x: Points) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """The centres around each point: the weight of a centre and its index along each axis."""
    if x.shape[1] != len(grid.axes) or x.isnan().any():
        raise ValueError(
            f"points have {len(grid.axes)} coordinates, one for each axis, none of them nan; "
            f"got shape {tuple(x.shape)} with {int(x.isnan().sum())} nan."
        )
    lower, shares = [], []
    for axis, width, column in zip(grid.axes, grid.widths, x.T):
        place = ((column - axis[0]) / width).clamp(0, len(axis) - 1)
        lower.append(place.floor().long().clamp(max=len(axis) - 2))
        shares.append(place - lower[-1])
    for corner in torch.cartesian_prod(*[torch.arange(2)] * len(lower)).reshape(-1, len(lower)):
        weight, index = torch.ones_like(shares[0]), []
        for k, share, above in zip(lower, shares, corner.tolist()):
            weight = weight * (share if above else 1 - share)
            index.append(k + above)
        yield weight, tuple(index)
