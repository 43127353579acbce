r"""Fields read off densities on a grid, so that particles can move by what a grid solver found.

Between the centres of the cells values are interpolated linearly, in space and in time; outside of
them the nearest value is repeated, which keeps a stray particle finite and nothing more.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .grids import Grid
from .shapes import Field, Points, Time


def score_field(grid: Grid, times: Float[Tensor, "m"], densities: Float[Tensor, "m ..."]) -> Field:
    r"""The score $\nabla\log p$ of densities on the grid, as a field that may be asked anywhere.

    Differences of the logarithm between the centres of neighbouring cells (one-sided at the walls),
    interpolated linearly in space and time; asked outside of the centres or the times it answers
    with the value at the nearest point inside. The time has shape ().

    Raises ValueError where a density is not positive: there is no score.

    Source: here.
    Book: eq:current-velocity.
    """
    if not (densities > 0).all():
        raise ValueError(
            f"a score needs a positive density, got least value {densities.min().item():g}; "
            "use a smaller box or wait until noise has filled it."
        )
    slopes = torch.gradient(
        densities.log(), spacing=list(grid.widths), dim=list(range(1, len(grid.axes) + 1))
    )
    values = torch.stack(slopes, -1)
    clock = times.to(values)

    def score(t: Time, x: Points) -> Points:
        at = t.to(clock).clamp(clock[0], clock[-1])
        k = torch.searchsorted(clock, at, right=True).clamp(1, len(clock) - 1)
        share = (at - clock[k - 1]) / (clock[k] - clock[k - 1])
        return interpolate(grid, torch.lerp(values[k - 1], values[k], share), x)

    return score


def interpolate(grid: Grid, values: Float[Tensor, "..."], x: Points) -> Float[Tensor, "n ..."]:
    """Values at the centres of the cells, interpolated linearly at points; constant outside."""
    result, lower, shares = 0.0, [], []
    for axis, width, column in zip(grid.axes, grid.widths, x.T):
        place = ((column - axis[0]) / width).clamp(0, len(axis) - 1)
        lower.append(place.floor().long().clamp(max=len(axis) - 2))
        shares.append(place - lower[-1])
    for corner in torch.cartesian_prod(*[torch.arange(2)] * len(lower)).reshape(-1, len(lower)):
        weight, index = torch.ones_like(shares[0]), []
        for k, share, above in zip(lower, shares, corner.tolist()):
            weight = weight * (share if above else 1 - share)
            index.append(k + above)
        piece = values[tuple(index)]
        result = result + weight.reshape(-1, *[1] * (piece.ndim - 1)) * piece
    return result
