from __future__ import annotations

import pytest
import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.data.sentences import SentenceFind
from tinyvla.learn.train import PlainStep
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import unchanged
from tinyvla.speed.known_sentences import KnownSentences, never_learns
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions


def frozen(tiny_config):
    policy = new_policy(tiny_config, 0)
    policy.language.requires_grad_(False)
    return policy, TensorSplit.from_blockfind(SentenceFind(24, 0), policy.language.encode)


def test_what_is_looked_up_is_what_the_tower_says(tiny_config):
    policy, split = frozen(tiny_config)
    known = KnownSentences(policy.language, split.input_ids, split.attention_mask)
    for rows in (torch.arange(24), torch.tensor([3, 3, 17])):
        words = split.input_ids[rows], split.attention_mask[rows]
        torch.testing.assert_close(known.sentence(*words), policy.language.sentence(*words))


def test_each_sentence_is_read_once(tiny_config, monkeypatch):
    policy, split = frozen(tiny_config)
    known, read = KnownSentences(policy.language, split.input_ids, split.attention_mask), []
    state = policy.language.mean_state
    monkeypatch.setattr(policy.language, "mean_state", lambda ids, mask: read.append(len(ids)) or state(ids, mask))
    for _ in range(3):
        known.sentence(split.input_ids, split.attention_mask)
    assert sum(read) == len(split.input_ids.unique(dim=0))


def test_other_weights_are_read_again(tiny_config):
    policy, split = frozen(tiny_config)
    known = KnownSentences(policy.language, split.input_ids, split.attention_mask)
    before = known.sentence(split.input_ids, split.attention_mask)
    policy.language.load_state_dict(new_policy(tiny_config, 1).language.state_dict())
    after = known.sentence(split.input_ids, split.attention_mask)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, policy.language.sentence(split.input_ids, split.attention_mask))


def test_a_step_that_looks_up_is_the_plain_step(tiny_config):
    config, losses = TrainConfig(batch_size=8), []
    for options in (None, StepOptions(known_sentences=True)):
        policy, split = frozen(tiny_config)
        step = PlainStep(policy, split, config) if options is None else make_step(policy, split, config, options)
        losses.append(torch.stack([step(torch.arange(8) + 8 * i) for i in range(3)]))
        assert "sentence" not in vars(policy.language)  # the policy is as it was
    torch.testing.assert_close(losses[0], losses[1])


def test_a_tower_that_learns_is_not_looked_up(tiny_config):
    policy = new_policy(tiny_config, 0)
    split = TensorSplit.from_blockfind(SentenceFind(8, 0), policy.language.encode)
    assert not never_learns(policy)
    assert make_step(policy, split, TrainConfig(), StepOptions(known_sentences=True)).known is None


def test_nothing_is_read_again_after_steps_that_were_undone(tiny_config, monkeypatch):
    policy, split = frozen(tiny_config)
    step = make_step(policy, split, TrainConfig(batch_size=8), StepOptions(known_sentences=True))
    with unchanged(policy, step.optimizer):  # as before a recording, in which nothing may look at values
        step(torch.arange(8))
    monkeypatch.setattr(step.known, "read", lambda: pytest.fail("the tower is frozen, and was read before"))
    step(torch.arange(8))


@pytest.mark.gpu
def test_a_recorded_step_that_looks_up_is_the_plain_step(tiny_config):
    config, losses = TrainConfig(batch_size=8), []
    for recorded in (False, True):
        policy, split = frozen(tiny_config)
        policy, split = policy.to("cuda"), split.to("cuda")
        step = PlainStep(policy, split, config)
        if recorded:
            step = make_step(policy, split, config, StepOptions(graph=True))
            step.known = KnownSentences(policy.language, split.input_ids, split.attention_mask)
        losses.append(torch.stack([step((torch.arange(8) + 8 * i).cuda()) for i in range(3)]))
    torch.testing.assert_close(losses[0], losses[1])
