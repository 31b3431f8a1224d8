# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Language: from words to a vector
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/03_language.ipynb)
#
# The policy is told "find the red block". A network cannot read letters. It needs numbers, and in the end one vector that
# says what is wanted. In this chapter you build that path: a word becomes pieces, pieces become ids, ids become vectors,
# a causal transformer mixes them, and an average makes one sentence vector.
#
# Some faults on this path raise no error. You will measure three of them: padding that leaks into the sentence, a mask
# that is read the wrong way round, and words so quiet that the policy hears them late.
#
# **You will be able to**
#
# - split a word into WordPiece tokens by hand, and say what a policy makes of a word that training never showed;
# - write the mask of a causal transformer yourself, and show that your model equals the package's;
# - catch a padding bug with a test of three lines;
# - explain where most of a small model's parameters sit, and which of them a training step changes;
# - see before training, from the angle between two sentence vectors, that a policy will hear its instruction late.
#
# **Time:** about 40 minutes to read, about 40 seconds on two CPU cores, 30 seconds on a GPU to run.
#
# **Before you start:** you should know what an embedding and an attention layer are. [Chapter 2](02_vision.ipynb)
# builds attention and the transformer block, which this chapter imports. [Chapter 1](01_dataset.ipynb) describes the
# scenes and their sentences.

# %% tags=["nbval-ignore-output"]
# Setup: the same cell in every notebook. Installs tinyvla where it is missing, for example in Colab; leaves torch alone.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("tinyvla") is None:
    source = os.environ.get("TINYVLA_SOURCE", "git+https://github.com/tinyvla/tinyvla@v0.1.0")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

import torch

import tinyvla

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"tinyvla {tinyvla.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}, device {device}")

# %%
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

from tinyvla.config import PRESETS, LanguageConfig, model_config
from tinyvla.course.ch03 import SMALL, small_scenes, small_world
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import trained_policy
from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.data.dataset import COLORS, PALETTE, BlockFind, instruction_for
from tinyvla.learn.evaluate import Metrics, predict_split, vision_only_floor
from tinyvla.learn.optimizer import learning_rate_at, make_optimizer, set_learning_rate
from tinyvla.learn.train import train_step
from tinyvla.model.language import TinyLanguageModel, causal_mask
from tinyvla.model.layers import Block
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode, load_tokenizer
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.show.plots import PART_COLORS
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

# %% [markdown]
# This is what will be built, from top to bottom.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Diagram from top to bottom: the six pieces of “find the red block” with [CLS] and [SEP], their ids, embedding plus position, a causal transformer, one state per token, and a bar below all six states, their mean, which is the sentence vector."}}
ORANGE = PART_COLORS["language"]
ARROW = {"arrowstyle": "->", "color": "#555555"}


def box(ax, x, y, width, text, fill="white", color="black", height=0.62):
    """A labelled box centred at (x, y)."""
    ax.add_patch(plt.Rectangle((x - width / 2, y - height / 2), width, height, fc=fill, ec=ORANGE, lw=1.4))
    ax.text(x, y, text, ha="center", va="center", color=color, fontsize=10)


fig, ax = plt.subplots(figsize=(9, 5.4), layout="constrained", facecolor="white")
words = ["[CLS]", "find", "the", "red", "block", "[SEP]"]
rows = [(5, "pieces", words), (4, "ids", encode(["find the red block"])[0][0].tolist())]
rows += [(3, "embedding\n+ position", [""] * 6), (1, "states", [""] * 6)]
for y, name, labels in rows:
    ax.text(-0.75, y, name, ha="right", va="center", fontsize=10)
    for x, label in enumerate(labels):
        box(ax, x, y, 0.82, label, ORANGE if label == "" else "white")
        ax.annotate("", (x, y - 0.66), (x, y - 0.33), arrowprops=ARROW)
        if y == 1:
            ax.annotate("", (x, y + 0.33), (x, y + 0.66), arrowprops=ARROW)
box(ax, 2.5, 2, 5.82, "causal transformer: each token looks at itself and at earlier tokens", "#fbe9da")
box(ax, 2.5, 0, 5.82, "mean of all six states", "#fbe9da")
ax.annotate("", (6.35, 0), (5.45, 0), arrowprops=ARROW)
box(ax, 7.05, 0, 1.4, "sentence\nvector", ORANGE, "white", 0.9)
ax.text(2.5, 5.75, '"find the red block"', ha="center", fontsize=11, style="italic")
ax.set(xlim=(-1.9, 7.9), ylim=(-0.6, 6.1))
ax.axis("off")
plt.show()

# %% [markdown]
# ## 1. From words to pieces
#
# A vocabulary with one entry per word would be huge, and it would still miss words. A vocabulary of letters would be
# tiny, but sentences would become long. **WordPiece** is a compromise: frequent words are entries of their own, and rare
# words are put together from pieces. A piece that continues a word is written with `##` in front.
#
# TinyVLA uses the vocabulary of DistilBERT, which is BERT's: 30,522 entries, all in lower case but for five special tokens
# (`[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`). The list travels with the package, so nothing is downloaded.

# %%
vocab = load_tokenizer().get_vocab()  # token -> id
print(f"{len(vocab):,} entries")
for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "find", "red", "zebra", "cube", "##s", "magenta"):
    print(f"{token:>8} -> {vocab.get(token, 'not an entry')}")

# %% [markdown]
# "magenta" is not an entry, so it has to be cut. The rule is **greedy longest match**: take the longest entry that the
# word starts with, cut it off, and go on with the rest, now looking for entries that start with `##`.
#
# Before that, the text is split into words: everything becomes lower case, spaces separate words, and each punctuation
# mark is a word of its own. (DistilBERT's tokenizer has more rules than these. You will meet them in a moment.)


# %%
def split_words(text):
    """Lower-case words and single punctuation marks."""
    return re.findall(r"[^\W_]+|[^\w\s]|_", text.lower())


def wordpiece(word, vocab, verbose=False):
    """Cut a word into the longest entries that match, from left to right."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):  # longest candidate first
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if verbose:
                print(f"  {piece:12}{'entry ' + str(vocab[piece]) if piece in vocab else '-'}")
            if piece in vocab:
                break
        else:
            return ["[UNK]"]  # no entry matches here: the whole word is unknown
        pieces.append(piece)
        start = end
    return pieces


print(split_words("Go to the MAGENTA cubes, please!"))
print("magenta:")
pieces = wordpiece("magenta", vocab, verbose=True)
for word in ("red", "zebra", "cyan", "magenta", "cubes", "leftmost", "gripper", "colander"):
    print(f"{word:>9} -> {' '.join(wordpiece(word, vocab))}")

# %% [markdown]
# Pieces need not be syllables, and they need not mean anything. "cola" is simply the longest entry with which "colander"
# begins; it has nothing to do with the drink. The model has to learn what "cola" and "##nder" mean together.
#
# Two special tokens frame the sentence: `[CLS]` (id 101) in front and `[SEP]` (id 102) at the end. Then every piece is
# replaced by its id. The package's tokenizer is built with the `tokenizers` library. For the sentences below, the
# function that you see here gives the same ids.


# %%
def token_ids(text):
    """[CLS], the ids of all pieces, [SEP]."""
    pieces = [piece for word in split_words(text) for piece in wordpiece(word, vocab)]
    return [vocab[piece] for piece in ("[CLS]", *pieces, "[SEP]")]


sentences = [instruction_for(color) for color in COLORS] + [
    "Go to the CYAN block, please!",
    "push the two magenta cubes into the corner",
    "the farthest teal box?",
    "Find the leftmost purple circle, then the rightmost.",
    "Open the gripper; hand me the colander, the spatula & the screwdriver.",
]
for sentence in sentences:
    assert token_ids(sentence) == load_tokenizer()(sentence)["input_ids"], sentence
print(sentences[0], "->", token_ids(sentences[0]))
print(sentences[6], "->", token_ids(sentences[6]))
print(f"same ids as the package's tokenizer for all {len(sentences)} sentences")

# %% [markdown]
# These sentences are plain. DistilBERT's tokenizer has more rules, which `split_words` leaves out. It takes accents off,
# drops invisible characters, makes every Chinese character a word of its own, and reads a special token that someone
# typed, such as `[SEP]`, as that token. Here the two differ:

# %%
for text in (
    "find the naïve robot",
    "find the re\u200bd block",
    "找红色",
    "red [SEP]",
):  # \u200b: a space without width
    print(ascii(text))
    for who, ids in (("by hand", token_ids(text)), ("package", load_tokenizer()(text)["input_ids"])):
        print(f"  {who:8}", " ".join(load_tokenizer().convert_ids_to_tokens(ids)))

# %% [markdown]
# The second text is the dangerous one. On the screen it looks like "find the red block", and you get such a text when you
# copy from a web page. If training and deployment use different tokenizers, the policy reads different words in the two,
# and no error is raised. So `tinyvla` has one tokenizer for both, and its tests compare the ids with those of
# `transformers` on thousands of strange texts.
#
# ### A word that training never showed
#
# **The tokenizer gives ids to any word, whether or not the policy has learned it.** Every letter from a to z is an entry,
# alone and after `##`, so in the worst case an English word falls apart into letters. What the policy knows about a word
# depends on what it saw in training. There are four cases:
#
# - All pieces occurred in the training sentences, as for "red".
# - The word is an entry, but no training sentence had it: "zebra". Its row of the embedding still holds the random
#   numbers it started with.
# - Some pieces occurred and others did not: "redness" is `red ##ness`. The row of the first is learned, the row of the
#   second is random.
# - No entry fits: 🟥 becomes `[UNK]`, and so does 🟦. The model cannot tell them apart.
#
# You can compute which words are new: those with at least one piece that training did not show.

# %%
trained_ids = {index for color in COLORS for index in token_ids(instruction_for(color))}


def unseen_words(text):
    """Words with a piece that occurs in none of BlockFind's sentences."""
    return [word for word in split_words(text) if not trained_ids.issuperset(vocab[p] for p in wordpiece(word, vocab))]


