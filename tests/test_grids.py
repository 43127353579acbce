"""Densities on a grid: mass and positivity are kept, and the equation is solved."""

from math import exp, log, pi

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_bvp
from torch.distributions import MultivariateNormal

from laws import F64, scalar
from onepath import grids
from onepath.calculus import constant, zero
from onepath.grids import (
    Grid,
    box,
    evolve,
    history,
    jump_rates,
    jump_rates_general,
    mass,
    on_cells,
    stable_step,
)
from onepath.verify import expect, order, refute, worst

LIKE = torch.zeros((), dtype=F64)


def clock(n, stop=1.0):
    return torch.linspace(0, stop, n + 1, dtype=F64)


def normal(m, v):
    """log-density of N(m, v I), in one or two dimensions."""
    return lambda t, x: (-((x - m) ** 2) / (2 * v) - 0.5 * log(2 * pi * v)).sum(1)


def still(t, x):
    return 0 * x


# --- the grid


def test_a_box_is_cut_into_equal_cells_that_fill_it():
    grid = box(-1.0, 2.0, 6, LIKE, dim=2)
    assert grid.shape == (6, 6) and grid.widths == pytest.approx((0.5, 0.5))
    assert grid.axes[0].tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75, 1.25, 1.75])
    assert grid.volume == pytest.approx(0.25)
    assert grid.volume * len(grid.points) == pytest.approx(9.0)  # the area of the box
    assert grid.points[1].tolist() == pytest.approx([-0.75, -0.25])  # the last axis is fastest


def test_a_rectangle_may_have_different_cells_along_its_sides():
    grid = Grid((torch.linspace(0, 1, 5, dtype=F64), torch.linspace(0, 6, 7, dtype=F64)))
    assert grid.shape == (5, 7) and grid.widths == pytest.approx((0.25, 1.0))
    assert grid.volume == pytest.approx(0.25) and grid.points.shape == (35, 2)
    assert mass(grid, torch.ones(5, 7, dtype=F64)).item() == pytest.approx(35 * 0.25)
    assert mass(grid, torch.ones(3, 5, 7, dtype=F64)).tolist() == pytest.approx([8.75] * 3)


@pytest.mark.parametrize(
    "axes, message",
    [
        ((), "one or two axes, got 0"),
        ((torch.arange(4.0),) * 3, "one or two axes, got 3"),
        ((torch.arange(4.0), torch.arange(4.0).double()), "share dtype and device"),
        ((torch.arange(3.0),), r"at least four floating-point numbers, got shape \(3,\)"),
        (
            (torch.tensor([0.0, 1.0, 2.0, 3.5]),),
            "equally wide and increase, got gaps from 1 to 1.5",
        ),
        ((torch.tensor([3.0, 2.0, 1.0, 0.0]),), "got gaps from -1 to -1"),
        ((torch.zeros(4),), "got gaps from 0 to 0"),
        ((torch.tensor([0.0, 1.0, torch.nan, 3.0]),), "equally wide"),
    ],
)
def test_an_axis_is_uniform_and_long_enough(axes, message):
    with pytest.raises(ValueError, match=message):
        Grid(axes)


@pytest.mark.parametrize(
    "low, high, cells, dim", [(1, 1, 10, 1), (2, 1, 10, 1), (0, 1, 3, 1), (0, 1, 10, 3)]
)
def test_a_box_has_an_inside(low, high, cells, dim):
    with pytest.raises(ValueError, match="low < high, at least 4 cells and 1 or 2 axes, got"):
        box(low, high, cells, LIKE, dim)


def test_a_box_of_four_cells_is_enough():
    grid = box(0, 1, 4, LIKE)
    assert grid.shape == (4,)
    assert torch.allclose(grid.axes[0], torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=F64))


# --- densities on it


def test_a_density_that_fits_has_mass_one():
    grid = box(-6, 6, 60, LIKE, dim=2)
    log_density = normal(torch.tensor([0.3, -0.5], dtype=F64), 0.4)
    p = on_cells(grid, log_density, scalar(0.0))
    expect(worst("eq:cell-mass", mass(grid, p) - 1))
    theirs = MultivariateNormal(torch.tensor([0.3, -0.5], dtype=F64), 0.4 * torch.eye(2).double())
    exact = theirs.log_prob(grid.points).exp().reshape(60, 60)
    expect(worst("eq:cell-mass", p - exact))
    refute(worst("eq:cell-mass", p.T - exact), "wrong object: the axes exchanged")


