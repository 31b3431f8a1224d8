from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from policies import batch_of

from tinyvla.data.dataset import COLORS, NUM_CELLS, BlockFind
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.show.attention import attention_map, has_attention_map
from tinyvla.show.scene_svg import circle_radii, scene_svg
from tinyvla.show.widgets import (
    Playground,
    PlaygroundState,
    playground,
    playground_figure,
)

SAMPLE = BlockFind(1, 0)[0]  # blue, yellow, purple, orange
EMPTY_CELL = 0


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def state(tiny_policy) -> PlaygroundState:
    return PlaygroundState(tiny_policy, 0)


@pytest.fixture
def box(tiny_policy) -> Playground:
    return playground(tiny_policy)


@pytest.fixture
def pooled(tiny_config):
    """A policy whose fusion has no map of attention."""
    fusion = dataclasses.replace(tiny_config.fusion, kind="pool-add")
    return new_policy(dataclasses.replace(tiny_config, fusion=fusion), 0).eval()


def having(svg: str, role: str) -> list[ElementTree.Element]:
    """Elements of a data-role; parsing also proves that the SVG is well-formed."""
    return [element for element in ElementTree.fromstring(svg).iter() if element.get("data-role") == role]


def end_of(svg: str, role: str) -> np.ndarray:
    (line,) = having(svg, role)
    return np.array([float(line.get("x2")), float(line.get("y2"))])


# The picture


def test_svg_shows_every_block_and_says_what_it_shows():
    svg = scene_svg(SAMPLE, size=200)
    assert len(having(svg, "block")) == len(SAMPLE.colors) == 4
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("width")) == ("img", "200")
    for color in SAMPLE.colors:
        assert f"{color} block in row" in root.get("aria-label")
    assert having(svg, "predicted") == having(svg, "attention") == []


def test_svg_arrows_point_where_the_actions_point():
    predicted = np.array([0.6, -0.8])  # right and up
    svg = scene_svg(SAMPLE, predicted)
    np.testing.assert_allclose(end_of(svg, "predicted") - 32, 25.6 * predicted, atol=0.01)
    np.testing.assert_allclose(end_of(svg, "true") - 32, 25.6 * SAMPLE.action, atol=0.01)
    assert "predicted direction 53 degrees" in svg


def test_svg_draws_no_arrow_for_nothing():
    svg = scene_svg(dataclasses.replace(SAMPLE, action=np.zeros(2, np.float32)), np.zeros(2))
    assert having(svg, "true") == having(svg, "predicted") == []


def test_svg_circles_are_relative_to_the_largest_weight():
    weights = np.full(64, 0.01, dtype=np.float32)
    weights[9] = 0.04
    svg = scene_svg(SAMPLE, attention=weights)
    radii = np.array([float(circle.get("r")) for circle in having(svg, "attention")])
    assert radii.argmax() == 9
    np.testing.assert_allclose(np.delete(radii, 9), 1.8, atol=0.01)  # a quarter of the area
    assert "looks most at row 2, column 2" in svg
    assert np.all(circle_radii(np.zeros(64)) == 0)


def test_svg_escapes_what_was_typed():
    svg = scene_svg(dataclasses.replace(SAMPLE, instruction='"><script>alert(1)</script>'))
    assert "<script" not in svg
    assert 'Instruction: "><script>' in ElementTree.fromstring(svg).get("aria-label")


# Attention


def test_attention_is_the_share_of_each_cell(tiny_policy):
    weights = attention_map(tiny_policy, SAMPLE.image, SAMPLE.instruction)
    assert weights.shape == (NUM_CELLS,)
    assert np.all(weights > 0)
    assert 0.5 < weights.sum() < 1  # the rest is on CLS


