"""What couplings cost: a training step with optimal pairs, and an iteration of Sinkhorn.

Three parts, each in one run, CPU seconds of all threads of the process:

`python benchmarks/couplings.py steps`: a training step with pairs of a plan per batch, served from
`couplings.served`, over the bare step (forward, backward, Adam) on a batch that is there already.
The time to solve the plans is in it. Bare steps, served steps and steps with a fresh plan each take
turns; each turn goes through a whole pool.

`python benchmarks/couplings.py sinkhorn`: an iteration of `sinkhorn`, everything included, over two
products of a matrix and a vector.

`python benchmarks/couplings.py quality BATCH SEED`: trains a network with fresh plans and one with
served pairs, from the same weights with as many steps, and appends W2, path energy and the mean
cost of the pairs to `couplings.json`; `python benchmarks/couplings.py table` compares them.
"""

import json
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
DATA, TURNS, STEPS, TESTED = 10_000, 15, 2000, 4000
RESULTS = Path(__file__).with_suffix(".json")
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


def steps() -> None:
    print("| batch | reuse | bare step, ms | served / bare | fresh / bare | torchcfm, published |")
    print("| --- " * 6 + "|")
    for batch, theirs in ((256, 8), (512, 30), (1024, 71)):
        generator = torch.Generator().manual_seed(0)
        _, step = stepper(generator)
        pairs = pooled(drawing(generator), batch, generator)
        new = fresh(drawing(generator), batch, generator)
        x0, x1 = drawing(generator)(batch, generator)
        many, few = DATA // batch * REUSE[batch], 8

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
        cost = 1000 * median(turn[0] for turn in turns) / many
        ratio = median(turn[1] / turn[0] for turn in turns)
        dear = median(turn[2] / turn[0] for turn in turns)
        print(f"| {batch} | {REUSE[batch]} | {cost:.2f} | {ratio:.2f} | {dear:.1f} | {theirs} |")
    about()


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


def iteration() -> None:
    n, generator = 4000, torch.Generator().manual_seed(0)
    x = eight_gaussians(5.0, 0.3).sample(n, generator)
    y = 3 * two_moons(0.1).sample(n, generator)
    cost = 0.5 * torch.cdist(x, y).square()
    kernel = (-cost / 10).exp()  # warm enough for plain iterations
    print("| temperature | mass − 1 | error of a margin | iterations | plain, ms | ours / plain |")
    print("| --- " * 6 + "|")
    for temperature in (1.0, 0.05, 0.025):
        turns = []
        for _ in range(3):
            base = seconds(lambda: plain(kernel, 20)) / 20
            begin = time.process_time()
            plan = sinkhorn(x, y, temperature)
            turns.append((base, (time.process_time() - begin) / plan.iterations / base))
        base, ratio = (median(column) for column in zip(*turns))
        off = plan.matrix.sum().item() - 1
        print(
            f"| {temperature} | {off:.0e} | {plan.error:.1e} | {plan.iterations} | "
            f"{1000 * base:.1f} | {ratio:.2f} |"
        )
    base = seconds(lambda: plain(kernel, 20)) / 20
    print(f"\nlog domain / plain: {seconds(lambda: log_domain(cost, 0.05, 3)) / 3 / base:.1f}")
    about()


@torch.inference_mode()
def flow(net: nn.Sequential, x: Tensor, steps: int = 100) -> tuple[Tensor, float]:
    energy = 0.0
    for k in range(steps):
        v = net(torch.cat([x, torch.full((len(x), 1), k / steps)], dim=1))
        x = x + v / steps
        energy += v.square().sum(1).mean().item() / steps
    return x, energy


def quality(batch: int, seed: int) -> None:
    found: dict[str, list[float]] = {}
    for name, pairs in (("fresh", fresh), ("served", pooled)):
        generator = torch.Generator().manual_seed(seed)
        net, step = stepper(generator)
        batches, costs = pairs(drawing(generator), batch, generator), []
        for _ in range(STEPS):
            x0, x1 = next(batches)
            costs.append((x1 - x0).square().sum(1).mean().item())
            step(x0, x1)
        test = torch.Generator().manual_seed(1000 + seed)
        start, real = torch.randn(TESTED, 2, generator=test), TARGET.sample(TESTED, test).float()
        x, energy = flow(net, start)
        found[name] = [wasserstein2(x, real), energy, mean(costs)]
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[f"{batch}, {seed}"] = found
    RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def table() -> None:
    known = json.loads(RESULTS.read_text())
    print("| batch | reuse | seeds | quantity | fresh plans | served | difference ± s.e. |")
    print("| --- " * 7 + "|")
    for batch, reuse in REUSE.items():
        runs = [run for key, run in known.items() if key.startswith(f"{batch},")]
        for k, name in enumerate(("W2", "path energy", "mean cost of the pairs")):
            if len(runs) < 2:
                continue
            a, b = ([run[way][k] for run in runs] for way in ("fresh", "served"))
            apart = [q - p for p, q in zip(a, b)]
            print(
                f"| {batch} | {reuse} | {len(runs)} | {name} | {mean(a):.4f} ± {se(a):.4f} | "
                f"{mean(b):.4f} ± {se(b):.4f} | {mean(apart):+.4f} ± {se(apart):.4f} |"
            )


def se(values: list[float]) -> float:
    return stdev(values) / len(values) ** 0.5


def about() -> None:
    print(
        f"\nMLP 3×64 in float32, {torch.get_num_threads()} thread; torch {torch.__version__}, POT "
        f"{ot.__version__}, Python {platform.python_version()}, {platform.machine()}."
    )


def main() -> None:
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["steps"]:
            steps()
        case ["sinkhorn"]:
            iteration()
        case ["quality", batch, seed]:
            quality(int(batch), int(seed))
        case ["table"]:
            table()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
