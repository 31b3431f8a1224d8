from __future__ import annotations

import torch

from tinyvla.batching import TensorSplit, epoch_order
from tinyvla.dataset import BlockFind


def test_a_batch_is_the_scenes_at_the_index():
    split = BlockFind(10, 0)
    batch = TensorSplit.from_blockfind(split).take(torch.tensor([3, 7]))
    torch.testing.assert_close(batch.images, torch.from_numpy(split.images[[3, 7]]).float() / 255)
    torch.testing.assert_close(batch.actions, torch.from_numpy(split.actions[[3, 7]]))
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, 6)


def test_in_order_gives_every_scene_once():
    tensors = TensorSplit.from_blockfind(BlockFind(10, 0))
    actions = torch.cat([batch.actions for batch in tensors.in_order(batch_size=4)])
    torch.testing.assert_close(actions, tensors.actions)


def test_an_epochs_order_follows_from_seed_and_number_alone():
    assert torch.equal(epoch_order(100, 0, 3), epoch_order(100, 0, 3))
    assert torch.equal(epoch_order(100, 0, 3).sort().values, torch.arange(100))
    orders = {tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
