r"""The laws of the plane on which papers show their models, with exact densities.

Each has a shape that defeats a simple model: several islands, an island inside a ring, arms that
interlock, edges where the density jumps. All but the checkerboard are Gaussian mixtures, so that
everything in `oracles` is exact along a path to them: a curve with Gaussian noise around it is a
mixture of many narrow Gaussians, equally spaced along the curve. Results are float64 on the CPU;
`Mixture.to` converts them. Their sizes suit a standard normal base.
"""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from .measures import Empirical, Mixture, check_generator
from .shapes import Points, Values


def eight_gaussians(radius: float = 2.0, width: float = 0.2) -> Mixture:
    """Eight equal islands of standard deviation `width`, evenly around a circle."""
    return Empirical(radius * _circle(8)).smoothed(width)


def two_moons(width: float = 0.1, parts: int = 64) -> Mixture:
    """Two interlocking half circles of radius 1, noise `width` around them, centred at the
    origin."""
    half = _circle(2 * parts, shift=0.5)[:parts]  # the upper half
    upper = half - torch.tensor([0.5, 0.25], dtype=torch.float64)
    return Empirical(torch.cat([upper, -upper])).smoothed(width)


def rings(radii: tuple[float, ...] = (1.0, 2.0), width: float = 0.1, parts: int = 64) -> Mixture:
    """Circles around the origin, equally likely, noise `width` around them."""
    return Empirical(torch.cat([r * _circle(parts) for r in radii])).smoothed(width)


def two_spirals(turns: float = 1.5, width: float = 0.1, parts: int = 96) -> Mixture:
    """Two arms from radius 0.25 to 2.25 that wind around each other `turns` times; mass is even in
    arc length, up to the distance between parts."""
    s = torch.linspace(0, 1, 64 * parts, dtype=torch.float64)
    radius, angle = 0.25 + 2 * s, 2 * pi * turns * s
    arm = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    length = torch.cat([s.new_zeros(1), arm.diff(dim=0).norm(dim=1).cumsum(0)])
    wanted = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts * length[-1]
    arm = arm[torch.searchsorted(length, wanted)]
    return Empirical(torch.cat([arm, -arm])).smoothed(width)


@dataclass(frozen=True)
class Checkerboard:
    """The uniform law on the dark squares of a board, four by four unless said otherwise.

    The density is constant on them and zero elsewhere: log_prob is -inf there, and at the edges
    there is no score. The board is centred at the origin. Raises ValueError unless `squares` is
    even, so that half of the squares are dark, and `side` is positive.

    Args:
        squares: squares along one side of the board.
        side: length of a square.
    """

    squares: int = 4
    side: float = 1.0

    def __post_init__(self) -> None:
        if self.squares < 2 or self.squares % 2 or not self.side > 0:
            raise ValueError(
                f"a board has an even number of squares and a positive side, got {self.squares} "
                f"and {self.side}."
            )

    def log_prob(self, x: Points) -> Values:
        if x.ndim != 2 or x.shape[1] != 2 or x.isnan().any():
            raise ValueError(
                f"points of a board are (n, 2) and not nan, got {tuple(x.shape)}: {x}."
            )
        cell = (x / self.side + self.squares / 2).floor()
        on_board = ((cell >= 0) & (cell < self.squares)).all(1)
        dark = on_board & (cell.sum(1) % 2 == 0)
        level = -log(self.squares**2 / 2 * self.side**2)
        return torch.where(dark, level, -torch.inf).to(x)

    def sample(self, n: int, generator: torch.Generator) -> Points:
        check_generator(generator, torch.device("cpu"))
        row = torch.randint(self.squares, (n,), generator=generator)
        pair = torch.randint(self.squares // 2, (n,), generator=generator)
        cell = torch.stack([row, 2 * pair + row % 2], dim=1)
        within = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return self.side * (cell + within - self.squares / 2)


def _circle(k: int, shift: float = 0.0) -> Tensor:
    """k points evenly around the unit circle, the first at the angle 2π shift / k."""
    angle = 2 * pi * (torch.arange(k, dtype=torch.float64) + shift) / k
    return torch.stack([angle.cos(), angle.sin()], dim=1)
