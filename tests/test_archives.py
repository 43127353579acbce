"""Whole image sets come from openml.org unaltered, are kept once, and are refused if damaged."""

import builtins
import gzip
import hashlib
import io
import json
import socket
import urllib.request
from dataclasses import replace
from email.message import Message
from http.client import RemoteDisconnected
from urllib.error import URLError
from urllib.response import addinfourl

import numpy as np
import pytest
import torch

from onepath import archives, data
from onepath.archives import FASHION_MNIST, MNIST, Listing, from_openml

SMALL = Listing("small-set", 3, (4, 2, 3), side=5)


def images(listing: Listing) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that take every value from 0 to 255, and labels in no order."""
    labels = np.repeat(np.arange(len(listing.counts)), listing.counts)
    labels = np.random.default_rng(1).permutation(labels)
    pixels = np.arange(len(labels) * listing.side**2).reshape(len(labels), -1) * 7 % 256
    return pixels, labels


class OpenML(urllib.request.HTTPSHandler):
    """openml.org in this process: its four answers about one set, and the file itself."""

    def __init__(self, pixels, labels, name="small-set"):
        super().__init__()
        self.asked, self.fails, self.cut = [], None, 0
        names = [f"pixel{k}" for k in range(pixels.shape[1])]
        classes = [str(k) for k in sorted(set(labels.tolist()))]
        lines = [f"@RELATION {name}", *(f"@ATTRIBUTE {n} NUMERIC" for n in names)]
        lines += [f"@ATTRIBUTE class {{{','.join(classes)}}}", "@DATA"]
        lines += [
            ",".join(map(str, [*row, y])).replace("nan", "?")
            for row, y in zip(pixels.tolist(), labels)
        ]
        self.file = "\n".join(lines).encode()
        plain = {"is_target": "false", "is_ignore": "false", "is_row_identifier": "false"}
        plain |= {"number_of_missing_values": "0"}
        columns = [plain | {"name": n, "data_type": "numeric"} for n in names]
        columns.append(
            plain
            | {"name": "class", "data_type": "nominal", "is_target": "true"}
            | {"nominal_value": classes}
        )
        for k, column in enumerate(columns):
            column["index"] = str(k)
        about = {"id": "77", "name": name, "version": "3", "format": "ARFF", "status": "active"}
        about |= {
            "description": "",
            "file_id": "9",
            "md5_checksum": hashlib.md5(self.file).hexdigest(),
        }
        about["url"] = "https://www.openml.org/data/v1/download/9/small-set.arff"
        count = {"name": "NumberOfInstances", "value": f"{float(len(labels))}"}
        self.answers = {
            "/data/list/": {"data": {"dataset": [{"did": 77, "version": 3, "status": "active"}]}},
            "/data/features/": {"data_features": {"feature": columns}},
            "/data/qualities/": {"data_qualities": {"quality": [count]}},
            "/json/data/77": {"data_set_description": about},
        }

    def https_open(self, request):
        address = request.full_url
        self.asked.append(address)
        if self.fails is not None:
            raise self.fails
        body = self.file[: len(self.file) - self.cut]
        if "/download/" not in address:
            answer = next(a for part, a in self.answers.items() if part in address)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        response = addinfourl(io.BytesIO(gzip.compress(body)), Message(), address, 200)
        response.info()["Content-Encoding"] = "gzip"
        response.msg = "OK"
        return response


@pytest.fixture
def served(monkeypatch):
    """Serve one set to everything that asks the network, and do not wait between attempts."""

    def serve(*parts, **rest):
        server = OpenML(*parts, **rest)
        urllib.request.install_opener(urllib.request.build_opener(server))
        return server

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield serve
    urllib.request.install_opener(None)


def test_what_is_fetched_are_the_pixels_and_labels_that_the_archive_holds(served, tmp_path):
    pixels, labels = images(SMALL)
    server = served(pixels, labels)
    found_pixels, found_labels = from_openml(SMALL, tmp_path)
    assert found_pixels.dtype == found_labels.dtype == np.uint8
    assert np.array_equal(found_pixels, pixels) and np.array_equal(found_labels, labels)
    assert any("small-set" in a and "data_version/3" in a for a in server.asked)


def test_a_set_is_fetched_once_and_read_from_its_folder_afterwards(served, tmp_path):
    server = served(*images(SMALL))
    first = from_openml(SMALL, tmp_path)
    asked = len(server.asked)
    server.fails = URLError("the network is gone")
    again = from_openml(SMALL, tmp_path)
    assert len(server.asked) == asked and all(map(np.array_equal, first, again))
    assert [p.name for p in tmp_path.iterdir()] == ["small-set.npz"]


@pytest.mark.parametrize(
    "load, name", [(data.mnist70000, "MNIST"), (data.fashion_mnist70000, "FASHION_MNIST")]
)
def test_a_data_set_has_the_same_pixels_scaled_to_one_interval(
    served, monkeypatch, tmp_path, load, name
):
    listing = replace(SMALL, name=getattr(archives, name).name, side=28)
    monkeypatch.setattr(archives, name, listing)
    pixels, labels = images(listing)
    served(pixels, labels)
    found = load(tmp_path)
    assert found.points.dtype == torch.float32 and found.labels.tolist() == labels.tolist()
    assert (found.shape, found.pixels, found.classes, len(found)) == ((28, 28), (0, 255), 3, 9)
    assert np.array_equal(((found.points.numpy() + 1) * 127.5).round(), pixels)
    assert found.points.min() == -1 and found.points.max() == 1
    assert found.level == pytest.approx(2 / 255) and "openml.org" in found.source


def test_the_facts_that_are_checked_are_those_of_the_two_sets():
    """The counts of MNIST are also those of its two parts, as their distribution states them."""
    train = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    test = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    assert (sum(train), sum(test)) == (60_000, 10_000)
    assert MNIST.counts == tuple(map(sum, zip(train, test)))
    assert sum(FASHION_MNIST.counts) == 70_000 and len(set(FASHION_MNIST.counts)) == 1


@pytest.mark.filterwarnings("ignore:A network error occurred", "ignore:Invalid cache")
@pytest.mark.parametrize(
    "failure",
    [URLError("no route"), TimeoutError("slow"), RemoteDisconnected("gone"), ConnectionError("x")],
)
def test_without_a_network_the_remedy_is_said_and_nothing_is_left(served, tmp_path, failure):
    server = served(*images(SMALL))
    server.fails = failure
    with pytest.raises(ConnectionError, match="small-set, version 3, is fetched.*IDX files"):
        from_openml(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.fails = None
    assert len(from_openml(SMALL, tmp_path)[0]) == 9


@pytest.mark.filterwarnings("ignore:Invalid cache")
@pytest.mark.parametrize("damage", ["cut", "page", "other", "lacks"])
def test_an_answer_that_is_not_the_set_is_refused_and_nothing_is_left(served, tmp_path, damage):
    server = served(*images(SMALL))
    if damage == "cut":
        server.cut = 40
    elif damage == "page":  # as of a network that wants a password first
        server.answers["/data/features/"] = b"<html>"
    elif damage == "other":
        server.answers["/data/features/"] = []
    else:
        del server.answers["/data/list/"]["data"]["dataset"][0]["did"]
    with pytest.raises(ValueError, match="must come from openml.org whole.*try again"):
        from_openml(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def changed(kind):
    pixels, labels = images(SMALL)
    if kind == "few":
        return pixels[1:], labels[1:]
    if kind == "narrow":
        return pixels[:, 1:], labels
    if kind == "bright":
        pixels[0, 0] = 256
    elif kind == "dark":
        pixels[0, 0] = -1
    elif kind == "fraction":
        return pixels + 0.5 * (pixels == 3), labels
    elif kind == "missing":
        return np.where(pixels == 3, np.nan, pixels), labels
    elif kind == "words":
        return np.where(pixels == 3, "dark", pixels.astype(str)), labels
    elif kind == "counts":
        labels[np.flatnonzero(labels == 2)[0]] = 1
    elif kind == "classes":
        labels = labels + 1
    return pixels, labels


REFUSED = {
    "few": r"9 images of 25 pixels.*got the shape \(8, 25\) with \(8,\) labels",
    "narrow": r"got the shape \(9, 24\)",
    "bright": "whole numbers from 0 to 255, got 1 to 256",
    "dark": "got -1 to 255",
    "fraction": "got fractions",
    "missing": "got nan to nan",
    "words": "got what is no number",
    "counts": r"has \(4, 2, 3\) images of the classes 0 to 2, got .*'1': 3",
    "classes": "got {'1': 4, '2': 2, '3': 3}",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_set_under_the_same_name_is_refused_and_not_kept(served, tmp_path, kind):
    served(*changed(kind))
    with pytest.raises(ValueError, match=REFUSED[kind] + ".*fetch it again"):
        from_openml(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["cut", "flipped", "empty", "other"])
def test_a_kept_file_that_is_damaged_is_refused_with_its_remedy(served, tmp_path, change):
    served(*images(SMALL))
    from_openml(SMALL, tmp_path)
    file = tmp_path / "small-set.npz"
    raw = file.read_bytes()
    if change == "flipped":
        raw = raw[:80] + bytes([raw[80] ^ 16]) + raw[81:]
    elif change == "other":
        np.savez(file, images=np.zeros(3))
        raw = file.read_bytes()
    file.write_bytes({"cut": raw[:-30], "empty": b""}.get(change, raw))
    with pytest.raises(ValueError, match="small-set.npz holds .* remove it, and it is fetched"):
        from_openml(SMALL, tmp_path)


def test_a_kept_file_of_another_set_is_refused(served, tmp_path):
    served(*images(SMALL))
    from_openml(SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"small-set has \(3, 3, 3\) images of the classes"):
        from_openml(replace(SMALL, counts=(3, 3, 3)), tmp_path)


def test_a_missing_package_is_said_with_its_name(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "sklearn":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="pip install scikit-learn, or pip install 'onepath"):
        data.mnist70000()


@pytest.mark.parametrize("load", [data.mnist70000, data.fashion_mnist70000])
def test_the_whole_sets_come_from_the_network(tmp_path, load):
    """Really fetched; and MNIST has every image that another package ships of it."""
    try:
        socket.create_connection(("www.openml.org", 443), timeout=5).close()
    except OSError as error:
        pytest.skip(f"openml.org is out of reach here: {error}")
    found = load(tmp_path)
    assert found.points.shape == (70_000, 784) and found.classes == 10
    assert found.points.min() == -1 and found.points.max() == 1
    if load is data.mnist70000:
        every = {x.numpy().tobytes() for x in found.points}
        assert all(x.numpy().tobytes() in every for x in data.mnist5000().points)


def test_the_files_of_debian_are_the_whole_of_fashion_mnist():
    """Also a check of the counts above, by files that came another way."""
    try:
        parts = [data.fashion_mnist(part=part) for part in ("train", "t10k")]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    labels = torch.cat([part.labels for part in parts])
    assert tuple(labels.bincount().tolist()) == FASHION_MNIST.counts
    assert [len(part) for part in parts] == [60_000, 10_000] and parts[0].shape == (28, 28)