def test_attention_is_what_the_fusion_uses(tiny_config):
    """With one head, the map and CLS's share give back the fused feature."""
    fusion = dataclasses.replace(tiny_config.fusion, num_heads=1)
    policy = new_policy(dataclasses.replace(tiny_config, fusion=fusion), 0).eval()
    weights = torch.from_numpy(attention_map(policy, SAMPLE.image, SAMPLE.instruction))
    weights = torch.cat([1 - weights.sum(0, keepdim=True), weights])
    batch = batch_of(torch.from_numpy(SAMPLE.image)[None] / 255, *encode([SAMPLE.instruction]))
    attention = policy.fusion.attention
    fused = attention.output(weights @ attention.value(policy.vision(batch.image)[0]))
    torch.testing.assert_close(fused[None], policy.features(batch))


def test_attention_depends_on_the_sentence(tiny_policy):
    blue, yellow = (attention_map(tiny_policy, SAMPLE.image, f"find the {c} block") for c in ("blue", "yellow"))
    assert not np.allclose(blue, yellow)


def test_no_attention_without_a_map_of_it(pooled):
    assert not has_attention_map(pooled)
    assert attention_map(pooled, SAMPLE.image, SAMPLE.instruction) is None


def test_a_learned_query_is_no_map_of_the_sentence(tiny_config):
    fusion = dataclasses.replace(tiny_config.fusion, kind="vision-only")
    assert not has_attention_map(new_policy(dataclasses.replace(tiny_config, fusion=fusion), 0))


# What the learner builds


def test_a_new_state_is_the_scene_of_the_task(state):
    sample = state.sample()
    np.testing.assert_array_equal(sample.image, SAMPLE.image)
    np.testing.assert_array_equal(sample.action, SAMPLE.action)
    assert (sample.instruction, sample.colors) == (SAMPLE.instruction, SAMPLE.colors)


def test_click_places_moves_and_removes(state):
    state.color = "red"
    state.click(EMPTY_CELL)
    assert state.blocks["red"] == EMPTY_CELL
    state.click(EMPTY_CELL + 1)
    assert state.blocks["red"] == EMPTY_CELL + 1
    assert len(having(scene_svg(state.sample()), "block")) == 5
    state.click(EMPTY_CELL + 1)
    assert "red" not in state.blocks
    assert len(having(scene_svg(state.sample()), "block")) == 4


def test_click_on_another_colour_replaces_it(state):
    cell = state.blocks["yellow"]
    state.color = "red"
    state.click(cell)
    assert state.blocks["red"] == cell
    assert "yellow" not in state.blocks


def test_the_true_arrow_follows_the_block(state):
    state.color, state.instruction = "red", "find the red block"
    state.click(7)  # top right
    np.testing.assert_allclose(state.sample().action, [np.sqrt(0.5), -np.sqrt(0.5)], atol=1e-6)
    state.instruction = "find the red or the blue block"
    assert not state.sample().action.any()


def test_another_instruction_turns_the_arrow(state):
    before = state.answer().predicted
    state.instruction = "find the yellow block"
    assert not np.allclose(before, state.answer().predicted)


def test_warnings(state):
    assert state.answer().warning is None
    state.instruction = "find the red block"
    assert state.answer().warning.startswith("there is no red block in this scene")
    assert state.answer().predicted is not None
    state.policy.language.note_words(encode(["find the red blue green yellow purple orange block"])[0])
    state.instruction = "find the zebra"
    assert "never seen in training: 'zebra'" in state.answer().warning
    assert state.answer().predicted is not None
    state.instruction = ""
    assert "empty" in state.answer().warning
    assert state.answer().predicted is None


def test_an_empty_scene_is_a_scene(state):
    state.blocks = {}
    assert "the scene is empty" in state.answer().warning
    assert having(scene_svg(state.sample()), "block") == []


# The widget


def test_typing_and_suggestions_turn_the_arrow(box):
    before = end_of(box.picture.value, "predicted")
    box.instruction.value = "find the yellow block"
    after = end_of(box.picture.value, "predicted")
    assert not np.allclose(before, after)
    box.suggestions["blue"].click()
    assert box.instruction.value == "find the blue block"
    np.testing.assert_array_equal(end_of(box.picture.value, "predicted"), before)


