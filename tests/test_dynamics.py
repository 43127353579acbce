"""Claims of chapters 5 and 6: one path of densities, many dynamics, and their way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import (
    F64,
    NOISING,
    PATHS,
    TARGET,
    inner_times,
    points,
    random_mixture,
    same_rows,
    scalar,
    waves,
)
from onepath.calculus import constant, gradient, zero
from onepath.dynamics import (
    Dynamics,
    backward_drift,
    foellmer,
    langevin,
    mean_rate,
    noising_run,
    time_reversed,
    velocity_of,
    with_noise,
)
from onepath.interpolants import Interpolant, linear, noising_diffusion
from onepath.measures import gaussian
from onepath.noising import noising_kernel
from onepath.oracles import MixturePath
from onepath.solvers import euler, heun, integrate, times, trajectory
from onepath.verify import continuity, expect, fokker_planck, mean, refute, worst

every = pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
LEVELS = {
    "zero": zero,
    "constant": constant(0.7),
    "large": constant(2.0),
    "vanishing": lambda t: (2 * (1 - t)).sqrt(),
    "growing": lambda t: 0.3 + t**2,
}
CASES = [(path, "growing") for path in PATHS] + [("bridge", level) for level in LEVELS]
cases = pytest.mark.parametrize("name, level", CASES)
levels = pytest.mark.parametrize("level", LEVELS.values(), ids=list(LEVELS))


@pytest.fixture(params=["one time", "a time each"])
def t(request, generator):
    return scalar(0.3) if request.param == "one time" else inner_times(32, generator)


def column(a):
    return a[:, None] if a.ndim else a


@cases
def test_the_family_shares_its_marginals(name, level, t, generator):
    path, level = PATHS[name], LEVELS[level]
    x, sde = points(32, generator), with_noise(path.velocity, path.score, level)
    residual = fokker_planck(path.log_density, sde.drift, sde.eta, t, x)
    expect(worst("eq:family", residual, 1e-8))
    assert sde.eta is level


@pytest.mark.parametrize("factor", [-0.5, 0.0, 0.25, 1.0])
def test_only_half_of_the_square_before_the_score_passes(factor, t, generator):
    path, x, eta = PATHS["bridge"], points(32, generator), LEVELS["growing"]
    wrong = lambda t, x: path.velocity(t, x) + column(factor * eta(t) ** 2) * path.score(t, x)
    residual = fokker_planck(path.log_density, wrong, eta, t, x)
    refute(worst("eq:family", residual), f"factor: {factor} eta² before the score, not ½")


def test_a_noise_level_in_place_of_its_square_is_caught(t, generator):
    path, x, eta = PATHS["bridge"], points(32, generator), LEVELS["constant"]
    wrong = lambda t, x: path.velocity(t, x) + column(0.5 * eta(t)) * path.score(t, x)
    residual = fokker_planck(path.log_density, wrong, eta, t, x)
    refute(worst("eq:family", residual), "factor: eta in place of its square")


@pytest.mark.parametrize("name", NOISING)
def test_the_reversal_of_noising_is_a_member_of_the_family(name, t, generator):
    """With eta = g the family contains Anderson's reverse of the noising process."""
    path = PATHS[name]
    x, g = points(32, generator), noising_diffusion(path.interpolant)
    sde = with_noise(path.velocity, path.score, g)
    growth = torch.func.jvp(path.interpolant.alpha, (t,), (torch.ones_like(t),))[1]
    linear_part = column(growth / path.interpolant.alpha(t)) * x
    anderson = linear_part + column(g(t) ** 2) * path.score(t, x)
    size = anderson.abs().max()
    expect(worst("eq:family", (sde.drift(t, x) - anderson) / size))
    half = linear_part + column(0.5 * g(t) ** 2) * path.score(t, x)
    refute(worst("eq:family", (half - anderson) / size), "factor: ½, which belongs to the ODE")


@levels
def test_velocity_of_undoes_with_noise(level, t, generator):
    path, x = PATHS["bridge, mixture base"], points(32, generator)
    sde = with_noise(path.velocity, path.score, level)
    v = velocity_of(sde, path.score)
    expect(worst("eq:probability-flow", v(t, x) - path.velocity(t, x)))
    expect(worst("eq:continuity", continuity(path.log_density, v, t, x), 1e-8))
    if level is not zero:
        again = velocity_of(Dynamics(v, level), path.score)
        refute(
            worst("eq:probability-flow", again(t, x) - path.velocity(t, x)),
            "factor: the whole eta²",
        )


