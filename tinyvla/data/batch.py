"""A split as tensors on a device, cut into batches by index.

Notable:
- images stay uint8 (a quarter of the memory) until a batch is taken;
- everything fits in memory, so there is no loader, no worker process and no collate function;
- the order of an epoch follows from its seed and number alone, so training can be resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from tinyvla.data.blockfind import BlockFind
from tinyvla.model.tokenizer import Encoded, encode


@dataclass(frozen=True)
class Batch:
    """What `TinyVLA.loss` takes."""

    images: Float[Tensor, "b 3 h w"]
    input_ids: Int64[Tensor, "b t"]
    attention_mask: Bool[Tensor, "b t"]
    actions: Float[Tensor, "b *chunk"]


@dataclass(frozen=True)
class TensorSplit:
    """Scenes, or states of the closed loop, tokenized, on one device."""

    images: UInt8[Tensor, "n 3 h w"]
    input_ids: Int64[Tensor, "n t"]
    attention_mask: Bool[Tensor, "n t"]
    actions: Float[Tensor, "n *chunk"]

    @classmethod
    def from_blockfind(
        cls,
        split: BlockFind,
        device: torch.device | str = "cpu",
        tokenize: Callable[[Sequence[str]], Encoded] = encode,
    ) -> TensorSplit:
        """Tokenize and move a split. A pretrained language model brings a tokenizer, `policy.language.encode`."""
        return cls.from_arrays(split.images, split.instructions, split.actions, device, tokenize)

    @classmethod
    def from_arrays(
        cls,
        images: UInt8[np.ndarray, "n 3 h w"],
        instructions: Sequence[str],
        actions: Float[np.ndarray, "n *chunk"],
        device: torch.device | str = "cpu",
        tokenize: Callable[[Sequence[str]], Encoded] = encode,
    ) -> TensorSplit:
        """Tokenize and move images, sentences and labels of your own; each different sentence is tokenized once."""
        sentences = list(dict.fromkeys(instructions))
        number = {sentence: i for i, sentence in enumerate(sentences)}
        rows = torch.tensor([number[sentence] for sentence in instructions])
        input_ids, attention_mask = (encoded[rows] for encoded in tokenize(sentences))
        tensors = (torch.from_numpy(images), input_ids, attention_mask, torch.from_numpy(actions).float())
        return cls(*(tensor.to(device) for tensor in tensors))

    def joined(self, other: TensorSplit) -> TensorSplit:
        """These and then the other's; both must have been padded to the same length, as the task's sentences are."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return TensorSplit(*(torch.cat(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, index: Int64[Tensor, "b"] | slice) -> Batch:
        """The scenes at `index`, images as floats in [0, 1]."""
        return Batch(
            self.images[index].float() / 255, self.input_ids[index], self.attention_mask[index], self.actions[index]
        )

    def in_order(self, batch_size: int = 250) -> Iterator[Batch]:
        """Every scene once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))


def epoch_order(num_samples: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    """The shuffled order of one epoch, the same on every device."""
    generator = torch.Generator().manual_seed((1_000_003 * seed + epoch) % 2**63)
    return torch.randperm(num_samples, generator=generator)
