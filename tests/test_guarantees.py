"""Both sides of guarantees: the oracles against laws that were found in other ways."""

import math

import pytest
import torch

from onepath.calculus import gradient, rate
from onepath.dynamics import Dynamics, with_noise
from onepath.guarantees import (
    Ripple,
    frozen_relative_cost,
    frozen_score_cost,
    gaussian_books,
    gaussian_history,
    simpson,
)
from onepath.interpolants import linear, noising_diffusion, variance_preserving
from onepath.measures import Mixture, gaussian
from onepath.oracles import MixturePath
from onepath.shapes import per_point
from onepath.solvers import integrate, rk4, times
from onepath.verify import continuity, expect, refute, worst

F64 = torch.float64
VP = variance_preserving(0.1, 6.0)
tensor = lambda values: torch.tensor(values, dtype=F64)
PLANE = MixturePath(VP, gaussian(tensor([0.5, -0.4]), tensor([[0.6, 0.2], [0.2, 0.3]])))
STANDARD = (tensor([0.0, 0.0]), tensor([[1.0, 0.0], [0.0, 1.0]]))


def turned(t, x):
    """A score that is wrong by an affine field with a turn in it."""
    centre = per_point(VP.alpha(t)) * PLANE.target.mean
    return PLANE.score(t, x) + 0.3 + (x - centre) @ tensor([[-0.2, 0.4], [-0.1, 0.3]]).T


def sampler(guess, k=1.0):
    g = noising_diffusion(VP)
    growth = lambda t: rate(VP.alpha, t) / VP.alpha(t)
    v = lambda t, x: per_point(growth(t)) * x + 0.5 * per_point(g(t) ** 2) * guess(t, x)
    return with_noise(v, guess, lambda t: k * g(t)) if k else Dynamics(v)


# --- moments


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_moments_of_the_family_are_those_of_the_path(k):
    grid = times(200)
    begin = PLANE.means(grid[0])[0, 0], PLANE.covs(grid[0])[0, 0]
    means, covs = gaussian_history(sampler(PLANE.score, k), *begin, grid)
    expect(worst("eq:affine-moments", means - PLANE.means(grid)[:, 0], 1e-7))
    expect(worst("eq:affine-moments", covs - PLANE.covs(grid)[:, 0], 1e-7))


def test_moments_of_a_wrong_flow_are_those_of_its_particles(generator):
    flow, grid = sampler(turned, 0.0), times(100)
    x = torch.randn(7, 2, generator=generator, dtype=F64)
    means, covs = gaussian_history(flow, x.mean(0), torch.cov(x.T), grid)
    moved = integrate(rk4(flow), x, grid)  # affine: it carries the moments of any points
    expect(worst("eq:affine-moments", means[-1] - moved.mean(0), 1e-6))
    expect(worst("eq:affine-moments", covs[-1] - torch.cov(moved.T), 1e-6))
    refute(worst("eq:affine-moments", covs[-1].T - torch.cov(x.T), 1e-6), "wrong object: the start")


def test_the_order_of_the_moments_is_four():
    exact = [gaussian_history(sampler(turned), *STANDARD, times(n))[1][-1] for n in (10, 20, 320)]
    coarse, fine = ((cov - exact[2]).abs().max().item() for cov in exact[:2])
    assert 3.5 < math.log2(coarse / fine) < 4.6


def test_a_drift_that_bends_is_refused():
    with pytest.raises(ValueError, match="must be affine, got one that bends by"):
        gaussian_history(Dynamics(lambda t, x: -(x**3)), *STANDARD, times(4))


def test_moments_stay_where_they_are_in_their_dtype(device):
    begin = (torch.zeros(2, device=device), torch.eye(2, device=device))
    grid = times(4).float().to(device)
    means, covs = gaussian_history(Dynamics(lambda t, x: -x), *begin, grid)
    assert means.dtype == covs.dtype == torch.float32 and covs.device == begin[0].device


# --- books


@pytest.mark.parametrize("k", [0.0, 1.0])
def test_both_theorems_hold_to_the_last_digits(k):
    books = gaussian_books(PLANE, turned, sampler(turned, k), *STANDARD, times(400))
    noise = books.start + books.loss - books.forgiven - books.end
    flow = books.start + books.charged - books.end
    right, other = (noise, flow) if k else (flow, noise)
    label = "eq:score-kl-slack" if k else "eq:ode-kl"
    expect(worst(label, tensor(right), 1e-7))
    refute(worst(label, tensor(other), 1e-7), "wrong object: the law of the other sampler")


