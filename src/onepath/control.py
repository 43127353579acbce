r"""Stochastic optimal control through the noise: what steering costs, and what it buys.

A control pushes in the directions and with the strength of the noise, and pays for its square:

$$ dX_t = (b_t + \eta_tu_t)\,dt + \eta_t\,dW_t, \qquad
   J(u) = \mathbb E\Big[\int_0^1\big(\tfrac12|u_t|^2 + f_t(X_t)\big)dt + \Phi(X_1)\Big]. $$

In these units the energy is a relative entropy of paths, the least cost V is minus the logarithm of
a mean over *uncontrolled* runs, and every control gives weights that make its runs exact. A run
that keeps these accounts is here, as are the residuals of the equations for V and the regression
that learns a control. Controls in other directions than the noise, constraints and horizons other
than t = 1 are not covered; cases with a closed answer are in `control_oracles`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

from .calculus import gradient, zero
from .dynamics import Dynamics, mean_rate
from .shapes import Curve, Field, Points, Scalar, Time, Values, per_point
from .solvers import Draw, integrate

EndCost = Callable[[Tensor], Tensor]  # the cost Phi of the state at t = 1, one number per point


def no_cost(t: Time, x: Points) -> Values:
    """The running cost that is 0 everywhere."""
    return x.new_zeros(len(x))


def controlled(dynamics: Dynamics, control: Field) -> Dynamics:
    r"""The dynamics $b + \eta u$ with the same noise, steered by a control.

    The control is in units of the noise: without the $\eta$ before u its energy would not be an
    entropy. Raises ValueError without noise, which leaves nothing to steer by.

    Source: Fleming and Soner (2006), Controlled Markov processes and viscosity solutions.
    Book: eq:controlled.
    """
    _check_noise(dynamics)

    def drift(t: Time, x: Points) -> Points:
        return dynamics.drift(t, x) + per_point(dynamics.eta(t)) * control(t, x)

    return Dynamics(drift, dynamics.eta)


def hamilton_jacobi_bellman(
    value: Scalar, dynamics: Dynamics, running: Scalar, t: Time, x: Points
) -> Values:
    r"""Residual of the Hamilton–Jacobi–Bellman equation for the least cost V from (t, x) on.

    $$ \partial_tV + b\cdot\nabla V + \tfrac12\eta^2\Delta V
       - \tfrac12\eta^2|\nabla V|^2 + f = 0. $$

    The first ½ is Itô's; the second is what is left of $\min_u(\tfrac12|u|^2 + \eta u\cdot\nabla
    V)$. With the end value $V_1=\Phi$ the equation is a condition for optimality; the residual
    alone says nothing about the end.

    Source: Fleming and Soner (2006), Controlled Markov processes and viscosity solutions.
    Book: eq:hjb.
    """
    steepness = (gradient(value, t, x) ** 2).sum(1)
    gained = 0.5 * dynamics.eta(t) ** 2 * steepness
    return mean_rate(value, dynamics, t, x) - gained + running(t, x)


def feynman_kac(psi: Scalar, dynamics: Dynamics, running: Scalar, t: Time, x: Points) -> Values:
    r"""Residual of the linear equation for $\psi = e^{-V}$, divided by $\psi$.

    $$ \partial_t\psi + b\cdot\nabla\psi + \tfrac12\eta^2\Delta\psi - f\,\psi = 0. $$

    Zero everywhere means that $\psi_t(X_t)\,e^{-\int_0^tf}$ is a local martingale of the
    *uncontrolled* dynamics. Raises ValueError where $\psi$ is not positive: it has no logarithm.

    Source: Kac (1949), On distributions of certain Wiener functionals.
    Book: eq:cole-hopf, eq:feynman-kac.
    """
    known = psi(t, x)
    if not (known > 0).all():
        raise ValueError(
            f"psi is a mean of exponentials and positive, got {known.min().item():g}; "
            "is it a logarithm, or has it underflowed?"
        )
    return mean_rate(psi, dynamics, t, x) / known - running(t, x)


def optimal_control(value: Scalar, eta: Curve) -> Field:
    r"""$u^* = -\eta\,\nabla V = \eta\,\nabla\log\psi$; it adds $\eta^2\nabla\log\psi$ to the drift.

    Only of the value function is it optimal; of any other function it is a control.

    Source: Fleming and Soner (2006), Controlled Markov processes and viscosity solutions.
    Book: eq:best-control.
    """
    return lambda t, x: -per_point(eta(t)) * gradient(value, t, x)


@dataclass(frozen=True)
class Account:
    r"""Where controlled runs end, what they cost and how they are weighed, one number a run.

    Args:
        energy: $\int\tfrac12|u|^2dt$, what the control costs.
        work: $\int f\,dt + \Phi(X_1)$, what the run costs whoever steers.
        log_ratio: $\log dP/dP^u$ of the run, uncontrolled over controlled paths.
    """

    end: Points
    energy: Values
    work: Values
    log_ratio: Values

    @property
    def cost(self) -> Values:
        """Energy and work; its mean is J(u)."""
        return self.energy + self.work

    @property
    def log_weight(self) -> Values:
        r"""$\log\frac{dP}{dP^u} - \int f - \Phi$; the mean of its exponential is $\mathbb
        E[\psi_0(X_0)]$ for *every* control, and weights by it turn runs into optimal ones."""
        return self.log_ratio - self.work


def account(
    dynamics: Dynamics,
    control: Field,
    running: Scalar,
    terminal: EndCost,
    x: Points,
    times: Float[Tensor, "m"],
    generator: torch.Generator,
) -> Account:
    r"""Run a controlled dynamics by Euler–Maruyama and keep its accounts.

    With $\xi$ the noise of a step, the ratio of the densities of the two *chains* is exact for
    every step size h,

    $$ \log\frac{dP}{dP^u} = -\sum_k\Big(\sqrt{h_k}\,u_k\cdot\xi_k + \tfrac12h_k|u_k|^2\Big), $$

    so that weights repair the control and not the step. Energy and running cost are sums over the
    beginnings of steps. Differentiable in whatever the control depends on.

    Args:
        dynamics: the uncontrolled one.
        terminal: cost of the last state; the last of `times` is the horizon.
        x: where runs start, one start for each.

    Raises ValueError without noise, for states that are not (n, d), and as `integrate` does for
    its grid.

    Source: Girsanov (1960), On transforming a certain class of stochastic processes; here for the
    chain. Book: eq:girsanov, eq:control-weights.
    """
    _check_noise(dynamics)
    if x.ndim != 2:
        raise ValueError(f"runs start at points (n, d), got {tuple(x.shape)}; reshape them.")
    d = x.shape[1]

    def step(
        state: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        y, kept = state[:, :d], state[:, d:]
        h, eta, u, xi = t_next - t, dynamics.eta(t), control(t, y), draw()[:, :d]
        ahead = y + h * (dynamics.drift(t, y) + eta * u) + eta * h.sqrt() * xi
        energy = 0.5 * h * (u**2).sum(1)
        grown = [energy, h * running(t, y), -energy - h.sqrt() * (u * xi).sum(1)]
        return torch.cat([ahead, kept + torch.stack(grown, 1)], 1), memory

    step.eta, step.uses_both_ends = dynamics.eta, False
    last = integrate(step, torch.cat([x, x.new_zeros(len(x), 3)], 1), times, generator)
    end, (energy, work, log_ratio) = last[:, :d], last[:, d:].unbind(1)
    return Account(end, energy, work + terminal(end), log_ratio)


def adjoint(
    dynamics: Dynamics,
    running: Scalar,
    terminal: EndCost,
    states: Float[Tensor, "m n d"],
    times: Float[Tensor, "m"],
) -> Float[Tensor, "m n d"]:
    r"""How the rest of the cost of stored runs depends on their states, backwards from the end.

    $$ \dot a = -(\nabla b)^\top a - \nabla f, \quad a_1 = \nabla\Phi(X_1), \qquad
       a_k = a_{k+1} + h_k\big((\nabla b)^\top a_{k+1} + \nabla f\big), $$

    on the right the chain rule of Euler's steps, exact for every h. Of the *uncontrolled* dynamics
    with the cost f it is the lean adjoint; of the controlled one with $f + \tfrac12|u|^2$ it is
    the whole derivative of the cost, which also knows that a push changes later pushes. One
    backward pass a step; nothing is kept for a gradient.

    Args:
        states: of runs with any control, for example from `trajectory`.

    Raises ValueError unless there is one state for each time.

    Source: Domingo-Enrich, Drozdzal, Karrer and Chen (2024), Adjoint matching.
    Book: eq:lean-adjoint.
    """
    if len(states) != len(times):
        raise ValueError(
            f"stored runs have one state for each time, got {len(states)} and {len(times)}."
        )
    states, f = states.detach(), running
    with torch.no_grad():
        a = gradient(lambda t, y: terminal(y), times[-1], states[-1])
        backwards = [a]
        for k in range(len(times) - 2, -1, -1):
            t, h = times[k], times[k + 1] - times[k]
            _, pull = vjp(lambda y, t=t: (dynamics.drift(t, y), f(t, y)), states[k])
            a = a + h * pull((a, torch.ones_like(a[:, 0])))[0]
            backwards.append(a)
    return torch.stack(backwards[::-1])


def adjoint_matching(
    control: Field,
    eta: Curve,
    states: Float[Tensor, "m n d"],
    adjoints: Float[Tensor, "m n d"],
    times: Float[Tensor, "m"],
) -> Values:
    r"""The regression loss of adjoint matching, one number a run.

    $$ \tfrac12\sum_kh_k\,\big|u_{t_k}(X_k) + \eta_{t_k}\,a_{k+1}\big|^2 . $$

    The adjoint is that at the *end* of the step: then the best control of the chain is a fixed
    point with the lean adjoint, for every h. States and adjoints are constants here: the runs are
    those of the control itself, and the loss does not ask how they would change. With the whole
    adjoint its gradient is the gradient of the cost; with the lean one it is zero at the optimum,
    but the loss is not what is minimised.

    Source: Domingo-Enrich, Drozdzal, Karrer and Chen (2024), Adjoint matching.
    Book: eq:adjoint-matching.
    """
    if not len(states) == len(adjoints) == len(times):
        raise ValueError(
            "there is one state and one adjoint for each time, "
            f"got {len(states)}, {len(adjoints)} and {len(times)}."
        )
    n = states.shape[1]
    t, x = times[:-1].to(states).repeat_interleave(n), states[:-1].detach().flatten(0, 1)
    level = eta(times[:-1]).to(states)[:, None, None]
    wanted = -level * adjoints[1:].detach()
    miss = ((control(t, x).unflatten(0, (-1, n)) - wanted) ** 2).sum(2)
    return 0.5 * times.diff().to(states) @ miss


def _check_noise(dynamics: Dynamics) -> None:
    if dynamics.eta is zero:
        raise ValueError(
            "a control enters through the noise, got a dynamics without; give it a level eta."
        )
