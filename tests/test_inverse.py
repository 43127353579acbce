"""Claims of chapter 16: posteriors of linear measurements, exact and by two moments."""

import pytest
import torch

from laws import BASE, F64, NOISING, TARGET, inner_times, points, random_mixture, scalar
from onepath.calculus import gradient
from onepath.interpolants import bridge, linear, variance_preserving
from onepath.inverse import (
    check_measurement,
    exact_likelihood,
    exact_posterior,
    linear_likelihood,
    projected,
    tweedie_guidance,
    tweedie_spread,
)
from onepath.measures import gaussian
from onepath.oracles import MixturePath
from onepath.verify import expect, refute, worst

VP = variance_preserving()
CASES = [(2, 1, 2), (3, 2, 3), (2, 3, 1), (3, 3, 2)]  # d, m, components
every = pytest.mark.parametrize("d, m, k", CASES)


def problem(d, m, k, generator):
    prior = random_mixture(7, d, k)
    A = torch.randn(m, d, generator=generator, dtype=F64)
    y = prior.sample(1, generator)[0] @ A.mT + 0.4 * torch.randn(m, generator=generator, dtype=F64)
    return prior, A, y, 0.4


def log_noise(A, y, noise, x):
    """By torch's own distribution, so nothing is retyped."""
    law = torch.distributions.Normal(y, noise)
    return law.log_prob(x @ A.mT).sum(1)


@every
def test_the_posterior_is_prior_times_likelihood(d, m, k, generator):
    """eq:exact-posterior: their ratio is one number, the evidence."""
    prior, A, y, noise = problem(d, m, k, generator)
    x = points(40, generator, d)
    rest = lambda law: prior.log_prob(x) + log_noise(A, y, noise, x) - law.log_prob(x)
    gap = lambda law: worst("eq:exact-posterior", rest(law) - rest(law).mean(), 1e-8)
    expect(gap(exact_posterior(prior, A, y, noise)))
    refute(gap(exact_posterior(prior, A, y, noise**2)), "factor: σ² in place of σ")
    refute(gap(prior), "wrong object: the prior")


@pytest.mark.parametrize("name", NOISING)
def test_the_exact_likelihood_leads_to_the_path_of_the_posterior(name, generator):
    """eq:exact-likelihood, by Bayes' rule with two paths that know nothing of y."""
    A, y = torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.7], dtype=F64)
    path = MixturePath(NOISING[name], TARGET)
    after = MixturePath(NOISING[name], exact_posterior(TARGET, A, y, 0.3))
    t, x = inner_times(20, generator), points(20, generator)
    evidence = log_noise(A, y, 0.3, x) + TARGET.log_prob(x) - after.target.log_prob(x)
    h = exact_likelihood(path, A, y, 0.3)
    gap = lambda h: worst(
        "eq:exact-likelihood",
        h(t, x) - (after.log_density(t, x) - path.log_density(t, x) + evidence.mean()),
        1e-8,
    )
    expect(gap(h))
    expect(gap(lambda t, x: h(t, x)))
    by_moments = linear_likelihood(path.denoiser, A, y, 0.3, projected(path.denoiser_cov, A))
    refute(gap(by_moments), "hypothesis: a mixture taken for a Gaussian")
    one = scalar(0.4)
    rows = torch.cat([h(one, x[i : i + 1]) for i in range(20)])
    assert torch.allclose(h(one, x), rows)


def test_each_point_may_have_its_own_measurement(generator):
    path = MixturePath(VP, TARGET)
    A, t, x = torch.tensor([[1.0, -0.5]], dtype=F64), scalar(0.5), points(6, generator)
    ys = torch.randn(6, 1, generator=generator, dtype=F64)
    spread = tweedie_spread(path.denoiser, VP, A)
    for make in (
        lambda y: exact_likelihood(path, A, y, 0.3),
        lambda y: linear_likelihood(path.denoiser, A, y, 0.3),
        lambda y: linear_likelihood(path.denoiser, A, y, 0.3, spread),
    ):
        alone = torch.cat([make(ys[i])(t, x[i : i + 1]) for i in range(6)])
        assert torch.allclose(make(ys)(t, x), alone)
        assert torch.equal(make(ys[:1])(t, x), make(ys[0])(t, x))  # one row is for all points
    alone = [tweedie_guidance(path.denoiser, VP, A, ys[i], 0.3)(t, x[i : i + 1]) for i in range(6)]
    assert torch.allclose(tweedie_guidance(path.denoiser, VP, A, ys, 0.3)(t, x), torch.cat(alone))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_two_moments_are_exact_for_gaussian_data(m, generator):
    """eq:linear-likelihood, with the covariance of the oracle, of Tweedie, and held fixed."""
    law = random_mixture(3, 3, 1)
    path = MixturePath(VP, gaussian(law.means[0], law.covs[0]))
    A = torch.randn(m, 3, generator=generator, dtype=F64)
    y = torch.randn(m, generator=generator, dtype=F64)
    t, x = inner_times(12, generator), points(12, generator, 3)
    exact = exact_likelihood(path, A, y, 0.4)
    gap = lambda h: worst("eq:linear-likelihood", h(t, x) - exact(t, x), 1e-8)
    for spread in (projected(path.denoiser_cov, A), tweedie_spread(path.denoiser, VP, A)):
        expect(gap(linear_likelihood(path.denoiser, A, y, 0.4, spread)))
    push = tweedie_guidance(path.denoiser, VP, A, y, 0.4)(t, x)
    expect(worst("eq:linear-likelihood", push - gradient(exact, t, x), 1e-8))
    refute(gap(linear_likelihood(path.denoiser, A, y, 0.4)), "missing term: the covariance")


