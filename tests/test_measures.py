"""Claims of chapter 2: the mixture as a measure, against other libraries and quadrature."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from laws import BASE, F64, TARGET, points, random_mixture, waves
from onepath.calculus import gradient
from onepath.measures import (
    Empirical,
    Measure,
    Mixture,
    Pushforward,
    check_generator,
    gaussian,
    log_normals,
    normals,
    offsets,
    standard_normal,
)
from onepath.verify import expect, mean, refute, worst

mixtures = st.builds(
    random_mixture,
    seed=st.integers(0, 10_000),
    d=st.integers(1, 4),
    k=st.integers(1, 4),
    dtype=st.sampled_from([F64, torch.float32]),
)


def theirs(law: Mixture) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(law.weights), MultivariateNormal(law.means, law.covs))


@given(mixtures, st.integers(1, 7))
def test_log_density_is_that_of_torch_distributions(law, n):
    g = torch.Generator().manual_seed(n)
    x = 3 * torch.randn(n, law.dim, generator=g, dtype=law.means.dtype)
    ours = law.log_prob(x)
    assert ours.shape == (n,) and ours.dtype == x.dtype
    tolerance = 1e-9 if x.dtype == F64 else 2e-4
    assert torch.allclose(ours, theirs(law).log_prob(x), rtol=tolerance, atol=tolerance)


def test_log_density_agrees_with_scipy_and_catches_mistakes(generator):
    x, (m, C) = points(50, generator), (TARGET.means[0], TARGET.covs[0])
    exact = torch.from_numpy(scipy.stats.multivariate_normal(m, C).logpdf(x))
    expect(worst("eq:gaussian", gaussian(m, C).log_prob(x) - exact))
    refute(worst("eq:gaussian", gaussian(m, C / 2).log_prob(x) - exact), "factor: half of C")
    refute(worst("eq:gaussian", gaussian(-m, C).log_prob(x) - exact), "sign: the mean reflected")
    root = torch.linalg.cholesky(C)
    refute(
        worst("eq:gaussian", gaussian(m, root.T @ root).log_prob(x) - exact),
        "wrong object: the transposed Cholesky factor",
    )


@pytest.mark.parametrize("seed", range(3))
def test_density_has_mass_one(seed):
    law = random_mixture(seed, d=1, k=3)
    x = torch.linspace(-30, 30, 20_001, dtype=F64)
    mass = scipy.integrate.simpson(law.log_prob(x[:, None]).exp(), x=x)
    assert mass == pytest.approx(1, abs=1e-9)


@given(mixtures)
def test_mean_and_covariance_are_derivatives_of_the_cumulants(law):
    """The first two derivatives at 0 of log E exp(u·x) for the normal, log-summed by hand."""
    law = Mixture(
        law.weights.double() / law.weights.double().sum(), *map(sym, (law.means, law.covs))
    )

    def cumulant(u):
        return (
            law.weights.log() + law.means @ u + 0.5 * torch.einsum("i,kij,j->k", u, law.covs, u)
        ).logsumexp(0)

    origin = torch.zeros(law.dim, dtype=F64)
    assert (torch.func.grad(cumulant)(origin) - law.mean).abs().max() < 1e-9
    assert (torch.func.hessian(cumulant)(origin) - law.cov).abs().max() < 1e-9


def sym(a):
    return a.double() if a.ndim == 2 else 0.5 * (a.double() + a.double().mT)


@pytest.mark.parametrize("law", [TARGET, BASE], ids=["target", "base"])
@pytest.mark.parametrize("u", [(0.7, -0.4), (-0.3, 1.1)])
def test_samples_have_the_characteristic_function_of_the_law(law, u, generator):
    u = torch.tensor(u, dtype=F64)
    x, exact = law.sample(20_000, generator), waves(law, u)
    expect(mean("eq:mixture", (x @ u).cos(), exact.real.item()))
    expect(mean("eq:mixture", (x @ u).sin(), exact.imag.item()))
    for mistake, wrong in {
        "sign: the means reflected": -x,
        "factor: covariances doubled": x + (law.cov.diagonal() / 4).sqrt() * (x - x.roll(1, 0)),
        "wrong object: the coordinates exchanged": x.flip(1),
    }.items():
        error = max(
            mean("eq:mixture", (wrong @ u).cos(), exact.real.item()),
            mean("eq:mixture", (wrong @ u).sin(), exact.imag.item()),
            key=lambda check: check.error,
        )
        refute(error, mistake)


def test_samples_of_one_component_have_its_covariance_not_that_of_the_transposed_root(generator):
    C = torch.tensor([[2.0, 1.2], [1.2, 0.8]], dtype=F64)
    x = gaussian(torch.zeros(2, dtype=F64), C).sample(20_000, generator)
    for i, j in [(0, 0), (0, 1), (1, 1)]:
        expect(mean("eq:gaussian", x[:, i] * x[:, j], C[i, j].item()))
    root = torch.linalg.cholesky(C)
    wrong = (root.T @ root)[0, 0].item()
    refute(mean("eq:gaussian", x[:, 0] ** 2, wrong), "wrong object: the transposed Cholesky factor")


def test_a_component_without_weight_is_never_drawn_and_does_not_count(generator):
    means = torch.tensor([[0.0], [100.0]], dtype=F64)
    law = Mixture(torch.tensor([1.0, 0.0], dtype=F64), means, torch.ones(2, 1, 1, dtype=F64))
    alone = gaussian(means[0], torch.ones(1, 1, dtype=F64))
    x = law.sample(1000, generator)
    assert x.abs().max() < 10
    assert torch.equal(law.log_prob(x), alone.log_prob(x))
    score = gradient(lambda t, y: law.log_prob(y), torch.zeros((), dtype=F64), x)
    assert torch.allclose(score, -x)


def test_a_draw_is_repeated_by_its_seed_and_by_nothing_else():
    seeded = lambda s: TARGET.sample(5, torch.Generator().manual_seed(s))
    assert torch.equal(seeded(1), seeded(1)) and not torch.equal(seeded(1), seeded(2))


def test_the_standard_normal_is_standard(device):
    for dtype in (torch.float32, F64):
        law = standard_normal(3, torch.zeros(1, dtype=dtype, device=device))
        x = law.sample(4, torch.Generator(device).manual_seed(0))
        assert x.dtype == dtype and x.device.type == device.type
        exact = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
        assert torch.allclose(law.log_prob(x), exact, atol=1e-5)
        assert torch.equal(law.mean, torch.zeros_like(law.mean)) and law.dim == 3


@pytest.mark.parametrize("n, k, d", [(3, 3, 3), (1, 2, 2), (4, 2, 3), (2, 1, 2)])
def test_a_mixture_for_each_sample_is_a_loop(n, k, d, generator):
    x = points(n, generator, d)
    laws = [random_mixture(seed, d, k) for seed in range(n)]
    means, covs = torch.stack([m.means for m in laws]), torch.stack([m.covs for m in laws])
    batch = log_normals(x, means, covs)
    loop = [log_normals(x[i : i + 1], means[i : i + 1], covs[i : i + 1])[0] for i in range(n)]
    exact = [MultivariateNormal(m.means, m.covs).log_prob(y) for m, y in zip(laws, x)]
    assert (batch - torch.stack(loop)).abs().max() < 1e-12
    assert (batch - torch.stack(exact)).abs().max() < 1e-9
    logs, solved = normals(x, means, covs)
    assert torch.equal(logs, batch)
    assert (solved - torch.linalg.solve(covs, offsets(x, means))).abs().max() < 1e-12
    assert offsets(x, means).shape == (n, k, d, 1) and offsets(x, means[:1]).shape[0] == 1


def test_points_may_lie_in_memory_as_they_like(generator):
    x = points(2, generator, d=6).T
    assert torch.equal(TARGET.log_prob(x), TARGET.log_prob(x.contiguous()))


def change(**parts):
    law = dict(weights=TARGET.weights, means=TARGET.means, covs=TARGET.covs)
    return lambda: Mixture(**(law | parts))


@pytest.mark.parametrize(
    "build, message",
    [
        (change(weights=torch.tensor([0.3, 0.6], dtype=F64)), "sum to 1, got .* sum 0.9; divide"),
        (change(weights=torch.tensor([1.3, -0.3], dtype=F64)), "nonnegative .*got least -0.3"),
        (change(weights=torch.tensor([0.3, 0.7 + 1e-9], dtype=F64)), "sum to 1"),
        (change(weights=torch.tensor([0.5, math.nan], dtype=F64)), "must be finite"),
        (change(means=torch.full((2, 2), math.inf, dtype=F64)), "must be finite"),
        (change(covs=-TARGET.covs), "positive definite, got least eigenvalue -0.6"),
        (change(covs=torch.ones(2, 2, 2, dtype=F64)), "positive definite.*add to the diagonal"),
        (
            change(covs=TARGET.covs + torch.tensor([[0.0, 0.1], [0.0, 0.0]], dtype=F64)),
            r"symmetric; use \(C \+ C.mT\) / 2",
        ),
        (change(weights=TARGET.weights.float()), "share dtype and device, got torch.float32"),
        (change(means=TARGET.means.to("meta")), "share dtype and device, got .*meta"),
    ],
)
def test_a_mixture_that_is_none_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "shapes", [((2,), (2, 3), (2, 2, 2)), ((2,), (3, 2), (3, 2, 2)), ((2,), (2, 2), (1, 2, 2))]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    w, m, C = (torch.ones(s, dtype=F64) for s in shapes)
    with pytest.raises((ValueError, TypeError), match="shapes|covs|means"):
        Mixture(w / len(w), m, C)


def test_weights_are_accepted_up_to_the_rounding_of_their_own_precision():
    many = torch.full((1000,), 1e-3, dtype=torch.float32)
    m, C = torch.zeros(1000, 1), torch.ones(1000, 1, 1)
    assert many.sum() != 1 and Mixture(many, m, C).dim == 1
    with pytest.raises(ValueError, match="sum to 1"):
        Mixture(many * (1 + 1e-2), m, C)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_covariances_are_symmetric_up_to_rounding_relative_to_their_size(scale):
    def law(gap):
        C = torch.tensor([[1.0, 1e-3], [1e-3 + gap, 1.0]], dtype=F64)
        return gaussian(torch.zeros(2, dtype=F64), scale * C)

    assert law(1e-15).dim == 2
    with pytest.raises(ValueError, match="symmetric"):
        law(1e-12)


@pytest.mark.parametrize("k, dtype", [(0, F64), (2, torch.int64)])
def test_a_mixture_of_nothing_or_of_integers_is_refused(k, dtype):
    w, m, C = (torch.zeros(*s, dtype=dtype) for s in ((k,), (k, 1), (k, 1, 1)))
    with pytest.raises((ValueError, TypeError), match="at least one component|i64"):
        Mixture(w, m, C)


@pytest.mark.parametrize(
    "x", [torch.zeros(4, 1, dtype=F64), torch.zeros(4, 3, dtype=F64), torch.zeros(4, 2)]
)
def test_points_of_another_space_are_refused(x):
    """A column of points in one dimension would broadcast to two without a word."""
    with pytest.raises(ValueError, match=r"points are \(n, 2\), torch.float64.*got .*reshape"):
        TARGET.log_prob(x)


def test_a_generator_on_another_device_is_refused(generator):
    check_generator(generator, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"got one on cpu for meta; make it with torch.Generator"):
        check_generator(generator, torch.device("meta"))


# --- the score of a mixture


@given(mixtures, st.integers(1, 7))
def test_the_score_is_the_gradient_of_the_log_density(law, n):
    g = torch.Generator().manual_seed(n)
    x = 2 * torch.randn(n, law.dim, generator=g, dtype=law.means.dtype)
    exact = gradient(lambda t, y: theirs(law).log_prob(y), torch.zeros((), dtype=x.dtype), x)
    tolerance = 1e-9 if x.dtype == F64 else 2e-3
    assert torch.allclose(law.score(x), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n, d, k", [(3, 3, 3), (1, 1, 1), (1, 2, 3), (2, 1, 2)])
def test_the_score_of_a_batch_is_a_loop(n, d, k, generator):
    law, x = random_mixture(5, d, k), points(n, generator, d)
    rows = torch.cat([law.score(x[i : i + 1]) for i in range(n)])
    assert law.score(x).shape == (n, d) and (law.score(x) - rows).abs().max() < 1e-12


def test_a_mixture_is_converted_as_a_whole():
    short = TARGET.to(torch.zeros(1))
    assert {a.dtype for a in (short.weights, short.means, short.covs)} == {torch.float32}
    assert torch.equal(short.to(TARGET.means).means, TARGET.means.float().double())


# --- what a map makes of a law


def swirl(sign):
    """A turn by an angle that grows with the radius; it preserves areas, and is no linear map."""

    def turn(x):
        angle = sign * (x * x).sum(1)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], dim=1)

    return turn


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
def test_an_affine_image_of_a_mixture_is_a_mixture(seed, d, n):
    """eq:change-of-variables."""
    law, g = random_mixture(seed, d, 2), torch.Generator().manual_seed(seed)
    M = torch.eye(d, dtype=F64) + 0.3 * torch.randn(d, d, generator=g, dtype=F64) / d
    shift = torch.randn(d, generator=g, dtype=F64)
    pushed = Pushforward(
        law, lambda x: x @ M.T + shift, lambda y: torch.linalg.solve(M, (y - shift).T).T
    )
    known = Mixture(law.weights, law.means @ M.T + shift, M @ law.covs @ M.T)
    y = points(n, g, d)
    assert (pushed.log_prob(y) - known.log_prob(y)).abs().max() < 1e-9
    wrong = pushed.log_prob(y) + 2 * torch.linalg.slogdet(M).logabsdet
    stretch = abs(torch.linalg.det(M).item())
    if abs(stretch - 1) > 1e-3:
        assert (wrong - known.log_prob(y)).abs().max() > 1e-4


def test_the_log_normal_law_is_that_of_scipy(generator):
    """eq:change-of-variables, in one dimension, and the mistakes that people make with it."""
    normal = gaussian(torch.tensor([0.3], dtype=F64), torch.tensor([[0.49]], dtype=F64))
    law = Pushforward(normal, torch.exp, torch.log)
    y = 0.1 + 3 * torch.rand(64, 1, generator=generator, dtype=F64)
    exact = torch.from_numpy(scipy.stats.lognorm(0.7, scale=math.exp(0.3)).logpdf(y[:, 0]))
    expect(worst("eq:change-of-variables", law.log_prob(y) - exact))
    bare = normal.log_prob(y.log())
    refute(worst("eq:change-of-variables", bare - exact), "missing term: no Jacobian")
    upside = bare + y.log()[:, 0]
    refute(worst("eq:change-of-variables", upside - exact), "factor: the Jacobian multiplied")
    x = law.sample(20_000, generator)[:, 0]
    expect(mean("eq:change-of-variables", x, math.exp(0.3 + 0.245)))
    refute(mean("eq:change-of-variables", x, math.exp(0.3)), "missing term: half the variance")


def test_a_map_that_preserves_areas_only_moves_the_density(generator):
    law = Pushforward(TARGET, swirl(0.7), swirl(-0.7))
    y = points(50, generator)
    assert (law.log_prob(y) - TARGET.log_prob(swirl(-0.7)(y))).abs().max() < 1e-9
    assert isinstance(law, Measure)


def test_pushforwards_can_be_pushed_again_and_differentiated(generator):
    once = Pushforward(TARGET, swirl(0.7), swirl(-0.7))
    twice = Pushforward(once, lambda x: 2 * x, lambda y: y / 2)
    y = points(20, generator)
    exact = TARGET.log_prob(swirl(-0.7)(y / 2)) - 2 * math.log(2)
    assert (twice.log_prob(y) - exact).abs().max() < 1e-9
    score = gradient(lambda t, y: twice.log_prob(y), torch.zeros((), dtype=F64), y)
    reference = gradient(
        lambda t, y: TARGET.log_prob(swirl(-0.7)(y / 2)), torch.zeros((), dtype=F64), y
    )
    assert (score - reference).abs().max() < 1e-9


def test_an_inverse_that_is_none_is_refused(generator):
    y = points(5, generator)
    wrong = Pushforward(TARGET, lambda x: 2 * x, lambda y: y / 3)
    with pytest.raises(ValueError, match="forward must undo inverse, got .* apart"):
        wrong.log_prob(y)
    with pytest.raises(ValueError, match="forward must undo inverse"):
        wrong.log_prob(5 + y.abs())
    nowhere = Pushforward(TARGET, lambda x: x, lambda y: y * math.nan)
    with pytest.raises(ValueError, match="forward must undo inverse, got nan"):
        nowhere.log_prob(y)
    flat = Pushforward(TARGET, lambda x: x**3, lambda y: y.sign() * y.abs() ** (1 / 3))
    with pytest.raises(ValueError, match="must be invertible, got determinant 0"):
        flat.log_prob(torch.zeros(1, 2, dtype=F64))


# --- the law of given points


def test_points_are_drawn_with_their_weights(generator):
    x = torch.tensor([[0.0, 1.0], [2.0, -1.0], [5.0, 0.0]], dtype=F64)
    law = Empirical(x, torch.tensor([0.5, 0.5, 0.0], dtype=F64))
    drawn = law.sample(4000, generator)
    assert set(map(tuple, drawn.tolist())) == {(0.0, 1.0), (2.0, -1.0)}
    expect(mean("eq:pushforward", drawn[:, 0], 1.0))
    assert law.dim == 2 and torch.equal(law.mean, torch.tensor([1.0, 0.0], dtype=F64))
    assert torch.equal(law.cov, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=F64))


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 4))
def test_equal_weights_give_the_moments_of_the_sample(seed, k, d):
    x = points(k, torch.Generator().manual_seed(seed), d)
    law = Empirical(x)
    assert torch.allclose(law.weights, torch.full((k,), 1 / k, dtype=F64))
    assert torch.allclose(law.mean, x.mean(0))
    assert torch.allclose(law.cov, torch.cov(x.T, correction=0).reshape(d, d))


def test_points_have_no_density_until_they_are_smoothed(generator):
    law = Empirical(points(3, generator), torch.tensor([0.2, 0.3, 0.5], dtype=F64))
    x = points(10, generator)
    with pytest.raises(ValueError, match=r"no density; `smoothed\(width\)` has one"):
        law.log_prob(x)
    smooth = law.smoothed(0.4)
    parts = [
        w * torch.from_numpy(scipy.stats.multivariate_normal(m, 0.16).pdf(x))
        for w, m in zip(law.weights, law.points)
    ]
    assert (smooth.log_prob(x) - sum(parts).log()).abs().max() < 1e-9
    assert torch.allclose(smooth.cov, law.cov + 0.16 * torch.eye(2, dtype=F64))
    assert isinstance(law, Measure)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda x: Empirical(x[:0]), "at least one"),
        (lambda x: Empirical(x * math.nan), "points are finite"),
        (lambda x: Empirical(x.long()), "floating-point|points"),
        (lambda x: Empirical(x, torch.tensor([0.5, 0.6], dtype=F64)), "sum to 1, got .* sum 1.1"),
        (lambda x: Empirical(x, torch.tensor([1.5, -0.5], dtype=F64)), "nonnegative"),
        (lambda x: Empirical(x, torch.tensor([math.nan, 1.0], dtype=F64)), "nonnegative"),
        (lambda x: Empirical(x, torch.ones(1, dtype=F64)), "one weight per point|weights"),
        (lambda x: Empirical(x, torch.tensor([0.5, 0.5])), "of its dtype"),
        (lambda x: Empirical(x).smoothed(0.0), "a width is positive, got 0"),
        (lambda x: Empirical(x).smoothed(math.nan), "a width is positive, got nan"),
    ],
)
def test_points_that_make_no_law_are_refused(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=F64))
