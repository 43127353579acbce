r"""Training: a loop that can be killed at any moment, on one processor or on several.

Stochastic gradient descent is a Markov chain, and resuming it exactly means saving all of its
state: weights, their running average, the optimiser's moments, the generator that draws the
batches, and the step. One checkpoint holds them all and is replaced in one step; from it the chain
runs on as if nothing had happened, bit for bit on the same CPU with the same number of threads.

A batch can be shared out. All processes that `torchrun` starts draw the same batches from the same
seed; each computes the losses of its own `rows`, and the gradients are averaged before each step,
so the chain is the one of a single process up to rounding. Networks too large for one device are
not covered.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import cos, inf, isfinite, nan, pi
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from .checkpoints import About, Trained, copy_weights, read, write
from .measures import check_generator

Loss = Callable[[nn.Module, torch.Generator], Tensor]  # losses (n,) of a batch that it draws itself


def rows(n: int) -> slice:
    """Which rows of a batch of n this process computes: all, unless torchrun started several.

    Raises ValueError unless all processes get the same number of rows, at least one.
    """
    count, place = _processes()
    if n < count or n % count:
        raise ValueError(
            f"a batch is a positive multiple of the number of processes, got {n} for {count}."
        )
    return slice(place * n // count, (place + 1) * n // count)


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started, if it did: NCCL between GPUs, Gloo between CPUs.

    `torchrun --nproc-per-node 8 script.py` runs a script eight times. Inside `with together():`,
    `fit` averages the gradients, and a loss that takes the `rows` of its batch does an eighth of
    the work.
    """
    if "RANK" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group()
    try:
        yield
    finally:
        distributed.destroy_process_group()


def fit(
    net: nn.Module,
    loss: Loss,
    about: About,
    generator: torch.Generator,
    rate: float = 2e-3,
    averaging: float = 0.999,
    precision: torch.dtype | None = None,
    checkpoint: Path | None = None,
    every: int = 500,
) -> Trained:
    r"""Train `net` in place for `about.steps` steps of Adam; it ends with averaged weights.

    The learning rate rises over 100 steps to `rate` and falls to zero like a cosine. The average is
    $\bar\theta \leftarrow a_k\bar\theta + (1-a_k)\,\theta$ with $a_k=\min(\text{averaging},
    \frac{1+k}{10+k})$, which forgets the start.

    Args:
        loss: draws a batch with the generator that it is given, and returns one loss per sample. It
            moves the batch to where the network is.
        generator: on the CPU, so that a run draws the same batches on every device; with the same
            seed in every process.
        precision: `torch.bfloat16` computes the loss in that precision; weights keep theirs.
        checkpoint: a file to write every so many steps and at the end, and to go on from if it
            exists. The loss is not in it: with another loss, choose another file.

    Raises ValueError where the checkpoint belongs to another run or `about` to another network,
    where processes have other seeds or other checkpoints, for
    an empty batch, and where loss or weights are not finite; the checkpoint then holds the last
    finite state.

    Source: Kingma and Ba (2015), Adam; Polyak and Juditsky (1992) for the average.
    """
    check_generator(generator, torch.device("cpu"))
    if about.architecture != net.architecture:
        raise ValueError(f"about describes {about.architecture}, got {net.architecture}.")
    if not (0 <= averaging < 1 and 0 < rate < inf and every > 0):
        raise ValueError(
            "a run has 0 <= averaging < 1, 0 < rate < inf and every > 0, "
            f"got {averaging}, {rate} and {every}."
        )
    if precision not in (None, torch.bfloat16):
        raise ValueError(f"precision is None or torch.bfloat16, got {precision}.")
    # fused: one pass over all parameters; of a small network the rest is half the cost of a step
    optimiser = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    average = {name: w.detach().clone() for name, w in net.state_dict().items()}
    state = _State(net, average, optimiser, generator, torch.full((about.steps,), nan))
    run = {"rate": rate, "averaging": averaging, "precision": str(precision)}
    run["seed"] = generator.initial_seed()
    begun = checkpoint is not None and checkpoint.exists()
    start = _resume(checkpoint, about, run, state) if begun else 0
    where = next(net.parameters()).device.type
    count, place = _processes()
    mean_loss = _MeanLoss(net, loss)
    if count > 1:
        _check_alike(generator, start)
        mean_loss = DistributedDataParallel(mean_loss)
    for k in _progress(start, about.steps):
        fall = 0.5 * (1 + cos(pi * k / about.steps))
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (k + 1) / 100) * fall
        with torch.autocast(where, precision, enabled=precision is not None):
            value = mean_loss(generator)
        state.losses[k] = _mean_over_processes(value)
        if not isfinite(state.losses[k]):
            raise ValueError(
                f"a loss must be finite, got {state.losses[k]:g} at step {k}; lower rate."
            )
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        share = 1 - min(averaging, (1 + k) / (10 + k))
        torch._foreach_lerp_(list(average.values()), list(net.state_dict().values()), share)
        saving = (k + 1) % every == 0 or k + 1 == about.steps
        if saving and not all(w.isfinite().all() for w in net.state_dict().values()):
            raise ValueError(f"weights must be finite, got nan or inf at step {k}; lower rate.")
        if saving and checkpoint is not None and place == 0:
            write(checkpoint, state.tensors(), about, run | {"step": k + 1})
    net.load_state_dict(average)
    return Trained(net, about, state.losses)


