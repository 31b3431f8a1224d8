from __future__ import annotations

import jaxtyping
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tinyvla.course import ch16
from tinyvla.course.ch16 import (
    Asked,
    SentenceBoxState,
    accuracies,
    mended,
    nearest_colors,
    sentence_box,
    sentence_figure,
    sentence_states,
    tokens_of,
)
from tinyvla.data.dataset import COLORS, PALETTE, instruction_for
from tinyvla.errors import InputError

PAIRS = [("fetch the scarlet cube", "red"), ("the navy one", "blue"), ("something golden", "yellow")]


def test_each_scene_has_a_block_of_the_colour_that_is_meant():
    asked = Asked(PAIRS, 60, seed=3)
    assert asked.instructions[:4] == [PAIRS[0][0], PAIRS[1][0], PAIRS[2][0], PAIRS[0][0]]
    for row in range(60):
        meant = PAIRS[row % 3][1]
        assert COLORS[asked.colors[row, 0]] == meant
        present = asked.colors[row][asked.colors[row] >= 0]
        assert len(set(present)) == len(present)  # no colour twice
        y, x = divmod(int(asked.cells[row, 0]), 8)
        assert tuple(asked.images[row, :, 8 * y, 8 * x]) == PALETTE[meant]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "no sentences"), (["find the red block"], "no pair"), ([("the teal one", "teal")], "no colour of the task")],
)
def test_what_is_no_list_of_pairs_is_refused(pairs, message):
    jaxtyping.config.update(
        "jaxtyping_disable", True
    )  # as for a learner: no hook looks at types before the function does
    try:
        with pytest.raises(InputError, match=message):
            Asked(pairs, 3, 0)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_accuracies_are_by_sentence(tiny_policy, monkeypatch):
    """A policy that answers for one sentence alone is right about that one."""
    asked = Asked(PAIRS, 24, seed=60)

    def only_the_second(policy, split):
        predicted = -split.actions.cpu()
        predicted[1::3] *= -1
        return predicted

    monkeypatch.setattr(ch16, "predict_split", only_the_second)
    assert accuracies(tiny_policy, PAIRS, num_scenes=8) == [0.0, 1.0, 0.0]
    assert len(asked) == 24


def test_mending_changes_a_copy(tiny_policy):
    before = {name: value.clone() for name, value in tiny_policy.state_dict().items()}
    better = mended(tiny_policy, PAIRS, num_scenes=40)
    assert all(torch.equal(value, before[name]) for name, value in tiny_policy.state_dict().items())
    assert not torch.equal(better.head.output.weight, tiny_policy.head.output.weight)
    assert not better.training
    assert better.language.unseen_words("fetch the scarlet cube") == []
    assert better.language.unseen_words(instruction_for("purple")) == []  # the six old sentences are among them


def test_a_known_sentence_is_nearest_to_itself(tiny_policy):
    for color in COLORS:
        (first, alike), *rest = nearest_colors(tiny_policy, instruction_for(color))
        assert first == color
        assert alike == pytest.approx(1.0, abs=1e-5)
        assert all(other <= alike for _, other in rest)
    assert sentence_states(tiny_policy, ["one", "two words"]).shape[0] == 2


def test_tokens_are_the_pieces():
    assert tokens_of("find the vermilion block") == ["find", "the", "ve", "##rmi", "##lion", "block"]


def test_the_box_answers_and_explains(tiny_policy):
    box = sentence_box(tiny_policy, scene_seed=11)
    text, picture, explained = box.children
    text.value = "grab the crimson <cube>"
    assert "<svg" in picture.value
    assert "crimson" in explained.value
    assert "&lt;" in explained.value  # what is typed is shown, and not interpreted
    text.value = ""
    assert picture.value == ""
    assert "empty" in explained.value


def test_the_box_without_widgets(tiny_policy):
    state = SentenceBoxState(tiny_policy, 11)
    state.sentence = "find the blue block"
    np.testing.assert_allclose(state.answer(), tiny_policy.predict(state.scene.image, state.sentence).numpy())
    assert "nearest of the six words</b> blue +1.00" in state.explained()


def test_its_static_twin(tiny_policy):
    fig, axes = sentence_figure(tiny_policy, ["find the red block", "grab the crimson cube"])
    assert [ax.get_title() for ax in axes] == ["find the red block", "grab the crimson cube"]
    assert "cr" in axes[1].get_xlabel()
    plt.close(fig)


def test_six_words_are_learned(monkeypatch):
    """A few steps: what is trained, and what stays as it is."""
    monkeypatch.setattr(ch16, "NUM_SCENES", 64)
    settings = ch16.RECIPES["nano"].for_scenes(64)
    monkeypatch.setattr(ch16, "RECIPES", {"nano": type("Recipe", (), {"for_scenes": lambda self, n: few(settings)})()})
    policy = ch16.six_word_policy()
    assert policy.language.unseen_words("find the crimson block") == ["crimson"]
    assert not policy.training


def few(settings):
    from dataclasses import replace

    return replace(settings, epochs=1)
