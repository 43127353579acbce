"""Claims of chapters 0 and 9: five fields are one field in five coordinates."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import (
    BASE,
    COUPLING,
    F64,
    NOISING,
    TARGET,
    inner_times,
    points,
    random_mixture,
    same_rows,
    scalar,
)
from onepath.calculus import gradient
from onepath.fields import coefficients, convert, data, noise, score, v_prediction, velocity
from onepath.interpolants import bridge, cosine, linear, trigonometric, variance_preserving
from onepath.measures import standard_normal
from onepath.oracles import MixturePath
from onepath.verify import expect, mean, refute, worst

ROWS = [data, noise, velocity, score, v_prediction]
every = pytest.mark.parametrize("name", NOISING)


def oracle(path, row):
    """Each field by a way of its own: posterior mean, transport, derivative of the log-density."""
    column = lambda a: a[:, None] if a.ndim else a
    sigma = lambda t: column(path.interpolant.sigma(t))
    alpha = lambda t: column(path.interpolant.alpha(t))
    slope = lambda t, x: gradient(path.log_density, t, x)
    return {
        data: path.denoiser,
        velocity: path.velocity,
        score: slope,
        noise: lambda t, x: -sigma(t) * slope(t, x),
        v_prediction: lambda t, x: (
            -alpha(t) * sigma(t) * slope(t, x) - sigma(t) * path.denoiser(t, x)
        ),
    }[row]


@every
@pytest.mark.parametrize("given_row, wanted", list(itertools.product(ROWS, ROWS)))
def test_every_field_gives_every_other(name, given_row, wanted, generator):
    path, x = MixturePath(NOISING[name], TARGET), points(32, generator)
    t = inner_times(32, generator)
    exact = oracle(path, wanted)(t, x)
    error = lambda field: worst("eq:conversion", (field(t, x) - exact) / exact.abs().max(), 1e-9)
    right = convert(oracle(path, given_row), path, given_row, wanted)
    expect(error(right))
    assert torch.equal(
        right(t, x), convert(oracle(path, given_row), path.interpolant, given_row, wanted)(t, x)
    )
    if given_row is not wanted:
        twice = lambda t, x: 2 * right(t, x)
        refute(error(twice), "factor: 2")
        refute(error(lambda t, x: right(1 - t, x)), "clock: the coefficients of 1 - t")


@every
def test_noise_prediction_is_the_mean_of_the_noise(name, generator):
    """The law leg: E[(eps - eps_hat) f(x)] = 0, with eps_hat converted from the velocity."""
    path, t = MixturePath(NOISING[name], TARGET), scalar(0.4)
    x0, x1 = path.ends(20_000, generator)
    x = path.interpolant(t, x0, x1)
    scale = x.std(0)
    fields = {row: convert(path.velocity, path, velocity, row)(t, x) for row in ROWS}
    truth = {
        noise: x0,
        data: x1,
        v_prediction: path.interpolant.alpha(t) * x0 - path.interpolant.sigma(t) * x1,
    }
    for row, target in truth.items():
        for f in (torch.ones_like(x), x / scale, (2 * x / scale).sin()):
            expect(mean("eq:conversion", ((target - fields[row]) * f).sum(1), 0.0))
    flipped = truth[noise] + fields[noise]
    refute(mean("eq:conversion", (flipped * x0).sum(1), 0.0), "sign: minus the noise")
    swapped = truth[v_prediction] + fields[v_prediction]
    refute(mean("eq:conversion", (swapped * truth[v_prediction]).sum(1), 0.0), "sign: minus nu")


def test_on_the_trigonometric_path_velocity_is_minus_half_pi_nu(generator):
    path, x, t = MixturePath(trigonometric, TARGET), points(32, generator), scalar(0.3)
    nu = convert(path.denoiser, path, data, v_prediction)(t, x)
    expect(worst("eq:conversion", path.velocity(t, x) + torch.pi / 2 * nu))
    refute(worst("eq:conversion", path.velocity(t, x) - nu), "wrong object: nu is not the velocity")


def test_conversions_of_the_linear_path_known_by_hand(generator):
    path, x = MixturePath(linear, TARGET), points(32, generator)
    for t in (scalar(0.3), inner_times(32, generator)):
        s = t[:, None] if t.ndim else t
        v = path.velocity(t, x)
        known = {
            score: (s * v - x) / (1 - s),
            data: x + (1 - s) * v,
            noise: x - s * v,
        }
        for row, exact in known.items():
            ours = convert(path.velocity, path, velocity, row)(t, x)
            expect(worst("eq:conversion", ours - exact))
        wrong = (s * v + x) / (1 - s)
        ours = convert(path.velocity, path, velocity, score)(t, x)
        refute(worst("eq:conversion", ours - wrong), "sign: x added to t v")


@given(
    seed=st.integers(0, 1000),
    name=st.sampled_from(sorted(NOISING)),
    rows=st.tuples(st.sampled_from(ROWS), st.sampled_from(ROWS)),
    t=st.floats(0.05, 0.95),
    dtype=st.sampled_from([torch.float32, F64]),
)
def test_there_and_back_is_nothing(seed, name, rows, t, dtype):
    path, g = NOISING[name], torch.Generator().manual_seed(seed)
    x = torch.randn(3, 2, generator=g, dtype=dtype)
    field = lambda t, x: torch.sin(x.flip(1))  # any field at all, the law of no measure
    there = convert(field, path, *rows)
    back = convert(there, path, *reversed(rows))
    t = torch.tensor(t, dtype=F64)
    assert back(t, x).dtype == dtype
    if dtype == F64:
        p, q = coefficients(path, *rows, t)
        room = (1 + (p / q).abs()) * (1 + q.abs()) * (1 + 1 / q.abs())
        assert (back(t, x) - field(t, x)).abs().max() < 1e-13 * room * room


@pytest.mark.parametrize("n, d", [(2, 2), (3, 3), (1, 3), (4, 2)])
@pytest.mark.parametrize("each", [False, True])
def test_a_batch_is_a_loop(n, d, each, generator):
    path = MixturePath(variance_preserving(), random_mixture(3, d, d))
    x = points(n, generator, d)
    t = inner_times(n, generator) if each else scalar(0.4)
    assert same_rows(convert(path.velocity, path, velocity, score), t, x) < 1e-10


@every
def test_conversions_that_exist_at_an_end_are_exact_there(name, generator):
    path, x = MixturePath(NOISING[name], TARGET), points(8, generator)
    for row in (score, noise):
        ours = convert(path.velocity, path, velocity, row)(scalar(0.0), x)
        exact = oracle(path, row)(scalar(0.0), x)
        assert (ours - exact).abs().max() < 1e-9 * (1 + exact.abs().max())


@pytest.mark.parametrize("path", [linear, trigonometric, variance_preserving(), cosine()])
@pytest.mark.parametrize("wanted", [data, noise, velocity, v_prediction, score])
def test_a_score_gives_everything_at_the_data_end(path, wanted, generator):
    """At t = 1 the oracle's own limits: no division by sigma is needed."""
    law, x, one = MixturePath(path, TARGET), points(8, generator), scalar(1.0)
    known = {
        data: x,
        noise: 0 * x,
        velocity: law.velocity(one, x),
        v_prediction: 0 * x,
        score: law.score(one, x),
    }[wanted]
    ours = convert(law.score, law, score, wanted)(one, x)
    expect(worst("eq:conversion", (ours - known) / (1 + known.abs().max())))
    near = convert(law.score, law, score, wanted)(scalar(1 - 1e-8), x)
    assert (near - ours).abs().max() < 1e-3 * (1 + ours.abs().max())
    p, q = coefficients(path, score, wanted, torch.tensor([0.3, 1.0], dtype=F64))
    assert p.isfinite().all() and q.isfinite().all()


