r"""What counts as a check: a number, the bound that it must respect, and a mistake that it must
catch.

A check compares two computations of one thing and keeps the distance between them. There are four
kinds. An *identity* is evaluated in float64 and its bound is rounding. A *law* is a claim about an
expectation, estimated by sampling, and its error is counted in standard errors. An *order* is a
measured slope of error against step. A *bound* is an inequality, of which both sides are kept so
that its looseness can be seen.

`expect` accepts a check that holds; `refute` accepts one that a wrong variant fails, by a margin.
Either raises otherwise, which fails the cell, the notebook and the build. Nan is neither held nor
refuted.
"""

import html
import math
import sys
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import divergence, gradient, time_derivative, zero
from .shapes import Curve, Field, LogDensity, Points, Time, Values

MIME = "application/vnd.onepath.check+json"
MARGINS = {
    "identity": 10.0,
    "law": 1.5,
    "order": 2.0,
    "bound": 1.1,
}  # a mistake exceeds margin * bound
MISTAKES = ("factor", "sign", "clock", "missing term", "wrong object", "hypothesis")


@dataclass(frozen=True)
class Check:
    """The claim `error <= bound`, tied to a labelled equation or theorem of the book.

    `kind` is one of identity, law, order, bound. `sides` are the two numbers compared, where a
    reader wants to see them: left and right side of an inequality, measured and expected slope.
    """

    label: str
    kind: str
    error: float
    bound: float
    sides: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.label.startswith(("eq:", "thm:")):
            raise ValueError(
                f"a check names an equation or a theorem (eq:…, thm:…), got {self.label!r}."
            )
        if self.kind not in MARGINS:
            raise ValueError(f"kind must be one of {', '.join(MARGINS)}, got {self.kind!r}.")
        if not (0 < self.bound < math.inf):
            raise ValueError(
                f"{self.label}: the bound must be positive and finite, got {self.bound}."
            )
        if self.error < 0:
            raise ValueError(f"{self.label}: an error is a distance, got {self.error}; take abs().")

    @property
    def holds(self) -> bool:
        return self.error <= self.bound  # False for nan

    @property
    def fails_clearly(self) -> bool:
        return MARGINS[self.kind] * self.bound <= self.error < math.inf  # False for nan


