"""The playground: place blocks, type an instruction, see where the policy points and where it looks.

Notable:
- what the learner builds and asks lives in `PlaygroundState`, which knows no widgets and needs no browser;
- the picture is an inline SVG made in Python, so nothing is loaded from a network and any front end shows it;
- `playground_figure` is the static twin: the same scene and answers on a page without a kernel.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyvla.data import dataset
from tinyvla.data.dataset import (
    BACKGROUND,
    COLORS,
    GRID_SIZE,
    NUM_CELLS,
    PALETTE,
    BlockFind,
    Sample,
)
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA, UnseenWordWarning
from tinyvla.show.attention import attention_map, has_attention_map
from tinyvla.show.plots import PART_COLORS, angle_between, plot_sample
from tinyvla.show.remarks import angle_of, named_colors, note_on_words, warning_for
from tinyvla.show.scene_svg import TRUE_GREY, circle_radii, place, scene_svg

try:
    import ipywidgets
except ImportError:
    raise ImportError("tinyvla.show.widgets needs ipywidgets; install it with: pip install 'ipywidgets>=8.1'") from None

TEXT = '<div style="line-height:1.5">{}</div>'


@dataclass(frozen=True)
class Answer:
    """What the policy makes of a scene and an instruction."""

    sample: Sample
    predicted: Float32[np.ndarray, "2"] | None
    """None when the instruction cannot be read; `warning` says why."""
    warning: str | None

    @property
    def verdict(self) -> str:
        """How far the prediction is from the truth; empty where one of them is missing."""
        if self.predicted is None or not np.any(self.sample.action):
            return ""
        return f"off by {angle_between(self.predicted, self.sample.action):.1f}°"


class PlaygroundState:
    """What the learner has built and asked.

    Attributes:
        blocks: each placed colour's cell, numbered row by row.
        color: the colour that a click places.
        instruction: the sentence, as typed.
    """

    def __init__(self, policy: TinyVLA, scene_seed: int = 0) -> None:
        self.policy = policy
        self.draw_scene(scene_seed)

    def draw_scene(self, seed: int) -> None:
        """Take the task's scene of that seed, with its instruction."""
        self.scene_seed = seed
        split = BlockFind(1, seed)
        self.blocks = {COLORS[c]: int(cell) for c, cell in zip(split.colors[0], split.cells[0], strict=True) if c >= 0}
        self.instruction = split.instructions[0]
        self.color = split[0].colors[0]

    def click(self, cell: int) -> None:
        """Put the chosen colour's block here, taking it from where it is; take it away if it is here already."""
        is_here = self.blocks.pop(self.color, None) == cell
        self.blocks = {color: at for color, at in self.blocks.items() if at != cell}
        if not is_here:
            self.blocks[self.color] = cell

    def sample(self) -> Sample:
        """The scene as the policy sees it; the action is (0, 0) unless exactly one of its blocks is named."""
        cells, colors = np.array([[at, COLORS.index(c)] for c, at in self.blocks.items()], np.int64).reshape(-1, 2).T
        named = named_colors(self.instruction)
        target = named[0] if len(named) == 1 and named[0] in self.blocks else None
        action = dataset.directions(np.array(self.blocks[target])) if target else np.zeros(2, np.float32)
        names = sorted(self.blocks, key=lambda color: color != target)  # the target first
        return Sample(dataset.render(cells[None], colors[None])[0], self.instruction, action, tuple(names))

    def answer(self) -> Answer:
        """Ask the policy."""
        sample = self.sample()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnseenWordWarning)  # the widget says so itself
                predicted = self.policy.predict(sample.image, self.instruction).numpy()
        except InputError as error:
            return Answer(sample, None, str(error))
        if not self.blocks:
            return Answer(sample, predicted, "the scene is empty; the arrow means nothing")
        unseen = note_on_words(self.policy.language.unseen_words(self.instruction))
        warning = unseen or warning_for(self.instruction, sample)
        return Answer(sample, predicted, warning and warning.removeprefix("warning: "))


