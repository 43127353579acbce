r"""The noising process between two times, and the way from its drift and diffusion to a schedule.

A Gaussian path $x_t = \alpha_t x_1 + \sigma_t\varepsilon$ fixes the law of each state alone. The
noising process $dY_r = \bar f_r Y_r\,dr + \bar g_r\,dB_r$ that has these marginals fixes more: how
two states of one path hang together. It is Markov, and every conditional law is Gaussian, so a
scale and a variance say all. States that are built with *one* $\varepsilon$ for all times have
other conditional laws. Dependent ends and latent noise are not covered.
"""

from functools import cache

import numpy
import torch
from torch import Tensor

from .interpolants import Interpolant, half_log_snr
from .shapes import Curve, Time

_NODES, _FEWER = 48, 32  # of the quadrature, and of the one that estimates its error
_TOLERANCE = 1e-9


def noising_kernel(path: Interpolant, t: Time, s: Time) -> tuple[Time, Time]:
    r"""(scale, variance) of the law of $x_t$ given $x_s$, for $t \le s$: from data towards noise.

    $$ x_t \mid x_s \sim \mathcal N\Big(\frac{\alpha_t}{\alpha_s}\,x_s,\;
       \big(\sigma_t^2 - \tfrac{\alpha_t^2}{\alpha_s^2}\,\sigma_s^2\big) I\Big) . $$

    The scale enters the variance squared. Computed as $\sigma_t^2\,(1 - e^{-2(\lambda_s -
    \lambda_t)})$, which keeps its digits when the times are close. Exact at both ends and at t = s.
    Raises ValueError for t > s, and where the signal-to-noise ratio falls.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:noising-kernel.
    """
    fresh, same = _fresh_share(path, t, s)
    scale = torch.where(same, 1.0, path.alpha(t) / path.alpha(s))
    return scale, path.variance(t) * fresh


def ancestral_posterior(path: Interpolant, t: Time, s: Time) -> tuple[Time, Time, Time]:
    r"""(of the state, of the data, variance): the law of $x_s$ given $x_t$ and $x_1$, for $t \le
    s$.

    With $h = \lambda_s - \lambda_t$,

    $$ x_s \mid x_t, x_1 \sim \mathcal N\Big(e^{-2h}\,\frac{\alpha_s}{\alpha_t}\,x_t
       + \alpha_s\,(1 - e^{-2h})\,x_1,\; \sigma_s^2\,(1 - e^{-2h})\,I\Big) . $$

    The 2 is there because $\lambda$ is half the log-SNR. The first coefficient is computed as
    $\alpha_t\sigma_s^2/\alpha_s\sigma_t^2$, which is 0 and not 0/0 where $\alpha_t = 0$. Raises
    ValueError for t > s, and where the signal-to-noise ratio falls.

    Source: Ho, Jain and Abbeel (2020) for discrete steps; Kingma et al. (2021).
    Book: eq:ancestral.
    """
    fresh, same = _fresh_share(path, t, s)
    alpha, beyond = path.alpha(t), path.alpha(s)
    state = torch.where(same, 1.0, alpha * path.variance(s) / (beyond * path.variance(t)))
    return state, beyond * fresh, path.variance(s) * fresh


def from_noising(drift: Curve, diffusion: Curve, variance: float = 0.0) -> Interpolant:
    r"""The schedule whose noising process has this drift and diffusion: the inverse of
    `noising_drift` and `noising_diffusion`, by quadrature.

    $$ \alpha_t = e^{\int_t^1 f}, \qquad
       \sigma_t^2 = \alpha_t^2\Big(\sigma_1^2 + \int_t^1 \frac{g_s^2}{\alpha_s^2}\,ds\Big) . $$

    Both curves are read at the generation time t: f(t) y is the drift and g(t) the diffusion of the
    process in its own clock r = 1 - t, at the moment when r = 1 - t.

    Args:
        variance: $\sigma_1^2$, the noise that the data carry when the process starts.

    The rule has 48 Gauss nodes, and one with 32 estimates its error. Raises ValueError where that
    exceeds 1e-9 (relative, in float64): the curves are rough there, or t is close to where they are
    infinite. Raises ValueError for times outside [0, 1].

    Source: here; variation of constants.
    Book: eq:schedule-inverse.
    """
    if not 0 <= variance < float("inf"):
        raise ValueError(f"the variance at t = 1 is nonnegative and finite, got {variance}.")

    def curves(t: Time) -> tuple[Time, Time]:
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(f"times lie in [0, 1], got {t.min().item():g} to {t.max().item():g}.")
        (log_alpha, sigma2), rough = (
            _solved(drift, diffusion, variance, t.double(), n) for n in (_NODES, _FEWER)
        )
        for ours, other in zip((log_alpha.exp(), sigma2), (rough[0].exp(), rough[1])):
            error = (ours - other).abs() / (ours.abs() + torch.finfo(ours.dtype).tiny)
            if not (error <= _TOLERANCE).all():
                worst = t[error == error.max()][0] if t.ndim else t
                raise ValueError(
                    "drift and diffusion must be finite and smooth between t and 1; the quadrature "
                    f"is off by {error.max().item():.1g} at t = {worst.item():g}. "
                    "Stop before the singular end, or write the schedule down."
                )
        return log_alpha.exp().to(t.dtype), sigma2.to(t.dtype)

    return Interpolant(
        sigma=lambda t: curves(t)[1].sqrt(),
        alpha=lambda t: curves(t)[0],
        sigma2=lambda t: curves(t)[1],
    )


def _fresh_share(path: Interpolant, t: Time, s: Time) -> tuple[Time, Tensor]:
    """The share of the variance at t that is not inherited from s, 1 - exp(-2h); and where t =
    s."""
    if not (t <= s).all():
        raise ValueError(
            "noising goes from the later time to the earlier, t <= s, "
            f"got t - s up to {(t - s).max().item():g}; exchange them."
        )
    same = t == s
    before = half_log_snr(path, t)
    h = torch.where(same, 0.0, half_log_snr(path, s) - before)
    rounding = 100 * torch.finfo(h.dtype).eps * (1 + before.abs())
    if not (h >= -rounding).all():
        raise ValueError(
            "the signal-to-noise ratio of a noising schedule does not fall with t, "
            f"got h = {h.min().item():.3g}; is the clock of the schedule turned?"
        )
    return -torch.expm1(-2 * h.clamp(min=0)), same


@cache
def _gauss(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = numpy.polynomial.legendre.leggauss(n)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)


def _solved(drift: Curve, diffusion: Curve, variance: float, t: Time, n: int) -> tuple[Time, Time]:
    r"""$\int_t^1 f$ and $\sigma_t^2 = \sigma_1^2e^{2\int_t^1 f} + \int_t^1 g_s^2\,e^{2\int_t^s
    f}ds$."""
    nodes, weights = (a.to(t.device) for a in _gauss(n))
    at = lambda curve, times: curve(times.flatten()).reshape(times.shape)
    length = (1 - t)[..., None]
    total = length[..., 0] * (at(drift, t[..., None] + length * nodes) @ weights)
    s = t[..., None] + length * nodes
    inner = t[..., None, None] + (s - t[..., None])[..., None] * nodes
    carried = (s - t[..., None]) * (at(drift, inner) @ weights)
    added = (1 - t) * ((at(diffusion, s) ** 2 * (2 * carried).exp()) @ weights)
    return total, variance * (2 * total).exp() + added