@cases
def test_the_reversed_dynamics_passes_the_same_densities_backwards(name, level, t, generator):
    path, level, x = PATHS[name], LEVELS[level], points(32, generator)
    forward = with_noise(path.velocity, path.score, level)
    back = time_reversed(forward, path.score)
    density = lambda r, y: path.log_density(1 - r, y)
    check = lambda drift: worst("eq:backward", fokker_planck(density, drift, back.eta, t, x), 1e-8)
    expect(check(back.drift))
    assert torch.equal(back.eta(t), level(1 - t))
    if name != "bridge":
        return
    refute(check(forward.drift), "sign: the forward drift")
    refute(check(lambda r, x: back.drift(1 - r, x)), "clock: the drift read at t = r")
    if level is not zero:
        half = lambda r, x: (
            back.drift(r, x) - column(0.5 * level(1 - r) ** 2) * path.score(1 - r, x)
        )
        refute(check(half), "factor: half of eta² before the score")


@levels
def test_to_and_fro_is_the_same_dynamics(level, t, generator):
    path, x = PATHS["bridge"], points(32, generator)
    forward = with_noise(path.velocity, path.score, level)
    score_back = lambda r, y: path.score(1 - r, y)
    again = time_reversed(time_reversed(forward, path.score), score_back)
    expect(worst("eq:backward", again.drift(t, x) - forward.drift(t, x)))
    expect(worst("eq:backward", again.eta(t) - forward.eta(t)))
    if level is not zero:
        gap = forward.drift(t, x) + time_reversed(forward, path.score).drift(1 - t, x)
        expect(worst("eq:backward", gap - column(level(t) ** 2) * path.score(t, x)))
        refute(worst("eq:backward", gap), "missing term: eta² times the score")


@every
def test_langevin_leaves_the_frozen_law_alone(path, t, generator):
    x, c = points(32, generator), 0.8
    chain = langevin(path.score, t, c)
    frozen = lambda theta, y: path.log_density(t, y) + 0 * theta
    theta = torch.full_like(t, 0.2)
    check = lambda drift: worst("eq:langevin", fokker_planck(frozen, drift, chain.eta, theta, x))
    expect(check(chain.drift))
    refute(check(lambda s, x: 2 * chain.drift(s, x)), "factor: c² in place of half of it")
    refute(check(lambda s, x: -chain.drift(s, x)), "sign: away from the modes")
    refute(check(lambda s, x: c * path.score(t, x) / 2), "factor: c in place of its square")
    assert torch.equal(chain.drift(theta, x), chain.drift(theta + 0.5, x))


def test_langevin_relaxes_at_the_rate_of_ornstein_and_uhlenbeck(generator):
    """From a point, under N(0, 1): mean exp(-c² theta / 2), variance 1 - exp(-c² theta)."""
    law = gaussian(torch.zeros(1, dtype=F64), torch.ones(1, 1, dtype=F64))
    path = MixturePath(linear, law)
    chain = langevin(path.score, scalar(1.0), 1.2)
    x = integrate(heun(chain), torch.full((20_000, 1), 1.5, dtype=F64), times(40), generator)
    rate = torch.exp(scalar(-(1.2**2) / 2)).item()
    expect(mean("eq:langevin", x[:, 0], 1.5 * rate))
    expect(mean("eq:langevin", (x[:, 0] - 1.5 * rate) ** 2, 1 - rate**2))
    refute(mean("eq:langevin", x[:, 0], 1.5 * rate**2), "factor: twice the drift")


@pytest.mark.parametrize("level", [zero, constant(1.0), LEVELS["vanishing"]])
def test_samples_of_the_family_reach_the_target(level, generator):
    """The law leg: the characteristic function of the samples at t = 1 against the exact one."""
    path, u = MixturePath(linear, TARGET), torch.tensor([0.7, -0.4], dtype=F64)
    start = path.reference(2500, generator)
    run = lambda dynamics: integrate(heun(dynamics), start, times(40), generator)
    exact = waves(TARGET, u)
    y = run(with_noise(path.velocity, path.score, level))
    expect(mean("eq:family", (y @ u).cos(), exact.real.item()))
    expect(mean("eq:family", (y @ u).sin(), exact.imag.item()))
    if level is not zero:
        bad = run(Dynamics(path.velocity, level))
        refute(
            mean("eq:family", (bad @ u).cos(), exact.real.item()),
            "missing term: noise that no score pays for",
        )


