"""Bridges: the joint precision, quadrature, simulation, plans by another algorithm."""

import itertools
import math

import pytest
import scipy.integrate
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws import F64, same_rows
from onepath.bridges import (
    GaussianBridge,
    contraction,
    fitted,
    hilbert,
    proportional_fitting,
    refitted,
)
from onepath.calculus import constant, jacobian
from onepath.couplings import sinkhorn
from onepath.dynamics import Dynamics
from onepath.measures import gaussian, standard_normal
from onepath.solvers import heun, integrate, times
from onepath.verify import below, continuity, expect, fokker_planck, mean, refute, worst

seeds = st.integers(0, 10_000)


def spd(g, d):
    a = torch.randn(d, d, generator=g, dtype=F64)
    return a @ a.mT / d + 0.2 * torch.eye(d, dtype=F64)


def a_bridge(seed=0, d=2, tau=0.7):
    g = torch.Generator().manual_seed(seed)
    m0, m1 = torch.randn(2, d, generator=g, dtype=F64)
    return GaussianBridge(m0, spd(g, d), m1, spd(g, d), tau)


def line(s0, s1, tau):
    """The bridge between two centred laws of the line with standard deviations s0 and s1."""
    zero, cov = torch.zeros(1, dtype=F64), torch.ones(1, 1, dtype=F64)
    return GaussianBridge(zero, s0**2 * cov, zero, s1**2 * cov, tau)


def joint(bridge, cross):
    return torch.cat([torch.cat([bridge.cov0, cross], 1), torch.cat([cross.mT, bridge.cov1], 1)])


def log_density(bridge):
    def of(t, x):
        law = gaussian(bridge.mean(t), bridge.cov(t))
        return law.log_prob(x)

    return of


@given(seeds, st.integers(1, 4), st.floats(0.05, 5.0))
def test_the_ends_of_a_gaussian_bridge_meet_through_the_kernel_only(seed, d, tau):
    """A plan exp((f + g - |x-y|^2/2)/tau) has the mixed block -I/tau in its precision."""
    bridge = a_bridge(seed, d, tau)
    mixed = lambda cross: torch.linalg.inv(joint(bridge, cross))[:d, d:]
    wanted = -torch.eye(d, dtype=F64) / tau
    expect(worst("eq:gaussian-bridge", mixed(bridge.cross) / mixed(bridge.cross).abs().max()
                 - wanted / mixed(bridge.cross).abs().max(), 1e-7))  # fmt: skip


def test_the_mixed_block_refutes_other_cross_covariances():
    bridge, eye = a_bridge(3, 2, 0.7), torch.eye(2, dtype=F64)
    off = lambda cross: torch.linalg.inv(joint(bridge, cross))[:2, 2:] + eye / bridge.tau
    expect(worst("eq:gaussian-bridge", off(bridge.cross)))
    twice = a_bridge(3, 2, 1.4).cross
    refute(worst("eq:gaussian-bridge", off(twice)), "factor: tau for tau / 2")
    refute(worst("eq:gaussian-bridge", off(bridge.cross.mT)), "wrong object: the transpose")
    root = torch.from_numpy(scipy.linalg.sqrtm((4 * bridge.cov0 @ bridge.cov1).numpy()).real)
    sharp = 0.5 * (root - bridge.tau * eye)
    refute(worst("eq:gaussian-bridge", off(sharp)), "missing term: tau squared under the root")


def test_the_covariance_of_the_ends_is_that_of_sinkhorns_plan_on_a_fine_grid():
    """Quadrature: both laws on 400 points, at weights that are their densities."""
    s0, s1, tau = 0.8, 1.4, 0.81
    x = torch.linspace(-6 * s1, 6 * s1, 400, dtype=F64)[:, None]
    weights = lambda s: torch.softmax(-0.5 * (x[:, 0] / s) ** 2, 0)
    keep = [weights(s) > 1e-30 for s in (s0, s1)]
    a, b = weights(s0)[keep[0]], weights(s1)[keep[1]]
    plan = sinkhorn(x[keep[0]], x[keep[1]], tau, a / a.sum(), b / b.sum(), tolerance=1e-12).matrix
    found = (x[keep[0]] * plan).sum(0) @ x[keep[1]]
    expect(worst("eq:gaussian-bridge", line(s0, s1, tau).cross[0, 0] - found, 1e-7))
    refute(
        worst("eq:gaussian-bridge", line(s0, s1, 2 * tau).cross[0, 0] - found, 1e-7),
        "factor: twice the temperature",
    )


