"""Couplings: margins that stay, costs known in closed form, plans of other libraries."""

import math

import ot
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64
from onepath import couplings
from onepath.couplings import (
    gaussian_optimal,
    independent,
    minibatch_optimal,
    paired,
    pool,
    served,
    sinkhorn,
)
from onepath.measures import gaussian
from onepath.metrics import gaussian_wasserstein2
from onepath.plane import eight_gaussians, two_moons
from onepath.transport import optimal_plan
from onepath.verify import expect, mean, refute, worst

seeds = st.integers(0, 10_000)


def cloud(seed, n, d, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=F64) + shift


def weights(seed, n):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.05
    return w / w.sum()


def squares(x, y):
    return (x[:, None] - y).square().sum(2)


def rows(x):
    return sorted(map(tuple, x.tolist()))


ALL = [independent, paired, minibatch_optimal]


@pytest.mark.parametrize("coupling", ALL)
@pytest.mark.parametrize("n, d", [(1, 1), (2, 2), (7, 3)])
def test_a_coupling_keeps_the_starts_in_order_and_uses_each_target_once(coupling, n, d, generator):
    x0, x1 = cloud(1, n, d), cloud(2, n, d, 0.5)
    y0, y1 = coupling(x0, x1, generator)
    assert torch.equal(y0, x0) and rows(y1) == rows(x1)


@pytest.mark.parametrize("coupling", ALL)
def test_couplings_run_on_every_device_in_the_dtype_of_the_batch(coupling, device):
    x0, x1 = cloud(1, 5, 2).float().to(device), cloud(2, 5, 2).float().to(device)
    y0, y1 = coupling(x0, x1, torch.Generator(device).manual_seed(0))
    assert y1.device == x1.device and y1.dtype == torch.float32 and y0 is x0


def test_independent_pairs_forget_that_they_came_as_pairs(generator):
    x = cloud(3, 20_000, 1)
    product = lambda pair: (pair[0] * pair[1])[:, 0]
    expect(mean("eq:minibatch-plan", product(independent(x, x, generator)), 0.0))
    refute(mean("eq:minibatch-plan", product(paired(x, x, generator)), 0.0), "wrong object: paired")