def test_the_readout_gives_the_action(box):
    answer = box.state.answer()
    assert "dx {:+.2f}, dy {:+.2f}".format(*answer.predicted) in box.readout.value
    assert answer.verdict in box.readout.value


def test_choosing_and_clicking_places_a_block(box):
    assert box.suggestions["red"].layout.display == "none"
    box.colors["red"].click()
    box.cells[EMPTY_CELL].click()
    assert box.cells[EMPTY_CELL].description == "R"
    assert box.cells[EMPTY_CELL].tooltip == "row 1, column 1: red block"
    assert box.colors["red"].description == "✓ red"
    assert box.suggestions["red"].layout.display is None
    box.cells[EMPTY_CELL].click()
    assert box.cells[EMPTY_CELL].description.strip() == ""


def test_attention_is_shown_when_asked_for(box):
    assert having(box.picture.value, "attention") == []
    box.overlay.value = True
    assert len(having(box.picture.value, "attention")) == NUM_CELLS
    assert "CLS token" in box.readout.value
    box.instruction.value = "  "
    assert having(box.picture.value, "attention") == having(box.picture.value, "predicted") == []
    assert "empty" in box.warning.value


def test_a_policy_without_attention_has_no_switch_for_it(pooled, box):
    assert box.overlay in descendants(box)
    without = playground(pooled)
    assert without.overlay not in descendants(without)


def test_new_scene_is_the_next_one(box):
    box.new_scene.click()
    expected = BlockFind(1, 1)[0]
    assert box.instruction.value == expected.instruction
    np.testing.assert_array_equal(box.state.sample().image, expected.image)


def test_every_control_is_labelled(box):
    marks_of_controls = ("on_click", "continuous_update", "indent")
    controls = [w for w in descendants(box) if any(hasattr(w, mark) for mark in marks_of_controls)]
    assert len(controls) == NUM_CELLS + 2 * len(COLORS) + 3
    assert all(control.tooltip for control in controls)


def test_what_was_typed_is_escaped(box):
    box.instruction.value = "<b>zebra</b>"
    assert "<b>zebra" not in box.warning.value


def descendants(widget) -> list:
    return [found for child in getattr(widget, "children", ()) for found in (child, *descendants(child))]


# The static twin


def test_figure_shows_one_scene_under_three_instructions(tiny_policy):
    fig, axes = playground_figure(tiny_policy)
    assert axes.shape == (2, 3)
    assert [ax.get_title() for ax in axes[0]] == [f"find the {color} block" for color in SAMPLE.colors[:3]]
    assert all("off by" in ax.get_xlabel() for ax in axes[0])
    assert [len(ax.patches) for ax in axes[1]] == [NUM_CELLS] * 3
    fig.canvas.draw()


def test_figure_without_attention_has_one_row(pooled):
    _, axes = playground_figure(pooled, 3, ["find the red block", "find the blue block"])
    assert axes.shape == (1, 2)


def test_figure_says_when_there_is_no_such_block(tiny_policy):
    _, axes = playground_figure(tiny_policy, 0, ["find the red block"])
    assert "no red block" in axes[0, 0].get_xlabel()


@pytest.mark.parametrize(("instructions", "message"), [([" "], "empty"), ([], "at least one")])
def test_figure_refuses_what_cannot_be_read(tiny_policy, instructions, message):
    with pytest.raises(InputError, match=message):
        playground_figure(tiny_policy, 0, instructions)
    assert plt.get_fignums() == []


def test_without_ipywidgets_the_import_says_what_to_install():
    script = "import sys; sys.modules['ipywidgets'] = None; import tinyvla.show.widgets"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: tinyvla.show.widgets needs ipywidgets; install it with: pip install" in result.stderr


def test_the_policy_is_left_as_it_was(tiny_policy):
    tiny_policy.train()
    box = playground(tiny_policy)
    box.overlay.value = True
    assert tiny_policy.training
    assert all(p.grad is None for p in tiny_policy.parameters())
    assert torch.is_grad_enabled()
