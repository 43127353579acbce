"""Claims of chapter 14: what a sampler's step solves exactly, its order, its noise, its ends."""

import functools
import math

import numpy
import pytest
import scipy.integrate
import torch

from laws import BASE, F64, NOISING, TARGET, points, scalar
from onepath import fields
from onepath.calculus import constant, rate
from onepath.discretization import chain_density, order_between
from onepath.dynamics import Dynamics
from onepath.fields import convert
from onepath.interpolants import (
    Interpolant,
    bridge,
    cosine,
    edm,
    half_log_snr,
    linear,
    noising_diffusion,
    variance_preserving,
)
from onepath.measures import Mixture
from onepath.noising import ancestral_posterior, noising_kernel
from onepath.oracles import MixturePath
from onepath.samplers import (
    adams,
    ancestral,
    churned,
    corrected,
    ddim,
    midpoint,
    multistep,
    renoised,
    trapezoid,
)
from onepath.solvers import euler, heun, integrate, rk4, times, trajectory
from onepath.time_grids import time_at, uniform_in_log_snr
from onepath.verify import below, expect, mean, order, refute, worst

SCHEDULES = NOISING | {"cosine": cosine(), "EDM": edm(0.0, 10.0), "EDM, rho 1": edm(0.1, 10.0, 1.0)}
every = pytest.mark.parametrize("name", SCHEDULES)
T, S = scalar(0.3), scalar(0.6)


def no_noise():
    raise AssertionError("an ODE draws nothing")


def frozen(value):
    """A denoiser that says `value` at every point and time."""
    return lambda t, x: value.to(x).expand_as(x)


def one(step, x, t=T, s=S, draw=no_noise, memory=None):
    return step(x, t, s, draw, memory)[0]


def parts(step, t=T, s=S):
    """(factor of the state, shift, standard deviation of the noise) of an affine step in d = 1."""
    unit, nil = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    shift = one(step, nil, t, s, lambda: nil)
    return (
        one(step, unit, t, s, lambda: nil) - shift,
        shift,
        one(step, nil, t, s, lambda: unit) - shift,
    )


# --- identities of a step


@every
def test_ddim_is_denoise_and_keep_the_noise(name, generator):
    path, x, guess = SCHEDULES[name], points(5, generator), points(5, generator)
    alpha, sigma = path.alpha(S), path.sigma(S)
    noise = (x - path.alpha(T) * guess) / path.sigma(T)
    ours = one(ddim(lambda t, x: guess, path), x)
    expect(worst("eq:ddim", ours - alpha * guess - sigma * noise))
    refute(worst("eq:ddim", ours - alpha * guess - sigma**2 * noise), "factor: the variance")


def test_on_the_linear_path_ddim_is_eulers_method(generator):
    path, x = MixturePath(linear, TARGET), points(5, generator)
    ours = one(ddim(path.denoiser, path), x)
    expect(worst("eq:ddim", ours - one(euler(Dynamics(path.velocity)), x)))
    curved = MixturePath(variance_preserving(0.3, 7.0), TARGET)
    other = one(ddim(curved.denoiser, curved), x) - one(euler(Dynamics(curved.velocity)), x)
    refute(worst("eq:ddim", other), "hypothesis: a curved path")


@every
@pytest.mark.parametrize("zeta", [0.0, 0.6, 1.0, 2.0])
def test_a_step_has_the_law_of_the_sde_whose_denoiser_is_frozen(name, zeta):
    """Mean and variance of dX = (v + zeta² g² s / 2) dt + zeta g dW, by a fine solver."""
    path, guess, x, n = SCHEDULES[name], 0.8, 1.7, 400
    t = times(2 * n, T.item(), S.item())
    alpha, sigma, g = path.alpha(t), path.sigma(t), noising_diffusion(path)(t)
    grow, shrink, level = rate(path.alpha, t), rate(path.sigma, t), (zeta * g) ** 2
    slope = (shrink / sigma - 0.5 * level / sigma**2).tolist()
    push = ((grow - alpha * shrink / sigma + 0.5 * level * alpha / sigma**2) * guess).tolist()
    level, h, solved = level.tolist(), (S - T).item() / n, torch.tensor([x, 0.0], dtype=F64)
    f = lambda k, y: torch.stack([slope[k] * y[0] + push[k], 2 * slope[k] * y[1] + level[k]])
    for k in range(0, 2 * n, 2):  # Runge and Kutta's method of order 4
        k1 = f(k, solved)
        k2 = f(k + 1, solved + h / 2 * k1)
        k3 = f(k + 1, solved + h / 2 * k2)
        solved = solved + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(k + 2, solved + h * k3))
    factor, shift, spread = parts(ddim(frozen(scalar(guess)), path, zeta))
    expect(worst("eq:ddim-noise", factor * x + shift - solved[0]))
    expect(worst("eq:ddim-noise", spread**2 - solved[1]))
    if zeta:
        refute(worst("eq:ddim-noise", spread - solved[1]), "factor: a variance for a deviation")


