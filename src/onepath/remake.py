r"""How the networks that come with the package were trained, and how to train them again.

`python -m onepath.remake digits FOLDER` trains the six networks for images of 8×8 pixels,
`python -m onepath.remake mnist FOLDER` the one for 28×28. Either may be killed and goes on where it
was, and `torchrun --nproc-per-node 2 -m onepath.remake …` shares each batch among processes. The
six have one size, one budget and one seed; they differ in what is predicted, along which path, and
in how noise and images are paired.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor, nn

from . import device, fields
from .checkpoints import About, Trained, save
from .couplings import minibatch_optimal
from .data import Dataset, dequantized, digits, mnist5000, split
from .dynamics import Dynamics
from .fields import Row
from .images import UNet
from .interpolants import Interpolant, linear, trigonometric
from .networks import MLP, drop_labels, given
from .objectives import regression
from .solvers import heun, integrate, times
from .training import Loss, fit, rows, together

Pairs = Callable[[int, torch.Generator], tuple[Tensor, Tensor, Tensor]]  # n -> noise, images, y


RATE = 2e-3
PATHS = {"linear": linear, "trigonometric": trigonometric}


@dataclass(frozen=True)
class Recipe:
    """One of the networks: what it predicts, along which path, and how its ends are paired."""

    prediction: Row
    interpolant: str
    coupling: str = "independent"

    @property
    def path(self) -> Interpolant:
        return PATHS[self.interpolant]


RECIPES = {
    "digits-noise": Recipe(fields.noise, "trigonometric"),
    "digits-data": Recipe(fields.data, "trigonometric"),
    "digits-v": Recipe(fields.v_prediction, "trigonometric"),
    "digits-flow": Recipe(fields.velocity, "linear"),
    "digits-optimal": Recipe(fields.velocity, "linear", "optimal in each class"),
    "digits-reflow": Recipe(fields.velocity, "linear", "reflow"),  # learns from digits-flow
}
DURATIONS = {
    "digits": "about 4 minutes on one CPU core; not measured on a GPU",
    "mnist": "about 25 minutes on one CPU core; not measured on a GPU",
}


def independent(data: Dataset) -> Pairs:
    """Images, and noise drawn without looking at them."""

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        i = torch.randint(len(data), (n,), generator=generator)
        x1 = dequantized(data.points[i], data.level, generator)
        return torch.randn(x1.shape, generator=generator), x1, data.labels[i]

    return draw


def optimal_in_each_class(data: Dataset, per_class: int, generator: torch.Generator) -> Pairs:
    """Pairs of the cheapest plans between noise and the images of one class, made once.

    In each class the noise is standard normal, as it is where a sampler starts. One plan for all
    classes, with the labels carried along, would give each class a base of its own, and a sampler
    that is asked for a class would start from the wrong one.
    """
    parts = []
    for y in range(data.classes):
        own = (data.labels == y).nonzero()[:, 0]
        i = own[torch.randint(len(own), (per_class,), generator=generator)]
        x1 = dequantized(data.points[i], data.level, generator)
        x0 = torch.randn(x1.shape, generator=generator)
        parts.append((*minibatch_optimal(x0, x1, generator), data.labels[i]))
    return stored(*(torch.cat(part) for part in zip(*parts)))


def reflow(teacher: Trained, data: Dataset, n: int, generator: torch.Generator) -> Pairs:
    """Noise, and where the flow of another network carries it, for n labels of the data."""
    y = data.labels[torch.randint(len(data), (n,), generator=generator)]
    x0 = torch.randn(n, data.points.shape[1], generator=generator)
    with torch.inference_mode():
        x1 = integrate(heun(Dynamics(given(teacher.net, y))), x0, times(25))
    return stored(x0, x1.clone(), y)


def stored(x0: Tensor, x1: Tensor, y: Tensor) -> Pairs:
    """Batches of pairs that were made before."""

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        i = torch.randint(len(x0), (n,), generator=generator)
        return x0[i], x1[i], y[i]

    return draw


def loss_on(pairs: Pairs, recipe: Recipe, batch: int) -> Loss:
    """The regression of `recipe` on pairs, with one label in ten dropped and uniform times.

    Every process draws the whole batch, which costs little, and computes its own rows.
    """
    where = device()

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        x0, x1, y = pairs(batch, generator)
        y = drop_labels(net, y, 0.1, generator)
        t = torch.rand(batch, generator=generator)
        t, x0, x1, y = (a[rows(batch)].to(where) for a in (t, x0, x1, y))
        return regression(given(net, y), recipe.path, recipe.prediction, t, x0, x1)

    return loss


def train(
    folder: Path,
    name: str,
    recipe: Recipe,
    net: nn.Module,
    pairs: Pairs,
    batch: int,
    about: About,
    generator: torch.Generator,
) -> Trained:
    """Train one network, from where an earlier call was stopped, and keep it in half precision."""
    loss = loss_on(pairs, recipe, batch)
    run = folder / f"{name}.run"
    trained = fit(net.to(device()), loss, about, generator, rate=RATE, checkpoint=run, every=200)
    if int(os.environ.get("RANK", 0)) == 0:
        save(folder / f"{name}.safetensors", trained, torch.float16)
    return trained


def about(net: nn.Module, recipe: Recipe, steps: int, data: Dataset) -> About:
    """What the checkpoint of a network says that was trained so."""
    return About(
        net.architecture,
        recipe.interpolant,
        recipe.prediction.__name__,
        steps=steps,
        coupling=recipe.coupling,
        **data.provenance,
    )


def remake_digits(folder: Path) -> None:
    """The six networks for digits of 8×8 pixels, each from the same seed."""
    made = {}
    for name, recipe in RECIPES.items():
        generator = torch.Generator().manual_seed(13)
        data, _ = split(digits(), 360, generator)
        net = MLP(64, 192, 3, data.classes, generator)
        if recipe.coupling == "reflow":
            pairs = reflow(made["digits-flow"], data, 20_000, generator)
        elif recipe.coupling == "optimal in each class":
            pairs = optimal_in_each_class(data, 2_000, generator)
        else:
            pairs = independent(data)
        what = about(net, recipe, 2000, data)
        made[name] = train(folder, name, recipe, net, pairs, 256, what, generator)


def remake_mnist(folder: Path) -> None:
    """The network for images of 28×28 pixels."""
    recipe, generator = Recipe(fields.velocity, "linear"), torch.Generator().manual_seed(13)
    data, _ = split(mnist5000(), 500, generator)
    net = UNet(28, 28, 48, 3, data.classes, generator)
    what = about(net, recipe, 7000, data)
    train(folder, "mnist-flow", recipe, net, independent(data), 64, what, generator)


MAKERS = {"digits": remake_digits, "mnist": remake_mnist}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m onepath.remake", description=__doc__)
    parser.add_argument("what", choices=MAKERS)
    parser.add_argument("folder", type=Path, help="where checkpoints and networks are written")
    arguments = parser.parse_args()
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=arguments.folder).close()  # better now than after the first 200 steps
    except OSError as error:
        parser.error(f"FOLDER is a folder that can be written to, got {arguments.folder} ({error})")
    print(f"{arguments.what}: {DURATIONS[arguments.what]}.")
    with together():
        MAKERS[arguments.what](arguments.folder)


if __name__ == "__main__":
    main()
