"""What adaptive steps and likelihoods cost beyond their network calls, as ratios in one run.

Adaptive steps beside the bare solver of torchdiffeq at the same tolerance and beside as many bare
calls as they made; log-densities beside a loop written by hand with the same derivatives, for exact
divergences and for Hutchinson's. `python benchmarks/likelihood.py` prints the tables of
`likelihood.md`.
"""

import platform
from collections.abc import Callable
from functools import partial

import torch
import torchdiffeq
from solvers import DIM, TURNS, WIDTH, Network, measure, ratio
from torch import Tensor

from onepath.calculus import hutchinson, rademacher_probes
from onepath.dynamics import Dynamics
from onepath.likelihood import log_density
from onepath.measures import standard_normal
from onepath.solvers import adaptive, euler, integrate, times

STEPS = 20


def counted(net: Network, run: Callable) -> int:
    """How often a run calls the network."""
    calls = 0

    def hook(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = net.register_forward_hook(hook)
    run()
    handle.remove()
    return calls


def adaptive_rows(net: Network, generator: torch.Generator) -> None:
    pairs = ("adaptive / bare", "torchdiffeq / bare", "adaptive / torchdiffeq")
    print("| tolerance | batch | calls | " + " | ".join(pairs) + " |")
    print("| --- " * 6 + "|")
    ends, start = times(1), torch.tensor([0.0, 1.0])
    for tolerance in (1e-3, 1e-5):
        for batch in (256, 4096):
            x = torch.randn(batch, DIM, generator=generator)
            step = adaptive(Dynamics(net), tolerance, tolerance)
            ours = lambda: integrate(step, x, ends)
            theirs = lambda: torchdiffeq.odeint(
                net, x, start, rtol=tolerance, atol=tolerance, method="dopri5"
            )[-1]
            with torch.inference_mode():
                calls, their_calls = counted(net, ours), counted(net, theirs)
                bare = lambda: [net(start[0], x) for _ in range(calls)][-1]
                turns = measure({"ours": ours, "theirs": theirs, "bare": bare})
                gap = (ours() - theirs()).abs().max()
            assert gap < 100 * tolerance, gap
            peer = ratio(turns, "theirs", "bare") * calls / their_calls
            print(
                f"| {tolerance:.0e} | {batch} | {calls}, torchdiffeq {their_calls} | "
                f"{ratio(turns, 'ours', 'bare'):.2f} | {peer:.2f} | "
                f"{ratio(turns, 'ours', 'theirs'):.2f} |"
            )


def exact_by_hand(net: Network, x: Tensor, grid: Tensor) -> Tensor:
    """The change of log-density along Euler's steps backwards, with d backward passes a step."""
    change = x.new_zeros(len(x))
    for t, t_next in zip(grid.flip(0)[:-1], grid.flip(0)[1:]):
        y = x.detach().requires_grad_()
        v = net(t, y)
        spread = x.new_zeros(len(x))
        for i in range(DIM):
            spread += torch.autograd.grad(v[:, i].sum(), y, retain_graph=i + 1 < DIM)[0][:, i]
        h = t - t_next
        x, change = x - h * v.detach(), change - h * spread
    return change


def probed_by_hand(net: Network, x: Tensor, grid: Tensor, z: Tensor) -> Tensor:
    """The same with one probe in the place of the coordinates."""
    change = x.new_zeros(len(x))
    for t, t_next in zip(grid.flip(0)[:-1], grid.flip(0)[1:]):
        y = x.detach().requires_grad_()
        v = net(t, y)
        spread = (torch.autograd.grad(v, y, z)[0] * z).sum(1)
        h = t - t_next
        x, change = x - h * v.detach(), change - h * spread
    return change


def twice(change: Callable, grid: Tensor) -> Tensor:
    """`log_density` solves on every second time too, to state its error; so must the hand."""
    change(grid=grid[::2])
    return change(grid=grid)


def without_graph(way: Callable) -> Callable:
    """The same under `no_grad`: derivatives in x, and no graph that leads to the weights."""

    def run() -> object:
        with torch.no_grad():
            return way()

    return run


def likelihood_rows(net: Network, generator: torch.Generator) -> None:
    print("\n| divergence | batch | values / hand | with a graph for the weights / hand |")
    print("| --- " * 4 + "|")
    grid, base = times(STEPS), standard_normal(DIM, torch.zeros(1))
    for batch in (256, 4096):
        x = torch.randn(batch, DIM, generator=generator)
        z = rademacher_probes(x, generator)
        probe = lambda field, t, x: hutchinson(field, t, x, z)
        for name, trace, by_hand in (
            ("exact", None, partial(exact_by_hand, net, x)),
            ("Hutchinson", probe, partial(probed_by_hand, net, x, z=z)),
        ):
            traces = {} if trace is None else {"trace": trace}
            values = lambda: log_density(Dynamics(net), base.log_prob, x, euler, grid, **traces)
            turns = measure(
                {
                    "values": without_graph(values),
                    "graph": values,
                    "hand": lambda: twice(by_hand, grid),
                }
            )
            found = " | ".join(f"{ratio(turns, way, 'hand'):.2f}" for way in ("values", "graph"))
            print(f"| {name} | {batch} | {found} |")


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    net = Network()
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    adaptive_rows(net, generator)
    likelihood_rows(net, generator)
    print(
        f"\n{STEPS} Euler steps for densities, MLP 3×{WIDTH} in float32, one thread, median of "
        f"{TURNS} interleaved turns; torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}."
    )


if __name__ == "__main__":
    main()
