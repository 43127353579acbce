"""What errors cost: values against other ways to them, and bills whose entries are known."""

import pytest
import torch

from onepath.calculus import gradient, laplacian, time_derivative
from onepath.dynamics import Dynamics
from onepath.fields import convert, data, velocity
from onepath.interpolants import bridge, linear, noising_diffusion, variance_preserving
from onepath.measures import Mixture, gaussian
from onepath.multisteps import multistep
from onepath.oracles import MixturePath
from onepath.prices import bill, flow_value, looked_up, posterior_mean, transported
from onepath.samplers import ancestral, ddim
from onepath.shapes import per_point
from onepath.solvers import euler, heun, integrate, rk4, times
from onepath.verify import expect, mean, refute, worst

F64 = torch.float64
tensor = lambda values: torch.tensor(values, dtype=F64)
VP = variance_preserving(0.5, 6.0)
MODES = Mixture(tensor([0.4, 0.6]), tensor([[-1.0], [1.2]]), tensor([[[0.1]], [[0.2]]]))
PATH = MixturePath(VP, MODES)
BELL = MixturePath(VP, gaussian(tensor([0.4]), tensor([[0.3]])))
LUMPS = Mixture(tensor([0.4, 0.6]), tensor([[0.8], [-0.5]]), tensor([[[0.5]], [[0.3]]]))
PAIRED = MixturePath(linear, MODES, LUMPS, torch.diag(MODES.weights))
FILLED = MixturePath(bridge(0.4), MODES, LUMPS)
wave = lambda x: (2 * x).sin()


@pytest.fixture
def spots(generator):
    t = 0.05 + 0.9 * torch.rand(30, generator=generator, dtype=F64)
    return t, 1.5 * torch.randn(30, 1, generator=generator, dtype=F64)


def start(n, path=PATH):
    levels = (torch.arange(n, dtype=F64) + 0.5) / n
    return path.interpolant.sigma(tensor(0.0)) * torch.special.ndtri(levels)[:, None]


# --- values


def test_the_posterior_mean_of_the_data_is_the_denoiser(spots):
    expect(
        worst("eq:price", posterior_mean(PATH, lambda x: x)(*spots) - PATH.denoiser(*spots)[:, 0])
    )
    t, x = spots
    second = posterior_mean(PATH, lambda x: x**2)(t, x) - PATH.denoiser(t, x)[:, 0] ** 2
    expect(worst("eq:price", second - PATH.denoiser_cov(t, x)[:, 0, 0]))


def test_at_the_data_nothing_is_open(spots):
    _, x = spots
    for value in (posterior_mean(PATH, wave), flow_value(PATH, wave)):
        expect(worst("eq:price", value(tensor(1.0), x) - wave(x)[:, 0]))


@pytest.mark.parametrize("k", [0.0, 1.0])
def test_a_value_solves_the_backward_equation(k, spots):
    t, x = spots
    u = (posterior_mean if k else flow_value)(PATH, wave)
    g2 = (k * noising_diffusion(VP)(t)) ** 2
    drift = PATH.velocity(t, x) + 0.5 * per_point(g2) * PATH.score(t, x)
    carried = time_derivative(u, t, x) + (drift * gradient(u, t, x)).sum(1)
    expect(worst("eq:value-equation", carried + 0.5 * g2 * laplacian(u, t, x)))
    if k:
        refute(worst("eq:value-equation", carried + g2 * laplacian(u, t, x)), "factor: η² for ½η²")


@pytest.mark.parametrize("make", [posterior_mean, flow_value])
def test_a_batch_is_a_loop_over_single_points(make, spots):
    t, x = spots
    u = make(PATH, wave)
    alone = torch.cat([u(s, y[None]) for s, y in zip(t, x)])
    expect(worst("eq:price", u(t, x) - alone))
    assert u(t[:1], x[:1]).shape == (1,)


def test_values_keep_the_mean_over_the_path():
    line = torch.linspace(-9, 9, 3001, dtype=F64)[:, None]
    u = posterior_mean(PATH, wave)
    means = [(PATH.log_density(t, line).exp() * u(t, line)).sum() * 0.006 for t in times(4)]
    expect(worst("eq:price", torch.stack(means) - means[-1]))


# --- the flow on the line


