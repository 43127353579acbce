r"""The conventions of other papers: their clocks, states, networks and noises, as rows of data.

Each function below states a paper's own formula for its state $y_u$ in its own clock u, with
$\varepsilon$ standard normal and $x_1$ the data. Nothing here converts: `conventions.translate`
does, from these rows alone. Where a constant is not named in the paper, or a state has to be filled
in between two steps, the docstring says so.
"""

from dataclasses import replace
from math import log, pi

import torch
from torch import Tensor

from .calculus import constant
from .conventions import Convention, Level, book, diffusion, flipped, on_clock
from .fields import data, noise, score, v_prediction, velocity
from .interpolants import Interpolant, trigonometric, variance_exploding, variance_preserving
from .shapes import Time

_SONG = "Song et al. (2021)"


def _since_data(u: Time) -> Time:
    """The book's time at noising time u."""
    return 1 - u


def ddpm(low: float = 1e-4, high: float = 0.02, steps: int = 1000) -> Convention:
    r"""Steps n = 1 … N, $y_n = \sqrt{\bar\alpha_n}\,x_1 + \sqrt{1-\bar\alpha_n}\,\varepsilon$,
    $\bar\alpha_n = \prod_{m\le n}(1-\beta_m)$.

    $\beta$ rises linearly from `low` to `high`. Between two steps, where the paper has no state,
    $\lambda$ is interpolated linearly: a choice made here, which is exact at the steps.

    Source: Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models.
    """
    log_abar = torch.log1p(-torch.linspace(low, high, steps, dtype=torch.float64)).cumsum(0)
    table = 0.5 * (log_abar - torch.log(-torch.expm1(log_abar)))

    def snr(u: Time) -> Time:
        knots = table.to(u)
        n = u.detach().floor().long().clamp(1, steps - 1)
        return knots[n - 1] + (u - n) * (knots[n] - knots[n - 1])

    def clock(snr: Tensor) -> Tensor:
        knots = table.to(snr)
        n = torch.searchsorted(-knots, -snr.detach()).clamp(1, steps - 1)
        return n + (snr - knots[n - 1]) / (knots[n] - knots[n - 1])

    schedule = Interpolant(
        sigma=lambda u: torch.sigmoid(-2 * snr(u)).sqrt(),
        alpha=lambda u: torch.sigmoid(2 * snr(u)).sqrt(),
        sigma2=lambda u: torch.sigmoid(-2 * snr(u)),
    )
    return Convention("DDPM", "Ho, Jain and Abbeel (2020)", schedule, clock, (steps, 1), noise)


def score_sde_vp(low: float = 0.1, high: float = 20.0) -> Convention:
    r"""$dy = -\tfrac12\beta_u\,y\,du + \sqrt{\beta_u}\,dB$ from data at u = 0, $\beta_u$ linear
    from `low` to `high`.

    Source: Song et al. (2021), Score-based generative modeling through SDEs. Book: eq:vp.
    """

    def clock(snr: Tensor) -> Tensor:
        integral = torch.logaddexp(-2 * snr, torch.zeros_like(snr))  # of beta, from 0 to u
        return 2 * integral / (low + (low**2 + 2 * (high - low) * integral).sqrt())

    schedule = on_clock(variance_preserving(low, high), _since_data)
    return Convention("score SDE, VP", _SONG, schedule, clock, (1.0, 0.0), score, diffusion("g"))


def score_sde_ve(low: float = 0.01, high: float = 50.0) -> Convention:
    r"""$y_u = x_1 + s_u\,\varepsilon$ from data at u = 0, $s_u$ geometric from `low` to `high`.

    Source: Song et al. (2021), Score-based generative modeling through SDEs. Book: eq:ve.
    """

    def clock(snr: Tensor) -> Tensor:
        return (-snr - log(low)) / log(high / low)

    schedule = on_clock(variance_exploding(low, high), _since_data)
    return Convention("score SDE, VE", _SONG, schedule, clock, (1.0, 0.0), score, diffusion("g"))