@given(seeds, st.integers(1, 3), st.floats(0.05, 5.0))
def test_drift_and_velocity_of_a_gaussian_bridge_carry_its_marginals(seed, d, tau):
    bridge = a_bridge(seed, d, tau)
    g = torch.Generator().manual_seed(seed + 1)
    x = bridge.mean0 + torch.randn(5, d, generator=g, dtype=F64)
    for at in (0.0, 0.3, 1.0):
        t = torch.tensor(at, dtype=F64)
        rho = log_density(bridge)
        moved = continuity(rho, bridge.velocity, t, x)
        expect(worst("eq:gaussian-bridge-marginals", moved, 1e-6))
        spread = fokker_planck(rho, bridge.drift, constant(math.sqrt(tau)), t, x)
        expect(worst("eq:bridge-drift", spread, 1e-6))


def test_the_marginals_refute_a_bridge_without_its_own_noise():
    bridge = a_bridge(4)
    t, x = torch.tensor(0.4, dtype=F64), torch.randn(5, 2, dtype=F64, generator=torch.Generator())
    cov = lambda t: bridge.cov(t) - t * (1 - t) * bridge.tau * torch.eye(2, dtype=F64)
    quiet = lambda t, x: gaussian(bridge.mean(t), cov(t)).log_prob(x)
    refute(
        worst("eq:gaussian-bridge-marginals", continuity(quiet, bridge.velocity, t, x), 1e-6),
        "missing term: the variance tau t (1 - t) of the Brownian bridges",
    )


def test_the_drift_is_a_gradient_and_solves_the_inviscid_equation_of_a_heat_potential():
    """b = tau grad log phi with d phi/dt + tau/2 lap phi = 0; here b is affine, so its Laplacian
    vanishes and d b/dt + (b . grad) b = 0."""
    bridge = a_bridge(5, 3, 1.3)
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    for at in (0.0, 0.5, 0.99):
        t = torch.tensor(at, dtype=F64)
        slopes = jacobian(bridge.drift, t, x)
        expect(worst("eq:schroedinger-system", slopes - slopes.mT))
        carried = lambda field: torch.einsum("nij,nj->ni", jacobian(field, t, x), field(t, x))
        ahead = torch.func.jvp(lambda s: bridge.drift(s, x), (t,), (torch.ones_like(t),))[1]
        expect(worst("eq:schroedinger-system", ahead + carried(bridge.drift)))
        moved = torch.func.jvp(lambda s: bridge.velocity(s, x), (t,), (torch.ones_like(t),))[1]
        refute(
            worst("eq:schroedinger-system", moved + carried(bridge.velocity)),
            "wrong object: the velocity, whose particles are accelerated",
        )


def test_the_drift_is_the_mean_way_that_is_left_over_the_time_that_is_left():
    bridge, t = a_bridge(6), torch.tensor(0.35, dtype=F64)
    x = torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    C, s = bridge.cross, 0.35
    with_end = (1 - s) * C.mT + s * bridge.cov1
    end = bridge.mean1 + (x - bridge.mean(t)) @ torch.linalg.solve(bridge.cov(t), with_end.mT)
    expect(worst("eq:bridge-drift", bridge.drift(t, x) - (end - x) / (1 - s)))
    swapped = bridge.mean1 + (x - bridge.mean(t)) @ torch.linalg.solve(
        bridge.cov(t), ((1 - s) * C + s * bridge.cov1).mT
    )
    refute(
        worst("eq:bridge-drift", bridge.drift(t, x) - (swapped - x) / (1 - s)),
        "wrong object: the covariance of the ends, transposed",
    )


