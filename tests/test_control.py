"""Claims of chapter 17: what steering costs, and the equations of the least cost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from laws import F64, inner_times, points, random_mixture, same_rows, scalar
from onepath.calculus import constant, gradient, zero
from onepath.control import (
    account,
    adjoint,
    adjoint_matching,
    controlled,
    feynman_kac,
    hamilton_jacobi_bellman,
    no_cost,
    optimal_control,
)
from onepath.dynamics import Dynamics
from onepath.interpolants import noising_diffusion, trigonometric, variance_preserving
from onepath.measures import gaussian
from onepath.metrics import gaussian_kl
from onepath.oracles import MixturePath
from onepath.solvers import euler, integrate, times, trajectory
from onepath.verify import below, expect, mean, order, refute, worst


def column(a):
    return a[:, None] if a.ndim else a


BASE = Dynamics(lambda t, x: -0.4 * x + x.sin(), lambda t: 0.5 + t)
FREE = Dynamics(lambda t, x: 0 * x, constant(1.0))
bowl = lambda t, x: 0.5 * (1 + t) * (x**2).sum(1)
end_cost = lambda x: 0.5 * ((x - 0.3) ** 2).sum(1) + x[:, 0].cos()
bend = lambda t, x: (x + column(t)).sin() - 0.3


def riccati(c, q, eta, t):
    """The coefficient of ½|x|² in the value, for no drift and running cost ½q|x|²."""
    w = q**0.5 * eta
    th = (w * (1 - t)).tanh()
    return (c * eta * eta + w * th) / (w + c * eta**2 * th) * w / eta**2


def lq_value(c, q, eta, d):
    """In closed form, by the formula of Cameron and Martin."""
    w = q**0.5 * eta

    def value(t, x):
        volume = ((w * (1 - t)).cosh() + c * eta**2 / w * (w * (1 - t)).sinh()).log()
        return 0.5 * riccati(c, q, eta, t) * (x**2).sum(1) + 0.5 * d * volume

    return value


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("each", [False, True])
def test_the_linear_quadratic_value_solves_both_equations(d, each, generator):
    c, q, eta = 0.8, 1.7, 1.3
    base, value = Dynamics(lambda t, x: 0 * x, constant(eta)), lq_value(c, q, eta, d)
    t = inner_times(20, generator) if each else scalar(0.35)
    x = points(20, generator, d=d, scale=1.0)
    cost = lambda t, x: 0.5 * q * (x**2).sum(1)
    psi = lambda t, x: (-value(t, x)).exp()
    hjb = lambda v=value, f=cost, b=base: hamilton_jacobi_bellman(v, b, f, t, x)
    kac = lambda p=psi, f=cost, b=base: feynman_kac(p, b, f, t, x)
    end = scalar(1.0)
    expect(worst("eq:hjb", value(end, x) - 0.5 * c * (x**2).sum(1)))
    expect(worst("eq:hjb", hjb()))
    expect(worst("eq:cole-hopf", kac()))
    refute(worst("eq:hjb", hjb(lambda t, x: -value(t, x))), "sign: of the value")
    refute(worst("eq:hjb", hjb(lambda t, x: 2 * value(t, x))), "factor: twice the value")
    refute(worst("eq:hjb", hjb(f=no_cost)), "missing term: running cost")
    refute(worst("eq:cole-hopf", kac(f=lambda t, x: -cost(t, x))), "sign: of the running cost")
    refute(worst("eq:cole-hopf", kac(f=no_cost)), "missing term: killing")
    loud = Dynamics(base.drift, constant(2**0.5 * eta))
    refute(worst("eq:cole-hopf", kac(b=loud)), "factor: η² for ½η²")
    refute(worst("eq:hjb", hjb(b=loud)), "factor: 2η² for η²")


@pytest.mark.parametrize("schedule", [trigonometric, variance_preserving()], ids=["trig", "VP"])
def test_reverse_sampling_is_a_control_problem(schedule, generator):
    """V = -log rho solves it, with the divergence of the noising drift as running cost."""
    path = MixturePath(schedule, random_mixture(3, 2, 3))
    g, t = noising_diffusion(schedule), inner_times(24, generator)
    x = path.sample(t, 24, generator)
    growth = lambda t: gradient(lambda s, y: schedule.alpha(y[:, 0]).log(), t, column(t))[:, 0]
    grow = lambda t: growth(t.reshape(-1)).reshape(t.shape)
    base = Dynamics(lambda t, x: column(grow(t)) * x, g)
    cost = lambda t, x: -2 * grow(t) + 0 * x[:, 0]
    value = lambda t, x: -path.log_density(t, x)
    check = lambda v=value, b=base, f=cost: worst(
        "eq:reversal-value", hamilton_jacobi_bellman(v, b, f, t, x), 1e-7
    )
    expect(check())
    refute(check(f=no_cost), "missing term: divergence")
    refute(check(f=lambda t, x: -cost(t, x)), "sign: of the running cost")
    inwards = Dynamics(lambda t, x: -base.drift(t, x), g)
    refute(check(b=inwards), "sign: the noising drift not turned")
    push = optimal_control(value, g)(t, x)
    expect(worst("eq:best-control", push - column(g(t)) * path.score(t, x)))
    refute(worst("eq:best-control", push + column(g(t)) * path.score(t, x)), "sign: uphill")


def test_a_control_enters_through_the_noise(generator):
    t, x = inner_times(9, generator), points(9, generator)
    steered = controlled(BASE, bend)
    gap = steered.drift(t, x) - BASE.drift(t, x)
    expect(worst("eq:controlled", gap - (0.5 + t)[:, None] * bend(t, x)))
    assert steered.eta is BASE.eta


@pytest.mark.parametrize("steps", [1, 3])
def test_the_ratio_of_two_chains_is_that_of_their_gaussian_densities(steps, generator):
    """Replay the noise, and divide products of transition densities by hand."""
    grid, x = times(steps, 0.2, 0.8), points(6, generator)
    seeded = lambda: torch.Generator().manual_seed(7)
    run = account(BASE, bend, bowl, end_cost, x, grid, seeded())
    redraw = seeded()
    log_ratio, energy, spent, y = 0.0, 0.0, 0.0, x
    for t, h in zip(grid[:-1], grid.diff()):
        u, eta = bend(t, y), 0.5 + t
        xi = torch.randn(6, 5, generator=redraw, dtype=F64)[:, :2]
        there = y + h * (BASE.drift(t, y) + eta * u) + eta * h.sqrt() * xi
        normal = torch.distributions.Normal(0.0, eta * h.sqrt())
        density = lambda mean, y=there, law=normal: law.log_prob(y - mean).sum(1)
        free = y + h * BASE.drift(t, y)
        log_ratio = log_ratio + density(free) - density(free + h * eta * u)
        energy, spent = energy + 0.5 * h * (u**2).sum(1), spent + h * bowl(t, y)
        y = there
    expect(worst("eq:girsanov", run.end - y))
    expect(worst("eq:girsanov", run.log_ratio - log_ratio))
    refute(worst("eq:girsanov", run.log_ratio - log_ratio - energy), "missing term: energy")
    refute(worst("eq:girsanov", run.log_ratio + log_ratio), "sign: controlled over uncontrolled")
    expect(worst("eq:control-objective", run.energy - energy))
    expect(worst("eq:control-objective", run.work - spent - end_cost(y)))
    refute(worst("eq:control-objective", run.work - spent), "missing term: end cost")
    expect(worst("eq:control-objective", run.cost - run.energy - run.work))
    expect(worst("eq:control-weights", run.log_weight - log_ratio + spent + end_cost(y)))


def test_every_control_has_the_same_mean_weight(generator):
    """Against plain Monte Carlo of the same chain, whose mean is known for an LQ problem."""
    c, m, n = 2.0, 5, 40_000
    grid, x = times(m), torch.full((n, 1), 0.6, dtype=F64)
    cost = lambda x: 0.5 * c * (x**2).sum(1)
    exact = (1 + c) ** -0.5 * torch.tensor(-0.5 * c * 0.36 / (1 + c)).exp().item()
    for control in (lambda t, x: 0 * x, lambda t, x: -c * x / (1 + c * (1 - t)), bend):
        run = account(FREE, control, no_cost, cost, x, grid, generator)
        expect(mean("eq:control-weights", run.log_weight.exp(), exact))
    refute(mean("eq:control-weights", (-run.work).exp(), exact), "missing term: no ratio")
    refute(mean("eq:control-weights", (run.log_weight + run.energy).exp(), exact), "factor: energy")


def test_the_energy_is_the_relative_entropy_of_the_chains(generator):
    """Joint Gaussian laws of all states, from linear algebra."""
    m, n, gain = 6, 30_000, 0.9
    grid, h = times(m), 1 / m
    noise = torch.eye(m, dtype=F64) * h**0.5
    free = torch.ones(m, m, dtype=F64).tril()
    pulled = torch.tensor([[(1 - h * gain) ** (i - j) for j in range(m)] for i in range(m)])
    pulled = pulled.to(F64).tril()
    cov = lambda A: A @ noise @ noise @ A.T
    start = torch.tensor([(1 - h * gain) ** (i + 1) for i in range(m)], dtype=F64)
    exact = gaussian_kl(start, cov(pulled), torch.ones(m, dtype=F64), cov(free))
    x = torch.ones(n, 1, dtype=F64)
    end = lambda x: 0 * x[:, 0]
    run = account(FREE, lambda t, x: -gain * x, no_cost, end, x, grid, generator)
    expect(mean("eq:path-kl", run.energy, exact))
    expect(mean("eq:path-kl", -run.log_ratio, exact))
    refute(mean("eq:path-kl", 2 * run.energy, exact), "factor: |u|² without ½")
    refute(mean("eq:path-kl", run.log_ratio, exact), "sign: the other order")


def test_the_best_control_spends_the_same_on_every_run(generator):
    """The spread of the log-weights vanishes with the step, and only with the best control."""
    c, x = 2.0, torch.full((2000, 1), 0.6, dtype=F64)
    cost, value = (
        lambda x: 0.5 * c * (x**2).sum(1),
        lambda t, x: 0.5 * c * (x**2).sum(1) / (1 + c * (1 - t)) + 0.5 * (1 + c * (1 - t)).log(),
    )
    best = optimal_control(value, constant(1.0))
    spread = lambda u, m: account(FREE, u, no_cost, cost, x, times(m), generator).log_weight.var()
    sizes = [10, 40, 160]
    errors = [spread(best, m).item() for m in sizes]
    expect(order("eq:best-law", [1 / m for m in sizes], errors, 1.0))
    half = lambda t, x: 0.5 * best(t, x)
    errors = [spread(half, m).item() for m in sizes]
    refute(order("eq:best-law", [1 / m for m in sizes], errors, 1.0), "factor: half the push")


def replayed(control, x, grid):
    return account(BASE, control, bowl, end_cost, x, grid, torch.Generator().manual_seed(3))


def test_the_whole_adjoint_is_the_derivative_of_the_cost(generator):
    """Automatic differentiation through the run is the second opinion."""
    grid, x = times(8, 0.1, 0.9), points(5, generator)
    slope = torch.func.grad(lambda x: replayed(bend, x, grid).cost.sum())(x)
    run = [x]
    for k in range(1, 9):  # the states of the same run
        part = torch.cat([grid[:k], grid[k : k + 1]])
        run.append(replayed(bend, x, part).end)
    states, steered = torch.stack(run), controlled(BASE, bend)
    charged = lambda t, x: bowl(t, x) + 0.5 * (bend(t, x) ** 2).sum(1)
    whole = adjoint(steered, charged, end_cost, states, grid)
    lean = adjoint(BASE, bowl, end_cost, states, grid)
    expect(worst("eq:lean-adjoint", whole[0] - slope))
    refute(worst("eq:lean-adjoint", lean[0] - slope), "wrong object: the lean adjoint")
    assert whole.shape == states.shape
    expect(
        worst("eq:lean-adjoint", whole[-1] - gradient(lambda t, y: end_cost(y), grid[0], run[-1]))
    )


def test_with_the_whole_adjoint_matching_has_the_gradient_of_the_cost(generator):
    grid, x = times(6), points(4, generator)
    weight = torch.tensor([0.4, -0.3], dtype=F64)
    control = lambda w: lambda t, x: w[0] * x + w[1] * (x + column(t)).sin()
    by_simulation = torch.func.grad(lambda w: replayed(control(w), x, grid).cost.sum())(weight)
    run = torch.stack([x] + [replayed(control(weight), x, grid[: k + 1]).end for k in range(1, 7)])
    steered = controlled(BASE, control(weight))
    charged = lambda t, x: bowl(t, x) + 0.5 * (control(weight)(t, x) ** 2).sum(1)
    whole = adjoint(steered, charged, end_cost, run, grid)
    lean = adjoint(BASE, bowl, end_cost, run, grid)
    loss = lambda w, a: adjoint_matching(control(w), BASE.eta, run, a, grid).sum()
    slope = lambda a: torch.func.grad(lambda w: loss(w, a))(weight)
    expect(worst("eq:adjoint-matching", slope(whole) - by_simulation))
    refute(worst("eq:adjoint-matching", slope(lean) - by_simulation), "wrong object: lean")
    shifted = torch.cat([whole[:1], whole[:-1]])
    refute(worst("eq:adjoint-matching", slope(shifted) - by_simulation), "clock: a at the start")
    refute(worst("eq:adjoint-matching", slope(-whole) - by_simulation), "sign: of the adjoint")


def test_lean_matching_is_stationary_at_the_best_control_of_the_chain(generator):
    """LQ with Euler's steps: the discrete Riccati recursion gives the gains, exactly."""
    c, m, n = 2.0, 5, 40_000
    grid, h = times(m), 1 / m
    k, gains = c, []
    for _ in range(m):
        k = k / (1 + h * k)
        gains.append(k)
    gains = torch.tensor(gains[::-1], dtype=F64)
    cost = lambda x: 0.5 * c * (x**2).sum(1)
    at = lambda t: gains[(t * m).round().long().clamp(max=m - 1)]
    start = torch.randn(n, 1, generator=generator, dtype=F64)

    def slopes(scale, shift=0):
        """The derivative of the loss along a gain factor, run by run."""
        states = trajectory(
            euler(controlled(FREE, lambda t, x: -scale * at(t) * x)), start, grid, generator
        )
        a = adjoint(FREE, no_cost, cost, states, grid)
        control = lambda s: lambda t, x: -s * column(at(t)) * x
        loss = lambda s: adjoint_matching(control(s), FREE.eta, states, a, grid)
        return torch.func.jvp(loss, (scalar(scale),), (scalar(1.0),))[1]

    expect(mean("eq:adjoint-matching", slopes(1.0), 0.0))
    refute(mean("eq:adjoint-matching", slopes(1.3), 0.0), "factor: pushing too hard")
    refute(mean("eq:adjoint-matching", slopes(0.7), 0.0), "factor: pushing too little")


