"""Answers to the exercises of chapter 03: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

LOOK = "def allowed_to_look(mask):\n    n = mask.shape[1]\n    lower = torch.ones(n, n, dtype=torch.bool).tril()\n"

GRAMMAR = """
def grammar():
    return ["go to the {color} one", "grab the {color} screwdriver now", "find the {color} block"]

"""

ENCODE = """
def encode_by_hand(sentences):
    rows = []
    for text in sentences:
        pieces = ["[CLS]"]
        for word in split_words(text):
            cut = wordpiece(word, vocab)
            if "[UNK]" in cut:
                raise ValueError(f"unknown word: {word}")
            pieces.extend(cut)
        rows.append([vocab[piece] for piece in pieces + ["[SEP]"]])
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            "def allowed_to_look(mask):\n"
            "    index = torch.arange(mask.shape[1])\n"
            "    return (index[None, :] <= index[:, None])[None, None] & mask[:, None, None, :]",
            "def allowed_to_look(mask):\n"
            "    batch, n = mask.shape\n"
            "    table = np.zeros((batch, 1, n, n), dtype=bool)\n"
            "    for row in range(n):\n"
            "        for column in range(row + 1):\n"
            "            table[:, 0, row, column] = mask[:, column].numpy()\n"
            "    return table".replace("np.", "__import__('numpy')."),
            "def allowed_to_look(mask):\n"
            "    n = mask.shape[1]\n"
            "    return mask[:, None, None, :].expand(-1, 1, n, n).clone().tril()",
        ],
        wrong={
            "forgets the causal rule": (
                "def allowed_to_look(mask):\n    n = mask.shape[1]\n"
                "    return mask[:, None, None, :].expand(-1, 1, n, n)",
                "not causal",
            ),
            "forgets the padding": (LOOK + "    return lower.expand(len(mask), 1, n, n)", "nobody looks at padding"),
            "exchanges rows and columns": (LOOK + "    return lower.T & mask[:, None, None, :]", "are exchanged"),
            "hides the rows of padding": (
                LOOK + "    return lower & mask[:, None, :, None]",
                "the rows of padding keep",
            ),
            "hides rows and columns": (
                LOOK + "    return lower & mask[:, None, None, :] & mask[:, None, :, None]",
                "the rows of padding keep",
            ),
            "no token sees itself": (
                LOOK.replace("tril()", "tril(-1)") + "    return lower & mask[:, None, None, :]",
                "may also look at itself",
            ),
            "leaves out the heads": (LOOK + "    return lower & mask[:, None, :]", "the shape should be"),
            "takes the first sentence's mask for all": (
                LOOK + "    return (lower & mask[0]).expand(len(mask), 1, n, n)",
                "nobody looks at padding",
            ),
            "gives scores to add instead of a boolean table": (
                LOOK + "    return torch.zeros(len(mask), 1, n, n).masked_fill(~(lower & mask[:, None,"
                " None, :]), -torch.inf)",
                "should be boolean",
            ),
            "counts the real tokens and assumes padding on the right": (
                LOOK + "    real = torch.arange(n) < mask.sum(dim=1, keepdim=True)\n"
                "    return lower & real[:, None, None, :]",
                "padding on the left",
            ),
        },
    ),
    "Exercise 2": Answers(
        right=[
            "def join_pieces(pieces):\n"
            "    words = []\n"
            "    for piece in pieces:\n"
            "        if piece in {'[CLS]', '[SEP]', '[PAD]'}:\n"
            "            continue\n"
            "        if piece.startswith('##'):\n"
            "            words[-1] += piece[2:]\n"
            "        else:\n"
            "            words.append(piece)\n"
            "    return ' '.join(words)",
            "def join_pieces(pieces):\n"
            "    text = ''\n"
            "    for piece in pieces:\n"
            "        if piece not in ('[CLS]', '[SEP]', '[PAD]'):\n"
            "            text += piece.removeprefix('##') if piece.startswith('##') else ' ' + piece\n"
            "    return text.strip()",
        ],
        wrong={
            "changes the list": (
                """
def join_pieces(pieces):
    for special in ("[CLS]", "[SEP]", "[PAD]"):
        while special in pieces:
            pieces.remove(special)
    return " ".join(pieces).replace(" ##", "")
""",
                "make a new one",
            ),
            "drops other tokens in brackets": (
                """
def join_pieces(pieces):
    kept = [piece for piece in pieces if piece == "[UNK]" or not re.fullmatch(r"\\[[A-Z]+\\]", piece)]
    return " ".join(kept).replace(" ##", "")
""",
                "only [CLS], [SEP] and [PAD] are left out",
            ),
            "drops brackets that were typed": (
                """
def join_pieces(pieces):
    return " ".join(p for p in pieces if not p.startswith("[") or p == "[UNK]").replace(" ##", "")
""",
                "brackets that were typed",
            ),
            "stops at the first [SEP]": (
                """
def join_pieces(pieces):
    words = []
    for piece in pieces:
        if piece == "[SEP]":
            break
        if piece not in ("[CLS]", "[PAD]"):
            words.append(piece)
    return " ".join(words).replace(" ##", "")
""",
                "between two texts",
            ),
            "drops [UNK]": (
                "def join_pieces(pieces):\n"
                "    return ' '.join(p for p in pieces if not p.startswith('[')).replace(' ##', '')",
                "[UNK] stands for a word",
            ),
            "keeps the marks": (
                "def join_pieces(pieces):\n"
                "    return ' '.join(p for p in pieces if p not in ('[CLS]', '[SEP]', '[PAD]'))",
                "continues the word before it",
            ),
            "takes the marks off and does not join": (
                "def join_pieces(pieces):\n"
                "    return ' '.join(p for p in pieces if p not in ('[CLS]', '[SEP]', '[PAD]')).replace('##', '')",
                "continues the word before it",
            ),
            "keeps the special tokens": (
                "def join_pieces(pieces):\n    return ' '.join(pieces).replace(' ##', '')",
                "should be left out",
            ),
            "keeps the padding": (
                "def join_pieces(pieces):\n"
                "    return ' '.join(p for p in pieces if p not in ('[CLS]', '[SEP]')).replace(' ##', '')",
                "should be left out",
            ),
            "removes every #": (
                "def join_pieces(pieces):\n"
                "    kept = [p for p in pieces if p not in ('[CLS]', '[SEP]', '[PAD]')]\n"
                "    return ' '.join(kept).replace(' ##', '').replace('#', '').replace('  ', ' ')",
                "a # that is a word of its own",
            ),
            "cuts at the first [SEP]": (
                "def join_pieces(pieces):\n"
                "    kept = pieces[: pieces.index('[SEP]')] if '[SEP]' in pieces else pieces\n"
                "    return ' '.join(p for p in kept if p != '[CLS]').replace(' ##', '')",
                "padding may stand on the left",
            ),
            "drops words that repeat": (
                "def join_pieces(pieces):\n"
                "    kept = [p for p in pieces if p not in ('[CLS]', '[SEP]', '[PAD]')]\n"
                "    return ' '.join(dict.fromkeys(kept)).replace(' ##', '')",
                "words may repeat",
            ),
            "takes the spaces before commas off": (
                """
def join_pieces(pieces):
    kept = [p for p in pieces if p not in ("[CLS]", "[SEP]", "[PAD]")]
    return " ".join(kept).replace(" ##", "").replace(" ,", ",")
""",
                "punctuation marks are words",
            ),
            "returns the words as a list": (
                "def join_pieces(pieces):\n"
                "    return ' '.join(p for p in pieces if p not in ('[CLS]', '[SEP]',"
                " '[PAD]')).replace(' ##', '').split()",
                "expected 'find the red block'",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            "def max_of_real(states, mask):\n"
            "    return torch.where(mask[:, :, None], states, torch.tensor(float('-inf'))).max(dim=1).values",
            "def max_of_real(states, mask):\n    return torch.stack([s[m].amax(dim=0) for s, m in zip(states, mask)])",
            "def max_of_real(states, mask):\n"
            "    lowest = states.min()\n"
            "    return ((states - lowest) * mask[..., None]).amax(dim=1) + lowest",
            "def max_of_real(states, mask):\n"
            "    kept = [[row for row, real in zip(s.tolist(), m.tolist()) if real] for s, m in zip(states, mask)]\n"
            "    return [[max(values) for values in zip(*rows)] for rows in kept]",
        ],
        wrong={
            "fills with minus a million": (
                "def max_of_real(states, mask):\n    return states.masked_fill(~mask[..., None], -1e6).amax(dim=1)",
                "put minus infinity there",
            ),
            "subtracts a thousand from padding": (
                "def max_of_real(states, mask):\n    return (states - 1e3 * (~mask[..., None]).float()).amax(dim=1)",
                "put minus infinity there",
            ),
            "multiplies infinity by zero": (
                "def max_of_real(states, mask):\n"
                "    return (states * mask[..., None] + (~mask[..., None]) * -torch.inf).amax(dim=1)",
                "has NaN in it",
            ),
            "multiplies by the mask": (
                "def max_of_real(states, mask):\n    return (states * mask[..., None]).amax(dim=1)",
                "is a zero winning",
            ),
            "ignores the mask": (
                "def max_of_real(states, mask):\n    return states.amax(dim=1)",
                "the padding's 9.0",
            ),
            "reads the mask the wrong way round": (
                "def max_of_real(states, mask):\n"
                "    return states.masked_fill(mask[..., None], -torch.inf).amax(dim=1)",
                "the padding's 9.0",
            ),
            "fills with a number that is not small enough": (
                "def max_of_real(states, mask):\n    return states.masked_fill(~mask[..., None], -100.0).amax(dim=1)",
                "very negative states lose",
            ),
            "fills with minus a thousand": (
                "def max_of_real(states, mask):\n    return states.masked_fill(~mask[..., None], -1000.0).amax(dim=1)",
                "very negative states lose",
            ),
            "takes the first sentence's mask for all": (
                "def max_of_real(states, mask):\n    return states[:, mask[0]].amax(dim=1)",
                "each sentence has its own mask",
            ),
            "takes the maximum over features": (
                "def max_of_real(states, mask):\n"
                "    return states.masked_fill(~mask[..., None], -torch.inf).amax(dim=2)",
                "the shape should be",
            ),
            "counts the real tokens and assumes padding on the right": (
                "def max_of_real(states, mask):\n"
                "    return torch.stack([s[: int(m.sum())].amax(dim=0) for s, m in zip(states, mask)])",
                "padding on the left",
            ),
            "changes its input": (
                "def max_of_real(states, mask):\n    states[~mask] = -torch.inf\n    return states.amax(dim=1)",
                "changed its input",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            "def shrink(embedding, used):\n"
            "    small = nn.Embedding(len(used), embedding.embedding_dim)\n"
            "    with torch.no_grad():\n"
            "        small.weight.copy_(embedding.weight[used])\n"
            "    new_id = torch.full((embedding.num_embeddings,), -1, dtype=torch.long)\n"
            "    for row, old in enumerate(used.tolist()):\n"
            "        new_id[old] = row\n"
            "    return small, new_id",
            "def shrink(embedding, used):\n"
            "    small = nn.Embedding(len(used), embedding.weight.shape[1], _weight=embedding.weight.data[used])\n"
            "    is_used = torch.zeros(len(embedding.weight), dtype=torch.long)\n"
            "    is_used[used] = 1\n"
            "    return small, is_used.cumsum(0).where(is_used > 0, torch.tensor(0)) - 1",
        ],
        wrong={
            "leaves the old number of rows": (
                """
def shrink(embedding, used):
    import copy

    small = copy.deepcopy(embedding)
    small.weight = nn.Parameter(embedding.weight.detach()[used].clone())
    new_id = torch.full((embedding.num_embeddings,), -1)
    new_id[used] = torch.arange(len(used))
    return small, new_id
""",
                "make a new nn.Embedding",
            ),
            "a missing id becomes 0": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding.from_pretrained(embedding.weight.detach()[used], freeze=False)\n"
                "    new_id = torch.zeros(embedding.num_embeddings, dtype=torch.long)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return small, new_id",
                "should get -1",
            ),
            "freezes the small table": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding.from_pretrained(embedding.weight.detach()[used])\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return small, new_id",
                "still be trainable",
            ),
            "makes row 0 the padding": (
                "def shrink(embedding, used):\n"
                "    rows = embedding.weight.detach()[used]\n"
                "    small = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0)\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return small, new_id",
                "with padding_idx it would not learn",
            ),
            "a new table with other numbers": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding(len(used), embedding.embedding_dim)\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return small, new_id",
                "other vectors",
            ),
            "returns the old ids": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding.from_pretrained(embedding.weight.detach()[used], freeze=False)\n"
                "    return small, used",
                "one entry per old id",
            ),
            "the size of this notebook's table": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding.from_pretrained(embedding.weight.detach()[used], freeze=False)\n"
                "    new_id = torch.full((config.vocab_size,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return small, new_id",
                "one entry per old id",
            ),
            "points to the old rows": (
                "def shrink(embedding, used):\n"
                "    small = nn.Embedding.from_pretrained(embedding.weight.detach()[used], freeze=False)\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = used\n"
                "    return small, new_id",
                "should get 0, 1, 2",
            ),
            "keeps all rows": (
                "def shrink(embedding, used):\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return embedding, new_id",
                "the small table should have shape",
            ),
            "returns a tensor": (
                "def shrink(embedding, used):\n"
                "    new_id = torch.full((embedding.num_embeddings,), -1)\n"
                "    new_id[used] = torch.arange(len(used))\n"
                "    return embedding.weight[used], new_id",
                "should be an nn.Embedding",
            ),
        },
    ),
    "Exercise 5": Answers(
        right=[
            """
def grammar():
    return ["touch the {color}s", "go to {color}", "find the {color} block"]


def encode_by_hand(sentences):
    rows = []
    for text in sentences:
        pieces = [piece for word in split_words(text) for piece in wordpiece(word, vocab)]
        if "[UNK]" in pieces:
            raise ValueError(next(word for word in split_words(text) if wordpiece(word, vocab) == ["[UNK]"]))
        rows.append([vocab[piece] for piece in ("[CLS]", *pieces, "[SEP]")])
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[i < len(row) for i in range(width)] for row in rows])
""",
            GRAMMAR + ENCODE,
            GRAMMAR.replace("return [", "yield from [") + ENCODE,
            "from itertools import chain\n\n"
            "def grammar():\n"
            "    return ('the {color} block', 'pick up the {color} block', 'put the {color} block"
            " near the spatula!')\n\n"
            "def encode_by_hand(sentences):\n"
            "    lists = [list(chain.from_iterable(wordpiece(w, vocab) for w in split_words(s))) for s in sentences]\n"
            "    for s, pieces in zip(sentences, lists):\n"
            "        bad = [w for w in split_words(s) if wordpiece(w, vocab) == ['[UNK]']]\n"
            "        if bad:\n"
            "            raise ValueError(f'{bad[0]} has no pieces')\n"
            "    width = max(len(p) for p in lists) + 2\n"
            "    full = [['[CLS]', *p, '[SEP]'] for p in lists]\n"
            "    ids = [[vocab[t] for t in row + ['[PAD]'] * (width - len(row))] for row in full]\n"
            "    return ids, [[i < len(row) for i in range(width)] for row in full]",
        ],
        wrong={
            "lets the package encode": (
                GRAMMAR
                + """
def encode_by_hand(sentences):
    for text in sentences:
        for word in split_words(text):
            if wordpiece(word, vocab) == ["[UNK]"]:
                raise ValueError(word)
    return encode(sentences)
""",
                "without the package",
            ),
            "asks the package's tokenizer for the ids": (
                GRAMMAR
                + ENCODE.replace(
                    "ids[i, : len(row)] = torch.tensor(row)",
                    "ids[i, : len(row)] = torch.tensor(load_tokenizer()(sentences[i])['input_ids'])",
                ),
                "without the package",
            ),
            "refuses whatever is not ASCII": (
                GRAMMAR + ENCODE.replace('if "[UNK]" in cut:', "if not word.isascii():"),
                "refuse what wordpiece cannot cut",
            ),
            "a grammar of entries alone": (
                GRAMMAR.replace("screwdriver", "block") + ENCODE,
                "use one that is cut into pieces",
            ),
            "two templates": (
                "def grammar():\n    return ['find the {color} block', 'find the {color} screwdriver please']\n"
                + ENCODE,
                "at least three",
            ),
            "templates of one length": (
                "def grammar():\n"
                "    return ['find the {color} colander', 'take the {color} colander', 'push the {color} colander']\n"
                + ENCODE,
                "the same number of tokens",
            ),
            "pads on the left": (
                GRAMMAR + ENCODE.replace("[i, : len(row)]", "[i, -len(row) :]"),
                "padding belongs on the right",
            ),
            "leaves [SEP] out": (GRAMMAR + ENCODE.replace('pieces + ["[SEP]"]', "pieces"), "ids should have shape"),
            "splits at spaces alone": (
                GRAMMAR + ENCODE.replace("split_words(text)", "text.lower().split()"),
                "use split_words",
            ),
            "accepts [UNK]": (GRAMMAR + ENCODE.replace('if "[UNK]" in cut:', "if False:"), "should raise a ValueError"),
            "does not name the word": (
                GRAMMAR + ENCODE.replace('f"unknown word: {word}"', '"unknown word"'),
                "should name the word",
            ),
            "the mask is True on padding": (
                GRAMMAR + ENCODE.replace("return ids, mask", "return ids, ~mask"),
                "True on real tokens",
            ),
            "the mask is a table of zeros and ones": (
                GRAMMAR + ENCODE.replace("return ids, mask", "return ids, mask.long()"),
                "the mask bool",
            ),
        },
    ),
}
