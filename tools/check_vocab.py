"""Is the vocabulary that travels with the package DistilBERT's? Compares the list, its ids, and sentences with a copy.

python tools/check_vocab.py                   # with the hub's
python tools/check_vocab.py path/to/folder    # with the tokenizer files (vocab.txt, tokenizer.json) in a folder
python tools/check_vocab.py path/to/vocab.txt --write   # pack such a list into the package
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from transformers import AutoTokenizer, BertTokenizerFast

from tinyvla.model import tokenizer


def write(listed: Path) -> None:
    """Pack the list; the same list gives the same bytes."""
    packed = gzip.compress(listed.read_bytes(), compresslevel=9, mtime=0)
    (Path(tokenizer.__file__).parent / tokenizer.VOCAB_FILE).write_bytes(packed)


def main() -> int:
    """Returns 1 if an entry or a sentence gets another id."""
    if "--write" in sys.argv:
        write(Path(sys.argv[1]))
        return 0
    if len(sys.argv) > 1:
        theirs = BertTokenizerFast.from_pretrained(sys.argv[1], do_lower_case=True)
    else:
        theirs = AutoTokenizer.from_pretrained("distilbert-base-uncased")
    ours = tokenizer.vocabulary()
    other = [
        entry for entry in ours.keys() | theirs.get_vocab().keys() if ours.get(entry) != theirs.get_vocab().get(entry)
    ]
    words = [entry.removeprefix("##") for entry in ours]
    sentences = [f"Find the {word} block, not the {word}s!" for word in words]
    ids = theirs(sentences, padding=False, truncation=False)["input_ids"]
    wrong = [s for s, want in zip(sentences, ids, strict=True) if tokenizer.load_wordpiece().encode(s).ids != want]
    print(f"{len(ours)} entries, {len(other)} differ", *other[:5], sep="\n")
    print(f"{len(sentences)} sentences, {len(wrong)} differ", *wrong[:5], sep="\n")
    return int(bool(other or wrong))


if __name__ == "__main__":
    sys.exit(main())
