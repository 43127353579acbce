"""Fits of light potentials: closed bridges, autodiff at the minimum, exact plans, bad input."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64
from onepath.bridges import GaussianBridge
from onepath.light_bridges import LightPotential, light_loss
from onepath.light_fits import gaussian_conditional, light_fit
from onepath.verify import expect, refute, worst
from test_light_bridges import a_gaussian_pair, a_light, random


def two_samples(seed=0, d=2, n=400):
    """Starts of one island and ends of two."""
    x1 = 0.4 * random(n, d, seed=seed + 1)
    x1[: n // 3] += 2.0
    return random(n, d, seed=seed) - 0.5, x1


@given(st.integers(0, 10_000), st.sampled_from([0.1, 2.0]))
def test_the_conditional_covariance_is_that_of_the_gaussian_bridge(seed, tau):
    pair = a_gaussian_pair(tau, seed)
    S = gaussian_conditional(pair.cov0[None], pair.cov1[None], tau)[0]
    exact = pair.cov1 - pair.cross.mT @ torch.linalg.solve(pair.cov0, pair.cross)
    expect(worst("eq:light-step", S - exact, 1e-8))
    twice = gaussian_conditional(pair.cov0[None], pair.cov1[None], 2 * tau)[0]
    refute(worst("eq:light-step", twice - exact, 1e-8), "factor: 2τ for τ")
    expect(worst("eq:light-step", pair.cov0 @ S / tau - pair.cross, 1e-8))


def test_diagonals_are_covariances_too_and_a_point_may_be_the_start():
    v0, v1 = random(3, 2).exp(), random(3, 2, seed=1).exp()
    S = gaussian_conditional(v0, v1, 0.3)
    full = gaussian_conditional(torch.diag_embed(v0), torch.diag_embed(v1), 0.3)
    assert torch.allclose(torch.diag_embed(S), full)
    assert torch.allclose(gaussian_conditional(0 * v0, v1, 0.3), v1)


@pytest.mark.parametrize("tau", [0.0, -1.0, torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 2)])
def test_the_temperature_of_a_conditional_covariance_is_positive_and_finite(shape, tau):
    cov = torch.ones(1, 2, dtype=F64)
    cov = cov if len(shape) == 2 else torch.diag_embed(cov)
    with pytest.raises(ValueError, match="positive and finite temperature"):
        gaussian_conditional(cov, cov, tau)


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_one_component_is_the_gaussian_bridge_of_the_moments_after_one_step(tau, generator):
    x0, x1 = random(50, 3), 2 * random(60, 3, seed=1) + 1
    fit = light_fit(x0, x1, tau, 1, generator)
    assert len(fit.losses) == 3 and abs(fit.losses[2] - fit.losses[1]) < 1e-9  # a look at the end
    moments = lambda x: (x.mean(0), x.mT.cov(correction=0))
    pair = GaussianBridge(*moments(x0), *moments(x1), tau)
    t, x = torch.tensor(0.3, dtype=F64), random(5, 3, seed=2)
    expect(worst("eq:light-step", fit.bridge.drift(t, x) - pair.drift(t, x), 1e-8))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_where_the_steps_end_the_gradient_of_the_loss_vanishes(diagonal, tau, generator):
    x0, x1 = two_samples()
    fit = light_fit(x0, x1, tau, 2, generator, diagonal, tolerance=1e-13, most=5000)
    assert (fit.losses.diff() <= 1e-11).all() and fit.uneven < 1e-5
    phi = fit.potential
    leaves = [v.clone().requires_grad_() for v in (phi.log_weights, phi.means, phi.covs)]

    def slopes(factor):
        moved = LightPotential(leaves[0], leaves[1], factor * leaves[2], tau)
        grads = torch.autograd.grad(light_loss(moved, x0, x1), leaves)
        return torch.cat([g.flatten() for g in grads])

    assert slopes(1.0).abs().max() < 1e-3
    assert slopes(1.1).abs().max() > 1e-2


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_last_fall_is_within_the_tolerance_where_steps_have_grown(tau, generator):
    """There a tolerance that grows with them would end a fit too early."""
    fit = light_fit(*two_samples(), tau, 3, generator, tolerance=1e-5)
    assert fit.losses[-2] - fit.losses[-1] <= 1e-5


def test_a_fit_that_stops_early_says_how_uneven_its_components_are(generator):
    x0, x1 = two_samples()
    fit, zero = light_fit(x0, x1, 0.5, 3, generator, tolerance=0.3), torch.zeros((), dtype=F64)
    at_starts, at_ends = (
        fit.potential.shares(v, x).mean(0) for v, x in ((zero + 0.5, x0), (zero, x1))
    )
    assert fit.uneven == pytest.approx((at_starts - at_ends).abs().sum().item(), rel=1e-9)
    assert fit.uneven > 1e-4


def test_it_is_better_than_the_plan_that_made_the_samples_and_near_it(generator):
    truth = a_light(3, largest=1.0)
    x0 = random(4000, 2, seed=4)
    x1 = truth.draw(torch.tensor(truth.tau, dtype=F64), x0, generator)
    x1 = x1[torch.randperm(4000, generator=generator)]
    fit = light_fit(x0, x1, truth.tau, 3, generator)
    gain = (light_loss(truth, x0, x1) - light_loss(fit.potential, x0, x1)).item()
    assert 0 < gain < 20 / 4000  # about half the number of parameters, 17, over that of the ends
    x, v = random(200, 2, seed=7), torch.tensor(truth.tau, dtype=F64)
    assert (fit.potential.origin(v, x) - truth.origin(v, x)).square().mean() < 0.01


@pytest.mark.parametrize("tau", [0.02, 0.1])
def test_a_cold_plan_leads_a_quarter_of_the_starts_to_each_island(tau, generator):
    """A whole step from the beginning would take all ends from some component here."""
    centres = 2 * torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=F64)
    x0, x1 = random(400, 2), centres.repeat(100, 1) + 0.2 * random(400, 2, seed=1)
    fit = light_fit(x0, x1, tau, 4, generator, tolerance=1e-5)
    whole, to_island = torch.tensor(tau, dtype=F64), torch.cdist(x0, centres).argmin(1)
    ends = fit.potential.draw(whole, x0, generator)
    reached = torch.cdist(ends, centres)
    assert (reached.min(1).values < 1).all()
    assert (reached.argmin(1).bincount(minlength=4) - 100).abs().max() < 30
    assert (reached.argmin(1) == to_island).double().mean() > 0.85


def test_the_reported_losses_are_those_of_the_potentials_up_to_a_constant(generator):
    x0, x1 = two_samples(3)
    one, more = (light_fit(x0, x1, 0.5, k, generator) for k in (1, 3))
    apart = light_loss(more.potential, x0, x1) - light_loss(one.potential, x0, x1)
    assert torch.allclose(more.losses[-1] - one.losses[-1], apart, atol=1e-10)


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_prior_keeps_a_component_from_shrinking_onto_one_end(diagonal, generator):
    x0, x1 = random(200, 2), 0.1 * random(200, 2, seed=1)
    x1[0] = 30.0
    with pytest.raises(ValueError, match="with 1 ends"):
        light_fit(x0, x1, 0.5, 2, generator, diagonal)
    fit = light_fit(x0, x1, 0.5, 2, generator, diagonal, prior=1.0)
    assert (fit.losses.diff() <= 1e-11).all() and fit.potential.covs.min() > -0.1
    covs = fit.potential.covs
    assert (covs if diagonal else torch.linalg.eigvalsh(covs)).min() > 1e-3


@pytest.mark.parametrize("diagonal", [False, True])
def test_with_a_prior_the_loss_that_is_made_least_has_its_cost(diagonal, generator):
    """The reported loss, again from `light_loss` and the divergence that the prior's ends pay."""
    x0, x1 = two_samples()
    fit = light_fit(x0, x1, 0.5, 2, generator, diagonal, prior=3.0, tolerance=1e-13)
    phi = fit.potential
    leaves = [v.clone().requires_grad_() for v in (phi.log_weights, phi.means, phi.covs)]
    spread = x1.mT.cov(correction=0)

    def total(prior):
        covs = torch.diag_embed(leaves[2]) if diagonal else leaves[2]
        wide = spread.diag().diag() if diagonal else spread
        zero = torch.zeros(400, 2, dtype=F64)
        ends = torch.linalg.cholesky(400 * wide) @ torch.eye(2, dtype=F64)
        normal = torch.distributions.MultivariateNormal
        logs = [normal(zero[0], C).log_prob(2**0.5 * ends.mT / 20).sum() / 2 for C in covs]
        return light_loss(LightPotential(*leaves, 0.5), x0, x1) - prior / 400 * sum(logs)

    def steepest(prior):
        return max(g.abs().max() for g in torch.autograd.grad(total(prior), leaves))

    assert steepest(3.0) < 1e-4 < 1e-3 < steepest(0.0)


