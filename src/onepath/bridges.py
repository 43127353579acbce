r"""Schrödinger bridges: of all laws of paths with two given ends, the nearest to Brownian motion.

The reference is $dX = \sqrt\tau\,dW$ from the first law; $\tau$ is the temperature. Static and
dynamic problem are one: a plan with the least $\mathbb E\tfrac12|x_0-x_1|^2 + \tau\,\mathrm{KL}(\pi
\,\|\,p_0\otimes p_1)$, filled with Brownian bridges of variance $\tau\,t(1-t)$. Between Gaussians
everything is in closed form, which makes an oracle. The plan of any pair of weights on points comes
from scaling rows and columns in turn, each half sweep a contraction. Learned bridges are not
covered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from .measures import check_generator, check_points, check_weights
from .metrics import Matrix, Vector, check_gaussians, square_root
from .shapes import Points, Time, Values

Kernel = Float[Tensor, "n m"]


@dataclass(frozen=True)
class GaussianBridge:
    r"""The Schrödinger bridge between $\mathcal N(m_0, S_0)$ and $\mathcal N(m_1, S_1)$.

    $$ C = \tfrac12\big(S_0^{1/2} D\, S_0^{-1/2} - \tau I\big), \qquad
       D = \big(4\,S_0^{1/2}S_1S_0^{1/2} + \tau^2 I\big)^{1/2} $$

    is the covariance of the ends, $\mathbb E[(X_0-m_0)(X_1-m_1)^\top]$. With the noise of Brownian
    bridges, of variance $\tau\,t(1-t)$, it determines the law of the paths, which is Gaussian.

    Raises ValueError unless $0 < \tau < \infty$ and both covariances are positive definite: a law
    without a density has no finite entropy to pay the temperature with.

    Source: Mallasto, Gerolin and Minh (2022), Entropy-regularized 2-Wasserstein distance between
    Gaussian measures; Bunne et al. (2023), The Schrödinger bridge between Gaussian measures has a
    closed form. Book: eq:gaussian-bridge.
    """

    mean0: Vector
    cov0: Matrix
    mean1: Vector
    cov1: Matrix
    tau: float

    def __post_init__(self) -> None:
        check_temperature(self.tau)
        check_gaussians(self.mean0, self.cov0, self.mean1, self.cov1)
        for cov, end in ((self.cov0, "first"), (self.cov1, "second")):
            if torch.linalg.cholesky_ex(cov).info != 0:
                least = torch.linalg.eigvalsh(cov).min().item()
                raise ValueError(
                    f"the {end} covariance must be positive definite, got eigenvalue {least:.3g}; "
                    "add a multiple of the identity, or use gaussian_map at temperature zero."
                )

    @cached_property
    def cross(self) -> Matrix:
        r"""The covariance C of $X_0$ (rows) and $X_1$ (columns)."""
        root = square_root(self.cov0)
        eye = torch.eye(len(root)).to(root)
        D = square_root(4 * root @ self.cov1 @ root + self.tau**2 * eye)
        return 0.5 * (root @ torch.linalg.solve(root, D, left=False) - self.tau * eye)

    def ends(self, n: int, generator: torch.Generator) -> tuple[Points, Points]:
        """n pairs $(X_0, X_1)$ from the plan."""
        check_generator(generator, self.mean0.device)
        joint = torch.cat(
            [torch.cat([self.cov0, self.cross], 1), torch.cat([self.cross.mT, self.cov1], 1)]
        )
        z = torch.randn(n, len(joint), generator=generator, dtype=joint.dtype, device=joint.device)
        both = torch.cat([self.mean0, self.mean1]) + z @ torch.linalg.cholesky(joint).mT
        return both[:, : len(self.mean0)], both[:, len(self.mean0) :]

    def mean(self, t: Time) -> Float[Tensor, "... d"]:
        r"""$m_t = (1-t)\,m_0 + t\,m_1$."""
        t = t.to(self.mean0)[..., None]
        return (1 - t) * self.mean0 + t * self.mean1

    def cov(self, t: Time) -> Float[Tensor, "... d d"]:
        r"""$S_t = (1-t)^2S_0 + t^2S_1 + t(1-t)\,(C + C^\top + \tau I)$.

        Book: eq:gaussian-bridge-marginals.
        """
        t = t.to(self.cov0)[..., None, None]
        middle = self.cross + self.cross.mT + self.tau * self._eye
        return (1 - t) ** 2 * self.cov0 + t**2 * self.cov1 + t * (1 - t) * middle

    def drift(self, t: Time, x: Points) -> Points:
        r"""The drift of the bridge in the clock t, finite at both ends.

        $$ b_t(x) = \frac{\mathbb E[X_1|X_t=x]-x}{1-t} = m_1 - m_0 + G_tS_t^{-1}(x-m_t), \quad
           G_t = (1-t)(C^\top - S_0) + t\,(S_1 - C - \tau I), $$

        with the factor $1-t$ divided out. It is $\tau\nabla\log\varphi_t$.

        Book: eq:bridge-drift.
        """
        s = t.to(self.cov0)[..., None, None]
        C = self.cross
        G = (1 - s) * (C.mT - self.cov0) + s * (self.cov1 - C - self.tau * self._eye)
        return self.mean1 - self.mean0 + self._apply(G, t, x)

    def score(self, t: Time, x: Points) -> Points:
        r"""$\nabla\log\rho_t(x) = -S_t^{-1}(x-m_t)$."""
        return -self._apply(self._eye, t, x)

    def velocity(self, t: Time, x: Points) -> Points:
        r"""$v_t = b_t - \tfrac\tau2\nabla\log\rho_t$, the velocity of the densities.

        Book: eq:schroedinger-system.
        """
        return self.drift(t, x) - 0.5 * self.tau * self.score(t, x)

    def backward_drift(self, t: Time, x: Points) -> Points:
        r"""$b^-_t = b_t - \tau\nabla\log\rho_t$, the mean rate seen from the future."""
        return self.drift(t, x) - self.tau * self.score(t, x)

    @property
    def _eye(self) -> Matrix:
        return torch.eye(len(self.mean0)).to(self.cov0)

    def _apply(self, matrix: Tensor, t: Time, x: Points) -> Points:
        """matrix · S_t^{-1} (x - m_t), one matrix for all points or one for each."""
        check_points(x, self.mean0[None])
        solved = torch.linalg.solve(self.cov(t), (x - self.mean(t))[..., None])
        return (matrix @ solved)[..., 0]


def refitted(bridge: GaussianBridge, cross: Matrix, n: int = 100) -> Matrix:
    r"""One step of iterative Markovian fitting between Gaussians: the covariance of the ends of the
    Markov process that has the marginals and the drift of a mixture of Brownian bridges.

    $$ C' = S_0\,\Psi^\top, \qquad \dot\Psi_t = G_tS_t^{-1}\Psi_t, \quad \Psi_0 = I, $$

    with $G$ and $S$ of `bridge` for the given C in place of its own. In one dimension
    $c' = s_0s_1\exp(-\tfrac\tau2\int_0^1dt/S_t)$. The bridge's own C is the only fixed point.

    Args:
        cross: the covariance C of ends that are coupled otherwise, zero for independent ones.
        n: steps of the classical Runge–Kutta method for $\Psi$.

    Raises ValueError unless the ends are a law: C of the shape of the covariances, and the joint
    covariance without negative eigenvalues.

    Source: Shi et al. (2023), Diffusion Schrödinger bridge matching. Book: eq:markovian-fitting.
    """
    if cross.shape != bridge.cov0.shape or not cross.isfinite().all():
        raise ValueError(
            f"a cross covariance is finite and {tuple(bridge.cov0.shape)}, got {cross}."
        )
    residual = bridge.cov1 - cross.mT @ torch.linalg.solve(bridge.cov0, cross)
    least = torch.linalg.eigvalsh(0.5 * (residual + residual.mT)).min().item()
    if least < -1e-9 * bridge.cov1.abs().max().item():
        raise ValueError(
            f"no ends have this cross covariance: given the first, the second would have a "
            f"covariance with eigenvalue {least:.3g}."
        )
    S0, S1, eye, tau = bridge.cov0, bridge.cov1, bridge._eye, bridge.tau

    def rate(t: float, P: Tensor) -> Tensor:
        S = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (cross + cross.mT + tau * eye)
        G = (1 - t) * (cross.mT - S0) + t * (S1 - cross - tau * eye)
        return G @ torch.linalg.solve(S, P)

    P, h = eye, 1 / n
    for k in range(n):
        t = k * h
        k1 = rate(t, P)
        k2 = rate(t + h / 2, P + h / 2 * k1)
        k3 = rate(t + h / 2, P + h / 2 * k2)
        k4 = rate(t + h, P + h * k3)
        P = P + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return S0 @ P.mT


def proportional_fitting(
    kernel: Kernel, p0: Float[Tensor, "k"], p1: Float[Tensor, "l"]
) -> Iterator[tuple[Float[Tensor, "k"], Float[Tensor, "l"]]]:
    r"""Iterative proportional fitting without end: the scalings $(a, b)$ after each half sweep.

    $$ a \leftarrow p_0/(Kb), \qquad b \leftarrow p_1/(K^\top a), \qquad
       \pi = \operatorname{diag}(a)\,K\operatorname{diag}(b), $$

    from $b = 1$, rows first. After a half sweep one margin of $\pi$ is exact. It is Sinkhorn's
    algorithm as it stands in the textbooks; where the kernel underflows, use `couplings.sinkhorn`.

    Args:
        kernel: positive, of any scale; $e^{-|x_i-y_j|^2/2\tau}$ for a bridge.

    Raises ValueError where a row or a column of the kernel has no mass to scale: no plan then has
    these margins and a finite divergence.

    Source: Sinkhorn (1967), Diagonal equivalence to matrices with prescribed row and column sums.
    Book: eq:proportional-fitting.
    """
    if kernel.shape != (len(p0), len(p1)):
        raise ValueError(
            f"a kernel has a row for each weight of p0 and a column for each of p1, "
            f"({len(p0)}, {len(p1)}), got {tuple(kernel.shape)}."
        )
    check_weights(p0)
    check_weights(p1)
    if not kernel.isfinite().all() or kernel.min() < 0:
        raise ValueError("a kernel is finite and not negative.")
    if not ((kernel @ p1 > 0) | (p0 == 0)).all() or not ((p0 @ kernel > 0) | (p1 == 0)).all():
        raise ValueError(
            "a point has mass and the kernel leads it nowhere that has mass (in this precision); "
            "raise the temperature, or use couplings.sinkhorn."
        )

    def scale() -> Iterator[tuple[Tensor, Tensor]]:
        b = torch.ones_like(p1)
        while True:
            a = torch.where(p0 > 0, p0 / (kernel @ b), 0.0)
            yield a, b
            b = torch.where(p1 > 0, p1 / (kernel.mT @ a), 0.0)
            yield a, b

    return scale()


def fitted(
    kernel: Kernel,
    p0: Float[Tensor, "k"],
    p1: Float[Tensor, "l"],
    tolerance: float = 1e-9,
    most: int = 10_000,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "l"], int]:
    r"""The scalings (a, b) at which `proportional_fitting` ends, and the number of sweeps.

    Args:
        tolerance: of $\sum_i|\sum_j\pi_{ij} - p_{0,i}|$; the other margin is exact.

    Raises ValueError where `most` sweeps do not suffice, as happens where the kernel has zeros and
    no plan, or a plan with more zeros than the kernel; and as `proportional_fitting` does.

    Source: Sinkhorn (1967). Book: eq:proportional-fitting.
    """
    if not (tolerance > 0 and most > 0):
        raise ValueError(f"tolerance and most are positive, got {tolerance} and {most}.")
    sweeps = proportional_fitting(kernel, p0, p1)
    for k in range(1, most + 1):
        next(sweeps)
        a, b = next(sweeps)
        error = (a * (kernel @ b) - p0).abs().sum().item()
        if error <= tolerance:
            return a, b, k
    raise ValueError(
        f"the margins must reach the tolerance {tolerance:g}, got {error:.3g} after {most} sweeps; "
        "raise most or the temperature, and see whether any plan lives where the kernel does."
    )


def hilbert(a: Values, b: Values) -> Tensor:
    r"""Hilbert's distance of two positive vectors, $\log\max_{ij}\frac{a_i\,b_j}{a_j\,b_i}$.

    It does not see their scales. Raises ValueError unless both are positive and finite.

    Source: Birkhoff (1957), Extensions of Jentzsch's theorem. Book: eq:contraction.
    """
    if a.shape != b.shape or not all((v > 0).all() and v.isfinite().all() for v in (a, b)):
        raise ValueError(
            "Hilbert's distance is between two positive, finite vectors of one length."
        )
    ratio = a.log() - b.log()
    return ratio.max() - ratio.min()


def contraction(kernel: Kernel) -> Tensor:
    r"""Birkhoff's coefficient, the least factor by which K contracts Hilbert's distance.

    $$ \tanh\tfrac{\Delta(K)}4, \qquad
       \Delta(K) = \log\max_{ijkl}\frac{K_{ik}K_{jl}}{K_{jk}K_{il}} $$

    for each half sweep, so squared for a sweep. Memory is $n^2m$ numbers. Raises ValueError unless
    the kernel is positive: with a zero in it nothing contracts in one half sweep.

    Source: Birkhoff (1957), Extensions of Jentzsch's theorem. Book: eq:contraction.
    """
    if not ((kernel > 0).all() and kernel.isfinite().all()):
        raise ValueError("the coefficient needs a positive, finite kernel; raise the temperature.")
    logs = kernel.log()
    gaps = logs[:, None] - logs  # of two rows, at each column
    return torch.tanh((gaps.amax(2) - gaps.amin(2)).max() / 4)


def check_temperature(tau: float) -> None:
    """Raise ValueError unless a bridge's temperature is positive and finite."""
    if not (isfinite(tau) and tau > 0):
        raise ValueError(
            f"a bridge has a positive and finite temperature, got tau = {tau}; at zero it is the "
            "optimal plan of `transport`."
        )