def test_samples_go_back_to_the_base(generator):
    path, u = PATHS["linear, coupled ends"], torch.tensor([0.7, -0.4], dtype=F64)
    back = time_reversed(with_noise(path.velocity, path.score, constant(0.8)), path.score)
    x = integrate(heun(back), TARGET.sample(2500, generator), times(40), generator)
    exact = waves(path.base, u)
    expect(mean("eq:backward", (x @ u).cos(), exact.real.item()))
    expect(mean("eq:backward", (x @ u).sin(), exact.imag.item()))
    refute(mean("eq:backward", (x @ u).sin(), -exact.imag.item()), "sign: the base reflected")


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("each", [False, True])
def test_a_batch_is_a_loop(n, each, generator):
    path, x = PATHS["bridge"], points(n, generator)
    t = inner_times(n, generator) if each else scalar(0.4)
    sde = with_noise(path.velocity, path.score, LEVELS["growing"])
    for drift in (
        sde.drift,
        velocity_of(sde, path.score),
        time_reversed(sde, path.score).drift,
        time_reversed(Dynamics(path.velocity), path.score).drift,
    ):
        assert same_rows(drift, t, x) < 1e-10


def test_without_noise_the_score_is_never_asked(generator):
    """A network's score may be singular at t = 1, where the flow is not."""

    def forbidden(t, x):
        raise AssertionError("the score was evaluated")

    field, x, t = lambda t, x: t + x, points(3, generator), scalar(1.0)
    flow = with_noise(field, forbidden, zero)
    assert flow.drift is field and flow.eta is zero
    assert with_noise(field, forbidden, constant(0.0)).drift is field
    assert velocity_of(flow, forbidden) is field
    assert torch.equal(time_reversed(flow, forbidden).drift(t, x), -x)


@pytest.mark.parametrize("eta", [0.7, 1, None])
def test_a_noise_level_that_is_no_curve_is_refused(eta):
    with pytest.raises(TypeError, match=rf"eta is a curve.*got {eta}; write constant\({eta}\)|eta"):
        Dynamics(lambda t, x: x, eta)
    with pytest.raises(TypeError, match="a drift is a field|drift"):
        Dynamics(eta)


def bayes_kernel(path, u, y):
    """Log of the density that the noising process came from y at u, given its state at t < u."""
    i = path.interpolant

    def log_k(t, x):
        scale = i.alpha(t) / i.alpha(u)
        variance = i.variance(t) - scale**2 * i.variance(u)
        square = ((x - column(scale) * y) ** 2).sum(1)
        d = x.shape[1]
        return -0.5 * square / variance - 0.5 * d * variance.log() - path.log_density(t, x)

    return log_k


def backward_equation(log_k, dynamics, t, x):
    r"""$(\partial_t + b\cdot\nabla + \tfrac12\eta^2\Delta)k$ over k."""
    slope = gradient(log_k, t, x)
    return mean_rate(log_k, dynamics, t, x) + 0.5 * dynamics.eta(t) ** 2 * (slope**2).sum(1)


def denoising(path):
    return time_reversed(noising_run(path.interpolant), lambda r, y: path.score(1 - r, y))


@pytest.mark.parametrize("name", NOISING)
def test_the_way_back_from_noise_has_the_transitions_of_noising(name, generator):
    """Anderson's theorem as a law of paths, in float64; right densities do not suffice."""
    path, y = PATHS[name], torch.tensor([0.7, -0.4], dtype=F64)
    u = scalar(0.9)
    for t in (scalar(0.35), 0.1 + 0.6 * torch.rand(16, generator=generator, dtype=F64)):
        x = path.sample(scalar(0.4), 16, generator)
        log_k, back = bayes_kernel(path, u, y), denoising(path)
        size = 1 + (back.eta(t) ** 2 * (gradient(log_k, t, x) ** 2).sum(1)).abs().max()
        check = lambda d: worst("eq:anderson", backward_equation(log_k, d, t, x) / size)
        expect(check(back))
        g = noising_diffusion(path.interpolant)
        expect(check(with_noise(path.velocity, path.score, g)))
        flow = Dynamics(path.velocity)
        refute(check(flow), "wrong object: the flow has the densities only")
        louder = with_noise(path.velocity, path.score, lambda t: 1.5 * g(t))
        refute(check(louder), "wrong object: the noise 1.5 g has the densities only")
        half = lambda t, x: back.drift(t, x) - column(0.5 * g(t) ** 2) * path.score(t, x)
        refute(check(Dynamics(half, g)), "factor: ½g² in place of g²")
        refute(check(Dynamics(lambda t, x: -back.drift(t, x), g)), "sign: of the whole drift")


