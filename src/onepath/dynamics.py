r"""Dynamics $dX_t = b_t(X_t)\,dt + \eta_t\,dW_t$, their way back, and the many that share one path
of densities.

A diffusion run backwards is a diffusion again, with the same noise and the drift $-b + \eta^2 s$. A
path $\rho_t$ with velocity $v$ and score $s$ is followed by a whole family of diffusions, one for
each noise level $\eta$: noise of strength $\eta$ is paid for by a drift of $\tfrac12\eta^2 s$. The
functions below run dynamics backwards and move within that family. The noise is the same in all
directions and does not depend on the state; matrix-valued noise is not covered.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import constant, gradient, laplacian, time_derivative, zero
from .interpolants import Interpolant, noising_diffusion, noising_drift
from .shapes import Curve, Field, Points, Scalar, Time, Values, per_point


@dataclass(frozen=True)
class Dynamics:
    r"""A drift $b$ and a noise level $\eta$, a curve in length / time^(1/2).

    An increment of the noise has variance $\eta^2\,dt$ per coordinate. An ODE is a Dynamics with
    `eta=zero`.
    """

    drift: Field
    eta: Curve = zero

    def __post_init__(self) -> None:
        if not callable(self.drift):
            raise TypeError(f"a drift is a field (t, x) -> b_t(x), got {self.drift!r}.")
        if not callable(self.eta):
            raise TypeError(
                f"eta is a curve t -> eta_t, got {self.eta!r}; write constant({self.eta!r})."
            )


def with_noise(velocity: Field, score: Field, eta: Curve) -> Dynamics:
    r"""The diffusion with noise level $\eta$ that has the same marginals as the flow of `velocity`.

    $$ b_t = v_t + \tfrac12\eta_t^2\,\nabla\log\rho_t . $$

    The ½ is that of Fokker–Planck's $\tfrac12\eta^2\Delta$. Where $\eta$ is `zero` the score is not
    evaluated.

    Source: Song et al. (2021) for one eta; Albergo, Boffi and Vanden-Eijnden (2023) for all.
    Book: eq:family.
    """
    if eta is zero:
        return Dynamics(velocity)

    def drift(t: Time, x: Points) -> Points:
        return velocity(t, x) + per_point(0.5 * eta(t) ** 2) * score(t, x)

    return Dynamics(drift, eta)


def velocity_of(dynamics: Dynamics, score: Field) -> Field:
    r"""The velocity whose flow has the marginals of a diffusion; the inverse of `with_noise`.

    $$ v_t = b_t - \tfrac12\eta_t^2\,\nabla\log\rho_t . $$

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:probability-flow.
    """
    if dynamics.eta is zero:
        return dynamics.drift
    return lambda t, x: dynamics.drift(t, x) - per_point(0.5 * dynamics.eta(t) ** 2) * score(t, x)


def backward_drift(dynamics: Dynamics, score: Field) -> Field:
    r"""Nelson's backward drift, the mean step by which a particle arrived where it is seen.

    $$ b^-_t(x) = \lim_{h\to0}\mathbb E\Big[\frac{X_t - X_{t-h}}h\,\Big|\,X_t=x\Big]
               = b_t(x) - \eta_t^2\,\nabla\log\rho_t(x) . $$

    The whole $\eta^2$: the mean of $b$ and $b^-$ is the velocity, with a half of it. Without noise
    both drifts are the velocity and the score is not evaluated.

    Source: Nelson (1967), Dynamical theories of Brownian motion.
    Book: eq:nelson.
    """
    if dynamics.eta is zero:
        return dynamics.drift
    return lambda t, x: dynamics.drift(t, x) - per_point(dynamics.eta(t) ** 2) * score(t, x)


def time_reversed(dynamics: Dynamics, score: Field) -> Dynamics:
    r"""The dynamics in the clock $r = 1 - t$ whose paths have the law of the given ones backwards.

    $$ \bar b_r = -b_t + \eta_t^2\,\nabla\log\rho_t, \qquad t = 1 - r . $$

    The whole $\eta^2$, not half of it: one half turns b into the velocity, the other pays for the
    noise of the way back. It passes the same densities in opposite order; paths have the right law
    if they start at $\rho_1$. Used on a run in the clock r, it gives its way back in t.

    Args:
        score: of the densities of `dynamics`, in the clock of `dynamics`.

    Source: Anderson (1982), Reverse-time diffusion equation models.
    Book: eq:reversed-drift, eq:anderson, eq:backward.
    """
    arrived = backward_drift(dynamics, score)
    turned = lambda r, x: -arrived(1 - r, x)
    if dynamics.eta is zero:
        return Dynamics(turned)
    return Dynamics(turned, lambda r: dynamics.eta(1 - r))


def noising_run(path: Interpolant) -> Dynamics:
    r"""The noising run of a Gaussian path, in its own clock $r = 1 - t$, from data to noise.

    $$ dY_r = -\frac{\dot\alpha_t}{\alpha_t}\,Y_r\,dr + g_t\,dB_r, \qquad t = 1 - r . $$

    The dot is the rate in t: where $\alpha$ grows towards the data, noising pulls to the origin.
    The drift knows nothing of the data. Raises ValueError where $\alpha_t = 0$, and as
    `noising_diffusion` does for a path with latent noise or a falling signal-to-noise ratio.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:noising, eq:two-time.
    """
    f, g = noising_drift(path), noising_diffusion(path)

    def drift(r: Time, x: Points) -> Points:
        pull = f(1 - r)
        if not pull.isfinite().all():
            raise ValueError(
                "the noising drift divides by alpha, got alpha = 0; "
                "stop the run at r < 1, before the signal is gone."
            )
        return per_point(pull) * x

    return Dynamics(drift, lambda r: g(1 - r))


def foellmer(denoiser: Field, mean: Float[Tensor, "d"]) -> Dynamics:
    r"""The drift that leads unit noise from the point 0 at t = 0 to the target at t = 1.

    $$ b_t(x) = \frac{\hat x_t(x) - x}{1 - t}
             = \nabla\log\mathbb E\Big[\frac{d\rho_1}{d\gamma}\big(x+\sqrt{1-t}\,Z\big)\Big],
       \qquad \eta = 1, \quad \gamma=\mathcal N(0,I) . $$

    Args:
        denoiser: $\mathbb E[x_1\mid x_t=x]$ along $x_t = t\,x_1 + \sqrt{t(1-t)}\,z$.
        mean: of the target; it is $\hat x_0$, since the state at t = 0 tells nothing.

    Raises ValueError at t = 1, where the drift is a limit that the denoiser does not know, at times
    outside [0, 1], and unless the mean is one vector of the dimension of the states.

    Source: Föllmer (1985), An entropy approach to the time reversal of diffusion processes.
    Book: eq:foellmer.
    """

    def drift(t: Time, x: Points) -> Points:
        if not ((t >= 0) & (t < 1)).all():
            raise ValueError(
                "the Föllmer drift divides by 1 - t and has times in [0, 1), "
                f"got t = {t.max().item():g}; stop the grid before 1."
            )
        if mean.shape != x.shape[1:]:
            raise ValueError(
                f"the mean is that of the target, ({x.shape[1]},), got {tuple(mean.shape)}."
            )
        first = per_point(t == 0)
        known = denoiser(torch.where(t == 0, 0.5, t), x)
        return (torch.where(first, mean, known) - x) / per_point(1 - t)

    return Dynamics(drift, constant(1.0))


def mean_rate(function: Scalar, dynamics: Dynamics, t: Time, x: Points) -> Values:
    r"""How fast the mean of $f_t(X_t)$ grows along a dynamics that is at x at time t.

    $$ \partial_t f + b\cdot\nabla f + \tfrac12\eta^2\,\Delta f . $$

    The ½ is Itô's. Zero everywhere means that $f_t(X_t)$ is a local martingale:
    this is Kolmogorov's backward equation.

    Source: Øksendal (2003), Stochastic differential equations.
    Book: eq:posterior-martingale, eq:reversal-control.
    """
    carried = (dynamics.drift(t, x) * gradient(function, t, x)).sum(1)
    total = time_derivative(function, t, x) + carried
    if dynamics.eta is zero:
        return total
    return total + 0.5 * dynamics.eta(t) ** 2 * laplacian(function, t, x)


def langevin(score: Field, t: Time, c: float) -> Dynamics:
    r"""Langevin dynamics at the frozen time t, which leaves $\rho_t$ invariant.

    $$ dX_\theta = \tfrac12c^2\,\nabla\log\rho_t(X_\theta)\,d\theta + c\,dW_\theta $$

    in a clock $\theta$ of its own; c is in length / time^(1/2).

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:langevin.
    """
    return Dynamics(lambda theta, x: 0.5 * c**2 * score(t, x), constant(c))
