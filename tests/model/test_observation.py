from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tinyvla.config import PRESETS, ModelConfig, ObservationConfig, VisionConfig
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.model.observation import Preprocessor, resized
from tinyvla.model.tokenizer import encode

PREPARE = Preprocessor(PRESETS["nano"], encode)


@pytest.fixture
def image() -> np.ndarray:
    return BlockFind(1, 0).images[0]


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
        batch, is_single = PREPARE.images(form)
        assert is_single
        torch.testing.assert_close(batch, want)
    for many in ([forms[0], forms[3]], np.stack([image, image]), torch.from_numpy(np.stack([hwc, hwc]))):
        batch, is_single = PREPARE.images(many)
        assert not is_single
        torch.testing.assert_close(batch, want.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda image: image[:1], "shape (1, 64, 64); it must be (height, width, 3) or (3, height, width)"),
        (lambda image: image[:, :0], "shape (3, 0, 64)"),
        (lambda image: image[0], "shape (64, 64)"),
        (lambda image: image.astype(np.int64), "dtype torch.int64; it must be uint8, or float in [0, 1]"),
        (lambda image: image.astype(np.float32), "floats must lie in [0, 1]"),
        (lambda image: image / 255.0 - 0.5, "floats must lie in [0, 1]"),
        (lambda image: np.where(image > 240, np.nan, 0.5), "NaN or infinite"),
        (lambda image: Image.fromarray(image[0]), "image.convert('RGB')"),
        (lambda image: "scene.png", "cannot see a str"),
        (lambda image: None, "cannot see a NoneType"),
        (lambda image: [], "there are no images"),
        (lambda image: image[None][:0], "there are no images"),
    ],
)
def test_unusable_images_are_refused_with_the_reason(image, spoil, says):
    bad = spoil(image)
    bad = [bad] if isinstance(bad, str) else bad
    with pytest.raises(InputError) as caught:
        PREPARE.images(bad)
    assert says in str(caught.value)


def prepare(**observation) -> Preprocessor:
    return Preprocessor(
        ModelConfig(VisionConfig(image_size=(24, 40)), observation=ObservationConfig(**observation)), encode
    )


@pytest.mark.parametrize("kind", ["stretch", "pad"])
def test_training_and_acting_treat_an_image_alike(kind):
    """The same bytes, given as a recording or one by one, arrive at the model as the same numbers."""
    frames = np.random.RandomState(0).randint(0, 256, (5, 3, 61, 47), np.uint8)
    both, words = prepare(cameras=("top",), resize=kind), ["find the red block"] * 5
    split = both.split({"top": frames, "other": frames}, words, np.zeros((5, 2), np.float32))
    trained_on = split.take(slice(None)).image
    for form in (frames, list(frames), [Image.fromarray(frame.transpose(1, 2, 0)) for frame in frames]):
        acted_on, is_single = both({"observation.images.top": form, "task": words})
        assert not is_single
        assert torch.equal(acted_on.image, trained_on)
    single, is_single = both({"observation.images.top": frames[3], "task": words[0]})
    assert is_single
    assert torch.equal(single.image[0], trained_on[3])
    from_floats, _ = both.images(frames / 255)
    assert (from_floats - trained_on).abs().max() <= 1 / 255


def test_images_of_the_right_size_are_left_alone():
    images = torch.rand(2, 3, 24, 40)
    assert resized(images, (24, 40)) is images


def test_padding_keeps_proportions_and_stretching_does_not():
    square = torch.full((1, 3, 10, 10), 255, dtype=torch.uint8)
    padded = resized(square, (24, 40), "pad")
    assert torch.equal(padded[0, 0, 12] > 0, (torch.arange(40) >= 8) & (torch.arange(40) < 32))
    assert (resized(square, (24, 40), "stretch") == 255).all()


def test_a_whole_observation_becomes_a_batch():
    two = prepare(cameras=("top", "wrist"), state_dim=3)
    observation = {
        "observation.images.wrist": np.zeros((2, 48, 80, 3), np.uint8),
        "observation.images.top": np.full((2, 3, 24, 40), 255, np.uint8),
        "observation.state": [[1, 2, 3], [4, 5, 6]],
        "task": "find the red block",
        "next.done": False,
    }
    batch, is_single = two(observation)
    assert not is_single
    assert list(batch.images) == ["top", "wrist"]
    assert all(images.shape == (2, 3, 24, 40) for images in batch.images.values())
    assert batch.images["top"].min() == 1
    assert batch.images["wrist"].max() == 0
    assert batch.state.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch.input_ids.shape == (2, 6)


GOOD = {"observation.images.top": np.zeros((3, 24, 40), np.uint8), "observation.state": [1.0, 2.0], "task": "go"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observation.images.top": None}, "cannot see a NoneType"),
        ({"observation.images.top": ...}, "lacks observation.images.top; it has observation.state, task"),
        ({"observation.state": ...}, "lacks observation.state; it has"),
        ({"task": ...}, "lacks task; it has"),
        ({"observation.state": [1.0]}, "observation.state has shape (1, 1); this policy needs (1, 2)"),
        ({"observation.state": [1.0, float("nan")]}, "observation.state hold nan in frame 0, dimension 1"),
        ({"task": ["go", "stop"]}, "1 images but 2 instructions"),
        ({"task": 5}, "must be a sentence"),
        ({"observation.state": "left"}, "observation.state must be numbers"),
    ],
)
def test_observations_that_lack_something_are_refused(change, says):
    observation = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    with pytest.raises(InputError) as caught:
        prepare(cameras=("top",), state_dim=2)(observation)
    assert says in str(caught.value)


def test_cameras_that_disagree_are_refused():
    observation = {"observation.images.a": np.zeros((2, 3, 24, 40), np.uint8), "task": "go"}
    observation["observation.images.b"] = np.zeros((3, 3, 24, 40), np.uint8)
    with pytest.raises(InputError, match="the cameras give 2, 3 images"):
        prepare(cameras=("a", "b"))(observation)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"cameras": ()}, "at least one camera"),
        ({"cameras": ("a", "a")}, "named twice"),
        ({"cameras": ("",)}, "must be a tuple of names"),
        ({"state_dim": -1}, "state_dim is -1"),
        ({"resize": "crop"}, "choose from stretch, pad"),
        ({"state_normalization": "max"}, "choose from none, mean-std, quantiles"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, says):
    with pytest.raises(InputError, match=says):
        ObservationConfig(**config)
