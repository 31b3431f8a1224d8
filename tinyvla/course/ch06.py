"""Chapter 6 (evaluation): its held-out conditions, its sealed boxes, and its longer drawings.

Notable:
- a held-out condition is up to 500 scenes with images, sentences and right actions of their own, and with the scenes
  from which its floor is computed;
- the target of a sealed box is chosen from the blocks, not from pixels, so that a diagnosis has a known answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from tinyvla.data.dataset import BACKGROUND, COLORS, PALETTE, BlockFind, cell_centers, directions, draw_distinct, render
from tinyvla.learn.evaluate import vision_only_floor

if TYPE_CHECKING:  # matplotlib takes long to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAINT = np.array(list(PALETTE.values()), dtype=float)  # (6, 3)
NEW_COLORS = {"cyan": (23, 190, 207), "pink": (227, 119, 194), "brown": (140, 86, 75)}
SENTENCES = ("find the {} cube", "FIND THE {} BLOCK", "{}", "go to the {} block", "where is the {} block",
             "look for the {} box")  # fmt: skip
BOXES = ("listens", "turned", "first", "nearest", "average")
"""What `sealed_box` can hold."""


@dataclass(frozen=True)
class Condition:
    """Scenes of one kind that the training split does not have."""

    group: str
    name: str
    images: UInt8[np.ndarray, "n 3 64 64"]
    sentences: list[str]
    actions: Float32[np.ndarray, "n 2"]
    scenes: BlockFind
    """The blocks, from which the floor is computed."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def floor(self) -> float:
        """Expected direction accuracy of an arrow to one of the scene's blocks, chosen at random."""
        present = self.scenes.cells >= 0  # (n, b)
        cosine = (directions(self.scenes.cells) * self.actions[:, None]).sum(axis=2)
        return float((((cosine > 0.8 + 1e-6) & present).sum(axis=1) / present.sum(axis=1)).mean())


def held_out_conditions(base: BlockFind) -> list[Condition]:
    """Returns all conditions of the chapter, made from ordinary scenes."""

    def changed(
        group: str, name: str, images: np.ndarray = base.images, sentences: list[str] | None = None
    ) -> Condition:
        return Condition(group, name, images, sentences or base.instructions, base.actions, base)

    named, other = ([COLORS[c] for c in base.colors[:, slot]] for slot in (0, 1))
    pairs = list(zip(named, other, strict=True))
    light, words = "paint and light", "words"
    noise = np.random.RandomState(0).normal(0, 50, base.images.shape)
    found = [changed("blocks", "ordinary test scenes")]
    found += [_with_blocks(count, len(base)) for count in (1, 2, 5, 6)]
    found += [_off_the_grid(base, pixels) for pixels in (1, 2, 4)]
    found += [changed(light, f"blocks darker, × {x}", _repainted(base, x * PAINT)) for x in (0.7, 0.5)]
    mixes = {mix: _repainted(base, (1 - mix) * PAINT + mix * 255) for mix in (0.3, 0.5)}
    found += [changed(light, f"blocks paler, {mix:.0%} white", images) for mix, images in mixes.items()]
    found += [changed(light, f"whole image darker, × {x}", (x * base.images).astype(np.uint8)) for x in (0.7, 0.5)]
    found += [changed(light, f"background {name}", _with_background(base, level)) for name, level in (("grey", 150), ("black", 0))]  # fmt: skip  # noqa: E501
    found += [changed(light, "noise, 50 levels", np.clip(base.images + noise, 0, 255).astype(np.uint8))]
    found += [
        changed("new colours", f"target {name}", _new_target(base, rgb), [f"find the {name} block"] * len(base))
        for name, rgb in NEW_COLORS.items()
    ]
    for text in SENTENCES:
        name = text.format("…") if " " in text else "… (the colour alone)"
        found.append(changed(words, name, sentences=[text.format(color) for color in named]))
    text = "find the {0} block, not the {1} block"
    found.append(changed(words, text.format("…", "…"), sentences=[text.format(a, b) for a, b in pairs]))
    text = "do not find the {1} block, find the {0} block"
    found.append(changed(words, text.format("…", "…"), sentences=[text.format(a, b) for a, b in pairs]))
    is_purple = base.colors[:, 0] == COLORS.index("purple")
    purple = BlockFind.from_blocks(base.cells[is_purple], base.colors[is_purple])
    violet = ["find the violet block"] * len(purple)
    return [*found, Condition(words, "violet, for purple", purple.images, violet, purple.actions, purple)]


