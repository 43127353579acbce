r"""Samplers with memory: polynomials through the values of the last steps.

A multistep method evaluates the field once a step and takes what it lacks from the values that it
has: the polynomial through them stands for the field under the integral of the variation of
constants. Coefficients are integrals of Lagrange polynomials over the step, exact on steps of any
length. The first steps have fewer values. Memory is the values, newest first.
"""

import torch
from torch import Tensor

from .fields import gaussian_path
from .interpolants import Interpolant, half_log_snr
from .oracles import MixturePath
from .shapes import Field
from .solvers import Draw, Step
from .step_tables import check_zeta, frozen_step, interpolated, spans, tabulated

Path = Interpolant | MixturePath


def multistep(denoiser: Field, path: Path, order: int = 2, zeta: float = 0.0) -> Step:
    r"""A step that extrapolates the denoiser from its last values. One call a step.

    With $h_-$ the step before, $\zeta = 0$ and `order` 2 it is DPM-Solver++(2M),

    $$ x' = \frac{\sigma'}\sigma x + \alpha'(1-e^{-h})\Big[\big(1 + \tfrac h{2h_-}\big)\hat x_t
       - \tfrac h{2h_-}\,\hat x_{t_-}\Big] . $$

    `order` 1 is `ddim`. Orders from 3 on put the polynomial in $\lambda$ through the last values
    into the integral at the head of this module. The first steps have fewer values and a lower
    order, so an order above 2 shows where the run begins with short steps or close to pure noise.
    A step to $\sigma' = 0$ is of order 1, and values from $\alpha = 0$ are not used again: both lie
    at infinity in $\lambda$. Where churn makes two steps begin at one time, the older value counts
    no more.

    Args:
        order: 1 to 6, the number of values used.
        zeta: noise in units of g, >= 0. With noise the states are right to order 1, since the noise
            of a step moves the denoiser too; the law is right to order 2 for orders from 2 on.

    Raises ValueError for orders and a zeta that are none, for a grid of fewer steps than values,
    and as `ddim` does.

    Source: Lu et al. (2022), DPM-Solver++, for order 2; here.
    Book: eq:dpm-solver-2m.
    """
    schedule = gaussian_path(path)
    check_zeta(zeta)
    _check_order(order)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        keep, total, spread, h = frozen_step(schedule, starts, ends, zeta)
        nodes = half_log_snr(schedule, starts)
        before = [nodes[max(0, k - order + 1) : k + 1].flip(0) for k in range(len(nodes))]
        weights = [a * _shares(b, s, zeta) for a, b, s in zip(total, before, h)]
        return keep.tolist(), [w.tolist() for w in weights], spread.tolist()

    def advance(
        row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        keep, weights, spread = row
        values = (denoiser(t, x), *(memory or ()))[:order]
        x = _combined(keep * x, weights, values)
        return (torch.add(x, draw(), alpha=spread) if spread else x), values

    return tabulated(rows, advance, draws=zeta > 0, history=order - 1, least=order)


def adams(denoiser: Field, path: Path, order: int = 3, scale: float = 1.0) -> Step:
    r"""Adams' predictor and corrector in the frame that rotates with the flow. One call a step.

    With $r^2 = \sigma^2 + s^2\alpha^2$ and the angle $\theta = \arctan(s\alpha/\sigma)$ from pure
    noise to pure data, the flow of every path is

    $$ y = \frac xr, \qquad \frac{dy}{d\theta} = F = \frac{\sigma}{r}\,\frac{\hat x}s
       - \frac{s\alpha}r\,\hat\varepsilon = \frac r\sigma\,\frac{\hat x}s
       - \frac{s\alpha}\sigma\,y, $$

    in which nothing is infinite at either end, and F = 0 where the data are Gaussian with standard
    deviation s. Minus F is the v-prediction of the data over s. The predictor integrates the
    polynomial through the last `order` values of F. When the next value is there, the step before
    is corrected with the polynomial through all `order` + 1 of them; the value is not taken anew,
    so the correction costs no call, and it is a linear combination of values like the prediction:

    $$ y_{k+1} = y_k + \int_{\theta_{k-1}}^{\theta_k}\big(P_k^{+} - P_{k-1}\big)\,d\theta
       + \int_{\theta_k}^{\theta_{k+1}}P_k\,d\theta . $$

    The order is `order` + 1. The first steps have fewer values; as long as all values reach back
    to the start, the correction integrates anew from there. The first step still leaves an error of
    third order in its own length, so an order above 3 shows on grids that begin with short steps.

    Args:
        order: 1 to 6, the number of values of the predictor.
        scale: s > 0, the unit of the data, such as the root mean square of a coordinate.

    Raises ValueError for orders and scales that are none, for a grid of fewer steps than values,
    where two steps begin at one time, as churn may make them, and as `ddim` does.

    Source: here; Hairer, Nørsett and Wanner (1993), Solving ordinary differential equations I, for
    the method; Zhao et al. (2023), UniPC, correct without a new value on the axis of lambda.
    Book: eq:adams.
    """
    schedule = gaussian_path(path)
    _check_order(order)
    if not 0 < scale < float("inf"):
        raise ValueError(f"the scale of the data is positive and finite, got {scale}.")

    def frame(t: Tensor) -> tuple[Tensor, ...]:
        alpha, sigma = scale * schedule.alpha(t), schedule.sigma(t)
        return alpha, sigma, (alpha**2 + sigma**2).sqrt(), torch.atan2(alpha, sigma)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        spans(schedule, starts, ends)
        alpha, sigma, r, angle = frame(starts)
        if (angle[1:] == angle[:-1]).any():
            raise ValueError(
                "the steps of Adams' method begin at times that differ, got two from the same; "
                "churn less, or use multistep."
            )
        *_, r_next, after = frame(ends)
        weights = _predicted_and_corrected(angle, after, order)
        columns = r / (scale * sigma), alpha / (r * sigma), r_next / r
        return *(c.tolist() for c in columns), [(g * w).tolist() for g, w in zip(r_next, weights)]

    def advance(
        row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        of_data, of_state, keep, weights = row
        value = torch.sub(of_data * denoiser(t, x), x, alpha=of_state)
        values = (value, *(memory or ()))[: order + 1]
        return _combined(keep * x, weights, values), values

    return tabulated(rows, advance, history=order + 1, least=order)


def _check_order(order: int) -> None:
    if order not in range(1, 7):
        raise ValueError(f"a multistep method has order 1 to 6, got {order}.")


def _combined(x: Tensor, weights: list[float], values: tuple) -> Tensor:
    for weight, value in zip(weights, values):
        x = torch.add(x, value, alpha=weight)
    return x


def _shares(nodes: Tensor, h: Tensor, zeta: float) -> Tensor:
    """The share of each value, newest first, in the mean denoiser of a step of length h that
    begins at the newest node."""
    apart = torch.cat([torch.ones(1, dtype=torch.bool), nodes[1:] != nodes[:-1]])
    nodes = nodes[(nodes.isfinite() & apart).cumprod(0).bool()]
    if len(nodes) < 2 or not h.isfinite():
        return torch.ones_like(h)[None]
    if len(nodes) == 2:  # the published rule: the value in the middle of the step
        back = 0.5 * h / (nodes[0] - nodes[1])
        return torch.stack([1 + back, -back])
    rate = 1 + zeta**2
    whole = interpolated(nodes, nodes[0], nodes[0] + h, rate)
    return whole * rate / -torch.expm1(-rate * h)


def _predicted_and_corrected(starts: Tensor, ends: Tensor, order: int) -> list[Tensor]:
    """The weight of each value, newest first, in each step of Adams' method."""
    weights, predicted, corrected = [], torch.zeros_like(starts), torch.zeros_like(starts)
    for k, (first, last) in enumerate(zip(starts, ends)):
        known = slice(max(0, k - order), k + 1)
        if k <= order:  # these are all values: integrate anew from the start
            corrected[known] = interpolated(starts[known], starts[0], first)
        else:
            corrected[known] += interpolated(starts[known], starts[k - 1], first)
        ahead, used = corrected.clone(), slice(max(0, k - order + 1), k + 1)
        ahead[used] += interpolated(starts[used], first, last)
        weights.append((ahead - predicted)[known].flip(0))
        predicted = ahead
    return weights
