from __future__ import annotations

import numpy as np
import pytest

from tinyvla.act.blocks.two_steps import TwoSteps, steps_of
from tinyvla.act.blocks.world import BlockWorld, expert_action
from tinyvla.act.rollout import expert, rollout
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.model.observation import TASK_KEY


def test_a_sentence_is_cut_into_its_steps():
    assert steps_of("find the red block, then find the blue block") == ["find the red block", "find the blue block"]
    assert steps_of("find the red block") == ["find the red block"]


def test_the_sentence_names_the_first_two_blocks_of_the_scene():
    world = TwoSteps(range(5))
    for seed, sentence in zip(world.seeds, world.instructions, strict=True):
        first, second = BlockFind(1, seed)[0].colors[:2]
        assert sentence == f"find the {first} block, then find the {second} block"


def test_the_expert_stops_on_both_in_order():
    result = rollout(expert, TwoSteps(range(30)))
    assert result.success.all()
    assert TwoSteps.summary(result) == {"first": 1.0, "both": 1.0}
    np.testing.assert_allclose(result.outcome["path_lengths"], result.outcome["expert_path_lengths"], atol=1e-6)


def test_what_is_told_changes_when_the_first_block_has_been_stopped_on():
    world, whole = TwoSteps(range(3), told="step"), TwoSteps(range(3), told="all")
    first, second = zip(*(steps_of(sentence) for sentence in world.instructions), strict=True)
    assert world.observe()[TASK_KEY] == list(first)
    for _ in range(30):
        if not len(world.running) or (world.stage == 1).all():
            break
        moves = expert_action(world.offsets, 4.0)[world.running]
        moves[world.stage[world.running] == 1] = 1.0  # wait somewhere else for the others
        for each in (world, whole):
            each.step(moves)
    assert world.observe()[TASK_KEY] == list(second)
    assert whole.observe()[TASK_KEY] == whole.instructions


def test_without_memory_the_second_step_is_not_found():
    """A policy with no memory that is told the whole sentence; it goes to the first block that is named, and stays."""
    world = TwoSteps(range(20), told="all")
    goals = world.centers[:, 0].copy()

    def first_only(observation):
        running = world.running
        return expert_action(goals[running] - world.camera[running], 4.0)

    result = rollout(first_only, world)
    assert TwoSteps.summary(result) == {"first": 1.0, "both": 0.0}
    assert result.steps.max() == 80


def test_stopping_on_the_second_block_first_does_not_count():
    world = TwoSteps(range(10))
    goals = world.centers[:, 1].copy()

    def second_only(observation):
        running = world.running
        return expert_action(goals[running] - world.camera[running], 4.0)

    assert TwoSteps.summary(rollout(second_only, world)) == {"first": 0.0, "both": 0.0}


def test_one_step_is_as_it_was():
    assert rollout(expert, BlockWorld(range(5))).success.all()


def test_unknown_ways_to_tell_are_refused():
    with pytest.raises(InputError, match="choose from step, all"):
        TwoSteps(range(2), told="nothing")
