"""Claims of chapter 14 about where steps lie."""

import math
from pathlib import Path

import pytest
import torch

from laws import BASE, F64, NOISING, TARGET, scalar
from onepath.calculus import constant
from onepath.dynamics import Dynamics
from onepath.interpolants import bridge, cosine, edm, half_log_snr, linear, variance_exploding
from onepath.measures import Mixture
from onepath.multisteps import adams
from onepath.oracles import MixturePath
from onepath.samplers import ddim
from onepath.solvers import euler, heun, integrate, times
from onepath.time_grids import (
    end_to_end,
    karras,
    optimised,
    time_at,
    uniform_in_linear_time,
    uniform_in_log_snr,
    whole_run,
)
from onepath.verify import expect, refute, worst

SCHEDULES = NOISING | {"cosine": cosine(), "EDM": edm(0.0)}
every = pytest.mark.parametrize("name", SCHEDULES)


@every
def test_the_time_of_a_half_log_snr_is_its_inverse(name):
    path, t = SCHEDULES[name], times(40, 0.01, 0.99)
    ours = time_at(path, half_log_snr(path, t))
    expect(worst("eq:grid", ours - t))
    refute(worst("eq:grid", time_at(path, half_log_snr(path, t) - 0.01) - t), "missing term: 0.01")


def test_on_the_linear_path_the_inverse_is_the_logistic_function():
    lam = torch.linspace(-30, 30, 61, dtype=F64)
    expect(worst("eq:grid", time_at(linear, lam) - lam.sigmoid(), 1e-15))
    assert time_at(linear, torch.tensor([-math.inf, math.inf], dtype=F64)).tolist() == [0, 1]


@every
def test_steps_are_equal_in_the_clock_of_their_grid(name):
    path = SCHEDULES[name]
    lam = half_log_snr(path, uniform_in_log_snr(path, 9, 0.02, 0.97))
    expect(worst("eq:grid", lam.diff() - (lam[-1] - lam[0]) / 9))
    for rho in (1.0, 7.0):
        grid = karras(path, 9, 0.02, 0.97, rho)
        root = (-half_log_snr(path, grid) / rho).exp()
        assert grid[0] == 0.02 and grid[-1] == 0.97 and karras(path, 9, 0.02, 1.0, rho)[-1] == 1
        expect(worst("eq:grid", root.diff() - (root[-1] - root[0]) / 9))
        refute(worst("eq:grid", lam.diff() - root.diff()), "clock: another grid")


def test_edms_grid_is_uniform_on_its_own_path():
    path = edm(0.002, 80.0, 7.0)
    expect(worst("eq:grid", karras(path, 10, 0.0, 1.0) - times(10)))
    ve = variance_exploding()
    expect(worst("eq:grid", uniform_in_log_snr(ve, 10, 0.0, 1.0) - times(10)))
    refute(worst("eq:grid", karras(ve, 10, 0.0, 1.0) - times(10)), "clock: of another schedule")


@every
def test_a_run_from_end_to_end_is_even_in_lambda_but_for_one_step_at_either_end(name):
    path = SCHEDULES[name]
    first, last = half_log_snr(path, times(1)).clamp(-5, 7).tolist()
    low, high = 0.7 * first + 0.3 * last, 0.2 * first + 0.8 * last
    grid = end_to_end(path, 9, low, high)
    inside = half_log_snr(path, grid[1:-1])
    assert len(grid) == 10 and grid[0] == 0 and grid[-1] == 1 and grid.dtype == F64
    even = torch.tensor([low + k * (high - low) / 7 for k in range(8)], dtype=F64)
    expect(worst("eq:grid", inside - even))
    refute(worst("eq:grid", grid[1:-1] - time_at(path, even + 0.01)), "clock: another λ")


def test_where_a_path_begins_or_ends_inside_no_step_is_added():
    ve = variance_exploding()  # its half log-SNR is affine in t, from below -2.2 to log 100
    assert end_to_end(ve, 8, low=-50.0, high=50.0).tolist() == pytest.approx(times(8).tolist())
    late = end_to_end(ve, 8, low=0.0, high=50.0)
    expect(worst("eq:grid", late[1:] - times(7, late[1].item(), 1.0)))
    early = end_to_end(ve, 8, low=-50.0, high=0.0)
    expect(worst("eq:grid", early[:-1] - times(7, 0.0, early[-2].item())))
    refute(worst("eq:grid", early - times(8)), "missing term: the last step")


def test_by_default_the_ends_are_met_where_the_linear_path_meets_them():
    grid = end_to_end(linear, 6)
    near = torch.cat([times(1)[:1], uniform_in_log_snr(linear, 4, 0.1, 0.99), times(1)[1:]])
    expect(worst("eq:grid", grid - near, 1e-3))
    same = half_log_snr(cosine(), end_to_end(cosine(), 6)[1:-1])
    expect(worst("eq:grid", half_log_snr(linear, grid[1:-1]) - same))
    refute(worst("eq:grid", end_to_end(cosine(), 6)[1:-1] - grid[1:-1]), "clock: t for λ")


