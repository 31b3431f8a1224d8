"""Named tensors that a policy learns from and acts on, and a split of them on a device, cut into batches by index.

Notable:
- a batch says what is what: images by camera, words, and where there are any the robot's state and the actions;
- images stay uint8 (a quarter of the memory) until a batch is taken;
- what fits in memory lies there, and the rest stays in its file: no loader, no worker process, no collate function;
- the order of an epoch follows from its seed and number alone, so training can be resumed anywhere;
- sentences are tokenized by the policy's own tokenizer (`policy.language.encode`), which the caller passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from tinyvla.data.dataset import BlockFind
from tinyvla.data.stored import StoredImages
from tinyvla.device import choose_device
from tinyvla.errors import InputError
from tinyvla.fields import Many, check, check_fields, checked, taking

CAMERA = "camera"
"""The name of the only camera of BlockFind and of the block world."""

Encoded = tuple[Int64[Tensor, "b t"], Bool[Tensor, "b t"]]
Tokenize = Callable[[Sequence[str]], Encoded]
"""Sentences to token ids and mask: `policy.language.encode`."""

Named = TypeVar("Named", bound="Batch | TensorSplit")


def _images_of(array: Any) -> UInt8[Tensor, "n c h w"] | StoredImages:
    return StoredImages(array) if isinstance(array, np.memmap) else torch.as_tensor(array)


def _apply(named: Named, function: Callable[[Any], Any]) -> Named:
    """The same dataclass with every tensor in it changed by a function."""
    changed: dict[str, Any] = {}
    for field in fields(named):
        value = getattr(named, field.name)
        if isinstance(value, dict):
            changed[field.name] = {name: function(tensor) for name, tensor in value.items()}
        elif value is not None:
            changed[field.name] = function(value)
    return replace(named, **changed)


@dataclass(frozen=True)
class Batch:
    """What a policy takes: observations, and the actions to learn where it is trained."""

    images: dict[str, Float[Tensor, "b c h w"]]
    """By camera, as floats in [0, 1]."""
    input_ids: Int64[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"]
    """True on real tokens, False on padding."""
    state: Float[Tensor, "b s"] | None = None
    """The robot's own, in its own units."""
    actions: Float[Tensor, "b *chunk"] | None = None
    """`(b, h, a)`, or `(b, a)` where a chunk holds one action."""
    action_is_pad: Bool[Tensor, "b k"] | None = None
    """True on actions after an episode's end, which no loss counts."""
    future: Float[Tensor, "b p s"] | None = None
    """The robot's own state some steps later, where a policy learns from it: its waypoints."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def image(self) -> Float[Tensor, "b c h w"]:
        """Returns the images of the only camera.

        Raises:
            InputError: there are several cameras.
        """
        if len(self.images) != 1:
            raise InputError(f"there are the cameras {', '.join(self.images)}; name one: batch.images[NAME]")
        return next(iter(self.images.values()))

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.input_ids.device

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on a device."""
        return _apply(self, lambda tensor: tensor.to(device))

    def __getitem__(self, index: slice | Int64[Tensor, "k"]) -> Batch:
        """Returns the rows at an index."""
        return _apply(self, lambda tensor: tensor[index])


