from __future__ import annotations

import pytest
import torch
from torch import nn

import tinyvla
from tinyvla.config import FusionConfig, HeadConfig, model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.train import fit
from tinyvla.model.fusion import Fusion
from tinyvla.model.heads import RegressionHead
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.registry import FUSION_KINDS, FUSIONS, HEAD_KINDS, HEADS, register


def test_every_kind_has_a_class():
    assert all(issubclass(FUSIONS[kind], Fusion) for kind in FUSION_KINDS)
    assert all(issubclass(HEADS[kind], nn.Module) for kind in HEAD_KINDS)


def test_a_fusion_of_a_notebook_cell_is_registered_trained_saved_and_loaded(tmp_path):
    @register("fusion", "first-patch")
    class FirstPatch(Fusion):
        """CLS and the sentence, side by side."""

        def __init__(self, config):
            super().__init__()
            self.mix = nn.Linear(config.vision.embed_dim + config.language.embed_dim, config.fusion.embed_dim)

        def forward(self, vision, language, input_ids, attention_mask):
            return self.mix(torch.cat([vision[:, 0], language.sentence(input_ids, attention_mask)], dim=1))

    policy = new_policy(model_config("nano", fusion="first-patch"), seed=0)
    assert type(policy.fusion) is FirstPatch
    data = TensorSplit.from_blockfind(BlockFind(64, 42), policy.language.encode)
    records = fit(policy, data, data, TrainConfig(epochs=3, learning_rate=1e-3))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    policy.save_pretrained(tmp_path)
    scene = BlockFind(1, 0)[0]
    again = TinyVLA.from_pretrained(tmp_path)
    assert torch.equal(again.predict(scene.image, scene.instruction), policy.predict(scene.image, scene.instruction))


def test_a_cell_that_runs_again_replaces_its_class():
    for expected in ("first", "second"):
        HEADS.add("again", type(expected, (RegressionHead,), {}))
        assert HEADS["again"].__name__ == expected
        assert HeadConfig(kind="again").kind == "again"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: FusionConfig(kind="nonsense"), "unknown fusion 'nonsense'; choose from cross-attention, prefix"),
        (lambda: FusionConfig(kind="nonsense"), "@tinyvla.register('fusion', 'nonsense')"),
        (lambda: HeadConfig(kind="nonsense"), "unknown head 'nonsense'; choose from regression, l1"),
        (lambda: register("fusion", "gated")(Fusion), "the fusion 'gated' is built in"),
        (lambda: register("tower", "mine"), "cannot register a 'tower'; choose from fusion, head"),
    ],
)
def test_what_is_refused(call, says):
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)


def test_register_is_public():
    assert tinyvla.register is register