def test_particles_of_the_bridge_join_its_ends_with_the_right_covariance(generator):
    bridge = line(0.8, 1.4, 0.81)
    x0 = bridge.ends(20_000, generator)[0]
    run = lambda drift: integrate(heun(Dynamics(drift, constant(0.9))), x0, times(40), generator)
    products = lambda x1: (x0 * x1)[:, 0]
    expect(mean("eq:gaussian-bridge", products(run(bridge.drift)), bridge.cross.item()))
    refute(
        mean("eq:gaussian-bridge", products(run(bridge.velocity)), bridge.cross.item()),
        "wrong object: the velocity for the drift",
    )
    pairs = bridge.ends(20_000, generator)
    expect(mean("eq:gaussian-bridge", (pairs[0] * pairs[1])[:, 0], bridge.cross.item()))


def test_pairs_have_the_means_of_their_ends_and_a_covariance_that_is_not_its_transpose(generator):
    bridge = a_bridge(3, 2, 0.3)
    x0, x1 = bridge.ends(20_000, generator)
    for x, m in ((x0, bridge.mean0), (x1, bridge.mean1)):
        for k in range(2):
            expect(mean("eq:gaussian-bridge", x[:, k], m[k].item()))
    refute(mean("eq:gaussian-bridge", x0[:, 0], bridge.mean1[0].item()), "clock: ends exchanged")
    product = (x0 - bridge.mean0)[:, 0] * (x1 - bridge.mean1)[:, 1]
    expect(mean("eq:gaussian-bridge", product, bridge.cross[0, 1].item()))
    refute(
        mean("eq:gaussian-bridge", product, bridge.cross[1, 0].item()),
        "wrong object: the covariance of the ends, transposed",
    )


def test_seen_from_the_future_a_bridge_runs_back_by_its_backward_drift():
    bridge, r = a_bridge(10, 2, 0.6), torch.tensor(0.35, dtype=F64)
    x = torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(4))
    rho = log_density(bridge)
    turned = lambda field: lambda r, x: -field(1 - r, x)
    back = lambda field: worst(
        "eq:two-potentials",
        fokker_planck(lambda r, x: rho(1 - r, x), turned(field), constant(bridge.tau**0.5), r, x),
        1e-8,
    )
    expect(back(bridge.backward_drift))
    refute(back(bridge.drift), "wrong object: the forward drift")
    refute(back(bridge.velocity), "factor: half the score")


@given(d=st.integers(1, 3), n=st.integers(1, 4), each=st.booleans())
def test_a_batch_is_a_loop_over_points_with_a_time_for_all_or_for_each(d, n, each):
    bridge = a_bridge(7, d)
    x = torch.randn(n, d, dtype=F64, generator=torch.Generator().manual_seed(n))
    t = torch.linspace(0, 1, n, dtype=F64) if each else torch.tensor(0.3, dtype=F64)
    for field in (bridge.drift, bridge.backward_drift, bridge.velocity, bridge.score):
        assert same_rows(field, t, x) < 1e-12


def test_iterates_of_markovian_fitting_are_the_known_ones():
    """s0 = 0.8, s1 = 1.4, tau = 0.81 from independent ends; the values were computed elsewhere."""
    bridge, c = line(0.8, 1.4, 0.81), torch.zeros(1, 1, dtype=F64)
    known = [0.702994, 0.779131, 0.785425, 0.785932, 0.785973, 0.785976]
    found = []
    for _ in known:
        c = refitted(bridge, c)
        found.append(c.item())
    expect(worst("eq:markovian-fitting", torch.tensor(found) - torch.tensor(known), 1e-6))


@pytest.mark.parametrize("c", [-0.4, 0.0, 0.6])
def test_on_the_line_a_step_of_fitting_is_one_integral(c):
    s0, s1, tau = 0.8, 1.4, 0.81
    S = lambda t: (1 - t) ** 2 * s0**2 + t**2 * s1**2 + t * (1 - t) * (2 * c + tau)
    area = scipy.integrate.quad(lambda t: 1 / S(t), 0, 1, epsabs=1e-13)[0]
    found = refitted(line(s0, s1, tau), torch.tensor([[c]], dtype=F64))
    step = lambda factor: found - s0 * s1 * math.exp(-factor * tau * area)
    expect(worst("eq:markovian-fitting", step(0.5)))
    refute(worst("eq:markovian-fitting", step(1.0)), "factor: tau for tau / 2")


