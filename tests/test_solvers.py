"""Claims of chapter 6: what a step costs, its order, its noise, and what a run refuses."""

import math

import pytest
import scipy.integrate
import torch
import torchdiffeq
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, INTERPOLANTS, TARGET, points, random_mixture, scalar
from onepath.calculus import constant, zero
from onepath.dynamics import Dynamics, with_noise
from onepath.interpolants import linear
from onepath.oracles import MixturePath
from onepath.solvers import euler, exponential, heun, integrate, rk4, times, trajectory
from onepath.verify import expect, mean, order, refute, worst

STEPS = {"euler": euler, "heun": heun, "rk4": rk4}
CALLS = {"euler": 1, "heun": 2, "rk4": 4}
every = pytest.mark.parametrize("name", STEPS)
stochastic = pytest.mark.parametrize("name", ["euler", "heun"])
PATH = MixturePath(linear, TARGET)


def spin(t, x):
    """A field that depends on time and point, and is not linear."""
    return torch.stack([torch.sin(x[:, 1]) + t, t**2 * x[:, 0] - x[:, 1] ** 2 / 4], dim=1)


def no_noise():
    raise AssertionError("an ODE draws nothing")


# --- grids


@given(st.integers(1, 30), st.floats(0, 0.9), st.floats(0.05, 1.0))
def test_a_grid_has_equal_steps_and_states_its_ends(n, start, length):
    stop = min(1.0, start + length)
    grid = times(n, start, stop)
    assert grid.shape == (n + 1,) and grid.dtype == F64 and grid.device.type == "cpu"
    assert grid[0] == start and grid[-1] == stop
    assert grid.diff().numpy() == pytest.approx((stop - start) / n)


def test_a_grid_goes_from_base_to_target_unless_told():
    assert times(4).tolist() == [0, 0.25, 0.5, 0.75, 1] and times(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "n, start, stop",
    [(0, 0.0, 1.0), (-2, 0.0, 1.0), (4, 0.5, 0.5), (4, 0.7, 0.3)]
    + [(4, -0.1, 1.0), (4, 0.0, 1.1), (4, math.nan, 1.0)],
)
def test_a_grid_that_is_none_is_refused(n, start, stop):
    with pytest.raises(ValueError, match="n >= 1 steps and 0 <= start < stop <= 1, got n ="):
        times(n, start, stop)


# --- one step


@every
def test_a_step_calls_the_drift_as_often_as_it_says(name, generator):
    seen = []

    def drift(t, x):
        seen.append(t.item())
        return spin(t, x)

    x = points(3, generator)
    STEPS[name](Dynamics(drift))(x, scalar(0.25), scalar(0.75), no_noise, None)
    assert len(seen) == CALLS[name] and seen[0] == 0.25
    assert max(seen) == (0.25 if name == "euler" else 0.75)
    if name == "rk4":
        assert seen == [0.25, 0.5, 0.5, 0.75]


@every
def test_a_step_of_a_linear_equation_is_the_taylor_polynomial_of_its_order(name):
    A = torch.tensor([[0.2, -1.1], [0.9, -0.4]], dtype=F64)
    h = scalar(0.3)
    step = STEPS[name](Dynamics(lambda t, x: x @ A.T))
    exact, power, p = torch.eye(2, dtype=F64), torch.eye(2, dtype=F64), CALLS[name]
    for k in range(1, p + 1):
        power = power @ (h * A) / k
        exact = exact + power
    ours, memory = step(torch.eye(2, dtype=F64), scalar(0.1), 0.1 + h, no_noise, "kept")
    expect(worst(f"eq:{name}", ours.T - exact))
    refute(worst(f"eq:{name}", ours.T - exact + power / 2), "factor: half of the last term")
    assert memory == "kept"


