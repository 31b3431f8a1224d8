from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tinyvla.data.batch import TensorSplit
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.stored import StoredImages
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step

SAY = ["find the red block", "find the blue block"]


@pytest.fixture(scope="module")
def recorded() -> Demonstrations:
    rng = np.random.RandomState(0)
    return Demonstrations(
        {name: rng.randint(0, 256, (24, 3, 64, 64)).astype(np.uint8) for name in ("front", "wrist")},
        rng.uniform(-1, 1, (24, 2)).astype(np.float32),
        [SAY[i // 12] for i in range(24)],
        np.arange(24) // 6,
    )


@pytest.fixture(scope="module")
def stored(recorded, tmp_path_factory) -> Demonstrations:
    """The same, with its images in files."""
    folder, images = tmp_path_factory.mktemp("stored"), {}
    for name, frames in recorded.images.items():
        np.save(folder / f"{name}.npy", frames)
        images[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return dataclasses.replace(recorded, images=images)


def splits(recorded, stored) -> tuple[TensorSplit, TensorSplit]:
    policy = new_policy(recorded.policy_config("nano", horizon=3), 0)
    return recorded.tensors(policy), stored.tensors(policy)


def same(one, other) -> None:
    assert one.images.keys() == other.images.keys()
    for name in one.images:
        assert torch.equal(one.images[name], other.images[name])
    assert torch.equal(one.actions, other.actions)


def test_batches_are_those_of_arrays(recorded, stored):
    array, file = splits(recorded, stored)
    assert file.is_stored
    assert not array.is_stored
    assert isinstance(file.images["front"], StoredImages)
    for index in (torch.tensor([5, 0, 5]), slice(20, 99)):
        same(array.take(index), file.take(index))
    mask = torch.arange(24) % 5 == 0
    for index in (mask, torch.tensor([9, 2])):
        same(array.rows(index).take(slice(0, 2)), file.rows(index).take(slice(0, 2)))
        assert len(file.rows(index)) == len(array.rows(index))
        assert file.rows(index).is_stored
    again = torch.tensor([1, 0])
    same(array.rows(mask).rows(again).take(again), file.rows(mask).rows(again).take(again))
    both = file.joined(file)
    same(array.joined(array).take(slice(20, 30)), both.take(slice(20, 30)))


def test_images_of_another_size_are_scaled_as_arrays_are(recorded, stored):
    policy = new_policy(recorded.policy_config("nano", image_size=32), 0)
    same(recorded.tensors(policy).take(slice(0, 24)), stored.tensors(policy).take(slice(0, 24)))


def test_training_on_a_file_gives_the_same_weights(recorded, stored):
    weights = []
    for data in (recorded, stored):
        policy = new_policy(recorded.policy_config("nano", horizon=2), 0)
        train = data.tensors(policy)
        policy.prepare_for(train)
        fit(policy, train, train, TrainConfig(epochs=1, batch_size=8))
        weights.append(torch.cat([each.flatten() for each in policy.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.gpu
def test_on_a_gpu_what_fits_is_copied_and_the_rest_streamed(recorded, stored, monkeypatch):
    policy = new_policy(recorded.policy_config("nano"), 0, "cuda")
    assert not stored.tensors(policy).is_stored
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 10**10))
    train = stored.tensors(policy)
    assert train.is_stored
    assert train.take(torch.tensor([1, 2], device="cuda")).images["front"].is_cuda
    policy.prepare_for(train)
    step = make_step(policy, train, TrainConfig(batch_size=8))
    assert torch.isfinite(step(torch.arange(8, device="cuda")))
