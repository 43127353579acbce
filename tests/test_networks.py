"""A network is a field: shape, dtype and device follow the state, labels mean what they say."""

from math import pi

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st

from laws import same_rows
from onepath.calculus import divergence
from onepath.checkpoints import build
from onepath.networks import MLP, drop_labels, given, unconditional
from onepath.verify import expect, mean, refute


def network(seed=0, dim=3, width=8, depth=2, classes=4, alive=True) -> MLP:
    g = torch.Generator().manual_seed(seed)
    net = MLP(dim, width, depth, classes, g)
    if alive:  # a new network is zero; give its last layer weights
        with torch.no_grad():
            net.leave.weight.normal_(generator=g)
    return net


def draw(n, d=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=g), torch.randn(n, d, generator=g)


@for_all(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2))
def test_each_row_sees_its_own_time_state_and_label(n, d, classes):
    net = network(dim=d, classes=classes)
    t, x = draw(n, d)
    assert same_rows(unconditional(net), t, x) < 1e-5
    assert same_rows(unconditional(net), t[0], x) < 1e-5
    if classes:
        y = torch.arange(n) % (classes + 1)
        rows = [net(t[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in range(n)]
        assert torch.allclose(given(net, y)(t, x), torch.cat(rows), atol=1e-5)


def test_a_new_network_is_the_field_zero():
    t, x = draw(5)
    assert torch.equal(network(alive=False)(t, x), torch.zeros(5, 3))


def test_time_state_and_label_all_matter():
    net = network()
    t, x = draw(5)
    y = torch.tensor([0, 1, 2, 3, 4])
    base = net(t, x, y)
    for other in (net(t + 0.1, x, y), net(t, x + 0.1, y), net(t, x, (y + 1) % 5)):
        assert ((other - base).abs().amax(1) > 1e-3).all()


def test_without_labels_a_network_means_no_class():
    net = network()
    t, x = draw(5)
    assert torch.equal(net(t, x), net(t, x, torch.full((5,), 4)))
    assert torch.equal(unconditional(net)(t, x), net(t, x))
    assert not torch.allclose(net(t, x), net(t, x, torch.full((5,), 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_decides_about_dtype_and_device(dtype, device):
    net = network().to(device, dtype)
    t, x = torch.tensor(0.3, dtype=torch.float64), draw(5)[1].to(device, dtype)
    v = net(t, x)
    assert v.dtype == dtype and v.device == x.device
    assert torch.allclose(v, net(t.to(device).expand(5), x), atol=1e-6)


def test_time_enters_as_waves_half_an_octave_apart():
    net, seen = network(), []
    net.time.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    t, x = draw(5)
    net(t, x)
    omega = torch.tensor([pi / 2 * 2 ** (k / 2) for k in range(16)], dtype=torch.float64)
    wave = torch.exp(1j * t.double()[:, None] * omega)
    assert torch.allclose(seen[0].double(), torch.cat([wave.real, wave.imag], 1), atol=1e-4)


def test_the_layers_are_a_residual_perceptron_and_nothing_else():
    """Written out once more with plain matrices."""
    net = network()
    t, x = draw(5)
    y = torch.tensor([0, 4, 1, 1, 2])
    W = {k: v.double() for k, v in net.state_dict().items()}
    affine = lambda name, h: h @ W[f"{name}.weight"].T + W[f"{name}.bias"]
    smooth = lambda h: h / (1 + torch.exp(-h))
    omega = torch.tensor([pi / 2 * 2 ** (k / 2) for k in range(16)], dtype=torch.float64)
    phase = t.double()[:, None] * omega
    c = smooth(affine("time", torch.cat([phase.cos(), phase.sin()], 1)) + W["label.weight"][y])
    h = affine("enter", x.double())
    for k in (0, 1):
        h = h + affine(f"layers.{k}", smooth(h + affine(f"shifts.{k}", c)))
    assert torch.allclose(net(t, x, y).double(), affine("leave", smooth(h)), atol=1e-4)


def test_fresh_weights_have_the_law_that_keeps_a_layer_of_unit_size():
    """Uniform of variance 1 / (3 inputs), as PyTorch draws them; labels standard normal."""
    net = network(dim=40, width=200, classes=50, alive=False)
    for layer, inputs in ((net.enter, 40), (net.layers[0], 200), (net.shifts[1], 200)):
        square = layer.weight.detach().flatten() ** 2 * inputs
        expect(mean("eq:cfm-loss", square, 1 / 3))
        refute(mean("eq:cfm-loss", square, 1.0), "factor: variance 1 / inputs")
        assert layer.weight.abs().max() <= inputs**-0.5 and layer.bias.abs().max() > 0
    expect(mean("eq:cfm-loss", net.label.weight.detach().flatten() ** 2, 1.0))


def test_weights_are_repeated_by_their_seed_and_by_nothing_else():
    one, same, other = (network(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["enter.weight"], other["enter.weight"])


def test_a_network_can_be_differentiated_as_every_field():
    net = network().double()
    t, x = (a.double() for a in draw(4))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z, s: net(s, z[None])[0]))(x, t)
    exact = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    assert torch.allclose(divergence(unconditional(net), t, x), exact, atol=1e-9)


def test_a_network_is_built_again_from_its_description():
    net = network()
    again = build(net.architecture, torch.Generator().manual_seed(7))
    again.load_state_dict(net.state_dict())
    assert again.architecture == net.architecture == {
        "name": "MLP", "dim": 3, "width": 8, "depth": 2, "classes": 4
    }  # fmt: skip
    t, x = draw(5)
    assert torch.equal(net(t, x), again(t, x))


def test_labels_are_dropped_at_the_rate_asked_for(generator):
    net = network()
    y = torch.randint(4, (20_000,), generator=generator)
    dropped = drop_labels(net, y, 0.1, generator)
    gone = dropped == 4
    assert torch.equal(dropped[~gone], y[~gone])
    expect(mean("eq:cfm-loss", gone.float(), 0.1))
    refute(mean("eq:cfm-loss", gone.float(), 0.9), "wrong object: the share that is kept")
    assert torch.equal(drop_labels(net, y, 0.0, generator), y)
    assert (drop_labels(net, y, 1.0, generator) == 4).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, t, x: given(net, torch.tensor([0, 5])), r"between 0 and 4 \(no class\)"),
        (lambda net, t, x: given(net, torch.tensor([-1, 0])), "got -1 to 0"),
        (lambda net, t, x: net(t, x, torch.zeros(4).long()), "labels|parameter 'y'"),
        (lambda net, t, x: net(t, x, torch.zeros(5).int()), "labels are int64"),
        (
            lambda net, t, x: network(classes=0)(t, x, torch.zeros(5).long()),
            "classes=0, got labels",
        ),
        (lambda net, t, x: network(width=0), "at least 1"),
        (lambda net, t, x: network(classes=-1), "got 3, 8, 2 and -1"),
        (lambda net, t, x: build({"name": "UNet"}, torch.Generator()), "out of MLP, UNet"),
        (
            lambda net, t, x: build(net.architecture | {"heads": 4}, torch.Generator()),
            "a newer onepath may know it",
        ),
        (
            lambda net, t, x: drop_labels(net, torch.zeros(2).long(), 1.5, torch.Generator()),
            "between 0 and 1, got 1.5",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(network(), *draw(5))


@pytest.mark.parametrize("shape", [(4,), (1,), (5, 1)])
def test_times_are_one_for_all_states_or_one_for_each(shape):
    """Said by the network itself, or by the check of shapes that runs with the tests."""
    with pytest.raises((ValueError, TypeError), match="one for each of 5|parameter '[tx]'"):
        network()(torch.zeros(shape), draw(5)[1])


def test_no_states_have_no_velocities():
    assert network()(torch.tensor(0.5), draw(0)[1]).shape == (0, 3)


def test_states_of_another_dimension_are_refused():
    t, x = draw(5, 4)
    with pytest.raises(ValueError, match=r"states are \(n, 3\), got \(5, 4\)"):
        network()(t, x)
