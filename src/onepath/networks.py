r"""Networks $v_\theta(t, x, y)$: the only module that may know that a state is an image.

A network is called as `net(t, x, y=None)` with states (n, d), a time of shape () or (n,) and class
labels. One label more than there are classes stands for "no class": a network that meets it in
training learns the conditional fields and the unconditional one at once. `given` and
`unconditional` turn a network into the fields that the rest of the package works with.

There is one architecture so far, a residual perceptron, which suffices for images of 8×8 pixels.
Convolutions and attention are not covered.
"""

from math import pi

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.nn.utils import skip_init

from .measures import check_generator
from .shapes import Field, Points, Time

Labels = Int[Tensor, "n"]


class MLP(nn.Module):
    r"""A residual perceptron whose every layer sees the time and the class.

    Time enters through $\cos\omega_k t$ and $\sin\omega_k t$ with $\omega_k$ from $\pi/2$ up by
    half octaves; time and class are added into an embedding that shifts each layer. The last layer
    starts at zero, so that a new network is the field 0.

    Args:
        dim: number d of coordinates of a state.
        width: units of a hidden layer.
        depth: number of residual layers.
        classes: number of class labels, 0 for a network without; label `classes` is "no class".
        generator: draws the initial weights; on the CPU.

    Raises ValueError for sizes that are not positive.
    """

    def __init__(
        self, dim: int, width: int, depth: int, classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if min(dim, width, depth) < 1 or classes < 0:
            raise ValueError(
                "a network has dim, width and depth of at least 1 and classes of at least 0, "
                f"got {dim}, {width}, {depth} and {classes}."
            )
        self.dim, self.width, self.depth, self.classes = dim, width, depth, classes
        octaves = torch.arange(16, dtype=torch.float32) / 2
        self.register_buffer("frequencies", 0.5 * pi * 2**octaves, persistent=False)
        self.time = _linear(2 * len(octaves), width, generator)
        self.label = _embedding(classes + 1, width, generator) if classes else None
        self.enter = _linear(dim, width, generator)
        self.shifts = nn.ModuleList(_linear(width, width, generator) for _ in range(depth))
        self.layers = nn.ModuleList(_linear(width, width, generator) for _ in range(depth))
        self.leave = _linear(width, dim, generator)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def architecture(self) -> dict[str, str | int]:
        """What `build` needs to make this network again."""
        sizes = {"dim": self.dim, "width": self.width, "depth": self.depth}
        return {"name": "MLP"} | sizes | {"classes": self.classes}

    def forward(self, t: Time, x: Points, y: Labels | None = None) -> Points:
        """The field at (t, x), given the classes y; without y, given "no class".

        Raises ValueError for labels of a network that has no classes, or not one per state.
        """
        phase = t.to(x).reshape(-1, 1) * self.frequencies
        about = self.time(torch.cat([phase.cos(), phase.sin()], dim=1))
        if self.label is not None:
            nobody = torch.full((1,), self.classes, device=x.device)
            about = about + self.label(nobody if y is None else _checked(y, x))
        elif y is not None:
            raise ValueError("this network was built with classes=0, got labels; leave them out.")
        about, h = silu(about), self.enter(x)
        for shift, layer in zip(self.shifts, self.layers):
            h = h + layer(silu(h + shift(about)))
        return self.leave(silu(h))


ARCHITECTURES = {"MLP": MLP}


def build(architecture: dict[str, str | int], generator: torch.Generator) -> nn.Module:
    """The network that a description describes, with fresh weights.

    Raises ValueError for a name or a set of sizes that this version does not know.
    """
    sizes = {key: size for key, size in architecture.items() if key != "name"}
    name = architecture.get("name")
    if name not in ARCHITECTURES or set(sizes) != {"dim", "width", "depth", "classes"}:
        raise ValueError(
            f"an architecture has a name out of {', '.join(ARCHITECTURES)} and the sizes dim, "
            f"width, depth and classes, got {architecture}; a newer onepath may know it."
        )
    return ARCHITECTURES[name](**sizes, generator=generator)


def given(net: nn.Module, y: Labels) -> Field:
    """The field of states whose classes are y, one label for each row.

    Raises ValueError for a label outside 0 … `net.classes`; the last one means "no class".
    """
    if y.numel() and not 0 <= y.min() <= y.max() <= net.classes:
        raise ValueError(
            f"labels lie between 0 and {net.classes} (no class), "
            f"got {y.min().item()} to {y.max().item()}."
        )
    return lambda t, x: net(t, x, y)


def unconditional(net: nn.Module) -> Field:
    """The field of states whose class is not known."""
    return lambda t, x: net(t, x)


def drop_labels(net: nn.Module, y: Labels, share: float, generator: torch.Generator) -> Labels:
    """The labels y, each replaced by "no class" with probability `share`.

    A network that is trained on them learns the conditional fields and the unconditional one.
    """
    check_generator(generator, y.device)
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}.")
    drop = torch.rand(len(y), generator=generator, device=y.device) < share
    return torch.where(drop, net.classes, y)


def _checked(y: Tensor, x: Tensor) -> Tensor:
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"labels are int64, one for each of {len(x)} states, got {tuple(y.shape)} {y.dtype}."
        )
    return y


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's own default law for a layer, drawn from a generator instead of the global one."""
    layer = skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _embedding(count: int, width: int, generator: torch.Generator) -> nn.Embedding:
    table = skip_init(nn.Embedding, count, width)
    nn.init.normal_(table.weight, std=1.0, generator=generator)
    return table
