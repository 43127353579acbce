"""How near learned bridges come to exact ones, and to published numbers.

`python benchmarks/bridges.py` measures what `bridges.json` does not hold yet and writes
`bridges.md` from it; it goes on where it was stopped. Delete an entry to measure it again. Its
parts, each a run of its own:

`gaussian D SEED`: the bridge between two Gaussians of dimension D, from samples of the ends;
`more D SEED`: from ten times as many.
`plans D STARTS`: a plan with known conditional laws, from samples of its ends; STARTS is `normal`
or `mixture`.
`iterates`: iterative Markovian fitting between two Gaussians of the line.
`plane TASK SEED`: laws of the plane, TASK from 0 to 3 in the order of `plane_tables.TASKS`.
`page`: writes `bridges.md`.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from plane_tables import POINTS, TASKS, held_out
from torch import Tensor

from onepath.bridges import GaussianBridge, refitted
from onepath.calculus import constant
from onepath.dynamics import Dynamics
from onepath.light_bridges import LightBridge, LightPotential, light_loss
from onepath.light_fits import light_fit
from onepath.metrics import gaussian_kl, wasserstein2
from onepath.solvers import euler, times, trajectory

RESULTS, PAGE = (Path(__file__).with_suffix(end) for end in (".json", ".md"))
F64 = torch.float64
TRAINING, DRAWS, STEPS, GAUSSIAN_SEEDS = 10_000, 10_000, 20, 5
DIMENSIONS = (5, 20, 50)
TRUE_PARTS, PARTS, SAMPLES, TESTED = 5, 6, 100_000, 200
PLANS = [(2, "normal"), (2, "mixture"), (16, "normal"), (16, "mixture")] + [
    (64, "normal"),
    (128, "normal"),
]
PLANE_PARTS, SHARE, PLANE_SEEDS = 32, 0.02, 11  # seed 0 is not in the means
MANY, MANY_SEEDS = 100_000, 5


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


# --- between two Gaussians


def exact_gaussian(d: int) -> GaussianBridge:
    one, eye = torch.ones(d, dtype=F64), torch.eye(d, dtype=F64)
    return GaussianBridge(-0.1 * one, eye, 0.1 * one, eye, 1.0)


def exact_steps(light: LightBridge, x: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
    """States at all times of the grid: at each step an end is drawn, and a bridge towards it."""
    states = [x]
    for t, s in zip(grid[:-1], grid[1:]):
        end = light.ends(t, x, generator)
        share = (s - t) / (1 - t)
        spread = (light.tau * (s - t) * (1 - share)).clamp(min=0).sqrt()
        x = x + share * (end - x)
        x = x + spread * torch.randn(x.shape, generator=generator, dtype=F64)
        states.append(x)
    return torch.stack(states)


def kl_at(exact: GaussianBridge, t: Tensor, x: Tensor) -> float:
    """KL from a Gaussian with mean and covariance of the sample to the exact marginal."""
    return gaussian_kl(x.mean(0), x.mT.cov(), exact.mean(t), exact.cov(t))


def gaussian(d: int, seed: int, points: int = TRAINING) -> dict[str, float]:
    exact, generator = exact_gaussian(d), torch.Generator().manual_seed(seed)
    normal = lambda n, m: m + torch.randn(n, d, generator=generator, dtype=F64)
    x0, x1, grid = normal(points, -0.1), normal(points, 0.1), times(STEPS)
    begin = time.process_time()
    light = light_fit(x0, x1, 1.0, 1, generator).bridge
    trained = time.process_time() - begin
    starts = normal(DRAWS, -0.1)
    moving = Dynamics(light.drift, constant(1.0))
    found = {"seconds to fit": round(trained, 2)}
    for way, states in (
        ("euler", trajectory(euler(moving), starts, grid, generator)),
        ("exact", exact_steps(light, starts, grid, generator)),
        ("floor", floor_states(exact, grid, generator)),
    ):
        all_kl = [kl_at(exact, t, x) for t, x in zip(grid, states)]
        found |= {f"{way}, end": all_kl[-1], f"{way}, mean": mean(all_kl)}
    products = []
    for _ in range(10):  # 200 000 draws
        starts = normal(20_000, -0.1)
        ends = exact_steps(light, starts, grid, generator)[-1]
        products.append(((starts + 0.1) * (ends - 0.1)).mean().item())
    return found | {"covariance of the ends": mean(products)}


def floor_states(exact: GaussianBridge, grid: Tensor, generator: torch.Generator) -> Tensor:
    """Exact draws at all times, pairs with bridges between them."""
    x0, x1 = exact.ends(DRAWS, generator)
    states, x = [x0], x0
    for t, s in zip(grid[:-1], grid[1:]):
        share = (s - t) / (1 - t)
        noise = torch.randn(x.shape, generator=generator, dtype=F64)
        x = x + share * (x1 - x) + ((s - t) * (1 - share)).clamp(min=0).sqrt() * noise
        states.append(x)
    return torch.stack(states)


# --- plans whose conditional laws are known


def true_potential(d: int) -> LightPotential:
    """Five components at the temperature 1: offsets in random directions, of length 3, and
    covariances with the eigenvalues 0.2 to 0.8 along random axes. All are below 1, so the potential
    is a mixture of Gaussians."""
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(TRUE_PARTS, d, generator=generator, dtype=F64)
    axes = torch.randn(TRUE_PARTS, d, d, generator=generator, dtype=F64)
    Q = torch.linalg.qr(axes)[0]
    S = Q * torch.linspace(0.2, 0.8, d, dtype=F64) @ Q.mT
    r = 3 * r / r.norm(dim=1, keepdim=True)
    return LightPotential(torch.zeros(TRUE_PARTS, dtype=F64), r, 0.5 * (S + S.mT), 1.0)


def starts_of(kind: str, d: int, n: int, generator: torch.Generator) -> Tensor:
    """Standard normal; or three equal islands of deviation 0.5 at (1, 0, …), (-1, 1, 0, …) and
    (0, -1, 0, …)."""
    x = torch.randn(n, d, generator=generator, dtype=F64)
    if kind == "normal":
        return x
    centres = torch.zeros(3, d, dtype=F64)
    centres[:, :2] = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
    return 0.5 * x + centres[torch.randint(3, (n,), generator=generator)]


def conditional(phi: LightPotential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the end, for each start."""
    p = phi.shares(scalar(phi.tau), x)
    m = phi.means + torch.einsum("kij,nj->nki", phi.covs, x) / phi.tau
    centre = torch.einsum("nk,nki->ni", p, m)
    off = m - centre[:, None]
    within = torch.einsum("nk,kij->nij", p, phi.covs)
    return centre, within + torch.einsum("nk,nki,nkj->nij", p, off, off)