def test_lean_matching_wants_the_adjoint_of_the_end_of_each_step(generator):
    """With a pull home the two ends of a step differ; the gains are Bellman's, of Euler's chain."""
    c, p, m, n = 2.0, 1.5, 5, 20_000
    grid, h = times(m), 1 / m
    kept, k, gains = 1 - h * p, c, []
    for _ in range(m):  # the minimum of ½hu² + ½k(kept x + hu)² is at u = -k kept x / (1 + hk)
        gains.append(k * kept / (1 + h * k))
        k = k * kept**2 / (1 + h * k)
    gains = torch.tensor(gains[::-1], dtype=F64)
    home = Dynamics(lambda t, x: -p * x, constant(1.0))
    best = lambda t, x: -column(gains[(t * m).round().long().clamp(max=m - 1)]) * x
    start = torch.randn(n, 1, generator=generator, dtype=F64)
    states = trajectory(euler(controlled(home, best)), start, grid, generator)
    a = adjoint(home, no_cost, lambda x: 0.5 * c * (x**2).sum(1), states, grid)

    def slopes(adjoints):
        """The derivative of the loss along a gain factor, run by run."""
        control = lambda s: lambda t, x: s * best(t, x)
        loss = lambda s: adjoint_matching(control(s), home.eta, states, adjoints, grid)
        return torch.func.jvp(loss, (scalar(1.0),), (scalar(1.0),))[1]

    expect(mean("eq:adjoint-matching", slopes(a), 0.0))
    early = torch.cat([a[:1], a[:-1]])  # the adjoint of the beginning, where that of the end is due
    refute(mean("eq:adjoint-matching", slopes(early), 0.0), "clock: a at the start of the step")


