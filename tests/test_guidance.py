"""Claims of chapter 16: conditional fields, the weights of guidance, conditioning on the end."""

import pytest
import torch

from laws import F64, NOISING, TARGET, inner_times, points, scalar
from onepath import fields
from onepath.calculus import constant, zero
from onepath.dynamics import Dynamics, with_noise
from onepath.guidance import (
    classifier_free,
    classifier_guided,
    doob,
    effective_size,
    excess,
    guidance_excess,
    guided,
    systematic,
    unweighted,
    weighted,
)
from onepath.interpolants import bridge, linear, noising_diffusion, variance_preserving
from onepath.measures import Mixture, gaussian
from onepath.networks import MLP
from onepath.oracles import MixturePath
from onepath.samplers import multistep
from onepath.solvers import euler, heun, integrate, times
from onepath.verify import expect, fokker_planck, mean, refute, worst

VP = variance_preserving()
CLASS = Mixture(torch.ones(1, dtype=F64), TARGET.means[:1], TARGET.covs[:1])
every = pytest.mark.parametrize("name", NOISING)
ROWS = {"velocity": fields.velocity, "data": fields.data, "noise": fields.noise}


def pair(name):
    """The path of all data and that of one class, whose probability a posterior gives."""
    return MixturePath(NOISING[name], TARGET), MixturePath(NOISING[name], CLASS)


def log_class(path):
    return lambda t, x: path.posterior(t, x)[:, 0].log()


def converted(path, row):
    return fields.convert(path.score, path.interpolant, fields.score, row)


def reversal(path):
    return with_noise(path.velocity, path.score, noising_diffusion(path.interpolant))


@every
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_a_moved_field_is_that_of_the_class(name, row, generator):
    """eq:bayes-fields; the class has a path of its own, which knows no classifier."""
    whole, part = pair(name)
    t, x = inner_times(16, generator), points(16, generator)
    exact = converted(part, row)(t, x)
    size = 1 + exact.abs().max()
    off = lambda s: (
        (
            (
                classifier_guided(converted(whole, row), log_class(whole), NOISING[name], row, s)(
                    t, x
                )
            )
            - exact
        )
        / size
    )
    expect(worst("eq:bayes-fields", off(1.0), 1e-8))
    refute(worst("eq:bayes-fields", off(2.0), 1e-8), "factor: twice the gradient")
    refute(worst("eq:bayes-fields", off(-1.0), 1e-8), "sign: of the gradient")


@pytest.mark.parametrize("w", [-1.0, -0.3, 0.0, 2.0])
def test_two_kinds_of_guidance_are_one(w, generator):
    """eq:cfg, in the score and in the velocity."""
    whole, part = pair("VP")
    t, x = inner_times(16, generator), points(16, generator)
    by_classifier = classifier_guided(whole.score, log_class(whole), VP, fields.score, 1 + w)
    score, velocity = (
        guided(getattr(part, n), getattr(whole, n), w) for n in ("score", "velocity")
    )
    expect(worst("eq:cfg", score(t, x) - by_classifier(t, x), 1e-8))
    expect(
        worst(
            "eq:cfg",
            fields.convert(score, VP, fields.score, fields.velocity)(t, x) - velocity(t, x),
            1e-8,
        )
    )
    other = guided(part.score, whole.score, w + 1)
    refute(
        worst("eq:cfg", other(t, x) - by_classifier(t, x), 1e-8), "factor: the scale taken for w"
    )


@pytest.mark.parametrize("eta", [zero, constant(0.8), lambda t: 2 + t], ids=["0", "0.8", "2 + t"])
@every
def test_the_excess_is_what_fokker_planck_lacks_at_every_noise_level(name, eta, generator):
    """eq:steered-density, for a function without meaning; the residual is autodiff of densities."""
    path, _ = pair(name)
    log_k = lambda t, x: t * (1.3 * x[:, 0] - x[:, 1]).sin() - 0.1 * x[:, 1] ** 2
    velocity = classifier_guided(path.velocity, log_k, NOISING[name], fields.velocity)
    score = classifier_guided(path.score, log_k, NOISING[name], fields.score)
    t, x = inner_times(16, generator), points(16, generator)
    drift = with_noise(velocity, score, eta).drift
    meant = lambda t, x: path.log_density(t, x) + log_k(t, x)
    lacks = fokker_planck(meant, drift, eta, t, x)
    r = excess(reversal(path), log_k)(t, x)
    gap = lambda r: worst("eq:steered-density", (lacks - r) / lacks.abs().max())
    expect(gap(r))
    refute(gap(excess(Dynamics(path.velocity), log_k)(t, x)), "wrong object: the flow's generator")
    refute(gap(-r), "sign: of the rate")


