from __future__ import annotations

import pytest
import torch
from policies import awakened
from steps import tensors

from tinyvla.model.policy import new_policy
from tinyvla.speed.cuda_graph import compiled_towers
from tinyvla.speed.memory import recomputed
from tinyvla.speed.patching import all_patched, one_product, patched


class Named:
    def name(self):
        return "its own"


def test_a_method_is_exchanged_for_a_while():
    thing = Named()
    with patched(thing, "name", lambda: "another"):
        assert thing.name() == "another"
        with patched(thing, "name", lambda: "a third"):
            assert thing.name() == "a third"
        assert thing.name() == "another"
    assert vars(thing) == {}
    thing.name = lambda: "set before"
    with pytest.raises(MemoryError), all_patched([(thing, "name", lambda: "inside")]):
        raise MemoryError
    assert thing.name() == "set before"


def test_one_product_gives_the_same_and_passes_adapters_by(tiny_config):
    policy = awakened(new_policy(tiny_config, 0))
    batch = tensors(8, 1).take(slice(0, 8))
    called = []
    for name, module in policy.named_modules():
        if name.endswith(".query"):
            module.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
    adapted = policy.vision.blocks[0].attention
    adapted.key = torch.nn.Sequential(adapted.key)  # no plain layer any more, as with LoRA
    plain = policy(batch)
    assert len(called) == 3  # each tower's and the fusion's
    called.clear()
    with one_product(policy):
        torch.testing.assert_close(policy(batch), plain)
        assert "project" not in vars(adapted)
    assert sorted(called) == ["fusion.attention.query", "vision.blocks.0.attention.query"]


def test_an_error_inside_leaves_no_trace(tiny_config):
    policy = new_policy(tiny_config, 0)
    state = {name: dict(vars(module)) for name, module in policy.named_modules()}
    for context in (one_product(policy), compiled_towers(policy), recomputed(policy)):
        with pytest.raises(MemoryError), context:
            raise MemoryError
    assert {name: dict(vars(module)) for name, module in policy.named_modules()} == state