def test_the_adjoint_costs_no_memory_of_the_network(generator):
    net = torch.eye(2, dtype=F64, requires_grad=True)
    steered = controlled(BASE, lambda t, x: x @ net)
    grid, x = times(3), points(4, generator)
    states = trajectory(euler(steered), x, grid, generator)
    assert states.requires_grad
    assert not adjoint(BASE, bowl, end_cost, states, grid).requires_grad
    loss = adjoint_matching(lambda t, x: x @ net, BASE.eta, states, states, grid)
    assert loss.shape == (4,) and loss.requires_grad


def test_bad_input_says_what_to_do(generator):
    flow, x, grid = Dynamics(lambda t, x: x), points(3, generator), times(2)
    assert flow.eta is zero
    with pytest.raises(ValueError, match="enters through the noise, got a dynamics without"):
        controlled(flow, bend)
    with pytest.raises(ValueError, match="enters through the noise"):
        account(flow, bend, no_cost, end_cost, x, grid, generator)
    with pytest.raises((ValueError, TypeCheckError), match="runs start at points|parameter 'x'"):
        account(BASE, bend, no_cost, end_cost, x[0], grid, generator)
    with pytest.raises(ValueError, match="generator"):
        integrate(euler(controlled(BASE, bend)), x, grid)
    with pytest.raises(ValueError, match="psi is a mean of exponentials and positive, got -"):
        feynman_kac(lambda t, x: -(x**2).sum(1), BASE, no_cost, scalar(0.5), x)
    # the package says it by name; here the annotation, which is checked first, does
    states, refused = torch.stack([x, x]), (ValueError, TypeCheckError)
    with pytest.raises(refused, match="one state for each time, got 2 and 3|parameter 'times'"):
        adjoint(BASE, no_cost, end_cost, states, grid)
    with pytest.raises(refused, match="one adjoint for each time, got 2, 2 and 3|parameter"):
        adjoint_matching(bend, BASE.eta, states, states, grid)


