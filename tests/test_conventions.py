"""Claims of chapter 0: every convention is the book's, up to clock, scale and row of the table.

The other side of each comparison is built from a paper's own formulas, typed here a second time:
its chain or its noised state, the density of that state by `torch.distributions`, its score by
autodiff, the posterior means from the score, and from those its field and its sampler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from laws import F64, TARGET, inner_times, points, scalar
from onepath import fields, papers
from onepath.calculus import rate
from onepath.conventions import Convention, book, flipped, matching, translate, translate_level
from onepath.dynamics import with_noise
from onepath.interpolants import linear, noising_diffusion, variance_preserving
from onepath.oracles import MixturePath
from onepath.verify import expect, fokker_planck, refute, worst

BOOK = MixturePath(linear, TARGET)
SNR, FIELD, LEVEL = "eq:snr-equivalence", "eq:conversion", "eq:level"


@dataclass(frozen=True)
class Paper:
    """A convention, and its state and its field as its paper writes them."""

    convention: Convention
    state: Callable  # u -> (a, s) in y = a x_1 + s noise
    field: Callable  # (u, y, data, noise, score) -> what the network predicts
    times: tuple[float, ...]


@dataclass(frozen=True)
class Sampler:
    """The SDE that generates, dy = drift du + diffusion dB, in a clock that may run down."""

    drift: Callable  # (u, y, predicted field, score)
    diffusion: Callable
    level: Callable  # what the paper calls the noise


def ddpm_chain(u):
    """y_n = sqrt(1 - beta_n) y_(n-1) + sqrt(beta_n) noise, step by step."""
    signal, variance = [1.0], [0.0]
    for beta in torch.linspace(1e-4, 0.02, 1000, dtype=F64).tolist():
        signal.append(signal[-1] * math.sqrt(1 - beta))
        variance.append(variance[-1] * (1 - beta) + beta)
    n = u.long()
    return torch.tensor(signal, dtype=F64)[n], torch.tensor(variance, dtype=F64)[n].sqrt()


def vp_state(u):
    a = torch.exp(-0.25 * u**2 * (20 - 0.1) - 0.5 * u * 0.1)
    return a, (1 - a**2).sqrt()


def beta(u):
    return 0.1 + u * (20 - 0.1)


def geometric(u):
    return 0.01 * (50 / 0.01) ** u


def cosine(u):
    return (math.pi * u / 2).cos(), (math.pi * u / 2).sin()


def bridge_state(u):
    return u, ((1 - u) ** 2 + 0.8**2 * u * (1 - u)).sqrt()


def rows(u):
    """A number per time, ready to multiply points."""
    return u[..., None]


straight = (lambda u: (u, 1 - u), lambda u, y, x, e, s: x - e, (0.0, 0.3, 0.9))
PAPERS = {
    paper.convention.name: paper
    for paper in (
        Paper(book, *straight),
        Paper(papers.rectified_flow, *straight),
        Paper(papers.stochastic_interpolant, *straight),
        Paper(papers.ddpm(), ddpm_chain, lambda u, y, x, e, s: e, (1, 17, 300, 999, 1000)),
        Paper(papers.score_sde_vp(), vp_state, lambda u, y, x, e, s: s, (0.05, 0.4, 0.9, 1.0)),
        Paper(
            papers.score_sde_ve(),
            lambda u: (torch.ones_like(u), geometric(u)),
            lambda u, y, x, e, s: s,
            (0.4, 0.6, 0.8, 1.0),
        ),
        Paper(
            papers.edm(),
            lambda u: (torch.ones_like(u), u),
            lambda u, y, x, e, s: x,
            (0.05, 0.7, 5.0, 80.0),
        ),
        Paper(
            papers.v_diffusion(),
            cosine,
            lambda u, y, x, e, s: rows(cosine(u)[0]) * e - rows(cosine(u)[1]) * x,
            (0.1, 0.5, 0.95),
        ),
        Paper(
            papers.flow_matching(0.01),
            lambda u: (u, 1 - (1 - 0.01) * u),
            lambda u, y, x, e, s: x - (1 - 0.01) * e,
            (0.0, 0.3, 0.9),
        ),
        Paper(
            papers.noise_at_one,
            lambda u: (1 - u, u),
            lambda u, y, x, e, s: e - x,
            (0.1, 0.5, 1.0),
        ),
        Paper(
            papers.bridge_matching(0.8),
            bridge_state,
            lambda u, y, x, e, s: (x - y) / rows(1 - u),
            (0.0, 0.2, 0.9),
        ),
    )
}

SAMPLERS = {
    "this book": Sampler(
        lambda u, y, v, s: v + 0.5 * (1 - u) * s, lambda u: (1 - u).sqrt(), lambda u: (1 - u).sqrt()
    ),
    "score SDE, VP": Sampler(
        lambda u, y, f, s: -0.5 * beta(u) * y - beta(u) * s,
        lambda u: beta(u).sqrt(),
        lambda u: beta(u).sqrt(),
    ),
    "score SDE, VE": Sampler(
        lambda u, y, f, s: -2 * math.log(5000) * geometric(u) ** 2 * s,
        lambda u: geometric(u) * math.sqrt(2 * math.log(5000)),
        lambda u: geometric(u) * math.sqrt(2 * math.log(5000)),
    ),
    "EDM": Sampler(
        lambda u, y, f, s: -u * s - (0.2 + u) * u**2 * s,
        lambda u: (2 * (0.2 + u)).sqrt() * u,
        lambda u: 0.2 + u,
    ),
    "stochastic interpolant": Sampler(
        lambda u, y, b, s: b + 0.3 * (1 - u) * s,
        lambda u: (2 * 0.3 * (1 - u)).sqrt(),
        lambda u: 0.3 * (1 - u),
    ),
    "bridge matching": Sampler(
        lambda u, y, drift, s: drift, lambda u: 0.8 + 0 * u, lambda u: 0.8 + 0 * u
    ),
}


def log_density(paper: Paper):
    """log-density of their noised mixture in their clock, at times () or (n,)."""

    def log_q(u, y):
        a, s = (c.expand(len(y))[:, None, None] for c in paper.state(u))
        noise = s[..., None] ** 2 * torch.eye(2, dtype=F64)
        parts = MultivariateNormal(
            a * TARGET.means, a[..., None] ** 2 * TARGET.covs + noise, validate_args=False
        )
        weights = Categorical(TARGET.weights.expand(len(y), -1), validate_args=False)
        return MixtureSameFamily(weights, parts, validate_args=False).log_prob(y)

    return log_q


def exact(paper: Paper, predicts=None):
    """Their field: the score by autodiff of their density, the posterior means from the score."""

    def field(u, y):
        score = torch.func.grad(lambda z: log_density(paper)(u, z).sum())(y)
        a, s = (rows(c) for c in paper.state(u))
        noise = -s * score
        data = torch.where(a == 0, TARGET.mean, (y - s * noise) / a)
        return (predicts or paper.field)(u, y, data, noise, score)

    return field


def times_of(paper: Paper, n: int = 64):
    """Each time alone, then all of them in one batch."""
    each = torch.tensor(paper.times, dtype=F64)
    return [*each, each.repeat(n)[:n]]


@pytest.mark.parametrize("name", PAPERS)
def test_their_schedule_is_their_formula(name):
    paper = PAPERS[name]
    schedule = paper.convention.schedule
    for u in times_of(paper):
        a, s = paper.state(u)
        expect(worst(SNR, schedule.alpha(u) - a))
        expect(worst(SNR, schedule.sigma(u) - s))
        expect(worst(SNR, schedule.variance(u) / s**2 - 1))


@pytest.mark.parametrize("name", PAPERS)
def test_times_of_equal_noise(name):
    paper = PAPERS[name]
    for u in times_of(paper):
        t, k = matching(paper.convention, book, u)
        a, s = paper.state(u)
        expect(worst(SNR, k * a - t))
        expect(worst(SNR, k * s - (1 - t)))


@pytest.mark.parametrize("name", PAPERS)
def test_from_the_book_to_the_paper(name, generator):
    paper, y = PAPERS[name], points(64, generator)
    converted = translate(BOOK.velocity, given=book, wanted=paper.convention)
    for u in times_of(paper):
        there = y * rows(paper.state(u)[1]).clamp(min=1)
        theirs = exact(paper)(u, there)
        expect(worst(FIELD, (converted(u, there) - theirs) / theirs.abs().max().clamp(min=1)))


OURS = {
    fields.velocity: BOOK.velocity,
    fields.score: BOOK.score,
    fields.data: BOOK.denoiser,
    fields.noise: lambda t, x: -rows(1 - t) * BOOK.score(t, x),
}


@pytest.mark.parametrize("wanted", OURS, ids=lambda row: row.__name__)
@pytest.mark.parametrize("name", [name for name in PAPERS if name != "DDPM"])
def test_from_the_paper_to_the_book(name, wanted, generator):
    paper, x = PAPERS[name], points(64, generator)
    converted = translate(exact(paper), paper.convention, replace(book, predicts=wanted))
    for t in (scalar(0.03), scalar(0.5), scalar(0.95), inner_times(64, generator)):
        expect(worst(FIELD, converted(t, x) - OURS[wanted](t, x)))


def test_from_ddpm_to_the_book_at_its_own_steps(generator):
    paper, x = PAPERS["DDPM"], points(64, generator)
    converted = translate(exact(paper), given=paper.convention, wanted=book)
    for n in times_of(paper):
        t, _ = matching(paper.convention, book, n)
        expect(worst(FIELD, (converted(t, x) - BOOK.velocity(t, x)) * rows(1 - t)))
    n = scalar(300.0)
    late = lambda n, y: exact(paper)(n - 1, y)  # counts the steps from zero
    t, _ = matching(paper.convention, book, n)
    wrong = translate(late, given=paper.convention, wanted=book)(t, x)
    refute(worst(FIELD, wrong - BOOK.velocity(t, x)), "clock: steps counted from 0")


@pytest.mark.parametrize("name", PAPERS)
def test_there_and_back_is_the_identity(name, generator):
    """For any function, here one that is the velocity of no law."""
    convention, x = PAPERS[name].convention, points(16, generator)
    net = lambda t, x: (x + rows(t)).sin()
    there = translate(net, given=book, wanted=convention)
    back = translate(there, given=convention, wanted=book)
    for t in (scalar(0.05), scalar(0.4), inner_times(16, generator)):
        expect(worst(FIELD, back(t, x) - net(t, x)))


def test_the_book_on_its_vp_path_is_the_score_sde_flipped(generator):
    path, x = MixturePath(variance_preserving(), TARGET), points(32, generator)
    vp = papers.score_sde_vp()
    ours = flipped(vp, "the book on its VP path")
    score = translate(exact(PAPERS[vp.name]), vp, ours)
    velocity = translate(exact(PAPERS[vp.name]), vp, replace(ours, predicts=fields.velocity))
    for t in (scalar(0.0), scalar(0.6), inner_times(32, generator)):
        expect(worst(FIELD, score(t, x) - path.score(t, x)))
        expect(worst(FIELD, velocity(t, x) - path.velocity(t, x)))


def test_noise_at_one_is_a_flip_of_clock_and_sign(generator):
    theirs, x, t = exact(PAPERS["noise at one"]), points(64, generator), scalar(0.3)
    error = lambda ours: worst(FIELD, ours - BOOK.velocity(t, x))
    expect(error(translate(theirs, papers.noise_at_one, book)(t, x)))
    expect(error(-theirs(1 - t, x)))
    refute(error(-theirs(t, x)), "clock: t for 1 - t")
    refute(error(theirs(1 - t, x)), "sign: the time derivative of the other clock")
    refute(error(theirs(t, x)), "clock: taken as it is")


def test_an_edm_denoiser_needs_the_scaled_state(generator):
    theirs, x, t = exact(PAPERS["EDM"]), points(64, generator), scalar(0.4)
    error = lambda ours: worst(FIELD, ours - BOOK.denoiser(t, x))
    expect(error(translate(theirs, papers.edm(), replace(book, predicts=fields.data))(t, x)))
    expect(error(theirs((1 - t) / t, x / t)))
    refute(error(theirs((1 - t) / t, x)), "missing term: the scale k of the state")
    refute(error(theirs(1 - t, x / t)), "clock: our sigma for theirs")


def test_v_prediction_is_not_the_velocity(generator):
    convention = papers.v_diffusion()
    theirs, x, t = exact(PAPERS[convention.name]), points(64, generator), scalar(0.4)
    error = lambda given: worst(FIELD, translate(theirs, given, book)(t, x) - BOOK.velocity(t, x))
    expect(error(convention))
    misread = replace(convention, predicts=fields.velocity)
    refute(error(misread), "wrong object: v-prediction taken as the velocity")


def test_the_drift_of_a_bridge_is_velocity_plus_half_tau_score(generator):
    paper, y, u = PAPERS["bridge matching"], points(64, generator), scalar(0.3)
    velocity, score = (
        translate(BOOK.velocity, book, replace(paper.convention, predicts=row))(u, y)
        for row in (fields.velocity, fields.score)
    )
    error = lambda tau: worst(FIELD, exact(paper)(u, y) - velocity - 0.5 * tau * score)
    expect(error(0.8**2))
    refute(error(0.0), "missing term: the drift of an SDE taken as the velocity")
    refute(error(0.8), "wrong object: the standard deviation of the reference as its variance")


def test_every_convention_with_a_noise_has_its_sampler_here():
    assert set(SAMPLERS) == {c.name for c in papers.dictionary() if c.level is not None}
    assert set(PAPERS) == {c.name for c in papers.dictionary()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_their_sampler_solves_fokker_planck_in_their_clock(name, generator):
    """Time counts up from noise; their field and score are translated from ours."""
    paper, sampler, convention = PAPERS[name], SAMPLERS[name], PAPERS[name].convention
    start, stop = convention.span
    sign = 1.0 if stop > start else -1.0
    clock = lambda r: start + sign * r
    field = translate(BOOK.velocity, book, convention)
    score = translate(BOOK.velocity, book, replace(convention, predicts=fields.score))
    u = matching(book, convention, scalar(0.45))[0]
    y = points(32, generator) * paper.state(u)[1].clamp(min=1)

    def residual(factor):
        drift = lambda u, y: sampler.drift(u, y, field(u, y), score(u, y))
        return fokker_planck(
            lambda r, y: log_density(paper)(clock(r), y),
            lambda r, y: sign * drift(clock(r), y),
            lambda r: factor * sampler.diffusion(clock(r)),
            sign * (u - start),
            y,
        )

    size = residual(0.0).abs().max()
    expect(worst(LEVEL, residual(1.0) / size))
    refute(worst(LEVEL, residual(1.1) / size), "factor: a tenth too much noise")


@pytest.mark.parametrize("name", SAMPLERS)
def test_their_sampler_becomes_ours(name, generator):
    """y = k x turns dy = b du into dx = (u' b / k - k' x / k) dt, and the noise into eta."""
    paper, sampler, x = PAPERS[name], SAMPLERS[name], points(64, generator)
    eta = translate_level(sampler.level, paper.convention, book)
    score = exact(paper, lambda u, y, x, e, s: s)
    clock = lambda t: matching(book, paper.convention, t)
    for t in (scalar(0.1), scalar(0.5), scalar(0.9)):
        (u, k), du, dk = clock(t), rate(lambda t: clock(t)[0], t), rate(lambda t: clock(t)[1], t)
        drift = sampler.drift(u, k * x, exact(paper)(u, k * x), score(u, k * x))
        carried = (du * drift - dk * x) / k
        error = lambda eta: worst(
            LEVEL, carried - with_noise(BOOK.velocity, BOOK.score, eta).drift(t, x)
        )
        expect(error(eta))
        refute(error(lambda t: 2**0.5 * eta(t)), "factor: twice the variance")
        expect(worst(LEVEL, eta(t) - sampler.diffusion(u) * du.abs().sqrt() / k))


@pytest.mark.parametrize("name", SAMPLERS)
def test_levels_there_and_back(name, generator):
    convention, t = PAPERS[name].convention, inner_times(32, generator)
    there = translate_level(lambda t: 0.3 + t, book, convention)
    expect(worst(LEVEL, translate_level(there, convention, book)(t) - (0.3 + t)))


@pytest.mark.parametrize("name", ["score SDE, VP", "score SDE, VE"])
def test_the_noising_diffusions_of_all_conventions_are_one(name, generator):
    t = inner_times(32, generator)
    eta = translate_level(SAMPLERS[name].level, PAPERS[name].convention, book)(t)
    expect(worst(LEVEL, eta / noising_diffusion(linear)(t) - 1))
    refute(worst(LEVEL, eta / noising_diffusion(linear)(1 - t) - 1), "clock: read at 1 - t")


def test_epsilon_is_half_of_eta_squared(generator):
    t, x = scalar(0.6), points(64, generator)
    epsilon = lambda t: 0.7 * (1 - t)
    eta = translate_level(epsilon, papers.stochastic_interpolant, book)
    drift = lambda t, x: BOOK.velocity(t, x) + epsilon(t) * BOOK.score(t, x)
    error = lambda eta: worst(LEVEL, fokker_planck(BOOK.log_density, drift, eta, t, x))
    expect(error(eta))
    refute(error(lambda t: epsilon(t).sqrt()), "factor: epsilon read as the square of eta")


def test_a_flip_turns_the_noise_level_too(generator):
    t = inner_times(16, generator)
    turned = flipped(papers.edm(), "EDM from noise")
    level = translate_level(lambda r: 0.5 + 0 * r, turned, book)(t)
    expect(worst(LEVEL, level - translate_level(lambda u: 0.5 + 0 * u, papers.edm(), book)(t)))


@pytest.mark.parametrize(
    "change", [{"clock": lambda snr: 1 - torch.sigmoid(snr)}, {"span": (1, 0)}]
)
def test_a_convention_with_a_flipped_clock_cannot_be_made(change):
    with pytest.raises(ValueError, match="signal-to-noise|must invert"):
        replace(book, **change)


def test_times_without_counterpart_are_refused(generator):
    x = points(4, generator)
    with pytest.raises(ValueError, match="EDM runs from 80 to 0.002 and has no time"):
        translate(lambda u, y: y, papers.edm(), book)(scalar(0.001), x)
    with pytest.raises(ValueError, match="DDPM runs from 1000 to 1"):
        translate(lambda u, y: y, papers.ddpm(), book)(
            torch.tensor([0.5, 0.9999], dtype=F64), x[:2]
        )


def test_a_conversion_that_divides_by_zero_is_refused(generator):
    with pytest.raises(ValueError, match="no velocity from score"):
        given = replace(book, name="the book by its score", predicts=fields.score)
        translate(BOOK.score, given, book)(scalar(0.0), points(4, generator))


def test_a_level_that_a_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="DDPM has no name for the noise"):
        translate_level(lambda u: u, papers.ddpm(), book)


def test_half_precision_states_keep_their_type(generator):
    x = points(8, generator).float()
    for t in (scalar(0.5), torch.full((8,), 0.5)):
        assert translate(lambda u, y: y, papers.edm(), book)(t, x).dtype == torch.float32
