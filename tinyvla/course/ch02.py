"""What chapter 2 shows: where CLS looks, and how the loss falls with learned positions of different sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
def attention_of_cls(vision: TinyViT, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b heads n"]]:
    """Returns for each block of the tower the weights with which CLS reads from the patches, head by head."""
    x = vision.embed(images)
    blocks: list[Any] = list(vision.blocks)
    weights = []
    for block in blocks:
        weights.append(block.attention.weights(block.attention_norm(x))[:, :, 0, 1:])
        x = block(x)
    return weights


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
        ax.set_title(name)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    fig.colorbar(picture, ax=axes[1:], shrink=0.7, label="attention weight")
    return fig


def lengths_on_the_way(runs: dict[str, Any], level: float = 0.4) -> dict[str, float]:
    """How long positions are, measured in lengths of a patch, at four moments: the medians of one kind's runs.

    Args:
        runs: one of the kinds in `results/positions.json`: losses and ratios of every ten steps.
        level: a run has left the plateau when the mean loss of twenty steps lies below it, as in the experiment.
    """
    moments: dict[str, list[float]] = {}
    for losses, ratios in zip(runs["losses"], runs["ratios"], strict=True):
        left = next(i for i in range(1, len(losses)) if (losses[i - 1] + losses[i]) / 2 < level)
        found = {
            "at the start": ratios[0],  # ratios[i] was taken after ten times i steps
            "at its shortest": min(ratios),
            "when the loss has left the plateau": ratios[left + 1],
            "when the task is learned": ratios[-1],
        }
        for moment, ratio in found.items():
            moments.setdefault(moment, []).append(ratio)
    return {moment: float(np.median(values)) for moment, values in moments.items()}


def steps_on_the_line(losses: Sequence[float], level: float = 0.495) -> int:
    """Returns the last step at which the mean loss of ten steps, which `losses` holds, is still at least `level`."""
    return 10 * max(number for number, loss in enumerate(losses, start=1) if loss >= level)


def plot_plateau(results: dict[str, Any]) -> Figure:
    """Losses of learned positions on a logarithmic axis, a curve for each seed, from `results/positions.json`."""
    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    fig.set_facecolor("white")
    kinds = {kind: runs for kind, runs in results["kinds"].items() if kind.startswith("learned-")}
    colors = (PART_COLORS["vision"], PART_COLORS["fusion"], PART_COLORS["action"])
    for (kind, runs), color in zip(kinds.items(), colors, strict=True):
        for number, losses in enumerate(runs["losses"]):
            label = kind.replace("learned-", "positions start at std ") if number == 0 else None
            ax.plot(10 * np.arange(1, len(losses) + 1), losses, color=color, lw=1, alpha=0.8, label=label)
    ax.axhline(0.5, color="grey", lw=0.8, ls="--")
    ax.set(xlabel="step", ylabel="mean squared error", ylim=(0, 0.6), xscale="log", xlim=(10, results["steps"]))
    ticks = [t for t in (10, 30, 100, 300, 1_000, 3_000) if t <= results["steps"]]
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
    ax.minorticks_off()
    ax.set_title(f"{results['seeds']} seeds for each scale; a curve ends when the task is learned", fontsize=9)
    ax.legend(frameon=False, loc="lower left", fontsize=9)
    return fig
