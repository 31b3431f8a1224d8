from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import find_tasks
from tinyvla.errors import InputError
from tinyvla.measure import race as metaworld
from tinyvla.recipes import RECORDINGS, Recipe, RecordingConfig


def test_a_race_says_how_long_each_part_took(tmp_path, monkeypatch):
    try:
        scene = Scene(find_tasks("drawer-close")[0], MetaWorldConfig(image_size=32))
        scene.begin(0)
        scene.picture()
    except InputError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(metaworld, "RecordingConfig", lambda: RecordingConfig(image_size=32, horizon=4, waypoints=(2,)))
    monkeypatch.setattr(metaworld, "RECORDINGS", Recipe(1, replace(RECORDINGS.train, batch_size=8)))
    monkeypatch.setattr(metaworld, "EPISODES", 1)
    monkeypatch.setattr(metaworld, "MetaWorldConfig", partial(MetaWorldConfig, max_steps=8))
    raced = metaworld.race(tmp_path / "new", "drawer-close", demos=1, steps=2, device="cpu")
    assert raced["steps"] == 2
    assert raced["seconds"]["all"] == pytest.approx(sum(raced["seconds"][part] for part in metaworld.PARTS))
    assert "from an empty folder on" in metaworld.table(raced)
    with pytest.raises(InputError, match="is not empty; the clock starts with an empty folder"):
        metaworld.race(tmp_path / "new", "drawer-close")
