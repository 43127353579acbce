r"""Grids of times for samplers: the same number of steps, put elsewhere.

A sampler sees a schedule through $\lambda_t = \log(\alpha_t/\sigma_t)$ only, so where its steps
lie on the axis of $\lambda$ decides its error, and steps that are equal in one clock are unequal in
another. A grid is a tensor of increasing times, float64 on the CPU, like `solvers.times`, which is
the one that is uniform in t. All of them stop where they are told; where $\lambda$ is infinite at
an end, no rule in $\lambda$ reaches it, and the caller says how that end is met.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .fields import gaussian_path
from .interpolants import Interpolant, half_log_snr
from .oracles import MixturePath
from .shapes import Points, Time
from .solvers import Step
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
    times = time_at(path, log_snr)
    times[0], times[-1] = start, stop
    if not (times.diff() > 0).all():
        raise ValueError(f"the steps of this grid are below rounding in t, got {times.tolist()}.")
    return times