def test_tweedie_finds_the_covariance_of_a_mixture(generator):
    path, A = MixturePath(VP, TARGET), torch.tensor([[1.0, -0.5], [0.2, 2.0]], dtype=F64)
    t, x = inner_times(12, generator), points(12, generator)
    exact = projected(path.denoiser_cov, A)(t, x)
    expect(worst("eq:tweedie-covariance", tweedie_spread(path.denoiser, VP, A)(t, x) - exact, 1e-8))
    other = tweedie_spread(path.denoiser, linear, A)(t, x)
    refute(worst("eq:tweedie-covariance", other - exact, 1e-8), "wrong object: another schedule")


def test_a_correction_never_exceeds_what_it_corrects(generator):
    """A Jacobian with a negative eigenvalue, which no denoiser has and networks may have."""
    bent = lambda t, x: x * x.new_tensor([1.0, -3.0])
    eye, y = torch.eye(2, dtype=F64), torch.tensor([1.0, 1.0], dtype=F64)
    t, x = scalar(0.2), points(30, generator)
    push = tweedie_guidance(bent, linear, eye, y, 0.01)(t, x)
    correction = (linear.variance(t) / linear.alpha(t)) * push
    assert (correction.abs() <= (y - bent(t, x)).abs() * (1 + 1e-9)).all()


A, Y = torch.tensor([[1.0, 0.5]], dtype=F64), torch.tensor([0.3], dtype=F64)


@pytest.mark.parametrize(
    "operator, y, noise, message",
    [
        (A[0], Y, 0.3, "finite matrix"),
        (A[:, :1], Y, 0.3, "dimension 2"),
        (A.new_zeros(0, 2), Y[:0], 0.3, "finite matrix"),
        (A * float("nan"), Y, 0.3, "finite matrix"),
        (A, Y.repeat(2), 0.3, "1 finite numbers"),
        (A, Y[0], 0.3, "1 finite numbers"),
        (A, Y * float("nan"), 0.3, "1 finite numbers"),
        (A, Y.float(), 0.3, "dtype"),
        (A, Y, 0.0, "positive standard deviation"),
        (A, Y, -0.3, "positive standard deviation"),
        (A, Y, float("nan"), "positive standard deviation"),
    ],
)
def test_a_measurement_that_does_not_fit_is_refused(operator, y, noise, message):
    with pytest.raises(ValueError, match=message):
        check_measurement(operator, y, noise, TARGET.means)


def test_points_that_an_operator_does_not_fit_are_refused_in_the_first_call():
    denoiser, t = lambda t, x: x, torch.tensor(0.5, dtype=F64)
    path, x = MixturePath(VP, TARGET), torch.zeros(3, 2, dtype=F64)
    wide = torch.ones(1, 5, dtype=F64)
    for call in (
        lambda: linear_likelihood(denoiser, wide, Y, 0.3)(t, x),
        lambda: tweedie_guidance(denoiser, VP, wide, Y, 0.3)(t, x),
        lambda: tweedie_spread(denoiser, VP, wide)(t, x),
    ):
        with pytest.raises(ValueError, match="dimension 2"):
            call()
    two = Y.repeat(2)[:, None]
    for call in (
        lambda: exact_likelihood(path, A, two, 0.3)(t, x),
        lambda: linear_likelihood(denoiser, A, two, 0.3)(t, x),
        lambda: tweedie_guidance(denoiser, VP, A, two, 0.3)(t, x),
    ):
        with pytest.raises(ValueError, match="one for each of 3"):
            call()
    with pytest.raises(ValueError, match="dtype"):
        linear_likelihood(denoiser, A.float(), Y.float(), 0.3)(t, x)
    with pytest.raises(ValueError, match="one measurement"):
        exact_posterior(TARGET, A, two, 0.3)


def test_every_function_of_a_measurement_refuses_one_without_noise():
    path = MixturePath(VP, TARGET)
    for make in (
        lambda: exact_posterior(TARGET, A, Y, 0.0),
        lambda: exact_likelihood(path, A, Y, 0.0),
        lambda: linear_likelihood(path.denoiser, A, Y, 0.0),
        lambda: tweedie_guidance(path.denoiser, VP, A, Y, 0.0),
    ):
        with pytest.raises(ValueError, match="positive standard deviation"):
            make()


def test_other_bases_are_refused():
    with pytest.raises(ValueError, match="base N"):
        exact_likelihood(MixturePath(linear, TARGET, BASE), A, Y, 0.3)
    with pytest.raises(ValueError, match="latent noise"):
        tweedie_spread(lambda t, x: x, bridge(0.2), A)