def test_shuffles_follow_their_generator():
    x = cloud(3, 50, 1)
    orders = [independent(x, x, torch.Generator().manual_seed(s))[1] for s in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


# --- optimal within a batch


@given(seeds, st.integers(1, 40), st.integers(1, 4))
def test_the_pairs_of_a_batch_are_the_best_assignment(seed, n, d):
    x0, x1 = cloud(seed, n, d), cloud(seed + 1, n, d, 0.5)
    _, columns = scipy.optimize.linear_sum_assignment(squares(x0, x1).numpy())
    y0, y1 = minibatch_optimal(x0, x1, torch.Generator())
    expect(worst("eq:minibatch-plan", y1 - x1[columns]))
    distances = squares(x0, x1).sqrt().numpy()
    if (scipy.optimize.linear_sum_assignment(distances)[1] != columns).any():
        other = x1[scipy.optimize.linear_sum_assignment(distances)[1]]
        refute(worst("eq:minibatch-plan", y1 - other), "wrong object: distance, not its square")


def test_far_from_the_origin_the_assignment_is_the_same():
    x0, x1 = cloud(5, 60, 2), cloud(6, 60, 2)
    near = minibatch_optimal(x0, x1, torch.Generator())[1]
    far = minibatch_optimal(x0 + 2.0**25, x1 + 2.0**25, torch.Generator())[1]
    assert torch.allclose(far - 2.0**25, near, atol=1e-6)


@pytest.mark.parametrize(
    "n, cost", [(1, 4.24), (2, 4.24 - 3.6 / math.pi), (3, 4.24 - 3.6 * 3 / (2 * math.pi))]
)
def test_the_bias_of_small_batches_is_that_of_order_statistics(n, cost, generator):
    """From N(0, 1) to N(0, 1.8²) a batch is sorted, so the cost is known from the means of order
    statistics: ±1/√π of two, ±3/(2√π) of three. W2² is 0.64, independent pairs cost 4.24."""
    draw = lambda n, g: (
        torch.randn(n, 1, generator=g, dtype=F64),
        1.8 * torch.randn(n, 1, generator=g, dtype=F64),
    )
    x0, x1 = pool(draw, minibatch_optimal, n, 1500, generator)
    per_plan = (x1 - x0).square().view(1500, n).mean(1)
    expect(mean("eq:minibatch-plan", per_plan, cost))
    refute(mean("eq:minibatch-plan", per_plan, 0.64), "wrong object: W2, without the bias")


def test_nearest_neighbours_are_no_coupling():
    x0, x1 = cloud(1, 200, 2), cloud(2, 200, 2, 1.0)
    _, best = minibatch_optimal(x0, x1, torch.Generator())
    nearest = x1[squares(x0, x1).argmin(1)]
    assert (nearest - x0).square().sum() < (best - x0).square().sum()
    expect(worst("eq:minibatch-plan", best.mean(0) - x1.mean(0)))
    refute(worst("eq:minibatch-plan", nearest.mean(0) - x1.mean(0)), "wrong object: nearest")


def test_an_unsolved_plan_is_an_error(monkeypatch):
    plan, about = torch.eye(3, dtype=F64).numpy(), {"warning": "numItermax reached"}
    monkeypatch.setattr(ot, "emd", lambda *a, **k: (plan, about))
    with pytest.raises(ValueError, match="not solved: numItermax reached"):
        minibatch_optimal(cloud(1, 3, 2), cloud(2, 3, 2), torch.Generator())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, g: independent(x, x[:2], g), "one to one, got 3 and 2|'x1'"),
        (lambda x, g: minibatch_optimal(x[:0], x[:0], g), "one point or more"),
        (lambda x, g: minibatch_optimal(x, x * math.nan, g), "finite"),
        (lambda x, g: paired(x, torch.zeros(3, 5), g), "shapes|'x1'"),
    ],
)
def test_batches_that_make_no_pairs_are_refused(call, message, generator):
    with pytest.raises((ValueError, TypeError), match=message):
        call(torch.zeros(3, 2), generator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
@pytest.mark.parametrize("coupling", ALL)
def test_the_generator_lives_where_the_batch_does(coupling):
    x = torch.zeros(3, 2, device="cuda")
    with pytest.raises(ValueError, match="generator lives"):
        coupling(x, x, torch.Generator())


# --- optimal between Gaussians


def two_gaussians():
    m0, m1 = torch.tensor([1.0, -0.5], dtype=F64), torch.tensor([-0.3, 2.0], dtype=F64)
    A = torch.tensor([[1.2, 0.4], [0.4, 0.7]], dtype=F64)
    B = torch.tensor([[0.5, -0.3], [-0.3, 1.1]], dtype=F64)
    return m0, A, m1, B


def test_the_gaussian_coupling_has_the_cost_and_the_margin_of_the_optimal_one(generator):
    m0, A, m1, B = two_gaussians()
    x0 = gaussian(m0, A).sample(20_000, generator)
    y0, y1 = gaussian_optimal(m0, A, m1, B)(x0, torch.zeros_like(x0), generator)
    assert torch.equal(y0, x0)
    best = gaussian_wasserstein2(m0, A, m1, B) ** 2
    expect(mean("thm:brenier", (y1 - y0).square().sum(1), best))
    u = torch.tensor([0.8, -0.6], dtype=F64)
    expect(mean("thm:brenier", ((y1 - m1) @ u).square(), (u @ B @ u).item()))
    expect(mean("thm:brenier", y1 @ u, (u @ m1).item()))
    free = gaussian(m1, B).sample(20_000, generator)
    refute(mean("thm:brenier", (free - y0).square().sum(1), best), "wrong object: independent")


def test_the_gaussian_coupling_takes_the_dtype_of_the_batch(generator):
    coupling = gaussian_optimal(*two_gaussians())
    x0 = torch.zeros(4, 2)
    assert coupling(x0, x0, generator)[1].dtype == torch.float32
    with pytest.raises((ValueError, TypeError), match="one to one|'x1'"):
        coupling(x0, x0[:3], generator)


# --- pairs solved ahead and served several times


def numbered(n, generator):
    """Starts and targets that show by their integer part in which draw they were made."""
    numbered.calls += 1
    x = torch.rand(2, n, 1, generator=generator, dtype=F64)
    return numbered.calls + x[0], numbered.calls + x[1]


@pytest.mark.parametrize(
    "size, plans, batch, reuse", [(6, 4, 8, 3), (5, 2, 10, 1), (4, 1, 2, 2), (2, 3, 1, 2)]
)
def test_every_pair_of_a_pool_is_served_as_often_as_it_is_reused(size, plans, batch, reuse):
    numbered.calls = 0
    g = torch.Generator().manual_seed(1)
    batches = served(numbered, minibatch_optimal, size, plans, batch, reuse, g)
    steps = size * plans // batch
    for pool_number in (0, 1):
        rounds = []
        for _ in range(reuse):
            got = [next(batches) for _ in range(steps)]
            assert all(x0.shape == x1.shape == (batch, 1) for x0, x1 in got)
            rounds.append(torch.cat([torch.cat(pair, dim=1) for pair in got]))
        assert numbered.calls == plans * (pool_number + 1)
        assert all(rows(r) == rows(rounds[0]) for r in rounds)
        assert len(set(rows(rounds[0]))) == size * plans
        # within a plan on the line both ends are in the same order, and no pair crosses plans
        assert torch.equal(rounds[0][:, 0].floor(), rounds[0][:, 1].floor())
        for number in rounds[0][:, 0].floor().unique():
            part = rounds[0][rounds[0][:, 0].floor() == number]
            assert torch.equal(part[:, 0].argsort(), part[:, 1].argsort())


def test_each_round_of_a_pool_is_shuffled_anew():
    g = torch.Generator().manual_seed(1)
    draw = lambda n, g: (torch.randn(n, 1, generator=g), torch.randn(n, 1, generator=g))
    batches = served(draw, independent, 16, 1, 16, 3, g)
    starts = [next(batches)[0] for _ in range(3)]
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])