@every
def test_a_forecast_has_no_excess(name, generator):
    """eq:doob: p_t(y|x) is a martingale along the reversal, and along no other member."""
    whole, part = pair(name)
    t, x = inner_times(16, generator), points(16, generator)
    log_h = log_class(whole)
    size = 1 + (noising_diffusion(NOISING[name])(t) ** 2).max()
    expect(worst("eq:doob", excess(reversal(whole), log_h)(t, x) / size, 1e-8))
    still = with_noise(whole.velocity, whole.score, constant(3.0))
    refute(worst("eq:doob", excess(still, log_h)(t, x) / size, 1e-8), "wrong object: of η = 3")
    conditioned = doob(reversal(whole), log_h).drift(t, x)
    off = (conditioned - reversal(part).drift(t, x)) / size
    expect(worst("eq:doob", off, 1e-8))
    half = (reversal(whole).drift(t, x) - reversal(part).drift(t, x)) / size
    refute(worst("eq:doob", half, 1e-8), "missing term: the push")


@pytest.mark.parametrize("w", [-0.5, 0.5, 2.0])
@every
def test_the_rate_of_guidance_is_the_excess_of_a_power(name, w, generator):
    """eq:cfg-weight against second derivatives of the classifier."""
    whole, part = pair(name)
    t, x = inner_times(16, generator), points(16, generator)
    g = noising_diffusion(NOISING[name])
    power = lambda t, x: (1 + w) * log_class(whole)(t, x)
    exact = excess(reversal(whole), power)(t, x)
    gap = lambda factor: worst(
        "eq:cfg-weight",
        (factor * guidance_excess(part.score, whole.score, g, w)(t, x) - exact) / exact.abs().max(),
        1e-8,
    )
    expect(gap(1.0))
    refute(gap(w / (1 + w)), "factor: w² in place of w(1 + w)")
    refute(gap(2.0), "factor: g² in place of ½g²")


def on_line(weights, means):
    shape = torch.tensor(weights, dtype=F64), torch.tensor(means, dtype=F64)[:, None]
    return Mixture(*shape, torch.full((len(means), 1, 1), 0.3, dtype=F64))


ALL, SOME = on_line([0.4, 0.6], [-1.0, 1.0]), on_line([1.0], [-1.0])


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_weighted_particles_have_the_tilted_law(c, generator):
    """eq:steering for classes of one width, whose rate is bounded; the integral is a quadrature."""
    whole, part = MixturePath(VP, ALL), MixturePath(VP, SOME)
    g, w = lambda t: (0.1 + (1 - t) * 19.9).sqrt(), 1.0
    score = guided(part.score, whole.score, w)
    velocity = lambda t, x: 0.5 * g(t) ** 2 * (x + score(t, x))
    dynamics = with_noise(velocity, score, zero if c == 0 else g)
    step = weighted(heun(dynamics), guidance_excess(part.score, whole.score, g, w), 0.0)
    ends = integrate(step, unweighted(whole.reference(2000, generator)), times(50), generator)
    axis = torch.linspace(-6, 6, 4001, dtype=F64)[:, None]
    density = (2 * SOME.log_prob(axis) - ALL.log_prob(axis)).exp() * (axis[1] - axis[0])
    for f in (torch.ones_like, torch.sin):
        exact = (density * f(axis[:, 0])).sum().item()
        expect(mean("eq:steering", ends[:, 1].exp() * f(ends[:, 0]), exact))
        plain = mean("eq:steering", f(ends[:, 0]) + 0 * ends[:, 1].exp(), exact)
        if f is torch.sin:
            refute(plain, "missing term: no weights")


def test_resampling_keeps_the_mean_weight_and_evens_the_weights(generator):
    rate = lambda t, x: 40 * x[:, 0].sin()
    step = weighted(euler(Dynamics(lambda t, x: 0 * x)), rate, 1.0)
    start = torch.randn(400, 1, generator=generator, dtype=F64)
    ends = integrate(step, unweighted(start), times(1, 0.0, 0.1), generator)
    exact = (4 * start[:, 0].sin()).exp().mean().log()
    assert torch.allclose(ends[:, 1], exact.expand(400))
    share = (ends[:, 0] > 0).double().mean()
    target = ((4 * start[:, 0].sin()).softmax(0) * (start[:, 0] > 0)).sum()
    assert abs(share - target) < 2 / 400
    assert set(ends[:, 0].tolist()) <= set(start[:, 0].tolist())


def test_weights_are_the_integral_of_the_rate_along_the_path(generator):
    drift = Dynamics(lambda t, x: torch.ones_like(x))
    step = weighted(euler(drift), lambda t, x: x[:, 0] + t, 0.0)
    ends = integrate(step, unweighted(points(5, generator, 1)), times(7))
    start = ends[:, 0] - 1
    expect(worst("eq:steering", ends[:, 1] - (start + 1.0)))  # ∫ (x + 2t) dt


