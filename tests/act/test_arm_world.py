"""The arm's world, its expert and its environments."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed", allow_module_level=True)

import gymnasium
from gymnasium.utils.env_checker import check_env

from tinyvla.act.arm import ENV_IDS
from tinyvla.act.arm.env import ArmEnv
from tinyvla.act.arm.expert import (
    BLOCK_SIZE,
    HOVER,
    MAX_OPENING,
    STEP_METRES,
    TASKS,
    ArmState,
    expert_action,
    expert_chunk,
    imagined,
)
from tinyvla.act.arm.kinematics import NUM_JOINTS, load_model, load_mujoco, tip_pose
from tinyvla.act.arm.scene import APART, LIMITS, TABLE
from tinyvla.act.arm.world import PICTURE_SIZE, STATE_DIM, ArmConfig, ArmWorld
from tinyvla.data.dataset import COLORS
from tinyvla.errors import InputError
from tinyvla.model.tokenizer import split_words, vocabulary

SEEDS = list(range(30))
STILL = np.array([[0.0] * 6 + [1.0]])


def state(offset, opening=MAX_OPENING, picking=True, tilt=(0.0, 0.0, 0.0)) -> ArmState:
    return ArmState(np.array([offset], float), np.array([tilt]), np.array([opening]), np.array([picking]))


class TestScenes:
    def test_a_scene_is_its_seeds(self):
        one, again, other = ArmWorld([5]), ArmWorld([5], "pick"), ArmWorld([6])
        np.testing.assert_array_equal(one.views(), again.views())
        assert not np.array_equal(one.views(), other.views())
        beside = ArmWorld([4, 5])
        np.testing.assert_array_equal(beside.views(np.array([1])), one.views())

    def test_blocks_stand_apart_on_the_table_in_different_colours(self):
        world = ArmWorld(range(100))
        assert (world.blocks[..., :2] >= TABLE[0]).all()
        assert (world.blocks[..., :2] <= TABLE[1]).all()
        np.testing.assert_allclose(world.blocks[..., 2], BLOCK_SIZE / 2)
        assert all(len(set(row)) == 3 for row in world.colors.tolist())
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert np.linalg.norm((world.blocks[:, a] - world.blocks[:, b])[:, :2], axis=1).min() >= APART

    def test_the_instruction_names_the_named_block_in_known_words(self):
        for task, start in (("reach", "reach the "), ("pick", "pick up the ")):
            for named in range(3):
                world = ArmWorld(SEEDS, task, named=named)
                assert world.instructions == [f"{start}{COLORS[row[named]]} block" for row in world.colors]
                tokens = [ids for text in world.instructions for _, ids in split_words(text)]
                assert all(len(ids) == 1 for ids in tokens), "every word is one token"
                assert not any(vocabulary()["[UNK]"] in ids for ids in tokens)

    def test_views_show_both_cameras_and_the_colours(self):
        world = ArmWorld([0, 3])
        views = world.views()
        assert views.shape == (2, 3, 64, 64)
        assert world.views(size=32).shape == (2, 3, 32, 32)
        assert not np.array_equal(views[0, :, :32], views[0, :, 32:])
        assert views.max() > 200
        assert views.min() < 80

    def test_an_observation_has_the_stacked_picture_the_state_and_the_words(self):
        world = ArmWorld([0, 3, 4])
        seen = world.observe()
        assert set(seen) == {"observation.images.camera", "observation.state", "task"}
        np.testing.assert_array_equal(seen["observation.images.camera"], world.views())
        np.testing.assert_array_equal(seen["observation.state"], world.robot_state())
        assert seen["task"] == world.instructions
        one = world.observe(np.array([2]))
        np.testing.assert_array_equal(one["observation.state"], seen["observation.state"][2:])
        assert one["task"] == world.instructions[2:]

    def test_cameras_can_be_apart(self):
        world = ArmWorld([0, 3], config=ArmConfig(cameras="separate", image_size=32))
        seen = world.observe()
        assert set(seen) == {"observation.images.above", "observation.images.front", "observation.state", "task"}
        above, front = (seen[f"observation.images.{name}"] for name in ("above", "front"))
        assert above.shape == front.shape == (2, 3, 16, 32)
        np.testing.assert_array_equal(np.concatenate([above, front], axis=2), world.views())
        assert {name: view.shape for name, view in world.camera_views(size=64).items()} == {
            "above": (2, 3, 32, 64),
            "front": (2, 3, 32, 64),
        }

    def test_the_robot_feels_its_joints_and_its_gripper(self):
        world = ArmWorld([2, 3])
        state = world.robot_state()
        assert state.shape == (2, STATE_DIM)
        assert state.dtype == np.float32
        np.testing.assert_allclose(state[:, -1], MAX_OPENING)
        np.testing.assert_allclose(state[:, -1], world.state().openings, atol=1e-6)
        scratch = load_mujoco().MjData(load_model())
        for row, tip in zip(state, world.tips, strict=True):
            scratch.qpos[:NUM_JOINTS] = row[:NUM_JOINTS]
            load_mujoco().mj_kinematics(load_model(), scratch)
            np.testing.assert_allclose(tip_pose(load_model(), scratch)[0], tip, atol=1e-5)
        for _ in range(4):
            world.step(np.tile(-STILL, (2, 1)))
        assert world.robot_state()[0, -1] < 0.01

    def test_a_picture_for_people_has_a_line_between_the_views(self):
        world = ArmWorld([0, 3])
        picture = world.picture(1)
        assert picture.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
        assert (picture[PICTURE_SIZE // 2] == 255).all()
        views = world.views(np.array([1]), PICTURE_SIZE)[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(np.delete(picture, PICTURE_SIZE // 2, 0), np.delete(views, PICTURE_SIZE // 2, 0))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"seeds": []}, "at least one seed"),
            ({"seeds": [-1]}, "from 0 to 4294967295"),
            ({"seeds": [0], "task": "throw"}, "unknown task 'throw'; choose from reach, pick"),
            ({"seeds": [0, 1], "task": ["reach"]}, "2 seeds but 1 tasks"),
            ({"seeds": [0], "named": 3}, "the blocks are 0 to 2"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, arguments, says):
        with pytest.raises(InputError, match=says):
            ArmWorld(**arguments)

    def test_rules_are_checked(self):
        with pytest.raises(InputError, match="it must be a"):
            ArmConfig(max_steps=0)
        with pytest.raises(InputError, match="must be even"):
            ArmConfig(image_size=65)
        with pytest.raises(InputError, match=r"unknown ArmConfig\.cameras 'both'; choose from stacked, separate"):
            ArmConfig(cameras="both")


class TestSteps:
    def test_actions_move_the_tip_along_the_tables_axes(self):
        for axis in range(3):
            action = np.zeros((1, 7))
            action[0, axis] = 1.0
            world = ArmWorld([2])
            before = world.tips[0]
            world.step(action)
            world.step(action)
            moved = world.tips[0] - before
            assert moved[axis] > 1.3 * STEP_METRES
            assert np.abs(np.delete(moved, axis)).max() < 0.01

    def test_an_action_of_zero_stays_and_the_gripper_obeys(self):
        world = ArmWorld([2])
        before = world.tips[0]
        for _ in range(5):
            world.step(STILL)
        np.testing.assert_allclose(world.tips[0], before, atol=3e-3)
        assert world.state().openings[0] > 0.9 * MAX_OPENING
        for _ in range(4):
            world.step(-STILL)
        assert world.state().openings[0] < 0.01

    def test_the_tip_stays_in_its_limits(self):
        world = ArmWorld([2], config=ArmConfig(max_steps=60))
        for _ in range(25):
            world.step(np.array([[1.0, 1.0, -1.0, 0, 0, 0, 1]]))
        assert (world.tips[0] > LIMITS[0] - 0.01).all()
        assert (world.tips[0] < LIMITS[1] + 0.01).all()

    def test_reach_asks_to_stop_over_the_block(self):
        world = ArmWorld(SEEDS[:5])
        passed = np.zeros(5, bool)
        for _ in range(8):
            running = world.running
            if not len(running):
                break
            world.step(expert_action(world.state()))
            passed |= world.succeeded
            near = world.distances[:, 0] <= 0.03
            assert not (world.succeeded & ~near).any()
        assert passed.any()

    def test_pick_asks_for_the_named_block(self):
        world = ArmWorld(SEEDS, "pick")
        while len(world.running):
            world.step(expert_action(world.state()))
        assert world.succeeded.all()
        assert (world.blocks[:, 0, 2] > 0.07).all()
        assert (world.nearest == 0).all()

    def test_time_runs_out(self):
        world = ArmWorld([0], "pick", ArmConfig(max_steps=2))
        world.step(STILL)
        assert not world.truncated[0]
        world.step(STILL)
        assert world.truncated[0]
        assert not len(world.running)

    @pytest.mark.parametrize(
        ("actions", "says"),
        [(np.zeros((2, 7)), "need .1, 7."), (np.full((1, 7), np.nan), "NaN or infinite")],
    )
    def test_unusable_actions_are_refused(self, actions, says):
        with pytest.raises(InputError, match=says):
            ArmWorld([0]).step(actions)


class TestExpert:
    @pytest.mark.parametrize("task", TASKS)
    def test_it_succeeds_almost_always(self, task):
        world = ArmWorld(range(100, 160), task)
        while len(world.running):
            world.step(expert_action(world.state()))
        assert world.succeeded.mean() >= 0.95

    def test_phases_follow_from_what_can_be_seen(self):
        far = expert_action(state((0.1, 0.0, -0.1)))[0]
        assert far[0] > 0.5
        assert far[6] == 1
        beside = expert_action(state((0.05, 0.0, 0.0)))[0]
        assert beside[2] > 0, "up, before it goes to the side"
        above = expert_action(state((0.0, 0.0, -HOVER)))[0]
        np.testing.assert_allclose(above, [0, 0, -1, 0, 0, 0, 1])
        around = expert_action(state((0.0, 0.0, 0.0)))[0]
        np.testing.assert_allclose(around, [0, 0, 0, 0, 0, 0, -1])
        held = expert_action(state((0.0, 0.0, 0.0), opening=BLOCK_SIZE))[0]
        np.testing.assert_allclose(held, [0, 0, 1, 0, 0, 0, -1])
        assert expert_action(state((0.1, 0.0, 0.0), opening=0.0))[0, 6] == 1, "it opens again after a miss"

    def test_to_reach_it_stops_above_and_stays_open(self):
        np.testing.assert_allclose(expert_action(state((0, 0, -HOVER), picking=False))[0], [0] * 6 + [1], atol=1e-12)

    def test_it_brings_the_hand_upright(self):
        action = expert_action(state((0.1, 0.1, 0.0), tilt=(0.03, -0.06, 0.5)))[0]
        np.testing.assert_allclose(action[3:6], [0.2, -0.4, 1.0])

    def test_a_chunk_is_the_expert_asked_again_and_again(self):
        now = state((0.05, -0.02, -0.12), tilt=(0.1, 0.0, 0.3))
        chunk = expert_chunk(now, 12)
        assert chunk.shape == (1, 12, 7)
        for action in chunk[0]:
            np.testing.assert_allclose(expert_action(now)[0], action)
            now = imagined(now, action[None])
        assert chunk[0, -1, 2] == 1, "in the end it lifts"
        with pytest.raises(InputError, match="at least one action"):
            expert_chunk(now, 0)

    def test_a_plan_comes_true(self):
        world = ArmWorld(SEEDS, "pick")
        start = world.state()
        plans = expert_chunk(start, 6)
        for i in range(6):
            world.step(plans[:, i])
        planned = start
        for i in range(6):
            planned = imagined(planned, plans[:, i])
        error = np.linalg.norm(planned.offsets - world.state(np.arange(len(SEEDS))).offsets, axis=1)
        assert np.median(error) < 0.012

    def test_the_world_asks_it_for_the_running_episodes(self):
        world = ArmWorld(SEEDS[:4], ["reach", "pick"] * 2)
        world.truncated[2] = True
        plans = world.expert_chunk(5)
        np.testing.assert_array_equal(plans, expert_chunk(world.state(np.array([0, 1, 3])), 5))

    def test_all_phases_fit_one_call(self):
        parts = [state((0.1, 0, 0)), state((0, 0, 0)), state((0, 0, 0), BLOCK_SIZE)]
        together = ArmState(*(np.concatenate([getattr(p, n) for p in parts]) for n in ArmState.__dataclass_fields__))
        np.testing.assert_allclose(expert_action(together), np.concatenate([expert_action(p) for p in parts]))
        assert replace(together, picking=np.zeros(3, bool)).gripped.tolist() == [False, False, True]


class TestEnvironments:
    @pytest.mark.parametrize("name", ENV_IDS.values())
    def test_gymnasium_finds_nothing_wrong(self, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(gymnasium.make(f"tinyvla.act.arm:{name}", render_mode="rgb_array").unwrapped)

    @pytest.mark.parametrize(("task", "name"), ENV_IDS.items())
    def test_an_episode_is_its_seeds_and_ends_in_reward(self, task, name):
        env = gymnasium.make(f"tinyvla.act.arm:{name}")
        observation, info = env.reset(seed=7)
        np.testing.assert_array_equal(observation["image"], ArmWorld([7], task).views()[0])
        assert observation["instruction"] == ArmWorld([7], task).instructions[0]
        rewards, ended = [], False
        while not ended:
            observation, reward, terminated, truncated, info = env.step(info["expert_action"].astype(np.float32))
            rewards.append(reward)
            ended = terminated or truncated
        assert terminated
        assert sum(rewards) == rewards[-1] == 1
        drawn = [env.reset()[1]["seed"] for _ in range(3)]
        assert len(set(drawn)) == 3
        env.unwrapped.world.truncated[:] = True
        with pytest.raises(InputError, match="the episode is over"):
            env.unwrapped.step(np.zeros(7))

    def test_a_frame_shows_the_views_enlarged(self):
        env = ArmEnv("reach", render_mode="rgb_array")
        env.reset(seed=0)
        assert env.render().shape == (320, 320, 3)
        assert ArmEnv("reach").render() is None

    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda: ArmEnv("reach", render_mode="human"), "unknown render_mode 'human'"),
            (lambda: ArmEnv("throw"), "unknown task 'throw'"),
            (lambda: ArmEnv("reach", gravity=9.81), "the rules are image_size, max_steps"),
            (lambda: ArmEnv("reach").step(np.zeros(7)), "call reset"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, call, says):
        with pytest.raises(InputError, match=says):
            call()
