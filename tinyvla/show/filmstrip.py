"""Recorded episodes as pictures: a film strip for the page, a GIF for the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyvla.act.rollout import States
from tinyvla.act.block_world import draw_frame

if TYPE_CHECKING:  # matplotlib takes long to import
    from matplotlib.figure import Figure


def film_strip(states: States, episode: int = 0, columns: int = 6, every: int = 1) -> tuple[Figure, np.ndarray]:
    """An episode's views, in order, each with the arrow to the target (dark) and the action taken (magenta).

    Args:
        columns: views in a row, at most.
        every: show one step in so many.
    """
    import matplotlib.pyplot as plt

    index = states.of_episode(episode)[::every]
    columns = min(columns, len(index))
    rows = -(-len(index) // columns)
    size = (1.7 * columns, 1.95 * rows + 0.4)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for number, (ax, i) in enumerate(zip(axes.flat, index, strict=False)):
        ax.imshow(draw_frame(states.images[i], states.offsets[i], states.actions[i]))
        ax.set_title(f"step {number * every}: {np.linalg.norm(states.offsets[i]):.1f} px", fontsize=8)
    fig.suptitle(states.instructions[index[0]], fontsize=10)
    return fig, axes


def save_gif(states: States, path: str | Path, episode: int = 0, frames_per_second: float = 4.0) -> None:
    """Write an episode's views as a moving picture that repeats; arrows as in `film_strip`."""
    from PIL import Image

    index = states.of_episode(episode)
    frames = [Image.fromarray(draw_frame(states.images[i], states.offsets[i], states.actions[i])) for i in index]
    duration = round(1000 / frames_per_second)
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
