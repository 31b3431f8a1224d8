"""The drawing of Chapter 4 that follows a question from token to token.

Notable:
- one column a token, one row a transformer block; an arrow is a look, from what is looked at to who looks;
- a panel leaves out a token that neither looks nor is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyvla.show.plots import PART_COLORS

COLUMNS = {"learned token": "fusion", "red patch": "vision", "word “red”": "language"}
"""The three tokens that matter, and the part of the policy each belongs to."""


@dataclass(frozen=True)
class Look:
    """One look along attention."""

    asker: int
    """Column of the token that looks."""
    source: int
    """Column of the token that is looked at."""
    block: int
    """The block in which it happens, counted from 1."""
    knows: bool = True
    """Whether the asker knows by then what is wanted; drawn dashed otherwise."""


@dataclass(frozen=True)
class Panel:
    """One fusion: its number of blocks, the token that is read, who looks where, and what that means."""

    title: str
    blocks: int
    read: int
    looks: tuple[Look, ...]
    caption: str


WORD_TO_LEARNED = Look(asker=0, source=2, block=1)
PANELS = (
    Panel(
        "1 block, learned token is read",
        1,
        0,
        (WORD_TO_LEARNED, Look(asker=0, source=1, block=1, knows=False)),
        "It looks at the patches\nbefore it knows the colour.",
    ),
    Panel(
        "2 blocks, learned token is read",
        2,
        0,
        (WORD_TO_LEARNED, Look(asker=0, source=1, block=2)),
        "Hop 1: it finds out that red is asked for.\nHop 2: it looks for the red patch.",
    ),
    Panel(
        "1 block, the words are read",
        1,
        2,
        (Look(asker=2, source=1, block=1),),
        "Hop 1: the word says red already,\nso it looks for the red patch.",
    ),
)


def draw_hops() -> Figure:
    """Returns a figure of three fusions, with the looks that bring the place of the red block to the token read."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 3.7), layout="constrained", facecolor="white", sharey=True)
    for ax, panel in zip(axes, PANELS, strict=True):
        _draw_panel(ax, panel)
    return fig


def _draw_panel(ax: Axes, panel: Panel) -> None:
    """Tokens at the bottom, a row for each block above them, looks as arrows, a ring around the token that is read."""
    present = {column for look in panel.looks for column in (look.asker, look.source)}
    for x, (name, part) in enumerate(COLUMNS.items()):
        if x not in present:
            continue
        ax.text(x, -0.3, name.replace(" ", "\n"), ha="center", va="top", fontsize=9)
        for y in range(panel.blocks + 1):
            ax.plot(x, y, "s", ms=15, color=PART_COLORS[part], zorder=3)
    for y in range(1, panel.blocks + 1):
        ax.text(2.9, y - 0.5, f"block {y}", ha="right", va="center", fontsize=8, color="grey")
    for look in panel.looks:
        style = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.5, "ls": "-" if look.knows else "--"}
        ends = (look.asker, look.block), (look.source, look.block - 1)
        ax.annotate("", *ends, arrowprops={**style, "shrinkA": 10, "shrinkB": 10}, zorder=4)
    ax.plot(panel.read, panel.blocks, "s", ms=23, mfc="none", mec="black", mew=1.6, zorder=2)
    ax.text(1, -1.05, panel.caption, ha="center", va="top", fontsize=9, style="italic")
    ax.set(xlim=(-0.6, 2.9), ylim=(-1.7, 2.4))
    ax.set_title(panel.title, fontsize=10)
    ax.axis("off")
