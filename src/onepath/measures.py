r"""Probability measures on $\mathbb R^d$: what can be sampled and whose log-density can be
evaluated.

A measure is anything with `sample(n, generator)` and `log_prob(x)`. The Gaussian mixture is the
test measure of the book: it has several modes, so nothing is linear, and yet its noised law, score,
velocity and posterior are known in closed form at every time (`oracles`). `Pushforward` is what a
map makes of a measure. `Empirical` is the law of given points, which can be sampled and has no
density. The named laws of the plane are in `plane`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi
from typing import NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import jacobian
from .shapes import Points, Values


@runtime_checkable
class Measure(Protocol):
    """What the rest of the package asks of a probability measure."""

    def sample(self, n: int, generator: torch.Generator) -> Points: ...

    def log_prob(self, x: Points) -> Values: ...


@dataclass(frozen=True)
class Mixture:
    r"""The Gaussian mixture $\sum_k w_k\,\mathcal N(m_k, C_k)$.

    Raises ValueError unless the weights are nonnegative and sum to 1, the covariances are symmetric
    and positive definite, and shapes, dtypes and devices agree.
    """

    weights: Float[Tensor, "k"]
    means: Float[Tensor, "k d"]
    covs: Float[Tensor, "k d d"]

    def __post_init__(self) -> None:
        w, m, C = self.weights, self.means, self.covs
        if w.ndim != 1 or m.ndim != 2 or C.shape != (*m.shape, m.shape[1]) or len(w) != len(m):
            shapes = f"{tuple(w.shape)}, {tuple(m.shape)}, {tuple(C.shape)}"
            raise ValueError(
                f"weights, means and covs have shapes (k,), (k, d), (k, d, d), got {shapes}."
            )
        if not len(w) or not w.is_floating_point():
            raise ValueError(
                "a mixture has at least one component and floating-point parameters, "
                f"got {len(w)} of {w.dtype}."
            )
        if len({w.dtype, m.dtype, C.dtype}) > 1 or len({w.device, m.device, C.device}) > 1:
            kinds = ", ".join(f"{a.dtype} on {a.device}" for a in (w, m, C))
            raise ValueError(
                f"weights, means and covs share dtype and device, got {kinds}; "
                "convert them with .to()."
            )
        if not all(a.isfinite().all() for a in (w, m, C)):
            raise ValueError("weights, means and covs must be finite, got nan or inf.")
        check_weights(w)
        if not torch.allclose(
            C, C.mT, rtol=0, atol=100 * torch.finfo(C.dtype).eps * C.abs().max().item()
        ):
            raise ValueError("covs must be symmetric; use (C + C.mT) / 2.")
        if (torch.linalg.cholesky_ex(C).info != 0).any():
            least = torch.linalg.eigvalsh(C).min().item()
            raise ValueError(
                f"covs must be positive definite, got least eigenvalue {least:.3g}; "
                "add to the diagonal."
            )

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    @property
    def mean(self) -> Float[Tensor, "d"]:
        return self.weights @ self.means

    @property
    def cov(self) -> Float[Tensor, "d d"]:
        r"""$\sum_k w_k\,(C_k + m_k m_k^\top) - m m^\top$."""
        second = self.covs + self.means[:, :, None] * self.means[:, None, :]
        return torch.einsum("k,kij->ij", self.weights, second) - torch.outer(self.mean, self.mean)

    def log_prob(self, x: Points) -> Values:
        return self._log_parts(x).logsumexp(1)

    def score(self, x: Points) -> Points:
        r"""$\nabla\log p(x) = -\sum_k p(k|x)\,C_k^{-1}(x - m_k)$."""
        check_points(x, self.means)
        logs, solved = normals(x, self.means[None], self.covs[None])
        posterior = (self.weights.log() + logs).softmax(1)
        return -torch.einsum("nk,kdn->nd", posterior, solved[0])

    def to(self, like: Tensor) -> "Mixture":
        """The same law, with the dtype and device of `like`."""
        return Mixture(*(a.to(like) for a in (self.weights, self.means, self.covs)))

    def _log_parts(self, x: Tensor) -> Tensor:
        check_points(x, self.means)
        return self.weights.log() + log_normals(x, self.means[None], self.covs[None])

    def sample(self, n: int, generator: torch.Generator) -> Points:
        """n independent draws; the generator lives on the device of the mixture."""
        w = self.weights
        check_generator(generator, w.device)
        k = torch.multinomial(w, n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim, generator=generator, dtype=w.dtype, device=w.device)
        return self.means[k] + torch.einsum("nij,nj->ni", torch.linalg.cholesky(self.covs)[k], z)


def gaussian(mean: Float[Tensor, "d"], cov: Float[Tensor, "d d"]) -> Mixture:
    r"""$\mathcal N(m, C)$, as the mixture of one component."""
    return Mixture(torch.ones_like(mean[:1]), mean[None], cov[None])


def standard_normal(d: int, like: Tensor) -> Mixture:
    r"""$\mathcal N(0, I)$ on $\mathbb R^d$, with the dtype and device of `like`."""
    return gaussian(like.new_zeros(d), torch.eye(d, dtype=like.dtype, device=like.device))


@dataclass(frozen=True)
class Pushforward:
    r"""The law $T_\#p$ of $T(x)$, $x\sim p$, for an invertible map T.

    $$ \log(T_\#p)(y) = \log p(x) - \log|\det\nabla T(x)|, \qquad x = T^{-1}(y) $$

    The determinant stands at x, not at y, and is divided by: where T stretches, mass is diluted. It
    is computed by autodiff, at the price of d backward passes. `log_prob` raises ValueError where
    `forward` does not undo `inverse` or the Jacobian is singular.

    Args:
        base: the law of x.
        forward: T, from (n, d) to (n, d), row by row.
        inverse: its inverse; used by `log_prob` only.

    Source: Papamakarios et al. (2021), Normalizing flows for probabilistic modeling and inference.
    Book: eq:change-of-variables.
    """

    base: Measure
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]

    def sample(self, n: int, generator: torch.Generator) -> Points:
        return self.forward(self.base.sample(n, generator))

    def log_prob(self, y: Points) -> Values:
        x = self.inverse(y)
        miss = ((self.forward(x) - y).abs() / (1 + y.abs())).max()
        if not miss <= torch.finfo(y.dtype).eps ** 0.5:
            raise ValueError(
                f"forward must undo inverse, got {miss.item():.3g} apart; pass the exact inverse."
            )
        stretch = torch.linalg.slogdet(jacobian(lambda _, z: self.forward(z), y.new_zeros(()), x))
        if not stretch.logabsdet.isfinite().all():
            raise ValueError("the Jacobian of forward must be invertible, got determinant 0.")
        return self.base.log_prob(x) - stretch.logabsdet


@dataclass(frozen=True)
class Empirical:
    r"""The law $\sum_k w_k\,\delta_{x_k}$ of given points, $w_k = 1/k$ unless given.

    It can be sampled and transported, and it has no density: `log_prob` raises. Raises ValueError
    unless the points are finite and the weights are nonnegative and sum to 1.
    """

    points: Float[Tensor, "k d"]
    weights: Float[Tensor, "k"] = None  # type: ignore[assignment]  # filled below

    def __post_init__(self) -> None:
        x = self.points
        if x.ndim != 2 or not len(x) or not x.is_floating_point() or not x.isfinite().all():
            raise ValueError(
                "points are finite floating-point numbers, (k, d), at least one, "
                f"got {tuple(x.shape)}, {x.dtype}: {x}."
            )
        if self.weights is None:
            object.__setattr__(self, "weights", x.new_full((len(x),), 1 / len(x)))
        w = self.weights
        if w.shape != (len(x),) or w.dtype != x.dtype or w.device != x.device:
            raise ValueError(
                f"there is one weight per point, of its dtype and device, got {tuple(w.shape)}, "
                f"{w.dtype}, on {w.device} for {len(x)} points, {x.dtype}, on {x.device}."
            )
        check_weights(w)

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @property
    def mean(self) -> Float[Tensor, "d"]:
        return self.weights @ self.points

    @property
    def cov(self) -> Float[Tensor, "d d"]:
        r"""$\sum_k w_k\,(x_k - m)(x_k - m)^\top$, that of the law and not an unbiased estimate."""
        apart = self.points - self.mean
        return (self.weights[:, None] * apart).mT @ apart

    def sample(self, n: int, generator: torch.Generator) -> Points:
        check_generator(generator, self.points.device)
        return self.points[torch.multinomial(self.weights, n, True, generator=generator)]

    def log_prob(self, x: Points) -> NoReturn:
        raise ValueError("a law of points has no density; `smoothed(width)` has one.")

    def smoothed(self, width: float) -> Mixture:
        r"""The law of $x + w\,\varepsilon$: at each point a Gaussian of deviation w > 0."""
        if not width > 0:
            raise ValueError(f"a width is positive, got {width}.")
        eye = torch.eye(self.dim, dtype=self.points.dtype, device=self.points.device)
        return Mixture(self.weights, self.points, width**2 * eye.repeat(len(self.points), 1, 1))


def log_normals(
    x: Points, means: Float[Tensor, "b k d"], covs: Float[Tensor, "b k d d"]
) -> Float[Tensor, "n k"]:
    r"""$\log\mathcal N(x_i;\,m_k, C_k)$ for every sample and component; b is 1, or n for one
    mixture per sample."""
    return _log_normals(x, *_whitened(x, means, covs))


def normals(
    x: Points, means: Float[Tensor, "b k d"], covs: Float[Tensor, "b k d d"]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "b k d r"]]:
    r"""`log_normals`, and $C_k^{-1}(x_i - m_k)$ as columns (`offsets`), by one factorization."""
    factor, white = _whitened(x, means, covs)
    return _log_normals(x, factor, white), torch.linalg.solve_triangular(
        factor.mT, white, upper=True
    )


def _whitened(x: Points, means: Tensor, covs: Tensor) -> tuple[Tensor, Tensor]:
    factor = torch.linalg.cholesky(covs)
    return factor, torch.linalg.solve_triangular(factor, offsets(x, means), upper=False)


def _log_normals(x: Points, factor: Tensor, white: Tensor) -> Float[Tensor, "n k"]:
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = (white**2).sum(2) + 2 * log_det[..., None] + x.shape[1] * log(2 * pi)
    return -0.5 * square.transpose(1, 2).reshape(len(x), white.shape[1])


def offsets(x: Points, means: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d r"]:
    """$x_i - m_k$ as columns, r = n / b of them for each set of means, ready for a batched
    solve."""
    r = 1 if len(means) == len(x) else len(x)
    return (x.reshape(len(means), r, 1, x.shape[1]) - means[:, None]).permute(0, 2, 3, 1)


def check_points(x: Tensor, like: Tensor) -> None:
    """Raise ValueError unless x holds points of the space, dtype and device of `like`."""
    d = like.shape[1]
    if x.ndim != 2 or x.shape[1] != d or x.dtype != like.dtype or x.device != like.device:
        raise ValueError(
            f"points are (n, {d}), {like.dtype}, on {like.device}, "
            f"got {tuple(x.shape)}, {x.dtype}, on {x.device}; convert them with reshape and .to()."
        )


def check_weights(w: Tensor) -> None:
    """Raise ValueError unless w is nonnegative and sums to 1, up to rounding of its dtype."""
    total = w.sum().item()
    if not (w.min() >= 0 and abs(total - 1) <= 10 * len(w) * torch.finfo(w.dtype).eps):
        raise ValueError(
            f"weights must be nonnegative and sum to 1, got least {w.min().item():g} "
            f"and sum {total:.9g}; divide them by their sum."
        )


def check_generator(generator: torch.Generator, device: torch.device) -> None:
    """Raise ValueError unless the generator lives on the device where it is to draw."""
    if generator.device.type != device.type:
        raise ValueError(
            f"a generator lives on the device of the tensors it fills, got one on "
            f"{generator.device} for {device}; make it with torch.Generator({device.type!r})."
        )
