"""What samplers cost beyond their network calls, how far they end from the flow, and whose steps
agree with ours.

`python benchmarks/samplers.py overhead compiled accuracy variance agreement` measures the parts
that are named, all without arguments, keeps the numbers in `samplers.json` and writes
`samplers.md`. The parts that need them use `diffusers`, which comes with `onepath[test]`, and
`azula` if it is installed.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from samplers_page import page
from solvers import DIM, Network
from torch import Tensor, nn

from onepath import fields
from onepath.calculus import constant
from onepath.interpolants import linear
from onepath.samplers import adams, ancestral, churned, corrected, ddim, midpoint, multistep
from onepath.solvers import integrate, times

TURNS, STEPS = 45, 64
RUNS = {256: 3, 4096: 1}  # of one way in one turn, by batch
RESULTS = Path(__file__).with_suffix(".json")


def network() -> Network:
    generator, net = torch.Generator().manual_seed(0), Network()
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


# --- loops by hand, on the linear path, all coefficients at once before the loop


def odds(grid: Tensor) -> Tensor:
    return (grid / (1 - grid)).log()


def one_by_hand(net: nn.Module, x: Tensor, grid: Tensor, zeta: float, draw: Callable) -> Tensor:
    t, s = grid[:-1], grid[1:]
    h = odds(s) - odds(t)
    keep = ((1 - s) / (1 - t)) * ((-(zeta**2) * h).exp() if zeta else 1.0)
    pull = -s * torch.expm1(-(1 + zeta**2) * h)
    spread = (1 - s) * (-torch.expm1(-2 * zeta**2 * h)).sqrt() if zeta else 0 * keep
    for t, a, b, c in zip(grid, keep.tolist(), pull.tolist(), spread.tolist()):
        x = torch.add(a * x, net(t, x), alpha=b)
        if c:
            x = torch.add(x, draw(), alpha=c)
    return x


def two_by_hand(net: nn.Module, x: Tensor, grid: Tensor, draw: Callable) -> Tensor:
    t, s = grid[:-1], grid[1:]
    h = odds(s) - odds(t)
    keep, pull = (1 - s) / (1 - t), -s * torch.expm1(-h)
    back = torch.cat([torch.zeros(1), h[1:] / (2 * h[:-1])]).nan_to_num(0, posinf=0)
    back[-1] = 0.0
    last = 0.0
    for t, a, b, c in zip(
        grid, keep.tolist(), (pull * (1 + back)).tolist(), (pull * back).tolist()
    ):
        now = net(t, x)
        x = torch.add(a * x, now, alpha=b)
        x = torch.add(x, last, alpha=-c) if c else x
        last = now
    return x


def middle_by_hand(net: nn.Module, x: Tensor, grid: Tensor, draw: Callable) -> Tensor:
    t, s = grid[:-1], grid[1:]
    h = odds(s) - odds(t)
    middle = torch.sigmoid(odds(t) + 0.5 * h)
    half, half_pull = (1 - middle) / (1 - t), -middle * torch.expm1(-0.5 * h)
    keep, pull = (1 - s) / (1 - t), -s * torch.expm1(-h)
    columns = (c.tolist() for c in (h.isfinite(), half, half_pull, keep, pull))
    for t, m, inside, a, b, c, d in zip(grid, middle, *columns):
        now = net(t, x)
        if inside:
            now = net(m, torch.add(a * x, now, alpha=b))
        x = torch.add(c * x, now, alpha=d)
    return x


def adams_by_hand(net: nn.Module, x: Tensor, grid: Tensor, draw: Callable) -> Tensor:
    """The weights of Adams' method are the package's: nobody writes those down by hand."""
    rows, last = ADAMS_ROWS, []
    for t, (of_data, of_state, keep, weights) in zip(grid[:-1], rows):
        value = torch.sub(of_data * net(t, x), x, alpha=of_state)
        last = [value, *last[:3]]
        x = keep * x
        for weight, old in zip(weights, last):
            x = torch.add(x, old, alpha=weight)
    return x


def corrected_by_hand(net: nn.Module, x: Tensor, grid: Tensor, draw: Callable) -> Tensor:
    t, s = grid[:-1], grid[1:]
    keep, pull = (1 - s) / (1 - t), s - t * (1 - s) / (1 - t)
    size = 0.1 * (1 - s)
    columns = (c.tolist() for c in (keep, pull, size))
    for t, s, a, b, c in zip(grid, grid[1:], *columns):
        x = torch.add(a * x, net(t, x), alpha=b)
        if c:
            x = torch.add(x, net(s, x), alpha=0.5 * c**2)
            x = torch.add(x, draw(), alpha=c)
    return x


def churned_by_hand(net: nn.Module, x: Tensor, grid: Tensor, draw: Callable) -> Tensor:
    t, s, gamma = grid[:-1], grid[1:], 0.1
    before = torch.where(t > 0, torch.sigmoid(odds(t) - torch.log1p(torch.tensor(gamma))), t)
    scale = torch.where(t > 0, before / t, 1.0)
    spread = ((1 - before) ** 2 - scale**2 * (1 - t) ** 2).clamp(min=0).sqrt()
    keep = (1 - s) / (1 - before)
    pull = s - before * keep
    columns = (c.tolist() for c in (scale, spread, keep, pull))
    for t, a, b, c, d in zip(before, *columns):
        if b:
            x = torch.add(a * x, draw(), alpha=b)
        x = torch.add(c * x, net(t, x), alpha=d)
    return x


ADAMS_ROWS: list[tuple] = []


def methods(net: nn.Module) -> dict[str, tuple[Callable, Callable]]:
    """Our step and the loop by hand of each method."""
    d, small = net, lambda t: 0.1 * linear.sigma(t)
    return {
        "ddim": (ddim(d, linear), lambda *a: one_by_hand(*a[:3], 0.0, a[3])),
        "ddim, zeta 0.5": (ddim(d, linear, 0.5), lambda *a: one_by_hand(*a[:3], 0.5, a[3])),
        "ancestral": (ancestral(d, linear), lambda *a: one_by_hand(*a[:3], 1.0, a[3])),
        "midpoint": (midpoint(d, linear, fields.data), middle_by_hand),
        "multistep 2": (multistep(d, linear, 2), two_by_hand),
        "adams 3": (adams(d, linear, 3), adams_by_hand),
        "corrected": (corrected(ddim(d, linear), d, 1, small), corrected_by_hand),
        "churned": (churned(ddim(d, linear), linear, constant(0.1)), churned_by_hand),
    }


def turns(ways: dict[str, Callable[[], object]], runs: int = 1) -> list[dict[str, float]]:
    """CPU seconds of each way, turn by turn: one thread, so that other work does not count."""
    for way in ways.values():
        way()
    taken = []
    for turn in range(TURNS):
        order = list(ways.items())
        times_of = {}
        for name, way in order if turn % 2 else order[::-1]:
            begin = time.process_time()
            for _ in range(runs):
                way()
            times_of[name] = (time.process_time() - begin) / runs
        taken.append(times_of)
    return taken


def ratio(taken: list[dict[str, float]], above: str, below: str) -> float:
    return median(turn[above] / turn[below] for turn in taken)


def alone() -> dict[str, float]:
    """Microseconds that a step of ours takes more than one by hand, with a network that does
    nothing: the least of many, which a busy machine disturbs least."""
    idle, grid = lambda t, x: x, times(STEPS)
    x, found = torch.randn(256, DIM, generator=torch.Generator().manual_seed(1)), {}
    for name, (step, by_hand) in methods(idle).items():
        least = {}
        for way in ("hand", "ours") * 300:
            generator = torch.Generator().manual_seed(3)
            draw = lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype)
            begin = time.perf_counter()
            _ = (
                by_hand(idle, x, grid, draw)
                if way == "hand"
                else integrate(step, x, grid, generator)
            )
            least[way] = min(time.perf_counter() - begin, least.get(way, 1.0))
        found[name] = 1e6 * (least["ours"] - least["hand"]) / STEPS
    return found


def overhead() -> dict:
    """Ours and the loop by hand, over each other and over the bare calls."""
    net, grid, found = network(), times(STEPS), {}
    adams_table(grid)
    with torch.inference_mode():
        more = alone()
        for name, (step, by_hand) in methods(net).items():
            for batch in RUNS:
                x = torch.randn(batch, DIM, generator=torch.Generator().manual_seed(1))
                found[f"{name}, {batch}"] = one_overhead(net, step, by_hand, x, grid)
                found[f"{name}, {batch}"]["more, us"] = more[name]
                print(name, batch, found[f"{name}, {batch}"], flush=True)
    return found


def one_overhead(net, step: Callable, by_hand: Callable, x: Tensor, grid: Tensor) -> dict:
    calls = [0]

    def counted(t: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return net(t, x)

    def drawing() -> Callable:
        generator = torch.Generator().manual_seed(3)
        return lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype)

    hand = lambda: by_hand(net, x, grid, drawing())
    ours = lambda: integrate(step, x, grid, torch.Generator().manual_seed(3))
    once = ours()
    theirs = by_hand(counted, x, grid, drawing())
    assert torch.allclose(once, theirs, rtol=1e-4, atol=1e-5), (once - theirs).abs().max()
    once_more = grid[3]

    def bare() -> None:
        for _ in range(calls[0]):
            net(once_more, x)

    taken = turns({"hand": hand, "ours": ours, "bare": bare}, RUNS[len(x)])
    pairs = {"ours / hand": ("ours", "hand"), "hand / bare": ("hand", "bare")}
    pairs["ours / bare"] = ("ours", "bare")
    least = 1e6 * min(turn["bare"] for turn in taken) / calls[0]
    return {k: ratio(taken, *v) for k, v in pairs.items()} | {
        "calls": calls[0],
        "least call, us": least,
    }


def adams_table(grid: Tensor) -> None:
    """The rows that `adams` computes, read off by feeding its step units."""
    from onepath.multisteps import _predicted_and_corrected

    alpha, sigma = linear.alpha(grid), linear.sigma(grid)
    r, angle = (alpha**2 + sigma**2).sqrt(), torch.atan2(alpha, sigma)
    weights = _predicted_and_corrected(angle[:-1], angle[1:], 3)
    columns = (r / sigma)[:-1], (alpha / (r * sigma))[:-1], r[1:] / r[:-1]
    scaled = [(g * w).tolist() for g, w in zip(r[1:], weights)]
    ADAMS_ROWS[:] = zip(*(c.tolist() for c in columns), scaled)


def compiled() -> dict:
    """A run with the network compiled, over the same number of bare eager calls."""
    net, grid, found = network(), times(STEPS), {}
    fast = torch.compile(net)
    with torch.inference_mode():
        for name in ("ddim", "multistep 2", "adams 3"):
            step = methods(fast)[name][0]
            for batch in RUNS:
                x = torch.randn(batch, DIM, generator=torch.Generator().manual_seed(1))
                t = grid[3]

                def bare() -> None:
                    for _ in range(STEPS):
                        net(t, x)

                ways = {"bare": bare, "ours": lambda: integrate(step, x, grid)}
                ways["network"] = lambda: [fast(t, x) for _ in range(STEPS)]
                taken = turns(ways, RUNS[batch])
                found[f"{name}, {batch}"] = {
                    "run / eager calls": ratio(taken, "ours", "bare"),
                    "compiled calls / eager calls": ratio(taken, "network", "bare"),
                }
                print(name, batch, found[f"{name}, {batch}"], flush=True)
    return found


def main(parts: list[str]) -> None:
    import samplers_peers as peers

    known = {
        "overhead": overhead,
        "compiled": compiled,
        "accuracy": peers.accuracy,
        "variance": peers.variance,
        "agreement": peers.agreement,
    }
    torch.set_num_threads(1)
    for part in parts or known:
        found = known[part]()
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[part] = found
        results["machine"] = (
            f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
        )
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main(sys.argv[1:])