def test_the_books_of_the_exact_sampler_are_empty():
    begin = PLANE.means(tensor(0.0))[0, 0], PLANE.covs(tensor(0.0))[0, 0]
    books = gaussian_books(PLANE, PLANE.score, sampler(PLANE.score), *begin, times(200))
    for nats in (books.start, books.loss, books.forgiven, books.charged, books.loss_by_model):
        assert abs(nats) < 1e-9
    assert abs(books.end) < 1e-9


def test_the_mean_over_the_model_is_another_number():
    """For a constant error both means are the same; for one that grows, the wider law has more."""
    data = MixturePath(VP, gaussian(tensor([0.0]), tensor([[0.3]])))
    begin = tensor([0.0]), tensor([[1.0]])
    shifted = lambda t, x: data.score(t, x) + 0.3
    books = gaussian_books(data, shifted, sampler(shifted), *begin, times(100))
    assert books.loss_by_model == pytest.approx(books.loss, rel=1e-9)
    assert books.loss == pytest.approx(0.5 * 0.09 * 3.05, rel=1e-6)
    flatter = lambda t, x: 0.5 * data.score(t, x)
    books = gaussian_books(data, flatter, sampler(flatter), *begin, times(100))
    assert books.loss_by_model > 1.1 * books.loss


def test_books_are_kept_for_one_gaussian():
    two = Mixture(tensor([0.5, 0.5]), tensor([[-1.0], [1.0]]), tensor([[[0.1]], [[0.1]]]))
    path = MixturePath(VP, two)
    with pytest.raises(ValueError, match="one Gaussian, got 2 components"):
        gaussian_books(path, path.score, sampler(path.score), *STANDARD, times(4))


# --- Simpson


def test_simpson_is_exact_for_cubics():
    t = times(6)
    assert simpson(t**3 - t, t).item() == pytest.approx(-0.25, abs=1e-15)
    assert abs(torch.trapezoid(t**3 - t, t).item() + 0.25) > 1e-3


@pytest.mark.parametrize("t", [times(3), tensor([0.0, 0.3, 1.0]), times(2)[:1]])
def test_simpson_refuses_other_grids(t):
    with pytest.raises(ValueError, match="an even number of equal steps"):
        simpson(t, t)


# --- the ripple


@pytest.mark.parametrize("path", [VP, variance_preserving(3.0, 3.0)])
@pytest.mark.parametrize("frequency", [0.5, 2.0, 7.0])
def test_the_law_of_a_ripple_solves_the_continuity_equation(path, frequency):
    ripple, x = Ripple(0.4, frequency, path), torch.linspace(-2, 2, 31, dtype=F64)[:, None]
    for t in (0.2, 0.9):
        left = continuity(ripple.log_density, ripple.velocity, tensor(t), x)
        expect(worst("eq:ripple", left, 1e-7))
    still = continuity(lambda t, x: ripple.log_density(0 * t, x), ripple.velocity, tensor(t), x)
    refute(worst("eq:ripple", still, 1e-7), "missing term: nothing moves")


def test_the_closed_flow_of_a_ripple_is_that_of_its_velocity():
    ripple, x = Ripple(0.4, 3.0, VP), torch.linspace(-3, 3, 41, dtype=F64)[:, None]
    t = tensor(0.8)
    moved = integrate(rk4(Dynamics(ripple.velocity)), x, times(400, 0, 0.8))
    expect(worst("eq:ripple", ripple.end(t, x) - moved, 1e-6))
    refute(worst("eq:ripple", ripple.start(t, x) - moved, 1e-6), "clock: backwards")
    expect(worst("eq:ripple", ripple.start(t, ripple.end(t, x)) - x, 1e-9))


def test_the_velocity_of_a_ripple_is_that_of_its_score():
    ripple, x = Ripple(0.4, 3.0, VP), torch.linspace(-3, 3, 11, dtype=F64)[:, None]
    for t in (tensor(0.3), torch.linspace(0.1, 0.9, 11, dtype=F64)):
        expect(worst("eq:ripple", sampler(ripple.score, 0.0).drift(t, x) - ripple.velocity(t, x)))


