"""Train on every process that torchrun starts, and write down what came out: FOLDER, SEED STEP."""

import json
import os
import sys
from pathlib import Path

import torch

from onepath.networks import MLP
from onepath.training import fit, together
from small_runs import STEPS, about, loss


def main(folder: Path, seeds_differ: bool) -> None:
    rank = int(os.environ["RANK"])
    counts = []

    def counted(net, generator):
        losses = loss(net, generator)
        counts.append(len(losses))
        return losses

    generator = torch.Generator().manual_seed(5 + rank * seeds_differ)
    net = MLP(2, 8, 2, 2, generator)
    with together():
        try:
            done = fit(
                net, counted, about(net), generator, checkpoint=folder / "run.safetensors", every=10
            )
            found = {"losses": done.losses.tolist(), "counts": sorted(set(counts))}
            found["weights"] = torch.cat([p.flatten() for p in net.parameters()]).tolist()
        except ValueError as error:
            found = {"error": str(error)}
    assert STEPS == 40
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "seeds-differ")
