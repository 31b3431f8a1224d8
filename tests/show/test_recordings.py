from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.show.recordings import plot_frames


def test_each_row_shows_a_camera_from_beginning_to_end():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(4, 2).repeat(4, 3)
    recorded = Demonstrations(
        {"front": images, "wrist": 100 + images}, np.zeros((12, 2), np.float32), ["go"] * 12, np.repeat([0, 1], 6)
    )
    fig, axes = plot_frames(recorded, [1, 0], moments=(0.0, 1.0))
    shown = [[int(ax.images[0].get_array()[0, 0, 0]) for ax in row] for row in axes]
    assert shown == [[6, 11], [106, 111], [0, 5], [100, 105]]
    assert [row[0].get_ylabel() for row in axes] == ["front", "wrist"] * 2
    plt.close(fig)
