"""The device on which the networks of the chapters run."""

import pytest
import torch

import onepath


def test_the_best_device_is_taken_unless_the_environment_names_one(monkeypatch):
    monkeypatch.delenv("ONEPATH_DEVICE", raising=False)
    assert onepath.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("ONEPATH_DEVICE", "cpu")
    assert onepath.device().type == "cpu"


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "tpu"):
        monkeypatch.setenv("ONEPATH_DEVICE", name)
        with pytest.raises(ValueError, match="must be present, got"):
            onepath.device()
