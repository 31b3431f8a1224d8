"""A conversation with a policy in the terminal.

Notable:
- the scene is drawn with coloured cells where the terminal shows colours, with letters elsewhere;
- a colour that is not in the scene is answered, with a warning: the policy cannot say that it sees no such block;
- so is a sentence with words that training never showed: the policy has random vectors for them.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

from tinyvla.data.dataset import BACKGROUND, CELL_SIZE, GRID_SIZE, PALETTE, BlockFind, Sample
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA, UnseenWordWarning
from tinyvla.show.plots import plot_sample, save_figure
from tinyvla.show.remarks import angle_of, note_on_words, warning_for

ARROWS = "→↗↑↖←↙↓↘"


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


def run_demo(policy: TinyVLA, scene_seed: int, picture: Path) -> None:
    """Read instructions from standard input until an empty line, `quit` or the end."""
    sample = _show_scene(scene_seed)
    while instruction := _ask():
        if instruction in ("quit", "exit"):
            return
        if instruction == "new":
            scene_seed = (scene_seed + 1) % 2**32
            sample = _show_scene(scene_seed)
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnseenWordWarning)  # said below, where the conversation is
                action = policy.predict(sample.image, instruction).numpy()
        except InputError as error:
            print(f"  {error}")
            continue
        for remark in (note_on_words(policy.language.unseen_words(instruction)), warning_for(instruction, sample)):
            if remark:
                print(f"  {remark}")
        _answer(sample, instruction, action, picture)


def _ask() -> str:
    try:
        return input("instruction> ").strip()
    except EOFError:
        return ""
    except UnicodeDecodeError as error:
        raise InputError(f"the instructions are not UTF-8 ({error.reason}); check what standard input is") from None


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
    save_figure(fig, picture)
    plt.close(fig)
    print(f"  wrote {picture}")
