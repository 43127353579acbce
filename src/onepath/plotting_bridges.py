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


def pairs_on_plan(
    grid: Float[Tensor, "g"],
    plan: Float[Tensor, "g g"],
    last: Float[Tensor, "g"],
    panels: dict[str, Float[Tensor, "n 2"]],
    wrong: tuple[str, ...] = (),
) -> Figure:
    """Pairs of ends on the line over the density of a plan in grey, each panel with the histogram
    of its second ends.

    Args:
        plan: a density of (start, end); starts are rows.
        last: the density of the ends, a black line at every histogram.
        panels: pairs (start, end), row by row, by panel title.
        wrong: titles of the panels that show a deliberate mistake.
    """
    rows, low, high = -(-len(panels) // 2), grid[0].item(), grid[-1].item()
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, 4, figsize=(6.6, 2.5 * rows + 0.2), sharey=True, width_ratios=[3, 1] * 2
        )
        for (title, pairs), ax, side in zip(panels.items(), axes.flat[::2], axes.flat[1::2]):
            colour = WRONG if title in wrong else COMPUTED
            ax.pcolormesh(grid, grid, plan.T.sqrt(), cmap="Greys", rasterized=True)
            ax.scatter(*pairs.T, s=1.5, color=colour, alpha=0.6, lw=0, rasterized=True)
            ax.set(title=title, xlim=(low, high), ylim=(low, high))
            bars = {"range": (low, high), "density": True, "orientation": "horizontal"}
            side.hist(pairs[:, 1].numpy(), bins=60, color=colour, alpha=0.5, **bars)
            side.plot(last, grid, color=EXACT, lw=1)
            side.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("end $x_1$")
        for ax in axes[-1, ::2]:
            ax.set_xlabel("start $x_0$")
    return fig


def two_fittings(
    by_pairs: tuple[list[float], list[float]], by_paths: tuple[list[float], list[float]]
) -> Figure:
    """Exact iterates as black lines and learned ones as dots: covariances of Markovian fitting from
    step 0 on, and relative deviations of proportional fitting from step 1 on."""
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(6.6, 2.6))
        names = ("covariance of the pairs", "deviation over the right one")
        for first, (ax, (exact, learned), name) in enumerate(
            zip(axes, (by_pairs, by_paths), names)
        ):
            steps = range(first, first + len(exact))
            ax.plot(steps, exact, color=EXACT, lw=2, label="exact")
            ax.plot(steps, learned, "o", color=COMPUTED, ms=4, label="learned")
            ax.set(xlabel="step", ylabel=name, xticks=list(steps))
        axes[0].legend()
    return fig


def translations(
    rows: dict[str, Float[Tensor, "n d"]], shape: tuple[int, int], wrong: tuple[str, ...] = ()
) -> Figure:
    """Images in rows that share their columns, the originals on top; ink is dark, -1 is white.

    Args:
        wrong: titles of the rows that show a deliberate mistake.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(len(rows), 1, figsize=(5.2, 0.72 * len(rows)), squeeze=False)
        for (title, x), ax in zip(rows.items(), axes[:, 0]):
            line = x.reshape(-1, *shape).transpose(0, 1).flatten(1)
            ax.imshow(line, cmap="Greys", vmin=-1, vmax=1)
            ax.set_title(title, loc="left", color=WRONG if title in wrong else EXACT, pad=2)
            ax.set_axis_off()
    return fig
