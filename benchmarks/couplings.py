"""What couplings cost: a training step with optimal pairs, and an iteration of Sinkhorn.

`python benchmarks/couplings.py` measures what `couplings.json` does not hold yet and writes
`couplings.md` from it. Delete an entry to measure it again. Its parts, each a run of its own:

`steps`: a training step with pairs of a plan per batch, served from `couplings.served`, over the
bare step (forward, backward, Adam) on a batch that is there already. The time to solve the plans is
in it. Bare steps, served steps and steps with a fresh plan each take turns; each turn goes through
a whole pool.

`sinkhorn`: an iteration of `sinkhorn`, everything included, over two products of a matrix and a
vector.

`quality BATCH SEED`: trains a network with fresh plans and one with served pairs, from the same
weights with as many steps, and keeps W2, path energy and the mean cost of the pairs.

`page`: writes `couplings.md`. Times are CPU seconds of all threads of the process.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median, stdev

import ot
import torch
from torch import Tensor, nn

from onepath.couplings import Draw, minibatch_optimal, served, sinkhorn
from onepath.metrics import wasserstein2
from onepath.plane import eight_gaussians, two_moons

REUSE = {256: 24, 512: 32, 1024: 48}  # epochs of a pool, by batch
AIMS = {256: 1.5, 512: 2.0, 1024: 3.0}  # served over bare
THEIRS = {256: 8, 512: 30, 1024: 71}  # fresh plans over bare steps, as published for torchcfm
DATA, TURNS, SEEDS, STEPS, TESTED = 10_000, 9, 10, 2000, 4000
RESULTS, PAGE = (Path(__file__).with_suffix(end) for end in (".json", ".md"))
TARGET = eight_gaussians(5.0, 1.0)


def drawing(generator: torch.Generator) -> Draw:
    """Fresh starts, and targets from a fixed sample that is gone through in epochs."""
    data, left = TARGET.sample(DATA, generator).float(), []

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if not left:
            left.extend(torch.randperm(DATA, generator=generator)[: DATA // n * n].split(n))
        return torch.randn(n, 2, generator=generator), data[left.pop()]

    return draw


def fresh(draw: Draw, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield minibatch_optimal(*draw(batch, generator), generator)


def pooled(draw: Draw, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """A pool is an epoch of the data."""
    plans, reuse = DATA // batch, REUSE[batch]
    return served(draw, minibatch_optimal, batch, plans, batch, reuse, generator)


def network(generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 64), (64, 64), (64, 64), (64, 2)):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [layer, nn.SELU()]
    return nn.Sequential(*layers[:-1])


def stepper(generator: torch.Generator) -> tuple[nn.Sequential, Callable[[Tensor, Tensor], None]]:
    net = network(generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step(x0: Tensor, x1: Tensor) -> None:
        t = torch.rand(len(x0), 1, generator=generator)
        v = x1 - x0
        loss = (net(torch.cat([x0 + t * v, t], dim=1)) - v).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return net, step


def seconds(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def steps() -> dict[str, dict[str, float]]:
    found = {}
    for batch, reuse in REUSE.items():
        generator = torch.Generator().manual_seed(0)
        _, step = stepper(generator)
        pairs = pooled(drawing(generator), batch, generator)
        new = fresh(drawing(generator), batch, generator)
        x0, x1 = drawing(generator)(batch, generator)
        many, few = DATA // batch * reuse, 8

        def bare() -> None:
            for _ in range(many):
                step(x0, x1)

        def with_pairs() -> None:
            for _ in range(many):
                step(*next(pairs))

        def with_plans() -> None:
            for _ in range(few):
                step(*next(new))

        bare(), with_plans()
        turns = []
        for _ in range(TURNS):
            turns.append((seconds(bare), seconds(with_pairs), seconds(with_plans) * many / few))
        found[str(batch)] = {
            "bare, ms": 1000 * median(turn[0] for turn in turns) / many,
            "served / bare": median(turn[1] / turn[0] for turn in turns),
            "fresh / bare": median(turn[2] / turn[0] for turn in turns),
        }
    return found


def log_domain(cost: Tensor, temperature: float, iterations: int) -> None:
    f = g = torch.zeros(len(cost), dtype=cost.dtype)
    for _ in range(iterations):
        f = -temperature * torch.logsumexp((g - cost) / temperature, 1)
        g = -temperature * torch.logsumexp((f[:, None] - cost) / temperature, 0)


def plain(kernel: Tensor, iterations: int) -> None:
    v = torch.ones(len(kernel), dtype=kernel.dtype)
    for _ in range(iterations):
        u = 1 / (kernel @ v)
        v = 1 / (kernel.mT @ u)


def iteration() -> dict[str, dict[str, float]]:
    n, generator = 4000, torch.Generator().manual_seed(0)
    x = eight_gaussians(5.0, 0.3).sample(n, generator)
    y = 3 * two_moons(0.1).sample(n, generator)
    cost = 0.5 * torch.cdist(x, y).square()
    kernel = (-cost / 10).exp()  # warm enough for plain iterations
    found = {}
    for temperature in (1.0, 0.05, 0.025):
        turns = []
        for _ in range(3):
            base = seconds(lambda: plain(kernel, 20)) / 20
            begin = time.process_time()
            plan = sinkhorn(x, y, temperature)
            turns.append((base, (time.process_time() - begin) / plan.iterations / base))
        base, ratio = (median(column) for column in zip(*turns))
        found[str(temperature)] = {
            "mass - 1": plan.matrix.sum().item() - 1,
            "error": plan.error,
            "iterations": plan.iterations,
            "plain, ms": 1000 * base,
            "ours / plain": ratio,
        }
    base = seconds(lambda: plain(kernel, 20)) / 20
    slow = seconds(lambda: log_domain(cost, 0.05, 3)) / 3
    return found | {"log domain": {"over plain": slow / base}}


@torch.inference_mode()
def flow(net: nn.Sequential, x: Tensor, steps: int = 100) -> tuple[Tensor, float]:
    energy = 0.0
    for k in range(steps):
        v = net(torch.cat([x, torch.full((len(x), 1), k / steps)], dim=1))
        x = x + v / steps
        energy += v.square().sum(1).mean().item() / steps
    return x, energy


def quality(batch: int, seed: int, way: str) -> list[float]:
    """W2, path energy and mean cost of the pairs, of one training."""
    generator = torch.Generator().manual_seed(seed)
    net, step = stepper(generator)
    batches, costs = WAYS[way](drawing(generator), batch, generator), []
    for _ in range(STEPS):
        x0, x1 = next(batches)
        costs.append((x1 - x0).square().sum(1).mean().item())
        step(x0, x1)
    test = torch.Generator().manual_seed(1000 + seed)
    start, real = torch.randn(TESTED, 2, generator=test), TARGET.sample(TESTED, test).float()
    x, energy = flow(net, start)
    return [wasserstein2(x, real), energy, mean(costs)]


WAYS = {"fresh": fresh, "served": pooled}


def measured(make: Callable[[], dict]) -> dict:
    """What `make` finds, and on what."""
    busy = os.getloadavg()[0]
    return make() | {
        "on": f"{torch.get_num_threads()} thread, torch {torch.__version__}, POT {ot.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} virtual cores "
        f"that {busy:.1f} processes wanted when it began"
    }


def write(change: Callable[[dict], None]) -> None:
    """Change the file of results, whole and at once; another process may have written meanwhile."""
    known = stored()
    change(known)
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    part.replace(RESULTS)


def stored() -> dict[str, dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def rows(head: str, lines: list[str]) -> str:
    return "\n".join([head, "| --- " * (head.count("|") - 1) + "|", *lines])


def se(values: list[float]) -> float:
    return stdev(values) / len(values) ** 0.5


def table_of_steps(found: dict) -> str:
    return rows(
        "| batch | reuse | bare step, ms | served / bare | aim | fresh / bare | "
        "torchcfm, published |",
        [
            f"| {n} | {reuse} | {row['bare, ms']:.2f} | {row['served / bare']:.2f} | {AIMS[n]:g} | "
            f"{row['fresh / bare']:.1f} | {THEIRS[n]} |"
            for n, reuse in REUSE.items()
            for row in (found[str(n)],)
        ],
    )


def table_of_quality(found: dict) -> str:
    """Ten seeds a row; those beyond the first ten are a second measurement."""
    lines = []
    for batch, first in ((batch, first) for batch in REUSE for first in (0, SEEDS)):
        known = [found.get(f"{batch}, {seed}", {}) for seed in range(first, first + SEEDS)]
        runs = [run for run in known if len(run) == len(WAYS)]
        for k, name in enumerate(("W2", "path energy", "mean cost of the pairs")):
            if len(runs) < 2:
                continue
            a, b = ([run[way][k] for run in runs] for way in WAYS)
            apart = [q - p for p, q in zip(a, b)]
            most = 0.01 * mean(a) if k == 2 else se(apart)
            lines.append(
                f"| {batch} | {REUSE[batch]} | {len(runs)}{', others' if first else ''} | {name} | "
                f"{mean(a):.4f} ± {se(a):.4f} | {mean(b):.4f} ± {se(b):.4f} | "
                f"{mean(apart):+.4f} ± {se(apart):.4f} | "
                f"{'yes' if abs(mean(apart)) <= most else 'no'} |"
            )
    return rows(
        "| batch | reuse | seeds | quantity | fresh plans | served | difference ± s.e. | aim met |",
        lines,
    )


def table_of_sinkhorn(found: dict) -> str:
    return rows(
        "| temperature | mass − 1 | error of a margin | iterations | plain, ms | ours / plain |",
        [
            f"| {temperature} | {row['mass - 1']:.0e} | {row['error']:.1e} | {row['iterations']} | "
            f"{row['plain, ms']:.1f} | {row['ours / plain']:.2f} |"
            for temperature, row in sorted(found.items(), reverse=True)
            if temperature not in ("log domain", "on")
        ],
    )


TEXT = """\
# What couplings cost

