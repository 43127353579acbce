"""Conventions as their papers write them, for the tests of `conventions` and `papers`.

Everything here is built from a paper's own formulas, typed a second time: its chain or its noised
state, the density of that state by `torch.distributions`, its score by autodiff, the posterior
means from the score, and from those its field and its sampler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from laws import F64, TARGET
from onepath import papers
from onepath.conventions import Convention, book
from onepath.interpolants import linear
from onepath.oracles import MixturePath

BOOK = MixturePath(linear, TARGET)
SNR, FIELD, LEVEL = "eq:snr-equivalence", "eq:conversion", "eq:level"


@dataclass(frozen=True)
class Paper:
    """A convention, and its state and its field as its paper writes them."""

    convention: Convention
    state: Callable  # u -> (a, s) in y = a x_1 + s noise
    field: Callable  # (u, y, data, noise, score) -> what the network predicts
    times: tuple[float, ...]


@dataclass(frozen=True)
class Sampler:
    """The SDE that generates, dy = drift du + diffusion dB, in a clock that may run down."""

    drift: Callable  # (u, y, predicted field, score)
    diffusion: Callable
    level: Callable  # what the paper calls the noise


def ddpm_chain(u):
    """y_n = sqrt(1 - beta_n) y_(n-1) + sqrt(beta_n) noise, step by step."""
    signal, variance = [1.0], [0.0]
    for beta in torch.linspace(1e-4, 0.02, 1000, dtype=F64).tolist():
        signal.append(signal[-1] * math.sqrt(1 - beta))
        variance.append(variance[-1] * (1 - beta) + beta)
    n = u.long()
    return torch.tensor(signal, dtype=F64)[n], torch.tensor(variance, dtype=F64)[n].sqrt()


def vp_state(u):
    a = torch.exp(-0.25 * u**2 * (20 - 0.1) - 0.5 * u * 0.1)
    return a, (1 - a**2).sqrt()


def beta(u):
    return 0.1 + u * (20 - 0.1)


def geometric(u):
    return 0.01 * (50 / 0.01) ** u


def cosine(u):
    return (math.pi * u / 2).cos(), (math.pi * u / 2).sin()


def bridge_state(u):
    return u, ((1 - u) ** 2 + 0.8**2 * u * (1 - u)).sqrt()


def rows(u):
    """A number per time, ready to multiply points."""
    return u[..., None]


straight = (lambda u: (u, 1 - u), lambda u, y, x, e, s: x - e, (0.0, 0.3, 0.9))
PAPERS = {
    paper.convention.name: paper
    for paper in (
        Paper(book, *straight),
        Paper(papers.rectified_flow, *straight),
        Paper(papers.stochastic_interpolant, *straight),
        Paper(papers.ddpm(), ddpm_chain, lambda u, y, x, e, s: e, (1, 17, 300, 999, 1000)),
        Paper(papers.score_sde_vp(), vp_state, lambda u, y, x, e, s: s, (0.05, 0.4, 0.9, 1.0)),
        Paper(
            papers.score_sde_ve(),
            lambda u: (torch.ones_like(u), geometric(u)),
            lambda u, y, x, e, s: s,
            (0.4, 0.6, 0.8, 1.0),
        ),
        Paper(
            papers.edm(),
            lambda u: (torch.ones_like(u), u),
            lambda u, y, x, e, s: x,
            (0.05, 0.7, 5.0, 80.0),
        ),
        Paper(
            papers.v_diffusion(),
            cosine,
            lambda u, y, x, e, s: rows(cosine(u)[0]) * e - rows(cosine(u)[1]) * x,
            (0.1, 0.5, 0.95),
        ),
        Paper(
            papers.flow_matching(0.01),
            lambda u: (u, 1 - (1 - 0.01) * u),
            lambda u, y, x, e, s: x - (1 - 0.01) * e,
            (0.0, 0.3, 0.9),
        ),
        Paper(
            papers.noise_at_one,
            lambda u: (1 - u, u),
            lambda u, y, x, e, s: e - x,
            (0.1, 0.5, 1.0),
        ),
        Paper(
            papers.bridge_matching(0.8),
            bridge_state,
            lambda u, y, x, e, s: (x - y) / rows(1 - u),
            (0.0, 0.2, 0.9),
        ),
    )
}

SAMPLERS = {
    "this book": Sampler(
        lambda u, y, v, s: v + 0.5 * (1 - u) * s, lambda u: (1 - u).sqrt(), lambda u: (1 - u).sqrt()
    ),
    "score SDE, VP": Sampler(
        lambda u, y, f, s: -0.5 * beta(u) * y - beta(u) * s,
        lambda u: beta(u).sqrt(),
        lambda u: beta(u).sqrt(),
    ),
    "score SDE, VE": Sampler(
        lambda u, y, f, s: -2 * math.log(5000) * geometric(u) ** 2 * s,
        lambda u: geometric(u) * math.sqrt(2 * math.log(5000)),
        lambda u: geometric(u) * math.sqrt(2 * math.log(5000)),
    ),
    "EDM": Sampler(
        lambda u, y, f, s: -u * s - (0.2 + u) * u**2 * s,
        lambda u: (2 * (0.2 + u)).sqrt() * u,
        lambda u: 0.2 + u,
    ),
    "stochastic interpolant": Sampler(
        lambda u, y, b, s: b + 0.3 * (1 - u) * s,
        lambda u: (2 * 0.3 * (1 - u)).sqrt(),
        lambda u: 0.3 * (1 - u),
    ),
    "bridge matching": Sampler(
        lambda u, y, drift, s: drift, lambda u: 0.8 + 0 * u, lambda u: 0.8 + 0 * u
    ),
}


def log_density(paper: Paper):
    """log-density of their noised mixture in their clock, at times () or (n,)."""

    def log_q(u, y):
        a, s = (c.expand(len(y))[:, None, None] for c in paper.state(u))
        noise = s[..., None] ** 2 * torch.eye(2, dtype=F64)
        parts = MultivariateNormal(
            a * TARGET.means, a[..., None] ** 2 * TARGET.covs + noise, validate_args=False
        )
        weights = Categorical(TARGET.weights.expand(len(y), -1), validate_args=False)
        return MixtureSameFamily(weights, parts, validate_args=False).log_prob(y)

    return log_q


def exact(paper: Paper, predicts=None):
    """Their field: the score by autodiff of their density, the posterior means from the score."""

    def field(u, y):
        score = torch.func.grad(lambda z: log_density(paper)(u, z).sum())(y)
        a, s = (rows(c) for c in paper.state(u))
        noise = -s * score
        data = torch.where(a == 0, TARGET.mean, (y - s * noise) / a)
        return (predicts or paper.field)(u, y, data, noise, score)

    return field


def times_of(paper: Paper, n: int = 64):
    """Each time alone, then all of them in one batch."""
    each = torch.tensor(paper.times, dtype=F64)
    return [*each, each.repeat(n)[:n]]