def test_pairs_do_not_matter_and_sizes_may_differ(generator):
    x0, x1 = two_samples()
    fits = [
        light_fit(x0, ends, 0.5, 1, torch.Generator().manual_seed(0)).potential.means
        for ends in (x1, x1[torch.randperm(400, generator=generator)], torch.cat([x1, x1]))
    ]
    assert torch.allclose(fits[0], fits[1]) and torch.allclose(fits[0], fits[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tau": 0.0}, "temperature"),
        ({"tau": -1.0}, "temperature"),
        ({"x1": random(20, 3)}, "shapes|parameter 'x1'"),
        ({"x0": torch.full((20, 2), torch.nan, dtype=F64)}, "finite"),
        ({"x1": torch.full((20, 2), torch.inf, dtype=F64)}, "finite"),
        ({"components": 0}, "components"),
        ({"components": 21}, "components"),
        ({"x1": random(3, 2).repeat(7, 1), "components": 4}, "got 4 of them and 3 different"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"prior": -1.0}, "prior"),
        ({"x1": torch.ones(20, 2, dtype=F64)}, "vary in every direction"),
        ({"x1": random(20, 1).repeat(1, 2)}, "vary in every direction"),
        ({"x1": random(20, 2), "components": 18}, "vary in every direction"),
        ({"most": 1, "components": 3, "tolerance": 1e-12}, "raise tolerance, most"),
    ],
)
def test_what_cannot_be_fitted_is_said_so(change, said, generator):
    good = {"x0": random(20, 2), "x1": random(20, 2, seed=1), "tau": 0.5, "components": 2}
    with pytest.raises((ValueError, TypeError), match=said):
        light_fit(**(good | {"generator": generator} | change))
