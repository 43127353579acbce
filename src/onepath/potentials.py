r"""Schrödinger bridges by their two potentials: between mixtures and between samples, exactly.

The density of a bridge is a product of two solutions of the heat equation, one that runs towards
the end and one that comes from the start. If each begins as a mixture of Gaussians or of points,
both are mixtures at every time, and with them density, score, drifts and velocity. A plan between
n and m points needs n + m Gaussians and not nm. The potentials are given or come from an
entropic plan; learning them is not covered.
"""

from dataclasses import dataclass
from functools import cached_property
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from .bridges import check_temperature
from .couplings import EntropicPlan
from .measures import check_generator, check_points, log_normals, offsets
from .shapes import Points, Time, Values, per_point


@dataclass(frozen=True)
class Potential:
    r"""A positive solution of the heat equation, a mixture of Gaussians or of points at first.

    $$ \varphi_v(x) = \sum_ke^{\ell_k}\,\mathcal N(x;\,m_k,\,C_k+vI), \qquad
       \partial_v\varphi = \tfrac12\Delta\varphi . $$

    Args:
        log_weights: $\ell$; they need not sum to anything, and may be far apart.
        covs: C, positive definite; None for points, C = 0.

    Every method takes v, the variance by which the potential has spread: $\tau(1-t)$ for the one
    that begins at t = 1, $\tau t$ for the one that begins at t = 0. Raises ValueError where v is
    negative, or not positive for points, which have no density of their own.

    Source: here; a Gaussian integral. Book: eq:mixture-potential.
    """

    log_weights: Float[Tensor, "k"]
    means: Float[Tensor, "k d"]
    covs: Float[Tensor, "k d d"] | None = None

    def __post_init__(self) -> None:
        k, d = self.means.shape
        if self.log_weights.shape != (k,) or not (self.log_weights < torch.inf).all():
            raise ValueError(
                f"a potential has a finite log-weight (or -inf) for each of its {k} means, "
                f"got {self.log_weights}."
            )
        if self.covs is None:
            return
        if self.covs.shape != (k, d, d) or (torch.linalg.cholesky_ex(self.covs).info != 0).any():
            raise ValueError(
                f"covariances of a potential are positive definite, ({k}, {d}, {d}), got "
                f"{tuple(self.covs.shape)}; for points pass None."
            )

    def log(self, v: Time, x: Points) -> Values:
        r"""$\log\varphi_v(x)$."""
        return self._logs(v, x).logsumexp(1)

    def slope(self, v: Time, x: Points) -> Points:
        r"""$\nabla\log\varphi_v(x) = \sum_kp_k\,(C_k+vI)^{-1}(m_k-x)$."""
        share = self.shares(v, x)
        if self.covs is None:
            return (share @ self.means - x) / per_point(v.to(x))
        away = torch.linalg.solve(self._spread(v), offsets(x, self._centres(v)))
        columns = away.permute(0, 3, 1, 2).reshape(len(x), -1, x.shape[1])
        return -torch.einsum("nk,nkd->nd", share, columns)

    def shares(self, v: Time, x: Points) -> Float[Tensor, "n k"]:
        r"""$p_k$, the share of each component in $\varphi_v(x)$."""
        return self._logs(v, x).softmax(1)

    def origin(self, v: Time, x: Points) -> Points:
        r"""$\mathbb E[Y] = x + v\,\nabla\log\varphi_v(x)$ for Y with the density
        $\mathcal N(y;x,vI)\,\varphi_0(y)/\varphi_v(x)$: where the mass at x comes from."""
        return x + per_point(v.to(x)) * self.slope(v, x)

    def draw(self, v: Time, x: Points, generator: torch.Generator) -> Points:
        """One such Y for each x, of points one of the points."""
        check_generator(generator, x.device)
        k = torch.multinomial(self.shares(v, x), 1, generator=generator)[:, 0]
        if self.covs is None:
            return self.means[k]
        v = per_point(v.to(x).expand(len(x)))[..., None]
        C, eye = self.covs[k], torch.eye(x.shape[1]).to(x)
        gain = torch.linalg.solve(C + v * eye, C)  # C and C + v I commute
        ahead = v[..., 0] * torch.linalg.solve(C + v * eye, (self.means[k] - x)[..., None])[..., 0]
        root = torch.linalg.cholesky(0.5 * v * (gain + gain.mT))
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return x + ahead + torch.einsum("nij,nj->ni", root, z)

    def _logs(self, v: Time, x: Points) -> Float[Tensor, "n k"]:
        check_points(x, self.means)
        least = v.min().item()
        if least < 0 or (least == 0 and self.covs is None):
            raise ValueError(
                f"a potential has spread by v >= 0, and one of points by v > 0, got {least:g}; "
                "stop before its own end and draw the end instead."
            )
        if self.covs is not None:
            return self.log_weights + log_normals(x, self._centres(v), self._spread(v))
        v, centre = per_point(v.to(x)), self.means.mean(0)
        y, m = x - centre, self.means - centre
        square = (y**2).sum(1, keepdim=True) + (m**2).sum(1) - 2 * y @ m.mT
        return self.log_weights - 0.5 * square / v - 0.5 * x.shape[1] * (2 * pi * v).log()

    def _spread(self, v: Time) -> Float[Tensor, "b k d d"]:
        eye = torch.eye(self.means.shape[1]).to(self.means)
        return self.covs[None] + v.to(self.means).reshape(-1, 1, 1, 1) * eye

    def _centres(self, v: Time) -> Float[Tensor, "b k d"]:
        return self.means[None].expand(v.numel(), -1, -1)


