r"""Objectives: what a network is asked to match, one loss for each sample.

Most of them are regressions. A pair $(x_0, x_1)$ is drawn, the state $x_t$ between them is shown to
the field, and the field has to guess a combination of the two ends. The guess that minimises the
mean square is the conditional expectation given the state, which is the field of the path: a target
that nobody can evaluate is learned from targets that everybody can. Explicit score matching is the
distance that all objectives for the score stand for, and needs the score; implicit and sliced score
matching need the state only, and pay with derivatives of the field.

A loss is a sum over coordinates and belongs to one sample; averaging over samples, and any
weighting of times, is left to the caller. A network with classes enters as a field,
`given(net, y)`. All raise ValueError for an empty batch, and where a draw is nan or infinite.
"""

from torch import Tensor

from .calculus import divergence, hutchinson, rate, zero
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
    check_draws(base=x0, target=x1)
    return _distance(field(t, path(t, x0, x1)), per_point(a) * x1 + per_point(b) * x0)


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
        z: latent noise, standard normal, for an interpolant that has some. Its rate is the rate of
            $\gamma^2$ over $2\gamma$, so where $\gamma$ is 0, as at 0 and 1, there is none here.

    Raises ValueError at such times.

    Source: Lipman et al. (2023), Flow matching for generative modeling.
    Book: eq:cfm-loss.
    """
    if path.gamma2 is zero:
        return regression(field, path, velocity, t, x0, x1)
    x = path(t, x0, x1, z)
    gamma2 = path.gamma2(t)
    if not (gamma2 > 0).all():
        raise ValueError(
            "the rate of latent noise is the rate of gamma^2 over 2 gamma, which needs gamma > 0, "
            f"got gamma = 0 at {int((gamma2 == 0).sum())} of {gamma2.numel()} times; "
            "draw times away from the ends."
        )
    gamma_rate = rate(path.gamma2, t) / (2 * gamma2.sqrt())
    check_draws(base=x0, target=x1, latent=z)
    a, b = velocity(path, t)
    target = per_point(a) * x1 + per_point(b) * x0 + per_point(gamma_rate) * z
    return _distance(field(t, x), target)


def explicit_score_matching(field: Field, exact: Field, t: Time, x: Points) -> Values:
    r"""$|F_t(x) - s_t(x)|^2$, the distance to a score that is known: what the others stand for.

    There is no ½ in front; `implicit_score_matching` and the sliced ones are half of it, up to a
    constant, and `denoising_score_matching` is the whole of it, up to another.

    Args:
        exact: the score, of an oracle.

    Source: Hyvärinen (2005), Estimation of non-normalized statistical models by score matching.
    Book: eq:explicit-score-matching.
    """
    check_draws(states=x)
    return _distance(field(t, x), exact(t, x))


def implicit_score_matching(field: Field, t: Time, x: Points) -> Values:
    r"""$\tfrac12|F_t(x)|^2 + \nabla\cdot F_t(x)$ at states x of $\rho_t$, without any score.

    $$ \tfrac12\mathbb E|F - s|^2 = \mathbb E\big[\tfrac12|F|^2 + \nabla\cdot F\big]
       + \tfrac12\mathbb E|s|^2 $$

    The ½ belongs to the square only, and the loss may be negative. Precondition: the density has no
    jump, in particular none at a border of its support; at t < 1 of a Gaussian path it has none.
    The divergence costs d backward passes.

    Source: Hyvärinen (2005), Estimation of non-normalized statistical models by score matching.
    Book: eq:implicit-score-matching.
    """
    check_draws(states=x)
    return 0.5 * _square(field(t, x)) + divergence(field, t, x)


def sliced_score_matching(field: Field, t: Time, x: Points, z: Points) -> Values:
    r"""$z^\top\nabla F_t(x)\,z + \tfrac12(z\cdot F_t(x))^2$ for probes z with $\mathbb E
    zz^\top = I$.

    Its mean over z is `implicit_score_matching`, at the price of one directional derivative. Probes
    of length one have $\mathbb E zz^\top = I/d$ and are not allowed.

    Args:
        z: a probe for each point, from `calculus.gaussian_probes` or `rademacher_probes`.

    Source: Song, Garg, Shi and Ermon (2019), Sliced score matching.
    Book: eq:sliced-score-matching.
    """
    check_draws(states=x, probes=z)
    return hutchinson(field, t, x, z) + 0.5 * (z * field(t, x)).sum(1) ** 2


def reduced_sliced_score_matching(field: Field, t: Time, x: Points, z: Points) -> Values:
    r"""$z^\top\nabla F_t(x)\,z + \tfrac12|F_t(x)|^2$: sliced, with the square averaged exactly.

    Known as the variance-reduced form. For Gaussian probes its variance given x is $2|S|_F^2$ with
    $S$ the symmetric part of $\nabla F$, that of `sliced_score_matching` is
    $2|S + \tfrac12 FF^\top|_F^2$, which can be less.

    Source: Song, Garg, Shi and Ermon (2019), Sliced score matching.
    Book: eq:sliced-score-matching, eq:sliced-variance.
    """
    check_draws(states=x, probes=z)
    return hutchinson(field, t, x, z) + 0.5 * _square(field(t, x))


def denoising_score_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points
) -> Values:
    r"""$|F_t(x_t) + x_0/\sigma_t|^2$, whose minimiser is the score of the path.

    $$ \mathbb E|F + x_0/\sigma|^2 = \mathbb E|F - s|^2 + d/\sigma^2 - \mathbb E|s|^2 $$

    Precondition: $x_0$ is standard normal and independent of $x_1$. The target grows as
    $1/\sigma_t$; with the weight $\sigma_t^2$ the loss is noise prediction.

    Raises ValueError at $\sigma_t = 0$.

    Source: Vincent (2011), A connection between score matching and denoising autoencoders.
    Book: eq:denoising-score-matching.
    """
    return regression(field, path, score, t, x0, x1)


def target_score_matching(
    field: Field, path: Interpolant, t: Time, x0: Points, x1: Points, score1: Points
) -> Values:
    r"""$|F_t(x_t) - \nabla\log p_1(x_1)/\alpha_t|^2$, whose minimiser is the score of the path.

    Precondition: $x_0$ is independent of $x_1$, and the target has a differentiable density. The
    noise of this regression vanishes at the data and grows towards the base, where that of
    `denoising_score_matching` vanishes.

    Args:
        score1: $\nabla\log p_1$ at the rows of x1.

    Raises ValueError where $\alpha_t = 0$.

    Source: De Bortoli et al. (2024), Target score matching.
    Book: eq:target-score.
    """
    if path.gamma2 is not zero:
        raise ValueError("this target knows of no latent noise, got gamma2 other than 0.")
    alpha = path.alpha(t)
    if not (alpha != 0).all():
        raise ValueError("the target's score is divided by alpha, got alpha 0; draw later times.")
    check_draws(base=x0, target=x1, scores=score1)
    return _distance(field(t, path(t, x0, x1)), score1 / per_point(alpha))


def _distance(value: Tensor, target: Tensor) -> Values:
    """Squared, by row. A vector less a column would be a matrix, and no error."""
    if value.shape != target.shape:
        raise ValueError(
            f"a field and its target have one shape, (n, d), got {tuple(value.shape)} and "
            f"{tuple(target.shape)}; on the line a point is a row of one number."
        )
    return _square(value - target)


def _square(difference: Points) -> Values:
    return difference.square().sum(dim=1)


def check_draws(**draws: Points) -> None:
    """Raise ValueError unless there are samples, all finite; the names are for the message."""
    for name, x in draws.items():
        if not len(x):
            raise ValueError(f"a loss needs at least one sample, got no rows of {name}.")
        good = x.isfinite().all(dim=1)
        if not good.all():
            raise ValueError(
                f"draws are finite, got nan or inf in {int((~good).sum())} of {len(x)} rows of "
                f"{name}, the first is row {int((~good).int().argmax())}; leave them out."
            )
