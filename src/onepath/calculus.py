r"""Derivatives of curves, log-densities and fields, by automatic differentiation.

Everything the book claims is a relation between derivatives of a density, so every check starts
here. All functions take a time of shape () or (n,) and points of shape (n, d), and assume what all
densities and fields of the book satisfy: row i of the result depends on row i of the points (and on
`t[i]`) only. Derivatives are exact up to rounding, with one exception that says so: `hutchinson`
estimates a trace from random probes, at a price that does not grow with the dimension.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, vjp

from .shapes import Curve, Field, Matrices, Points, Scalar, Time, Values


def zero(t: Tensor) -> Tensor:
    """The curve that is 0 at every time. As a noise level it marks an ODE."""
    return torch.zeros_like(t)


def constant(value: float) -> Curve:
    """The curve that has the same value at every time; `constant(0)` is `zero` itself."""
    return zero if value == 0 else lambda t: torch.full_like(t, value)


def rate(curve: Curve, t: Time) -> Tensor:
    r"""$\dot a(t)$ for a number, vector or matrix $a$ that depends on time.

    With t of shape (n,), row i of the curve must depend on `t[i]` only. The curve is differentiated
    backwards, and that once more, so its backward pass must have a derivative as well; that of
    `torch.sinc` has none at 0.
    """
    # u -> Jᵀu is linear, and the transpose of its derivative is J. Forward mode says it in one
    # line and pays half a millisecond wherever a number with a rate meets one without.
    value, pull = vjp(curve, t)
    push = vjp(lambda u: pull(u)[0], torch.ones_like(value))[1]
    return push(torch.ones_like(t))[0]


def rates(curves: Sequence[Curve], t: Time) -> list[Tensor]:
    """The rates of numbers that depend on time, for little more than the price of one; that of
    `zero` is free."""
    moving = [curve for curve in curves if curve is not zero]
    slopes = iter(rate(lambda s: torch.stack([curve(s) for curve in moving]), t) if moving else ())
    return [torch.zeros_like(t) if curve is zero else next(slopes) for curve in curves]


def time_derivative(function: Scalar, t: Time, x: Points) -> Values:
    r"""$\partial_t f_t(x)$ at fixed $x$."""
    return rate(lambda s: function(s, x), t)


def gradient(function: Scalar, t: Time, x: Points) -> Points:
    r"""$\nabla_x f_t(x)$; of a log-density, its score."""
    return grad(lambda y: function(t, y).sum())(x)


def jacobian(field: Field, t: Time, x: Points) -> Matrices:
    r"""$J_{ij} = \partial_j b_i(x)$, one matrix per point, at the price of d backward passes."""
    pull, basis = _pullback(field, t, x)
    return torch.stack([pull(e)[0] for e in basis], dim=1)


def divergence(field: Field, t: Time, x: Points) -> Values:
    r"""$\nabla\cdot b_t(x) = \operatorname{tr} J$, exact, at the price of d backward passes."""
    pull, basis = _pullback(field, t, x)
    return torch.stack([pull(e)[0][:, i] for i, e in enumerate(basis)]).sum(0)


def laplacian(function: Scalar, t: Time, x: Points) -> Values:
    r"""$\Delta f_t(x) = \nabla\cdot\nabla f_t(x)$."""
    return divergence(lambda s, y: gradient(function, s, y), t, x)


def hutchinson(field: Field, t: Time, x: Points, z: Points) -> Values:
    r"""$z^\top J z$ with $J = \nabla b_t(x)$: an unbiased estimate of $\nabla\cdot b_t(x)$.

    $$ \mathbb E[z^\top J z] = \operatorname{tr}J \quad\text{if}\quad \mathbb E[zz^\top] = I . $$

    One backward pass, whatever d is. With $S = \tfrac12(J + J^\top)$ the variance is
    $2|S|_F^2$ for Gaussian probes, and $2(|S|_F^2 - \sum_iJ_{ii}^2)$ for Rademacher probes. Raises
    ValueError unless there is one probe per point.

    Source: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.
    Book: eq:hutchinson, eq:hutchinson-variance.
    """
    if z.shape != x.shape or z.dtype != x.dtype:
        raise ValueError(
            f"a probe is a vector for each point, {tuple(x.shape)} {x.dtype}, "
            f"got {tuple(z.shape)} {z.dtype}; make it with gaussian_probes or rademacher_probes."
        )
    pull = vjp(lambda y: field(t, y), x)[1]  # backward: forward mode takes twice as long
    return (pull(z)[0] * z).sum(1)


def gaussian_probes(x: Points, generator: torch.Generator) -> Points:
    """Standard normal probes for `hutchinson`, one per point, independent of the points."""
    _check_generator(x, generator)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def rademacher_probes(x: Points, generator: torch.Generator) -> Points:
    """Probes of independent signs for `hutchinson`, one per point."""
    _check_generator(x, generator)
    return 2.0 * torch.randint(2, x.shape, generator=generator, device=x.device).to(x) - 1.0


def _pullback(field: Field, t: Time, x: Points) -> tuple[Callable, Tensor]:
    """The map u -> Jᵀu at (t, x), and the d unit vectors, one for each point, to feed it with."""
    value, pull = vjp(lambda y: field(t, y), x)
    return pull, torch.eye(x.shape[1]).to(value)[:, None].expand(-1, *value.shape)


def _check_generator(x: Points, generator: torch.Generator) -> None:
    if generator is None or generator.device.type != x.device.type:
        where = None if generator is None else generator.device
        raise ValueError(
            f"probes are drawn where the points are, on {x.device}, got a generator on {where}; "
            f"make it with torch.Generator({x.device.type!r})."
        )
