r"""Latent noise: a velocity and a score for any two ends, one regression each.

Along $x_t = I_t + \gamma_t z$ with $I_t = \sigma_t x_0 + \alpha_t x_1$, three things are unknown
given the state, the two ends and the latent noise, and the state is one equation between them. So
two fields have to be learned, and no formula of `fields` gives one from the other. What can be
learned are the mean slope $\mathbb E[\partial_t I_t|x_t]$, the mean latent $\hat z =
\mathbb E[z|x_t]$, and, with an objective that cancels the infinite rate of $\gamma$ at the ends,
the velocity.

A loss belongs to one sample; all losses raise ValueError for an empty batch, for draws that are nan
or infinite, and where $\gamma^2$ is negative. Paths without latent noise are not covered:
`objectives` has them.
"""

import torch

from .calculus import rate, zero
from .dynamics import Dynamics
from .interpolants import Interpolant
from .objectives import check_draws
from .shapes import Field, Points, Time, Values, per_point


def slope_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points, z: Points
) -> Values:
    r"""$|F_t(x_t) - \partial_t I_t|^2$, whose minimiser is $\mathbb E[\partial_t I_t \mid x_t]$.

    The target is $\dot\sigma_t x_0 + \dot\alpha_t x_1$: it does not contain the rate of $\gamma$,
    and the velocity is this field plus $\dot\gamma_t\,\mathbb E[z|x_t]$.

    Source: Albergo, Boffi and Vanden-Eijnden (2023), Stochastic interpolants.
    Book: eq:interpolant-losses.
    """
    x = _state(path, t, x0, x1, z)
    return _square(field(t, x) - _slope(path, t, x0, x1))


def latent_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points, z: Points
) -> Values:
    r"""$|F_t(x_t) - z|^2$, whose minimiser is $\mathbb E[z \mid x_t] = -\gamma_t\,s_t(x_t)$.

    Finite at every time; the score is had by `latent_score`, which divides by $\gamma$.

    Source: Albergo, Boffi and Vanden-Eijnden (2023), Stochastic interpolants.
    Book: eq:interpolant-losses.
    """
    return _square(field(t, _state(path, t, x0, x1, z)) - z)


def antithetic_flow_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points, z: Points
) -> Values:
    r"""`flow_matching` with the noise drawn in pairs z, -z, less a term that no field changes.

    $$ \tfrac12\sum_\pm|F_t(x_t^\pm) - \partial_tI_t|^2
       - \dot\gamma_t\,z\cdot\big(F_t(x_t^+) - F_t(x_t^-)\big), \qquad
       x_t^\pm = I_t \pm \gamma_tz . $$

    Its mean is that of $|F_t(x_t) - \dot x_t|^2$ less $d\,\dot\gamma_t^2$, so its minimiser is the
    velocity; it may be negative. Where $\gamma$ starts like a square root, $\dot\gamma$ is
    infinite and $\gamma\dot\gamma$ is not: the difference is of size $\gamma$, and the loss stays
    finite. Where $\gamma$ and the rate of $\gamma^2$ are both 0 the last term is 0. Two calls of
    the field.

    Raises ValueError at times where $\gamma_t = 0$ and its rate is infinite.

    Source: Albergo, Boffi and Vanden-Eijnden (2023), Stochastic interpolants.
    Book: eq:antithetic.
    """
    plus, minus = _state(path, t, x0, x1, z), path(t, x0, x1, -z)
    square_rate = rate(path.gamma2, t)
    gamma_rate = torch.where(square_rate == 0, 0.0, square_rate / (2 * _gamma(path, t)))
    if not gamma_rate.isfinite().all():
        raise ValueError(
            "latent noise has an infinite rate where gamma is 0; draw times away from the ends."
        )
    slope, up, down = _slope(path, t, x0, x1), field(t, plus), field(t, minus)
    from_noise = (per_point(gamma_rate) * z * (up - down)).sum(1)
    return 0.5 * (_square(up - slope) + _square(down - slope)) - from_noise


def latent_score(latent: Field, path: Interpolant) -> Field:
    r"""The score $s_t(x) = -\mathbb E[z \mid x_t = x]/\gamma_t$, for any base and any coupling.

    Raises ValueError at times where $\gamma_t = 0$: there the state holds no latent noise that
    could tell the score.

    Source: Albergo, Boffi and Vanden-Eijnden (2023), Stochastic interpolants.
    Book: eq:latent-score.
    """
    _refuse_no_latent(path)

    def score(t: Time, x: Points) -> Points:
        gamma = _gamma(path, t)
        if not (gamma > 0).all():
            raise ValueError(
                "the score divides by gamma, got gamma = 0; stop the grid before that end, "
                "or use `latent_dynamics`, which does not divide."
            )
        return -latent(t, x) / per_point(gamma)

    return score


def latent_dynamics(velocity: Field, latent: Field, path: Interpolant, c: float) -> Dynamics:
    r"""The diffusion with the path's densities whose drift contains the mean latent itself.

    $$ dX_t = \big[v_t - c\,\mathbb E[z|x_t]\big]\,dt + \sqrt{2c\,\gamma_t}\,dW_t . $$

    It is `with_noise` at $\eta_t^2 = 2c\,\gamma_t$: the 2 meets the ½ before the score, $\gamma$
    the one below the latent, and nothing is divided. c is a speed, length/time; c = 0 is the flow
    and does not call `latent`.

    Raises ValueError unless c is nonnegative and finite.

    Source: here.
    Book: eq:latent-dynamics.
    """
    _refuse_no_latent(path)
    if not 0 <= c < float("inf"):
        raise ValueError(f"a speed c is nonnegative and finite, got {c}.")
    if c == 0:
        return Dynamics(velocity)
    return Dynamics(
        lambda t, x: velocity(t, x) - c * latent(t, x),
        lambda t: (2 * c * _gamma(path, t)).sqrt(),
    )


def _state(path: Interpolant, t: Time, x0: Points, x1: Points, z: Points) -> Points:
    _refuse_no_latent(path)
    _gamma(path, t)
    x = path(t, x0, x1, z)
    check_draws(base=x0, target=x1, latent=z)
    return x


def _gamma(path: Interpolant, t: Time) -> Time:
    gamma2 = path.gamma2(t)
    if not (gamma2 >= 0).all():
        raise ValueError(
            f"gamma2 is a variance, nonnegative, got {gamma2.min().item():.3g}; are all times in "
            "[0, 1]?"
        )
    return gamma2.sqrt()


def _slope(path: Interpolant, t: Time, x0: Points, x1: Points) -> Points:
    return per_point(rate(path.sigma, t)) * x0 + per_point(rate(path.alpha, t)) * x1


def _square(difference: Points) -> Values:
    return difference.square().sum(dim=1)


def _refuse_no_latent(path: Interpolant) -> None:
    if path.gamma2 is zero:
        raise ValueError(
            "this needs an interpolant with latent noise, got gamma2 = zero; "
            "give it some, as `bridge` has, or use flow_matching."
        )
