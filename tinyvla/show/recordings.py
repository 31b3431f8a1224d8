"""Recordings at a glance: frames of a few episodes, camera by camera."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tinyvla.data.demonstrations import Demonstrations


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
    size = (1.7 * columns + 0.6, 1.7 * rows + 0.45 * len(episodes))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for place, episode in enumerate(episodes):
        frames = np.flatnonzero(recordings.episodes == episode)
        for row, camera in enumerate(cameras, start=place * len(cameras)):
            for ax, moment in zip(axes[row], moments, strict=True):
                frame = frames[round(moment * (len(frames) - 1))]
                ax.imshow(recordings.images[camera][frame].transpose(1, 2, 0))
                ax.set(xticks=[], yticks=[])
                if row == place * len(cameras):
                    ax.set_title(f"{(frame - frames[0]) / recordings.fps:.1f} s", fontsize=8, loc="right")
            axes[row, 0].set_ylabel(camera, fontsize=9)
        first = axes[place * len(cameras), 0]
        first.set_title(f"{episode}: {recordings.instructions[frames[0]][:40]}", fontsize=9, loc="left")
    return fig, axes