def test_served_pairs_have_the_law_of_their_plans():
    g = torch.Generator().manual_seed(2)
    draw = lambda n, g: (
        torch.randn(n, 1, generator=g, dtype=F64),
        1.8 * torch.randn(n, 1, generator=g, dtype=F64),
    )
    batches = served(draw, minibatch_optimal, 2, 60, 8, 3, g)
    # one number for each pool, because what a pool serves is not independent
    pools = [torch.cat([(b - a).square() for a, b in (next(batches) for _ in range(45))])]
    pools += [
        torch.cat([(b - a).square() for a, b in (next(batches) for _ in range(45))])
        for _ in range(40)
    ]
    cost = torch.stack([values.mean() for values in pools])
    expect(mean("eq:minibatch-plan", cost, 4.24 - 3.6 / math.pi))
    refute(mean("eq:minibatch-plan", cost, 4.24), "wrong object: independent pairs")


@pytest.mark.parametrize(
    "size, plans, batch, reuse", [(4, 2, 3, 1), (0, 2, 1, 1), (4, 2, 4, 0), (4, 2, 0, 1)]
)
def test_a_pool_is_refused_when_it_is_asked_for(size, plans, batch, reuse, generator):
    with pytest.raises(ValueError, match="batch divides"):
        served(numbered, independent, size, plans, batch, reuse, generator)


def test_a_pool_has_plans(generator):
    with pytest.raises(ValueError, match="plans of one pair or more, got 0 of 3"):
        pool(numbered, independent, 3, 0, generator)


# --- entropic plans


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.1, 0.7, 20.0]))
def test_the_entropic_plan_is_that_of_another_library(seed, n, m, temperature):
    """At the cost ½|x − y|², with weights, in the log domain."""
    x, y, a, b = cloud(seed, n, 2), cloud(seed + 1, m, 2, 0.5), weights(seed, n), weights(seed, m)
    plan = sinkhorn(x, y, temperature, a, b, tolerance=1e-11)
    theirs, log = ot.bregman.sinkhorn_log(
        a.numpy(),
        b.numpy(),
        (0.5 * squares(x, y)).numpy(),
        temperature,
        numItermax=100_000,
        stopThr=1e-13,
        log=True,
    )
    expect(worst("eq:entropic-plan", plan.matrix - torch.from_numpy(theirs), 1e-9))