@pytest.mark.parametrize(
    "log_density, tolerance",
    [
        (normal(5.0, 1.0), 1e-6),  # off the box
        (normal(0.0, 1e-4), 1e-6),  # narrower than a cell
        (lambda t, x: normal(0.0, 1.0)(t, x) + 0.01, 1e-3),  # not normalised
        (lambda t, x: x[:, 0] * torch.nan, 1e-6),
    ],
)
def test_a_density_that_does_not_fit_is_refused(log_density, tolerance):
    with pytest.raises(ValueError, match=f"must be 1 within {tolerance:g}, got .*widen the box"):
        on_cells(box(-4, 4, 30, LIKE), log_density, scalar(0.0), tolerance)


def test_what_is_missing_within_the_tolerance_is_made_up():
    grid = box(-4, 4, 30, LIKE)
    p = on_cells(grid, lambda t, x: normal(0.0, 1.0)(t, x) + 0.01, scalar(0.0), tolerance=0.02)
    expect(worst("eq:cell-mass", mass(grid, p) - 1))


# --- the rates


@pytest.mark.parametrize("drift, eta", [(0.7, 0.9), (-3.0, 0.5), (40.0, 1.0), (0.0, 1.3)])
def test_the_rates_are_those_of_the_current_between_two_centres(drift, eta):
    """b p - D p' = J with the two values of p, solved by collocation."""
    grid = box(0, 1, 5, LIKE)
    ((up, down),) = jump_rates(grid, lambda t, x: torch.full_like(x, drift), constant(eta))(
        scalar(0)
    )
    D, h = 0.5 * eta**2, 0.2

    def current(left, right):
        equations = lambda x, y: np.stack([(drift * y[0] - y[1]) / D, 0 * y[1]])
        ends = lambda a, b: np.array([a[0] - left, b[0] - right])
        x = np.linspace(0, h, 200)
        guess = np.stack([np.linspace(left, right, 200), np.zeros(200)])
        return solve_bvp(equations, ends, x, guess, tol=1e-10, max_nodes=50_000).y[1, 0]

    assert up.shape == down.shape == (4,)
    theirs = torch.tensor([current(1.0, 0.0), -current(0.0, 1.0)]) / h
    ours = torch.stack([up[0], down[0]])
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert (up > 0).all() and (down > 0).all() or abs(drift) * h / D > 15


def test_without_noise_the_rates_are_upwind_and_exact_limits():
    grid = box(-1, 1, 5, LIKE)
    field = lambda t, x: torch.where(x.abs() < 0.3, 0.0, x * 3)
    ((up, down),) = jump_rates(grid, field, zero)(scalar(0.0))
    faces = torch.tensor([-0.6, -0.2, 0.2, 0.6], dtype=F64)
    b = torch.where(faces.abs() < 0.3, 0.0, 3 * faces)
    expect(worst("eq:jump-rates", up - b.clamp(min=0) / 0.4))
    expect(worst("eq:jump-rates", down - (-b).clamp(min=0) / 0.4))
    refute(worst("eq:jump-rates", up - (-b).clamp(min=0) / 0.4), "sign: against the wind")
    for tiny in (1e-30, 1e-170, 1e-8):
        ((almost, _),) = jump_rates(grid, field, constant(tiny))(scalar(0.0))
        assert almost.isfinite().all()
        expect(worst("eq:jump-rates", almost - up))


def test_each_axis_has_the_rates_of_its_own_drift():
    axes = (torch.linspace(0, 3, 4, dtype=F64), torch.linspace(0, 2, 5, dtype=F64))
    grid = Grid(axes)
    pairs = jump_rates(grid, lambda t, x: torch.stack([x[:, 1], -x[:, 0]], 1) * t, zero)(
        scalar(2.0)
    )
    assert [p[0].shape for p in pairs] == [(3, 5), (4, 4)]
    # along the first axis the drift is 2 x₂ > 0, along the second -2 x₁ < 0
    expect(worst("eq:jump-rates", pairs[0][0] - (2 * axes[1] / 1.0).expand(3, 5)))
    expect(worst("eq:jump-rates", pairs[1][1] - (2 * axes[0] / 0.5)[:, None].expand(4, 4)))
    expect(worst("eq:jump-rates", torch.cat([pairs[0][1].flatten(), pairs[1][0].flatten()])))
    refute(worst("eq:jump-rates", pairs[1][0] - pairs[1][1]), "sign: of the second drift")