for word in ("red", "zebra", "redness", "xylophone", "🟥"):
    pieces = wordpiece(word, vocab)
    known = [vocab[piece] in trained_ids for piece in pieces]
    print(f"{word} -> {' '.join(pieces)}; pieces seen in training: {sum(known)} of {len(known)}")
red_square, blue_square = encode(["find the 🟥 block", "find the 🟦 block"])[0]
print("🟥 and 🟦 give the same ids:", torch.equal(red_square, blue_square))

# %% [markdown]
# The package's language model records the training words and saves the record in the checkpoint.
# `policy.language.unseen_words(sentence)` lists the new words of a sentence, and `policy.predict` warns about them. It
# still answers, because a new word can matter little ("cube" for "block") or a lot ("not").
# [Chapter 6](06_evaluation.ipynb) measures what such words do, and [Chapter 16](16_language_that_generalises.ipynb) what a
# language model that has read English before knows of them.

# %%
tower = TinyLanguageModel(PRESETS["nano"].language)
tower.note_words(encode([instruction_for(color) for color in COLORS])[0])  # training does this
for sentence in ("find the red block", "find the zebra", "hand me the red cube, not the blue block"):
    assert tower.unseen_words(sentence) == unseen_words(sentence), sentence
    print(f"{sentence}: {', '.join(map(repr, unseen_words(sentence))) or 'no new words'}")

# %% [markdown]
# ## 2. Padding and the mask
#
# A tensor is rectangular, but sentences differ in length. Shorter ones are filled up on the right with `[PAD]` (id 0), and
# a **mask** records which tokens are real. Here `True` means real.

# %%
ids, mask = encode(["find the red block", "push the two magenta cubes", "red"])
print("ids ", tuple(ids.shape), ids.dtype)
print(ids)
print("mask", tuple(mask.shape), mask.dtype)
print(mask.int())

# %% [markdown]
# Libraries disagree about masks, so check what `True` means in yours. Hugging Face tokenizers mark real tokens with 1.
# PyTorch's `scaled_dot_product_attention` takes a boolean mask in which `True` means *may be looked at*. The
# `key_padding_mask` of PyTorch's `nn.MultiheadAttention` is the opposite: `True` means *ignore*. As booleans they look
# alike, so a mix-up raises no error. Section 6 shows what it does.
#
# ## 3. From ids to vectors
#
# The **token embedding** is a table with one row per vocabulary entry. An id picks a row. The row says which token it is,
# but not where it stands in the sentence. So a **position** is added: sines and cosines of the token's index at many
# frequencies. [Chapter 2](02_vision.ipynb) does the same in two dimensions.

# %%
config = PRESETS["nano"].language
torch.manual_seed(0)
package = TinyLanguageModel(config)  # PyTorch's default initial weights, on the CPU


def positions(length, dim):
    """Sines, then cosines, of 0, 1, 2, ... at dim / 2 frequencies from 1 down to 1 / 10,000."""
    frequencies = 10_000.0 ** -torch.linspace(0, 1, dim // 2)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


torch.testing.assert_close(positions(config.max_length, config.embed_dim), package.positions)
print("table    ", tuple(package.token_embedding.weight.shape))  # (vocabulary, embed_dim)
print("positions", tuple(package.positions.shape), "same as the package's")  # (max_length, embed_dim)
print("x        ", tuple(package.embed(ids).shape))  # (batch, tokens, embed_dim)

# %% [markdown]
# ## 4. A causal transformer
#
# So far each token knows only itself. Attention lets tokens look at each other. In a **causal** model a token sees itself
# and *earlier* tokens, never later ones. Language models that write text are causal, because they have to predict the
# next word without seeing it. Ours predicts no words. It is causal like the models that large policies are built on: the
# language part of [OpenVLA](https://arxiv.org/abs/2406.09246) is Llama 2, that of
# [SmolVLA](https://arxiv.org/abs/2506.01844) is SmolLM2.
#
# Which token may look where is a boolean table: one row per token that looks, one column per token that is looked at.
# An entry is `True` where the column is not later than the row **and** the column is not padding.
#
# ### Exercise 1: who may look at whom (10 minutes)
#
# Write this table. `mask` is boolean with shape (batch, tokens), `True` on real tokens. The result is boolean with shape
# (batch, 1, tokens, tokens). The 1 leaves room for the heads of attention, which all use the same table.
#
# <details><summary>Hint</summary>
#
# `torch.ones(n, n, dtype=torch.bool).tril()` is `True` on and below the diagonal. `mask[:, None, None, :]` has one row for
# each sentence, and broadcasting copies it to every token that looks.
#
# </details>


# %% tags=["exercise"]
def allowed_to_look(mask):
    """True where a token (row) may look at a token (column): (batch, 1, tokens, tokens)."""
    # your code here


# %% tags=["check"]
def expected_table(mask):
    """The rule, entry by entry."""
    n = mask.shape[1]
    rows = [[[c <= r and bool(real[c]) for c in range(n)] for r in range(n)] for real in mask]
    return torch.tensor(rows)[:, None]


with checking("Exercise 1"):
    sample = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])  # two sentences, the second with padding
    answer = allowed_to_look(sample)
    assert answer is not None, "write the body of allowed_to_look first"
    answer, expected = torch.as_tensor(answer), expected_table(sample)
    assert answer.shape == (2, 1, 5, 5), f"the shape should be (2, 1, 5, 5), yours is {tuple(answer.shape)}"
    assert answer.dtype == torch.bool, f"the table should be boolean, yours is {answer.dtype}"
    full, padded = answer[:, 0]
    assert not full.equal(torch.ones(5, 5).triu().bool()), "rows and columns are exchanged: the row's token looks"
    assert full.diagonal().all(), "a token may also look at itself"
    assert not full.triu(1).any(), "a token looks at a later one, so the table is not causal"
    assert not padded[:, 3:].any(), "the columns of padding should be False: nobody looks at padding"
    assert padded[3:, :3].all(), (
        "the rows of padding keep their real columns; a row without any True is NaN in a plain softmax"
    )
    assert answer.equal(expected), "some entries differ from the rule: each sentence has its own mask"
    left = torch.tensor([[False, True, True, True]])
    assert torch.as_tensor(allowed_to_look(left)).equal(expected_table(left)), (
        "with padding on the left the table is wrong: look at where the mask is True, not at how often"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def allowed_to_look(mask):
#     n = mask.shape[1]
#     not_later = torch.ones(n, n, dtype=torch.bool).tril()
#     return not_later & mask[:, None, None, :]
# ```
#
# `not_later` has shape (tokens, tokens) and the mask (batch, 1, 1, tokens). Broadcasting makes (batch, 1, tokens, tokens)
# of the two.
#
# </details>
#
# The package has the same function, `causal_mask`. The chapter goes on with it, so you can read on even if yours is not
# ready. Here are its tables for two of the three sentences above.


# %% mystnb={"image": {"alt": "Two tables of which token (row) may look at which (column). Without padding the lower triangle is filled. With padding the three [PAD] columns are empty, while the [PAD] rows are not."}}
def draw_mask(ax, allowed, labels, title):
    """Allowed pairs in the language colour."""
    ax.imshow(allowed.numpy(), cmap=plt.matplotlib.colors.ListedColormap(["#eeeeee", ORANGE]), vmin=0, vmax=1)
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(len(labels)), labels, fontsize=9)
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="white", lw=1.5)
        ax.axvline(edge - 0.5, color="white", lw=1.5)
    ax.set(title=title, xlabel="looked at", ylabel="looks")


fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.3), layout="constrained", facecolor="white")
for ax, row, title in zip(axes, (1, 0), ("no padding", "with padding"), strict=True):
    labels = load_tokenizer().convert_ids_to_tokens(ids[row].tolist())
    draw_mask(ax, causal_mask(mask)[row, 0], labels, title)
plt.show()


# %% [markdown]
# In the right picture the columns of `[PAD]` are empty: nobody looks at padding. The rows of `[PAD]` are not empty: the
# padding itself looks at the sentence. So the model computes a state for each padding token, too, and whoever reads the
# states has to leave those out. Section 6 shows what happens otherwise.
#
# Now the whole model: embed, pass through the blocks, normalise. `Block` is the transformer block of
# [Chapter 2](02_vision.ipynb).


# %%
class LanguageModel(nn.Module):
    """Token ids to one state per token."""

    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.register_buffer("positions", positions(config.max_length, config.embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, ids, allowed):
        x = self.token_embedding(ids) + self.positions[: ids.shape[1]]  # (batch, tokens, embed_dim)
        for block in self.blocks:
            x = block(x, allowed)
        return self.norm(x)


def mean_of_real(states, mask):
    """(batch, tokens, embed_dim) -> (batch, embed_dim), padding left out."""
    return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


model = LanguageModel(config)
model.load_state_dict(dict(package.named_parameters()))  # the same names, so the package's weights fit
with torch.no_grad():
    states = model(ids, causal_mask(mask))
    torch.testing.assert_close(states, package(ids, mask))
    torch.testing.assert_close(mean_of_real(states, mask), package.sentence(ids, mask))
print("states  ", tuple(states.shape))
print("sentence", tuple(mean_of_real(states, mask).shape))
print("same states and sentence vectors as the package's TinyLanguageModel")

# %% [markdown]
# Does the causal mask do what it says? Take two sentences whose first three tokens are equal and whose fourth differs.
# Their first three states must be equal, and all states from the fourth on may differ. Here they do.

# %%
pair_ids, pair_mask = encode(["find the red block", "find the blue cube"])
with torch.no_grad():
    one, other = model(pair_ids, causal_mask(pair_mask))
torch.testing.assert_close(one[:3], other[:3])
for index, (a, b) in enumerate(zip(*pair_ids.tolist(), strict=True)):
    left, right = load_tokenizer().convert_ids_to_tokens([a, b])
    print(f"{index}: {left:>6} {right:>6}   same state: {torch.allclose(one[index], other[index], atol=1e-4)}")

# %% [markdown]
# The last token is `[SEP]` in both sentences, and its states differ: it has looked at the words before it. The first token
# is `[CLS]`, and its state is the same in every sentence: there is nothing before it to look at. BERT is not causal, and
# there `[CLS]` is where the sentence is read. In a causal model the state of `[CLS]` says nothing about the sentence.
#
# ## 5. One vector for the sentence
#
# Most fusions of [Chapter 4](04_fusion.ipynb) need one vector per sentence. There are two obvious readouts:
#
# - the state of the **last** token, which has been able to look at every word;
# - the **mean** of the states of all real tokens.
#
# **Predict.** So far the weights were PyTorch's defaults. Now take an untrained policy with the package's own initial
# weights, and the two sentences "find the red block" and "find the green block". How far apart are their last states, and
# how far apart are their means?
#
# 1. The last states differ more, because the mean dilutes the one word that differs.
# 2. The means differ more, because attention dilutes more than the mean does.
# 3. The last states are exactly equal, the means are not.
# 4. Both differ by about the same.

# %%
policy = new_policy(PRESETS["nano"], seed=0)  # initial weights of TinyVLA.init_weights, on the CPU
six_ids, six_mask = encode([instruction_for(color) for color in COLORS])
print("ids", tuple(six_ids.shape), "no padding:", six_mask.all().item())


def rows_with_gradient(policy, readout):
    """Rows of the table that the gradient of some function of the sentence vectors reaches."""
    policy.zero_grad()
    vectors = readout(policy.language(six_ids, six_mask))
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    rows = policy.language.token_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    return load_tokenizer().convert_ids_to_tokens(rows)


readouts = {"last": lambda states: states[:, -1], "mean": lambda states: states.mean(dim=1)}
for name, readout in readouts.items():
    with torch.no_grad():
        red, green = readout(policy.language(six_ids, six_mask))[:2]
    print(f"{name}: red and green exactly equal: {torch.equal(red, green)}")
    print(f"      words that get a gradient: {', '.join(rows_with_gradient(policy, readout))}")

# %% [markdown]
# **Explain.** The third guess is right. In this package the output matrices of attention and of the MLP start at zero, so
# each block starts as the identity ($x + 0$). No word has been mixed into the last token yet. The six sentences differ in
# the colour only, and in all of them the last token is `[SEP]` at position 5. So its state is the same in all six.
#
# The gradient does not reach the colour either. No gradient flows back through a zero matrix, so with the last-token readout
# only the row of `[SEP]` gets one. With the mean all eleven rows in use get a gradient.
#
# **Predict again.** Does the last-token readout make the policy learn later, or not at all? The next cell takes one training
# step with it and looks again. Then a small policy is trained with each readout, three seeds each, in a small world that
# fits into seconds: three blocks on the central 4 x 4 cells, images of 32 x 32 pixels (`tinyvla.course.ch03`). The learning
# rate climbs for 40 steps and then stays (`steady`). `make_step` makes the training step, and `used_rows=True` makes it
# faster: it leaves alone the rows of the table that no sentence uses ([Chapter 9](09_speed.ipynb) has more of this).


# %%
class LastToken(TinyLanguageModel):
    """Reads a sentence from the state of its last real token."""

    def mean_state(self, input_ids, attention_mask):
        last = attention_mask.sum(dim=1) - 1
        return self(input_ids, attention_mask)[torch.arange(len(last), device=last.device), last]


def policy_with(tower, model_config, seed):
    """A new policy with a language model of that class."""
    torch.manual_seed(seed)
    return TinyVLA(model_config, language=tower(model_config.language))


steady = TrainConfig(learning_rate=1e-3, warmup_steps=40, decay_fraction=0.0)  # climbs for 40 steps, then stays
stepped = policy_with(LastToken, model_config("nano"), seed=0)
first_scenes = TensorSplit.from_blockfind(BlockFind(64, seed=1), encode)
train_step(stepped, make_optimizer(stepped, steady), first_scenes.take(slice(0, 64)), steady.grad_clip)
with torch.no_grad():
    red, green = stepped.language.sentence(six_ids, six_mask)[:2]
print(f"last, after one step: red and green exactly equal: {torch.equal(red, green)}")
print(f"      words that get a gradient: {', '.join(rows_with_gradient(stepped, readouts['last']))}")

# %% tags=["nbval-ignore-output", "slow"]
small_train, small_val = small_world(8_000, 1, device), small_world(500, 2, device)
SEEDS, STEPS = range(3), 180


def train_small(policy, num_steps, seed, after_step=lambda: None):
    """Train in the small world, 64 scenes a step; returns the loss of each step. Chapter 5 builds such a loop."""
    step = make_step(policy.to(device), small_train, steady, StepOptions(used_rows=True))
    epochs = range(1 + 64 * num_steps // len(small_train))
    batches = [index for e in epochs for index in epoch_order(len(small_train), seed, e).to(device).split(64)]
    losses = []
    for number, index in enumerate(batches[:num_steps]):
        set_learning_rate(step.optimizer, learning_rate_at(number, num_steps, steady))
        losses.append(step(index).item())
        after_step()
    return losses


def judge_small(policy):
    """Direction accuracy on 500 scenes that were not trained on."""
    return Metrics.of(predict_split(policy, small_val), small_val.actions.cpu()).direction_accuracy


curves, small_policies = {}, {}
for readout, tower in (("mean", TinyLanguageModel), ("last", LastToken)):
    small_policies[readout] = [policy_with(tower, SMALL, seed) for seed in SEEDS]
    curves[readout] = [train_small(p, STEPS, seed) for p, seed in zip(small_policies[readout], SEEDS, strict=True)]
    shares = ", ".join(f"{judge_small(p):.1%}" for p in small_policies[readout])
    print(f"{readout}: right direction after {STEPS} steps, three seeds: {shares}")


# %% tags=["slow"] mystnb={"image": {"alt": "Training loss over 180 steps, three seeds for each readout. All curves leave 0.5 and come close to zero. Those of the mean fall within about 80 steps. Of those of the last state one falls with them, and two fall later, up to step 125."}}
def smooth(losses, window=10):
    """Running mean, so that a curve can be read."""
    return torch.tensor(losses).unfold(0, window, 1).mean(dim=1)


def draw_curves(ax, runs, color, label):
    """One thin line for each seed."""
    for number, losses in enumerate(runs):
        ax.plot(range(10, len(losses) + 1), smooth(losses), color=color, lw=1.3, label=label if number == 0 else None)


fig, ax = plt.subplots(figsize=(7.5, 2.9), layout="constrained", facecolor="white")
draw_curves(ax, curves["mean"], ORANGE, "mean of the states")
draw_curves(ax, curves["last"], PART_COLORS["vision"], "last state")
ax.set(xlabel="step (64 scenes each)", ylabel="training loss", ylim=(0, None))
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plt.show()
for readout, policies in small_policies.items():
    assert min(judge_small(p) for p in policies) > 0.8, f"with the {readout} state the task should be learned"
print("both readouts learn the task, with each of the three seeds")

# %% [markdown]
# The last-token readout learns, too. (Each point of a curve is the mean of 10 steps.) It is blind for a single step. After
# that step the output matrices are not zero any more, the last state depends on the colour, and all eleven rows get a
# gradient. In this small world one of its three curves falls with those of the mean, and two fall later. Three seeds of a
# small model are not much, so do not expect the same of every model.
#
# `TinyLanguageModel.sentence` averages: the mean depends on the colour from the first step on, and it learned at least as
# fast here. Large pretrained models have matrices far from zero, and reading their last token is common.
#
# ## 6. Padding that leaks
#
# The other sentences of a batch decide how much padding a sentence gets: alone it gets none, beside a long sentence it
# gets a lot. **The vector of a sentence must not depend on its neighbours.** We encode "find the red block" alone, then
# beside a long sentence, and see how far its vector moves. We compare this with the distance between "find the red block"
# and "find the green block", both alone.
#
# There are three choices to make:
#
# - attention: causal, or every token sees every token (as in BERT);
# - padding in attention: hidden by the mask, or looked at because the mask is forgotten;
# - readout: mean of the real states, mean over all positions, or the state at the last position.
#
# **Predict.** Which of the following move the vector, and which are harmless?
#
# 1. causal, padding hidden, mean over all positions
# 2. causal, mask forgotten in attention, mean of the real states
# 3. every token sees all, mask forgotten in attention, mean of the real states
# 4. causal, padding hidden, state at the last position (`states[:, -1]`)


# %%
def allowed_pairs(mask, causal, hide_padding):
    """As `causal_mask`, but each of its two rules can be left out."""
    allowed = torch.ones(len(mask), 1, mask.shape[1], mask.shape[1], dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    return allowed & mask[:, None, None, :] if hide_padding else allowed


assert allowed_pairs(mask, causal=True, hide_padding=True).equal(causal_mask(mask))


def make_reader(causal, hide_padding, readout):
    """A function from sentences to vectors, with the given choices. Uses `model`, whose attention is active."""

    @torch.no_grad()
    def read(sentences):
        ids, mask = encode(sentences)
        states = model(ids, allowed_pairs(mask, causal, hide_padding))
        if readout == "mean of real":
            return mean_of_real(states, mask)
        return states.mean(dim=1) if readout == "mean of all" else states[:, -1]

    return read


RED, GREEN = instruction_for("red"), instruction_for("green")
LONG = "please find the small red block near the left edge of the grid"
choices = {
    "correct": (True, True, "mean of real"),
    "1: mean over all positions": (True, True, "mean of all"),
    "2: causal, mask forgotten": (True, False, "mean of real"),
    "3: all see all, mask forgotten": (False, False, "mean of real"),
    "4: state at the last position": (True, True, "last position"),
    "all see all, padding hidden": (False, True, "mean of real"),
}
readers = {name: make_reader(*choice) for name, choice in choices.items()}
shift = {}
for name, read in readers.items():
    alone, beside, green = read([RED])[0], read([RED, LONG])[0], read([GREEN])[0]
    shift[name] = ((beside - alone).norm() / (green - alone).norm()).item()
    print(f"{name:38}{'moves' if shift[name] > 1e-3 else 'stays'}")

# %% mystnb={"image": {"alt": "Bar chart: how far a long neighbour moves the sentence vector, for six choices. Three bars are at zero; mean over all positions, mask forgotten where all see all, and last position go past the dashed line of another colour."}}
fig, ax = plt.subplots(figsize=(8.4, 2.9), layout="constrained", facecolor="white")
bars = ax.barh(list(shift), list(shift.values()), color=ORANGE)
ax.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
ax.axvline(1, color="#444444", ls="--", lw=1)
ax.text(1.08, -0.75, "another colour", fontsize=9, color="#444444", va="center")
ax.set(xlabel="how far a long neighbour moves the vector (red to green = 1)", ylim=(5.5, -1.2))
ax.set_xlim(0, 1.12 * max(shift.values()))
ax.spines[["top", "right"]].set_visible(False)
plt.show()
assert shift["1: mean over all positions"] > 1.5, "the padding should outweigh the colour"

# %% [markdown]
# **Explain.** Choices 1, 3 and 4 move the vector; choice 2 does not.
#
# - Averaging over all positions mixes in the states of `[PAD]`. A long neighbour moves the sentence further than another
#   colour would. No error is raised and no number is NaN, but the policy reads another vector beside longer sentences.
# - The last *position* is not the last *word*. Beside a longer sentence it is a `[PAD]`.
# - Forgetting the mask in attention matters when every token sees every token. With a causal mask and padding on the
#   right it does not matter, because padding stands *after* all real tokens and the causal mask already hides it. If
#   every token sees every token and the mask is there (the last bar), the vector stays as well.
#
# Do not rely on choice 2. It breaks when padding stands on the left, which is usual when a model writes text, or when some
# tokens see everything, like the fusion tokens of [Chapter 4](04_fusion.ipynb). So `causal_mask` hides padding anyway.
# (With padding on the left, that is not enough here: the positions would also have to be counted from the first real token.)
#
# Training on BlockFind does not show the fault. All its sentences have six tokens, so there is no padding. The fault
# appears when sentences of two lengths stand in one batch. A short test finds it earlier:


# %%
def check_padding_is_ignored(read):
    """The vector of a sentence must be the same alone and beside a longer one."""
    alone, beside = read([RED])[0], read([RED, LONG])[0]
    torch.testing.assert_close(beside, alone, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def package_reader(sentences):
    """The package's own sentence vectors."""
    return package.sentence(*encode(sentences))


for name, read in {**readers, "tinyvla.model.language": package_reader}.items():
    try:
        check_padding_is_ignored(read)
        print(f"{name:38}passes")
    except AssertionError:
        print(f"{name:38}caught")

# And a mask read the wrong way round (True on padding), here only in the readout:
mixed_ids, mixed_mask = encode([RED, GREEN, LONG])
with torch.no_grad():
    inverted = mean_of_real(policy.language(mixed_ids, mixed_mask), ~mixed_mask)
print("inverted mask: red and green exactly equal:", torch.equal(inverted[0], inverted[1]))
print("inverted mask: NaN without padding:", inverted[2].isnan().all().item())

# %% [markdown]
# The test needs no trained weights, but attention has to be active. In a new policy of the package the blocks' outputs are
# zero (section 5), so attention does nothing, and guess 3 would pass. Here `model` has PyTorch's default initial weights.
#
# The last two lines show the mix-up of section 2, with the initial weights of TinyVLA. Where a sentence has padding, the
# inverted mask reads only the padding, and both colours give the same vector. Where there is no padding, it divides zero
# by zero. A NaN is easy to notice. Equal vectors are not, unless you test for them.
#
# ## 7. Where the parameters sit
#
# A *preset* is a policy size that has a name: `nano`, `minimal`, `medium` and `smolvla_like`. On PyTorch's *meta* device a
# model has shapes but no numbers. Even the largest preset is built in a moment there, and its
# weights take no memory.

# %% mystnb={"image": {"alt": "Stacked bars: the shares of vision, token embedding, language blocks, fusion and head in four presets. The token embedding is most of nano and minimal, and only a small part of smolvla_like."}}
counts = {}
for name in PRESETS:
    with torch.device("meta"):
        counts[name] = TinyVLA(model_config(name)).num_parameters()
    share = counts[name]["token embedding"] / counts[name]["total"]
    print(f"{name:13}{counts[name]['total']:>12,} parameters, {share:.0%} in the token embedding")

colors = {"vision": PART_COLORS["vision"], "token embedding": ORANGE, "language blocks": "#eeb98a"}
colors |= {"fusion": PART_COLORS["fusion"], "head": PART_COLORS["action"]}
fig, ax = plt.subplots(figsize=(8.4, 2.9), layout="constrained", facecolor="white")
left = dict.fromkeys(counts, 0.0)
for part, color in colors.items():
    widths = [100 * count[part] / count["total"] for count in counts.values()]
    ax.barh(list(counts), widths, left=list(left.values()), color=color, label=part, edgecolor="white")
    left = {name: left[name] + width for name, width in zip(left, widths, strict=True)}
ax.set(xlabel="share of the parameters (%)", xlim=(0, 100))
ax.invert_yaxis()
ax.spines[["top", "right"]].set_visible(False)
fig.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# In `minimal` more than half of all parameters are rows of one table. How many of its 30,522 rows does BlockFind use?
# These ids occur in the 8,000 training sentences:

# %%
data = DataConfig()
train = TensorSplit.from_blockfind(BlockFind(data.num_train, data.train_seed), encode)
used = train.input_ids.unique()
rows, width = PRESETS["minimal"].language.vocab_size, PRESETS["minimal"].language.embed_dim
print(f"{len(used)} of {rows:,} rows:", ", ".join(load_tokenizer().convert_ids_to_tokens(used.tolist())))
print(f"in use: {len(used) * width:,} of the {rows * width:,} parameters of minimal's table")

# %% [markdown]
# Eleven rows are in use. The others are there for compatibility: an id means the same here as in DistilBERT. A sentence
# that was tokenized elsewhere fits, and row 2417 is the row of "red" in DistilBERT's own table, too. If you only ever need
# BlockFind's sentences, you can throw the idle rows away (Exercise 4 does).
#
# What does a training step do to the rows that no sentence uses? Their gradient is zero, and where the gradient has
# always been zero, AdamW moves nothing, with one exception. **Weight decay** shrinks each weight at each step, used or
# not. So the package's `make_optimizer` leaves embeddings out of weight decay. Here is one step with `make_optimizer`,
# and one with weight decay on everything:

# %%
settings = TrainConfig()
batch = train.take(slice(0, 64))
for name in ("make_optimizer", "weight decay on everything"):
    policy = new_policy(PRESETS["nano"], seed=0)
    table = policy.language.token_embedding.weight
    before = table.detach().clone()
    optimizer = make_optimizer(policy, settings)
    if name != "make_optimizer":
        optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    train_step(policy, optimizer, batch, settings.grad_clip)
    changed = (table.detach() != before).any(dim=1).sum().item()
    print(f"{name:28}{changed:>7,} rows changed")

steps = 20 * 125  # 20 epochs of 125 batches
kept = 1.0
for step in range(steps):
    kept *= 1 - learning_rate_at(step, steps, settings) * settings.weight_decay
print(f"after 20 epochs an unused row would be {1 - kept:.1%} shorter")

# %% [markdown]
# The rows would shrink only a little here, but nothing is gained by it. In a table loaded from a pretrained model, words
# that your data does not mention would fade too, the more the longer you train, although nothing was learned about them.
#
# The eleven rows also show what the policy does not know. A word that never occurred in training keeps the random row it
# started with. "find the cyan block" is tokenized without an error, but training has not given the rows of `cy` and
# `##an` any meaning.
#
# ## 8. Words that are too quiet
#
# `TinyVLA.init_weights` draws the rows of the table with standard deviation 1.0. The positions that are added have a root
# mean square of about 0.7, so words and positions are about equally loud. Other transformers keep the two in balance in
# other ways. [BERT](https://github.com/google-research/bert/blob/master/modeling.py) draws words *and* positions with
# standard deviation 0.02 (`initializer_range`), adds them, and applies LayerNorm. The
# [original transformer](https://arxiv.org/abs/1706.03762) has sine-cosine positions like ours, and multiplies the embeddings
# by $\sqrt{d}$ before it adds them (section 3.4 of the paper).
#
# What if you take half of each recipe, words at 0.02 with sine-cosine positions? Look at the *angle* between the sentences
# of two colours:


# %%
def quiet_policy(std, seed=0):
    """The nano policy with its token embedding scaled to a standard deviation of `std`."""
    policy = new_policy(PRESETS["nano"], seed)
    with torch.no_grad():
        policy.language.token_embedding.weight.mul_(std)
    return policy


def similarity(vectors):
    """Cosine between all pairs of rows."""
    unit = F.normalize(vectors.double(), dim=1)
    return unit @ unit.T


@torch.no_grad()
def mean_angle(policy):
    """Mean angle in degrees between the sentence vectors of two different colours."""
    cosine = similarity(policy.language.sentence(six_ids, six_mask))
    return torch.rad2deg(cosine[~torch.eye(6, dtype=torch.bool)].clamp(-1, 1).acos()).mean().item()


both_quiet = quiet_policy(0.02)
both_quiet.language.positions.mul_(0.02)
angles = {
    "words at 1.0": mean_angle(quiet_policy(1.0)),
    "words at 0.02": mean_angle(quiet_policy(0.02)),
    "words and positions at 0.02": mean_angle(both_quiet),
}
print(f"positions: root mean square {policy.language.positions.pow(2).mean().sqrt():.1f}")
for name, angle in angles.items():
    print(f"{name:28} two colours are {angle:.1f} degrees apart")
assert min(angles["words at 1.0"], angles["words and positions at 0.02"]) > 20, angles
assert angles["words at 0.02"] < 1, angles

# %% [markdown]
# At 0.02 the positions, which are the same in every sentence, drown the words: the angle shrinks from 21.9 to 0.6 degrees.
# With quiet positions it is 21.9 degrees again. But the words are still there and still different, and training can make
# them louder.
#
# **Predict.** The same small policy is trained with words at 0.02, with the three seeds of section 5 and the same learning
# rates. What will its loss do?
#
# 1. The same as with words at 1.0, because Adam adapts the size of its steps to each parameter.
# 2. It falls more slowly from the beginning.
# 3. It falls to what the image alone allows, stays there for a long time, and then falls again.
# 4. It stays for good at what the image alone allows.

# %% tags=["nbval-ignore-output", "slow"]
quiet_steps = 400
color_ids = six_ids[:, 3].to(device)


def train_quiet(seed, frozen=False):
    """Train with words at std 0.02: the policy, its losses, and the size of the colours' rows after each step."""
    policy, sizes = policy_with(TinyLanguageModel, SMALL, seed), []
    table = policy.language.token_embedding.weight
    with torch.no_grad():
        table.mul_(0.02)
    table.requires_grad_(not frozen)  # a frozen table stays as it is
    losses = train_small(
        policy, quiet_steps, seed, lambda: sizes.append(table.detach()[color_ids].pow(2).mean().sqrt().item())
    )
    return policy, losses, sizes


quiet_policies, curves["quiet"], sizes = zip(*(train_quiet(seed) for seed in SEEDS), strict=True)
frozen_losses = [train_quiet(seed, frozen=True)[1] for seed in SEEDS]

scenes = small_scenes(500, seed=2)
deaf = torch.from_numpy(vision_only_floor(scenes))  # the mean of the arrows to all blocks: the best without words
deaf_loss = F.mse_loss(deaf, torch.from_numpy(scenes.actions)).item()
plateau = [smooth(losses, 20)[90].item() for losses in curves["quiet"]]  # mean of steps 91 to 110
around_100 = ", ".join(f"{loss:.2f}" for loss in plateau)
print(f"best loss without words: {deaf_loss:.2f}; with quiet words around step 100: {around_100}")
shares = ", ".join(f"{judge_small(p):.0%}" for p in quiet_policies)
print(f"words at std 0.02: right direction after {quiet_steps} steps, three seeds: {shares}")
for seed, losses, size in zip(SEEDS, curves["quiet"], sizes, strict=True):
    heard = next(end for end in range(20, quiet_steps) if sum(losses[end - 20 : end]) / 20 < deaf_loss - 0.05)
    print(f"seed {seed}: the colours' rows have size {size[0]:.2f} after the first step and {size[99]:.2f} after 100, "
          f"{size[heard - 1]:.2f} when the loss falls (step {heard}), {size[-1]:.2f} at the end")  # fmt: skip
    assert size[heard - 1] > 3 * size[0], "when the loss falls, the words should have grown to several times their size"
last = [smooth(losses, 20)[-1].item() for losses in frozen_losses]
print(f"with a frozen table the loss after {quiet_steps} steps is {', '.join(f'{loss:.2f}' for loss in last)}")
assert min(last) > deaf_loss - 0.04, "words that cannot grow should not be heard"

# %% tags=["slow"] mystnb={"image": {"alt": "Training loss, three seeds each. With words at 1.0 the curves fall to near zero within 100 steps. With words at 0.02 they sink to a dashed line, the best loss without words, stay near it until step 150 or later, and then fall as well."}}
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained", facecolor="white")
draw_curves(ax, curves["mean"], ORANGE, "words at std 1.0")
draw_curves(ax, curves["quiet"], PART_COLORS["fusion"], "words at std 0.02")
ax.axhline(deaf_loss, color="#444444", ls="--", lw=1, label="best without words")
ax.set(xlabel="step (64 scenes each)", ylabel="training loss", ylim=(0, 0.7))
ax.legend(frameon=False, ncols=3, loc="upper right")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

assert all(abs(loss - deaf_loss) < 0.08 for loss in plateau), (
    "around step 100 the loss should be near the best without words"
)
assert all(smooth(losses, 20)[90] < 0.15 for losses in curves["mean"]), "with words at std 1.0 it should be far below"
assert all(smooth(losses, 20)[-1] < deaf_loss - 0.07 for losses in curves["quiet"]), (
    "in the end the quiet words should be heard, too"
)
print("std 1.0: learns. std 0.02: stays for long near the best loss without words, then falls as well.")
reach = sum(learning_rate_at(step, quiet_steps, steady) for step in range(100))
print(f"the learning rates of the first 100 steps add up to {reach:.2f}")

# %% [markdown]
# **Explain.** Guess 3 is right, with each of the three seeds. (The curves are running means of 10 steps again.) The loss
# first sinks to the best that the image alone allows, comes near it somewhere between step 70 and step 150, and stays
# there until the words are heard. Then it falls again, to near zero.
#
# Adam does adapt its steps, but a step of Adam is about as large as the learning rate, whatever the gradient. The learning
# rates of the first 100 steps add up to 0.08, so no entry of the table can have moved much further by then. The
# positions are of size 0.7. Meanwhile the rest of the policy learns what needs no words: the average arrow to the blocks in
# the image. Once the words have grown to four or five times their size, the policy begins to hear them. Without that growth
# it does not: freeze the table, and the loss is still near the dashed line after 400 steps, with each of the three seeds.
#
# So quiet words cost time, and how much you cannot tell on the plateau. The loss there looks as if training were over, and
# the arrows look plausible although they hardly depend on the words. If your steps end before the plateau does, you get a
# policy that does not listen. The angle above would have warned you before the first step, and
# [Chapter 6](06_evaluation.ipynb) shows how to notice it afterwards.
#
# ## 9. What the words have become
#
# The last experiment looks at a policy that has learned the task. How similar are its six sentence vectors, compared with
# before training? The colours stand in the order of the colour wheel.

# %% tags=["nbval-ignore-output", "slow"] mystnb={"image": {"alt": "Two 6 by 6 maps of the cosine similarity between the colours' sentence vectors. Before training all are near 1. After it, neighbours on the colour wheel are still alike, and opposites such as orange and blue are below zero."}}
trained = trained_policy(progress_bar=False).cpu()
wheel = ("red", "orange", "yellow", "green", "blue", "purple")
wheel_ids, wheel_mask = encode([instruction_for(color) for color in wheel])
untrained = new_policy(PRESETS["nano"], seed=0)  # the weights that `trained` started from
with torch.no_grad():
    cosines = [similarity(p.language.sentence(wheel_ids, wheel_mask)) for p in (untrained, trained)]

fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.1), layout="constrained", facecolor="white")
for ax, cosine, title in zip(axes, cosines, ("before training", "after training"), strict=True):
    image = ax.imshow(cosine.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(6), wheel, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(6), wheel, fontsize=9)
    for i in range(6):
        for j in range(6):
            value = round(cosine[i, j].item(), 1) + 0.0  # + 0.0 turns -0.0 into 0.0
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=9, color="w" if abs(value) > 0.6 else "k")
    ax.set_title(title)
    for tick, color in zip((*ax.get_xticklabels(), *ax.get_yticklabels()), wheel * 2, strict=True):
        tick.set_color([0.8 * channel / 255 for channel in PALETTE[color]])
fig.colorbar(image, ax=axes, label="cosine similarity", shrink=0.85)
plt.show()

# %% [markdown]
# Before training all six vectors point nearly the same way, because five of their six tokens are the same (a cosine of 0.9
# is the angle of over 20 degrees from section 8). After training they point apart: a sentence is now mostly its colour.
#
# Look next to the diagonal. Neighbours on the colour wheel (red and orange, green and blue, and, around the corner, purple
# and red) are more alike than opposites (orange and blue, yellow and purple). The words cannot have brought this along:
# their rows started as random numbers, and the sentences are the same but for the colour. Only the images relate the
# colours to each other, because the patches of a red and of an orange block have similar red, green and blue values.
#
# The next cell checks whether other seeds show the same pattern: the three policies of section 5, which learned in the small
# world. It also counts the rows of the table that training has changed, and shows at which tokens the states of "find the
# red block" and "find the green block" differ now. Only where two states differ can the colour be read. (How well, a linear
# probe would show, as in [Chapter 2](02_vision.ipynb).)

# %% tags=["slow"] mystnb={"image": {"alt": "Bars: how far apart the states of the red and the green sentence are at each token. Before training only the colour word differs; afterwards “block” and [SEP] differ as well. The three tokens in front never do."}}
changed = (trained.language.token_embedding.weight != untrained.language.token_embedding.weight).any(dim=1)
print(f"rows changed by training: {changed.sum().item()} of {len(changed):,}")
assert cosines[0].min() > 0.8, "before training all sentences should be alike"
assert cosines[1].min() < 0.3, "after training some colours should point apart"


@torch.no_grad()
def wheel_gap(policy):
    """By how much neighbours on the colour wheel are more alike than opposites, on average."""
    cosine = similarity(policy.cpu().language.sentence(wheel_ids, wheel_mask))
    ring = torch.arange(6)
    return (cosine[ring, (ring + 1) % 6] - cosine[ring, (ring + 3) % 6]).mean().item()


assert wheel_gap(trained) > 0.3, "neighbours on the colour wheel should be more alike than opposites"
found = sum(wheel_gap(p) > 0 for p in small_policies["mean"])
print(f"neighbours more alike than opposites, on average: in {found} of {len(SEEDS)} policies of the small world, too")

tokens = ["[CLS]", "find", "the", "red / green", "block", "[SEP]"]
fig, ax = plt.subplots(figsize=(8.4, 2.7), layout="constrained", facecolor="white")
for offset, p, name, color in (
    (-0.2, untrained, "before training", "#bbbbbb"),
    (0.2, trained, "after training", ORANGE),
):
    with torch.no_grad():
        states = p.language(six_ids, six_mask)
    distance = (states[0] - states[1]).norm(dim=1)
    reached = [token for token, d in zip(tokens, distance.tolist(), strict=True) if d > 1e-3]
    print(f"{name}: the states differ at {', '.join(reached)}")
    ax.bar([x + offset for x in range(6)], distance.tolist(), width=0.38, color=color, label=name)
ax.set_xticks(range(6), tokens)
ax.set(ylabel="distance of the states")
ax.legend(frameon=False, loc="upper left")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# Before training the two sentences differ only at the word itself. After training they differ at "block" and `[SEP]`, too,
# because attention passes something of the colour on to later tokens. Earlier tokens cannot carry it, whatever is learned:
# the causal mask hides the colour from them.
#
# ## Exercise 2: back to words (5 minutes)
#
# Write the way back: join pieces to a text. `["push", "the", "mage", "##nta", "cube", "##s"]` becomes `"push the
# magenta cubes"`. `[CLS]`, `[SEP]` and `[PAD]` are left out. `[UNK]` stays, because it stands for a word that was there.
# When a model misbehaves, this is the first thing you need: print what it was really given.
#
# <details><summary>Hint</summary>
#
# Go through the pieces. One that starts with `##` is appended, without the marks, to the last word; any other starts a
# new word.
#
# </details>


# %% tags=["exercise"]
def join_pieces(pieces):
    """The text that the pieces came from, words separated by one space."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    answer = join_pieces(["find", "the", "red", "block"])
    assert answer is not None, "write the body of join_pieces first"
    assert answer == "find the red block", f"expected 'find the red block', yours is {answer!r}"
    answer = join_pieces(["push", "the", "mage", "##nta", "cube", "##s"])
    assert answer == "push the magenta cubes", f"a piece with ## continues the word before it, yours is {answer!r}"
    answer = join_pieces(["[CLS]", "find", "the", "cy", "##an", "one", "[SEP]", "[PAD]", "[PAD]"])
    assert answer == "find the cyan one", f"[CLS], [SEP] and [PAD] should be left out, yours is {answer!r}"
    answer = join_pieces(["[CLS]", "find", "the", "[UNK]", "block", "[SEP]"])
    assert answer == "find the [UNK] block", f"[UNK] stands for a word that was there, so keep it; yours is {answer!r}"
    answer = join_pieces(["[PAD]", "[CLS]", "push", "the", "red", "block", "to", "the", "left", "[SEP]"])
    about = "padding may stand on the left, and words may repeat"
    assert answer == "push the red block to the left", f"{about}; yours is {answer!r}"
    answer = join_pieces(["red", "[", "sep", "]", "cube"])
    assert answer == "red [ sep ] cube", f"brackets that were typed are words of their own, yours is {answer!r}"
    answer = join_pieces(["[CLS]", "red", "[SEP]", "blue", "[SEP]"])
    assert answer == "red blue", f"[SEP] may also stand between two texts: leave it out and go on, yours is {answer!r}"
    answer = join_pieces(["block", "#", "2"])
    assert answer == "block # 2", f"a # that is a word of its own should stay, yours is {answer!r}"
    answer = join_pieces(["red", ",", "then", "blue", "."])
    about = "punctuation marks are words, too, so one space stands before each"
    assert answer == "red , then blue .", f"{about}; yours is {answer!r}"
    pieces = ["[CLS]", "the", "[MASK]", "block", "[SEP]"]
    answer = join_pieces(pieces)
    assert answer == "the [MASK] block", f"only [CLS], [SEP] and [PAD] are left out; yours is {answer!r}"
    assert len(pieces) == 5, "the list that was passed has changed; make a new one"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def join_pieces(pieces):
#     kept = [piece for piece in pieces if piece not in ("[CLS]", "[SEP]", "[PAD]")]
#     return " ".join(kept).replace(" ##", "")
# ```
#
# Once everything is joined, a piece that continues a word has a space and `##` in front. Without these it is part of
# the word again.
#
# </details>

# %% [markdown]
# ## Exercise 3: the maximum over the real tokens (15 minutes)
#
# The mean is one way to make one vector out of many. Another one takes, for each feature, the maximum over the real
# tokens. Write it for states of shape (batch, tokens, features) and a boolean mask of shape (batch, tokens). Padding must
# not have any influence.
#
# <details><summary>Hint</summary>
#
# `states * mask[..., None]` is what the mean does first. Why is that wrong here? Think of a feature that is negative in
# every real token.
#
# </details>


# %% tags=["exercise"]
def max_of_real(states, mask):
    """(batch, tokens, features), (batch, tokens) -> (batch, features)."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    example = torch.tensor([[[1.0, -3.0], [2.0, -1.0], [9.0, 9.0]]])
    answer = max_of_real(example, torch.tensor([[True, True, False]]))
    assert answer is not None, "write the body of max_of_real first"
    answer = torch.as_tensor(answer)
    assert tuple(answer.shape) == (1, 2), f"the shape should be (1, 2), yours is {tuple(answer.shape)}"
    assert example[0, 2].tolist() == [9.0, 9.0], "your function changed its input"
    assert not answer.isnan().any(), (
        "your answer has NaN in it: infinity times 0 is NaN, so do not multiply by the mask"
    )
    assert answer[0].max() < 9, "the padding's 9.0 should not be seen"
    assert answer[0].tolist() == [2.0, -1.0], f"expected [2, -1], yours is {answer[0].tolist()}: is a zero winning?"
    low = torch.as_tensor(max_of_real(example - 100_000, torch.tensor([[True, True, False]])))
    assert low[0].tolist() == [-99_998.0, -100_001.0], (
        "very negative states lose against what you put in place of padding"
    )
    random_states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    random_mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 2 + [True] * 3])
    answer = torch.as_tensor(max_of_real(random_states, random_mask))
    for i, where in enumerate(("no padding", "padding on the right", "padding on the left")):
        wanted = random_states[i][random_mask[i]].amax(dim=0)
        close = torch.allclose(answer[i], wanted, atol=1e-5)
        assert close, f"sentence {i}, with {where}, is wrong: each sentence has its own mask"
    low = torch.tensor([[[-1e30, -3e30], [-2e30, -1e30], [9.0, 9.0]]])  # here the padding is far above the words
    answer = torch.as_tensor(max_of_real(low, torch.tensor([[True, True, False]])))
    close = torch.allclose(answer, torch.tensor([[-1e30, -1e30]]), rtol=1e-3)
    assert close, "very negative states lose against what you put in place of padding; put minus infinity there"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def max_of_real(states, mask):
