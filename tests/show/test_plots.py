from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tinyvla.data.dataset import BlockFind
from tinyvla.show.plots import angle_between, plot_history, plot_predictions, plot_sample


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_sample_shows_its_instruction_and_arrow():
    sample = BlockFind(1, 0)[0]
    fig, ax = plot_sample(sample)
    assert ax.get_title() == sample.instruction
    assert ax.get_legend_handles_labels()[1] == ["true"]
    assert ax.figure is fig


def test_dollars_are_no_mathematics():
    fig, ax = plot_sample(replace(BlockFind(1, 0)[0], instruction=r"find $\frac{ red$ block"))
    fig.canvas.draw()
    assert ax.get_title() == r"find $\frac{ red$ block"


def test_predictions_fill_a_grid():
    split = BlockFind(5, 0)
    _, axes = plot_predictions(split, split.actions)
    assert axes.shape == (2, 4)
    assert [ax.get_xlabel() for ax in axes.flat[:5]] == ["off by 0.0°"] * 5
    assert not axes.flat[5].axison


def test_angle_between():
    assert angle_between(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == pytest.approx(90)
    assert angle_between(np.array([1.0, 0.1]), np.array([1.0, 0.1])) == pytest.approx(0, abs=1e-6)


def test_history():
    record = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.4, "direction_accuracy": 0.2}
    _, axes = plot_history([record, {**record, "epoch": 2}])
    assert axes[0].get_yscale() == "log"
