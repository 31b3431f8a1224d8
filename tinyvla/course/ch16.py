"""Chapter 16: policies that learn six words in seconds, scenes for sentences of one's own, and a box to type any into.

Notable:
- a sentence of one's own comes with the colour that it means, so that scenes and labels can be drawn for it;
- the box lives in `SentenceBoxState`, which knows no widgets; `sentence_figure` is its static twin.
"""

from __future__ import annotations

import copy
import html
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from matplotlib.figure import Figure
from torch import Tensor

from tinyvla.config import model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, BlockFind, instruction_for
from tinyvla.errors import InputError
from tinyvla.learn.evaluate import predict_split
from tinyvla.learn.evaluate_sentences import is_right
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, UnseenWordWarning, new_policy
from tinyvla.model.pretrained import pretrained_config
from tinyvla.model.tokenizer import load_wordpiece, split_words
from tinyvla.recipes import RECIPES, TrainConfig
from tinyvla.show.plots import PART_COLORS, draw_arrow
from tinyvla.show.scene_svg import scene_svg
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

Pair = tuple[str, str]
"""A sentence, and the colour that it means."""
NUM_SCENES = 4_000
MENDING = TrainConfig(optimizer="muon", learning_rate=3e-3, warmup_steps=5, decay_fraction=0.75)
STEP = StepOptions(used_rows=True, known_sentences=True)
TEXT = '<div style="line-height:1.6">{}</div>'


class Asked(BlockFind):
    """Scenes for sentences of one's own, which take turns; each scene has a block of the colour that is meant.

    Args:
        pairs: sentences, each with its colour.
        num_samples: scenes.
        seed: of the scenes.

    Raises:
        InputError: there is no sentence, or a colour is none of the task's.
    """

    def __init__(self, pairs: Sequence[Pair], num_samples: int, seed: int) -> None:
        check_pairs(pairs)
        plain = BlockFind(num_samples, seed)
        colors = plain.colors.copy()
        for row in range(num_samples):
            wanted = COLORS.index(pairs[row % len(pairs)][1])
            colors[row][colors[row] == wanted] = colors[row, 0]  # the two blocks exchange their colours
            colors[row, 0] = wanted
        self.sentences = [pairs[row % len(pairs)][0] for row in range(num_samples)]
        self._set_blocks(plain.cells, colors)

    def _instruction(self, index: int, color: str) -> str:
        """The sentence of the scene with that number."""
        return self.sentences[index]


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Refuse what is no list of sentences with the colours that they mean.

    Raises:
        InputError: it is not.
    """
    if not len(pairs):
        raise InputError("there are no sentences; give pairs such as ('take the scarlet cube', 'red')")
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise InputError(
                f"{pair!r} is no pair of a sentence and a colour, such as ('take the scarlet cube', 'red')"
            )
        if pair[1] not in COLORS:
            raise InputError(f"{pair[1]!r} is no colour of the task; choose from {', '.join(COLORS)}")


def six_word_policy(
    language: str | None = None, seed: int = 0, device: str = "cpu", share: float | None = None
) -> TinyVLA:
    """A `nano` policy that has learned "find the {color} block" by the preset's measured recipe.

    Args:
        language: source of a pretrained language tower; without one, the preset's own learns.
        seed: of weights and order.
        device: where to train.
        share: of the learning rate, at which a pretrained tower learns, too; unless given, it stays frozen.

    Returns:
        The policy, ready to act.
    """
    config = pretrained_config(None, language, "nano", frozen=share is None) if language else model_config("nano")
    policy = new_policy(config, seed, device)
    settings = replace(RECIPES["nano"].for_scenes(NUM_SCENES), seed=seed, pretrained_rate=share or 1.0)
    return _trained(policy, BlockFind(NUM_SCENES, 42), settings)


def mended(policy: TinyVLA, pairs: Sequence[Pair], num_scenes: int = 800) -> TinyVLA:
    """A copy of a policy that has gone on to learn from sentences of one's own, and from its old ones as often.

    Args:
        policy: is not changed.
        pairs: sentences and their colours.
        num_scenes: with sentences of one's own; they are seen twice.
    """
    old = [(instruction_for(color), color) for color in COLORS]
    both = [pair for i in range(max(len(pairs), len(old))) for pair in (pairs[i % len(pairs)], old[i % len(old)])]
    return _trained(copy.deepcopy(policy), Asked(both, 2 * num_scenes, 50), replace(MENDING, epochs=2))


def _trained(policy: TinyVLA, scenes: BlockFind, settings: TrainConfig) -> TinyVLA:
    split = TensorSplit.from_blockfind(scenes, policy.language.encode, policy.device)
    first = split.rows(torch.arange(32, device=policy.device))
    fit(policy, split, first, settings, make_step(policy, split, settings, STEP))
    return policy.eval()


def accuracies(policy: TinyVLA, pairs: Sequence[Pair], num_scenes: int = 100, seed: int = 60) -> list[float]:
    """For each sentence, the share of scenes in which the arrow has the right direction (cosine above 0.8)."""
    asked = Asked(pairs, num_scenes * len(pairs), seed)
    split = TensorSplit.from_blockfind(asked, policy.language.encode, policy.device)
    right = is_right(predict_split(policy, split), split.actions.cpu())
    return [right[first :: len(pairs)].double().mean().item() for first in range(len(pairs))]


@torch.no_grad()
def sentence_states(policy: TinyVLA, sentences: Sequence[str]) -> Float32[Tensor, "n d"]:
    """What the language tower makes of each sentence, on the CPU."""
    ids, mask = (tensor.to(policy.device) for tensor in policy.language.encode(sentences))
    return policy.language.sentence(ids, mask).float().cpu()


def nearest_colors(policy: TinyVLA, sentence: str) -> list[tuple[str, float]]:
    """The six colours, by how much "find the {color} block" is like a sentence, the most alike first.

    What all six have in common is taken away before: alike is what differs alike.
    """
    known = sentence_states(policy, [instruction_for(color) for color in COLORS])
    middle = known.mean(dim=0)
    alike = F.cosine_similarity(sentence_states(policy, [sentence]) - middle, known - middle)
    return sorted(zip(COLORS, alike.tolist(), strict=True), key=lambda pair: -pair[1])


def tokens_of(sentence: str) -> list[str]:
    """The pieces that a sentence is cut into."""
    return [load_wordpiece().id_to_token(index) or "" for _, ids in split_words(sentence) for index in ids]


class SentenceBoxState:
    """A scene, a sentence, and what a policy makes of them.

    Args:
        policy: ready to act.
        scene_seed: of a scene of the task.
    """

    def __init__(self, policy: TinyVLA, scene_seed: int = 0) -> None:
        self.policy, self.scene = policy, BlockFind(1, scene_seed)[0]
        self.sentence = self.scene.instruction

    def answer(self) -> Float32[np.ndarray, "2"]:
        """The arrow.

        Raises:
            InputError: the sentence cannot be read.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnseenWordWarning)  # new words are what the box is for
            arrow: np.ndarray = self.policy.predict(self.scene.image, self.sentence).numpy()
        return arrow

    def explained(self) -> str:
        """Tokens and nearest colours, as HTML; where the sentence cannot be read, why."""
        try:
            near = ", ".join(f"{color} {alike:+.2f}" for color, alike in nearest_colors(self.policy, self.sentence)[:3])
        except InputError as error:
            return TEXT.format(html.escape(str(error)))
        tokens = " · ".join(html.escape(token) for token in tokens_of(self.sentence))
        return TEXT.format(f"<b>tokens</b> {tokens}<br><b>nearest of the six words</b> {near}")


