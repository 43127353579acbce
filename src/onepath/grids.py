r"""Densities on a grid: Fokker–Planck and continuity equations on an interval or a rectangle.

The line is cut into cells, and a density is carried as its mean over each cell. Mass jumps between
neighbours, at a rate that depends on the drift and the noise where the two cells touch. A scheme
that consists of jumps conserves mass, whatever the rates are; it keeps densities nonnegative as
long as no rate is negative and no step lets more mass leave a cell than there is. The rates here
are those of exponential fitting (Scharfetter and Gummel): exact if drift and noise are constant
between two cells, accurate to second order in the width of a cell with noise, and the upwind scheme
of first order without.

The walls reflect, and the walls are an artefact: a run that brings mass to them is refused. Noise
that is stronger in one direction than in another is not covered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import gradient
from .shapes import Curve, Field, LogDensity, Points, Scalar, Time

Cells = Float[Tensor, "a"] | Float[Tensor, "a b"]  # a number per cell
Rates = Callable[[Tensor], list[tuple[Tensor, Tensor]]]  # t -> (up, down), a pair for each axis


@dataclass(frozen=True)
class Grid:
    """Equal cells on an interval (one axis) or a rectangle (two): the coordinates of their centres.

    Raises ValueError unless there are one or two axes of at least four finite, equally spaced,
    increasing floating-point numbers of one dtype on one device.
    """

    axes: tuple[Float[Tensor, "_"], ...]

    def __post_init__(self) -> None:
        if len(self.axes) not in (1, 2):
            raise ValueError(f"a grid has one or two axes, got {len(self.axes)}.")
        if len({(a.dtype, a.device) for a in self.axes}) > 1:
            raise ValueError("the axes of a grid share dtype and device; convert them with .to().")
        for a in self.axes:
            if a.ndim != 1 or len(a) < 4 or not a.is_floating_point():
                raise ValueError(
                    "an axis is a list of at least four floating-point numbers, "
                    f"got shape {tuple(a.shape)}, {a.dtype}."
                )
            gaps, rounding = a.diff(), 16 * torch.finfo(a.dtype).eps * a.abs().max()
            if not (gaps > 0).all() or not gaps.max() - gaps.min() <= rounding:
                raise ValueError(
                    f"cells are equally wide and increase, got gaps from {gaps.min().item():g} "
                    f"to {gaps.max().item():g}; use box()."
                )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(a) for a in self.axes)

    @property
    def widths(self) -> tuple[float, ...]:
        return tuple(((a[-1] - a[0]) / (len(a) - 1)).item() for a in self.axes)

    @property
    def volume(self) -> float:
        """Of one cell."""
        return torch.tensor(self.widths, dtype=torch.float64).prod().item()

    @property
    def points(self) -> Points:
        """The centres of all cells, one a row, the last axis fastest."""
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"), -1).flatten(0, -2)


def box(low: float, high: float, cells: int, like: Tensor, dim: int = 1) -> Grid:
    """The interval [low, high], or its square for dim = 2, cut into that many cells along an axis.

    Raises ValueError unless low < high, cells >= 4 and dim is 1 or 2.
    """
    if not low < high or cells < 4 or dim not in (1, 2):
        raise ValueError(
            "a box has low < high, at least 4 cells and 1 or 2 axes, "
            f"got [{low:g}, {high:g}], {cells} cells, {dim} axes."
        )
    half = 0.5 * (high - low) / cells
    axis = torch.linspace(low + half, high - half, cells, dtype=like.dtype, device=like.device)
    return Grid((axis,) * dim)


def on_cells(grid: Grid, log_density: LogDensity, t: Time, tolerance: float = 1e-6) -> Cells:
    r"""The density at the centres of the cells, scaled so that its mass on the grid is exactly 1.

    Raises ValueError where the mass on the grid differs from 1 by more than `tolerance` before it
    is scaled: the law does not fit, the cells are too wide for it, or it is not normalised.

    Source: here.
    Book: eq:cell-mass.
    """
    density = log_density(t, grid.points).exp().reshape(grid.shape)
    total = mass(grid, density).item()
    if not abs(total - 1) <= tolerance:
        raise ValueError(
            f"the mass of the density on the grid must be 1 within {tolerance:g}, "
            f"got {total:.9g}; widen the box or use more cells."
        )
    return density / total


def mass(grid: Grid, density: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over the cells of density times volume; leading dimensions are kept."""
    return grid.volume * density.sum(tuple(range(-len(grid.axes), 0)))