@every
@pytest.mark.parametrize("zeta", [0.0, 0.6, 1.0])
def test_noise_in_units_of_g_is_stochastic_ddim_with_a_known_share(name, zeta, generator):
    path = SCHEDULES[name]
    x, guess, xi = (points(4, generator) for _ in range(3))

    def level(t, s):
        h = half_log_snr(path, s) - half_log_snr(path, t)
        return path.sigma(s) * (1 - torch.exp(-2 * zeta**2 * h)).sqrt()

    ours = one(ddim(lambda t, x: guess, path, zeta), x, draw=lambda: xi)
    theirs = one(renoised(lambda t, x: guess, path, level), x, draw=lambda: xi)
    expect(worst("eq:stochastic-ddim", ours - theirs))
    twice = one(
        renoised(lambda t, x: guess, path, lambda t, s: 0.5 * path.sigma(s)), x, draw=lambda: xi
    )
    refute(worst("eq:stochastic-ddim", ours - twice), "wrong object: another share")


@every
def test_the_ancestral_step_draws_from_the_posterior_of_the_noising_run(name, generator):
    path = SCHEDULES[name]
    x, guess, xi = (points(4, generator) for _ in range(3))
    state, data, variance = ancestral_posterior(path, T, S)
    exact = state * x + data * guess + variance.sqrt() * xi
    ours = one(ancestral(lambda t, x: guess, path), x, draw=lambda: xi)
    expect(worst("eq:ancestral", ours - exact))
    deterministic = one(ddim(lambda t, x: guess, path), x)
    refute(worst("eq:ancestral", deterministic - exact), "missing term: the noise")


def test_the_optimal_variance_is_that_of_the_posterior_spread_over_the_data():
    """x' given x is a Gaussian about the posterior mean, averaged over x_1 given x."""
    path, spread = variance_preserving(), 0.37
    _, data, variance = ancestral_posterior(path, T, S)
    *_, ours = parts(ancestral(frozen(scalar(0.0)), path, constant(spread)))
    expect(worst("eq:optimal-variance", ours**2 - variance - data**2 * spread))
    *_, plain = parts(ancestral(frozen(scalar(0.0)), path))
    refute(
        worst("eq:optimal-variance", plain**2 - variance - data**2 * spread), "missing term: mmse"
    )


@pytest.mark.parametrize("row", [fields.data, fields.noise])
@every
def test_the_middle_of_a_step_is_the_middle_in_lambda(name, row, generator):
    path, seen = SCHEDULES[name], []
    field = lambda t, x: (seen.append(t), 0 * x)[1]
    one(midpoint(field, path, row), points(2, generator))
    first, last = half_log_snr(path, T), half_log_snr(path, S)
    assert len(seen) == 2 and seen[0] == T
    expect(worst("eq:dpm-solver-2", half_log_snr(path, seen[1]) - 0.5 * (first + last)))
    in_time = half_log_snr(path, 0.5 * (T + S))
    if name != "VE":  # there lambda is affine in t
        refute(worst("eq:dpm-solver-2", in_time - 0.5 * (first + last)), "clock: the middle in t")


@pytest.mark.parametrize("row", [fields.data, fields.noise])
def test_both_midpoint_rules_freeze_what_they_say(row, generator):
    """The step is the exact flow with the row frozen at the value that it has at (t_m, u)."""
    path = MixturePath(variance_preserving(0.3, 7.0), TARGET)
    schedule, x = path.interpolant, points(4, generator)
    field = convert(path.denoiser, path, fields.data, row)
    calls = []
    watched = lambda t, x: (calls.append((t, x, field(t, x))), calls[-1][2])[1]
    ours = one(midpoint(watched, path, row), x)

    def flow(value, t, s):
        velocity = convert(lambda t, x: value, path, row, fields.velocity)
        return integrate(rk4(Dynamics(velocity)), x, times(12, t.item(), s.item()))

    (_, _, first), (middle, u, second) = calls
    expect(worst("eq:dpm-solver-2", u - flow(first, T, middle), 1e-6))
    expect(worst("eq:dpm-solver-2", ours - flow(second, T, S), 1e-6))
    refute(worst("eq:dpm-solver-2", ours - flow(first, T, S), 1e-6), "wrong object: DDIM")
    assert schedule is path.interpolant


