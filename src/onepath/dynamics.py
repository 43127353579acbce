r"""Dynamics $dX_t = b_t(X_t)\,dt + \eta_t\,dW_t$, and the many that share one path of densities.

A path $\rho_t$ with velocity $v$ and score $s$ is followed by a whole family of diffusions, one for
each noise level $\eta$: noise of strength $\eta$ is paid for by a drift of $\tfrac12\eta^2 s$. The
functions below move within that family. The noise is the same in all directions and does not depend
on the state; matrix-valued noise is not covered.
"""

from dataclasses import dataclass

from .calculus import constant, zero
from .shapes import Curve, Field, Points, Time, per_point


@dataclass(frozen=True)
class Dynamics:
    r"""A drift $b$ and a noise level $\eta$, a curve in length / time^(1/2).

    An increment of the noise has variance $\eta^2\,dt$ per coordinate. An ODE is a Dynamics with
    `eta=zero`.
    """

    drift: Field
    eta: Curve = zero

    def __post_init__(self) -> None:
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


def time_reversed(dynamics: Dynamics, score: Field) -> Dynamics:
    r"""The dynamics in the clock $r = 1 - t$ that passes the same densities in opposite order.

    $$ \bar b_r = -b_t + \eta_t^2\,\nabla\log\rho_t, \qquad t = 1 - r . $$

    The whole $\eta^2$, not half of it: one half turns b into the velocity, the other pays for the
    noise of the way back.

    Source: Anderson (1982), Reverse-time diffusion equation models.
    Book: eq:backward.
    """
    if dynamics.eta is zero:
        return Dynamics(lambda r, x: -dynamics.drift(1 - r, x))

    def drift(r: Time, x: Points) -> Points:
        t = 1 - r
        return per_point(dynamics.eta(t) ** 2) * score(t, x) - dynamics.drift(t, x)

    return Dynamics(drift, lambda r: dynamics.eta(1 - r))


def langevin(score: Field, t: Time, c: float) -> Dynamics:
    r"""Langevin dynamics at the frozen time t, which leaves $\rho_t$ invariant.

    $$ dX_\theta = \tfrac12c^2\,\nabla\log\rho_t(X_\theta)\,d\theta + c\,dW_\theta $$

    in a clock $\theta$ of its own; c is in length / time^(1/2).

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:langevin.
    """
    return Dynamics(lambda theta, x: 0.5 * c**2 * score(t, x), constant(c))