@dataclass(frozen=True)
class PotentialBridge:
    r"""The bridge with the density $\rho_t = \varphi_t\hat\varphi_t/Z$ of two given potentials.

    $$ b^+ = \tau\nabla\log\varphi, \quad b^- = -\tau\nabla\log\hat\varphi, \quad
       v = \tfrac12(b^+ + b^-), \quad \nabla\log\rho = \nabla\log\varphi + \nabla\log\hat\varphi. $$

    It is the Schrödinger bridge between its own ends $\rho_0$ and $\rho_1$, whatever the potentials
    are; between two laws that are given first, the potentials must be found.

    Args:
        ahead: $\varphi$, as it is at t = 1.
        behind: $\hat\varphi$, as it is at t = 0.
        tau: the temperature.

    Source: Léonard (2014), A survey of the Schrödinger problem and some of its connections with
    optimal transport. Book: eq:schroedinger-system, eq:two-potentials.
    """

    ahead: Potential
    behind: Potential
    tau: float

    def __post_init__(self) -> None:
        check_temperature(self.tau)
        check_points(self.behind.means, self.ahead.means)

    @cached_property
    def log_mass(self) -> Tensor:
        r"""$\log Z = \log\int\varphi_t\hat\varphi_t\,dx$, the same at every t."""
        tau, ahead = self.ahead.means.new_tensor(self.tau), self.ahead
        if self.behind.covs is None:
            return (self.behind.log_weights + ahead.log(tau, self.behind.means)).logsumexp(0)
        own = 0.0 if ahead.covs is None else ahead.covs
        wide = [
            Potential(ahead.log_weights, ahead.means, own + C.expand(len(ahead.means), -1, -1))
            for C in self.behind.covs
        ]
        logs = [p.log(tau, m[None])[0] for p, m in zip(wide, self.behind.means)]
        return (self.behind.log_weights + torch.stack(logs)).logsumexp(0)

    def log_density(self, t: Time, x: Points) -> Values:
        r"""$\log\rho_t(x)$."""
        both = self.ahead.log(self._left(t, x), x) + self.behind.log(self._gone(t, x), x)
        return both - self.log_mass

    def drift(self, t: Time, x: Points) -> Points:
        r"""$b^+_t(x) = \tau\nabla\log\varphi_t(x)$, with the noise $\sqrt\tau\,dW$."""
        return self.tau * self.ahead.slope(self._left(t, x), x)

    def backward_drift(self, t: Time, x: Points) -> Points:
        r"""$b^-_t(x) = -\tau\nabla\log\hat\varphi_t(x)$, the mean rate seen from the future."""
        return -self.tau * self.behind.slope(self._gone(t, x), x)

    def score(self, t: Time, x: Points) -> Points:
        r"""$\nabla\log\rho_t(x)$, of both potentials."""
        return self.ahead.slope(self._left(t, x), x) + self.behind.slope(self._gone(t, x), x)

    def velocity(self, t: Time, x: Points) -> Points:
        r"""$v_t(x) = \tfrac\tau2\nabla\log(\varphi_t/\hat\varphi_t)$."""
        return 0.5 * (self.drift(t, x) + self.backward_drift(t, x))

    def denoiser(self, t: Time, x: Points) -> Points:
        r"""$\mathbb E[X_1|X_t=x]$. Book: eq:bridge-drift."""
        return self.ahead.origin(self._left(t, x), x)

    def ends(self, t: Time, x: Points, generator: torch.Generator) -> Points:
        r"""A draw of $X_1$ given $X_t = x$, one for each x."""
        return self.ahead.draw(self._left(t, x), x, generator)

    def _left(self, t: Time, x: Points) -> Time:
        return self.tau * (1 - t.to(x))  # a shorter dtype would lose the sum of the two

    def _gone(self, t: Time, x: Points) -> Time:
        return self.tau * t.to(x)


def bridge_of_plan(plan: EntropicPlan) -> PotentialBridge:
    r"""The bridge that fills an entropic plan with Brownian motion of its temperature.

    $$ \varphi_1 = \sum_jb_je^{g_j/\tau}\,\delta_{y_j}, \qquad
       \hat\varphi_0 = \sum_ia_ie^{f_i/\tau}\,\delta_{x_i} . $$

    Its density at 0 < t < 1 is the mixture $\sum_{ij}\pi_{ij}\,\mathcal N((1-t)x_i+ty_j,\,
    \tau t(1-t)I)$ up to the error of the plan's margins; its ends are points and have none.

    Source: here. Book: eq:plan-density.
    """
    tau = plan.temperature
    ahead = Potential(plan.b.log() + plan.g / tau, plan.y.double())
    return PotentialBridge(ahead, Potential(plan.a.log() + plan.f / tau, plan.x.double()), tau)
