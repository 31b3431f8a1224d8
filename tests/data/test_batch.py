from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.model.tokenizer import encode


def test_a_batch_is_the_scenes_at_the_index():
    split = BlockFind(10, 0)
    batch = TensorSplit.from_blockfind(split, encode).take(torch.tensor([3, 7]))
    torch.testing.assert_close(batch.image, torch.from_numpy(split.images[[3, 7]]).float() / 255)
    torch.testing.assert_close(batch.actions, torch.from_numpy(split.actions[[3, 7]]))
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, 6)


def test_in_order_gives_every_scene_once():
    tensors = TensorSplit.from_blockfind(BlockFind(10, 0), encode)
    actions = torch.cat([batch.actions for batch in tensors.in_order(batch_size=4)])
    torch.testing.assert_close(actions, tensors.actions)


def test_an_epochs_order_follows_from_seed_and_number_alone():
    assert torch.equal(epoch_order(100, 0, 3), epoch_order(100, 0, 3))
    assert torch.equal(epoch_order(100, 0, 3).sort().values, torch.arange(100))
    orders = {tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_arrays_are_tokenized_as_a_split_is_and_joined_in_order():
    split = BlockFind(10, 0)
    whole = TensorSplit.from_blockfind(split, encode)
    input_ids, attention_mask = encode(split.instructions)
    assert torch.equal(whole.input_ids, input_ids)
    assert torch.equal(whole.attention_mask, attention_mask)
    cuts = (slice(0, 4), slice(4, 10))
    parts = [
        TensorSplit.from_arrays({"camera": split.images[c]}, split.instructions[c], split.actions[c], encode)
        for c in cuts
    ]
    joined = parts[0].joined(parts[1])
    assert len(joined) == 10
    assert torch.equal(joined.images["camera"], whole.images["camera"])
    assert torch.equal(joined.input_ids, whole.input_ids)
    assert torch.equal(joined.actions, whole.actions)


def test_state_and_padding_go_with_their_rows():
    images = {name: np.random.RandomState(0).randint(0, 256, (4, 3, 8, 16), np.uint8) for name in ("a", "b")}
    state, is_pad = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([[False, True]] * 4)
    actions = np.ones((4, 2, 3), np.float32)
    split = TensorSplit.from_arrays(images, ["go", "stop", "go", "go"], actions, encode, "cpu", state, is_pad)
    batch = split.take(torch.tensor([2, 0]))
    assert batch.state.tolist() == [[4, 5], [0, 1]]
    assert batch.action_is_pad.tolist() == [[False, True]] * 2
    assert torch.equal(batch[1:].images["b"][0], split.images["b"][0].float() / 255)
    assert len(split.joined(split)) == 8
    assert split.joined(split).state[4:].equal(split.state)
    with pytest.raises(InputError, match="there are the cameras a, b; name one"):
        batch.image  # noqa: B018


def test_a_tokenizer_must_be_named():
    with pytest.raises(TypeError, match="tokenize"):
        TensorSplit.from_blockfind(BlockFind(2, 0))
