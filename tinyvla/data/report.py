"""A recording looked at before anything is trained on it: what is in it, and what is wrong with it.

Notable:
- each fault names its episodes, so that they can be watched, recorded again or left out;
- the thresholds stand here, each with its reason. They find what is worth a look; a person decides;
- images are looked at on a grid of 8 x 8 means, a few thousand at a time, so a recording may be larger than the memory.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.errors import counted, printable
from tinyvla.fields import checked

GRID = 8
"""Cells along a side of the grid on which images are looked at."""
DARK = 20 / 255
"""Mean brightness below which a picture shows nothing."""
STILL = 0.75 / 255
"""Change of the grid's most changed cell below which two pictures are the same, but for a video's compression."""
FROZEN_SECONDS = 0.5
"""A camera that shows the same for so long while the robot moves, is frozen."""
MOVES = 0.01
"""Change of a number, as a share of its range, that counts as motion."""
JUMP = 0.3
"""Share of its range by which a number leaves its neighbours and comes back: a glitch, and no motion."""
FEW_VALUES = 4
"""A number with no more values than these is a switch, which may jump."""
SHORT, LONG = 1 / 3, 3
"""Lengths, in medians, beyond which an episode is unlike the others."""
LATE = 0.5
"""Share of a frame's time by which a time stamp may be off."""
IDLE = 0.3
"""Share of an episode at its beginning or its end in which nothing moves, beyond which it is a pause to be cut."""


@dataclass(frozen=True)
class Fault:
    """Something that is worth a look."""

    kind: str
    """One of the functions of this module says what it is."""
    what: str
    """In a sentence."""
    episodes: tuple[int, ...]
    """Where; all of them if empty."""


@dataclass(frozen=True)
class RecordingReport:
    """What `tinyvla dataset` says of a recording."""

    num_frames: int
    fps: int
    lengths: Int64[np.ndarray, "e"]
    """Frames of each episode."""
    sentences: dict[str, int]
    """How many episodes have each."""
    actions: dict[str, dict[str, float]]
    """By the number's name: min, max, mean, std."""
    states: dict[str, dict[str, float]]
    cameras: dict[str, dict[str, Any]]
    """By name: height, width, and mean brightness from 0 to 1."""
    faults: list[Fault]

    def to_dict(self) -> dict[str, Any]:
        """One plain object, as `--json` prints it."""
        return {
            "episodes": len(self.lengths),
            "frames": self.num_frames,
            "fps": self.fps,
            "lengths": self.lengths.tolist(),
            "sentences": self.sentences,
            "actions": self.actions,
            "states": self.states,
            "cameras": self.cameras,
            "faults": [{"kind": f.kind, "what": f.what, "episodes": list(f.episodes)} for f in self.faults],
        }

    def text(self) -> str:
        """Several paragraphs for the terminal."""
        minutes = self.num_frames / self.fps / 60
        low, middle, high = np.quantile(self.lengths, [0, 0.5, 1]) / self.fps
        lines = [
            f"{counted(len(self.lengths), 'episode')}, {counted(self.num_frames, 'frame')} at {self.fps} a second: "
            f"{minutes:.1f} minutes",
            f"an episode takes {low:.1f} to {high:.1f} s, half of them at most {middle:.1f} s",
            "",
            *(f"{count:5} x  {text}" for text, count in sorted(self.sentences.items(), key=lambda item: -item[1])),
            "",
            *(
                f"camera {name}: {c['height']} x {c['width']} pixels, mean brightness {c['brightness']:.2f}"
                for name, c in self.cameras.items()
            ),
        ]
        for what, table in (("action", self.actions), ("state", self.states)):
            width = max([12, *(len(name) for name in table)]) + 2
            if table:
                lines += ["", f"{what:{width}}{'min':>12}{'mean':>12}{'max':>12}{'std':>12}"]
            for name, row in table.items():
                lines.append(f"{name:{width}}" + "".join(f"{row[k]:>12.4g}" for k in ("min", "mean", "max", "std")))
        lines += ["", f"{counted(len(self.faults), 'thing')} to look at" if self.faults else "nothing that looks wrong"]
        lines += (f"- {fault.what}" for fault in self.faults)
        return "\n".join(map(printable, lines))  # a stranger's sentences and names are among them


@checked
def inspect(recordings: Demonstrations) -> RecordingReport:
    """Returns what is in a recording, and what is wrong with it."""
    data = recordings
    grids = {name: _grid(images) for name, images in data.images.items()}
    starts = np.flatnonzero(np.diff(data.episodes, prepend=-1))
    lengths = np.diff([*starts, len(data)])
    names = data.action_names or tuple(f"action {i}" for i in range(data.actions.shape[1]))
    states = () if data.states is None else tuple(f"state {i}" for i in range(data.states.shape[1]))
    sentences = Counter(data.instructions[start] for start in starts)
    moving = _moving(data)
    faults = [
        *_lengths(lengths),
        *_times(data),
        *_constant(data, names, "action"),
        *_jumps(data, names),
        *_idle(data, moving),
        *(
            fault
            for name, grid in grids.items()
            for fault in (*_dark(data, name, grid), *_frozen(data, name, grid, moving))
        ),
        *_swapped(data, grids),
        *_sentences(data, sentences),
    ]
    return RecordingReport(
        len(data),
        data.fps,
        lengths,
        dict(sentences),
        _ranges(names, data.actions),
        {} if data.states is None else _ranges(states, data.states),
        {
            name: {"height": images.shape[2], "width": images.shape[3], "brightness": float(grids[name].mean())}
            for name, images in data.images.items()
        },
        faults,
    )


