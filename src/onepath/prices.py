r"""What an error of a sampler costs: the value of a state, its gradient, and the bill of a run.

For a function $\varphi$ of the sample and an exact dynamics, the value $u_t(x) =
\mathbb E[\varphi(X_1)\,|\,X_t = x]$ says what is expected at the end from a state on the way; its
gradient is the price, per unit of displacement there. With the noise of the noising process and
without noise both are known for mixtures on the line, which is what is covered. A function of the
sample is called with a tensor of any shape and acts on each number by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from .fields import gaussian_path
from .oracles import MixturePath
from .shapes import Points, Scalar, Time, Values
from .solvers import Step

Feature = Callable[[Tensor], Tensor]  # one number of the sample to another

_NODES = 48  # of Gauss and Hermite's rule within a component
_REACH, _HALVINGS = 30.0, 28  # deviations from the mean where bisection begins


def posterior_mean(path: MixturePath, phi: Feature) -> Scalar:
    r"""$\mathbb E[\varphi(x_1)\,|\,x_t = x]$, which is the value under the noise $\eta = g$.

    The reversal of the noising process draws data from their posterior, so that no equation has to
    be solved: within component k the data are Gaussian, with the mean of `denoiser` and the
    variance $\sigma^2C_k/S_k$, and $\varphi$ is averaged by quadrature. With $\varphi(x) = x$ it is
    the denoiser.

    Args:
        path: Gaussian, on the line.
        phi: smooth on the scale of the components.

    Raises ValueError for a path in more dimensions or with another base.

    Source: here. Book: eq:price.
    """
    _check_line(path)
    schedule = gaussian_path(path)
    m, C = path.target.means[:, 0], path.target.covs[:, 0, 0]
    nodes, weights = (torch.from_numpy(a).to(m) for a in _hermite(_NODES))

    def value(t: Time, x: Points) -> Values:
        curves = schedule.alpha, schedule.variance
        alpha, variance = (curve(t).to(m).reshape(-1, 1) for curve in curves)
        gain = alpha * C / (alpha**2 * C + variance)
        centre = m + gain * (x - alpha * m)
        spread = (variance * C / (alpha**2 * C + variance)).sqrt()
        inner = phi(centre[..., None] + spread[..., None] * nodes) @ weights
        return (path.posterior(t, x) * inner).sum(1)

    return value


def transported(path: MixturePath, t: Time, x: Points, stop: float = 1.0) -> Points:
    r"""Where the flow of a path on the line takes the state x of time t: $F_s^{-1}(F_t(x))$.

    A flow on the line keeps the order of its particles, and so the share of mass on their left.
    Found by bisection on that share, or on the share on the right where that is smaller; the last
    two steps are Newton's, so that derivatives in t and x are right. The path may have any ends.

    Args:
        stop: the time s, before t or after it.

    Raises ValueError for a path in more dimensions.

    Source: here. Book: eq:flow-price.
    """
    _check_line(path)
    s = torch.full_like(t, stop)
    now, end = _mass(path, t), _mass(path, s)

    def newton(y: Points, mass: Values) -> Points:
        slope = path.log_density(s, y).exp().clamp(min=torch.finfo(y.dtype).tiny)
        return y + side * ((end(y, side) - mass) / slope)[:, None]

    with torch.no_grad():
        side = torch.where(now(x, -1.0) < now(x, 1.0), -1.0, 1.0)[:, None].to(x)
        wanted = now(x, side)
        means, widths = path.means(s)[..., 0], path.covs(s)[..., 0, 0].sqrt()
        low = torch.full_like(x, (means - _REACH * widths).min().item())
        high = torch.full_like(x, (means + _REACH * widths).max().item())
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            short = (side[:, 0] * (end(middle, side) - wanted) > 0)[:, None]
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        y = newton(0.5 * (low + high), wanted)
    return newton(y, now(x, side))


def flow_value(path: MixturePath, phi: Feature) -> Scalar:
    r"""The value without noise, $\varphi(F_1^{-1}(F_t(x)))$: the flow leaves nothing open.

    Source: here. Book: eq:flow-price.
    """
    return lambda t, x: phi(transported(path, t, x))[:, 0]


def looked_up(value: Scalar, low: float, high: float, n: int = 4000) -> Scalar:
    """A value by linear interpolation between n equal cells, for very many states.

    Each time that it meets costs one call of `value`; states beyond the ends count as the ends.
    """
    known: dict[float, Values] = {}

    def found(t: Tensor, x: Points) -> Values:
        if t.item() not in known:
            places = torch.linspace(low, high, n + 1, dtype=x.dtype, device=x.device)
            known[t.item()] = value(t, places[:, None])
        here = ((x[:, 0] - low) * (n / (high - low))).clamp(0, n)
        left = here.long().clamp(max=n - 1)
        ends = known[t.item()]
        return torch.lerp(ends[left], ends[left + 1], here - left)

    return found


@dataclass(frozen=True)
class Bill:
    r"""By how much the mean of $\varphi$ over the samples of a run is off, and because of what.

    The mean over the samples minus that over the data is the sum of all entries, in expectation
    over the noise of each step.

    Args:
        start: the wrong law of the start.
        network: of each step, what its wrong field changes.
        steps: of each step, what is wrong with it where its field is exact.
        stop: what is missing from the last state to the data.
        ends: the samples.
    """

    start: float
    network: Float[Tensor, "m"]
    steps: Float[Tensor, "m"]
    stop: float
    ends: Points

    @property
    def total(self) -> float:
        return self.start + (self.network + self.steps).sum().item() + self.stop


def bill(
    learned: Step,
    exact: Step,
    value: Scalar,
    phi: Feature,
    target: float,
    start: Points,
    times: Float[Tensor, "m"],
    generator: torch.Generator | None = None,
    nodes: int = 5,
) -> Bill:
    r"""Split the error of a run into start, network, steps and stop, with nothing left over.

    Each step is taken twice from the states of the run, with learned and with exact fields. Means
    over its noise are by quadrature, those over the states are over the particles.

    Args:
        learned, exact: one sampler made with two fields; it draws once in a step, or never.
        value: $u_t(x)$ of the dynamics that the sampler follows.
        target: the mean of $\varphi$ over the data.
        start: particles of the law from which the run starts.

    Raises ValueError for a step that draws twice in one, or draws and has no generator.

    Source: here. Book: eq:bill.
    """
    prepared = [
        step.prepared(times[:-1], times[1:]) if hasattr(step, "prepared") else repeat(step)
        for step in (learned, exact)
    ]
    rule = [a.tolist() for a in _hermite(nodes)]

    def draw() -> Tensor:
        if generator is None:
            raise ValueError("a step that draws noise needs a generator, got None.")
        return torch.randn(start.shape, generator=generator, dtype=start.dtype, device=start.device)

    x, memory, entries = start, (None, None), []
    worth = opening = value(times[0], x).mean().item()
    for t, t_next, *both in zip(times[:-1], times[1:], *prepared):
        ways = [_mean_after(s, x, t, t_next, m, value, rule) for s, m in zip(both, memory)]
        (by_learned, by_exact), kept = zip(*ways)
        entries.append((by_learned - by_exact, by_exact - worth))
        x, _ = both[0](x, t, t_next, draw, memory[0])
        memory, worth = kept, value(t_next, x).mean().item()
    network, steps = torch.tensor(entries, dtype=torch.float64).unbind(1)
    return Bill(opening - target, network, steps, phi(x)[:, 0].mean().item() - worth, x)


def _mean_after(
    step: Step, x: Points, t: Tensor, t_next: Tensor, memory: object, value: Scalar, rule: list
) -> tuple[float, object]:
    """The mean of the value after a step, over its noise, and what the step remembers."""
    total, kept = 0.0, None
    for z, weight in zip(*rule):
        drawn = []
        y, kept = step(x, t, t_next, lambda z=z: drawn.append(z) or torch.full_like(x, z), memory)
        if len(drawn) > 1:
            raise ValueError(f"a step draws once at most, got {len(drawn)} draws in one.")
        here = value(t_next, y).mean().item()
        if not drawn:
            return here, kept
        total += weight * here
    return total, kept


def _mass(path: MixturePath, t: Time) -> Callable[[Points, Tensor | float], Values]:
    """The mass on one side of points at time t, -1 their left and 1 their right, to all digits."""
    means, widths = path.means(t)[..., 0], path.covs(t)[..., 0, 0].sqrt()
    half = 0.5 * path.weights.flatten()
    return lambda x, side: torch.erfc(side * (x - means) / (2**0.5 * widths)) @ half


def _hermite(n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Nodes and weights of a mean over the standard normal law."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()


def _check_line(path: MixturePath) -> None:
    if path.target.dim != 1:
        raise ValueError(
            f"values are those of a law on the line, got {path.target.dim} dimensions."
        )
