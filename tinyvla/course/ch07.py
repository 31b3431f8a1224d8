"""Chapter 7 (action heads): its drawings and its tables.

Notable:
- right answers and drawn answers are arrows from the image's centre; an arrow of length 1 is drawn 25.6 pixels long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from tinyvla.data.dataset import BlockFind
from tinyvla.show.plots import PART_COLORS

MAGENTA = PART_COLORS["action"]
SAMPLING_STEPS = {"flow": 10, "diffusion": 20}
"""Of the heads in `results/heads.json`, as `experiments/heads.py` sets them."""
CENTER, LENGTH = 31.5, 25.6  # imshow puts the middle of the first pixel at 0


def draw_heads() -> tuple[Figure, np.ndarray]:
    """Returns five small drawings: what each head can say where two answers are right."""
    fig, axes = plt.subplots(1, 5, figsize=(9, 3), layout="constrained")
    rng = np.random.RandomState(0)
    right = np.array([[-0.6, 0.8], [0.8, 0.6]])  # up is up in these drawings
    for ax, title in zip(axes, ("regression", "directions", "bins", "flow matching", "diffusion"), strict=True):
        ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", title=title, xticks=[], yticks=[])
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#bbbbbb", lw=1))
        ax.plot(*right.T, "o", mfc="none", mec="#222222", ms=11, mew=1.5)
    _arrow(axes[0], right.mean(axis=0))
    for turn in np.arange(8) * math.pi / 4:
        _arrow(axes[1], (math.cos(turn), math.sin(turn)), color="#bbbbbb", lw=1)
    _arrow(axes[1], (math.cos(math.pi / 4), math.sin(math.pi / 4)))
    for edge in np.linspace(-1, 1, 11):
        axes[2].plot([edge, edge], [-1, 1], color="#dddddd", lw=0.7, zorder=0)
        axes[2].plot([-1, 1], [edge, edge], color="#dddddd", lw=0.7, zorder=0)
    axes[2].axvspan(0.7, 0.9, ymin=0.13, ymax=0.87, color=MAGENTA, alpha=0.35, lw=0)
    axes[2].add_patch(plt.Rectangle((0.7, 0.5), 0.2, 0.2, color=MAGENTA, lw=0))
    for ax, noise in ((axes[3], 0.0), (axes[4], 0.09)):
        for start in np.random.RandomState(4).uniform(-1.1, 1.1, size=(16, 2)):
            end = right[np.linalg.norm(right - start, axis=1).argmin()]
            way = start + np.linspace(0, 1, 9)[:, None] * (end - start)
            way[1:-1] += noise * rng.normal(size=(7, 2)) * np.linspace(1, 0.1, 7)[:, None]
            ax.plot(*way.T, color=MAGENTA, lw=0.8, alpha=0.8)
            ax.plot(*start, ".", color="#777777", ms=4)
    texts = ("one answer:\nthe mean", "the name of one\nof eight", "a bin for x, then\none for y",
             "noise moves along\na learned field", "noise is removed\nstep by step")  # fmt: skip
    for ax, text in zip(axes, texts, strict=True):
        ax.set_xlabel(text)
    return fig, axes


def _arrow(ax: Axes, end: Sequence[float] | np.ndarray, **style: Any) -> None:
    """An action as an arrow from the middle."""
    ax.annotate("", tuple(end), (0, 0), arrowprops={"arrowstyle": "-|>", "color": MAGENTA, "lw": 2, **style})


def show_scenes(
    scenes: BlockFind, right: Float[Tensor, "n 2 2"], indices: Sequence[int], answers: Tensor | None = None
) -> tuple[Figure, np.ndarray]:
    """Returns some scenes with both right arrows, and a dot at the tip of each answer.

    Args:
        scenes: all of them.
        right: the two right arrows of each scene.
        indices: which scenes to show.
        answers: `(draws, n, 2)`.
    """
    fig, axes = plt.subplots(1, len(indices), figsize=(9, 2.6), layout="constrained")
    for ax, index in zip(axes, indices, strict=True):
        ax.imshow(scenes.images[index].transpose(1, 2, 0), interpolation="nearest", alpha=0.45)
        for arrow in right[index].cpu().numpy():
            style = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.3}
            ax.annotate("", tuple(CENTER + LENGTH * arrow), (CENTER, CENTER), arrowprops=style)
        if answers is not None:
            tips = CENTER + LENGTH * answers[:, index].cpu().numpy()
            ax.plot(*tips.T, "o", color=MAGENTA, ms=4, alpha=0.35, mec="none")
        ax.set(xticks=[], yticks=[], xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
        ax.set_title(scenes.instructions[index], fontsize=9)
    return fig, axes


@torch.no_grad()
def show_field(
    network: Callable[[Tensor, Tensor, Tensor], Tensor], feature: Float[Tensor, "d"], right: Float[Tensor, "2 2"]
) -> tuple[Figure, np.ndarray]:
    """Returns five moments of flow matching in one scene: where 300 points are, and where the network sends them.

    Args:
        network: velocities of points at times, given features.
        feature: the scene's.
        right: its two right answers.
    """
    moments, num_steps = (0.0, 0.4, 0.7, 0.9, 1.0), 50
    axis = torch.linspace(-1.6, 1.6, 9)
    grid, x = torch.cartesian_prod(axis, axis), torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    grid, x = grid.to(feature.device), x.to(feature.device)

    def velocity(points: Tensor, time: float) -> Tensor:
        times = torch.full((len(points),), time, device=points.device)
        return network(feature.expand(len(points), -1), points, times)

    fig, axes = plt.subplots(1, len(moments), figsize=(9, 2.3), layout="constrained")
    for step in range(num_steps + 1):
        if (time := step / num_steps) in moments:
            ax = axes[moments.index(time)]
            if time < 1:
                field = velocity(grid, time)
                field = field / field.norm(dim=1, keepdim=True).clamp(min=0.5)
                ax.quiver(*grid.T.cpu(), *field.T.cpu(), color="#999999", angles="xy", scale=11, width=0.006)
            ax.plot(*x.T.cpu(), "o", ms=2.2, color=MAGENTA, alpha=0.5, mec="none")
            ax.plot(*right.T.cpu(), "o", ms=11, mfc="none", mec="#222222", mew=1.3)
            ax.set(xlim=(-1.9, 1.9), ylim=(1.9, -1.9), aspect="equal", xticks=[], yticks=[], title=f"t = {time:g}")
        x = x + velocity(x, time) / num_steps
    return fig, axes


def draw_ways(scenes: BlockFind, ways: Float[np.ndarray, "n v h 2"], index: int) -> tuple[Figure, np.ndarray]:
    """Returns a scene with all right ways and their mean, and the speed along three of them."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained", width_ratios=(1, 2))
    mean = ways[index].mean(axis=0)
    _scene(axes[0], scenes, index, scenes.instructions[index])
    _paths(axes[0], ways[index], color="#555555", lw=1)
    _paths(axes[0], mean[None], color=MAGENTA, lw=2, ls="--")
    for way, style in zip(ways[index, 4::6], ("-", ":", "-."), strict=True):
        axes[1].plot(np.linalg.norm(way, axis=1), style, color="#555555", lw=1.2)
    axes[1].plot(np.linalg.norm(mean, axis=1), color=MAGENTA, lw=2, ls="--", label="mean of all")
    axes[1].set(xlabel="step", ylabel="pixels in this step", title="speed of three right ways, and of the mean of all")
    axes[1].set_ylim(-0.2, 5.6)
    axes[1].legend(frameon=False, loc="upper right")
    return fig, axes


