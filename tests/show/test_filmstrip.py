from __future__ import annotations

from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.rollout import expert, replay, rollout
from tinyvla.errors import InputError
from tinyvla.show.filmstrip import Film, film, film_rows, film_strip, first_success, pixels_left, save_gif


@pytest.fixture(scope="module")
def shown():
    return rollout(expert, BlockWorld(range(200)), record=200)


def again(shown, episode: int) -> Film:
    return film(replay(shown.states, episode), BlockWorld([shown.seeds[episode]]), caption=pixels_left)


def never_moves(observation):
    return np.zeros((len(observation["task"]), 2))


def titles_of(axes) -> list[str]:
    return [ax.get_title() for ax in axes.flat if ax.get_title()]


def test_a_film_is_the_episode_as_it_was_rolled_out(shown):
    made = again(shown, 3)
    assert len(made) == len(made.captions) == shown.steps[3] + 1, "one before each step, and one of the end"
    assert made.success
    assert made.instruction == shown.instructions[3]
    world = BlockWorld([shown.seeds[3]])
    for i, picture in zip(shown.states.of_episode(3), made.pictures, strict=False):
        np.testing.assert_array_equal(picture, world.picture(0, shown.states.actions[i]))
        world.step(shown.states.actions[i][None])
    np.testing.assert_array_equal(made.pictures[-1], world.picture(0))


def test_a_film_strip_has_a_frame_a_step(shown):
    _, axes = film_strip(again(shown, 3), columns=4)
    titles = titles_of(axes)
    assert len(titles) == shown.steps[3] + 1
    assert titles[0] == f"step 0: {shown.outcome['expert_path_lengths'][3]:.1f} px"
    assert titles[-1] == f"step {shown.steps[3]}: {shown.outcome['final_distances'][3]:.1f} px"
    longest = int(shown.steps.argmax())
    fig, axes = film_strip(again(shown, longest), every=3)
    titles = titles_of(axes)
    assert len(titles) == np.ceil((shown.steps[longest] + 1) / 3)
    assert titles[1].startswith("step 3:")
    assert fig._suptitle.get_text() == shown.instructions[longest]
    plt.close("all")


def test_without_a_caption_steps_are_counted():
    made = film(never_moves, BlockWorld([0], WorldConfig(max_steps=2)))
    assert made.captions == ["step 0", "step 1", "step 2"]
    assert not made.success


def test_a_film_shows_one_episode():
    with pytest.raises(InputError, match="the world has 2 episodes; a film shows one"):
        film(expert, BlockWorld([0, 1]))


def test_a_gif_can_be_read(shown, tmp_path):
    save_gif(again(shown, 3), tmp_path / "episode.gif")
    with Image.open(tmp_path / "episode.gif") as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == shown.steps[3] + 1
        assert gif.size == (320, 320)
        assert gif.info["loop"] == 0


def test_rows_have_an_episode_each():
    films = [film(expert, BlockWorld([seed])) for seed in (3, 4, 5)]
    _, axes = film_rows(films, columns=4)
    assert axes.shape == (3, 4)
    assert [row[0].get_title(loc="left") for row in axes] == [made.instruction for made in films]
    assert [row[-1].get_title(loc="left") for row in axes] == [str(len(made) - 1) for made in films]
    brief = film(never_moves, BlockWorld([0], WorldConfig(max_steps=2)))
    _, axes = film_rows([brief], columns=5)
    assert [bool(ax.images) for ax in axes[0]] == [True] * 3 + [False] * 2
    plt.close("all")


def test_the_first_seed_with_successes_is_taken():
    def films(seed):
        moves = {0: never_moves, 1: never_moves, 2: expert}
        return [film(moves[seed], BlockWorld([seed], WorldConfig(max_steps=12))), film(expert, BlockWorld([seed]))]

    assert first_success(films, [0, 1, 2])[0].success
    assert first_success(films, [1, 0])[0].instruction == BlockWorld([1]).instructions[0], "it fails in both"


@pytest.mark.skipif(find_spec("mujoco") is None, reason="MuJoCo is not installed")
def test_the_arm_is_filmed_likewise():
    from tinyvla.act.arm.world import PICTURE_SIZE, ArmConfig, ArmWorld

    def films(seed):
        return [film(expert, ArmWorld([seed], task, named=n)) for task, n in (("reach", 0), ("pick", 0), ("pick", 2))]

    made = first_success(films, [3])
    result = rollout(expert, ArmWorld([3], "pick"))
    assert made[1].success == result.success[0]
    assert len(made[1]) == result.steps[0] + 1
    assert made[1].instruction == result.instructions[0]
    assert made[1].pictures[0].shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
    fig, axes = film_rows(made, columns=5)
    assert len(fig.axes) == 15
    assert len({row[0].get_title(loc="left") for row in axes}) == 3
    plt.close(fig)
    brief = film(lambda seen: np.zeros((1, 8, 7)), ArmWorld([3], config=ArmConfig(max_steps=6)), execute=4)
    assert len(brief) == 7