@every
def test_a_step_of_pure_quadrature_is_the_rule_of_its_name(name):
    """dx/dt = f(t): the left end, the trapezoid, Simpson's rule."""
    f = lambda t: torch.exp(3 * t)
    t, s = scalar(0.2), scalar(0.7)
    step = STEPS[name](Dynamics(lambda t, x: f(t) + 0 * x))
    ours, _ = step(torch.zeros(1, 1, dtype=F64), t, s, no_noise, None)
    x = torch.tensor([0.2, 0.45, 0.7], dtype=F64)
    exact = {
        "euler": f(x[0]) * 0.5,
        "heun": scipy.integrate.trapezoid(f(x[[0, 2]]), x=x[[0, 2]]),
        "rk4": scipy.integrate.simpson(f(x), x=x),
    }
    expect(worst(f"eq:{name}", ours - exact[name]))
    refute(worst(f"eq:{name}", ours - f(s) * 0.5), "wrong object: the right end")


@pytest.mark.parametrize("name, method", [("euler", "euler"), ("heun", "heun2")])
def test_runs_agree_with_torchdiffeq_on_the_same_grid(name, method, generator):
    x, grid = points(5, generator, scale=1.0), times(7, 0.1, 0.9)
    theirs = torchdiffeq.odeint(spin, x, grid, method=method)
    ours = trajectory(STEPS[name](Dynamics(spin)), x, grid)
    expect(worst(f"eq:{name}", ours - theirs))
    refute(worst(f"eq:{name}", ours - theirs.flip(0)), "clock: the states backwards")


# --- orders


@every
def test_the_order_of_a_method_is_its_slope(name, generator):
    x, counts = points(16, generator, scale=1.0), [8, 16, 32, 64]
    by_scipy = scipy.integrate.solve_ivp(
        lambda t, y: spin(scalar(t), torch.from_numpy(y).reshape(-1, 2)).flatten().numpy(),
        (0, 1),
        x.flatten().numpy(),
        rtol=1e-12,
        atol=1e-12,
        method="DOP853",
    )
    exact = torch.from_numpy(by_scipy.y[:, -1]).reshape(-1, 2)

    def errors(step):
        runs = [integrate(step(Dynamics(spin)), x, times(n)) for n in counts]
        return [(run - exact).norm(dim=1).mean().item() for run in runs]

    sizes, expected = [1 / n for n in counts], {"euler": 1, "heun": 2, "rk4": 4}[name]
    expect(order(f"eq:{name}", sizes, errors(STEPS[name]), expected))
    other = heun if name == "euler" else euler
    refute(order(f"eq:{name}", sizes, errors(other), expected), "wrong object: another method")


def moments(step, grid) -> tuple[float, float]:
    """Exact mean and variance after a run of a linear SDE from 1, by feeding the step units."""
    m, v = 1.0, 0.0
    one, nil = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    for t, s in zip(grid[:-1], grid[1:]):
        shift = step(nil, t, s, lambda: nil, None)[0].item()
        factor = step(one, t, s, lambda: nil, None)[0].item() - shift
        spread = step(nil, t, s, lambda: one, None)[0].item() - shift
        m, v = shift + factor * m, factor**2 * v + spread**2
    return m, v


@stochastic
@pytest.mark.parametrize("eta", [constant(0.9), lambda t: 0.5 + t])
def test_the_weak_order_of_a_method_is_the_slope_of_its_moments(name, eta):
    """dX = (a_t X + 1) dt + eta_t dW: mean and variance solve equations that scipy solves."""
    a = lambda t: math.cos(2 * t)
    sde = Dynamics(lambda t, x: torch.cos(2 * t) * x + 1, eta)
    exact = scipy.integrate.solve_ivp(
        lambda t, y: [a(t) * y[0] + 1, 2 * a(t) * y[1] + eta(scalar(t)).item() ** 2],
        (0, 1),
        [1.0, 0.0],
        rtol=1e-11,
        atol=1e-12,
        method="DOP853",
    ).y[:, -1]
    counts = [10, 20, 40, 80]
    sizes, expected = [1 / n for n in counts], {"euler": 1, "heun": 2}[name]
    runs = lambda step: [moments(step(sde), times(n)) for n in counts]
    for i in (0, 1):
        errors = [abs(run[i] - exact[i]) for run in runs(STEPS[name])]
        expect(order(f"eq:{name}", sizes, errors, expected))
        other = heun if name == "euler" else euler
        wrong = [abs(run[i] - exact[i]) for run in runs(other)]
        refute(order(f"eq:{name}", sizes, wrong, expected), "wrong object: another method")


