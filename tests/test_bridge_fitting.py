"""Fittings: their exact iterates between Gaussians, and what they report when they wander."""

import math
from itertools import islice

import pytest
import torch

from laws import F64
from onepath.bridge_fitting import (
    learner,
    markovian_fitting,
    path_divergence,
    projected,
    reversal_fitting,
    settled,
)
from onepath.bridge_matching import Ends, backward, forward, made_backward, made_forward
from onepath.bridges import GaussianBridge, refitted
from onepath.networks import MLP
from onepath.verify import expect, mean, refute, worst

S0, S1, TAU = 0.8, 1.4, 0.81
number = lambda value: torch.full((1, 1), value, dtype=F64)
LINE = GaussianBridge(number(0.0)[0], number(S0**2), number(0.0)[0], number(S1**2), TAU)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(deviation):
    return lambda n, g: deviation * torch.randn(n, 1, generator=g, dtype=F64)


ENDS = Ends(sample(S0), sample(S1), TAU)


def polynomial(w):
    powers = lambda t: t.reshape(-1, 1) ** torch.arange(5)
    return lambda t, x: (powers(t) @ w[:5])[:, None] * x + (powers(t) @ w[5:])[:, None]


def least_squares(loss):
    """The polynomial in time, affine in the state, that makes a loss least; one Newton step."""
    value = lambda w: loss(polynomial(w), seeded(5)).mean()
    w = torch.zeros(10, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(w), w)
    H = torch.autograd.functional.hessian(value, w)
    return polynomial(-torch.linalg.solve(H, slope))


BOTH = least_squares, least_squares
SIZES = {"keep": 30_000, "batch": 60_000}


def forward_covariance(drift, n=20_000):
    x0, x1 = made_forward(ENDS, drift, 50)(n, seeded(3))
    return (S0**2 * (x0 * x1).mean() / x0.square().mean()).item(), x1.std().item()


def backward_covariance(drift, n=20_000):
    x0, x1 = made_backward(ENDS, drift, 50)(n, seeded(4))
    return (S1**2 * (x0 * x1).mean() / x1.square().mean()).item(), x0.std().item()


def test_the_projection_has_the_drifts_of_the_pairs():
    found = projected(ENDS, TAU, BOTH, 100_000)
    t, x = torch.tensor(0.4, dtype=F64), torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    V = 0.36 * S0**2 + 0.16 * S1**2 + 0.24 * TAU
    slope = (-0.6 * S0**2 + 0.4 * (S1**2 - TAU)) / V
    expect(worst("eq:markovian-projection", found.drift(t, x) - slope * x, 0.05))
    expect(
        worst("eq:markovian-projection", found.backward_drift(t, x) - slope * x - TAU / V * x, 0.05)
    )
    off = found.drift(t, x) - (slope + TAU / V) * x
    refute(worst("eq:markovian-projection", off, 0.05), "wrong object: the other drift")


def test_markovian_fitting_follows_its_exact_iterates():
    exact, c = [], number(0.0)
    for _ in range(4):
        c = refitted(LINE, c)
        exact.append(c.item())
    bridges = list(islice(markovian_fitting(ENDS, ENDS, BOTH, seeded(1), **SIZES), 4))
    found = [
        (backward_covariance(b.backward_drift) if k % 2 else forward_covariance(b.drift))[0]
        for k, b in enumerate(bridges)
    ]
    assert max(abs(a - b) for a, b in zip(found, exact)) < 0.03
    assert abs(found[0] - exact[1]) > 0.045  # the first is not the second


def test_one_drift_is_new_at_each_step_the_backward_one_first():
    first, second, third = islice(markovian_fitting(ENDS, ENDS, BOTH, seeded(1)), 3)
    assert second.drift is first.drift and second.backward_drift is not first.backward_drift
    assert third.backward_drift is second.backward_drift and third.drift is not second.drift


