r"""Fitting a light potential to samples of the two ends, by steps in closed form.

The loss is that of `light_bridges`, over all samples at once. Between two steps every component is
the Schrödinger bridge between two Gaussians, with the moments of its own share of the starts and of
its own share of the ends. There is no rate to choose. Networks, and samples that come in batches,
are not covered.
"""

from dataclasses import dataclass
from functools import cached_property
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
        losses: `light_loss` of the samples before the first step and after each, up to a constant,
            with the cost of a prior if there is one; they never rise, but for rounding.
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
    prior: float = 0.0,
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
    it never rises; as with all mixtures, the minimum may be a local one. Where components overlap,
    and more so where it is cold and $S_kV^0_k\gg\tau^2$, steps are short and many. In float64.

    Args:
        components: Gaussians of the plan. They begin alike, as the bridge between two Gaussians
            with the moments of the samples, moved to ends far apart that the generator draws.
        diagonal: whether each S is diagonal.
        prior: how many ends are added to each component, around its mean and spread like all ends
            together. Without any the loss has no floor, for a component may shrink onto one end.
        tolerance: the fall of the loss in a whole step, in nats, at which steps end. Of n ends, p
            parameters leave the loss uncertain by p/2n in any case.

    Raises ValueError for samples that are not finite or not of one dimension, for a tau that is not
    positive, for more components than different ends, where the ends of a component leave a
    direction without variance, and where `most` steps do not suffice.

    Source: here; the loss is that of Korotin, Gushchin and Burnaev (2024), Light Schrödinger
    bridge. Book: eq:light-loss, eq:light-step.
    """
    check_temperature(tau)
    check_samples(x0, x1, same_size=False)
    check_generator(generator, x1.device)
    if not (1 <= components <= len(x1) and prior >= 0 and tolerance > 0 and most > 0):
        raise ValueError(
            "components lie between 1 and the number of ends, prior is not negative, tolerance and "
            f"most are positive, got {components}, {prior}, {tolerance} and {most}."
        )
    data = _Data(x0.double(), x1.double(), float(tau), diagonal, prior / len(x1))
    now, step = _State.at(data, *_begin(data, components, generator)), 1.0
    losses, rounding = [now.loss], 1e-13 * max(1.0, abs(now.loss))
    while len(losses) <= most:
        r, S = _aim(data, now)
        while True:
            new = _State.at(data, now.r + step * (r - now.r), now.S + step * (S - now.S), now, step)
            if new is not None and new.loss - now.loss <= rounding and _alive(now, new):
                break
            step = 1.0 if step > 1 else step / 2
            if step < 1e-9:
                raise ValueError(
                    f"a step must lower the loss and leave every component its ends, got none from "
                    f"{now.loss:.9g}; take fewer components, more ends or a higher temperature."
                )
        losses.append(new.loss)
        if now.loss - new.loss <= tolerance * min(step, 1.0):
            uneven = (new.p.mean(0) - new.q.mean(0)).abs().sum().item()
            phi = LightPotential(new.l, new.r, new.S, data.tau)
            return LightFit(phi, data.x0, data.x0.new_tensor(losses), uneven)
        now, step = new, RELAX * step
    raise ValueError(
        f"the loss must come to fall by at most {tolerance:g} in a whole step, got "
        f"{losses[-2] - losses[-1]:.3g} in {step / RELAX:.3g} steps after {most} of them; raise "
        "tolerance, most or the temperature, or leave out the prior."
    )


def gaussian_conditional(cov0: Covs, cov1: Covs, tau: float) -> Covs:
    r"""The covariance S of the end given the start, in the bridge between two Gaussians.

    $$ SV_0S/\tau^2 + S = V_1, \qquad S = 2R\,\big(I+(I+4RV_0R/\tau^2)^{1/2}\big)^{-1}R,
       \quad R=V_1^{1/2}, $$

    of each pair, full or diagonal. $V_0$ may be singular. The cross covariance is $V_0S/\tau$.

    Raises ValueError unless $0 < \tau < \infty$.

    Source: here, from the closed form of `GaussianBridge`. Book: eq:light-step.
    """
    check_temperature(tau)
    if cov1.ndim == 2:
        return 2 * cov1 / (1 + (1 + 4 * cov0 * cov1 / tau**2).sqrt())
    v, Q = torch.linalg.eigh(cov1)
    R = Q * v.clamp(min=0).sqrt()[:, None] @ Q.mT
    w, U = torch.linalg.eigh(R @ cov0 @ R / tau**2)
    half = R @ U * (2 / (1 + (1 + 4 * w.clamp(min=0)).sqrt())).sqrt()[:, None]
    return half @ half.mT


@dataclass(frozen=True)
class _Data:
    """What does not change: samples, temperature, and a prior for the spread of each component."""

    x0: Tensor
    x1: Tensor
    tau: float
    diagonal: bool
    prior: float  # as a share of all ends

    @cached_property
    def spread(self) -> Tensor:
        return _moments(self.x1.new_ones(len(self.x1), 1), self.x1, self.diagonal)[1]


@dataclass(frozen=True)
class _State:
    """Parameters, the loss there, what each component has at the starts, and all shares."""

    l: Tensor  # noqa: E741
    r: Tensor
    S: Tensor
    loss: float
    total: Tensor
    p: Tensor
    q: Tensor

    @classmethod
    def at(
        cls, data: _Data, r: Tensor, S: Tensor, last: "_State | None" = None, step: float = 1.0
    ) -> "_State | None":
        """The state at r and S, with weights from the last one; None unless S is positive."""
        factor, wrong = (S.sqrt(), S <= 0) if data.diagonal else torch.linalg.cholesky_ex(S)
        if wrong.any():
            return None
        parts = [_logs(data, m, C) for m, C in zip(r, factor)]
        tilt, ends = (torch.stack(column, 1) for column in zip(*parts))
        before = 0.0 if last is None else last.total[:, None]
        seen = (tilt - before).logsumexp(0) - log(len(tilt))
        l = -seen  # noqa: E741
        if last is not None:  # from its share of the starts towards its share of the ends
            l = l + last.p.mean(0).log().lerp(last.q.mean(0).log(), min(step, 1.0))  # noqa: E741
        p, q = l + tilt, l + ends
        total = p.logsumexp(1)
        loss = (total.mean() - q.logsumexp(1).mean()).item() + _penalty(data, S)
        return cls(l, r, S, loss, total, p.softmax(1), q.softmax(1))


def _alive(now: _State, new: _State) -> bool:
    """Whether every component keeps half of its ends; a long step may take all of them."""
    return bool((new.q.sum(0) >= 0.5 * now.q.sum(0)).all())


def _logs(data: _Data, r: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    r"""$r\cdot x/\tau + x^\top Sx/2\tau^2$ at the starts and $\log\mathcal N(y;r,S)$ at the
    ends."""
    if data.diagonal:
        wide, white, scales = data.x0 * factor, (data.x1 - r) / factor, factor
    else:
        wide, scales = data.x0 @ factor, factor.diagonal()
        white = torch.linalg.solve_triangular(factor.mT, data.x1 - r, upper=True, left=False)
    start = data.x0 @ r / data.tau + 0.5 * wide.square().sum(1) / data.tau**2
    return start, -0.5 * white.square().sum(1) - (scales * (2 * pi) ** 0.5).log().sum()


def _penalty(data: _Data, S: Tensor) -> float:
    """What the prior's ends cost: they sit around each mean, spread like all ends together."""
    if not data.prior:
        return 0.0
    if data.diagonal:
        return 0.5 * data.prior * (data.spread / S + S.log()).sum().item()
    ratio = torch.linalg.solve(S, data.spread)
    return 0.5 * data.prior * (ratio.diagonal(dim1=1, dim2=2).sum() + S.logdet().sum()).item()


