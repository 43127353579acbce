"""Figures over time: particles in one dimension, from the base on the left to the target."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, OTHERS, STYLE, WRONG


def paths_over_density(
    times: Float[Tensor, "m"],
    grid: Float[Tensor, "g"],
    density: Float[Tensor, "m g"],
    panels: dict[str, Float[Tensor, "m n"]],
    wrong: tuple[str, ...] = (),
    shown: int = 24,
) -> Figure:
    """Trajectories in one dimension over the exact density, the last histogram beside them.

    Args:
        panels: one set of trajectories per panel, by panel title.
        wrong: titles of the panels that show a deliberate mistake.
        shown: trajectories drawn; the histogram counts all.
    """
    low, high = grid[0].item(), grid[-1].item()
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, 2 * len(panels), figsize=(7, 2.3), sharey=True, width_ratios=[4, 1.2] * len(panels)
        )
        for (title, x), ax, side in zip(panels.items(), axes[::2], axes[1::2]):
            colour = WRONG if title in wrong else COMPUTED
            ax.pcolormesh(times, grid, density.T.sqrt(), cmap="Greys", vmax=1.2, rasterized=True)
            ax.plot(times, x[:, :shown], color=colour, alpha=0.7, lw=0.6)
            ax.set(title=title, xlabel="time $t$", xlim=(0, 1), ylim=(low, high))
            bars = {"range": (low, high), "density": True, "orientation": "horizontal"}
            side.hist(x[-1].numpy(), bins=60, color=colour, alpha=0.5, **bars)
            side.plot(density[-1], grid, color=EXACT, lw=1)
            side.set_axis_off()
        axes[0].set_ylabel("state $x$")
    return fig


@dataclass(frozen=True)
class Clock:
    """One panel of `clocks`: a clock, the states seen in it, and the exact density on a grid of
    both."""

    times: Float[Tensor, "m"]
    states: Float[Tensor, "m n"]
    grid: Float[Tensor, "g"]
    density: Float[Tensor, "m g"]
    label: str
    wrong: bool = False


def clocks(panels: dict[str, Clock]) -> Figure:
    """The same particles in several clocks, three panels to a row; each panel has its own axes.

    In every panel generation runs from left to right, so a clock that counts down has its large
    numbers on the left. The density is scaled to its largest value at each time.
    """
    rows = -(-len(panels) // 3)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, 3, figsize=(7, 2.1 * rows))
        for (title, p), ax in zip(panels.items(), axes.flat):
            shade = p.density / p.density.amax(1, keepdim=True)
            ax.pcolormesh(p.times, p.grid, shade.T, cmap="Greys", vmax=1.6, rasterized=True)
            ax.plot(p.times, p.states, color=WRONG if p.wrong else COMPUTED, lw=0.8)
            first, last = p.times[0].item(), p.times[-1].item()
            low, high = p.grid[0].item(), p.grid[-1].item()
            ax.set(title=title, xlabel=p.label, xlim=(first, last), ylim=(low, high))
        for row in axes.reshape(rows, 3):
            row[0].set_ylabel("state")
    return fig


def curves_over_time(
    times: Float[Tensor, "m"],
    panels: dict[str, dict[str, Float[Tensor, "m"]]],
    log: tuple[str, ...] = (),
    columns: int = 2,
) -> Figure:
    """Several quantities over one time axis, a panel each; a name has one colour in all panels.

    Args:
        panels: curves by name, by panel title; values that are not finite leave a gap.
        log: titles of the panels with a logarithmic vertical axis.
        columns: panels side by side.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    inks = [EXACT, COMPUTED, *OTHERS]
    line = {n: {"color": inks[k % 6], "ls": ("-", "--")[k // 6]} for k, n in enumerate(names)}
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, columns, figsize=(6.2, 1.9 * rows + 0.5), sharex=True, squeeze=False
        )
        for (title, panel), ax in zip(panels.items(), axes.flat):
            for name, y in panel.items():
                ax.plot(times, y, label=name, **line[name])
            ax.set(title=title, yscale="log" if title in log else "linear")
        for ax in axes[-1]:
            ax.set_xlabel("time $t$")
        shown = {h.get_label(): h for ax in axes.flat for h in ax.get_lines()}
        fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return fig
