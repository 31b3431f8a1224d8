from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.learn.augment import Augmentation, moved
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig


@pytest.fixture
def split() -> TensorSplit:
    rng = np.random.RandomState(0)
    images = {"left": rng.randint(0, 256, (40, 3, 6, 10)).astype(np.uint8)}
    images["right"] = rng.randint(0, 256, (40, 3, 5, 5)).astype(np.uint8)
    states = rng.randn(40, 2) * np.array([1.0, 100.0])
    return TensorSplit.from_arrays(images, ["go"] * 40, np.zeros((40, 2), np.float32), encode, state=states)


def test_images_are_moved_and_the_edge_is_repeated():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    up_and_right = moved(image, torch.tensor([[1, -2]]))[0, 0]
    assert up_and_right.tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]
    assert torch.equal(moved(image, torch.tensor([[0, 0]])), image)


def test_each_image_moves_by_itself_and_no_further_than_the_shift(split):
    config = TrainConfig(shift=2)
    batch = split.take(torch.arange(40))
    changed = Augmentation(config, split)(batch, torch.Generator().manual_seed(0))
    seen = set()
    for before, after in zip(batch.images["left"], changed.images["left"], strict=True):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved(before[None], torch.tensor([[down, right]]))[0], after)
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 10
    assert {abs(step) for move in seen for step in move} == {0, 1, 2}
    assert torch.equal(changed.actions, batch.actions)
    assert torch.equal(changed.input_ids, batch.input_ids)


def test_noise_is_measured_in_standard_deviations_of_each_number(split):
    batch = split.take(torch.arange(40))
    augment, generator = Augmentation(TrainConfig(state_noise=0.1), split), torch.Generator().manual_seed(0)
    noise = torch.cat([augment(batch, generator).state - batch.state for _ in range(200)])
    torch.testing.assert_close(noise.std(dim=0), 0.1 * split.state.std(dim=0), rtol=0.05, atol=0)
    assert torch.equal(augment(batch, generator).images["left"], batch.images["left"])


def test_the_same_seed_gives_the_same_and_without_settings_nothing_changes(split):
    batch, augment = split.take(torch.arange(40)), Augmentation(TrainConfig(shift=1, state_noise=0.1), split)
    first, second = (augment(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.images["right"], second.images["right"])
    assert torch.equal(first.state, second.state)
    same = Augmentation(TrainConfig(), split)(batch, torch.Generator())
    assert torch.equal(same.state, batch.state)
    assert torch.equal(same.images["left"], batch.images["left"])


def test_negative_settings_are_refused():
    with pytest.raises(InputError, match="shift is -1"):
        TrainConfig(shift=-1)
    with pytest.raises(InputError, match=r"state_noise is -0\.5"):
        TrainConfig(state_noise=-0.5)
