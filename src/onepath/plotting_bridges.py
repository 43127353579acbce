"""Figures of bridges: one pair of laws, several paths of densities between them."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, STYLE, WRONG


@dataclass(frozen=True)
class Way:
    """One panel of `ways`: particles, and the density that they should have at the same times."""

    states: Float[Tensor, "m n"]
    density: Float[Tensor, "m g"]
    wrong: bool = False


def ways(
    times: Float[Tensor, "m"],
    grid: Float[Tensor, "g"],
    last: Float[Tensor, "g"],
    panels: dict[str, Way],
    shown: int = 24,
) -> Figure:
    """Particles in one dimension over a density that differs from panel to panel, two to a row,
    each with the histogram of its last states and the law that all of them should end in.

    Args:
        last: the density at the last time, a black line at every histogram.
        shown: trajectories drawn; the histogram counts all.
    """
    rows, low, high = -(-len(panels) // 2), grid[0].item(), grid[-1].item()
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, 4, figsize=(6.6, 2.1 * rows + 0.2), sharey=True, width_ratios=[4, 1.2] * 2
        )
        for (title, way), ax, side in zip(panels.items(), axes.flat[::2], axes.flat[1::2]):
            colour = WRONG if way.wrong else COMPUTED
            shade = way.density.T.sqrt()
            ax.pcolormesh(times, grid, shade, cmap="Greys", vmax=1.2, rasterized=True)
            ax.plot(times, way.states[:, :shown], color=colour, alpha=0.7, lw=0.6)
            ax.set(title=title, xlim=(0, 1), ylim=(low, high))
            bars = {"range": (low, high), "density": True, "orientation": "horizontal"}
            side.hist(way.states[-1].numpy(), bins=60, color=colour, alpha=0.5, **bars)
            side.plot(last, grid, color=EXACT, lw=1)
            side.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("state $x$")
        for ax in axes[-1, ::2]:
            ax.set_xlabel("time $t$")
    return fig
