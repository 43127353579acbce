"""The shipped networks come out of their recipes, and the pairs are what they are said to be."""

import sys

import pytest
import torch

from onepath import fields, remake
from onepath.checkpoints import load, shipped
from onepath.data import digits, mnist5000, split
from onepath.dynamics import Dynamics
from onepath.interpolants import trigonometric
from onepath.metrics import wasserstein2
from onepath.networks import MLP, drop_labels, given
from onepath.solvers import heun, integrate, times
from onepath.training import fit
from onepath.verify import expect, mean, refute


@pytest.fixture(scope="module")
def train():
    return split(digits(), 360, torch.Generator().manual_seed(13))[0]


def test_every_recipe_has_its_network_and_every_network_its_recipe(train):
    for name, recipe in remake.RECIPES.items():
        about = shipped(name).about
        net = shipped(name).net
        assert about == remake.about(net, recipe, about.steps, train)


def test_the_larger_network_saw_the_images_that_its_recipe_says():
    about = shipped("mnist-flow").about
    data = split(mnist5000(), 500, torch.Generator().manual_seed(13))[0]
    assert (about.data, about.data_digest) == (data.name, data.digest)
    assert sum(p.numel() for p in shipped("mnist-flow").net.parameters()) < 1_000_000


class Enough(Exception):
    """Ends a run early, with the learning rates of the whole one."""


def test_the_first_steps_of_a_recipe_are_those_of_the_shipped_network():
    """Losses of twenty steps, from the same seed; later ones depend on how a computer rounds."""
    generator = torch.Generator().manual_seed(13)
    data, _ = split(digits(), 360, generator)
    recipe, seen = remake.RECIPES["digits-flow"], []
    net, file = MLP(64, 192, 3, 10, generator), shipped("digits-flow")
    loss = remake.loss_on(remake.independent(data), recipe, 256)

    def counted(net, generator):
        if len(seen) == 20:
            raise Enough
        losses = loss(net, generator)
        seen.append(losses.mean().item())
        return losses

    with pytest.raises(Enough):
        fit(net, counted, file.about, generator, rate=remake.RATE)
    assert torch.allclose(torch.tensor(seen), file.losses[:20], rtol=1e-3)


