"""Figures of prices: what an error does, where it is dear, and what makes up a bill."""

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, OTHERS, STYLE, WRONG


def effects(
    x: Float[Tensor, "m"],
    told: dict[str, dict[str, Float[Tensor, "m"]]],
    tried: Float[Tensor, "k"],
    found: dict[str, dict[str, Float[Tensor, "k"]]],
    labels: tuple[str, str],
    wrong: dict[str, float],
) -> Figure:
    """Panels side by side: predicted lines, on them what experiments found, and a level line that
    is a mistake.

    Args:
        told, found: lines and dots by name, by title of the panel.
        tried: where the experiments were made.
        labels: names of the two axes.
        wrong: the height of the level line, by title; its name is the last word of the legend.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, len(told), figsize=(6.4, 2.9), sharex=True)
        for (title, lines), ax in zip(told.items(), axes):
            for (name, y), ink in zip(lines.items(), (COMPUTED, OTHERS[0])):
                ax.plot(x, y, color=ink, lw=1, label=name)
                ax.plot(tried, found[title][name], "o", color=ink, ms=4)
            ax.axhline(wrong[title], color=WRONG, ls="--", lw=1, label="if the loss decided")
            ax.set(title=title, xlabel=labels[0], ylim=(0, None))
        axes[0].set_ylabel(labels[1])
        shown = {h.get_label(): h for h in axes[0].get_lines() if h.get_label()[0] != "_"}
        fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
    return fig


def price_maps(
    times: Float[Tensor, "m"],
    places: Float[Tensor, "g"],
    panels: dict[str, Float[Tensor, "m g"]],
    density: Float[Tensor, "m g"],
    limits: tuple[float, float],
    columns: int = 2,
) -> Figure:
    """Sizes over time and place in grey, logarithmic and the same in all panels, and the lines of
    equal density that enclose the bulk of the law.

    Args:
        limits: sizes that are white and black.
    """
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, columns, figsize=(6.4, 2.0 * rows + 0.4), sharex=True, sharey=True
        )
        norm = LogNorm(*limits, clip=True)
        for (title, sizes), ax in zip(panels.items(), axes.flat):
            shade = sizes.T.clamp(min=limits[0])
            mesh = ax.pcolormesh(times, places, shade, cmap="Greys", norm=norm, rasterized=True)
            ax.contour(times, places, density.T, levels=[0.02], colors=[COMPUTED], linewidths=0.8)
            ax.set(title=title)
        for ax in axes[-1]:
            ax.set_xlabel("time $t$")
        for ax in axes[:, 0]:
            ax.set_ylabel("state $x$")
        fig.colorbar(mesh, ax=axes, label="price", shrink=0.8)
    return fig


def bills(panels: dict[str, dict[str, dict[str, float]]], label: str, columns: int = 2) -> Figure:
    """Signed shares of an error as stacked bars, a bar for each method, panels side by side; a
    tick in black is their sum.

    Args:
        panels: shares by cause, by method, by title of the panel.
        label: name of the axis of shares.
    """
    rows = -(-len(panels) // columns)
    methods = list(next(iter(panels.values())))
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows,
            columns,
            figsize=(6.8, (0.24 * len(methods) + 0.6) * rows + 0.4),
            sharey=True,
            squeeze=False,
        )
        for (title, bars), ax in zip(panels.items(), axes.flat):
            for row, shares in enumerate(bars.values()):
                ends = {True: 0.0, False: 0.0}
                for (cause, value), ink in zip(shares.items(), (COMPUTED, *OTHERS)):
                    name = cause if row == 0 else None
                    ax.barh(row, value, left=ends[value > 0], color=ink, height=0.62, label=name)
                    ends[value > 0] += value
                total = sum(shares.values())
                ax.plot([total, total], [row - 0.42, row + 0.42], color=EXACT, lw=1.6)
            ax.axvline(0, color=EXACT, lw=0.6)
            ax.set(title=title, xlabel=label)
            ax.set_yticks(range(len(methods)), methods)
        axes[0, 0].invert_yaxis()
        marks, names = axes[0, 0].get_legend_handles_labels()
        fig.legend(marks, names, loc="outside lower center", ncols=4)
    return fig