class Playground(ipywidgets.VBox):
    """The controls and the picture, kept in step with `state`; `playground` makes one."""

    def __init__(self, policy: TinyVLA, scene_seed: int = 0) -> None:
        super().__init__()
        self.state = PlaygroundState(policy, scene_seed)
        self.styles = {  # the green part decides which text can be read
            color: ipywidgets.ButtonStyle(button_color=f"rgb{rgb}", text_color="black" if rgb[1] > 100 else "white")
            for color, rgb in ((None, BACKGROUND), *PALETTE.items())
        }
        square = ipywidgets.Layout(width="34px", height="34px", margin="0", padding="0")
        looks = {"layout": square, "style": self.styles[None]}
        self.cells = [self._button(partial(self.state.click, cell), **looks) for cell in range(NUM_CELLS)]
        chip = ipywidgets.Layout(width="94px", margin="1px")
        choose = partial(setattr, self.state, "color")
        self.colors = {c: self._button(partial(choose, c), layout=chip, style=self.styles[c]) for c in COLORS}
        self.new_scene = self._button(self._draw, "new scene", tooltip="draw the next scene of the task")
        self.instruction = ipywidgets.Text(self.state.instruction, description="Instruction", layout={"width": "440px"})
        self.instruction.tooltip = "what the policy is told, in English"
        ask = partial(setattr, self.instruction, "value")
        texts = {color: dataset.instruction_for(color) for color in COLORS}
        self.suggestions = {color: self._button(partial(ask, text), text) for color, text in texts.items()}
        self.overlay = ipywidgets.Checkbox(description="show attention", indent=False, layout={"width": "auto"})
        self.overlay.tooltip = "circles: how much it looks at each cell"
        for control in (self.instruction, self.overlay):
            control.observe(lambda change: self.update(), names="value")
        self.picture, self.readout, self.warning = (ipywidgets.HTML() for _ in range(3))
        self.children = self._arranged([self.new_scene, *[self.overlay] * has_attention_map(policy)])
        self.update()

    def _button(self, action: Callable[[], None], description: str = "", **options: Any) -> Any:
        options = {"layout": ipywidgets.Layout(width="auto"), "tooltip": description, **options}
        button = ipywidgets.Button(description=description, **options)
        button.on_click(lambda _: action())
        button.on_click(lambda _: self.update())
        return button

    def _draw(self) -> None:
        self.state.draw_scene(self.state.scene_seed + 1)
        self.instruction.value = self.state.instruction

    def _arranged(self, below: list[Any]) -> tuple[Any, ...]:
        row = {"flex_flow": "row wrap"}
        squares = {"grid_template_columns": f"repeat({GRID_SIZE}, 34px)", "grid_gap": "2px", "margin": "8px 0"}
        hint = "Choose a colour and click a cell to put its block there; click it again to take it away."
        chooser = ipywidgets.HBox(list(self.colors.values()), layout=row)
        grid = ipywidgets.GridBox(self.cells, layout=squares)
        controls = [ipywidgets.HTML(TEXT.format(hint)), chooser, grid, ipywidgets.HBox(below)]
        left = ipywidgets.VBox(controls, layout={"width": "322px", "padding": "0 22px 0 0"})
        right = ipywidgets.VBox([self.picture, self.readout])
        top = (self.instruction, ipywidgets.HBox(list(self.suggestions.values()), layout=row), self.warning)
        return (*top, ipywidgets.HBox([left, right], layout=row))

    def update(self) -> None:
        """Ask the policy and show all there is to show."""
        self.state.instruction = self.instruction.value
        answer = self.state.answer()
        color_at = {cell: color for color, cell in self.state.blocks.items()}
        for cell, button in enumerate(self.cells):
            color = color_at.get(cell)
            button.style = self.styles[color]
            button.description = color[0].upper() if color else "\u00a0"  # the front end leaves an old text when empty
            button.tooltip = f"{place(cell)}: {f'{color} block' if color else 'empty'}"
        for color, button in self.colors.items():
            chosen = color == self.state.color
            button.description = f"✓ {color}" if chosen else color
            button.tooltip = f"{color} is chosen" if chosen else f"choose {color}"
            self.suggestions[color].layout.display = None if color in self.state.blocks else "none"
        attention = None
        if self.overlay.value and answer.predicted is not None:
            attention = attention_map(self.state.policy, answer.sample.image, self.state.instruction)
        self.picture.value = scene_svg(answer.sample, answer.predicted, attention)
        self.readout.value = _readout_html(answer, attention)
        self.warning.value = TEXT.format(f"⚠ {html.escape(answer.warning)}" if answer.warning else "&nbsp;")


