from __future__ import annotations

import time
from collections import Counter

import pytest
import torch
from training import BatchesOf, Clock, cut, prepared, tensors, train, train_rows

from tinyvla.data.dataset import BlockFind
from tinyvla.learn.callbacks import Callback
from tinyvla.learn.train import PlainStep
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import restart

CONFIG = TrainConfig(batch_size=8, learning_rate=1e-3, seed=3)


@pytest.fixture
def policy(tiny_config):
    return new_policy(tiny_config, 0)


def test_batches_are_full_and_come_from_the_rows_epoch_after_epoch(policy):
    step = PlainStep(policy, tensors(policy, BlockFind(32, 1)), CONFIG)
    batches = list(BatchesOf(step, range(4, 16), CONFIG, steps=6).batches)
    assert [len(batch) for batch in batches] == [8] * 6
    drawn = torch.cat(batches).tolist()
    assert Counter(drawn) == dict.fromkeys(range(4, 16), 4)
    assert sorted(drawn[:12]) == list(range(4, 16))


def test_a_prepared_step_serves_many_runs_and_each_starts_anew(device, policy):
    policy.to(device)
    split = tensors(policy, BlockFind(32, 1))
    step, fresh = prepared(policy, split, CONFIG), new_policy(policy.config, 1)
    losses = []
    for rows in (range(32), range(8), range(32)):
        restart(policy, step.optimizer, fresh)
        losses.append(train_rows(policy, split, CONFIG, step, rows, steps=5).losses)
    assert [len(found) for found in losses] == [5, 5, 5]
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)
    assert losses[0] != losses[1]


def test_a_prepared_step_learns_as_a_plain_one(device, policy):
    policy.to(device)
    split = tensors(policy, BlockFind(32, 1))
    restart(policy, prepared(policy, split, CONFIG).optimizer, new_policy(policy.config, 1))
    plain = train_rows(policy, split, CONFIG, PlainStep(policy, split, CONFIG), range(32), steps=4).losses
    step = prepared(policy, split, CONFIG)
    restart(policy, step.optimizer, new_policy(policy.config, 1))
    assert train_rows(policy, split, CONFIG, step, range(32), steps=4).losses == pytest.approx(plain, rel=0.05)


def test_the_clock_leaves_out_what_happens_between_epochs(policy):
    class Slow(Callback):
        def on_epoch(self, record):
            time.sleep(0.3)

    split = tensors(policy, BlockFind(16, 1))
    config = TrainConfig(batch_size=8, epochs=2)
    started = time.perf_counter()
    trained = train(policy, split, split, config, "plain", callbacks=[Slow()])
    assert trained.last["epoch"] == 2
    assert len(trained.losses) == 4
    assert trained.seconds < time.perf_counter() - started - 0.6


def test_the_clock_starts_anew():
    clock = Clock()
    for _ in range(2):
        clock.on_start(0, 1)
        clock.on_step(1, 0.5, 1e-3)
    assert clock.losses == [0.5]


def test_rows_are_cut_out_of_a_split(policy):
    split = tensors(policy, BlockFind(6, 1))
    part = cut(split, range(2, 5))
    assert len(part) == 3
    assert torch.equal(part.take(slice(0, 3)).image, split.take(slice(2, 5)).image)
