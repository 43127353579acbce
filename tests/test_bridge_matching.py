"""Sources of pairs, regressions and runs: closed forms of Gaussian bridges, and simulation."""

import math

import pytest
import torch

from laws import F64
from onepath.bridge_matching import (
    Ends,
    LearnedBridge,
    backward,
    backward_matching,
    coupled,
    entropic,
    forward,
    forward_matching,
    heap,
    made_backward,
    made_forward,
    of_reference,
    rate_matching,
    stored,
)
from onepath.bridges import GaussianBridge
from onepath.calculus import gradient
from onepath.couplings import independent, minibatch_optimal
from onepath.interpolants import bridge as brownian
from onepath.measures import gaussian
from onepath.oracles import MixturePath
from onepath.solvers import euler, integrate, times
from onepath.verify import expect, mean, refute, worst

TAU, M0, M1 = 0.6, torch.tensor([0.2, -0.3], dtype=F64), torch.tensor([-0.4, 0.6], dtype=F64)
S0 = torch.tensor([[0.9, 0.5], [0.5, 0.6]], dtype=F64)
S1 = torch.tensor([[1.1, -0.4], [-0.4, 0.5]], dtype=F64)
EXACT = GaussianBridge(M0, S0, M1, S1, TAU)
LAWS = gaussian(M0, S0), gaussian(M1, S1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def the_ends(tau=TAU):
    return Ends(LAWS[0].sample, LAWS[1].sample, tau)


@pytest.mark.parametrize("matching", [forward_matching, backward_matching])
def test_the_loss_is_the_error_of_a_guess_over_the_time_that_is_left(matching):
    x0, x1, z = normal(40, 2, seed=1), normal(40, 2, seed=2), normal(40, 2, seed=3)
    t = torch.linspace(0.05, 0.95, 40, dtype=F64)
    s = t[:, None]
    state = brownian(TAU)(t, x0, x1, z)
    field = lambda t, x: (x + t[:, None]).sin()
    if matching is forward_matching:
        left, guess, end, other = 1 - t, state + (1 - s) * field(t, state), x1, s
    else:
        left, guess, end, other = t, state - s * field(t, state), x0, 1 - s
    found = matching(field, TAU, t, x0, x1, z)
    by_hand = lambda guess: (guess - end).square().sum(1) / left
    expect(worst("eq:bridge-drifts", found - by_hand(guess)))
    wrong = state + other * field(t, state)
    refute(worst("eq:bridge-drifts", found - by_hand(wrong)), "clock: the other end's time")


@pytest.mark.parametrize("c", [0.0, 0.7])
@pytest.mark.parametrize("matching", [forward_matching, backward_matching])
def test_the_drift_of_the_pairs_makes_the_loss_least(matching, c):
    """At the minimiser the derivative of the mean loss in every direction vanishes."""
    one = torch.eye(1, dtype=F64)
    law = MixturePath(brownian(TAU), gaussian(0 * one[0], 2 * one), gaussian(0 * one[0], one))
    t = torch.tensor(0.4, dtype=F64)
    n = 20_000
    x0 = normal(n, 1, seed=4)
    x1 = c * x0 + math.sqrt(2 - c**2) * normal(n, 1, seed=5)
    V = 0.36 + 0.16 * 2 + 0.24 * (2 * c + TAU)
    if c == 0:
        assert abs(law.covs(t)[..., 0, 0].item() - V) < 1e-12
    G = 0.6 * (c - 1) + 0.4 * (2 - c - TAU)
    slope = G / V if matching is forward_matching else (G + TAU) / V

    def pull(slope):
        a = torch.full((n,), slope, dtype=F64, requires_grad=True)
        field = lambda t, x: a[:, None] * x
        loss = matching(field, TAU, t.expand(n), x0, x1, normal(n, 1, seed=6))
        return torch.autograd.grad(loss.sum(), a)[0]

    expect(mean("eq:markovian-projection", pull(slope), 0.0))
    refute(mean("eq:markovian-projection", pull(slope + 0.2), 0.0), "wrong object: another drift")


@pytest.mark.parametrize("matching", [forward_matching, backward_matching])
def test_the_losses_are_finite_at_both_ends(matching):
    x0, x1, z = normal(6, 2, seed=1), normal(6, 2, seed=2), normal(6, 2, seed=3)
    field = lambda t, x: x
    for at in (0.0, 1.0):
        found = matching(field, TAU, torch.full((6,), at, dtype=F64), x0, x1, z)
        first, last = (field(0, x0) - x1 + x0).square().sum(1), TAU * z.square().sum(1)
        open_end = (at == 0.0) == (matching is forward_matching)
        expect(
            worst(
                "eq:bridge-drifts",
                found
                - (
                    first
                    if open_end and at == 0.0
                    else (field(0, x1) - x1 + x0).square().sum(1)
                    if open_end
                    else last
                ),
            )
        )


def test_one_time_for_all_and_a_time_for_each_are_the_same():
    x0, x1, z = normal(6, 2, seed=1), normal(6, 2, seed=2), normal(6, 2, seed=3)
    t = torch.tensor(0.3, dtype=F64)
    field = lambda t, x: x * x
    for matching in (forward_matching, backward_matching):
        alike = matching(field, TAU, t, x0, x1, z) - matching(field, TAU, t.expand(6), x0, x1, z)
        expect(worst("eq:bridge-drifts", alike))


def test_velocity_and_score_are_half_the_sum_and_the_difference_over_the_temperature():
    learned = LearnedBridge(EXACT.drift, EXACT.backward_drift, TAU)
    t, x = torch.tensor(0.35, dtype=F64), normal(9, 2)
    expect(worst("eq:bridge-drifts", learned.velocity(t, x) - EXACT.velocity(t, x)))
    log_rho = lambda t, x: gaussian(EXACT.mean(t), EXACT.cov(t)).log_prob(x)
    expect(worst("eq:bridge-drifts", learned.score(t, x) - gradient(log_rho, t, x)))
    doubled = LearnedBridge(EXACT.drift, EXACT.backward_drift, 2 * TAU)
    off = doubled.score(t, x) - EXACT.score(t, x)
    refute(worst("eq:bridge-drifts", off), "factor: 2τ for τ")


@pytest.mark.parametrize("i,j", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_bridge_makes_its_own_pairs_in_both_directions(i, j):
    ends, n = the_ends(), 6000
    for draw in (
        made_forward(ends, EXACT.drift, 60),
        made_backward(ends, EXACT.backward_drift, 60),
    ):
        x0, x1 = draw(n, seeded(7))
        product = (x0 - M0)[:, i] * (x1 - M1)[:, j]
        expect(mean("eq:gaussian-bridge", product, EXACT.cross[i, j].item(), z=5.0))
    if i == j == 0:
        x0, x1 = made_forward(ends, EXACT.velocity, 60)(n, seeded(7))
        off = (x1 - M1)[:, 0].square()
        refute(mean("eq:gaussian-bridge", off, S1[0, 0].item(), z=4.0), "wrong object: velocity")


def test_the_way_back_starts_at_the_last_end_and_the_way_there_at_the_first():
    ends = the_ends()
    still = lambda t, x: 0 * x
    x0, _ = made_forward(ends, still, 3)(5, seeded(8))
    assert torch.equal(x0, ends(5, seeded(8))[0])
    _, x1 = made_backward(ends, still, 3)(5, seeded(8))
    assert torch.equal(x1, ends(5, seeded(8))[1])


def test_the_clock_of_the_way_back_runs_from_one_to_zero():
    seen = []

    def drift(t, x):
        seen.append(t.item())
        return x

    made_backward(the_ends(), drift, 4)(3, seeded())
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_forward_and_backward_have_the_noise_of_the_temperature():
    still = lambda t, x: 0 * x
    x = torch.zeros(20_000, 1, dtype=F64)
    for way in (forward, backward):
        last = integrate(euler(way(still, TAU)), x, times(3), seeded(9))
        expect(mean("eq:reversed-drift", last[:, 0] ** 2, TAU))
        refute(mean("eq:reversed-drift", last[:, 0] ** 2, TAU**2), "factor: τ² for τ")


def test_pairs_of_the_reference_are_a_walk_of_length_one():
    x0, x1 = of_reference(the_ends())(20_000, seeded(10))
    step = (x1 - x0)[:, 0]
    expect(mean("eq:static-cost", step**2, TAU))
    refute(mean("eq:static-cost", step**2, TAU**2), "factor: τ² for τ")
    expect(mean("eq:static-cost", step * x0[:, 0], 0.0))


def test_an_entropic_plan_of_a_large_batch_has_nearly_the_bridge_s_covariance():
    draw = coupled(the_ends(), entropic(TAU), 250)
    x0, x1 = draw(3000, seeded(11))
    product = ((x0 - M0) * (x1 - M1)).sum(1)
    assert abs(product.mean() - EXACT.cross.trace()) < 0.12
    loose = coupled(the_ends(), independent, 250)(3000, seeded(11))
    assert abs(((loose[0] - M0) * (loose[1] - M1)).sum(1).mean()) < 0.12
    tight = coupled(the_ends(), minibatch_optimal, 250)(3000, seeded(11))
    assert ((tight[0] - M0) * (tight[1] - M1)).sum(1).mean() > EXACT.cross.trace() + 0.1


def test_an_entropic_plan_uses_each_start_once():
    x0, x1 = LAWS[0].sample(50, seeded(1)), LAWS[1].sample(50, seeded(2))
    first, last = entropic(TAU)(x0, x1, seeded(3))
    assert torch.equal(first, x0)
    assert (last[:, None] == x1).all(2).any(1).all()


@pytest.mark.parametrize("n", [3, 8, 20])
def test_a_draw_of_coupled_pairs_has_the_size_that_was_asked_for(n):
    x0, x1 = coupled(the_ends(), lambda x0, x1, generator: (x0, 3 * x0), 8)(n, seeded())
    assert x0.shape == (n, 2) and torch.equal(x1, 3 * x0)  # shuffled together
    assert len(x0.unique(dim=0)) == n  # no pair twice


def test_stored_pairs_are_made_once_and_stay_together():
    made = []

    def pairs(n, generator):
        made.append(n)
        x = torch.randn(n, 2, generator=generator)
        return x, 3 * x

    draw = stored(pairs, 10, seeded())
    x0, x1 = draw(500, seeded(1))
    assert made == [10] and torch.equal(x1, 3 * x0)
    assert len(x0.unique(dim=0)) == 10


def test_stored_pairs_carry_no_graph():
    weight = torch.ones(1, dtype=F64, requires_grad=True)
    draw = stored(made_forward(the_ends(), lambda t, x: weight * x, 3), 4, seeded())
    assert not draw(2, seeded())[1].requires_grad


def test_a_heap_is_drawn_with_replacement_and_evenly():
    points = torch.arange(4.0)[:, None]
    drawn = heap(points)(8000, seeded())[:, 0]
    expect(mean("eq:minibatch-plan", drawn, 1.5))
    assert set(drawn.tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_a_step_seen_from_where_it_began_teaches_the_drift_and_from_where_it_ended_the_way_back():
    a, V, h, n = -0.7, 0.9, 0.2, 40_000
    x = math.sqrt(V) * normal(n, 1, seed=1)
    later = x + h * a * x + math.sqrt(TAU * h) * normal(n, 1, seed=2)
    W = (1 + h * a) ** 2 * V + h * TAU
    behind = (W - (1 + h * a) * V) / (h * W)

    def pull(slope, at):
        w = torch.full((n,), slope, dtype=F64, requires_grad=True)
        loss = rate_matching(
            lambda t, y: w[:, None] * y, torch.tensor(0.0), at, later - x, torch.tensor(h).double()
        )
        return torch.autograd.grad(loss.sum(), w)[0]

    for slope, at, wrong in ((a, x, behind), (behind, later, a)):
        expect(mean("eq:learned-reversal", pull(slope, at), 0.0))
        refute(mean("eq:learned-reversal", pull(wrong, at), 0.0), "wrong object: the other drift")


def test_the_size_of_a_step_s_loss_does_not_grow_as_the_step_shrinks():
    z = normal(1000, 1)
    for h in (1e-1, 1e-4):
        step = torch.tensor(h, dtype=F64)
        loss = rate_matching(lambda t, x: 0 * x, step, z, h**0.5 * z, step)
        expect(worst("eq:learned-reversal", loss - z[:, 0] ** 2))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_positive_and_finite(tau):
    still = lambda t, x: 0 * x
    x = normal(3, 2)
    for build in (
        lambda: the_ends(tau),
        lambda: LearnedBridge(still, still, tau),
        lambda: forward(still, tau),
        lambda: backward(still, tau),
        lambda: entropic(tau),
        lambda: forward_matching(still, tau, torch.tensor(0.5), x, x, x),
        lambda: backward_matching(still, tau, torch.tensor(0.5), x, x, x),
    ):
        with pytest.raises(ValueError, match="positive and finite temperature"):
            build()


def test_ends_that_do_not_fit_are_refused():
    some, none = heap(normal(5, 2)), lambda n, g: normal(0, 2)
    with pytest.raises(ValueError, match=r"n = 3 points.* got \(0, 2\)"):
        Ends(none, none, TAU)(3, seeded())
    with pytest.raises(ValueError, match="no rows of first"):
        Ends(none, none, TAU)(0, seeded())
    for shape in ((3, 1), (4, 2), (3,)):
        other = lambda n, g, shape=shape: normal(*shape)
        for ends in (Ends(some, other, TAU), Ends(other, some, TAU)):
            with pytest.raises(ValueError, match="n = 3 points, .n, d., of one d"):
                ends(3, seeded())
    for shape in ((4, 2), (3,)):
        alike = lambda n, g, shape=shape: normal(*shape)
        with pytest.raises(ValueError, match="n = 3 points, .n, d., of one d"):
            Ends(alike, alike, TAU)(3, seeded())
    with pytest.raises(ValueError, match="torch.float32 on cpu"):
        Ends(some, lambda n, g: normal(n, 2).float(), TAU)(3, seeded())
    with pytest.raises(ValueError, match="nan or inf in 3 of 3 rows of last"):
        Ends(some, lambda n, g: normal(n, 2) / 0, TAU)(3, seeded())
    with pytest.raises(ValueError, match="no rows of heap"):
        heap(normal(0, 2))
    with pytest.raises((ValueError, TypeError), match=r"a point to a row, got \(5,\)|'points'"):
        heap(normal(5))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"got size = {size}"):
            coupled(the_ends(), independent, size)


def test_pairs_that_do_not_fit_are_refused_by_the_losses():
    still, x, t = lambda t, x: 0 * x, normal(4, 2), torch.tensor(0.5)
    for matching in (forward_matching, backward_matching):
        with pytest.raises(ValueError, match="no rows of first"):
            matching(still, TAU, t, x[:0], x[:0], x[:0])
    with pytest.raises(ValueError, match="no rows of states"):
        rate_matching(still, t, x[:0], x[:0], t)
