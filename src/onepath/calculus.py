r"""Derivatives of curves, log-densities and fields, by automatic differentiation.

Everything the book claims is a relation between derivatives of a density, so every check starts
here. All functions take a time of shape () or (n,) and points of shape (n, d), and assume what all
densities and fields of the book satisfy: row i of the result depends on row i of the points (and on
`t[i]`) only. Derivatives are exact up to rounding; nothing here estimates (for traces by random
probes, see chapter 7).
"""

import torch
from torch import Tensor
from torch.func import grad, jvp

from .shapes import Curve, Field, Matrices, Points, Scalar, Time, Values


def zero(t: Tensor) -> Tensor:
    """The curve that is 0 at every time. As a noise level it marks an ODE."""
    return torch.zeros_like(t)


def constant(value: float) -> Curve:
    """The curve that has the same value at every time; `constant(0)` is `zero` itself."""
    return zero if value == 0 else lambda t: torch.full_like(t, value)


def rate(curve: Curve, t: Time) -> Tensor:
    r"""$\dot a(t)$ for a number, vector or matrix $a$ that depends on time.

    With t of shape (n,), row i of the curve must depend on `t[i]` only.
    """
    return jvp(curve, (t,), (torch.ones_like(t),))[1]


def time_derivative(function: Scalar, t: Time, x: Points) -> Values:
    r"""$\partial_t f_t(x)$ at fixed $x$."""
    return rate(lambda s: function(s, x), t)


def gradient(function: Scalar, t: Time, x: Points) -> Points:
    r"""$\nabla_x f_t(x)$; of a log-density, its score."""
    return grad(lambda y: function(t, y).sum())(x)


def jacobian(field: Field, t: Time, x: Points) -> Matrices:
    r"""$J_{ij} = \partial_j b_i(x)$, one matrix per point, at the price of d backward passes."""
    rows = [grad(lambda y, i=i: field(t, y)[:, i].sum())(x) for i in range(x.shape[1])]
    return torch.stack(rows, dim=1)


def divergence(field: Field, t: Time, x: Points) -> Values:
    r"""$\nabla\cdot b_t(x) = \operatorname{tr} J$, exact, at the price of d backward passes."""
    parts = [grad(lambda y, i=i: field(t, y)[:, i].sum())(x)[:, i] for i in range(x.shape[1])]
    return torch.stack(parts).sum(0)


def laplacian(function: Scalar, t: Time, x: Points) -> Values:
    r"""$\Delta f_t(x) = \nabla\cdot\nabla f_t(x)$."""
    return divergence(lambda s, y: gradient(function, s, y), t, x)
