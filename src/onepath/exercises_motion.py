"""Tests of the exercises of chapters 6 and 7, many dynamics and likelihood. The answers are not
here."""

from collections.abc import Callable, Iterator

import torch

from .calculus import constant, jacobian, rate
from .dynamics import Dynamics
from .exercises_start import Answer, Test, plane
from .interpolants import linear
from .likelihood import log_density
from .measures import gaussian
from .oracles import MixturePath
from .solvers import euler, integrate, times
from .verify import continuity, fokker_planck


def way_back(answer: Answer) -> Iterator[Test]:
    """ex:reverse, chapter 6."""
    path, _, x = plane()
    back = lambda r, x: answer(path, r, x)
    density = lambda r, x: path.log_density(1 - r, x)
    for r in (0.2, 0.7):
        time = torch.tensor(r, dtype=torch.float64)
        residual = fokker_planck(density, back, constant(1.0), time, x).abs().max()
        yield f"Fokker–Planck in the clock r, with η = 1, at r = {r}", bool(residual < 1e-9)


def own_swirl(answer: Answer) -> Iterator[Test]:
    """ex:swirl, chapter 6."""
    path, _, x = plane()
    t = torch.tensor(0.6, dtype=torch.float64)
    w = answer(path, t, x)
    yield "the field is not zero", bool(w.norm() > 1e-3)
    moved = lambda t, x: path.velocity(t, x) + answer(path, t, x)
    residual = continuity(path.log_density, moved, t, x).abs().max()
    yield "the continuity equation holds with the field added", bool(residual < 1e-8)
    far = torch.full((1, 2), 8.0, dtype=torch.float64)
    tail = path.log_density(t, far).exp() * answer(path, t, far).square().sum()
    yield (
        "the energy of the field is finite: far out, density times square is small",
        bool(tail < 1),
    )
    turned = path.score(t, x) @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    factor = (w * turned).sum() / (turned * turned).sum()
    yield (
        "the field is not a multiple of the turned score",
        bool((w - factor * turned).norm() > 1e-3),
    )


def two_networks(answer: Answer) -> Iterator[Test]:
    """ex:two-networks, chapter 6."""
    for e_v, e_s in ((1.0, 1.0), (0.3, 2.0), (5.0, 0.1)):
        v, s = (torch.tensor(e, dtype=torch.float64) for e in (e_v, e_s))
        cost = lambda eta, v=v, s=s: (v**2 + 0.25 * eta**4 * s**2) / (2 * eta**2)
        eta = torch.as_tensor(answer(e_v, e_s), dtype=torch.float64)
        yield (
            f"the cost is stationary, for errors {e_v} and {e_s}",
            bool(rate(cost, eta).abs() < 1e-6),
        )


def found_likelihood(answer: Answer) -> Iterator[Test]:
    """ex:find-likelihood, chapter 7."""
    path = plane()[0]
    x = path.target.sample(6, torch.Generator().manual_seed(1))
    found = answer(path.velocity, path.base.log_prob, x, 24)
    gap = (found - path.target.log_prob(x)).abs().max()
    yield "the log-densities of the target come out, up to the step", bool(gap < 0.2)
    steps = log_density(Dynamics(path.velocity), path.base.log_prob, x, euler, times(24)).values
    yield (
        "nothing but the mistake was changed: the same steps as those of the package",
        bool((found - steps).abs().max() < 1e-9),
    )


def chain(answer: Answer) -> Iterator[Test]:
    """ex:chain, chapter 7."""
    path, _, x = plane()
    base = path.base.log_prob
    end, values = answer(path.velocity, base, x, 6)
    run = lambda t, y: integrate(euler(Dynamics(path.velocity)), y, times(6))
    zero_time = torch.zeros((), dtype=torch.float64)
    yield "the ends are those of six Euler steps", bool(torch.allclose(end, run(zero_time, x)))
    volume = torch.linalg.slogdet(jacobian(run, zero_time, x)).logabsdet
    yield (
        "the volume is that of the whole map, differentiated at once",
        bool(torch.allclose(values, base(x) - volume)),
    )
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64)[:, None]
    line = MixturePath(linear, gaussian(grid.new_tensor([0.5]), grid.new_tensor([[0.3]])))
    end, values = answer(line.velocity, line.base.log_prob, grid, 4)
    mass = torch.trapezoid(values.exp(), end[:, 0])
    yield "the density integrates to one with four steps", bool((mass - 1).abs() < 1e-6)


def quiet_probe(answer: Answer) -> Iterator[Test]:
    """ex:quiet-probe, chapter 7."""
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(basis.new_tensor([3.0, -1.0, 0.5, 2.0])) @ basis.T
    z = answer(basis, 4000, generator)
    yield "one probe a row", z.shape == (4000, 4)
    forms = ((z @ matrix) * z).sum(1)
    yield "every probe gives the trace, 4.5", bool((forms - 4.5).abs().max() < 1e-9)
    moments = z.T @ z / len(z) - torch.eye(4, dtype=z.dtype)
    yield "the probes have the identity as second moment", bool(moments.abs().max() < 0.1)


TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {
    "ex:reverse": way_back,
    "ex:swirl": own_swirl,
    "ex:two-networks": two_networks,
    "ex:find-likelihood": found_likelihood,
    "ex:chain": chain,
    "ex:quiet-probe": quiet_probe,
}
