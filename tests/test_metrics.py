"""Distances between laws: closed forms, other libraries, and the floor beside an estimate."""

import math

import pytest
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, kl_divergence

from laws import F64, random_mixture
from onepath.measures import gaussian
from onepath.metrics import (
    beside_floor,
    energy_distance,
    gaussian_kernel,
    gaussian_kl,
    gaussian_wasserstein2,
    nearest,
    sliced_wasserstein2,
    square_root,
    squared_mmd,
    wasserstein2,
    wasserstein_line,
)
from onepath.verify import expect, refute, worst

seeds = st.integers(0, 10_000)


def cloud(seed: int, n: int, d: int, shift: float = 0.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=F64) + shift


def two_gaussians(seed: int, d: int):
    return [
        (law.mean, law.cov) for law in (random_mixture(seed, d, 1), random_mixture(~-seed, d, 1))
    ]


# --- optimal transport between samples


@given(seeds, st.integers(2, 30), st.integers(1, 5))
def test_exact_w2_is_that_of_the_best_assignment(seed, n, d):
    x, y = cloud(seed, n, d), cloud(seed + 1, n, d, shift=0.5)
    cost = torch.cdist(x, y).square().numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    assert wasserstein2(x, y) == pytest.approx(cost[rows, columns].mean() ** 0.5, rel=1e-9)


@given(seeds, st.integers(2, 30))
def test_exact_w2_on_the_line_matches_the_sorted_points(seed, n):
    x, y = cloud(seed, n, 1), 2 * cloud(seed + 1, n, 1)
    gaps = x[:, 0].sort().values - y[:, 0].sort().values
    assert wasserstein2(x, y) == pytest.approx(gaps.square().mean().sqrt().item(), rel=1e-9)


@given(seeds, st.integers(2, 20), st.integers(1, 4))
def test_exact_w2_is_a_distance(seed, n, d):
    x, y, z = (cloud(seed + k, n, d) for k in range(3))
    assert wasserstein2(x, x[torch.arange(n).flip(0)]) == pytest.approx(0, abs=1e-7)
    assert wasserstein2(x, y) == pytest.approx(wasserstein2(y, x), rel=1e-9)
    assert wasserstein2(x, z) <= wasserstein2(x, y) + wasserstein2(y, z) + 1e-9
    shift = torch.full((d,), 2.0, dtype=F64)
    assert wasserstein2(x, x + shift) == pytest.approx(2 * d**0.5, rel=1e-9)


def test_exact_w2_does_not_depend_on_where_the_origin_is():
    x, y = cloud(0, 40, 2), cloud(1, 40, 2)
    assert wasserstein2(x + 1e6, y + 1e6) == pytest.approx(wasserstein2(x, y), rel=1e-8)
    assert wasserstein2(x + 1e6, x + 1e6) < 1e-7


def test_exact_w2_of_gaussian_samples_approaches_that_of_the_gaussians(generator):
    a = gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    b = gaussian(
        torch.tensor([3.0, 0.0], dtype=F64), torch.diag(torch.tensor([4.0, 0.25])).double()
    )
    exact = math.sqrt(9 + 1 + 0.25)  # |m|² + (2-1)² + (1-½)²
    found = wasserstein2(a.sample(1000, generator), b.sample(1000, generator))
    assert abs(found - exact) < 0.15


def test_slicing_gives_the_length_of_a_shift_over_root_d(generator):
    x = cloud(3, 50, 4)
    shift = torch.tensor([1.0, -2.0, 0.5, 2.0], dtype=F64)
    found = sliced_wasserstein2(x, x + shift, 100_000, generator)
    assert found == pytest.approx(shift.norm().item() / 2, rel=0.01)


