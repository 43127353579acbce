r"""Training: a loop that can be killed at any moment, and the checkpoints that make it so.

Stochastic gradient descent is a Markov chain, and resuming it exactly means saving all of its
state: weights, their running average, the optimiser's moments, the generator that draws the
batches, and the step. One file holds them all and is replaced in one step; from it the chain runs
on as if nothing had happened, bit for bit on the same CPU with the same number of threads.

A checkpoint is a safetensors file with a description in JSON: what the network is, what it predicts
along which interpolant, and which data it saw. Nothing in it is executed when it is read. Training
on several machines is not covered.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import cos, inf, isfinite, nan, pi
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import __version__
from .measures import check_generator
from .networks import build

FORMAT = 1
INTERPOLANTS = ("linear", "trigonometric")
PREDICTIONS = ("velocity", "score", "data", "noise", "v_prediction")

Loss = Callable[[nn.Module, torch.Generator], Tensor]  # losses (n,) of a batch that it draws itself


@dataclass(frozen=True)
class About:
    """What a checkpoint says about its network.

    Args:
        architecture: `net.architecture`.
        interpolant: its name in `interpolants`, of those without parameters.
        prediction: what is predicted along it: the name of a row of the table in `fields`.
        data: name of the data set; this and the next three are its `provenance`.
        steps: of training, all together.

    Raises ValueError for an interpolant, a prediction or a format that this version does not know.
    """

    architecture: dict[str, str | int]
    interpolant: str
    prediction: str
    data: str
    data_digest: str
    image_shape: list[int]
    image_range: list[float]
    steps: int
    package: str = __version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        for what, got, known in (
            ("format", self.format, (FORMAT,)),
            ("interpolant", self.interpolant, INTERPOLANTS),
            ("prediction", self.prediction, PREDICTIONS),
        ):
            if got not in known:
                raise ValueError(
                    f"a checkpoint's {what} is one of {', '.join(map(str, known))}, got {got!r}; "
                    "a newer version of onepath may know it."
                )


@dataclass(frozen=True)
class Trained:
    """A network with averaged weights, what it is, and the mean loss of each step."""

    net: nn.Module
    about: About
    losses: Float[Tensor, "steps"]


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
        generator: on the CPU, so that a run draws the same batches on every device.
        precision: `torch.bfloat16` computes the loss in that precision; weights keep theirs.
        checkpoint: a file to write every so many steps and at the end, and to go on from if it
            exists. The loss is not in it: with another loss, choose another file.

    Raises ValueError where the checkpoint belongs to another run or `about` to another network, and
    where loss or weights are not finite; the checkpoint then holds the last finite state.

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
    optimiser = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99))
    average = {name: w.detach().clone() for name, w in net.state_dict().items()}
    state = _State(net, average, optimiser, generator, torch.full((about.steps,), nan))
    run = {"rate": rate, "averaging": averaging, "precision": str(precision)}
    run["seed"] = generator.initial_seed()
    begun = checkpoint is not None and checkpoint.exists()
    start = _resume(checkpoint, about, run, state) if begun else 0
    where = next(net.parameters()).device.type
    for k in _progress(start, about.steps):
        fall = 0.5 * (1 + cos(pi * k / about.steps))
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (k + 1) / 100) * fall
        with torch.autocast(where, precision, enabled=precision is not None):
            value = loss(net, generator).mean()
        state.losses[k] = value.item()
        if not isfinite(state.losses[k]):
            raise ValueError(f"a loss must be finite, got {value.item()} at step {k}; lower rate.")
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        share = 1 - min(averaging, (1 + k) / (10 + k))
        torch._foreach_lerp_(list(average.values()), list(net.state_dict().values()), share)
        saving = (k + 1) % every == 0 or k + 1 == about.steps
        if saving and not all(w.isfinite().all() for w in net.state_dict().values()):
            raise ValueError(f"weights must be finite, got nan or inf at step {k}; lower rate.")
        if saving and checkpoint is not None:
            _write(checkpoint, state.tensors(), about, run | {"step": k + 1})
    net.load_state_dict(average)
    return Trained(net, about, state.losses)


def save(file: Path, trained: Trained) -> None:
    """Write a trained network, without what only more training needs; never half a file."""
    tensors = {f"average.{name}": w for name, w in trained.net.state_dict().items()}
    tensors["losses"] = trained.losses
    _write(file, tensors, trained.about, {"step": trained.about.steps})


def load(file: Path) -> Trained:
    """The network of a checkpoint, with its averaged weights, on the CPU.

    Raises ValueError for a file that is damaged or not ours, whose format or content we do not
    know, or whose run has not ended.
    """
    tensors, about, run = _read(file)
    if run["step"] != about.steps:
        raise ValueError(
            f"{file} must hold a finished run, got one at step {run['step']} of {about.steps}; "
            "call fit with this checkpoint to go on."
        )
    net = build(about.architecture, torch.Generator())
    _copy(file, tensors, "average.", net.state_dict())
    return Trained(net, about, tensors["losses"])


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
    tensors, found, found_run = _read(file)
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
    _copy(file, tensors, "net.", state.net.state_dict())
    _copy(file, tensors, "average.", state.average)
    names = ("step", "exp_avg", "exp_avg_sq")
    count = len(list(state.net.parameters()))
    moments = {i: {name: tensors[f"adam.{i}.{name}"] for name in names} for i in range(count)}
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
    state.generator.set_state(tensors["generator"])
    state.losses.copy_(tensors["losses"])
    return step


def _copy(file: Path, tensors: dict[str, Tensor], prefix: str, into: dict[str, Tensor]) -> None:
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in found.items()}
    wanted = {name: (tuple(value.shape), value.dtype) for name, value in into.items()}
    if shapes != wanted:
        odd = min(set(shapes.items()) ^ set(wanted.items()), key=str)
        rule = f"{file}: the weights {prefix}… must be those of the architecture"
        raise ValueError(f"{rule}, got a difference at {odd[0]}, {odd[1]}; remake it.")
    for name, value in into.items():
        value.copy_(found[name])


def _write(file: Path, tensors: dict[str, Tensor], about: About, run: dict) -> None:
    """Replace `file` in one step: a reader, or a crash, meets the old content or the new."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    note = {"about": asdict(about), "run": run}
    note["sha256"] = _digest(note, plain)
    content = tensor_bytes(plain, {"onepath": json.dumps(note)})
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":  # the new name, too, must survive a loss of power
        folder = os.open(file.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _read(file: Path) -> tuple[dict[str, Tensor], About, dict]:
    if not file.is_file():
        raise FileNotFoundError(f"there must be a checkpoint {file}, got no such file.")
    content = file.read_bytes()
    try:
        # cloned, because tensors that view the file are not aligned in memory as those of a run are
        tensors = {name: value.clone() for name, value in read_tensors(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"a checkpoint is a safetensors file, got {file}, which is damaged or none ({error}); "
            "train again, or fetch it again."
        ) from error
    if set(header.get("__metadata__", {})) != {"onepath"}:
        raise ValueError(f"{file} was not written by onepath: its header does not say what it is.")
    note = json.loads(header["__metadata__"]["onepath"])
    if note.pop("sha256") != _digest(note, tensors):
        raise ValueError(f"{file} is damaged: its content does not match its SHA-256.")
    if set(note["about"]) != {field.name for field in fields(About)}:
        raise ValueError(
            f"{file} describes its network in a way that this version ({__version__}) does not "
            f"know, got {sorted(note['about'])}; install the version that wrote it."
        )
    return tensors, About(**note["about"]), note["run"]


def _digest(note: dict, tensors: dict[str, Tensor]) -> str:
    content = hashlib.sha256(json.dumps(note, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def _progress(start: int, stop: int) -> tqdm:
    """The steps with a bar, in a live notebook and in a terminal, unless TQDM_DISABLE is set."""
    ipython = sys.modules.get("IPython")
    kernel = ipython is not None and "IPKernelApp" in getattr(ipython.get_ipython(), "config", {})
    silent = bool(os.environ.get("TQDM_DISABLE")) or not (kernel or sys.stderr.isatty())
    return tqdm(range(start, stop), initial=start, total=stop, disable=silent)
