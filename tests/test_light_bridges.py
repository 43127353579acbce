"""Light potentials: Gaussian integrals by another formula, autodiff, quadrature, closed bridges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, same_rows
from onepath.bridges import GaussianBridge
from onepath.calculus import constant, gradient, jacobian, laplacian, rate
from onepath.dynamics import Dynamics
from onepath.light_bridges import LightBridge, LightPotential, light_loss
from onepath.potentials import PotentialBridge
from onepath.solvers import euler, integrate, times
from onepath.verify import continuity, expect, fokker_planck, mean, refute, worst

seeds = st.integers(0, 10_000)
FULL, DIAGONAL = True, False


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def a_light(seed=0, k=3, d=2, tau=0.7, full=FULL, largest=None):
    """Covariances up to `largest`, by default above tau, where the potential grows."""
    largest = 1.5 * tau if largest is None else largest
    spectrum = torch.linspace(0.2 * tau, largest, d, dtype=F64).repeat(k, 1)
    if full:
        Q = torch.linalg.qr(random(k, d, d, seed=seed))[0]
        spectrum = Q * spectrum[:, None] @ Q.mT
    return LightPotential(random(k, seed=seed + 1), random(k, d, seed=seed + 2), spectrum, tau)


def a_gaussian_pair(tau, seed=0, d=3):
    roots = random(2, d, d, seed=seed)
    cov0, cov1 = roots @ roots.mT / d + 0.2 * torch.eye(d, dtype=F64)
    return GaussianBridge(random(d, seed=seed), cov0, random(d, seed=seed + 1), 4 * cov1, tau)


def of_gaussians(pair):
    S = pair.cov1 - pair.cross.mT @ torch.linalg.solve(pair.cov0, pair.cross)
    r = pair.mean1 - S @ pair.mean0 / pair.tau
    return LightPotential(torch.zeros(1, dtype=F64), r[None], S[None], pair.tau)


@given(seeds, st.booleans())
def test_it_solves_the_heat_equation_also_where_it_grows(seed, full):
    phi, x, v = a_light(seed, full=full), random(5, 2, seed=seed), torch.tensor(0.3, dtype=F64)
    value = lambda v, x: phi.log(v, x).exp()
    heat = lambda half: (
        (rate(lambda s: value(s, x), v) - half * laplacian(value, v, x)) / value(v, x)
    )
    expect(worst("eq:light-potential", heat(0.5), 1e-8))
    refute(worst("eq:light-potential", heat(1.0), 1e-8), "factor: the Laplacian without its half")


@given(seeds, st.booleans())
def test_narrow_components_are_a_mixture_of_gaussians(seed, full):
    phi, x = a_light(seed, full=full, largest=0.6), random(5, 2, seed=seed)
    for v in (torch.tensor(0.0, dtype=F64), torch.linspace(0, 0.7, 5, dtype=F64)):
        expect(worst("eq:light-potential", phi.log(v, x) - phi.potential.log(v, x)))
        expect(worst("eq:light-potential", phi.origin(v, x) - phi.potential.origin(v, x)))
    v = torch.tensor(0.4, dtype=F64)
    expect(worst("eq:light-potential", phi.slope(v, x) - phi.potential.slope(v, x)))
    expect(worst("eq:light-potential", phi.shares(v, x) - phi.potential.shares(v, x)))


@given(seeds, st.booleans())
def test_its_slope_is_the_gradient_of_its_logarithm(seed, full):
    phi, x = a_light(seed, full=full), random(5, 2, seed=seed)
    for v in (torch.tensor(0.0, dtype=F64), torch.linspace(0.1, 0.7, 5, dtype=F64)):
        expect(worst("eq:light-potential", phi.slope(v, x) - gradient(phi.log, v, x)))
        origin = x + (v[:, None] if v.ndim else v) * phi.slope(v, x)
        expect(worst("eq:light-potential", phi.origin(v, x) - origin))


@given(d=st.integers(1, 3), n=st.integers(1, 4), k=st.integers(1, 3), full=st.booleans())
def test_a_batch_is_a_loop_over_points_and_spreads(d, n, k, full):
    phi, x = a_light(d + k, k, d, full=full), random(n, d, seed=n)
    for v in (torch.tensor(0.4, dtype=F64), torch.linspace(0, 0.7, n, dtype=F64)):
        for method in (phi.log, phi.shares, phi.slope, phi.origin):
            assert same_rows(method, v, x) < 1e-10


def test_a_diagonal_is_a_full_covariance():
    phi, x, v = a_light(3, full=DIAGONAL), random(6, 2), torch.tensor(0.5, dtype=F64)
    full = LightPotential(phi.log_weights, phi.means, torch.diag_embed(phi.covs), phi.tau)
    for one, other in ((phi.log, full.log), (phi.slope, full.slope), (phi.origin, full.origin)):
        assert torch.allclose(one(v, x), other(v, x), atol=1e-12)


@given(seeds, st.sampled_from([0.05, 1.0]))
def test_one_component_is_the_bridge_between_two_gaussians(seed, tau):
    pair, x = a_gaussian_pair(tau, seed), random(4, 3, seed=seed)
    light = LightBridge(of_gaussians(pair), x)
    for t in (0.0, 0.4, 1.0):
        t = torch.tensor(t, dtype=F64)
        expect(worst("eq:light-potential", light.drift(t, x) - pair.drift(t, x), 1e-7))


@pytest.mark.parametrize("full", [FULL, DIAGONAL])
def test_drawn_ends_have_the_mean_and_the_spread_of_the_plan(full, generator):
    phi, v = a_light(1, full=full), torch.tensor(0.5, dtype=F64)
    x = torch.tensor([[0.3, -0.8]], dtype=F64).expand(20_000, 2)
    y = phi.draw(v, x, generator)
    aim = phi.origin(v, x[:1])[0]
    hessian = jacobian(phi.slope, v, x[:1])[0]
    spread = v * torch.eye(2) + v**2 * hessian
    for i in (0, 1):
        expect(mean("eq:light-potential", y[:, i], aim[i].item()))
        expect(mean("eq:light-potential", (y[:, i] - aim[i]) ** 2, spread[i, i].item()))
        refute(mean("eq:light-potential", y[:, i], x[0, i].item()), "missing term: the slope")
    product = (y - aim).prod(1)
    expect(mean("eq:light-potential", product, spread[0, 1].item()))


def test_a_bridge_has_the_fields_of_its_potentials(generator):
    starts, x, t = random(5, 2, seed=9), random(6, 2), torch.tensor(0.6, dtype=F64)
    phi = a_light(2, largest=0.6)
    light = LightBridge(phi, starts)
    same = PotentialBridge(phi.potential, light.behind, phi.tau)
    assert same.log_mass.abs() < 1e-12
    for name in ("drift", "backward_drift", "score", "velocity", "log_density"):
        expect(worst("eq:two-potentials", getattr(light, name)(t, x) - getattr(same, name)(t, x)))
    wide = LightBridge(a_light(4), starts)
    expect(worst("eq:two-potentials", continuity(wide.log_density, wide.velocity, t, x), 1e-7))
    noisy = fokker_planck(wide.log_density, wide.drift, constant(wide.tau**0.5), t, x)
    expect(worst("eq:two-potentials", noisy, 1e-7))
    expect(worst("eq:two-potentials", wide.score(t, x) - gradient(wide.log_density, t, x)))


def test_the_process_leads_from_starts_to_the_ends_of_the_plan(generator):
    x0 = random(20_000, 2, seed=5)
    light = LightBridge(a_light(6, tau=0.5), x0)
    moving = Dynamics(light.drift, constant(light.tau**0.5))
    arrived = integrate(euler(moving), x0, times(100), generator)
    drawn = light.ends(torch.tensor(0.0, dtype=F64), x0, generator)
    apart = (x0 * arrived).sum(1) - (x0 * drawn).sum(1)
    expect(mean("eq:light-potential", apart, 0.0))
    expect(mean("eq:light-potential", arrived[:, 0] ** 2 - drawn[:, 0] ** 2, 0.0))


def test_what_a_potential_costs_is_the_divergence_of_the_true_plan():
    """On a line, with both plans as densities on a grid."""
    tau, best, other = 0.6, a_light(1, d=1, tau=0.6), a_light(8, k=2, d=1, tau=0.6)
    x = torch.linspace(-7, 7, 601, dtype=F64)[:, None]
    p0 = (-0.5 * (x[:, 0] - 0.3) ** 2 / 0.4).softmax(0)
    zero, full = torch.tensor(0.0, dtype=F64), torch.tensor(tau, dtype=F64)
    kernel = -0.5 * (x - x[:, 0]) ** 2 / tau
    plan = lambda phi: p0[:, None] * (kernel + phi.log(zero, x)).softmax(1)
    first, second = plan(best), plan(other)
    p1 = first.sum(0)
    cost = lambda phi: p0 @ phi.log(full, x) - p1 @ phi.log(zero, x)
    kl = (first * (first / second).log()).sum()
    gap = lambda value: worst("eq:light-loss", value - kl, 1e-7)
    expect(gap(cost(other) - cost(best)))
    scaled = LightPotential(other.log_weights + 3, other.means, other.covs, tau)
    expect(gap(cost(scaled) - cost(best)))
    refute(gap(-p1 @ (other.log(zero, x) - best.log(zero, x))), "missing term: the normaliser")
    ends = lambda phi: p1 @ phi.log(full, x) - p0 @ phi.log(zero, x)
    refute(gap(ends(other) - ends(best)), "wrong object: the ends exchanged")


def test_the_loss_of_samples_is_a_difference_of_two_means():
    phi, x0, x1 = a_light(), random(7, 2), random(4, 2, seed=1)
    whole, none = torch.tensor([0.7, 0.0], dtype=F64)
    by_hand = phi.log(whole, x0).sum() / 7 - phi.log(none, x1).sum() / 4
    assert torch.allclose(light_loss(phi, x0, x1), by_hand)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda p: LightPotential(p.log_weights[:2], p.means, p.covs, 1.0),
            "log-weight|log_weights",
        ),
        (
            lambda p: LightPotential(p.log_weights - torch.inf, p.means, p.covs, 1.0),
            "not for all",
        ),
        (
            lambda p: LightPotential(p.log_weights, p.means, p.covs.tril(), 1.0),
            "symmetric, got entries",
        ),
        (lambda p: LightPotential(p.log_weights, p.means, -p.covs, 1.0), "positive definite"),
        (lambda p: LightPotential(p.log_weights, p.means, 0 * p.covs, 1.0), "positive definite"),
        (
            lambda p: LightPotential(p.log_weights, p.means, p.covs[:2], 1.0),
            "positive definite|covs",
        ),
        (lambda p: LightPotential(p.log_weights, p.means, p.covs, 0.0), "temperature"),
        (lambda p: p.log(torch.tensor(0.8, dtype=F64), random(2, 2)), "spread"),
        (lambda p: p.log(torch.tensor(-0.1, dtype=F64), random(2, 2)), "spread"),
        (lambda p: p.log(torch.tensor(0.5, dtype=F64), random(2, 3)), "points|'x'|starts"),
        (lambda p: p.potential, "vary by less than tau"),
        (lambda p: LightBridge(p, random(2, 3)), "points|'x'|starts"),
    ],
)
def test_what_is_no_potential_is_said_so(wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):
        wrong(a_light())
