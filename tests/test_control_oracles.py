"""Claims of chapter 17: control problems with a closed answer are solved by it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, inner_times, points, random_mixture, same_rows, scalar
from onepath.calculus import gradient, rate
from onepath.control import feynman_kac, hamilton_jacobi_bellman, no_cost
from onepath.control_oracles import (
    LinearProcess,
    MixtureControl,
    brownian,
    gaussian_reversal,
    indifferent,
    linearly_solvable,
    over_standard,
    quadratic,
    relaxation,
)
from onepath.dynamics import with_noise
from onepath.interpolants import (
    linear,
    noising_diffusion,
    trigonometric,
    variance_exploding,
    variance_preserving,
)
from onepath.measures import Mixture, gaussian, standard_normal
from onepath.oracles import MixturePath
from onepath.solvers import heun, integrate, times
from onepath.verify import expect, mean, refute, worst

VP = variance_preserving(0.3, 7.0)
PROCESSES = {
    "brownian": brownian(1.3),
    "relaxation": relaxation(0.8, 0.7),
    "indifferent": indifferent(VP),
    "indifferent, VE": indifferent(variance_exploding(0.05, 3.0)),
    "reversal": gaussian_reversal(VP, 1.7),
    "reversal, trigonometric": gaussian_reversal(trigonometric),
}
every = pytest.mark.parametrize("name", PROCESSES)


@every
def test_the_end_given_a_state_solves_its_two_equations(name, generator):
    p, t, end = PROCESSES[name], inner_times(16, generator), scalar(1.0)
    m = p.mean(t)
    expect(worst("eq:linear-end", (rate(p.mean, t) + p.pull(t) * m) / (1 + p.pull(t).abs()), 1e-7))
    grown = rate(p.variance, t) + (m * p.eta(t)) ** 2
    expect(worst("eq:linear-end", grown / (1 + p.eta(t) ** 2), 1e-7))
    refute(worst("eq:linear-end", grown - (m * p.eta(t)) ** 2 / 2, 1e-7), "factor: ½η² for η²")
    expect(worst("eq:linear-end", torch.stack([p.mean(end) - 1, p.variance(end)])))
    if name != "brownian" and "VE" not in name:
        wrong = rate(p.mean, t) - p.pull(t) * m
        refute(worst("eq:linear-end", wrong / (1 + p.pull(t).abs()), 1e-7), "sign: of the pull")


@every
def test_particles_end_where_it_says(name, generator):
    p, n, start = PROCESSES[name], 20_000, 0.3
    x = torch.full((n, 1), 0.6, dtype=F64)
    ends = integrate(heun(p.dynamics), x, times(60, start), generator)[:, 0]
    m, v = p.mean(scalar(start)).item(), p.variance(scalar(start)).item()
    expect(mean("eq:linear-end", ends, 0.6 * m))
    expect(mean("eq:linear-end", (ends - 0.6 * m) ** 2, v))
    refute(mean("eq:linear-end", (ends - 0.6 * m) ** 2, 0.5 * v), "factor: half the variance")


@pytest.mark.parametrize("path", [VP, trigonometric, linear], ids=["VP", "trigonometric", "linear"])
def test_the_reversal_for_gaussian_data_is_the_general_one(path, generator):
    t, x = inner_times(9, generator), points(9, generator)
    law = MixturePath(path, gaussian(torch.zeros(2, dtype=F64), 1.7 * torch.eye(2, dtype=F64)))
    general = with_noise(law.velocity, law.score, noising_diffusion(path))
    gap = gaussian_reversal(path, 1.7).dynamics.drift(t, x) - general.drift(t, x)
    expect(worst("eq:memoryless", gap / (1 + general.drift(t, x).abs().max())))
    wrong = gaussian_reversal(path, 1.0).dynamics.drift(t, x) - general.drift(t, x)
    refute(worst("eq:memoryless", wrong), "wrong object: another variance")
    nowhere = scalar(0.0)
    if path is not VP:
        assert gaussian_reversal(path, 1.7).mean(nowhere) == 0
        with pytest.raises(ValueError, match="pull of a linear process is finite.*start the grid"):
            gaussian_reversal(path, 1.7).dynamics.drift(nowhere, x)


@every
@pytest.mark.parametrize("each", [False, True])
def test_the_closed_value_solves_the_equations(name, each, generator):
    p = PROCESSES[name]
    problem = MixtureControl(p, random_mixture(4, 2, 3), 0.7)
    t = inner_times(16, generator) if each else scalar(0.45)
    x = points(16, generator, scale=1.0)
    size = 1 + p.eta(t).square().max() * problem.control(t, x).square().max()
    hjb = lambda v: worst(
        "eq:hjb", hamilton_jacobi_bellman(v, p.dynamics, no_cost, t, x) / size, 1e-8
    )
    expect(hjb(problem.value))
    refute(hjb(lambda t, x: 0.5 * problem.value(t, x)), "factor: half the value")
    psi = lambda t, x: problem.log_psi(t, x).exp()
    expect(worst("eq:mixture-value", feynman_kac(psi, p.dynamics, no_cost, t, x) / size, 1e-8))
    push = -gradient(problem.value, t, x) * (p.eta(t)[:, None] if each else p.eta(t))
    expect(worst("eq:best-control", problem.control(t, x) - push))
    refute(worst("eq:best-control", problem.control(t, x) - 0.5 * push), "factor: half the push")
    refute(worst("eq:best-control", problem.control(t, x) + push), "sign: of the push")
    end = scalar(1.0)
    expect(worst("eq:mixture-value", problem.value(end, x) - problem.terminal(x)))
    expect(worst("eq:mixture-value", problem.terminal(x) + 0.7 + problem.reward.log_prob(x)))


def test_its_promise_is_a_mean_over_uncontrolled_ends(generator):
    p, x = relaxation(0.8, 0.7), torch.tensor([[0.4, -0.2]], dtype=F64)
    problem = MixtureControl(p, random_mixture(5, 2, 2), -0.3)
    t = scalar(0.25)
    noise = torch.randn(40_000, 2, generator=generator, dtype=F64)
    ends = p.mean(t) * x + p.variance(t).sqrt() * noise
    payoff, exact = (-problem.terminal(ends)).exp(), problem.log_psi(t, x).exp().item()
    expect(mean("eq:feynman-kac", payoff, exact))
    narrow = (-problem.terminal(p.mean(t) * x + p.variance(t) * noise)).exp()
    refute(mean("eq:feynman-kac", narrow, exact), "factor: variance for its root")


def test_the_best_runs_end_in_the_tilted_law(generator):
    p, start = relaxation(0.8, 0.7), torch.tensor([0.4, -0.2], dtype=F64)
    problem, zero_time = MixtureControl(p, random_mixture(5, 2, 2), -0.3), scalar(0.0)
    y, law = points(30, generator, scale=1.0), problem.end(start)
    m, v = p.mean(zero_time), p.variance(zero_time)
    free = gaussian(m * start, v * torch.eye(2, dtype=F64))
    tilted = free.log_prob(y) - problem.terminal(y) - problem.log_psi(zero_time, start[None])
    expect(worst("eq:best-law", law.log_prob(y) - tilted))
    refute(worst("eq:best-law", law.log_prob(y) - free.log_prob(y)), "missing term: the tilt")
    refute(
        worst("eq:best-law", law.log_prob(y) - problem.reward.log_prob(y)), "missing term: noise"
    )


@pytest.mark.parametrize("d", [1, 3])
def test_the_quadratic_problem_has_the_linear_feedback(d, generator):
    """Worked by hand: u = -c eta x / (1 + c eta² (1 - t)) without drift."""
    c, eta, x, t = 2.0, 1.3, points(7, generator, d=d), scalar(0.4)
    problem = quadratic(brownian(eta), c, x)
    expect(worst("eq:lq-value", problem.terminal(x) - 0.5 * c * (x**2).sum(1)))
    exact = -c * eta * x / (1 + c * eta**2 * 0.6)
    expect(worst("eq:lq-value", problem.control(t, x) - exact))
    refute(worst("eq:lq-value", problem.control(t, x) - exact / eta), "factor: η")
    value = (
        0.5 * c * (x**2).sum(1) / (1 + c * eta**2 * 0.6)
        + 0.5 * d * scalar(1 + c * eta**2 * 0.6).log()
    )
    expect(worst("eq:lq-value", problem.value(t, x) - value))
    refute(worst("eq:lq-value", problem.value(t, x) - 0.5 * c * (x**2).sum(1)), "missing term")


def test_a_mixture_over_the_standard_normal_is_a_mixture(generator):
    law = random_mixture(2, 2, 3)
    law = Mixture(law.weights, law.means, law.covs / (1.2 * torch.linalg.eigvalsh(law.covs).max()))
    reward, scale = over_standard(law)
    x = points(20, generator, scale=1.0)
    quotient = law.log_prob(x) - standard_normal(2, x).log_prob(x)
    expect(worst("eq:normaliser", reward.log_prob(x) + scale - quotient))
    refute(worst("eq:normaliser", reward.log_prob(x) - quotient), "missing term: scale")
    with pytest.raises(ValueError, match="covariances are less than I, got an eigenvalue of 1"):
        over_standard(standard_normal(2, x))


CHAIN = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.5, 0.3], [0.0, 0.6, 0.4]], dtype=F64)
PAY, LAST = torch.tensor([0.1, 0.7, 0.3], dtype=F64), torch.tensor([2.0, 0.5, 1.0], dtype=F64)


def cost_of(policies):
    """The exact cost of policies on the chain, backwards, energy and all."""
    value = LAST
    for policy in reversed(policies):
        ratio = torch.where(policy > 0, policy * (policy / CHAIN).log(), 0.0)
        value = PAY + ratio.sum(1) + policy @ value
    return value


def test_a_finite_chain_is_solved_by_a_linear_recursion(generator):
    log_z, policies = linearly_solvable(CHAIN, PAY, LAST, 4)
    expect(worst("eq:linearly-solvable", cost_of(policies) + log_z[0]))
    # the sum over all paths, by matrix powers
    z = torch.linalg.matrix_power(torch.diag((-PAY).exp()) @ CHAIN, 4) @ (-LAST).exp()
    expect(worst("eq:linearly-solvable", log_z[0] - z.log()))
    refute(worst("eq:linearly-solvable", cost_of([CHAIN] * 4) + log_z[0]), "wrong object: passive")
    refute(worst("eq:linearly-solvable", cost_of(policies[[1, 0, 2, 3]]) + log_z[0], 1e-9), "clock")
    for _ in range(20):  # no policy is better
        other = policies * torch.rand(policies.shape, generator=generator, dtype=F64)
        other = other / other.sum(2, keepdim=True)
        assert (cost_of(list(other)) >= -log_z[0] - 1e-12).all()
    assert torch.allclose(policies.sum(2), torch.ones(4, 3, dtype=F64))


def test_a_forbidden_end_is_avoided():
    last = torch.tensor([0.0, 0.0, torch.inf], dtype=F64)
    log_z, policies = linearly_solvable(CHAIN, PAY, last, 2)
    late = CHAIN[:, :2].sum(1).log() - PAY  # a sum by hand: the last step ends in 0 or 1
    assert torch.allclose(log_z[1], late) and (policies[-1][:, 2] == 0).all()
    assert torch.allclose(log_z[0], (CHAIN @ late.exp()).log() - PAY)


def test_one_step_pays_for_where_it_is_and_looks_one_step_ahead():
    """eq:linearly-solvable, against a sum by hand."""
    log_z, policies = linearly_solvable(CHAIN, PAY, LAST, 1)
    ahead = CHAIN * (-LAST).exp()
    assert torch.allclose(log_z[0], ahead.sum(1).log() - PAY) and torch.equal(log_z[1], -LAST)
    assert torch.allclose(policies[0], ahead / ahead.sum(1, keepdim=True))


@given(d=st.integers(1, 3), n=st.integers(1, 4), k=st.integers(1, 3), each=st.booleans())
def test_a_batch_is_a_loop(d, n, k, each):
    generator = torch.Generator().manual_seed(100 * d + 10 * n + k)
    x = points(n, generator, d=d, scale=1.0)
    t = inner_times(n, generator) if each else scalar(0.4)
    problem = MixtureControl(relaxation(0.8), random_mixture(d + k, d, k))
    for function in (problem.log_psi, problem.value, problem.control):
        assert same_rows(function, t, x) < 1e-10


def test_bad_input_says_what_to_do(generator):
    x = points(2, generator)
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="noise level is positive and finite"):
            brownian(bad)
        with pytest.raises(ValueError, match="pull is positive"):
            relaxation(bad)
        with pytest.raises(ValueError, match="noise level is positive"):
            relaxation(1.0, bad)
        with pytest.raises(ValueError, match="variance is positive"):
            gaussian_reversal(VP, bad)
        with pytest.raises(ValueError, match="weight of a quadratic cost is positive"):
            quadratic(brownian(), bad, x)
    with pytest.raises(ValueError, match="logarithm of the mass is finite, got inf"):
        MixtureControl(brownian(), random_mixture(1, 2, 2), float("inf"))
    with pytest.raises(ValueError, match=r"points are \(n, 2\)"):
        MixtureControl(brownian(), random_mixture(1, 2, 2)).value(scalar(0.5), x[:, :1])
    with pytest.raises(ValueError, match="rows of passive chances .* from 0.5 to 1"):
        linearly_solvable(CHAIN * torch.tensor([[0.5], [1], [1]]), PAY, LAST, 2)
    with pytest.raises(ValueError, match="nonnegative and sum to 1"):
        linearly_solvable(CHAIN - torch.eye(3, dtype=F64) + 1 / 3, PAY, LAST, 2)
    with pytest.raises(ValueError, match="k states have .* 0 steps"):
        linearly_solvable(CHAIN, PAY, LAST, 0)
    assert isinstance(brownian(), LinearProcess)
