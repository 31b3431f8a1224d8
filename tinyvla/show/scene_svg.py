"""A scene as inline SVG, for widgets and pages: blocks, arrows, and where the policy looks."""

from __future__ import annotations

import html

import numpy as np
from jaxtyping import Float

from tinyvla.data.dataset import (
    BACKGROUND,
    CELL_SIZE,
    GRID_SIZE,
    IMAGE_SIZE,
    NUM_CELLS,
    PALETTE,
    Sample,
    cell_centers,
)
from tinyvla.show.plots import PART_COLORS
from tinyvla.show.remarks import angle_of

TRUE_GREY = "#6b6b6b"


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
            x, y = cell_centers(np.array(cell)) - CELL_SIZE / 2
            shape = f'x="{x:g}" y="{y:g}" width="{CELL_SIZE}" height="{CELL_SIZE}" fill="rgb{rgb}"'
            label.append(f"{names.get(rgb, 'unnamed')} block in {place(cell)}")
            shapes.append(f'<rect data-role="block" {shape}><title>{label[-1]}</title></rect>')
    if attention is not None:
        style = f'fill="{PART_COLORS["fusion"]}" fill-opacity="0.7" stroke="white" stroke-width="0.5"'
        for (x, y), r in zip(cell_centers(np.arange(NUM_CELLS)), circle_radii(attention), strict=True):
            shapes.append(f'<circle data-role="attention" cx="{x:g}" cy="{y:g}" r="{r:.2f}" {style}/>')
        label.append(f"the policy looks most at {place(int(np.argmax(attention)))}")
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


def place(cell: int) -> str:
    """Returns a cell's row and column in words."""
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