@pytest.mark.parametrize("path", [PATH, PAIRED, FILLED], ids=["Gaussian", "paired", "filled"])
def test_particles_go_where_the_flow_takes_them(path, generator):
    x = path.sample(tensor(0.1), 20, generator)
    run = lambda n: integrate(rk4(Dynamics(path.velocity)), x, times(n, 0.1, 0.9))
    ours = transported(path, tensor(0.1), x, 0.9)
    expect(worst("eq:flow-price", run(60) - ours, 1e-6))
    refute(worst("eq:flow-price", run(2) - x, 1e-6), "wrong object: they stay")
    expect(worst("eq:flow-price", transported(path, tensor(0.9), ours, 0.1) - x))


@pytest.mark.parametrize("deviation", [0.01, 0.5, 30.0])
def test_a_single_component_is_stretched(deviation):
    law = gaussian(tensor([0.4]), tensor([[deviation**2]]))
    path, t = MixturePath(VP, law), tensor(0.3)
    (m, V), (m1, V1) = ((path.means(s)[0, 0], path.covs(s)[0, 0]) for s in (t, tensor(1.0)))
    x = m + V.sqrt() * tensor([[-20.0], [-3.0], [0.0], [1.0], [20.0]])  # tails keep their digits
    exact = m1 + (x - m) * (V1 / V).sqrt()
    expect(worst("eq:flow-price", (transported(path, t, x) - exact) / deviation))
    stretch = gradient(lambda s, y: transported(path, s, y)[:, 0], t, x)
    expect(worst("eq:flow-price", (stretch / (V1 / V).sqrt()) - 1))


def test_places_that_no_law_reaches_go_to_the_edge_on_their_side():
    far = tensor([[-1e4], [1e4]])
    left, right = transported(PATH, tensor(0.5), far)[:, 0]
    means, widths = PATH.target.means[:, 0], PATH.target.covs[:, 0, 0].sqrt()
    expect(worst("eq:flow-price", (left - (means - 30 * widths).min()) / widths.max(), 0.1))
    expect(worst("eq:flow-price", (right - (means + 30 * widths).max()) / widths.max(), 0.1))


def test_a_map_is_constant_along_its_flow(spots):
    t, x = spots
    to_end = lambda s, y: transported(PATH, s, y)[:, 0]
    carried = (PATH.velocity(t, x) * gradient(to_end, t, x)).sum(1)
    expect(worst("eq:flow-price", time_derivative(to_end, t, x) + carried))


def test_values_are_for_the_line_and_noise_for_gaussian_paths():
    plane = MixturePath(VP, gaussian(tensor([0.0, 0.0]), torch.eye(2, dtype=F64)))
    for make in (posterior_mean, lambda path, phi: transported(path, tensor(0.5), start(4))):
        with pytest.raises(ValueError, match="on the line, got 2 dimensions"):
            make(plane, wave)
    with pytest.raises(ValueError, match="base N"):
        posterior_mean(PAIRED, wave)


# --- looked up


def test_looking_up_interpolates_and_asks_once():
    asked = []

    def value(t, x):
        asked.append(t.item())
        return 3 * x[:, 0] + t

    found = looked_up(value, -2.0, 2.0, 10)
    x = tensor([[-2.0], [-0.37], [1.99], [2.0]])
    for t in (0.25, 0.5, 0.25):
        expect(worst("eq:bill", found(tensor(t), x) - (3 * x[:, 0] + t)))
    assert asked == [0.25, 0.5]
    beyond = found(tensor(0.5), tensor([[-7.0], [7.0]]))
    expect(worst("eq:bill", beyond - tensor([-5.5, 6.5])))


# --- bills


def priced(make, value, n=8, learned=None, path=PATH, count=500, **how):
    """The bill of a sampler made of a denoiser, for the wave."""
    target = posterior_mean(path, wave)(tensor(0.0), start(1, path) * 0)  # of no account here
    both = make(learned or path.denoiser), make(path.denoiser)
    grid, draw = times(n, **how), torch.Generator().manual_seed(3)
    return bill(*both, value(path, wave), wave, target.item(), start(count, path), grid, draw)