def test_each_drift_learns_from_the_pairs_that_the_other_makes():
    """Learners that push by a constant whatever they see: pairs tell who made them, for of no push
    at all the loss is (E|x1 - x0|^2 + tau)/2, and pairs made by the push c are c + a walk apart."""
    seen = []

    def pusher(c):
        def learn(loss):
            seen.append(loss(lambda t, x: 0 * x, seeded(6)))
            return lambda t, x: 0 * x + c

        return learn

    sizes = {"keep": 30_000, "batch": 5000}
    fitting = markovian_fitting(ENDS, ENDS, (pusher(4.0), pusher(-2.0)), seeded(7), **sizes)
    list(islice(fitting, 4))
    _, _, behind, ahead, again = seen
    for loss, own, other in ((behind, 4.0, -2.0), (ahead, -2.0, 4.0), (again, 4.0, -2.0)):
        expect(mean("eq:markovian-fitting", loss, own**2 / 2 + TAU, z=5.0))
        refute(
            mean("eq:markovian-fitting", loss, other**2 / 2 + TAU, z=5.0), "wrong object: its own"
        )


def test_pairs_of_the_bridge_stay_as_they_are():
    start = lambda n, g: LINE.ends(n, g)
    first = next(markovian_fitting(ENDS, start, BOTH, seeded(2), **SIZES))
    assert abs(forward_covariance(first.drift)[0] - LINE.cross.item()) < 0.03
    assert abs(backward_covariance(first.backward_drift)[0] - LINE.cross.item()) < 0.03


def half_sweep(C, end, variance):
    slope = C[0, 1] / C[end, end]
    new = C.clone()
    new[end, end], new[0, 1], new[1, 0] = variance, slope * variance, slope * variance
    new[1 - end, 1 - end] += slope**2 * (variance - C[end, end])
    return new


def test_reversals_follow_the_scalings_of_the_joint_covariance():
    C = torch.tensor([[S0**2, S0**2], [S0**2, S0**2 + TAU]], dtype=F64)
    exact = []
    for k in range(4):
        exact.append(C[1 - k % 2, 1 - k % 2].sqrt().item())
        C = half_sweep(C, 1 - k % 2, (S1**2, S0**2)[k % 2])
    fitting = reversal_fitting(ENDS, BOTH, seeded(1), keep=10_000, batch=150_000)
    bridges = list(islice(fitting, 4))
    found = [
        (backward_covariance(b.backward_drift) if k % 2 else forward_covariance(b.drift))[1]
        for k, b in enumerate(bridges)
    ]
    assert max(abs(a - b) for a, b in zip(found, exact)) < 0.045
    assert abs(found[0] - math.sqrt(S0**2 + TAU)) < 0.03  # the reference has its own end


def test_both_drifts_of_a_reversal_belong_to_one_process():
    """The first process is the reference: its score is that of a Gaussian that spreads."""
    bridge = next(reversal_fitting(ENDS, BOTH, seeded(1), keep=6000, batch=80_000))
    t, x = torch.tensor(0.5, dtype=F64), torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    score = -x / (S0**2 + 0.5 * TAU)
    expect(worst("eq:half-sweep", bridge.score(t, x) - score, 0.15))
    assert bridge.drift(t, x).abs().max() == 0


def test_path_divergence_is_the_relative_entropy_of_two_walks():
    shift = lambda value: lambda t, x: torch.full_like(x, value)
    start = torch.zeros(50, 1, dtype=F64)
    found = path_divergence(forward(shift(0.7), TAU), shift(-0.2), start, 9, seeded())
    expect(worst("eq:path-kl", found - 0.9**2 / (2 * TAU)))
    refute(worst("eq:path-kl", found - 0.9**2 / TAU), "factor: 1/τ for 1/2τ")


def test_path_divergence_is_taken_along_the_first_process():
    pull = lambda t, x: -x
    still = lambda t, x: 0 * x
    start = sample(1.0)(20_000, seeded(1))
    squares = lambda run: path_divergence(
        run, pull if run.drift is still else still, start, 200, seeded(2)
    )
    away = squares(forward(still, TAU))  # E X² = 1 + τt
    expect(mean("eq:path-kl", away, (1 + TAU / 2) / (2 * TAU), z=5.0))
    home = squares(forward(pull, TAU))  # V' = τ − 2V
    settled_at = TAU / 2
    integral = settled_at + (1 - settled_at) * (1 - math.exp(-2)) / 2
    expect(mean("eq:path-kl", home, integral / (2 * TAU), z=6.0))
    refute(mean("eq:path-kl", home, (1 + TAU / 2) / (2 * TAU)), "wrong object: the other process")


