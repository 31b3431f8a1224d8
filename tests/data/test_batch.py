from __future__ import annotations

import torch

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.blockfind import BlockFind
from tinyvla.model.tokenizer import encode


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


def test_arrays_are_tokenized_as_a_split_is_and_joined_in_order():
    split = BlockFind(10, 0)
    whole = TensorSplit.from_blockfind(split)
    input_ids, attention_mask = encode(split.instructions)
    assert torch.equal(whole.input_ids, input_ids)
    assert torch.equal(whole.attention_mask, attention_mask)
    cuts = (slice(0, 4), slice(4, 10))
    parts = [TensorSplit.from_arrays(split.images[c], split.instructions[c], split.actions[c]) for c in cuts]
    joined = parts[0].joined(parts[1])
    assert len(joined) == 10
    assert torch.equal(joined.images, whole.images)
    assert torch.equal(joined.input_ids, whole.input_ids)
    assert torch.equal(joined.actions, whole.actions)