@stochastic
def test_noise_that_depends_on_time_adds_the_variance_of_its_rule(name):
    """Without drift: the left end of eta², or the trapezoid rule for its integral."""
    eta = lambda t: 0.4 + t
    step = STEPS[name](Dynamics(lambda t, x: 0 * x, eta))
    one = torch.ones(1, 1, dtype=F64)
    moved, _ = step(0 * one, scalar(0.1), scalar(0.5), lambda: one, None)
    squares = torch.tensor([0.5, 0.9], dtype=F64) ** 2
    exact = {"euler": 0.4 * squares[0], "heun": scipy.integrate.trapezoid(squares, [0.1, 0.5])}
    expect(worst(f"eq:{name}", moved**2 - exact[name]))
    refute(worst(f"eq:{name}", moved - exact[name]), "factor: the step in place of its root")


@stochastic
def test_heuns_noise_is_the_same_in_both_stages(name, generator):
    """Fed a known increment, the step is the deterministic one through the moved point."""
    xi, x, t, s = points(4, generator), points(4, generator), scalar(0.2), scalar(0.4)
    step = STEPS[name](Dynamics(spin, constant(0.6)))
    ours, _ = step(x, t, s, lambda: xi, None)
    noise = 0.6 * math.sqrt(0.2) * xi
    k1 = spin(t, x)
    exact = {
        "euler": x + 0.2 * k1 + noise,
        "heun": x + noise + 0.1 * (k1 + spin(s, x + 0.2 * k1 + noise)),
    }[name]
    expect(worst(f"eq:{name}", ours - exact))
    refute(worst(f"eq:{name}", ours - exact + noise), "missing term: the noise")


@stochastic
def test_increments_are_independent_with_variance_eta_squared_h(name, generator):
    """The law leg of the noise: over coordinates, samples and steps."""
    still = Dynamics(lambda t, x: 0 * x, constant(1.5))
    states = trajectory(STEPS[name](still), torch.zeros(10_000, 2, dtype=F64), times(4), generator)
    steps = states.diff(dim=0)
    variance = 1.5**2 / 4
    expect(mean(f"eq:{name}", steps[0, :, 0] ** 2, variance))
    expect(mean(f"eq:{name}", steps[3, :, 1] ** 2, variance))
    expect(mean(f"eq:{name}", steps[1, :, 0] * steps[2, :, 0], 0.0))
    expect(mean(f"eq:{name}", steps[1, :, 0] * steps[1, :, 1], 0.0))
    refute(mean(f"eq:{name}", steps[0, :, 0] ** 2, 1.5 / 4), "factor: eta in place of its square")
    refute(
        mean(f"eq:{name}", steps[1, :, 0] * steps[1, :, 0], 0.0),
        "wrong object: the same increment twice",
    )


# --- runs


@every
@given(
    n=st.integers(0, 4),
    d=st.integers(1, 3),
    m=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, F64, torch.bfloat16]),
)
def test_a_run_is_the_last_state_of_its_trajectory(name, n, d, m, dtype):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(n), dtype=F64).to(dtype)
    eta = zero if name == "rk4" else constant(0.5)
    step = STEPS[name](Dynamics(lambda t, x: t - x**2, eta))
    seeded = lambda: torch.Generator().manual_seed(3)
    states, last = trajectory(step, x, times(m), seeded()), integrate(step, x, times(m), seeded())
    assert states.shape == (m + 1, n, d) and states.dtype == last.dtype == dtype
    assert torch.equal(states[0], x) and torch.equal(states[-1], last)


@every
@pytest.mark.parametrize("interpolant", ["VP", "own latent noise"])
def test_a_run_of_a_batch_is_a_loop_of_runs(name, interpolant, generator):
    path, x = MixturePath(INTERPOLANTS[interpolant], TARGET), points(3, generator)
    step = STEPS[name](Dynamics(path.velocity))
    batch = integrate(step, x, times(5, 0.0, 0.95))
    rows = [integrate(step, x[[i]], times(5, 0.0, 0.95)) for i in range(3)]
    assert (batch - torch.cat(rows)).abs().max() < 1e-9 * batch.abs().max()


