"""Figures of sampling: errors against calls, and where the steps of a grid lie."""

import matplotlib.pyplot as plt
from jaxtyping import Bool, Float
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
            ax.annotate(f"order {order}", (calls[-1], slope[-1]), fontsize=7, ha="right")
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
    first: Bool[Tensor, "r c"],
    names: tuple[str, str],
    label: str,
) -> Figure:
    """A table of numbers, each on the colour of the one of two errors that is the larger there.

    Args:
        first: whether it is the first of the two `names`, blue; green otherwise.
        label: what the columns count.
    """
    inks = (COMPUTED, OTHERS[0])
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 0.32 * len(rows) + 0.9))
        for i, line in enumerate(values.tolist()):
            for j, value in enumerate(line):
                ink = inks[0] if first[i, j] else inks[1]
                ax.add_patch(plt.Rectangle((j + 0.02, i + 0.04), 0.96, 0.92, color=ink))
                shown = f"{float(f'{value:.2g}'):g}"
                ax.text(j + 0.5, i + 0.5, shown, ha="center", va="center", color="white")
        ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel=label)
        ax.set_xticks([j + 0.5 for j in range(len(columns))], columns)
        ax.set_yticks([i + 0.5 for i in range(len(rows))], rows)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        marks = [plt.Rectangle((0, 0), 1, 1, color=ink) for ink in inks]
        fig.legend(marks, names, loc="outside lower center", ncols=2, title="the larger error")
    return fig
