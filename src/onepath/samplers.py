r"""Samplers: steps that know the schedule, and solve exactly whatever is linear in a dynamics.

With a Gaussian base the drift of every dynamics of a path is a known multiple of the state and a
known multiple of the denoiser. On the clock $\lambda = \log(\alpha/\sigma)$ the one with noise
$\eta = \zeta g$ reads, by variation of constants, with $h = \lambda' - \lambda$ from t to t',

$$ X' = \frac{\sigma'}\sigma e^{-\zeta^2h}X + (1+\zeta^2)\,\sigma'\!\int_\lambda^{\lambda'}
   e^{\ell - \zeta^2(\lambda'-\ell)}\,\hat x_\ell\,d\ell + \sigma'\sqrt{1-e^{-2\zeta^2h}}\;\xi . $$

$\zeta = 0$ is the flow, $\zeta = 1$ the noising run reversed. Nothing but the denoiser under the
integral is unknown, and a sampler is a rule for that integral. The formula has limits where
$\alpha = 0$ (h infinite) and where $\sigma' = 0$ (the state is the denoiser's), and steps take
them. Other bases, dependent ends and latent noise are not covered: see `solvers`. Samplers with
memory are in `multisteps`, noise around a step in `correctors`.

The coefficients of a step depend on its times alone. `integrate` has those of a whole grid
computed at once, by `step.prepared(starts, ends)`: the same step for each interval, ready to go.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .correctors import churned as churned
from .correctors import corrected as corrected
from .fields import Row, data, gaussian_path, noise
from .interpolants import Interpolant, half_log_snr
from .multisteps import adams as adams
from .multisteps import multistep as multistep
from .oracles import MixturePath
from .shapes import Curve, Field
from .solvers import Draw, Step
from .step_tables import check_zeta, frozen_step, spans, tabulated
from .time_grids import time_at

Path = Interpolant | MixturePath
Level = Callable[[Tensor, Tensor], Tensor]  # (t, t') -> standard deviation of a step's noise


def ddim(denoiser: Field, path: Path, zeta: float = 0.0) -> Step:
    r"""The exact step of the dynamics with $\eta = \zeta g$ whose denoiser is frozen at t.

    $$ x' = \frac{\sigma'}\sigma e^{-\zeta^2h}\,x + \alpha'\big(1-e^{-(1+\zeta^2)h}\big)\,\hat x
       + \sigma'\sqrt{1-e^{-2\zeta^2h}}\;\xi . $$

    $\zeta = 0$ is DDIM, without noise; $\zeta = 1$ is `ancestral`. It is `renoised` with
    $c = \sigma'\sqrt{1-e^{-2\zeta^2h}}$. One call a step, order 1.

    Args:
        zeta: noise in units of g, >= 0.

    Raises ValueError for a zeta that is none, a path whose base is not N(0, I), and in a run whose
    signal-to-noise ratio falls or whose steps begin without noise.

    Source: Song, Meng and Ermon (2021), Denoising diffusion implicit models; here for zeta.
    Book: eq:ddim, eq:ddim-noise.
    """
    schedule = gaussian_path(path)
    check_zeta(zeta)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        keep, pull, spread, _ = frozen_step(schedule, starts, ends, zeta)
        return keep.tolist(), pull.tolist(), spread.tolist()

    return tabulated(rows, _frozen(denoiser), draws=zeta > 0)


def renoised(denoiser: Field, path: Path, level: Level) -> Step:
    r"""Stochastic DDIM with noise of any strength c: denoise, keep some of the noise, add the rest.

    $$ x' = \alpha'\,\hat x + \sqrt{\sigma'^2 - c^2}\;\hat\varepsilon + c\,\xi, \qquad
       \hat\varepsilon = \frac{x - \alpha\,\hat x}\sigma, \qquad 0 \le c \le \sigma' . $$

    The root is there because the two noises add in variance. $c = \sigma'$ forgets the noise that
    was there. Where c² = O(h) the law is right to order 1; a fixed positive share of sigma' leaves
    Gaussian data too narrow, however many steps there are.

    Args:
        level: the curve $c(t, t')$, for times of shape (m,).

    Raises ValueError in a run where c is not in $[0, \sigma']$, and as `ddim` does.

    Source: Song, Meng and Ermon (2021), Denoising diffusion implicit models.
    Book: eq:stochastic-ddim, eq:fixed-share.
    """
    schedule = gaussian_path(path)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        sigma, sigma_next, alpha_next, _ = spans(schedule, starts, ends)
        c = level(starts, ends)
        if not ((c >= 0) & (c <= sigma_next * (1 + 1e-12))).all():
            raise ValueError(
                "a step leaves noise sigma', of which a share is new, 0 <= c <= sigma'; got c = "
                f"{c.tolist()} for {sigma_next.tolist()}; lower c, as sigma' sqrt(1 - exp(-2h)) is."
            )
        kept = (sigma_next**2 - c**2).clamp(min=0).sqrt() / sigma
        return kept.tolist(), (alpha_next - schedule.alpha(starts) * kept).tolist(), c.tolist()

    return tabulated(rows, _frozen(denoiser), draws=True)


def ancestral(denoiser: Field, path: Path, mmse: Curve | None = None) -> Step:
    r"""DDPM's step: a draw from the noising run's law of $x_{t'}$ given $x_t$ and $x_1 = \hat x$.

    $$ x' = \frac{\sigma'}\sigma e^{-h}x + \alpha'(1-e^{-2h})\,\hat x
       + \sqrt{\sigma'^2(1-e^{-2h}) + \alpha'^2(1-e^{-2h})^2\,\mathrm{mmse}_t}\;\xi . $$

    Without `mmse` the last term under the root is left out: the step is `ddim` with $\zeta = 1$.
    With it the variance of $x'$ about its mean given x is right on average over x and coordinates,
    because $x_1$ is spread about $\hat x$ by mmse. That is Analytic-DPM; no other Gaussian with
    this mean and one variance is nearer. It adds noise in the last step too.

    Args:
        mmse: the curve $\mathbb E|x_1 - \hat x_t|^2/d$, *per dimension*, >= 0.

    Source: Ho, Jain and Abbeel (2020); Bao et al. (2022), Analytic-DPM, for the variance.
    Book: eq:ancestral, eq:optimal-variance.
    """
    if mmse is None:
        return ddim(denoiser, path, 1.0)
    schedule = gaussian_path(path)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        keep, pull, noise, _ = frozen_step(schedule, starts, ends, 1.0)
        spread = mmse(starts)
        if not ((spread >= 0) & (spread < torch.inf)).all():
            raise ValueError(f"mmse is finite and nonnegative, got {spread.tolist()}.")
        # the pull is alpha' (1 - exp(-2h))
        return keep.tolist(), pull.tolist(), (noise**2 + pull**2 * spread).sqrt().tolist()

    return tabulated(rows, _frozen(denoiser), draws=True)


def midpoint(field: Field, path: Path, row: Row) -> Step:
    r"""The flow's step with the field frozen at the middle of the step in $\lambda$, where an
    exponential half step leads. Two calls, order 2 in $\lambda$.

    $$ \lambda_m = \lambda + \tfrac h2, \qquad x' = \begin{cases}
       \frac{\sigma'}\sigma x + \alpha'(1-e^{-h})\,\hat x_m(u), & u = \frac{\sigma_m}\sigma x +
       \alpha_m(1-e^{-h/2})\,\hat x_t(x) \\[2pt]
       \frac{\alpha'}\alpha x - \sigma'(e^h-1)\,\hat\varepsilon_m(u), & u = \frac{\alpha_m}\alpha x
       - \sigma_m(e^{h/2}-1)\,\hat\varepsilon_t(x) \end{cases} $$

    The first is DPM-Solver++(2S), the second DPM-Solver-2. Where h is infinite there is no middle;
    such a step freezes the field at t, as `ddim` does, with one call.

    Args:
        row: `fields.data` if the field is the denoiser, `fields.noise` if it predicts the noise.

    Raises ValueError for any other row, in a run from $\alpha = 0$ with the noise (which does not
    determine the data there), and as `ddim` does.

    Source: Lu et al. (2022), DPM-Solver and DPM-Solver++.
    Book: eq:dpm-solver-2, eq:dpm-solver-2s.
    """
    if row not in (data, noise):
        raise ValueError(
            f"midpoint freezes fields.data or fields.noise, got {row!r}; convert the field to one."
        )
    schedule, of_data = gaussian_path(path), row is data

    def coefficients(starts: Tensor, ends: Tensor, h: Tensor) -> tuple[list, list]:
        if of_data:
            keep = schedule.sigma(ends) / schedule.sigma(starts)
            return keep.tolist(), (-schedule.alpha(ends) * torch.expm1(-h)).tolist()
        alpha = schedule.alpha(starts)
        if not (alpha > 0).all():
            raise ValueError(
                "a step in the noise divides by alpha, got alpha = 0 at its start; "
                "convert the field to fields.data, or start later."
            )
        keep = schedule.alpha(ends) / alpha
        return keep.tolist(), (keep * schedule.sigma(starts) * torch.expm1(-h)).tolist()

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        *_, h = spans(schedule, starts, ends)
        has_middle = h.isfinite()
        half = torch.where(has_middle, half_log_snr(schedule, starts) + 0.5 * h, torch.inf)
        middle = torch.where(has_middle, 0.5 * (starts + ends), ends)
        middle[has_middle] = time_at(schedule, half[has_middle])
        first = coefficients(starts, middle, torch.where(has_middle, 0.5 * h, h))
        times = [m if has else None for m, has in zip(middle, has_middle)]
        return times, *first, *coefficients(starts, ends, h)

    def advance(
        row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        middle, keep_half, pull_half, keep, pull = row
        frozen = field(t, x)
        if middle is not None:
            frozen = field(middle, keep_half * x + pull_half * frozen)
        return keep * x + pull * frozen, memory

    return tabulated(rows, advance)


def trapezoid(denoiser: Field, path: Path) -> Step:
    r"""EDM's deterministic step on any path: the trapezoid rule for $\int\hat\varepsilon\,d\kappa$
    with $\kappa = \sigma/\alpha$, after a DDIM step $\tilde x$ to look ahead. Two calls, order 2.

    $$ \frac{x'}{\alpha'} = \frac x\alpha + \frac{\kappa'-\kappa}2\big(\hat\varepsilon_t(x) +
       \hat\varepsilon_{t'}(\tilde x)\big), \qquad\text{that is}\qquad x' = \tilde x +
       \tfrac12\alpha'(e^h-1)\big(\hat x_{t'}(\tilde x) - \hat x_t(x)\big) . $$

    Where h is infinite the step is DDIM's, with one call. On EDM's path with $\sigma$ for the time
    it is `solvers.heun`; `churned` around it is EDM's stochastic sampler.

    Raises ValueError as `ddim` does.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    Book: eq:trapezoid.
    """
    schedule = gaussian_path(path)

    def rows(starts: Tensor, ends: Tensor) -> tuple[list, ...]:
        keep, pull, _, h = frozen_step(schedule, starts, ends, 0.0)
        change = torch.where(h.isfinite(), 0.5 * schedule.alpha(ends) * torch.expm1(h), 0.0)
        return keep.tolist(), pull.tolist(), change.tolist()

    def advance(
        row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        keep, pull, change = row
        guess = denoiser(t, x)
        ahead = torch.add(keep * x, guess, alpha=pull)
        if not change:
            return ahead, memory
        return torch.add(ahead, denoiser(t_next, ahead) - guess, alpha=change), memory

    return tabulated(rows, advance)


def _frozen(denoiser: Field) -> Callable:
    """Advance by a multiple of the state, of the denoiser at t, and of new noise."""

    def advance(
        row: tuple, x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        keep, pull, spread = row
        ahead = torch.add(keep * x, denoiser(t, x), alpha=pull)
        return (torch.add(ahead, draw(), alpha=spread) if spread else ahead), memory

    return advance
