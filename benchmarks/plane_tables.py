"""Flow matching between laws of the plane with optimal pairs, in the settings of a published table.

The settings are those of table 2 of Tong et al. (2024), Simulation-free Schrödinger bridges via
score and flow matching, and of the authors' public code: 10 000 training points, 1000 epochs at
batch 512, three hidden layers of 64 SELU units, AdamW with rate 1e-3 and weight decay 1e-5, 100
Euler steps, and the exact W2 between 10 000 generated and 10 000 test points. Beside it stands the
floor, the W2 between the same test points and 10 000 others of the same law.

`python benchmarks/plane_tables.py optimal 10` runs seeds 0 to 9 with optimal pairs, `independent`
with independent ones. A run that is stored in `plane_tables.json` is not repeated, so the command
goes on where it was stopped. `python benchmarks/plane_tables.py table` prints the table.
"""

import json
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from math import pi
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn

from onepath.couplings import independent, minibatch_optimal, served
from onepath.metrics import wasserstein2

POINTS, BATCH, EPOCHS, STEPS = 10_000, 512, 1000, 100
SIZE, PLANS, REUSE = 1024, 8, 32  # points of a plan, plans at a time, epochs of these pairs
RESULTS = Path(__file__).with_suffix(".json")
COUPLINGS = {"optimal": (minibatch_optimal, REUSE), "independent": (independent, 1)}

Sampler = Callable[[int, torch.Generator], Tensor]


def normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def ring(radius: float, width: float) -> Sampler:
    """Eight Gaussians, evenly around a circle."""

    def sample(n: int, generator: torch.Generator) -> Tensor:
        angle = torch.randint(8, (n,), generator=generator) * (pi / 4)
        centres = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        return centres + width * torch.randn(n, 2, generator=generator)

    return sample