def test_in_the_plane_a_step_of_fitting_is_what_another_solver_finds():
    bridge = a_bridge(8)
    cross = 0.3 * torch.tensor([[0.5, -0.2], [0.4, 0.1]], dtype=F64)
    S0, S1, C = (v.numpy() for v in (bridge.cov0, bridge.cov1, cross))
    eye = torch.eye(2, dtype=F64).numpy()

    def rate(t, flat):
        S = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T + bridge.tau * eye)
        end = (1 - t) * C.T + t * S1  # Cov(X_1, X_t)
        slope = (end @ scipy.linalg.inv(S) - eye) / (1 - t)
        return (slope @ flat.reshape(2, 2)).ravel()

    run = scipy.integrate.solve_ivp(rate, (0, 1 - 1e-9), eye.ravel(), rtol=1e-11, atol=1e-12)
    expected = torch.from_numpy(S0 @ run.y[:, -1].reshape(2, 2).T)
    expect(worst("eq:markovian-fitting", refitted(bridge, cross) - expected, 1e-7))
    refute(
        worst("eq:markovian-fitting", refitted(bridge, cross.mT) - expected, 1e-7),
        "wrong object: the covariance of the ends, transposed",
    )


@settings(max_examples=6)
@given(seeds, st.integers(1, 3))
def test_only_the_bridges_own_covariance_stays(seed, d):
    bridge = a_bridge(seed, d)
    expect(worst("eq:markovian-fitting", refitted(bridge, bridge.cross) - bridge.cross, 1e-8))
    moved = refitted(bridge, 0.5 * bridge.cross) - 0.5 * bridge.cross
    refute(worst("eq:markovian-fitting", moved, 1e-8), "factor: half the covariance")


def a_problem(seed=0, n=5, m=6, tau=0.5):
    g = torch.Generator().manual_seed(seed)
    x, y = standard_normal(2, torch.zeros(1, dtype=F64)).sample(n + m, g).split([n, m])
    p0, p1 = (w / w.sum() for w in torch.rand(n + m, generator=g, dtype=F64).split([n, m]))
    cost = 0.5 * (x[:, None] - y).square().sum(2)
    return x, y, p0, p1, (-cost / tau).exp()


def plan(kernel, a, b):
    return a[:, None] * kernel * b


def kl(p, q):
    return (p * (p / q).log()).sum().item()


def test_each_half_sweep_makes_one_margin_exact():
    _, _, p0, p1, K = a_problem()
    sweeps = proportional_fitting(K, p0, p1)
    for margin, axis in [(p0, 1), (p1, 0), (p0, 1), (p1, 0)]:
        pi = plan(K, *next(sweeps))
        expect(worst("eq:proportional-fitting", pi.sum(axis) - margin, 1e-14))
        other = pi.sum(1 - axis) - (p1 if axis else p0)
        refute(worst("eq:proportional-fitting", other, 1e-14), "wrong object: the other margin")


def test_fitting_ends_at_the_plan_that_another_algorithm_finds():
    x, y, p0, p1, K = a_problem(1)
    a, b = next(itertools.islice(proportional_fitting(K, p0, p1), 800, None))
    other = sinkhorn(x, y, 0.5, p0, p1, tolerance=1e-13).matrix
    expect(worst("eq:proportional-fitting", plan(K, a, b) - other, 1e-10))
    warm = sinkhorn(x, y, 1.0, p0, p1, tolerance=1e-13).matrix
    refute(worst("eq:proportional-fitting", plan(K, a, b) - warm, 1e-10), "factor: 2 tau for tau")