def test_the_cost_of_the_entropic_plan_has_a_half():
    x, y = cloud(1, 15, 2), cloud(2, 15, 2, 0.5)
    plan = sinkhorn(x, y, 0.3, tolerance=1e-12).matrix
    theirs = lambda cost: torch.from_numpy(
        ot.bregman.sinkhorn_log([], [], cost.numpy(), 0.3, numItermax=50_000, stopThr=1e-13)
    )
    expect(worst("eq:sinkhorn", plan - theirs(0.5 * squares(x, y)), 1e-9))
    refute(worst("eq:sinkhorn", plan - theirs(squares(x, y)), 1e-9), "factor: the cost |x-y|²")


@pytest.mark.parametrize("s0, s1, tau", [(0.8, 1.4, 0.81), (1.0, 0.5, 0.2), (1.2, 0.9, 3.0)])
def test_the_entropic_plan_between_gaussians_is_gaussian(s0, s1, tau):
    """On a grid: the covariance of the ends is √(s₀²s₁² + τ²/4) − τ/2."""
    x = torch.linspace(-7 * s0, 7 * s0, 141, dtype=F64)
    y = torch.linspace(-7 * s1, 7 * s1, 161, dtype=F64)
    a, b = (-0.5 * (x / s0) ** 2).softmax(0), (-0.5 * (y / s1) ** 2).softmax(0)
    plan = sinkhorn(x[:, None], y[:, None], tau, a, b, tolerance=1e-12)
    found = x @ plan.matrix @ y
    expect(worst("eq:entropic-plan", found - (math.sqrt(s0**2 * s1**2 + tau**2 / 4) - tau / 2)))
    refute(
        worst("eq:entropic-plan", found - (math.sqrt(s0**2 * s1**2 + tau**2) - tau)),
        "factor: τ of the cost |x-y|²",
    )


def islands_and_moons(n=300):
    g = torch.Generator().manual_seed(4)
    return eight_gaussians(12.0, 1.5).sample(n, g), 9 * two_moons(0.1).sample(n, g)


@pytest.mark.parametrize("temperature", [0.05, 0.025])
def test_a_temperature_at_which_the_kernel_underflows(temperature):
    x, y = islands_and_moons()
    kernel = (-0.5 * squares(x, y) / temperature).exp()
    v = torch.ones(300, dtype=F64)
    for _ in range(1000):  # the plain algorithm
        u = 1 / (kernel @ v)
        v = 1 / (kernel.mT @ u)
    assert not ((u @ kernel @ v) / 300 - 1).abs() < 1e-9
    plan = sinkhorn(x, y, temperature)
    pi = plan.matrix
    expect(worst("eq:entropic-plan", pi.sum() - 1, 1e-9))
    expect(worst("eq:entropic-plan", pi.sum(1) - plan.a, 1e-12))
    left = (pi.sum(0) - plan.b).abs().sum().item()
    assert left <= 1e-6 and left == pytest.approx(plan.error, abs=1e-11)


def test_the_potentials_certify_the_entropic_plan():
    x, y = islands_and_moons(100)
    plan = sinkhorn(x, y, 1.0, tolerance=1e-10)
    pi, product = plan.matrix, plan.a[:, None] * plan.b
    kl = (pi * (pi / product).log()).sum()
    primal = (pi * 0.5 * squares(x, y)).sum() + 1.0 * kl
    dual = plan.a @ plan.f + plan.b @ plan.g
    expect(worst("eq:entropic-plan", primal - dual, 1e-8))
    refute(worst("eq:entropic-plan", primal - 1.0 * kl - dual, 1e-8), "missing term: the entropy")


def test_a_cold_plan_costs_at_most_temperature_times_log_n_more_than_the_best():
    x, y = islands_and_moons(60)
    best = (optimal_plan(x, y).matrix * squares(x, y)).sum() / 2
    gap = [(sinkhorn(x, y, t).matrix * squares(x, y)).sum() / 2 - best for t in (1.0, 0.1, 0.02)]
    assert 0 < gap[2] < gap[1] < gap[0] < math.log(60)
    assert gap[2] < 0.02 * math.log(60)


