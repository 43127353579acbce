r"""What a convention is, and the one function that translates between any two.

Every paper on diffusion or flow matching with a Gaussian end writes its state as $y_u = a_u\,x_1 +
s_u\,\varepsilon$, in a clock $u$ of its own, and trains a field that is a combination of the two
posterior means $\hat x$ and $\hat\varepsilon$. The two means know of the clock and of the scale
only the ratio a/s: if two conventions have the same $\lambda = \log(a/s)$ at their times u and v,
then the same draws give the states $y_u$ and $y_v = k\,y_u$, and

$$ \hat x_v(k\,y) = \hat x_u(y), \qquad \hat\varepsilon_v(k\,y) = \hat\varepsilon_u(y) . $$

So a convention is its schedule, the inverse of its $\lambda$, and the row of its field in the table
of `fields`. The sign of a reversed clock and the factor of a faster one need no rule: each row is
differentiated in its own clock. The rows of the papers are in `papers`.

Precondition of all of it, which a field alone cannot show: the base is N(0, I) and independent of
the target. Between two data sets only the clock and the noise level translate.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from .calculus import constant, rate
from .fields import Row, coefficients, velocity
from .interpolants import Interpolant, half_log_snr, linear
from .shapes import Curve, Field, Points, Time, per_point


@dataclass(frozen=True)
class Level:
    """What a convention calls its noise: its sampler adds the variance factor(u) * level**power per
    unit of its time."""

    symbol: str
    factor: Curve
    power: int


@dataclass(frozen=True)
class Convention:
    r"""How a paper writes the path from noise to data.

    Args:
        schedule: the curves of its state in its own clock, `alpha` before data, `sigma` before
            noise.
        clock: $\lambda \mapsto u$, the inverse of the half log-SNR of the schedule.
        span: the times (start, stop) at which generation starts, near noise, and stops, near data.
        predicts: the row of the field that its network learns.
        level: what it calls the noise of its sampler, if the sampler has any.

    Raises ValueError unless the SNR grows from start to stop and `clock` inverts it.
    """

    name: str
    source: str
    schedule: Interpolant
    clock: Curve
    span: tuple[float, float]
    predicts: Row
    level: Level | None = None

    def __post_init__(self) -> None:
        start, stop = self.span
        inside = torch.linspace(start, stop, 7, dtype=torch.float64)[1:-1]
        snr = half_log_snr(self.schedule, inside)
        if not (snr.diff() > 0).all():
            raise ValueError(
                f"{self.name}: the signal-to-noise ratio must grow from start to stop, "
                f"got a span of {self.span}; swap its ends or the curves."
            )
        if not torch.allclose(self.clock(snr), inside):
            raise ValueError(
                f"{self.name}: clock must invert the half log-SNR, got {self.clock(snr).tolist()} "
                f"for the times {inside.tolist()}."
            )


def matching(given: Convention, wanted: Convention, u: Time) -> tuple[Time, Time]:
    r"""(v, k): the time v of `wanted` with the SNR that `given` has at u, and the scale k of the
    states.

    $$ \lambda^{\text{wanted}}_v = \lambda^{\text{given}}_u, \qquad y_v = k\,y_u . $$

    k is the ratio of the lengths of $(a, s)$, which is finite where a or s alone is 0. Raises
    ValueError where u is not a time of `given`, and where `wanted` has no such time.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:snr-equivalence.
    """
    _, known = _nearest(given, u)
    if not known.all():
        raise ValueError(
            f"{given.name} runs from {given.span[0]:g} to {given.span[1]:g} and has no time "
            f"{u[~known].flatten()[0].item():g}; are its times counted or turned otherwise?"
        )
    v = wanted.clock(half_log_snr(given.schedule, u))
    within, inside = _nearest(wanted, v)
    if not inside.all():
        first = [time[~inside].flatten()[0].item() for time in (u, v)]
        raise ValueError(
            f"{wanted.name} runs from {wanted.span[0]:g} to {wanted.span[1]:g} and has no time "
            f"with the noise of {given.name} at {first[0]:g}, where it would be {first[1]:.3g}; "
            "stop the grid before that end."
        )
    return within, _length(wanted.schedule, within) / _length(given.schedule, u)


def translate(field: Field, given: Convention, wanted: Convention) -> Field:
    """The field that `wanted` predicts, computed from the one that `given` predicts.

    `translate(net, given=edm(), wanted=book)` is the velocity of the book from a denoiser in the
    clock of EDM; with the last two exchanged it goes back. Precondition: a base N(0, I),
    independent of the target. Raises ValueError at times that one of the two does not have, and
    where the conversion divides by zero.

    Source: here.
    Book: eq:snr-equivalence, eq:conversion.
    """

    def translated(u: Time, y: Points) -> Points:
        v, k = matching(wanted, given, u)

        def wanted_there(schedule: Interpolant, time: Time) -> tuple[Time, Time]:
            return wanted.predicts(wanted.schedule, u)

        wanted_there.__name__ = wanted.predicts.__name__  # for the message of `coefficients`
        p, q = coefficients(given.schedule, given.predicts, wanted_there, v)
        there = per_point(k) * y
        return per_point(p) * there + per_point(q) * field(v, there)

    return translated


def translate_level(level: Curve, given: Convention, wanted: Convention) -> Curve:
    r"""The noise level of `wanted` whose sampler makes, up to clock and scale, the same paths.

    With $y_v = k\,y_u$, the variance that one sampler adds in du is the other's in dv over $k^2$:

    $$ V_u = V_v\,\left|\frac{dv}{du}\right| / k^2 . $$

    Raises ValueError if either convention has no noise.

    Source: here.
    Book: eq:level.
    """
    for convention in (given, wanted):
        if convention.level is None:
            raise ValueError(
                f"{convention.name} has no name for the noise of a sampler; "
                "translate to `book` and use its eta."
            )

    def translated(u: Time) -> Time:
        v, k = matching(wanted, given, u)
        speed = rate(lambda s: matching(wanted, given, s)[0], u).abs()
        there = given.level.factor(v) * level(v) ** given.level.power
        return (there * speed / k**2 / wanted.level.factor(u)) ** (1 / wanted.level.power)

    return translated


def flipped(convention: Convention, name: str) -> Convention:
    """The same convention on the clock that runs the other way over the same span."""
    start, stop = convention.span
    turn = lambda u: start + stop - u
    return replace(
        convention,
        name=name,
        schedule=on_clock(convention.schedule, turn),
        clock=lambda snr: turn(convention.clock(snr)),
        span=(stop, start),
        level=convention.level
        and replace(convention.level, factor=lambda u: convention.level.factor(turn(u))),
    )


def on_clock(path: Interpolant, time: Curve) -> Interpolant:
    """The curves of a path, read at time(u)."""
    at = lambda curve: lambda u: curve(time(u))
    return Interpolant(at(path.sigma), at(path.alpha), sigma2=at(path.variance))


def diffusion(symbol: str) -> Level:
    """The level is the diffusion coefficient itself: variance level**2 per unit of time."""
    return Level(symbol, constant(1.0), 2)


def _nearest(convention: Convention, u: Time) -> tuple[Time, Bool[Tensor, "..."]]:
    """The time of the convention that is nearest to u, and whether only rounding is between."""
    low, high = min(convention.span), max(convention.span)
    within = u.clamp(low, high)
    rounding = 100 * torch.finfo(u.dtype).eps * (high - low)
    return within, (u - within).abs() <= rounding  # False for nan


def _length(schedule: Interpolant, u: Time) -> Time:
    return (schedule.alpha(u) ** 2 + schedule.variance(u)).sqrt()


book = Convention("this book", "here", linear, torch.sigmoid, (0.0, 1.0), velocity, diffusion("η"))
