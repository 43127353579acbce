r"""Archives: where whole image sets are kept, and how they come from there, checked.

MNIST and Fashion-MNIST are distributed as IDX files, which somebody puts into a folder, and they
are kept at openml.org, from where scikit-learn fetches them. Either way arrays come back, of pixels
as whole numbers from 0 to 255 and of labels; `data` makes points of them. What was fetched is
compared with what is known of the set before it is kept, and is kept in one step: a folder holds a
whole set or none. Other formats, and archives that ask for a password, are not covered.
"""

import gzip
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from zipfile import BadZipFile

import numpy as np

DAMAGED = (ValueError, KeyError, EOFError, gzip.BadGzipFile, BadZipFile, zlib.error)


@dataclass(frozen=True)
class Listing:
    """A set of images as openml.org lists it: its name there, and what is known of it.

    Args:
        version: the number that openml.org gave to these images; they do not change under it.
        counts: images of each class, from class 0 on.
        side: height and width of an image.
    """

    name: str
    version: int
    counts: tuple[int, ...]
    side: int = 28


MNIST = Listing("mnist_784", 1, (6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958))
FASHION_MNIST = Listing("Fashion-MNIST", 1, (7000,) * 10)


def from_openml(listing: Listing, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, h·w) and labels (n,), as bytes, from the folder if they are there, or fetched.

    Args:
        folder: where the set is kept in one file; by default where scikit-learn keeps its data.

    Raises ImportError without scikit-learn, ConnectionError where openml.org cannot be reached, and
    ValueError where what came, or what the folder holds, is not what is known of the set.
    """
    try:
        from sklearn.datasets import get_data_home
    except ImportError as error:
        raise missing(listing.name, "scikit-learn") from error
    home = Path(get_data_home(data_home=folder))
    file = home / f"{listing.name}.npz"
    if not file.is_file():
        with TemporaryDirectory(dir=home, prefix="onepath-") as rest:
            pixels, labels = _checked(listing, *_fetched(listing, rest))
            part = Path(rest) / file.name
            np.savez_compressed(part, pixels=pixels, labels=labels)
            part.replace(file)
    try:
        with np.load(file) as kept:
            pixels, labels = kept["pixels"], kept["labels"]
    except DAMAGED as error:
        raise ValueError(
            f"{file} holds {listing.name} as it was fetched, got a damaged file ({error}); "
            "remove it, and it is fetched again."
        ) from error
    return _checked(listing, pixels, labels)


def _fetched(listing: Listing, folder: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import fetch_openml

    name = f"{listing.name}, version {listing.version},"
    try:
        # labels as text: as integers, which pandas 3.1 makes of them, scikit-learn 1.9.1 fails
        found = fetch_openml(
            listing.name,
            version=listing.version,
            as_frame=False,
            data_home=folder,
            read_csv_kwargs={"dtype": {listing.side**2: str}},
        )
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"{name} is fetched from openml.org, got {error!r}; connect this machine, or read the "
            "set from its IDX files."
        ) from error
    except (*DAMAGED, LookupError, TypeError) as error:
        raise ValueError(
            f"{name} must come from openml.org whole, got {error!r}; try again later."
        ) from error
    return found.data, found.target


def _checked(
    listing: Listing, pixels: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both as bytes, if there are as many images of each class, of that size, as there must be."""
    n, d = sum(listing.counts), listing.side**2
    rule = f"{listing.name} has {n} images of {d} pixels, whole numbers from 0 to 255"
    remedy = "this is another set; fetch it again."
    if np.shape(pixels) != (n, d) or np.shape(labels) != (n,):
        shapes = f"{np.shape(pixels)} with {np.shape(labels)} labels"
        raise ValueError(f"{rule}, got the shape {shapes}; {remedy}")
    if pixels.dtype.kind not in "uif":
        raise ValueError(f"{rule}, got what is no number; {remedy}")
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= 255:
        raise ValueError(f"{rule}, got {low} to {high}; {remedy}")
    whole = pixels.astype(np.uint8)
    if (whole != pixels).any():
        raise ValueError(f"{rule}, got fractions; {remedy}")
    names = [str(k) for k in range(len(listing.counts))]
    found = {str(name): int(count) for name, count in zip(*np.unique(labels, return_counts=True))}
    if found != dict(zip(names, listing.counts)):
        raise ValueError(
            f"{listing.name} has {listing.counts} images of the classes 0 to {len(names) - 1}, "
            f"got {found}; {remedy}"
        )
    return whole, labels.astype(np.uint8)


def from_idx(folder: Path, part: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w) and labels (n,) of `PART-images-idx3-ubyte` and `PART-labels-idx1-ubyte`.

    Raises FileNotFoundError where a file is missing, ValueError where one is corrupt.
    """
    images = _read_idx(_find(folder, f"{part}-images-idx3-ubyte", name), 3)
    labels = _read_idx(_find(folder, f"{part}-labels-idx1-ubyte", name), 1)
    if len(labels) != len(images):
        raise ValueError(
            f"{name}: one label for each image, got {len(images)} images, {len(labels)} labels."
        )
    return images, labels


def _find(folder: Path, stem: str, name: str) -> Path:
    for file in (folder / stem, folder / f"{stem}.gz"):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"{name} is read from its IDX files, got no {stem} and no {stem}.gz in {folder}; put the "
        "files of the distribution there, or give the folder that has them. For Fashion-MNIST "
        "on Debian: apt install dataset-fashion-mnist."
    )


def _read_idx(file: Path, axes: int) -> np.ndarray:
    """An array of bytes: two zeros, the code 8, the number of axes, the sizes, then the content."""
    try:
        raw = file.read_bytes()
        content = gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is no complete gzip file ({error}); fetch it again.") from error
    start = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < start:
        raise ValueError(
            f"an IDX file of bytes with {axes} axes starts with 0 0 8 {axes}, "
            f"got {list(content[:4])} in {file}; it is another format or another file."
        )
    sizes = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != prod(sizes):
        raise ValueError(
            f"{file} announces {prod(sizes)} bytes {sizes}, got {len(content) - start}; "
            "it is truncated or damaged, fetch it again."
        )
    return np.frombuffer(content[start:], np.uint8).reshape(sizes)


def missing(name: str, package: str) -> ImportError:
    """The error for a set that comes with, or through, a package that is not installed."""
    return ImportError(
        f"{name} comes with the package {package}, which is not installed; "
        f"pip install {package}, or pip install 'onepath[data]'."
    )
