"""Claims of chapter 0: all conventions are one, up to clock, scale and row of the table."""

import math
from dataclasses import replace

import pytest
import torch

from laws import F64, TARGET, inner_times, points, scalar
from onepath import fields, papers
from onepath.calculus import rate
from onepath.conventions import Convention, book, flipped, matching, translate, translate_level
from onepath.dynamics import with_noise
from onepath.interpolants import Interpolant, variance_preserving
from onepath.oracles import MixturePath
from onepath.verify import expect, fokker_planck, refute, worst
from their_papers import BOOK, FIELD, LEVEL, PAPERS, SAMPLERS, SNR, exact, rows


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


@pytest.mark.parametrize(
    ("name", "time"), [("DDPM", 0.0), ("DDPM", 1001.0), ("noise at one", -0.1), ("EDM", math.nan)]
)
def test_times_that_a_convention_does_not_have_are_refused(name, time):
    """A network whose steps are counted from 0 must not be asked for the step before the first."""
    convention = PAPERS[name].convention
    start, stop = convention.span
    refusal = f"{name} runs from {start:g} to {stop:g} and has no time {time:g};"
    with pytest.raises(ValueError, match=refusal):
        matching(convention, book, torch.tensor([convention.span[1], time], dtype=F64))
    with pytest.raises(ValueError, match=refusal):
        translate(BOOK.velocity, book, convention)(scalar(time), torch.zeros(4, 2, dtype=F64))


def test_rounding_at_the_ends_of_a_clock_is_forgiven():
    """Here for a clock that counts lambda itself and has zero in its middle."""
    counts_snr = Convention(
        "half log-SNR",
        "here",
        Interpolant(
            sigma=lambda u: torch.sigmoid(-2 * u).sqrt(),
            alpha=lambda u: torch.sigmoid(2 * u).sqrt(),
        ),
        clock=lambda snr: snr,
        span=(-6.0, 6.0),
        predicts=fields.noise,
    )
    for end in (-6.0, 6.0):
        t, _ = matching(counts_snr, book, scalar(end * (1 + 1e-14)))
        expect(worst(SNR, t - 1 / (1 + math.exp(-end))))
        u, _ = matching(book, counts_snr, torch.sigmoid(scalar(end * (1 + 1e-14))))
        assert u == end
        with pytest.raises(ValueError, match="half log-SNR runs from -6 to 6 and has no time"):
            matching(counts_snr, book, scalar(end * (1 + 1e-12)))


def test_a_conversion_that_divides_by_zero_is_refused(generator):
    with pytest.raises(ValueError, match="no velocity from score"):
        given = replace(book, name="the book by its score", predicts=fields.score)
        translate(BOOK.score, given, book)(scalar(0.0), points(4, generator))


def test_a_level_that_a_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="DDPM has no name for the noise"):
        translate_level(lambda u: u, papers.ddpm(), book)


def test_single_precision_states_keep_their_type(generator):
    x = points(8, generator).float()
    for t in (scalar(0.5), torch.full((8,), 0.5)):
        assert translate(lambda u, y: y, papers.edm(), book)(t, x).dtype == torch.float32