@pytest.mark.parametrize("path", [variance_preserving(), cosine()])
@pytest.mark.parametrize("wanted", [data, noise, v_prediction])
def test_a_velocity_with_infinite_slope_gives_the_others_at_the_data_end(path, wanted, generator):
    law, x, one = MixturePath(path, TARGET), points(8, generator), scalar(1.0)
    ours = convert(law.velocity, law, velocity, wanted)(one, x)
    known = x if wanted is data else 0 * x
    expect(worst("eq:conversion", ours - known))
    refute(worst("eq:conversion", ours - known - 0.01 * x), "factor: one per cent of the state")


def test_a_field_gives_itself_everywhere(generator):
    x = points(4, generator)
    for row in ROWS:
        for t in (0.0, 0.4, 1.0):
            assert torch.equal(convert(lambda t, x: 3 * x, linear, row, row)(scalar(t), x), 3 * x)


def test_rows_of_others_are_taken_as_they_are(generator):
    """A row that is infinite and neither the score nor the velocity has no limit to guess."""
    own = lambda path, t: (t * 0, 1 / path.sigma(t))
    with pytest.raises(ValueError, match="no data from"):
        convert(lambda t, x: x, linear, own, data)(scalar(1.0), points(3, generator))
    p, q = coefficients(linear, own, data, scalar(0.4))
    assert p.item() == pytest.approx(2.5) and q.item() == pytest.approx(-0.36 / 0.4)


