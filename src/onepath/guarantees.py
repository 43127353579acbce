r"""What a model with errors is guaranteed: laws for which both sides of the bounds are exact.

A sampler pays for its start, for its score and for its steps. For Gaussian data and affine errors
the laws of all samplers are Gaussian and solve ordinary equations; for a ripple on the score of
the standard normal law the law of the flow has a closed form; and what steps cost follows from one
curve, the Fisher information. The bounds themselves are one line each and stand in the chapter.
Constants of published theorems that are not stated there are not invented here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import jacobian
from .dynamics import Dynamics
from .interpolants import Interpolant, noising_diffusion
from .metrics import Matrix, Vector, gaussian_kl
from .oracles import MixturePath
from .shapes import Curve, Field, Matrices, Points, Time, Values, per_point

Affine = tuple[Tensor, Tensor]  # of fields at n times: values at n points, and the n Jacobians


def gaussian_history(
    dynamics: Dynamics, mean: Vector, cov: Matrix, times: Float[Tensor, "m"]
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d d"]]:
    r"""Means and covariances, at all of `times`, of a dynamics with an affine drift.

    $$ \dot n = b_t(n), \qquad \dot V = BV + VB^\top + \eta_t^2 I, \qquad B = \nabla b_t $$

    Solved by Runge and Kutta's method on the grid, so the error is of order four in its steps.
    Raises ValueError where the drift is not affine.

    Source: here. Book: eq:affine-moments.
    """
    halves = 0.5 * (times[1:] + times[:-1])
    fine = torch.cat([torch.stack([times[:-1], halves], 1).flatten(), times[-1:]])
    here = mean.expand(len(fine), -1)
    values, pulls = _affine(dynamics.drift, fine, here)
    once, twice = (dynamics.drift(fine, here + k) for k in (1, 2))
    bend = (twice - 2 * once + values).abs().max()
    if not bend <= 1e-6 * (1 + values.abs().max()):
        raise ValueError(f"the drift must be affine, got one that bends by {bend:.3g}.")
    noise = dynamics.eta(fine)[:, None, None] ** 2 * torch.eye(len(mean)).to(cov)

    def slope(k: int, n: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        pull = pulls[k] @ V
        return values[k] + pulls[k] @ (n - mean), pull + pull.T + noise[k]

    n, V, states = mean, cov, [(mean, cov)]
    for k, h in zip(range(0, len(fine) - 1, 2), times.diff()):
        dn1, dV1 = slope(k, n, V)
        dn2, dV2 = slope(k + 1, n + 0.5 * h * dn1, V + 0.5 * h * dV1)
        dn3, dV3 = slope(k + 1, n + 0.5 * h * dn2, V + 0.5 * h * dV2)
        dn4, dV4 = slope(k + 2, n + h * dn3, V + h * dV3)
        n = n + h / 6 * (dn1 + 2 * dn2 + 2 * dn3 + dn4)
        V = V + h / 6 * (dV1 + 2 * dV2 + 2 * dV3 + dV4)
        states.append((n, V))
    means, covs = zip(*states)
    return torch.stack(means), torch.stack(covs)


@dataclass(frozen=True)
class Books:
    r"""What a sampler with a wrong score pays, in nats.

    Args:
        start: $\mathrm{KL}(p_0\|\pi_0)$.
        loss: $\tfrac12\int g^2\,\mathbb E_p|s-\hat s|^2$.
        forgiven: $\tfrac12\int g^2\,\mathbb E_p|\hat s-\nabla\log q|^2$.
        charged: $\tfrac12\int g^2\,\mathbb E_p[(s-\hat s)\cdot(s-\nabla\log q)]$.
        loss_by_model: the loss with the mean over the model's own law.
        end: $\mathrm{KL}(p_1\|q_1)$.
    """

    start: float
    loss: float
    forgiven: float
    charged: float
    loss_by_model: float
    end: float


def gaussian_books(
    path: MixturePath,
    guess: Field,
    run: Dynamics,
    mean: Vector,
    cov: Matrix,
    times: Float[Tensor, "m"],
) -> Books:
    """The books of a sampler, for Gaussian data and a score that is wrong by an affine function.

    Expectations are exact, integrals over time are Simpson's, and q solves `gaussian_history`.

    Args:
        path: with a target of one component.
        guess: the learned score.
        run: the sampler, a diffusion or a flow, that was made of it.
        mean, cov: of the law that it starts from.
        times: an even number of equal steps.

    Source: here. Book: eq:score-kl-slack, eq:ode-kl.
    """
    if len(path.target.weights) != 1:
        raise ValueError(
            f"the books are those of one Gaussian, got {len(path.target.weights)} components."
        )
    mu, C = path.means(times)[:, 0], path.covs(times)[:, 0]
    n, V = gaussian_history(run, mean, cov, times)
    wrong = lambda t, x: path.score(t, x) - guess(t, x)
    exact, learned, off = (_affine(field, times, mu) for field in (path.score, guess, wrong))
    precision = -torch.linalg.inv(V)
    own = torch.einsum("nij,nj->ni", precision, mu - n), precision
    forgiven, astray = (tuple(a - b for a, b in zip(f, own)) for f in (learned, exact))
    half = 0.5 * noising_diffusion(path.interpolant)(times) ** 2
    nats = lambda f, h, covs: simpson(half * _mean_product(f, h, covs), times).item()
    by_model = _affine(wrong, times, n)
    return Books(
        start=gaussian_kl(mu[0], C[0], n[0], V[0]),
        loss=nats(off, off, C),
        forgiven=nats(forgiven, forgiven, C),
        charged=nats(off, astray, C),
        loss_by_model=nats(by_model, by_model, V),
        end=gaussian_kl(mu[-1], C[-1], n[-1], V[-1]),
    )


def _affine(field: Field, t: Time, means: Points) -> Affine:
    """An affine field at n times, as its values at the means and its Jacobians."""
    return field(t, means), jacobian(field, t, means)


def _mean_product(f: Affine, g: Affine, covs: Matrices) -> Values:
    """The mean of f(x)·g(x) at n times, for x Gaussian with those means and these covariances."""
    return (f[0] * g[0]).sum(1) + torch.einsum("nki,nij,nkj->n", f[1], covs, g[1])


def simpson(values: Values, times: Float[Tensor, "n"]) -> Tensor:
    """The integral by Simpson's rule, over an even number of equal steps."""
    steps = times.diff()
    even = len(steps) > 0 and len(steps) % 2 == 0
    if not even or not torch.allclose(steps, steps[:1], rtol=1e-6, atol=0):
        raise ValueError(
            f"Simpson's rule takes an even number of equal steps, got {steps.tolist()[:9]}."
        )
    weights = torch.full_like(times, 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    return (weights * values).sum() * steps[0] / 3


@dataclass(frozen=True)
class Ripple:
    r"""The standard normal law, and a score that is wrong by $c\cos\omega x$.

    On a VP path with this target nothing moves: the law is normal at all times. The flow of the
    wrong score, $\dot x = \tfrac12 g^2c\cos\omega x$, carries $y = \omega x$ within cells of length
    π, where $\operatorname{artanh}\sin y$ moves by $\xi_t = \tfrac12c\,\omega\int_0^t g^2$, so that

    $$ q_t(x) = \frac{\gamma(x_0)}{\cosh\xi - \sin\omega x\,\sinh\xi} . $$

    Args:
        height: c > 0.
        frequency: ω > 0.
        path: a variance preserving one; what counts is $-2\log\alpha$.

    Book: eq:ripple.
    """

    height: float
    frequency: float
    path: Interpolant

    def __post_init__(self) -> None:
        if not (self.height > 0 and self.frequency > 0):
            raise ValueError(
                "height and frequency of a ripple are positive, "
                f"got {self.height} and {self.frequency}."
            )

    def reach(self, t: Time) -> Time:
        """ξ at time t: how far the ripple has carried, in its own clock."""
        past = self.path.alpha(t).log() - self.path.alpha(torch.zeros_like(t)).log()
        return self.height * self.frequency * past

    def score(self, t: Time, x: Points) -> Points:
        """The wrong score."""
        return -x + self.height * (self.frequency * x).cos()

    def velocity(self, t: Time, x: Points) -> Points:
        """The velocity that belongs to it."""
        g2 = noising_diffusion(self.path)(t) ** 2
        return 0.5 * per_point(g2) * self.height * (self.frequency * x).cos()

    def start(self, t: Time, x: Points) -> Points:
        """Where the flow has come from that is at x at time t."""
        return self._carried(-self.reach(t), x)

    def end(self, t: Time, x: Points) -> Points:
        """Where the flow is at time t that starts at x."""
        return self._carried(self.reach(t), x)

    def log_density(self, t: Time, x: Points) -> Values:
        """Of the flow that starts from the standard normal law."""
        before = self.start(t, x)
        stretch = self._widening(-self.reach(t), x).log()
        return (-0.5 * before**2 - 0.5 * torch.full_like(x, 2 * pi).log() - stretch).sum(1)

    def own_score(self, t: Time, x: Points) -> Points:
        """The score of that law, which is not the score that made it."""
        reach, y = self.reach(t), self.frequency * x
        own = self.frequency * y.cos() * per_point(reach).sinh() - self.start(t, x)
        return own / self._widening(-reach, x)

    def _widening(self, reach: Time, x: Points) -> Points:
        """The inverse of the derivative of `_carried`."""
        reach = per_point(reach)
        return reach.cosh() + (self.frequency * x).sin() * reach.sinh()

    def _carried(self, reach: Time, x: Points) -> Points:
        y, wide, reach = self.frequency * x, self._widening(reach, x), per_point(reach)
        sine = (y.sin() * reach.cosh() + reach.sinh()) / wide
        new = torch.atan2(sine, y.cos() / wide)
        return (new + 2 * pi * ((y - new) / (2 * pi)).round()) / self.frequency


def frozen_score_cost(path: Interpolant, information: Curve, times: Float[Tensor, "m"]) -> Tensor:
    r"""What it costs, in relative entropy of paths, to freeze the exact score over each step.

    $$ \tfrac12\sum_k\int_{t_k}^{t_{k+1}} g_t^2\,\Big[J_t - J_{t_k} +
       2\Big(1-\frac{\alpha_{t_k}}{\alpha_t}\Big)J_{t_k}\Big]\,dt $$

    Args:
        information: $J_t = \mathbb E|\nabla\log p_t|^2$.
        times: increasing, within the part of [0, 1] where J is finite.

    Source: here. Book: eq:held-score.
    """

    def change(J: Tensor, before: Tensor, ratio: Tensor) -> Tensor:
        return J - before + 2 * (1 - 1 / ratio) * before

    return _frozen(path, information, times, change)


def frozen_relative_cost(
    path: Interpolant, information: Curve, times: Float[Tensor, "m"]
) -> Tensor:
    r"""The same for the relative score $\nabla\log(p_t/\gamma)$, on a VP path.

    $$ \tfrac12\sum_k\int_{t_k}^{t_{k+1}} g_t^2\,\Big[I_t - I_{t_k} -
       2\Big(\frac{\alpha_t}{\alpha_{t_k}}-1\Big)I_{t_k}\Big]\,dt $$

    Args:
        information: $I_t = \mathbb E|\nabla\log(p_t/\gamma)|^2$.

    Source: here. Book: eq:held-relative.
    """

    def change(I: Tensor, before: Tensor, ratio: Tensor) -> Tensor:  # noqa: E741
        return I - before - 2 * (ratio - 1) * before

    return _frozen(path, information, times, change)


def _frozen(
    path: Interpolant,
    information: Curve,
    times: Tensor,
    change: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Half the sum over steps of the integral of g² times `change`, by Gauss' rule in each step."""
    nodes, weights = (torch.from_numpy(a).to(times) for a in numpy.polynomial.legendre.leggauss(8))
    lengths = times.diff()[:, None]
    t = times[:-1, None] + 0.5 * lengths * (nodes + 1)
    inside, begun = t.flatten(), times[:-1].repeat_interleave(len(nodes))
    before = information(times[:-1]).repeat_interleave(len(nodes))
    found = change(information(inside), before, path.alpha(inside) / path.alpha(begun))
    rates = noising_diffusion(path)(inside) ** 2 * found
    return 0.25 * (lengths * weights * rates.reshape(t.shape)).sum()