def bures(m: Tensor, A: Tensor, n: Tensor, B: Tensor) -> Tensor:
    """Squared W2 between Gaussians, for each of many pairs."""
    values, Q = torch.linalg.eigh(A)
    root = Q * values.clamp(min=0).sqrt()[:, None] @ Q.mT
    cross = torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum(1)
    traces = (A + B).diagonal(dim1=1, dim2=2).sum(1)
    return (m - n).square().sum(1) + traces - 2 * cross


def plan(d: int, kind: str) -> dict[str, float]:
    truth, generator = true_potential(d), torch.Generator().manual_seed(1)
    x0, hidden = (starts_of(kind, d, SAMPLES, generator) for _ in range(2))
    x1 = torch.cat([truth.draw(scalar(1.0), x, generator) for x in hidden.split(5000)])
    begin = time.process_time()
    fit = light_fit(x0, x1, 1.0, PARTS, generator, tolerance=1e-4)
    trained = time.process_time() - begin
    test = starts_of(kind, d, TESTED, generator)
    half = 0.5 * x1.var(0).sum().item()
    apart = bures(*conditional(fit.potential, test), *conditional(truth, test)) / half
    more0 = starts_of(kind, d, 20_000, generator)
    more1 = truth.draw(scalar(1.0), starts_of(kind, d, 20_000, generator), generator)
    all_ends = x1.mean(0).expand(TESTED, d), x1.mT.cov().expand(TESTED, d, d)
    blind = bures(*all_ends, *conditional(truth, test)) / half
    return {
        "uvp": 100 * apart.mean().item(),
        "uvp, s.e.": 100 * apart.std().item() / TESTED**0.5,
        "uvp of the independent plan": 100 * blind.mean().item(),
        "KL, new samples": (
            light_loss(fit.potential, more0, more1) - light_loss(truth, more0, more1)
        ).item(),
        "steps": len(fit.losses) - 1,
        "seconds to fit": round(trained, 1),
    }


# --- iterative Markovian fitting


