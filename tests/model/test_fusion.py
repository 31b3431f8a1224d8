from __future__ import annotations

import dataclasses

import pytest
import torch
from policies import awakened, batch_of

from tinyvla.config import FusionConfig
from tinyvla.model.fusion import make_fusion, prefix_mask
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.registry import ABLATION_KINDS, FUSION_KINDS, FUSIONS


def with_fusion(config, kind):
    return dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, kind=kind))


@pytest.mark.parametrize("kind", FUSION_KINDS)
def test_one_feature_per_scene(tiny_config, kind):
    policy = awakened(new_policy(with_fusion(tiny_config, kind), seed=0))
    ids, mask = encode(["find the red block", "find the cyan block"])
    vision = policy.vision(torch.rand(2, 3, 64, 64))
    assert policy.fusion(vision, policy.language, ids, mask).shape == (2, 16)


@pytest.mark.parametrize("kind", FUSION_KINDS)
def test_the_feature_depends_on_both_image_and_words(tiny_config, kind):
    policy = awakened(new_policy(with_fusion(tiny_config, kind), seed=0))
    images = torch.rand(2, 3, 64, 64)
    red, blue = encode(["find the red block"] * 2), encode(["find the blue block"] * 2)
    feature = policy.features(batch_of(images, *red))
    assert not torch.allclose(feature[0], feature[1])
    assert not torch.allclose(feature, policy.features(batch_of(images, *blue)))


@pytest.mark.parametrize("kind", FUSION_KINDS)
def test_gradients_reach_every_part(tiny_config, kind):
    policy = awakened(new_policy(with_fusion(tiny_config, kind), seed=0))
    ids, mask = encode(["find the red block", "find the blue block"])
    policy.loss(batch_of(torch.rand(2, 3, 64, 64), ids, mask, torch.randn(2, 2))).backward()
    without = [n for n, p in policy.named_parameters() if p.grad is None]
    assert not without
    for part in ("vision.patch_projection.weight", "language.token_embedding.weight", "head.output.weight"):
        assert policy.get_parameter(part).grad.abs().sum() > 0


def test_default_is_cross_attention(tiny_config):
    assert FusionConfig().kind == "cross-attention"
    assert type(make_fusion(tiny_config)).__name__ == "CrossAttention"


def test_the_query_attends_to_all_patches(tiny_policy):
    fusion = tiny_policy.fusion
    ids, mask = encode(["find the red block"])
    vision = tiny_policy.vision(torch.rand(1, 3, 64, 64))
    weights = fusion.attention.weights(fusion.query(tiny_policy.language, ids, mask), context=vision)
    assert weights.shape == (1, 2, 1, 65)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 1))


@pytest.mark.parametrize("kind", FUSION_KINDS)
def test_padding_changes_nothing(tiny_config, kind):
    policy = awakened(new_policy(with_fusion(tiny_config, kind), seed=0)).eval()
    image = torch.rand(1, 3, 64, 64)
    alone = policy(batch_of(image, *encode(["find the red block"])))
    ids, mask = encode(["find the red block", "please find the small red block"])
    padded = policy(batch_of(image.expand(2, -1, -1, -1), ids, mask))
    torch.testing.assert_close(padded[:1], alone)


def test_ablations_are_deaf_or_blind(tiny_config):
    images = torch.rand(2, 3, 64, 64)
    red, blue = encode(["find the red block"] * 2), encode(["find the blue block"] * 2)
    deaf = new_policy(with_fusion(tiny_config, "vision-only"), seed=0)
    torch.testing.assert_close(deaf(batch_of(images, *red)), deaf(batch_of(images, *blue)))
    blind = new_policy(with_fusion(tiny_config, "language-only"), seed=0)
    torch.testing.assert_close(blind(batch_of(images, *red)), blind(batch_of(images.flip(0), *red)))


def test_prefix_mask():
    allowed = prefix_mask(2, torch.tensor([[True, True, False]]))[0, 0].int().tolist()
    assert allowed == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]


def test_every_kind_has_a_class():
    assert set(FUSIONS) == {*FUSION_KINDS, *ABLATION_KINDS}
