"""What is done to an observation before the model sees it, written once, for training and for acting alike.

    images      any size, uint8 or float -> the policy's size, float in [0, 1]
    sentence    words -> ids and mask, by the policy's own tokenizer
    state       the robot's own numbers -> a tensor, in their own units

Notable:
- all of it follows from `config.json` and the weights, so a checkpoint takes it along; the statistics that normalise
  state and actions are buffers in the model itself;
- an observation is an image and a sentence, or a dict with LeRobot's keys: `observation.images.NAME`,
  `observation.state`, `task`. Keys that the policy does not know are left alone;
- a wrong observation is refused here, in words; the model behind it trusts its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from tinyvla.config import ModelConfig
from tinyvla.data.batch import Batch, TensorSplit, Tokenize, check_finite
from tinyvla.data.resize import resized
from tinyvla.errors import InputError
from tinyvla.fields import MAX_SIDE, check
from tinyvla.model.normalize import Normalizer
from tinyvla.room import check_room_for

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Image | np.ndarray | Tensor
else:
    ImageLike = Any

Observation = Mapping[str, Any]
"""One observation, or many with a leading dimension, under LeRobot's keys."""

IMAGE_KEY = "observation.images."
STATE_KEY = "observation.state"
TASK_KEY = "task"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Preprocessor:
    """Makes a batch of whatever a policy is shown and told.

    Args:
        config: the policy's.
        tokenize: the policy's own tokenizer.
    """

    def __init__(self, config: ModelConfig, tokenize: Tokenize) -> None:
        self.config, self.tokenize = config, tokenize
        self.cameras = config.observation.cameras

    def __call__(self, observation: Observation) -> tuple[Batch, bool]:
        """Returns a batch on the CPU, and whether a single observation was given.

        Raises:
            InputError: a camera, the state or the sentence is missing or not usable, or their numbers differ.
        """
        images, singles = {}, set()
        for camera in self.cameras:
            images[camera], is_single = self.images(_get(observation, IMAGE_KEY + camera))
            singles.add(is_single)
        counts = {len(batch) for batch in images.values()}
        if len(counts) > 1 or len(singles) > 1:
            raise InputError(
                f"the cameras give {', '.join(map(str, sorted(counts)))} images; they must give equally many"
            )
        count = counts.pop()
        texts = _get(observation, TASK_KEY)
        if not isinstance(texts, str | Sequence):
            raise InputError(f"{TASK_KEY} is a {type(texts).__name__}; it must be a sentence, or one for each image")
        texts = [texts] * count if isinstance(texts, str) else list(texts)
        if len(texts) != count:
            raise InputError(f"{count} images but {len(texts)} instructions; give one sentence, or one per image")
        input_ids, attention_mask = self.tokenize(texts)
        return Batch(images, input_ids, attention_mask, self.state(observation, count)), singles.pop()

    def images(self, images: ImageLike | Sequence[ImageLike]) -> tuple[Float[Tensor, "b c h w"], bool]:
        """Returns one camera's images as floats in [0, 1] at the policy's size, and whether a single one was given.

        Args:
            images: a PIL image, an array or tensor `(h, w, c)` or `(c, h, w)`, uint8 or float in [0, 1]; or a list or a
                batch of them. Any size is taken and scaled.

        Raises:
            InputError: wrong type, shape, dtype or range, or NaN; the message says what is allowed.
        """
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            if not images:
                raise InputError("there are no images; give at least one")
            self._check_room(len(images))
            return torch.cat([self._one(image) for image in images]), False
        if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
            self._check_room(len(images))
            return self._sized(_to_chw(images, self.config.vision.num_channels)), False
        return self._one(images), True

    def _check_room(self, count: int) -> None:
        """Refuse more images than a policy can look at together: floats, and what they become in a block."""
        vision: Any = self.config.vision
        pixels = vision.num_channels * self.size[0] * self.size[1]
        check_room_for(count, 4 * (2 * pixels + 8 * vision.num_tokens * vision.embed_dim), "images")

    def _one(self, image: ImageLike) -> Float[Tensor, "1 c h w"]:
        chw = _to_chw(image, self.config.vision.num_channels)
        if chw.ndim != 3:
            raise InputError(f"an image in a list has {chw.ndim} dimensions; it must have 3")
        return self._sized(chw[None])

    def _sized(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Images at the policy's size, as floats in [0, 1]."""
        is_bytes = images.dtype == torch.uint8
        sized = resized(images if is_bytes else images.float(), self.size, self.config.observation.resize)
        return sized.float() / 255 if is_bytes else sized

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image at the model's door."""
        return self.config.vision.size

    def state(self, observation: Observation, count: int) -> Float[Tensor, "b s"] | None:
        """Returns the robot's own numbers as a tensor, in their own units; None for a policy that has no use for them.

        Raises:
            InputError: they are missing, of another number than the policy's, or not finite.
        """
        dim = self.config.observation.state_dim
        if not dim:
            return None
        given = _get(observation, STATE_KEY)
        try:
            array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
            is_numbers = array.dtype.kind in "iuf"
        except (ValueError, TypeError, RuntimeError):  # ragged, or a tensor without numbers
            is_numbers = False
        if not is_numbers:
            raise InputError(f"{STATE_KEY} must be numbers, {dim} for each image")
        with np.errstate(over="ignore"):
            values = torch.from_numpy(array.astype(np.float32))
        values = values[None] if values.ndim == 1 else values
        if values.shape != (count, dim):
            raise InputError(f"{STATE_KEY} has shape {tuple(values.shape)}; this policy needs {(count, dim)}")
        check_finite(values, STATE_KEY)
        return values

    def check(self, *splits: TensorSplit) -> None:
        """Refuse splits that the policy cannot take.

        Raises:
            InputError: a camera or the state is missing or of another size, or another tokenizer has made the words.
        """
        language, dim = self.config.language, self.config.observation.state_dim
        shape = (self.config.vision.num_channels, *self.size)
        for split in splits:
            for name in self.cameras:
                found = tuple(_get(split.images, name).shape[1:])
                check(found == shape, f"the split's images of {name} are {found}, and this policy's are {shape}")
            has = 0 if split.state is None else split.state.shape[1]
            check(not dim or has == dim, f"the split's state has {has} numbers, and this policy's has {dim}")
            fits = split.input_ids.shape[1] <= language.max_length and int(split.input_ids.max()) < language.vocab_size
            check(fits, "the split's words are another tokenizer's; make it with this policy's: policy.language.encode")

    def split(
        self,
        images: Mapping[str, Shaped[np.ndarray, "n c h w"]],
        instructions: Sequence[str],
        actions: Float[np.ndarray, "n *chunk"],
        device: torch.device | str = "cpu",
        state: Float[np.ndarray, "n s"] | None = None,
        action_is_pad: Bool[np.ndarray, "n k"] | None = None,
        future: Float[np.ndarray, "n p s"] | None = None,
    ) -> TensorSplit:
        """Returns recorded observations to train on, treated exactly as the policy will treat what it is shown.

        Args:
            images: by camera, uint8 of any size; those of other cameras than the policy's are left out.
            instructions: one for each row.
            actions: one for each row, or a chunk.
            device: where to put the tensors.
            state: the robot's own, left out for a policy that has no use for it.
            action_is_pad: True on actions after an episode's end.
            future: states some steps later, for a policy with waypoints.

        Raises:
            InputError: a camera or the state is missing, or a sentence is not usable.
        """
        observed = {IMAGE_KEY + name: array for name, array in images.items()}
        observed |= {} if state is None else {STATE_KEY: state}
        kind = self.config.observation.resize
        sized = {name: _resized_in_parts(_get(observed, IMAGE_KEY + name), self.size, kind) for name in self.cameras}
        values = self.state(observed, len(actions))
        return TensorSplit.from_arrays(
            sized,
            instructions,
            actions,
            self.tokenize,
            device,
            None if values is None else values.numpy(),
            action_is_pad,
            future,
        )


class StateEncoder(nn.Module):
    """The robot's state as one token beside the vision tokens, or as a part of the pooled feature.

    Args:
        config: the policy's; the statistics that normalise the state are buffers in here.
        width: of the token or the feature.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        dim = config.observation.state_dim
        self.normalizer = Normalizer(config.observation.state_normalization, dim, what="states")
        self.hidden = nn.Linear(dim, width)
        self.output = nn.Linear(width, width)

    def forward(self, state: Float[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        """Returns one vector for each state, which is in its own units."""
        return self.output(F.gelu(self.hidden(self.normalizer(state))))


def _resized_in_parts(images: Any, size: tuple[int, int], kind: str) -> Any:
    """A recording's images, a few at a time: large ones need not all lie in memory twice, and those in a file stay."""
    if tuple(images.shape[-2:]) == size:
        return images if isinstance(images, np.memmap) else torch.as_tensor(images)
    parts = (torch.as_tensor(np.array(images[i : i + 256])) for i in range(0, len(images), 256))
    return torch.cat([resized(part, size, kind) for part in parts])


def _get(observation: Observation, key: str) -> Any:
    if key not in observation:
        raise InputError(f"the observation lacks {key}; it has {', '.join(map(str, observation)) or 'nothing'}")
    return observation[key]


def _to_chw(image: ImageLike, channels: int) -> Shaped[Tensor, "*b c h w"]:
    """An image, or a batch of them, as uint8 or as float in [0, 1]."""
    if not isinstance(image, Tensor):
        bands = image.getbands() if hasattr(image, "getbands") else None  # only PIL images have bands
        if bands and len(bands) != channels:
            raise InputError(f"the image's bands are {''.join(bands)!r}; convert it first: image.convert('RGB')")
        if not bands and not isinstance(image, np.ndarray):
            raise InputError(f"cannot see a {type(image).__name__}; give a PIL image, a NumPy array or a torch tensor")
    has_numbers = not isinstance(image, Tensor) or not (image.is_nested or image.is_sparse or image.is_meta)
    if not has_numbers or (isinstance(image, Tensor) and image.layout != torch.strided):
        raise InputError("the image is a sparse, nested or meta tensor; it must be a dense one")
    picture: Any = image
    shape = (*picture.size[::-1], channels) if hasattr(picture, "getbands") else tuple(picture.shape)
    if len(shape) == 4 and not shape[0]:
        raise InputError("there are no images; give at least one")
    sides = shape[-3:]
    if len(shape) not in (3, 4) or channels not in (sides[0], sides[2]) or 0 in sides or max(sides) > MAX_SIDE:
        raise InputError(
            f"the image has shape {sides}; it must be (height, width, {channels}) or ({channels}, height, width), with "
            f"at most {MAX_SIDE} pixels a side"
        )
    try:
        image = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    except (TypeError, ValueError, OSError) as error:  # numbers that torch has not, or a broken picture
        raise InputError(f"the image cannot be read ({error}); its numbers must be uint8, or float in [0, 1]") from None
    image = image if sides[0] == channels else image.movedim(-1, -3)
    _check_values(image)
    return image


def _check_values(image: Tensor) -> None:
    """Refuse numbers that are no pixels."""
    if image.dtype == torch.uint8:
        return
    if image.dtype not in FLOATS:
        raise InputError(f"the image has dtype {image.dtype}; it must be uint8, or float in [0, 1]")
    if not torch.isfinite(image).all():
        raise InputError("the image holds NaN or infinite values")
    if image.min() < 0 or image.max() > 1:
        raise InputError(
            f"the image's values run from {image.min():.3g} to {image.max():.3g}; floats must lie in [0, 1] "
            "(uint8 images run from 0 to 255)"
        )
