r"""Checkpoints: a network in one file that says what it is.

A safetensors file with a description in JSON: what the network is, what it predicts along which
interpolant and for which pairs of ends, and which data it saw. Nothing in it is executed when it is
read, what this version does not know is refused, and a digest tells a damaged file from a whole
one. The networks that come with the package are such files, with their weights in half precision.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from importlib.resources import as_file, files
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from . import __version__
from .images import UNet
from .networks import MLP

FORMAT = 1
SUFFIX = ".safetensors"
INTERPOLANTS = ("linear", "trigonometric")
PREDICTIONS = ("velocity", "score", "data", "noise", "v_prediction")
COUPLINGS = ("independent", "optimal in each class", "reflow")
SIZES = {
    "MLP": {"dim", "width", "depth", "classes"},
    "UNet": {"height", "width", "channels", "depth", "classes"},
}


@dataclass(frozen=True)
class About:
    """What a checkpoint says about its network.

    Args:
        architecture: `net.architecture`.
        interpolant: its name in `interpolants`, of those without parameters. Others, and all that
            have latent noise, have no name here: a file that gave one would not say which it is.
        prediction: what is predicted along it: the name of a row of the table in `fields`.
        data: name of the data set; this and the next three are its `provenance`.
        steps: of training, all together.
        coupling: how the two ends were paired.

    Raises ValueError for an interpolant, a prediction, a coupling or a format that this version
    does not know, and for a number of steps that is none.
    """

    architecture: dict[str, str | int]
    interpolant: str
    prediction: str
    data: str
    data_digest: str
    image_shape: list[int]
    image_range: list[float]
    steps: int
    coupling: str = "independent"
    package: str = __version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        hints = {
            "interpolant": "those with parameters or latent noise have no name in a checkpoint."
        }
        for what, got, known in (
            ("format", self.format, (FORMAT,)),
            ("interpolant", self.interpolant, INTERPOLANTS),
            ("prediction", self.prediction, PREDICTIONS),
            ("coupling", self.coupling, COUPLINGS),
        ):
            if got not in known:
                raise ValueError(
                    f"a checkpoint's {what} is one of {', '.join(map(str, known))}, got {got!r}; "
                    f"{hints.get(what, 'a newer version of onepath may know it.')}"
                )
        if type(self.steps) is not int or self.steps < 1:
            raise ValueError(f"a run has a whole number of steps, at least 1, got {self.steps!r}.")


@dataclass(frozen=True)
class Trained:
    """A network with averaged weights, what it is, and the mean loss of each step."""

    net: nn.Module
    about: About
    losses: Float[Tensor, "steps"]


def build(architecture: dict[str, str | int], generator: torch.Generator) -> nn.Module:
    """The network that a description describes, with fresh weights.

    Raises ValueError for a name or a set of sizes that this version does not know, and for sizes
    that are no whole numbers or do not fit.
    """
    sizes = {key: size for key, size in architecture.items() if key != "name"}
    known = SIZES.get(architecture.get("name"))
    whole = all(type(size) is int for size in sizes.values())
    if known is None or set(sizes) != known or not whole:
        raise ValueError(
            f"an architecture has a name out of {', '.join(SIZES)} and that network's sizes, whole "
            f"numbers, got {architecture}; a newer onepath may know it."
        )
    return (MLP if architecture["name"] == "MLP" else UNet)(**sizes, generator=generator)


def save(file: Path, trained: Trained, dtype: torch.dtype = torch.float32) -> None:
    """Write a trained network, without what only more training needs; never half a file.

    Args:
        dtype: of the weights in the file; `torch.float16` halves it and rounds each weight to 11
            binary digits: by up to 2⁻¹¹ of its size, or by up to 2⁻²⁵ where it is below 2⁻¹⁴.

    Raises ValueError for a dtype without fractions, and where a weight becomes no finite number.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"weights are floating-point numbers, got {dtype}; choose float32.")
    weights = {name: w.to(dtype) for name, w in trained.net.state_dict().items()}
    if not all(w.isfinite().all() for w in weights.values()):
        raise ValueError(f"weights must be finite in {dtype}, got inf or nan; choose float32.")
    tensors = {f"average.{name}": w for name, w in weights.items()}
    tensors["losses"] = trained.losses
    write(file, tensors, trained.about, {"step": trained.about.steps, "dtype": str(dtype)})


def load(file: Path) -> Trained:
    """The network of a checkpoint, with its averaged weights, in float32 on the CPU.

    Raises ValueError for a file that is damaged or not ours, whose format or content we do not
    know, or whose run has not ended.
    """
    tensors, about, run = read(file)
    if run["step"] != about.steps:
        raise ValueError(
            f"{file} must hold a finished run, got one at step {run['step']} of {about.steps}; "
            "call fit with this checkpoint to go on."
        )
    net = build(about.architecture, torch.Generator())
    copy_weights(file, tensors, "average.", net.state_dict(), run.get("dtype"))
    return Trained(net, about, tensors["losses"])


def shipped(name: str) -> Trained:
    """A network that comes with the package, ready to be evaluated: `shipped("mnist-flow")`.

    Raises ValueError for a name that there is none of.

    Book: eq:digit-dynamics.
    """
    folder = files(__package__) / "weights"
    names = sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))
    if name not in names:
        raise ValueError(f"networks that come with onepath are {', '.join(names)}, got {name!r}.")
    with as_file(folder / f"{name}{SUFFIX}") as file:
        trained = load(file)
    trained.net.requires_grad_(False)
    return trained


def copy_weights(
    file: Path,
    tensors: dict[str, Tensor],
    prefix: str,
    into: dict[str, Tensor],
    dtype: str | None = None,
) -> None:
    """Copy the tensors with this prefix, which the file keeps in `dtype`, or as `into` has them.

    Raises ValueError unless they are those of `into` by name, shape and dtype.
    """
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    shapes = {n: (tuple(v.shape), str(v.dtype)) for n, v in found.items()}
    wanted = {n: (tuple(v.shape), dtype or str(v.dtype)) for n, v in into.items()}
    if shapes != wanted:
        odd = min(set(shapes.items()) ^ set(wanted.items()), key=str)
        rule = f"{file}: the weights {prefix}… must be those of the architecture"
        raise ValueError(f"{rule}, got a difference at {odd[0]}, {odd[1]}; remake it.")
    for name, value in into.items():
        value.copy_(found[name])


def write(file: Path, tensors: dict[str, Tensor], about: About, run: dict) -> None:
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


def read(file: Path) -> tuple[dict[str, Tensor], About, dict]:
    """The tensors of a checkpoint, what it says about its network, and its run.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or not known.
    """
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
    try:
        note = json.loads(header["__metadata__"]["onepath"])
        digest, about, run = note.pop("sha256"), note["about"], note["run"]
        names, _, _ = set(about), run["step"], tensors["losses"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} was not written by onepath: its note lacks what a checkpoint says, got "
            f"{error!r}; train again, or fetch it again."
        ) from error
    if digest != _digest(note, tensors):
        raise ValueError(f"{file} is damaged: its content does not match its SHA-256.")
    if names != {field.name for field in fields(About)}:
        raise ValueError(
            f"{file} describes its network in a way that this version ({__version__}) does not "
            f"know, got {sorted(about)}; install the version that wrote it."
        )
    return tensors, About(**about), run


def _digest(note: dict, tensors: dict[str, Tensor]) -> str:
    content = hashlib.sha256(json.dumps(note, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