Made by `python benchmarks/couplings.py` from `couplings.json`. CPU seconds of all threads of the
process; every ratio is within one turn of one run, and ways that are compared took turns.

## A training step with optimal pairs

Forward, backward and Adam of an MLP 3×64 in float32 on a batch that is there already (bare), on a
batch of `couplings.served` (served), and on a batch with a plan of its own (fresh). The time to
draw the points and to solve the plans is in the last two. A plan has as many points as a batch; a
pool is an epoch of {data} targets with fresh starts, and is gone through `reuse` times. Median of
{turns} turns, each through a whole pool. The aim is for served over bare.

{steps}

On {on_steps}.
An earlier run on a quieter machine, with bare steps of 0.91, 1.37 and 2.13 ms, gave 1.33, 1.77 and
2.51 for served over bare.

The plans are exact and the law of a pair is that of a fresh plan of the same size, whatever the
reuse; only the number of different pairs is smaller. Tried and given up, with no code left: warm
starts of POT's network simplex by potentials that a c-transform carries over from another batch,
which made nothing faster, and scipy's assignment, which took longer than the simplex.

## What reuse does to the model

Standard normal to eight Gaussians (radius 5, deviation 1), {data} training targets, {n_steps}
steps from the same weights, 100 Euler steps, exact W2 between {tested} generated and {tested}
test points. The difference is paired by seed. The aim is a difference within one standard error
in W2 and path energy over ten seeds, and within one per cent in the cost of the pairs.

