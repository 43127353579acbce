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
    Mixture,
    check_generator,
    gaussian,
    log_normals,
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
