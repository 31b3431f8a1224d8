"""Shared fixtures. Importing tinyvla under jaxtyping's hook checks every shape in every test at run time."""

from __future__ import annotations

import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # two workers on two cores: one thread each, for the notebooks' kernels as well
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("MPLBACKEND", None)  # the notebooks' kernels inherit the environment; they need their own backend

import matplotlib

matplotlib.use("Agg")

from jaxtyping import install_import_hook

install_import_hook("tinyvla", "beartype.beartype")

import pytest
import torch
from book_site import book, chromium, site  # noqa: F401 - fixtures of two files
from policies import awakened

from tinyvla.config import FusionConfig, HeadConfig, LanguageConfig, ModelConfig, VisionConfig
from tinyvla.model.policy import TinyVLA, new_policy


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A policy small enough to build anywhere."""
    return ModelConfig(
        VisionConfig(embed_dim=16, num_layers=1, num_heads=2),
        LanguageConfig(embed_dim=16, num_layers=1, num_heads=2),
        FusionConfig(embed_dim=16, num_heads=2),
        HeadConfig(hidden_dim=16),
    )


@pytest.fixture
def tiny_policy(tiny_config: ModelConfig) -> TinyVLA:
    return awakened(new_policy(tiny_config, seed=0)).eval()


SLOW = 30  # seconds


def pytest_configure(config: pytest.Config) -> None:
    """In CI, the process that reports names each slow test as it ends; a run that is cut off shows where it was."""
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SlowTests(config))


class SlowTests:
    """Writes a line for each test, fixture or notebook cell that took long."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.started = config, time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.duration > SLOW:
            minutes = (time.monotonic() - self.started) / 60
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f"\n{minutes:.1f} min: {report.when} took {report.duration:.0f} s: {report.nodeid}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, and shown as skipped, where there is no CUDA GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
