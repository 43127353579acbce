r"""Objectives: what a network is asked to match, one loss for each sample.

All of them are regressions. A pair $(x_0, x_1)$ is drawn, the state $x_t$ between them is shown to
the field, and the field has to guess a combination of the two ends. The guess that minimises the
mean square is the conditional expectation given the state, which is the field of the path: a target
that nobody can evaluate is learned from targets that everybody can. Objectives that need
derivatives of the network (implicit and sliced score matching) are not covered here.

A loss is a sum over coordinates and belongs to one sample; averaging over samples, and any
weighting of times, is left to the caller. A network with classes enters as a field,
`given(net, y)`.
"""

from .calculus import rate, zero
from .fields import Row, score, velocity
from .interpolants import Interpolant
from .shapes import Field, Points, Time, Values, per_point


def regression(
    field: Field, path: Interpolant, row: Row, t: Time, x0: Points, x1: Points
) -> Values:
    r"""$|F_t(x_t) - (a_t x_1 + b_t x_0)|^2$, where (a, b) is a row of the table in `fields`.

    Its minimiser is the conditional mean of the target given $x_t$: the row's own field, if $x_0$
    is standard normal and independent of $x_1$. With `fields.noise` it is noise prediction, with
    `fields.data` denoising, with `fields.v_prediction` v-prediction.

    Raises ValueError where the row is infinite (the score at $\sigma = 0$).

    Source: here; Ho et al. (2020) for noise, Salimans and Ho (2022) for v.
    Book: eq:minimiser.
    """
    if path.gamma2 is not zero:
        raise ValueError(
            "this target knows of no latent noise, got gamma2 other than 0; use flow_matching."
        )
    a, b = row(path, t)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(
            f"the {row.__name__} of this path is infinite at one of the times given; "
            "draw times away from that end."
        )
    return _square(field(t, path(t, x0, x1)) - per_point(a) * x1 - per_point(b) * x0)


def flow_matching(
    field: Field,
    path: Interpolant,
    t: Time,
    x0: Points,
    x1: Points,
    z: Points | None = None,
) -> Values:
    r"""$|v_t(x_t) - \dot x_t|^2$, where $\dot x_t = \dot\sigma_t x_0 + \dot\alpha_t x_1 +
    \dot\gamma_t z$.

    Its minimiser is the velocity of the path, whatever the base and the coupling of the ends.

    Args:
        z: latent noise, standard normal, for an interpolant that has some; its rate is infinite at
            t = 0 and 1.

    Source: Lipman et al. (2023), Flow matching for generative modeling.
    Book: eq:cfm-loss.
    """
    if path.gamma2 is zero:
        return regression(field, path, velocity, t, x0, x1)
    x = path(t, x0, x1, z)
    gamma_rate = rate(path.gamma2, t) / (2 * path.gamma2(t).sqrt())
    if not gamma_rate.isfinite().all():
        raise ValueError(
            "latent noise has an infinite rate where gamma is 0; draw times away from the ends."
        )
    a, b = velocity(path, t)
    target = per_point(a) * x1 + per_point(b) * x0 + per_point(gamma_rate) * z
    return _square(field(t, x) - target)


def denoising_score_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points
) -> Values:
    r"""$|s_t(x_t) + x_0/\sigma_t|^2$, whose minimiser is the score of the path.

    Precondition: $x_0$ is standard normal and independent of $x_1$. The target grows as
    $1/\sigma_t$; with the weight $\sigma_t^2$ the loss is noise prediction.

    Raises ValueError at $\sigma_t = 0$.

    Source: Vincent (2011), A connection between score matching and denoising autoencoders.
    """
    return regression(field, path, score, t, x0, x1)


def _square(difference: Points) -> Values:
    return difference.square().sum(dim=1)
