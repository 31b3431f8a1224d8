from __future__ import annotations

import dataclasses

import pytest

from tinyvla.config import PRESETS
from tinyvla.errors import InputError
from tinyvla.recipes import RECIPES, DataConfig, TrainConfig, recipe


def test_the_missions_numbers_are_the_defaults():
    train, data = TrainConfig(), DataConfig()
    assert (train.learning_rate, train.weight_decay, train.warmup_steps) == (3e-4, 0.01, 100)
    assert (train.grad_clip, train.batch_size, train.epochs) == (1.0, 64, 20)
    assert (data.num_train, data.num_val, data.num_test) == (8_000, 1_000, 1_000)
    assert (data.train_seed, data.val_seed, data.test_seed) == (42, 43, 44)


def test_they_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


def test_epochs_may_be_parts_of_one():
    assert TrainConfig(epochs=0.6).total_steps(8_000) == 75
    assert TrainConfig(epochs=2).total_steps(100) == 4  # the last batch of an epoch may be smaller
    assert TrainConfig(epochs=0.001).total_steps(8_000) == 1
    assert isinstance(TrainConfig(epochs=3.0).epochs, int)


@pytest.mark.parametrize("num_scenes", [100, 512, 8_000])
def test_a_recipe_has_its_number_of_steps_on_any_split(num_scenes):
    assert RECIPES.keys() == PRESETS.keys()
    for preset, chosen in RECIPES.items():
        config = recipe(preset, num_scenes)
        assert config.total_steps(num_scenes) == chosen.num_steps
        assert config.decay_fraction > 0  # it ends settled


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TrainConfig(learning_rate=-1.0), "learning_rate is -1.0; it must be a number above 0"),
        (lambda: TrainConfig(epochs=0), "epochs is 0; it must be a number above 0"),
        (lambda: TrainConfig(optimizer="sgd"), "unknown optimizer 'sgd'; choose from adamw, muon"),
        (lambda: DataConfig(val_seed=42), "must differ"),
        (lambda: recipe("huge"), "unknown preset 'huge'; choose from nano, minimal, medium, smolvla_like"),
    ],
)
def test_impossible_values_are_refused_with_the_reason(make, says):
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