def sentence_box(policy: TinyVLA, scene_seed: int = 0) -> Any:
    """A box to type any sentence into: the arrow, the tokens and the nearest of the six known words, at once."""
    import ipywidgets

    state = SentenceBoxState(policy, scene_seed)
    text = ipywidgets.Text(state.sentence, description="Sentence", layout={"width": "460px"})
    picture, explained = ipywidgets.HTML(), ipywidgets.HTML()

    def update(change: Any = None) -> None:
        state.sentence = text.value
        explained.value = state.explained()
        try:
            picture.value = scene_svg(replace(state.scene, action=np.zeros(2, np.float32)), state.answer())
        except InputError:
            picture.value = ""

    text.observe(update, names="value")
    update()
    return ipywidgets.VBox([text, picture, explained])


def sentence_figure(policy: TinyVLA, sentences: Sequence[str], scene_seed: int = 0) -> tuple[Figure, np.ndarray]:
    """The box without a kernel: one scene under several sentences, with tokens and nearest words below each."""
    state = SentenceBoxState(policy, scene_seed)
    fig, axes = plt.subplots(1, len(sentences), figsize=(3 * len(sentences), 3.8), squeeze=False, layout="constrained")
    for ax, state.sentence in zip(axes[0], sentences, strict=True):
        ax.imshow(state.scene.image.transpose(1, 2, 0), interpolation="nearest")
        draw_arrow(ax, state.answer(), PART_COLORS["action"], "predicted")
        near = "\n".join(f"{color} {alike:+.2f}" for color, alike in nearest_colors(policy, state.sentence)[:3])
        ax.set(xticks=[], yticks=[])
        ax.set_title(state.sentence, fontsize=10)
        ax.set_xlabel(f"{' · '.join(tokens_of(state.sentence))}\n{near}", fontsize=8)
    return fig, axes[0]
