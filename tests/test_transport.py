"""Plans and maps: the best there are, certified by potentials and by other libraries."""

import math

import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, random_mixture
from onepath.measures import gaussian
from onepath.metrics import gaussian_wasserstein2, wasserstein2
from onepath.transport import Plan, gaussian_map, optimal_plan
from onepath.verify import expect, mean, refute, worst

seeds = st.integers(0, 10_000)


def cloud(seed, n, d, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=F64) + shift


def weights(seed, n):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.05
    return w / w.sum()


def half_squares(x, y):
    return 0.5 * torch.cdist(x, y).square()


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_a_plan_is_optimal_because_its_potentials_say_so(seed, n, m, d):
    """eq:duality: admissible potentials with the cost of the plan admit no cheaper plan."""
    x, y, a, b = cloud(seed, n, d), cloud(seed + 1, m, d, 0.5), weights(seed, n), weights(~-seed, m)
    plan = optimal_plan(x, y, a, b)
    cost = half_squares(x, y)
    assert plan.matrix.min() >= 0
    assert torch.allclose(plan.matrix.sum(1), a) and torch.allclose(plan.matrix.sum(0), b)
    assert (plan.f[:, None] + plan.g - cost).max() < 1e-9
    assert (a @ plan.f + b @ plan.g).item() == pytest.approx((plan.matrix * cost).sum().item())


@given(seeds, st.integers(1, 20), st.integers(1, 4))
def test_equal_samples_are_assigned_one_to_one(seed, n, d):
    x, y = cloud(seed, n, d), cloud(seed + 1, n, d, 0.5)
    rows, columns = scipy.optimize.linear_sum_assignment(half_squares(x, y).numpy())
    assert optimal_plan(x, y).permutation.tolist() == columns.tolist()


@given(seeds, st.integers(2, 15), st.integers(1, 3))
def test_the_cost_of_the_plan_is_half_the_squared_distance(seed, n, d):
    x, y = cloud(seed, n, d), cloud(seed + 1, n, d, 0.5)
    plan, exact = optimal_plan(x, y), 0.5 * wasserstein2(x, y) ** 2
    dual = plan.f.mean() + plan.g.mean()
    expect(worst("eq:duality", dual - exact))
    refute(worst("eq:duality", dual - 2 * exact), "factor: W² in place of ½W²")


def test_a_weight_is_a_number_of_equal_points():
    x = torch.tensor([[0.0, 0.0], [2.0, 1.0]], dtype=F64)
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]], dtype=F64)
    merged = optimal_plan(x, y, torch.tensor([2 / 3, 1 / 3], dtype=F64))
    copied = optimal_plan(torch.cat([x[:1], x]), y)
    price = lambda plan, x: (plan.matrix * half_squares(x, y)).sum()
    assert price(merged, x) == pytest.approx(price(copied, torch.cat([x[:1], x])).item())


def test_a_plan_that_splits_mass_is_no_permutation():
    plan = optimal_plan(torch.zeros(1, 1), torch.tensor([[-1.0], [2.0]]))
    assert plan.matrix.tolist() == [[0.5, 0.5]] and plan.matrix.dtype == F64
    with pytest.raises(ValueError, match="splits the mass of a point"):
        _ = plan.permutation
    both = Plan(torch.tensor([[0.5], [0.5]]), torch.zeros(2), torch.zeros(1))
    with pytest.raises(ValueError, match="splits the mass of a point"):
        _ = both.permutation


def test_weights_in_single_precision_are_accepted_up_to_their_rounding():
    a = torch.full((3,), 1 / 3)
    assert a.double().sum() != 1
    plan = optimal_plan(torch.zeros(3, 1), torch.ones(2, 1), a)
    assert plan.matrix.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, w: optimal_plan(x, x * math.nan), "finite"),
        (lambda x, w: optimal_plan(x, x[:0]), "one point or more"),
        (lambda x, w: optimal_plan(x, x, torch.tensor([0.5, 0.6], dtype=F64)), "sum to 1"),
        (lambda x, w: optimal_plan(x, x, torch.tensor([1.0, 0.0], dtype=F64)), "leave the point"),
        (lambda x, w: optimal_plan(x, x, torch.tensor([2.0, -1.0], dtype=F64)), "nonnegative"),
        (lambda x, w: optimal_plan(x, x, torch.ones(1, dtype=F64)), "one weight per point|'a'"),
        (lambda x, w: optimal_plan(x, torch.zeros(2, 3, dtype=F64)), "shapes|'y'"),
    ],
)
def test_what_cannot_be_transported_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(torch.tensor([[0.0], [1.0]], dtype=F64), None)


# --- between Gaussians


def two(seed, d):
    return [(law.mean, law.cov) for law in (random_mixture(seed + k, d, 1) for k in (0, 1))]


@given(seeds, st.integers(1, 4))
def test_the_gaussian_map_is_that_of_another_library(seed, d):
    from ot.gaussian import bures_wasserstein_mapping

    (m, A), (k, B) = two(seed, d)
    matrix, shift = bures_wasserstein_mapping(*(v.numpy() for v in (m, k, A, B)))
    M, T = gaussian_map(m, A, k, B)
    x = cloud(seed, 5, d)
    assert torch.allclose(M, torch.from_numpy(matrix), rtol=1e-6, atol=1e-6)
    theirs = x @ torch.from_numpy(matrix) + torch.from_numpy(shift)
    assert torch.allclose(T(x), theirs, rtol=1e-5, atol=1e-5)


@given(seeds, st.integers(1, 4))
def test_the_gaussian_map_reaches_its_target_as_a_gradient(seed, d):
    """thm:brenier: symmetric, positive, and at the cost of the distance."""
    (m, A), (k, B) = two(seed, d)
    M, T = gaussian_map(m, A, k, B)
    eye = torch.eye(d, dtype=F64)
    assert torch.equal(M, M.mT) and torch.linalg.eigvalsh(M).min() > 0
    assert torch.allclose(M @ A @ M, B, rtol=1e-9, atol=1e-9)
    cost = (m - k).square().sum() + ((M - eye) @ A @ (M - eye)).trace()
    assert cost.sqrt().item() == pytest.approx(gaussian_wasserstein2(m, A, k, B), rel=1e-7)
    assert torch.allclose(T(m[None])[0], k)


def test_particles_of_the_gaussian_map_have_the_target_law(generator):
    (m, A), (k, B) = two(3, 2)
    _, T = gaussian_map(m, A, k, B)
    y = T(gaussian(m, A).sample(20_000, generator))
    u = torch.tensor([1.0, -0.7], dtype=F64)
    exact = (-0.5 * u @ B @ u).exp() * (u @ k).cos()
    expect(mean("thm:brenier", (y @ u).cos(), exact.item()))
    of_start = (-0.5 * u @ A @ u).exp() * (u @ k).cos()
    refute(mean("thm:brenier", (y @ u).cos(), of_start.item()), "missing term: M")


def test_the_gaussian_map_may_end_in_a_subspace_and_not_begin_there():
    zero, eye = torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    flat = torch.diag(torch.tensor([4.0, 0.0], dtype=F64))
    M, _ = gaussian_map(zero, eye, zero, flat)
    assert torch.allclose(M, torch.diag(torch.tensor([2.0, 0.0], dtype=F64)))
    with pytest.raises(ValueError, match="without zero eigenvalues, got .*exchange the two"):
        gaussian_map(zero, flat, zero, eye)
    with pytest.raises(ValueError, match="finite"):
        gaussian_map(zero * math.nan, eye, zero, eye)