@every
def test_a_run_stopped_and_taken_up_again_is_one_run(name, generator):
    step, x, grid = STEPS[name](Dynamics(spin)), points(3, generator), times(6)
    whole = integrate(step, x, grid)
    assert torch.equal(integrate(step, integrate(step, x, grid[:4]), grid[3:]), whole)


@every
def test_an_ode_draws_nothing_and_leaves_its_start_alone(name, generator):
    x, before = points(3, generator), generator.get_state()
    kept = x.clone()
    integrate(STEPS[name](Dynamics(spin)), x, times(3), generator)
    integrate(STEPS[name](Dynamics(spin)), x, times(3))
    assert torch.equal(generator.get_state(), before) and torch.equal(x, kept)


@stochastic
def test_a_seed_repeats_a_run_and_another_seed_does_not(name):
    step = STEPS[name](with_noise(PATH.velocity, PATH.score, constant(0.5)))
    run = lambda s: integrate(
        step, torch.zeros(3, 2, dtype=F64), times(4), torch.Generator().manual_seed(s)
    )
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_a_run_on_any_device_stays_there(device):
    x = torch.zeros(4, 2, device=device)
    sde = Dynamics(lambda t, x: -x, constant(0.5))
    for step in (euler(sde), heun(sde)):
        y = integrate(step, x, times(3), torch.Generator(device).manual_seed(0))
        assert y.device == x.device and y.dtype == torch.float32


def test_memory_passes_from_step_to_step():
    """A multistep method: memory is None at first, then what the step returned."""
    seen = []

    def step(x, t, t_next, draw, memory):
        seen.append(memory)
        return x + 1, (memory or 0) + 1

    x = integrate(step, torch.zeros(1, 1, dtype=F64), times(3))
    assert seen == [None, 1, 2] and x.item() == 3


def test_flows_of_the_oracle_end_at_its_target(generator):
    """A second opinion on a whole run: an adaptive method of another library."""
    path = MixturePath(linear, random_mixture(3, 2, 2))
    x, ends = points(16, generator, scale=1.0), torch.tensor([0.0, 1.0], dtype=F64)
    exact = torchdiffeq.odeint(
        lambda t, x: path.velocity(t.clamp(max=1), x),  # its last step goes beyond the end
        x,
        ends,
        rtol=1e-8,
        atol=1e-9,
        method="dopri5",
    )[-1]
    ours = integrate(rk4(Dynamics(path.velocity)), x, times(80))
    expect(worst("eq:rk4", ours - exact, 1e-5))
    refute(
        worst("eq:rk4", integrate(euler(Dynamics(path.velocity)), x, times(80)) - exact, 1e-5),
        "wrong object: Euler's method",
    )


# --- refusals

STILL = Dynamics(lambda t, x: 0 * x)
NOISY = Dynamics(lambda t, x: 0 * x, constant(1.0))


@pytest.mark.parametrize(
    "grid, message",
    [
        ([0.0, 0.5, 0.5, 1.0], "times must increase, got"),
        ([1.0, 0.5, 0.0], "times must increase, got"),
        ([0.0, math.nan, 1.0], "times must increase, got"),
        ([0.5], "two or more floating-point numbers"),
        ([], "two or more floating-point numbers"),
        ([-0.1, 0.5], r"lie in \[0, 1\], .* got -0.1 to 0.5; to go back, solve the time-reversed"),
        ([0.5, 1.1], r"lie in \[0, 1\], base to target, got 0.5 to 1.1"),
    ],
)
def test_times_that_are_no_grid_are_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        integrate(euler(STILL), torch.zeros(1, 1), torch.tensor(grid, dtype=F64))
    with pytest.raises(ValueError, match=message):
        trajectory(euler(STILL), torch.zeros(1, 1), torch.tensor(grid, dtype=F64))