def test_brownian_motion_that_is_weighted_by_its_end_goes_back_by_a_bridge(generator):
    """dY = tanh(Y) dr + dB from a point a: backwards, the drift is (a - x) / (1 - t)."""
    a = scalar(-0.6)

    def log_q(r, y):
        bell = -0.5 * (y[:, 0] - a) ** 2 / r - 0.5 * r.log()
        return bell + y[:, 0].cosh().log() - 0.5 * r

    process = Dynamics(lambda r, y: y.tanh(), constant(1.0))
    for t in (scalar(0.3), inner_times(32, generator)):
        x = points(32, generator, d=1)
        back = time_reversed(process, lambda r, y: gradient(log_q, r, y))
        gap = back.drift(t, x) - (a - x) / column(1 - t)
        expect(worst("eq:reversed-drift", gap))
        refute(worst("eq:reversed-drift", gap + 2 * x.tanh()), "sign: the drift not reversed")
        assert torch.equal(back.eta(t), torch.ones_like(t))


@levels
def test_the_mean_of_both_drifts_is_the_velocity(level, t, generator):
    path, x = PATHS["bridge, mixture base"], points(32, generator)
    sde = with_noise(path.velocity, path.score, level)
    last = backward_drift(sde, path.score)(t, x)
    expect(worst("eq:nelson", 0.5 * (sde.drift(t, x) + last) - path.velocity(t, x)))
    back = time_reversed(sde, path.score)
    expect(worst("eq:nelson", back.drift(1 - t, x) + last))
    if level is not zero:
        refute(worst("eq:nelson", last - path.velocity(t, x)), "factor: ½eta² in place of eta²")


def test_both_drifts_are_measured_on_particles(generator):
    """Steps of the exact noising process; E[x (next - last) / h] = -g² d, whatever the data."""
    path, t, h, n = PATHS["VP, rough"], scalar(0.5), 0.002, 200_000
    after = path.sample(t + h, n, generator)
    draw = lambda: torch.randn(after.shape, generator=generator, dtype=F64)
    (a, A), (b, B) = (noising_kernel(path.interpolant, t - i * h, t - (i - 1) * h) for i in (0, 1))
    here = a * after + A.sqrt() * draw()
    before = b * here + B.sqrt() * draw()
    twist = (here * (after - 2 * here + before)).sum(1) / h
    few = PATHS["VP, rough"].sample(t, 500, generator)
    back = denoising(path)
    gap = back.drift(t, few) - backward_drift(back, path.score)(t, few)
    square = (back.eta(t) ** 2).item()
    expect(mean("eq:nelson", twist, -2 * square))
    refute(mean("eq:nelson", twist, -square), "factor: ½g² in place of g²")
    expect(worst("eq:nelson", gap - square * path.score(t, few)))
    refute(worst("eq:nelson", gap + square * path.score(t, few)), "sign: of the score")


@pytest.mark.parametrize("name", NOISING)
def test_the_noising_run_passes_the_densities_backwards(name, t, generator):
    path, x = PATHS[name], points(32, generator)
    run = noising_run(path.interpolant)
    density = lambda r, y: path.log_density(1 - r, y)
    check = lambda drift: worst("eq:noising", fokker_planck(density, drift, run.eta, t, x), 1e-7)
    expect(check(run.drift))
    assert torch.equal(run.eta(t), noising_diffusion(path.interpolant)(1 - t))
    if not name.startswith("VE"):
        refute(check(lambda r, x: -run.drift(r, x)), "sign: noising that expands")
        refute(check(lambda r, x: run.drift(1 - r, x)), "clock: the drift read at t = r")


def test_two_states_of_a_noising_run_hang_together_by_the_ratio_of_the_scales(generator):
    path, grid = PATHS["VP, rough"], times(40, 0.0, 0.8)
    i, first = path.interpolant, TARGET.sample(4000, generator)
    run = trajectory(heun(noising_run(i)), first, grid, generator)
    t, u = 1 - grid[30], 1 - grid[10]
    at_u = i.alpha(u) ** 2 * (TARGET.cov + torch.outer(TARGET.mean, TARGET.mean))
    second = (i.alpha(t) / i.alpha(u) * (at_u + i.variance(u) * torch.eye(2, dtype=F64))).trace()
    seen = (run[30] * run[10]).sum(1)
    expect(mean("eq:two-time", seen, second.item()))
    one_noise = i.alpha(t) / i.alpha(u) * at_u + i.sigma(t) * i.sigma(u) * torch.eye(2)
    refute(mean("eq:two-time", seen, one_noise.trace().item()), "wrong object: one noise for all")