def edm(low: float = 0.002, high: float = 80.0) -> Convention:
    r"""$y_\sigma = x_1 + \sigma\,\varepsilon$: the clock is the noise level itself.

    Its sampler adds $\sqrt{2\beta_\sigma}\,\sigma\,dB$ for a free rate $\beta$ of Langevin noise.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    """
    schedule = Interpolant(sigma=lambda u: u, alpha=torch.ones_like)
    level = Level("β", lambda u: 2 * u**2, 1)
    clock = lambda snr: (-snr).exp()
    return Convention("EDM", "Karras et al. (2022)", schedule, clock, (high, low), data, level)


def v_diffusion() -> Convention:
    r"""$y_u = \cos(\tfrac\pi2u)\,x_1 + \sin(\tfrac\pi2u)\,\varepsilon$; the network predicts $\nu$,
    which is not the velocity.

    Source: Salimans and Ho (2022), Progressive distillation.
    """
    clock = lambda snr: torch.atan((-snr).exp()) * (2 / pi)
    schedule = on_clock(trigonometric, _since_data)
    return Convention(
        "v-prediction", "Salimans and Ho (2022)", schedule, clock, (1.0, 0.0), v_prediction
    )


def flow_matching(low: float = 0.01) -> Convention:
    r"""$y_u = u\,x_1 + (1 - (1 - \sigma_{\min})\,u)\,\varepsilon$, data at u = 1 up to a noise of
    $\sigma_{\min}$ = `low`, a small number; the default is a choice made here.

    Source: Lipman et al. (2023), Flow matching for generative modeling.
    """
    fall = 1 - low
    schedule = Interpolant(sigma=lambda u: 1 - fall * u, alpha=lambda u: u)
    clock = lambda snr: 1 / (fall + (-snr).exp())
    return Convention(
        "flow matching", "Lipman et al. (2023)", schedule, clock, (0.0, 1.0), velocity
    )


def bridge_drift(schedule: Interpolant, u: Time) -> tuple[Time, Time]:
    r"""The drift of a diffusion that is aimed at its end, $\mathbb E[(x_1 - y_u)/(1-u) \mid y_u]$,
    where $\alpha_u = u$."""
    ahead = 1 - schedule.alpha(u)
    return ahead / ahead, -schedule.sigma(u) / ahead


def bridge_matching(deviation: float = 1.0) -> Convention:
    r"""$y_u = (1-u)\,\varepsilon + u\,x_1 + \varsigma\sqrt{u(1-u)}\,z$: bridges of the reference
    $\varsigma\,dB$, $\varsigma$ = `deviation`.

    From a Gaussian base, independent of the data, the two noises are one of variance $(1-u)^2 +
    \varsigma^2u(1-u)$. The network predicts the drift of the SDE, not the velocity.

    Source: Shi et al. (2023), Diffusion Schrödinger bridge matching; the Gaussian case here.
    """
    tau = deviation**2
    variance = lambda u: (1 - u) * (1 - u + tau * u)
    schedule = Interpolant(lambda u: variance(u).sqrt(), lambda u: u, sigma2=variance)

    def clock(snr: Tensor) -> Tensor:
        # w = (1 - u) / u solves w**2 + tau w = 1 / ratio**2; written as w = 2 / product the root
        # neither cancels nor fails at the ends
        ratio = snr.exp()
        product = ratio * (tau * ratio + ((tau * ratio) ** 2 + 4).sqrt())
        return 1 / (1 + 2 / product)

    return Convention(
        "bridge matching",
        "Shi et al. (2023)",
        schedule,
        clock,
        (0.0, 1.0),
        bridge_drift,
        diffusion("σ"),
    )


rectified_flow = replace(book, name="rectified flow", source="Liu, Gong and Liu (2023)", level=None)
noise_at_one = replace(flipped(rectified_flow, "noise at one"), source="Esser et al. (2024)")
stochastic_interpolant = replace(
    book,
    name="stochastic interpolant",
    source="Albergo, Boffi and Vanden-Eijnden (2023)",
    level=Level("ε", constant(2.0), 1),
)


def dictionary() -> tuple[Convention, ...]:
    """All conventions of the table in chapter 0, with their default constants."""
    return (
        book,
        ddpm(),
        score_sde_vp(),
        score_sde_ve(),
        edm(),
        v_diffusion(),
        flow_matching(),
        rectified_flow,
        noise_at_one,
        stochastic_interpolant,
        bridge_matching(),
    )
