"""Laws and schedules that the tests share: unequal weights, tilted covariances, no symmetry to hide
in."""

import torch
from torch import Tensor

from onepath.interpolants import (
    Interpolant,
    bridge,
    linear,
    trigonometric,
    variance_exploding,
    variance_preserving,
)
from onepath.measures import Mixture
from onepath.oracles import MixturePath

F64 = torch.float64

TARGET = Mixture(
    weights=torch.tensor([0.3, 0.7], dtype=F64),
    means=torch.tensor([[-2.0, 1.0], [1.5, -0.5]], dtype=F64),
    covs=torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.5, -0.2], [-0.2, 0.4]]], dtype=F64),
)
BASE = Mixture(
    weights=torch.tensor([0.5, 0.2, 0.3], dtype=F64),
    means=torch.tensor([[0.5, -1.0], [-0.8, 0.3], [0.1, 1.2]], dtype=F64),
    covs=torch.tensor(
        [[[0.9, 0.3], [0.3, 0.7]], [[0.4, -0.1], [-0.1, 1.1]], [[0.5, 0.4], [0.4, 0.6]]], dtype=F64
    ),
)
# the margins of this coupling are those weights
COUPLING = torch.tensor([[0.2, 0.3], [0.05, 0.15], [0.05, 0.25]], dtype=F64)

NOISING = {
    "linear": linear,
    "trigonometric": trigonometric,
    "VP": variance_preserving(),
    "VP, rough": variance_preserving(0.3, 7.0),
    "VE": variance_exploding(0.05, 10.0),
}
INTERPOLANTS = NOISING | {
    "bridge": bridge(0.7),
    "own latent noise": Interpolant(
        sigma=lambda t: 1 - t**2, alpha=lambda t: t**3, gamma2=lambda t: 0.4 * t * (1 - t) ** 2
    ),
}


def paths() -> dict[str, MixturePath]:
    """Every interpolant from a standard normal; then ends that are mixtures, free and coupled."""
    from_normal = {name: MixturePath(i, TARGET) for name, i in INTERPOLANTS.items()}
    return from_normal | {
        "bridge, mixture base": MixturePath(bridge(0.7), TARGET, BASE),
        "linear, coupled ends": MixturePath(linear, TARGET, BASE, COUPLING),
    }


PATHS = paths()


def scalar(value: float) -> Tensor:
    """A float64 number, as a time is."""
    return torch.tensor(value, dtype=F64)


def points(n: int, generator: torch.Generator, d: int = 2, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, d, generator=generator, dtype=F64)


def inner_times(n: int, generator: torch.Generator) -> Tensor:
    """n different times, away from both ends by 0.02."""
    return 0.02 + 0.96 * torch.rand(n, generator=generator, dtype=F64)


def random_mixture(seed: int, d: int, k: int, dtype: torch.dtype = F64) -> Mixture:
    """A well-conditioned mixture: eigenvalues of the covariances at least 0.3."""
    generator = torch.Generator().manual_seed(seed)
    weights = 0.2 + torch.rand(k, generator=generator, dtype=F64)
    roots = torch.randn(k, d, d, generator=generator, dtype=F64) / d**0.5
    covs = roots @ roots.mT + 0.3 * torch.eye(d, dtype=F64)
    means = 1.5 * torch.randn(k, d, generator=generator, dtype=F64)
    return Mixture(
        *(a.to(dtype) for a in ((weights / weights.sum()), means, 0.5 * (covs + covs.mT)))
    )


def waves(law: Mixture, u: Tensor) -> Tensor:
    r"""$\mathbb E\,e^{i u\cdot x}$ for each row of u: the characteristic function, which determines
    a law.

    Exact, and shares nothing with the code that evaluates densities or draws samples.
    """
    damping = 0.5 * torch.einsum("...i,kij,...j->...k", u, law.covs.to(u), u)
    return (law.weights.to(u) * torch.exp(1j * (u @ law.means.to(u).T) - damping)).sum(-1)


def same_rows(function, t: Tensor, x: Tensor) -> Tensor:
    """The largest difference between a batch and a loop over its samples, for times () and (n,)."""
    batch = function(t, x)
    rows = [function(t if t.ndim == 0 else t[i : i + 1], x[i : i + 1]) for i in range(len(x))]
    return (batch - torch.cat(rows)).abs().max()
