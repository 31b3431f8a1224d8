"""What chapter 2 draws: where CLS looks, and how long learned positions that start small keep a policy at chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from tinyvla.data.dataset import IMAGE_SIZE
from tinyvla.model.vision import TinyViT
from tinyvla.show.plots import PART_COLORS


@torch.no_grad()
def attention_of_cls(vision: TinyViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
    """Returns the weights with which CLS reads from the patches in the last block, the mean over the heads."""
    x = vision.embed(images)
    blocks: list[Any] = list(vision.blocks)
    *earlier, last = blocks
    for block in earlier:
        x = block(x)
    return last.attention.weights(last.attention_norm(x))[:, :, 0, 1:].mean(dim=1)


def plot_attention_of_cls(image: UInt8[np.ndarray, "3 h w"], weights: Mapping[str, Float[Tensor, "n"]]) -> Figure:
    """A scene, and for each name the weights that CLS gives its patches, all in one scale."""
    fig, axes = plt.subplots(1, len(weights) + 1, figsize=(9, 2.9), layout="constrained")
    fig.set_facecolor("white")
    axes[0].imshow(image.transpose(1, 2, 0), extent=(0, IMAGE_SIZE, IMAGE_SIZE, 0))
    axes[0].set_title("the scene")
    largest = max(values.max().item() for values in weights.values())
    for ax, (name, values) in zip(axes[1:], weights.items(), strict=True):
        side = round(len(values) ** 0.5)
        picture = ax.imshow(values.view(side, side), cmap="Blues", vmin=0, vmax=largest)
        ax.set_title(f"{name}: CLS looks at")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    fig.colorbar(picture, ax=axes[1:], shrink=0.7, label="attention weight")
    return fig


def plot_plateau(results: dict[str, Any]) -> Figure:
    """Losses of every seed, and how long the positions have become, from `results/positions.json`."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    fig.set_facecolor("white")
    looks = {
        "learned-1.0": ("std 1.0", PART_COLORS["vision"]),
        "learned-0.02": ("std 0.02", PART_COLORS["action"]),
        "frozen": ("std 0.02, not trained", "#555555"),
    }
    for kind, (name, color) in looks.items():
        runs = results["kinds"][kind]
        for number, (losses, ratios) in enumerate(zip(runs["losses"], runs["ratios"], strict=True)):
            label = name if number == 0 else None
            axes[0].plot(10 * np.arange(1, len(losses) + 1), losses, color=color, lw=1.2, label=label)
            axes[1].plot(10 * np.arange(len(ratios)), ratios, color=color, lw=1.2, label=label)
    axes[0].set(xlabel="step", ylabel="mean squared error", ylim=(0, 0.6))
    axes[1].set(xlabel="step", ylabel="position / projected patch", yscale="log")
    axes[1].set_title("mean lengths", fontsize=10)
    axes[0].legend(frameon=False, loc="lower left", fontsize=9)
    return fig
