"""A checkpoint says what its network is, comes back as it was, and nothing foreign is loaded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from onepath import checkpoints
from onepath.checkpoints import Trained, load, save, shipped
from small_runs import run


@pytest.fixture
def finished(tmp_path) -> tuple[Path, Trained]:
    trained = run(None, 10)
    save(tmp_path / "net.safetensors", trained)
    return tmp_path / "net.safetensors", trained


def test_a_network_is_loaded_as_it_was_saved(finished, tmp_path):
    file, trained = finished
    back = load(file)
    assert back.about == trained.about and torch.equal(back.losses, trained.losses)
    weights, found = trained.net.state_dict(), back.net.state_dict()
    assert set(weights) == set(found)
    assert all(torch.equal(weights[k], found[k]) for k in weights)
    full = run(tmp_path / "run.safetensors", 10)
    again = load(tmp_path / "run.safetensors")
    x = torch.ones(3, 2)
    assert torch.equal(again.net(torch.tensor(0.5), x), full.net(torch.tensor(0.5), x))


def test_a_checkpoint_says_what_it_is_to_any_reader_of_safetensors(finished):
    from safetensors import safe_open

    file, trained = finished
    with safe_open(file, "pt") as opened:
        note = json.loads(opened.metadata()["onepath"])
    assert note["about"]["architecture"] == trained.net.architecture
    assert note["about"]["format"] == 1 and note["about"]["package"] == checkpoints.__version__
    assert note["about"]["steps"] == note["run"]["step"] == 10


def rewritten(file: Path, change) -> None:
    """Write the file again with another note, and a digest that fits it."""
    raw = file.read_bytes()
    tensors = read_tensors(raw)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    note = json.loads(header["onepath"])
    del note["sha256"]
    change(note, tensors)
    note["sha256"] = checkpoints._digest(note, tensors)
    file.write_bytes(tensor_bytes(tensors, {"onepath": json.dumps(note)}))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda n, w: n["about"].update(format=2), "format is one of 1, got 2; a newer version"),
        (
            lambda n, w: n["about"].update(interpolant="cosine"),
            "interpolant is .* got 'cosine'; .*parameters",
        ),
        (lambda n, w: n["about"].update(interpolant="bridge"), "got 'bridge'; .*latent noise"),
        (lambda n, w: n["about"].update(prediction="flow"), "prediction is .* got 'flow'"),
        (lambda n, w: n["about"].update(coupling="mutual"), "coupling is .* got 'mutual'"),
        (lambda n, w: n["about"].update(licence="?"), "does not know, got .*licence"),
        (lambda n, w: n["about"].pop("data"), "does not know"),
        (lambda n, w: n["about"]["architecture"].update(name="UNet"), "out of MLP"),
        (lambda n, w: n["about"]["architecture"].update(width=9), "those of the architecture"),
        (lambda n, w: n["about"]["architecture"].update(width="8"), "whole numbers, got"),
        (lambda n, w: n["about"].update(steps=0), "at least 1, got 0"),
        (lambda n, w: w.pop("losses"), "its note lacks .*losses"),
        (lambda n, w: n["run"].update(step=9), "a finished run, got one at step 9 of 10"),
        (lambda n, w: w.pop("average.enter.weight"), "a difference at enter.weight"),
        (lambda n, w: w.update({"average.more": torch.ones(2)}), "a difference at more"),
        (
            lambda n, w: w.update({"average.enter.bias": w["average.enter.bias"].double()}),
            "a difference at enter.bias",
        ),
    ],
)
def test_what_is_not_known_is_refused(finished, change, message):
    file, _ = finished
    rewritten(file, change)
    with pytest.raises(ValueError, match=message):
        load(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\x80\x04pickle", b"PK\x03\x04" + bytes(100), bytes(64), b"\xff" * 64],
)
def test_a_file_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "net.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or none|not written by onepath"):
        load(file)


def test_safetensors_of_others_are_refused(tmp_path):
    file = tmp_path / "net.safetensors"
    for metadata in (None, {"format": "pt"}):
        file.write_bytes(tensor_bytes({"w": torch.ones(2)}, metadata))
        with pytest.raises(ValueError, match="not written by onepath"):
            load(file)
    with pytest.raises(FileNotFoundError, match="there must be a checkpoint"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("note", ["", "3", "[]", "{}", '{"sha256": "0", "about": {}}'])
def test_a_note_that_says_nothing_is_refused(tmp_path, note):
    file = tmp_path / "net.safetensors"
    file.write_bytes(tensor_bytes({"losses": torch.ones(2)}, {"onepath": note}))
    with pytest.raises(ValueError, match="its note lacks what a checkpoint says"):
        load(file)


def test_a_file_cut_or_flipped_anywhere_is_refused(finished):
    file, _ = finished
    raw = file.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for cut in torch.randint(len(raw), (20,), generator=generator).tolist():
        file.write_bytes(raw[:cut])
        with pytest.raises(ValueError):
            load(file)
    for place in torch.randint(len(raw), (60,), generator=generator).tolist():
        flipped = bytearray(raw)
        flipped[place] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        with pytest.raises(ValueError):
            load(file)


def test_a_finished_network_is_no_run_to_go_on_with(finished):
    file, _ = finished
    with pytest.raises(ValueError, match="belongs to another run"):
        run(file, 10)


# --- in half precision, and with the package


def test_half_precision_rounds_each_weight_and_halves_the_file(finished, tmp_path):
    file, trained = finished
    half = tmp_path / "half.safetensors"
    save(half, trained, torch.float16)
    back = load(half)
    for name, w in trained.net.state_dict().items():
        found = back.net.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.allclose(found, w, rtol=2**-11, atol=1e-7)
    tensors = lambda f: sum(w.numel() * w.element_size() for w in read_tensors(f).values())
    losses = 4 * len(trained.losses)
    assert 2 * (tensors(half.read_bytes()) - losses) == tensors(file.read_bytes()) - losses


def test_a_file_in_half_precision_says_so_or_is_refused(finished, tmp_path):
    _, trained = finished
    half = tmp_path / "half.safetensors"
    save(half, trained, torch.float16)
    rewritten(half, lambda n, w: n["run"].update(dtype="torch.float32"))
    with pytest.raises(ValueError, match="those of the architecture"):
        load(half)


def test_half_precision_rounds_small_weights_by_a_fixed_amount(finished, tmp_path):
    _, trained = finished
    small = 2.0**-14 * torch.linspace(-1, 1, trained.net.enter.weight.numel())
    with torch.no_grad():
        trained.net.enter.weight.copy_(small.reshape(trained.net.enter.weight.shape))
    save(tmp_path / "half", trained, torch.float16)
    found = load(tmp_path / "half").net.enter.weight.detach().flatten()
    assert (found - small).abs().max() <= 2.0**-25
    assert ((found - small).abs() > 2.0**-11 * small.abs()).any()


def test_weights_without_fractions_are_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="floating-point numbers, got torch.int8"):
        save(tmp_path / "net", finished[1], torch.int8)


def test_weights_too_large_for_half_precision_are_refused(finished, tmp_path):
    _, trained = finished
    with torch.no_grad():
        trained.net.enter.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="finite in torch.float16, got inf or nan"):
        save(tmp_path / "half", trained, torch.float16)
    assert not (tmp_path / "half").exists()


FOLDER = Path(checkpoints.__file__).with_name("weights")
NAMES = sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def test_what_is_shipped_takes_less_than_five_megabytes():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_ready_to_be_evaluated(name):
    trained = shipped(name)
    assert len(trained.losses) == trained.about.steps and trained.losses.isfinite().all()
    x = torch.zeros(2, trained.net.dim)
    assert trained.net(torch.tensor(0.5), x).isfinite().all()
    assert not any(p.requires_grad for p in trained.net.parameters())


def test_a_network_that_is_not_shipped_is_refused_by_its_name():
    with pytest.raises(ValueError, match="come with onepath are digits-data, .* got 'imagenet'"):
        shipped("imagenet")
