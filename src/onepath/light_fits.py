r"""Fitting a light potential to samples of the two ends, by steps in closed form.

The loss is that of `light_bridges`, over all samples at once. Between two steps every component is
the Schrödinger bridge between two Gaussians, with the moments of its own share of the starts and of
its own share of the ends. There is no rate to choose. Networks, and samples that come in batches,
are not covered.
"""

from dataclasses import dataclass
from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor

from .bridges import check_temperature
from .light_bridges import Covs, LightBridge, LightPotential
from .measures import check_generator
from .metrics import OtherPoints, check_samples
from .shapes import Points

RELAX = 1.5  # factor by which a step grows for as long as the loss falls


@dataclass(frozen=True)
class LightFit:
    """A light potential, and how it was found.

    Args:
        losses: `light_loss` of the samples before the first step and after each, up to a constant;
            they never rise.
        uneven: sum over the components of how far its share of the starts is from that of the ends.
    """

    potential: LightPotential
    starts: Points
    losses: Float[Tensor, "m"]
    uneven: float

    @property
    def bridge(self) -> LightBridge:
        return LightBridge(self.potential, self.starts)


def light_fit(
    x0: Points,
    x1: OtherPoints,
    tau: float,
    components: int,
    generator: torch.Generator,
    diagonal: bool = False,
    tolerance: float = 1e-6,
    most: int = 1000,
) -> LightFit:
    r"""The light potential whose loss is least, from samples that are not paired.

    With the shares $p_k$ of the starts and $q_k$ of the ends, and with the means and covariances
    $\bar x_k,V^0_k$ and $\bar y_k,V^1_k$ of the samples so weighted, a step goes to

    $$ S_kV^0_kS_k/\tau^2+S_k=V^1_k, \qquad r_k=\bar y_k-S_k\bar x_k/\tau, $$

    the Schrödinger bridge between two Gaussians with these moments, and then rescales the weights
    as proportional fitting does. Where a step leads nowhere the gradient of the loss vanishes. One
    component is done in one step. Steps grow while the loss falls and shrink when it does not, so
    it never rises; as with all mixtures, the minimum may be a local one. In float64.

    Args:
        components: Gaussians of the plan. They begin alike, as the bridge between two Gaussians
            with the moments of the samples, moved to ends far apart that the generator draws.
        diagonal: whether each S is diagonal.
        tolerance: the fall of the loss in a step, in nats, at which the steps end. Of n ends, p
            parameters leave the loss uncertain by p/2n in any case.

    Raises ValueError for samples that are not finite or not of one dimension, for a tau that is not
    positive, where the ends of a component leave a direction without variance, and where `most`
    steps do not suffice.

    Source: here; the loss is that of Korotin, Gushchin and Burnaev (2024), Light Schrödinger
    bridge. Book: eq:light-loss, eq:light-step.
    """
    check_temperature(tau)
    check_samples(x0, x1, same_size=False)
    check_generator(generator, x1.device)
    if not (1 <= components <= len(x1) and tolerance > 0 and most > 0):
        raise ValueError(
            "components lie between 1 and the number of ends, tolerance and most are positive, "
            f"got {components}, {tolerance} and {most}."
        )
    x0, x1 = x0.double(), x1.double()
    r, S = _begin(x0, x1, tau, components, generator, diagonal)
    now, losses, step = _State.at(r, S, tau, x0, x1, None), [], 1.0
    losses.append(now.loss)
    while len(losses) <= most:
        aim_r, aim_S = _aim(now, tau, x0, x1, diagonal)
        while True:
            S = now.S + step * (aim_S - now.S)
            new = _State.at(now.r + step * (aim_r - now.r), S, tau, x0, x1, now)
            if new is not None and new.loss <= now.loss:
                break
            step = 1.0 if step > 1 else step / 2
            if step < 1e-9:
                raise ValueError(f"a step must lower the loss, got none from {now.loss:.9g}.")
        losses.append(new.loss)
        now, done = new, step >= 1 and now.loss - new.loss <= tolerance
        if done:
            uneven = (now.p.mean(0) - now.q.mean(0)).abs().sum().item()
            phi = LightPotential(now.l, now.r, now.S, float(tau))
            return LightFit(phi, x0, x0.new_tensor(losses), uneven)
        step *= RELAX
    raise ValueError(
        f"the loss must come to fall by at most {tolerance:g} in a step, got "
        f"{losses[-2] - losses[-1]:.3g} after {most} of them; raise tolerance or most."
    )


def gaussian_conditional(cov0: Covs, cov1: Covs, tau: float) -> Covs:
    r"""The covariance S of the end given the start, in the bridge between two Gaussians.

    $$ SV_0S/\tau^2 + S = V_1, \qquad S = 2R\,\big(I+(I+4RV_0R/\tau^2)^{1/2}\big)^{-1}R,
       \quad R=V_1^{1/2}, $$

    of each pair, full or diagonal. $V_0$ may be singular. The cross covariance is $V_0S/\tau$.

    Source: here, from the closed form of `GaussianBridge`. Book: eq:light-step.
    """
    if cov1.ndim == 2:
        return 2 * cov1 / (1 + (1 + 4 * cov0 * cov1 / tau**2).sqrt())
    v, Q = torch.linalg.eigh(cov1)
    R = Q * v.clamp(min=0).sqrt()[:, None] @ Q.mT
    w, U = torch.linalg.eigh(R @ cov0 @ R / tau**2)
    half = R @ U * (2 / (1 + (1 + 4 * w.clamp(min=0)).sqrt())).sqrt()[:, None]
    return half @ half.mT


