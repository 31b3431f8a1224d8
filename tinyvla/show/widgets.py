"""The playground: place blocks, type an instruction, see where the policy points and where it looks.

Notable:
- what the learner builds and asks lives in `PlaygroundState`, which knows no widgets and needs no browser;
- the picture is an inline SVG made in Python, so nothing is loaded from a network and any front end shows it;
- `playground_figure` is the static twin: the same scene and answers on a page without a kernel.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyvla import dataset
from tinyvla.config import InputError
from tinyvla.data.blockfind import BACKGROUND, CELL_SIZE, COLORS, GRID_SIZE, IMAGE_SIZE, NUM_CELLS, PALETTE, BlockFind, Sample
from tinyvla.app.demo import angle_of, named_colors, warning_for
from tinyvla.model.policy import TinyVLA
from tinyvla.show.plots import PART_COLORS, angle_between, plot_sample
from tinyvla.model.tokenizer import encode
from tinyvla.model.vision import to_image_batch

try:
    import ipywidgets
except ImportError:
    raise ImportError("tinyvla.show.widgets needs ipywidgets; install it with: pip install 'ipywidgets>=8.1'") from None

TRUE_GREY = "#6b6b6b"
TEXT = '<div style="line-height:1.5">{}</div>'


def has_attention_map(policy: TinyVLA) -> bool:
    """Whether the fusion is a sentence's query to 64 patches and CLS, so that its weights make a picture."""
    asks = callable(getattr(policy.fusion, "query", None))
    attends = hasattr(getattr(policy.fusion, "attention", None), "weights")
    return asks and attends and policy.config.vision.num_tokens == NUM_CELLS + 1


@torch.no_grad()
def attention_map(
    policy: TinyVLA, image: UInt8[np.ndarray, "3 64 64"], instruction: str
) -> Float32[np.ndarray, "64"] | None:
    """The fusion's attention to each cell, row by row, averaged over the heads; None where the fusion has no such map.

    The CLS token is left out, so the weights sum to one less its share.

    Raises:
        InputError: the instruction cannot be read.
    """
    if not has_attention_map(policy):
        return None
    images = to_image_batch(image, policy.config.vision)[0].to(policy.device)
    input_ids, mask = (x.to(policy.device) for x in encode([instruction], policy.config.language.max_length))
    fusion: Any = policy.fusion
    query = fusion.query(policy.language, input_ids, mask)
    weights = fusion.attention.weights(query, context=policy.vision(images))  # (1, heads, 1, 65)
    return weights[0, :, 0, 1:].mean(dim=0).float().cpu().numpy()


def circle_radii(attention: Float[np.ndarray, "64"]) -> Float[np.ndarray, "64"]:
    """Radii in pixels of circles whose areas are proportional to the weights; the largest nearly fills its cell."""
    return 0.45 * CELL_SIZE * np.sqrt(np.asarray(attention, dtype=float) / max(float(np.max(attention)), 1e-12))