def jump_rates(grid: Grid, drift: Field, eta: Curve) -> Rates:
    r"""The rates at which mass jumps between neighbouring cells.

    For $dX = b_t(X)\,dt + \eta_t\,dW$, across a face where the drift along the axis is $b$, with
    cells of width $h$ and $D=\tfrac12\eta^2$,

    $$ \text{up} = \frac D{h^2}\,B\Big(\!-\frac{bh}D\Big),\qquad
       \text{down} = \frac D{h^2}\,B\Big(\frac{bh}D\Big),\qquad B(z) = \frac z{e^z-1} . $$

    The ½ is that of Fokker–Planck. Where the noise vanishes the limits are the upwind rates
    $\max(\pm b,0)/h$. Evaluating the rates raises ValueError where eta is negative or a drift or
    noise is not finite.

    Source: Scharfetter and Gummel (1969), Large-signal analysis of a silicon Read diode oscillator.
    Book: eq:jump-rates.
    """

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        level = eta(t).to(x)
        if not level >= 0:
            raise ValueError(f"a noise level is nonnegative, got {level:g} at t = {t:g}.")
        return (0.5 * level**2).expand(len(x))

    return _rates(grid, drift, diffusion)


def jump_rates_general(grid: Grid, drift: Field, variance: Scalar) -> Rates:
    r"""The same for noise that depends on the state, $dX = b_t(X)\,dt + \sqrt{a_t(X)}\,dW$ (Itô).

    Of $\tfrac12\Delta(ap) = \nabla\cdot(\tfrac12a\nabla p + \tfrac12p\nabla a)$ the second part is
    a drift, so the rates are those of `jump_rates` with $b-\tfrac12\nabla a$ for $b$ and
    $D=\tfrac12a$.

    Args:
        variance: a >= 0, the variance that the noise adds to each coordinate per unit of time.

    Source: here.
    Book: eq:fokker-planck-general.
    """

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        a = variance(t, x)
        if not (a >= 0).all():
            raise ValueError(f"a variance is nonnegative, got {a.min():g} at t = {t:g}.")
        return 0.5 * a

    return _rates(grid, lambda t, x: drift(t, x) - 0.5 * gradient(variance, t, x), diffusion)


def evolve(
    grid: Grid, density: Cells, rates: Rates, times: Float[Tensor, "m"], edge: float = 1e-6
) -> Cells:
    """The density at the last of `times`, from `density` at the first. See `history`."""
    last = density
    for state in _states(grid, density, rates, times, edge):
        last = state
    return last


def history(
    grid: Grid, density: Cells, rates: Rates, times: Float[Tensor, "m"], edge: float = 1e-6
) -> Float[Tensor, "m ..."]:
    r"""The densities at all of `times`, the start included.

    Each step is the mean of the old state and of two explicit Euler steps in a row (Heun's method
    as a mixture of states): order 2 in time, mass kept to rounding, densities nonnegative.

    Args:
        times: increasing; a step may not exceed `stable_step`.
        edge: the largest share of the mass that may lie in the outermost cells at any time; 1 means
            that the walls are meant.

    Raises ValueError where the density is negative, has another shape than the grid or a mass that
    is not 1, where times do not increase, a step is too long, or mass reaches the walls.

    Source: Shu and Osher (1988) for the step, Scharfetter and Gummel (1969) for the rates.
    Book: eq:jump-rates.
    """
    return torch.stack([density, *_states(grid, density, rates, times, edge)])


def stable_step(rates: Rates, times: Float[Tensor, "m"]) -> float:
    """The longest step at which, at these times, no cell loses more mass than it holds."""
    return min(_longest(rates(t)) for t in times)