#     return states.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
# ```
#
# Padding is replaced by a number that has no effect on the operation: 0 for a sum, minus infinity for a maximum. The scores
# of attention are masked with minus infinity, too, and the softmax turns it into a weight of 0.
#
# </details>

# %% [markdown]
# ## Exercise 4: a table without idle rows (30 minutes)
#
# Write `shrink(embedding, used)`: given an `nn.Embedding` and the ids in use (a sorted 1-D tensor), return
#
# - a new `nn.Embedding` with just those rows, in that order, and
# - `new_id`, an int64 tensor with one entry per old id: the row in the small table, or -1 where there is none.
#
# Then `small(new_id[ids])` must equal `embedding(ids)`. For `minimal` this removes more than half of all parameters, and
# BlockFind's sentences get the same vectors as before. The -1 makes a missing id raise an error. With 0 it would silently
# pick the first row.
#
# <details><summary>Hint</summary>
#
# `nn.Embedding.from_pretrained(rows, freeze=False)` makes a table out of a tensor. Fill `new_id` with -1, then write
# 0, 1, 2, ... at the positions `used`.
#
# </details>


# %% tags=["exercise"]
def shrink(embedding, used):
    """The table reduced to the rows in use, and the new id of each old one (-1: none)."""
    # your code here


# %% tags=["check"]
def check_shrunk(embedding, used, ids):
    """The promises of `shrink`, for a copy of one table and the ids in use."""
    before = embedding.weight.detach().clone()
    embedding = nn.Embedding.from_pretrained(before.clone(), freeze=False)
    answer = shrink(embedding, used)
    assert answer is not None, "write the body of shrink first"
    small, new_id = answer
    assert isinstance(small, nn.Embedding), f"the first result should be an nn.Embedding, not {type(small).__name__}"
    size, wanted = tuple(small.weight.shape), (len(used), embedding.embedding_dim)
    assert size == wanted, f"the small table should have shape {wanted}, yours has {size}"
    assert tuple(new_id.shape) == (embedding.num_embeddings,), "new_id needs one entry per old id"
    assert new_id.dtype == torch.int64, f"new_id should be int64, yours is {new_id.dtype}"
    idle = torch.ones(len(new_id), dtype=torch.bool).index_fill(0, used, False)
    assert (new_id[idle] == -1).all(), "an id that is not in use should get -1"
    assert torch.equal(new_id[used], torch.arange(len(used))), "the ids in use should get 0, 1, 2, ... in their order"
    with torch.no_grad():
        assert torch.equal(small(new_id[ids]), before[ids]), "the small table gives other vectors than the large one"
        small.weight.zero_()
    assert torch.equal(embedding.weight, before), "the large table changed; the small one needs a copy of its rows"
    assert small.weight.requires_grad, "the small table should still be trainable (freeze=False)"
    assert small.padding_idx is None, "row 0 is a real token here; with padding_idx it would not learn"


