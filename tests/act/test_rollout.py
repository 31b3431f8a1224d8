from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from tinyvla.act.blocks.world import BlockWorld, WorldConfig, expert_action, expert_chunk
from tinyvla.act.controller import Controller
from tinyvla.act.result import Result, States
from tinyvla.act.rollout import expert, random_policy, replay, rollout
from tinyvla.app import cli
from tinyvla.data.dataset import PALETTE
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy

IMAGES = "observation.images.camera"


@pytest.fixture(scope="module")
def shown():
    return rollout(expert, BlockWorld(range(200)), record=200)


def never_moves(observation):
    return np.zeros((len(observation["task"]), 2))


def always_right(observation):
    return np.tile([1.0, 0.0], (len(observation["task"]), 1))


def test_the_expert_succeeds_on_the_straight_line(shown):
    assert shown.success.all()
    assert shown.outcome["reached"].all()
    assert shown.summary["path_ratio"] == pytest.approx(1)
    np.testing.assert_allclose(shown.outcome["path_lengths"], shown.outcome["expert_path_lengths"])
    assert shown.steps.max() <= 11
    assert shown.outcome["ended_on"].tolist() == [text.split()[2] for text in shown.instructions]
    assert shown.to_dict()["success_interval"][0] > 0.98


def test_chance_rarely_succeeds():
    result = rollout(random_policy(0), BlockWorld(range(200)))
    assert result.success_rate < 0.05
    assert result.summary["path_ratio"] < 0.05
    one, again = (rollout(random_policy(0), BlockWorld(range(50))) for _ in range(2))
    assert one.steps.tolist() == again.steps.tolist()


def test_path_ratio_weighs_success_by_the_detour():
    world = BlockWorld([0])  # moves as the rollout's own does, and tells this actor where the target is

    def act(observation):
        away_and_back = {0: [[0.0, 1.0]], 1: [[0.0, -1.0]]}
        actions = np.array(away_and_back.get(int(world.steps[0]), expert_action(world.offsets, 4.0)))
        world.step(actions)
        return actions

    result = rollout(act, BlockWorld([0]))
    straight = result.outcome["expert_path_lengths"][0]
    assert result.success.all()
    assert result.summary["path_ratio"] == pytest.approx(straight / (straight + 8))


def test_passing_the_block_is_reaching_and_not_success():
    offsets = BlockWorld(range(300)).offsets
    ahead = [seed for seed, (x, y) in enumerate(offsets) if x > 0 and abs(y) <= 4]
    result = rollout(always_right, BlockWorld(ahead, WorldConfig(tolerance=4.5)))
    assert result.outcome["reached"].all()
    assert not result.success.any()
    assert result.to_dict()["reached"] == 1


def looks_at_pixels(observation, horizon=6):
    """Finds the named colour in the image and plans the expert's way there."""
    colors = np.array([PALETTE[text.split()[2]] for text in observation["task"]])[:, :, None, None]
    seen = (observation[IMAGES] == colors).all(axis=1)  # (n, 64, 64)
    places = [np.argwhere(mask).mean(axis=0)[::-1] + 0.5 - 32 for mask in seen]
    return expert_chunk(np.array(places), 4.0, horizon)


@pytest.mark.parametrize("execute", [1, 2, 4, 6])
def test_a_chunk_is_executed_in_part(execute):
    looks = []

    def act(observation):
        looks.append(len(observation["task"]))
        return looks_at_pixels(observation)

    result = rollout(act, BlockWorld(range(40)), execute=execute)
    assert result.success.all()
    assert sum(looks) == result.looks.sum()
    assert len(looks) == result.looks.max()
    np.testing.assert_array_equal(result.looks, np.ceil(result.steps / execute))


def test_looking_again_corrects_what_went_wrong():
    rng = np.random.RandomState(0)

    def slips(observation):
        chunk = looks_at_pixels(observation, horizon=8)
        return chunk * rng.uniform(0.5, 1.5, (*chunk.shape[:2], 1))

    often, rarely = (rollout(slips, BlockWorld(range(60)), execute=execute) for execute in (1, 8))
    assert often.success.all()
    assert rarely.steps.mean() > often.steps.mean()


