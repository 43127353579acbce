"""Figures in the plane: particles, the ways they go, and the law that they should have."""

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .plotting import COMPUTED, EXACT, STYLE, WRONG


def paths_in_plane(
    panels: dict[str, Float[Tensor, "m n 2"]],
    cloud: Float[Tensor, "c 2"],
    wrong: tuple[str, ...] = (),
    shown: int = 40,
    half_width: float = 4.0,
) -> Figure:
    """Trajectories in the plane, panel by panel, over exact draws of the target in grey.

    Args:
        panels: trajectories by panel title; their ends are dots.
        cloud: draws of the target law.
        wrong: titles of the panels that show a deliberate mistake.
        shown: trajectories whose lines are drawn; all ends are.
        half_width: half of the side of every panel, in the units of the state.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(7, 7 / len(panels) + 0.3), sharex=True, sharey=True
        )
        for (title, x), ax in zip(panels.items(), axes):
            colour = WRONG if title in wrong else COMPUTED
            ax.scatter(*cloud.T, s=2, color="#BBBBBB", rasterized=True)
            ax.plot(x[:, :shown, 0], x[:, :shown, 1], color=colour, lw=0.6, alpha=0.8)
            ax.scatter(*x[-1].T, s=2, color=colour, rasterized=True)
            limits = (-half_width, half_width)
            ax.set(title=title, aspect="equal", xlim=limits, ylim=limits, xlabel="$x_1$")
        axes[0].set_ylabel("$x_2$")
    return fig


def plans(
    panels: dict[str, tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]],
    wrong: tuple[str, ...] = (),
    half_width: float = 3.0,
) -> Figure:
    """Who goes where: two samples in the plane and a line from each point to its partner.

    Args:
        panels: starts and ends by panel title, row by row partners; starts are open circles.
        wrong: titles of the panels that show a deliberate mistake.
        half_width: half of the side of every panel, in the units of the state.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1, len(panels), figsize=(7, 7 / len(panels) + 0.3), sharex=True, sharey=True
        )
        for (title, (x, y)), ax in zip(panels.items(), axes):
            colour = WRONG if title in wrong else COMPUTED
            lines = [[x[:, k].tolist(), y[:, k].tolist()] for k in range(2)]
            ax.plot(*lines, color=colour, lw=0.6, alpha=0.8)
            ax.scatter(*x.T, s=7, facecolors="white", edgecolors=EXACT, lw=0.6, zorder=3)
            ax.scatter(*y.T, s=7, color=colour, zorder=3)
            limits = (-half_width, half_width)
            ax.set(title=title, aspect="equal", xlim=limits, ylim=limits, xlabel="$x_1$")
        axes[0].set_ylabel("$x_2$")
    return fig
