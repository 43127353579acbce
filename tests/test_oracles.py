"""Claims of chapter 4: the oracle is the law of its interpolant, its fields are posterior means."""

import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import (
    BASE,
    COUPLING,
    F64,
    INTERPOLANTS,
    NOISING,
    PATHS,
    TARGET,
    inner_times,
    points,
    random_mixture,
    same_rows,
    scalar,
    waves,
)
from onepath.calculus import gradient, jacobian, rate
from onepath.interpolants import (
    Interpolant,
    bridge,
    cosine,
    edm,
    linear,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from onepath.measures import Mixture, gaussian, standard_normal
from onepath.oracles import MixturePath
from onepath.verify import continuity, expect, mean, refute, worst

every = pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
FIELDS = [
    "log_density",
    "posterior",
    "score",
    "velocity",
    "denoiser",
    "base_denoiser",
    "latent_denoiser",
    "denoiser_cov",
]


@pytest.fixture(params=["one time", "a time each"])
def t(request, generator):
    return scalar(0.3) if request.param == "one time" else inner_times(64, generator)


def draws(path, t, n, generator):
    """The state and the slope of the interpolant through n coupled pairs, with those pairs."""
    x0, x1 = path.ends(n, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    move = lambda s: path.interpolant(s, x0, x1, z)
    return move(t), rate(move, t), x0, x1


# --- the law


@every
@pytest.mark.parametrize("at", [0.15, 0.6])
def test_samples_of_the_path_have_the_law_of_its_density(path, at, generator):
    """E cos(u·x) of the density by quadrature over the plane, and of the samples by their mean."""
    t, u = scalar(at), torch.tensor([0.4, -0.3], dtype=F64) / path.interpolant.sigma(scalar(at))
    x = path.sample(t, 20_000, generator)
    width = 8 * x.std().item()
    line = torch.linspace(-width, width, 400, dtype=F64) + x.mean()
    grid = torch.cartesian_prod(line, line)
    mass = path.log_density(t, grid).exp() * (line[1] - line[0]) ** 2
    expect(worst("eq:mixture-path", mass.sum() - 1))
    expect(mean("eq:mixture-path", (x @ u).cos(), (mass * (grid @ u).cos()).sum().item()))
    expect(mean("eq:mixture-path", (x @ u).sin(), (mass * (grid @ u).sin()).sum().item()))
    refute(
        max(
            (
                mean("eq:mixture-path", f(1.2 * x @ u), (mass * f(grid @ u)).sum().item())
                for f in (torch.cos, torch.sin)
            ),
            key=lambda check: check.error,
        ),
        "factor: the state stretched by a fifth",
    )


@pytest.mark.parametrize("name", INTERPOLANTS)
def test_density_is_a_product_of_characteristic_functions_turned_back(name):
    """In one dimension, with free ends: the Fourier integral of
    phi_0(sigma u) phi_1(alpha u) exp(-gamma² u² / 2)."""
    base, target, i = random_mixture(1, 1, 2), random_mixture(2, 1, 3), INTERPOLANTS[name]
    t, x = scalar(0.4), torch.tensor([[-1.0], [0.2], [1.7]], dtype=F64)
    sigma, alpha, gamma2 = (c(t) for c in (i.sigma, i.alpha, i.gamma2))
    path = MixturePath(i, target, base)
    u = torch.linspace(-40, 40, 16_001, dtype=F64) / (sigma + alpha)
    phi = waves(base, sigma * u[:, None]) * waves(target, alpha * u[:, None])
    phi = phi * torch.exp(-0.5 * gamma2 * u**2)
    kernel = (torch.exp(-1j * x * u) * phi).real / (2 * torch.pi)
    exact = torch.from_numpy(scipy.integrate.simpson(kernel.numpy(), x=u.numpy(), axis=1))
    expect(worst("eq:mixture-path", path.log_density(t, x).exp() - exact))
    refute(
        worst("eq:mixture-path", MixturePath(i, base, target).log_density(t, x).exp() - exact),
        "clock: base and target exchanged",
    )


def test_coupled_ends_are_drawn_together_and_in_their_own_law(generator):
    path, u = PATHS["linear, coupled ends"], torch.tensor([0.7, -0.4], dtype=F64)
    x0, x1 = path.ends(20_000, generator)
    for x, law in ((x0, BASE), (x1, TARGET)):
        expect(mean("eq:mixture-path", (x @ u).cos(), waves(law, u).real.item()))
        expect(mean("eq:mixture-path", (x @ u).sin(), waves(law, u).imag.item()))
    together = (COUPLING * torch.outer(BASE.means[:, 0], TARGET.means[:, 0])).sum().item()
    apart = (BASE.mean[0] * TARGET.mean[0]).item()
    expect(mean("eq:mixture-path", x0[:, 0] * x1[:, 0], together))
    refute(mean("eq:mixture-path", x0[:, 0] * x1[:, 0], apart), "hypothesis: independent ends")


def test_ends_have_the_covariances_of_their_components(generator):
    """Strongly tilted, because a transposed Cholesky factor has the right trace."""
    C = torch.tensor([[2.0, 1.2], [1.2, 0.8]], dtype=F64)
    base, target = (gaussian(torch.zeros(2, dtype=F64), c) for c in (C, C.flip(0, 1)))
    x0, x1 = MixturePath(linear, target, base).ends(20_000, generator)
    for x, cov in ((x0, C), (x1, C.flip(0, 1))):
        for i, j in [(0, 0), (0, 1), (1, 1)]:
            expect(mean("eq:mixture-path", x[:, i] * x[:, j], cov[i, j].item()))
    root = torch.linalg.cholesky(C)
    wrong = (root.T @ root)[0, 0].item()
    refute(mean("eq:mixture-path", x0[:, 0] ** 2, wrong), "wrong object: the transposed factor")


def test_components_may_be_paired_one_to_one(generator):
    """Half of the weights of the coupling are 0: pairs that never occur and never count."""
    base = random_mixture(11, 2, 2)
    base = Mixture(TARGET.weights, base.means, base.covs)
    path = MixturePath(linear, TARGET, base, TARGET.weights.diag())
    t, x = scalar(0.4), points(32, generator)
    expect(worst("eq:mixture-velocity", continuity(path.log_density, path.velocity, t, x), 1e-8))
    assert (path.posterior(t, x)[:, [1, 2]] == 0).all()
    free = MixturePath(linear, TARGET, base)
    wrong = continuity(path.log_density, free.velocity, t, x)
    refute(worst("eq:mixture-velocity", wrong, 1e-8), "hypothesis: independent ends")


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_many_components_are_no_rounding_error(dtype):
    base, target = (random_mixture(seed, 1, 60, dtype) for seed in (1, 2))
    path = MixturePath(linear, target, base)
    assert path.weights.shape == (60, 60)
    assert not torch.equal(path.weights.sum(1), base.weights)


@every
def test_the_law_at_both_ends_is_that_of_the_ends(path, generator):
    x, i = points(16, generator), path.interpolant
    if i.alpha(scalar(0.0)) == 0:
        assert (path.log_density(scalar(0.0), x) - path.base.log_prob(x)).abs().max() < 1e-9
    if i.sigma(scalar(1.0)) == 0:
        assert (path.log_density(scalar(1.0), x) - path.target.log_prob(x)).abs().max() < 1e-9


@pytest.mark.parametrize("low, high", [(0.01, 50.0), (0.1, 3.0)])
def test_a_sampler_starts_from_the_noise_of_time_zero(low, high, generator):
    path = MixturePath(variance_exploding(low, high), TARGET)
    x = path.reference(20_000, generator)
    expect(mean("eq:reference", x[:, 0] ** 2, high**2))
    expect(mean("eq:reference", x[:, 1], 0.0))
    refute(mean("eq:reference", x[:, 0] ** 2, high), "factor: the variance is the square")


# --- the fields


@every
def test_score_is_the_gradient_of_the_log_density(path, t, generator):
    x = points(64, generator)
    exact = gradient(path.log_density, t, x)
    expect(worst("eq:score", path.score(t, x) - exact))
    refute(worst("eq:score", -path.score(t, x) - exact), "sign: towards the tails")


@every
def test_velocity_carries_the_law(path, t, generator):
    x = points(64, generator)
    residual = lambda v: worst("eq:mixture-velocity", continuity(path.log_density, v, t, x), 1e-8)
    expect(residual(path.velocity))
    if t.ndim:
        return
    refute(residual(lambda t, x: 0.99 * path.velocity(t, x)), "factor: one per cent")
    refute(residual(lambda t, x: path.velocity(1 - t, x)), "clock: read backwards")
    shifted = MixturePath(
        Interpolant(
            path.interpolant.sigma, path.interpolant.alpha, lambda s: path.interpolant.gamma2(s) + s
        ),
        path.target,
        path.base,
        path.weights,
    )
    refute(residual(shifted.velocity), "missing term: half the rate of gamma² times the score")


@every
def test_velocity_is_the_mean_slope_given_the_state(path, generator):
    """E[(slope - v) f(state)] = 0 for every f; the continuity equation cannot see a rotation."""
    t = scalar(0.4)
    x, slope, _, _ = draws(path, t, 20_000, generator)
    scale = x.std(0)
    tests = [torch.ones_like(x), x / scale, (x / scale).flip(1), (2 * x / scale).sin()]
    gap = slope - path.velocity(t, x)
    for f in tests:
        expect(mean("eq:mixture-velocity", (gap * f).sum(1), 0.0))
    spin = (
        slope
        - path.velocity(t, x)
        - 0.3 * slope.std() * (x / scale) @ torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    )
    swirl = x / scale @ torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    refute(
        mean("eq:mixture-velocity", (spin * swirl).sum(1), 0.0),
        "wrong object: a rotation added, which moves mass in circles",
    )


@every
def test_denoiser_is_the_mean_of_the_target_given_the_state(path, generator):
    t = scalar(0.4)
    x, _, _, x1 = draws(path, t, 20_000, generator)
    scale = x.std(0)
    tests = [torch.ones_like(x), x / scale, (x / scale).flip(1), (2 * x / scale).sin()]
    for f in tests:
        expect(mean("eq:oracle-denoiser", ((x1 - path.denoiser(t, x)) * f).sum(1), 0.0))
    wrong = x1 - 0.8 * path.denoiser(t, x)
    refute(mean("eq:oracle-denoiser", (wrong * x1).sum(1), 0.0), "factor: 0.8")


@every
def test_base_and_latent_denoisers_are_means_given_the_state(path, generator):
    t = scalar(0.4)
    x0, x1 = path.ends(20_000, generator)
    z = torch.randn(x0.shape, generator=generator, dtype=F64)
    x = path.interpolant(t, x0, x1, z)
    scale = x.std(0)
    tests = [torch.ones_like(x), x / scale, (x / scale).flip(1), (2 * x / scale).sin()]
    for f in tests:
        expect(mean("eq:interpolant-fields", ((x0 - path.base_denoiser(t, x)) * f).sum(1), 0.0))
        expect(mean("eq:latent-score", ((z - path.latent_denoiser(t, x)) * f).sum(1), 0.0))
    wrong = x0 - 0.8 * path.base_denoiser(t, x)
    refute(mean("eq:interpolant-fields", (wrong * x0).sum(1), 0.0), "factor: 0.8")


@every
def test_three_posterior_means_add_up_to_the_state(path, t, generator):
    """x = sigma E[x_0|x] + alpha E[x_1|x] + gamma E[z|x], and E[z|x] = -gamma s, by autodiff."""
    x, i = points(64, generator), path.interpolant
    column = lambda a: a[:, None] if a.ndim else a
    gamma = column(i.gamma2(t).sqrt())
    latent = path.latent_denoiser(t, x)
    ends = column(i.sigma(t)) * path.base_denoiser(t, x) + column(i.alpha(t)) * path.denoiser(t, x)
    expect(worst("eq:interpolant-fields", ends + gamma * latent - x))
    expect(worst("eq:latent-score", latent + gamma * gradient(path.log_density, t, x)))


@every
def test_denoiser_covariance_is_that_of_the_target_given_the_state(path, generator):
    t = scalar(0.6)
    x, _, _, x1 = draws(path, t, 20_000, generator)
    centred, cov = x1 - path.denoiser(t, x), path.denoiser_cov(t, x)
    for i, j in [(0, 0), (0, 1), (1, 1)]:
        gap = centred[:, i] * centred[:, j] - cov[:, i, j]
        for f in (torch.ones_like(gap), x[:, 0] / x[:, 0].std(), (x[:, 1] / x[:, 1].std()).cos()):
            expect(mean("eq:oracle-cov", gap * f, 0.0))
    wrong = centred[:, 0] ** 2 - 0.5 * cov[:, 0, 0]
    refute(mean("eq:oracle-cov", wrong, 0.0), "factor: half")


@pytest.mark.parametrize("name", NOISING)
def test_denoiser_obeys_tweedie_and_its_covariance_is_a_jacobian(name, t, generator):
    """The Gaussian base only: first and second derivatives of the log-density, by autodiff."""
    path, x = MixturePath(NOISING[name], TARGET), points(64, generator)
    column = lambda a: a[:, None] if a.ndim else a
    alpha, var = path.interpolant.alpha(t), path.interpolant.variance(t)
    slope = gradient(path.log_density, t, x)
    exact = (x + column(var) * slope) / column(alpha)
    expect(worst("eq:tweedie", path.denoiser(t, x) - exact, 1e-8))
    refute(
        worst("eq:tweedie", path.denoiser(t, x) - (x + column(var.sqrt()) * slope) / column(alpha)),
        "factor: sigma in place of its square",
    )
    second = (var / alpha)[..., None, None] * jacobian(path.denoiser, t, x)
    expect(worst("eq:oracle-cov", path.denoiser_cov(t, x) - second, 1e-8))
    refute(worst("eq:oracle-cov", path.denoiser_cov(t, x) - 2 * second, 1e-8), "factor: 2")


@pytest.mark.parametrize(
    "base", [BASE, standard_normal(2, TARGET.means)], ids=["mixture", "normal"]
)
@pytest.mark.parametrize("x", [(-1.0, 0.5), (0.4, -0.2)])
def test_posterior_moments_are_integrals_of_bayes_rule(base, x):
    """Any base: p(x1 | x) is proportional to p1(x1) p0((x - alpha x1) / sigma)."""
    path, t, x = MixturePath(linear, TARGET, base), scalar(0.4), torch.tensor([x], dtype=F64)
    line = torch.linspace(-8, 8, 321, dtype=F64)
    y = torch.cartesian_prod(line, line)
    w = (TARGET.log_prob(y) + base.log_prob((x - 0.4 * y) / 0.6)).softmax(0)
    m = w @ y
    expect(worst("eq:oracle-denoiser", path.denoiser(t, x) - m))
    refute(worst("eq:oracle-denoiser", path.denoiser(1 - t, x) - m), "clock: the denoiser of 1 - t")
    C = (w[:, None] * (y - m)).T @ (y - m)
    expect(worst("eq:oracle-cov", path.denoiser_cov(t, x) - C))
    second = C + torch.outer(m, m)
    refute(worst("eq:oracle-cov", path.denoiser_cov(t, x) - second), "missing term: the mean")


@every
def test_posterior_of_the_component_is_a_probability_with_the_right_mean(path, generator):
    t = scalar(0.5)
    p = path.posterior(t, path.sample(t, 20_000, generator))
    assert p.shape == (20_000, path.weights.numel())
    expect(worst("eq:posterior", p.sum(1) - 1))
    for k, w in enumerate(path.weights.flatten()):
        expect(mean("eq:posterior", p[:, k], w.item()))
    if len(path.base.weights) > 1:
        order = path.weights.T.flatten()  # pairs counted target first
        refute(
            max(
                (mean("eq:posterior", p[:, k], w.item()) for k, w in enumerate(order)),
                key=lambda check: check.error,
            ),
            "wrong object: pairs in the other order",
        )


# --- both ends


@every
def test_fields_at_the_ends_are_their_limits(path, generator):
    x, inside = points(16, generator), 1e-7
    for end, near in ((0.0, inside), (1.0, 1 - inside)):
        for name in FIELDS:
            at, close = (getattr(path, name)(scalar(s), x) for s in (end, near))
            assert at.isfinite().all(), f"{name} at {end}"
            # what multiplies a standard normal may leave its limit like the root of the distance
            near_by = 0.1 if name in ("base_denoiser", "latent_denoiser") else 1e-3
            assert (at - close).abs().max() < near_by * (1 + at.abs().max()), f"{name} at {end}"


def test_at_the_end_nothing_is_left_to_guess(generator):
    path, x = MixturePath(linear, TARGET), points(16, generator)
    one, nil = scalar(1.0), scalar(0.0)
    assert (path.denoiser(one, x) - x).abs().max() < 1e-9
    assert path.denoiser_cov(one, x).abs().max() < 1e-9
    assert (path.denoiser(nil, x) - TARGET.mean).abs().max() < 1e-9
    assert (path.denoiser_cov(nil, x) - TARGET.cov).abs().max() < 1e-9


@pytest.mark.parametrize("name", NOISING)
@pytest.mark.parametrize("h", [1e-3, 1e-6, 1e-9])
def test_the_posterior_covariance_keeps_its_digits_near_the_data(name, h):
    """One component: 1 / (1/C + alpha²/sigma²), the precision form, which does not cancel."""
    path, t = MixturePath(NOISING[name], gaussian(*SLANTED)), scalar(1 - h)
    i = path.interpolant
    signal = i.alpha(t) ** 2 / i.variance(t)
    exact = torch.linalg.inv(torch.linalg.inv(SLANTED[1]) + signal * torch.eye(2, dtype=F64))
    ours = path.denoiser_cov(t, torch.tensor([[0.3, -0.2]], dtype=F64))[0]
    check = lambda C: worst("eq:oracle-cov", (C - exact) / exact.diag().min(), 1e-6)
    expect(check(ours))
    assert torch.equal(ours, ours.T)
    refute(check(exact * 1.01), "factor: one per cent")


SLANTED = (torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=F64))


def test_both_terms_of_the_posterior_covariance_are_needed(generator):
    """A base and a latent that are not standard, against importance weights over exact draws."""
    path, t = PATHS["bridge, mixture base"], scalar(0.55)
    x = torch.tensor([[0.2, 0.1]], dtype=F64)
    x0, x1 = path.ends(200_000, generator)
    rest = (x - path.interpolant.sigma(t) * x0 - path.interpolant.alpha(t) * x1).square().sum(1)
    w = (-0.5 * rest / path.interpolant.gamma2(t)).exp()
    m, C = path.denoiser(t, x)[0], path.denoiser_cov(t, x)[0]
    centred = x1 - m
    for k in (0, 1):
        expect(mean("eq:oracle-denoiser", w * centred[:, k], 0.0))
    wrong = path.means(t)[0].new_tensor([0.5, 0.5])
    refute(mean("eq:oracle-denoiser", w * (centred[:, 0] - wrong[0]), 0.0), "wrong object: moved")
    for i, j in ((0, 0), (0, 1), (1, 1)):
        expect(mean("eq:oracle-cov", w * (centred[:, i] * centred[:, j] - C[i, j]), 0.0))
    refute(
        mean("eq:oracle-cov", w * (centred[:, 0] ** 2 - 0.8 * C[0, 0]), 0.0),
        "missing term: a part of the covariance",
    )


@pytest.mark.parametrize("schedule", [variance_preserving(), cosine()])
def test_a_velocity_that_is_infinite_is_refused(schedule, generator):
    """Square-root schedules carry the means of a base with infinite speed at the data."""
    moved = MixturePath(schedule, TARGET, BASE)
    with pytest.raises(ValueError, match="no velocity at the end of a square-root schedule"):
        moved.velocity(scalar(1.0), points(3, generator))
    x = points(16, generator)
    assert moved.velocity(scalar(1 - 1e-9), x).isfinite().all()
    centred = MixturePath(schedule, TARGET)
    near = centred.velocity(scalar(1 - 1e-8), x)
    assert (centred.velocity(scalar(1.0), x) - near).abs().max() < 1e-4 * (1 + near.abs().max())


@pytest.mark.parametrize("schedule", [sub_variance_preserving(), cosine(), edm(0.01, 8.0)])
def test_fields_on_the_other_schedules_obey_their_equations(schedule, t, generator):
    path, x = MixturePath(schedule, TARGET), points(64, generator)
    scale = 1 + path.velocity(t, x).abs().max()
    residual = continuity(path.log_density, path.velocity, t, x) / scale
    expect(worst("eq:mixture-velocity", residual))
    expect(worst("eq:score", path.score(t, x) - gradient(path.log_density, t, x), 1e-8))
    for name in FIELDS:
        for end in (0.0, 1.0):
            assert getattr(path, name)(scalar(end), x).isfinite().all()


# --- batches, precision, memory


@pytest.mark.parametrize("n, k, d", [(2, 2, 2), (3, 3, 3), (1, 3, 2), (5, 2, 3), (2, 3, 1)])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("base", [None, 2])
def test_a_batch_is_a_loop(n, k, d, each, base, generator):
    ends = {"base": random_mixture(9, d, base)} if base else {}
    path = MixturePath(bridge(0.7), random_mixture(n + k + d, d, k), **ends)
    x = points(n, generator, d)
    t = inner_times(n, generator) if each else scalar(0.4)
    for name in FIELDS:
        assert same_rows(getattr(path, name), t, x) < 1e-10, name


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 4),
    d=st.integers(1, 4),
    k=st.integers(1, 3),
    name=st.sampled_from(sorted(INTERPOLANTS)),
    dtype=st.sampled_from([torch.float32, F64]),
    each=st.booleans(),
)
def test_fields_follow_shape_and_dtype_and_agree_across_precisions(
    seed, n, d, k, name, dtype, each
):
    law, g = random_mixture(seed, d, k), torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=F64)
    t = inner_times(n, g) if each else scalar(0.4)
    exact = MixturePath(INTERPOLANTS[name], law)
    path = MixturePath(INTERPOLANTS[name], random_mixture(seed, d, k, dtype))
    shapes = [(n,), (n, k), *[(n, d)] * 5, (n, d, d)]
    for field, shape in zip(FIELDS, shapes):
        ours = getattr(path, field)(t.to(dtype), x.to(dtype))
        assert ours.shape == shape and ours.dtype == dtype and ours.isfinite().all()
        theirs = getattr(exact, field)(t, x)
        scale = 1 + (theirs.abs().max() if n else 0)
        assert torch.allclose(ours.double() / scale, theirs / scale, atol=2e-3)
    assert path.has_gaussian_base


