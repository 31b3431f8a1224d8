from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tinyvla.config import PRESETS

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))


@pytest.fixture(autouse=True)
def one_thread():
    """More would wait for each other on a machine that does other work, and these tensors are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    """For experiments whose steps are recorded on a GPU."""
    return request.param


@pytest.fixture
def tiny_preset(tiny_config, monkeypatch) -> str:
    """The name of a preset that trains in no time."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    return "tiny"