def test_the_loss_of_a_recipe_is_the_regression_written_out(train):
    """For v-prediction on the circle, from the same draws."""
    recipe, pairs = remake.RECIPES["digits-v"], remake.independent(train)
    net = shipped("digits-v").net
    found = remake.loss_on(pairs, recipe, 32)(net, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    x0, x1, y = pairs(32, again)
    y, t = drop_labels(net, y, 0.1, again), torch.rand(32, generator=again)
    alpha, sigma = (torch.pi * t / 2).sin()[:, None], (torch.pi * t / 2).cos()[:, None]
    guess = given(net, y)(t, alpha * x1 + sigma * x0)
    assert torch.allclose(found, (guess - alpha * x0 + sigma * x1).square().sum(1), rtol=1e-4)
    assert recipe.path is trigonometric and recipe.prediction is fields.v_prediction


def test_optimal_pairs_stay_in_their_class_and_leave_the_noise_as_it_was(train):
    generator = torch.Generator().manual_seed(1)
    x0, x1, y = remake.optimal_in_each_class(train, 60, generator)(20_000, generator)
    means = torch.stack([train.points[train.labels == c].mean(0) for c in range(10)])
    nearest_mean = torch.cdist(x1, means).argmin(1)
    assert (nearest_mean == y).float().mean() > 0.85
    seen, place = x0.unique(dim=0, return_inverse=True)
    assert len(seen) == 600
    first = torch.empty(600, dtype=torch.int64).scatter_(0, place, torch.arange(len(x0)))
    x0, x1, y = x0[first], x1[first], y[first]
    expect(mean("eq:class-base", x0[:, 20].double(), 0.0))
    expect(mean("eq:class-base", x0.square().sum(1).double(), 64.0))
    for c in range(10):
        least = wasserstein2(x0[y == c], x1[y == c]) ** 2
        assert (x0 - x1)[y == c].square().sum(1).mean().item() == pytest.approx(least, rel=1e-5)
    unit = (means[3] - means.mean(0)) / (means[3] - means.mean(0)).norm()
    toward = (x0 @ unit)[y == 3].double()
    expect(mean("eq:class-base", toward, 0.0))
    refute(mean("eq:class-base", (x1 @ unit)[y == 3].double(), 0.0), "wrong object: the image")


def test_pairs_of_a_reflow_are_the_two_ends_of_one_flow(train):
    teacher, generator = shipped("digits-flow"), torch.Generator().manual_seed(1)
    x0, x1, y = remake.reflow(teacher, train, 12, generator)(8, generator)
    again = integrate(heun(Dynamics(given(teacher.net, y))), x0, times(25))
    assert torch.allclose(x1, again, atol=1e-4)
    assert not torch.allclose(x1, again.roll(1, 0), atol=1e-1)


@pytest.fixture
def planned(monkeypatch):
    """What the two makers would train, without training: by name, and the sizes of stored pairs."""
    plans, sizes = {}, {}

    def train(folder, name, recipe, net, pairs, batch, about, generator):
        plans[name] = (recipe, net, pairs, batch, about, generator)
        return name

    def stored(what):
        def pairs(*arguments):
            *known, n, generator = arguments
            sizes[what] = (known[0], n)
            return what

        return pairs

    monkeypatch.setattr(remake, "train", train)
    monkeypatch.setattr(remake, "reflow", stored("reflow"))
    monkeypatch.setattr(remake, "optimal_in_each_class", stored("optimal"))
    return plans, sizes


def test_the_command_plans_what_was_shipped(planned, train, tmp_path):
    plans, sizes = planned
    remake.remake_digits(tmp_path)
    remake.remake_mnist(tmp_path)
    assert list(plans) == [*remake.RECIPES, "mnist-flow"]
    for name, (recipe, net, pairs, batch, about, generator) in plans.items():
        assert about == shipped(name).about and net.architecture == about.architecture
        assert generator.initial_seed() == 13
        if recipe.coupling == "independent":
            loss = remake.loss_on(pairs, recipe, batch)(net, generator)
            assert len(loss) == (64 if name == "mnist-flow" else 256) == batch
            assert loss.mean().item() == pytest.approx(shipped(name).losses[0].item(), rel=1e-4)
    assert plans["digits-reflow"][2] == "reflow" and sizes["reflow"] == ("digits-flow", 20_000)
    assert plans["digits-optimal"][2] == "optimal" and sizes["optimal"][1] == 2_000
    assert sizes["optimal"][0].digest == train.digest


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch, capsys):
    begun = []
    monkeypatch.setitem(remake.MAKERS, "digits", begun.append)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setattr(sys, "argv", ["remake", "digits", str(folder)])
        with pytest.raises(SystemExit):
            remake.main()
        assert "a folder that can be written to, got" in capsys.readouterr().err
    assert not begun


def test_the_command_says_how_long_it_takes_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    net_of = lambda g: MLP(64, 8, 1, 10, g)

    def small(folder):
        generator = torch.Generator().manual_seed(13)
        data, _ = split(digits(), 360, generator)
        recipe, net = remake.RECIPES["digits-data"], net_of(generator)
        what = remake.about(net, recipe, 6, data)
        remake.train(folder, "small", recipe, net, remake.independent(data), 16, what, generator)

    monkeypatch.setitem(remake.MAKERS, "digits", small)
    monkeypatch.setattr(sys, "argv", ["remake", "digits", str(tmp_path / "new")])
    remake.main()
    assert "minutes on one CPU core; not measured on a GPU" in capsys.readouterr().out
    first = (tmp_path / "new" / "small.safetensors").read_bytes()
    remake.main()
    assert (tmp_path / "new" / "small.safetensors").read_bytes() == first
    assert load(tmp_path / "new" / "small.safetensors").about.prediction == "data"
