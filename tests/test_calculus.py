"""Claims of chapter 1: derivatives by automatic differentiation, against derivatives by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, inner_times, points, same_rows, scalar
from onepath.calculus import (
    constant,
    divergence,
    gaussian_probes,
    gradient,
    hutchinson,
    jacobian,
    laplacian,
    rademacher_probes,
    rate,
    rates,
    time_derivative,
    zero,
)
from onepath.verify import expect, mean, refute, worst

A = torch.tensor([[0.3, -1.2, 0.4], [0.8, 0.1, -0.6], [0.0, 0.9, -0.5]], dtype=F64)


def per(t):
    return t[:, None] if t.ndim else t


def turning(t, x):
    """A field that is neither linear nor a gradient."""
    return torch.sin(x) @ A.T + per(t) ** 2 * x**3


def bump(t, x):
    return torch.exp(-t) * (x**4).sum(1) + torch.sin(t) * x[:, 0] * x[:, -1] ** 2


@pytest.fixture(params=["one time", "a time each"])
def t(request, generator):
    return scalar(0.3) if request.param == "one time" else inner_times(5, generator)


def test_rate_is_the_derivative_of_a_curve(t):
    curve = lambda s: torch.sin(3 * s) * torch.exp(s)
    slope = torch.exp(t) * (3 * torch.cos(3 * t) + torch.sin(3 * t))
    expect(worst("eq:rate", rate(curve, t) - slope))
    refute(worst("eq:rate", -rate(curve, t) - slope), "sign: time runs backwards")


def test_rate_keeps_vectors_and_matrices():
    turn = lambda s: torch.stack(
        [torch.stack([s.cos(), -s.sin()]), torch.stack([s.sin(), s.cos()])]
    )
    R, dR, t = turn(scalar(0.7)), rate(turn, scalar(0.7)), scalar(0.7)
    generator = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    expect(worst("eq:rate", dR - generator @ R))
    refute(worst("eq:rate", dR.T - generator @ R), "wrong object: the transposed matrix")
    assert rate(lambda s: s * torch.ones(3, dtype=F64), t).shape == (3,)


def test_rate_of_a_rate_and_where_it_is_infinite(t):
    arc = lambda s: (1 - s**2).sqrt()
    expect(worst("eq:rate", rate(lambda s: rate(arc, s), t) + (1 - t**2) ** -1.5))
    assert rate(arc, scalar(0.0)) == 0 and rate(arc, scalar(1.0)) == -torch.inf


def test_rates_are_those_of_the_curves_one_by_one(t):
    curves = (lambda s: s**3, zero, lambda s: (2 * s).sin())
    for ours, exact in zip(rates(curves, t), (3 * t**2, 0 * t, 2 * (2 * t).cos())):
        expect(worst("eq:rate", ours - exact))
    assert all(torch.equal(slope, 0 * t) for slope in rates((zero, zero), t))


def test_a_rate_has_derivatives_in_what_else_the_curve_depends_on():
    w, t = scalar(1.3).requires_grad_(), scalar(0.4)
    slope = rate(lambda s: (w * s).sin(), t)
    exact = (w * t).cos() - w * t * (w * t).sin()
    expect(worst("eq:rate", torch.autograd.grad(slope, w)[0] - exact.detach()))


def test_rate_keeps_the_kind_of_number():
    t = torch.tensor([0.2, 0.6])
    assert rate(lambda s: s**2, t).dtype == torch.float32
    assert rate(lambda s: s.double() ** 2, t).dtype == torch.float64


def test_time_derivative_holds_the_point_fixed(t, generator):
    x = points(5, generator, d=3)
    exact = -torch.exp(-t) * (x**4).sum(1) + torch.cos(t) * x[:, 0] * x[:, 2] ** 2
    expect(worst("eq:rate", time_derivative(bump, t, x) - exact))
    moving = time_derivative(lambda s, y: bump(s, y * (1 + per(s) - per(t))), t, x)
    refute(worst("eq:rate", moving - exact), "wrong object: the total derivative of a moving point")


def test_gradient_and_laplacian_agree_with_derivatives_by_hand(t, generator):
    x = points(5, generator, d=3)
    g = 4 * per(torch.exp(-t)) * x**3
    g[:, 0] += torch.sin(t) * x[:, 2] ** 2
    g[:, 2] += torch.sin(t) * 2 * x[:, 0] * x[:, 2]
    h = 12 * torch.exp(-t) * (x**2).sum(1) + 2 * torch.sin(t) * x[:, 0]
    expect(worst("eq:score", gradient(bump, t, x) - g))
    expect(worst("eq:score", laplacian(bump, t, x) - h))
    refute(worst("eq:score", laplacian(bump, t, x) - h / 2), "factor: half the Laplacian")


def test_rows_of_the_jacobian_are_components_of_the_field(t, generator):
    x = points(5, generator, d=3)
    ours = jacobian(turning, t, x)
    times = t if t.ndim else t.expand(5)
    theirs = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda y, s=s: turning(s, y[None])[0], y)
            for s, y in zip(times, x)
        ]
    )
    expect(worst("eq:divergence", ours - theirs))
    refute(worst("eq:divergence", ours.mT - theirs), "wrong object: the transposed Jacobian")
    trace = theirs.diagonal(dim1=1, dim2=2).sum(1)
    expect(worst("eq:divergence", divergence(turning, t, x) - trace))
    refute(worst("eq:divergence", ours.sum((1, 2)) - trace), "wrong object: the sum of all entries")


def test_divergence_obeys_stein(generator):
    """For x standard normal, E[div b] = E[b · x]: the law leg of the derivative."""
    x, t = points(4000, generator, d=3, scale=1.0), scalar(0.3)
    gap = divergence(turning, t, x) - (turning(t, x) * x).sum(1)
    expect(mean("eq:divergence", gap, 0.0))
    halved = 0.5 * divergence(turning, t, x) - (turning(t, x) * x).sum(1)
    refute(mean("eq:divergence", halved, 0.0), "factor: half the divergence")


@pytest.mark.parametrize("n, d", [(3, 3), (1, 3), (5, 2), (4, 1)])
@pytest.mark.parametrize("each", [False, True])
def test_a_batch_is_a_loop(n, d, each, generator):
    x = points(n, generator, d)
    t = inner_times(n, generator) if each else scalar(0.4)
    field = lambda t, x: torch.sin(x.cumsum(1)) * per(t)
    for derivative, function in [
        (gradient, bump),
        (laplacian, bump),
        (time_derivative, bump),
        (jacobian, field),
        (divergence, field),
    ]:
        assert same_rows(lambda t, x: derivative(function, t, x), t, x) < 1e-12


@given(st.floats(-3, 3), st.sampled_from([torch.float32, F64]), st.integers(0, 4))
def test_constants_follow_the_shape_and_dtype_of_time(value, dtype, n):
    for t in (torch.tensor(0.5, dtype=dtype), torch.linspace(0, 1, n, dtype=dtype)):
        c = constant(value)(t)
        assert c.shape == t.shape and c.dtype == dtype
        assert torch.equal(c, torch.tensor(value, dtype=dtype).expand(t.shape))
        assert torch.equal(rate(constant(value), t), torch.zeros_like(t))


def test_a_constant_of_nothing_is_the_mark_of_an_ode():
    assert constant(0) is zero and constant(0.0) is zero and constant(1e-300) is not zero
    assert zero(scalar(0.4)) == 0 and zero(scalar(0.4)).dtype == F64


def test_derivatives_do_not_depend_on_the_mode_of_the_caller(generator):
    x, t = points(4, generator), scalar(0.3)
    with torch.no_grad():
        silent = gradient(bump, t, x)
    with torch.inference_mode():
        inference = gradient(bump, t, x)
    assert torch.equal(silent, gradient(bump, t, x)) and torch.equal(inference, silent)
    assert not silent.requires_grad


def test_points_may_lie_in_memory_as_they_like(generator):
    x, t = points(3, generator, d=5).T, scalar(0.3)
    assert not x.is_contiguous()
    for derivative in (gradient, laplacian, time_derivative):
        assert torch.equal(derivative(bump, t, x), derivative(bump, t, x.contiguous()))


# --- traces from random probes


def forms(z, t=None):
    """One point, many probes."""
    x = torch.tensor([[0.4, -0.3, 0.8]], dtype=F64).expand(len(z), 3)
    return hutchinson(turning, scalar(0.3) if t is None else t, x, z)


def test_the_mean_over_all_signs_is_the_trace_and_the_variance_its_formula():
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    J = jacobian(turning, scalar(0.3), torch.tensor([[0.4, -0.3, 0.8]], dtype=F64))[0]
    found, trace, S = forms(signs), J.trace(), (J + J.T) / 2
    expect(worst("eq:hutchinson", found.mean() - trace))
    refute(worst("eq:hutchinson", found.mean() - J.sum()), "wrong object: the sum of all entries")
    variance = 2 * (S.square().sum() - S.diagonal().square().sum())
    expect(worst("eq:hutchinson-variance", found.var(correction=0) - variance))
    unsymmetric = 2 * (J.square().sum() - J.diagonal().square().sum())
    refute(
        worst("eq:hutchinson-variance", found.var(correction=0) - unsymmetric),
        "wrong object: J in place of its symmetric part",
    )


def test_probes_are_independent_with_unit_variance_and_their_own_fourth_moment(generator):
    x = torch.zeros(20_000, 3, dtype=F64)
    for probes, fourth in ((gaussian_probes, 3.0), (rademacher_probes, 1.0)):
        z = probes(x, generator)
        expect(mean("eq:hutchinson", z[:, 0], 0.0))
        expect(mean("eq:hutchinson", z[:, 0] * z[:, 1], 0.0))
        expect(mean("eq:hutchinson", z[::2, 2] * z[1::2, 2], 0.0))
        assert abs(z.square().mean() - 1) < 0.02 and abs(z.pow(4).mean() - fourth) < 0.1
    assert set(z.flatten().tolist()) == {-1.0, 1.0}
    refute(mean("eq:hutchinson", z[:, 0] + 0.1, 0.0), "wrong object: probes with a mean")


def test_gaussian_probes_have_the_variance_of_their_formula(generator):
    found = forms(gaussian_probes(torch.zeros(20_000, 3, dtype=F64), generator))
    J = jacobian(turning, scalar(0.3), torch.tensor([[0.4, -0.3, 0.8]], dtype=F64))[0]
    squares, S = (found - J.trace()) ** 2, (J + J.T) / 2
    expect(mean("eq:hutchinson", found, J.trace().item()))
    expect(mean("eq:hutchinson-variance", squares, 2 * S.square().sum().item()))
    refute(
        mean("eq:hutchinson-variance", squares, S.square().sum().item()), "factor: the 2 is lost"
    )
    refute(mean("eq:hutchinson", found, J.sum().item()), "wrong object: the sum of all entries")


@pytest.mark.parametrize("n, d", [(3, 3), (1, 2), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_probes_and_traces_keep_shape_and_kind(n, d, dtype, generator):
    x, t = points(n, generator, d).to(dtype), torch.linspace(0.1, 0.9, n, dtype=dtype)
    field = lambda t, x: torch.sin(x.cumsum(1)) * per(t)
    for probes in (gaussian_probes, rademacher_probes):
        z = probes(x, generator)
        assert z.shape == x.shape and z.dtype == dtype
        found = hutchinson(field, t, x, z)
        rows = [hutchinson(field, t[[i]], x[[i]], z[[i]]) for i in range(n)]
        assert found.shape == (n,) and found.dtype == dtype
        assert (found - torch.cat(rows)).abs().max() < 100 * torch.finfo(dtype).eps


def test_a_probe_of_another_shape_or_kind_is_refused(generator):
    x = points(3, generator)
    for z in (x[:2], x.float()):
        with pytest.raises((ValueError, TypeError), match="a probe is a vector for each point|'z'"):
            hutchinson(turning, scalar(0.3), x, z)


def test_probes_want_a_generator_where_the_points_are(generator):
    x = torch.zeros(2, 2, device="meta")
    for probes in (gaussian_probes, rademacher_probes):
        with pytest.raises(ValueError, match="probes are drawn where the points are, on meta"):
            probes(x, generator)
