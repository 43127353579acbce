"""Claims of chapter 7: log-densities along a flow, their error, and the density of a chain."""

import math

import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, NOISING, TARGET, points, random_mixture, scalar
from onepath.calculus import constant, hutchinson, jacobian, rademacher_probes
from onepath.dynamics import Dynamics
from onepath.interpolants import linear
from onepath.likelihood import (
    bits_per_dimension,
    chain_log_density,
    encode,
    log_density,
    with_volume,
)
from onepath.measures import Mixture, gaussian, standard_normal
from onepath.networks import MLP
from onepath.oracles import MixturePath
from onepath.solvers import euler, heun, integrate, rk4, times
from onepath.verify import expect, mean, order, refute, worst

LINE = Mixture(
    torch.tensor([0.4, 0.6], dtype=F64),
    torch.tensor([[-1.0], [1.2]], dtype=F64),
    torch.tensor([[[0.4]], [[0.5]]], dtype=F64),
)
PATH = MixturePath(linear, TARGET)
FLOW = Dynamics(PATH.velocity)
BASE = PATH.base.log_prob
every = pytest.mark.parametrize("method", [euler, heun, rk4])


def start_of(path):
    """The exact log-density at time 0, which is not that of the reference where alpha_0 > 0."""
    return lambda x: path.log_density(scalar(0.0), x)


# --- the log-density


@pytest.mark.parametrize("name", ["trigonometric", "VP, rough"])
def test_the_flow_of_the_oracle_has_the_log_density_of_its_target(name, generator):
    path = MixturePath(NOISING[name], TARGET)
    x = TARGET.sample(12, generator)
    ends = times(8)
    truth = path.log_density(ends[-1], x)
    found = log_density(Dynamics(path.velocity), start_of(path), x, rk4, ends)
    expect(worst("eq:log-likelihood", found.values - truth, 2e-3))
    lost = start_of(path)(found.latent)
    refute(worst("eq:log-likelihood", lost - truth, 2e-3), "missing term: the divergence")
    turned = 2 * lost - found.values
    refute(worst("eq:log-likelihood", turned - truth, 2e-3), "sign: of the divergence")


def test_other_mixtures_and_dimensions(generator):
    for d, k in ((1, 3), (3, 2)):
        law = random_mixture(d, d, k)
        path = MixturePath(linear, law)
        x = law.sample(6, generator)
        found = log_density(Dynamics(path.velocity), path.base.log_prob, x, rk4, times(8))
        truth, lost = law.log_prob(x), path.base.log_prob(found.latent)
        expect(worst("eq:log-likelihood", found.values - truth, 2e-2))
        refute(worst("eq:log-likelihood", lost - truth, 2e-2), "missing term: the divergence")


@every
def test_the_order_is_that_of_the_method_and_the_error_stated_a_multiple_of_the_error(method):
    """An error that falls like n^-p is 2^p times as large with half of the steps, so the distance
    of the two runs is 2^p - 1 times the error of the finer one."""
    x, counts = torch.tensor([[-2.9], [-0.6], [0.4], [1.1], [2.3]], dtype=F64), [16, 32, 64]
    start = 2 * (math.exp(-1.5) * (x / 2).tan()).atan()  # dx/dt = (1 + t) sin x, backwards
    base = standard_normal(1, x).log_prob
    truth = base(start) + (start.sin() / x.sin()).log()[:, 0]
    flow = Dynamics(lambda t, y: (1 + t) * y.sin())
    runs = [log_density(flow, base, x, method, times(n)) for n in counts]
    errors = [(run.values - truth).abs().mean().item() for run in runs]
    p = {"euler": 1, "heun": 2, "rk4": 4}[method.__name__]
    sizes = [1 / n for n in counts]
    expect(order("eq:log-likelihood", sizes, errors, p))
    refute(order("eq:log-likelihood", sizes, errors, p + 1), "wrong object: another method")
    coarse, fine = runs[1:]
    assert torch.equal(fine.solver_error, (fine.values - coarse.values).abs())
    assert fine.solver_error.mean().item() / errors[2] == pytest.approx(2**p - 1, rel=0.1)


