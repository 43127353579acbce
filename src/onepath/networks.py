r"""Networks $v_\theta(t, x, y)$: fields whose weights are learned.

A network is called as `net(t, x, y=None)` with states (n, d), a time of shape () or (n,) and class
labels. One label more than there are classes stands for "no class": a network that meets it in
training learns the conditional fields and the unconditional one at once. `given` and
`unconditional` turn a network into the fields that the rest of the package works with.

The architecture here is a residual perceptron, which suffices for the plane and for images of 8×8
pixels; `images` has one with convolutions.
"""

from math import pi

import torch
from jaxtyping import Float, Int
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
        linear = lambda m, n: filled(nn.Linear, m, n, generator=generator)
        self.register_buffer("frequencies", frequencies(), persistent=False)
        self.time = linear(2 * len(self.frequencies), width)
        self.label = embedding(classes + 1, width, generator) if classes else None
        self.enter = linear(dim, width)
        self.shifts = nn.ModuleList(linear(width, width) for _ in range(depth))
        self.layers = nn.ModuleList(linear(width, width) for _ in range(depth))
        self.leave = linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def architecture(self) -> dict[str, str | int]:
        """What `checkpoints.build` needs to make this network again."""
        sizes = {"dim": self.dim, "width": self.width, "depth": self.depth}
        return {"name": "MLP"} | sizes | {"classes": self.classes}

    def forward(self, t: Time, x: Points, y: Labels | None = None) -> Points:
        """The field at (t, x), given the classes y; without y, given "no class".

        Raises ValueError for states of another dimension, for labels of a network that has no
        classes, and for times or labels that are not one per state.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"states are (n, {self.dim}), got {tuple(x.shape)}.")
        labels = check_labels(self, x, y)
        about = self.time(waves(t, x, self.frequencies))
        about = silu(about if labels is None else about + self.label(labels))
        h = self.enter(x)
        for shift, layer in zip(self.shifts, self.layers):
            h = h + layer(silu(h + shift(about)))
        return self.leave(silu(h))


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


def check_labels(net: nn.Module, x: Points, y: Labels | None) -> Int[Tensor, "m"] | None:
    """The labels that `net` looks up: y, "no class" for all if there is no y, none without classes.

    Raises ValueError for labels of a network without classes, and unless there is one int64 label
    for each state.
    """
    if not net.classes:
        if y is not None:
            raise ValueError("this network was built with classes=0, got labels; leave them out.")
        return None
    if y is None:
        return torch.full((1,), net.classes, device=x.device)
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"labels are int64, one for each of {len(x)} states, got {tuple(y.shape)} {y.dtype}."
        )
    return y


def frequencies() -> Float[Tensor, "f"]:
    r"""$\omega_k = \frac\pi2\,2^{k/2}$ for k = 0 … 15."""
    return 0.5 * pi * 2 ** (torch.arange(16, dtype=torch.float32) / 2)


def waves(t: Time, x: Points, omega: Float[Tensor, "f"]) -> Float[Tensor, "m g"]:
    r"""$\cos\omega_kt$ and $\sin\omega_kt$, a row for each time, with the dtype and device of x.

    Raises ValueError unless there is one time for all states or one for each.
    """
    if t.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"times are one for all states, of shape (), or one for each of {len(x)}, "
            f"got {tuple(t.shape)}."
        )
    phase = t.to(x).reshape(-1, 1) * omega
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def filled(kind: type[nn.Module], *sizes: int, generator: torch.Generator, **shape: int):
    """A layer with PyTorch's own default law, drawn from a generator instead of the global one."""
    layer = skip_init(kind, *sizes, **shape)
    bound = layer.weight[0].numel() ** -0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def embedding(count: int, width: int, generator: torch.Generator) -> nn.Embedding:
    """A table of standard normal vectors, one for each label."""
    table = skip_init(nn.Embedding, count, width)
    nn.init.normal_(table.weight, std=1.0, generator=generator)
    return table
