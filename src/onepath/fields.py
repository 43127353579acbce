r"""What a network can be asked to predict: five fields that are one field in five coordinates.

With a Gaussian base, $x_t = \alpha_t x_1 + \sigma_t\varepsilon$, every field of the book is the
same combination of the two posterior means $\hat x = \mathbb E[x_1|x_t]$ and $\hat\varepsilon =
\mathbb E[\varepsilon|x_t]$. One row of two coefficients each:

$$ \begin{array}{l|cc} & \hat x & \hat\varepsilon \\ \hline
   \text{state } x & \alpha & \sigma \\ \text{data} & 1 & 0 \\ \text{noise} & 0 & 1 \\
   \text{velocity } v & \dot\alpha & \dot\sigma \\ \text{score } s & 0 & -1/\sigma \\
   \text{v-prediction } \nu & -\sigma & \alpha \end{array} $$

Any row and the state determine the others by a 2×2 linear system. That is all that `convert` does.
It does not cover other bases, dependent ends or latent noise, for which in general no pointwise
conversion exists.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .calculus import rates, zero
from .interpolants import Interpolant
from .oracles import MixturePath
from .shapes import Field, Points, Time, per_point

Row = Callable[
    [Interpolant, Tensor], tuple[Tensor, Tensor]
]  # (path, t) -> coefficients of data and noise


def data(path: Interpolant, t: Time) -> tuple[Time, Time]:
    r"""The denoiser $\hat x = \mathbb E[x_1|x_t]$."""
    return t * 0 + 1, t * 0


def noise(path: Interpolant, t: Time) -> tuple[Time, Time]:
    r"""The noise prediction $\hat\varepsilon = \mathbb E[\varepsilon|x_t]$."""
    return t * 0, t * 0 + 1


def velocity(path: Interpolant, t: Time) -> tuple[Time, Time]:
    r"""$v = \dot\alpha\,\hat x + \dot\sigma\,\hat\varepsilon$."""
    d_alpha, d_sigma = rates((path.alpha, path.sigma), t)
    return d_alpha, d_sigma


def score(path: Interpolant, t: Time) -> tuple[Time, Time]:
    r"""$s = -\hat\varepsilon / \sigma$ (Tweedie)."""
    return t * 0, -1 / path.sigma(t)


def v_prediction(path: Interpolant, t: Time) -> tuple[Time, Time]:
    r"""$\nu = \alpha\,\hat\varepsilon - \sigma\,\hat x$, which is not the velocity.

    Source: Salimans and Ho (2022), Progressive distillation.
    Book: eq:v-prediction.
    """
    return -path.sigma(t), path.alpha(t)


def coefficients(path: Interpolant, given: Row, wanted: Row, t: Time) -> tuple[Time, Time]:
    r"""(p, q) with wanted = p x + q given, at time t.

    With rows $(\alpha, \sigma)$ of the state, $(a, b)$ of the given and $(A, B)$ of the wanted
    field, and $\Delta = \alpha b - \sigma a$: $\; p = (A b - B a)/\Delta$ and $q = (\alpha B -
    \sigma A)/\Delta$.

    Where $\sigma = 0$ the rows of the score and, on square-root schedules such as VP, of the
    velocity are infinite. A *given* field with such a row has finite coefficients all the same,
    because $\sigma s = -\hat\varepsilon$ and $\sigma\dot\sigma = \tfrac12\,d\sigma^2/dt$
    are finite: the field's own term vanishes there, except in a velocity from a score.

    Raises ValueError where the coefficients are infinite: where the state and the given field carry
    the same information ($\Delta = 0$), and where the *wanted* field divides by $\sigma = 0$. The
    score at the data is one; that it exists there, or could be had from the velocity on some paths,
    does not make the division by $\sigma$ a formula. An oracle knows its limit.

    Source: here.
    Book: eq:conversion.
    """
    if given is wanted:
        return t * 0, t * 0 + 1
    alpha, sigma = path.alpha(t), path.sigma(t)
    (a, b, unit), (A, B, wanted_unit) = _finite(path, given, t), _finite(path, wanted, t)
    determinant = alpha * b - sigma * a
    p = (A * b - B * a) / determinant / wanted_unit
    q = (alpha * B - sigma * A) / determinant / wanted_unit * unit
    if given is score and wanted is velocity:  # B / wanted_unit may be infinite, and q is not
        d_alpha, d_variance = rates((path.alpha, path.variance), t)
        p = d_alpha / alpha
        q = path.variance(t) * p - 0.5 * d_variance
    if not (p.isfinite().all() and q.isfinite().all()):
        where = t if t.ndim == 0 else t[~(p.isfinite() & q.isfinite())][0]
        raise ValueError(
            f"no {wanted.__name__} from {given.__name__} at t = {where.item():g}, "
            "where sigma or alpha is 0 and the conversion divides by it; stop the grid before that "
            "end, or use an oracle's exact field there."
        )
    return p, q


def gaussian_path(path: Interpolant | MixturePath) -> Interpolant:
    """The interpolant of a path whose fields are one field: base N(0, I), independent of the
    target, no latent noise.

    Raises ValueError otherwise. An `Interpolant` knows neither its base nor its coupling; with one
    the first two are promised by the caller.

    Source: here.
    Book: eq:conversion.
    """
    if isinstance(path, MixturePath):
        if not path.has_gaussian_base:
            raise ValueError(
                "conversions between fields need a base N(0, I) that is independent of the target; "
                "this path has another. Use the path's own score and velocity."
            )
        path = path.interpolant
    if path.gamma2 is not zero:
        raise ValueError(
            "conversions between fields need an interpolant without latent noise, "
            "got gamma2 other than 0."
        )
    return path


def convert(field: Field, path: Interpolant | MixturePath, given: Row, wanted: Row) -> Field:
    """The field of another row of the table: `convert(net, linear, given=velocity, wanted=score)`.

    Precondition, checked where the path knows its base and its coupling: x_0 is N(0, I),
    independent of x_1, and there is no latent noise. Raises ValueError otherwise, and at times
    where the conversion does not exist.

    Source: here.
    Book: eq:conversion, eq:score-from-velocity.
    """
    path = gaussian_path(path)

    def converted(t: Time, x: Points) -> Points:
        p, q = coefficients(path, given, wanted, t)
        return per_point(p) * x + per_point(q) * field(t, x)

    return converted


def _finite(path: Interpolant, row: Row, t: Time) -> tuple[Time, Time, Time]:
    r"""A row times a unit that makes it finite, and that unit: $\sigma = 0$ where the row of the
    score or of the velocity is infinite, which is then a multiple of (0, -1), else 1."""
    a, b = row(path, t)
    finite = b.isfinite()
    if row not in (score, velocity) or finite.all():
        return a, b, torch.ones_like(b)
    return torch.where(finite, a, 0.0), torch.where(finite, b, -1.0), finite.to(b)