@pytest.mark.parametrize("grid", [torch.tensor([0, 1]), torch.zeros(2, 2, dtype=F64)])
def test_times_of_another_kind_are_refused(grid):
    with pytest.raises((ValueError, TypeError), match="two or more floating-point numbers|times"):
        integrate(euler(STILL), torch.zeros(1, 1), grid)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_a_state_that_is_none_is_refused(x):
    with pytest.raises((ValueError, TypeError), match=r"floating-point tensor \(n, d\)|'x'"):
        integrate(euler(STILL), x, times(2))


@stochastic
@pytest.mark.parametrize(
    "eta",
    [
        constant(-1.0),
        lambda t: 0.5 - t,
        lambda t: torch.full_like(t, math.nan),
        lambda t: 1 / t,
        lambda t: torch.where(t == 0.5, math.inf, 1.0).to(t),
    ],
)
def test_a_noise_level_must_be_finite_and_nonnegative_on_the_grid(name, eta, generator):
    with pytest.raises(ValueError, match=r"eta must be finite and nonnegative on the grid, got \["):
        integrate(STEPS[name](Dynamics(spin, eta)), points(2, generator), times(4), generator)


@pytest.mark.parametrize("level", [math.inf, -1.0, math.nan])
def test_a_level_at_the_very_end_matters_only_to_a_method_that_looks_there(level, generator):
    eta = lambda t: torch.where(t == 1, level, 1.0).to(t)
    sde, x = Dynamics(lambda t, x: -x, eta), points(2, generator)
    assert integrate(euler(sde), x, times(4), generator).isfinite().all()
    with pytest.raises(ValueError, match="eta must be finite and nonnegative"):
        integrate(heun(sde), x, times(4), generator)


@stochastic
def test_a_level_may_vanish_at_an_end(name, generator):
    still, x = Dynamics(lambda t, x: 0 * x, lambda t: t * (1 - t)), points(2, generator)
    y = integrate(STEPS[name](still), x, torch.tensor([0.0, 1.0], dtype=F64), generator)
    assert torch.equal(y, x)


def test_euler_never_looks_at_the_end_of_the_grid(generator):
    """So a field that is singular at t = 1 is safe."""
    singular = Dynamics(lambda t, x: -x / (1 - t))
    x = points(3, generator)
    assert integrate(euler(singular), x, times(8)).abs().max() < 1e-9 * x.abs().max()
    assert not integrate(heun(singular), x, times(8)).isfinite().all()


@stochastic
def test_noise_without_a_generator_is_refused(name):
    with pytest.raises(ValueError, match="pass generator=torch.Generator.device. with a seed"):
        integrate(STEPS[name](NOISY), torch.zeros(1, 1), times(2))


def test_a_step_of_a_reader_cannot_draw_without_a_generator_either():
    draws = lambda x, t, t_next, draw, memory: (x + draw(), memory)
    with pytest.raises(ValueError, match="this step draws noise; pass generator"):
        integrate(draws, torch.zeros(1, 1), times(2))


def test_a_generator_on_another_device_is_refused(generator):
    with pytest.raises(ValueError, match="a generator lives on the device of the tensors"):
        integrate(euler(NOISY), torch.zeros(2, 2, device="meta"), times(2), generator)


def test_the_classical_method_is_for_odes():
    with pytest.raises(ValueError, match="rk4 solves ODEs, got a dynamics with noise; use heun"):
        rk4(NOISY)
    assert rk4(Dynamics(spin, constant(0.0)))


# --- exponential steps


def test_an_exponential_step_solves_a_constant_forcing_exactly():
    """dx/dt = a x + c from x has the solution (x + c/a) e^{ah} - c/a, whatever the step."""
    x = torch.tensor([[1.0], [-0.4]], dtype=F64)
    for a in (-50.0, -0.7, 0.9):
        flow = Dynamics(lambda t, x, a=a: a * x + 2.0)
        exact = (x + 2 / a) * math.exp(0.4 * a) - 2 / a
        ours, memory = exponential(flow, constant(a))(x, scalar(0.5), scalar(0.9), no_noise, "kept")
        expect(worst("eq:euler", ours - exact))
        frozen = math.exp(0.4 * a) * (x + 0.4 * 2.0)
        refute(worst("eq:euler", ours - frozen), "wrong object: the forcing decays like the state")
        assert memory == "kept"