def test_a_linear_flow_has_a_log_density_in_closed_form(generator):
    """dx/dt = (A x + c) with a full matrix: the density of the Gaussian that scipy's flow makes."""
    A = torch.tensor([[0.4, -1.2], [0.7, -0.9]], dtype=F64)
    c = torch.tensor([0.3, -0.5], dtype=F64)
    field = lambda t, x: x @ A.T + c
    by_scipy = scipy.integrate.solve_ivp(
        lambda t, y: (A.numpy() @ y.reshape(2, 3) + c.numpy()[:, None] * [1, 0, 0]).ravel(),
        (0, 1),
        [0, 1, 0, 0, 0, 1],
        rtol=1e-12,
        atol=1e-12,
        method="DOP853",
    ).y[:, -1]
    shift, matrix = torch.from_numpy(by_scipy.reshape(2, 3)).split([1, 2], dim=1)
    law = gaussian(shift[:, 0], matrix @ matrix.T)
    x = points(8, generator, scale=1.0)
    base = standard_normal(2, x).log_prob
    found = log_density(Dynamics(field), base, x, rk4, times(100))
    expect(worst("eq:log-likelihood", found.values - law.log_prob(x), 1e-8))
    expect(worst("eq:log-likelihood", found.latent @ matrix.T + shift[:, 0] - x, 1e-8))
    refute(
        worst("eq:log-likelihood", found.values + A.trace() - law.log_prob(x), 1e-8),
        "missing term: the divergence",
    )


def test_the_law_of_the_particles_has_that_density(generator):
    """A mean over decoded latents, by importance from the density of another law."""
    wide = gaussian(torch.zeros(2).to(F64), 4 * torch.eye(2).to(F64))
    x = wide.sample(1000, generator)
    values = log_density(FLOW, BASE, x, heun, times(12)).values
    weights = (values - wide.log_prob(x)).exp()
    ends = integrate(heun(FLOW), PATH.reference(20_000, generator), times(12))
    target = (ends[:, 0] + ends[:, 1] ** 2).mean().item()
    expect(mean("eq:log-likelihood", weights, 1.0))
    expect(mean("eq:log-likelihood", weights * (x[:, 0] + x[:, 1] ** 2), target))
    refute(mean("eq:log-likelihood", weights, 0.5), "factor: half of the mass")


def test_part_of_a_path_has_the_density_of_its_end(generator):
    x = PATH.sample(scalar(0.6), 8, generator)
    begin = lambda y: PATH.log_density(scalar(0.2), y)
    found = log_density(FLOW, begin, x, rk4, times(6, 0.2, 0.6)).values
    expect(worst("eq:log-likelihood", found - PATH.log_density(scalar(0.6), x), 1e-3))
    late = PATH.log_density(scalar(0.7), x)
    refute(worst("eq:log-likelihood", found - late, 1e-3), "clock: the density of a later time")


def test_the_volume_is_minus_the_divergence_in_the_last_column(generator):
    state, t = points(5, generator, d=3), scalar(0.3)
    moved = with_volume(FLOW).drift(t, state)
    J = jacobian(PATH.velocity, t, state[:, :2])
    expect(worst("eq:log-likelihood", moved[:, :2] - PATH.velocity(t, state[:, :2])))
    expect(worst("eq:log-likelihood", moved[:, 2] + J.diagonal(dim1=1, dim2=2).sum(1)))
    refute(
        worst("eq:log-likelihood", moved[:, 2] - J.diagonal(dim1=1, dim2=2).sum(1)), "sign: of ∇·v"
    )


def test_a_fixed_probe_gives_an_unbiased_log_density(generator):
    x = TARGET.means[:1].expand(1000, 2)
    z = rademacher_probes(x, generator)
    by_probe = lambda field, t, x: hutchinson(field, t, x, z)
    found = log_density(FLOW, BASE, x, heun, times(8), by_probe)
    exact = log_density(FLOW, BASE, x[:1], heun, times(8))
    assert torch.allclose(found.latent, exact.latent, atol=1e-12)  # no probe moves a point
    expect(mean("eq:log-likelihood", found.values, exact.values.item()))
    doubled = BASE(found.latent) + 2 * (found.values - BASE(found.latent))
    refute(mean("eq:log-likelihood", doubled, exact.values.item()), "factor: the divergence twice")


