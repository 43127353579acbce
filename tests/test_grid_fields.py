"""Fields read off a grid: interpolation is exact for what is linear, and a score is a score."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, scalar
from onepath.grid_fields import interpolate, score_field
from onepath.grids import Grid, box
from onepath.verify import expect, order, refute, worst

LIKE = torch.zeros((), dtype=F64)
TIMES = torch.tensor([0.0, 0.25, 1.0], dtype=F64)


@given(st.integers(1, 2), st.integers(1, 5), st.integers(0, 1000))
def test_interpolation_is_exact_for_products_of_linear_functions(dim, n, seed):
    generator = torch.Generator().manual_seed(seed)
    grid = Grid((torch.linspace(-1, 2, 7, dtype=F64), torch.linspace(0, 3, 5, dtype=F64))[:dim])
    form = lambda x: torch.stack([2 * x[:, 0] - 1, (1 + x[:, 0]) * (3 - x[:, -1])], 1)
    values = form(grid.points).reshape(*grid.shape, 2)
    low = torch.tensor([-1.0, 0.0], dtype=F64)[:dim]
    x = low + 3 * torch.rand(n, dim, generator=generator, dtype=F64)
    if dim == 1:  # a product is linear in each coordinate, so here only the first column is
        values, form = values[..., :1], lambda x: 2 * x - 1
    assert torch.allclose(interpolate(grid, values, x), form(x), atol=1e-12)


def test_interpolation_hits_the_centres_and_is_constant_outside():
    grid = box(0, 4, 4, LIKE)
    values = torch.tensor([1.0, 5.0, 2.0, 7.0], dtype=F64)
    x = torch.tensor([[0.5], [1.5], [3.5], [1.0], [-9.0], [99.0]], dtype=F64)
    assert interpolate(grid, values, x).tolist() == pytest.approx([1, 5, 7, 3, 1, 7])


def test_a_square_grid_does_not_exchange_its_axes():
    grid = box(0, 4, 4, LIKE, dim=2)
    values = (10 * grid.points[:, 0] + grid.points[:, 1]).reshape(4, 4)
    x = torch.tensor([[0.5, 3.5], [1.2, 2.9]], dtype=F64)
    assert interpolate(grid, values, x).tolist() == pytest.approx([8.5, 14.9])


def gaussian_heights(t, x, m=0.3):
    """A Gaussian whose variance grows, up to its constant."""
    v = 1 + t
    return torch.exp(-((x - m) ** 2).sum(1) / (2 * v))


@pytest.mark.parametrize("dim", [1, 2])
def test_the_score_of_a_gaussian_is_linear(dim):
    """Central differences of a quadratic are exact; only the last centres are one-sided."""
    grid = box(-3, 3, 20, LIKE, dim)
    p = torch.stack([gaussian_heights(t, grid.points).reshape(grid.shape) for t in TIMES])
    score = score_field(grid, TIMES, p)
    x = torch.linspace(-2.4, 2.4, 11, dtype=F64)[:, None].repeat(1, dim)
    x[:, -1] = x[:, -1] ** 2 / 3
    for t, v in ((0.0, 1.0), (0.25, 1.25), (1.0, 2.0)):
        expect(worst("eq:current-velocity", score(scalar(t), x) + (x - 0.3) / v))
    refute(worst("eq:current-velocity", score(scalar(1.0), x) + (x - 0.3)), "clock: the first time")
    middle = score(scalar(0.55), x)  # 40 % of the way between two times
    between = -(x - 0.3) * (0.6 / 1.25 + 0.4 / 2.0)
    expect(worst("eq:current-velocity", middle - between))


def test_the_error_of_the_score_is_of_second_order():
    density = lambda x: torch.exp(-(x[:, 0] ** 4) / 4 + x[:, 0].sin())
    exact = lambda x: -(x**3) + x.cos()
    x = torch.linspace(-1.4, 1.4, 2001, dtype=F64)[:, None]
    widths, errors, halves = [], [], []
    for n in (30, 60, 120):
        grid = box(-3, 3, n, LIKE)
        p = density(grid.points)
        score = score_field(grid, TIMES[:2], torch.stack([p, p]))(scalar(0.1), x)
        widths.append(6 / n)
        errors.append((score - exact(x)).abs().max().item())
        halves.append((score / 2 - exact(x)).abs().max().item())
    expect(order("eq:current-velocity", widths, errors, 2))
    refute(order("eq:current-velocity", widths, halves, 2), "factor: half the score")


@pytest.mark.parametrize("dim", [1, 2])
def test_the_error_of_the_score_averages_out_over_cells(dim):
    """Over whole cells the mean error is of order 4, that of plain slopes of order 2."""
    height = lambda x: (x.sin().prod(1) - (x**4).sum(1) / 4).exp()
    exact = lambda x: x.cos() * (x.sin().flip(1) if dim == 2 else 1) - x**3
    gauss, sizes, errors, plain = torch.tensor([-1.0, 1.0]).double() / 12**0.5, [], [], []
    for n in (20, 40, 80):
        grid = box(-3, 3, n, LIKE, dim)
        p = torch.stack([height(grid.points).reshape(grid.shape)] * 2)
        centres = grid.axes[0][2 * n // 5 : 7 * n // 10]
        nodes = (centres[:, None] + (0.5 + gauss) * 6 / n).flatten()  # two from centre to centre
        inside = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
        slopes = torch.gradient(p[0].log(), spacing=list(grid.widths))
        raw = interpolate(grid, torch.stack(slopes, -1), inside)
        found = score_field(grid, TIMES[:2], p)(scalar(0.1), inside)
        sizes.append(6 / n)
        errors.append((found - exact(inside)).mean(0).abs())
        plain.append((raw - exact(inside)).mean(0).abs())
    for k in range(dim):
        gap = lambda e, k=k: order("eq:current-velocity", sizes, [v[k].item() for v in e], 4)
        expect(gap(errors))
        refute(gap(plain), "missing term: what linear interpolation adds")


def test_times_outside_are_answered_by_the_nearest():
    grid = box(-3, 3, 20, LIKE)
    p = torch.stack([gaussian_heights(t, grid.points) for t in TIMES])
    score = score_field(grid, TIMES, p)
    x = torch.tensor([[0.7]], dtype=F64)
    assert torch.equal(score(scalar(-1.0), x), score(scalar(0.0), x))
    assert torch.equal(score(scalar(2.0), x), score(scalar(1.0), x))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, 2])
def test_each_particle_may_have_its_own_time(n, dim, generator):
    grid = box(-3, 3, 5, LIKE, dim)  # n = d and n = the number of cells occur
    p = torch.rand(3, *grid.shape, generator=generator, dtype=F64) + 0.1
    score = score_field(grid, TIMES, p)
    x = torch.randn(n, dim, generator=generator, dtype=F64)
    t = torch.rand(n, generator=generator, dtype=F64)
    loop = torch.cat([score(t[i], x[i : i + 1]) for i in range(n)])
    assert score(t, x).shape == x.shape
    expect(worst("eq:current-velocity", score(t, x) - loop))
    refute(worst("eq:current-velocity", score(t + 0.1, x) - loop), "clock: late")


def test_times_closer_than_single_precision_are_told_apart():
    grid = box(-3, 3, 20, torch.zeros((), dtype=torch.float32))
    times = 1000 + torch.tensor([0.0, 1e-6, 2e-6], dtype=F64)
    p = torch.stack([gaussian_heights(v, grid.points) for v in (0.0, 1.0, 2.0)])
    x = torch.tensor([[0.7]], dtype=torch.float32)
    found = score_field(grid, times, p)(times[1], x)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(-0.2, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
def test_where_a_density_is_not_positive_there_is_no_score(value):
    p = torch.ones(3, 20, dtype=F64)
    p[1, 7] = value
    with pytest.raises(ValueError, match="a score needs a positive density, got least value"):
        score_field(box(-3, 3, 20, LIKE), TIMES, p)


@pytest.mark.parametrize(
    "times, shape, message",
    [
        (TIMES, (3, 21), r"one value per time and cell, \(3, 20\), got \(3, 21\)"),
        (TIMES[:1], (1, 20), "times are two or more and increase"),
        (TIMES[[0, 0, 1]], (3, 20), "times are two or more and increase"),
        (TIMES * torch.nan, (3, 20), "times are two or more and increase"),
    ],
)
def test_a_density_belongs_to_each_time(times, shape, message):
    with pytest.raises(ValueError, match=message):
        score_field(box(-3, 3, 20, LIKE), times, torch.ones(shape, dtype=F64))


def test_points_and_times_are_numbers_and_fit():
    grid = box(-3, 3, 20, LIKE, dim=2)
    score = score_field(grid, TIMES, torch.ones(3, 20, 20, dtype=F64))
    x = torch.zeros(3, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"shape \(\) or \(n,\) = \(3,\) and is no nan"):
        score(scalar(float("nan")), x)
    for bad in (x[:, :1], x * torch.nan):
        with pytest.raises(ValueError, match="points have 2 coordinates, one for each axis"):
            score(scalar(0.5), bad)
        with pytest.raises(ValueError, match="points have 2 coordinates, one for each axis"):
            interpolate(grid, grid.points[:, 0].reshape(20, 20), bad)
    assert score(scalar(0.5), x + torch.inf).isfinite().all()
    with pytest.raises(ValueError, match=r"a value for each cell, \(20, 20\), got shape \(400,\)"):
        interpolate(grid, grid.points[:, 0], x)


def test_dtype_and_device_follow_the_densities(device):
    grid = box(-3, 3, 20, torch.zeros((), device=device), dim=2)
    p = torch.ones(3, 20, 20, device=device)
    score = score_field(grid, TIMES, p)(
        torch.tensor(0.3, dtype=F64), torch.zeros(5, 2, device=device)
    )
    assert score.dtype == torch.float32 and score.device.type == device.type
    assert score.shape == (5, 2)