@given(d=st.integers(1, 3), n=st.integers(1, 4), each=st.booleans())
def test_residuals_take_a_time_for_all_or_for_each(d, n, each):
    generator = torch.Generator().manual_seed(10 * d + n)
    x = points(n, generator, d=d, scale=1.0)
    t = inner_times(n, generator) if each else scalar(0.4)
    law = gaussian(torch.zeros(d, dtype=F64), torch.eye(d, dtype=F64))
    value = lambda t, x: -(1 + t) * law.log_prob(x)
    push = optimal_control(value, BASE.eta)
    psi = lambda t, x: (-value(t, x)).exp()
    drift = controlled(BASE, push).drift
    hjb = lambda t, x: hamilton_jacobi_bellman(value, BASE, bowl, t, x)
    kac = lambda t, x: feynman_kac(psi, BASE, bowl, t, x)
    for function in (push, drift, hjb, kac):
        assert same_rows(function, t, x) < 1e-10
    # Cole–Hopf is an identity of derivatives, whether or not the equations hold
    gap = hjb(t, x) + kac(t, x)
    expect(worst("eq:cole-hopf", gap / (1 + hjb(t, x).abs().max())))


def test_the_accounts_keep_the_dtype_of_the_states(generator):
    x = points(3, generator).float()
    run = account(BASE, bend, bowl, end_cost, x, times(3), generator)
    kinds = {a.dtype for a in (run.end, run.energy, run.work, run.log_ratio)}
    assert kinds == {torch.float32}
    states = trajectory(euler(BASE), x, times(3), generator)
    a = adjoint(BASE, bowl, end_cost, states, times(3))
    loss = adjoint_matching(bend, BASE.eta, states, a, times(3))
    assert a.dtype == loss.dtype == torch.float32
    expect(below("eq:adjoint-matching", 0.0, loss.sum().item()))


