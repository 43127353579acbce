r"""What time steps cost: orders with intervals, what one step misses, and the four errors of a
sampler with their bounds.

A sampler starts at a reference instead of the law of its path, uses fields that are not exact,
takes steps, and stops before the data. Each of the four has a bound, in transport distance or in
relative entropy. An order is a slope, and a slope that is measured on random paths is itself
random; so it comes with an interval, from independent replicates. Noise that depends on the state
is here and nowhere else. On the line the law of a chain of Gaussian steps is computed on a grid,
without drawing anything; in more dimensions that is not covered.
"""

from collections.abc import Callable
from math import sqrt

import numpy
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp

from .calculus import rate
from .interpolants import Interpolant, half_log_snr
from .measures import check_generator
from .shapes import Curve, Field, Points, Values
from .solvers import Draw, Step
from .verify import Check, slope

Increments = Float[Tensor, "m n d"]  # of Brownian motion, one for each step of a grid
Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def material_derivative(field: Field) -> Field:
    r"""$\frac{Dv}{Dt} = \partial_tv_t + v_t\cdot\nabla v_t$, the acceleration of a particle of the
    flow, by one forward derivative along the trajectory.

    Half of it times the square of the step is what an Euler step misses.

    Source: here. Book: eq:euler-defect.
    """

    def acceleration(t: Tensor, x: Points) -> Points:
        value, change = jvp(field, (t, x), (torch.ones_like(t), field(t, x).detach()))
        return change.to(value.dtype)

    return acceleration


def brownian(
    times: Float[Tensor, "k"], x: Points, generator: torch.Generator
) -> Float[Tensor, "m n d"]:
    """Increments of Brownian motion between the times of a grid, one path for each row of x."""
    check_generator(generator, x.device)
    shape = (len(times) - 1, *x.shape)
    z = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
    return times.diff().sqrt().to(z)[:, None, None] * z


def coarser(increments: Increments, k: int) -> Float[Tensor, "j n d"]:
    """The increments of the same paths over k steps at once: their sums, not their means.

    Raises ValueError unless k divides the number of steps.
    """
    if k < 1 or len(increments) % k:
        raise ValueError(f"k >= 1 divides the number of steps, got {k} and {len(increments)}.")
    return increments.unflatten(0, (-1, k)).sum(1)


def driven(step: Step, x: Points, times: Float[Tensor, "k"], increments: Increments) -> Points:
    """The end of a run whose noise is given, for runs with different steps on one Brownian path.

    The step draws its noise once; the steps of `solvers` do. Raises ValueError unless there is one
    increment for each step.
    """
    if len(increments) != len(times) - 1 or increments.shape[1:] != x.shape:
        raise ValueError(
            f"one increment like x for each step, {(len(times) - 1, *x.shape)}, "
            f"got {tuple(increments.shape)}."
        )
    memory = None
    for t, t_next, dW in zip(times[:-1], times[1:], increments):
        draw: Draw = lambda dW=dW, h=t_next - t: dW / h.sqrt().to(dW)
        x, memory = step(x, t, t_next, draw, memory)
    return x


def maruyama(drift: Field, spread: Field) -> Step:
    r"""Euler's step for noise that depends on the state, $dX^i = b^i\,dt + G^i(X^i)\,dW^i$ in the
    sense of Itô: $x' = x + h\,b_t(x) + G_t(x)\,\Delta W$. Strong order ½, weak order 1.

    Args:
        spread: G, each coordinate a function of the same coordinate of x.

    Source: Kloeden and Platen (1992), Numerical solution of SDEs. Book: eq:milstein.
    """

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h = t_next - t
        return x + h * drift(t, x) + spread(t, x) * h.sqrt() * draw(), memory

    return _drawing(step)


