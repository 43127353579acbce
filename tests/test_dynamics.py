"""Claims of chapters 5 and 6: one path of densities, many dynamics, and their way back."""

import pytest
import torch

from laws import F64, NOISING, PATHS, TARGET, inner_times, points, same_rows, scalar, waves
from onepath.calculus import constant, zero
from onepath.dynamics import Dynamics, langevin, time_reversed, velocity_of, with_noise
from onepath.interpolants import linear, noising_diffusion
from onepath.measures import gaussian
from onepath.oracles import MixturePath
from onepath.solvers import heun, integrate, times
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
