r"""Light Schrödinger bridges: one potential with few parameters.

A plan of a bridge is known when its potential at the end is. Here that potential is a sum of
Gaussians times one growing Gaussian, so everything along the way is in closed form: the law of the
end given the state, the drift, the potential at every time. What a potential costs is the
divergence of the true plan from its own, up to a constant; it is a difference of two means, one
over starts and one over ends, and never asks for a pair. Its least value is found in `light_fits`.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf, log, pi

import torch
from jaxtyping import Float
from torch import Tensor

from .bridges import check_temperature
from .measures import check_generator, check_points
from .metrics import OtherPoints
from .potentials import Potential
from .shapes import Points, Time, Values, per_point

Covs = Float[Tensor, "k d d"] | Float[Tensor, "k d"]


@dataclass(frozen=True)
class LightPotential:
    r"""A potential whose plan has Gaussian components, $\varphi$ as it is at t = 1.

    $$ \varphi_1(y) = e^{|y|^2/2\tau}\sum_ke^{\ell_k}\,\mathcal N(y;\,r_k,\,S_k), \qquad
       \pi(y|x) = \sum_kp_k(x)\,\mathcal N(y;\,r_k+S_kx/\tau,\,S_k) . $$

    $S_k$ is the covariance of the end given the start and the component. Where $S_k<\tau I$ for all
    k it is the `Potential` with $C_k^{-1}=S_k^{-1}-I/\tau$; where not, it grows without bound, as
    it does whenever a plan spreads more than its noise.

    Args:
        log_weights: $\ell$; a constant added to all of them changes nothing but the scale.
        covs: S, positive definite, (k, d, d); or their diagonals, (k, d).

    Methods take v, the variance by which the potential has spread, $\tau(1-t)$, as those of
    `Potential` do, with $0\le v\le\tau$: beyond it the integral may be infinite. Raises ValueError
    for other v and unless covariances are positive definite.

    Source: Korotin, Gushchin and Burnaev (2024), Light Schrödinger bridge.
    Book: eq:light-potential.
    """

    log_weights: Float[Tensor, "k"]
    means: Float[Tensor, "k d"]
    covs: Covs
    tau: float

    def __post_init__(self) -> None:
        check_temperature(self.tau)
        (k, d), shape = self.means.shape, self.covs.shape
        l = self.log_weights  # noqa: E741
        if l.shape != (k,) or not (l < inf).all() or not (l > -inf).any():
            raise ValueError(
                f"there is a finite log-weight (or -inf, but not for all) for each of {k} means, "
                f"got {l}."
            )
        if shape not in ((k, d), (k, d, d)) or not self._spectrum[0].min() > 0:
            raise ValueError(
                f"covariances are positive definite, ({k}, {d}, {d}), or positive diagonals, "
                f"({k}, {d}), got {tuple(shape)}."
            )
        if len(shape) == 3 and not self.covs.allclose(self.covs.mT, rtol=1e-4):
            off = (self.covs - self.covs.mT).abs().max().item()
            raise ValueError(f"covariances are symmetric, got entries {off:.3g} apart.")

    @cached_property
    def potential(self) -> Potential:
        r"""The same as a mixture of Gaussians, $C_k=(S_k^{-1}-I/\tau)^{-1}$, $m_k=C_kS_k^{-1}r_k$.

        Raises ValueError unless $S_k<\tau I$.
        """
        s, Q = self._spectrum
        most = s.max().item()
        if most >= self.tau:
            raise ValueError(
                f"a mixture of Gaussians is a potential whose ends vary by less than tau = "
                f"{self.tau:g} given their starts, got the variance {most:.3g}."
            )
        c = s * self.tau / (self.tau - s)
        m = self._centres * c / s
        shift = 0.5 * (self._centres**2 * (c / s - 1) / s + (c / s).log()).sum(1)
        # e^{|y|²/2τ} N(y; r, s) = (c/s)^{1/2} e^{r²(c/s - 1)/2s} N(y; m, c), in each coordinate
        Q = torch.eye(s.shape[1]).to(s) if Q is None else Q
        covs = Q * c[:, None] @ Q.mT
        return Potential(self.log_weights + shift, (Q @ m[..., None])[..., 0], covs)

    def log(self, v: Time, x: Points) -> Values:
        r"""$\log\varphi_v(x)$."""
        return self._logs(*self._parts(v, x)).logsumexp(1)

    def shares(self, v: Time, x: Points) -> Float[Tensor, "n k"]:
        r"""$p_k$, the share of each component in $\varphi_v(x)$."""
        return self._logs(*self._parts(v, x)).softmax(1)

    def slope(self, v: Time, x: Points) -> Points:
        r"""$\nabla\log\varphi_v(x)$."""
        v, D, z = self._parts(v, x)
        s = self._spectrum[0]
        return self._back(
            self._logs(v, D, z).softmax(1), (self._centres - (1 - s / self.tau) * z) / D
        )

    def origin(self, v: Time, x: Points) -> Points:
        r"""$\mathbb E[Y]=x+v\,\nabla\log\varphi_v(x)$ for Y with the density
        $\mathcal N(y;x,vI)\,\varphi_0(y)/\varphi_v(x)$, the end given the state."""
        v, D, z = self._parts(v, x)
        s = self._spectrum[0]
        return self._back(self._logs(v, D, z).softmax(1), (s * z + v * self._centres) / D)

    def draw(self, v: Time, x: Points, generator: torch.Generator) -> Points:
        """One such Y for each x."""
        check_generator(generator, x.device)
        v, D, z = self._parts(v, x)
        p, s = self._logs(v, D, z).softmax(1), self._spectrum[0]
        k = torch.multinomial(p, 1, generator=generator)[:, 0]
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        ends = (s * z + v * self._centres) / D + (s * v / D).sqrt() * noise[:, None]
        chosen = torch.zeros_like(p).scatter_(1, k[:, None], 1.0)
        return self._back(chosen, ends)

    @cached_property
    def _spectrum(self) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d d"] | None]:
        if self.covs.ndim == 2:
            return self.covs, None
        return torch.linalg.eigh(self.covs)

    @cached_property
    def _centres(self) -> Float[Tensor, "k d"]:
        return self._turned(self.means)[range(len(self.means)), range(len(self.means))]

    def _turned(self, x: Points) -> Float[Tensor, "n k d"]:
        """The coordinates of x along the axes of every component."""
        Q = self._spectrum[1]
        return x[:, None].expand(-1, *self.means.shape) if Q is None else (x @ Q).transpose(0, 1)

    def _back(self, p: Float[Tensor, "n k"], z: Float[Tensor, "n k d"]) -> Points:
        Q, z = self._spectrum[1], p[..., None] * z
        return z.sum(1) if Q is None else torch.einsum("kid,nkd->ni", Q, z)

    def _parts(self, v: Time, x: Points) -> tuple[Tensor, Tensor, Tensor]:
        check_points(x, self.means)
        low, high = v.min().item(), v.max().item()
        if not 0 <= low <= high <= self.tau * (1 + 1e-6):
            raise ValueError(
                f"a light potential has spread by 0 <= v <= tau = {self.tau:g}, got {low:g} to "
                f"{high:g}."
            )
        v = per_point(per_point(v.to(x)))
        return v, (1 - v / self.tau) * self._spectrum[0] + v, self._turned(x)

    def _logs(self, v: Tensor, D: Tensor, z: Tensor) -> Float[Tensor, "n k"]:
        s, r = self._spectrum[0], self._centres
        square = (1 - s / self.tau) * z**2 - 2 * z * r + (1 - v / self.tau) * r**2
        return self.log_weights - 0.5 * (square / D + (2 * pi * D).log()).sum(-1)


@dataclass(frozen=True)
class LightBridge:
    r"""The bridge of a light potential from given starts, $\hat\varphi_0=\frac1n\sum_i\delta_{x_i}/
    \varphi_0(x_i)$.

    The drift needs the potential alone and forgets the starts. Density, score, velocity and
    backward drift are those of the process that leaves these points, with t > 0; the nearer to the
    start, the more they are of the points and the less of the law from which they came.

    Source: Korotin, Gushchin and Burnaev (2024), Light Schrödinger bridge.
    Book: eq:two-potentials, eq:light-potential.
    """

    ahead: LightPotential
    starts: Points

    def __post_init__(self) -> None:
        check_points(self.starts, self.ahead.means)

    @property
    def tau(self) -> float:
        return self.ahead.tau

    @cached_property
    def behind(self) -> Potential:
        v = self.starts.new_tensor(self.tau)
        return Potential(-self.ahead.log(v, self.starts) - log(len(self.starts)), self.starts)

    def drift(self, t: Time, x: Points) -> Points:
        r"""$b^+_t(x) = \tau\nabla\log\varphi_t(x)$, finite at both ends."""
        return self.tau * self.ahead.slope(self._left(t, x), x)

    def backward_drift(self, t: Time, x: Points) -> Points:
        r"""$b^-_t(x) = -\tau\nabla\log\hat\varphi_t(x)$."""
        return -self.tau * self.behind.slope(self.tau * t.to(x), x)

    def score(self, t: Time, x: Points) -> Points:
        r"""$\nabla\log\rho_t(x) = (b^+ - b^-)/\tau$."""
        return (self.drift(t, x) - self.backward_drift(t, x)) / self.tau

    def velocity(self, t: Time, x: Points) -> Points:
        r"""$v_t(x) = \tfrac12(b^+ + b^-)$."""
        return 0.5 * (self.drift(t, x) + self.backward_drift(t, x))

    def log_density(self, t: Time, x: Points) -> Values:
        r"""$\log\rho_t(x) = \log\varphi_t + \log\hat\varphi_t$; the mass is 1."""
        return self.ahead.log(self._left(t, x), x) + self.behind.log(self.tau * t.to(x), x)

    def ends(self, t: Time, x: Points, generator: torch.Generator) -> Points:
        r"""A draw of $X_1$ given $X_t = x$, one for each x."""
        return self.ahead.draw(self._left(t, x), x, generator)

    def _left(self, t: Time, x: Points) -> Time:
        return self.tau * (1 - t.to(x))


def light_loss(phi: LightPotential, x0: Points, x1: OtherPoints) -> Tensor:
    r"""What the plan of a potential costs, on samples of the two ends.

    $$ L(\varphi) = \mathbb E_{p_0}\log\varphi_0 - \mathbb E_{p_1}\log\varphi_1 $$

    It is $\mathrm{KL}(\pi^*\|\pi)$ and a constant, the same for all potentials. The scale of
    $\varphi$ does not matter. $\varphi_0$ has spread by v = τ and normalises the plan given the
    start. Starts and ends are not paired, and there may be more of one.

    Source: Korotin, Gushchin and Burnaev (2024), Light Schrödinger bridge. Book: eq:light-loss.
    """
    whole, none = x0.new_tensor(phi.tau), x1.new_tensor(0.0)
    return phi.log(whole, x0).mean() - phi.log(none, x1).mean()