def milstein(drift: Field, spread: Field) -> Step:
    r"""Milstein's step for the same equation: strong order 1.

    $$ x' = x + h\,b_t(x) + G\,\Delta W + \tfrac12\,G\,\partial_xG\,\big((\Delta W)^2 - h\big) . $$

    The $-h$ keeps the mean of the last term at zero; without it the step would solve
    Stratonovich's equation. The derivative is found automatically.

    Args:
        spread: G, each coordinate a function of the same coordinate of x.

    Source: Kloeden and Platen (1992), Numerical solution of SDEs. Book: eq:milstein.
    """

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h = t_next - t
        dW = h.sqrt() * draw()
        G, slope_of_G = jvp(lambda y: spread(t, y), (x,), (torch.ones_like(x),))
        return x + h * drift(t, x) + G * dW + 0.5 * G * slope_of_G * (dW**2 - h), memory

    return _drawing(step)


def slope_interval(sizes: list[float], errors: Float[Tensor, "r k"]) -> tuple[float, float]:
    """The slope of log error against log size and the half-width of its 95 % interval.

    One slope for each of r independent replicates; their mean, and their standard error times
    Student's quantile with r - 1 degrees of freedom (by its expansion, exact to 1 % from r = 6 on).

    Args:
        errors: positive, one row for each replicate, which shares no randomness with the others.

    Raises ValueError for fewer than six replicates, and for errors that are not positive.
    """
    r = len(errors)
    if r < 6:
        raise ValueError(f"an interval needs six independent replicates or more, got {r}.")
    slopes = torch.tensor([slope(sizes, row) for row in errors.tolist()])
    v, z = r - 1, 1.959964
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    return slopes.mean().item(), t * slopes.std().item() / sqrt(r)


def order_between(
    label: str, sizes: list[float], errors: Float[Tensor, "r k"], expected: float
) -> Check:
    """Check an order of convergence of a random error: the *whole* interval of the slope lies
    within a quarter of the expected one."""
    middle, half = slope_interval(sizes, errors)
    return Check(label, "order", abs(middle - expected) + half, 0.25, (middle, expected))


def extrapolated(coarse: Tensor, fine: Tensor, order: float = 1.0, ratio: float = 2.0) -> Tensor:
    r"""Richardson's $\frac{q^pE^{h/q} - E^h}{q^p - 1}$, whose error is of higher order.

    For order p = 1 and steps halved (q = 2), twice the fine value minus the coarse one. Of
    *expectations*, or of states of an ODE; a sample of this combination is a draw of no law.

    Source: Talay and Tubaro (1990), Expansion of the global error. Book: eq:richardson.
    """
    if not (order > 0 and ratio > 1):
        raise ValueError(f"an order is positive and a ratio above 1, got {order} and {ratio}.")
    return (ratio**order * fine - coarse) / (ratio**order - 1)


def langevin_variance(h: float, variance: float = 1.0) -> float:
    r"""The variance at rest of $x' = x + h\,s(x) + \sqrt{2h}\,\xi$ for a Gaussian target.

    $$ \mathrm{Var}_\infty = \frac{\text{variance}}{1 - h/(2\,\text{variance})} . $$

    In the units of `langevin`, $h = \tfrac12c^2\,d\theta$. Raises ValueError for $h \ge
    2\,\text{variance}$, where the chain does not come to rest.

    Source: here. Book: eq:langevin-bias.
    """
    if not 0 < h < 2 * variance:
        raise ValueError(
            f"Langevin steps come to rest for 0 < h < 2 variance = {2 * variance:g}, got h = {h:g}."
        )
    return variance / (1 - h / (2 * variance))


def carried(
    start: float, rates: Float[Tensor, "m"], sources: Float[Tensor, "m"], times: Float[Tensor, "m"]
) -> float:
    r"""Grönwall's right side, $e^{\int L}\,\text{start} + \int e^{\int_t^1L}\,\text{source}_t\,dt$,
    by the trapezoid rule on the grid.

    Args:
        rates: one-sided Lipschitz constants at the times of the grid, of either sign.
        sources: root mean squares of what is wrong with the velocity at those times.

    Source: here; Grönwall's lemma. Book: eq:groenwall.
    """
    areas = 0.5 * (rates[1:] + rates[:-1]) * times.diff()
    ahead = torch.cat([areas.flip(0).cumsum(0).flip(0), areas.new_zeros(1)]).exp()
    return ahead[0].item() * start + torch.trapezoid(ahead * sources, times).item()