def test_a_comb_chooses_each_as_often_as_its_weight_says():
    weights = torch.tensor([0.05, 0.33, 0.0, 0.6, 0.02], dtype=F64)
    offsets = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    counts = torch.stack([torch.bincount(systematic(weights, u), minlength=5) for u in offsets])
    assert (counts.double().mean(0) - 5 * weights).abs().max() < 1e-3
    assert (counts - 5 * weights).abs().max() < 1 and (counts[:, 2] == 0).all()
    assert (counts.sum(1) == 5).all()


def test_the_effective_number_is_n_for_equal_weights_and_one_for_a_single_one():
    assert effective_size(torch.full((8,), -700.0)) == pytest.approx(8)
    assert effective_size(torch.tensor([0.0, -800.0, -900.0])) == pytest.approx(1)
    assert effective_size(torch.tensor([0.5, 0.25, 0.25], dtype=F64).log()) == pytest.approx(8 / 3)


def test_doob_from_the_conditioned_start_ends_on_the_posterior(generator):
    """eq:doob with alpha above 0 at the start; from the law of all data the end is wrong."""
    short = variance_preserving(0.1, 3.0)
    normal = gaussian(torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64))
    path = MixturePath(short, normal)
    log_h = lambda t, x: 3 * short.alpha(t) * x[:, 0]  # E of exp(3 x_1), up to a constant
    g = lambda t: (0.1 + (1 - t) * 2.9).sqrt()
    steered = doob(Dynamics(lambda t, x: -0.5 * g(t) ** 2 * x, g), log_h)
    start = path.sample(scalar(0.0), 3000, generator)
    end = lambda x: integrate(heun(steered), x, times(50), generator)[:, 0]
    expect(mean("eq:doob", end(start + 3 * short.alpha(scalar(0.0))), 3.0))
    refute(mean("eq:doob", end(start), 3.0), "hypothesis: the start was not told")


def test_a_network_is_guided_by_its_own_two_branches(generator):
    net = MLP(2, 16, 1, 3, generator)
    torch.nn.init.normal_(net.leave.weight, generator=generator)
    x, y, t = torch.randn(4, 2, generator=generator), torch.tensor([0, 1, 2, 0]), torch.tensor(0.3)
    expected = 3 * net(t, x, y) - 2 * net(t, x)
    assert torch.allclose(classifier_free(net, y, 2.0)(t, x), expected)


@pytest.mark.parametrize("w", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(w, generator):
    path, net = MixturePath(VP, TARGET), MLP(2, 8, 1, 2, generator)
    for make in (
        lambda: guided(path.score, path.score, w),
        lambda: guidance_excess(path.score, path.score, zero, w),
        lambda: classifier_guided(path.score, path.log_density, VP, fields.score, w),
        lambda: classifier_free(net, torch.zeros(3, dtype=torch.int64), w),
    ):
        with pytest.raises(ValueError, match="finite number"):
            make()


def test_a_network_without_two_branches_is_refused(generator):
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="label for none"):
        classifier_free(MLP(2, 8, 1, 0, generator), y, 1.0)
    with pytest.raises(ValueError, match="other branch"):
        classifier_free(MLP(2, 8, 1, 2, generator), y + 2, 1.0)


def test_bad_use_is_refused_before_or_in_the_first_step(generator):
    path = MixturePath(linear, TARGET)
    with pytest.raises(ValueError, match="steers by the noise"):
        doob(Dynamics(path.velocity), path.log_density)
    with pytest.raises(ValueError, match="latent noise"):
        classifier_guided(path.score, path.log_density, bridge(0.3), fields.score)
    flow = euler(Dynamics(path.velocity))
    rate = lambda t, x: x[:, 0]
    with pytest.raises(ValueError, match="lies in"):
        weighted(flow, rate, 1.5)
    with pytest.raises(ValueError, match="memories"):
        step = weighted(multistep(path.denoiser, linear), rate, 0.0)
        integrate(step, unweighted(points(3, generator)), times(3), generator)
    with pytest.raises(ValueError, match="generator"):
        integrate(weighted(flow, rate), unweighted(points(3, generator)), times(3))
    with pytest.raises(ValueError, match="finite"):
        effective_size(torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError, match="sum to 1"):
        systematic(torch.tensor([0.5, 0.6]), torch.tensor(0.5))
    with pytest.raises(ValueError, match="-0.5 as the least"):
        systematic(torch.tensor([-0.5, 1.5]), torch.tensor(0.5))
