from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from tinyvla.show.filmstrip import film_strip, save_gif
from tinyvla.act.rollout import expert, rollout


@pytest.fixture(scope="module")
def shown():
    return rollout(expert, range(200), num_recorded=200)


def test_a_film_strip_has_a_frame_a_step(shown):
    _, axes = film_strip(shown.states, episode=3, columns=4)
    titles = [ax.get_title() for ax in axes.flat if ax.get_title()]
    assert len(titles) == shown.steps[3]
    assert titles[0] == f"step 0: {shown.expert_path_lengths[3]:.1f} px"
    longest = int(shown.steps.argmax())
    _, axes = film_strip(shown.states, episode=longest, every=3)
    titles = [ax.get_title() for ax in axes.flat if ax.get_title()]
    assert len(titles) == np.ceil(shown.steps[longest] / 3)
    assert titles[1].startswith("step 3:")
    plt.close("all")


def test_a_gif_can_be_read(shown, tmp_path):
    save_gif(shown.states, tmp_path / "episode.gif", episode=3)
    with Image.open(tmp_path / "episode.gif") as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == shown.steps[3]
        assert gif.size == (320, 320)
        assert gif.info["loop"] == 0
