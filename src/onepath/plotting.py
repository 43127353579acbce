"""Figures of the book: curves, histograms, clouds, tables of verdicts and sheets of images.

One function per kind of figure, here and in the two modules that follow; each takes computed arrays
and returns a Figure, so that a cell shows the experiment and hides the drawing. No other module
imports matplotlib. Black is exact, blue computed, vermilion a mistake
(Okabe–Ito, which colour-blind readers can tell apart); every panel of a figure shares its axes.
"""

import io
import math

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

EXACT, COMPUTED, WRONG = "#222222", "#0072B2", "#D55E00"
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "figure.dpi": 160,
}


# Activate the backend here: activated inside the first rc_context, its interactive mode would be
# undone with the style, and a notebook would show no figure after the first.
plt.switch_backend(plt.get_backend())


def curves(
    x: Float[Tensor, "m"],
    exact: dict[str, Float[Tensor, "m"]],
    computed: dict[str, Float[Tensor, "m"]],
    wrong: dict[str, Float[Tensor, "m"]] | None = None,
    labels: tuple[str, str] = ("", ""),
    log: str = "",
) -> Figure:
    """Curves over one axis: exact ones black lines, computed ones joined dots, mistakes dashed.

    Args:
        labels: names of the two axes.
        log: the axes with a logarithmic scale, any of "", "x", "y", "xy".
    """
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.2))
        for k, (name, y) in enumerate(exact.items()):
            # wide, so that it is seen on both sides of a computed line that lies on it
            ax.plot(x, y, color=EXACT, ls=("-", "--", ":")[k % 3], lw=2.6, label=name)
        for k, (name, y) in enumerate(computed.items()):
            colour = (COMPUTED, *OTHERS)[k % 5]
            ax.plot(x, y, color=colour, marker="o", ms=3.5, lw=0.8, label=name)
        for name, y in (wrong or {}).items():
            ax.plot(x, y, color=WRONG, ls="--", marker="x", ms=4, lw=0.8, label=name)
        if "x" in log:
            ax.set_xscale("log")
            ax.set_xticks(x.tolist(), [f"{value:g}" for value in x.tolist()])
            ax.minorticks_off()
        if "y" in log:
            ax.set_yscale("log")
        ax.set(xlabel=labels[0], ylabel=labels[1])
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def histograms(
    grid: Float[Tensor, "g"],
    density: Float[Tensor, "g"],
    panels: dict[str, Float[Tensor, "n"]],
    wrong: tuple[str, ...] = (),
    columns: int = 4,
    label: str = "state $x$",
) -> Figure:
    """One histogram per panel, over the exact density that all panels share.

    Args:
        panels: samples by panel title, one dimension; those outside the grid are not drawn.
        wrong: titles of the panels that show a deliberate mistake.
        columns: panels side by side.
        label: name of the horizontal axis.
    """
    rows = math.ceil(len(panels) / columns)
    low, high = grid[0].item(), grid[-1].item()
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, columns, figsize=(5.4, 1.35 * rows + 0.3), sharex=True, sharey=True, squeeze=False
        )
        for (title, x), ax in zip(panels.items(), axes.flat):
            colour = WRONG if title in wrong else COMPUTED
            inside = x[(x >= low) & (x <= high)].numpy()
            share = [1 / len(x) * 60 / (high - low)] * len(inside)
            ax.hist(inside, bins=60, range=(low, high), weights=share, color=colour, alpha=0.55)
            ax.plot(grid, density, color=EXACT, lw=1)
            ax.set(title=title, xlim=(low, high), yticks=[])
            ax.spines["left"].set_visible(False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        fig.supxlabel(label, fontsize=STYLE["font.size"])
    return fig


def caught(
    rows: list[str],
    columns: list[str],
    verdicts: list[list[bool | None]],
    notes: list[list[str]],
) -> Figure:
    """A table in colours: which test (column) catches which mistake (row).

    Args:
        verdicts: True for caught (blue), False for missed (vermilion), None where there is nothing
            to catch (grey).
        notes: what stands under the verdict in each cell, a measured value or nothing.
    """
    words = {True: "caught", False: "missed", None: "passes"}
    colours = {True: COMPUTED, False: WRONG, None: "#DDDDDD"}
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 0.42 * len(rows) + 0.4))
        for i, (line, texts) in enumerate(zip(verdicts, notes)):
            for j, (verdict, note) in enumerate(zip(line, texts)):
                box = plt.Rectangle((j + 0.03, i + 0.05), 0.94, 0.9, color=colours[verdict])
                ax.add_patch(box)
                text = f"{words[verdict]}  {note}" if note else words[verdict]
                ink = EXACT if verdict is None else "white"
                ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink)
        ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
        ax.set_xticks([j + 0.5 for j in range(len(columns))], columns)
        ax.set_yticks([i + 0.5 for i in range(len(rows))], rows)
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return fig


