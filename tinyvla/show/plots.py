"""Figures. Each function returns `(fig, ax)` and shows or saves nothing.

Notable:
- one colour per part of a policy, the same in every figure and drawing of the course.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyvla.data.dataset import IMAGE_SIZE, BlockFind, Sample
from tinyvla.files import PICTURES, as_path, check_output, write_atomically

PART_COLORS = {"vision": "#2a78b5", "language": "#d1741b", "fusion": "#7a4fb0", "action": "#c2185b"}
TRUE_COLOR = "#222222"


def draw_arrow(ax: Axes, action: Float[np.ndarray, "2"], color: str, label: str, **style: Any) -> None:
    """Draw an action as an arrow from the image's centre, `0.4` image sides long for a unit vector."""
    center = (IMAGE_SIZE - 1) / 2
    length = 0.4 * IMAGE_SIZE
    style = {"width": 0.9, "head_width": 4.0, "length_includes_head": True, **style}
    ax.arrow(center, center, *(length * np.asarray(action, dtype=float)), color=color, label=label, **style)


def plot_sample(
    sample: Sample, predicted: Float[np.ndarray, "2"] | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """A scene with its instruction, the true arrow and, if given, the predicted one."""
    if ax is None:
        _, ax = plt.subplots(figsize=(3.2, 3.4), layout="constrained")
    ax.imshow(sample.image.transpose(1, 2, 0), interpolation="nearest")
    draw_arrow(ax, sample.action, TRUE_COLOR, "true", alpha=0.35 if predicted is not None else 1.0, width=1.6)
    if predicted is not None:
        draw_arrow(ax, predicted, PART_COLORS["action"], "predicted")
    ax.set_title(sample.instruction, fontsize=10, parse_math=False)
    ax.set_xticks([])
    ax.set_yticks([])
    fig = ax.get_figure(root=True)
    assert fig is not None
    return fig, ax


def plot_predictions(
    split: BlockFind, predicted: Float[np.ndarray, "n 2"], columns: int = 4
) -> tuple[Figure, np.ndarray]:
    """A grid of scenes, each with the true arrow, the predicted one and the angle between them."""
    rows = -(-len(predicted) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.85 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(predicted) :]:
        ax.axis("off")
    for index, (ax, arrow) in enumerate(zip(axes.flat, predicted, strict=False)):
        sample = split[index]
        plot_sample(sample, np.asarray(arrow), ax)
        ax.set_xlabel(f"off by {angle_between(arrow, sample.action):.1f}°", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return fig, axes


def angle_between(a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"]) -> float:
    """Angle between two actions, in degrees."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return abs(float(np.degrees(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b))))


def plot_history(records: Sequence[dict[str, Any]]) -> tuple[Figure, np.ndarray]:
    """Losses (logarithmic) and direction accuracy over the epochs that `fit` returned."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    epochs = [r["epoch"] for r in records]
    for name, color in (("train_loss", PART_COLORS["vision"]), ("val_loss", PART_COLORS["action"])):
        axes[0].plot(epochs, [r[name] for r in records], marker="o", ms=3, color=color, label=name.replace("_", " "))
    axes[0].set(yscale="log", xlabel="epoch", ylabel="mean squared error")
    axes[0].legend(frameon=False)
    accuracy = [100 * r["direction_accuracy"] for r in records]
    axes[1].plot(epochs, accuracy, marker="o", ms=3, color=PART_COLORS["action"])
    axes[1].axhline(95, color="grey", lw=0.8, ls="--")
    axes[1].set(ylim=(0, 102), xlabel="epoch", ylabel="direction accuracy (%)")
    return fig, axes


def save_figure(fig: Figure, path: Path) -> None:
    """Write a figure; its name's suffix chooses the format."""
    path = as_path(path, "the picture")
    check_output(path, PICTURES, "the picture")
    kind = path.suffix[1:].lower()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # a letter that the font lacks is an empty box
        write_atomically(path, lambda temporary: fig.savefig(temporary, dpi=150, format=kind))