@given(seeds)
def test_slicing_is_that_of_another_library(seed):
    from ot import sliced_wasserstein_distance

    x, y = cloud(seed, 40, 3), 1.5 * cloud(seed + 1, 40, 3, shift=0.2)
    u = torch.randn(3, 25, generator=torch.Generator().manual_seed(seed), dtype=F64)
    u = (u / u.norm(dim=0)).numpy()
    theirs = sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=u)
    ours = sliced_wasserstein2(x, y, 25, torch.Generator().manual_seed(seed))
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_slicing_stays_below_the_exact_distance(generator):
    x, y = cloud(0, 200, 3), 2 * cloud(1, 200, 3, shift=1.0)
    assert sliced_wasserstein2(x, y, 2000, generator) < wasserstein2(x, y) / 3**0.5 * 1.02


# --- the line


def by_program(x, y, p, a=None, b=None):
    """The cost of the best plan, by linear programming, which does not sort."""
    a = a if a is not None else torch.full((len(x),), 1 / len(x), dtype=F64)
    b = b if b is not None else torch.full((len(y),), 1 / len(y), dtype=F64)
    cost = (x[:, None] - y).abs() ** p
    rows = torch.eye(len(x), dtype=F64).repeat_interleave(len(y), 1)
    columns = torch.eye(len(y), dtype=F64).repeat(1, len(x))
    found = scipy.optimize.linprog(
        cost.flatten(), A_eq=torch.cat([rows, columns]), b_eq=torch.cat([a, b]), method="highs"
    )
    return found.fun ** (1 / p)


@given(seeds, st.integers(1, 7), st.integers(1, 7), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_sorting_is_optimal_on_the_line(seed, n, m, p):
    """eq:w2-line."""
    x, y = cloud(seed, n, 1)[:, 0], 2 * cloud(seed + 1, m, 1, shift=0.3)[:, 0]
    assert wasserstein_line(x, y, p) == pytest.approx(by_program(x, y, p), rel=1e-6, abs=1e-9)


@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_weights_move_the_levels(seed, n, m):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(k, generator=g, dtype=F64) + 0.05 for k in (n, m))
    a, b = a / a.sum(), b / b.sum()
    x, y = cloud(seed, n, 1)[:, 0], cloud(seed + 1, m, 1)[:, 0]
    found = wasserstein_line(x, y, 2.0, a, b)
    assert found == pytest.approx(by_program(x, y, 2.0, a, b), rel=1e-6, abs=1e-9)


@given(seeds, st.integers(2, 60), st.integers(2, 60))
def test_w1_on_the_line_is_that_of_scipy(seed, n, m):
    x, y = cloud(seed, n, 1)[:, 0], cloud(seed + 1, m, 1)[:, 0]
    theirs = scipy.stats.wasserstein_distance(x.numpy(), y.numpy())
    assert wasserstein_line(x, y, p=1) == pytest.approx(theirs, rel=1e-9)
    assert wasserstein_line(x, y.flip(0), 1) == pytest.approx(wasserstein_line(y, x, 1), rel=1e-9)


def test_many_quantiles_give_the_distance_of_the_laws():
    """Exp(1) and Exp(2): the quantile functions are -log(1-u) and half of it, so W_2² = 1/2."""
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    x = -(1 - u).log()
    found = torch.tensor(wasserstein_line(x, 0.5 * x[::3], 2.0) ** 2, dtype=F64)
    expect(worst("eq:w2-line", found - 0.5, 1e-3))
    wrong = (x[: len(x[::3])] - 0.5 * x[::3]).square().mean()
    refute(worst("eq:w2-line", wrong - 0.5, 1e-3), "wrong object: other quantiles")


@pytest.mark.parametrize("p, exact", [(1.0, 0.01), (400.0, 0.01), (4000.0, 0.01)])
def test_a_shift_is_its_length_for_every_power(p, exact):
    """0.01 to the power of 400 is zero in float64; the distance is not."""
    x = torch.tensor([0.0, 1.0, 5.0], dtype=F64)
    assert wasserstein_line(x, x + 0.01, p) == pytest.approx(exact, rel=1e-9)
    assert wasserstein_line(x, x, p) == 0
    uneven = wasserstein_line(x[:2], torch.tensor([0.01, 6.0], dtype=F64), p)
    assert uneven == pytest.approx(5 * ((1 + 0.002**p) / 2) ** (1 / p), rel=1e-9)