@pytest.mark.parametrize(
    "rates, message",
    [
        (
            lambda g: jump_rates(g, still, lambda t: -1 + 0 * t),
            "noise level is nonnegative, got -1",
        ),
        (
            lambda g: jump_rates(g, still, lambda t: torch.nan * t),
            "noise level is nonnegative, got n",
        ),
        (
            lambda g: jump_rates(g, lambda t, x: x / 0, constant(1.0)),
            "must be finite, got nan or inf",
        ),
        (lambda g: jump_rates(g, still, constant(float("inf"))), "must be finite, got nan or inf"),
        (
            lambda g: jump_rates_general(g, still, lambda t, x: x[:, 0]),
            "a variance is nonnegative, got -0.6",
        ),
    ],
)
def test_negative_and_infinite_coefficients_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        rates(box(-1, 1, 5, LIKE))(scalar(0.5))


@pytest.mark.parametrize(
    "drift, variance",
    [
        (lambda t, x: x[:, :1], lambda t, x: x[:, 0] ** 2),
        (lambda t, x: x, lambda t, x: x[:, :1] ** 2),
    ],
)
def test_a_drift_has_the_shape_of_the_points_and_a_variance_one_number_each(drift, variance):
    diffusion = lambda t, x: 0.5 * variance(t, x)
    with pytest.raises(ValueError, match=r"at points \(20, 2\) a drift has this shape .*got "):
        grids._rates(box(-1, 1, 5, LIKE, dim=2), drift, diffusion)(scalar(0.5))


@pytest.mark.parametrize("edge", [-0.1, 1.1, float("nan")])
def test_the_share_at_the_walls_is_a_share(edge):
    with pytest.raises(ValueError, match="edge is a share of the mass, from 0 to 1, got"):
        grid = box(-4, 4, 30, LIKE)
        p = on_cells(grid, normal(0.0, 0.4), scalar(0.0))
        evolve(grid, p, jump_rates(grid, still, constant(0.5)), clock(20), edge=edge)


def test_rates_that_are_nan_are_no_rates():
    grid = box(-4, 4, 30, LIKE)
    p = on_cells(grid, normal(0.0, 0.4), scalar(0.0))
    lost = lambda t: [(torch.full((29,), torch.nan, dtype=F64),) * 2]
    with pytest.raises(ValueError, match="a step may not exceed nan"):
        evolve(grid, p, lost, clock(20))


def test_state_dependent_noise_that_is_constant_is_constant_noise():
    grid = box(-2, 2, 12, LIKE, dim=2)
    drift = lambda t, x: torch.stack([x[:, 1].sin(), t - x[:, 0]], 1)
    level = lambda t: 1 + t
    plain = jump_rates(grid, drift, level)(scalar(0.4))
    general = jump_rates_general(
        grid, drift, lambda t, x: level(t) ** 2 * torch.ones_like(x[:, 0])
    )(scalar(0.4))
    for one, other in zip(plain, general):
        for k in (0, 1):
            expect(worst("eq:fokker-planck-general", one[k] - other[k]))
    refute(worst("eq:fokker-planck-general", plain[0][0] - 2 * other[0][0, 0]), "factor: two")


# --- evolution


def test_a_step_moves_what_the_rates_say():
    """By the matrix of the chain, exponentiated by scipy: three orders in the step agree."""
    grid = box(-2, 2, 8, LIKE)
    field = lambda t, x: 1.0 - 0.8 * x
    rates = jump_rates(grid, field, constant(0.7))
    ((up, down),) = rates(scalar(0.0))
    Q = torch.diag(up, -1) + torch.diag(down, 1)
    Q = Q - torch.diag(Q.sum(0))
    p = torch.full((8,), 1 / 4, dtype=F64)
    exact = torch.from_numpy(scipy.linalg.expm(0.5 * Q.numpy())) @ p
    hs = [0.5 / n for n in (10, 20, 40)]
    errors = [
        (evolve(grid, p, rates, clock(n, 0.5), edge=1) - exact).abs().max().item()
        for n in (10, 20, 40)
    ]
    expect(order("eq:jump-rates", hs, errors, 2))
    transposed = torch.from_numpy(scipy.linalg.expm(0.5 * Q.T.numpy())) @ p
    far = (evolve(grid, p, rates, clock(40, 0.5), edge=1) - transposed).abs().max()
    assert far > 0.01


