r"""Exact fields when the target is a finite set of points: the optimum of training, a memory.

Whatever regression a network is trained on, it sees finitely many points, and the field that
minimises the loss over *them* is known: a softmax over the points, which at the end of its path
returns one of them. It is the field to compare a network with, because a network that reached it
would draw copies.

The base is standard normal and independent of the points. Points are compared with states in
blocks of bounded size, in float64 whatever the dtype of the data, because squared distances are
divided by $\sigma^2$; 60 000 images fit in memory. Other bases and latent noise are not covered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import rate, zero
from .interpolants import Interpolant
from .measures import Empirical, check_points, standard_normal
from .shapes import Matrices, Points, Time, Values, per_point

BLOCK = 2**23  # numbers that one block of a computation may hold: 64 MB


@dataclass(frozen=True)
class EmpiricalPath:
    r"""The laws $\rho_t=\sum_iw_i\,\mathcal N(\alpha_tx^i,\sigma_t^2I)$ of $x_t = \sigma_t x_0 +
    \alpha_t x_1$ with $x_1$ one of the points $x^i$, drawn with probability $w_i$.

    A state that is nan or infinite is not looked for, which would cost time in every step of a
    solver: what comes back in its row is nan, and other rows do not notice.

    Raises ValueError for an interpolant with latent noise, and for points of weight 0.

    Source: here.
    Book: eq:memorisation.
    """

    interpolant: Interpolant
    target: Empirical

    def __post_init__(self) -> None:
        if self.interpolant.gamma2 is not zero:
            raise ValueError("this path has no latent noise, got gamma2 other than 0.")
        if not self.target.weights.min() > 0:
            raise ValueError("every point has a positive weight, got 0; leave such points out.")

    def reference(self, n: int, generator: torch.Generator) -> Points:
        r"""n draws of $\mathcal N(0, \sigma_0^2 I)$, from which a sampler starts."""
        like = self.target.points
        start = standard_normal(self.target.dim, like).sample(n, generator)
        return self.interpolant.sigma(like.new_zeros(())) * start

    def ends(self, n: int, generator: torch.Generator) -> tuple[Points, Points]:
        """n independent pairs (x_0, x_1)."""
        x1 = self.target.sample(n, generator)
        return standard_normal(self.target.dim, x1).sample(n, generator), x1

    def sample(self, t: Time, n: int, generator: torch.Generator) -> Points:
        r"""n independent draws of $\rho_t$, by the definition of the interpolant."""
        return self.interpolant(t, *self.ends(n, generator))

    def log_density(self, t: Time, x: Points) -> Values:
        r"""$\log\rho_t(x)$. Raises ValueError where $\sigma_t = 0$ and there is no density."""
        variance = self._variance(t, "density")
        constant = 0.5 * x.shape[1] * (2 * pi * variance).log()

        def log_mixture(t: Tensor, y: Tensor) -> Tensor:
            powers, sigma2 = self._powers(t, y)
            logs = powers / sigma2 + self.target.weights.double().log()
            shift = self.target.mean.double() * self.interpolant.alpha(t).double()[:, None]
            return logs.logsumexp(1) - 0.5 * (y - shift).square().sum(1) / sigma2[:, 0]

        return self._blocks(log_mixture, t, x, len(self.target.points)) - constant.to(x)

    def posterior(self, t: Time, x: Points) -> Float[Tensor, "n k"]:
        r"""The probability that the state x comes from each of the points.

        $$ p_t(i|x) \propto w_i\,\exp\Big(-\frac{|x-\alpha_tx^i|^2}{2\sigma_t^2}\Big) $$

        The ½ is that of the Gaussian. Where $\sigma_t = 0$ it is the limit: the nearest point.
        """
        return self._blocks(self._softmax, t, x, len(self.target.points))

    def denoiser(self, t: Time, x: Points) -> Points:
        r"""$\hat x_t(x) = \sum_i p_t(i|x)\,x^i$, a mean of the points; at $\sigma_t=0$ the
        nearest of them.

        Source: here; the minimiser of every denoising loss over these points.
        Book: eq:memorisation.
        """
        mean = lambda t, y: self._softmax(t, y) @ self.target.points.double()
        return self._blocks(mean, t, x, len(self.target.points))

    def denoiser_cov(self, t: Time, x: Points) -> Matrices:
        r"""$\operatorname{Cov}(x_1|x_t=x)$, the spread of the points that a state may come
        from."""

        def spread(t: Tensor, y: Tensor) -> Tensor:
            p, points = self._softmax(t, y), self.target.points.double()
            apart = points - (p @ points)[:, None]
            return (p[..., None] * apart).mT @ apart

        return self._blocks(spread, t, x, self.target.points.numel())

    def score(self, t: Time, x: Points) -> Points:
        r"""$\nabla\log\rho_t(x) = -(x-\alpha_t\hat x_t(x))/\sigma_t^2$. Raises ValueError at
        $\sigma_t=0$."""
        variance = self._variance(t, "score")
        miss = x - per_point(self.interpolant.alpha(t)) * self.denoiser(t, x)
        return -miss / per_point(variance)

    def velocity(self, t: Time, x: Points) -> Points:
        r"""$v_t(x) = \dot\alpha_t\hat x + \frac{\dot\sigma_t}{\sigma_t}(x - \alpha_t\hat x)$.

        The quotient is computed as $\tfrac12\,\frac{d\sigma^2}{dt}/\sigma^2$. Raises ValueError at
        $\sigma_t=0$, where the flow would have to jump to the nearest point.
        """
        path = self.interpolant
        growth = 0.5 * rate(path.variance, t) / self._variance(t, "velocity")
        guess = self.denoiser(t, x)
        miss = x - per_point(path.alpha(t)) * guess
        return per_point(rate(path.alpha, t)) * guess + per_point(growth) * miss

    def _softmax(self, t: Tensor, x: Tensor) -> Tensor:
        powers, variance = self._powers(t, x)
        gap = powers - powers.max(dim=1, keepdim=True).values
        logs = torch.where(gap == 0, 0.0, gap / variance)  # minus infinity where sigma is 0
        return (logs + self.target.weights.double().log()).softmax(1)

    def _powers(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\alpha\,y\cdot c^i - \tfrac12\alpha^2|c^i|^2$, with $y$ and $c^i$ measured from the
        mean of the law, and $\sigma^2$ as a column."""
        alpha, variance = (
            curve(t).double()[:, None] for curve in (self.interpolant.alpha, self._sigma2)
        )
        centre = self.target.mean.double()
        points = self.target.points.double() - centre
        cross = (x - alpha * centre) @ points.mT
        return alpha * cross - 0.5 * alpha**2 * points.square().sum(1), variance

    def _sigma2(self, t: Time) -> Time:
        return self.interpolant.variance(t)

    def _variance(self, t: Time, wanted: str) -> Time:
        variance = self._sigma2(t)
        if not (variance > 0).all():
            raise ValueError(
                f"points have no {wanted} where sigma is 0, got such a time; stop the grid before."
            )
        return variance

    def _blocks(self, function: Callable, t: Time, x: Points, row: int) -> Tensor:
        """A function of (times, states) in float64, over blocks of states with `row` numbers
        each."""
        check_points(x, self.target.points)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
            raise ValueError(f"a time has shape () or (n,) = ({len(x)},), got {tuple(t.shape)}.")
        t, size = t.expand(len(x)), max(1, BLOCK // row)
        parts = zip(t.split(size), x.double().split(size))
        return torch.cat([function(s, y) for s, y in parts]).to(x)