# --- encoding


@pytest.mark.parametrize("method, expected", [(euler, 1), (heun, 3), (rk4, 5)])
def test_a_round_trip_gains_an_order_where_the_order_is_even(method, expected, generator):
    x, counts = points(12, generator, scale=1.0), [16, 32, 64]
    turn = Dynamics(lambda t, x: torch.stack([torch.sin(x[:, 1]) + t, x[:, 0] - t * x[:, 1]], 1))
    trips, maps = [], []
    truth = integrate(rk4(turn), x, times(400))
    for n in counts:
        ends = integrate(method(turn), x, times(n))
        trips.append((encode(turn, ends, method, times(n)) - x).norm(dim=1).mean().item())
        maps.append((ends - truth).norm(dim=1).mean().item())
    sizes = [1 / n for n in counts]
    expect(order("eq:round-trip", sizes, trips, expected))
    refute(order("eq:round-trip", sizes, maps, expected + 1), "wrong object: order of the map")


def test_to_encode_is_to_solve_backwards(generator):
    """One Euler step from t = 0.5 to 0.25 looks at the velocity at t = 0.5."""
    x = points(4, generator)
    by_hand = x - 0.25 * PATH.velocity(scalar(0.5), x)
    ours = encode(FLOW, x, euler, times(1, 0.25, 0.5))
    expect(worst("eq:round-trip", ours - by_hand))
    early = x - 0.25 * PATH.velocity(scalar(0.25), x)
    refute(worst("eq:round-trip", ours - early), "clock: the velocity at the other end")


# --- the density of a chain


def test_a_chain_is_differentiated_as_a_whole(generator):
    x, grid = points(8, generator, scale=1.0), torch.tensor([0.0, 0.3, 0.4, 0.8, 1.0], dtype=F64)
    whole = lambda t, y: encode(FLOW, y, euler, grid)
    volume = torch.linalg.slogdet(jacobian(whole, scalar(0.0), x)).logabsdet
    ours = chain_log_density(FLOW, BASE, x, grid)
    expect(worst("eq:coarse-likelihood", ours - BASE(whole(None, x)) - volume))
    refute(
        worst("eq:coarse-likelihood", ours - BASE(whole(None, x)) + volume), "sign: of the volume"
    )


def test_a_chain_has_mass_one_and_what_euler_reports_has_more():
    path = MixturePath(linear, LINE)
    x = torch.linspace(-8, 8, 1601, dtype=F64)[:, None]
    flow, base = Dynamics(path.velocity), path.base.log_prob
    chain = chain_log_density(flow, base, x, times(16))
    reported = log_density(flow, base, x, euler, times(16)).values
    mass = lambda values: torch.trapezoid(values.exp(), x[:, 0])
    expect(worst("eq:coarse-likelihood", mass(chain) - 1, 1e-6))
    refute(
        worst("eq:coarse-likelihood", mass(reported) - 1, 1e-6), "wrong object: trace for log det"
    )
    assert (reported >= chain).all() and mass(reported) > 1.01


# --- bits


def test_a_uniform_law_on_256_levels_costs_8_bits():
    d, width = 12, 2 / 256
    uniform = torch.full((3,), -d * math.log(2), dtype=F64)
    expect(worst("eq:bits", bits_per_dimension(uniform, (3, 4), width) - 8))
    refute(
        worst("eq:bits", bits_per_dimension(uniform, (3, 4), 1 / 256) - 8),
        "factor: width of [0, 1]",
    )
    forgot = bits_per_dimension(uniform, (3, 4), 1.0)
    refute(worst("eq:bits", forgot - 8), "missing term: the width of a level")


@given(st.floats(0.01, 2.0), st.integers(1, 5))
def test_bits_do_not_depend_on_the_units_of_a_pixel(scale, d):
    """A density in other units is divided by scale^d, and a level is scale times as wide."""
    values = torch.linspace(-3, 3, 5, dtype=F64)
    ours = bits_per_dimension(values, (d,), 0.1)
    theirs = bits_per_dimension(values - d * math.log(scale), (d,), 0.1 * scale)
    assert torch.allclose(ours, theirs)


