from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tinyvla.config import InputError, VisionConfig
from tinyvla.data.blockfind import BlockFind
from tinyvla.model.vision import TinyViT, grid_positions, to_image_batch

CONFIG = VisionConfig(embed_dim=16, num_layers=1, num_heads=2)


@pytest.fixture
def image() -> np.ndarray:
    return BlockFind(1, 0).images[0]


def test_tokens_are_cls_and_patches():
    assert TinyViT(CONFIG)(torch.rand(2, 3, 64, 64)).shape == (2, 65, 16)


def test_patchify_cuts_row_by_row():
    images = torch.rand(2, 3, 64, 64)
    patches = TinyViT(CONFIG).patchify(images)
    assert patches.shape == (2, 64, 192)
    torch.testing.assert_close(patches[0, 8 * 2 + 5], images[0, :, 16:24, 40:48].flatten())


def test_positions_differ_and_are_odd_around_the_centre():
    positions = grid_positions(8, 16)
    assert len(positions.unique(dim=0)) == 64
    sines = [*range(4), *range(8, 12)]
    torch.testing.assert_close(positions[0, sines], -positions[63, sines])


def test_every_accepted_form_gives_the_same_tensor(image):
    hwc = image.transpose(1, 2, 0)
    forms = [
        Image.fromarray(hwc),
        hwc,
        image,
        image.astype(np.float32) / 255,
        image.astype(np.float64) / 255,
        torch.from_numpy(image),
        torch.from_numpy(image).float() / 255,
        torch.from_numpy(hwc.copy()),
    ]
    want = torch.from_numpy(image).float()[None] / 255
    for form in forms:
        batch, is_single = to_image_batch(form, CONFIG)
        assert is_single
        torch.testing.assert_close(batch, want)
    for many in ([forms[0], forms[3]], np.stack([image, image]), torch.from_numpy(np.stack([hwc, hwc]))):
        batch, is_single = to_image_batch(many, CONFIG)
        assert not is_single
        torch.testing.assert_close(batch, want.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda image: image[:, :32], "shape (3, 32, 64); it must be (64, 64, 3) or (3, 64, 64)"),
        (lambda image: image[:1], "shape (1, 64, 64)"),
        (lambda image: image.astype(np.int64), "dtype torch.int64; it must be uint8, or float in [0, 1]"),
        (lambda image: image.astype(np.float32), "floats must lie in [0, 1]"),
        (lambda image: image / 255.0 - 0.5, "floats must lie in [0, 1]"),
        (lambda image: np.where(image > 240, np.nan, 0.5), "NaN or infinite"),
        (lambda image: Image.fromarray(image[0]), "image.convert('RGB')"),
        (lambda image: Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32)), "shape (32, 32, 3)"),
        (lambda image: "scene.png", "cannot see a str"),
        (lambda image: None, "cannot see a NoneType"),
        (lambda image: [], "list of images is empty"),
        (lambda image: image[None][:0], "batch of images is empty"),
    ],
)
def test_unusable_images_are_refused_with_the_reason(image, spoil, says):
    bad = spoil(image)
    bad = [bad] if isinstance(bad, str) else bad
    with pytest.raises(InputError) as caught:
        to_image_batch(bad, CONFIG)
    assert says in str(caught.value)
