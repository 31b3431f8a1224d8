from __future__ import annotations

import hashlib
import inspect
import random
import subprocess
import sys
import unicodedata

import pytest
import torch

from tinyvla.data.dataset import COLORS, instruction_for
from tinyvla.errors import InputError
from tinyvla.model.tokenizer import encode, load_tokenizer, load_wordpiece, pad, split_words, vocabulary

# Ids that DistilBERT's own tokenizer gives these sentences.
KNOWN = {
    "find the red block": [101, 2424, 1996, 2417, 3796, 102],
    "find the green block": [101, 2424, 1996, 2665, 3796, 102],
    "find the blue block": [101, 2424, 1996, 2630, 3796, 102],
    "find the yellow block": [101, 2424, 1996, 3756, 3796, 102],
    "find the purple block": [101, 2424, 1996, 6379, 3796, 102],
    "find the orange block": [101, 2424, 1996, 4589, 3796, 102],
    "Go to the CYAN block, please!": [101, 2175, 2000, 1996, 22330, 2319, 3796, 1010, 3531, 999, 102],
    "find the magenta block": [101, 2424, 1996, 17454, 12380, 3796, 102],
    "find the zebra block": [101, 2424, 1996, 29145, 3796, 102],
    "play the xylophone": [101, 2377, 1996, 1060, 8516, 25232, 102],
}
# Each is a rule of BERT's tokenizer that a home-made one forgets.
HARD = (
    "Find the SPÖON, s'il vous plaît",
    "cafe\u0301 e\u0301\u0301x \u0301 İstanbul ǅ ﬁnd",  # combining marks, alone too; letters that grow when lowered
    "fi\u200bnd t\u200dhe\ufeff re\u00add block",  # zero-width characters and soft hyphens vanish
    "find\tthe\u00a0red\u3000block\r\n",  # all of these are spaces
    "fi\x00nd\x07 the\x1b[0m \x7fred\ufffd",  # control characters vanish
    "find [SEP] the[MASK]red [CLS][PAD] [UNK]block",  # special tokens
    "[sep] [ SEP ] [SEP",  # and what only looks like them
    "[unused1] ##red red## #red",
    "找到红色方块 find赤block",  # each Chinese character is a word
    "가나다 ひらがな カタカナ עברית العربية हिन्दी ไทย",
    "find the 🟥 block 👩‍🚀👍🏽",
    f"{'a' * 100} {'a' * 101} {'é' * 100} {'é' * 101}",  # above 100 characters a word is [UNK]
    "x" * 5_000,
    "don't-stop_now... $5.00 €5 a+b=c <b> `x` ~^|",
    "  find   the  red   block  ",
    "\u0301",
    "\u2028\u2029\x85\x0b\x0c",
    "½ ² ﷺ ℌ Ⅷ ｆｕｌｌ 𝐛𝐨𝐥𝐝 ß ẞ ς Σ",
)