def test_ensembling_calms_a_policy_that_slips():
    rng = np.random.RandomState(0)

    def slips(observation):
        chunk = looks_at_pixels(observation, horizon=4)
        return chunk + rng.normal(0, 0.4, chunk.shape)

    restless = rollout(slips, BlockWorld(range(60)))
    calm = rollout(slips, BlockWorld(range(60)), ensemble=0.01)
    assert calm.success.mean() > restless.success.mean()
    assert calm.summary["path_ratio"] > restless.summary["path_ratio"]
    np.testing.assert_array_equal(calm.looks, calm.steps)


def test_a_controller_of_ones_own_acts_as_it_is_set():
    controller = Controller(looks_at_pixels, execute=3)
    one = rollout(controller, BlockWorld(range(20)))
    other = rollout(looks_at_pixels, BlockWorld(range(20)), execute=3)
    np.testing.assert_array_equal(one.outcome["path_lengths"], other.outcome["path_lengths"])
    assert one.execute == 3
    again = rollout(controller, BlockWorld(range(5)))  # it is reset for each rollout
    np.testing.assert_array_equal(again.steps, one.steps[:5])


@pytest.mark.parametrize(
    ("answer", "execute", "says"),
    [
        (lambda n: np.zeros((n, 2)), 2, r"execute is 2, but the policy answers with 1 action"),
        (lambda n: np.zeros((n, 3, 2)), 4, r"execute is 4, but the policy answers with 3 action"),
        (lambda n: np.zeros((n, 3, 2)), 0, r"execute is 0; it must be a whole number"),
        (
            lambda n: np.zeros((n, 3)),
            1,
            r"actions have shape \(5, 3\); 5 running episodes need \(5, 2\), or \(5, h, 2\)",
        ),
        (lambda n: np.zeros((n + 1, 2)), 1, r"actions have shape \(6, 2\)"),
        (lambda n: np.full((n, 3, 2), np.nan), 2, r"NaN"),
    ],
)
def test_answers_of_a_wrong_shape_are_refused(answer, execute, says):
    with pytest.raises(InputError, match=says):
        rollout(lambda observation: answer(len(observation["task"])), BlockWorld(range(5)), execute=execute)


def test_a_world_can_be_used_once():
    world = BlockWorld(range(5))
    rollout(expert, world)
    with pytest.raises(InputError, match="make a new world for each rollout"):
        rollout(expert, world)


def test_the_expert_cannot_act_from_what_is_seen():
    with pytest.raises(InputError, match="inside rollout"):
        expert(BlockWorld([0]).observe())


def test_a_policy_sees_images_and_words_of_the_running_episodes_alone():
    sizes = []

    def act(observation):
        assert set(observation) == {IMAGES, "task"}
        assert observation[IMAGES].shape == (len(observation["task"]), 3, 64, 64)
        assert observation[IMAGES].dtype == np.uint8
        assert all(text.startswith("find the ") for text in observation["task"])
        sizes.append(len(observation["task"]))
        return never_moves(observation)

    rollout(act, BlockWorld(range(20)), beta=0.9)
    assert sizes[0] == 20
    assert sizes[-1] < 20
    assert sizes == sorted(sizes, reverse=True)


def test_states_are_those_on_the_way(shown):
    states = shown.states
    assert len(states) == shown.steps.sum()
    np.testing.assert_array_equal(states.actions.astype(np.float32), states.expert_actions)
    offsets = []
    for episode in (0, 150):
        index = states.of_episode(episode)
        world = BlockWorld([episode])
        for i in index:
            np.testing.assert_array_equal(states.images["camera"][i], world.views()[0])
            assert states.instructions[i] == world.instructions[0]
            offsets.append(world.offsets[0])
            world.step(states.actions[i][None])
        assert world.succeeded.all()
    assert (np.array(offsets) % 8 != 4).any(axis=1).mean() > 0.7, "most are off the grid"
    assert states.state is None
    with pytest.raises(InputError, match="no episode 200"):
        states.of_episode(200)


