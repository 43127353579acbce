r"""Exact fields along an interpolant between Gaussian mixtures: what networks have to learn, known
in closed form.

Given the components that the two ends come from, everything is Gaussian; the mixture then averages
over the posterior of the component. The results are exact up to rounding at every t in [0, 1], both
ends included, where they are the limits. Targets without a density (data points) are not covered.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import rates, zero
from .interpolants import Interpolant
from .measures import (
    Mixture,
    check_generator,
    check_points,
    log_normals,
    normals,
    standard_normal,
)
from .shapes import Matrices, Points, Time, Values


@dataclass(frozen=True)
class MixturePath:
    r"""The laws $\rho_t$ of $x_t = \sigma x_0 + \alpha x_1 + \gamma z$, with $x_0$, $x_1$ from two
    mixtures.

    Given the pair $(i, j)$ of components, $x_0$ and $x_1$ are independent, hence

    $$ \rho_t = \sum_{ij} w_{ij}\,\mathcal N(\sigma\,a_i + \alpha\,m_j,\; S_{ij}), \qquad
       S_{ij} = \sigma^2 A_i + \alpha^2 C_j + \gamma^2 I . $$

    Args:
        base: law of x_0, with means a and covariances A; N(0, I) unless given.
        weights: coupling of the components, a matrix with the weights of base and target as its
            margins; their product, that is independent ends, unless given.

    Source: here.
    Book: eq:mixture-path.
    """

    interpolant: Interpolant
    target: Mixture
    base: Mixture = None  # type: ignore[assignment]  # filled below, so that readers always find a mixture
    weights: Float[Tensor, "k0 k1"] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.base is None:
            object.__setattr__(self, "base", standard_normal(self.target.dim, self.target.means))
        a, b = self.base, self.target
        if a.dim != b.dim or a.means.dtype != b.means.dtype or a.means.device != b.means.device:
            kinds = " and ".join(f"{c.dim}, {c.means.dtype}, {c.means.device}" for c in (a, b))
            raise ValueError(f"base and target share dimension, dtype and device, got {kinds}.")
        if self.weights is None:
            object.__setattr__(self, "weights", torch.outer(a.weights, b.weights))
        w = self.weights
        if w.shape != (len(a.weights), len(b.weights)) or w.min() < 0:
            raise ValueError(
                f"a coupling has one nonnegative weight per pair of components, got {w}."
            )
        if w.dtype != a.means.dtype or w.device != a.means.device:
            raise ValueError(
                f"a coupling shares dtype and device with its ends, got {w.dtype} on {w.device}; "
                "convert it with .to()."
            )
        rounding = 10 * w.numel() * torch.finfo(w.dtype).eps
        for margin, law, name in ((w.sum(1), a, "base"), (w.sum(0), b, "target")):
            if not torch.allclose(margin, law.weights, rtol=0, atol=rounding):
                raise ValueError(
                    f"the margins of a coupling are the weights of its ends; {name}: got {margin}."
                )

    @property
    def has_gaussian_base(self) -> bool:
        """Whether x_0 is N(0, I) and independent of x_1, the precondition of every conversion in
        `fields`."""
        a = self.base
        eye = torch.eye(a.dim, dtype=a.means.dtype, device=a.means.device)
        return len(a.weights) == 1 and bool((a.means == 0).all() and (a.covs == eye).all())

    def reference(self, n: int, generator: torch.Generator) -> Points:
        r"""n draws of $\mathcal N(0, \sigma_0^2 I)$, from which a sampler starts. Equal to $\rho_0$
        if $\alpha_0=0$."""
        like = self.target.means
        start = standard_normal(self.target.dim, like).sample(n, generator)
        return self.interpolant.sigma(like.new_zeros(())) * start

    def ends(self, n: int, generator: torch.Generator) -> tuple[Points, Points]:
        """n coupled pairs (x_0, x_1)."""
        check_generator(generator, self.weights.device)
        pair = torch.multinomial(self.weights.flatten(), n, replacement=True, generator=generator)
        i, j = pair // self.weights.shape[1], pair % self.weights.shape[1]
        return _draw(self.base, i, generator), _draw(self.target, j, generator)

    def sample(self, t: Time, n: int, generator: torch.Generator) -> Points:
        r"""n independent draws of $\rho_t$, by the definition of the interpolant."""
        x0, x1 = self.ends(n, generator)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        return self.interpolant(t, x0, x1, z)

    def means(self, t: Time) -> Float[Tensor, "b k d"]:
        """Means of the components at time t: b = 1, or n if each sample has its time; k counts
        pairs."""
        sigma, alpha = (
            self._batch(self.interpolant.sigma(t)),
            self._batch(self.interpolant.alpha(t)),
        )
        a, m = self.base.means[:, None], self.target.means[None]
        return (sigma * a + alpha * m).flatten(1, 2)

    def covs(self, t: Time) -> Float[Tensor, "b k d d"]:
        i = self.interpolant
        return self._mix_covs(i.variance(t), i.alpha(t) ** 2, i.gamma2(t))

    def log_density(self, t: Time, x: Points) -> Values:
        r"""$\log\rho_t(x)$."""
        return self._log_parts(t, x).logsumexp(1)

    def posterior(self, t: Time, x: Points) -> Float[Tensor, "n k"]:
        r"""The probability of each pair of components, given $x_t = x$."""
        return self._log_parts(t, x).softmax(1)

    def score(self, t: Time, x: Points) -> Points:
        r"""$\nabla\log\rho_t(x) = -\sum_k p(k|x)\,S_k^{-1}(x - m_k)$."""
        p, solved = self._seen(t, x)
        return _average(p, -solved)

    def velocity(self, t: Time, x: Points) -> Points:
        r"""$v_t(x) = \mathbb E[\dot x_t \mid x_t = x]$.

        Component k moves by $\dot m_k + \tfrac12\,\dot S_k S_k^{-1}(x - m_k)$, because
        $\operatorname{Cov}(\dot x_t, x_t \mid k) = \tfrac12\,\dot S_k$; the mixture averages over
        the posterior of k.

        Source: here.
        Book: eq:mixture-velocity.
        """
        i = self.interpolant
        # the rate of sigma moves the means of the base only, and is dear to compute
        sigma = i.sigma if (self.base.means != 0).any() else zero
        curves = sigma, i.alpha, i.variance, i.gamma2
        d_sigma, d_alpha, d_variance, d_gamma2 = rates(curves, t)
        dm = self._mean_rates(d_sigma, d_alpha)
        dS = self._mix_covs(d_variance, 2 * i.alpha(t) * d_alpha, d_gamma2)
        p, solved = self._seen(t, x)
        return _average(p, dm[..., None] + 0.5 * dS @ solved)

    def denoiser(self, t: Time, x: Points) -> Points:
        r"""$\hat x_t(x) = \mathbb E[x_1 \mid x_t = x] = \sum_k p(k|x)\,\hat x_k$.

        Within a pair of components $\hat x_k = m_j + \alpha C_j S_k^{-1}(x - \mu_k)$, the
        regression of x_1 on x_t; the mixture averages over the posterior of the pair.

        Source: here.
        Book: eq:oracle-denoiser.
        """
        return _average(*self._denoised(t, x))

    def base_denoiser(self, t: Time, x: Points) -> Points:
        r"""$\mathbb E[x_0 \mid x_t = x]$, the mean of the base draw given the state.

        Within a pair of components $a_i + \sigma A_i S_k^{-1}(x - \mu_k)$.

        Source: here.
        Book: eq:interpolant-fields.
        """
        a, A = (
            v.repeat_interleave(len(self.target.weights), 0)
            for v in (self.base.means, self.base.covs)
        )
        sigma = self._batch(self.interpolant.sigma(t))
        p, solved = self._seen(t, x)
        return _average(p, a[..., None] + sigma * A @ solved)

    def latent_denoiser(self, t: Time, x: Points) -> Points:
        r"""$\mathbb E[z \mid x_t = x]$, the mean of the latent noise; 0 where there is none.

        Within a pair of components $\gamma S_k^{-1}(x - \mu_k)$, the regression of z on x_t.

        Source: here.
        Book: eq:latent-score.
        """
        gamma = self._batch(self.interpolant.gamma2(t).sqrt())
        p, solved = self._seen(t, x)
        return _average(p, gamma * solved)

    def denoiser_cov(self, t: Time, x: Points) -> Matrices:
        r"""$\operatorname{Cov}(x_1 \mid x_t = x)$, the posterior covariance of the target.

        $$ \sum_k p(k|x)\,\Big[C_j - \alpha^2C_jS_k^{-1}C_j
           + (\hat x_k - \hat x)(\hat x_k - \hat x)^\top\Big] : $$

        the covariance within a pair of components, and the spread of their means. The difference is
        computed as $C_jS_k^{-1}(\sigma^2A_i + \gamma^2I)$, which is the same and keeps its digits
        near the data, where the difference cancels.

        Source: here.
        Book: eq:oracle-cov.
        """
        i = self.interpolant
        C, nil = self._per_pair(self.target.covs), torch.zeros_like(i.alpha(t))
        blur = self._mix_covs(i.variance(t), nil, i.gamma2(t))
        inside = C @ torch.linalg.solve(self.covs(t), blur)
        p, denoised = self._denoised(t, x)
        centre = _rows(p, denoised)
        spread = centre - torch.einsum("nk,nkd->nd", p, centre)[:, None]
        between = torch.einsum("nk,nki,nkj->nij", p, spread, spread)
        within = torch.einsum("nk,nkij->nij", p, inside.expand(len(x), -1, -1, -1))
        return between + 0.5 * (within + within.mT)

    def _log_parts(self, t: Time, x: Points) -> Float[Tensor, "n k"]:
        self._check(t, x)
        return self.weights.flatten().log() + log_normals(x, self.means(t), self.covs(t))

    def _seen(self, t: Time, x: Points) -> tuple[Tensor, Float[Tensor, "b k d r"]]:
        """The posterior, and $S_k^{-1}(x - m_k)$ as columns, of which the fields are made."""
        self._check(t, x)
        logs, solved = normals(x, self.means(t), self.covs(t))
        return (self.weights.flatten().log() + logs).softmax(1), solved

    def _denoised(self, t: Time, x: Points) -> tuple[Tensor, Float[Tensor, "b k d r"]]:
        """The posterior, and the mean of x_1 given x_t = x and the pair of components."""
        m, C = self._per_pair(self.target.means), self._per_pair(self.target.covs)
        p, solved = self._seen(t, x)
        return p, m[..., None] + self._batch(self.interpolant.alpha(t)) * C @ solved

    def _per_pair(self, of_target: Tensor) -> Tensor:
        """A parameter of the target's components, once for each pair, in the order of `means`."""
        return of_target.repeat(len(self.base.weights), *[1] * (of_target.ndim - 1))

    def _mean_rates(self, d_sigma: Time, d_alpha: Time) -> Float[Tensor, "b k d"]:
        a, m = self.base.means[:, None], self.target.means[None]
        # where a square-root schedule ends its rate is infinite, and a mean of 0 stays 0
        moved = torch.where(a == 0, 0.0, self._batch(d_sigma) * a)
        if not moved.isfinite().all():
            raise ValueError(
                "no velocity at the end of a square-root schedule: sigma falls with infinite slope "
                "there and carries the means of the base; stop the grid before that end."
            )
        return (moved + self._batch(d_alpha) * m).flatten(1, 2)

    def _mix_covs(self, base: Time, target: Time, latent: Time) -> Float[Tensor, "b k d d"]:
        b, a, c = (self._batch(weight)[..., None] for weight in (base, target, latent))
        eye = torch.eye(self.target.dim).to(self.target.means)
        return (b * self.base.covs[:, None] + a * self.target.covs[None] + c * eye).flatten(1, 2)

    def _batch(self, value: Time) -> Float[Tensor, "b 1 1 1"]:
        """A curve's value with b = 1 (t of shape ()) or n in front, to broadcast over pairs of
        components and over coordinates."""
        return value.to(self.target.means).reshape(-1, 1, 1, 1)

    def _check(self, t: Time, x: Points) -> None:
        check_points(x, self.target.means)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
            raise ValueError(f"a time has shape () or (n,) = ({len(x)},), got {tuple(t.shape)}.")


def _average(posterior: Float[Tensor, "n k"], columns: Float[Tensor, "b k d r"]) -> Points:
    """Mean over the posterior of the component."""
    return torch.einsum("nk,nkd->nd", posterior, _rows(posterior, columns))


def _rows(posterior: Tensor, columns: Float[Tensor, "b k d r"]) -> Float[Tensor, "n k d"]:
    """Undo the layout of `offsets`: one row per sample and component."""
    return columns.permute(0, 3, 1, 2).reshape(*posterior.shape, columns.shape[2])


def _draw(law: Mixture, k: Tensor, generator: torch.Generator) -> Points:
    z = torch.randn(
        len(k), law.dim, generator=generator, dtype=law.means.dtype, device=law.means.device
    )
    return law.means[k] + torch.einsum("nij,nj->ni", torch.linalg.cholesky(law.covs)[k], z)