@every
def test_steps_equal_in_linear_time_are_equal_in_the_share_of_the_signal(name):
    path = SCHEDULES[name]
    grid = uniform_in_linear_time(path, 7)
    share = path.alpha(grid) / (path.alpha(grid) + path.sigma(grid))
    expect(worst("eq:grid", share.diff() - (share[-1] - share[0]) / 7))
    assert whole_run(grid) is grid
    if name != "linear":
        refute(worst("eq:grid", grid - times(7)), "clock: t of this path")


def test_a_grid_from_end_to_end_needs_a_step_in_its_middle():
    for n, low, high in [(2, -2.2, 4.6), (5, 1.0, 0.5)]:
        with pytest.raises(ValueError, match="a run from end to end has a step between"):
            end_to_end(linear, n, low, high)
    with pytest.raises(ValueError, match="got n = 5 and 8 to 9 for"):
        end_to_end(edm(), 5, 8.0, 9.0)
    for make in (end_to_end, uniform_in_linear_time):
        with pytest.raises(ValueError, match="conversions between fields need"):
            make(bridge(0.5), 5)


@pytest.mark.parametrize("sharp, n", [(False, 6), (True, 20)])
@every
def test_the_recipe_of_the_page_how_to_choose_beats_ddim(name, sharp, n):
    page = Path(__file__).parents[1] / "book" / "how-to-choose.md"
    recipe = page.read_text("utf8").split("```python\n")[1].split("```")[0]
    variance = 0.002 if sharp else 0.3
    modes = torch.tensor([[-1.0], [1.0]], dtype=F64)
    weights, spread = (
        torch.tensor([0.4, 0.6], dtype=F64),
        torch.full((2, 1, 1), variance, dtype=F64),
    )
    path, s = MixturePath(SCHEDULES[name], Mixture(weights, modes, spread)), (1 + variance) ** 0.5
    start = path.sample(scalar(0), 200, torch.Generator().manual_seed(0))
    given = {"path": path, "denoiser": path.denoiser, "s": s, "sharp": sharp, "n": n}
    given["start"] = start
    exec(recipe, given)
    fine = integrate(adams(path.denoiser, path, 2, s), start, uniform_in_linear_time(path, 150))
    miss = lambda x: (x - fine).square().mean().sqrt().item()
    plain = integrate(ddim(path.denoiser, path), start, times(n))
    other = (uniform_in_linear_time if sharp else end_to_end)(path, n)
    swapped = integrate(adams(path.denoiser, path, 2 if sharp else 3, s), start, other)
    assert miss(given["samples"]) < 0.5 * miss(plain)
    assert miss(given["samples"]) < 1.05 * miss(swapped)  # on VE the two grids are nearly one