def test_the_divergences_of_all_half_sweeps_sum_to_that_of_the_plan_from_the_reference():
    """Each half sweep is a projection, and the Pythagorean identity telescopes: the reference is
    the normalised kernel with its own first margin replaced by p0."""
    x, y, p0, p1, K = a_problem(2)
    final = sinkhorn(x, y, 0.5, p0, p1, tolerance=1e-14).matrix
    reference = plan(K, *next(proportional_fitting(K, p0, p1)))  # p0 exact already
    total, sweeps = 0.0, proportional_fitting(K, p0, p1)
    next(sweeps)
    before = reference
    for margin, axis in [(p1, 0), (p0, 1)] * 300:
        total += kl(margin, before.sum(axis))
        before = plan(K, *next(sweeps))
    gap = torch.tensor([total - kl(final, reference)])
    expect(worst("eq:proportional-fitting", gap, 1e-10))
    refute(
        worst("eq:proportional-fitting", gap + kl(p1, reference.sum(0)), 1e-10),
        "missing term: the first half sweep",
    )


@given(seeds)
def test_a_half_sweep_contracts_hilberts_distance_at_least_by_birkhoffs_factor(seed):
    *_, K = a_problem(seed)
    g = torch.Generator().manual_seed(seed)
    a, b = (2 * torch.randn(2, 6, generator=g, dtype=F64)).exp()
    expect(below("eq:contraction", hilbert(K @ a, K @ b).item(),
                 (contraction(K) * hilbert(a, b)).item()))  # fmt: skip


def test_birkhoffs_factor_is_the_least():
    """Vectors near a corner of the worst two columns come as close to the bound as one likes."""
    *_, K = a_problem(4, 3, 2)
    a, b = torch.ones(2, dtype=F64), torch.ones(2, dtype=F64)
    best, reached = contraction(K).item(), 0.0
    for level in torch.linspace(-12, 12, 400, dtype=F64):
        a[0], b[0] = level.exp(), (level + 1e-3).exp()
        reached = max(reached, (hilbert(K @ a, K @ b) / hilbert(a, b)).item())
    assert 0.999 * best < reached < (1 + 1e-6) * best


def test_birkhoffs_factor_by_its_definition():
    *_, K = a_problem(5, 4, 3)
    logs = [
        math.log(K[i, k] * K[j, m] / (K[j, k] * K[i, m]))
        for i, j in itertools.product(range(4), repeat=2)
        for k, m in itertools.product(range(3), repeat=2)
    ]
    expect(worst("eq:contraction", contraction(K) - math.tanh(max(logs) / 4), 1e-14))
    refute(
        worst("eq:contraction", contraction(K) - math.tanh(max(logs) / 2), 1e-14),
        "factor: a half for a quarter",
    )


def test_hilberts_distance_is_a_largest_ratio_and_does_not_see_scales():
    a, b = torch.tensor([1.0, 2.0, 5.0], dtype=F64), torch.tensor([3.0, 1.0, 1.0], dtype=F64)
    ratios = [a[i] * b[j] / (a[j] * b[i]) for i in range(3) for j in range(3)]
    expect(worst("eq:contraction", hilbert(a, b) - max(ratios).log(), 1e-14))
    expect(worst("eq:contraction", hilbert(7 * a, b) - hilbert(a, b), 1e-14))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_positive_and_finite(tau):
    with pytest.raises(ValueError, match="positive and finite temperature"):
        line(1.0, 1.0, tau)


def test_degenerate_covariances_are_refused():
    zero, eye = torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    flat = torch.diag(torch.tensor([1.0, 0.0], dtype=F64))
    with pytest.raises(ValueError, match="second covariance must be positive definite"):
        GaussianBridge(zero, eye, zero, flat, 1.0)
    with pytest.raises(ValueError, match="first covariance must be positive definite"):
        GaussianBridge(zero, flat, zero, eye, 1.0)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("seed", range(4))
def test_ends_that_determine_each_other_are_a_law_in_any_unit(seed, unit):
    """The second end is a map of the first: what is left of it is zero, up to rounding."""
    g = torch.Generator().manual_seed(seed)
    cov0, T, zero = spd(g, 3), torch.randn(3, 3, generator=g, dtype=F64), torch.zeros(3, dtype=F64)
    pair = GaussianBridge(zero, unit**2 * cov0, zero, unit**2 * T @ cov0 @ T.mT, unit**2)
    same = GaussianBridge(zero, cov0, zero, T @ cov0 @ T.mT + 1e-9 * torch.eye(3, dtype=F64), 1.0)
    fitted_here = refitted(pair, unit**2 * cov0 @ T.mT) / unit**2
    expect(worst("eq:markovian-fitting", fitted_here - refitted(same, cov0 @ T.mT), 1e-6))


