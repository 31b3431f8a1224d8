from __future__ import annotations

import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.measure.plain_recipe import ReferencePolicy, reference_to_target
from tinyvla.model.tokenizer import encode


def test_padding_does_not_change_its_answer(tiny_config):
    torch.manual_seed(0)
    policy = ReferencePolicy(tiny_config).eval()
    batch = TensorSplit.from_blockfind(BlockFind(4, 1), encode).take(slice(0, 4))
    ids, mask = batch.input_ids, batch.attention_mask
    padded = [torch.nn.functional.pad(x, (0, 5)) for x in (ids, mask)]
    torch.testing.assert_close(policy(batch.image, *padded), policy(batch.image, ids, mask))


def test_it_has_about_as_many_parameters_as_the_policy(tiny_config):
    from tinyvla.config import PRESETS
    from tinyvla.model.policy import TinyVLA

    for config in (PRESETS["nano"], PRESETS["minimal"]):
        with torch.device("meta"):
            counts = [sum(p.numel() for p in m.parameters()) for m in (ReferencePolicy(config), TinyVLA(config))]
        assert 0.95 < counts[0] / counts[1] < 1.05


def test_it_trains_until_the_target_or_the_last_step(tiny_config):
    split = BlockFind(96, 42)
    val = TensorSplit.from_blockfind(BlockFind(32, 43), encode)
    short = reference_to_target(tiny_config, split, val, 0, target=1.1, max_steps=4, check_every=2)
    assert short["steps"] == 4
    assert not short["reached"]
    assert short["seconds"] > 0
    easy = reference_to_target(tiny_config, split, val, 0, target=0.0, max_steps=4, check_every=2)
    assert easy["reached"]
    assert easy["steps"] == 2
