from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.course import ch08
from tinyvla.course.ch08 import CurrentWorld
from tinyvla.course.zoo import load_results
from tinyvla.errors import InputError


def goes_up(observation):
    return np.tile([0.0, -1.0], (len(observation["task"]), 1))


class TestCurrent:
    @pytest.mark.parametrize("action", [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (5.0, 0.0), (0.3, -0.4)])
    def test_it_carries_whatever_the_policy_does(self, action):
        still, moved = BlockWorld([5]), CurrentWorld([5], pixels=0.8)
        for world in (still, moved):
            world.step(np.array([action]))
        np.testing.assert_allclose(moved.camera - still.camera, [[0.8, 0.0]])

    def test_without_a_current_it_is_the_still_world(self):
        seeds = episode_seeds(20, 1)
        still, calm = (rollout(goes_up, world) for world in (BlockWorld(seeds), CurrentWorld(seeds, pixels=0.0)))
        np.testing.assert_array_equal(still.outcome["path_lengths"], calm.outcome["path_lengths"])
        np.testing.assert_array_equal(still.success, calm.success)

    def test_the_way_is_what_the_camera_moved(self):
        world = CurrentWorld([5])
        world.step(np.array([[0.0, 0.0]]))
        np.testing.assert_allclose(world.path_lengths, [0.8])

    def test_the_view_stays_inside_the_world(self):
        world = CurrentWorld([5], pixels=50.0)
        world.step(np.array([[1.0, 0.0]]))
        assert world.camera[0, 0] == 96

    def test_success_is_judged_after_the_current(self):
        world = CurrentWorld([5], pixels=3.0)
        world.camera[:] = world.centers[:, 0]
        world.step(np.array([[0.0, 0.0]]))
        assert not world.succeeded[0]  # carried 3 pixels away
        world.camera[:] = world.centers[:, 0] - [3, 0]
        world.step(np.array([[0.0, 0.0]]))
        assert world.succeeded[0]

    def test_a_wrong_action_moves_nothing(self):
        world = CurrentWorld([5])
        with pytest.raises(InputError):
            world.step(np.zeros((3, 2)))
        np.testing.assert_array_equal(world.camera, [[64.0, 64.0]])


class TestMovingPicture:
    def test_takes_end_as_their_episodes_do(self):
        takes = {
            "expert": ch08.shoot(expert, BlockWorld([5])),
            "up": ch08.shoot(goes_up, BlockWorld([5], WorldConfig(max_steps=12))),
        }
        assert [take.success for take in takes.values()] == [True, False]
        assert takes["up"].caption(12) == "time is up after 12 steps"
        assert takes["expert"].caption(len(takes["expert"].views) - 1).startswith("stopped on it after")
        assert takes["expert"].caption(0) == f"step 0: {takes['expert'].distances[0]:.1f} px to go"
        gif = Image.open(io.BytesIO(ch08.side_by_side(takes)))
        assert gif.n_frames == 13  # the longest take
        assert gif.info["loop"] == 0

    def test_the_command_writes_a_small_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ch08, "trained_policy", lambda: goes_up)
        monkeypatch.setattr(ch08, "clone_of_expert", lambda: expert)
        ch08.main(str(tmp_path / "film.gif"))
        gif = Image.open(tmp_path / "film.gif")
        assert gif.n_frames == 41
        assert (tmp_path / "film.gif").stat().st_size < 1_000_000


def test_a_clone_of_the_expert_is_trained_as_in_the_chapter(monkeypatch):
    asked = {}
    monkeypatch.setattr(ch08, "demonstrations", lambda world, policy: len(world))
    monkeypatch.setattr(
        ch08, "fit", lambda policy, split, val, config: asked.update(split=split, val=val, config=config)
    )
    policy = ch08.clone_of_expert()
    assert not policy.training
    assert (asked["split"], asked["val"], asked["config"].epochs) == (300, 100, 8)


def test_drawings():
    recorded = rollout(expert, BlockWorld(episode_seeds(3, 1)), record=3)
    _, axes = ch08.draw_paths(recorded, [0, 2])
    assert "success after" in axes[0].get_title()
    assert len(ch08.draw_loops()[1]) == 2
    points = load_results("closed_loop_checkpoints")["checkpoint_rows"]
    kinds = {kind: [p for p in points if p["kind"] == kind] for kind in ("cloning", "dagger", "stills")}
    assert len(ch08.draw_checkpoints(kinds)[1][0].lines) == 3
    results = load_results("closed_loop_chunks")
    _, axes = ch08.draw_chunks(results)
    assert sum(len(ax.patches) for ax in axes.flat) == len(results["runs"])
    policies = load_results("closed_loop")["policies"]
    _, ax = ch08.draw_policies(policies, {name: name for name in policies})
    assert len(ax.get_yticklabels()) == len(policies)