def test_noising_stops_before_the_signal_is_gone(generator):
    run, x = noising_run(linear), points(3, generator)
    with pytest.raises(ValueError, match="divides by alpha, got alpha = 0; stop the run at r < 1"):
        run.drift(scalar(1.0), x)
    with pytest.raises(ValueError, match="divides by alpha"):
        run.drift(torch.tensor([0.5, 0.2, 1.0], dtype=F64), x)
    expect(worst("eq:noising", run.drift(scalar(0.75), x) + 4 * x))
    refute(worst("eq:noising", run.drift(scalar(0.75), x) + 3 * x), "clock: 1 - t for t")
    with pytest.raises(ValueError, match="latent noise"):
        noising_run(PATHS["bridge"].interpolant)


FROM_POINT = Interpolant(lambda t: (t * (1 - t)).sqrt(), lambda t: t, sigma2=lambda t: t * (1 - t))


@pytest.mark.parametrize("seed, d, k", [(0, 1, 3), (1, 2, 2), (2, 3, 1)])
def test_foellmers_drift_is_the_gradient_of_a_smoothed_density_ratio(seed, d, k, generator):
    """The mean over Z in closed form: a mixture over a Gaussian, component by component."""
    law = random_mixture(seed, d, k)
    steer = foellmer(MixturePath(FROM_POINT, law).denoiser, law.mean)
    eye = torch.eye(d, dtype=F64)

    def log_h(t, x):
        """Component N(m, C) against heat: Gaussian integral of N(y; m, C) exp(y²/2) over
        N(x, (1-t) I)."""
        C, m, c = law.covs, law.means, column(1 - t)
        c = c[..., None] if t.ndim else c
        parts = []
        for w, mean_k, cov in zip(law.weights, m, C):
            P = torch.linalg.inv(cov) + eye / c - eye
            lin = torch.linalg.solve(cov, mean_k) + x / column(1 - t)
            quad = (lin * torch.linalg.solve(P.expand(len(x), d, d), lin[..., None])[..., 0]).sum(1)
            flat = w.log() - 0.5 * cov.logdet() - 0.5 * mean_k @ torch.linalg.solve(cov, mean_k)
            parts.append(flat + 0.5 * quad - 0.5 * P.logdet())
        return torch.stack(parts, 1).logsumexp(1) - 0.5 * (x**2).sum(1) / (1 - t)

    for t in (scalar(0.0), scalar(0.4), inner_times(8, generator)):
        x = points(8, generator, d=d, scale=1.0) * column(t).sqrt()
        gap = steer.drift(t, x) - gradient(log_h, t, x)
        expect(worst("eq:foellmer", gap))
        if t.ndim == 0 and t == 0:
            expect(worst("eq:foellmer", steer.drift(t, x) - law.mean))
            continue
        refute(worst("eq:foellmer", gap * column(1 - t) - column(t) * x), "missing term: x")
        path = MixturePath(FROM_POINT, law)
        expect(worst("eq:foellmer", steer.drift(t, x) - denoising(path).drift(t, x)))
        assert torch.equal(steer.eta(t), torch.ones_like(t))


def test_foellmers_drift_knows_its_start_and_refuses_its_end(generator):
    steer = foellmer(MixturePath(FROM_POINT, TARGET).denoiser, TARGET.mean)
    mixed = torch.tensor([0.0, 0.5, 0.0], dtype=F64)
    x = torch.zeros(3, 2, dtype=F64)
    assert same_rows(steer.drift, mixed, x) < 1e-12
    assert torch.equal(steer.drift(scalar(0.0), x), TARGET.mean.expand(3, 2))
    for t in (scalar(1.0), torch.tensor([0.5, 1.0, 0.2], dtype=F64)):
        with pytest.raises(ValueError, match=r"divides by 1 - t .*got t = 1; stop the grid before"):
            steer.drift(t, x)
    for t in (scalar(1.2), scalar(-0.1), scalar(float("nan"))):
        with pytest.raises(ValueError, match=r"times in \[0, 1\)"):
            steer.drift(t, x)
    with pytest.raises(ValueError, match=r"mean is that of the target, \(2,\), got \(1,\)"):
        foellmer(MixturePath(FROM_POINT, TARGET).denoiser, TARGET.mean[:1]).drift(scalar(0.5), x)


