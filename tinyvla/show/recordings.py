"""Recordings at a glance: frames of a few episodes, camera by camera."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tinyvla.data.demonstrations import Demonstrations

WIDTH = 1.7
"""Of a picture, in inches."""


def plot_frames(
    recordings: Demonstrations, episodes: Sequence[int], moments: Sequence[float] = (0.0, 0.33, 0.67, 1.0)
) -> tuple[Figure, np.ndarray]:
    """A row for each camera of each episode, its frames from left to right.

    Args:
        recordings: where they are taken from.
        episodes: their numbers.
        moments: when, from 0 for an episode's first frame to 1 for its last.
    """
    cameras = list(recordings.images)
    rows, columns = len(episodes) * len(cameras), len(moments)
    heights = [WIDTH * images.shape[2] / images.shape[3] for images in recordings.images.values()]
    size = (WIDTH * columns + 0.5, len(episodes) * (sum(heights) + 0.35))
    ratios = {"height_ratios": heights * len(episodes)}
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", gridspec_kw=ratios)
    for place, episode in enumerate(episodes):
        frames = np.flatnonzero(recordings.episodes == episode)
        for row, camera in enumerate(cameras, start=place * len(cameras)):
            for ax, moment in zip(axes[row], moments, strict=True):
                frame = frames[round(moment * (len(frames) - 1))]
                ax.imshow(recordings.images[camera][frame].transpose(1, 2, 0))
                ax.set(xticks=[], yticks=[])
                if row == place * len(cameras) and ax is not axes[row, 0]:
                    ax.set_title(f"{(frame - frames[0]) / recordings.fps:.1f} s", fontsize=8, loc="right")
            axes[row, 0].set_ylabel(camera, fontsize=9, parse_math=False)
        first = axes[place * len(cameras), 0]
        first.set_title(
            f"{episode}: {recordings.instructions[frames[0]][:60]}", fontsize=9, loc="left", parse_math=False
        )
    return fig, axes