# --- shapes, kinds, refusals


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("n, d", [(1, 1), (2, 2), (3, 1)])
def test_a_batch_is_a_loop_and_keeps_its_kind(dtype, n, d, generator):
    law = random_mixture(7, d, 2, dtype)
    flow = Dynamics(MixturePath(linear, law).velocity)
    x, base = law.sample(n, generator), standard_normal(d, law.means).log_prob
    batch = log_density(flow, base, x, heun, times(2))
    assert batch.values.shape == batch.solver_error.shape == (n,) and batch.latent.shape == (n, d)
    assert batch.values.dtype == batch.latent.dtype == dtype
    rows = [log_density(flow, base, x[[i]], heun, times(2)).values for i in range(n)]
    assert (batch.values - torch.cat(rows)).abs().max() < 1e4 * torch.finfo(dtype).eps
    chain = chain_log_density(flow, base, x, times(2))
    assert chain.shape == (n,) and chain.dtype == dtype


def test_a_network_has_a_likelihood_of_mass_one_and_can_be_trained_by_it(generator):
    net = MLP(dim=1, width=16, depth=2, classes=0, generator=generator)
    x = torch.linspace(-7, 7, 281)[:, None]
    base = standard_normal(1, x).log_prob
    found = log_density(Dynamics(net), base, x, heun, times(8)).values
    assert found.dtype == torch.float32
    assert abs(torch.trapezoid(found.exp(), x[:, 0]).item() - 1) < 1e-2
    (-found.mean()).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_a_likelihood_on_any_device_stays_there(device):
    flow = Dynamics(lambda t, x: -x)
    x = torch.randn(4, 2, generator=torch.Generator(device).manual_seed(0), device=device)
    found = log_density(flow, standard_normal(2, x).log_prob, x, rk4, times(8))
    wide = gaussian(torch.zeros(2, device=device), math.exp(-2) * torch.eye(2, device=device))
    assert found.values.device == x.device
    assert (found.values - wide.log_prob(x)).abs().max() < 1e-4


def test_a_flow_is_asked_for_and_noise_refused(generator):
    noisy = Dynamics(PATH.velocity, constant(0.5))
    x = points(3, generator)
    for call in (
        lambda: encode(noisy, x, euler, times(4)),
        lambda: log_density(noisy, BASE, x, euler, times(4)),
        lambda: chain_log_density(noisy, BASE, x, times(4)),
        lambda: with_volume(noisy),
    ):
        with pytest.raises(
            ValueError, match="only a flow can be retraced, got a dynamics with noise"
        ):
            call()


@pytest.mark.parametrize("call", [log_density, chain_log_density])
def test_points_without_coordinates_and_grids_that_fall_are_refused(call, generator):
    how = (euler,) if call is log_density else ()
    with pytest.raises((ValueError, TypeError), match=r"points are \(n, d\), got \(3,\)|'x'"):
        call(FLOW, BASE, torch.zeros(3, dtype=F64), *how, times(4))
    falling = torch.tensor([0.0, 0.7, 0.4], dtype=F64)
    with pytest.raises(ValueError, match="times must increase"):
        call(FLOW, BASE, points(3, generator), *how, falling)


def test_an_odd_number_of_steps_is_refused(generator):
    with pytest.raises(ValueError, match="needs an even number of steps, got 5"):
        log_density(FLOW, BASE, points(3, generator), rk4, times(5))


def test_a_base_that_does_not_sum_its_coordinates_is_refused(generator):
    each = lambda x: -0.5 * x**2
    for call in (
        lambda: log_density(FLOW, each, points(3, generator), euler, times(4)),
        lambda: chain_log_density(FLOW, each, points(3, generator), times(4)),
    ):
        with pytest.raises(ValueError, match=r"one number per point, got \(3, 2\) for 3 points"):
            call()


@pytest.mark.parametrize("shape, width", [((2, 2), 0.0), ((2, 2), -1.0), ((2, 0), 1.0)])
def test_levels_without_width_and_images_without_pixels_are_refused(shape, width):
    with pytest.raises(ValueError, match="a positive width and an image a pixel"):
        bits_per_dimension(torch.zeros(2, dtype=F64), shape, width)