def moons(noise: float, n: int, generator: torch.Generator) -> Tensor:
    """Half circles of radius 1 around 0 and (1, 1/2) that interlock, with n/2 points each.

    As in scikit-learn, whose function the authors call, the angles are evenly spaced and only the
    noise is random.
    """
    angle = torch.linspace(0, pi, n // 2)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    both = torch.cat([upper, torch.tensor([1.0, 0.5]) - upper])
    return both + noise * torch.randn(n, 2, generator=generator)


def small_moons(n: int, generator: torch.Generator) -> Tensor:
    return 2 * moons(0.05, n, generator) - torch.tensor([1.0, 0.0])


def large_moons(n: int, generator: torch.Generator) -> Tensor:
    """Standardised by one mean and one deviation of all coordinates together, times seven."""
    noise = 0.1
    square = (1 + (1.25 - 2 / pi) / 2) / 2 + noise**2
    return 7 * (moons(noise, n, generator) - 0.375) / (square - 0.375**2) ** 0.5


def s_curve(n: int, generator: torch.Generator) -> Tensor:
    t = 3 * pi * (torch.rand(n, generator=generator) - 0.5)
    curve = torch.stack([t.sin(), t.sign() * (t.cos() - 1)], dim=1)
    return 1.5 * (curve + 0.05 * torch.randn(n, 2, generator=generator))


TASKS = {
    "N → 8 Gaussians": (normal, ring(5.0, 1.0)),
    "moons → 8 Gaussians": (large_moons, ring(12.0, 1.5)),
    "N → moons": (normal, small_moons),
    "N → S-curve": (normal, s_curve),
}
PUBLISHED = {  # W2 and normalised path energy of OT-CFM, W2 of I-CFM
    "N → 8 Gaussians": (0.303, 0.031, 0.373),
    "moons → 8 Gaussians": (0.601, 0.015, 1.557),
    "N → moons": (0.130, 0.083, 0.178),
    "N → S-curve": (0.144, 0.027, 0.242),
}


def network(generator: torch.Generator) -> nn.Sequential:
    """PyTorch's own initial law, drawn from a generator."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 64), (64, 64), (64, 64), (64, 2)):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [layer, nn.SELU()]
    return nn.Sequential(*layers[:-1])


def train(start: Sampler, end: Sampler, coupling: str, seed: int) -> tuple[nn.Sequential, ...]:
    """The network after the last step, and one with weights averaged over the last 500 or so."""
    generator = torch.Generator().manual_seed(seed)
    net, data = network(generator), end(POINTS, generator)
    starts = None if start is normal else start(POINTS, generator)

    def some(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return points[torch.randperm(len(points), generator=generator)[:n]]

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = normal(n, generator) if starts is None else some(starts, n, generator)
        return x0, some(data, n, generator)

    pairing, reuse = COUPLINGS[coupling]
    batches = served(draw, pairing, SIZE, PLANS, BATCH, reuse, generator)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-5)
    averaged = deepcopy(net)
    for _ in range(EPOCHS * (POINTS // BATCH)):
        x0, x1 = next(batches)
        t = torch.rand(BATCH, 1, generator=generator)
        v = x1 - x0
        loss = (net(torch.cat([x0 + t * v, t], dim=1)) - v).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 2e-3)
    return net, averaged


@torch.inference_mode()
def flow(net: nn.Sequential, x: Tensor) -> tuple[Tensor, float]:
    """Where Euler's steps lead, and the energy of the path, the mean of |v|² over it."""
    energy = 0.0
    for k in range(STEPS):
        v = net(torch.cat([x, torch.full((len(x), 1), k / STEPS)], dim=1))
        x = x + v / STEPS
        energy += v.square().sum(1).mean().item() / STEPS
    return x, energy


def run(task: str, coupling: str, seed: int) -> dict[str, float]:
    begin = time.process_time()
    last, averaged = train(*TASKS[task], coupling, seed)
    trained = time.process_time() - begin
    start, _, test, _ = held_out(task, seed)
    x, energy = flow(last, start)
    y, averaged_energy = flow(averaged, start)
    return {
        "w2": wasserstein2(x, test),
        "energy": energy,
        "averaged_w2": wasserstein2(y, test),
        "averaged_energy": averaged_energy,
        "cpu_s_training": round(trained, 1),
    }


def held_out(task: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """10 000 starts to go from, as many others, 10 000 test points, and as many others."""
    generator = torch.Generator().manual_seed(1000 + seed)
    start, end = TASKS[task]
    return tuple(law(POINTS, generator) for law in (start, start, end, end))


def real(task: str, seed: int) -> dict[str, float]:
    """What does not depend on a network: the floor, and the squared W2 between the two laws."""
    start, _, test, other = held_out(task, seed)
    found = {"floor": wasserstein2(other, test)}
    return found | ({"squared": wasserstein2(start, test) ** 2} if seed < 3 else {})


def store(key: str, make: Callable[[], dict[str, float]]) -> None:
    """Compute what is not in the file yet, and write it at once, whole."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if key in known:
        return
    found = make()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(dict(sorted((known | {key: found}).items())), indent=1) + "\n")
    part.replace(RESULTS)


def shown(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def table() -> None:
    known = json.loads(RESULTS.read_text())
    print(
        "| laws | pairs | seeds | W2 | floor | W2 − floor | path energy | W2 published | "
        "path energy published |\n" + "| --- " * 9 + "|"
    )
    for task, (w2, energy, w2_independent) in PUBLISHED.items():
        squared = mean(
            row["squared"]
            for key, row in known.items()
            if key.startswith(task) and "squared" in row
        )
        for coupling, prefix in (("optimal", ""), ("optimal", "averaged_"), ("independent", "")):
            rows = {
                seed: known[key]
                for seed in range(100)
                if (key := f"{task}, {coupling}, {seed}") in known and f"{prefix}w2" in known[key]
            }
            if not rows:
                continue
            floors = [known[f"{task}, real, {seed}"]["floor"] for seed in rows]
            found = [row[f"{prefix}w2"] for row in rows.values()]
            energies = [abs(r[f"{prefix}energy"] - squared) / squared for r in rows.values()]
            excess = [value - floor for value, floor in zip(found, floors)]
            theirs = (w2, energy) if coupling == "optimal" else (w2_independent, "")
            cells = [shown(values) for values in (found, floors, excess, energies)]
            cells = [
                task,
                coupling + (", averaged weights" if prefix else ""),
                str(len(rows)),
                *cells,
            ]
            print("| " + " | ".join([*cells, *map(str, theirs)]) + " |")


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["table"]:
        return table()
    coupling, seeds = sys.argv[1], int(sys.argv[2])
    for seed in range(seeds):
        for task in TASKS:
            store(f"{task}, real, {seed}", lambda: real(task, seed))
            store(f"{task}, {coupling}, {seed}", lambda: run(task, coupling, seed))


if __name__ == "__main__":
    main()