def test_exact_steps_cost_nothing():
    """For one Gaussian the ancestral step with the right variance has the exact law."""
    spread = lambda t: BELL.denoiser_cov(t, t[..., None].reshape(-1, 1))[:, 0, 0]
    b = priced(lambda d: ancestral(d, BELL.interpolant, spread), posterior_mean, path=BELL)
    expect(worst("eq:bill", b.steps, 1e-7))
    short = priced(lambda d: ancestral(d, BELL.interpolant), posterior_mean, path=BELL)
    refute(worst("eq:bill", short.steps, 1e-7), "missing term: the variance of the posterior")
    exact = lambda d: ancestral(d, BELL.interpolant, spread)
    refute(worst("eq:bill", priced(exact, flow_value, path=BELL).steps, 1e-7), "wrong object: flow")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_network_without_error_costs_nothing_whatever_the_memory(order):
    b = priced(lambda d: multistep(d, VP, order), flow_value)
    expect(worst("eq:bill", b.network))
    bent = lambda t, x: PATH.denoiser(t, x) + 0.1
    refute(
        worst(
            "eq:bill", priced(lambda d: multistep(d, VP, order), flow_value, learned=bent).network
        ),
        "wrong object: the data are off",
    )


def test_the_memory_of_the_exact_step_is_recomputed():
    """With one half of its error kept in the memory, an entry would be half as large again."""
    bent = lambda t, x: PATH.denoiser(t, x) + 1e-3 * per_point(VP.sigma(t))
    two = priced(lambda d: multistep(d, VP, 2), flow_value, 50, bent, count=100).network.sum()
    one = priced(lambda d: ddim(d, VP), flow_value, 50, bent, count=100).network.sum()
    assert abs(two / one - 1) < 0.25


@pytest.mark.parametrize("stop", [1.0, 0.7])
def test_the_entries_add_up_to_the_error(stop):
    bent = lambda t, x: PATH.denoiser(t, x) + 0.1 * x.cos()
    target = 0.123
    for make, value in (
        (lambda d: ddim(d, VP), flow_value),
        (lambda d: heun(Dynamics(convert(d, VP, data, velocity))), flow_value),
    ):
        grid = times(6, 0.0, min(stop, 0.95))
        b = bill(make(bent), make(PATH.denoiser), value(PATH, wave), wave, target, start(50), grid)
        expect(worst("eq:bill", (wave(b.ends).mean() - target - b.total)[None]))
        assert b.stop != 0


def test_the_entries_of_a_noisy_run_add_up_on_average():
    bent = lambda t, x: PATH.denoiser(t, x) + 0.1 * x.cos()
    u = looked_up(posterior_mean(PATH, wave), -6, 6)
    steps = ancestral(bent, VP), ancestral(PATH.denoiser, VP)
    draw = torch.Generator().manual_seed(5)
    b = bill(*steps, u, wave, 0.0, start(20_000), times(6), draw)
    other = integrate(steps[0], start(20_000), times(6), torch.Generator().manual_seed(6))
    expect(mean("eq:bill", wave(other)[:, 0], b.total, z=5.0))
    missed = b.total - b.steps.sum().item()
    refute(mean("eq:bill", wave(other)[:, 0], missed, z=5.0), "missing term: the steps")


def test_a_step_that_draws_needs_a_generator_and_draws_once():
    noisy = euler(Dynamics(lambda t, x: -x, torch.ones_like))
    u = posterior_mean(PATH, wave)
    with pytest.raises(ValueError, match="needs a generator"):
        bill(noisy, noisy, u, wave, 0.0, start(5), times(2))
    twice = lambda x, t, u, draw, memory: (x + draw() + draw(), memory)
    with pytest.raises(ValueError, match="once at most, got 2 draws"):
        bill(twice, twice, u, wave, 0.0, start(5), times(2), torch.Generator())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_bills_follow_device_and_dtype(device, dtype):
    law = MODES.to(torch.zeros((), dtype=dtype, device=device))
    path = MixturePath(VP, law)
    x = start(20).to(dtype).to(device)
    draw = torch.Generator(device).manual_seed(1)
    u = looked_up(posterior_mean(path, wave), -6, 6)
    b = bill(*[ancestral(path.denoiser, VP)] * 2, u, wave, 0.0, x, times(3), draw)
    assert b.ends.dtype == dtype and b.ends.device.type == device.type
    assert transported(path, tensor(0.5).to(x), x).dtype == dtype
