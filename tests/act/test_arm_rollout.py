"""Episodes of the arm: recorded, disturbed, driven by a policy."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed", allow_module_level=True)

from tinyvla.act.arm.expert import disturbance
from tinyvla.act.arm.policy import arm_config
from tinyvla.act.arm.world import STATE_DIM, ArmConfig, ArmWorld
from tinyvla.act.controller import Controller
from tinyvla.act.dagger import dagger, demonstrations
from tinyvla.act.result import Result, States
from tinyvla.act.rollout import expert, random_policy, rollout
from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:never seen in training")  # few sentences
MIXED = ["reach", "pick"]


def disturbed_expert(config: ArmConfig | None = None) -> Result:
    world = ArmWorld([0, 1, 2, 3], MIXED * 2, config)
    return rollout(expert, world, disturb=disturbance(0.4), record=4, horizon=8)


@pytest.fixture(scope="module")
def shown() -> Result:
    return disturbed_expert()


def small(config: ModelConfig, tiny: ModelConfig) -> ModelConfig:
    """The arm's policy, with tiny towers."""
    vision = replace(tiny.vision, image_size=config.vision.image_size)
    head = replace(config.head, hidden_dim=16)
    return replace(tiny, head=head, vision=vision, observation=config.observation)


@pytest.fixture(scope="module")
def policy(shown, tiny_config) -> TinyVLA:
    made = new_policy(small(arm_config(horizon=8), tiny_config), seed=0)
    made.fit_statistics(shown.states.tensors(made).actions)
    return made


def test_a_policy_for_the_arm_makes_chunks_of_seven():
    config = arm_config("nano", horizon=4, image_size=96)
    assert isinstance(config, ModelConfig)
    assert (config.head.kind, config.head.action_dim, config.head.horizon) == ("flow", 7, 4)
    assert config.vision.image_size == 96
    assert (config.observation.cameras, config.observation.state_dim) == (("camera",), 0)
    both = arm_config(image_size=96, cameras="separate", with_state=True)
    assert both.vision.image_size == (48, 96)
    assert (both.observation.cameras, both.observation.state_dim) == (("above", "front"), 7)


def test_states_are_recorded_with_the_experts_plans(shown):
    states = shown.states
    assert len(states) == shown.steps.sum()
    assert states.images["camera"].shape == (len(states), 3, 64, 64)
    assert states.expert_chunks.shape == (len(states), 8, 7)
    world = ArmWorld([0, 1, 2, 3], MIXED * 2)
    np.testing.assert_array_equal(states.images["camera"][:4], world.views())
    np.testing.assert_array_equal(states.state[:4], world.robot_state())
    assert [states.instructions[i] for i in range(4)] == world.instructions == shown.instructions
    assert states.episodes[:4].tolist() == [0, 1, 2, 3]
    assert np.abs(states.expert_chunks[..., :6]).max() <= 1


def test_tensors_are_chunks_of_the_policys_length(shown, policy):
    states = shown.states
    split = states.tensors(policy)
    assert split.actions.shape == (len(states), 8, 7)
    assert split.state is None, "this policy has no use for it"


def test_a_disturbed_expert_does_not_do_what_it_means(shown):
    assert (shown.states.actions != shown.states.expert_actions).any()
    calm = rollout(expert, ArmWorld([0, 1], "reach"), record=2)
    np.testing.assert_array_equal(calm.states.actions.astype(np.float32), calm.states.expert_actions)
    assert calm.success.all()
    np.testing.assert_array_equal(disturbed_expert().states.actions, shown.states.actions)


def test_disturbances_hit_half_and_turn_the_gripper_seldom():
    actions = np.tile([0.0] * 6 + [1.0], (4_000, 1))
    noisy = disturbance(0.5)(actions, np.random.RandomState(0))
    hit = (noisy[:, :6] != 0).any(axis=1)
    assert 0.45 < hit.mean() < 0.55
    assert 0.45 < noisy[hit, :6].std() < 0.55
    assert 0.01 < (noisy[:, 6] < 0).mean() < 0.06


def test_results_and_states_join(shown):
    two = Result.joined([shown, shown])
    assert len(two) == 8
    assert two.success_rate == shown.success_rate
    assert len(two.states) == 2 * len(shown.states)
    assert two.states.episodes.max() == 7
    assert States.joined([shown.states]).instructions == shown.states.instructions
    assert two.states.state.shape == (len(two.states), STATE_DIM)
    values = two.to_dict()
    low, high = values["success_interval"]
    assert low <= values["success"] <= high


