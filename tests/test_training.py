"""A run may be killed at any moment and ends where it would have, on one process or on two."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from math import cos, pi
from pathlib import Path

import pytest
import torch
from torch import nn

from onepath import checkpoints, training
from onepath.checkpoints import load, save
from onepath.interpolants import linear
from onepath.networks import MLP
from onepath.objectives import flow_matching
from onepath.training import fit, rows, together
from small_runs import STEPS, about, loss, run


def run_slowly(file: str) -> None:
    """What the killed process does."""
    run(Path(file))


def run_and_die_while_writing(file: str, step: int, moment: str) -> None:
    """Send SIGKILL to itself in the middle of writing a checkpoint."""
    real, writes = getattr(os, moment), []

    def deadly(*arguments):
        writes.append(arguments)
        if len(writes) >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(os, moment, deadly)
    run(Path(file))


@pytest.fixture(scope="module")
def elsewhere():
    """Processes that start from a clean interpreter in which torch is loaded already, with the
    part of it that the first step of any optimizer imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "test_training"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, elsewhere) -> bytes:
    """The checkpoint of a run that nobody kills: weights, average, moments, generator, losses."""
    file = tmp_path_factory.mktemp("whole") / "run.safetensors"
    process = elsewhere.Process(target=run_slowly, args=(str(file),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return file.read_bytes()


# --- the loop


class Slope(nn.Module):
    """A loss that falls at unit slope: Adam moves the weight by exactly the learning rate."""

    architecture = {"name": "slope", "dim": 1}

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))


def test_the_learning_rate_rises_and_falls_and_the_average_forgets_the_start(generator):
    steps, rate, averaging = 300, 0.01, 0.95
    net, trace = Slope(), []

    def falling(net, generator):
        trace.append(net.w.item())
        return -net.w[None]

    done = fit(net, falling, about(net, steps), generator, rate=rate, averaging=averaging)
    position, average = 0.0, 0.0
    for k in range(steps):
        assert trace[k] == pytest.approx(position, abs=1e-6)
        position += rate * min(1, (k + 1) / 100) * (1 + cos(pi * k / steps)) / 2
        keep = min(averaging, (1 + k) / (10 + k))
        average = keep * average + (1 - keep) * position
    assert done.net is net and net.w.item() == pytest.approx(average, abs=1e-6)
    assert torch.allclose(done.losses, -torch.tensor(trace), atol=1e-6)


def test_training_lowers_the_loss_to_what_can_be_reached(generator):
    """A field that knows the target x1 = 0 loses nothing: its velocity is -x / (1 - t)."""
    net = MLP(2, 32, 2, 0, generator)

    def to_a_point(net, generator):
        t = 0.8 * torch.rand(64, generator=generator)
        x0 = torch.randn(64, 2, generator=generator)
        return flow_matching(lambda t, x: net(t, x), linear, t, x0, torch.zeros(64, 2))

    done = fit(net, to_a_point, about(net, 400), generator, rate=5e-3, averaging=0.9)
    assert done.losses[:5].mean() > 1.2 and done.losses[-20:].mean() < 0.1
    x, t = torch.randn(50, 2, generator=generator), torch.tensor(0.5)
    with torch.no_grad():
        assert (net(t, 0.5 * x) + x).square().mean() < 0.1


def test_a_run_is_repeated_by_its_seed():
    one, two = run(None, 20), run(None, 20)
    assert torch.equal(one.losses, two.losses)
    for a, b in zip(one.net.parameters(), two.net.parameters()):
        assert torch.equal(a, b)


def test_a_checkpoint_changes_nothing_about_a_run(tmp_path):
    assert torch.equal(run(None, 20).losses, run(tmp_path / "a", 20).losses)


def test_half_precision_is_for_the_loss_only():
    rough, fine = run(None, 20, precision=torch.bfloat16), run(None, 20)
    assert all(p.dtype == torch.float32 for p in rough.net.parameters())
    assert not torch.equal(rough.losses, fine.losses)
    assert torch.allclose(rough.losses, fine.losses, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "apart"), [(None, 1e-3), (torch.bfloat16, 0.05)])
def test_a_network_is_trained_where_it_is(precision, apart):
    def trained(device):
        def loss(net, generator):
            t, x0 = torch.rand(16, generator=generator), torch.randn(16, 2, generator=generator)
            t, x0 = t.to(device), x0.to(device)
            return flow_matching(lambda t, x: net(t, x), linear, t, x0, 0 * x0)

        generator = torch.Generator().manual_seed(5)
        net = MLP(2, 8, 2, 2, generator).to(device)
        return fit(net, loss, about(net, 20), generator, precision=precision)

    here, there = trained("cpu"), trained("cuda")
    assert next(there.net.parameters()).is_cuda
    assert torch.allclose(there.losses.cpu(), here.losses.cpu(), rtol=apart)


