r"""Probability measures on $\mathbb R^d$: what can be sampled and whose log-density can be
evaluated.

A measure is anything with `sample(n, generator)` and `log_prob(x)`. The Gaussian mixture is the
test measure of the book: it has several modes, so nothing is linear, and yet its noised law, score,
velocity and posterior are known in closed form at every time (`oracles`). Laws without a density
are not covered here.
"""

from dataclasses import dataclass
from math import log, pi
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from .shapes import Points, Values


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
        total = w.sum().item()
        if w.min() < 0 or abs(total - 1) > 10 * len(w) * torch.finfo(w.dtype).eps:
            raise ValueError(
                f"weights must be nonnegative and sum to 1, got least {w.min().item():g} "
                f"and sum {total:.9g}; divide them by their sum."
            )
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
        check_points(x, self.means)
        return (self.weights.log() + log_normals(x, self.means[None], self.covs[None])).logsumexp(1)

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


def log_normals(
    x: Points, means: Float[Tensor, "b k d"], covs: Float[Tensor, "b k d d"]
) -> Float[Tensor, "n k"]:
    r"""$\log\mathcal N(x_i;\,m_k, C_k)$ for every sample and component; b is 1, or n for one
    mixture per sample."""
    factor = torch.linalg.cholesky(covs)
    white = torch.linalg.solve_triangular(factor, offsets(x, means), upper=False)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = (white**2).sum(2) + 2 * log_det[..., None] + x.shape[1] * log(2 * pi)
    return -0.5 * square.transpose(1, 2).reshape(len(x), means.shape[1])


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


def check_generator(generator: torch.Generator, device: torch.device) -> None:
    """Raise ValueError unless the generator lives on the device where it is to draw."""
    if generator.device.type != device.type:
        raise ValueError(
            f"a generator lives on the device of the tensors it fills, got one on "
            f"{generator.device} for {device}; make it with torch.Generator({device.type!r})."
        )