# --- refusals


@pytest.mark.parametrize("path", [linear, trigonometric, variance_preserving()])
@pytest.mark.parametrize("given_row", [velocity, data, v_prediction])
def test_a_score_is_refused_where_sigma_is_zero(path, given_row, generator):
    converted = convert(lambda t, x: x, path, given=given_row, wanted=score)
    with pytest.raises(
        ValueError, match=rf"no score from {given_row.__name__} at t = 1, .*stop the grid before"
    ):
        converted(scalar(1.0), points(3, generator))


@pytest.mark.parametrize(
    "given_row, wanted, t",
    [
        (noise, data, 0.0),  # alpha = 0: the state is the noise and says nothing of the data
        (score, velocity, 0.0),
        (data, noise, 1.0),
        (data, velocity, 1.0),
    ],
)
def test_a_conversion_that_divides_by_zero_is_refused(given_row, wanted, t, generator):
    converted = convert(lambda t, x: x, linear, given_row, wanted)
    with pytest.raises(
        ValueError, match=f"no {wanted.__name__} from {given_row.__name__} at t = {t:g}"
    ):
        converted(scalar(t), points(3, generator))


def test_the_refusal_names_the_time_at_fault(generator):
    converted = convert(lambda t, x: x, linear, velocity, score)
    times = torch.tensor([0.2, 0.5, 1.0], dtype=F64)
    with pytest.raises(ValueError, match="at t = 1, where sigma or alpha is 0"):
        converted(times, points(3, generator))
    assert all(c.isfinite().all() for c in coefficients(linear, velocity, score, times[:2]))
    with pytest.raises(ValueError, match="at t = 0, where"):
        coefficients(linear, noise, velocity, torch.tensor([0.4, 0.0], dtype=F64))


@pytest.mark.parametrize(
    "path, message",
    [
        (MixturePath(linear, TARGET, BASE), "a base N.0, I. that is independent"),
        (MixturePath(linear, TARGET, BASE, COUPLING), "a base N.0, I. that is independent"),
        (bridge(0.7), "without latent noise"),
        (MixturePath(bridge(0.7), TARGET), "without latent noise"),
    ],
)
def test_conversions_ask_for_their_hypotheses(path, message):
    with pytest.raises(ValueError, match=message):
        convert(lambda t, x: x, path, velocity, score)


def test_the_hypothesis_of_a_gaussian_base_is_needed(generator):
    """The formula that is refused would be wrong: it is not the score of that path."""
    path, x, t = MixturePath(linear, TARGET, BASE), points(32, generator), scalar(0.4)
    formula = convert(path.velocity, linear, velocity, score)
    gap = formula(t, x) - path.score(t, x)
    refute(worst("eq:conversion", gap), "hypothesis: the base is a mixture")
    assert standard_normal(2, x).dim == 2 and math.isfinite(gap.abs().max())
