"""Claims of chapter 9: errors and losses have exchange rates, and likelihood has a weight."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import BASE, F64, NOISING, TARGET, inner_times, points, random_mixture, scalar
from onepath import fields
from onepath.calculus import gradient
from onepath.interpolants import (
    Interpolant,
    bridge,
    edm,
    half_log_snr,
    linear,
    noising_diffusion,
    trigonometric,
    variance_exploding,
    variance_preserving,
)
from onepath.measures import gaussian
from onepath.noising import ancestral_posterior
from onepath.objectives import flow_matching, regression
from onepath.oracles import MixturePath
from onepath.verify import below, expect, mean, refute, worst
from onepath.weightings import (
    TimeDensity,
    best_times,
    exchange,
    likelihood_loss,
    likelihood_weight,
    over_log_snr,
    preconditioned,
    preconditioning,
    same_loss,
    start_divergence,
    step_weights,
)

every = pytest.mark.parametrize("name", NOISING)
ROWS = [fields.data, fields.noise, fields.velocity, fields.score, fields.v_prediction]
FALSE = random_mixture(5, d=2, k=3)


def column(curve):
    return lambda t: curve(t)[:, None] if t.ndim else curve(t)


def five(path):
    """Each field by a way of its own; none knows the table."""
    alpha, sigma = column(path.interpolant.alpha), column(path.interpolant.sigma)
    score = lambda t, x: gradient(path.log_density, t, x)
    return {
        fields.data: path.denoiser,
        fields.velocity: path.velocity,
        fields.score: score,
        fields.noise: lambda t, x: -sigma(t) * score(t, x),
        fields.v_prediction: lambda t, x: (
            -alpha(t) * sigma(t) * score(t, x) - sigma(t) * path.denoiser(t, x)
        ),
    }


def errors(schedule, t, x):
    """The fields of another law as predictions for TARGET: consistent, and wrong."""
    true, false = five(MixturePath(schedule, TARGET)), five(MixturePath(schedule, FALSE))
    return {row: false[row](t, x) - true[row](t, x) for row in ROWS}


@every
def test_the_errors_of_five_fields_are_one_error_eq_error_weights(name, generator):
    schedule, x = NOISING[name], points(32, generator)
    for t in (scalar(0.4), inner_times(32, generator)):
        wrong = errors(schedule, t, x)
        for given_row in ROWS:
            for wanted in ROWS:
                square = wrong[wanted].square().sum(1)
                rate = exchange(schedule, given_row, wanted, t)
                gap = (rate * wrong[given_row].square().sum(1) - square) / square
                expect(worst("eq:error-weights", gap))
                if given_row is not wanted:
                    twice = (2 * rate * wrong[given_row].square().sum(1) - square) / square
                    refute(worst("eq:error-weights", twice), "factor: 2")


def test_exchange_rates_of_the_linear_path_known_by_hand():
    t = torch.tensor([0.1, 0.5, 0.8], dtype=F64)
    known = {
        fields.noise: 1 / t**2,
        fields.data: 1 / (1 - t) ** 2,
        fields.score: (1 - t) ** 2 / t**2,
        fields.v_prediction: 1 / (t**2 + (1 - t) ** 2) ** 2,
        fields.velocity: torch.ones_like(t),
    }
    for row, rate in known.items():
        expect(worst("eq:error-weights", exchange(linear, row, fields.velocity, t) / rate - 1))
    assert exchange(linear, fields.velocity, fields.data, scalar(1.0)) == 0
    with pytest.raises(ValueError, match="no data from noise at t = 0"):
        exchange(linear, fields.noise, fields.data, scalar(0.0))


@pytest.mark.parametrize("row", ROWS)
def test_a_loss_is_the_same_in_any_parameterization_sample_by_sample(row, generator):
    for path in (MixturePath(linear, TARGET), MixturePath(variance_preserving(), TARGET)):
        t = inner_times(64, generator)
        x0, x1 = path.ends(64, generator)
        field = lambda t, x: torch.stack([x[:, 1].sin() + t, x[:, 0] * t], 1)
        i = path.interpolant
        weight = lambda t: 1 + t**2
        loss = weight(t) * regression(field, i, fields.velocity, t, x0, x1)
        other = fields.convert(field, path, fields.velocity, row)
        again = same_loss(weight, path, row, fields.velocity)(t)
        again = again * regression(other, i, row, t, x0, x1)
        expect(worst("eq:error-weights", again / loss - 1, 1e-8))
        if row is not fields.velocity:
            plain = weight(t) * regression(other, i, row, t, x0, x1)
            refute(worst("eq:error-weights", plain / loss - 1, 1e-8), "factor: no exchange rate")


def test_the_excess_of_flow_matching_is_the_weighted_error_of_the_noise(generator):
    path = MixturePath(linear, TARGET)
    t = 0.1 + 0.5 * torch.rand(20_000, generator=generator, dtype=F64)
    x0, x1 = path.ends(20_000, generator)
    noise = fields.convert(path.velocity, path, fields.velocity, fields.noise)
    wrong = fields.convert(lambda t, x: noise(t, x) + 0.5, path, fields.noise, fields.velocity)
    excess = flow_matching(wrong, linear, t, x0, x1)
    excess = excess - flow_matching(path.velocity, linear, t, x0, x1)
    known = exchange(linear, fields.noise, fields.velocity, t) * 0.5
    expect(mean("eq:error-weights", excess - known, 0.0))
    refute(mean("eq:error-weights", excess - 2 * known, 0.0), "factor: d counted twice")


@every
def test_the_likelihood_weight_makes_half_g_squared_of_the_score(name, generator):
    schedule, x, t = NOISING[name], points(32, generator), inner_times(32, generator)
    wrong = errors(schedule, t, x)
    nats = 0.5 * noising_diffusion(schedule)(t) ** 2 * wrong[fields.score].square().sum(1)
    ours = likelihood_weight(schedule)(t) * wrong[fields.noise].square().sum(1)
    expect(worst("eq:likelihood-weight", ours / nats - 1))
    refute(worst("eq:likelihood-weight", 0.5 * ours / nats - 1), "factor: ½ twice")


def test_the_likelihood_weight_integrates_to_the_range_of_lambda():
    t = torch.linspace(0.1, 0.9, 4001, dtype=F64)
    for schedule in NOISING.values():
        total = torch.trapezoid(likelihood_weight(schedule)(t), t)
        known = half_log_snr(schedule, t[-1]) - half_log_snr(schedule, t[0])
        expect(worst("eq:likelihood-weight", total / known - 1, 1e-6))
        refute(worst("eq:likelihood-weight", 2 * total / known - 1, 1e-6), "factor: whole log-SNR")


@every
def test_the_likelihood_is_flat_over_lambda_eq_weight_of_lambda(name, generator):
    schedule, t = NOISING[name], inner_times(16, generator)
    half_g2 = lambda t: 0.5 * noising_diffusion(schedule)(t) ** 2
    flat = over_log_snr(half_g2, schedule, fields.score)(t)
    expect(worst("eq:weight-of-lambda", flat - 1))
    g2 = over_log_snr(lambda t: 2 * half_g2(t), schedule, fields.score)(t)
    refute(worst("eq:weight-of-lambda", g2 - 1), "factor: g² in place of ½g²")


def test_straight_flow_matching_and_cosine_v_prediction_are_one_loss(generator):
    snr = torch.linspace(-4, 4, 9, dtype=F64)
    of_v = over_log_snr(torch.ones_like, linear, fields.velocity)(snr.sigmoid())
    expect(worst("eq:weight-of-lambda", of_v - (-snr).exp()))
    at = 2 / math.pi * snr.exp().atan()
    of_nu = over_log_snr(torch.ones_like, trigonometric, fields.v_prediction)(at)
    expect(worst("eq:weight-of-lambda", of_nu - 2 / math.pi * (-snr).exp()))
    of_noise = over_log_snr(torch.ones_like, linear, fields.noise)(snr.sigmoid())
    expect(worst("eq:weight-of-lambda", of_noise - 0.25 / (0.5 * snr).cosh() ** 2))
    refute(worst("eq:weight-of-lambda", of_nu - of_v), "factor: 2/π")


@pytest.mark.parametrize("row", [fields.noise, fields.velocity, fields.v_prediction])
def test_the_likelihood_loss_is_that_of_the_noise_in_nats(row, generator):
    path = MixturePath(variance_preserving(0.3, 7.0), TARGET)
    t = inner_times(64, generator)
    x0, x1 = path.ends(64, generator)
    noise = lambda t, x: torch.stack([x[:, 1].sin(), x[:, 0] * t], 1)
    field = fields.convert(noise, path, fields.noise, row)
    x = path.interpolant(t, x0, x1)
    # λ̇ of the VP path by hand: β/2σ², with β = 0.3 + 6.7(1 - t)
    speed = (0.3 + 6.7 * (1 - t)) / (2 * path.interpolant.variance(t))
    known = speed * (noise(t, x) - x0).square().sum(1)
    ours = likelihood_loss(field, path, row, t, x0, x1)
    expect(worst("eq:elbo", ours / known - 1))
    refute(worst("eq:elbo", 2 * ours / known - 1), "factor: 2")


def test_the_bound_of_gaussian_data_is_their_negative_log_density(generator):
    """An exact predictor: KL of the start + nats − decoder, averaged over noise, is −log p₁."""
    d1 = gaussian(torch.tensor([0.7], dtype=F64), torch.tensor([[0.4]], dtype=F64))
    path = MixturePath(variance_preserving(0.3, 7.0), d1)
    i, stop = path.interpolant, 0.9
    n = 400_000
    t = stop * torch.rand(n, generator=generator, dtype=F64)
    x1 = torch.full((n, 1), 1.2, dtype=F64)
    x0 = torch.randn(n, 1, generator=generator, dtype=F64)
    exact = fields.convert(path.score, path, fields.score, fields.noise)
    middle = stop * likelihood_loss(exact, path, fields.noise, t, x0, x1)

    def log_ratio(at):
        x, s = i(scalar(at), x0, x1), i.sigma(scalar(at))
        own = -0.5 * x0[:, 0] ** 2 - s.log() - 0.5 * math.log(2 * math.pi)
        return own - path.log_density(scalar(at), x)

    bound = log_ratio(0.0) + middle - log_ratio(stop) - d1.log_prob(x1)
    known = -d1.log_prob(x1[:1]).item()
    expect(mean("eq:elbo", bound, known))
    refute(mean("eq:elbo", bound - 0.5 * middle, known), "factor: ½∫dλ")


def test_the_first_term_is_the_divergence_of_two_gaussians(generator):
    x1 = points(5, generator, d=3)
    for path in (variance_preserving(0.3, 7.0), variance_exploding(0.05, 10.0)):
        a, s = path.alpha(scalar(0.0)), path.sigma(scalar(0.0))
        laws = (torch.distributions.Normal(m, s) for m in (a * x1, 0 * x1))
        known = torch.distributions.kl_divergence(*laws).sum(1)
        expect(worst("eq:elbo", start_divergence(path, x1) / known - 1))
        refute(worst("eq:elbo", 2 * start_divergence(path, x1) / known - 1), "factor: the ½")
    assert (start_divergence(linear, x1) == 0).all()


@every
def test_the_weights_of_steps_are_those_of_gaussian_divergences(name, generator):
    schedule = NOISING[name]
    times = torch.tensor([0.05, 0.2, 0.5, 0.55, 0.9], dtype=F64)
    weights = step_weights(MixturePath(schedule, TARGET), times)
    x0, x1, eps = (points(8, generator) for _ in range(3))
    for k, (t, s) in enumerate(zip(times[:-1], times[1:])):
        x = schedule(t, x0, x1)
        of_state, of_data, v = ancestral_posterior(schedule, t, s)
        clean = (x - schedule.sigma(t) * eps) / schedule.alpha(t)
        laws = (
            torch.distributions.Normal(of_state * x + of_data * m, v.sqrt()) for m in (x1, clean)
        )
        known = torch.distributions.kl_divergence(*laws).sum(1)
        ours = weights[k] * (eps - x0).square().sum(1)
        expect(worst("eq:discrete-elbo", ours / known - 1, 1e-8))
        refute(worst("eq:discrete-elbo", 0.5 * ours / known - 1, 1e-8), "factor: the ½ twice")


def test_small_steps_have_the_weight_of_the_likelihood():
    times = torch.linspace(0.2, 0.8, 6001, dtype=F64)
    middle = 0.5 * (times[1:] + times[:-1])
    gap = step_weights(linear, times) / (times.diff() * likelihood_weight(linear)(middle)) - 1
    expect(worst("eq:discrete-elbo", gap, 1e-3))
    refute(worst("eq:discrete-elbo", 2 * (1 + gap) - 1, 1e-3), "factor: 2")


@pytest.mark.parametrize("schedule", [linear, trigonometric, variance_preserving(), edm()])
def test_preconditioning_gives_units_and_the_least_amplification(schedule, generator):
    law = random_mixture(3, d=3, k=2)
    scale = ((law.cov.trace() + law.mean.square().sum()) / 3).sqrt().item()
    path = MixturePath(schedule, law)
    x0, x1 = path.ends(20_000, generator)
    for at in (0.1, 0.5, 0.9):
        t = scalar(at)
        inner, skip, out = preconditioning(path, scale, t)
        x = schedule(t, x0, x1)
        size = lambda y: y.square().sum(1) / 3
        expect(mean("eq:preconditioning", size(inner * x), 1.0))
        expect(mean("eq:preconditioning", size((x1 - skip * x) / out), 1.0))
        refute(mean("eq:preconditioning", size(2**0.5 * inner * x), 1.0), "factor: 2")
        a, s = schedule.alpha(t), schedule.sigma(t)
        left = lambda c, a=a, s=s: (1 - c * a) ** 2 * scale**2 + c**2 * s**2
        low, here, high = left(skip - 1), left(skip), left(skip + 1)
        expect(worst("eq:preconditioning", (low - high) / (low + high)))  # the vertex
        expect(worst("eq:preconditioning", here / out**2 - 1))
        expect(worst("eq:preconditioning", (1 / scale**2 + (a / s) ** 2) * out**2 - 1))
        moved = left(1.1 * skip + 0.1 - 1) - left(1.1 * skip + 0.1 + 1)
        refute(worst("eq:preconditioning", moved / (low + high)), "factor: another skip")


def test_preconditioning_on_the_linear_path_known_by_hand():
    inner, skip, out = preconditioning(linear, 2.0, scalar(0.25))
    # D = (0.25·2)² + 0.75² = 0.8125
    assert inner.item() == pytest.approx(0.8125**-0.5)
    assert skip.item() == pytest.approx(0.25 * 4 / 0.8125)
    assert out.item() == pytest.approx(0.75 * 2 / 0.8125**0.5)
    for t, ends in ((0.0, (1.0, 0.0, 2.0)), (1.0, (0.5, 1.0, 0.0))):
        assert tuple(c.item() for c in preconditioning(linear, 2.0, scalar(t))) == ends


@given(scale=st.floats(0.2, 5.0), seed=st.integers(0, 99))
def test_the_preconditioned_target_is_minus_nu_of_the_whitened_path(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    t, x0, x1 = inner_times(6, generator), *(points(6, generator) for _ in range(2))
    for schedule in (linear, variance_preserving()):
        inner, skip, out = (c[:, None] for c in preconditioning(schedule, scale, t))
        target = (x1 - skip * schedule(t, x0, x1)) / out
        alpha, sigma = (c(t)[:, None] for c in (schedule.alpha, schedule.sigma))
        minus_nu = inner * (sigma * x1 / scale - alpha * scale * x0)
        expect(worst("eq:preconditioning", target - minus_nu, 1e-8))


def test_an_untrained_network_behind_the_skip_is_the_best_linear_denoiser(generator):
    law = gaussian(torch.zeros(2, dtype=F64), 1.7 * torch.eye(2, dtype=F64))
    for t in (scalar(0.3), inner_times(2, generator), inner_times(16, generator)):
        x = points(2 if t.ndim and len(t) == 2 else 16, generator)
        path = MixturePath(trigonometric, law)
        guess = preconditioned(lambda t, x: 0 * x, path, 1.7**0.5)
        expect(worst("eq:preconditioning", guess(t, x) - path.denoiser(t, x)))
    seen = []
    spy = lambda t, x: (seen.append((t, x)), torch.ones_like(x))[1]
    shifted = preconditioned(spy, path, 1.7**0.5)(t, x) - guess(t, x)
    inner, _, out = preconditioning(path, 1.7**0.5, t)
    assert torch.allclose(shifted, out[:, None].expand_as(x))
    assert torch.equal(seen[0][0], t) and torch.equal(seen[0][1], inner[:, None] * x)


EDGES = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=F64)
HEIGHTS = torch.tensor([3.0, 1.0, 0.5], dtype=F64)
MASSES = torch.tensor([0.3, 0.3, 0.3], dtype=F64) / 0.9


def test_a_density_of_times_integrates_to_one_and_has_its_heights():
    p = TimeDensity(EDGES, HEIGHTS)
    between = torch.tensor([0.05, 0.2, 0.7], dtype=F64)
    expect(worst("eq:time-importance", (p(between) * EDGES.diff()) - MASSES))
    assert p(scalar(0.05)).shape == () and p(scalar(1.0)) == p(scalar(0.9))
    assert p(scalar(0.0)) == p(scalar(0.05)) and p(scalar(0.1)) == p(scalar(0.2))
    assert p.quantile(scalar(0.0)) == 0 and p.quantile(scalar(1.0)) == 1
    refute(worst("eq:time-importance", HEIGHTS * EDGES.diff() - MASSES), "factor: not normalised")


@given(u=st.floats(0.0, 1.0))
def test_the_quantile_inverts_the_distribution_function(u):
    p = TimeDensity(EDGES, HEIGHTS)
    t = p.quantile(scalar(u))
    share = (MASSES * ((t - EDGES[:-1]) / EDGES.diff()).clamp(0, 1)).sum()
    assert share.item() == pytest.approx(u, abs=1e-12)
    many = p.quantile(torch.full((4,), u, dtype=F64))
    assert many.shape == (4,) and (many == t).all()


def test_times_are_drawn_from_their_density(generator):
    p = TimeDensity(EDGES, HEIGHTS)
    t = p.sample(20_000, generator)
    # means by hand: masses ⅓ at the centres 0.05, 0.25, 0.7
    expect(mean("eq:time-importance", t, 1 / 3))
    expect(mean("eq:time-importance", t**2 / p(t), 1 / 3))
    refute(mean("eq:time-importance", t**2, 1 / 3), "missing term: not divided by p")


@given(seed=st.integers(0, 99))
def test_no_other_density_has_less_variance(seed):
    generator = torch.Generator().manual_seed(seed)
    squares = 0.1 + torch.rand(3, generator=generator, dtype=F64) * torch.tensor([9.0, 1.0, 0.1])
    second = lambda p: (EDGES.diff() * squares / p(0.5 * (EDGES[1:] + EDGES[:-1]))).sum()
    least = second(best_times(EDGES, squares))
    expect(worst("eq:time-importance", least - (EDGES.diff() * squares.sqrt()).sum() ** 2))
    other = TimeDensity(EDGES, squares.sqrt() * (0.5 + torch.rand(3, generator=generator)))
    expect(below("eq:time-importance", least.item(), second(other).item() + 1e-12))
    assert second(TimeDensity(EDGES, squares)) > least  # the square is not its root


def test_a_path_that_is_not_gaussian_is_refused(generator):
    base, latent = MixturePath(linear, TARGET, BASE), bridge(0.5)
    t, x = scalar(0.5), points(3, generator)
    for path in (base, latent):
        for call in (
            lambda: exchange(path, fields.noise, fields.velocity, t),
            lambda: same_loss(torch.ones_like, path, fields.noise, fields.velocity)(t),
            lambda: likelihood_weight(path),
            lambda: over_log_snr(torch.ones_like, path, fields.noise),
            lambda: likelihood_loss(lambda t, x: x, path, fields.noise, t, x, x),
            lambda: start_divergence(path, x),
            lambda: step_weights(path, torch.tensor([0.2, 0.4], dtype=F64)),
            lambda: preconditioning(path, 1.0, t),
            lambda: preconditioned(lambda t, x: x, path, 1.0),
        ):
            with pytest.raises(ValueError, match="conversions between fields need"):
                call()


def test_weights_that_are_negative_or_nan_are_refused():
    for bad in (-1.0, float("nan")):
        weight = same_loss(lambda t: 0 * t + bad, linear, fields.noise, fields.velocity)
        with pytest.raises(ValueError, match="the weight of a loss is not negative, got"):
            weight(torch.tensor([0.2, 0.5], dtype=F64))
    mixed = same_loss(lambda t: t - 0.3, linear, fields.noise, fields.velocity)
    with pytest.raises(ValueError, match="got -0.1"):
        mixed(torch.tensor([0.5, 0.2], dtype=F64))
    nothing = same_loss(torch.zeros_like, linear, fields.noise, fields.velocity)
    assert nothing(scalar(0.5)) == 0


def test_likelihood_at_singular_ends_and_on_turned_clocks_is_refused():
    turned = Interpolant(sigma=lambda t: t, alpha=lambda t: 1 - t)
    for path, t in ((linear, 0.0), (linear, 1.0), (trigonometric, 1.0), (turned, 0.5)):
        with pytest.raises(ValueError, match="likelihood weight is the rate of lambda"):
            likelihood_weight(path)(scalar(t))
    with pytest.raises(ValueError, match="times in \\[0, 1\\] only"):
        likelihood_weight(linear)(scalar(float("nan")))
    still = Interpolant(sigma=torch.ones_like, alpha=torch.ones_like)
    assert likelihood_weight(still)(scalar(0.5)) == 0  # a path that stands still costs nothing


@pytest.mark.parametrize("times", [[0.5], [0.5, 0.2], [0.2, 0.2], [0.2, float("nan")]])
def test_steps_that_do_not_go_from_noise_to_data_are_refused(times):
    schedule = Interpolant(sigma=lambda t: 1 - t, alpha=lambda t: t)
    with pytest.raises(ValueError, match="steps go from noise to data"):
        step_weights(schedule, torch.tensor(times, dtype=F64))


def test_steps_on_a_path_whose_signal_falls_or_ends_are_refused():
    turned = Interpolant(sigma=lambda t: t, alpha=lambda t: 1 - t)
    with pytest.raises(ValueError, match="steps go from noise to data"):
        step_weights(turned, torch.tensor([0.2, 0.5], dtype=F64))
    for times in ([0.0, 0.5], [0.5, 1.0]):
        with pytest.raises(ValueError, match="steps need noise and data at both ends"):
            step_weights(linear, torch.tensor(times, dtype=F64))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="the scale of the data is positive and finite"):
        preconditioning(linear, scale, scalar(0.5))


def test_densities_of_times_that_are_none_are_refused(generator):
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive and finite everywhere"):
            TimeDensity(EDGES, torch.tensor([1.0, bad, 1.0], dtype=F64))
    for bad in ([0.0, 0.1, 0.1, 1.0], [0.0, 0.4, 0.1, 1.0], [0.0, 0.1, 0.2, float("inf")]):
        with pytest.raises(ValueError, match="edges are finite and increase"):
            TimeDensity(torch.tensor(bad, dtype=F64), HEIGHTS)
    for edges, heights in (
        (EDGES, HEIGHTS[:2]),
        (EDGES[:1], HEIGHTS[:0]),
        (EDGES, HEIGHTS.float()),
    ):
        with pytest.raises(ValueError, match="m heights stand between m \\+ 1 edges"):
            TimeDensity(edges, heights)
    p = TimeDensity(EDGES + 0.1, HEIGHTS)
    for t in (0.05, 1.2, float("nan")):
        with pytest.raises(ValueError, match="this density has times from 0.1 to 1.1"):
            p(scalar(t))
    for u in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="a share lies in"):
            p.quantile(scalar(u))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="second moments are positive"):
            best_times(EDGES, torch.tensor([1.0, bad, 1.0], dtype=F64))


def test_an_end_without_noise_or_data_is_named_and_never_called_nan():
    for end in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"an infinite lambda at t = {end:g};"):
            likelihood_weight(linear)(torch.tensor([0.5, end], dtype=torch.float64))
