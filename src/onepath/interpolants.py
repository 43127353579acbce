r"""Interpolants $x_t = \sigma_t\,x_0 + \alpha_t\,x_1 + \gamma_t\,z$ between a base draw and a
target draw.

Base at t = 0, target at t = 1, everywhere in this package: $\sigma$ multiplies the base, $\alpha$
the target. With a Gaussian base and no latent noise an interpolant is a noising schedule read
backwards, and the functions at the end give its signal-to-noise ratio and the diffusion of its
noising process.
"""

from dataclasses import dataclass
from math import pi

import torch

from .calculus import rate, zero
from .shapes import Curve, Points, Time, per_point


@dataclass(frozen=True)
class Interpolant:
    r"""The curves $\sigma$, $\alpha$ and $\gamma^2$, and where it is smoother than $\sigma$, also
    $\sigma^2$.

    Squares are stored because the identities of the book need $\gamma^2$, $\sigma^2$ and their
    rates only, and these stay smooth where $\gamma$ and $\sigma$ end in a square root with a
    vertical tangent.

    Source: Albergo, Boffi and Vanden-Eijnden (2023), Stochastic interpolants.
    Book: eq:interpolant.
    """

    sigma: Curve
    alpha: Curve
    gamma2: Curve = zero
    sigma2: Curve | None = None

    def variance(self, t: Time) -> Time:
        r"""$\sigma_t^2$, the variance that a standard normal base contributes."""
        return self.sigma(t) ** 2 if self.sigma2 is None else self.sigma2(t)

    def __call__(self, t: Time, x0: Points, x1: Points, z: Points | None = None) -> Points:
        r"""$x_t$. `z` is standard normal, and needed unless $\gamma = 0$."""
        if x0.shape != x1.shape or x0.dtype != x1.dtype:
            got = " and ".join(f"{tuple(x.shape)} {x.dtype}" for x in (x0, x1))
            raise ValueError(f"x0 and x1 are paired row by row and share a dtype, got {got}.")
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x0)):
            raise ValueError(f"a time has shape () or (n,) = ({len(x0)},), got {tuple(t.shape)}.")
        x = per_point(self.sigma(t)) * x0 + per_point(self.alpha(t)) * x1
        if self.gamma2 is zero:
            return x
        if z is None or z.shape != x0.shape:
            got = None if z is None else tuple(z.shape)
            raise ValueError(
                "this interpolant has latent noise; pass z, standard normal of the shape of x0, "
                f"got {got} for {tuple(x0.shape)}."
            )
        return x + per_point(self.gamma2(t).sqrt()) * z


linear = Interpolant(sigma=lambda t: 1 - t, alpha=lambda t: t)
# cos(pi t / 2) written as a sine, because it must be exactly 0 at t = 1: rounding leaves 6e-17
trigonometric = Interpolant(
    sigma=lambda t: (pi * (1 - t) / 2).sin(), alpha=lambda t: (pi * t / 2).sin()
)


def variance_preserving(low: float = 0.1, high: float = 20.0) -> Interpolant:
    r"""The VP path, whose rate of noising $\beta$ falls linearly from `high` at t = 0 to `low` at t
    = 1.

    $$ \alpha_t = e^{-\frac12\int_0^{1-t}\beta}, \quad
       \beta_r = \text{low} + r\,(\text{high} - \text{low}),
       \quad \sigma_t^2 = 1 - \alpha_t^2. $$

    The reference is not reached exactly: $\alpha_0 = 0.0066$ for the default values.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:vp.
    """

    if not 0 <= low <= high or high == 0:
        raise ValueError(f"noising needs 0 <= low <= high and high > 0, got {low} and {high}.")

    def integral(t: Time) -> Time:
        r = 1 - t
        return low * r + 0.5 * (high - low) * r**2

    return Interpolant(
        sigma=lambda t: (-torch.expm1(-integral(t))).sqrt(),
        alpha=lambda t: (-0.5 * integral(t)).exp(),
        sigma2=lambda t: -torch.expm1(-integral(t)),
    )


def variance_exploding(low: float = 0.01, high: float = 50.0) -> Interpolant:
    r"""The VE path: $\alpha = 1$, and $\sigma$ falls geometrically from `high` at t = 0 to `low` at
    t = 1.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:ve.
    """
    if not 0 < low < high:
        raise ValueError(f"a geometric schedule needs 0 < low < high, got {low} and {high}.")
    return Interpolant(sigma=lambda t: high * (low / high) ** t, alpha=torch.ones_like)


def bridge(tau: float = 1.0) -> Interpolant:
    r"""The linear interpolant with the noise of a Brownian bridge, $\gamma_t^2 = \tau\,t(1-t)$."""
    if tau <= 0:
        raise ValueError(
            f"a bridge has a positive temperature, got tau = {tau}; without noise it is `linear`."
        )
    return Interpolant(sigma=linear.sigma, alpha=linear.alpha, gamma2=lambda t: tau * t * (1 - t))


def half_log_snr(path: Interpolant, t: Time) -> Time:
    r"""$\lambda_t = \log(\alpha_t / \sigma_t)$: half the logarithm of the signal-to-noise ratio."""
    _refuse_latent_noise(path)
    return path.alpha(t).log() - 0.5 * path.variance(t).log()


def noising_diffusion(path: Interpolant) -> Curve:
    r"""$g_t$, the diffusion coefficient of the process that carries data to noise along this path.

    $$ g_t^2 = 2\sigma_t^2\,\dot\lambda_t
             = 2\sigma_t^2\,\frac{\dot\alpha_t}{\alpha_t} - \frac{d\sigma_t^2}{dt}. $$

    The second form is the one computed: it stays finite where $\sigma_t = 0$. Infinite where
    $\alpha_t = 0$. Raises ValueError where $\lambda$ falls: noising would have to remove noise.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:noising-diffusion.
    """
    _refuse_latent_noise(path)

    def g(t: Time) -> Time:
        growth = rate(path.alpha, t) / path.alpha(t)
        square = 2 * path.variance(t) * growth - rate(path.variance, t)
        if (square < 0).any():
            raise ValueError(
                "the signal-to-noise ratio of a noising schedule does not fall with t, "
                f"got g² = {square.min().item():.3g}; is the clock of the schedule turned?"
            )
        return square.sqrt()

    return g


def _refuse_latent_noise(path: Interpolant) -> None:
    if path.gamma2 is not zero:
        raise ValueError(
            "an interpolant is a noising schedule only without latent noise, "
            "got gamma2 other than 0."
        )
