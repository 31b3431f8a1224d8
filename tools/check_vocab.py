"""Does the bundled vocabulary give DistilBERT's ids? Compares with the full tokenizer, from the hub or from a file.

python scripts/check_vocab.py                          # needs the hub
python scripts/check_vocab.py path/to/tokenizer.json   # any copy of BERT's uncased vocabulary
"""

from __future__ import annotations

import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tinyvla.model.tokenizer import load_tokenizer, unknown_words


def main() -> int:
    """Returns 1 if any sentence gets other ids."""
    if len(sys.argv) > 1:
        full = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1])
    else:
        full = AutoTokenizer.from_pretrained("distilbert-base-uncased")
    bundled = load_tokenizer()
    words = [word for word in bundled.get_vocab() if not word.startswith(("[", "##"))]
    words += ["cubes", "cyan", "magenta", "teal", "farthest", "leftmost", "rightmost"]
    sentences = [f"find the {word} block" for word in words if not unknown_words(word)]
    ids = [full(s, padding=False, truncation=True, max_length=64)["input_ids"] for s in sentences]
    wrong = [s for s, want in zip(sentences, ids, strict=True) if bundled(s)["input_ids"] != [i for i in want if i]]
    print(f"{len(sentences)} sentences, {len(wrong)} differ", *wrong[:5], sep="\\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