def draw_chunks(
    scenes: BlockFind, ways: Float[np.ndarray, "n v h 2"], index: int, drawn: dict[str, Float[np.ndarray, "d n h 2"]]
) -> tuple[Figure, np.ndarray]:
    """Returns one scene for each head, with the ways that it answers over the two arcs that are right."""
    fig, axes = plt.subplots(1, len(drawn), figsize=(6.4, 3.1), layout="constrained")
    for ax, (kind, chunks) in zip(axes, drawn.items(), strict=True):
        _scene(ax, scenes, index, f"{kind}, {len(chunks)} answers")
        _paths(ax, ways[index, :2], color="#555555", lw=4, alpha=0.25)
        _paths(ax, chunks[:, index], color=MAGENTA, lw=1.2, marker="o", ms=2, alpha=0.7)
    return fig, axes


def _scene(ax: Axes, scenes: BlockFind, index: int, title: str) -> None:
    ax.imshow(scenes.images[index].transpose(1, 2, 0), interpolation="nearest", alpha=0.45)
    ax.set(xticks=[], yticks=[], title=title)


def _paths(ax: Axes, chunks: Float[np.ndarray, "k h 2"], **style: Any) -> None:
    """Ways from the image's centre."""
    for chunk in chunks:
        ax.plot(*(CENTER + np.concatenate([np.zeros((1, 2)), chunk.cumsum(axis=0)])).T, **style)