with checking("Exercise 4"):
    check_shrunk(package.token_embedding, used, six_ids)
    check_shrunk(nn.Embedding(7, 3), torch.tensor([1, 4, 5, 6]), torch.tensor([[4, 4, 6], [1, 5, 4]]))
    rows = shrink(nn.Embedding(7, 3), torch.tensor([1, 4, 5, 6]))[0].num_embeddings
    assert rows == 4, f"num_embeddings should say 4, and says {rows}: make a new nn.Embedding"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def shrink(embedding, used):
#     small = nn.Embedding.from_pretrained(embedding.weight.detach()[used].clone(), freeze=False)
#     new_id = torch.full((embedding.num_embeddings,), -1)
#     new_id[used] = torch.arange(len(used))
#     return small, new_id
# ```
#
# An embedding is a lookup, so leaving out rows that are never looked up changes nothing. `nn.Embedding` refuses an index of
# -1. Be careful with plain tensors: there, -1 silently picks the last row.
#
# </details>

# %% [markdown]
# ## Exercise 5: a larger grammar (45 minutes)
#
# BlockFind has one way to ask. Give it more, and tokenize them without the package. Write
#
# - `grammar()`: at least three templates, strings with `{color}` in them. One of them must have a word that WordPiece
#   cuts into pieces, and they must not all have the same number of tokens;
# - `encode_by_hand(sentences)`: ids, int64 (batch, tokens), padded on the right with 0, and the boolean mask, equal to
#   `tinyvla.model.tokenizer.encode`. Use `split_words` and `wordpiece` from above. A word that has no pieces must raise a
#   `ValueError` with that word in its message: in your own training data, an `[UNK]` is a mistake.
#
# <details><summary>Hint</summary>
#
# Try words in `wordpiece(word, vocab)` until one gives more than one piece; the names of tools often do. Use plain
# letters, since `split_words` does not take off accents. In `encode_by_hand`, first make a list of lists, then find the
# longest, then pad. `wordpiece` returns `["[UNK]"]` where it gives up.
#
# </details>


