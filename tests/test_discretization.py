"""Claims of chapter 15: what a step misses, orders with intervals, and the four errors of a
sampler."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, NOISING, TARGET, points, scalar
from onepath.calculus import constant
from onepath.discretization import (
    brownian,
    carried,
    chain_density,
    coarser,
    driven,
    extrapolated,
    langevin_variance,
    line_quantiles,
    maruyama,
    material_derivative,
    milstein,
    order_between,
    slope_interval,
    step_divergences,
    stopping_bound,
)
from onepath.dynamics import Dynamics, with_noise
from onepath.interpolants import linear, variance_preserving
from onepath.measures import Mixture, gaussian
from onepath.oracles import MixturePath
from onepath.solvers import euler, heun, integrate, rk4, times
from onepath.verify import below, expect, mean, order, refute, worst

PATH = MixturePath(linear, TARGET)


def spin(t, x):
    """A field that depends on time and point, and is not linear."""
    column = t[:, None] if t.ndim else t
    return torch.cat([(x[:, 1:]).sin() + column, column**2 * x[:, :1] - x[:, 1:] ** 2 / 4], dim=1)


# --- what a step misses


@pytest.mark.parametrize("field", [spin, PATH.velocity], ids=["spin", "mixture"])
def test_the_material_derivative_is_the_acceleration_of_a_particle(field, generator):
    x, h = points(20, generator, scale=1.0), 1e-3
    back, forth = (
        integrate(rk4(Dynamics(lambda t, y, e=e: e * field(0.4 + e * t, y))), x, times(2, 0, h))
        for e in (-1, 1)
    )
    second_difference = (back - 2 * x + forth) / h**2
    gap = lambda a: worst("eq:euler-defect", second_difference - a, 1e-3)
    found = material_derivative(field)(scalar(0.4), x)
    expect(gap(found))
    of_time = (field(scalar(0.4 + 1e-6), x) - field(scalar(0.4 - 1e-6), x)) / 2e-6
    refute(gap(of_time), "missing term: v·∇v")
    refute(gap(found - 2 * of_time), "sign: of the rate")


def test_the_material_derivative_takes_a_time_for_each_point(generator):
    x, t = points(6, generator), torch.linspace(0.1, 0.8, 6, dtype=F64)
    found = material_derivative(PATH.velocity)(t, x)
    alone = [material_derivative(PATH.velocity)(s, y[None])[0] for s, y in zip(t, x)]
    expect(worst("eq:euler-defect", found - torch.stack(alone)))


# --- one Brownian path for several runs


def test_increments_have_the_variance_of_their_steps(generator):
    grid = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=F64)
    dW = brownian(grid, torch.zeros(20_000, 1, dtype=F64), generator)
    for k, h in enumerate(grid.diff().tolist()):
        expect(mean("eq:strong-order", dW[k, :, 0] ** 2, h))
        refute(mean("eq:strong-order", dW[k, :, 0] ** 2, h**2), "factor: h in place of √h")
    expect(mean("eq:strong-order", dW[0, :, 0] * dW[1, :, 0], 0.0))


def test_a_coarser_path_is_the_same_path(generator):
    dW = brownian(times(12), torch.zeros(5, 2, dtype=F64), generator)
    for k in (1, 3, 12):
        coarse = coarser(dW, k)
        assert coarse.shape == (12 // k, 5, 2)
        assert torch.allclose(coarse.cumsum(0), dW.cumsum(0)[k - 1 :: k])
    with pytest.raises(ValueError, match="divides the number of steps, got 5 and 12"):
        coarser(dW, 5)
    with pytest.raises(ValueError, match="k >= 1"):
        coarser(dW, 0)


@pytest.mark.parametrize("method", [euler, heun])
def test_a_driven_run_is_the_run_that_draws_that_noise(method, generator):
    dynamics = Dynamics(spin, lambda t: 0.3 + t)
    x, grid = points(7, generator), torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=F64)
    drawn = integrate(method(dynamics), x, grid, torch.Generator().manual_seed(4))
    again = torch.Generator().manual_seed(4)
    one_by_one = [h.sqrt() * torch.randn(x.shape, generator=again, dtype=F64) for h in grid.diff()]
    given_noise = driven(method(dynamics), x, grid, torch.stack(one_by_one))
    expect(worst("eq:strong-order", drawn - given_noise))


def test_a_driven_run_wants_one_increment_for_each_step(generator):
    x = points(3, generator)
    with pytest.raises(ValueError, match="one increment like x for each step"):
        driven(euler(Dynamics(spin)), x, times(4), torch.zeros(5, 3, 2, dtype=F64))


# --- noise that depends on the state


def test_with_the_same_noise_everywhere_both_steps_are_eulers(generator):
    x, grid = points(6, generator), times(5)
    dW = brownian(grid, x, generator)
    plain = driven(euler(Dynamics(spin, constant(0.7))), x, grid, dW)
    flat = lambda t, x: torch.full_like(x, 0.7)
    for step in (maruyama, milstein):
        expect(worst("eq:milstein", driven(step(spin, flat), x, grid, dW) - plain))


def test_milstein_adds_half_of_g_times_its_slope(generator):
    x, grid = points(9, generator, d=1), times(1)
    dW = brownian(grid, x, generator)
    drift, spread = lambda t, x: 0.4 * x, lambda t, x: 1 + x.sin() / 2
    without, found = (driven(step(drift, spread), x, grid, dW) for step in (maruyama, milstein))
    expected = 0.5 * (1 + x.sin() / 2) * x.cos() / 2 * (dW[0] ** 2 - 1)
    expect(worst("eq:milstein", found - without - expected))
    refute(worst("eq:milstein", found - without - 2 * expected), "factor: no half")


def test_steps_with_noise_ask_for_a_generator(generator):
    x = points(3, generator)
    for step in (maruyama, milstein):
        with pytest.raises(ValueError, match="draws noise"):
            integrate(step(spin, spin), x, times(2))
        assert integrate(step(spin, spin), x, times(2), generator).isfinite().all()


def test_noise_that_depends_on_the_state_costs_euler_half_an_order(generator):
    x = torch.ones(8 * 300, 1, dtype=F64)
    dW = brownian(times(128), x, generator)
    solution = (-0.32 + 0.8 * dW.sum(0)).exp()
    share, still = lambda t, x: 0.8 * x, lambda t, x: 0 * x

    def check(label, step, expected):
        errors = []
        for k in (16, 8, 4):
            end = driven(step(still, share), x, times(128 // k), coarser(dW, k))
            errors.append((end - solution).square().unflatten(0, (8, 300)).mean((1, 2)).sqrt())
        return order_between(label, [16, 8, 4], torch.stack(errors, 1), expected)

    expect(check("eq:strong-order", maruyama, 0.5))
    refute(check("eq:strong-order", maruyama, 1.0), "hypothesis: noise that depends on x")
    expect(check("eq:milstein", milstein, 1.0))


# --- intervals


def test_the_interval_is_students(generator):
    errors = torch.exp(torch.randn(7, 4, generator=generator, dtype=F64))
    sizes = [1.0, 0.5, 0.25, 0.125]
    middle, half = slope_interval(sizes, errors)
    slopes = [np.polyfit(np.log(sizes), np.log(row), 1)[0] for row in errors.numpy()]
    exact = scipy.stats.t.interval(0.95, 6, loc=np.mean(slopes), scale=scipy.stats.sem(slopes))
    assert middle == pytest.approx(np.mean(slopes))
    assert half == pytest.approx((exact[1] - exact[0]) / 2, rel=0.01)


def test_the_interval_covers_nineteen_times_of_twenty(generator):
    noise = torch.randn(2000, 6, 3, generator=generator, dtype=F64)
    sizes = [1.0, 0.5, 0.25]
    slope_is_two = torch.tensor(sizes, dtype=F64) ** 2
    hits = []
    for block in (slope_is_two * (0.3 * noise).exp())[:600]:
        middle, half = slope_interval(sizes, block)
        hits.append(float(abs(middle - 2) <= half))
    expect(mean("eq:strong-order", torch.tensor(hits, dtype=F64), 0.95))


def test_an_interval_needs_replicates():
    with pytest.raises(ValueError, match="six independent replicates or more, got 5"):
        slope_interval([1.0, 0.5, 0.25], torch.ones(5, 3))


def test_an_order_with_a_wide_interval_does_not_hold():
    h = torch.tensor([1.0, 0.5, 0.25], dtype=F64)
    tilt = torch.linspace(-0.5, 0.5, 8, dtype=F64)[:, None]
    wide, narrow = h ** (1 + tilt), h ** (1 + 0.1 * tilt)
    assert not order_between("eq:strong-order", h.tolist(), wide, 1).holds
    expect(order_between("eq:strong-order", h.tolist(), narrow, 1))


# --- extrapolation


@given(st.floats(0.5, 4), st.floats(1.5, 5), st.floats(-3, 3))
def test_extrapolation_removes_the_leading_term(p, q, C):
    value = lambda h: torch.tensor(1.7 + C * h**p, dtype=F64)
    found = extrapolated(value(0.4), value(0.4 / q), p, q)
    assert found.item() == pytest.approx(1.7, abs=1e-9)


def test_twice_the_fine_minus_the_coarse_has_order_two():
    sizes = [0.2, 0.1, 0.05, 0.025]
    error = lambda h: scalar(h + 0.5 * h**2 + h**3)
    left = lambda combine: [combine(error(h), error(h / 2)).abs().item() for h in sizes]
    expect(order("eq:richardson", sizes, left(extrapolated), 2))
    swapped = left(lambda coarse, fine: 2 * coarse - fine)
    refute(order("eq:richardson", sizes, swapped, 2), "sign: the two exchanged")


@pytest.mark.parametrize("p, q", [(0, 2), (-1, 2), (1, 1), (1, 0.5)])
def test_extrapolation_refuses_what_is_no_order(p, q):
    with pytest.raises(ValueError, match="an order is positive and a ratio above 1"):
        extrapolated(scalar(1.0), scalar(1.0), p, q)


# --- Langevin at rest


@given(st.floats(0.02, 1.9), st.floats(0.1, 5))
def test_langevin_steps_rest_with_this_variance(share, variance):
    h, V = share * variance, 0.0
    for _ in range(4000):
        V = (1 - h / variance) ** 2 * V + 2 * h
    assert langevin_variance(h, variance) == pytest.approx(V, rel=1e-9)
    assert langevin_variance(h, variance) > variance


@pytest.mark.parametrize("h", [0.0, -1.0, 1.0, 3.0, math.nan])
def test_langevin_steps_that_do_not_rest_are_refused(h):
    with pytest.raises(ValueError, match="come to rest for 0 < h < 2 variance = 1"):
        langevin_variance(h, 0.5)


# --- the four errors


def test_the_right_side_of_groenwall_solves_its_equation():
    L, f = lambda t: 1.5 * np.sin(5 * t) - 0.3, lambda t: 0.2 + t**2
    solved = scipy.integrate.solve_ivp(
        lambda t, R: L(t) * R + f(t), (0, 0.9), [0.7], rtol=1e-10, atol=1e-12
    ).y[0, -1]
    t = times(4000, 0, 0.9)
    rates, sources = (torch.from_numpy(a(t.numpy())) for a in (L, f))
    gap = lambda value: worst("eq:groenwall", scalar(value - solved), 1e-5)
    expect(gap(carried(0.7, rates, sources, t)))
    refute(gap(carried(0.7, -rates, sources, t)), "sign: of L")
    refute(gap(carried(0.7, rates, 0 * sources, t)), "missing term: the source")
    refute(gap(carried(0.0, rates, sources, t)), "missing term: the start")


@pytest.mark.parametrize("name", NOISING)
def test_stopping_early_costs_at_most_this(name, generator):
    path, t = MixturePath(NOISING[name], TARGET), scalar(0.9)
    x0, x1 = path.ends(4000, generator)
    coupled = (path.interpolant(t, x0, x1) - x1).square().sum(1)
    second = (TARGET.cov.trace() + TARGET.mean.square().sum()).item()
    expect(mean("eq:early-stopping", coupled, stopping_bound(path.interpolant, second, 2, t) ** 2))
    one = stopping_bound(path.interpolant, second, 1, t) ** 2
    refute(mean("eq:early-stopping", coupled, one), "factor: σ² in place of dσ²")


def test_the_steps_of_the_ancestral_sampler_waste_a_riemann_sum():
    path, c2 = variance_preserving(0.1, 6.0), 0.4
    grid = times(9, 0.05, 0.95)
    snr = (path.alpha(grid) / path.sigma(grid)) ** 2
    mmse = lambda t: c2 / (1 + c2 * (path.alpha(t) / path.sigma(t)) ** 2)
    exact = 0.5 * (snr.diff() * mmse(grid[:-1]) - torch.log1p(c2 * snr).diff())
    found = step_divergences(path, mmse, grid)
    expect(worst("eq:kl-steps", found - exact))
    refute(worst("eq:kl-steps", found - 2 * exact), "factor: no half")
    assert (found > 0).all()


def test_the_divergence_of_a_step_to_the_data_is_refused():
    with pytest.raises(ValueError, match="finite SNR; stop before the data"):
        step_divergences(linear, lambda t: 1 - t, times(4))


def test_the_bound_of_the_steps_is_above_what_they_cost():
    c2, path = 0.4, variance_preserving(0.1, 6.0)
    one = MixturePath(path, gaussian(torch.zeros(1, dtype=F64), torch.full((1, 1), c2, dtype=F64)))
    cells, grid = torch.linspace(-8, 8, 401, dtype=F64), times(6, 0, 0.9)
    width = cells[1] - cells[0]
    from onepath.noising import ancestral_posterior

    def kernel(t, t_next, x):
        keep, take, variance = ancestral_posterior(path, t, t_next)
        return keep * x + take * one.denoiser(t, x), variance.sqrt()

    begin, end = (one.log_density(t, cells[:, None]).exp() for t in (grid[0], grid[-1]))
    law = chain_density(kernel, begin, cells, grid)
    divergence = ((end * (end / law).log()).sum() * width).item()
    mmse = lambda t: c2 / (1 + c2 * (path.alpha(t) / path.sigma(t)) ** 2)
    expect(below("eq:kl-steps", divergence, step_divergences(path, mmse, grid).sum().item()))


# --- laws of chains on the line


def test_the_law_of_a_linear_chain_is_the_gaussian_of_its_recursion():
    cells, grid = torch.linspace(-9, 9, 601, dtype=F64), times(7)
    kernel = lambda t, t_next, x: (0.7 * x + t, 0.4 + 0 * t)
    m, V = 0.5, 0.6
    normal = lambda m, V: torch.exp(-((cells - m) ** 2) / (2 * V)) / math.sqrt(2 * math.pi * V)
    found = chain_density(kernel, normal(m, V), cells, grid)
    for t in grid[:-1].tolist():
        m, V = 0.7 * m + t, 0.49 * V + 0.16
    expect(worst("eq:talay-tubaro", found - normal(m, V)))
    refute(worst("eq:talay-tubaro", found - normal(m, V + 0.16)), "clock: one step too many")


def test_a_chain_that_the_grid_cannot_hold_is_refused():
    cells = torch.linspace(-3, 3, 101, dtype=F64)
    bell = torch.exp(-(cells**2)) / math.sqrt(math.pi)
    with pytest.raises(ValueError, match="a grid resolves its kernel"):
        chain_density(lambda t, s, x: (x, scalar(0.01)), bell, cells, times(2))
    with pytest.raises(ValueError, match="the grid holds the chain, got mass"):
        chain_density(lambda t, s, x: (x + 3, scalar(0.2)), bell, cells, times(2))


def test_quantiles_of_a_density_are_those_of_its_law():
    cells, u = torch.linspace(-9, 9, 3001, dtype=F64), torch.linspace(0.002, 0.998, 51, dtype=F64)
    bell = torch.exp(-((cells - 0.7) ** 2) / 2 / 1.44)  # its mass does not matter
    exact = scipy.stats.norm.ppf(u.numpy(), loc=0.7, scale=1.2)
    gap = line_quantiles(bell, cells, u) - torch.from_numpy(exact)
    expect(worst("eq:w2-line", gap, 1e-4))


def test_quantiles_beyond_the_middles_of_the_outer_cells_go_on_as_the_last_line_does():
    density, cells = torch.tensor([1.0, 1.0, 2.0], dtype=F64), torch.arange(3, dtype=F64)
    # the distribution function is 1/8, 3/8 and 6/8 in the middles of the cells
    levels = torch.tensor([0.0, 0.25, 0.5, 0.9], dtype=F64)
    exact = torch.tensor([-0.5, 0.5, 1 + 1 / 3, 2.4], dtype=F64)
    expect(worst("eq:w2-line", line_quantiles(density, cells, levels) - exact))
    held = line_quantiles(density, cells, levels.clamp(1 / 8, 3 / 4)) - exact
    refute(worst("eq:w2-line", held), "missing term: what lies beyond the middles")


def test_eulers_chain_and_eulers_flow_are_of_order_one_in_transport_distance():
    """Six mixtures; the strong error, of order one too, is the larger of the two."""
    cells, u = torch.linspace(-5, 5, 161, dtype=F64), (torch.arange(200, dtype=F64) + 0.5) / 200
    quantiles = lambda p: line_quantiles(p, cells, u)
    normal = torch.from_numpy(scipy.stats.norm.ppf(u.numpy()))[:, None]
    of_chain, of_flow, elsewhere = [], [], []
    for k in range(6):
        law = Mixture(
            torch.tensor([0.35 + 0.05 * k, 0.65 - 0.05 * k], dtype=F64),
            torch.tensor([[-1.0 - 0.04 * k], [0.9]], dtype=F64),
            torch.tensor([[[0.2 + 0.03 * k]], [[0.4 - 0.03 * k]]], dtype=F64),
        )
        path = MixturePath(linear, law)
        drift = with_noise(path.velocity, path.score, constant(1.0)).drift
        kernel = lambda t, s, x, b=drift: (x + (s - t) * b(t, x), (s - t).sqrt())
        density = lambda t, p=path: p.log_density(scalar(t), cells[:, None]).exp()
        chain = [chain_density(kernel, density(0.0), cells, times(n)) for n in (8, 16, 32)]
        flow = [integrate(euler(Dynamics(path.velocity)), normal, times(n)) for n in (8, 16, 32)]
        rms = lambda a, b: (a - b).square().mean().sqrt().item()
        of_chain.append([rms(quantiles(p), quantiles(density(1.0))) for p in chain])
        of_flow.append([rms(x[:, 0], quantiles(density(1.0))) for x in flow])
        elsewhere.append([rms(x[:, 0], quantiles(density(0.9))) for x in flow])
    first = lambda label, e: order_between(label, [1 / 8, 1 / 16, 1 / 32], torch.tensor(e), 1)
    expect(first("eq:strong-order", of_chain))
    expect(first("eq:euler-leading", of_flow))
    refute(first("eq:euler-leading", elsewhere), "wrong object: the law of another time")