def test_a_policy_learns_and_acts(shown, policy):
    split = shown.states.tensors(policy)
    records = fit(policy, split, split, TrainConfig(epochs=8, learning_rate=2e-3))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    result = rollout(policy, ArmWorld([7, 8, 9], [*MIXED, "pick"], ArmConfig(max_steps=6)), execute=4)
    assert (result.steps <= 6).all()
    assert result.states is None


def test_a_policy_with_two_cameras_and_a_state_learns_and_acts(tiny_config):
    rules = ArmConfig(image_size=48, cameras="separate", max_steps=6)
    config = small(arm_config(horizon=8, image_size=48, cameras="separate", with_state=True), tiny_config)
    policy = new_policy(config, seed=0)
    states = disturbed_expert(rules).states
    assert {name: view.shape[1:] for name, view in states.images.items()} == dict.fromkeys(
        ("above", "front"), (3, 24, 48)
    )
    split = states.tensors(policy)
    assert split.state.shape == (len(states), STATE_DIM)
    policy.fit_statistics(split.actions, split.state)
    records = fit(policy, split, split, TrainConfig(epochs=6, learning_rate=2e-3))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    for controller in (Controller(policy, execute=4), Controller(policy, ensemble=0.01)):
        result = rollout(controller, ArmWorld([7, 8], MIXED, rules))
        assert (result.steps <= 6).all()
    world = ArmWorld([7, 8], MIXED, rules)
    controller.reset(2, world.action_dim)
    seen = world.observe()
    changed = {**seen, "observation.state": seen["observation.state"] + 1}
    first = controller.act(seen)
    controller.reset(2, world.action_dim)
    assert not np.allclose(first, controller.act(changed)), "the state should matter"
    stacked = ArmWorld([7, 8], MIXED, replace(rules, cameras="stacked"))
    with pytest.raises(InputError, match=r"lacks observation\.images\.above"):
        rollout(policy, stacked)


def test_demonstrations_and_dagger_work_here(tiny_config):
    rules = ArmConfig(image_size=32, max_steps=3)
    config = small(arm_config(horizon=2, image_size=32, with_state=True), tiny_config)

    def make_world(seeds):
        return ArmWorld(seeds, "reach", rules)

    options = {"rounds": 1, "episodes": 2, "train_config": TrainConfig(epochs=1), "num_test": 2}
    policy, records = dagger(config, make_world=make_world, **options)
    assert [record["num_states"] for record in records] == [6, 12]
    assert "went_to_named" in records[0]
    split = demonstrations(make_world([0, 1]), policy)
    assert split.actions.shape[1:] == (2, 7)
    assert split.state.shape == (len(split), STATE_DIM)


def test_a_recording_has_the_robots_state(shown):
    made = shown.states.demonstrations(fps=10)
    assert made.states.shape == (len(made), STATE_DIM)
    first = shown.states.of_episode(0)
    np.testing.assert_array_equal(made.states[: len(first)], shown.states.state[first])


def test_the_other_block_can_be_named():
    one, other = (rollout(expert, ArmWorld(range(10), "pick", named=n)) for n in (0, 1))
    assert one.success.all()
    assert other.success.all()
    assert (one.outcome["went_to"] == 0).all()
    assert rollout(expert, ArmWorld(range(10), "reach")).outcome["final_distances"].max() <= 0.03
    assert (other.outcome["went_to"] == 1).all()
    assert one.to_dict()["went_to_named"] == other.to_dict()["went_to_named"] == 1


def test_random_actions_fail():
    result = rollout(random_policy(0, action_dim=7), ArmWorld(range(5), "pick", ArmConfig(max_steps=10)))
    assert not result.success.any()


def test_a_policy_is_asked_only_when_its_plan_is_used_up(monkeypatch):
    asked, drawn = [], []
    views = ArmWorld.views

    def act(observation):
        asked.append(len(observation["task"]))
        return np.zeros((len(observation["task"]), 8, 7))

    def draw(world, episodes=None, size=0):
        drawn.append(len(episodes))
        return views(world, episodes, size)

    monkeypatch.setattr(ArmWorld, "views", draw)
    rollout(act, ArmWorld([0, 1], "pick", ArmConfig(max_steps=9)), execute=4)
    assert asked == drawn == [2, 2, 2], "nothing is drawn that nobody looks at"


@pytest.mark.parametrize(
    ("act", "execute", "says"),
    [
        (lambda observation: np.zeros((len(observation["task"]), 2)), 1, r"need \(1, 7\), or \(1, h, 7\)"),
        (lambda observation: np.zeros((len(observation["task"]), 7)), 2, r"answers with 1 action\(s\)"),
        (random_policy(0, 7), 0, "execute is 0; it must be a whole number from 1 to"),
    ],
)
def test_what_does_not_fit_is_refused(act, execute, says):
    with pytest.raises(InputError, match=says):
        rollout(act, ArmWorld([0]), execute=execute)
