from __future__ import annotations

import dataclasses

import pytest

from tinyvla.config import PRESETS, FusionConfig, LanguageConfig, ModelConfig, VisionConfig, model_config
from tinyvla.errors import InputError


def test_the_missions_numbers_are_the_defaults():
    minimal = PRESETS["minimal"]
    assert (minimal.vision.image_size, minimal.vision.patch_size) == (64, 8)
    assert (minimal.vision.embed_dim, minimal.vision.num_layers) == (192, 4)
    assert (minimal.language.embed_dim, minimal.language.num_layers, minimal.language.vocab_size) == (256, 4, 30_522)
    assert minimal.head.action_dim == 2


def test_derived_numbers_follow():
    assert VisionConfig().num_tokens == 65
    assert VisionConfig(image_size=32).num_tokens == 17


@pytest.mark.parametrize("preset", PRESETS)
def test_configs_survive_a_round_trip(preset):
    assert ModelConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().vision = VisionConfig()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VisionConfig(embed_dim=100, num_heads=3), "embed_dim 100 is not divisible by num_heads 3"),
        (lambda: VisionConfig(image_size=60), "image_size 60 is not divisible by patch_size 8"),
        (lambda: VisionConfig(embed_dim=6, num_heads=3), "divisible by 4"),
        (lambda: LanguageConfig(embed_dim=15, num_heads=3), "embed_dim 15 is odd"),
        (
            lambda: LanguageConfig(num_layers=0),
            "num_layers is 0; it must be a whole number from 1 to 256",
        ),
        (lambda: FusionConfig(kind="telepathy"), "unknown fusion 'telepathy'; choose from cross-attention"),
        (lambda: model_config("huge"), "unknown preset 'huge'; choose from nano, minimal, medium, smolvla_like"),
        (lambda: model_config("nano", "telepathy"), "unknown fusion"),
        (lambda: ModelConfig.from_dict({"eyes": {}}), "unknown keys ['eyes']"),
        (lambda: ModelConfig.from_dict({"vision": {"eyes": 2}}), "vision in config.json holds unknown keys ['eyes']"),
    ],
)
def test_impossible_values_are_refused_with_the_reason(make, says):
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