def _readout_html(answer: Answer, attention: np.ndarray | None) -> str:
    if answer.predicted is None:
        return TEXT.format("no arrow")
    dx, dy = (float(v) for v in answer.predicted)
    keys = [(PART_COLORS["action"], "━", f"predicted: dx {dx:+.2f}, dy {dy:+.2f}, angle {angle_of(dx, dy):.0f}°")]
    if answer.verdict:
        angle = angle_of(*map(float, answer.sample.action))
        keys.append((TRUE_GREY, "━", f"true: angle {angle:.0f}°, {answer.verdict}"))
    if attention is not None:
        keys.append((PART_COLORS["fusion"], "●", f"attention; {abs(1 - attention.sum()):.0%} is on the CLS token"))
    return TEXT.format("<br>".join(f'<b style="color:{color}">{mark}</b> {text}' for color, mark, text in keys))


def playground(policy: TinyVLA, scene_seed: int = 0) -> Playground:
    """A scene to change, an instruction to type, and the policy's answer at once.

    "show attention" is there where the fusion has a map of it; "new scene" goes on from `scene_seed`.
    """
    return Playground(policy, scene_seed)


def playground_figure(
    policy: TinyVLA, scene_seed: int = 0, instructions: Sequence[str] | None = None
) -> tuple[Figure, np.ndarray]:
    """The playground without a kernel: one scene under several instructions, arrows above, attention below.

    Args:
        instructions: those of the scene's first three blocks by default.

    Returns:
        The figure and its axes, `(2, n)`; `(1, n)` where the fusion has no map of attention.

    Raises:
        InputError: there are no instructions, or one cannot be read.
    """
    state, answers = PlaygroundState(policy, scene_seed), []
    first_three = [dataset.instruction_for(color) for color in list(state.blocks)[:3]]
    for state.instruction in first_three if instructions is None else instructions:
        answers.append(state.answer())
        if answers[-1].predicted is None:
            raise InputError(str(answers[-1].warning))
    if not answers:
        raise InputError("there are no instructions; give at least one sentence")
    shape = 1 + has_attention_map(policy), len(answers)
    size = (2.6 * shape[1], 2.75 * shape[0] + 0.4)
    fig, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for answer, column in zip(answers, axes.T, strict=True):
        plot_sample(answer.sample, answer.predicted, column[0])
        column[0].set_xlabel(answer.verdict or answer.warning or "", fontsize=9, wrap=True)
        if (attention := attention_map(policy, answer.sample.image, answer.sample.instruction)) is not None:
            _plot_attention(answer.sample, attention, column[1])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return fig, axes


def _plot_attention(sample: Sample, attention: np.ndarray, ax: Axes) -> None:
    ax.imshow(sample.image.transpose(1, 2, 0), interpolation="nearest")
    centers = dataset.cell_centers(np.arange(NUM_CELLS)) - 0.5  # imshow puts the middle of the first pixel at 0
    for center, radius in zip(centers, circle_radii(attention), strict=True):
        ax.add_patch(plt.Circle(tuple(center), radius, fc=(PART_COLORS["fusion"], 0.7), ec="white"))
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("where it looks", fontsize=9)