@dataclass(frozen=True)
class TensorSplit:
    """Labelled observations, tokenized, on one device."""

    images: dict[str, UInt8[Tensor, "n c h w"] | StoredImages]
    """By camera, at the policy's size."""
    input_ids: Int64[Tensor, "n t"]
    attention_mask: Bool[Tensor, "n t"]
    actions: Float[Tensor, "n *chunk"]
    state: Float[Tensor, "n s"] | None = None
    action_is_pad: Bool[Tensor, "n k"] | None = None
    future: Float[Tensor, "n p s"] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        wrong = {name: len(images) for name, images in self.images.items() if len(images) != len(self)}
        check(bool(self.images) and not wrong, f"there are {len(self)} actions, and of images {wrong or 'none'}")
        check(len(self) > 0, "there are no rows to learn from or to judge; a split needs at least one")
        actions = self.actions
        if self.action_is_pad is not None and actions.ndim == 3:  # whatever lies after an episode's end
            actions = actions.masked_fill(self.action_is_pad[..., None], 0.0)
        check_finite(actions, "the actions")
        if self.state is not None:
            check_finite(self.state, "the states")

    @classmethod
    @checked
    def from_blockfind(cls, split: BlockFind, tokenize: Tokenize, device: torch.device | str = "cpu") -> TensorSplit:
        """Returns a split of the course's task, tokenized, on a device.

        Args:
            split: scenes, sentences and arrows.
            tokenize: the policy's own tokenizer, `policy.language.encode`; `tinyvla.model.tokenizer.encode` is that of
                every policy with the course's own language model.
            device: where to put the tensors.
        """
        return cls.from_arrays({CAMERA: split.images}, split.instructions, split.actions, tokenize, device)

    @classmethod
    @checked
    def from_arrays(
        cls,
        images: Mapping[str, UInt8[np.ndarray, "n c h w"] | UInt8[Tensor, "n c h w"]],
        instructions: Sequence[str],
        actions: Float[np.ndarray, "n *chunk"],
        tokenize: Tokenize,
        device: torch.device | str = "cpu",
        state: Float[np.ndarray, "n s"] | None = None,
        action_is_pad: Bool[np.ndarray, "n k"] | None = None,
        future: Float[np.ndarray, "n p s"] | None = None,
    ) -> TensorSplit:
        """Returns images, sentences and labels of your own as a split; each different sentence is tokenized once.

        Images must have the policy's size; `policy.prepare.split` also scales them.
        """
        sentences = list(dict.fromkeys(instructions))
        number = {sentence: i for i, sentence in enumerate(sentences)}
        rows = torch.tensor([number[sentence] for sentence in instructions])
        input_ids, attention_mask = (encoded[rows] for encoded in tokenize(sentences))
        split = cls(
            {name: _images_of(array) for name, array in images.items()},
            input_ids,
            attention_mask,
            torch.as_tensor(actions).float(),
            None if state is None else torch.as_tensor(state).float(),
            None if action_is_pad is None else torch.as_tensor(action_is_pad),
            None if future is None else torch.as_tensor(future).float(),
        )
        return split.to(device)

    def to(self, device: torch.device | str) -> TensorSplit:
        """Returns the split on a device."""
        where = choose_device(device)
        return _apply(self, lambda tensor: tensor.to(where))

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.input_ids.device

    @checked
    def joined(self, other: TensorSplit) -> TensorSplit:
        """Returns these rows and then the other's; both must have been padded to the same length."""
        both = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        mine, theirs = both.pop("images")
        tensors: dict[str, Any] = {name: None if pair[0] is None else torch.cat(pair) for name, pair in both.items()}
        return TensorSplit({name: torch.cat([mine[name][:], theirs[name][:]]) for name in mine}, **tensors)

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, index: Int64[Tensor, "b"] | slice) -> Batch:
        """Returns the batch at `index`, images as floats in [0, 1]."""
        return Batch(
            {name: images[index].float() / 255 for name, images in self.images.items()},
            self.input_ids[index],
            self.attention_mask[index],
            None if self.state is None else self.state[index],
            self.actions[index],
            None if self.action_is_pad is None else self.action_is_pad[index],
            None if self.future is None else self.future[index],
        )

    def rows(self, index: Int64[Tensor, "k"] | Bool[Tensor, "n"]) -> TensorSplit:
        """Returns the rows at an index, or where a mask is True, as a split of their own."""
        with taking(index, len(self)):
            return _apply(self, lambda each: each.rows(index) if isinstance(each, StoredImages) else each[index])

    @property
    def is_stored(self) -> bool:
        """Whether images of a camera lie in a file."""
        return any(isinstance(images, StoredImages) for images in self.images.values())

    @checked
    def in_order(self, batch_size: Many = 250) -> Iterator[Batch]:
        """Every row once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))


def check_finite(values: Tensor, what: str) -> None:
    """Refuse rows of numbers of which one is NaN or infinite, naming the first.

    Raises:
        InputError: there is one.
    """
    wrong = ~torch.isfinite(values)
    if wrong.any():
        row, *place = (int(i) for i in wrong.nonzero()[0])
        value = values[(row, *place)].item()
        where = ", ".join(["dimension " + str(place[-1])] * bool(place) + [f"step {i}" for i in place[:-1]])
        raise InputError(f"{what} hold {value} in frame {row}, {where}; NaN or infinite numbers cannot be learned from")


def epoch_order(num_samples: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    """The shuffled order of one epoch, the same on every device."""
    generator = torch.Generator().manual_seed((1_000_003 * seed + epoch) % 2**63)
    return torch.randperm(num_samples, generator=generator)