def test_a_grid_that_does_not_reach_both_ends_is_no_whole_run():
    assert whole_run(times(4)) is not None and whole_run(karras(edm(), 5, 0.0, 1.0))[-1] == 1
    late, early, part = times(10, 0.1, 1.0), times(10, 0.0, 0.9), times(10, 0.2, 0.8)
    for grid, ends in [(late, "0.1 to 1"), (early, "0 to 0.9"), (part, "0.2 to 0.8")]:
        with pytest.raises(ValueError, match=f"starts at 0 and ends at 1, got {ends}; add a step"):
            whole_run(grid)
    for grid, ends in [(times(4)[:1], "0 to 0"), (times(4)[:0], "no times")]:
        with pytest.raises(ValueError, match=f"starts at 0 and ends at 1, got {ends}"):
            whole_run(grid)
    for turned in ([0.0, 0.6, 0.4, 1.0], [0.0, 0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="the times of a run increase"):
            whole_run(torch.tensor(turned, dtype=F64))


@pytest.mark.parametrize("method, power", [(euler, 1), (heun, 2)])
def test_an_optimised_grid_has_equal_local_errors(method, power):
    """x' = f(t): Euler errs by h² f'/2, Heun by h³ f''/12; here both are multiples of t^4."""
    f = {1: lambda t: t**5, 2: lambda t: t**6}[power]
    step = method(Dynamics(lambda t, x: f(t) + 0 * x))
    ours = optimised(step, torch.zeros(1, 1, dtype=F64), times(400), 8, order=power)
    share = 4 / (power + 1) + 1  # the integral of t^(4 / (p + 1)), except where the floor is
    exact = torch.linspace(0, 1, 9, dtype=F64) ** (1 / share)
    expect(worst("eq:optimised-grid", ours[3:] - exact[3:], 0.01))
    refute(worst("eq:optimised-grid", ours[3:] - times(8)[3:], 0.01), "wrong object: equal steps")
    wrong = torch.linspace(0, 1, 9, dtype=F64) ** (1 / (4 / power + 1))
    refute(worst("eq:optimised-grid", ours[3:] - wrong[3:], 0.003), "factor: 1/p for 1/(p + 1)")


def test_a_pilot_compares_a_step_with_its_two_halves():
    seen = []

    def step(x, t, t_next, draw, memory):
        seen.append((t.item(), t_next.item()))
        return x + (t_next - t) ** 2, memory

    optimised(step, torch.zeros(1, 1, dtype=F64), times(2), 3)
    assert seen[:3] == [(0, 0.5), (0, 0.25), (0.25, 0.5)] and seen[3:] == [
        (0.5, 1),
        (0.5, 0.75),
        (0.75, 1),
    ]


def test_where_the_pilot_saw_no_error_steps_are_at_most_twenty_times_as_long():
    """x' = 0 and then 2t: the first half has a share of 1/21, one step of 21."""
    step = euler(Dynamics(lambda t, x: 2 * (t - 0.5).clamp(min=0) + 0 * x))
    ours = optimised(step, torch.zeros(3, 2, dtype=F64), times(100), 21)
    expect(worst("eq:optimised-grid", ours[1:] - times(20, 0.5, 1.0)))
    refute(worst("eq:optimised-grid", ours[1:] - times(21)[1:]), "wrong object: equal steps")


def test_no_neighbour_of_an_optimised_grid_has_less_local_error():
    f = lambda t: 1 / (1.1 - t)
    step = euler(Dynamics(lambda t, x: f(t) + 0 * x))
    local = lambda grid: (0.5 * grid.diff() ** 2 / (1.1 - 0.5 * (grid[1:] + grid[:-1])) ** 2).sum()
    ours = optimised(step, torch.zeros(1, 1, dtype=F64), times(1000), 40)
    for warp in (0.7, 0.9, 1.1, 1.4):
        assert local(ours) < local(1 - (1 - ours) ** warp)
        assert local(ours) < local(ours**warp)
    assert 1.2 * local(ours) < local(times(40))


def test_an_optimised_grid_needs_a_step_that_errs_and_draws_nothing():
    x, still = torch.zeros(2, 1, dtype=F64), Dynamics(lambda t, x: 1 + 0 * x)
    with pytest.raises(ValueError, match="makes no error"):
        optimised(euler(still), x, times(4), 2)
    with pytest.raises(ValueError, match="one that draws"):
        optimised(euler(Dynamics(still.drift, constant(1.0))), x, times(4), 2)
    for n, power, pilot in [(0, 1, times(4)), (2, 0, times(4)), (2, 1, times(4)[:1])]:
        with pytest.raises(ValueError, match="n >= 1 steps"):
            optimised(euler(still), x, pilot, n, power)


def test_grids_that_are_none_are_refused():
    for make in (uniform_in_log_snr, karras):
        for n, start, stop in [(0, 0.1, 0.9), (4, 0.9, 0.1), (4, -0.1, 0.9), (4, 0.1, 1.1)]:
            with pytest.raises(ValueError, match="n >= 1 steps"):
                make(linear, n, start, stop)
        with pytest.raises(ValueError, match="infinite at an end"):
            make(linear, 4, 0.0, 0.9)
        for path in (bridge(0.5), MixturePath(linear, TARGET, BASE)):
            with pytest.raises(ValueError, match="conversions between fields need"):
                make(path, 4, 0.1, 0.9)
    with pytest.raises(ValueError, match="infinite at an end"):
        uniform_in_log_snr(linear, 4, 0.1, 1.0)
    for rho in (0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="rho is at least 1"):
            karras(linear, 4, 0.1, 0.9, rho)
    with pytest.raises(ValueError, match="half log-SNRs from"):
        time_at(edm(), scalar(50.0))


def test_a_pilot_of_one_interval_knows_no_better_than_equal_steps():
    path = MixturePath(linear, TARGET)
    x, pilot = path.sample(scalar(0.1), 20, torch.Generator().manual_seed(0)), times(1, 0.1, 0.9)
    grid = optimised(ddim(path.denoiser, path), x, pilot, 4)
    expect(worst("eq:optimised-grid", grid - times(4, 0.1, 0.9)))
    two = optimised(ddim(path.denoiser, path), x, times(2, 0.1, 0.9), 4)
    refute(worst("eq:optimised-grid", two - times(4, 0.1, 0.9)), "wrong object: a finer pilot")


def test_a_grid_of_one_step_is_its_two_ends():
    ends = times(1, 0.1, 0.9)
    path = MixturePath(linear, TARGET)
    x = path.sample(scalar(0.1), 20, torch.Generator().manual_seed(0))
    made = [uniform_in_log_snr(linear, 1, 0.1, 0.9), karras(linear, 1, 0.1, 0.9)]
    for grid in [*made, optimised(ddim(path.denoiser, path), x, times(5, 0.1, 0.9), 1)]:
        expect(worst("eq:grid", grid - ends))