@dataclass(frozen=True)
class _State:
    """Parameters, the loss there, what each component has at the starts, and all shares."""

    l: Tensor  # noqa: E741
    r: Tensor
    S: Tensor
    loss: float
    tilt: Tensor
    total: Tensor
    p: Tensor
    q: Tensor

    @classmethod
    def at(
        cls, r: Tensor, S: Tensor, tau: float, x0: Tensor, x1: Tensor, last: "_State | None"
    ) -> "_State | None":
        """The state at r and S, with weights from the last one; None unless S is positive."""
        factor, wrong = (S.sqrt(), S <= 0) if S.ndim == 2 else torch.linalg.cholesky_ex(S)
        if wrong.any():
            return None
        parts = [_logs(m, C, tau, x0, x1) for m, C in zip(r, factor)]
        tilt, ends = (torch.stack(column, 1) for column in zip(*parts))
        if last is None:  # components of one size
            l = log(len(x0)) - tilt.logsumexp(0)
        else:
            seen = (tilt - last.total[:, None]).logsumexp(0) - log(len(x0))
            l = last.q.mean(0).log() - seen
        p, q = l + tilt, l + ends
        total = p.logsumexp(1)
        loss = (total.mean() - q.logsumexp(1).mean()).item()
        return cls(l, r, S, loss, tilt, total, p.softmax(1), q.softmax(1))


def _logs(r: Tensor, factor: Tensor, tau: float, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    r"""$r\cdot x/\tau + x^\top Sx/2\tau^2$ at the starts and $\log\mathcal N(y;r,S)$ at the
    ends."""
    if factor.ndim == 1:
        wide, white, scales = x0 * factor, (x1 - r) / factor, factor
    else:
        wide, scales = x0 @ factor, factor.diagonal()
        white = torch.linalg.solve_triangular(factor.mT, x1 - r, upper=True, left=False)
    start = x0 @ r / tau + 0.5 * wide.square().sum(1) / tau**2
    return start, -0.5 * white.square().sum(1) - (scales * (2 * pi) ** 0.5).log().sum()


def _aim(now: _State, tau: float, x0: Tensor, x1: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    """Where the whole step leads: every component a Gaussian bridge of its own."""
    (m0, V0), (m1, V1) = _moments(now.p, x0, diagonal), _moments(now.q, x1, diagonal)
    _check_spread(V1, now.q, x1)
    S = gaussian_conditional(V0, V1, tau)
    moved = S * m0 if diagonal else torch.einsum("kij,kj->ki", S, m0)
    return m1 - moved / tau, S


def _moments(p: Tensor, x: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    p = p / p.sum(0)
    m = p.mT @ x
    if diagonal:
        return m, p.mT @ x.square() - m.square()
    return m, torch.stack([(w[:, None] * x).mT @ x - c[:, None] * c for w, c in zip(p.mT, m)])


def _begin(
    x0: Tensor, x1: Tensor, tau: float, k: int, generator: torch.Generator, diagonal: bool
) -> tuple[Tensor, Tensor]:
    """The Gaussian bridge of all samples k times, each moved to one of k ends that are far apart:
    the next is drawn in proportion to the squared distance from the nearest of those before."""
    (m0, V0), (m1, V1) = (_moments(x.new_ones(len(x), 1), x, diagonal) for x in (x0, x1))
    _check_spread(V1, x1.new_ones(len(x1), 1), x1)
    S = gaussian_conditional(V0, V1, tau)
    rows = [torch.randint(len(x1), (), generator=generator, device=x1.device)]
    apart = (x1 - x1[rows[0]]).square().sum(1)
    for _ in range(k - 1):
        rows.append(torch.multinomial(apart, 1, generator=generator)[0])
        apart = torch.minimum(apart, (x1 - x1[rows[-1]]).square().sum(1))
    ends = x1[torch.stack(rows)] - m1
    if diagonal:
        back = m0 + ends * V0 * S / (tau * V1)
        return m1 + ends - S * back / tau, S.repeat(k, 1)
    back = m0 + torch.linalg.solve(V1[0], ends.mT).mT @ (S[0] @ V0[0]) / tau
    return m1 + ends - back @ S[0] / tau, S.repeat(k, 1, 1)


def _check_spread(V: Tensor, q: Tensor, x1: Tensor) -> None:
    least = (V if V.ndim == 2 else torch.linalg.eigvalsh(V)).amin(1)
    if not (least > 1e-9 * x1.var(0).sum()).all():
        k = least.argmin()
        raise ValueError(
            f"the ends of a component vary in every direction, got the variance {least[k]:.3g} in "
            f"component {k} with {q[:, k].sum():.3g} ends of dimension {x1.shape[1]}; take "
            "fewer components, more ends or diagonal=True; leave out coordinates without variance."
        )