def draw_frequencies(
    steps: Float[np.ndarray, "h 2"], numbers: Num[np.ndarray, "h 2"], back: Float[np.ndarray, "h 2"]
) -> tuple[Figure, np.ndarray]:
    """Returns a chunk, its rounded frequencies, and the way before and after rounding."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    for axis, (part, name) in enumerate((("vision", "x"), ("language", "y"))):
        color, places = PART_COLORS[part], np.arange(len(numbers)) + 0.4 * axis
        axes[0].plot(steps[:, axis], "-o", ms=3, color=color, label=name)
        axes[1].bar(places, numbers[:, axis], width=0.4, color=color, label=name)
    axes[0].set(xlabel="step", title="pixels in each step")
    axes[1].set(xlabel="frequency (half waves in a chunk)", title="rounded frequencies")
    axes[0].legend(frameon=False)
    axes[2].plot(*steps.cumsum(axis=0).T, "-", color="#999999", lw=4, label="demonstrated")
    axes[2].plot(*back.cumsum(axis=0).T, "-o", ms=3, color=MAGENTA, label="from tokens")
    axes[2].set(aspect="equal", adjustable="datalim", title="the way", xlabel="x (pixels)", ylabel="y (pixels)")
    axes[2].invert_yaxis()  # as in an image
    axes[2].legend(frameon=False, fontsize=9)
    return fig, axes


def spread(row: dict[str, float], digits: int = 1) -> str:
    """Returns median, smallest and largest of the seeds, in percent."""
    return f"{row['median']:.{digits}%} ({row['min']:.{digits}%} to {row['max']:.{digits}%})"


def table_of_answers(heads: dict[str, Any]) -> str:
    """Returns the heads' figures for one and for two right answers, with each head's sampling steps and epochs."""
    lines = [
        f"{'':14}{'':>6}{'one right answer':^30}{'two right answers':^37}{'time of an answer, ms':>25}",
        f"{'':14}{'steps':>6}{'epochs':>7}{'direction':>11}{'within 10':>11}{'epochs':>9}{'near one':>11}{'first':>9}"
        f"{'both':>8}{'1 scene':>14}{'256 scenes':>12}",
    ]
    for name, row in heads.items():
        if "one answer" not in row:
            continue
        one, two = row["one answer"], row["two answers"]
        shares = [f"{cell['median']:.1%}" for cell in (one["direction_accuracy"], one["within_10_degrees"])]
        both = [f"{two[key]['median']:.1%}" for key in ("near_one", "first_chosen", "used_both")]
        times = [f"{one['milliseconds'][count]:.1f}" for count in ("1", "256")]
        lines.append(
            f"{name:14}{SAMPLING_STEPS.get(name, ''):>6}{one['epochs']:>7}{shares[0]:>11}{shares[1]:>11}"
            f"{two['epochs']:>9}{both[0]:>11}{both[1]:>9}{both[2]:>8}{times[0]:>14}{times[1]:>12}"
        )
    return "\n".join(lines)


def table_of_chunks(heads: dict[str, Any]) -> str:
    """Returns the heads' figures for chunks: errors, the share near a right way, and the time of an answer."""
    lines = [
        f"{'':14}{'':>6}{'':>7}{'':>9}{'near a right way':^28}{'':>6}{'still':>8}{'1 scene,':>11}",
        f"{'trajectories':14}{'steps':>6}{'epochs':>7}{'end, px':>9}{'worst':>10}{'median':>9}{'best':>9}{'left':>6}"
        f"{'steps':>8}{'ms':>11}",
    ]
    for name, row in heads.items():
        if "trajectories" not in row:
            continue
        row = row["trajectories"]
        end, left, stopped = (row[k]["median"] for k in ("end_error", "left_chosen", "still_steps"))
        worst, median, best = (row["near_a_way"][k] for k in ("min", "median", "max"))
        lines.append(
            f"{name:14}{SAMPLING_STEPS.get(name, ''):>6}{row['epochs']:>7}{end:>9.2f}{worst:>10.1%}"
            f"{median:>9.1%}{best:>9.1%}{left:>6.0%}{stopped:>8.1f}{row['milliseconds']['1']:>11.1f}"
        )
    return "\n".join(lines)