def test_impossible_cross_covariances_are_refused():
    bridge = a_bridge(9)
    with pytest.raises(ValueError, match="no ends have this cross covariance"):
        refitted(bridge, 10 * torch.eye(2, dtype=F64))
    with pytest.raises(ValueError, match="finite and"):
        refitted(bridge, torch.zeros(1, 1, dtype=F64))


def test_kernels_that_lead_nowhere_are_refused():
    _, _, p0, p1, K = a_problem()
    K[2] = 0.0
    with pytest.raises(ValueError, match="leads it nowhere"):
        proportional_fitting(K, p0, p1)
    with pytest.raises(ValueError, match="a row for each weight"):
        proportional_fitting(K.mT, p0, p1)
    with pytest.raises(ValueError, match="not negative"):
        proportional_fitting(-K, p0, p1)
    with pytest.raises(ValueError, match="positive, finite kernel"):
        contraction(K)
    with pytest.raises(ValueError, match="two positive, finite vectors"):
        hilbert(p0, -p0)


def test_points_without_mass_are_left_out_of_the_plan():
    """Where there is no mass the kernel may be zero; where it leads to such points only it may
    not."""
    _, _, p0, p1, K = a_problem(7)
    none0, none1, bare = p0.clone(), p1.clone(), K.clone()
    none0[1], none1[4] = 0.0, 0.0
    none0, none1 = none0 / none0.sum(), none1 / none1.sum()
    bare[1], bare[:, 4] = 0.0, 0.0
    a, b, _ = fitted(bare, none0, none1)
    assert a[1] == 0 and b[4] == 0
    assert torch.allclose(plan(bare, a, b).sum(1), none0, atol=1e-9)
    assert torch.allclose(plan(bare, a, b).sum(0), none1, atol=1e-9)
    rows, columns = [i for i in range(5) if i != 1], [j for j in range(6) if j != 4]
    kept = K[rows][:, columns]
    inner = plan(kept, *fitted(kept, none0[rows], none1[columns])[:2])
    expect(worst("eq:proportional-fitting", plan(bare, a, b)[rows][:, columns] - inner, 1e-8))
    only = K.clone()
    only[0] = 0.0
    only[0, 4] = 1.0
    with pytest.raises(ValueError, match="leads it nowhere"):
        proportional_fitting(only, none0, none1)


def test_ends_want_a_generator_of_their_device(device):
    bridge = GaussianBridge(
        *(v.to(device) for v in (torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64)) * 2), tau=1.0
    )
    x0, x1 = bridge.ends(3, torch.Generator(device).manual_seed(0))
    assert x0.shape == x1.shape == (3, 1) and x0.device.type == device.type
    again, other = (bridge.ends(3, torch.Generator(device).manual_seed(k)) for k in (0, 1))
    assert torch.equal(again[1], x1) and not torch.equal(other[1], x1)


def test_a_plan_that_is_returned_has_both_margins():
    x, y, p0, p1, K = a_problem(6)
    a, b, sweeps = fitted(K, p0, p1, tolerance=1e-12)
    expect(worst("eq:proportional-fitting", plan(K, a, b).sum(1) - p0, 1e-11))
    other = sinkhorn(x, y, 0.5, p0, p1, tolerance=1e-13).matrix
    expect(worst("eq:proportional-fitting", plan(K, a, b) - other, 1e-9))
    assert 2 < sweeps < 1000


def test_fitting_that_does_not_end_says_so():
    """The kernel never leads from the second point to the first, and the margins would need it."""
    K = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    half, other = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=F64)
    with pytest.raises(ValueError, match="got 0.2 after 50 sweeps"):
        fitted(K, half, other, most=50)
    with pytest.raises(ValueError, match="after 50 sweeps"):
        fitted(K, half, half, most=50)  # there is a plan, at the end of an infinite way
    with pytest.raises(ValueError, match="tolerance and most"):
        fitted(K, half, half, tolerance=0.0)
