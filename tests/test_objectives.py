"""Every objective is a regression, and its minimiser is the exact field of the path."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import BASE, COUPLING, F64, INTERPOLANTS, NOISING, TARGET, inner_times, points
from onepath import fields
from onepath.interpolants import bridge, linear, trigonometric
from onepath.objectives import denoising_score_matching, flow_matching, regression
from onepath.oracles import MixturePath
from onepath.verify import expect, mean, refute, worst

PATH = MixturePath(trigonometric, TARGET)
ROWS = {
    "velocity": fields.velocity,
    "score": fields.score,
    "data": fields.data,
    "noise": fields.noise,
    "v-prediction": fields.v_prediction,
}
N = 20_000


def exact(row, path=PATH):
    """The field of a row, converted from the exact velocity."""
    return fields.convert(path.velocity, path, given=fields.velocity, wanted=row)


def draws(path, generator, n=N):
    t = 0.05 + 0.9 * torch.rand(n, generator=generator, dtype=F64)
    x0, x1 = path.ends(n, generator)
    return t, x0, x1


def tilt(t, x):
    """A direction in which a minimiser must not be improvable; no symmetry to hide in."""
    return torch.stack([(x[:, 1] + t).sin(), x[:, 0] * t + 0.5], dim=1)


def derivative(loss, field, direction, *arguments):
    """Per-sample derivative of the loss at `field`; the difference is exact for a square."""
    moved = lambda h: lambda t, x: field(t, x) + h * direction(t, x)
    return loss(moved(0.5), *arguments) - loss(moved(-0.5), *arguments)


def check_minimiser(loss, field, mistakes, *arguments):
    """No direction improves `field`; a mistake is improved by going back."""
    expect(mean("eq:minimiser", derivative(loss, field, tilt, *arguments), 0.0))
    for mistake, wrong in mistakes.items():
        away = lambda t, x, wrong=wrong: wrong(t, x) - field(t, x)
        expect(mean("eq:minimiser", derivative(loss, field, away, *arguments), 0.0))
        refute(mean("eq:minimiser", derivative(loss, wrong, away, *arguments), 0.0), mistake)


@pytest.mark.parametrize("name", ROWS)
def test_the_minimiser_of_a_regression_is_the_field_of_its_row(name, generator):
    row = ROWS[name]
    field = exact(row)
    loss = lambda field, *a: regression(field, PATH.interpolant, row, *a)
    mistakes = {
        "sign: minus the field": lambda t, x: -field(t, x),
        "factor: 1.2 times the field": lambda t, x: 1.2 * field(t, x),
        "clock: t read as 1 - t": lambda t, x: field(1 - t, x),
    }
    check_minimiser(loss, field, mistakes, *draws(PATH, generator))


def test_the_minimiser_of_flow_matching_is_the_velocity_whatever_the_coupling(generator):
    path = MixturePath(linear, TARGET, BASE, COUPLING)
    loss = lambda field, *a: flow_matching(field, linear, *a)
    free = MixturePath(linear, TARGET, BASE).velocity
    mistakes = {"hypothesis: the ends are taken as independent": free}
    check_minimiser(loss, path.velocity, mistakes, *draws(path, generator))


def test_latent_noise_has_its_part_in_the_velocity(generator):
    path = MixturePath(bridge(0.7), TARGET)
    t, x0, x1 = draws(path, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=F64)
    loss = lambda field, *a: flow_matching(field, path.interpolant, *a)
    mistakes = {"missing term: the latent noise": MixturePath(linear, TARGET).velocity}
    check_minimiser(loss, path.velocity, mistakes, t, x0, x1, z)


def test_the_excess_loss_of_a_field_is_its_distance_from_the_minimiser(generator):
    t, x0, x1 = draws(PATH, generator)
    for row, loss in ((fields.velocity, flow_matching), (fields.score, denoising_score_matching)):
        field = exact(row)
        wrong = lambda t, x, field=field: field(t, x) + tilt(t, x)
        excess = loss(wrong, trigonometric, t, x0, x1) - loss(field, trigonometric, t, x0, x1)
        distance = tilt(t, trigonometric(t, x0, x1)).square().sum(1)
        expect(mean("eq:minimiser", excess - distance, 0.0))
        refute(mean("eq:minimiser", excess - 2 * distance, 0.0), "factor: 2 before the distance")


@pytest.mark.parametrize("name", NOISING)
@given(st.integers(0, 1000))
def test_the_target_of_flow_matching_is_the_slope_of_the_path(name, seed):
    """Against a difference quotient of the interpolant itself."""
    path, g = NOISING[name], torch.Generator().manual_seed(seed)
    t, x0, x1 = inner_times(5, g), points(5, g), points(5, g)
    h = 1e-5
    slope = (path(t + h, x0, x1) - path(t - h, x0, x1)) / (2 * h)
    value = flow_matching(lambda t, x: 0 * x, path, t, x0, x1)
    assert torch.allclose(value, slope.square().sum(1), rtol=1e-4)


@pytest.mark.parametrize("name", ["bridge", "own latent noise"])
def test_the_slope_counts_the_latent_noise(name, generator):
    path = INTERPOLANTS[name]
    t, x0, x1, z = inner_times(9, generator), *(points(9, generator) for _ in range(3))
    h = 1e-5
    slope = (path(t + h, x0, x1, z) - path(t - h, x0, x1, z)) / (2 * h)
    field = lambda t, x: x
    value = flow_matching(field, path, t, x0, x1, z)
    assert torch.allclose(value, (path(t, x0, x1, z) - slope).square().sum(1), rtol=1e-4)


@given(st.integers(0, 1000))
def test_all_regressions_are_one_up_to_weights(seed):
    """Noise, score and velocity of one network differ by the weights of the conversion only."""
    g = torch.Generator().manual_seed(seed)
    t, x0, x1 = inner_times(6, g), points(6, g), points(6, g)
    field = lambda t, x: x.sin() + t[:, None]
    noise = regression(field, linear, fields.noise, t, x0, x1)
    as_score = lambda t, x: -field(t, x) / (1 - t)[:, None]
    score = denoising_score_matching(as_score, linear, t, x0, x1)
    assert torch.allclose(score * (1 - t) ** 2, noise)
    as_velocity = lambda t, x: (x - field(t, x)) / t[:, None]
    velocity = flow_matching(as_velocity, linear, t, x0, x1)
    assert torch.allclose(velocity * t**2, noise)


def test_a_loss_belongs_to_its_sample(generator):
    t, x0, x1 = inner_times(7, generator), points(7, generator), points(7, generator)
    batch = flow_matching(PATH.velocity, trigonometric, t, x0, x1)
    assert batch.shape == (7,)
    for i in range(7):
        one = slice(i, i + 1)
        alone = flow_matching(PATH.velocity, trigonometric, t[one], x0[one], x1[one])
        expect(worst("eq:cfm-loss", batch[one] - alone))
    shared = flow_matching(PATH.velocity, trigonometric, t[0], x0, x1)
    expect(worst("eq:cfm-loss", shared[0] - batch[0]))


def test_targets_that_do_not_exist_are_refused(generator):
    x0, x1 = points(3, generator), points(3, generator)
    still, end = lambda t, x: 0 * x, torch.tensor([0.2, 1.0, 0.4], dtype=F64)
    with pytest.raises(ValueError, match="the score of this path is infinite.*away from that end"):
        denoising_score_matching(still, linear, end, x0, x1)
    with pytest.raises(ValueError, match="knows of no latent noise.*use flow_matching"):
        regression(still, bridge(), fields.velocity, end, x0, x1)
    with pytest.raises(ValueError, match="infinite rate where gamma is 0"):
        flow_matching(still, bridge(), end, x0, x1, x0)
    with pytest.raises(ValueError, match="pass z, standard normal"):
        flow_matching(still, bridge(), 0.5 * end, x0, x1)
    assert flow_matching(still, linear, end, x0, x1).shape == (3,)