def iterates() -> dict[str, list[float]]:
    number = lambda v: torch.full((1, 1), v, dtype=F64)
    zero = torch.zeros(1, dtype=F64)
    bridge = GaussianBridge(zero, number(0.8**2), zero, number(1.4**2), 0.81)
    found = [number(0.0)]
    for _ in range(6):
        found.append(refitted(bridge, found[-1]))
    return {"covariances": [c.item() for c in found], "bridge": bridge.cross.item()}


# --- laws of the plane


def plane(task: str, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    x0, x1 = (law(POINTS, generator).double() for law in TASKS[task])
    tau = SHARE * (x0[:, None, :].mean(0) - x1.mean(0)).square().sum().item()
    tau += SHARE * (x0.var(0).sum() + x1.var(0).sum()).item()
    begin = time.process_time()
    try:
        fit = light_fit(x0, x1, tau, PLANE_PARTS, generator, tolerance=1e-5)
    except ValueError as error:
        return {"tau": tau, "failed": str(error)}
    trained = time.process_time() - begin
    start, _, test, _ = held_out(task, seed)
    ends = fit.bridge.ends(scalar(0.0), start.double(), generator)
    some = torch.randperm(POINTS, generator=generator)[:1000]  # moons come in order
    return {
        "tau": tau,
        "w2": wasserstein2(ends, test),
        "energy": energy(fit.bridge, start[some].double(), generator),
        "steps": len(fit.losses) - 1,
        "seconds to fit": round(trained, 1),
    }


def energy(light: LightBridge, starts: Tensor, generator: torch.Generator) -> float:
    """The mean of |v|² over the way, at the middles of ten equal intervals.

    States have the law of the bridge, which is that of its flow; the score is that of the process
    from all training starts.
    """
    total = 0.0
    for k in range(10):
        t = scalar((k + 0.5) / 10)
        ends = light.ends(scalar(0.0), starts, generator)
        noise = torch.randn(starts.shape, generator=generator, dtype=F64)
        x = (1 - t) * starts + t * ends + (light.tau * t * (1 - t)).sqrt() * noise
        total += light.velocity(t, x).square().sum(1).mean().item() / 10
    return total


# --- the file of results


def stored() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(part: str, key: str, make: Callable[[], dict]) -> None:
    """Measure what is not in the file yet, and write it at once, whole."""
    if key in stored().get(part, {}):
        return
    busy = os.getloadavg()[0]
    begin = time.process_time()
    found = make() | {"seconds in all": round(time.process_time() - begin, 1)}
    on = (
        f"torch {torch.__version__}, one thread, Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} virtual cores"
    )
    known = stored()
    known.setdefault(part, {})[key] = found | {"load": round(busy, 1)}
    known["on"] = on
    part_file = RESULTS.with_suffix(".part")
    part_file.write_text(json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    part_file.replace(RESULTS)


def main() -> None:
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case []:
            keep("iterates", "line", iterates)
            for d in DIMENSIONS:
                for seed in range(GAUSSIAN_SEEDS):
                    keep("gaussian", f"{d}, {seed}", lambda: gaussian(d, seed))
                for seed in range(MANY_SEEDS):
                    keep("more points", f"{d}, {seed}", lambda: gaussian(d, seed, MANY))
            for d, kind in PLANS:
                keep("plans", f"{d}, {kind}", lambda: plan(d, kind))
            for seed in range(PLANE_SEEDS):
                for task in TASKS:
                    keep("plane", f"{task}, {seed}", lambda: plane(task, seed))
            page()
        case ["gaussian", d, seed]:
            keep("gaussian", f"{d}, {seed}", lambda: gaussian(int(d), int(seed)))
        case ["more", d, seed]:
            keep("more points", f"{d}, {seed}", lambda: gaussian(int(d), int(seed), MANY))
        case ["plans", d, kind]:
            keep("plans", f"{d}, {kind}", lambda: plan(int(d), kind))
        case ["iterates"]:
            keep("iterates", "line", iterates)
        case ["plane", number, seed]:
            task = list(TASKS)[int(number)]
            keep("plane", f"{task}, {seed}", lambda: plane(task, int(seed)))
        case ["page"]:
            page()
        case _:
            raise SystemExit(__doc__)


def page() -> None:
    from bridges_page import text

    PAGE.write_text(text(stored(), SHARE, PLANE_PARTS, SAMPLES))


if __name__ == "__main__":
    main()