def scene_svg(
    sample: Sample,
    predicted: Float[np.ndarray, "2"] | None = None,
    attention: Float[np.ndarray, "64"] | None = None,
    size: int = 320,
) -> str:
    """A scene as inline SVG: blocks, the true arrow (thin, grey), the predicted one, and where the policy looks.

    Args:
        sample: its `action` is the true arrow; none is drawn for (0, 0).
        predicted: the policy's action.
        attention: one weight per cell, row by row, drawn as circles whose areas are relative to the largest.
        size: width and height in CSS pixels; inside, one unit is one of the image's 64 pixels.
    """
    label = [f"Instruction: {sample.instruction}"]
    lines = "".join(f"M{s} 0V{IMAGE_SIZE}M0 {s}H{IMAGE_SIZE}" for s in range(CELL_SIZE, IMAGE_SIZE, CELL_SIZE))
    shapes = [f'<path d="M0 0H{IMAGE_SIZE}V{IMAGE_SIZE}H0Z{lines}" fill="rgb{BACKGROUND}" stroke="#ddd"/>']
    names: dict[tuple[int, ...], str] = {rgb: name for name, rgb in PALETTE.items()}
    middles = sample.image[:, CELL_SIZE // 2 :: CELL_SIZE, CELL_SIZE // 2 :: CELL_SIZE].reshape(3, -1).T
    for cell, rgb in enumerate(tuple(row) for row in middles.tolist()):
        if rgb != BACKGROUND:
            x, y = dataset.cell_centers(np.array(cell)) - CELL_SIZE / 2
            shape = f'x="{x:g}" y="{y:g}" width="{CELL_SIZE}" height="{CELL_SIZE}" fill="rgb{rgb}"'
            label.append(f"{names.get(rgb, 'unnamed')} block in {_place(cell)}")
            shapes.append(f'<rect data-role="block" {shape}><title>{label[-1]}</title></rect>')
    if attention is not None:
        style = f'fill="{PART_COLORS["fusion"]}" fill-opacity="0.7" stroke="white" stroke-width="0.5"'
        for (x, y), r in zip(dataset.cell_centers(np.arange(NUM_CELLS)), circle_radii(attention), strict=True):
            shapes.append(f'<circle data-role="attention" cx="{x:g}" cy="{y:g}" r="{r:.2f}" {style}/>')
        label.append(f"the policy looks most at {_place(int(np.argmax(attention)))}")
    arrows = ("predicted", predicted, PART_COLORS["action"], 1.4), ("true", sample.action, TRUE_GREY, 0.6)
    for role, action, color, width in arrows:
        if action is not None and np.any(action):
            shapes.append(_svg_arrow(role, np.asarray(action, dtype=float), color, width))
            label.append(f"{role} direction {angle_of(*map(float, action)):.0f} degrees")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {IMAGE_SIZE} {IMAGE_SIZE}" width="{size}" '
        f'role="img" aria-label="{html.escape("; ".join(label))}" stroke-width="0.2" '
        f'style="border:1px solid #8888;max-width:100%">{"".join(shapes)}</svg>'
    )


def _place(cell: int) -> str:
    return f"row {cell // GRID_SIZE + 1}, column {cell % GRID_SIZE + 1}"


def _svg_arrow(role: str, action: np.ndarray, color: str, width: float) -> str:
    """A line from the centre with two barbs, on a white halo that sets it off from any block."""
    center, along = IMAGE_SIZE / 2, action / np.linalg.norm(action)
    tip = center + 0.4 * IMAGE_SIZE * action
    barb = min(3 * width, float(np.linalg.norm(tip - center))) * along
    left, right = (tip - barb + side * np.array([-barb[1], barb[0]]) for side in (0.6, -0.6))
    barbs = "M{:.2f} {:.2f}L{:.2f} {:.2f}L{:.2f} {:.2f}".format(*left, *tip, *right)
    line = f'x1="{center}" y1="{center}" x2="{tip[0]:.2f}" y2="{tip[1]:.2f}"'
    arrow = f'<g stroke="{color}" stroke-width="{width}"><line data-role="{role}" {line}/><path d="{barbs}"/></g>'
    ends = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    halo = f'{ends} stroke="white" stroke-width="{1.6 * width:.2f}"'
    return f'<g {halo}><line {line}/><path d="{barbs}"/>{arrow}</g>'


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
            predicted = self.policy.predict(sample.image, self.instruction).numpy()
        except InputError as error:
            return Answer(sample, None, str(error))
        if not self.blocks:
            return Answer(sample, predicted, "the scene is empty; the arrow means nothing")
        warning = warning_for(self.instruction, sample)
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
            button.tooltip = f"{_place(cell)}: {f'{color} block' if color else 'empty'}"
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
        instructions: those of the scene's first three blocks unless told.

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
            raise InputError(answers[-1].warning)
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