# %% tags=["exercise"]
def grammar():
    """Templates, for example "go to the {color} one"."""
    # your code here


def encode_by_hand(sentences):
    """Ids and mask of the sentences, both (batch, tokens)."""
    # your code here


# %% tags=["check"]
with checking("Exercise 5"):
    templates = grammar()
    assert templates is not None, "write the body of grammar first"
    templates = list(templates)
    assert len(set(templates)) >= 3, f"at least three different templates, yours has {len(set(templates))}"
    assert all("{color}" in template for template in templates), "each template needs {color} in it"
    wanted_colors = (*COLORS, "magenta", "cyan")
    filled = [template.format(color=color) for template in templates for color in wanted_colors]
    filled.append("Push the MAGENTA cubes, please!")  # capitals and punctuation, whatever the templates hold
    words = {word for template in templates for color in COLORS for word in split_words(template.format(color=color))}
    cut = {word for word in words if len(wordpiece(word, vocab)) > 1}
    assert cut, "every word of your templates is an entry of the vocabulary; use one that is cut into pieces"
    expected_ids, expected_mask = encode(filled)
    lengths = {len(encode([template.format(color="red")])[0][0]) for template in templates}
    assert len(lengths) > 1, "all templates have the same number of tokens, so padding is not tested"
    try:
        answer = encode_by_hand(filled)
    except ValueError as error:
        raise AssertionError(f"each word here has pieces, but yours says: {error}; split with split_words") from None
    assert answer is not None, "write the body of encode_by_hand first"
    own_ids, own_mask = (torch.as_tensor(part) for part in answer)
    size, wanted = tuple(own_ids.shape), tuple(expected_ids.shape)
    assert size == wanted, f"ids should have shape {wanted} ([CLS], pieces, [SEP], padded to the longest), not {size}"
    assert (own_ids[:, 0] == vocab["[CLS]"]).all(), "every row should start with [CLS]; padding belongs on the right"
    pairs = zip(filled, own_ids.tolist(), expected_ids.tolist(), strict=True)
    other = [text for text, a, b in pairs if a != b]
    assert not other, f"other ids than the package's for {other[-1]!r}: use split_words and wordpiece"
    assert (own_ids.dtype, own_mask.dtype) == (torch.int64, torch.bool), "ids should be int64 and the mask bool"
    assert torch.equal(own_mask, expected_mask), "the mask should be True on real tokens, False on padding"
    message = ""
    try:
        encode_by_hand(["find the red block", "find the 🟥 block"])
    except ValueError as error:
        message = str(error)
    assert message, "no entry fits '🟥', so it should raise a ValueError"
    assert "🟥" in message, f"the error should name the word 🟥, yours says: {message}"
    try:
        greek = torch.as_tensor(encode_by_hand(["find the β block"])[0])
    except ValueError as error:
        raise AssertionError(f"'β' is an entry, but yours says: {error}; refuse what wordpiece cannot cut") from None
    assert torch.equal(greek, encode(["find the β block"])[0]), "other ids than the package's for 'find the β block'"
    from unittest import mock

    by_package = AssertionError("tokenize without the package, with wordpiece; yours calls the package's tokenizer")
    with (
        mock.patch("tinyvla.model.tokenizer.load_wordpiece", side_effect=by_package),
        mock.patch.object(type(load_tokenizer()), "__call__", side_effect=by_package),
    ):
        encode_by_hand(["find the red block"])

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def grammar():
#     return ["find the {color} block", "open the gripper above the {color} one", "where is the small {color} cube?"]
#
#
# def encode_by_hand(sentences):
#     rows = []
#     for text in sentences:
#         pieces = []
#         for word in split_words(text):
#             cut = wordpiece(word, vocab)
#             if cut == ["[UNK]"]:
#                 raise ValueError(f"no entry of the vocabulary fits {word!r} in {text!r}")
#             pieces += cut
#         rows.append([vocab[piece] for piece in ("[CLS]", *pieces, "[SEP]")])
#     longest = max(len(row) for row in rows)
#     ids = torch.tensor([row + [vocab["[PAD]"]] * (longest - len(row)) for row in rows])
#     lengths = torch.tensor([len(row) for row in rows])
#     return ids, torch.arange(longest) < lengths[:, None]
# ```
#
# The mask is made from the lengths, not by comparing ids with 0. So it stays right with a model that pads with a token of
# another meaning; some models pad with the end-of-sentence token.
#
# </details>

