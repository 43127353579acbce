r"""Noise around a step: Langevin corrections after it, or a little noising before it.

Both leave the law of a perfect sampler as it is, up to the error of a Langevin step, and both mix:
they forget errors that a deterministic step would carry along, at the price of noise or of calls.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .calculus import zero
from .fields import gaussian_path
from .interpolants import Interpolant, half_log_snr
from .noising import noising_kernel
from .oracles import MixturePath
from .shapes import Curve, Field
from .solvers import Draw, Step
from .step_tables import around
from .time_grids import time_at

Path = Interpolant | MixturePath


def corrected(step: Step, score: Field, m: int, c: Curve) -> Step:
    r"""A step, then m steps of Langevin's dynamics at the time it leads to.

    $$ x \leftarrow x + \tfrac12c_{t'}^2\,\nabla\log\rho_{t'}(x) + c_{t'}\,\xi . $$

    The ½ keeps $\rho_{t'}$ in the limit of small c; at any other c each correction biases the
    variance by a factor 1 + O(c²), which more steps do not cure unless c shrinks with them. Where
    $c_{t'} = 0$ nothing is evaluated, so a c that vanishes with $\sigma$ needs no score at the
    data.

    Args:
        m: number of corrections, >= 1; each is a call.
        c: the curve $c_t \ge 0$, in length; a share of $\sigma_t$, say.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:corrector.
    """
    if m < 1:
        raise ValueError(f"a corrector takes m >= 1 steps, got {m}; leave it out for none.")
    if not callable(c):
        raise TypeError(f"c is a curve t -> c_t, got {c!r}; write constant({c!r}).")

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        size = c(ends)
        if not ((size >= 0) & (size < torch.inf)).all():
            raise ValueError(f"c is finite and nonnegative, got {size.tolist()}.")
        return (size.tolist(),)

    def wrapped(predict: Step) -> Callable:
        def advance(
            row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
        ) -> tuple[Tensor, object]:
            x, memory = predict(x, t, t_next, draw, memory)
            (size,) = row
            for _ in range(m if size else 0):
                x = torch.add(x, score(t_next, x), alpha=0.5 * size**2)
                x = torch.add(x, draw(), alpha=size)
            return x, memory

        return advance

    return around(step, rows, wrapped, lambda starts, ends: starts)


def churned(step: Step, path: Path, amount: Curve) -> Step:
    r"""EDM's stochastic sampler: run the noising process back a little, then take an ODE step.

    With $\kappa = \sigma/\alpha$, the time $\hat t \le t$ of $\hat\kappa = (1+\gamma_t)\,\kappa$,

    $$ \hat x = \frac{\hat\alpha}\alpha\,x
       + \sqrt{\hat\sigma^2 - \tfrac{\hat\alpha^2}{\alpha^2}\sigma^2}\;\xi, $$

    and the step from $\hat t$ to t'. The noise is that of the noising kernel, so the marginal at
    $\hat t$ is exact if that at t is. No noise is added beyond the schedule's own at t = 0, where
    EDM would go on: its schedule has no end.

    Args:
        step: of an ODE, without noise.
        amount: the curve $\gamma_t \ge 0$; EDM has at most $\sqrt2 - 1$. It shrinks
            with the step, as $e^{\zeta^2h} - 1$ does, where the law is to converge.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    Book: eq:churn.
    """
    schedule = gaussian_path(path)
    if not callable(amount):
        raise TypeError(f"the amount is a curve t -> gamma_t, got {amount!r}; write constant(...).")
    if getattr(step, "draws", False) or getattr(step, "eta", zero) is not zero:
        raise ValueError("churn adds its noise to a step of an ODE, got a step that draws noise.")

    def raised(starts: Tensor) -> Tensor:
        gamma = amount(starts)
        if not ((gamma >= 0) & (gamma < torch.inf)).all():
            raise ValueError(f"the amount of churn is finite and >= 0, got {gamma.tolist()}.")
        lowest = half_log_snr(schedule, torch.zeros_like(starts[0]))
        back = time_at(schedule, (half_log_snr(schedule, starts) - gamma.log1p()).clamp(lowest))
        return torch.where(gamma == 0, starts, torch.minimum(back, starts))

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        before = raised(starts)
        scale, variance = noising_kernel(schedule, before, starts)
        return list(before), scale.tolist(), variance.sqrt().tolist()

    def wrapped(forward: Step) -> Callable:
        def advance(
            row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
        ) -> tuple[Tensor, object]:
            before, scale, spread = row
            if spread:
                x = torch.add(scale * x, draw(), alpha=spread)
            return forward(x, before, t_next, draw, memory)

        return advance

    return around(step, rows, wrapped, lambda starts, ends: raised(starts))
