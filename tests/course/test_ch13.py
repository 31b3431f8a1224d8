from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from tinyvla.act.rollout import expert
from tinyvla.course import ch13
from tinyvla.errors import InputError


def test_scenes_are_chosen_by_their_sentence():
    seeds = ch13.with_sentence(range(60))
    assert 0 < len(seeds) < 30
    assert ch13.with_sentence(range(60), "pick up the blue block") != seeds


def test_a_film_shows_each_step_and_the_arm_moves():
    pictures, result = ch13.film_beside(expert, seed=9, named=0, execute=1)
    assert result.success[0]
    assert len(pictures) == result.steps[0] + 1
    assert pictures[0].shape == (ch13.HEIGHT, ch13.WIDTH, 3)
    changed = np.abs(pictures[-1].astype(int) - pictures[0]).max(axis=2) > 30
    assert 0.01 < changed.mean() < 0.5


def test_films_are_saved_side_by_side_and_small(tmp_path):
    from PIL import Image

    films = [ch13.film_beside(expert, seed=9, named=named, execute=1) for named in (0, 1)]
    ch13.save_side_by_side(films, tmp_path / "two.gif")
    assert (tmp_path / "two.gif").stat().st_size < 1_000_000
    with Image.open(tmp_path / "two.gif") as picture:
        assert picture.size == (2 * ch13.WIDTH, ch13.CAPTION + ch13.HEIGHT)
        assert picture.n_frames == max(len(pictures) for pictures, _ in films)


def test_a_policy_that_follows_names_has_no_such_film():
    follows = SimpleNamespace(success=np.array([True]), outcome={"went_to": np.array([1])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ch13, "film_beside", lambda policy, seed, named: ([], follows))
        with pytest.raises(InputError, match="in none of these scenes"):
            ch13.success_and_failure(None, [1, 2])


def test_the_policy_is_trained_on_one_sentence():
    policy = ch13.taught_one_sentence("cpu", num_scenes=40, epochs=0.1)
    assert policy.language.unseen_words(ch13.SENTENCE) == []
    assert policy.language.unseen_words("pick up the blue block") == ["blue"]