def test_a_fitting_settles_and_the_bridge_is_the_one_that_is_left():
    fitting = markovian_fitting(ENDS, ENDS, BOTH, seeded(1), **SIZES)
    bridge = settled(ENDS, fitting, seeded(2), tolerance=5e-3, most=8)
    assert abs(forward_covariance(bridge.drift)[0] - LINE.cross.item()) < 0.04


def test_what_does_not_settle_is_reported_with_the_distance_that_is_left():
    wild = (polynomial(torch.full((10,), float(k % 3), dtype=F64)) for k in range(100))
    from onepath.bridge_matching import LearnedBridge

    bridges = (LearnedBridge(f, f, TAU) for f in wild)
    with pytest.raises(ValueError, match=r"settle within 0.01 nats, got .* in the last of 4"):
        settled(ENDS, bridges, seeded(), most=4)


def test_both_drifts_count_before_a_fitting_has_settled():
    from onepath.bridge_matching import LearnedBridge

    still, moved = (lambda t, x: 0 * x), (lambda t, x: 0 * x + 1)
    for bridges in ([(still, still), (still, moved)], [(still, still), (moved, still)]):
        line = iter([LearnedBridge(a, b, TAU) for a, b in bridges])
        distance = 1 / (2 * TAU)
        with pytest.raises(ValueError, match=f"got {distance:.3g}"):
            settled(ENDS, line, seeded(), most=2)
    same = LearnedBridge(still, still, TAU)
    assert settled(ENDS, iter([same, same]), seeded()) is same


def test_a_learner_goes_on_from_where_it_was_and_hands_out_frozen_copies():
    net = MLP(1, 8, 1, 0, seeded())
    learn = learner(net, 30, seeded(1))
    loss = lambda field, g: (field(torch.tensor(0.5), torch.ones(4, 1)) - 1).square()[:, 0]
    one = learn(loss)
    before = one(torch.tensor(0.5), torch.ones(1, 1)).item()
    two = learn(loss)
    assert one(torch.tensor(0.5), torch.ones(1, 1)).item() == before
    assert abs(two(torch.tensor(0.5), torch.ones(1, 1)).item() - 1) < abs(before - 1)
    assert not any(p.requires_grad for p in two.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_a_learner_refuses_a_loss_that_is_not_finite_and_a_run_of_no_steps():
    net = MLP(1, 8, 1, 0, seeded())
    with pytest.raises(ValueError, match="loss must be finite, got nan"):
        learner(net, 2, seeded())(lambda f, g: f(torch.tensor(0.5), torch.ones(2, 1)) * math.nan)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        learner(net, 0, seeded())


@pytest.mark.parametrize("size", ["steps", "keep", "batch"])
def test_sizes_are_positive(size):
    with pytest.raises(ValueError, match="at least 1"):
        markovian_fitting(ENDS, ENDS, BOTH, seeded(), **{size: 0})
    with pytest.raises(ValueError, match="at least 1"):
        reversal_fitting(ENDS, BOTH, seeded(), **{size: 0})


def test_ends_are_looked_at_before_anything_is_learned():
    broken = Ends(sample(S0), lambda n, g: torch.zeros(n, 2, dtype=F64), TAU)
    with pytest.raises(ValueError, match="points, .n, d., of one d"):
        markovian_fitting(broken, broken, BOTH, seeded())
    with pytest.raises(ValueError, match="points, .n, d., of one d"):
        reversal_fitting(broken, BOTH, seeded())


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"most": 1}])
def test_a_tolerance_is_positive_and_two_bridges_are_compared(bad):
    with pytest.raises(ValueError, match="tolerance is positive and most above 1"):
        settled(ENDS, iter([]), seeded(), **bad)


def test_the_way_back_is_compared_along_the_way_back():
    still = lambda t, x: 0 * x
    late = lambda t, x: (t > 0.5).to(x) + 0 * x
    start = torch.zeros(10, 1, dtype=F64)
    found = path_divergence(backward(still, TAU), backward(late, TAU).drift, start, 10, seeded())
    expect(worst("eq:path-kl", found - 0.5 / (2 * TAU)))