def test_points_of_weight_zero_and_single_points_count_as_they_should():
    x, y = torch.tensor([0.0, 5.0], dtype=F64), torch.tensor([3.0], dtype=F64)
    none = torch.tensor([1.0, 0.0], dtype=F64)
    assert wasserstein_line(x, y, 2.0, none) == pytest.approx(3)
    assert wasserstein_line(y, y) == 0
    assert wasserstein_line(x, y, 1.0) == pytest.approx(2.5)
    assert wasserstein_line(x.float(), y.float(), 1.0) == pytest.approx(2.5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: wasserstein_line(x, x, 0.5), "1 <= p < inf, got p = 0.5"),
        (lambda x: wasserstein_line(x, x, math.inf), "1 <= p < inf"),
        (lambda x: wasserstein_line(x, x * math.nan), "finite"),
        (lambda x: wasserstein_line(x, x[:0]), "one point or more"),
        (
            lambda x: wasserstein_line(x, x, a=torch.ones(2, dtype=F64) / 2),
            "one weight per point|a",
        ),
        (lambda x: wasserstein_line(x, x, b=torch.ones(3, dtype=F64)), "sum to 1"),
    ],
)
def test_what_is_no_distance_on_the_line_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(torch.tensor([0.0, 1.0, 2.0], dtype=F64))


# --- kernels


@given(seeds, st.integers(2, 40), st.integers(2, 40))
def test_the_energy_distance_on_the_line_is_that_of_scipy(seed, n, m):
    """scipy counts pairs of a point with itself; with them put back the two must agree."""
    x, y = cloud(seed, n, 1), cloud(seed + 1, m, 1, shift=0.7)
    within = lambda a: torch.cdist(a, a).sum().item() / len(a) ** 2
    biased = energy_distance(x, y) + within(x) / (n - 1) + within(y) / (m - 1)
    theirs = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert biased == pytest.approx(theirs, abs=1e-9)


def test_the_energy_distance_has_no_bias(generator):
    """Equal laws: zero on average. Shifted normals on the line: the closed form."""
    pairs = [(torch.randn(2, 8, 1, generator=generator, dtype=F64)) for _ in range(800)]
    same = torch.tensor([energy_distance(x, y) for x, y in pairs])
    assert same.mean().abs() < 4 * same.std() / len(same) ** 0.5
    moved = torch.tensor([energy_distance(x, y + 1) for x, y in pairs])
    # E|N(m, 2)| = 2/√π e^{-m²/4} + m erf(m/2)
    apart = 2 / math.sqrt(math.pi) * math.exp(-1 / 4) + math.erf(0.5)
    exact = 2 * apart - 2 * 2 / math.sqrt(math.pi)
    assert (moved.mean() - exact).abs() < 4 * moved.std() / len(moved) ** 0.5


def test_mmd_of_gaussians_has_its_closed_form(generator):
    """E k(X, Y) = w / √(w² + 2) · exp(-m² / 2(w² + 2)) for unit normals m apart."""
    w, m = 0.8, 1.5
    pairs = [torch.randn(2, 10, 1, generator=generator, dtype=F64) for _ in range(800)]
    found = torch.tensor([squared_mmd(x, y + m, gaussian_kernel(w)) for x, y in pairs])
    s = w**2 + 2
    exact = 2 * w / math.sqrt(s) * (1 - math.exp(-(m**2) / (2 * s)))
    assert (found.mean() - exact).abs() < 4 * found.std() / len(found) ** 0.5


def test_the_gaussian_kernel_is_one_at_zero_and_falls_with_its_width():
    x = torch.tensor([[0.0], [2.0]], dtype=F64)
    assert gaussian_kernel(2.0)(x, x)[0].tolist() == pytest.approx([1, math.exp(-0.5)])
    assert gaussian_kernel(1.0)(x, x)[0, 1].item() == pytest.approx(math.exp(-2))


