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

    Differences of the logarithm between the centres of neighbouring cells (one-sided at the walls),
    interpolated linearly in space and time; asked outside of the centres or the times it answers
    with the value at the nearest point inside. The error is of second order in the width of a cell.

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
    slopes = torch.gradient(
        densities.log(), spacing=list(grid.widths), dim=list(range(1, len(grid.axes) + 1))
    )
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