@pytest.mark.parametrize("t", [tensor(0.6), torch.linspace(0, 1, 9, dtype=F64)])
def test_the_score_of_a_ripples_law_is_its_gradient(t):
    ripple, x = Ripple(0.4, 3.0, VP), torch.linspace(-3, 3, 9, dtype=F64)[:, None]
    expect(worst("eq:ripple", ripple.own_score(t, x) - gradient(ripple.log_density, t, x), 1e-8))
    refute(worst("eq:ripple", ripple.score(t, x) - ripple.own_score(t, x), 1e-8), "wrong object: ŝ")


@pytest.mark.parametrize("height, frequency", [(0.0, 1.0), (0.3, -1.0), (math.nan, 1.0)])
def test_a_ripple_has_a_height_and_a_frequency(height, frequency):
    with pytest.raises(ValueError, match="height and frequency of a ripple are positive"):
        Ripple(height, frequency, VP)


# --- freezing


def test_freezing_the_score_of_the_normal_law_costs_what_it_must():
    """J = 1: a step of length h in log α costs 2 (h − 1 + e^{−h}), by hand."""
    n, T = 16, 4.0
    flat, h = variance_preserving(2 * T, 2 * T), T / n
    cost = frozen_score_cost(flat, torch.ones_like, times(n))
    expect(worst("eq:held-score", cost - 2 * n * (h - 1 + math.exp(-h)), 1e-9))
    refute(worst("eq:held-score", cost - n * (h - 1 + math.exp(-h)), 1e-9), "factor: ½")


def test_freezing_the_relative_score_of_a_shifted_normal_law_costs_nothing_to_first_order():
    """I = m²α²: a step costs I_k (½(e^{2h} − 1) − h − 2(e^h − 1 − h)), by hand."""
    n, T, m = 8, 2.0, 1.5
    flat, h = variance_preserving(2 * T, 2 * T), T / n
    level = m**2 * flat.alpha(times(n)[:-1]) ** 2
    cost = frozen_relative_cost(flat, lambda t: m**2 * flat.alpha(t) ** 2, times(n))
    step = 0.5 * math.expm1(2 * h) - h - 2 * (math.expm1(h) - h)
    expect(worst("eq:held-relative", cost - (level * step).sum(), 1e-9))
    naive = 0.5 * math.expm1(2 * h) - h
    refute(worst("eq:held-relative", cost - (level * naive).sum(), 1e-9), "hypothesis: martingale")


def test_steps_of_a_path_that_is_not_flat_are_counted_in_its_own_clock():
    """The cost depends on the grid in log α only, and not on the schedule that leads there."""
    C = lambda path: lambda t: 1 / (path.alpha(t) ** 2 * 0.3 + path.variance(t))
    flat = variance_preserving(3.05, 3.05)
    marks = 1 + 2 * VP.alpha(times(12)).log() / 3.05  # the same log α on the flat path
    one = frozen_score_cost(VP, C(VP), times(12))
    expect(worst("eq:held-score", one - frozen_score_cost(flat, C(flat), marks), 1e-8))
    other = frozen_score_cost(flat, C(flat), times(12))
    refute(worst("eq:held-score", one - other, 1e-8), "clock: equal steps in t")


def test_frozen_costs_follow_the_path_and_not_only_vp():
    """On the linear path too: half the sum of ∫ g² times the exact mean square, Gaussian data."""
    v = 0.4
    J = lambda t: 1 / (t**2 * v + (1 - t) ** 2)
    grid, fine = tensor([0.2, 0.5, 0.8]), torch.linspace(0, 1, 4001, dtype=F64)
    total = tensor(0.0)
    for a, b in zip(grid[:-1], grid[1:]):
        t = a + (b - a) * fine
        ratio = a / t
        spread = (1 - a) ** 2 - ratio**2 * (1 - t) ** 2
        # s_t = −J x_t and s_a = −J_a x_a with x_a = ratio x_t + noise
        square = (J(t) - ratio * J(a)) ** 2 / J(t) + J(a) ** 2 * spread
        total = total + 0.5 * torch.trapezoid(noising_diffusion(linear)(t) ** 2 * square, t)
    cost = frozen_score_cost(linear, J, grid)
    expect(worst("eq:held-score", cost - total, 1e-5))
