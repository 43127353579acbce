"""Figures of sampling: errors against calls, where the steps of a grid lie, and tilted laws."""

import matplotlib.pyplot as plt
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, OTHERS, STYLE, WRONG


def orders(
    calls: list[int], errors: dict[str, list[float]], wrong: dict[str, list[float]] | None = None
) -> Figure:
    """Errors against the number of calls on logarithmic axes, over dashed lines of slope 1, 2, 3.

    Args:
        wrong: errors of deliberate mistakes.
    """
    worst = max(max(e) for e in errors.values())
    least = min(min(e) for e in errors.values())
    inks, marks = (COMPUTED, *OTHERS, "#999999", "#555555"), "osD^vP*"
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 3.6))
        for order in (1, 2, 3):
            slope = [1.5 * worst * (n / calls[0]) ** -order for n in calls]
            ax.plot(calls, slope, color=EXACT, ls=":", lw=0.8)
            at = {"xytext": (6, -2), "textcoords": "offset points", "annotation_clip": False}
            ax.annotate(f"order {order}", (calls[-1], slope[-1]), fontsize=7, **at)
        for k, (name, e) in enumerate(errors.items()):
            ax.plot(calls, e, color=inks[k % 7], marker=marks[k % 7], ms=3.5, lw=0.9, label=name)
        for k, (name, e) in enumerate((wrong or {}).items()):
            ax.plot(calls, e, color=WRONG, ls=("--", "-.")[k % 2], marker="x", ms=4, label=name)
        ax.set(xscale="log", yscale="log", xlabel="calls", ylabel="error", ylim=(least / 3, None))
        ax.set_xticks(calls, [str(n) for n in calls])
        ax.minorticks_off()
        fig.legend(loc="outside lower center", ncols=3)
    return fig


def rugs(
    grids: dict[str, Float[Tensor, "m"]], label: str, shares: dict[str, Float[Tensor, "m"]]
) -> Figure:
    """Where the steps of several grids lie on one axis, a row of ticks for each grid; below, what
    each step of a grid contributes.

    Args:
        grids: places by name.
        label: name of the axis.
        shares: contributions of the steps of some grids, by name, one fewer than places.
    """
    inks = dict(zip(grids, (COMPUTED, *OTHERS, EXACT)))
    with plt.rc_context(STYLE):
        fig, (top, below) = plt.subplots(
            2, 1, figsize=(5.4, 3.6), sharex=True, height_ratios=(1, 1.6)
        )
        for row, (name, places) in enumerate(grids.items()):
            at = places[places.isfinite()]
            top.plot(at, [-row] * len(at), "|", color=inks[name], ms=9, mew=1.4)
        top.set_yticks([-k for k in range(len(grids))], list(grids))
        top.set_ylim(0.6 - len(grids), 0.6)
        top.tick_params(axis="y", length=0)
        for name, share in shares.items():
            middles = 0.5 * (grids[name][1:] + grids[name][:-1])
            below.plot(middles, share, color=inks[name], marker="o", ms=3, lw=0.9, label=name)
        below.set(yscale="log", xlabel=label, ylabel="error of a step")
    return fig


def which_is_larger(
    rows: list[str],
    columns: list[str],
    values: Float[Tensor, "r c"],
    which: Int[Tensor, "r c"],
    names: tuple[str, ...],
    label: str,
) -> Figure:
    """A table of numbers, each on the colour of the error that is the largest there.

    Args:
        which: its index among the `names`, four at most; the first is blue, the second green.
        label: what the columns count.
    """
    inks = (COMPUTED, *OTHERS)[: len(names)]
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 0.32 * len(rows) + 0.9))
        for i, line in enumerate(values.tolist()):
            for j, value in enumerate(line):
                ink, text = inks[which[i, j]], "white" if which[i, j] < 2 else "black"
                ax.add_patch(plt.Rectangle((j + 0.02, i + 0.04), 0.96, 0.92, color=ink))
                shown = f"{float(f'{value:.2g}'):g}"
                ax.text(j + 0.5, i + 0.5, shown, ha="center", va="center", color=text)
        ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel=label)
        ax.set_xticks([j + 0.5 for j in range(len(columns))], columns)
        ax.set_yticks([i + 0.5 for i in range(len(rows))], rows)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        marks = [plt.Rectangle((0, 0), 1, 1, color=ink) for ink in inks]
        place = {"loc": "outside lower center", "ncols": len(names)}
        fig.legend(marks, names, title="the largest error", **place)
    return fig


def laws(
    panels: dict[str, dict[str, tuple[Float[Tensor, "m"], Float[Tensor, "m"]]]],
    clouds: dict[str, tuple[Float[Tensor, "n"], Float[Tensor, "n"]]],
    wrong: tuple[str, ...] = (),
    limits: tuple[float, float] = (-4.0, 4.0),
) -> Figure:
    """Densities on the line, panels side by side, over histograms of weighted particles.

    Args:
        panels: (places, values) by name, by title of the panel; the first name is black.
        clouds: places and weights of particles, by title of the panel.
        wrong: names of the densities that are a mistake, vermilion and dashed.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    right = [name for name in names if name not in wrong]
    ink = dict(zip(right, (EXACT, COMPUTED, *OTHERS))) | {name: WRONG for name in wrong}
    styles = dict(zip(wrong, ("--", ":", "-.")))
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(7, 2.6), sharex=True, sharey=True, squeeze=False
        )
        for (title, panel), ax in zip(panels.items(), axes[0]):
            if title in clouds:
                x, weights = clouds[title]
                share = weights / weights.sum() * 50 / (limits[1] - limits[0])
                ax.hist(x, bins=50, range=limits, weights=share, color=COMPUTED, alpha=0.5)
            for name, (x, y) in panel.items():
                ax.plot(x, y, color=ink[name], ls=styles.get(name, "-"), label=name)
            ax.set(title=title, xlim=limits, xlabel="state $x$", yticks=[])
            ax.spines["left"].set_visible(False)
        shown = {h.get_label(): h for ax in axes.flat for h in ax.get_lines()}
        fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return fig


def scatter(
    panels: dict[str, Float[Tensor, "n 2"]],
    exact: Float[Tensor, "m 2"],
    wrong: tuple[str, ...] = (),
) -> Figure:
    """Points of the plane, panels side by side, over a grey sample of the law that is meant.

    Args:
        wrong: titles of the panels that show a deliberate mistake.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(7, 2.6), sharex=True, sharey=True, squeeze=False
        )
        for (title, x), ax in zip(panels.items(), axes[0]):
            ax.plot(*exact.T, ".", color="#BBBBBB", ms=3)
            ax.plot(*x.T, ".", color=WRONG if title in wrong else COMPUTED, ms=1.5)
            ax.set(title=title, xlabel="$x_1$")
            ax.set_aspect("equal")
        axes[0, 0].set_ylabel("$x_2$")
    return fig
