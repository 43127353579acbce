r"""Solvers of dynamics on a grid of times.

A step is a function `(x, t, t_next, draw, memory) -> (x, memory)`. `draw()` gives standard normal
noise like x, and a step of an ODE does not call it; `memory` is whatever a multistep method carries
along, None at first. Everything that knows a dynamics only is here; steps that use the schedules of
an interpolant are samplers.

A grid of times lives on the CPU in float64: a time of shape () there combines with points of any
device and dtype without a wait for the device.
"""

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import zero
from .dynamics import Dynamics
from .measures import check_generator
from .shapes import Curve, Points

Draw = Callable[[], Tensor]
Step = Callable[[Tensor, Tensor, Tensor, Draw, object], tuple[Tensor, object]]


def times(n: int, start: float = 0.0, stop: float = 1.0) -> Float[Tensor, "m"]:
    """The grid of n equal steps from `start` to `stop`, n + 1 times in [0, 1]."""
    if n < 1 or not 0 <= start < stop <= 1:
        raise ValueError(
            f"a grid has n >= 1 steps and 0 <= start < stop <= 1, "
            f"got n = {n}, from {start} to {stop}."
        )
    return torch.linspace(start, stop, n + 1, dtype=torch.float64)


def euler(dynamics: Dynamics) -> Step:
    r"""Euler–Maruyama, $x' = x + h\,b_t(x) + \eta_t\sqrt h\,\xi$. One call of the drift a step.

    Order 1 for an ODE; for additive noise, as here, strong and weak order 1. It never evaluates the
    drift at the end of the grid, so fields that are singular at t = 1 are safe there.

    Source: Kloeden and Platen (1992), Numerical solution of SDEs.
    Book: eq:euler.
    """

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h = t_next - t
        ahead = x + h * dynamics.drift(t, x)
        return (
            ahead if dynamics.eta is zero else ahead + dynamics.eta(t) * h.sqrt() * draw()
        ), memory

    return _with_level(step, dynamics, uses_both_ends=False)


def exponential(dynamics: Dynamics, linear: Curve) -> Step:
    r"""Exponential Euler for a drift with a known linear part, $b_t(x) = a_t x + N_t(x)$.

    $$ x' = x + h\,\varphi(ha_t)\,b_t(x) + \eta_t\sqrt{h\,\varphi(2ha_t)}\;\xi,
       \qquad \varphi(z) = \frac{e^z - 1}{z}, \quad \varphi(0) = 1 . $$

    The linear part is solved, $N$ and the level are frozen over the step; the 2 belongs to the
    variance $\int_0^h e^{2a(h-s)}ds$ of what the noise leaves. Where $a$, $N$ and $\eta$ are
    constant a step has the exact law; else order 1 as for `euler`, which is the case $a = 0$. It
    stays stable where $a_t$ is large and negative and Euler needs $h < 2/|a_t|$. One call a step,
    none at the end of the grid.

    Args:
        linear: the curve $a_t$, a number of either sign, finite where a step begins.

    Raises ValueError in a run whose grid meets an infinite or undefined $a_t$.

    Source: Hochbruck and Ostermann (2010), Exponential integrators.
    """

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h, a = t_next - t, linear(t)
        if not a.isfinite():
            raise ValueError(
                f"the linear part is finite where a step begins, got {a:g} at t = {t:g}; "
                "start or stop the grid elsewhere."
            )
        ahead = x + h * _phi(h * a) * dynamics.drift(t, x)
        if dynamics.eta is zero:
            return ahead, memory
        return ahead + dynamics.eta(t) * (h * _phi(2 * h * a)).sqrt() * draw(), memory

    return _with_level(step, dynamics, uses_both_ends=False)


def heun(dynamics: Dynamics) -> Step:
    r"""Heun's method, $x' = x + \tfrac h2\,(b_t(x) + b_{t'}(\tilde x)) + \Delta$, $\tilde x = x +
    h\,b_t(x) + \Delta$.

    The noise increment $\Delta$ is the same in both stages, with the variance $\tfrac h2(\eta_t^2 +
    \eta_{t'}^2)$ of $\int\eta\,dW$ by the trapezoid rule. Order 2 for an ODE, weak order 2 for
    additive noise. Two calls a step.

    Source: Kloeden and Platen (1992), Numerical solution of SDEs.
    Book: eq:heun.
    """

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h = t_next - t
        slope = dynamics.drift(t, x)
        if dynamics.eta is not zero:
            x = x + (0.5 * h * (dynamics.eta(t) ** 2 + dynamics.eta(t_next) ** 2)).sqrt() * draw()
        return x + 0.5 * h * (slope + dynamics.drift(t_next, x + h * slope)), memory

    return _with_level(step, dynamics)


def rk4(dynamics: Dynamics) -> Step:
    """The classical Runge–Kutta method of order 4, four calls a step; for ODEs only.

    Raises ValueError for a dynamics with noise.
    """
    if dynamics.eta is not zero:
        raise ValueError("rk4 solves ODEs, got a dynamics with noise; use heun.")
    b = dynamics.drift

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        h, middle = t_next - t, (t + t_next) / 2
        k1 = b(t, x)
        k2 = b(middle, x + h / 2 * k1)
        k3 = b(middle, x + h / 2 * k2)
        k4 = b(t_next, x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), memory

    return _with_level(step, dynamics)