@dataclass(frozen=True)
class Record:
    """A check with its verdict, as a notebook displays it and the ledger reads it."""

    check: Check
    mistake: str | None = None

    def __str__(self) -> str:
        """Label, kind, verdict and bound. The measured error is left out: it differs between
        CPUs."""
        c = self.check
        if self.mistake is None:
            return f"✓ {c.label} holds: {_AMOUNT[c.kind]} ≤ {c.bound:g}"
        return (
            f"✗ {c.label} refutes {self.mistake}: {_AMOUNT[c.kind]} ≥ {MARGINS[c.kind] * c.bound:g}"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        verdict = "held" if self.mistake is None else "refuted"
        live = f"{self} (measured {self.check.error:.2g})"
        return {
            "text/plain": str(self),
            "text/html": f'<code class="check check-{verdict}">{html.escape(live)}</code>',
            MIME: asdict(self.check) | {"verdict": verdict, "mistake": self.mistake},
        }


_AMOUNT = {
    "identity": "largest error",
    "law": "standard errors",
    "order": "distance to the order",
    "bound": "left side / right side",
}


def expect(check: Check) -> None:
    """Display a check, or raise AssertionError if it does not hold."""
    if not check.holds:
        raise AssertionError(
            f"{check.label}: {_AMOUNT[check.kind]} is {check.error:.3g}, "
            f"above the bound {check.bound:.3g}. "
            "The text claims this; the computation refutes it: one of the two is wrong."
        )
    show(Record(check))


def refute(check: Check, mistake: str) -> None:
    """Display a negative control, or raise AssertionError if the wrong variant was not clearly
    caught.

    Args:
        mistake: what was done wrong, "factor: …", with a first word from `MISTAKES`.
    """
    if mistake.partition(":")[0] not in MISTAKES:
        raise ValueError(
            f"a mistake starts with one of {', '.join(MISTAKES)} and a colon, got {mistake!r}."
        )
    if not check.fails_clearly:
        raise AssertionError(
            f"{check.label}: {_AMOUNT[check.kind]} is {check.error:.3g}, but a mistake must reach "
            f"{MARGINS[check.kind] * check.bound:.3g}. The check did not catch: {mistake}."
        )
    show(Record(check, mistake))


def worst(label: str, residual: Float[Tensor, "..."], bound: float = 1e-9) -> Check:
    """Check that a residual vanishes everywhere: its largest absolute value, an identity.

    The default bound leaves float64 with its 16 digits about six for cancellation and conditioning.
    """
    if residual.numel() == 0:
        raise ValueError(f"{label}: a residual needs at least one point, got none.")
    return Check(label, "identity", residual.abs().max().item(), bound)


def mean(label: str, samples: Values, target: float, z: float = 4.0) -> Check:
    """Check that independent samples have mean `target`, in standard errors: a law.

    At z = 4 a true claim fails for one seed in 16 000, by the normal approximation.

    Source: here.
    Book: eq:standard-error.
    """
    if len(samples) < 2:
        raise ValueError(f"{label}: a standard error needs two samples, got {len(samples)}.")
    error = (samples.mean() - target) / (samples.std() / len(samples) ** 0.5)
    return Check(label, "law", error.abs().item(), z)


def slope(sizes: list[float], errors: list[float]) -> float:
    """The slope of log(error) against log(size), by least squares: an order of convergence.

    Args:
        sizes: what goes to zero (a step), at least three values.
        errors: positive errors at those sizes.
    """
    if len(sizes) < 3 or len(sizes) != len(errors):
        raise ValueError(
            f"a slope needs three or more pairs, got {len(sizes)} and {len(errors)} values."
        )
    if not all(e > 0 for e in [*sizes, *errors]):
        raise ValueError(f"a slope needs positive sizes and errors, got {sizes} and {errors}.")
    h = torch.tensor(sizes, dtype=torch.float64).log()
    e = torch.tensor(errors, dtype=torch.float64).log()
    h = h - h.mean()
    return ((h * e).sum() / (h * h).sum()).item()


def order(label: str, sizes: list[float], errors: list[float], expected: float) -> Check:
    """Check an order of convergence: the measured slope lies within a quarter of the expected
    one."""
    measured = slope(sizes, errors)
    return Check(label, "order", abs(measured - expected), 0.25, (measured, expected))


def below(label: str, left: float, right: float) -> Check:
    """Check the inequality `left <= right` between a nonnegative and a positive number, keeping
    both sides."""
    if not (0 <= left < math.inf and 0 < right < math.inf):
        raise ValueError(
            f"{label}: compare a finite nonnegative left side with a finite positive right side, "
            f"got {left} and {right}; move terms until both are."
        )
    return Check(label, "bound", left / right, 1.0, (left, right))


def fokker_planck(log_density: LogDensity, drift: Field, eta: Curve, t: Time, x: Points) -> Values:
    r"""Residual of the Fokker–Planck equation, divided by the density.

    For $dX_t = b_t(X_t)\,dt + \eta_t\,dW_t$,

    $$ \partial_t\log\rho + \nabla\cdot b + b\cdot\nabla\log\rho
       - \tfrac12\eta^2\,(\Delta\log\rho + |\nabla\log\rho|^2) = 0. $$

    The ½ belongs to $\eta^2$, the variance that the noise adds per unit of time. Dividing by the
    density makes the residual a relative error, so that a point in the tail counts as much as one
    in the bulk.

    Source: Risken (1996), The Fokker-Planck Equation.
    Book: eq:fokker-planck.
    """
    score = lambda s, y: gradient(log_density, s, y)
    b, s = drift(t, x), score(t, x)
    transport = divergence(drift, t, x) + (b * s).sum(1)
    diffusion = divergence(score, t, x) + (s * s).sum(1)
    return time_derivative(log_density, t, x) + transport - 0.5 * eta(t) ** 2 * diffusion


def continuity(log_density: LogDensity, velocity: Field, t: Time, x: Points) -> Values:
    r"""Residual of the continuity equation $\partial_t\rho + \nabla\cdot(\rho v) = 0$, divided by
    $\rho$.

    Source: here; it is Fokker–Planck without noise.
    Book: eq:continuity.
    """
    return fokker_planck(log_density, velocity, zero, t, x)


def fokker_planck_general(
    log_density: LogDensity, drift: Field, a: Field, t: Time, x: Points
) -> Values:
    r"""The same residual for noise that depends on the state and the direction.

    For $dX_t = b_t(X_t)\,dt + G_t(X_t)\,dW_t$ in the sense of Itô, with the matrix $a = GG^\top$,

    $$ \partial_t\rho + \nabla\cdot(\rho\,b)
       - \tfrac12\sum_{ij}\partial_i\partial_j(a_{ij}\,\rho) = 0, $$

    divided by $\rho$. The derivatives act on $a$ as well, and the ½ is that of Itô's formula.

    Args:
        a: t and x to one symmetric matrix per point, (n, d, d).

    Source: Risken (1996), The Fokker-Planck Equation.
    Book: eq:fokker-planck-general.
    """
    flux = lambda s, y: drift(s, y) - current_correction(log_density, a, s, y)
    return continuity(log_density, flux, t, x)


def current_correction(log_density: LogDensity, a: Field, t: Time, x: Points) -> Points:
    r"""What a diffusion's drift exceeds the velocity of its density by.

    $$ b - v = \tfrac12\nabla\cdot a + \tfrac12 a\,\nabla\log\rho, \qquad
       (\nabla\cdot a)_i = \sum_j\partial_j a_{ij} . $$

    Raises ValueError unless a gives one d by d matrix per point.

    Source: here.
    Book: eq:current-velocity.
    """
    d = x.shape[1]
    if a(t, x).shape != (len(x), d, d):
        raise ValueError(
            f"a is a matrix per point, {(len(x), d, d)}, got {tuple(a(t, x).shape)}; "
            "for noise that is equal in all directions multiply by the identity."
        )
    rows = [divergence(lambda s, y, i=i: a(s, y)[:, i], t, x) for i in range(d)]
    score = gradient(log_density, t, x)
    return 0.5 * (torch.stack(rows, 1) + torch.einsum("nij,nj->ni", a(t, x), score))


def glue(name: str, value: object, form: str = "{}") -> None:
    """Give a number to the prose: `{glue:text}` with this name prints it. Shows nothing in the
    cell.

    Every number that a sentence quotes comes from here, so that the text cannot disagree with the
    run.
    """
    text = form.format(value)
    show(
        {"application/papermill.record/text/plain": text},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
    )


def show(thing: object, **how: object) -> None:
    """Show something in the notebook that is running, if one is; be silent elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(thing, **how)
