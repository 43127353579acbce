"""Objectives have the exact fields of the path as their minimisers, by regression or by parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import (
    BASE,
    COUPLING,
    F64,
    INTERPOLANTS,
    NOISING,
    TARGET,
    inner_times,
    points,
    scalar,
)
from onepath import fields
from onepath.calculus import gradient, jacobian, rademacher_probes
from onepath.interpolants import Interpolant, bridge, linear, trigonometric
from onepath.measures import gaussian
from onepath.networks import MLP
from onepath.objectives import (
    denoising_score_matching,
    explicit_score_matching,
    flow_matching,
    implicit_score_matching,
    reduced_sliced_score_matching,
    regression,
    sliced_score_matching,
    target_score_matching,
)
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
N = 8000


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
    smooth = Interpolant(linear.sigma, linear.alpha, gamma2=lambda t: (t * (1 - t)) ** 2)
    for path in (bridge(), smooth):  # the rate of gamma is infinite for one, and -1 for the other
        with pytest.raises(ValueError, match="needs gamma > 0, got gamma = 0 at 1 of 3 times"):
            flow_matching(still, path, end, x0, x1, x0)
        assert flow_matching(still, path, 0.9 * end, x0, x1, x0).isfinite().all()
    with pytest.raises(ValueError, match="pass z, standard normal"):
        flow_matching(still, bridge(), 0.5 * end, x0, x1)
    assert flow_matching(still, linear, end, x0, x1).shape == (3,)


# --- score matching: explicit, implicit, sliced, by the target's score


def states(generator, n=N):
    """Times, ends and states of PATH."""
    t, x0, x1 = draws(PATH, generator, n)
    return t, x0, x1, trigonometric(t, x0, x1)


def square(x):
    return (x * x).sum(1)


def bend(t, x):
    """A field with a divergence, a Jacobian without symmetry and no zero at hand."""
    return torch.stack([(x[:, 1] + t).sin() - 0.6 * x[:, 0], x[:, 0] * t + x[:, 1].cos()], dim=1)


def test_the_explicit_objective_is_the_squared_distance_to_the_score(generator):
    t, _, _, x = states(generator, 20)
    exact = gradient(PATH.log_density, t, x)
    value = explicit_score_matching(bend, PATH.score, t, x)
    expect(worst("eq:explicit-score-matching", value - square(bend(t, x) - exact)))
    refute(
        worst("eq:explicit-score-matching", 0.5 * value - square(bend(t, x) - exact)), "factor: ½"
    )
    expect(worst("eq:explicit-score-matching", explicit_score_matching(bend, bend, t, x)))


def test_the_implicit_loss_is_half_of_the_distance_up_to_a_constant(generator):
    """By a sum over the plane, where both sides are integrals, and by sampling."""
    t, line = scalar(0.6), torch.linspace(-7, 7, 281, dtype=F64)
    grid = torch.cartesian_prod(line, line)
    mass = PATH.log_density(t, grid).exp() * (line[1] - line[0]) ** 2
    exact = gradient(PATH.log_density, t, grid)
    left = mass @ (0.5 * square(bend(t, grid) - exact) - 0.5 * square(exact))
    gap = lambda loss: worst("eq:implicit-score-matching", mass @ loss - left)
    loss = implicit_score_matching(bend, t, grid)
    expect(gap(loss))
    refute(gap(loss + 0.5 * square(bend(t, grid))), "factor: the half of the square")
    times, _, _, x = states(generator)
    rest = 0.5 * square(bend(times, x) - PATH.score(times, x)) - 0.5 * square(PATH.score(times, x))
    value = implicit_score_matching(bend, times, x)
    expect(mean("eq:implicit-score-matching", value - rest, 0.0))
    refute(mean("eq:implicit-score-matching", -value - rest, 0.0), "sign")


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_the_implicit_loss_of_a_linear_field_is_known(n, d, seed):
    g = torch.Generator().manual_seed(seed)
    M, x = points(d, g, d), points(n, g, d)
    value = implicit_score_matching(lambda t, x: x @ M.mT, scalar(0.5), x)
    expect(worst("eq:implicit-score-matching", value - 0.5 * square(x @ M.mT) - M.trace()))


HERMITE = torch.cartesian_prod(*2 * [torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=F64)])
SHARES = torch.outer(*2 * [torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=F64)]).flatten()


@pytest.mark.parametrize("loss", [sliced_score_matching, reduced_sliced_score_matching])
def test_the_mean_of_a_sliced_loss_over_probes_is_the_implicit_loss(loss, generator):
    """Nine nodes average polynomials of degree five exactly, so the mean is an identity, and so
    is the variance."""
    t, _, _, x = states(generator, 7)
    values = torch.stack([loss(bend, t, x, z.expand(7, 2)) for z in HERMITE])
    expect(worst("eq:sliced-score-matching", SHARES @ values - implicit_score_matching(bend, t, x)))
    half = torch.stack([loss(bend, t, x, 0.5**0.5 * z.expand(7, 2)) for z in HERMITE])
    refute(
        worst("eq:sliced-score-matching", SHARES @ half - implicit_score_matching(bend, t, x)),
        "factor: probes with E zz' = I/2",
    )
    J, F = jacobian(bend, t, x), bend(t, x)
    S = 0.5 * (J + J.mT) + (loss is sliced_score_matching) * 0.5 * F[:, :, None] * F[:, None]
    spread = SHARES @ (values - SHARES @ values) ** 2
    expect(worst("eq:sliced-variance", spread - 2 * S.square().sum((1, 2))))
    refute(worst("eq:sliced-variance", spread - S.square().sum((1, 2))), "factor: 2")


def test_the_sliced_loss_has_the_minimiser_of_the_implicit_one(generator):
    t, _, _, x = states(generator)
    z = rademacher_probes(x, generator)
    rest = 0.5 * square(bend(t, x) - PATH.score(t, x)) - 0.5 * square(PATH.score(t, x))
    for loss in (sliced_score_matching, reduced_sliced_score_matching):
        expect(mean("eq:sliced-score-matching", loss(bend, t, x, z) - rest, 0.0))
        refute(mean("eq:sliced-score-matching", loss(bend, t, x, 2 * z) - rest, 0.0), "factor")


def test_denoising_exceeds_the_distance_by_a_variance(generator):
    t, x0, x1, x = states(generator)
    excess = denoising_score_matching(tilt, trigonometric, t, x0, x1)
    excess = excess - square(tilt(t, x) - PATH.score(t, x))
    s, sigma = PATH.score(t, x), trigonometric.sigma(t)
    weight = sigma**2  # of the times, so that late ones do not drown the others
    label = "eq:denoising-score-matching"
    expect(mean(label, weight * (excess - 2 / sigma**2 + square(s)), 0.0))
    refute(mean(label, weight * (excess - 2 / sigma**2), 0.0), "missing term: the score's norm")


def test_the_minimiser_of_target_score_matching_is_the_score(generator):
    t, x0, x1 = draws(PATH, generator)
    of_data = gradient(lambda t, x: TARGET.log_prob(x), t, x1)
    loss = lambda field, *a: target_score_matching(field, trigonometric, *a, of_data)
    mistakes = {
        "clock: t read as 1 - t": lambda t, x: PATH.score(1 - t, x),
        "sign: minus the score": lambda t, x: -PATH.score(t, x),
    }
    check_minimiser(loss, PATH.score, mistakes, t, x0, x1)
    value = target_score_matching(tilt, trigonometric, t, x0, x1, of_data)
    s = PATH.score(t, trigonometric(t, x0, x1))
    rest = square(of_data) / trigonometric.alpha(t) ** 2 - square(s)
    gap = value - square(tilt(t, trigonometric(t, x0, x1)) - s) - rest
    expect(mean("eq:target-score", gap * trigonometric.alpha(t) ** 2, 0.0))


def test_a_gaussian_target_has_a_combination_of_targets_without_noise(generator):
    """For N(m, c) data the state is all that the right combination depends on."""
    c, t, x0 = 0.7, scalar(0.4), points(9, generator)
    law = gaussian(torch.zeros(2, dtype=F64), c * torch.eye(2, dtype=F64))
    x1 = points(9, generator)
    path = MixturePath(trigonometric, law)
    alpha, sigma = trigonometric.alpha(t), trigonometric.sigma(t)
    kappa = sigma**2 / (sigma**2 + alpha**2 * c)
    target = -kappa * x0 / sigma - (1 - kappa) * x1 / (c * alpha)
    field = lambda t, x: path.score(t, x)
    assert torch.allclose(field(t, trigonometric(t, x0, x1)), target)
    still = lambda t, x: 0 * x
    by_target = target_score_matching(still, trigonometric, t, x0, x1, -x1 / c)
    assert torch.allclose(by_target, square(x1 / (c * alpha)))


@pytest.mark.parametrize("t", [scalar(0.4), torch.linspace(0.2, 0.8, 2, dtype=F64)])
def test_losses_of_the_score_belong_to_their_samples(t, generator):
    """Times of shape () and (n,), with n = d."""
    x0, x1, of_data = (points(2, generator) for _ in range(3))
    x, z = trigonometric(t, x0, x1), points(2, generator)
    for loss, arguments in (
        (lambda t, x: explicit_score_matching(bend, PATH.score, t, x), (x,)),
        (lambda t, x: implicit_score_matching(bend, t, x), (x,)),
        (lambda t, x, z: sliced_score_matching(bend, t, x, z), (x, z)),
        (lambda t, x, z: reduced_sliced_score_matching(bend, t, x, z), (x, z)),
        (lambda t, *a: target_score_matching(bend, trigonometric, t, *a), (x0, x1, of_data)),
    ):
        batch = loss(t, *arguments)
        for i in range(2):
            one = t if t.ndim == 0 else t[i : i + 1]
            alone = loss(one, *(a[i : i + 1] for a in arguments))
            expect(worst("eq:implicit-score-matching", batch[i : i + 1] - alone))


def test_a_network_learns_by_every_loss_of_the_score(generator):
    """Each loss can be differentiated in the weights, through its derivatives in the state."""
    field = MLP(2, 8, 1, 0, generator).double()
    torch.nn.init.normal_(field.leave.weight, generator=generator)
    x, z, t = points(6, generator), points(6, generator), scalar(0.5)
    weight = field.enter.weight
    for loss in (
        lambda: implicit_score_matching(field, t, x).mean(),
        lambda: sliced_score_matching(field, t, x, z).mean(),
        lambda: reduced_sliced_score_matching(field, t, x, z).mean(),
    ):
        (slope,) = torch.autograd.grad(loss(), weight)
        h = 1e-6
        with torch.no_grad():
            weight[0, 1] += h
            up = loss()
            weight[0, 1] -= 2 * h
            down = loss()
            weight[0, 1] += h
        assert abs(slope[0, 1] - (up - down) / (2 * h)) < 1e-6


def test_bad_draws_are_refused_before_they_reach_a_network(generator):
    t, x0, x1 = scalar(0.5), points(4, generator), points(4, generator)
    broken = x1.clone()
    broken[2, 1] = torch.nan
    missing = x1.clone()
    missing[0, 0] = missing[3, 1] = torch.inf
    losses = {
        "target": lambda x: denoising_score_matching(tilt, linear, t, x0[: len(x)], x),
        "base": lambda x: regression(tilt, linear, fields.noise, t, x, x1[: len(x)]),
        "latent": lambda x: flow_matching(tilt, bridge(), t, x0[: len(x)], x1[: len(x)], x),
        "states": lambda x: implicit_score_matching(tilt, t, x),
        "probes": lambda x: sliced_score_matching(tilt, t, x1[: len(x)], x),
        "scores": lambda x: target_score_matching(tilt, linear, t, x0[: len(x)], x1[: len(x)], x),
    }
    for name, loss in losses.items():
        with pytest.raises(ValueError, match=f"in 1 of 4 rows of {name}, the first is row 2"):
            loss(broken)
        with pytest.raises(ValueError, match=f"in 2 of 4 rows of {name}, the first is row 0"):
            loss(missing)
        with pytest.raises(ValueError, match="at least one sample, got no rows"):
            loss(x1[:0])
    for loss in (
        lambda x: explicit_score_matching(tilt, PATH.score, t, x),
        lambda x: reduced_sliced_score_matching(tilt, t, x, x0),
        lambda x: target_score_matching(tilt, linear, t, x0, x, x1),
        lambda x: target_score_matching(tilt, linear, t, x, x1, x1),
        lambda x: reduced_sliced_score_matching(tilt, t, x0, x),
    ):
        with pytest.raises(ValueError, match="nan or inf in 1 of 4 rows"):
            loss(broken)
    with pytest.raises(ValueError, match="divided by alpha.*draw later times"):
        target_score_matching(tilt, linear, scalar(0.0), x0, x1, x1)
    with pytest.raises(ValueError, match="no latent noise"):
        target_score_matching(tilt, bridge(), t, x0, x1, x1)


def test_a_field_that_forgets_a_dimension_is_refused(generator):
    """On the line (n,) less (n, 1) would be a matrix, whose rows have sums: no error, a wrong
    loss."""
    t, x0, x1 = inner_times(4, generator), points(4, generator, 1), points(4, generator, 1)
    flat = lambda t, x: x[:, 0]
    for loss in (
        lambda: denoising_score_matching(flat, linear, t, x0, x1),
        lambda: flow_matching(flat, linear, t, x0, x1),
        lambda: flow_matching(flat, bridge(), t, x0, x1, x0),
        lambda: explicit_score_matching(flat, lambda t, x: x, t, x0),
        lambda: target_score_matching(flat, linear, t, x0, x1, x0),
    ):
        with pytest.raises(ValueError, match=r"one shape, \(n, d\), got \(4,\) and \(4, 1\)"):
            loss()