def _aim(data: _Data, now: _State) -> tuple[Tensor, Tensor]:
    """Where the whole step leads: every component a Gaussian bridge of its own."""
    m0, V0 = _moments(now.p, data.x0, data.diagonal)
    m1, V1 = _moments(now.q, data.x1, data.diagonal)
    own = now.q.mean(0) / (now.q.mean(0) + data.prior)
    own = own[:, None] if data.diagonal else own[:, None, None]
    V1 = own * V1 + (1 - own) * data.spread
    _check_spread(V1, now.q, data.x1)
    S = gaussian_conditional(own * V0, V1, data.tau)
    moved = S * m0 if data.diagonal else torch.einsum("kij,kj->ki", S, m0)
    return m1 - moved / data.tau, S


def _moments(p: Tensor, x: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    p = p / p.sum(0)
    m = p.mT @ x
    if diagonal:
        return m, p.mT @ x.square() - m.square()
    return m, torch.stack([(w[:, None] * x).mT @ x - c[:, None] * c for w, c in zip(p.mT, m)])


def _begin(data: _Data, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The Gaussian bridge of all samples k times, each moved to one of k ends that are far apart:
    the next is drawn in proportion to the squared distance from the nearest of those before."""
    x0, x1, tau, diagonal = data.x0, data.x1, data.tau, data.diagonal
    m1, V1 = x1.mean(0), data.spread
    _check_spread(V1, x1.new_ones(len(x1), 1), x1)
    m0, V0 = _moments(x0.new_ones(len(x0), 1), x0, diagonal)
    S = gaussian_conditional(V0, V1, tau)
    rows = [torch.randint(len(x1), (), generator=generator, device=x1.device)]
    apart = (x1 - x1[rows[0]]).square().sum(1)
    for _ in range(k - 1):
        if not apart.max() > 0:
            raise ValueError(
                f"components begin at different ends, got {k} of them and {len(rows)} different "
                "ends; take fewer components."
            )
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
            f"component {k} with {q[:, k].sum():.3g} ends of dimension {x1.shape[1]}; take fewer "
            "components, a prior or more ends, and leave out coordinates without variance."
        )
