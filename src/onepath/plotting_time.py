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


def two_times(
    panels: dict[str, tuple[Float[Tensor, "n"], Float[Tensor, "n"]]],
    truth: tuple[Float[Tensor, "m"], Float[Tensor, "m"]],
    labels: tuple[str, str],
    wrong: tuple[str, ...] = (),
    half_width: float = 3.0,
) -> Figure:
    """States of the same runs at two times, panel by panel, over exact pairs in grey.

    Args:
        panels: (earlier, later) states by panel title.
        truth: pairs of states of the process that the panels should reproduce.
        labels: names of the two axes, earlier and later.
        wrong: titles of the panels that show a deliberate mistake.
        half_width: half of the side of every panel, in the units of the state.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            1,
            len(panels),
            figsize=(7, 7 / len(panels) + 0.3),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for (title, pair), ax in zip(panels.items(), axes[0]):
            colour = WRONG if title in wrong else COMPUTED
            ax.scatter(*truth, s=2, color="#BBBBBB", rasterized=True)
            ax.scatter(*pair, s=1.5, color=colour, alpha=0.5, lw=0, rasterized=True)
            limits = (-half_width, half_width)
            ax.set(title=title, aspect="equal", xlim=limits, ylim=limits, xlabel=labels[0])
        axes[0, 0].set_ylabel(labels[1])
    return fig


def runs_and_mean(
    times: Float[Tensor, "m"],
    runs: Float[Tensor, "m n"],
    exact: Float[Tensor, "m"],
    label: str,
    shown: int = 12,
) -> Figure:
    """One number along single runs (thin), its mean over all runs (dots) and its exact mean
    (black)."""
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 2.8))
        ax.plot(times, runs[:, :shown], color=COMPUTED, lw=0.6, alpha=0.6)
        ax.plot(times, exact, color=EXACT, lw=1.8, label="mean, exact")
        ax.plot(times, runs.mean(1), "o", color=COMPUTED, ms=3.5, label="mean, measured")
        ax.set(xlabel="time $t$", ylabel=label, xlim=(times[0].item(), times[-1].item()))
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def snapshots(
    axes: tuple[Float[Tensor, "a"], Float[Tensor, "b"]],
    instants: list[float],
    maps: Float[Tensor, "m a b"],
    rows: dict[str, Float[Tensor, "m n 2"]],
    half_width: float,
    wrong: tuple[str, ...] = (),
) -> Figure:
    """Particles in the plane over a density in grey, a column per time and a row per set.

    Args:
        axes: coordinates of the density, along its two dimensions.
        maps: the density at each of the instants.
        rows: particles at each of the instants, by name of the set.
        half_width: half of the side of every panel, in the units of the state.
        wrong: names of the rows that show a deliberate mistake.
    """
    shape = (len(rows), len(instants))
    with plt.rc_context(STYLE):
        fig, panels = plt.subplots(
            *shape, figsize=(6.2, 2.1 * shape[0] + 0.3), sharex=True, sharey=True, squeeze=False
        )
        for (name, x), line in zip(rows.items(), panels):
            for k, ax in enumerate(line):
                shade = maps[k].T.sqrt()
                top = 1.6 * shade.max().item()
                ax.pcolormesh(*axes, shade, cmap="Greys", vmax=top, rasterized=True)
                colour = WRONG if name in wrong else COMPUTED
                ax.scatter(*x[k].T, s=1.2, lw=0, alpha=0.6, color=colour, rasterized=True)
                limits = (-half_width, half_width)
                ax.set(aspect="equal", xlim=limits, ylim=limits)
            line[0].set_ylabel(name)
        for instant, ax in zip(instants, panels[0]):
            ax.set_title(f"t = {instant:g}")
    return fig


def so_far(
    times: Float[Tensor, "m"],
    grid: Float[Tensor, "g"],
    density: Float[Tensor, "m g"],
    states: Float[Tensor, "k n"],
    title: str,
    shown: int = 24,
) -> Figure:
    """The particles of one run up to the k-th of `times`, and their histogram there; one frame of a
    player, drawn fast.

    Args:
        density: exact, on all times; grey on the left, and a black line beside the histogram.
        shown: trajectories drawn; the histogram counts all.
    """
    k, low, high = len(states), grid[0].item(), grid[-1].item()
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False, "font.size": 8}):
        fig = plt.figure(figsize=(4.6, 2.2))
        ax = fig.add_axes((0.09, 0.19, 0.68, 0.68))
        side = fig.add_axes((0.79, 0.19, 0.19, 0.68), sharey=ax)
        box = {"extent": (0, 1, low, high), "origin": "lower", "aspect": "auto"}
        ax.imshow(density.T.sqrt(), cmap="Greys", vmax=1.2, **box)
        ax.plot(times[:k], states[:, :shown], color=COMPUTED, alpha=0.7, lw=0.6)
        ax.set(title=title, xlabel="time $t$", ylabel="state $x$", xlim=(0, 1), ylim=(low, high))
        bars = {"range": (low, high), "density": True, "orientation": "horizontal"}
        side.hist(states[-1].numpy(), bins=40, color=COMPUTED, alpha=0.5, **bars)
        side.plot(density[k - 1], grid, color=EXACT, lw=1)
        side.set_axis_off()
    return fig