def test_an_exponential_step_of_an_ornstein_uhlenbeck_process_has_its_variance():
    """The increment is linear in the draw, so a draw of 1 shows the standard deviation."""
    a, level, h = -3.0, 0.8, 0.25
    noisy = exponential(Dynamics(lambda t, x: a * x, constant(level)), constant(a))
    zeros = torch.zeros(1, 1, dtype=F64)
    ours, _ = noisy(zeros, scalar(0.1), scalar(0.1 + h), lambda: zeros + 1, None)
    kernel = lambda s: level**2 * math.exp(2 * a * (h - s))
    variance = scipy.integrate.quad(kernel, 0, h)[0]
    expect(worst("eq:ou", ours**2 - variance))
    refute(worst("eq:ou", ours**2 - level**2 * h), "missing term: noise that does not decay")
    drift_phi = level**2 * (math.exp(a * h) - 1) / a
    refute(worst("eq:ou", ours**2 - drift_phi), "factor: the 2 of the variance")


def test_runs_of_exponential_steps_keep_the_law_of_an_ornstein_uhlenbeck_process(generator):
    a = -2.0
    dynamics = Dynamics(lambda t, x: a * x, constant(2.0))  # stationary variance 1
    x = torch.randn(40_000, 1, generator=generator, dtype=F64)
    rough = times(2)
    ours = integrate(exponential(dynamics, constant(a)), x, rough, generator)
    expect(mean("eq:ou", ours[:, 0] ** 2, 1.0))
    refute(
        mean("eq:ou", integrate(euler(dynamics), x, rough, generator)[:, 0] ** 2, 1.0),
        "wrong object: Euler's step",
    )


def test_exponential_steps_with_no_linear_part_are_eulers(generator):
    x, grid = points(5, generator, scale=1.0), times(4)
    noisy = Dynamics(spin, constant(0.6))
    copy = torch.Generator().manual_seed(3)
    ours = trajectory(exponential(noisy, zero), x, grid, torch.Generator().manual_seed(3))
    expect(worst("eq:euler", ours - trajectory(euler(noisy), x, grid, copy)))
    refute(
        worst("eq:euler", ours - trajectory(exponential(noisy, constant(1.0)), x, grid, copy)),
        "missing term: another linear part",
    )


def test_exponential_steps_have_order_one_whatever_the_linear_part(generator):
    x = points(6, generator, scale=1.0)
    flow, pull = Dynamics(spin), lambda t: -1 - t
    fine = integrate(rk4(flow), x, times(400))
    ends = {n: integrate(exponential(flow, pull), x, times(n)) for n in (40, 80, 160)}
    errors = [(end - fine).abs().max().item() for end in ends.values()]
    expect(order("eq:euler", [1 / n for n in ends], errors, 1.0))


def test_a_stiff_linear_part_blows_up_eulers_steps_and_not_exponential_ones():
    flow, x = Dynamics(lambda t, x: -200 * x + torch.sin(x)), torch.ones(1, 1, dtype=F64)
    assert integrate(exponential(flow, constant(-200.0)), x, times(20)).abs().max() < 1e-2
    assert integrate(euler(flow), x, times(20)).abs().max() > 1e6


def test_an_exponential_step_takes_its_linear_part_where_it_begins_and_refuses_infinity():
    pull = lambda t: -1 / (1 - t)  # infinite at the end of the grid only
    flow = Dynamics(lambda t, x: pull(t) * x)
    x = torch.ones(1, 1, dtype=F64)
    assert integrate(exponential(flow, pull), x, times(2)).isfinite().all()
    with pytest.raises(ValueError, match="finite where a step begins, got -inf at t = 0.5"):
        integrate(exponential(flow, lambda t: -1 / (0.5 - t).clamp(min=0)), x, times(2))
