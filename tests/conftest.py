"""Fixtures of the unit tests: a seeded generator and the devices of this machine."""

import jaxtyping
import pytest
import torch
from hypothesis import settings

import annotations

jaxtyping.jaxtyped = annotations.jaxtyped  # before anything imports the package
settings.register_profile("book", deadline=None, derandomize=True, max_examples=20, database=None)
settings.load_profile("book")

torch.set_num_threads(1)  # small tensors: threads that wait for each other cost 17 times the work

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GPU = {"cpu": (), "cuda": (pytest.mark.gpu,)}


@pytest.fixture(params=[pytest.param(name, marks=GPU[name]) for name in DEVICES])
def device(request) -> torch.device:
    """Every device present, one after the other."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """Fresh for each test, so that no test depends on the order of the others."""
    return torch.Generator().manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test and its fixtures have annotations checked, whatever ran before."""
    annotations.forget()


@pytest.fixture(autouse=True)
def untouched_global_randomness():
    """Whatever is random takes a generator: no test, and nothing it calls, may draw without one."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "something drew from the global generator."