@every
def test_edms_step_is_the_trapezoid_rule_in_sigma_over_alpha(name, generator):
    path, x = MixturePath(SCHEDULES[name], TARGET), points(4, generator)
    alpha, sigma = SCHEDULES[name].alpha, SCHEDULES[name].sigma
    noise = convert(path.denoiser, path, fields.data, fields.noise)
    ours, size = one(trapezoid(path.denoiser, path), x), sigma(S) / alpha(S) - sigma(T) / alpha(T)
    first = noise(T, x)
    last = noise(S, alpha(S) * (x / alpha(T) + size * first))
    exact = alpha(S) * (x / alpha(T) + 0.5 * size * (first + last))
    expect(worst("eq:trapezoid", ours - exact))
    slow = alpha(S) * (x / alpha(T) + size * first)
    refute(worst("eq:trapezoid", ours - slow), "missing term: the second call")


def test_edms_step_is_heuns_where_sigma_is_the_time(generator):
    path = MixturePath(edm(0.1, 10.0, 1.0), TARGET)
    x, grid = path.reference(5, generator), times(7)
    theirs = integrate(heun(Dynamics(path.velocity)), x, grid)
    expect(worst("eq:trapezoid", integrate(trapezoid(path.denoiser, path), x, grid) - theirs))
    other = integrate(midpoint(path.denoiser, path, fields.data), x, grid)
    refute(worst("eq:trapezoid", other - theirs), "wrong object: the midpoint rule")