@pytest.mark.parametrize("spare", [0.0, 0.01, 1.0])
def test_scalings_that_go_into_the_potentials_change_nothing(spare, monkeypatch):
    x, y, b = cloud(1, 20, 2), cloud(2, 25, 2, 1.0), weights(3, 25)
    usual = sinkhorn(x, y, 0.05, b=b, tolerance=1e-10)
    monkeypatch.setattr(couplings, "SPARE", spare)
    other = sinkhorn(x, y, 0.05, b=b, tolerance=1e-10)
    assert torch.allclose(other.matrix, usual.matrix, atol=1e-10)


@pytest.mark.parametrize("power", [1.0, 1.9, 2.6, 4.0])
def test_a_power_that_is_too_high_is_given_up(power, monkeypatch):
    x, y = islands_and_moons(40)
    usual = sinkhorn(x, y, 0.5, tolerance=1e-10)
    monkeypatch.setattr(couplings, "RELAX", power)
    other = sinkhorn(x, y, 0.5, tolerance=1e-10)
    assert torch.allclose(other.matrix, usual.matrix, atol=1e-10)
    assert power == 1.9 or other.iterations > usual.iterations


def test_mass_that_has_to_cross_a_gulf():
    """Scalings beyond e^100 within one temperature: islands at cost 50 whose masses differ."""
    x = torch.tensor([[0.0], [10.0]], dtype=F64)
    b = torch.tensor([0.6, 0.4], dtype=F64)
    plan = sinkhorn(x, x, 0.05, b=b)
    expected = torch.tensor([[0.5, 0.0], [0.1, 0.4]], dtype=F64)
    assert torch.allclose(plan.matrix, expected, atol=1e-6)
    assert (plan.f[1] - plan.f[0]).item() == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("temperature", [0.002, 0.0005])
