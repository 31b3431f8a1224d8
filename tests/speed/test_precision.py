from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from tinyvla.config import HeadConfig
from tinyvla.data.dataset import BlockFind
from tinyvla.model.policy import new_policy
from tinyvla.speed.precision import precision

CPU = torch.device("cpu")


def test_products_are_rounded_and_attention_is_not():
    x = torch.randn(2, 4, 8, 16)
    with precision(CPU, bfloat16=True):
        assert (x @ x.mT).dtype == torch.bfloat16
        assert F.scaled_dot_product_attention(x.bfloat16(), x.bfloat16(), x.bfloat16()).dtype == torch.float32
    with precision(CPU, bfloat16=False):
        assert (x @ x.mT).dtype == torch.float32
    assert (x @ x.mT).dtype == torch.float32


def test_labels_are_not_rounded(tiny_config):
    config = dataclasses.replace(tiny_config, head=HeadConfig(hidden_dim=16, kind="directions"))
    head, actions = new_policy(config, 0).head, torch.from_numpy(BlockFind(200, 1).actions)
    plain = head.classes(actions)
    assert len(plain.unique()) == 8
    with precision(CPU, bfloat16=True):
        assert torch.equal(head.classes(actions), plain)