def test_edms_step_has_two_calls_and_one_where_lambda_is_infinite(generator):
    seen = []
    step = trapezoid(lambda t, x: (seen.append(t), 0.5 * x)[1], linear)
    integrate(step, points(3, generator), times(4))
    assert [round(t.item(), 9) for t in seen] == [0.0, 0.25, 0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("zeta", [0.0, 0.7])
@pytest.mark.parametrize("k", [1, 3, 4, 5])
def test_k_values_integrate_a_polynomial_in_lambda_of_degree_k_minus_1(k, zeta):
    """A denoiser that depends on time alone, and quadrature of the variation of constants."""
    path, grid = variance_preserving(), torch.tensor([0.1, 0.25, 0.3, 0.45, 0.6, 0.7], dtype=F64)
    lam = lambda t: half_log_snr(path, t)
    poly = lambda l: 0.3 + sum((0.7 * l) ** p for p in range(1, k))
    step, memory = multistep(lambda t, x: poly(lam(t)) + 0 * x, path, k, zeta), None
    nil = torch.zeros(1, 1, dtype=F64)
    for t, s in zip(grid[:-1], grid[1:]):
        moved, memory = step(nil, t, s, lambda: nil, memory)
    first, last, z = lam(grid[-2]).item(), lam(grid[-1]).item(), zeta**2
    inside = lambda l: math.exp(l - z * (last - l)) * poly(l)
    exact = (1 + z) * path.sigma(grid[-1]).item() * scipy.integrate.quad(inside, first, last)[0]
    expect(worst("eq:multistep", moved - exact))
    if k > 1:
        short = one(
            ddim(lambda t, x: poly(lam(t)) + 0 * x, path, zeta), nil, *grid[-2:], lambda: nil
        )
        refute(worst("eq:multistep", short - exact), "missing term: the values before")


def test_two_values_extrapolate_to_the_middle_of_the_step(generator):
    path, x = variance_preserving(), points(3, generator)
    a, b = points(3, generator), points(3, generator)
    t0, t1, t2 = (scalar(v) for v in (0.2, 0.35, 0.6))
    step = multistep(lambda t, x: a if t == t0 else b, path, 2)
    _, memory = step(x, t0, t1, no_noise, None)
    ours, _ = step(x, t1, t2, no_noise, memory)
    l0, l1, l2 = (half_log_snr(path, t) for t in (t0, t1, t2))
    guess = b + (0.5 * (l1 + l2) - l1) * (b - a) / (l1 - l0)
    exact = one(ddim(lambda t, x: guess, path), x, t1, t2)
    expect(worst("eq:dpm-solver-2m", ours - exact))
    back = b + (0.5 * (l1 + l2) - l1) * (a - b) / (l1 - l0)
    refute(
        worst("eq:dpm-solver-2m", one(ddim(lambda t, x: back, path), x, t1, t2) - exact),
        "sign: a - b",
    )


# --- Adams' method


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_the_corrected_integral_is_exact_for_polynomials_in_the_angle(k, scale):
    """A flow y' = F(theta), of degree k: each state is y_0 + the integral, by quadrature,
    less what the prediction with one value fewer misses in the last step."""
    path, grid = variance_preserving(), torch.linspace(0.05, 0.9, 9, dtype=F64) ** 1.5
    angle = lambda t: torch.atan(scale * path.alpha(t) / path.sigma(t))
    radius = lambda t: (path.sigma(t) ** 2 + (scale * path.alpha(t)) ** 2).sqrt()
    slope = lambda a: 0.4 - 1.3 * a + (1.7 * a - 0.9) ** k

    def denoiser(t, x):  # F = r xhat / (sigma s) - s alpha y / sigma, solved for xhat
        force = slope(angle(t)) + scale * path.alpha(t) / path.sigma(t) * x / radius(t)
        return scale * path.sigma(t) / radius(t) * force

    start = torch.full((1, 1), 0.3, dtype=F64)
    end = integrate(adams(denoiser, path, k, scale), start, grid)
    angles = angle(grid)
    whole = scipy.integrate.quad(lambda a: slope(scalar(a)).item(), angles[0], angles[-1])[0]
    nodes = angles[:-1][-k:]
    fitted = numpy.polynomial.Polynomial.fit(nodes, slope(nodes), k - 1)
    missed = scipy.integrate.quad(
        lambda a: slope(scalar(a)).item() - fitted(a), angles[-2], angles[-1]
    )[0]
    exact = start / radius(grid[0]) + whole - missed
    ours = end / radius(grid[-1])
    expect(worst("eq:adams", ours - exact))
    refute(worst("eq:adams", ours - exact - missed), "missing term: the prediction of the end")


def test_gaussian_data_of_the_right_scale_are_exact_in_one_step(generator):
    """In the rotating frame they do not move."""
    law = Mixture(
        torch.ones(1, dtype=F64), torch.zeros(1, 2, dtype=F64), 0.49 * torch.eye(2, dtype=F64)[None]
    )
    for schedule in (linear, cosine(), edm(0.0, 10.0)):
        path = MixturePath(schedule, law)
        x = path.reference(5, generator)
        first = schedule.sigma(scalar(0.0)) ** 2 + (0.7 * schedule.alpha(scalar(0.0))) ** 2
        ours = integrate(adams(path.denoiser, path, 1, 0.7), x, times(1))
        expect(worst("eq:adams", ours - 0.7 * x / first.sqrt()))
        other = integrate(adams(path.denoiser, path, 1, 1.0), x, times(1))
        refute(worst("eq:adams", other - 0.7 * x / first.sqrt()), "factor: the scale of the data")


def test_data_are_measured_in_units_of_one_unless_told(generator):
    x, d = ON_LINEAR.reference(4, generator), ON_LINEAR.denoiser
    run = lambda *scale: integrate(adams(d, linear, 2, *scale), x, times(6))
    expect(worst("eq:adams", run() - run(1.0)))
    refute(worst("eq:adams", run() - run(2.0)), "factor: the scale of the data")


def test_all_paths_are_one_path_to_adams(generator):
    """The same half log-SNRs give the same states, up to the radius."""
    runs = []
    for schedule in (
        linear,
        cosine(),
        Interpolant(sigma=lambda t: 3 - 3 * t, alpha=lambda t: 3 * t),
    ):
        path = MixturePath(schedule, TARGET)
        lam = torch.linspace(-4, 3, 9, dtype=F64)
        grid = time_at(schedule, lam)
        r = (schedule.sigma(grid) ** 2 + schedule.alpha(grid) ** 2).sqrt()
        x = r[0] * points(4, torch.Generator().manual_seed(1))
        runs.append(integrate(adams(path.denoiser, path, 3), x, grid) / r[-1])
    expect(worst("eq:adams", runs[0] - runs[1]))
    expect(worst("eq:adams", runs[0] - runs[2]))
    refute(worst("eq:adams", runs[0] - 3 * runs[2]), "factor: the radius")


@every
def test_churn_goes_back_along_the_noising_run(name, generator):
    """With a step that does nothing, the state is a draw of the noising kernel."""
    path, x, xi = SCHEDULES[name], points(4, generator), points(4, generator)
    seen = []

    def still(x, t, t_next, draw, memory):
        seen.append(t)
        return x, memory

    ours = one(churned(still, path, constant(0.25)), x, draw=lambda: xi)
    (back,) = seen
    scale, variance = noising_kernel(path, back, T)
    expect(worst("eq:churn", ours - scale * x - variance.sqrt() * xi))
    expect(worst("eq:churn", (half_log_snr(path, T) - half_log_snr(path, back)).exp() - 1.25))
    refute(worst("eq:churn", ours - x - variance.sqrt() * xi - 0.1 * x), "factor: the scale")


def test_a_corrector_is_a_langevin_step_at_the_new_time(generator):
    path = MixturePath(linear, TARGET)
    x, xi = points(4, generator), points(4, generator)
    predicted = one(ddim(path.denoiser, path), x)
    ours = one(
        corrected(ddim(path.denoiser, path), path.score, 1, constant(0.3)), x, draw=lambda: xi
    )
    theirs = predicted + 0.045 * path.score(S, predicted) + 0.3 * xi
    expect(worst("eq:corrector", ours - theirs))
    early = predicted + 0.045 * path.score(T, predicted) + 0.3 * xi
    refute(worst("eq:corrector", ours - early), "clock: the score where the step began")


# --- orders


ON_LINEAR = MixturePath(linear, TARGET)
COUNTS = [32, 64, 128]


@functools.cache
def reference():
    """States at t = 0.05, and where the flow carries them until 0.95."""
    x = ON_LINEAR.sample(scalar(0.05), 8, torch.Generator().manual_seed(2))
    flow = Dynamics(lambda t, x: (ON_LINEAR.denoiser(t, x) - x) / (1 - t))
    return x, integrate(rk4(flow), x, uniform_in_log_snr(linear, 200, 0.05, 0.95))


@functools.cache
def errors(name):
    d, (x, exact) = ON_LINEAR.denoiser, reference()
    noise = convert(d, linear, fields.data, fields.noise)
    step = {
        "ddim": lambda: ddim(d, linear),
        "midpoint, data": lambda: midpoint(d, linear, fields.data),
        "midpoint, noise": lambda: midpoint(noise, linear, fields.noise),
        "trapezoid": lambda: trapezoid(d, linear),
        "multistep 2": lambda: multistep(d, linear, 2),
        "adams 1": lambda: adams(d, linear, 1),
        "adams 2": lambda: adams(d, linear, 2),
    }[name]()
    runs = [integrate(step, x, uniform_in_log_snr(linear, n, 0.05, 0.95)) for n in COUNTS]
    return [(run - exact).norm(dim=1).mean().item() for run in runs]


@pytest.mark.parametrize(
    "name, label, expected",
    [
        ("ddim", "eq:ddim", 1),
        ("midpoint, data", "eq:dpm-solver-2", 2),
        ("midpoint, noise", "eq:dpm-solver-2", 2),
        ("trapezoid", "eq:trapezoid", 2),
        ("multistep 2", "eq:dpm-solver-2m", 2),
        ("adams 1", "eq:adams", 2),
        ("adams 2", "eq:adams", 3),
    ],
)
def test_the_order_of_a_sampler_is_its_slope(name, label, expected):
    """Adams' corrector raises the order of the predictor by one."""
    sizes = [1 / n for n in COUNTS]
    expect(order(label, sizes, errors(name), expected))
    other = errors("adams 1" if name == "ddim" else "ddim")
    refute(order(label, sizes, other, expected), "wrong object: another method")


def random_mixture(dice):
    """Two components on the line."""
    share = 0.3 + 0.4 * torch.rand(1, generator=dice, dtype=F64)
    means = (0.6 + torch.rand(2, 1, generator=dice, dtype=F64)) * torch.tensor([[-1.0], [1.0]])
    covs = 0.1 + 0.3 * torch.rand(2, 1, 1, generator=dice, dtype=F64)
    return Mixture(torch.cat([share, 1 - share]), means, covs)


@pytest.mark.parametrize("optimal", [False, True])
def test_the_law_of_ancestral_steps_has_order_one_with_either_variance(optimal):
    """Weak errors of cos 2x for six random mixtures, whose laws are computed on a grid."""
    schedule, dice = variance_preserving(), torch.Generator().manual_seed(5)
    cells, counts = torch.linspace(-4.5, 4.5, 91, dtype=F64)[:, None], (8, 16, 32)
    grids = [uniform_in_log_snr(schedule, n, 0.3, 0.85) for n in counts]
    wave, last = 0.1 * torch.cos(2 * cells[:, 0]), torch.eye(92, dtype=F64)[:, -1:]
    errors, stopped = torch.zeros(2, 6, 3, dtype=F64)
    for k in range(6):
        path = MixturePath(schedule, random_mixture(dice))
        density = lambda t: path.log_density(t, cells).exp()
        spread = lambda t: (0.1 * density(t) * path.denoiser_cov(t, cells)[:, 0, 0]).sum()
        mmse = (lambda times: torch.stack([spread(t) for t in times])) if optimal else None
        step = ancestral(path.denoiser, path, mmse)
        start, end, early = (density(scalar(t)) for t in (0.3, 0.85, 0.8))
        for j, grid in enumerate(grids):
            steps = dict(zip(grid.tolist(), step.prepared(grid[:-1], grid[1:])))

            def kernel(t, u, x, steps=steps):
                x, _ = steps[t.item()](torch.cat([x, x[:1]]), t, u, lambda: last, None)
                return x[:-1], (x[-1] - x[0])[0]

            law = chain_density(kernel, start, cells[:, 0], grid)
            errors[k, j], stopped[k, j] = ((law - end) @ wave).abs(), ((law - early) @ wave).abs()
    sizes = [1 / n for n in counts]
    expect(order_between("eq:optimal-variance", sizes, errors, 1))
    refute(order_between("eq:optimal-variance", sizes, stopped, 1), "wrong object: another time")


# --- ends


def samplers(path):
    curve = lambda t: 0.1 * path.interpolant.sigma(t)
    d = path.denoiser
    return {
        "ddim": ddim(d, path),
        "ddim, noise": ddim(d, path, 0.5),
        "renoised": renoised(d, path, lambda t, s: 0.3 * path.interpolant.sigma(s)),
        "ancestral": ancestral(d, path),
        "midpoint": midpoint(d, path, fields.data),
        "trapezoid": trapezoid(d, path),
        "multistep 2": multistep(d, path, 2),
        "multistep 3, noise": multistep(d, path, 3, 0.5),
        "multistep 5": multistep(d, path, 5),
        "adams": adams(d, path, 3),
        "corrected": corrected(ddim(d, path), path.score, 2, curve),
        "churned": churned(multistep(d, path), path, constant(0.05)),
    }


@every
def test_whole_paths_are_walked_from_end_to_end(name, generator):
    path = MixturePath(SCHEDULES[name], TARGET)
    x = path.reference(5, generator)
    for kind, step in samplers(path).items():
        state = integrate(step, x, times(6), generator)
        # VE and EDM begin at ten and more; the data lie within five, and six steps are coarse
        assert state.abs().max() < 9, kind


@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_a_walk_from_end_to_end_ends_in_the_law_of_the_data(name, generator):
    """Steps are equal in lambda between the ends; the bound is four standard errors."""
    path = MixturePath(SCHEDULES[name], TARGET)
    first, last = (half_log_snr(path.interpolant, scalar(t)).item() for t in (0.0, 1.0))
    lam = torch.linspace(max(first, -4) + 0.01, min(last, 3) - 0.01, 24, dtype=F64)
    grid = torch.cat([scalar(0.0)[None], time_at(path.interpolant, lam), scalar(1.0)[None]])
    x, u = path.reference(300, generator), torch.tensor([0.4, -0.2], dtype=F64)
    # the characteristic function of a Gaussian, its real part
    waves = (-0.5 * torch.einsum("i,kij,j->k", u, TARGET.covs, u)).exp() * (TARGET.means @ u).cos()
    exact = TARGET.weights @ waves
    away = lambda state: (torch.cos(state @ u).mean() - exact).abs().item()
    for step in samplers(path).values():
        expect(below("eq:ddim", away(integrate(step, x, grid, generator)), 0.16))
    begun = integrate(ddim(path.denoiser, path), x, grid[:3])
    refute(below("eq:ddim", away(begun), 0.16), "clock: a walk that has only begun")


def test_churn_that_starts_two_steps_at_one_time_forgets_the_older_value(generator):
    """On a schedule whose first step is shorter than the churn."""
    path = MixturePath(edm(0.1, 10.0, 1.0), TARGET)
    x, d, curve = path.reference(5, generator), path.denoiser, constant(0.2)
    walk = lambda step: integrate(churned(step, path, curve), x, times(32, stop=0.0625), generator)
    with pytest.raises(ValueError, match="got two from the same"):
        walk(adams(d, path, 2))
    states = []
    for step in (multistep(d, path), ddim(d, path)):
        generator.manual_seed(3)
        states.append(walk(step))
    # two steps that both begin at t = 0 leave nothing to extrapolate with
    expect(worst("eq:dpm-solver-2m", states[0] - states[1]))


@pytest.mark.parametrize("name", ["linear", "VP", "cosine", "EDM"])
def test_the_last_step_is_the_denoiser_itself(name, generator):
    path = MixturePath(SCHEDULES[name], TARGET)
    x, t = points(5, generator), scalar(0.9)
    for kind, step in samplers(path).items():
        if kind in ("churned", "adams"):  # these end on a line through more than one value
            continue
        last = one(step, x, t, scalar(1.0), lambda: torch.ones_like(x))
        expect(worst("eq:ddim", last - path.denoiser(t, x)))
    refute(worst("eq:ddim", last - path.denoiser(t, x) - 0.01 * x), "missing term: the noise kept")


def test_the_first_step_from_pure_noise_goes_to_the_mean_of_the_data(generator):
    path = MixturePath(linear, TARGET)
    x = points(5, generator)
    mean_of_data = path.denoiser(scalar(0.0), x)
    for kind, step in samplers(path).items():
        if "noise" in kind or kind in ("renoised", "ancestral", "corrected", "adams"):
            continue
        moved = one(step, x, scalar(0.0), scalar(0.1))
        expect(worst("eq:ddim", moved - 0.9 * x - 0.1 * mean_of_data))


def test_a_step_that_needs_no_memory_keeps_none(generator):
    x, seen = points(3, generator), {}
    draw = lambda: torch.zeros_like(x)
    for kind, step in samplers(ON_LINEAR).items():
        seen[kind] = step(x, T, S, draw, None)[1]
    assert [kind for kind, memory in seen.items() if memory is not None] == [
        *("multistep 2", "multistep 3, noise", "multistep 5", "adams", "churned")
    ]


def test_a_run_is_the_same_as_its_steps_one_by_one(generator):
    path = MixturePath(variance_preserving(), TARGET)
    x, grid = path.reference(5, generator), times(9)
    for kind, step in samplers(path).items():
        seeded = torch.Generator().manual_seed(1)
        draw = lambda: torch.randn(x.shape, generator=seeded, dtype=F64)
        state, memory = x, None
        for t, s in zip(grid[:-1], grid[1:]):
            state, memory = step(state, t, s, draw, memory)
        whole = integrate(step, x, grid, torch.Generator().manual_seed(1))
        assert torch.allclose(state, whole, rtol=1e-12, atol=1e-13), kind


def test_a_grid_of_fewer_steps_than_values_is_refused(generator):
    x, d = ON_LINEAR.reference(5, generator), ON_LINEAR.denoiser
    for make in (multistep, adams):
        integrate(make(d, linear, 3), x, times(3))
        with pytest.raises(ValueError, match="at least 3 steps, got a grid of 2"):
            integrate(make(d, linear, 3), x, times(2))
        with pytest.raises(ValueError, match="at least 3 steps"):
            trajectory(churned(make(d, linear, 3), linear, constant(0.1)), x, times(2), generator)


# --- laws


def variances(step, grid, start):
    """The exact variance after a run of an affine sampler without memory, and its mean factor."""
    v = start
    for t, s in zip(grid[:-1], grid[1:]):
        factor, _, spread = parts(step, t, s)
        v = factor**2 * v + spread**2
    return v


@pytest.mark.parametrize("variance", [4.0, 0.25])
def test_the_optimal_variance_makes_gaussian_data_exact_on_every_grid(variance):
    cov = torch.full((1, 1, 1), variance, dtype=F64)
    law = Mixture(torch.ones(1, dtype=F64), torch.zeros(1, 1, dtype=F64), cov)
    path, grid = MixturePath(linear, law), times(5)
    mmse = lambda t: variance * (1 - t) ** 2 / (variance * t**2 + (1 - t) ** 2)
    ours = variances(ancestral(path.denoiser, path, mmse), grid, torch.ones(1, 1, dtype=F64))
    expect(worst("eq:optimal-variance", ours - variance))
    plain = variances(ancestral(path.denoiser, path), grid, torch.ones(1, 1, dtype=F64))
    refute(worst("eq:optimal-variance", plain - variance), "missing term: the spread of the data")


def test_churn_keeps_the_law_of_a_perfect_step(generator):
    """From the exact law at t, back along the noising run, and forward by a fine solver."""
    path, t, s = MixturePath(linear, TARGET), scalar(0.4), scalar(0.5)
    fine = lambda x, t, t_next, draw, memory: (
        integrate(rk4(Dynamics(path.velocity)), x, times(8, t.item(), t_next.item())),
        memory,
    )
    x = path.sample(t, 20_000, generator)
    draw = lambda: torch.randn(x.shape, generator=generator, dtype=F64)
    moved, _ = churned(fine, path, constant(0.4))(x, t, s, draw, None)
    u = torch.tensor([0.9, -0.4], dtype=F64)
    fresh = path.sample(s, 200_000, generator)
    exact = torch.cos(fresh @ u).mean().item()
    expect(mean("eq:churn", torch.cos(moved @ u), exact))
    refute(mean("eq:churn", torch.cos(1.2 * moved @ u), exact), "factor: noise without the scale")


# --- what is refused


def test_other_bases_and_latent_noise_are_refused():
    for path in (MixturePath(linear, TARGET, BASE), bridge(0.5)):
        for build in (
            lambda: ddim(fields.data, path),
            lambda: renoised(fields.data, path, lambda t, s: 0 * t),
            lambda: ancestral(fields.data, path, constant(0.1)),
            lambda: midpoint(fields.data, path, fields.data),
            lambda: trapezoid(fields.data, path),
            lambda: multistep(fields.data, path),
            lambda: adams(fields.data, path),
            lambda: churned(ddim(fields.data, linear), path, constant(0.1)),
        ):
            with pytest.raises(ValueError, match="conversions between fields need"):
                build()


def test_arguments_that_are_none_are_refused():
    d = frozen(scalar(0.0))
    for zeta in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="zeta is noise in units of g"):
            ddim(d, linear, zeta)
    for k in (0, 7):
        with pytest.raises(ValueError, match="order 1 to 6"):
            multistep(d, linear, k)
        with pytest.raises(ValueError, match="order 1 to 6"):
            adams(d, linear, k)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale of the data"):
            adams(d, linear, 3, scale)
    with pytest.raises(ValueError, match="fields.data or fields.noise"):
        midpoint(d, linear, fields.velocity)
    with pytest.raises(ValueError, match="m >= 1"):
        corrected(ddim(d, linear), d, 0, constant(0.1))
    for noisy in (ddim(d, linear, 1.0), euler(Dynamics(d, constant(1.0)))):
        with pytest.raises(ValueError, match="a step of an ODE"):
            churned(noisy, linear, constant(0.1))


def test_a_run_that_cannot_be_is_refused_before_its_first_call(generator):
    def never(t, x):
        raise AssertionError("called")

    x, grid = points(3, generator), times(4)
    falling = Interpolant(sigma=lambda t: 0.1 + t, alpha=lambda t: 1 - 0.5 * t)
    sudden = Interpolant(sigma=lambda t: (0.5 - t).clamp(min=0), alpha=lambda t: 0.5 + 0.5 * t)
    cases = {
        "h = ": ddim(never, falling),
        "sigma = 0 at t = 0.5": ddim(never, sudden),
        "0 <= c <= sigma'": renoised(never, linear, lambda t, s: 1.1 * linear.sigma(s)),
        "mmse is finite": ancestral(never, linear, constant(-1.0)),
        "got alpha = 0": midpoint(never, linear, fields.noise),
        "c is finite": corrected(ddim(never, linear), never, 1, constant(-0.1)),
        "amount of churn": churned(ddim(never, linear), linear, constant(-0.1)),
    }
    for message, step in cases.items():
        with pytest.raises(ValueError, match=message):
            integrate(step, x, grid, generator)
    with pytest.raises(ValueError, match="draws noise"):
        integrate(ancestral(never, linear), x, grid)