# --- killed at any moment


def test_a_run_that_is_killed_again_and_again_ends_bitwise_where_it_would_have(
    tmp_path, elsewhere, uninterrupted
):
    """Each life must get on a little; the moments of death are drawn at random."""
    file, generator = tmp_path / "run.safetensors", torch.Generator().manual_seed(0)
    kills = 0
    for _ in range(40):
        process = elsewhere.Process(target=run_slowly, args=(str(file),))
        process.start()
        seen = file.stat().st_mtime_ns if file.exists() else 0
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if kills < 4 and file.exists() and file.stat().st_mtime_ns != seen:
                time.sleep(0.05 * torch.rand((), generator=generator).item())
                process.kill()
                break
            time.sleep(0.002)
        process.join()
        if process.exitcode == 0:
            break
        kills += 1
    assert process.exitcode == 0 and kills >= 2
    assert file.read_bytes() == uninterrupted


@pytest.mark.parametrize("step, moment", [(1, "fsync"), (7, "fsync"), (8, "fsync"), (9, "replace")])
def test_a_run_that_dies_while_writing_leaves_the_last_whole_checkpoint(
    tmp_path, elsewhere, uninterrupted, step, moment
):
    file = tmp_path / "run.safetensors"
    process = elsewhere.Process(target=run_and_die_while_writing, args=(str(file), step, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if file.exists():
        with pytest.raises(ValueError, match=f"a finished run, got one at step .* of {STEPS}"):
            load(file)
    run(file)
    assert file.read_bytes() == uninterrupted
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_a_write_that_fails_keeps_the_checkpoint_and_leaves_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "run.safetensors"
    run(file, 10)
    before = file.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(file, run(None, 10))
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["run.safetensors"]


def test_a_run_that_has_ended_is_not_run_again(tmp_path):
    file = tmp_path / "run.safetensors"
    first = run(file, 10)

    def never(net, generator):
        raise AssertionError("the run had ended")

    generator = torch.Generator().manual_seed(5)
    net = MLP(2, 8, 2, 2, generator)
    again = fit(net, never, about(net, 10), generator, checkpoint=file, every=1)
    assert torch.equal(again.losses, first.losses)
    for a, b in zip(again.net.parameters(), first.net.parameters()):
        assert torch.equal(a, b)


def test_a_checkpoint_is_written_after_every_so_many_steps_and_the_last(
    tmp_path, monkeypatch, generator
):
    written, net = [], MLP(2, 8, 2, 2, generator)
    monkeypatch.setattr(training, "write", lambda *what: written.append(what[-1]["step"]))
    fit(net, loss, about(net, 10), generator, checkpoint=tmp_path / "run.safetensors", every=4)
    assert written == [4, 8, 10]


def test_another_seed_is_another_run(tmp_path):
    file = tmp_path / "run.safetensors"
    run(file, 10)
    generator = torch.Generator().manual_seed(6)
    net = MLP(2, 8, 2, 2, generator)
    with pytest.raises(ValueError, match="seed is 5, not 6"):
        fit(net, loss, about(net, 10), generator, checkpoint=file, every=1)


def test_a_run_that_diverges_stops_and_keeps_its_last_finite_state(tmp_path, generator):
    file, net = tmp_path / "run.safetensors", MLP(2, 8, 2, 2, generator)
    calls = []

    def breaks(net, generator):
        calls.append(1)
        return loss(net, generator) * (torch.nan if len(calls) == 8 else 1)

    with pytest.raises(ValueError, match="must be finite, got nan at step 7; lower rate"):
        fit(net, breaks, about(net, 20), generator, checkpoint=file, every=1)
    with pytest.raises(ValueError, match="at step 7 of 20"):
        load(file)


def test_weights_that_diverge_are_never_written_nor_returned(tmp_path, generator):
    file, net = tmp_path / "run.safetensors", MLP(2, 8, 2, 2, generator)
    calls = []

    def breaks(net, generator):
        """A finite loss whose gradient is nan at the eighth step."""
        calls.append(1)
        zero = net.enter.bias.sum() * 0
        return loss(net, generator) + (zero.sqrt() if len(calls) == 8 else 0)

    with pytest.raises(ValueError, match="weights must be finite, got nan or inf at step 7"):
        fit(net, breaks, about(net, 8), generator, checkpoint=file, every=1)
    with pytest.raises(ValueError, match="at step 7 of 8"):
        load(file)


def test_a_description_of_another_network_is_refused(generator):
    net, other = MLP(2, 8, 2, 2, generator), MLP(2, 16, 2, 2, generator)
    with pytest.raises(ValueError, match="about describes"):
        fit(net, loss, about(other, 8), generator)


@pytest.mark.parametrize(
    "how, message",
    [
        ({"rate": 1e-3}, "rate is 0.002, not 0.001"),
        ({"averaging": 0.5}, "averaging is 0.999, not 0.5"),
        ({"precision": torch.bfloat16}, "precision is 'None', not 'torch.bfloat16'"),
        ({"steps": 20}, "steps is 10, not 20"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_gone_on_with(tmp_path, how, message):
    file = tmp_path / "run.safetensors"
    run(file, 10)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another run, whose {message}"):
        run(file, **({"steps": 10} | how))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "how, message",
    [
        ({"rate": 0.0}, "0 < rate < inf"),
        ({"averaging": 1.0}, "0 <= averaging < 1"),
        ({"every": 0}, "every > 0"),
        ({"precision": torch.float16}, "None or torch.bfloat16, got torch.float16"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        run(None, 10, **how)


def test_the_bar_is_silent_unless_somebody_watches(monkeypatch, capsys):
    run(None, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(None, 3)
    assert "3/3" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run(None, 3)
    assert capsys.readouterr().err == ""


# --- on several processes


@pytest.fixture(scope="module")
def on_two_processes(tmp_path_factory) -> Path:
    """The folder in which each of two processes that torchrun started wrote what it found."""
    folder, script = tmp_path_factory.mktemp("two"), Path(__file__).with_name("on_two_processes.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *launch, str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_train_as_one_up_to_rounding(on_two_processes):
    """Each computes half of every batch; the means and the sums round differently, 1e-5."""
    alone = run(None)
    first, second = (json.loads((on_two_processes / f"{i}.json").read_text()) for i in (0, 1))
    assert first["counts"] == second["counts"] == [8]
    assert first["losses"] == second["losses"] and first["weights"] == second["weights"]
    assert torch.allclose(torch.tensor(first["losses"]), alone.losses, rtol=1e-5)
    weights = torch.cat([p.detach().flatten() for p in alone.net.parameters()])
    assert torch.allclose(torch.tensor(first["weights"]), weights, atol=1e-5)
    kept = load(on_two_processes / "run.safetensors")
    assert torch.allclose(kept.losses, alone.losses, rtol=1e-5)


def test_processes_with_seeds_of_their_own_are_refused(on_two_processes):
    for i in (0, 1):
        found = json.loads((on_two_processes / f"{i}.json").read_text())
        assert "the same batches from one seed, got [5, 6]" in found["error"]


def test_processes_that_go_on_from_other_steps_are_refused(monkeypatch, generator):
    """As two machines do whose folders are not the same: one resumes and one begins."""

    def gathered(found, mine):
        found[:] = [mine, (mine[0], 200)]

    monkeypatch.setattr(training, "_processes", lambda: (2, 0))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
    with pytest.raises(ValueError, match=r"one checkpoint, got the steps \[0, 200\]"):
        training._check_alike(generator, 0)
    training._check_alike(generator, 200)


def test_one_process_computes_all_rows_and_joins_nothing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with together():
        assert rows(7) == slice(0, 7)
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("n, count", [(0, 1), (3, 2), (1, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch, n, count):
    monkeypatch.setattr(training, "_processes", lambda: (count, 0))
    with pytest.raises(ValueError, match=f"positive multiple .* got {n} for {count}"):
        rows(n)


def test_the_rows_of_all_processes_are_the_batch(monkeypatch):
    parts = []
    for place in range(3):
        monkeypatch.setattr(training, "_processes", lambda place=place: (3, place))
        parts += list(range(12))[rows(12)]
    assert parts == list(range(12))


@pytest.mark.parametrize(
    "value", [torch.zeros(0), torch.tensor(1.0), torch.zeros(3, 2)], ids=["empty", "number", "two"]
)
def test_a_loss_that_is_not_one_number_for_each_sample_is_refused(value, generator):
    net = MLP(2, 8, 2, 2, generator)
    with pytest.raises(ValueError, match="one number for each sample of a batch that is not empty"):
        fit(net, lambda net, generator: value, about(net, 8), generator)


def test_nan_stops_a_run_before_a_step_is_made(generator):
    net = MLP(2, 8, 2, 2, generator)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match="a loss must be finite, got nan at step 0"):
        fit(net, lambda net, generator: loss(net, generator) * torch.nan, about(net, 8), generator)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before))
