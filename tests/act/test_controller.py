"""A policy that acts: the queue of a chunk's actions, and the mean of several chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.controller import ROWS_AT_ONCE, Controller
from tinyvla.act.world import episode_seeds
from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.learn.evaluate import predict_split
from tinyvla.model.policy import new_policy


def seen(*numbers: float) -> dict:
    """An observation of some episodes; what is seen is a number."""
    return {"observation.state": np.array(numbers, np.float32)[:, None], "task": ["go"] * len(numbers)}


def counting(horizon: int):
    """Plans 0, 1, 2, ... after ten times the number that is seen."""
    return lambda observation: 10 * observation["observation.state"][:, :, None] + np.arange(horizon)[:, None]


class TestQueue:
    def test_a_chunk_is_used_up_before_the_next_look(self):
        looks = []

        def policy(observation):
            looks.append(observation["observation.state"].ravel().tolist())
            return counting(5)(observation)

        controller = Controller(policy, execute=3)
        controller.reset(2)
        actions = [controller.act(seen(t, t + 0.5)).ravel().tolist() for t in range(7)]
        assert actions == [[0, 5], [1, 6], [2, 7], [30, 35], [31, 36], [32, 37], [60, 65]]
        assert looks == [[0, 0.5], [3, 3.5], [6, 6.5]]

    def test_no_observation_is_needed_between_looks(self):
        controller = Controller(counting(4), execute=2)
        index = np.array([0])
        assert controller.due(index).all()
        controller.act(seen(1))
        assert not controller.due(index).any()
        np.testing.assert_array_equal(controller.act(None), [[11]])
        with pytest.raises(InputError, match="1 episode and no observation"):
            controller.act(None)

    def test_episodes_may_end_at_different_times(self):
        controller = Controller(counting(4), execute=2)
        controller.reset(4)
        np.testing.assert_array_equal(controller.act(seen(0, 1, 2, 3)), [[0], [10], [20], [30]])
        np.testing.assert_array_equal(controller.act(None, np.array([1, 3])), [[11], [31]])
        np.testing.assert_array_equal(controller.act(seen(5), np.array([3])), [[50]])

    def test_episodes_may_be_at_different_places_of_their_plans(self):
        controller = Controller(counting(4), execute=2)
        controller.reset(3)
        controller.act(seen(0, 1), np.array([0, 1]))  # the third begins later
        assert controller.due(np.arange(3)).tolist() == [False, False, True]
        np.testing.assert_array_equal(controller.act(seen(7, 8, 9)), [[1], [11], [90]])
        np.testing.assert_array_equal(controller.act(seen(4, 5, 6)), [[40], [50], [91]])

    def test_reset_forgets_the_old_plan(self):
        controller = Controller(counting(4), execute=4)
        controller.act(seen(1))
        controller.reset()
        np.testing.assert_array_equal(controller.act(seen(2)), [[20]])

    def test_single_actions_are_chunks_of_one(self):
        controller = Controller(lambda observation: observation["observation.state"])
        np.testing.assert_array_equal([controller.act(seen(n)).item() for n in (3, 4)], [3, 4])


class TestEnsemble:
    @pytest.mark.parametrize("m", [0.01, 0.0, 0.7, -0.5])
    def test_it_is_acts_weighted_mean(self, m):
        rng = np.random.RandomState(0)
        chunks = rng.randn(9, 2, 4, 3)  # step, episode, action of the chunk, dimension
        controller = Controller(lambda observation: chunks[int(observation["observation.state"][0, 0])], ensemble=m)
        controller.reset(2, action_dim=3)
        for step in range(9):
            action = controller.act(seen(step, step))
            for episode in range(2):  # as in ACT's code: predictions for this step, the oldest first
                planned = [chunks[s, episode, step - s] for s in range(max(0, step - 3), step + 1)]
                weights = np.exp(-m * np.arange(len(planned)))
                np.testing.assert_allclose(action[episode], weights / weights.sum() @ np.array(planned))

    def test_a_mean_by_hand(self):
        plans = {0: [[0.0], [2.0], [4.0]], 1: [[1.0], [3.0], [5.0]]}
        controller = Controller(lambda s: np.array([plans[int(s["observation.state"][0, 0])]]), ensemble=np.log(2))
        assert controller.act(seen(0)).item() == 0
        assert controller.act(seen(1)).item() == pytest.approx((1 * 2 + 0.5 * 1) / 1.5)  # the older one weighs double

    def test_it_looks_at_every_step_and_episodes_end_on_their_own(self):
        controller = Controller(counting(3), ensemble=0.0)
        controller.reset(2)
        controller.act(seen(0, 1))
        assert controller.due(np.arange(2)).all()
        assert controller.act(seen(2), np.array([1])).item() == (11 + 20) / 2
        assert controller.act(seen(3), np.array([1])).item() == pytest.approx((12 + 21 + 30) / 3)
        assert controller.act(seen(4), np.array([1])).item() == pytest.approx((22 + 31 + 40) / 3)
        assert controller.act(seen(0.5), np.array([0])).item() == (1 + 5) / 2

    def test_chunks_of_one_are_left_as_they_are(self):
        controller = Controller(counting(1), ensemble=0.01)
        assert [controller.act(seen(n)).item() for n in (1, 2)] == [10, 20]


class TestPolicies:
    def test_a_policy_answers_as_predict_does(self, tiny_policy):
        world = BlockWorld(range(6))
        controller = Controller(tiny_policy)
        controller.reset(6, 2)
        expected = tiny_policy.predict(world.views(), world.instructions).numpy()
        np.testing.assert_allclose(controller.act(world.observe()), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", ["regression", "flow"])
    def test_many_episodes_are_answered_in_parts_and_the_same_each_time(self, tiny_config, kind):
        policy = new_policy(replace(tiny_config, head=replace(tiny_config.head, kind=kind, horizon=2)), 0)
        world = BlockWorld(episode_seeds(ROWS_AT_ONCE + 3, 44))
        controller = Controller(policy)
        answers = []
        for _ in range(2):
            controller.reset(len(world), 2)
            answers.append(controller.act(world.observe()))
        np.testing.assert_array_equal(*answers)
        no_labels = np.zeros((len(world), 2, 2), np.float32)
        split = TensorSplit.from_arrays(
            {"camera": world.views()}, world.instructions, no_labels, policy.language.encode
        )
        np.testing.assert_array_equal(answers[0], predict_split(policy, split)[:, 0].numpy())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"execute": 0}, "execute is 0; it must be a whole number"),
        ({"execute": 4, "ensemble": 0.1}, "execute is 4, but ensembling looks at every step"),
        ({"ensemble": np.nan}, "ensemble is nan; it must be a number from -5 to 5"),
        ({"ensemble": 6.0}, "ensemble is 6.0"),
    ],
)
def test_settings_are_checked(options, says):
    with pytest.raises(InputError, match=says):
        Controller(counting(4), **options)


@pytest.mark.parametrize(
    ("answer", "execute", "says"),
    [
        (np.zeros((2, 7)), 2, r"execute is 2, but the policy answers with 1 action\(s\) at a time"),
        (np.zeros((2, 3, 7)), 4, r"execute is 4, but the policy answers with 3 action\(s\) at a time"),
        (
            np.zeros((2, 6)),
            1,
            r"actions have shape \(2, 6\); 2 running episodes need \(2, 7\), or \(2, h, 7\) for chunks",
        ),
        (np.zeros((3, 7)), 1, r"actions have shape \(3, 7\)"),
        (np.zeros(7), 1, r"actions have shape \(7,\)"),
        (np.zeros((2, 3, 4, 7)), 1, r"actions have shape \(2, 3, 4, 7\)"),
        (np.full((2, 3, 7), np.nan), 2, "an action is NaN or infinite"),
    ],
)
def test_answers_that_do_not_fit_are_refused(answer, execute, says):
    controller = Controller(lambda observation: answer, execute)
    controller.reset(2, action_dim=7)
    with pytest.raises(InputError, match=says):
        controller.act(seen(0, 1))


def test_observations_that_do_not_fit_are_refused():
    controller = Controller(counting(2))
    controller.reset(3)
    with pytest.raises(InputError, match="3 episodes and an observation of 2 rows"):
        controller.act(seen(1, 2))
    with pytest.raises(InputError, match="needs a list of sentences"):
        controller.act({"task": "go"})


def test_chunks_must_keep_their_length():
    lengths = iter([3, 2])
    controller = Controller(lambda observation: counting(next(lengths))(observation))
    controller.act(seen(1))
    with pytest.raises(InputError, match=r"chunks of shape \(3, 1\) before and of \(2, 1\) now"):
        controller.act(seen(1))