def test_a_time_on_the_cpu_serves_points_of_any_device_and_dtype(device):
    law = Mixture(
        *(a.to(device, torch.float32) for a in (TARGET.weights, TARGET.means, TARGET.covs))
    )
    path, t = MixturePath(bridge(0.7), law), scalar(0.4)
    x = path.sample(t, 8, torch.Generator(device).manual_seed(0))
    assert x.dtype == torch.float32 and x.device.type == device.type
    for name in FIELDS:
        assert getattr(path, name)(t, x).dtype == torch.float32


def test_points_may_lie_in_memory_as_they_like(generator):
    path, t, x = PATHS["bridge, mixture base"], scalar(0.3), points(2, generator, d=5).T
    for name in FIELDS:
        assert torch.equal(getattr(path, name)(t, x), getattr(path, name)(t, x.contiguous()))


def test_a_path_knows_whether_its_base_is_the_standard_normal():
    assert MixturePath(linear, TARGET).has_gaussian_base
    for base in (BASE, moved_normal(0.1, 1.0), moved_normal(0.0, 1.1)):
        assert not MixturePath(linear, TARGET, base).has_gaussian_base


def moved_normal(mean: float, var: float) -> Mixture:
    law = standard_normal(2, TARGET.means)
    return Mixture(law.weights, law.means + mean, var * law.covs)