def stopping_bound(path: Interpolant, second_moment: float, d: int, t: Tensor) -> float:
    r"""$\big((1-\alpha_t)^2\,\mathbb E|x_1|^2 + \sigma_t^2d\big)^{1/2}$, a bound on $W_2(\rho_t,
    p_1)$ for a Gaussian base.

    Source: here; Chen et al. (2023) use it. Book: eq:early-stopping.
    """
    return ((1 - path.alpha(t)) ** 2 * second_moment + path.variance(t) * d).sqrt().item()


def step_divergences(
    path: Interpolant, mmse: Curve, times: Float[Tensor, "m"], nodes: int = 40
) -> Float[Tensor, "m-1"]:
    r"""What each step of the ancestral sampler costs in relative entropy, with an exact denoiser.

    $$ \tfrac12\int_{\gamma_t}^{\gamma_{t'}}\big(\mathrm{mmse}(\gamma_t) -
       \mathrm{mmse}(\gamma)\big)\,d\gamma, \qquad \gamma = \mathrm{SNR} = \alpha^2/\sigma^2, $$

    by Gauss nodes in t within the step. The grid stays off both ends: $\gamma$ is finite there.

    Args:
        mmse: $\mathbb E\operatorname{tr}\operatorname{Cov}(x_1|x_t)$ as a curve of t.

    Source: here; the martingale is Benton et al. (2024). Book: eq:kl-steps.
    """
    snr = lambda t: (2 * half_log_snr(path, t)).exp()
    if not snr(times).isfinite().all():
        raise ValueError("the relative entropy of a step needs a finite SNR; stop before the data.")
    knots, weights = (torch.from_numpy(a) for a in numpy.polynomial.legendre.leggauss(nodes))
    knots, weights = 0.5 * (knots + 1), 0.5 * weights
    h = times.diff()
    inner = (times[:-1, None] + h[:, None] * knots).flatten()
    slope = rate(snr, inner).unflatten(0, (-1, nodes))
    gap = mmse(times[:-1])[:, None] - mmse(inner).unflatten(0, (-1, nodes))
    return 0.5 * h * ((gap * slope) @ weights)


def chain_density(
    kernel: Kernel, density: Values, cells: Values, times: Float[Tensor, "m"]
) -> Values:
    r"""The density at the end of a chain on the line whose steps are Gaussian, on a uniform grid.

    $$ p'(y) = \int\mathcal N\big(y;\,m(x),\,s^2\big)\,p(x)\,dx $$

    by the trapezoid rule, which for smooth kernels is exact to rounding once the grid resolves s.

    Args:
        kernel: (t, t', x) to the means m, one for each x, and the deviation s, of shape ().

    Raises ValueError where a kernel is narrower than a cell, or where mass is lost (at the edges).
    """
    width = cells[1] - cells[0]
    for t, t_next in zip(times[:-1], times[1:]):
        means, s = kernel(t, t_next, cells[:, None])
        if not s > width:
            raise ValueError(
                f"a grid resolves its kernel: cells below {s.item():.3g}, got {width.item():.3g} "
                f"at t = {t.item():.3g}; refine the grid or stop the chain earlier."
            )
        z = (cells[:, None] - means.flatten()) / s
        density = (-0.5 * z**2).exp() @ density * (width / (s * sqrt(2 * torch.pi)))
        total = density.sum() * width
        if not (total - 1).abs() < 1e-3:
            raise ValueError(f"the grid holds the chain, got mass {total:.4f} at t = {t_next:.3g}.")
    return density


def line_quantiles(density: Values, cells: Values, levels: Float[Tensor, "q"]) -> Tensor:
    """The quantiles of a density on a uniform grid, its distribution function made linear between
    the middles of the cells."""
    below = density.cumsum(0) - 0.5 * density
    below = below / density.sum()
    k = torch.searchsorted(below, levels).clamp(1, len(cells) - 1)
    low, high = below[k - 1], below[k]
    return cells[k - 1] + (levels - low) / (high - low) * (cells[k] - cells[k - 1])


def _drawing(step: Step) -> Step:
    """Mark a step as one that draws, so that a run asks for a generator before it begins."""
    step.eta, step.uses_both_ends = torch.ones_like, False
    return step
