"""Potentials: autodiff, residuals of the heat equation, plans by another algorithm, simulation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, same_rows
from onepath.bridges import GaussianBridge
from onepath.calculus import constant, gradient, laplacian, rate
from onepath.control_oracles import MixtureControl, brownian
from onepath.couplings import sinkhorn
from onepath.dynamics import Dynamics
from onepath.measures import Mixture
from onepath.potentials import Potential, PotentialBridge, bridge_of_plan
from onepath.solvers import euler, integrate, times
from onepath.verify import continuity, expect, fokker_planck, mean, refute, worst

seeds = st.integers(0, 10_000)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def a_potential(seed=0, k=3, d=2, points=False):
    roots = random(k, d, d, seed=seed)
    covs = None if points else roots @ roots.mT / d + 0.3 * torch.eye(d, dtype=F64)
    return Potential(3 * random(k, seed=seed + 1), random(k, d, seed=seed + 2), covs)


def a_bridge(seed=0, tau=0.7, points=(False, False), d=2):
    ahead, behind = (a_potential(seed + 10 * i, 3 - i, d, p) for i, p in enumerate(points))
    return PotentialBridge(ahead, behind, tau)


CASES = [(False, False), (True, False), (False, True), (True, True)]


@given(seeds, st.booleans())
def test_a_potential_solves_the_heat_equation(seed, points):
    phi, x = a_potential(seed, points=points), random(5, 2, seed=seed)
    value = lambda v, x: phi.log(v, x).exp()
    v = torch.tensor(0.8, dtype=F64)
    heat = lambda factor: (
        (rate(lambda s: value(s, x), v) - factor * laplacian(value, v, x)) / value(v, x)
    )
    expect(worst("eq:mixture-potential", heat(0.5), 1e-8))
    refute(worst("eq:mixture-potential", heat(1.0), 1e-8), "factor: the Laplacian without its half")


@given(seeds, st.booleans())
def test_its_slope_is_the_gradient_of_its_logarithm(seed, points):
    phi, x = a_potential(seed, points=points), random(5, 2, seed=seed)
    for v in (torch.tensor(0.4, dtype=F64), torch.linspace(0.2, 1.0, 5, dtype=F64)):
        exact = gradient(phi.log, v, x)
        expect(worst("eq:mixture-potential", phi.slope(v, x) - exact))
        expect(worst("eq:mixture-potential", phi.slope(v, x[:1].expand(5, 2))
                     - gradient(phi.log, v, x[:1].expand(5, 2))))  # fmt: skip


def test_points_are_the_limit_of_narrow_components():
    phi, x, v = a_potential(points=True), random(4, 2), torch.tensor(0.3, dtype=F64)
    narrow = Potential(phi.log_weights, phi.means, 1e-9 * torch.eye(2, dtype=F64).repeat(3, 1, 1))
    assert torch.allclose(phi.log(v, x), narrow.log(v, x), atol=1e-6)
    assert torch.allclose(phi.slope(v, x), narrow.slope(v, x), atol=1e-5)


def test_it_is_the_value_of_the_control_problem_with_the_same_mixture():
    phi, x, t, tau = a_potential(3), random(4, 2), torch.tensor(0.3, dtype=F64), 0.7
    weights = phi.log_weights.softmax(0)
    total = phi.log_weights.logsumexp(0).item()
    problem = MixtureControl(brownian(tau**0.5), Mixture(weights, phi.means, phi.covs), total)
    v = tau * (1 - t)
    expect(worst("eq:mixture-potential", phi.log(v, x) - problem.log_psi(t, x)))
    expect(worst("eq:mixture-potential", tau * phi.slope(v, x) - tau**0.5 * problem.control(t, x)))


@pytest.mark.parametrize("points", CASES)
def test_density_drift_and_velocity_of_a_bridge_belong_together(points):
    bridge, x = a_bridge(1, points=points), random(6, 2)
    for t in (torch.tensor(0.4, dtype=F64), torch.linspace(0.2, 0.8, 6, dtype=F64)):
        rho = bridge.log_density
        moved = lambda field: worst("eq:two-potentials", continuity(rho, field, t, x), 1e-8)
        expect(moved(bridge.velocity))
        refute(moved(bridge.drift), "wrong object: the drift for the velocity")
        eta = constant(bridge.tau**0.5)
        expect(worst("eq:two-potentials", fokker_planck(rho, bridge.drift, eta, t, x), 1e-8))
        expect(worst("eq:two-potentials", bridge.score(t, x) - gradient(rho, t, x)))
        one = gradient(lambda t, x: bridge.ahead.log(bridge.tau * (1 - t), x), t, x)
        refute(worst("eq:two-potentials", one - gradient(rho, t, x)), "missing term: behind")
        to_end = (bridge.denoiser(t, x) - x) / (1 - t.reshape(-1, 1))
        expect(worst("eq:bridge-drift", bridge.drift(t, x) - to_end))


@given(d=st.integers(1, 3), n=st.integers(1, 4), points=st.sampled_from(CASES), each=st.booleans())
def test_a_batch_is_a_loop(d, n, points, each):
    """With 3 and 2 components, so that n, d and k are the same or not."""
    bridge, x = a_bridge(5, points=points, d=d), random(n, d, seed=n)
    t = torch.linspace(0.2, 0.8, n, dtype=F64) if each else torch.tensor(0.4, dtype=F64)
    for field in (bridge.drift, bridge.velocity, bridge.score, bridge.denoiser, bridge.log_density):
        assert same_rows(field, t, x) < 1e-10


@pytest.mark.parametrize("points", CASES)
def test_a_bridge_has_mass_one_at_every_time(points):
    bridge = a_bridge(2, points=points, d=1)
    line = torch.linspace(-14, 14, 8001, dtype=F64)
    for t in (0.2, 0.5, 0.9):
        density = bridge.log_density(torch.tensor(t, dtype=F64), line[:, None]).exp()
        expect(worst("eq:schroedinger-system", torch.trapezoid(density, line) - 1))


def test_a_time_of_a_shorter_dtype_loses_no_mass():
    bridge, x = a_bridge(3), random(4, 2)
    short = torch.tensor(0.1)
    same = bridge.log_density(short, x) - bridge.log_density(short.double(), x)
    expect(worst("eq:schroedinger-system", same, 1e-14))


def a_plan(tau=0.4, n=6, m=7):
    return sinkhorn(random(n, 2, seed=5), 1.5 * random(m, 2, seed=6), tau, tolerance=1e-13)


def test_the_density_between_samples_is_that_of_all_pairs():
    plan, x = a_plan(), random(5, 2)
    for t in (torch.tensor(0.3, dtype=F64), torch.linspace(0.1, 0.9, 5, dtype=F64)):
        s = t.reshape(-1, 1, 1, 1)
        ways = (1 - s) * plan.x[:, None] + s * plan.y
        v = plan.temperature * s[..., 0] * (1 - s[..., 0])
        square = (x[:, None, None] - ways).square().sum(3)
        exact = (plan.matrix * (-0.5 * square / v).exp() / (2 * math.pi * v)).sum((1, 2)).log()
        found = bridge_of_plan(plan).log_density(t, x)
        expect(worst("eq:plan-density", found - exact))
        other = bridge_of_plan(a_plan(0.8)).log_density(t, x)
        refute(worst("eq:plan-density", other - exact), "factor: 2 tau for tau")


def test_a_mass_that_is_known_is_found():
    plan = a_plan()
    found = bridge_of_plan(plan).log_mass + math.log(2 * math.pi * plan.temperature)
    expect(worst("eq:plan-density", found))


def test_on_many_points_it_is_the_gaussian_bridge():
    """Quadrature: two laws of the line on 200 points each, with their densities for weights."""
    x = torch.linspace(-8, 8, 200, dtype=F64)[:, None]
    weights = lambda m, s: torch.softmax(-0.5 * ((x[:, 0] - m) / s) ** 2, 0)
    a, b = weights(-0.4, 0.8), weights(0.3, 1.2)
    keep = a > 1e-25, b > 1e-25
    plan = sinkhorn(x[keep[0]], x[keep[1]], 0.8, a[keep[0]] / a[keep[0]].sum(),
                    b[keep[1]] / b[keep[1]].sum(), tolerance=1e-12)  # fmt: skip
    number = lambda value: torch.full((1, 1), value, dtype=F64)
    exact = GaussianBridge(number(-0.4)[0], number(0.64), number(0.3)[0], number(1.44), 0.8)
    found, at = bridge_of_plan(plan), torch.linspace(-1.5, 1.5, 7, dtype=F64)[:, None]
    for t in (0.25, 0.5, 0.75):
        t = torch.tensor(t, dtype=F64)
        for field in ("drift", "velocity", "score"):
            gap = getattr(found, field)(t, at) - getattr(exact, field)(t, at)
            expect(worst("eq:two-potentials", gap, 1e-6))


@pytest.mark.parametrize("points", [True, False])
def test_drawn_ends_have_the_mean_and_the_spread_of_the_conditional_law(points, generator):
    phi, tau, t = a_potential(4, points=points), 0.7, torch.tensor(0.4, dtype=F64)
    bridge = PotentialBridge(phi, a_potential(5), tau)
    x = torch.tensor([[0.3, -0.2]], dtype=F64)
    drawn = bridge.ends(t, x.expand(20_000, 2), generator)
    for k in range(2):
        expect(mean("eq:bridge-drift", drawn[:, k], bridge.denoiser(t, x)[0, k].item()))
    refute(mean("eq:bridge-drift", drawn[:, 0], bridge.drift(t, x)[0, 0].item()),
           "wrong object: the drift for the end")  # fmt: skip
    v = tau * (1 - t)  # the variance by the Hessian of log phi: v + v^2 times the latter
    slope = lambda h: phi.slope(v, x + h * torch.tensor([[1.0, 0.0]], dtype=F64))
    hessian = rate(slope, torch.zeros((), dtype=F64))[0, 0]
    spread = (drawn[:, 0] - bridge.denoiser(t, x)[0, 0]) ** 2
    expect(mean("eq:bridge-drift", spread, (v + v**2 * hessian).item()))


def test_particles_between_samples_reach_each_point_as_often_as_it_weighs(generator):
    plan = sinkhorn(random(6, 2, seed=5), random(4, 2, seed=6), 0.5,
                    b=torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64), tolerance=1e-12)  # fmt: skip
    bridge = bridge_of_plan(plan)
    x0 = plan.x.repeat(1500, 1)
    half = integrate(euler(Dynamics(bridge.drift, constant(0.5**0.5))), x0, times(60, 0, 0.8),
                     generator)  # fmt: skip
    ends = bridge.ends(torch.tensor(0.8, dtype=F64), half, generator)
    hits = (torch.cdist(ends, plan.y) < 1e-9).double()
    assert (hits.sum(1) == 1).all()
    for j in range(4):
        expect(mean("eq:plan-density", hits[:, j], plan.b[j].item(), 4.5))


def test_weights_may_be_far_apart():
    """Log-weights of a cold plan: their exponentials would underflow."""
    phi = Potential(
        torch.tensor([-2000.0, 0.0], dtype=F64), torch.tensor([[0.0], [10.0]], dtype=F64)
    )
    v, x = torch.tensor(0.01, dtype=F64), torch.tensor([[0.0], [10.0]], dtype=F64)
    assert phi.shares(v, x).argmax(1).tolist() == [0, 1]
    assert phi.log(v, x).isfinite().all()


def test_bad_input_is_refused():
    phi, x = a_potential(points=True), random(3, 2)
    with pytest.raises(ValueError, match="v > 0"):
        phi.log(torch.zeros((), dtype=F64), x)
    with pytest.raises(ValueError, match="v >= 0"):
        a_potential().log(torch.tensor(-0.1, dtype=F64), x)
    with pytest.raises(ValueError, match="log-weight"):
        Potential(phi.log_weights * torch.nan, phi.means)
    with pytest.raises(ValueError, match="positive definite"):
        Potential(phi.log_weights, phi.means, torch.zeros(3, 2, 2, dtype=F64))
    with pytest.raises(ValueError, match="positive and finite temperature"):
        PotentialBridge(phi, phi, 0.0)
    with pytest.raises(ValueError, match="points are"):
        PotentialBridge(phi, a_potential(d=1), 1.0)


def test_a_draw_wants_a_generator_of_its_device(device):
    phi = Potential(torch.zeros(2, device=device), torch.zeros(2, 1, device=device))
    x, v = torch.zeros(3, 1, device=device), torch.ones((), device=device)
    assert phi.draw(v, x, torch.Generator(device).manual_seed(0)).device.type == device.type