def test_rates_that_depend_on_time_are_met_to_second_order():
    """A wind that grows like t carries the mean by t², exactly for the chain and for the step."""
    grid = box(-3, 4, 140, LIKE)
    rates = jump_rates(grid, lambda t, x: (2 * t).expand(len(x))[:, None], constant(0.3))
    p = on_cells(grid, normal(0.0, 0.1), scalar(0.0))
    end = evolve(grid, p, rates, clock(150))
    mean = mass(grid, end * grid.axes[0])
    expect(worst("eq:jump-rates", mean - 1.0, 1e-6))
    refute(worst("eq:jump-rates", mean - 1.0 + 1 / 150, 1e-6), "clock: rates of the start only")


MEANS = torch.tensor([[-1.5], [1.0]], dtype=F64)


def relaxed(t, x, theta=1.5, eta=0.9):
    """Two heaps under dX = -theta X dt + eta dW, by the closed form of the variance."""
    left = exp(-theta * t)
    total = 0.0
    for w, m, v in ((0.3, -1.5, 0.2), (0.7, 1.0, 0.3)):
        v = v * left**2 + eta**2 * (1 - left**2) / (2 * theta)
        total = total + w * torch.exp(-((x[:, 0] - m * left) ** 2) / (2 * v)) / (2 * pi * v) ** 0.5
    return total.log()


def test_the_grid_solves_fokker_planck_to_second_order():
    errors, widths, doubled = [], [], []
    for n in (40, 80, 160):
        grid = box(-6, 6, n, LIKE)
        p = on_cells(grid, relaxed, scalar(0.0))
        exact = relaxed(1.0, grid.points).exp()
        for eta, found in ((0.9, errors), (0.9 * 2**0.5, doubled)):
            rates = jump_rates(grid, lambda t, x: -1.5 * x, constant(eta))
            steps = clock(int(1.1 / stable_step(rates, clock(1))) + 1)
            end = evolve(grid, p, rates, steps, edge=1e-5)
            found.append((end - exact).abs().max().item())
            expect(worst("thm:jumps", mass(grid, end) - 1))
            expect(worst("thm:jumps", end.clamp(max=0)))
        widths.append(grid.widths[0])
    expect(order("eq:fokker-planck", widths, errors, 2))
    refute(order("eq:fokker-planck", widths, doubled, 2), "factor: eta² in place of half of it")


def test_a_rotation_in_the_plane_is_followed_by_the_covariance():
    """dX = -A X dt + eta dW: mean by a matrix exponential, covariance by Lyapunov's equation."""
    A = np.array([[1.0, -2.0], [1.2, 0.8]])
    eta, m, C, T = 0.8, np.array([0.9, -0.4]), 0.3 * np.eye(2), 0.5
    E = scipy.linalg.expm(-T * A)
    S = scipy.linalg.solve_continuous_lyapunov(A, eta**2 * np.eye(2))
    cov, mean = E @ (C - S) @ E.T + S, E @ m
    gaps = []
    for n in (32, 64):
        grid = box(-4, 4, n, LIKE, dim=2)
        rates = jump_rates(grid, lambda t, x: -x @ torch.from_numpy(A).T, constant(eta))
        p = on_cells(grid, normal(torch.from_numpy(m), 0.3), scalar(0.0))
        steps = clock(int(0.55 / stable_step(rates, clock(1, T))) + 1, T)
        p = evolve(grid, p, rates, steps, edge=1e-4)
        c = mass(grid, p[None] * grid.points.T.reshape(2, n, n))
        off = grid.points.T.reshape(2, n, n) - c[:, None, None]
        found = torch.stack([mass(grid, p[None] * off * off[k]) for k in (0, 1)])
        gaps.append([np.abs(c.numpy() - mean).max(), np.abs(found.numpy() - cov).max()])
        assert p.min() >= 0 and mass(grid, p).item() == pytest.approx(1, abs=1e-12)
    for coarse, fine in zip(*gaps):
        assert fine < 0.01 and coarse / fine > 3  # second order