{quality}

{missing}Where there is nothing to find, one difference in three lies beyond one standard error
all the same: a row that misses the aim is measured again with ten others (`quality 256 10` to
`256 19`). A negative difference in W2 is in favour of served pairs. The path energy of the optimal
plan is 14.96 (`plane_tables.md`).

## An iteration of Sinkhorn

Eight Gaussians (radius 5, deviation 0.3) to moons, 4000 points each, float64, tolerance 1e-6.
Everything is counted, also the temperatures on the way down and the kernels that are made there;
plain is two products of a matrix and a vector and two divisions. Median of 3 turns. Temperatures
belong to the cost ½|x−y|², so 0.025 is what a library that takes |x−y|² calls 0.05. The aim is at
most 2.

{sinkhorn}

On {on_sinkhorn}.

An iteration in the log domain takes {log:.0f} times as long as a plain one in the same run. Nothing
in the code belongs to the CPU, but it has not been run on CUDA.
"""


def page() -> None:
    known = stored()
    done = known["quality"]
    counts = {
        n: sum(len(done.get(f"{n}, {seed}", {})) == len(WAYS) for seed in range(SEEDS))
        for n in REUSE
    }
    missing = [f"{n}: {SEEDS - count} of {SEEDS}" for n, count in counts.items() if count < SEEDS]
    PAGE.write_text(
        TEXT.format(
            data=f"{DATA:,}".replace(",", " "),
            turns=TURNS,
            n_steps=STEPS,
            tested=TESTED,
            steps=table_of_steps(known["steps"]),
            on_steps=known["steps"]["on"],
            quality=table_of_quality(done),
            missing=f"Seeds that are missing, by batch: {', '.join(missing)}.\n" if missing else "",
            sinkhorn=table_of_sinkhorn(known["sinkhorn"]),
            on_sinkhorn=known["sinkhorn"]["on"],
            log=known["sinkhorn"]["log domain"]["over plain"],
        )
    )


def main() -> None:
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case []:
            times(), iterations()
            for batch in REUSE:
                for seed in range(SEEDS):
                    qualities(batch, seed)
            page()
        case ["steps"]:
            times()
        case ["sinkhorn"]:
            iterations()
        case ["quality", batch, seed]:
            qualities(int(batch), int(seed))
        case ["page"]:
            page()
        case _:
            raise SystemExit(__doc__)


def times() -> None:
    if "steps" not in stored():
        found = measured(steps)
        write(lambda known: known.update(steps=found))


def iterations() -> None:
    if "sinkhorn" not in stored():
        found = measured(iteration)
        write(lambda known: known.update(sinkhorn=found))


def qualities(batch: int, seed: int) -> None:
    key = f"{batch}, {seed}"
    for way in WAYS:
        if way not in stored().get("quality", {}).get(key, {}):
            found = quality(batch, seed, way)
            runs = lambda known: known.setdefault("quality", {}).setdefault(key, {})
            write(lambda known: runs(known).update({way: found}))


if __name__ == "__main__":
    main()