def test_foellmers_drift_keeps_the_dtype_of_its_states():
    law = gaussian(torch.tensor([0.7]), torch.tensor([[0.25]]))
    steer = foellmer(MixturePath(FROM_POINT, law).denoiser, law.mean)
    for t in (torch.tensor(0.0), torch.tensor([0.0, 0.5, 0.9])):
        assert steer.drift(t, torch.zeros(3, 1)).dtype == torch.float32


def test_foellmers_process_leads_from_a_point_to_the_target(generator):
    steer = foellmer(MixturePath(FROM_POINT, TARGET).denoiser, TARGET.mean)
    u = torch.tensor([0.7, -0.4], dtype=F64)
    ends = integrate(euler(steer), torch.zeros(2500, 2, dtype=F64), times(150), generator)
    exact = waves(TARGET, u)
    expect(mean("eq:foellmer", (ends @ u).cos(), exact.real.item()))
    expect(mean("eq:foellmer", (ends @ u).sin(), exact.imag.item()))
    refute(mean("eq:foellmer", (ends @ u).sin(), -exact.imag.item()), "sign: the target reflected")


@pytest.mark.parametrize("name", NOISING)
def test_the_forecast_moves_by_noise_alone_only_along_the_reversal(name, t, generator):
    path = PATHS[name]
    x, back = path.sample(scalar(0.5), 32, generator), denoising(path)
    for i in range(2):
        part = lambda t, x, i=i: path.denoiser(t, x)[:, i]
        size = 1 + (back.drift(t, x) ** 2).sum(1).max().sqrt()
        check = lambda d: worst("eq:posterior-martingale", mean_rate(part, d, t, x) / size, 1e-8)
        expect(check(back))
        refute(check(Dynamics(path.velocity)), "wrong object: the flow")


@levels
def test_the_mean_rate_of_a_function_is_its_growth_over_a_short_step(level, generator):
    """Polynomials of degree two: the exact mean after one Euler step, to first order in it."""
    path, x, t = PATHS["bridge"], points(16, generator), scalar(0.4)
    sde = with_noise(path.velocity, path.score, level)
    Q = torch.tensor([[1.0, 0.5], [0.5, -2.0]], dtype=F64)
    f = lambda t, x: (1 + t**2) * ((x @ Q * x).sum(1) + x[:, 0])
    b, eta2 = sde.drift(t, x), level(t) ** 2
    by_hand = 2 * t * ((x @ Q * x).sum(1) + x[:, 0])
    by_hand = by_hand + (1 + t**2) * (2 * (b @ Q * x).sum(1) + b[:, 0] + eta2 * Q.trace())
    expect(worst("eq:posterior-martingale", mean_rate(f, sde, t, x) - by_hand))
    if level is not zero:
        twice = by_hand + (1 + t**2) * eta2 * Q.trace()
        refute(worst("eq:posterior-martingale", mean_rate(f, sde, t, x) - twice), "factor: ½eta²")


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("each", [False, True])
def test_a_batch_of_the_way_back_is_a_loop(n, each, generator):
    path, x = PATHS["VP, rough"], points(n, generator)
    t = inner_times(n, generator) if each else scalar(0.4)
    back = denoising(path)
    steer = foellmer(MixturePath(FROM_POINT, TARGET).denoiser, TARGET.mean)
    growth = lambda t, x: mean_rate(lambda t, x: path.log_density(t, x), back, t, x)
    last = backward_drift(back, path.score)
    run = noising_run(path.interpolant)
    for function in (back.drift, steer.drift, last, run.drift, growth):
        assert same_rows(function, t, x) < 1e-10


@given(d=st.integers(1, 4), n=st.integers(1, 6), k=st.integers(1, 4), each=st.booleans())
def test_the_way_back_is_exact_in_every_dimension(d, n, k, each):
    """n = d = k is among the cases; the velocity of the oracle is the second opinion."""
    generator = torch.Generator().manual_seed(1000 * d + 100 * n + 10 * k)
    path = MixturePath(NOISING["VP, rough"], random_mixture(d + k, d, k))
    x = points(n, generator, d=d, scale=1.0)
    t = inner_times(n, generator) if each else scalar(0.4)
    back = denoising(path)
    halfway = 0.5 * (back.drift(t, x) + backward_drift(back, path.score)(t, x))
    expect(worst("eq:nelson", halfway - path.velocity(t, x)))
    assert back.drift(t, x).shape == x.shape
    assert mean_rate(path.log_density, back, t, x).shape == (n,)