def test_noise_that_depends_on_the_state_gives_the_lognormal_law():
    """dX = X dW / 2 from a lognormal start: log X stays Gaussian, mean -t/8, variance + t/4."""

    def lognormal(t, x):
        v = 0.05 + t / 4
        y = x[:, 0].clamp(min=1e-9).log()
        return -((y + t / 8) ** 2) / (2 * v) - 0.5 * torch.log(2 * pi * torch.as_tensor(v)) - y

    errors, ficks = [], []
    for n in (24, 48, 96):
        grid = box(0.0, 4.0, n, LIKE)
        a = lambda t, x: x[:, 0] ** 2 / 4
        p = on_cells(grid, lognormal, 0.0 * LIKE, tolerance=1e-4)
        exact = lognormal(0.3, grid.points).exp()
        for drift, found in ((still, errors), (lambda t, x: x / 4, ficks)):
            rates = jump_rates_general(grid, drift, a)
            steps = clock(int(0.33 / stable_step(rates, clock(1, 0.3))) + 1, 0.3)
            end = evolve(grid, p, rates, steps, edge=1e-3)
            found.append((end - exact).abs().max().item())
    expect(order("eq:fokker-planck-general", [1.0, 0.5, 0.25], errors, 2))
    refute(order("eq:fokker-planck-general", [1.0, 0.5, 0.25], ficks, 2), "missing term: Fick")


@given(
    st.integers(4, 9),
    st.integers(4, 9),
    st.floats(-20, 20),
    st.sampled_from([0.0, 1e-9, 0.3, 2.0]),
    st.integers(0, 1000),
)
def test_any_drift_keeps_mass_and_sign(a, b, strength, eta, seed):
    generator = torch.Generator().manual_seed(seed)
    grid = Grid((torch.linspace(0, 1, a, dtype=F64), torch.linspace(-1, 2, b, dtype=F64)))
    p = torch.rand(a, b, generator=generator, dtype=F64)
    p = p / mass(grid, p)
    drift = lambda t, x: strength * torch.stack([(5 * x[:, 1]).sin() + t, x[:, 0] - 0.5], 1)
    rates = jump_rates(grid, drift, constant(eta))
    h = min(1.0, 0.9 * stable_step(rates, clock(8)))
    end = evolve(grid, p, rates, clock(3, 3 * h * 0.5), edge=1)
    assert end.shape == (a, b) and end.min() >= 0
    assert mass(grid, end).item() == pytest.approx(1, abs=1e-12)


def test_a_history_ends_where_evolve_does_and_begins_at_the_start():
    grid = box(-4, 4, 30, LIKE)
    rates = jump_rates(grid, lambda t, x: -x, constant(0.5))
    p = on_cells(grid, normal(0.3, 0.4), scalar(0.0))
    states = history(grid, p, rates, clock(20))
    assert states.shape == (21, 30)
    assert torch.equal(states[0], p) and torch.equal(states[-1], evolve(grid, p, rates, clock(20)))


@pytest.mark.parametrize("dim", [1, 2])
def test_the_longest_step_is_sharp(dim):
    """At the longest step the coefficient of staying is zero in some cell; beyond it is refused."""
    grid = box(-1, 1, 6, LIKE, dim)
    rates = jump_rates(grid, lambda t, x: 3 * x.sin(), constant(0.6))
    limit = stable_step(rates, clock(1))
    p = torch.full(grid.shape, 1 / 2**dim, dtype=F64)
    ok = torch.tensor([0.0, limit * (1 - 1e-9)], dtype=F64)
    assert evolve(grid, p, rates, ok, edge=1).min() >= 0
    one_cell = torch.zeros_like(p)
    pairs = rates(scalar(0.0))
    outflow = torch.zeros(grid.shape, dtype=F64)
    for axis, (up, down) in enumerate(pairs):
        n = grid.shape[axis]
        outflow.narrow(axis, 0, n - 1).add_(up)
        outflow.narrow(axis, 1, n - 1).add_(down)
    assert limit == pytest.approx(1 / outflow.max().item())
    one_cell.view(-1)[outflow.argmax()] = 1 / grid.volume
    with pytest.raises(ValueError, match="a step may not exceed .* at t = 0, or a cell would lose"):
        evolve(grid, one_cell, rates, torch.tensor([0.0, 1.001 * limit], dtype=F64), edge=1)


