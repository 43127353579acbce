"""The fields of a path to finitely many points, against sums of Gaussians and their derivatives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, NOISING, inner_times, points, same_rows, scalar
from onepath import empirical
from onepath.calculus import gradient, jacobian
from onepath.empirical import EmpiricalPath
from onepath.interpolants import bridge, linear, trigonometric, variance_preserving
from onepath.measures import Empirical, Mixture
from onepath.verify import continuity, expect, mean, refute, worst

WHERE = torch.tensor([[-1.9, 0.3], [0.2, 1.4], [0.9, -1.2], [1.3, 0.8], [-0.4, -0.6]], dtype=F64)
DATA = Empirical(WHERE, torch.tensor([0.1, 0.3, 0.15, 0.25, 0.2], dtype=F64))
every = pytest.mark.parametrize("name", NOISING)


def mixture(path, t, data=DATA):
    """The law of the state at one time, written as a mixture: another code for its density."""
    eye = path.variance(t) * torch.eye(data.dim, dtype=F64)
    return Mixture(data.weights, path.alpha(t) * data.points, eye.expand(len(data.points), -1, -1))


@every
@pytest.mark.parametrize("at", [0.1, 0.6, 0.9])
def test_the_density_is_that_of_a_sum_of_gaussians_and_its_gradient_the_score(name, at, generator):
    i, t = NOISING[name], scalar(at)
    path, law = EmpiricalPath(i, DATA), mixture(i, t)
    x = i.sigma(t) * points(9, generator) + i.alpha(t) * WHERE[:1]
    expect(worst("eq:memorisation", path.log_density(t, x) - law.log_prob(x)))
    exact = gradient(lambda t, x: law.log_prob(x), t, x)
    scale = i.sigma(t)
    expect(worst("eq:memorisation", scale * (path.score(t, x) - exact)))
    refute(worst("eq:memorisation", scale * (path.score(t, x) + exact)), "sign: of the score")
    wider = mixture(i, scalar(at - 0.02)).log_prob(x)
    refute(worst("eq:memorisation", path.log_density(t, x) - wider), "clock: a little early")


@every
def test_the_posterior_is_bayes_rule_and_the_denoiser_its_mean(name, generator):
    i, t = NOISING[name], scalar(0.7)
    path = EmpiricalPath(i, DATA)
    x = i.sigma(t) * points(9, generator) + i.alpha(t) * WHERE[1:2]
    square = (x[:, None] - i.alpha(t) * WHERE).square().sum(2) / i.variance(t)
    joint = DATA.weights * (-0.5 * (square - square.min(1, keepdim=True).values)).exp()
    share = joint / joint.sum(1, keepdim=True)
    expect(worst("eq:memorisation", path.posterior(t, x) - share))
    expect(worst("eq:memorisation", path.denoiser(t, x) - share @ WHERE))
    unweighted = EmpiricalPath(i, Empirical(WHERE)).denoiser(t, x)
    refute(worst("eq:memorisation", unweighted - share @ WHERE), "missing term: weights")
    tweedie = (x + i.variance(t) * mixture(i, t).score(x)) / i.alpha(t)
    expect(worst("eq:memorisation", path.denoiser(t, x) - tweedie, 1e-7))


@every
def test_the_velocity_moves_the_density(name, generator):
    i, t = NOISING[name], 0.3 + 0.4 * torch.rand(9, generator=generator, dtype=F64)
    path = EmpiricalPath(i, DATA)
    x = i(t, points(9, generator, scale=1.0), WHERE[[0, 1, 2, 3, 4, 0, 1, 2, 3]])
    residual = continuity(path.log_density, path.velocity, t, x)
    expect(worst("eq:memorisation", residual, 1e-8))
    late = lambda t, x: path.velocity(t + 0.01, x)
    refute(worst("eq:memorisation", continuity(path.log_density, late, t, x), 1e-8), "clock: late")


@pytest.mark.parametrize("name", ["linear", "VP"])
def test_the_velocity_is_the_mean_slope_and_the_denoiser_the_mean_datum(name, generator):
    i = NOISING[name]
    path = EmpiricalPath(i, DATA)
    x0, x1 = path.ends(20_000, generator)
    t = 0.2 + 0.6 * torch.rand(20_000, generator=generator, dtype=F64)
    move = lambda s: i(s, x0, x1)
    x, slope = move(t), (move(t + 1e-5) - move(t - 1e-5)) / 2e-5
    test = torch.stack([(x[:, 1] + t).sin(), x[:, 0].cos() * t + 0.5], dim=1)
    for field, target in ((path.velocity, slope), (path.denoiser, x1)):
        expect(mean("eq:memorisation", ((field(t, x) - target) * test).sum(1), 0.0))
        early = field(0.8 * t, x)
        away = early - field(t, x)
        expect(mean("eq:memorisation", ((field(t, x) - target) * away).sum(1), 0.0))
        refute(mean("eq:memorisation", ((early - target) * away).sum(1), 0.0), "clock: too early")


def test_the_spread_of_the_data_is_the_derivative_of_the_denoiser(generator):
    path, t = EmpiricalPath(trigonometric, DATA), inner_times(2, generator)
    x = points(2, generator, scale=1.0)
    factor = (trigonometric.variance(t) / trigonometric.alpha(t))[:, None, None]
    cov = path.denoiser_cov(t, x)
    expect(worst("eq:tweedie-covariance", cov - factor * jacobian(path.denoiser, t, x)))
    refute(worst("eq:tweedie-covariance", cov - jacobian(path.denoiser, t, x)), "factor: σ²/α")


def test_samples_are_noised_points(generator):
    path, t = EmpiricalPath(variance_preserving(), DATA), scalar(0.6)
    alpha, variance = path.interpolant.alpha(t), path.interpolant.variance(t)
    x = path.sample(t, 20_000, generator)
    for k in range(2):
        expect(mean("eq:memorisation", x[:, k], (alpha * DATA.mean[k]).item()))
        second = alpha**2 * (DATA.cov[k, k] + DATA.mean[k] ** 2) + variance
        expect(mean("eq:memorisation", x[:, k] ** 2, second.item()))
        refute(
            mean("eq:memorisation", x[:, k] ** 2, second.item() - variance.item()),
            "missing term: noise",
        )
    start = path.reference(20_000, generator)
    sigma = path.interpolant.sigma(scalar(0.0))
    expect(mean("eq:memorisation", start[:, 0] ** 2, sigma.item() ** 2))
    wide = EmpiricalPath(NOISING["VE"], DATA).reference(2000, generator)
    assert 9 < wide.std() < 11


def test_at_the_ends_the_denoiser_is_the_mean_and_the_nearest_point(generator):
    """Without noise the nearest point, with weights for ties; without data their mean."""
    path, x = EmpiricalPath(linear, DATA), points(20, generator)
    nearest = WHERE[torch.cdist(x, WHERE).argmin(1)]
    end = path.denoiser(scalar(1.0), x)
    assert torch.equal(end, nearest)
    assert torch.allclose(path.denoiser(scalar(0.0), x), DATA.mean.expand(20, 2))
    close = path.denoiser(scalar(1 - 1e-6), x)
    assert (close - end).abs().max() < 1e-9
    between = torch.tensor([[0.0]], dtype=F64)
    pair = Empirical(
        torch.tensor([[-1.0], [1.0]], dtype=F64), torch.tensor([0.25, 0.75], dtype=F64)
    )
    tied = EmpiricalPath(linear, pair).denoiser(scalar(1.0), between).item()
    assert abs(tied - 0.5) < 1e-12
    mixed = path.denoiser(torch.tensor([0.0, 1.0], dtype=F64), x[:2])
    assert torch.allclose(mixed[0], DATA.mean) and torch.equal(mixed[1], nearest[1])
    assert path.denoiser_cov(scalar(1.0), x).abs().max() < 1e-20


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_a_batch_is_a_loop_over_its_samples(n, d, k, own_times, seed):
    g = torch.Generator().manual_seed(seed)
    path = EmpiricalPath(trigonometric, Empirical(points(k, g, d)))
    t = inner_times(n, g) if own_times else scalar(0.4)
    x = points(n, g, d)
    for function in ("log_density", "posterior", "score", "velocity", "denoiser", "denoiser_cov"):
        expect(worst("eq:memorisation", same_rows(getattr(path, function), t, x), 1e-8))


def test_blocks_do_not_change_the_result(monkeypatch, generator):
    path, x = EmpiricalPath(linear, DATA), points(11, generator)
    t = inner_times(11, generator)
    functions = (path.log_density, path.posterior, path.denoiser, path.denoiser_cov)
    whole = [function(t, x) for function in functions]
    monkeypatch.setattr(empirical, "BLOCK", 15)
    for one, function in zip(whole, functions):
        assert torch.allclose(function(t, x), one, rtol=1e-12, atol=1e-12)
    seen, softmax = [], EmpiricalPath._softmax

    def spy(self, t, y):
        seen.append(len(y))
        return softmax(self, t, y)

    monkeypatch.setattr(EmpiricalPath, "_softmax", spy)
    path.denoiser(t, x)
    assert seen == [3, 3, 3, 2]  # fifteen numbers are three states with five points
    path.denoiser_cov(t, x)
    assert seen[4:] == [1] * 11


def test_sixty_thousand_images_in_single_precision_keep_their_digits(generator):
    """Far from the origin and with little noise, where squared distances in float32 have none."""
    data = 100 + torch.randn(60_000, 16, generator=generator)
    path, t = EmpiricalPath(linear, Empirical(data)), torch.tensor(0.995)
    assert path.target.points.dtype == torch.float32
    x = linear(t, torch.randn(8, 16, generator=generator), data[:8])
    assert torch.allclose(path.denoiser(t, x), data[:8], atol=1e-3)
    assert path.denoiser(t, x).dtype == torch.float32
    assert path.posterior(t, x).argmax(1).tolist() == list(range(8))


def test_a_law_of_one_point_is_a_gaussian():
    path = EmpiricalPath(linear, Empirical(torch.tensor([[2.0]], dtype=F64)))
    t, x = scalar(0.5), torch.tensor([[1.3]], dtype=F64)
    exact = -0.5 * 0.3**2 / 0.25 - 0.5 * math.log(2 * math.pi * 0.25)
    assert abs(path.log_density(t, x).item() - exact) < 1e-12
    assert abs(path.score(t, x).item() + 0.3 / 0.25) < 1e-12
    assert abs(path.velocity(t, x).item() - (2.0 - 0.3 / 0.5)) < 1e-12


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_no_number_spoils_its_own_row_and_never_looks_like_an_answer(
    bad, generator
):
    path, x = EmpiricalPath(linear, DATA), points(3, generator)
    broken = x.clone()
    broken[1, 0] = bad
    for at in (0.5, 1.0):
        for name in ("posterior", "denoiser", "denoiser_cov"):
            right, found = (getattr(path, name)(scalar(at), y) for y in (x, broken))
            assert found[1].isnan().all() and torch.equal(found[[0, 2]], right[[0, 2]])
    for name in ("log_density", "score", "velocity"):
        right, found = (getattr(path, name)(scalar(0.5), y) for y in (x, broken))
        assert found[1].isnan().all() and torch.allclose(found[[0, 2]], right[[0, 2]])


def test_what_has_no_density_or_no_answer_is_refused(generator):
    path, x, end = EmpiricalPath(linear, DATA), points(2, generator), scalar(1.0)
    for function in ("log_density", "score", "velocity"):
        with pytest.raises(ValueError, match="where sigma is 0.*stop the grid before"):
            getattr(path, function)(end, x)
    with pytest.raises(ValueError, match="no latent noise, got gamma2"):
        EmpiricalPath(bridge(), DATA)
    nothing = torch.tensor([0.0, 0.3, 0.2, 0.3, 0.2], dtype=F64)
    with pytest.raises(ValueError, match="positive weight, got 0; leave such points out"):
        EmpiricalPath(linear, Empirical(WHERE, nothing))
    with pytest.raises(ValueError, match=r"points are \(n, 2\)"):
        path.denoiser(scalar(0.5), x[:, :1])
