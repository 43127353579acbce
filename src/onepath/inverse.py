r"""Linear inverse problems $y = Ax_1 + \sigma_y n$: exact posteriors, and likelihoods to guide by.

The posterior of a Gaussian mixture is a Gaussian mixture, so every approximate sampler can be held
against the truth. A sampler is guided by $p_t(y|x)$, the likelihood of the measurement given the
*noisy* state, for which the data are still uncertain. For Gaussian data it is known from two
moments of $x_1$ given $x_t$; for mixtures it is exact by the oracle and approximate by two moments;
without the second moment it is wrong for any data. Nonlinear measurements and unknown noise are not
covered.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from .fields import gaussian_path
from .interpolants import Interpolant
from .measures import Mixture, log_normals
from .oracles import MixturePath
from .shapes import Field, LogDensity, Matrices, Points, Time, Values

Operator = Float[Tensor, "m d"]
Measured = Float[Tensor, "m"] | Float[Tensor, "n m"]  # one for all points, or one for each
Spread = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> A Cov(x_1|x_t) Aᵀ, one m by m matrix each


def exact_posterior(prior: Mixture, A: Operator, y: Float[Tensor, "..."], noise: float) -> Mixture:
    r"""The law of $x_1$ given $y = Ax_1 + \sigma_yn$: a mixture with as many components.

    $$ w_k' \propto w_k\,\mathcal N(y;\,Am_k,\,R_k),\quad m_k' = m_k + K_k(y - Am_k),\quad
       C_k' = (I-K_kA)\,C_k\,(I-K_kA)^\top + \sigma_y^2K_kK_k^\top, $$

    $R_k = AC_kA^\top+\sigma_y^2I$ and $K_k = C_kA^\top R_k^{-1}$. The long form of $C_k'$ stays
    positive under rounding.

    Args:
        y: one measurement (m,).
        noise: the standard deviation $\sigma_y>0$ of each measured number.

    Raises ValueError unless A, one y and the prior fit together and the noise is positive.

    Source: Bishop (2006), Pattern recognition and machine learning.
    Book: eq:exact-posterior.
    """
    check_measurement(A, y, noise, prior.means)
    if y.ndim != 1:
        raise ValueError(
            f"a posterior is that of one measurement (m,), got {tuple(y.shape)}; call it for each."
        )
    m, C, eye = prior.means, prior.covs, torch.eye(prior.dim).to(A)
    R = A @ C @ A.mT + noise**2 * torch.eye(len(A)).to(A)
    gain = torch.linalg.solve(R, A @ C).mT
    keep = eye - gain @ A
    covs = keep @ C @ keep.mT + noise**2 * gain @ gain.mT
    means = m + torch.einsum("kdm,km->kd", gain, y - m @ A.mT)
    weights = (prior.weights.log() + log_normals(y[None], (m @ A.mT)[None], R[None])[0]).softmax(0)
    return Mixture(weights, means, 0.5 * (covs + covs.mT))


def exact_likelihood(path: MixturePath, A: Operator, y: Measured, noise: float) -> LogDensity:
    r"""$\log p_t(y|x)$, exact for a mixture: $\log p_t(x, y) - \log\rho_t(x)$.

    Given the component, $(x_t, y)$ is jointly Gaussian, so both terms are mixtures.

    Raises ValueError unless A, y and the path fit together and the noise is positive, and for a
    path whose base is not standard normal.

    Source: here.
    Book: eq:exact-likelihood.
    """
    check_measurement(A, y, noise, path.target.means)
    if not path.has_gaussian_base:
        raise ValueError(
            "the likelihood of a measurement is written for a base N(0, I) that is independent of "
            "the target; this path has another."
        )
    C, seen = path.target.covs, path.target.means @ A.mT

    def log_h(t: Time, x: Points) -> Values:
        _check_points(A, x, y)
        means, covs = path.means(t), path.covs(t)
        alpha = path.interpolant.alpha(t).to(C).reshape(-1, 1, 1, 1)
        cross = (alpha * (C @ A.mT)).expand(*covs.shape[:2], -1, -1)
        below = (A @ C @ A.mT + noise**2 * torch.eye(len(A)).to(A)).expand(len(covs), -1, -1, -1)
        both = torch.cat([torch.cat([covs, cross], 3), torch.cat([cross.mT, below], 3)], 2)
        centres = torch.cat([means, seen.expand(len(means), -1, -1)], 2)
        points = torch.cat([x, y.expand(len(x), len(A))], 1)
        joint = path.weights.flatten().log() + log_normals(points, centres, both)
        return joint.logsumexp(1) - path.log_density(t, x)

    return log_h


def linear_likelihood(
    denoiser: Field, A: Operator, y: Measured, noise: float, spread: Spread | None = None
) -> LogDensity:
    r"""$\log\mathcal N\big(y;\,A\hat x,\;A\operatorname{Cov}(x_1|x_t)A^\top+\sigma_y^2I\big)$.

    Exact for Gaussian data; for other data the Gaussian with the first two moments of
    $p_t(y|x)$. Without `spread` the covariance is $\sigma_y^2I$ alone, as if the denoised point
    were the data: the gradient of that is diffusion posterior sampling (DPS), wrong for any data
    except as $t\to1$.

    Args:
        spread: $A\operatorname{Cov}(x_1|x_t=x)A^\top$, by `projected` or `tweedie_spread`.

    Raises ValueError unless A and y fit together and the noise is positive; in its first call
    unless they fit the points.

    Source: Chung et al. (2023), Diffusion posterior sampling, without spread.
    Book: eq:linear-likelihood.
    """
    check_measurement(A, y, noise)

    def log_h(t: Time, x: Points) -> Values:
        _check_points(A, x, y)
        R = noise**2 * torch.eye(len(A)).to(x).expand(len(x), -1, -1)
        R = R if spread is None else R + spread(t, x)
        miss = (y - denoiser(t, x) @ A.mT)[:, None]
        return log_normals(miss.flatten(0, 1), torch.zeros_like(miss), R[:, None])[:, 0]

    return log_h


def projected(cov: Callable[[Tensor, Tensor], Matrices], A: Operator) -> Spread:
    r"""$A\operatorname{Cov}(x_1|x_t)A^\top$ from a covariance, that of `path.denoiser_cov`."""
    return lambda t, x: A @ cov(t, x) @ A.mT


def tweedie_spread(denoiser: Field, path: Interpolant, A: Operator) -> Spread:
    r"""$A\operatorname{Cov}(x_1|x_t)A^\top = \tfrac{\sigma^2}\alpha\,A\,\nabla\hat x\,A^\top$ of a
    denoiser, made symmetric.

    m backward passes, batched. A network's Jacobian need be neither symmetric nor nonnegative; the
    first is enforced here, the second is not, and `linear_likelihood` is nan where it fails.

    Source: Efron (2011), Tweedie's formula and selection bias.
    Book: eq:tweedie-covariance.
    """
    path = gaussian_path(path)

    def spread(t: Time, x: Points) -> Float[Tensor, "n m m"]:
        _check_points(A, x)
        _, rows = _measured_rows(denoiser, A, t, x)
        S = _per_matrix(path.variance(t) / path.alpha(t)).to(x) * (rows @ A.mT)
        return 0.5 * (S + S.mT)

    return spread


def tweedie_guidance(
    denoiser: Field, path: Interpolant, A: Operator, y: Measured, noise: float
) -> Field:
    r"""The gradient of `linear_likelihood` with Tweedie's covariance, that covariance held fixed.

    $$ (A\nabla\hat x)^\top\Big(\tfrac{\sigma^2}\alpha A\nabla\hat xA^\top+\sigma_y^2I\Big)^{-1}
       (y - A\hat x) . $$

    Exact for Gaussian data, whose covariance does not depend on x. m backward passes and no second
    derivative, which makes it affordable for networks. Eigenvalues of a network's
    $A\nabla\hat xA^\top$ that are negative count with their size, so that no correction exceeds
    what it corrects.

    Raises ValueError unless A and y fit together and the noise is positive, and for a path with
    latent noise.

    Source: Boys et al. (2024), Tweedie moment projected diffusions for inverse problems.
    Book: eq:linear-likelihood.
    """
    check_measurement(A, y, noise)
    path = gaussian_path(path)

    def field(t: Time, x: Points) -> Points:
        _check_points(A, x, y)
        guess, rows = _measured_rows(denoiser, A, t, x)
        S = _per_matrix(path.variance(t) / path.alpha(t)).to(x) * (rows @ A.mT)
        values, vectors = torch.linalg.eigh(0.5 * (S + S.mT))
        miss = torch.einsum("nmk,nm->nk", vectors, y - guess @ A.mT)
        pull = torch.einsum("nmk,nk->nm", vectors, miss / (values.abs() + noise**2))
        return torch.einsum("nm,nmd->nd", pull, rows)

    return field


def check_measurement(A: Tensor, y: Tensor, noise: float, like: Tensor | None = None) -> None:
    """Raise ValueError unless A is (m, d), y has m numbers, both are finite, of one dtype and
    device (those of `like`, which has d columns), and the noise is positive and finite."""
    if A.ndim != 2 or 0 in A.shape or not A.isfinite().all():
        raise ValueError(
            f"an operator is a finite matrix (m, d), one row for each measured number, got "
            f"{tuple(A.shape)}; one row is a[None]."
        )
    if like is not None:
        _check_points(A, like)
    if y.ndim not in (1, 2) or y.shape[-1] != len(A) or not y.isfinite().all():
        raise ValueError(
            f"a measurement has {len(A)} finite numbers, (m,) for all points or (n, m) for each, "
            f"got {tuple(y.shape)}."
        )
    _check_kinds(A, y)
    if not 0 < noise < float("inf"):
        raise ValueError(
            f"the noise of a measurement is a positive standard deviation, got {noise}; an exact "
            "measurement restricts the data to a plane, which has no density."
        )


def _check_points(A: Tensor, x: Tensor, y: Tensor | None = None) -> None:
    """The rest of the rule, in the first call: A has d columns, and y is one or one for each."""
    if A.shape[1] != x.shape[1]:
        raise ValueError(
            f"an operator acts on points of dimension {x.shape[1]}, got {tuple(A.shape)}; "
            "its columns belong to the coordinates of a point."
        )
    if y is not None and y.ndim == 2 and len(y) not in (1, len(x)):
        raise ValueError(
            f"measurements are one for all points or one for each of {len(x)}, got "
            f"{tuple(y.shape)}; repeat_interleave gives several draws the same one."
        )
    _check_kinds(A, x)


def _check_kinds(*tensors: Tensor) -> None:
    kinds = {(a.dtype, a.device) for a in tensors}
    if len(kinds) > 1:
        raise ValueError(f"operator, measurement and points share dtype and device, got {kinds}.")


def _measured_rows(
    denoiser: Field, A: Operator, t: Time, x: Points
) -> tuple[Points, Float[Tensor, "n m d"]]:
    r"""$\hat x_t(x)$ and the rows of $A\nabla\hat x_t(x)$."""
    value, pull = vjp(lambda z: denoiser(t, z), x)
    rows = vmap(lambda a: pull(a.expand(len(x), -1))[0], out_dims=1)(A)
    return value, rows


def _per_matrix(value: Time) -> Tensor:
    return value[..., None, None] if value.ndim else value