# --- bad input


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"base": random_mixture(0, 3, 2)}, "share dimension, dtype and device, got 3, .* and 2"),
        ({"base": random_mixture(0, 2, 2, torch.float32)}, "share dimension, dtype and device"),
        ({"weights": COUPLING}, "one nonnegative weight per pair"),
        ({"base": BASE, "weights": COUPLING.flip(0)}, "margins of a coupling .* base: got"),
        ({"base": BASE, "weights": COUPLING + 1e-9}, "margins of a coupling"),
        (
            {
                "base": BASE,
                "weights": COUPLING - torch.tensor([[0.0, 0.0], [0.1, -0.1], [-0.1, 0.1]]).to(F64),
            },
            "one nonnegative weight per pair",
        ),
        ({"base": BASE, "weights": COUPLING.float()}, "a coupling shares dtype .*float32"),
    ],
)
def test_ends_and_couplings_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        MixturePath(linear, TARGET, **parts)


def test_a_coupling_with_the_wrong_target_margin_is_named():
    with pytest.raises(ValueError, match="target: got"):
        MixturePath(linear, TARGET, BASE, COUPLING.flip(1))


@pytest.mark.parametrize("name", FIELDS)
def test_points_and_times_that_do_not_fit_are_refused(name, generator):
    field, t = getattr(PATHS["linear"], name), scalar(0.5)
    for x in (points(4, generator, d=1), points(4, generator, d=3), points(4, generator).float()):
        with pytest.raises(ValueError, match=r"points are \(n, 2\), torch.float64"):
            field(t, x)
    for times in (inner_times(3, generator), inner_times(1, generator), t.expand(4, 1)):
        with pytest.raises((ValueError, TypeError), match=r"a time has shape|'t'"):
            field(times, points(4, generator))


def test_a_generator_on_another_device_is_refused():
    """Stands in for a CPU generator and a CUDA path, which need a GPU: the device is only named."""
    path = MixturePath(linear, TARGET)
    object.__setattr__(path, "weights", path.weights.to("meta"))
    with pytest.raises(ValueError, match="a generator lives on the device"):
        path.ends(3, torch.Generator())