# %% [markdown]
# ## Check yourself
#
# <details><summary>Why does "cubes" become two tokens, while "blocks" stays whole?</summary>
#
# "blocks" is an entry of the vocabulary, "cubes" is not. The longest entry that "cubes" starts with is "cube", and the
# rest is the entry "##s". The vocabulary was made by counting in a large text, so it follows frequency, not grammar.
#
# </details>
#
# <details><summary>A colleague reads the sentence from the state of [CLS], as in BERT. What will the policy do?</summary>
#
# It cannot hear the instruction. The model is causal, so [CLS], the first token, sees only itself, and its state is the
# same in every sentence. The policy can learn what the image alone gives, and no more.
#
# </details>
#
# <details><summary>All training sentences have the same length and the tests pass. Why test padding?</summary>
#
# With one length there is no padding, so these tests cannot show the fault. It appears with the first batch of mixed
# lengths: a longer instruction, a second template, two data sets in one batch. Then the vector of a sentence depends on
# its neighbours, and no error is raised.
#
# </details>
#
# <details><summary>The tokenizer gives ids to "cyan". Why would a policy trained on BlockFind still not find it?</summary>
#
# The rows of "cy" and "##an" were never looked up in training, so they got no gradient and are as random as at the start.
# The tokenizer only turns text into ids. What a row means is learned in training.
#
# </details>
#
# <details><summary>Words at std 0.02 were drowned by the positions. Name two ways out other than std 1.0.</summary>
#
# Make the positions as small as the words, as BERT does, or multiply the words before you add the positions, as the original
# transformer does. (The chapter does not train with these two. Try them in the small world.) The ratio of the two matters: how much of what the first block sees comes from the words.
#
# </details>
#
# ## Summary
#
# - WordPiece cuts a word greedily into the longest entries; ids are DistilBERT's. Every word gets ids, also one that training
#   never showed. At least one of its rows is random then, and you need a record of the training sentences to know.
# - A causal mask lets a token look at itself and at earlier tokens. Later words do not change earlier states, and the state
#   of `[CLS]` is the same in every sentence.
# - The vector of a sentence must not depend on its neighbours in the batch. Test it: alone and beside a longer sentence.
# - The mean of the real tokens depends on the colour from the first step on. The last state depends on it from the second
#   step on, where block outputs start at zero. Both readouts learn.
# - Most parameters of a small model are rows of the embedding, and BlockFind uses eleven of them. Only rows that are looked
#   up get a gradient; weight decay would act on all of them.
# - Words that are far quieter than the positions are heard late: the loss first stays where it would be without words.
#
# ## Sources
#
# - [Devlin et al. 2018, BERT](https://arxiv.org/abs/1810.04805): the vocabulary, `[CLS]` and `[SEP]`
# - [Song et al. 2020, Fast WordPiece Tokenization](https://arxiv.org/abs/2012.15524): greedy longest match, described
#   and made fast
# - [Sanh et al. 2019, DistilBERT](https://arxiv.org/abs/1910.01108): the model whose ids are used
# - [Vaswani et al. 2017, Attention Is All You Need](https://arxiv.org/abs/1706.03762): masks, sine and cosine positions
# - [Loshchilov and Hutter 2017, Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101): AdamW
# - [Kim et al. 2024, OpenVLA](https://arxiv.org/abs/2406.09246) and
#   [Shukor et al. 2025, SmolVLA](https://arxiv.org/abs/2506.01844): policies built on causal language models
#
# ## Next
#
# You have patches and you have a sentence vector. [Chapter 4](04_fusion.ipynb) brings them together.
