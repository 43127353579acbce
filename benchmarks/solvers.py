"""What `integrate` costs beyond its network calls, as ratios measured in one run.

Four ways to make the same calls of one network take turns: the bare calls, a loop written by hand,
`integrate`, and `torchdiffeq` on the same grid. Each ratio is taken within a turn, and the median
of 15 turns counts. Trajectories are not stored. `python benchmarks/solvers.py` prints the table of
`solvers.md`.
"""

import platform
import time
from collections.abc import Callable
from statistics import median

import torch
import torchdiffeq
from torch import Tensor, nn

from onepath.dynamics import Dynamics
from onepath.solvers import euler, heun, integrate, times

TURNS, STEPS, DIM, WIDTH = 15, 100, 2, 64


class Network(nn.Module):
    """Three hidden layers of 64 units, with the time as one more input."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(DIM + 1, WIDTH), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Linear(WIDTH, WIDTH), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, DIM))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        column = t.to(x).expand(len(x), 1)
        return self.layers(torch.cat([column, x], dim=1))


def bare(net: Network, x: Tensor, grid: Tensor, calls: int) -> Tensor:
    for t in grid[:-1]:
        for _ in range(calls):
            last = net(t, x)
    return last


def euler_by_hand(net: Network, x: Tensor, grid: Tensor) -> Tensor:
    for t, t_next in zip(grid[:-1], grid[1:]):
        x = x + (t_next - t) * net(t, x)
    return x


def heun_by_hand(net: Network, x: Tensor, grid: Tensor) -> Tensor:
    for t, t_next in zip(grid[:-1], grid[1:]):
        h = t_next - t
        slope = net(t, x)
        x = x + 0.5 * h * (slope + net(t_next, x + h * slope))
    return x


def measure(ways: dict[str, Callable[[], Tensor]]) -> list[dict[str, float]]:
    """CPU seconds of each way, turn by turn: one thread, so that other work does not count."""
    for way in ways.values():
        way()
    turns = []
    for _ in range(TURNS):
        turn = {}
        for name, way in ways.items():
            begin = time.process_time()
            way()
            turn[name] = time.process_time() - begin
        turns.append(turn)
    return turns


def ratio(turns: list[dict[str, float]], above: str, below: str) -> float:
    """The median over the turns of the ratio within a turn."""
    return median(turn[above] / turn[below] for turn in turns)


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    net, grid = Network(), times(STEPS)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    flow = Dynamics(net)
    methods = {
        "euler": (1, euler(flow), euler_by_hand, "euler"),
        "heun": (2, heun(flow), heun_by_hand, "heun2"),
    }
    pairs = [
        ("hand", "bare"),
        ("integrate", "bare"),
        ("integrate", "hand"),
        ("torchdiffeq", "bare"),
    ]
    print("| method | batch | " + " | ".join(f"{a} / {b}" for a, b in pairs) + " |")
    print("| --- " * (2 + len(pairs)) + "|")
    with torch.inference_mode():
        for name, (calls, step, by_hand, theirs) in methods.items():
            for batch in (256, 4096):
                x = torch.randn(batch, DIM, generator=generator)
                ends = grid.to(x.dtype)
                turns = measure(
                    {
                        "bare": lambda: bare(net, x, grid, calls),
                        "hand": lambda: by_hand(net, x, grid),
                        "integrate": lambda: integrate(step, x, grid),
                        "torchdiffeq": lambda: torchdiffeq.odeint(net, x, ends, method=theirs)[-1],
                    }
                )
                assert torch.allclose(by_hand(net, x, grid), integrate(step, x, grid))
                found = " | ".join(f"{ratio(turns, *pair):.3f}" for pair in pairs)
                print(f"| {name} | {batch} | {found} |")
    print(
        f"\n{STEPS} steps, MLP 3×{WIDTH} in float32, one thread, median of {TURNS} interleaved "
        f"turns; torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}."
    )


if __name__ == "__main__":
    main()
