"""The named laws of the plane: where they are, how wide, and that their densities sum to one."""

import math

import pytest
import torch

from laws import F64
from onepath.calculus import gradient
from onepath.plane import Checkerboard, eight_gaussians, rings, two_moons, two_spirals

LAWS = {
    "eight Gaussians": eight_gaussians(),
    "two moons": two_moons(),
    "rings": rings(),
    "two spirals": two_spirals(),
}
side = torch.linspace(-3.5, 3.5, 201, dtype=F64)
GRID, CELL = torch.cartesian_prod(side, side), (side[1] - side[0]).item() ** 2


@pytest.mark.parametrize("name", LAWS)
def test_a_named_law_is_centred_and_normalised(name):
    law = LAWS[name]
    density = law.log_prob(GRID).exp() * CELL
    assert density.sum().item() == pytest.approx(1, abs=1e-6)
    assert law.mean.abs().max() < 1e-9
    second = (density[:, None] * GRID**2).sum(0)
    assert torch.allclose(second, law.cov.diagonal(), atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_moments_of_the_law(name, generator):
    x = LAWS[name].sample(4000, generator)
    error = (x.square().mean(0) - LAWS[name].cov.diagonal()) / (x.square().std(0) / 4000**0.5)
    assert error.abs().max() < 4


def test_islands_lie_evenly_on_a_circle():
    law = eight_gaussians(radius=3.0, width=0.1)
    assert torch.allclose(law.means.norm(dim=1), torch.full((8,), 3.0, dtype=F64))
    gap = law.means - law.means.roll(-1, 0)
    assert torch.allclose(gap.norm(dim=1), torch.full((8,), 6 * math.sin(math.pi / 8), dtype=F64))
    assert law.covs[0, 0, 0].item() == pytest.approx(0.01)
    assert torch.allclose(law.means[0], torch.tensor([3.0, 0.0], dtype=F64))


def test_moons_are_half_circles_that_interlock():
    law = two_moons(width=0.05)
    centre = torch.tensor([-0.5, -0.25], dtype=F64)
    upper, lower = law.means[:64], law.means[64:]
    assert torch.allclose((upper - centre).norm(dim=1), torch.ones(64, dtype=F64))
    assert torch.allclose((lower + centre).norm(dim=1), torch.ones(64, dtype=F64))
    assert (upper[:, 1] > centre[1]).all() and (lower[:, 1] < -centre[1]).all()
    assert torch.allclose(lower, -upper)
    assert (upper - centre)[:, 0].sum().abs() < 1e-9  # the points lie evenly on both sides


@pytest.mark.parametrize("radius, other", [(1.0, 1.5), (2.0, 1.5)])
def test_a_ring_is_a_ring_and_not_beads(radius, other):
    """Along the ring the density does not change; between the rings it is small."""
    angle = torch.linspace(0, 6.0, 97, dtype=F64)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    on = rings().log_prob(radius * circle)
    assert (on - on.mean()).abs().max() < 0.05
    assert on.mean() > rings().log_prob(other * circle).max() + 3


def test_spirals_wind_as_often_as_they_are_told():
    law = two_spirals(turns=2.0)
    arm = law.means[:96]
    assert torch.allclose(law.means[96:], -arm)
    radius, angle = arm.norm(dim=1), torch.atan2(arm[:, 1], arm[:, 0])
    turned = (radius - 0.25) / 2 * 2.0 * 2 * math.pi
    assert ((angle - turned + math.pi) % (2 * math.pi) - math.pi).abs().max() < 1e-9
    gaps = arm.diff(dim=0).norm(dim=1)
    assert gaps.max() / gaps.min() < 1.05
    assert radius[0] < 0.35 and radius[-1] > 2.2


def test_the_checkerboard_is_uniform_on_its_dark_squares(generator):
    board = Checkerboard(squares=4, side=1.0)
    x = board.sample(8000, generator)
    cells = (x.floor() + 2).long()
    assert ((cells.sum(1) % 2) == 0).all() and x.abs().max() <= 2
    counts = torch.bincount(4 * cells[:, 0] + cells[:, 1], minlength=16).double()
    dark = counts[counts > 0]
    assert len(dark) == 8 and ((dark - 1000).abs() < 4 * (8000 * 7 / 64) ** 0.5).all()
    within = (x - x.floor()).mean(0)
    assert ((within - 0.5).abs() < 4 * (1 / 12 / 8000) ** 0.5).all()
    assert board.log_prob(x).unique().tolist() == pytest.approx([-math.log(8)])


def test_the_checkerboard_has_mass_one_and_none_elsewhere():
    board = Checkerboard(squares=6, side=0.5)
    middle = torch.linspace(-1.975, 1.975, 80, dtype=F64)
    grid = torch.cartesian_prod(middle, middle)
    density = board.log_prob(grid).exp()
    assert (density.sum() * 0.05**2).item() == pytest.approx(1)
    assert (density[grid.abs().amax(1) > 1.5] == 0).all()
    low = board.log_prob(torch.tensor([[-1.4, -1.4], [-1.4, -0.9], [1.4, 1.4]], dtype=F64))
    assert low.isfinite().tolist() == [True, False, True]
    inside = torch.full((1, 2), 0.1, dtype=F64)
    zero = torch.zeros((), dtype=F64)
    assert torch.equal(gradient(lambda t, x: board.log_prob(x), zero, inside), 0 * inside)


@pytest.mark.parametrize("x", [torch.zeros(4, 3), torch.full((1, 2), math.nan)])
def test_points_that_lie_on_no_board_are_refused(x):
    with pytest.raises(ValueError, match="points of a board are"):
        Checkerboard().log_prob(x)


@pytest.mark.parametrize("squares, size", [(3, 1.0), (0, 1.0), (4, 0.0), (4, math.nan)])
def test_a_board_that_is_none_is_refused(squares, size):
    with pytest.raises(ValueError, match="even number of squares and a positive side"):
        Checkerboard(squares, size)


@pytest.mark.parametrize(
    "name, parts, reach, width",
    [
        ("eight Gaussians", 8, 2.0, 0.2),
        ("two moons", 128, 1.517, 0.1),
        ("rings", 128, 2.0, 0.1),
        ("two spirals", 192, 2.244, 0.1),
    ],
)
def test_unless_told_otherwise_the_laws_have_these_sizes(name, parts, reach, width):
    law = LAWS[name]
    assert len(law.means) == parts
    assert torch.allclose(law.weights, torch.full((parts,), 1 / parts, dtype=F64))
    assert law.means.norm(dim=1).max().item() == pytest.approx(reach, abs=1e-3)
    assert torch.allclose(law.covs, width**2 * torch.eye(2, dtype=F64).repeat(parts, 1, 1))
