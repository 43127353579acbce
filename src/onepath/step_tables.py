r"""Tables of coefficients: what the steps of `samplers` share.

The coefficients of a sampler's step depend on its times and not on the state. Schedules check
their times and are slow for one time after another, so the coefficients of all steps of a grid are
computed at once, as columns of a table with a row for each step, and the tables of the last few
grids are kept. A step that is taken by itself fills a table of its own.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial

import numpy
import torch
from torch import Tensor

from .interpolants import Interpolant, half_log_snr
from .solvers import Draw, Step


def tabulated(
    rows: Callable, advance: Callable, draws: bool = False, history: int = 0, least: int = 1
) -> Step:
    """The step that advances by a row of coefficients; `step.prepared` gives those of a grid.

    Args:
        rows: (starts, ends) to columns of coefficients, a row for each step of a grid. Row k may
            depend on the steps before it.
        history: how many steps before its own a row may depend on. A step that is taken alone
            keeps their times in its memory.
        least: how many steps a grid must have, else `step.prepared` raises ValueError.
    """

    @lru_cache(maxsize=8)
    def steps(starts: tuple[float, ...], ends: tuple[float, ...]) -> list[Step]:
        columns = rows(*(torch.tensor(t, dtype=torch.float64) for t in (starts, ends)))
        return [partial(advance, row) for row in zip(*columns)]

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        if not history:
            return steps((t.item(),), (t_next.item(),))[0](x, t, t_next, draw, memory)
        before, memory = memory or ((), None)
        starts = (*before[-history:], t.item())
        alone = steps(starts, (*starts[1:], t_next.item()))[-1]
        x, memory = alone(x, t, t_next, draw, memory)
        return x, (starts, memory)

    def prepared(starts: Tensor, ends: Tensor) -> list[Step]:
        if len(starts) < least:
            raise ValueError(
                f"a method of {least} values takes at least {least} steps, got a grid of "
                f"{len(starts)}; add steps or lower the order."
            )
        return _of_grid(steps)(starts, ends)

    step.prepared, step.draws = prepared, draws
    return step


def around(inner: Step, rows: Callable, wrapped: Callable, begin: Callable) -> Step:
    """A step with noise around another one, which takes over the other's level and table.

    Args:
        wrapped: the inner step to the function that advances by a row of coefficients.
        begin: (starts, ends) to where the inner steps begin.
    """
    alone, prepare = tabulated(rows, wrapped(inner), draws=True), getattr(inner, "prepared", None)

    @lru_cache(maxsize=8)
    def steps(starts: tuple[float, ...], ends: tuple[float, ...]) -> list[Step]:
        starts, ends = (torch.tensor(t, dtype=torch.float64) for t in (starts, ends))
        within = prepare(begin(starts, ends), ends)
        return [partial(wrapped(s), row) for s, row in zip(within, zip(*rows(starts, ends)))]

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        return alone(x, t, t_next, draw, memory)

    step.__dict__.update(vars(inner))  # the level of a step of `solvers`
    step.prepared = alone.prepared if prepare is None else _of_grid(steps)
    step.draws = True
    return step


def _of_grid(steps: Callable) -> Callable:
    """The steps of a grid, from its times as tensors."""
    return lambda starts, ends: steps(tuple(starts.tolist()), tuple(ends.tolist()))


def spans(path: Interpolant, starts: Tensor, ends: Tensor) -> tuple[Tensor, ...]:
    """(sigma, sigma', alpha', h) of each step. Raises ValueError for what is no step to data."""
    sigma, h = path.sigma(starts), half_log_snr(path, ends) - half_log_snr(path, starts)
    if not (sigma > 0).all():
        raise ValueError(
            "a sampler divides by sigma where a step begins, got sigma = 0 at t = "
            f"{starts[~(sigma > 0)][0]:g}; the data are reached there, stop the grid."
        )
    if not (h >= -1e-12).all():
        raise ValueError(
            "the signal-to-noise ratio grows in each step of a sampler, got h = "
            f"{h.tolist()}; is the clock of the schedule turned?"
        )
    return sigma, path.sigma(ends), path.alpha(ends), h.clamp(min=0)


def frozen_step(path: Interpolant, starts: Tensor, ends: Tensor, zeta: float) -> tuple[Tensor, ...]:
    r"""(of the state, of the denoiser, of the noise, h) in a step with the denoiser frozen.

    $\frac{\sigma'}\sigma e^{-\zeta^2h}$, $\alpha'(1 - e^{-(1+\zeta^2)h})$,
    $\sigma'\sqrt{1 - e^{-2\zeta^2h}}$, and their limits where h is infinite.
    """
    sigma, sigma_next, alpha_next, h = spans(path, starts, ends)
    ratio, pull = sigma_next / sigma, -alpha_next * torch.expm1(-(1 + zeta**2) * h)
    if zeta == 0:  # 0 times an infinite h
        return ratio, pull, torch.zeros_like(h), h
    lost = -(zeta**2) * h
    return ratio * lost.exp(), pull, sigma_next * (-torch.expm1(2 * lost)).sqrt(), h


def check_zeta(zeta: float) -> None:
    if not 0 <= zeta < float("inf"):
        raise ValueError(f"zeta is noise in units of g, finite and >= 0, got {zeta}.")


def interpolated(nodes: Tensor, first: Tensor, last: Tensor, rate: Tensor | float = 0.0) -> Tensor:
    r"""$\int_{\text{first}}^{\text{last}} e^{\text{rate}(u - \text{last})}\,L_j(u)\,du$ for the
    Lagrange polynomials of the nodes: what each value contributes to an integral of the polynomial
    through all of them.

    Exact up to rounding: 48 Gauss nodes, and the exponential falls by less than e^60.
    """
    r, w = _gauss()
    length = last - first
    at = first + r * length
    apart = nodes[:, None] - nodes + torch.eye(len(nodes), dtype=nodes.dtype)
    factors = ((at[:, None, None] - nodes) / apart) ** (1 - torch.eye(len(nodes)))
    return length * (w * torch.exp(rate * (at - last))) @ factors.prod(2)


@cache
def _gauss() -> tuple[Tensor, Tensor]:
    """48 nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = numpy.polynomial.legendre.leggauss(48)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)