def _with_blocks(count: int, num_samples: int) -> Condition:
    """Scenes with another number of blocks."""
    rng = np.random.RandomState(50 + count)
    cells, colors = (draw_distinct(rng, num_samples, items, count) for items in (64, 6))
    scenes = BlockFind.from_blocks(cells, colors)
    name = f"{count} block{'s' * (count > 1)}"
    return Condition("blocks", name, scenes.images, scenes.instructions, scenes.actions, scenes)


def _off_the_grid(split: BlockFind, pixels: int) -> Condition:
    """Each block moved by up to that many pixels in x and y; targets within 3 pixels of the centre are left out."""
    images = np.empty_like(split.images)
    images[:] = np.array(BACKGROUND, dtype=np.uint8)[:, None, None]
    rows, columns = np.divmod(split.cells, 8)
    moves = np.random.RandomState(0).randint(-pixels, pixels + 1, size=(*split.cells.shape, 2))
    corners = np.clip(8 * np.stack([columns, rows], axis=-1) + moves, 0, 56)  # (n, b, 2)
    for i, slot in zip(*np.nonzero(split.cells[:, ::-1] >= 0), strict=True):
        slot = split.cells.shape[1] - 1 - slot  # the target last, so that nothing covers it
        x, y = corners[i, slot]
        images[i, :, y : y + 8, x : x + 8] = PAINT[split.colors[i, slot]][:, None, None]
    offset = corners[:, 0] + 4 - 32.0
    length = np.linalg.norm(offset, axis=1)
    clear = length > 3
    actions = (offset / np.maximum(length, 1)[:, None]).astype(np.float32)
    kept = BlockFind.from_blocks(split.cells[clear], split.colors[clear])
    name = f"off the grid by up to {pixels} px"
    return Condition("blocks", name, images[clear], kept.instructions, actions[clear], kept)


def _repainted(split: BlockFind, palette: Float[np.ndarray, "6 3"]) -> UInt8[np.ndarray, "n 3 64 64"]:
    """The same scenes in other paints."""
    rows = tuple((int(red), int(green), int(blue)) for red, green, blue in np.round(palette))
    return render(split.cells, split.colors, rows)


def _new_target(split: BlockFind, rgb: tuple[int, int, int]) -> UInt8[np.ndarray, "n 3 64 64"]:
    """The target in a paint that no training image holds."""
    colors = split.colors.copy()
    colors[:, 0] = len(PALETTE)
    return render(split.cells, colors, (*PALETTE.values(), rgb))


def _with_background(split: BlockFind, level: int) -> UInt8[np.ndarray, "n 3 64 64"]:
    """The same scenes on another grey."""
    is_background: Bool[np.ndarray, "n 1 64 64"] = (split.images == BACKGROUND[0]).all(axis=1, keepdims=True)
    return np.where(is_background, level, split.images).astype(np.uint8)


def sealed_box(kind: str, seed: int) -> Callable[[BlockFind], Float32[np.ndarray, "n 2"]]:
    """Returns a policy with a known fault, one of `BOXES`, whose arrows are noisy by up to 4 degrees.

    Args:
        kind: what it does. "turned" turns all its arrows by one angle of 20 to 35 degrees, to either side.
        seed: of the noise and of the angle.
    """
    rng = np.random.RandomState(seed)
    angle = rng.uniform(20, 35) * rng.choice([-1, 1]) if kind == "turned" else 0.0

    def act(split: BlockFind) -> Float32[np.ndarray, "n 2"]:
        present, scene = split.cells >= 0, np.arange(len(split))
        distance = np.linalg.norm(cell_centers(split.cells) - 32, axis=-1) + 1e-3 * split.cells
        slot = {
            "first": np.where(present, split.cells, 99).argmin(axis=1),
            "nearest": np.where(present, distance, 999).argmin(axis=1),
        }.get(kind, np.zeros(len(split), dtype=np.int64))
        arrows = vision_only_floor(split) if kind == "average" else directions(split.cells[scene, slot])
        turns = np.radians(angle + rng.uniform(-4, 4, len(split)))
        x = np.cos(turns) * arrows[:, 0] - np.sin(turns) * arrows[:, 1]
        y = np.sin(turns) * arrows[:, 0] + np.cos(turns) * arrows[:, 1]
        return np.stack([x, y], axis=1).astype(np.float32)

    return act


