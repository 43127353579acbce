"""Claims of chapter 7 on steps that are chosen by their error."""

import math

import pytest
import torch

from laws import F64
from onepath.calculus import constant
from onepath.dynamics import Dynamics
from onepath.solvers import adaptive, integrate, times
from onepath.verify import expect, order, refute, worst

START = torch.tensor([[-2.9, -0.6], [0.4, 1.1], [2.3, 0.05]], dtype=F64)
ENDS = 2 * (math.exp(1.5) * (START / 2).tan()).atan()  # of dx/dt = (1 + t) sin x
FLOW = Dynamics(lambda t, x: (1 + t) * x.sin())


def test_the_error_of_a_run_is_proportional_to_the_tolerance_and_not_to_a_power():
    tolerances = [1e-3, 1e-5, 1e-7, 1e-9]
    runs = [integrate(adaptive(FLOW, rtol=c, atol=c), START, times(1)) for c in tolerances]
    errors = [(run - ENDS).abs().mean().item() for run in runs]
    expect(order("eq:adaptive", tolerances, errors, 1))
    refute(order("eq:adaptive", tolerances, errors, 5), "wrong object: the order in the step")


@pytest.mark.parametrize("tolerance", ["rtol", "atol"])
def test_either_tolerance_alone_is_enough_to_be_accurate(tolerance):
    """The bound is atol + rtol |x|, and the states here have a size of about one."""
    ample = dict.fromkeys(("rtol", "atol"), 1e-12) | {tolerance: 1e-3}
    error = (integrate(adaptive(FLOW, **ample), START, times(1)) - ENDS).abs().max().item()
    assert 1e-6 < error < 1e-2


def test_the_default_tolerances_give_six_digits():
    expect(worst("eq:adaptive", integrate(adaptive(FLOW), START, times(1)) - ENDS, 1e-5))
    stopped = integrate(adaptive(FLOW), START, times(1, 0.0, 0.9)) - ENDS
    refute(worst("eq:adaptive", stopped, 1e-5), "clock: the run ends early")


def test_a_large_state_is_held_to_the_relative_tolerance():
    """A state of size 1000 that turns: rtol = 1e-3 allows 1 a step, atol = 1e-3 a thousandth."""
    turn = Dynamics(lambda t, x: 10 * torch.stack([x[:, 1], -x[:, 0]], dim=1))
    start = torch.tensor([[1000.0, 0.0]], dtype=F64)
    end = 1000 * torch.tensor([[math.cos(10), -math.sin(10)]], dtype=F64)
    missed = lambda **how: (integrate(adaptive(turn, **how), start, times(1)) - end).norm().item()
    assert missed(rtol=1e-3, atol=1e-12) > 0.1 > 0.02 > missed(rtol=1e-12, atol=1e-3)


def test_the_work_grows_like_the_fifth_root_of_the_accuracy():
    """From 1e-6 to 1e-11, ten times the calls; a method of order 3 would need 46 times."""
    asked = {1e-6: [], 1e-11: []}
    for tolerance, calls in asked.items():
        drift = lambda t, x: calls.append(t) or FLOW.drift(t, x)
        integrate(adaptive(Dynamics(drift), tolerance, tolerance), START, times(1))
    few, many = map(len, asked.values())
    assert 5 < many / few < 14


@pytest.mark.parametrize("speed", [1.0, 1e-4])
def test_a_run_is_never_asked_outside_its_intervals(speed):
    asked = []

    def drift(t, x):
        asked.append(float(t))
        return speed * x / (0.25 + t)

    integrate(adaptive(Dynamics(drift)), START, times(2, 0.25, 0.75))
    assert min(asked) == 0.25 and 0.74 < max(asked) <= 0.75
    assert 0.5 in asked and len(asked) > 10


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("n, d", [(1, 1), (2, 2), (4, 1)])
def test_states_keep_their_kind(dtype, n, d):
    x = torch.linspace(-1, 1, n * d, dtype=dtype).reshape(n, d)
    end = integrate(adaptive(Dynamics(lambda t, y: -y)), x, times(1))
    assert end.shape == (n, d) and end.dtype == dtype
    assert (end - x * math.exp(-1)).abs().max() < 1e-5


def test_noise_and_tolerances_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="adaptive solves ODEs, got a dynamics with noise"):
        adaptive(Dynamics(FLOW.drift, constant(0.5)))
    for rtol, atol in ((0.0, 1e-6), (1e-6, 0.0), (-1e-6, 1e-6), (math.nan, 1e-6)):
        with pytest.raises(ValueError, match="tolerances are positive"):
            adaptive(FLOW, rtol, atol)


def test_a_solution_that_leaves_space_before_the_end_says_so():
    """dx/dt = x^2 from 2 is infinite at t = 1/2."""
    with pytest.raises(ValueError, match="no step from t = 0 to 1 meets"):
        integrate(adaptive(Dynamics(lambda t, x: x**2)), 2 * torch.ones(1, 1, dtype=F64), times(1))