def test_scalings_that_leave_the_range_of_floats(temperature):
    """Started cold, unlike `sinkhorn`: the kernel between the islands is e^-250 or 0 until
    the potentials have taken the scalings in; a third island has nothing to take in."""
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=F64)
    a = torch.tensor([0.4, 0.4, 0.2], dtype=F64)
    b = torch.tensor([0.7, 0.1, 0.2], dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    cost = 0.5 * squares(x, x)
    f, g, error, _ = couplings._scale(cost, a, b, zero, zero, temperature, 1e-8, 10_000)
    assert error <= 1e-8 and (f[1] - f[0]).item() == pytest.approx(0.5, rel=0.02)
    expected = torch.tensor([[0.4, 0.0, 0.0], [0.3, 0.1, 0.0], [0.0, 0.0, 0.2]], dtype=F64)
    plan = a[:, None] * b * ((f[:, None] + g - cost) / temperature).exp()
    assert torch.allclose(plan, expected, atol=1e-7)


@pytest.mark.parametrize("every", [1, 3])
def test_how_often_one_looks_changes_nothing(every, monkeypatch):
    x, y = cloud(1, 20, 2), cloud(2, 25, 2, 1.0)
    usual = sinkhorn(x, y, 0.3, tolerance=1e-10).matrix
    monkeypatch.setattr(couplings, "EVERY", every)
    assert torch.allclose(sinkhorn(x, y, 0.3, tolerance=1e-10).matrix, usual, atol=1e-10)


def test_iterations_are_counted_at_all_temperatures():
    x, y = cloud(1, 20, 2), cloud(2, 20, 2)
    largest = 0.5 * squares(x, y).max().item()
    hot = sinkhorn(x, y, 2 * largest)
    assert hot.iterations == 10 and hot.temperature == 2 * largest
    counts = [sinkhorn(x, y, largest / t, tolerance=0.1).iterations for t in (3.9, 4.1, 15.9, 16.1)]
    assert counts == [20, 30, 30, 40]


def test_one_point_or_one_place_is_a_plan():
    one, two = torch.zeros(1, 2, dtype=F64), cloud(1, 4, 2)
    assert torch.allclose(sinkhorn(one, two, 0.1).matrix, torch.full((1, 4), 0.25, dtype=F64))
    same = sinkhorn(two * 0, two * 0, 1e-3)
    assert torch.allclose(same.matrix, torch.full((4, 4), 1 / 16, dtype=F64))


def test_far_from_the_origin_the_entropic_plan_is_the_same():
    x, y = cloud(5, 40, 2), cloud(6, 40, 2)
    near, far = sinkhorn(x, y, 0.5).matrix, sinkhorn(x + 2.0**25, y + 2.0**25, 0.5).matrix
    assert torch.allclose(near, far, atol=1e-6)


def test_partners_follow_the_plan(generator):
    """eq:entropic-plan as a law: frequencies of pairs, and every x once."""
    x, y = cloud(1, 3, 1), cloud(2, 4, 1, 0.5)
    a, b = weights(1, 3), weights(2, 4)
    plan = sinkhorn(x, y, 0.4, a, b, tolerance=1e-10)
    drawn = torch.stack([plan.partners(generator) for _ in range(4000)])
    assert drawn.shape == (4000, 3) and drawn.unique().tolist() == [0, 1, 2, 3]
    given_x = plan.matrix / a[:, None]
    for j in range(4):
        hits = (drawn == j).double()
        for i in range(3):
            expect(mean("eq:entropic-plan", hits[:, i], given_x[i, j].item()))
        expect(mean("eq:entropic-plan", hits @ a, b[j].item()))
    most = given_x.argmax(1)[0].item()
    greedy = (drawn[:, 0] == most).double()
    refute(mean("eq:entropic-plan", greedy, 1.0), "wrong object: the most likely partner")


def test_single_precision_and_devices_come_back_as_float64_where_they_were(device):
    x = cloud(1, 30, 2).float().to(device)
    plan = sinkhorn(x, x + 1, 0.1)
    assert plan.matrix.dtype == F64 and plan.matrix.device == x.device
    assert plan.partners(torch.Generator(device).manual_seed(0)).device == x.device
    third = torch.full((30,), 1 / 30, device=device)
    other = sinkhorn(x, x + 1, 0.1, third, third)
    assert torch.allclose(plan.matrix, other.matrix, atol=1e-9)
    assert other.a.sum().item() == pytest.approx(1, abs=1e-14)


BAD = [
    (lambda x, w: sinkhorn(x, x, 0.0), "at least 1e-9 of the largest cost"),
    (lambda x, w: sinkhorn(x, x, -1.0), "positive"),
    (lambda x, w: sinkhorn(x, x, math.nan), "got nan"),
    (lambda x, w: sinkhorn(x, x, math.inf), "got inf"),
    (lambda x, w: sinkhorn(x * 0, x * 0, 0.0), "got 0.0; use transport.optimal_plan"),
    (lambda x, w: sinkhorn(x, x, 4e-10), "largest cost 0.5, got 4e-10"),
    (lambda x, w: sinkhorn(x, x, 0.1, w, w * 1.1), "sum to 1"),
    (lambda x, w: sinkhorn(x, x, 0.1, w, torch.tensor([1.0, 0.0], dtype=F64)), "leave the point"),
    (lambda x, w: sinkhorn(x, x, 0.1, w, torch.ones(3, dtype=F64) / 3), "one weight|'b'"),
    (lambda x, w: sinkhorn(x, x * math.nan, 0.1), "finite"),
    (lambda x, w: sinkhorn(x, x[:0], 0.1), "one point or more"),
    (lambda x, w: sinkhorn(x, x, 0.1, tolerance=0.0), "positive, got 0.0 and"),
    (lambda x, w: sinkhorn(x, x, 0.1, most=0), "positive, got 1e-06 and 0"),
]


@pytest.mark.parametrize("call, message", BAD)
def test_what_has_no_entropic_plan_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(torch.tensor([[0.0], [1.0]], dtype=F64), torch.tensor([0.5, 0.5], dtype=F64))


def test_the_smallest_temperature_is_accepted():
    x = torch.tensor([[0.0], [1.0]], dtype=F64)
    plan = sinkhorn(x, x, 5.1e-10)
    assert torch.allclose(plan.matrix, 0.5 * torch.eye(2, dtype=F64))


def test_margins_that_are_not_reached_are_an_error():
    x, y = islands_and_moons(50)
    with pytest.raises(ValueError, match="reach the tolerance 1e-12, got .* after 15 iterations"):
        sinkhorn(x, y, 0.05, tolerance=1e-12, most=15)
