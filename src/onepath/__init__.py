"""Transport of measures, in reading order.

Read the modules from top to bottom. Each one imports only modules above it, which a test enforces,
so the import graph is the table of contents of the package.
"""

import os

import torch

__version__ = "0.1.0"

READING_ORDER = (
    "shapes",  # chapter 0: notation
    "calculus",  # chapter 1: derivatives of fields
    "verify",  # chapter 1: what counts as a check
    "measures",  # chapter 2
    "plane",  # chapter 2: the named laws of the plane
    "metrics",  # chapter 2
    "transport",  # chapter 2: plans and maps
    "grids",  # chapter 3
    "grid_fields",  # chapter 3
    "interpolants",  # chapter 4
    "noising",  # chapter 4
    "oracles",  # chapter 4
    "empirical",  # chapter 8: when the target is a set of points
    "fields",  # chapter 0 states the table, chapter 9 derives it
    "conventions",  # chapter 0: how the clocks and signs of other papers translate
    "papers",  # chapter 0: those papers, a row each
    "dynamics",  # chapters 5 and 6
    "solvers",  # chapter 6
    "likelihood",  # chapter 7
    "objectives",  # chapter 13, and chapters 8 to 11
    "latent",  # chapter 11
    "weightings",  # chapter 9: errors and losses against time
    "couplings",  # chapter 12
    "time_grids",  # chapter 14
    "step_tables",  # chapter 14: what samplers share
    "correctors",  # chapter 14: noise around a step
    "multisteps",  # chapter 14: samplers with memory
    "samplers",  # chapter 14
    "discretization",  # chapter 15
    "control",  # chapter 17
    "control_oracles",  # chapter 17: problems with a closed answer
    "bridges",  # chapter 18
    "potentials",  # chapter 18: bridges by their potentials
    "light_bridges",  # chapter 19: a potential with few parameters
    "light_fits",  # chapter 19: and how it is found
    "bridge_matching",  # chapter 19: pairs in, drifts out, pairs out
    "bridge_fitting",  # chapter 19: and again
    "guarantees",  # chapter 20
    "prices",  # chapter 21: what an error costs
    "networks",  # chapter 13
    "images",  # chapter 13
    "checkpoints",  # chapter 13
    "training",  # chapter 13
    "archives",  # chapter 13: where whole image sets come from
    "data",  # chapter 13
    "remake",  # chapter 13: how the networks that come with the package were trained
    "guidance",  # chapter 16
    "inverse",  # chapter 16: measurements, and the posteriors that they leave
    "exercises_start",  # chapters 0 and 1
    "exercises_transport",  # chapters 2 and 3
    "exercises_noising",  # chapters 4 and 5
    "exercises_motion",  # chapters 6 and 7
    "exercises_learning",  # chapters 8, 9 and 13
    "exercises_matching",  # chapters 10 and 11
    "exercises_couplings",  # chapter 12
    "exercises_sampling",  # chapters 14 to 16
    "exercises_control",  # chapter 17
    "exercises_bridges",  # chapters 18 and 19
    "exercises_guarantees",  # chapter 20
    "exercises_map",  # chapter 21
    "exercises",  # every chapter
    "page",  # tables, and pictures with a slider
    "plotting",  # figures, last: nothing depends on them
    "plotting_time",
    "plotting_plane",
    "plotting_learning",
    "plotting_sampling",
    "plotting_bridges",
    "plotting_prices",
)


def device() -> torch.device:
    """The best device there is, CUDA if present, else the CPU; ONEPATH_DEVICE overrules it.

    Raises ValueError where ONEPATH_DEVICE asks for CUDA and there is none.
    """
    present = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = os.environ.get("ONEPATH_DEVICE", present)
    if wanted not in ("cpu", present):
        raise ValueError(f"ONEPATH_DEVICE is cpu or cuda and must be present, got {wanted!r} here.")
    return torch.device(wanted)
