"""Figures of learning: losses, errors, weights of times, and what a budget of calls buys."""

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, STYLE, WRONG


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