def test_nearest_points_are_the_nearest():
    x = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    among = torch.tensor([[4.0, 5.0], [3.0, 4.0], [0.0, 2.0]])
    distance, index = nearest(x, among)
    assert distance.tolist() == [2.0, 1.0] and index.tolist() == [2, 0]


# --- between Gaussians


@given(seeds, st.integers(1, 4))
def test_gaussian_kl_is_that_of_torch(seed, d):
    (m, A), (k, B) = two_gaussians(seed, d)
    exact = kl_divergence(MultivariateNormal(m, A), MultivariateNormal(k, B)).item()
    assert gaussian_kl(m, A, k, B) == pytest.approx(exact, rel=1e-9)


@given(seeds, st.integers(1, 4))
def test_gaussian_w2_is_that_of_another_library(seed, d):
    from ot.gaussian import bures_wasserstein_distance

    (m, A), (k, B) = two_gaussians(seed, d)
    theirs = bures_wasserstein_distance(*(a.numpy() for a in (m, k, A, B)))
    assert gaussian_wasserstein2(m, A, k, B) == pytest.approx(float(theirs), rel=1e-6)


def test_gaussian_w2_accepts_points_and_commuting_covariances():
    zero, m = torch.zeros(2, dtype=F64), torch.tensor([3.0, 4.0], dtype=F64)
    none = torch.zeros(2, 2, dtype=F64)
    assert gaussian_wasserstein2(zero, none, m, none) == pytest.approx(5)
    A, B = (torch.diag(torch.tensor(v, dtype=F64)) for v in ([4.0, 9.0], [1.0, 1.0]))
    assert gaussian_wasserstein2(zero, A, zero, B) == pytest.approx(5**0.5)
    assert gaussian_wasserstein2(zero, A, zero, A) == pytest.approx(0, abs=1e-6)


@given(seeds, st.integers(1, 5))
def test_the_symmetric_root_is_symmetric_and_a_root(seed, d):
    C = random_mixture(seed, d, 1).cov
    root = square_root(C)
    assert torch.allclose(root, root.mT, atol=1e-12) and torch.allclose(root @ root, C, atol=1e-12)
    assert torch.linalg.eigvalsh(root).min() > 0


def test_gaussian_w2_catches_the_mistakes_that_people_make():
    """eq:w2-gaussian, for matrices of size two, where traces of roots need no eigenvectors."""
    A = torch.tensor([[2.0, 0.9], [0.9, 0.5]], dtype=F64)
    B = torch.tensor([[0.4, -0.5], [-0.5, 1.0]], dtype=F64)
    m = torch.tensor([0.5, -1.0], dtype=F64)
    both = A @ B
    cross = (both.trace() + 2 * torch.linalg.det(both).sqrt()).sqrt()
    exact = m @ m + (A + B).trace() - 2 * cross
    residual = lambda found: worst("eq:w2-gaussian", torch.as_tensor(found, dtype=F64) - exact)
    expect(residual(gaussian_wasserstein2(m, A, 0 * m, B) ** 2))
    roots = (square_root(A) @ square_root(B)).trace()
    refute(residual(m @ m + (A + B).trace() - 2 * roots), "wrong object: root of A times that of B")
    refute(residual(m @ m + (A + B).trace() - cross), "factor: the root once")


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_close_gaussians_keep_their_digits(gap):
    """Standard deviations that differ by a gap are a gap apart; a trace would cancel to nothing."""
    stds = torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    zero, A = torch.zeros(3, dtype=F64), torch.diag(stds**2)
    B = torch.diag((stds + gap) ** 2)
    assert gaussian_wasserstein2(zero, A, zero, B) == pytest.approx(gap * 3**0.5, rel=1e-5)
    assert gaussian_wasserstein2(zero, A, zero, A) < 1e-12