def shown_numbers(numbers: Iterable[int]) -> str:
    """Numbers in words, cut short: "3, 7 and 12", "0, 1, 2 and 9 more"."""
    some = sorted(set(numbers))
    if len(some) > 8:
        return f"{', '.join(map(str, some[:6]))} and {len(some) - 6} more"
    return " and ".join(filter(None, [", ".join(map(str, some[:-1])), str(some[-1])]))


def _fault(kind: str, what: str, episodes: Iterable[Any]) -> list[Fault]:
    """A fault that names its episodes; none where there are none."""
    some = tuple(sorted({int(number) for number in episodes}))
    word = "episode" if len(some) == 1 else "episodes"
    return [Fault(kind, f"{word} {shown_numbers(some)}: {what}", some)] if some else []


def _grid(images: UInt8[np.ndarray, "n 3 h w"]) -> Float[np.ndarray, "n g g"]:
    """Brightness from 0 to 1 as means over cells; images of fewer pixels than cells are taken as they are."""
    height, width = images.shape[2:]
    rows, columns = min(GRID, height), min(GRID, width)
    high, wide = height // rows, width // columns
    parts = []
    for start in range(0, len(images), 1_024):
        gray = images[start : start + 1_024, :, : rows * high, : columns * wide].mean(axis=1, dtype=np.float32)
        parts.append(gray.reshape(len(gray), rows, high, columns, wide).mean(axis=(2, 4)) / 255)
    return np.concatenate(parts)


def _ranges(names: tuple[str, ...], values: Float[np.ndarray, "n a"]) -> dict[str, dict[str, float]]:
    wide = values.astype(np.float64)
    return {
        name: {kind: float(getattr(wide[:, i], kind)()) for kind in ("min", "max", "mean", "std")}
        for i, name in enumerate(names)
    }


def _same_episode(data: Demonstrations) -> Bool[np.ndarray, "n"]:
    """True on frames that have one of their own episode before them."""
    return np.diff(data.episodes, prepend=-1) == 0


def _moving(data: Demonstrations) -> Bool[np.ndarray, "n"]:
    """True on frames at which the robot's state, or its action where no state was recorded, differs from the last."""
    values = (data.actions if data.states is None else data.states).astype(np.float64)
    width = np.quantile(values, 0.99, axis=0) - np.quantile(values, 0.01, axis=0)
    step = np.abs(np.diff(values, axis=0, prepend=values[:1])) > MOVES * np.where(width > 0, width, np.inf)
    return step.any(axis=1) & _same_episode(data)


def _lengths(lengths: Int64[np.ndarray, "e"]) -> list[Fault]:
    """Episodes that are much shorter or longer than the others: broken off, or begun before the task."""
    middle = float(np.median(lengths))
    short, long = np.flatnonzero(lengths < SHORT * middle), np.flatnonzero(lengths > LONG * middle)
    return [
        *_fault("short", f"shorter than a third of the usual {middle:g} frames; broken off?", short),
        *_fault("long", f"more than three times the usual {middle:g} frames; not stopped in time?", long),
    ]


def _times(data: Demonstrations) -> list[Fault]:
    """Time stamps that do not go on at `fps`: frames were lost, and a chunk spans more time than it should."""
    if data.timestamps is None:
        return []
    step = np.diff(data.timestamps, prepend=data.timestamps[:1]) * data.fps
    off = (np.abs(step - 1) > LATE) & _same_episode(data)
    return _fault("times", f"time stamps leave {data.fps} frames a second; frames were lost", data.episodes[off])


def _constant(data: Demonstrations, names: tuple[str, ...], what: str) -> list[Fault]:
    """Numbers that never change, and episodes in which no number does."""
    width = np.ptp(data.actions, axis=0)
    still = [name for name, w in zip(names, width, strict=True) if w == 0]
    faults = [Fault("constant", f"{what}s: {', '.join(still)} never changes; is it connected?", ())] if still else []
    changed = (np.diff(data.actions, axis=0, prepend=data.actions[:1]) != 0).any(axis=1) & _same_episode(data)
    quiet = set(range(int(data.episodes[-1]) + 1)) - set(data.episodes[changed].tolist())
    return faults + (_fault("constant", f"no {what} changes from beginning to end", quiet) if width.any() else [])


