"""FAST: a chunk of actions as a few tokens (https://arxiv.org/abs/2501.09747).

Notable:
- a discrete cosine transform turns a chunk into frequencies; smooth motion has few, so rounding leaves mostly zeros;
- byte-pair encoding, as for text, packs the row of whole numbers, lowest frequencies first, into fewer tokens;
- the tokenizer is learned from the training actions; `tinyvla.model.heads.FastHead` keeps it in the checkpoint.
"""

from __future__ import annotations

import json
import math

import numpy as np
from jaxtyping import Float, Float64, Int
from tokenizers import Tokenizer, models, trainers

from tinyvla.errors import InputError
from tinyvla.fields import Within, check_number
from tinyvla.files import parse_json

FIRST_CHARACTER = 0x4E00
"""Whole numbers are written as characters from here on: a block of Unicode with 20,000 letters and no blanks."""


def cosine_transform(horizon: int) -> Float64[np.ndarray, "h h"]:
    """The orthonormal DCT-II: row `k` is a cosine with `k` half waves over the chunk. Its inverse is its transpose."""
    moments = (np.arange(horizon) + 0.5) / horizon
    rows = np.cos(np.pi * np.arange(horizon)[:, None] * moments) * np.sqrt(2 / horizon)
    rows[0] /= np.sqrt(2)
    return rows


class FastTokenizer:
    """Chunks `(n, horizon, action_dim)`, normalised to about [-1, 1], as lists of token ids and back.

    Args:
        horizon, action_dim: the chunks' shape.
        scale: frequencies are multiplied by it before rounding; larger is finer and gives more tokens.
    """

    def __init__(self, horizon: int, action_dim: int, scale: float) -> None:
        self.shape = (horizon, action_dim)
        self.scale = scale
        self.transform = cosine_transform(horizon)
        self.lowest = 0
        self.bpe: Tokenizer | None = None

    @property
    def vocab_size(self) -> int:
        """Number of different tokens; 0 before `fit`."""
        return self.bpe.get_vocab_size() if self.bpe else 0

    def frequencies(self, chunks: Float[np.ndarray, "n h a"]) -> Int[np.ndarray, "n ha"]:
        """Rounded frequencies, lowest first, the dimensions of an action side by side."""
        numbers = np.rint(self.scale * np.einsum("kh,nha->nka", self.transform, chunks))
        return numbers.astype(np.int64).reshape(len(chunks), -1)

    def _texts(self, chunks: Float[np.ndarray, "n h a"]) -> list[str]:
        return ["".join(chr(FIRST_CHARACTER + int(v)) for v in row - self.lowest) for row in self.frequencies(chunks)]

    def fit(self, chunks: Float[np.ndarray, "n h a"], vocab_size: int) -> None:
        """Learn which numbers stand together often.

        Raises:
            InputError: the chunks hold more different numbers than the vocabulary has tokens.
        """
        numbers = self.frequencies(chunks)
        if not numbers.size:
            raise InputError("there are no actions to learn a tokenizer from; give at least one row")
        self.lowest, highest = int(numbers.min()), int(numbers.max())
        values = highest - self.lowest + 1
        if values > vocab_size:
            raise InputError(
                f"the rounded frequencies take {values} values and the vocabulary has {vocab_size} tokens; "
                "choose a larger HeadConfig.fast_vocab_size or a smaller fast_scale"
            )
        alphabet = [chr(FIRST_CHARACTER + i) for i in range(values)]
        self.bpe = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        self.bpe.train_from_iterator(self._texts(chunks), trainer)

    def encode(self, chunks: Float[np.ndarray, "n h a"]) -> list[list[int]]:
        """Token ids of each chunk. Numbers beyond those seen in `fit` are brought to the nearest that was."""
        assert self.bpe, "fit the tokenizer first"
        highest = self.lowest + len({t for t in self.bpe.get_vocab() if len(t) == 1}) - 1
        numbers = self.frequencies(chunks).clip(self.lowest, highest) - self.lowest
        texts = ["".join(chr(FIRST_CHARACTER + int(v)) for v in row) for row in numbers]
        return [encoding.ids for encoding in self.bpe.encode_batch(texts)]

    def decode(self, ids: list[list[int]]) -> Float64[np.ndarray, "n h a"]:
        """Chunks of token ids. A row that is too short is filled with zeros, one that is too long is cut."""
        assert self.bpe, "fit the tokenizer first"
        numbers = np.zeros((len(ids), math.prod(self.shape)))
        for row, tokens in zip(numbers, ids, strict=True):
            text = "".join(self.bpe.id_to_token(token) or "" for token in tokens)[: len(row)]
            row[: len(text)] = [ord(c) - FIRST_CHARACTER + self.lowest for c in text]
        return np.einsum("kh,nka->nha", self.transform, numbers.reshape(-1, *self.shape) / self.scale)

    def to_json(self) -> str:
        """All that was learned."""
        return json.dumps({"lowest": self.lowest, "bpe": json.loads(self.bpe.to_str()) if self.bpe else None})

    def load_json(self, text: str) -> None:
        """The inverse of `to_json`.

        Raises:
            InputError: the text is damaged.
        """
        learned = parse_json(text, "the action tokenizer")
        self.lowest = check_number("lowest in the action tokenizer", learned.get("lowest"), Within(-(2**31), 2**31))
        try:
            self.bpe = Tokenizer.from_str(json.dumps(learned["bpe"])) if learned["bpe"] else None
        except Exception as error:  # the library raises this very class
            raise InputError(f"the action tokenizer is damaged ({str(error)[:200]})") from None
