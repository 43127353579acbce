r"""A network for images: convolutions at two resolutions, told the time and the class.

A convolution knows what a perceptron has to learn: that neighbouring pixels belong together, and
that a stroke is a stroke wherever it lies. The network is made for a CPU. Pixels are folded 2×2
into channels before the first layer and unfolded after the last, so nothing is computed at full
resolution; one residual block looks at half of it on the way in and one on the way out, and most
of the weights work at a quarter, where an image has a sixteenth of its pixels. Time and class scale
and shift the channels of every block. The state stays a point of $\mathbb R^d$: images exist inside
`forward` only. Attention is not covered.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from .networks import Labels, check_labels, embedding, filled, frequencies, waves
from .shapes import Points, Time

GROUPS = 8  # channels are normalised in so many groups


class UNet(nn.Module):
    r"""A small residual U-Net on images whose sides are multiples of four.

    A block is $h \mapsto h + C_2\,\mathrm{silu}\,C_1\,\mathrm{silu}\big((1+a)\,\mathrm{norm}(h) +
    b\big)$ with 3×3 convolutions $C_i$, and a, b linear in the embedding of time and class, of
    which 1 + a starts near 1. The last layer starts at zero, so that a new network is the field 0.

    Args:
        height, width: of an image; a state has height × width coordinates, row by row.
        channels: at half resolution, a multiple of 8; twice as many at a quarter.
        depth: number of blocks at a quarter of the resolution.
        classes: number of class labels, 0 for a network without; label `classes` is "no class".
        generator: draws the initial weights; on the CPU.

    Raises ValueError for sizes that do not fit.

    Source: Ronneberger, Fischer and Brox (2015), U-Net; Ho et al. (2020) for time in its blocks.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        depth: int,
        classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = (height, width, channels, depth)
        if min(sizes) < 1 or height % 4 or width % 4 or channels % GROUPS or classes < 0:
            raise ValueError(
                "a U-Net has sides that are multiples of 4, channels a multiple of 8, depth of at "
                f"least 1 and classes of at least 0, got {sizes} and {classes}; pad the images."
            )
        self.height, self.width, self.channels = height, width, channels
        self.depth, self.classes, self.dim = depth, classes, height * width
        self.register_buffer("frequencies", frequencies(), persistent=False)
        about = 2 * channels
        self.time = filled(nn.Linear, 2 * len(self.frequencies), about, generator=generator)
        self.label = embedding(classes + 1, about, generator) if classes else None
        self.enter = _convolution(4, channels, generator)
        self.inwards = _Block(channels, about, generator)
        self.down = _convolution(channels, 2 * channels, generator, stride=2)
        self.middle = nn.ModuleList(_Block(2 * channels, about, generator) for _ in range(depth))
        self.up = filled(nn.Conv2d, 2 * channels, 4 * channels, 1, generator=generator)
        self.outwards = _Block(channels, about, generator)
        self.leave = _convolution(channels, 4, generator)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.to(memory_format=torch.channels_last)

    @property
    def architecture(self) -> dict[str, str | int]:
        """What `checkpoints.build` needs to make this network again."""
        sizes = {"height": self.height, "width": self.width, "channels": self.channels}
        return {"name": "UNet"} | sizes | {"depth": self.depth, "classes": self.classes}

    def forward(self, t: Time, x: Points, y: Labels | None = None) -> Points:
        """The field at (t, x), given the classes y; without y, given "no class".

        Raises ValueError for states of another size than the images, for labels of a network that
        has no classes, and for times or labels that are not one per state.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"states are (n, {self.dim}), images of {self.height}×{self.width} pixels row by "
                f"row, got {tuple(x.shape)}."
            )
        labels = check_labels(self, x, y)
        if len(x) == 0:  # which PyTorch cannot fold
            return x
        about = self.time(waves(t, x, self.frequencies))
        about = silu(about if labels is None else about + self.label(labels))
        h = _last(pixel_unshuffle(x.reshape(len(x), 1, self.height, self.width), 2))
        kept = self.inwards(self.enter(h), about)
        h = self.down(kept)
        for block in self.middle:
            h = block(h, about)
        h = self.outwards(kept + _last(pixel_shuffle(self.up(h), 2)), about)
        return pixel_shuffle(self.leave(silu(h)), 2).reshape(x.shape)


class _Block(nn.Module):
    def __init__(self, channels: int, about: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, affine=False)
        self.scale_and_shift = filled(nn.Linear, about, 2 * channels, generator=generator)
        self.first = _convolution(channels, channels, generator)
        self.second = _convolution(channels, channels, generator)

    def forward(self, h: Tensor, about: Tensor) -> Tensor:
        a, b = self.scale_and_shift(about)[:, :, None, None].chunk(2, dim=1)
        return h + self.second(silu(self.first(silu((1 + a) * self.norm(h) + b))))


def _convolution(inputs: int, outputs: int, generator: torch.Generator, stride: int = 1):
    return filled(nn.Conv2d, inputs, outputs, 3, stride=stride, padding=1, generator=generator)


def _last(h: Tensor) -> Tensor:
    """The same images with their channels side by side in memory, as convolutions like it."""
    return h.contiguous(memory_format=torch.channels_last)
