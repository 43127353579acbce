"""Claims of chapter 11: what the losses with latent noise are minimised by, and what is made of
it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import BASE, COUPLING, F64, INTERPOLANTS, TARGET, inner_times, points, scalar
from onepath.calculus import gradient
from onepath.interpolants import Interpolant, bridge, linear
from onepath.latent import (
    antithetic_flow_matching,
    latent_dynamics,
    latent_matching,
    latent_score,
    slope_matching,
)
from onepath.objectives import flow_matching
from onepath.oracles import MixturePath
from onepath.shapes import per_point
from onepath.verify import expect, fokker_planck, mean, refute, worst

OWN = INTERPOLANTS["own latent noise"]
PATHS = {
    "bridge, free ends": MixturePath(bridge(0.7), TARGET, BASE),
    "bridge, coupled ends": MixturePath(bridge(0.7), TARGET, BASE, COUPLING),
    "other curves": MixturePath(OWN, TARGET, BASE, COUPLING),
}
every = pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
LOSSES = [slope_matching, latent_matching, antithetic_flow_matching]


def draws(path, n, generator):
    x0, x1 = path.ends(n, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=F64)
    return inner_times(n, generator), x0, x1, z


def tilt(t, x):
    """A direction without symmetry, in which no loss may fall."""
    return torch.stack([x[:, 1].sin() + t, 0.5 * x[:, 0] * t - 0.3], dim=1)


def fall(loss, field, direction, path, arguments):
    """The derivative of a loss at `field` for each sample; exact, as the loss is a square."""
    moved = lambda h: lambda t, x: field(t, x) + h * direction(t, x)
    ahead = loss(moved(0.5), path.interpolant, *arguments)
    return ahead - loss(moved(-0.5), path.interpolant, *arguments)


def mean_slope(path):
    """E[d/dt I | x] from the posterior means of the ends, at the rates of difference quotients."""
    i, h = path.interpolant, 1e-6

    def field(t, x):
        d_sigma, d_alpha = ((c(t + h) - c(t - h)) / (2 * h) for c in (i.sigma, i.alpha))
        return per_point(d_sigma) * path.base_denoiser(t, x) + per_point(d_alpha) * path.denoiser(
            t, x
        )

    return field


@every
def test_each_loss_is_least_at_its_posterior_mean(path, generator):
    fields = {
        "slope": (slope_matching, mean_slope(path)),
        "latent": (latent_matching, path.latent_denoiser),
        "velocity": (antithetic_flow_matching, path.velocity),
    }
    arguments = draws(path, 8000, generator)
    for loss, field in fields.values():
        expect(mean("eq:interpolant-losses", fall(loss, field, tilt, path, arguments), 0.0))
    for name, (loss, field) in fields.items():
        for other, (_, wrong) in fields.items():
            if other != name:
                back = lambda t, x, wrong=wrong, field=field: wrong(t, x) - field(t, x)
                gain = fall(loss, wrong, back, path, arguments)
                refute(mean("eq:interpolant-losses", gain, 0.0), f"wrong object: the {other}")


def test_where_the_latent_noise_neither_grows_nor_falls_it_adds_nothing(generator):
    """gamma² = 0.49 t (1 - t) has its top at 1/2."""
    path = PATHS["bridge, free ends"]
    _, x0, x1, z = draws(path, 50, generator)
    t, i = torch.full((50,), 0.5, dtype=F64), path.interpolant
    of_slope = lambda sign: (tilt(t, i(t, x0, x1, sign * z)) - (x1 - x0)).square().sum(1)
    got = antithetic_flow_matching(tilt, i, t, x0, x1, z)
    expect(worst("eq:antithetic", got - 0.5 * (of_slope(1) + of_slope(-1))))
    refute(worst("eq:antithetic", got - of_slope(1)), "missing term: the state with -z")


@every
def test_the_antithetic_loss_is_flow_matching_less_the_square_of_the_rate(path, generator):
    t, x0, x1, z = draws(path, 20_000, generator)
    i = path.interpolant
    plain = lambda sign: flow_matching(tilt, i, t, x0, x1, sign * z)
    h = 1e-6
    gamma_rate = (i.gamma2(t + h).sqrt() - i.gamma2(t - h).sqrt()) / (2 * h)
    both = 0.5 * (plain(1) + plain(-1)) - gamma_rate**2 * z.square().sum(1)
    found = antithetic_flow_matching(tilt, i, t, x0, x1, z)
    assert torch.allclose(found, both, rtol=1e-6, atol=1e-6)


def test_the_antithetic_loss_stays_finite_where_the_rate_of_the_noise_does_not(generator):
    path = PATHS["bridge, free ends"]
    spread = {}
    for h in (1e-2, 1e-4, 1e-6):
        x0, x1 = path.ends(4000, generator)
        z = torch.randn(x0.shape, generator=generator, dtype=F64)
        at = (tilt, path.interpolant, scalar(h), x0, x1, z)
        spread[h] = [loss(*at).std().item() for loss in (antithetic_flow_matching, flow_matching)]
    assert spread[1e-6][0] < 1.5 * spread[1e-2][0]
    assert spread[1e-6][1] > 1000 * spread[1e-2][1]


@given(seed=st.integers(0, 1000), n=st.integers(1, 4), each=st.booleans())
def test_targets_are_the_slope_and_the_latent(seed, n, each):
    """Against difference quotients, for n = d = 2 and others, and both kinds of time."""
    g = torch.Generator().manual_seed(seed)
    t = inner_times(n, g) if each else scalar(0.3)
    x0, x1, z = (points(n, g) for _ in range(3))
    still, h = torch.zeros_like(z), 1e-5
    slope = (OWN(t + h, x0, x1, still) - OWN(t - h, x0, x1, still)) / (2 * h)
    x = OWN(t, x0, x1, z)
    field = lambda t, x: x.cos()
    found = slope_matching(field, OWN, t, x0, x1, z)
    assert torch.allclose(found, (x.cos() - slope).square().sum(1), rtol=1e-6)
    found = latent_matching(field, OWN, t, x0, x1, z)
    assert torch.allclose(found, (x.cos() - z).square().sum(1))


@every
@pytest.mark.parametrize("each", [False, True])
def test_the_latent_tells_the_score_for_any_ends(path, each, generator):
    t = inner_times(64, generator) if each else scalar(0.3)
    x = points(64, generator)
    found = latent_score(path.latent_denoiser, path.interpolant)(t, x)
    exact = gradient(path.log_density, t, x)
    expect(worst("eq:latent-score", found - exact))
    refute(worst("eq:latent-score", -found - exact), "sign: of the latent")
    assert found.shape == x.shape


@every
@pytest.mark.parametrize("each", [False, True])
def test_the_mean_latent_pays_for_noise(path, each, generator):
    t = inner_times(64, generator) if each else scalar(0.3)
    x = points(64, generator)
    for c in (0.5, 3.0):
        found = latent_dynamics(path.velocity, path.latent_denoiser, path.interpolant, c)
        residual = fokker_planck(path.log_density, found.drift, found.eta, t, x)
        expect(worst("eq:latent-dynamics", residual))
        assert torch.allclose(found.eta(t) ** 2, 2 * c * path.interpolant.gamma2(t).sqrt())
        louder = lambda t: 2**0.5 * found.eta(t)
        residual = fokker_planck(path.log_density, found.drift, louder, t, x)
        refute(worst("eq:latent-dynamics", residual), "factor: twice the variance")


def test_without_noise_the_dynamics_is_the_flow_and_asks_no_latent():
    flow = latent_dynamics(lambda t, x: -x, lambda t, x: 1 / 0, OWN, 0.0)
    x = torch.ones(2, 2, dtype=F64)
    assert torch.equal(flow.drift(scalar(0.5), x), -x) and (flow.eta(scalar(0.5)) == 0).all()


def test_the_noisy_drift_is_finite_at_both_ends(generator):
    path, x = PATHS["bridge, free ends"], points(8, generator)
    found = latent_dynamics(path.velocity, path.latent_denoiser, path.interpolant, 2.0)
    for end in (0.0, 1.0):
        drift = found.drift(scalar(end), x)
        assert torch.allclose(drift, path.velocity(scalar(end), x)) and drift.isfinite().all()
        assert found.eta(scalar(end)) == 0


def test_what_does_not_exist_is_refused(generator):
    x = points(3, generator)
    field = lambda t, x: x
    for loss in LOSSES:
        with pytest.raises(ValueError, match="latent noise, got gamma2 = zero"):
            loss(field, linear, scalar(0.5), x, x, x)
    for make in (latent_score, lambda f, p: latent_dynamics(f, f, p, 1.0)):
        with pytest.raises(ValueError, match="latent noise, got gamma2 = zero"):
            make(field, linear)
    with pytest.raises(ValueError, match="infinite rate where gamma is 0"):
        antithetic_flow_matching(field, bridge(), scalar(0.0), x, x, x)
    for end in (scalar(0.0), scalar(1.0), torch.tensor([0.5, 0.0, 0.5], dtype=F64)):
        with pytest.raises(ValueError, match="divides by gamma, got gamma = 0"):
            latent_score(field, bridge())(end, x)
    for c in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="speed c is nonnegative and finite"):
            latent_dynamics(field, field, bridge(), c)


def test_a_loss_belongs_to_its_sample(generator):
    path = PATHS["other curves"]
    t, x0, x1, z = draws(path, 5, generator)
    for loss in LOSSES:
        batch = loss(tilt, path.interpolant, t, x0, x1, z)
        rows = [
            loss(tilt, path.interpolant, *(a[k : k + 1] for a in (t, x0, x1, z))) for k in range(5)
        ]
        assert batch.shape == (5,) and torch.allclose(batch, torch.cat(rows))


def test_a_smooth_latent_has_a_finite_rate_at_the_ends(generator):
    quiet = Interpolant(linear.sigma, linear.alpha, gamma2=lambda t: (t * (1 - t)) ** 2)
    x0, x1, z = (points(6, generator) for _ in range(3))
    at = lambda t: antithetic_flow_matching(tilt, quiet, scalar(t), x0, x1, z)
    for end, near in ((0.0, 1e-9), (1.0, 1 - 1e-9)):
        assert torch.allclose(at(end), at(near), rtol=1e-6)
    exact = (tilt(scalar(0.0), x0) - (x1 - x0)).square().sum(1)  # the pair z, -z has met
    assert torch.allclose(at(0.0), exact)


def test_bad_draws_and_a_negative_variance_are_refused(generator):
    x = points(3, generator)
    t, broken = scalar(0.5), x.clone()
    broken[1, 0] = float("nan")
    negative = Interpolant(linear.sigma, linear.alpha, gamma2=lambda t: -t)
    for loss in LOSSES:
        for at, name in enumerate(("base", "target", "latent")):
            draws = [broken if k == at else x for k in range(3)]
            with pytest.raises(ValueError, match=f"in 1 of 3 rows of {name}, the first is row 1"):
                loss(tilt, bridge(), t, *draws)
        with pytest.raises(ValueError, match="at least one sample"):
            loss(tilt, bridge(), t, x[:0], x[:0], x[:0])
        with pytest.raises(ValueError, match="variance, nonnegative, got -0.5"):
            loss(tilt, negative, torch.tensor([0.1, 0.5, 0.2], dtype=F64), x, x, x)
        with pytest.raises(ValueError, match="times in .0, 1. only"):
            loss(tilt, bridge(), scalar(1.5), x, x, x)
    field = lambda t, x: x
    with pytest.raises(ValueError, match="variance, nonnegative, got -0.5"):
        latent_score(field, negative)(t, x)
    with pytest.raises(ValueError, match="variance, nonnegative, got -0.5"):
        latent_dynamics(field, field, negative, 1.0).eta(t)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("d", [1, 3])
def test_losses_and_fields_keep_the_dtype(dtype, d, generator):
    x0, x1, z = (points(3, generator, d).to(dtype) for _ in range(3))
    field = lambda t, x: x.cos()
    for t in (scalar(0.3).to(dtype), inner_times(3, generator).to(dtype)):  # also n = d = 3
        for loss in LOSSES:
            found = loss(field, OWN, t, x0, x1, z)
            exact = loss(field, OWN, t.to(F64), x0.to(F64), x1.to(F64), z.to(F64))
            assert found.dtype == dtype and torch.allclose(found.to(F64), exact, rtol=1e-4)
        sampler = latent_dynamics(field, field, OWN, 0.5)
        assert latent_score(field, OWN)(t, x0).dtype == dtype
        assert sampler.drift(t, x0).dtype == dtype and sampler.eta(t).dtype == dtype
