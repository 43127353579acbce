"""Claims of chapter 0: each row of the dictionary is what its paper writes."""

from dataclasses import replace

import pytest

from laws import inner_times, points, scalar
from onepath import fields, papers
from onepath.conventions import book, matching, translate, translate_level
from onepath.interpolants import linear, noising_diffusion
from onepath.verify import expect, fokker_planck, refute, worst
from their_papers import (
    BOOK,
    FIELD,
    LEVEL,
    PAPERS,
    SAMPLERS,
    SNR,
    exact,
    log_density,
    rows,
    times_of,
)


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


@pytest.mark.parametrize("name", ["score SDE, VP", "score SDE, VE"])
def test_the_noising_diffusions_of_all_conventions_are_one(name, generator):
    t = inner_times(32, generator)
    eta = translate_level(SAMPLERS[name].level, PAPERS[name].convention, book)(t)
    expect(worst(LEVEL, eta / noising_diffusion(linear)(t) - 1))
    refute(worst(LEVEL, eta / noising_diffusion(linear)(1 - t) - 1), "clock: read at 1 - t")


def test_flow_matching_ends_in_a_noise_of_one_hundredth_unless_told():
    end = scalar(1.0)
    assert papers.flow_matching().schedule.sigma(end).item() == pytest.approx(0.01)
    assert papers.flow_matching(0.2).schedule.sigma(end).item() == pytest.approx(0.2)