class _MeanLoss(nn.Module):
    """The mean loss of a batch as a module, because gradients are averaged around modules."""

    def __init__(self, net: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, generator: torch.Generator) -> Tensor:
        losses = self.loss(self.net, generator)
        if losses.ndim != 1 or len(losses) == 0:
            raise ValueError(
                "a loss is one number for each sample of a batch that is not empty, "
                f"got the shape {tuple(losses.shape)}."
            )
        return losses.mean()


@dataclass(frozen=True)
class _State:
    """All that a run depends on: the state of the Markov chain, and the losses so far."""

    net: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    losses: Tensor

    def tensors(self) -> dict[str, Tensor]:
        moments = {
            f"adam.{i}.{name}": value
            for i, of_one in self.optimiser.state_dict()["state"].items()
            for name, value in of_one.items()
        }
        weights = {f"net.{name}": w for name, w in self.net.state_dict().items()}
        average = {f"average.{name}": w for name, w in self.average.items()}
        chain = {"generator": self.generator.get_state(), "losses": self.losses}
        return weights | average | moments | chain


def _resume(file: Path, about: About, run: dict, state: _State) -> int:
    """Bring `state` to that of a checkpoint; return the step to go on with."""
    tensors, found, found_run = read(file)
    step = found_run.pop("step")
    if found != about or found_run != run:
        there, here = asdict(found) | found_run, asdict(about) | run
        other = [
            f"{k} is {there.get(k)!r}, not {v!r}" for k, v in here.items() if there.get(k) != v
        ]
        raise ValueError(
            f"{file} belongs to another run, whose {'; '.join(other)}; "
            "choose another file, or remove this one to start anew."
        )
    copy_weights(file, tensors, "net.", state.net.state_dict())
    copy_weights(file, tensors, "average.", state.average)
    names = ("step", "exp_avg", "exp_avg_sq")
    count = len(list(state.net.parameters()))
    moments = {i: {name: tensors[f"adam.{i}.{name}"] for name in names} for i in range(count)}
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
    state.generator.set_state(tensors["generator"])
    state.losses.copy_(tensors["losses"])
    return step


def _processes() -> tuple[int, int]:
    """How many processes train together, and which of them this one is."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1, 0
    return distributed.get_world_size(), distributed.get_rank()


def _mean_over_processes(value: Tensor) -> float:
    if _processes()[0] == 1:
        return value.item()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total.item() / _processes()[0]


def _check_alike(generator: torch.Generator, start: int) -> None:
    found = [None] * _processes()[0]
    distributed.all_gather_object(found, (generator.initial_seed(), start))
    seeds, starts = map(list, zip(*found))
    if len(set(seeds)) > 1:
        raise ValueError(f"all processes draw the same batches from one seed, got {seeds}.")
    if len(set(starts)) > 1:
        raise ValueError(
            f"all processes go on from one checkpoint, got the steps {starts}; keep it in a folder "
            "that all of them see."
        )


def _progress(start: int, stop: int) -> tqdm:
    """The steps with a bar, in a live notebook and in a terminal, unless TQDM_DISABLE is set."""
    ipython = sys.modules.get("IPython")
    kernel = ipython is not None and "IPKernelApp" in getattr(ipython.get_ipython(), "config", {})
    silent = bool(os.environ.get("TQDM_DISABLE")) or not (kernel or sys.stderr.isatty())
    return tqdm(range(start, stop), initial=start, total=stop, disable=silent)