@pytest.mark.parametrize(("c", "quieter"), [(2.0, "whole"), (-0.5, "lean")])
def test_which_parameter_gradient_is_quieter_depends_on_the_bill(c, quieter, generator):
    """The parameter is a factor before the best control of the chain, where both means vanish."""
    grid = times(40)
    gains = lambda t: -c / (1 + c * (1 - column(t)))
    scaled = lambda s: lambda t, x: s * gains(t) * x
    due = lambda x: 0.5 * c * (x**2).sum(1)
    start = torch.randn(6000, 1, generator=generator, dtype=F64)
    at_best = controlled(FREE, scaled(1.0))
    runs = trajectory(euler(at_best), start, grid, generator)
    charged = lambda t, x: 0.5 * (scaled(1.0)(t, x) ** 2).sum(1)
    lean = adjoint(FREE, no_cost, due, runs, grid)
    whole = adjoint(at_best, charged, due, runs, grid)

    def slopes(a):
        one = torch.ones((), dtype=F64)
        loss = lambda s: adjoint_matching(scaled(s), FREE.eta, runs, a, grid)
        return torch.func.jvp(loss, (one,), (one,))[1]

    noise = {"lean": slopes(lean).var(), "whole": slopes(whole).var()}
    louder = ({"lean", "whole"} - {quieter}).pop()
    for a in (lean, whole):
        expect(mean("eq:adjoint-matching", slopes(a), 0.0))
    assert noise[louder] > 1.3 * noise[quieter]