def test_singular_covariances_have_their_exact_distance():
    """A law on a line against one on another: projections of one normal variable, or none."""
    m = torch.zeros(2, dtype=F64)
    on = lambda x, y: torch.tensor([[x * x, x * y], [x * y, y * y]], dtype=F64)
    # N(0, aaᵀ) and N(0, bbᵀ): |a|² + |b|² − 2|a·b|
    found = gaussian_wasserstein2(m, on(1.0, 0.0), m, on(1.0, 2.0))
    assert found == pytest.approx((1 + 5 - 2) ** 0.5, rel=1e-7)
    assert gaussian_wasserstein2(m, on(1.0, 0.0), m, on(0.0, 1.0)) == pytest.approx(2**0.5)
    assert gaussian_wasserstein2(m, on(1.0, 2.0), m, 0 * on(1.0, 1.0)) == pytest.approx(5**0.5)


# --- beside its floor


def test_an_estimate_stands_beside_the_distance_of_real_data_from_themselves(generator):
    real, more, close, far = (cloud(k, 200, 8) for k in range(4))
    good = beside_floor(wasserstein2, close, real, more)
    bad = beside_floor(wasserstein2, far + 1, real, more)
    assert good.floor == bad.floor == wasserstein2(more, real) > 1
    assert good.value < 1.1 * good.floor and bad.value > 1.4 * bad.floor
    assert str(good) == f"{good.value:.3g} (floor {good.floor:.3g})"


# --- bad input


@pytest.mark.parametrize("distance", [wasserstein2, energy_distance])
@pytest.mark.parametrize(
    "x, y, message",
    [
        (torch.zeros(3, 2), torch.zeros(3, 3), r"got \(3, 2\) and \(3, 3\)|parameter 'y'"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "two points or more"),
        (torch.full((3, 2), math.nan), torch.zeros(3, 2), "finite"),
        (torch.zeros(3, 2), torch.full((3, 2), math.inf), "diverged"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(distance, x, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        distance(x, y)


def test_slices_of_samples_of_two_dtypes_are_refused(generator):
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="share a dtype, got torch.float32 and torch.float64"):
        sliced_wasserstein2(x, x.double(), 5, generator)


def test_what_pairs_points_wants_as_many_of_each(generator):
    x, y = torch.zeros(3, 2), torch.zeros(4, 2)
    with pytest.raises(ValueError, match="got 3 and 4; cut"):
        wasserstein2(x, y)
    with pytest.raises(ValueError, match="got 3 and 4; cut"):
        sliced_wasserstein2(x, y, 10, generator)
    with pytest.raises(ValueError, match="got 3 sampled and 4 real"):
        beside_floor(energy_distance, x, y, y)
    with pytest.raises(ValueError, match="at least, got 0"):
        sliced_wasserstein2(x, x, 0, generator)
    assert sliced_wasserstein2(x, x + 1, 1, generator) > 0
    with pytest.raises((ValueError, TypeError), match="one dimension d|parameter 'among'"):
        nearest(x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="positive width"):
        gaussian_kernel(0.0)


@pytest.mark.parametrize(
    "cov, message",
    [
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "no negative eigenvalue, got -1"),
    ],
)
def test_covariances_that_are_none_are_refused(cov, message):
    m, eye, C = torch.zeros(2), torch.eye(2), torch.tensor(cov)
    for distance in (gaussian_kl, gaussian_wasserstein2):
        with pytest.raises(ValueError, match=message):
            distance(m, eye, m, C)


@pytest.mark.parametrize("distance", [gaussian_kl, gaussian_wasserstein2])
def test_gaussians_that_are_not_finite_or_of_one_space_are_refused(distance):
    m, eye = torch.zeros(2), torch.eye(2)
    for arguments in ((m * math.nan, eye, m, eye), (m, eye, m, math.inf * torch.ones(2, 2))):
        with pytest.raises(ValueError, match="means and covariances must be finite"):
            distance(*arguments)
    with pytest.raises((ValueError, TypeError), match=r"means are \(d,\)|mean_b|cov_b"):
        distance(m, eye, torch.zeros(3), torch.eye(3))


def test_kl_refuses_a_singular_covariance():
    m, C = torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="positive definite"):
        gaussian_kl(m, torch.eye(2), m, C)
