"""A U-Net is a field: it sees each state alone, its time and its label, and strokes move along."""

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, group_norm, silu

from laws import same_rows
from onepath import fields
from onepath.calculus import divergence
from onepath.checkpoints import build
from onepath.data import Dataset
from onepath.images import UNet
from onepath.networks import given, unconditional
from onepath.remake import Recipe, about, independent, loss_on
from onepath.training import fit


def network(height=8, width=12, channels=8, depth=1, classes=4, alive=True) -> UNet:
    g = torch.Generator().manual_seed(0)
    net = UNet(height, width, channels, depth, classes, g)
    if alive:  # a new network is zero; give its last layer weights
        with torch.no_grad():
            net.leave.weight.normal_(generator=g)
    return net


def draw(n, d=96, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=g), torch.randn(n, d, generator=g)


@settings(max_examples=10)
@for_all(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2))
def test_each_row_sees_its_own_time_state_and_label(n, depth, classes):
    net = network(depth=depth, classes=classes)
    t, x = draw(n)
    assert same_rows(unconditional(net), t, x) < 1e-4
    assert same_rows(unconditional(net), t[0], x) < 1e-4
    if classes:
        y = torch.arange(n) % (classes + 1)
        rows = [net(t[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in range(n)]
        assert torch.allclose(given(net, y)(t, x), torch.cat(rows), atol=1e-4)


def test_no_states_have_no_velocities():
    assert network()(torch.tensor(0.5), draw(0)[1]).shape == (0, 96)


def test_a_new_network_is_the_field_zero():
    t, x = draw(5)
    assert torch.equal(network(alive=False)(t, x), torch.zeros(5, 96))


def test_time_state_and_label_all_matter():
    net = network()
    t, x = draw(5)
    y = torch.tensor([0, 1, 2, 3, 4])
    base = net(t, x, y)
    for other in (net(t + 0.1, x, y), net(t, x + 0.1, y), net(t, x, (y + 1) % 5)):
        assert ((other - base).abs().amax(1) > 1e-3).all()
    assert torch.equal(net(t, x), net(t, x, torch.full((5,), 4)))


def test_the_network_is_a_u_and_nothing_else():
    """Written out once more with plain convolutions, folding pixels by slices."""
    net = network(depth=2).double()
    t, x = (a.double() for a in draw(3))
    y = torch.tensor([0, 4, 2])
    W = net.state_dict()
    omega = net.frequencies.double()
    phase = t[:, None] * omega
    wave = torch.cat([phase.cos(), phase.sin()], 1)
    about = silu(wave @ W["time.weight"].T + W["time.bias"] + W["label.weight"][y])
    layer = lambda name, h, **how: conv2d(h, W[f"{name}.weight"], W[f"{name}.bias"], **how)

    def block(name, h):
        ab = about @ W[f"{name}.scale_and_shift.weight"].T + W[f"{name}.scale_and_shift.bias"]
        c = h.shape[1]
        a, b = ab[:, :c, None, None], ab[:, c:, None, None]
        inner = layer(f"{name}.first", silu((1 + a) * group_norm(h, 8) + b), padding=1)
        return h + layer(f"{name}.second", silu(inner), padding=1)

    def fold(z):
        return torch.stack([z[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 2).flatten(1, 2)

    def unfold(z):
        n, c, h, w = z.shape
        out = z.new_zeros(n, c // 4, 2 * h, 2 * w)
        for k in range(4):
            out[..., k // 2 :: 2, k % 2 :: 2] = z[:, k::4]
        return out

    kept = block("inwards", layer("enter", fold(x.reshape(3, 1, 8, 12)), padding=1))
    h = layer("down", kept, padding=1, stride=2)
    for k in (0, 1):
        h = block(f"middle.{k}", h)
    h = block("outwards", kept + unfold(layer("up", h)))
    wanted = unfold(layer("leave", silu(h), padding=1)).reshape(3, 96)
    assert torch.allclose(net(t, x, y), wanted, atol=1e-9)


def test_a_picture_that_is_moved_moves_the_field_with_it():
    """By four pixels, far from the border: what the perceptron would have to learn."""
    net = network(40, 40)
    picture = torch.zeros(1, 40, 40)
    picture[:, 18:22, 18:22] = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    moved = picture.roll(4, dims=2)
    t = torch.tensor(0.3)
    field = lambda p: net(t, p.reshape(1, -1)).reshape(1, 40, 40)
    # group norms see the whole image, which the move leaves as it is but for the border
    inner = (slice(None), slice(12, 28), slice(12, 24))
    assert torch.allclose(field(picture)[inner], field(moved).roll(-4, dims=2)[inner], atol=0.1)
    assert not torch.allclose(field(picture)[inner], field(moved)[inner], atol=1.0)


def test_the_state_decides_about_dtype_and_device(device):
    net = network().to(device, torch.float64)
    x = draw(5)[1].to(device, torch.float64)
    v = net(torch.tensor(0.3, dtype=torch.float64), x)
    assert v.dtype == torch.float64 and v.device == x.device
    single = network().to(device)(torch.tensor(0.3), x.float())
    assert single.dtype == torch.float32 and torch.allclose(v.float(), single, atol=1e-4)


def test_a_network_can_be_differentiated_as_every_field():
    net = network(4, 4, classes=0).double()
    t, x = (a.double() for a in draw(3, 16))
    step = 1e-6 * torch.eye(16, dtype=torch.float64)
    rise = [net(t, x + e) - net(t, x - e) for e in step]
    slope = torch.stack([rise[k][:, k] for k in range(16)]).sum(0) / 2e-6
    assert torch.allclose(divergence(unconditional(net), t, x), slope, atol=1e-5)


def test_a_network_is_built_again_from_its_description():
    net = network(depth=2)
    again = build(net.architecture, torch.Generator().manual_seed(7))
    again.load_state_dict(net.state_dict())
    t, x = draw(3)
    assert again.architecture == net.architecture and torch.equal(net(t, x), again(t, x))
    with pytest.raises(ValueError, match="that network's sizes"):
        build(net.architecture | {"heads": 4}, torch.Generator())
    with pytest.raises(ValueError, match="that network's sizes"):
        build({**net.architecture, "name": "MLP"}, torch.Generator())


def test_weights_are_repeated_by_their_seed():
    one, same = network().state_dict(), network().state_dict()
    assert all(torch.equal(one[k], same[k]) for k in one)


def test_a_u_net_learns_in_half_precision_what_it_learns_in_single():
    """Three steps from the same seed; bfloat16 keeps eight bits, so a per cent of the losses."""
    data = Dataset(
        "ramps", torch.linspace(-1, 1, 64).expand(4, 64), torch.arange(4), (8, 8), (0, 255), "here"
    )
    recipe = Recipe(fields.velocity, "linear")

    def losses(precision):
        generator = torch.Generator().manual_seed(0)
        net = UNet(8, 8, 8, 1, 4, generator)
        loss = loss_on(independent(data), recipe, 32)
        return fit(net, loss, about(net, recipe, 3, data), generator, precision=precision).losses

    rough, fine = losses(torch.bfloat16), losses(None)
    assert not torch.equal(rough, fine) and torch.allclose(rough, fine, rtol=0.02)


@pytest.mark.parametrize(
    "how, message",
    [
        ({"height": 10}, "multiples of 4"),
        ({"width": 6}, "multiples of 4"),
        ({"channels": 12}, "channels a multiple of 8"),
        ({"depth": 0}, "depth of at least 1"),
        ({"classes": -1}, "classes of at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        network(**how)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, t, x: net(t, x[:, :-1]), r"states are \(n, 96\)|parameter 'x'"),
        (lambda net, t, x: net(t, x, torch.zeros(5).int()), "labels are int64"),
        (
            lambda net, t, x: network(classes=0)(t, x, torch.zeros(5).long()),
            "classes=0, got labels",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(network(), *draw(5))
