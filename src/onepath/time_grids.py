r"""Grids of times for samplers: the same number of steps, put elsewhere.

A sampler sees a schedule through $\lambda_t = \log(\alpha_t/\sigma_t)$ only, so where its steps
lie on the axis of $\lambda$ decides its error, and steps that are equal in one clock are unequal in
another. A grid is a tensor of increasing times, float64 on the CPU, like `solvers.times`, which is
the one that is uniform in t. They stop where they are told; where $\lambda$ is infinite at an end,
no rule in $\lambda$ reaches it, and `end_to_end` says how that end is met. Samplers take any grid,
since a part of a run is a fair thing to ask for; `whole_run` refuses one that is not a whole run.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .fields import gaussian_path
from .interpolants import Interpolant, half_log_snr, linear
from .oracles import MixturePath
from .shapes import Points, Time
from .solvers import Step, times
from .weightings import TimeDensity

Path = Interpolant | MixturePath
Grid = Float[Tensor, "m"]

_HALVINGS = 64  # an interval of length 1 to the last bit of float64


def time_at(path: Path, log_snr: Time) -> Time:
    r"""The time t with $\lambda_t$ = `log_snr`: the inverse of `half_log_snr`, by bisection.

    Accurate to the last digits of t, in float64. Infinite values give the end where they are
    reached. Raises ValueError where the schedule has no such value, and as `gaussian_path` does.

    Source: here.
    """
    schedule = gaussian_path(path)
    wanted = log_snr.double()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    first, last = half_log_snr(schedule, ends)
    rounding = 1e-12 * (1 + wanted.abs())
    if not ((wanted >= first - rounding) & (wanted <= last + rounding)).all():
        raise ValueError(
            f"this schedule has half log-SNRs from {first:g} to {last:g}, got "
            f"{wanted.min().item():g} to {wanted.max().item():g}."
        )
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        below = half_log_snr(schedule, middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(wanted >= last, 1.0, torch.where(wanted <= first, 0.0, high))


def uniform_in_log_snr(path: Path, n: int, start: float, stop: float) -> Grid:
    r"""n steps from `start` to `stop` that are equal in $\lambda$.

    $$ \lambda_{t_k} = \lambda_{\text{start}} + \frac kn\,(\lambda_{\text{stop}} -
       \lambda_{\text{start}}) . $$

    Raises ValueError unless n >= 1, 0 <= start < stop <= 1 and $\lambda$ is finite at both and
    grows.

    Source: Lu et al. (2022), DPM-Solver.
    """
    first, last = _ends(path, n, start, stop)
    return _grid(path, first + (last - first) * _shares(n), start, stop)


def end_to_end(path: Path, n: int, low: float = -2.2, high: float = 4.6) -> Grid:
    r"""n steps from t = 0 to t = 1, equal in $\lambda$ between `low` and `high`.

    A path that begins below `low`, such as one with $\lambda_0 = -\infty$, is met there by one step
    more, and likewise one that ends above `high`. The defaults are t = 0.1 and t = 0.99 of the
    linear path, for data whose size is about that of the base. The steps to `low` and from `high`
    do not shrink with n, so that the error of a run tends to a constant; for a limit move `low` and
    `high` out as n grows.

    Raises ValueError unless `low` < `high` overlap the half log-SNRs of the schedule and n leaves a
    step between them.

    Source: here.
    """
    schedule = gaussian_path(path)
    ends = half_log_snr(schedule, torch.tensor([0.0, 1.0], dtype=torch.float64))
    first, last = ends.tolist()
    start, stop = max(low, first), min(high, last)
    inner = n - (first < start) - (stop < last)
    if inner < 1 or not start < stop:
        raise ValueError(
            "a run from end to end has a step between low and high, which lie within the half "
            f"log-SNRs of the schedule, got n = {n} and {low:g} to {high:g} for {first:g} to "
            f"{last:g}."
        )
    even = start + (stop - start) * _shares(inner)
    before, after = ends[:1] if first < start else ends[:0], ends[1:] if stop < last else ends[:0]
    return _grid(schedule, torch.cat([before, even, after]), 0.0, 1.0)


def uniform_in_linear_time(path: Path, n: int) -> Grid:
    r"""n steps from t = 0 to t = 1 that would be equal on the linear path with the same $\lambda$.

    There $t = \alpha/(\alpha+\sigma)$, in any scale of the state; where it begins above 0 or ends
    below 1 on this path, so do the equal steps. On the linear path this is `solvers.times`.

    Source: here.
    """
    schedule = gaussian_path(path)
    ends = half_log_snr(schedule, torch.tensor([0.0, 1.0], dtype=torch.float64))
    return _grid(schedule, half_log_snr(linear, times(n, *ends.sigmoid().tolist())), 0.0, 1.0)


def whole_run(grid: Grid) -> Grid:
    """The grid as it came, if it is that of a whole run: increasing times from 0 to 1.

    For comparisons and for samples to keep: a run that starts or stops inside is a run of other
    laws, and nothing in its numbers shows it. Raises ValueError otherwise.
    """
    if len(grid) < 2 or grid[0] != 0 or grid[-1] != 1:
        ends = f"{grid[0].item():g} to {grid[-1].item():g}" if len(grid) else "no times"
        raise ValueError(
            f"the grid of a whole run starts at 0 and ends at 1, got {ends}; add a step at that "
            "end, or call `integrate` on the part that is meant."
        )
    if not (grid.diff() > 0).all():
        raise ValueError(f"the times of a run increase, got {grid.tolist()}.")
    return grid


def karras(path: Path, n: int, start: float, stop: float, rho: float = 7.0) -> Grid:
    r"""n steps from `start` to `stop` that are equal in $\kappa^{1/\rho}$, with $\kappa =
    \sigma/\alpha = e^{-\lambda}$ the noise of EDM.

    $$ \kappa_{t_k} = \Big(\kappa_{\text{start}}^{1/\rho} + \frac kn\,\big(\kappa_{\text{stop}
       }^{1/\rho} - \kappa_{\text{start}}^{1/\rho}\big)\Big)^\rho . $$

    `rho` = 1 has equal steps in $\kappa$, `rho` to infinity in $\lambda$. Noise 0 at `stop` is
    allowed. Raises ValueError unless n >= 1, 0 <= start < stop <= 1, rho >= 1, and $\lambda$ is
    not minus infinity at `start`, and grows.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    """
    if not 1 <= rho < float("inf"):
        raise ValueError(f"rho is at least 1 and finite, got {rho}; use uniform_in_log_snr.")
    first, last = _ends(path, n, start, stop, noise_free=True)
    roots = (-first / rho).exp(), (-last / rho).exp()
    return _grid(path, -rho * (roots[0] + (roots[1] - roots[0]) * _shares(n)).log(), start, stop)


def optimised(
    step: Step, x: Points, pilot: Float[Tensor, "p"], n: int, order: int = 1
) -> Float[Tensor, "m"]:
    r"""n steps that share the local error of a method equally, as measured on a finer grid.

    A method of order p makes an error $C_t h^{p+1}$ in a step of length h. The sum over the steps,
    $\int C_th_t^p\,dt$, is least among all grids of n steps, $\int dt/h_t = n$, where
    $C_th_t^{p+1}$ is the same for all:

    $$ \text{grid points per unit of time}\ \propto\ C_t^{1/(p+1)} . $$

    On each interval of `pilot` the step is compared with its two halves, in root mean square over
    the points; the power 1/(p+1) of that is the share of the interval. An interval has at least
    1/20 of the largest share, so that no step is wild where the pilot saw no error. How an early
    error grows until the end is left out. Three steps an interval, once for all runs to come.

    Args:
        step: without noise; one with memory is tried without it, which makes it of order 1.
        x: states at the first time of `pilot`.
        order: p of the step. First order is the curvature of trajectories, and a good guide to
            grids for methods of any order.

    Raises ValueError for a step that draws noise, and where the step makes no error at all.

    Source: here; equidistribution of errors, as in adaptive quadrature.
    Book: eq:optimised-grid.
    """
    if n < 1 or order < 1 or len(pilot) < 2:
        raise ValueError(
            "a grid has n >= 1 steps, an order is at least 1 and a pilot has two times, got "
            f"n = {n}, order {order} and {len(pilot)} times."
        )

    def no_noise() -> Tensor:
        raise ValueError("local errors need a step without noise, got one that draws.")

    errors = []
    with torch.no_grad():
        for t, t_next in zip(pilot[:-1], pilot[1:]):
            middle = 0.5 * (t + t_next)
            whole, _ = step(x, t, t_next, no_noise, None)
            half, _ = step(x, t, middle, no_noise, None)
            x, _ = step(half, middle, t_next, no_noise, None)
            errors.append((whole - x).double().square().sum(1).mean().sqrt())
    shares = torch.stack(errors).cpu() ** (1 / (order + 1))
    if not (shares.max() > 0):
        raise ValueError("the step makes no error on the pilot grid, so that any grid will do.")
    edges = pilot.double()
    density = TimeDensity(edges, shares.clamp(min=0.05 * shares.max().item()) / edges.diff())
    grid = density.quantile(_shares(n))
    grid[0], grid[-1] = edges[0], edges[-1]
    return grid


def _shares(n: int) -> Grid:
    return torch.linspace(0, 1, n + 1, dtype=torch.float64)


def _ends(
    path: Path, n: int, start: float, stop: float, noise_free: bool = False
) -> tuple[Tensor, Tensor]:
    """The half log-SNR at both ends of a grid."""
    if n < 1 or not 0 <= start < stop <= 1:
        raise ValueError(
            f"a grid has n >= 1 steps and 0 <= start < stop <= 1, "
            f"got n = {n}, from {start} to {stop}."
        )
    ends = torch.tensor([start, stop], dtype=torch.float64)
    first, last = half_log_snr(gaussian_path(path), ends)
    if not first.isfinite() or not (last.isfinite() or noise_free):
        raise ValueError(
            f"this grid is even on an axis that is infinite at an end: the half log-SNR goes from "
            f"{first:g} at t = {start:g} to {last:g} at {stop:g}; start and stop inside."
        )
    if not first < last:
        raise ValueError(
            f"the signal-to-noise ratio grows along a path, got a half log-SNR of {first:g} at "
            f"t = {start:g} and {last:g} at {stop:g}; is the clock of the schedule turned?"
        )
    return first, last


def _grid(path: Path, log_snr: Tensor, start: float, stop: float) -> Grid:
    """The times of these half log-SNRs, with the two ends as they were given."""
    grid = time_at(path, log_snr)
    grid[0], grid[-1] = start, stop
    if not (grid.diff() > 0).all():
        raise ValueError(f"the steps of this grid are below rounding in t, got {grid.tolist()}.")
    return grid