def test_labels_are_the_experts_whoever_acts():
    world = BlockWorld(range(10), WorldConfig(max_steps=3))
    offsets = np.tile(world.offsets[:4], (3, 1))  # nobody moves
    states = rollout(never_moves, world, record=4).states
    assert len(states) == 12
    assert set(states.episodes) == {0, 1, 2, 3}
    np.testing.assert_array_equal(states.actions, 0)
    np.testing.assert_allclose(states.expert_actions, expert_action(offsets, 4.0), rtol=1e-6)


def test_labels_can_be_chunks():
    one, four = (rollout(expert, BlockWorld(range(10)), record=10, horizon=h).states for h in (1, 4))
    assert four.expert_chunks.shape == (len(one), 4, 2)
    np.testing.assert_array_equal(four.expert_actions, one.expert_actions)
    for episode in range(10):
        index = four.of_episode(episode)
        np.testing.assert_allclose(four.expert_chunks[index[0]][: len(index)], four.actions[index][:4], atol=1e-6)


def test_what_is_done_can_be_disturbed_and_the_label_stays():
    def to_the_right(actions, rng):
        return actions + np.array([0.2, 0.0])

    states = rollout(expert, BlockWorld(range(10)), disturb=to_the_right, record=10).states
    np.testing.assert_allclose(states.actions - states.expert_actions, np.tile([0.2, 0.0], (len(states), 1)), atol=1e-6)
    policy = rollout(never_moves, BlockWorld(range(3), WorldConfig(max_steps=2)), disturb=to_the_right)
    np.testing.assert_allclose(policy.outcome["path_lengths"], 2 * 4 * 0.2)


def test_beta_mixes_the_expert_in():
    assert rollout(never_moves, BlockWorld(range(20)), beta=1.0).success.all()
    assert not rollout(never_moves, BlockWorld(range(20)), beta=0.0).success.any()
    half = rollout(never_moves, BlockWorld(range(20)), beta=0.5)
    assert half.success.all()
    assert half.steps.mean() > 1.3 * rollout(expert, BlockWorld(range(20))).steps.mean()
    with pytest.raises(InputError, match=r"beta is 1\.5"):
        rollout(never_moves, BlockWorld([0]), beta=1.5)


def test_each_step_can_be_watched():
    places = []

    def watch(world, actions):
        places.append((world.camera[0].copy(), actions))

    result = rollout(expert, BlockWorld([4]), on_step=watch)
    assert len(places) == result.steps[0]
    for (before, actions), (after, _) in pairwise(places):
        np.testing.assert_allclose(before + 4 * actions[0], after)


def test_an_episode_can_be_done_again():
    result = rollout(random_policy(1), BlockWorld(range(30, 40), WorldConfig(max_steps=9)), record=10)
    again = rollout(replay(result.states, 7), BlockWorld([result.seeds[7]], WorldConfig(max_steps=9)), record=1)
    np.testing.assert_array_equal(again.outcome["path_lengths"], result.outcome["path_lengths"][7:8])
    index = result.states.of_episode(7)
    np.testing.assert_array_equal(again.states.images["camera"], result.states.images["camera"][index])


def test_states_become_tensors_as_the_policy_needs_them(tiny_config):
    states = rollout(expert, BlockWorld(range(4)), record=4, horizon=3).states
    one = states.tensors(new_policy(tiny_config, 0))
    assert one.images["camera"].dtype == torch.uint8
    assert one.actions.dtype == torch.float32
    np.testing.assert_array_equal(one.actions, states.expert_actions)
    two = states.tensors(new_policy(replace(tiny_config, head=replace(tiny_config.head, horizon=2)), 0))
    np.testing.assert_array_equal(two.actions, states.expert_chunks[:, :2])
    small = replace(tiny_config, vision=replace(tiny_config.vision, image_size=32))
    assert states.tensors(new_policy(small, 0)).images["camera"].shape == (len(states), 3, 32, 32)
    four = new_policy(replace(tiny_config, head=replace(tiny_config.head, horizon=4)), 0)
    with pytest.raises(InputError, match=r"chunks of 4 actions, but 3 .* record with horizon=4"):
        states.tensors(four)


