"""The instruction tokenizer: a small piece of DistilBERT's WordPiece vocabulary, under DistilBERT's own ids.

Notable:
- the few hundred entries in `vocab.json` cover the course's sentences, so nothing is downloaded;
- a sentence gets exactly the ids that `AutoTokenizer.from_pretrained("distilbert-base-uncased")` gives it;
- a word outside the bundled vocabulary is an error that names the word: it is never dropped or turned into [UNK].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from tinyvla.config import InputError

if TYPE_CHECKING:  # transformers takes about a second to import; only those who tokenize pay for it
    from transformers import PreTrainedTokenizerFast

Encoded = tuple[Int64[Tensor, "b t"], Bool[Tensor, "b t"]]


@cache
def _bundled() -> dict:
    """`vocab`: token to DistilBERT id; `split_words`: words that WordPiece cuts into several of those tokens."""
    return json.loads(resources.files("tinyvla").joinpath("vocab.json").read_text(encoding="utf-8"))


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """The bundled tokenizer, built as DistilBERT's is: lower case, split on spaces and punctuation, WordPiece."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = _bundled()["vocab"]
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="right",
    )


def unknown_words(text: str) -> list[str]:
    """Words of `text` that the bundled vocabulary does not hold.

    A word is known when it is an entry of its own, or one of the few listed words that WordPiece splits: pieces of
    other words might come out differently in the full vocabulary.
    """
    backend = load_tokenizer().backend_tokenizer
    words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    bundled = _bundled()
    return [w for w, _ in words if w not in bundled["vocab"] and w not in bundled["split_words"]]


def encode(instructions: Sequence[str], max_length: int = 32) -> Encoded:
    """Token ids and attention mask of the instructions, padded on the right to the longest.

    Returns:
        ids, int64 `(b, t)`, and mask, bool `(b, t)`, True on real tokens.

    Raises:
        InputError: an instruction is not text, is empty or too long, or has a word outside the vocabulary.
    """
    for text in instructions:
        _check_instruction(text)
    return pad(instructions, [load_tokenizer()(text)["input_ids"] for text in instructions], max_length)


def pad(instructions: Sequence[str], rows: Sequence[list[int]], max_length: int) -> Encoded:
    """Rows of ids, one per instruction, as ids and mask, padded on the right to the longest.

    Raises:
        InputError: an instruction is too long.
    """
    for text, row in zip(instructions, rows, strict=True):
        if len(row) > max_length:
            raise InputError(f"the instruction has {len(row)} tokens, at most {max_length} fit: {text[:60]!r}...")
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) < lengths[:, None]


def _check_instruction(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"an instruction must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InputError('the instruction is empty; try "find the red block"')
    if unknown := unknown_words(text):
        raise InputError(
            f"unknown words {', '.join(map(repr, unknown))} in {text[:60]!r}; TinyVLA knows {len(_bundled()['vocab'])} "
            'entries of DistilBERT\'s vocabulary, see tinyvla/vocab.json; try "find the red block"'
        )
