from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tinyvla.app import cli
from tinyvla.config import DataConfig, InputError, TrainConfig
from tinyvla.data.blockfind import PALETTE
from tinyvla.act.rollout import (
    dagger,
    demonstrations,
    expert,
    policy_act,
    random_policy,
    rollout,
)
from tinyvla.learn.train import new_policy
from tinyvla.act.block_world import BatchedWorld, WorldConfig, episode_seeds, expert_action, expert_chunk


@pytest.fixture(scope="module")
def shown():
    return rollout(expert, range(200), num_recorded=200)


def never_moves(images, instructions):
    return np.zeros((len(images), 2))


def always_right(images, instructions):
    return np.tile([1.0, 0.0], (len(images), 1))


def test_the_expert_succeeds_on_the_straight_line(shown):
    assert shown.success.all()
    assert shown.reached.all()
    assert shown.path_ratio == pytest.approx(1)
    np.testing.assert_allclose(shown.path_lengths, shown.expert_path_lengths)
    assert shown.steps.max() <= 11
    assert shown.ended_on == [text.split()[2] for text in shown.instructions]
    assert shown.to_dict()["success_interval"][0] > 0.98


def test_chance_rarely_succeeds():
    result = rollout(random_policy(0), range(200))
    assert result.success_rate < 0.05
    assert result.path_ratio < 0.05
    assert rollout(random_policy(0), range(50)).steps.tolist() == rollout(random_policy(0), range(50)).steps.tolist()


def test_path_ratio_weighs_success_by_the_detour():
    world = BatchedWorld([0])  # moves as the rollout's own does, and tells this actor where the target is

    def act(images, instructions):
        away_and_back = {0: [[0.0, 1.0]], 1: [[0.0, -1.0]]}
        actions = np.array(away_and_back.get(int(world.steps[0]), expert_action(world.offsets, 4.0)))
        world.step(actions)
        return actions

    result = rollout(act, [0])
    straight = result.expert_path_lengths[0]
    assert result.success.all()
    assert result.path_ratio == pytest.approx(straight / (straight + 8))


def test_passing_the_block_is_reaching_and_not_success():
    offsets = BatchedWorld(range(300)).offsets
    ahead = [seed for seed, (x, y) in enumerate(offsets) if x > 0 and abs(y) <= 4]
    result = rollout(always_right, ahead, WorldConfig(tolerance=4.5))
    assert result.reached.all()
    assert not result.success.any()
    assert result.to_dict()["reached"] == 1


def looks_at_pixels(images, instructions, horizon=6):
    """Finds the named colour in the image and plans the expert's way there."""
    colors = np.array([PALETTE[text.split()[2]] for text in instructions])[:, :, None, None]
    seen = (images == colors).all(axis=1)  # (n, 64, 64)
    places = [np.argwhere(mask).mean(axis=0)[::-1] + 0.5 - 32 for mask in seen]
    return expert_chunk(np.array(places), 4.0, horizon)


@pytest.mark.parametrize("execute", [1, 2, 4, 6])
def test_a_chunk_is_executed_in_part(execute):
    looks = []

    def act(images, instructions):
        looks.append(len(images))
        return looks_at_pixels(images, instructions)

    result = rollout(act, range(40), execute=execute)
    assert result.success.all()
    assert sum(looks) == result.looks.sum()
    assert len(looks) == result.looks.max()
    np.testing.assert_array_equal(result.looks, np.ceil(result.steps / execute))


def test_looking_again_corrects_what_went_wrong():
    rng = np.random.RandomState(0)

    def slips(images, instructions):
        chunk = looks_at_pixels(images, instructions, horizon=8)
        return chunk * rng.uniform(0.5, 1.5, (*chunk.shape[:2], 1))

    often, rarely = (rollout(slips, range(60), execute=execute) for execute in (1, 8))
    assert often.success.all()
    assert rarely.steps.mean() > often.steps.mean()


