"""A run of training that takes a moment: for tests of the loop and of its checkpoints."""

from pathlib import Path

import torch

from onepath.checkpoints import About, Trained
from onepath.interpolants import linear
from onepath.networks import MLP, given
from onepath.objectives import flow_matching
from onepath.training import fit, rows

STEPS = 40


def about(net, steps=STEPS, **change) -> About:
    parts = dict(
        architecture=net.architecture,
        interpolant="linear",
        prediction="velocity",
        data="none",
        data_digest="0" * 64,
        image_shape=[1, 2],
        image_range=[-1.0, 1.0],
        steps=steps,
    )
    return About(**(parts | change))


def loss(net, generator):
    """Flow matching from noise to noise, with labels: what it learns does not matter here."""
    t, y = torch.rand(16, generator=generator), torch.randint(3, (16,), generator=generator)
    x0, x1 = torch.randn(2, 16, 2, generator=generator)
    t, y, x0, x1 = (a[rows(16)] for a in (t, y, x0, x1))
    return flow_matching(given(net, y), linear, t, x0, x1)


def run(file: Path | None, steps: int = STEPS, every: int = 1, **how) -> Trained:
    generator = torch.Generator().manual_seed(5)
    net = MLP(2, 8, 2, 2, generator)
    return fit(net, loss, about(net, steps), generator, checkpoint=file, every=every, **how)
