r"""Interpolants $x_t = \sigma_t\,x_0 + \alpha_t\,x_1 + \gamma_t\,z$ between a base draw and a
target draw.

Base at t = 0, target at t = 1, everywhere in this package: $\sigma$ multiplies the base, $\alpha$
the target. With a Gaussian base and no latent noise an interpolant is a noising schedule read
backwards, and the functions at the end give its signal-to-noise ratio and the drift and diffusion
of its noising process; what needs two times, and the way from drift and diffusion back to the
curves, is in `noising`.

Times lie in [0, 1]. The curves of every schedule of this module raise ValueError for nan and for
any other time; a time beyond an end by rounding is that end.
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
        r"""$x_t$. `z` is standard normal, and needed unless $\gamma = 0$. Raises ValueError where
        $\gamma^2$ is negative or nan."""
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
        gamma2 = self.gamma2(t)
        if not (gamma2 >= 0).all():
            least = gamma2.min().item()
            raise ValueError(f"gamma^2, a variance of latent noise, is at least 0, got {least:g}.")
        return x + per_point(gamma2.sqrt()) * z


def _in_unit_interval(t: Time) -> Time:
    """t, and an end for what is beyond it by rounding. Raises ValueError for any other time."""
    low, high = (end.item() for end in t.detach().aminmax()) if t.numel() else (0, 1)
    if low >= 0 and high <= 1:
        return t
    rounding = 100 * torch.finfo(t.dtype).eps
    if not (low >= -rounding and high <= 1 + rounding):
        raise ValueError(
            f"a schedule has times in [0, 1] only, base to target, got {low:g} to {high:g}."
        )
    return t + (t.clamp(0, 1) - t).detach()  # the clamp alone would have the rate 0 beyond


def _ones(t: Time) -> Time:
    return torch.ones_like(_in_unit_interval(t))


linear = Interpolant(sigma=lambda t: 1 - _in_unit_interval(t), alpha=_in_unit_interval)
# cos(pi t / 2) written as a sine, because it must be exactly 0 at t = 1: rounding leaves 6e-17
trigonometric = Interpolant(
    sigma=lambda t: (pi * (1 - _in_unit_interval(t)) / 2).sin(),
    alpha=lambda t: (pi * _in_unit_interval(t) / 2).sin(),
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

    integral = _integrated_rate(low, high)
    return Interpolant(
        sigma=lambda t: (-torch.expm1(-integral(t))).sqrt(),
        alpha=lambda t: (-0.5 * integral(t)).exp(),
        sigma2=lambda t: -torch.expm1(-integral(t)),
    )


def sub_variance_preserving(low: float = 0.1, high: float = 20.0) -> Interpolant:
    r"""The sub-VP path: $\alpha$ is that of `variance_preserving`, and the noise is
    $\sigma_t = 1 - \alpha_t^2$.

    That is the *standard deviation*, not the variance, so there is less noise than on the VP path
    at every inner time, and $g_t^2 = \beta_{1-t}\,(1 - \alpha_t^4)$.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:sub-vp.
    """
    integral = _integrated_rate(low, high)
    return Interpolant(
        sigma=lambda t: -torch.expm1(-integral(t)), alpha=lambda t: (-0.5 * integral(t)).exp()
    )


def cosine(offset: float = 0.008) -> Interpolant:
    r"""The cosine schedule, variance-preserving with a gentle end; trigonometric for offset 0.

    $$ \alpha_t = \frac{\sin\omega t}{\sin\omega}, \quad \sigma_t^2 = 1 - \alpha_t^2
       = \frac{\sin\omega(1+t)\,\sin\omega(1-t)}{\sin^2\omega}, \quad
       \omega = \frac{\pi/2}{1 + \text{offset}} . $$

    The paper writes $\alpha$ as a cosine in noising time; as a sine it is exactly 0 at t = 0, and
    the product of sines keeps its digits at t = 1, where $1-\alpha^2$ would lose them. Its first
    sine is computed as $\sin(\pi - \omega(1+t))$, whose argument is small there.

    Source: Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models.
    Book: eq:cosine.
    """
    if not 0 <= offset < float("inf"):
        raise ValueError(f"the offset of a cosine schedule is >= 0 and finite, got {offset}.")
    omega = 0.5 * pi / (1 + offset)

    def product(r: Time) -> Time:
        return (2 * offset * omega + omega * r).sin() * (omega * r).sin()

    def variance(t: Time) -> Time:
        return product(1 - _in_unit_interval(t)) / product(torch.ones_like(t))

    def alpha(t: Time) -> Time:
        return (omega * _in_unit_interval(t)).sin() / (omega * torch.ones_like(t)).sin()

    return Interpolant(sigma=lambda t: variance(t).sqrt(), alpha=alpha, sigma2=variance)


def variance_exploding(low: float = 0.01, high: float = 50.0) -> Interpolant:
    r"""The VE path: $\alpha = 1$, and $\sigma$ falls geometrically from `high` at t = 0 to `low` at
    t = 1.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:ve.
    """
    if not 0 < low < high < float("inf"):
        raise ValueError(
            f"a geometric schedule needs 0 < low < high < infinity, got {low} and {high}."
        )
    return Interpolant(sigma=lambda t: high * (low / high) ** _in_unit_interval(t), alpha=_ones)


def edm(low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Interpolant:
    r"""The path $x_1 + \sigma\varepsilon$ of EDM, on the clock in which its steps are equal.

    $$ \alpha = 1, \qquad
       \sigma_t = \big((1-t)\,\sigma_{\max}^{1/\rho} + t\,\sigma_{\min}^{1/\rho}\big)^\rho . $$

    The paper's own clock is $\sigma$ itself, which is `rho` = 1 up to an affine map; its sampler
    takes equal steps in $\sigma^{1/\rho}$ with $\rho = 7$, so n equal steps in our t are n of its
    steps. `rho` to infinity is `variance_exploding`. `low` may be 0.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    Book: eq:edm.
    """
    if not (0 <= low < high < float("inf") and 1 <= rho < float("inf")):
        raise ValueError(
            "a schedule of EDM needs 0 <= low < high and rho >= 1, all finite, "
            f"got {low}, {high} and {rho}."
        )
    first, last = high ** (1 / rho), low ** (1 / rho)

    def sigma(t: Time) -> Time:
        t = _in_unit_interval(t)
        return ((1 - t) * first + t * last) ** rho

    return Interpolant(sigma=sigma, alpha=_ones)


def bridge(tau: float = 1.0) -> Interpolant:
    r"""The linear interpolant with the noise of a Brownian bridge, $\gamma_t^2 = \tau\,t(1-t)$.

    Source: Albergo, Boffi and Vanden-Eijnden (2023). Book: eq:brownian-interpolant.
    """
    if not 0 < tau < float("inf"):
        raise ValueError(
            f"a bridge has a positive and finite temperature, got tau = {tau}; without noise it is "
            "`linear`."
        )
    latent = lambda t: tau * linear.alpha(t) * linear.sigma(t)
    return Interpolant(sigma=linear.sigma, alpha=linear.alpha, gamma2=latent)


def half_log_snr(path: Interpolant, t: Time) -> Time:
    r"""$\lambda_t = \log(\alpha_t / \sigma_t)$: half the logarithm of the signal-to-noise ratio.

    Minus infinity where $\alpha_t = 0$, infinity where $\sigma_t = 0$. Raises ValueError where a
    curve is negative, which is a time that the schedule does not have.
    """
    _refuse_latent_noise(path)
    alpha, variance = path.alpha(t), path.variance(t)
    if (alpha < 0).any() or (variance < 0).any():
        raise ValueError(
            f"alpha and the variance of a schedule are nonnegative, got {alpha.min().item():.3g} "
            f"and {variance.min().item():.3g}; are all times in [0, 1]?"
        )
    return alpha.log() - 0.5 * variance.log()


def noising_drift(path: Interpolant) -> Curve:
    r"""$f_t = -\dot\alpha_t/\alpha_t$: the noising process has the drift $f_t\,y$ in its own clock.

    $$ \bar f_r = \frac{d}{dr}\log\bar\alpha_r, \qquad f_t = \bar f_{1-t}, $$

    read at the generation time t, as `noising_diffusion` is. The minus comes from $dr = -dt$; f is
    negative where the data are shrunk on the way to noise, and minus infinity where $\alpha_t = 0$.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:noising.
    """
    _refuse_latent_noise(path)
    return lambda t: -_growth(path, t)


def noising_diffusion(path: Interpolant) -> Curve:
    r"""$g_t$, the diffusion coefficient of the process that carries data to noise along this path.

    $$ g_t^2 = -\alpha_t^2\,\frac{d}{dt}\frac{\sigma_t^2}{\alpha_t^2} = 2\sigma_t^2\,\dot\lambda_t
             = 2\sigma_t^2\,\frac{\dot\alpha_t}{\alpha_t} - \frac{d\sigma_t^2}{dt}. $$

    The last form is the one computed: it stays finite where $\sigma_t = 0$. Infinite where
    $\alpha_t = 0$. Raises ValueError where $\lambda$ falls: noising would have to remove noise.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:noising-diffusion.
    """
    _refuse_latent_noise(path)

    def g(t: Time) -> Time:
        lost, gained = 2 * path.variance(t) * _growth(path, t), rate(path.variance, t)
        square = lost - gained
        rounding = 100 * torch.finfo(t.dtype).eps * (lost.abs() + gained.abs())
        if not (square >= -rounding).all():
            raise ValueError(
                "the signal-to-noise ratio of a noising schedule does not fall with t, "
                f"got g² = {square.min().item():.3g}; is the clock of the schedule turned, "
                "or a time outside [0, 1]?"
            )
        return square.clamp(min=0).sqrt()

    return g


def _growth(path: Interpolant, t: Time) -> Time:
    """The rate of log alpha; infinite where alpha is 0, also if alpha leaves 0 with slope 0."""
    alpha = path.alpha(t)
    return torch.where(alpha == 0, torch.inf, rate(path.alpha, t) / alpha)


def _integrated_rate(low: float, high: float) -> Curve:
    """The integral of a rate of noising that rises linearly, from 0 to the noising time 1 - t."""
    if not 0 <= low <= high < float("inf") or high == 0:
        raise ValueError(f"noising needs 0 <= low <= high and high > 0, got {low} and {high}.")

    def integral(t: Time) -> Time:
        r = 1 - _in_unit_interval(t)
        return low * r + 0.5 * (high - low) * r**2

    return integral


def _refuse_latent_noise(path: Interpolant) -> None:
    if path.gamma2 is not zero:
        raise ValueError(
            "an interpolant is a noising schedule only without latent noise, "
            "got gamma2 other than 0."
        )