@pytest.fixture(scope="module")
def berts(tmp_path_factory):
    """BERT's own tokenizer, as `transformers` makes it from the published files."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_bytes(("\n".join(vocabulary()) + "\n").encode())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return BertTokenizerFast.from_pretrained(folder)


def fuzzed(count: int, seed: int) -> list[str]:
    """Texts made of what tokenizers stumble over: any character, pieces of words, marks, special tokens."""
    draw = random.Random(seed)
    entries = [entry.removeprefix("##") for entry in vocabulary()]
    odd = [chr(code) for code in range(0x3100) if unicodedata.category(chr(code))[0] in "CMZPS"]
    special = ["[SEP]", "[MASK]", "[CLS]", "[PAD]", "[UNK]", "[sep]", "[", "]", "##", "\u0301", "\u200b", "\ufeff", " "]

    def any_character() -> str:
        code = draw.choice((0x80, 0x250, 0x3000, 0x10000, 0x110000))
        character = chr(draw.randrange(code))
        return "?" if "\ud800" <= character <= "\udfff" else character

    def part() -> str:
        kind = draw.randrange(6)
        if kind == 0:
            return "".join(any_character() for _ in range(draw.randrange(1, 6)))
        if kind == 1:
            return draw.choice(special)
        if kind == 2:
            return draw.choice(odd)
        if kind == 3:
            return draw.choice(entries).upper() + draw.choice(("", " ", "\u0308"))
        if kind == 4 and draw.random() < 0.05:
            return draw.choice(entries) * draw.randrange(20, 120)
        return draw.choice(entries) + draw.choice((" ", ""))

    return ["".join(part() for _ in range(draw.randrange(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("sentence", KNOWN)
def test_ids_are_distilberts(sentence):
    ids, mask = encode([sentence])
    assert ids[0].tolist() == KNOWN[sentence]
    assert mask.all()


def test_every_instruction_of_the_task_is_covered():
    assert {instruction_for(color) for color in COLORS} <= set(KNOWN)


def test_the_vocabulary_is_berts_to_the_byte():
    listed = "\n".join(vocabulary()) + "\n"
    assert len(vocabulary()) == 30_522
    # As published with bert-base-uncased and distilbert-base-uncased.
    published = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert hashlib.sha256(listed.encode()).hexdigest() == published


@pytest.mark.parametrize("text", HARD, ids=lambda text: ascii(text[:20]))
def test_hard_texts_get_transformers_ids(berts, text):
    assert load_wordpiece().encode(text).ids == berts(text)["input_ids"]
    assert load_tokenizer()(text)["input_ids"] == berts(text)["input_ids"]


def test_any_text_gets_transformers_ids(berts):
    texts = fuzzed(10_000, seed=0)
    assert len(set(texts)) > 9_700
    expected = berts(texts)["input_ids"]
    wrong = [text for text, ids in zip(texts, expected, strict=True) if load_wordpiece().encode(text).ids != ids]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, the first is {wrong[0]!a}"
    assert sum(100 in ids for ids in expected) > 1_000  # with [UNK] and without it
    assert sum(100 not in ids for ids in expected) > 1_000


def test_encode_gives_these_ids_padded(berts):
    texts = [text for text in fuzzed(200, seed=1) if len(berts(text)["input_ids"]) > 2]
    expected = berts(texts, padding=True, return_tensors="pt")
    ids, mask = encode(texts, max_length=10_000)
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())


def test_words_hold_all_ids_of_a_text_in_order():
    for text in (*HARD, *fuzzed(1_000, seed=2)):
        words = split_words(text)
        assert [index for _, ids in words for index in ids] == load_wordpiece().encode(text).ids[1:-1], ascii(text)
        assert all(word and word in text for word, _ in words), ascii(text)


def test_words_are_spelled_as_in_the_text():
    assert split_words("Find the Spöon, [SEP]cubes 🟥") == [
        ("Find", [2424]),
        ("the", [1996]),
        ("Spöon", [15642]),
        (",", [1010]),
        ("[SEP]", [102]),
        ("cubes", [14291, 2015]),
        ("🟥", [100]),
    ]
    assert split_words("cubes🟥") == [("cubes🟥", [100])]
    assert split_words(" \u200b ") == []


def test_padding_stands_on_the_right():
    ids, mask = encode(["find the cyan block", "red"])
    assert ids.shape == mask.shape == (2, 7)
    assert ids[1].tolist() == [101, 2417, 102, 0, 0, 0, 0]
    assert mask[1].tolist() == [True] * 3 + [False] * 4
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool


def test_a_typed_pad_token_is_a_real_token():
    ids, mask = encode(["red [PAD]", "red"])
    assert ids.tolist() == [[101, 2417, 0, 102], [101, 2417, 102, 0]]
    assert mask.tolist() == [[True] * 4, [True, True, True, False]]


REFUSED = {
    "nothing": ("", "the instruction is empty"),
    "spaces": ("   ", "the instruction is empty"),
    "a line break": ("\n", "the instruction is empty"),
    "characters that no one sees": ("\u200b\u0301\x00", "the instruction is empty"),
    "half of an emoji": ("find the \ud83d block", r"U\+D83D at position 9, half of a character"),
    "too long": ("red " * 40, "42 tokens, at most 32 fit"),
    "one endless word": ("xqz" * 30, r"\d+ tokens, at most 32 fit"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        encode(["find the red block", text])


@pytest.mark.parametrize("wrong", [3, None, b"red"])
def test_instructions_are_strings(wrong):
    with pytest.raises(InputError, match=f"must be a string, not {type(wrong).__name__}"):
        inspect.unwrap(encode)([wrong])  # without the tests' check of types, which comes first


def test_one_string_is_no_list_of_instructions():
    with pytest.raises(InputError, match=r"try encode\(\['find the red block'\]\)"):
        encode("find the red block")


def test_a_limit_is_the_number_of_tokens():
    assert encode(["red " * 30])[0].shape == (1, 32)
    assert encode(["red " * 40], max_length=42)[0].shape == (1, 42)
    with pytest.raises(InputError, match="3 tokens, at most 2 fit"):
        pad(["red"], [[101, 2417, 102]], max_length=2)


def test_tokenizing_does_not_import_transformers():
    code = (
        "import sys; from tinyvla.model.tokenizer import encode; encode(['red']); print('transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
