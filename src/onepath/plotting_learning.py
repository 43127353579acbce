"""Figures of learning: losses, errors, weights of times, and what a budget of calls buys."""

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, OTHERS, STYLE, WRONG


def lines_through(
    point: tuple[float, float],
    lines: tuple[Float[Tensor, "m"], Float[Tensor, "m"]],
    through: tuple[Float[Tensor, "n"], Float[Tensor, "n"]],
    exact: dict[str, float],
    wrong: dict[str, float],
    shown: int = 60,
) -> Figure:
    """Straight lines between pairs of ends over time, and slopes at one point that some of them
    pass.

    Args:
        point: time and state of that point.
        lines: starts and ends of pairs, drawn in grey.
        through: starts and ends of the pairs that pass the point; `shown` of them are drawn.
        exact, wrong: slopes by name, drawn through the point.
    """
    t, x = point
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.4))
        ax.plot([0, 1], [lines[0].tolist(), lines[1].tolist()], color="#BBBBBB", lw=0.5)
        near = [end[:shown].tolist() for end in through]
        ax.plot([0, 1], near, color=COMPUTED, lw=0.5, alpha=0.6)
        span = [max(0.0, t - 0.3), min(1.0, t + 0.3)]
        for slopes, colour, style in ((exact, EXACT, "-"), (wrong, WRONG, "--")):
            for name, slope in slopes.items():
                heights = [x + slope * (s - t) for s in span]
                ax.plot(span, heights, color=colour, ls=style, lw=2.2, label=name, zorder=3)
        ax.plot(t, x, "o", color=EXACT, ms=6, zorder=4)
        ax.set(xlabel="time $t$", ylabel="state $x$", xlim=(0, 1))
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def profiles(
    x: Float[Tensor, "m"],
    panels: dict[str, dict[str, Float[Tensor, "m"]]],
    labels: tuple[str, str] = ("", ""),
    wrong: tuple[str, ...] = (),
    log: bool = False,
    height: float = 2.4,
) -> Figure:
    """Lines over one axis, panels side by side; a name has one colour in all panels, the first
    name black.

    Args:
        labels: names of the two axes, which all panels share.
        wrong: names of the lines that show a deliberate mistake, vermilion and dashed.
        log: whether the vertical axis is logarithmic.
        height: of a panel, in inches.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    right = [name for name in names if name not in wrong]
    inks = (EXACT, COMPUTED, *OTHERS)
    line = {n: {"color": inks[k % 6], "ls": ("-", "-.")[k // 6 % 2]} for k, n in enumerate(right)}
    line |= {name: {"color": WRONG, "ls": "--"} for name in wrong}
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(6.2, height + 0.5), sharex=True, sharey=True, squeeze=False
        )
        for (title, panel), ax in zip(panels.items(), axes[0]):
            for name, y in panel.items():
                ax.plot(x, y, label=name, **line[name])
            ax.set(title=title, xlabel=labels[0], yscale="log" if log else "linear")
        axes[0, 0].set_ylabel(labels[1])
        shown = {h.get_label(): h for ax in axes.flat for h in ax.get_lines()}
        fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return fig


def fits_of_a_curve(
    x: Float[Tensor, "g"],
    exact: Float[Tensor, "g"] | Float[Tensor, "p g"],
    panels: dict[str, Float[Tensor, "m g"]],
    wrong: tuple[str, ...] = (),
    labels: tuple[str, str] = ("", ""),
    dashed: Float[Tensor, "p g"] | None = None,
) -> Figure:
    """An exact curve in every panel, black, and over it the curves that were fitted to it.

    Args:
        exact: one curve for all panels, or one for each.
        panels: fitted curves by panel title, one a row.
        wrong: titles of the panels that show a deliberate mistake.
        labels: names of the two axes.
        dashed: another curve for each panel, dashed and vermilion.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(7, 2.3), sharex=True, sharey=True, squeeze=False
        )
        for k, ((title, fits), ax) in enumerate(zip(panels.items(), axes[0])):
            colour = WRONG if title in wrong else COMPUTED
            ax.plot(x, fits.mT, color=colour, lw=0.6 if len(fits) > 4 else 1.4, alpha=0.8)
            ax.plot(x, exact if exact.ndim == 1 else exact[k], color=EXACT, lw=1.3)
            if dashed is not None:
                ax.plot(x, dashed[k], color=WRONG, ls="--", lw=1)
            ax.set(title=title, xlabel=labels[0])
        axes[0, 0].set_ylabel(labels[1])
    return fig


def budgets(
    x: Float[Tensor, "m"],
    panels: dict[str, dict[str, Float[Tensor, "m"]]],
    label: str,
    floors: dict[str, float] | None = None,
) -> Figure:
    """What a budget buys: lines over it on logarithmic axes, panels side by side; a name has one
    colour in all panels.

    Args:
        label: name of the budget; what it buys is the title of a panel.
        floors: a black line in each panel, by title: below it differences are chance.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    ink = dict(zip(names, (COMPUTED, *OTHERS, "#999999", "#8B5A2B")))
    few = len(x) < 12
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(6.6, 3.0), sharey=floors is None, squeeze=False
        )
        for (title, panel), ax in zip(panels.items(), axes[0]):
            for name, y in panel.items():
                style = {"marker": "o", "ms": 3.5} if few else {}
                ax.plot(x, y, color=ink[name], lw=1, label=name, **style)
            if floors is not None:
                ax.axhline(floors[title], color=EXACT, lw=1, label="real against real")
            ax.set(title=title, xscale="log", yscale="log", xlabel=label)
            if few:
                ax.set_xticks(x.tolist(), [f"{value:g}" for value in x.tolist()])
                ax.xaxis.set_minor_locator(plt.NullLocator())
        shown = {h.get_label(): h for ax in axes.flat for h in ax.get_lines()}
        fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return fig


def predicted_and_found(
    x: Float[Tensor, "m"],
    predicted: dict[str, Float[Tensor, "m"]],
    tried: Float[Tensor, "k"],
    found: dict[str, Float[Tensor, "k"]],
    labels: tuple[str, str] = ("", ""),
) -> Figure:
    """Predicted lines over one axis, logarithmic upwards, and on them what experiments found.

    Args:
        tried: where the experiments were made.
        found: what they found, by the name of its line, dots of the same colour.
        labels: names of the two axes.
    """
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.2))
        for (name, y), ink in zip(predicted.items(), (COMPUTED, *OTHERS)):
            ax.plot(x, y, color=ink, lw=1, label=name)
            ax.plot(tried, found[name], "o", color=ink, ms=5)
        ax.set(yscale="log", xlabel=labels[0], ylabel=labels[1])
        fig.legend(loc="outside lower center", ncols=2)
    return fig