def _jumps(data: Demonstrations, names: tuple[str, ...]) -> list[Fault]:
    """A number that leaves its neighbours for one frame and comes back: a glitch of the bus or of an encoder."""
    faults = []
    values = data.actions.astype(np.float64)
    width = np.quantile(values, 0.99, axis=0) - np.quantile(values, 0.01, axis=0)
    before, here, after = values[:-2], values[1:-1], values[2:]
    together = (data.episodes[:-2] == data.episodes[2:])[:, None]
    away, back = here - before, here - after
    spike = (np.minimum(np.abs(away), np.abs(back)) > JUMP * width) & (away * back > 0) & together
    for i, name in enumerate(names):
        if spike[:, i].any() and len(np.unique(values[:, i])) > FEW_VALUES:
            where = data.episodes[1:-1][spike[:, i]]
            faults += _fault("jump", f"the action {name} jumps for one frame and comes back; a glitch?", where)
    return faults


def _idle(data: Demonstrations, moving: Bool[np.ndarray, "n"]) -> list[Fault]:
    """Episodes that begin or end with a long time in which nothing moves: they teach a policy to wait."""
    early, late = [], []
    for episode in range(int(data.episodes[-1]) + 1):
        frames = np.flatnonzero(moving[data.episodes == episode])
        length = int((data.episodes == episode).sum())
        if len(frames):  # one in which nothing moves at all is another fault
            early += [episode] * bool(frames[0] - 1 > IDLE * length)
            late += [episode] * bool(length - 1 - frames[-1] > IDLE * length)
    return [
        *_fault("idle", f"nothing moves in more than the first {IDLE:.0%}; cut the beginning", early),
        *_fault("idle", f"nothing moves in more than the last {IDLE:.0%}; cut the end", late),
    ]


def _dark(data: Demonstrations, camera: str, grid: Float[np.ndarray, "n g g2"]) -> list[Fault]:
    """A camera that shows nothing: covered, unplugged, or without light."""
    dark = grid.mean(axis=(1, 2)) < DARK
    return _fault("dark", f"the camera {camera} is dark", data.episodes[dark])


def _frozen(
    data: Demonstrations, camera: str, grid: Float[np.ndarray, "n g g2"], moving: Bool[np.ndarray, "n"]
) -> list[Fault]:
    """A camera that shows one picture on and on while the robot moves; a dark one is another fault."""
    change = np.abs(np.diff(grid, axis=0, prepend=grid[:1])).max(axis=(1, 2))
    still = (change < STILL) & _same_episode(data) & (grid.mean(axis=(1, 2)) >= DARK)
    least, found, run, moved = max(3, round(FROZEN_SECONDS * data.fps)), set(), 0, 0
    for frame, is_still in enumerate(still):
        run, moved = (run + 1, moved + int(moving[frame])) if is_still else (0, 0)
        if run >= least and moved >= least:
            found.add(int(data.episodes[frame]))
    return _fault("frozen", f"the camera {camera} is frozen while the robot moves", found)


def _swapped(data: Demonstrations, grids: dict[str, Float[np.ndarray, "n g g2"]]) -> list[Fault]:
    """Episodes in which two cameras look like each other's usual picture: their names were exchanged."""
    names, faults = list(grids), []
    count = int(data.episodes[-1]) + 1
    means = {n: np.stack([grids[n][data.episodes == e].mean(axis=0) for e in range(count)]) for n in names}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if means[one].shape != means[other].shape:
                continue
            usual = {name: np.median(means[name], axis=0) for name in (one, other)}
            as_named = sum(np.abs(means[n] - usual[n]).mean(axis=(1, 2)) for n in (one, other))
            crossed = np.abs(means[one] - usual[other]).mean(axis=(1, 2))
            crossed = crossed + np.abs(means[other] - usual[one]).mean(axis=(1, 2))
            where = np.flatnonzero(crossed < 0.5 * as_named)
            faults += _fault("swapped", f"the cameras {one} and {other} seem to be exchanged", where)
    return faults


def _sentences(data: Demonstrations, sentences: Counter[str]) -> list[Fault]:
    """Words that look like another, commoner one misspelt; sentences that differ in their spelling alone."""
    first = np.flatnonzero(np.diff(data.episodes, prepend=-1))
    of_episode = [data.instructions[start] for start in first]
    words = Counter(word for text in of_episode for word in set(_words(text)))
    faults = []
    for word, count in words.items():
        common = [other for other in words if words[other] >= 5 * count and other != word]
        if len(word) > 3 and (like := difflib.get_close_matches(word, common, 1, 0.8)):
            where = [e for e, text in enumerate(of_episode) if word in _words(text)]
            faults += _fault("sentence", f"{word!r} in the sentence looks like {like[0]!r} misspelt", where)
    plain: dict[str, list[str]] = {}
    for text in sentences:
        plain.setdefault(" ".join(_words(text)), []).append(text)
    for texts in plain.values():
        if len(texts) > 1:
            rare = min(texts, key=lambda text: sentences[text])
            where = [e for e, text in enumerate(of_episode) if text == rare]
            faults += _fault("sentence", "the sentence differs from another in capitals or punctuation alone", where)
    return faults


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