def _rates(grid: Grid, drift: Field, diffusion: Scalar) -> Rates:
    """The rates of exponential fitting across all faces, for ∂ₜp = ∇·(D ∇p − b p)."""
    faces, shapes = [], []
    for k, axis in enumerate(grid.axes):
        middles = list(grid.axes)
        middles[k] = 0.5 * (axis[:-1] + axis[1:])
        shapes.append(tuple(len(a) for a in middles))
        faces.append(torch.stack(torch.meshgrid(*middles, indexing="ij"), -1).flatten(0, -2))

    def rates(t: Tensor) -> list[tuple[Tensor, Tensor]]:
        pairs = []
        for k, (x, shape, h) in enumerate(zip(faces, shapes, grid.widths)):
            b, D = drift(t, x), diffusion(t, x)
            if b.shape != x.shape or D.shape != x.shape[:1]:
                raise ValueError(
                    f"at points {tuple(x.shape)} a drift has this shape and a variance one number "
                    f"per point, got {tuple(b.shape)} and {tuple(D.shape)}."
                )
            b = b[:, k]
            if not (b.isfinite().all() and D.isfinite().all()):
                raise ValueError(f"drift and noise must be finite, got nan or inf at t = {t:g}.")
            # beyond this ratio the fitted rates are the upwind rates, up to rounding
            D = torch.maximum(D, torch.finfo(b.dtype).eps * h * b.abs())
            z = b * h / D.clamp(min=torch.finfo(b.dtype).tiny)
            pairs.append(tuple((D / h**2 * _bernoulli(s * z)).reshape(shape) for s in (-1, 1)))
        return pairs

    return rates


def _bernoulli(z: Tensor) -> Tensor:
    return torch.where(z == 0, torch.ones_like(z), z / torch.expm1(z))


def _outflow(rates: list[tuple[Tensor, Tensor]]) -> Cells:
    """The rate at which mass leaves each cell, over all its faces."""
    return sum(_padded(u, k, after=1) + _padded(d, k, after=0) for k, (u, d) in enumerate(rates))


def _longest(rates: list[tuple[Tensor, Tensor]]) -> float:
    return (1 / _outflow(rates).max()).item()  # infinite where nothing moves


def _change(rates: list[tuple[Tensor, Tensor]], density: Tensor) -> Cells:
    """The time derivative of the density: what comes in through the faces, less what goes out."""
    total = 0.0
    for axis, (up, down) in enumerate(rates):
        n = density.shape[axis]
        below, above = density.narrow(axis, 0, n - 1), density.narrow(axis, 1, n - 1)
        flow = up * below - down * above
        total = total + _padded(flow, axis, after=0) - _padded(flow, axis, after=1)
    return total


def _padded(faces: Tensor, axis: int, after: int) -> Tensor:
    """Values of the inner faces given to the cells above them (after=0) or below (after=1)."""
    rim = torch.zeros_like(faces.narrow(axis, 0, 1))
    return torch.cat([faces, rim] if after else [rim, faces], axis)


def _states(
    grid: Grid, density: Cells, rates: Rates, times: Tensor, edge: float
) -> Iterator[Tensor]:
    if density.shape != grid.shape or not (density >= 0).all():
        raise ValueError(
            f"a density has one nonnegative value per cell, {grid.shape}, "
            f"got shape {tuple(density.shape)} and least value {density.min().item():g}."
        )
    total, tolerance = mass(grid, density).item(), torch.finfo(density.dtype).eps ** 0.5
    if not abs(total - 1) <= tolerance:
        raise ValueError(f"a density has mass 1, got {total:.9g}; use on_cells().")
    if not 0 <= edge <= 1:
        raise ValueError(f"edge is a share of the mass, from 0 to 1, got {edge:g}.")
    if times.ndim != 1 or len(times) < 2 or not (times.diff() > 0).all():
        raise ValueError(f"times are two or more and increase, got {times.tolist()}.")
    now = rates(times[0])
    for t, t_next in zip(times[:-1], times[1:]):
        h, later = (t_next - t).item(), rates(t_next)
        # rates are known only along the run, so this cannot be checked before it
        limit = min(_longest(now), _longest(later))
        if not h <= limit:
            raise ValueError(
                f"a step may not exceed {limit:.3g} at t = {t:g}, or a cell would lose more mass "
                f"than it holds; got {h:.3g}. Take shorter steps or wider cells."
            )
        ahead = density + h * _change(now, density)
        density = 0.5 * (density + ahead + h * _change(later, ahead))
        walls = _at_walls(grid, density)
        if not walls <= edge:
            raise ValueError(
                f"the outermost cells may hold at most {edge:g} of the mass, "
                f"got {walls:.3g} at t = {t_next:g}; widen the box (edge=1 if walls are meant)."
            )
        yield density
        now = later


def _at_walls(grid: Grid, density: Tensor) -> float:
    inner = density[tuple(slice(1, -1) for _ in grid.axes)]
    return grid.volume * (density.sum() - inner.sum()).clamp(min=0).item()
