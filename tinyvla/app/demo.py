"""A conversation with a policy in the terminal.

Notable:
- the scene is drawn with coloured cells where the terminal shows colours, with letters elsewhere;
- a colour that is not in the scene is answered, with a warning: the policy cannot say that it sees no such block.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from tinyvla.config import InputError
from tinyvla.data.blockfind import BACKGROUND, CELL_SIZE, COLORS, GRID_SIZE, PALETTE, BlockFind, Sample
from tinyvla.model.policy import TinyVLA
from tinyvla.show.plots import plot_sample

ARROWS = "→↗↑↖←↙↓↘"


def named_colors(instruction: str) -> list[str]:
    """The block colours that an instruction mentions."""
    words = "".join(c if c.isalpha() else " " for c in instruction.lower()).split()
    return [color for color in COLORS if color in words]


def angle_of(dx: float, dy: float) -> float:
    """Direction of an action in degrees, counter-clockwise: 0 is right, 90 is up."""
    return math.degrees(math.atan2(-dy, dx)) % 360


def scene_as_text(sample: Sample, in_color: bool) -> str:
    """The scene as 8 lines of cells, two characters each."""
    cells = sample.image[:, CELL_SIZE // 2 :: CELL_SIZE, CELL_SIZE // 2 :: CELL_SIZE].transpose(1, 2, 0)
    names: dict[tuple[int, ...], str] = {BACKGROUND: "."}
    names |= {rgb: name for name, rgb in PALETTE.items()}
    if in_color:
        lines = ["".join("\x1b[48;2;{};{};{}m  ".format(*rgb) for rgb in row) + "\x1b[0m" for row in cells]
    else:
        lines = [" ".join(names[tuple(int(v) for v in rgb)][0].upper() for rgb in row) for row in cells]
    assert len(lines) == GRID_SIZE
    return "\n".join("  " + line for line in lines)


def warning_for(instruction: str, sample: Sample) -> str | None:
    """What is wrong with asking this of this scene, if anything."""
    named = named_colors(instruction)
    present = ", ".join(sorted(sample.colors))
    if not named:
        return f"warning: the instruction names no block colour; in this scene are {present}"
    absent = [color for color in named if color not in sample.colors]
    if absent:
        return (
            f"warning: there is no {' or '.join(absent)} block in this scene, only {present}; the arrow means nothing"
        )
    return None


def run_demo(policy: TinyVLA, scene_seed: int, picture: Path) -> None:
    """Read instructions from standard input until an empty line, `quit` or the end."""
    sample = _show_scene(scene_seed)
    while instruction := _ask():
        if instruction in ("quit", "exit"):
            return
        if instruction == "new":
            scene_seed += 1
            sample = _show_scene(scene_seed)
            continue
        try:
            action = policy.predict(sample.image, instruction).numpy()
        except InputError as error:
            print(f"  {error}")
            continue
        if warning := warning_for(instruction, sample):
            print(f"  {warning}")
        _answer(sample, instruction, action, picture)


def _ask() -> str:
    try:
        return input("instruction> ").strip()
    except EOFError:
        return ""


def _show_scene(seed: int) -> Sample:
    sample = BlockFind(1, seed)[0]
    print(f"scene {seed}: {', '.join(sorted(sample.colors))}  (`new` draws another, an empty line ends)")
    print(scene_as_text(sample, in_color=sys.stdout.isatty()))
    return sample


def _answer(sample: Sample, instruction: str, action: np.ndarray, picture: Path) -> None:
    import matplotlib.pyplot as plt

    dx, dy = (float(v) for v in action)
    angle = angle_of(dx, dy)
    print(f"  {ARROWS[round(angle / 45) % 8]}  dx {dx:+.3f}  dy {dy:+.3f}  angle {angle:.0f} degrees (0 right, 90 up)")
    fig, _ = plot_sample(Sample(sample.image, instruction, action, sample.colors))
    fig.savefig(picture, dpi=150)
    plt.close(fig)
    print(f"  wrote {picture}")