def test_the_longest_step_is_that_of_the_strongest_wind():
    grid = box(0, 2, 4, LIKE)
    wind = jump_rates(grid, lambda t, x: (3 * t).expand(len(x))[:, None], zero)
    assert stable_step(wind, clock(2)) == pytest.approx(0.5 / 3)  # width over speed
    assert stable_step(wind, clock(2, 0.5)) == pytest.approx(0.5 / 1.5)
    assert stable_step(jump_rates(grid, still, zero), clock(1)) == float("inf")


@pytest.mark.parametrize("share, refused", [(0.9e-6, False), (1.1e-6, True)])
def test_a_millionth_of_the_mass_may_lie_at_the_walls(share, refused):
    grid = box(0, 8, 8, LIKE)
    p = torch.zeros(8, dtype=F64)
    p[4], p[0] = 1 - share, share
    motionless = jump_rates(grid, still, zero)
    if refused:
        with pytest.raises(ValueError, match="at most 1e-06 of the mass, got 1.1e-06"):
            evolve(grid, p, motionless, clock(1))
    else:
        assert torch.equal(evolve(grid, p, motionless, clock(1)), p)


def test_a_step_is_limited_by_the_rates_at_either_end():
    grid = box(-1, 1, 6, LIKE)
    p = torch.full((6,), 0.5, dtype=F64)
    for strength in (lambda t: 30 * t, lambda t: 30 * (1 - t)):
        wind = lambda t, x, s=strength: s(t) * torch.ones_like(x)
        with pytest.raises(ValueError, match="Take shorter steps or wider cells"):
            evolve(grid, p, jump_rates(grid, wind, zero), clock(1), edge=1)


def test_mass_at_the_walls_is_refused_unless_walls_are_meant():
    grid = box(-2, 2, 20, LIKE)
    rates = jump_rates(grid, lambda t, x: torch.ones_like(x), constant(0.5))
    p = on_cells(grid, normal(0.0, 0.05), scalar(0.0))
    with pytest.raises(ValueError, match="outermost cells may hold at most 1e-06 of the mass, got"):
        evolve(grid, p, rates, clock(100, 2.0))
    kept = evolve(grid, p, rates, clock(100, 2.0), edge=1)
    assert mass(grid, kept).item() == pytest.approx(1, abs=1e-12)
    square = box(-2, 2, 20, LIKE, dim=2)
    beside = torch.zeros(20, 20, dtype=F64)
    beside[10, 0] = 1 / square.volume  # at a wall of the second axis only
    quiet = jump_rates(square, still, constant(0.1))
    with pytest.raises(ValueError, match="got 0.99|got 1"):
        evolve(square, beside, quiet, clock(2, 0.01))


@pytest.mark.parametrize(
    "density, times, message",
    [
        (
            torch.ones(5, dtype=F64),
            clock(2),
            r"one nonnegative value per cell, \(4,\), got shape \(5,\)",
        ),
        (torch.tensor([2.0, -1.0, 2.0, 1.0]).double(), clock(2), "least value -1"),
        (torch.tensor([1.0, torch.nan, 2.0, 1.0]).double(), clock(2), "nonnegative value per cell"),
        (torch.ones(4, dtype=F64) / 2, clock(2), "a density has mass 1, got 0.5"),
        (torch.ones(4, dtype=F64), clock(2).flip(0), "times are two or more and increase"),
        (torch.ones(4, dtype=F64), clock(2)[:1], "times are two or more and increase"),
        (
            torch.ones(4, dtype=F64),
            torch.tensor([0.0, torch.nan]).double(),
            "times are two or more",
        ),
    ],
)
def test_a_run_that_cannot_be_right_is_refused(density, times, message):
    grid = box(0, 1, 4, LIKE)
    with pytest.raises(ValueError, match=message):
        evolve(grid, density, jump_rates(grid, still, constant(0.1)), times, edge=1)


def test_device_and_dtype_follow_the_inputs(device):
    like = torch.zeros((), dtype=torch.float32, device=device)
    grid = box(-4, 4, 24, like, dim=2)
    p = on_cells(grid, normal(0.0, 0.4), torch.zeros((), device=device), tolerance=1e-4)
    rates = jump_rates(grid, lambda t, x: -x, constant(0.6))
    end = history(grid, p, rates, clock(40), edge=1e-3)
    assert end.dtype == torch.float32 and end.device.type == device.type
    assert mass(grid, end[-1]).item() == pytest.approx(1, abs=1e-5)