def draw_instruments() -> tuple[Figure, Axes]:
    """Returns the chapter's map: a policy and its score in the middle, six instruments around it."""
    import matplotlib.pyplot as plt

    from tinyvla.show.plots import PART_COLORS

    fig, ax = plt.subplots(figsize=(9, 4.3), layout="constrained")
    ax.set(xlim=(0, 9), ylim=(0, 4.3))
    ax.axis("off")
    panels = [  # x and y of the middle, colour, title, question
        (1.4, 3.65, "action", "four metrics", "which mistakes\ncan each not see?"),
        (4.5, 3.65, "action", "interval", "how sure is the share,\nafter so many scenes?"),
        (7.6, 3.65, "fusion", "floors", "what would a guess\nhave scored?"),
        (1.4, 0.65, "language", "instruction swap", "does the arrow\nfollow the words?"),
        (4.5, 0.65, "vision", "attention", "where does it look,\nand does that matter?"),
        (7.6, 0.65, "vision", "held-out conditions", "what breaks it?"),
    ]
    for x, y, part, title, question in panels:
        ax.add_patch(plt.Rectangle((x - 1.3, y - 0.57), 2.6, 1.14, fc=PART_COLORS[part], ec="none"))
        ax.text(x, y + 0.3, title, ha="center", va="center", color="white", fontsize=11, weight="bold")
        ax.text(x, y - 0.17, question, ha="center", va="center", color="white", fontsize=10)
        start, end = (x, y - math.copysign(0.57, y - 2)), (4.5 + 0.4 * (x - 4.5), 2.15 + math.copysign(0.42, y - 2))
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.4})
    ax.add_patch(plt.Rectangle((2.9, 1.75), 3.2, 0.8, fc="white", ec="#333333", lw=2))
    ax.text(4.5, 2.15, 'a policy and its score: "100 %"', ha="center", va="center", fontsize=11)
    for start, end, text, at in (
        ((1.5, 2.15), (2.9, 2.15), "image,\nwords", 1.05),
        ((6.1, 2.15), (7.5, 2.15), "arrow", 7.9),
    ):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 2})
        ax.text(at, 2.15, text, ha="center", va="center", fontsize=11)
    return fig, ax


def draw_conditions(
    conditions: list[Condition], shares: dict[str, float], intervals: dict[str, tuple[float, float]]
) -> tuple[Figure, Axes]:
    """Returns a chart of each condition's direction accuracy with its interval and its floor.

    Args:
        conditions: in the order of the rows.
        shares: by the condition's name; the same holds for the intervals.
        intervals: low and high ends.
    """
    import matplotlib.pyplot as plt

    from tinyvla.show.plots import PART_COLORS

    tints = {"blocks": "vision", "paint and light": "fusion", "new colours": "action", "words": "language"}
    fig, ax = plt.subplots(figsize=(9, 7.2), layout="constrained")
    for y, row in enumerate(conditions):
        color = PART_COLORS[tints[row.group]]
        ax.plot(100 * np.array(intervals[row.name]), [y, y], color=color, lw=2.5, alpha=0.5)
        ax.plot(100 * shares[row.name], y, "o", color=color, ms=6)
        ax.plot(100 * row.floor, y, "|", color="black", ms=11, mew=1.6)
        if y and conditions[y - 1].group != row.group:
            ax.axhline(y - 0.5, color="#bbbbbb", lw=0.8)
    ax.axvline(20, color="grey", ls=":", lw=1)
    ax.text(20.5, len(conditions) - 0.35, "chance", color="grey", fontsize=9, va="center")
    ax.set(yticks=range(len(conditions)), yticklabels=[row.name for row in conditions], xlim=(0, 101))
    ax.set(ylim=(len(conditions), -0.7))
    ax.set_xlabel("right direction (%), with its interval; black mark: its floor, a random block")
    return fig, ax