def adaptive(dynamics: Dynamics, rtol: float = 1e-6, atol: float = 1e-6) -> Step:
    r"""Dormand–Prince of order 5 with a step chosen so that the error stays within tolerance.

    Each interval of the grid is divided as the error asks, so a grid of one step will do. The error
    of a step is held below `atol` + `rtol` |x| in root mean square over *all* coordinates of *all*
    points: steps depend on the whole batch, and one point may be worse than the mean. It is a
    tolerance for a step and not for the run. For ODEs only.

    Raises ValueError for a dynamics with noise, for tolerances that are not positive, and where the
    tolerance is not met: the step falls below rounding, or 10 000 steps are not enough.

    Source: Dormand and Prince (1980), A family of embedded Runge-Kutta formulae; by torchdiffeq.
    Book: eq:adaptive.
    """
    if dynamics.eta is not zero:
        raise ValueError(
            "adaptive solves ODEs, got a dynamics with noise; use heun on a fine grid."
        )
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"tolerances are positive, got rtol = {rtol} and atol = {atol}.")

    def step(
        x: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        from torchdiffeq import odeint  # needed here only, and it brings scipy along

        ends = torch.stack([t, t_next]).to(x.device)
        low, high = ends.to(x.dtype)
        # it tries its first step before it knows the interval, and steps over the end unless told
        inside = lambda s, y: dynamics.drift(s.clamp(low, high), y)
        options = {"step_t": ends[1:], "max_num_steps": 10_000}
        try:
            states = odeint(inside, x, ends, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:  # how it says that a step underflows or a state overflows
            raise ValueError(
                f"no step from t = {t:g} to {t_next:g} meets rtol = {rtol:g}, atol = {atol:g} in "
                f"{x.dtype} ({error}); loosen them, use float64, or stop the grid before the end."
            ) from error
        return states[-1], memory

    return _with_level(step, dynamics)


def integrate(
    step: Step, x: Points, times: Float[Tensor, "m"], generator: torch.Generator | None = None
) -> Points:
    """The state at the last of `times`, starting from x at the first.

    Args:
        times: at least two, increasing, in [0, 1].
        generator: needed where the step draws noise; on the device of x.
    """
    last = x
    for state in _states(step, x, times, generator):
        last = state
    return last


def trajectory(
    step: Step, x: Points, times: Float[Tensor, "m"], generator: torch.Generator | None = None
) -> Float[Tensor, "m n d"]:
    """The states at all of `times`, the start included. Same arguments as `integrate`."""
    return torch.stack([x, *_states(step, x, times, generator)])


def _states(
    step: Step, x: Tensor, times: Tensor, generator: torch.Generator | None
) -> Iterator[Tensor]:
    _check(step, x, times, generator)

    shape, like = x.shape, {"generator": generator, "dtype": x.dtype, "device": x.device}
    checked = False

    def draw() -> Tensor:
        nonlocal checked
        if not checked:  # a step that does not say that it draws
            _check_generator(generator, like["device"])
            checked = True
        return torch.randn(shape, **like)

    prepared = getattr(step, "prepared", None)  # a sampler computes all its coefficients at once
    steps = repeat(step) if prepared is None else prepared(times[:-1], times[1:])
    memory = None
    for t, t_next, step in zip(times[:-1], times[1:], steps):
        x, memory = step(x, t, t_next, draw, memory)
        yield x


def _check(step: Step, x: Tensor, times: Tensor, generator: torch.Generator | None) -> None:
    """Everything that can be wrong with a run is found here, before the first step."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(
            f"a state is a floating-point tensor (n, d), got {tuple(x.shape)} {x.dtype}."
        )
    if times.ndim != 1 or len(times) < 2 or not times.is_floating_point():
        raise ValueError(
            f"times are two or more floating-point numbers, got {tuple(times.shape)} {times.dtype}."
        )
    if not (times.diff() > 0).all():
        raise ValueError(f"times must increase, got {times.tolist()}.")
    if not 0 <= times[0] <= times[-1] <= 1:
        raise ValueError(
            f"times lie in [0, 1], base to target, got {times[0]:g} to {times[-1]:g}; "
            "to go back, solve the time-reversed dynamics."
        )
    if getattr(step, "draws", False):
        _check_generator(generator, x.device)
    eta = getattr(step, "eta", zero)  # a step that says nothing is taken to be noiseless
    if eta is zero:
        return
    # a level may be infinite at the very end, if the step uses levels at its start only
    levels = eta(times if getattr(step, "uses_both_ends", True) else times[:-1])
    if not (levels.isfinite().all() and (levels >= 0).all()):
        raise ValueError(f"eta must be finite and nonnegative on the grid, got {levels.tolist()}.")
    _check_generator(generator, x.device)


def _check_generator(generator: torch.Generator | None, device: torch.device) -> None:
    if generator is None:
        raise ValueError(
            "this step draws noise; pass generator=torch.Generator(device) with a seed."
        )
    check_generator(generator, device)


def _phi(z: Tensor) -> Tensor:
    """$(e^z - 1)/z$, and 1 at z = 0."""
    return torch.where(z == 0, 1.0, torch.expm1(z) / torch.where(z == 0, 1.0, z))


def _with_level(step: Step, dynamics: Dynamics, uses_both_ends: bool = True) -> Step:
    """Let the step carry its noise level, so that a run can check it once, on its grid."""
    step.eta, step.uses_both_ends = dynamics.eta, uses_both_ends
    return step