def test_states_become_demonstrations_episode_by_episode(shown):
    first = rollout(random_policy(0), BlockWorld(range(5), WorldConfig(max_steps=4)), record=5).states
    for done, actions in ((False, first.expert_actions), (True, first.actions)):
        made = first.demonstrations(fps=10, done=done, action_names=("dx", "dy"))
        assert made.episodes.tolist() == sorted(first.episodes.tolist())
        assert (made.fps, made.action_names, made.states) == (10, ("dx", "dy"), None)
        for episode in range(5):
            index, frames = first.of_episode(episode), np.flatnonzero(made.episodes == episode)
            np.testing.assert_array_equal(made.images["camera"][frames], first.images["camera"][index])
            np.testing.assert_array_equal(made.actions[frames], actions[index].astype(np.float32))
            assert [made.instructions[i] for i in frames] == [first.instructions[i] for i in index]


def test_results_and_states_join(shown):
    parts = [rollout(expert, BlockWorld(seeds), record=2) for seeds in ([0, 1], [2, 3, 4])]
    whole, together = rollout(expert, BlockWorld(range(5)), record=5), Result.joined(parts)
    assert together.to_dict() == whole.to_dict()
    assert together.seeds == whole.seeds
    np.testing.assert_array_equal(together.outcome["path_lengths"], whole.outcome["path_lengths"])
    assert len(together.states) == sum(len(part.states) for part in parts)
    assert sorted(set(together.states.episodes)) == [0, 1, 2, 3]
    assert States.joined([whole.states]).instructions == whole.states.instructions
    assert Result.joined([replace(part, states=None) for part in parts]).states is None


def test_a_result_travels_between_processes(shown):
    again = pickle.loads(pickle.dumps(shown))
    assert again.to_dict() == shown.to_dict()


def test_a_result_is_not_changed_by_its_world():
    world = BlockWorld(range(3))
    result = rollout(expert, world)
    before = result.to_dict()
    world.steps[:], world.succeeded[:], world.reached[:] = 0, False, False
    assert result.to_dict() == before


def test_a_table_says_the_numbers(shown):
    lines = shown.table("a/very/long/path/to/a/checkpoint/called/best").splitlines()
    assert "200 episodes" in lines[0]
    assert max(map(len, lines)) <= 100
    values = dict(line.rsplit("  ", 1) for line in lines[2:-1])
    assert {name.strip() for name in values} == {
        "success", "reached", "ended on another block", "path ratio", "mean final distance", "mean steps",
    }  # fmt: skip


def test_a_policy_of_chunks_can_be_rolled_out(tiny_config):
    config = replace(tiny_config, head=replace(tiny_config.head, horizon=3))
    result = rollout(new_policy(config, 0), BlockWorld(range(4), WorldConfig(max_steps=5)), execute=3)
    assert result.steps.max() <= 5
    assert result.looks.max() <= 2


def test_rollouts_need_no_gymnasium():
    script = "import sys; sys.modules['gymnasium'] = None\nimport tinyvla.act.rollout"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_verb_prints_a_table_and_writes_a_gif(tmp_path, capsys):
    gif = tmp_path / "episode.gif"
    cli.main(["rollout", "--policy", "expert", "--episodes", "20", "--gif", str(gif)])
    said = capsys.readouterr().out
    assert "expert" in said
    assert "100.0% [83.9%, 100.0%]" in said
    assert f"wrote {gif}" in said
    assert max(map(len, said.splitlines()[:-1])) <= 110
    with Image.open(gif) as picture:
        assert picture.n_frames > 1


def test_the_verb_judges_a_checkpoint(tiny_policy, tmp_path, capsys):
    tiny_policy.save_pretrained(tmp_path / "best")
    cli.main(["rollout", "--checkpoint", str(tmp_path / "best"), "--episodes", "3", "--json", "--device", "cpu"])
    values = json.loads(capsys.readouterr().out)
    assert values["num_episodes"] == 3
    assert 0 <= values["success"] <= 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--policy", "magic"], "unknown --policy 'magic'; choose from checkpoint, expert, random"),
        (["--policy", "expert", "--episodes", "0"], "number of episodes is 0"),
        (["--policy", "expert", "--episodes", "2", "--gif", "{tmp}/none/a.gif"], "there is no folder"),
        (["--checkpoint", "{tmp}/none"], "no checkpoint folder"),
    ],
)
def test_bad_input_is_one_line(args, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["rollout", *(arg.format(tmp=tmp_path) for arg in args)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