def clouds(
    groups: dict[str, tuple[Float[Tensor, "n"], Float[Tensor, "n"]]],
    lines: dict[str, tuple[Float[Tensor, "m"], Float[Tensor, "m"]]],
    wrong: tuple[str, ...] = (),
    labels: tuple[str, str] = ("", ""),
    level: float | None = None,
) -> Figure:
    """Clouds of points on two logarithmic axes, with black lines that they should keep below.

    Args:
        groups: (horizontal, vertical) values by name; zeros are not drawn.
        lines: (horizontal, vertical) values by name.
        wrong: names of the groups that show a deliberate mistake.
        level: a horizontal line across the figure, the bound of a check.
    """
    markers = iter("os^D")
    shades = iter((COMPUTED, *OTHERS))
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 3.4))
        for name, (x, y) in groups.items():
            colour, marker = (WRONG, "x") if name in wrong else (next(shades), next(markers))
            seen = y > 0
            ax.scatter(x[seen], y[seen], s=9, color=colour, marker=marker, lw=0.8, label=name)
        for k, (name, (x, y)) in enumerate(lines.items()):
            ax.plot(x, y, color=EXACT, ls=("-", "--", ":")[k % 3], lw=1, label=name)
        if level is not None:
            ax.axhline(level, color=EXACT, lw=0.8, ls="-.", label=f"bound {level:g}")
        ax.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def pictures(
    panels: dict[str, Float[Tensor, "n d"]], shape: tuple[int, int], wrong: tuple[str, ...] = ()
) -> Figure:
    """Sheets of images, ten to a line and two sheets side by side; ink is dark, -1 is white.

    Args:
        wrong: titles of the sheets that show a deliberate mistake.
    """
    rows, lines = -(-len(panels) // 2), max(len(x) // 10 for x in panels.values())
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, 2, figsize=(7, rows * (0.35 * lines + 0.3)), squeeze=False)
        for (title, x), ax in zip(panels.items(), axes.flat):
            cells = pad(x.reshape(-1, 10, *shape), (0, 1, 0, 1), value=-1.0)
            ax.imshow(cells.transpose(1, 2).flatten(2).flatten(0, 1), cmap="Greys", vmin=-1, vmax=1)
            ax.set_title(title, color=WRONG if title in wrong else EXACT)
            ax.set_axis_off()
    return fig


def readings(
    exact: tuple[Float[Tensor, "g"], Float[Tensor, "g"]],
    computed: dict[str, tuple[Float[Tensor, "n"], Float[Tensor, "n"]]],
    wrong: dict[str, tuple[Float[Tensor, "m"], Float[Tensor, "m"]]],
    labels: tuple[str, str] = ("", ""),
) -> Figure:
    """One function of the line, exact, and what was read off at places of their own.

    Args:
        exact: (place, value), a black line.
        computed: (places, values) by name, dots.
        wrong: (places, values) by name, vermilion lines of deliberate mistakes.
    """
    low, high = exact[0][0].item(), exact[0][-1].item()
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 3.2))
        for k, (name, (x, y)) in enumerate(wrong.items()):
            ax.plot(x, y, color=WRONG, ls=("--", ":", "-.")[k % 3], lw=1, label=name)
        ax.plot(*exact, color=EXACT, label="exact")
        for k, (name, (x, y)) in enumerate(computed.items()):
            ax.plot(x, y, "o", color=(COMPUTED, *OTHERS)[k % 5], ms=3, label=name)
        ax.set(xlim=(low, high), ylim=(0, None), xlabel=labels[0], ylabel=labels[1])
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def png(figure: Figure, colours: int = 64) -> bytes:
    """The picture of a figure as a small PNG with a palette, for `frames`; closes the figure."""
    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png")
    plt.close(figure)
    flat = Image.open(raw).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    flat.save(small, format="png", optimize=True)
    return small.getvalue()
