from __future__ import annotations

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
    film = ch13.film_beside(expert, seed=9, named=1, execute=1)
    assert film.success
    assert film.lifted == [1]
    assert 5 < len(film.pictures) < ch13.STEPS
    assert film.pictures[0].shape == (ch13.HEIGHT, ch13.WIDTH, 3)
    changed = np.abs(film.pictures[-1].astype(int) - film.pictures[0]).max(axis=2) > 30
    assert 0.01 < changed.mean() < 0.5


def test_films_are_saved_side_by_side_and_small(tmp_path):
    from PIL import Image

    films = [ch13.film_beside(expert, seed=9, named=named, execute=1) for named in (0, 1)]
    ch13.save_side_by_side(films, tmp_path / "two.gif")
    assert (tmp_path / "two.gif").stat().st_size < 1_000_000
    with Image.open(tmp_path / "two.gif") as picture:
        assert picture.size == (2 * ch13.WIDTH, ch13.CAPTION + ch13.HEIGHT)
        assert picture.n_frames == max(len(film.pictures) for film in films)


def test_both_films_show_the_same_block_lifted(monkeypatch, tiny_policy):
    lifted = {(1, 0): [0], (1, 1): [1], (2, 0): [0], (2, 1): [0]}
    monkeypatch.setattr(
        ch13, "film_beside", lambda policy, seed, named: ch13.PickFilm([], "", named == 0, lifted[seed, named])
    )
    assert [film.success for film in ch13.success_and_failure(tiny_policy, [1, 2])] == [True, False]
    with pytest.raises(InputError, match="in none of these scenes"):
        ch13.success_and_failure(tiny_policy, [1])


def test_the_policy_is_trained_on_one_sentence():
    policy = ch13.taught_one_sentence("cpu", num_scenes=40, epochs=0.1)
    assert policy.language.unseen_words(ch13.SENTENCE) == []
    assert policy.language.unseen_words("pick up the blue block") == ["blue"]
