"""Episodes of the arm: recorded, disturbed, driven by a policy, filmed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed", allow_module_level=True)

from tinyvla.show.arm_filmstrip import film_strip, filmed
from tinyvla.act.arm.rollout import ArmResult, ArmStates, arm_config, arm_expert, disturbed, random_arm, rollout
from tinyvla.act.arm.world import ArmConfig, ArmWorld
from tinyvla.config import InputError, ModelConfig, TrainConfig
from tinyvla.model.policy import TinyVLA
from tinyvla.act.rollout import policy_act
from tinyvla.learn.train import fit, new_policy

MIXED = ["reach", "pick"]


@pytest.fixture(scope="module")
def shown() -> ArmResult:
    return rollout(arm_expert, [0, 1, 2, 3], MIXED * 2, noise=0.4, horizon=8)


@pytest.fixture(scope="module")
def policy(shown, tiny_config) -> TinyVLA:
    head = arm_config(horizon=8).head
    made = new_policy(replace(tiny_config, head=replace(head, hidden_dim=16)), seed=0)
    made.fit_statistics(shown.states.tensors().actions)
    return made


def test_a_policy_for_the_arm_makes_chunks_of_seven():
    config = arm_config("nano", horizon=4, image_size=96)
    assert isinstance(config, ModelConfig)
    assert (config.head.kind, config.head.action_dim, config.head.horizon) == ("flow", 7, 4)
    assert config.vision.image_size == 96


def test_states_are_recorded_with_the_experts_plans(shown):
    states = shown.states
    assert len(states) == shown.steps.sum()
    assert states.images.shape == (len(states), 3, 64, 64)
    assert states.chunks.shape == (len(states), 8, 7)
    world = ArmWorld([0, 1, 2, 3], MIXED * 2)
    np.testing.assert_array_equal(states.images[:4], world.views())
    assert [states.instructions[i] for i in range(4)] == world.instructions == shown.instructions
    assert states.episodes[:4].tolist() == [0, 1, 2, 3]
    assert np.abs(states.chunks[..., :6]).max() <= 1
    split = states.tensors()
    assert split.actions.shape == (len(states), 8, 7)


def test_a_disturbed_expert_does_not_do_what_it_means(shown):
    assert (shown.states.actions != shown.states.chunks[:, 0]).any()
    calm = rollout(arm_expert, [0, 1], "reach", horizon=1)
    np.testing.assert_array_equal(calm.states.actions, calm.states.chunks[:, 0])
    assert calm.success.all()
    again = rollout(arm_expert, [0, 1, 2, 3], MIXED * 2, noise=0.4, horizon=8)
    np.testing.assert_array_equal(again.states.actions, shown.states.actions)


def test_disturbances_hit_half_and_turn_the_gripper_seldom():
    actions = np.tile([0.0] * 6 + [1.0], (4_000, 1))
    noisy = disturbed(actions, 0.5, np.random.RandomState(0))
    hit = (noisy[:, :6] != 0).any(axis=1)
    assert 0.45 < hit.mean() < 0.55
    assert 0.45 < noisy[hit, :6].std() < 0.55
    assert 0.01 < (noisy[:, 6] < 0).mean() < 0.06


def test_results_and_states_join(shown):
    two = ArmResult.joined([shown, shown])
    assert len(two) == 8
    assert two.success_rate == shown.success_rate
    assert len(two.states) == 2 * len(shown.states)
    assert two.states.episodes.max() == 7
    assert ArmStates.joined([shown.states]).instructions == shown.states.instructions
    values = two.to_dict()
    low, high = values["success_interval"]
    assert low <= values["success"] <= high


def test_a_policy_learns_and_acts(shown, policy):
    split = shown.states.tensors()
    records = fit(policy, split, split, TrainConfig(epochs=8, learning_rate=2e-3), progress_bar=False)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    result = rollout(policy_act(policy), [7, 8, 9], [*MIXED, "pick"], ArmConfig(max_steps=6), execute=4)
    assert (result.steps <= 6).all()
    assert result.states is None


def test_the_other_block_can_be_named():
    one, other = (rollout(arm_expert, range(10), "pick", named=n) for n in (0, 1))
    assert one.success.all()
    assert other.success.all()
    assert (one.went_to == 0).all()
    assert rollout(arm_expert, range(10), "reach").final_distances.max() <= 0.03
    assert (other.went_to == 1).all()
    assert one.to_dict()["went_to_named"] == other.to_dict()["went_to_named"] == 1


def test_random_actions_fail():
    result = rollout(random_arm(0), range(5), "pick", ArmConfig(max_steps=10), execute=1)
    assert not result.success.any()


def test_a_policy_is_asked_only_when_its_plan_is_used_up():
    asked = []

    def act(images, instructions):
        asked.append(len(images))
        return np.zeros((len(images), 8, 7))

    rollout(act, [0, 1], "pick", ArmConfig(max_steps=9), execute=4)
    assert asked == [2, 2, 2]


@pytest.mark.parametrize(
    ("act", "execute", "says"),
    [
        (lambda images, texts: np.zeros((len(images), 2)), 1, "need 7 numbers"),
        (lambda images, texts: np.zeros((len(images), 7)), 2, r"answers with 1 action\(s\)"),
        (random_arm(), 0, "at least one action"),
    ],
)
def test_what_does_not_fit_is_refused(act, execute, says):
    with pytest.raises(InputError, match=says):
        rollout(act, [0], execute=execute)


def test_the_expert_needs_to_be_told_places():
    with pytest.raises(InputError, match="inside rollout"):
        arm_expert(np.zeros((1, 3, 64, 64), np.uint8), ["reach the red block"])


def test_an_episode_is_filmed_as_it_is_rolled_out(policy):
    frames, text, success = filmed(arm_expert, 3, "pick", shown=96)
    result = rollout(arm_expert, [3], "pick")
    assert success == result.success[0]
    assert len(frames) == result.steps[0] + 1
    assert text == result.instructions[0]
    assert frames[0].shape == (3, 96, 96)
    frames, *_ = filmed(policy_act(policy), 3, "reach", shown=64)
    assert 1 < len(frames) <= 41


def test_a_film_strip_has_a_row_per_instruction():
    import matplotlib.pyplot as plt

    fig = film_strip(arm_expert, [0, 1], columns=5, rows=(("reach", 0), ("pick", 0), ("pick", 2)))
    assert len(fig.axes) == 15
    titles = [ax.get_title(loc="left") for ax in fig.axes[::5]]
    assert len(set(titles)) == 3
    plt.close(fig)


def test_a_film_strip_looks_for_a_success(policy):
    import matplotlib.pyplot as plt

    fig = film_strip(policy_act(policy), [0, 1], columns=2, rows=(("reach", 0),))
    assert fig.axes[0].get_title(loc="left") == ArmWorld([0]).instructions[0]  # it fails in both
    plt.close(fig)
