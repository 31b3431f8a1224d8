from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from test_pretrained import build

from tinyvla.act import dagger as module
from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.dagger import dagger, demonstrations
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import ObservationConfig
from tinyvla.data.dataset import COLORS
from tinyvla.errors import InputError
from tinyvla.model.observation import STATE_KEY
from tinyvla.model.policy import new_policy
from tinyvla.model.pretrained import pretrained_config
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:never seen in training")  # few sentences
BRIEF = TrainConfig(epochs=1, learning_rate=1e-3)


def short_world(seeds):
    return BlockWorld(seeds, WorldConfig(max_steps=6))


def test_demonstrations_are_a_split_to_train_on(tiny_policy):
    split = demonstrations(BlockWorld(episode_seeds(20, 42)), tiny_policy)
    result = rollout(expert, BlockWorld(episode_seeds(20, 42)))
    assert len(split) == result.steps.sum()
    assert split.images["camera"].dtype == torch.uint8
    assert split.actions.dtype == torch.float32
    assert split.actions.norm(dim=1).max() <= 1 + 1e-6
    assert (split.actions.norm(dim=1) < 0.99).any(), "near the target the expert slows down"


def test_demonstrations_in_chunks_are_what_the_expert_did(tiny_config):
    policies = [new_policy(replace(tiny_config, head=replace(tiny_config.head, horizon=h)), 0) for h in (1, 4)]
    one, four = (demonstrations(BlockWorld(episode_seeds(10, 42)), policy) for policy in policies)
    assert four.actions.shape == (len(one), 4, 2)
    torch.testing.assert_close(four.actions[:, 0], one.actions)
    states = rollout(expert, BlockWorld(episode_seeds(10, 42)), record=10).states
    for episode in range(10):
        index = states.of_episode(episode)
        np.testing.assert_allclose(four.actions[index[0]][: len(index)], one.actions[index][:4], atol=1e-6)


def test_dagger_works_end_to_end(tiny_config):
    seen = []
    options = {"rounds": 2, "episodes": 4, "train_config": BRIEF, "data": DataConfig(train_seed=5), "num_test": 5}
    options["make_world"] = short_world
    policy, records = dagger(tiny_config, on_round=seen.append, **options)
    assert seen == records
    assert not policy.training
    assert [r["round"] for r in records] == [0, 1, 2]
    states, steps = ([r[key] for r in records] for key in ("num_states", "train_steps"))
    assert states == sorted(states)
    assert states[2] > states[1] > states[0]
    assert steps[2] > steps[1] > steps[0] > 0
    assert all(r["num_episodes"] == 5 for r in records)
    _, again = dagger(tiny_config, **{**options, "rounds": 1})
    assert again == records[:2]
    with pytest.raises(InputError, match="rounds is -1"):
        dagger(tiny_config, rounds=-1)


@pytest.fixture
def splits(monkeypatch):
    """What DAgger trains on, round by round."""
    taken = []
    fit = module.fit

    def note(policy, train, val, config):
        taken.append((train, val))
        return fit(policy, train, val, config)

    monkeypatch.setattr(module, "fit", note)
    return taken


@pytest.mark.parametrize("kind", ["phi", "distilbert"])
def test_with_a_pretrained_tower_it_trains_on_that_towers_ids(kind, tiny_config, splits, tmp_path):
    build(kind, tmp_path)
    config = replace(tiny_config, language=pretrained_config(None, str(tmp_path), "nano").language)
    _, records = dagger(config, rounds=1, episodes=4, train_config=BRIEF, make_world=short_world, num_test=3)
    assert len(records) == len(splits) == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    seeds = episode_seeds(8, DataConfig().train_seed)
    texts = BlockWorld(seeds).instructions
    for number, (train, val) in enumerate(splits):
        expected = {tuple(tokenizer(text)["input_ids"]) for text in texts[: 4 * (number + 1)]}
        assert _ids(train) == expected
        assert _ids(val) <= {tuple(tokenizer(f"find the {c} block")["input_ids"]) for c in COLORS}
        bundled = {tuple(row.tolist()) for row in encode(texts)[0]}
        assert not _ids(train) & bundled


def _ids(split) -> set[tuple[int, ...]]:
    """The different sentences of a split, as ids without padding."""
    pairs = zip(split.input_ids, split.attention_mask, strict=True)
    return {tuple(ids[mask].tolist()) for ids, mask in pairs}


def test_a_policy_of_chunks_that_normalises_gets_its_statistics(tiny_config, splits):
    head = replace(tiny_config.head, kind="flow", horizon=3, normalization="mean-std")
    policy, records = dagger(
        replace(tiny_config, head=head),
        rounds=1,
        episodes=4,
        train_config=BRIEF,
        make_world=short_world,
        num_test=3,
    )
    assert len(records) == 2
    assert splits[0][0].actions.shape[1:] == (3, 2)
    torch.testing.assert_close(policy.head.normalizer.offset, splits[0][0].actions.flatten(0, 1).double().mean(dim=0))


class FeelingWorld(BlockWorld):
    """The block world whose robot feels where its camera is."""

    def observe(self, episodes=None):
        index = self.running if episodes is None else episodes
        return {**super().observe(index), STATE_KEY: self.camera[index].astype(np.float32)}


def test_a_policy_that_is_given_a_state_gets_it(tiny_config, splits):
    config = replace(tiny_config, observation=ObservationConfig(state_dim=2))
    dagger(
        config,
        rounds=1,
        episodes=3,
        train_config=BRIEF,
        make_world=lambda seeds: FeelingWorld(seeds, WorldConfig(max_steps=5)),
        num_test=3,
    )
    first, *_ = splits[0]
    assert first.state.shape == (len(first), 2)
    np.testing.assert_array_equal(first.state[:3], 64)