@pytest.mark.parametrize(
    ("answer", "execute", "says"),
    [
        (lambda n: np.zeros((n, 2)), 2, r"execute is 2, but the policy answers with 1 action"),
        (lambda n: np.zeros((n, 3, 2)), 4, r"execute is 4, but the policy answers with 3 action"),
        (lambda n: np.zeros((n, 3, 2)), 0, r"execute is 0; at least one"),
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
        rollout(lambda images, instructions: answer(len(images)), range(5), execute=execute)


def test_a_policy_sees_images_and_words_of_the_running_episodes_alone():
    sizes = []

    def act(images, instructions):
        assert images.shape == (len(instructions), 3, 64, 64)
        assert images.dtype == np.uint8
        assert all(text.startswith("find the ") for text in instructions)
        sizes.append(len(images))
        return np.zeros((len(images), 2))

    rollout(act, range(20), beta=0.9)
    assert sizes[0] == 20
    assert sizes[-1] < 20
    assert sizes == sorted(sizes, reverse=True)


def test_states_are_those_on_the_way(shown):
    states = shown.states
    assert len(states) == shown.steps.sum()
    np.testing.assert_array_equal(states.actions.astype(np.float32), states.expert_actions)
    for episode in (0, 150):
        index = states.of_episode(episode)
        world = BatchedWorld([episode])
        for i in index:
            np.testing.assert_array_equal(states.images[i], world.views()[0])
            assert states.instructions[i] == world.instructions[0]
            world.step(states.actions[i][None])
        assert world.terminated.all()
    off_grid = (states.offsets % 8 != 4).any(axis=1)
    assert off_grid.mean() > 0.7
    with pytest.raises(InputError, match="no episode 200"):
        states.of_episode(200)


def test_labels_are_the_experts_whoever_acts():
    states = rollout(never_moves, range(10), WorldConfig(max_steps=3), num_recorded=4).states
    assert len(states) == 12
    assert set(states.episodes) == {0, 1, 2, 3}
    np.testing.assert_array_equal(states.actions, 0)
    np.testing.assert_allclose(states.expert_actions, expert_action(states.offsets, 4.0), rtol=1e-6)


def test_beta_mixes_the_expert_in():
    assert rollout(never_moves, range(20), beta=1.0).success.all()
    assert not rollout(never_moves, range(20), beta=0.0).success.any()
    half = rollout(never_moves, range(20), beta=0.5)
    assert half.success.all()
    assert half.steps.mean() > 1.3 * rollout(expert, range(20)).steps.mean()
    with pytest.raises(InputError, match=r"beta is 1\.5"):
        rollout(never_moves, [0], beta=1.5)


def test_demonstrations_are_a_split_to_train_on():
    split = demonstrations(20, 42)
    result = rollout(expert, episode_seeds(20, 42))
    assert len(split) == result.steps.sum()
    assert split.images.dtype == torch.uint8
    assert split.actions.dtype == torch.float32
    assert split.actions.norm(dim=1).max() <= 1 + 1e-6
    assert (split.actions.norm(dim=1) < 0.99).any(), "near the target the expert slows down"


def test_demonstrations_in_chunks_are_what_the_expert_did():
    one, four = demonstrations(10, 42), demonstrations(10, 42, horizon=4)
    assert four.actions.shape == (len(one), 4, 2)
    torch.testing.assert_close(four.actions[:, 0], one.actions)
    states = rollout(expert, episode_seeds(10, 42), num_recorded=10).states
    for episode in range(10):
        index = states.of_episode(episode)
        np.testing.assert_allclose(four.actions[index[0]][: len(index)], one.actions[index][:4], atol=1e-6)


def test_a_policy_of_chunks_can_be_rolled_out(tiny_config):
    config = replace(tiny_config, head=replace(tiny_config.head, horizon=3))
    result = rollout(policy_act(new_policy(config, 0)), range(4), WorldConfig(max_steps=5), execute=3)
    assert result.steps.max() <= 5
    assert result.looks.max() <= 2


def test_a_policy_answers_as_predict_does(tiny_policy):
    world = BatchedWorld(range(6))
    actions = policy_act(tiny_policy)(world.views(), world.instructions)
    expected = tiny_policy.predict(world.views(), world.instructions).numpy()
    np.testing.assert_allclose(actions, expected, atol=1e-6)


def test_dagger_works_end_to_end(tiny_config):
    seen = []
    settings = TrainConfig(epochs=1, learning_rate=1e-3)
    data = DataConfig(train_seed=5)
    options = {"rounds": 2, "episodes": 4, "train_config": settings, "data": data, "num_test": 5}
    policy, records = dagger(tiny_config, config=WorldConfig(max_steps=6), on_round=seen.append, **options)
    assert seen == records
    assert not policy.training
    assert [r["round"] for r in records] == [0, 1, 2]
    states, steps = ([r[key] for r in records] for key in ("num_states", "train_steps"))
    assert states == sorted(states)
    assert states[2] > states[1] > states[0]
    assert steps[2] > steps[1] > steps[0] > 0
    assert all(r["num_episodes"] == 5 for r in records)
    _, again = dagger(tiny_config, config=WorldConfig(max_steps=6), **{**options, "rounds": 1})
    assert again == records[:2]
    with pytest.raises(InputError, match="rounds is -1"):
        dagger(tiny_config, rounds=-1)


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
    assert max(map(len, said.splitlines()[:4])) <= 100
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
        (["--policy", "expert", "--episodes", "2", "--gif", "{tmp}/none/a.gif"], "cannot read or write"),
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
