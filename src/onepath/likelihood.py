r"""Log-densities along a flow: what a deterministic sampler says about the probability of a point.

A point that follows $\dot x = v_t(x)$ carries its density along, and the density falls at the rate
at which the neighbours spread,

$$ \frac{d}{dt}\log\rho_t(x_t) = -\nabla\cdot v_t(x_t) . $$

So the log-density of a target point is that of its latent, less the integral of the divergence. The
pair (x, -∫∇·v) is itself the state of an ODE with one coordinate more, which any step of `solvers`
solves. The answer is that of the *ODE model*: of the law that the flow of this velocity makes from
this base. It is the density of the data only as far as the velocity is exact, and it carries the
error of the solver, which `log_density` states. Dynamics with noise have no flow and are not
covered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import divergence, jacobian, zero
from .dynamics import Dynamics
from .shapes import Field, Points, Time, Values
from .solvers import Step, euler, integrate, trajectory

Method = Callable[[Dynamics], Step]  # euler, heun, rk4, adaptive
Trace = Callable[[Field, Time, Points], Values]  # divergence, or hutchinson with its probes filled


@dataclass(frozen=True)
class Likelihood:
    """Log-densities of points, and what the solver is not sure of.

    Args:
        values: log-density of each point, from the finer of two runs.
        latent: the base point that each point comes from, from the same run.
        solver_error: distance of the two runs, point by point. With a method of order p whose steps
            are small enough, about $2^p - 1$ times the error of `values`: as large for Euler's
            method, 15 times for `rk4`.
    """

    values: Values
    latent: Points
    solver_error: Values


def encode(flow: Dynamics, x: Points, method: Method, times: Float[Tensor, "m"]) -> Points:
    """The base points from which the flow carries to x: the ODE solved from data to base.

    `times` is the grid on which one would generate, from base to target; it is walked backwards.
    `integrate(method(flow), encode(flow, x, method, times), times)` is x again, up to the solver's
    error. Raises ValueError for a dynamics with noise, whose paths cannot be retraced.

    Source: Song et al. (2021), Score-based generative modeling through SDEs.
    Book: eq:round-trip.
    """
    return integrate(method(_reversed(flow)), x, _backwards(times))


def log_density(
    flow: Dynamics,
    base: Callable[[Points], Values],
    x: Points,
    method: Method,
    times: Float[Tensor, "m"],
    trace: Trace = divergence,
) -> Likelihood:
    r"""$\log\rho_1$ at the points x, for the law that the flow makes from `base`.

    $$ \log\rho_1(x_1) = \log\rho_0(x_0) - \int_0^1\nabla\cdot v_t(x_t)\,dt
       \qquad\text{along } \dot x_t = v_t(x_t) . $$

    Solved twice, on every second of `times` and on all of them; the distance is the solver's error.
    The result can be differentiated in the weights of the flow; inside `torch.no_grad()` it takes
    half the time.

    Args:
        base: log-density at the first of `times`, normalised: `mixture.log_prob`.
        method: a step for ODEs. Its order is that of the answer. An adaptive method keeps its
            tolerance on either grid; there compare two tolerances.
        times: the grid on which one would generate, an even number of steps.
        trace: `divergence`, or `lambda field, t, x: hutchinson(field, t, x, z)` with probes z that
            stay fixed during the run, so that the answer is unbiased and the ODE deterministic.

    Raises ValueError for a dynamics with noise, an odd number of steps, points that are not (n, d),
    and a base that does not give one number per point.

    Source: Chen et al. (2018), Neural ordinary differential equations.
    Book: eq:log-likelihood.
    """
    if len(times) % 2 == 0:
        raise ValueError(
            "the solver's error is found on every second time, which needs an even number of "
            f"steps, got {len(times) - 1}."
        )
    _check_points(x)
    coarse, _ = _pulled_back(flow, base, x, method, times[::2], trace)
    fine, latent = _pulled_back(flow, base, x, method, times, trace)
    return Likelihood(fine, latent, (fine - coarse).abs())


def chain_log_density(
    flow: Dynamics, base: Callable[[Points], Values], x: Points, times: Float[Tensor, "m"]
) -> Values:
    r"""The exact log-density of the law that the *backward Euler chain* defines, at the points x.

    $$ \log q(x_n) = \log\rho_0(x_0) + \sum_k\log\big|\det\big(I - h_k\nabla v_{t_k}(x_k)\big)\big|,
       \qquad x_{k-1} = x_k - h_k\,v_{t_k}(x_k) . $$

    A finite composition of maps, no ODE: it integrates to one for every number of steps for which
    each step is a bijection. The minus sign belongs to the direction, from data to base; the chain
    that generates has $I + h\nabla v$ and its own, other law. d backward passes a step.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows.
    Book: eq:coarse-likelihood.
    """
    back, clock = _reversed(flow), _backwards(times)
    _check_points(x)
    states, identity = trajectory(euler(back), x, clock), torch.eye(x.shape[1]).to(x)
    # there is one state more than there are steps
    steps = [
        identity + h * jacobian(back.drift, r, y) for r, h, y in zip(clock, clock.diff(), states)
    ]
    return _of_base(base, states[-1]) + torch.linalg.slogdet(torch.stack(steps)).logabsdet.sum(0)


def bits_per_dimension(values: Values, shape: tuple[int, ...], width: float) -> Values:
    r"""$-\big(\log\rho(x) + d\log w\big)/(d\log 2)$: what a pixel costs, in bits.

    $\rho(x)\,w^d$ is the probability of a cube of side w around x, so w is the width of one grey
    level in the units of x: 2/256 for 256 levels scaled to [-1, 1]. d is the product of `shape`.
    Raises ValueError unless w > 0.

    Source: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models.
    Book: eq:bits.
    """
    d = prod(shape)
    if not width > 0 or d < 1:
        raise ValueError(f"a level has a positive width and an image a pixel, got {width}, {d}.")
    return -(values + d * log(width)) / (d * log(2))


def with_volume(flow: Dynamics, trace: Trace = divergence) -> Dynamics:
    r"""The ODE for (x, a) with $\dot x = b_t(x)$ and $\dot a = -\nabla\cdot b_t(x)$; a is the last
    column. Raises ValueError for a dynamics with noise.

    Book: eq:log-likelihood.
    """
    _refuse_noise(flow)

    def drift(t: Time, state: Points) -> Points:
        x = state[:, :-1]
        return torch.cat([flow.drift(t, x), -trace(flow.drift, t, x)[:, None]], dim=1)

    return Dynamics(drift)


def _pulled_back(
    flow: Dynamics,
    base: Callable[[Points], Values],
    x: Points,
    method: Method,
    times: Float[Tensor, "m"],
    trace: Trace,
) -> tuple[Values, Points]:
    start = torch.cat([x, x.new_zeros(len(x), 1)], dim=1)
    end = integrate(method(with_volume(_reversed(flow), trace)), start, _backwards(times))
    latent, spread = end[:, :-1], end[:, -1]  # backwards, minus the divergence is that of v
    return _of_base(base, latent) - spread, latent


def _check_points(x: Tensor) -> None:
    if x.ndim != 2:
        raise ValueError(
            f"points are (n, d), got {tuple(x.shape)}; n numbers are x[:, None], one point x[None]."
        )


def _reversed(flow: Dynamics) -> Dynamics:
    _refuse_noise(flow)
    return Dynamics(lambda r, x: -flow.drift(1 - r, x))


def _refuse_noise(flow: Dynamics) -> None:
    if flow.eta is not zero:
        raise ValueError(
            "only a flow can be retraced, got a dynamics with noise; take its velocity, "
            "`velocity_of(dynamics, score)`, which has the same marginals."
        )


def _backwards(times: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """The same grid in the clock r = 1 - t."""
    return 1 - times.flip(0)


def _of_base(base: Callable[[Points], Values], x: Points) -> Values:
    values = base(x)
    if values.shape != x.shape[:1]:
        raise ValueError(
            "the log-density of the base is one number per point, "
            f"got {tuple(values.shape)} for {len(x)} points; sum over the coordinates."
        )
    return values
