"""Chapter 8 (closed loop): a world with a current, its moving picture, and its longer drawings.

    python -m tinyvla.course.ch08 film.gif

writes the moving picture of the chapter: one episode, as the policy of the still scenes acts in it and as a clone of
the expert does.

Notable:
- a current belongs to the world and not to the action, so it carries a camera whatever the policy does.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from tinyvla.act.blocks.world import WORLD_SIZE, BlockWorld, WorldConfig
from tinyvla.act.controller import Act, Controller
from tinyvla.act.dagger import demonstrations
from tinyvla.act.result import Result
from tinyvla.act.rollout import rollout
from tinyvla.act.world import checked_actions, episode_seeds
from tinyvla.config import model_config
from tinyvla.course.zoo import trained_policy
from tinyvla.data.dataset import COLORS, PALETTE
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.show.plots import PART_COLORS

MAGENTA, DARK = (194, 24, 91), (34, 34, 34)
SIDE, EDGE, LINE = 288, 12, 22  # of a moving picture: pixels of a panel, of a margin, of a line of text
CORNER, SCALE = 24, SIDE / 80  # the map shows the middle 80 pixels of the world


class CurrentWorld(BlockWorld):
    """A block world in which a current carries every camera to the right at each step, whatever the policy does.

    The camera moves by the action and by the current, and then it is seen whether it has stopped on the target: with
    an action shorter than `stop_norm`, as in the still world.

    Args:
        seeds: one per episode.
        pixels: what the current adds to x in each step.
        config: the rules.
    """

    def __init__(self, seeds: Sequence[int], pixels: float = 0.8, config: WorldConfig | None = None) -> None:
        super().__init__(seeds, config)
        self.pixels = pixels

    def step(self, actions: Float[np.ndarray, "..."]) -> None:
        """Take one step, as in the still world, and let the current carry the cameras."""
        index = self.running
        checked_actions(actions, len(index), self.action_dim)  # before anything has moved
        places, lengths = self.camera[index], self.path_lengths[index]
        self.camera[index, 0] += self.pixels
        super().step(actions)  # keeps the view inside the world
        self.path_lengths[index] = lengths + np.linalg.norm(self.camera[index] - places, axis=1)


def clone_of_expert(seed: int = 1, device: str = "cpu") -> TinyVLA:
    """Returns `nano`, trained on the states of 300 episodes of the expert, as in the chapter."""
    policy = new_policy(model_config("nano"), seed, device)
    split, val = (demonstrations(BlockWorld(episode_seeds(n, s)), policy) for n, s in ((300, 42), (100, 43)))
    fit(policy, split, val, replace(TrainConfig(), epochs=8, learning_rate=1e-3, seed=seed))
    return policy.eval()


@dataclass(frozen=True)
class Take:
    """One episode of the block world, as it was seen from above and from the camera."""

    views: list[UInt8[np.ndarray, "h w 3"]]
    """Before each step, and one of the end."""
    places: list[Float[np.ndarray, "2"]]
    """Where the camera was then."""
    distances: list[float]
    """Pixels to the target's centre."""
    centers: Float[np.ndarray, "b 2"]
    colors: Int64[np.ndarray, "b"]
    instruction: str
    success: bool

    def caption(self, step: int) -> str:
        """Returns what stands below a picture."""
        if step < len(self.views) - 1:
            return f"step {step}: {self.distances[step]:.1f} px to go"
        steps = len(self.views) - 1
        return f"stopped on it after {steps} steps" if self.success else f"time is up after {steps} steps"


def shoot(act: Controller | TinyVLA | Act, world: BlockWorld) -> Take:
    """Returns the take of a world's only episode, as a policy acts in it."""
    views, places, distances = [], [], []

    def look(world: Any, actions: np.ndarray | None = None) -> None:
        views.append(world.picture(0, None if actions is None else actions[0]))
        places.append(world.camera[0].copy())
        distances.append(float(world.distances[0]))

    result = rollout(act, world, on_step=look)
    look(world)
    centers, colors = world.centers[0], world.colors[0]
    return Take(views, places, distances, centers, colors, result.instructions[0], bool(result.success[0]))


def side_by_side(takes: Mapping[str, Take], milliseconds: int = 250) -> bytes:
    """Returns a GIF of several takes side by side: above what the camera sees, below the map with its way.

    A take that is over waits for the longest one; then the end is held for three seconds.

    Args:
        takes: by the name that stands above each.
        milliseconds: of a step.
    """
    num_frames = max(len(take.views) for take in takes.values())
    width = EDGE + len(takes) * (SIDE + EDGE)
    frames = []
    for number in range(num_frames):
        frame = Image.new("RGB", (width, 4 * EDGE + 2 * SIDE + 2 * LINE), "white")
        for column, (name, take) in enumerate(takes.items()):
            _draw_take(frame, EDGE + column * (SIDE + EDGE), name, take, min(number, len(take.views) - 1))
        frames.append(frame.quantize(48, dither=Image.Dither.NONE))
    file = io.BytesIO()
    durations = [milliseconds] * (num_frames - 1) + [3_000]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def _draw_take(frame: Image.Image, left: int, name: str, take: Take, step: int) -> None:
    """One column of a frame."""
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(15)
    title = f"{name}: {take.instruction}"
    size = 15 * min(1.0, (SIDE + EDGE) / font.getlength(title))
    draw.text((left, EDGE), title, DARK, ImageFont.load_default(size))
    top = 2 * EDGE + LINE
    frame.paste(
        Image.fromarray(take.views[step]).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top - EDGE // 2)
    )
    frame.paste(_map(take, step), (left, top + SIDE + EDGE // 2))
    color = DARK if step < len(take.views) - 1 else (46, 125, 50) if take.success else MAGENTA
    draw.text((left, top + 2 * SIDE + EDGE), take.caption(step), color, font)
    for y in (top - EDGE // 2, top + SIDE + EDGE // 2):
        draw.rectangle((left, y, left + SIDE - 1, y + SIDE - 1), outline=(136, 136, 136))


def _map(take: Take, step: int) -> Image.Image:
    """The middle of the world from above, with the camera's way so far; the target has a ring."""
    picture = Image.new("RGB", (SIDE, SIDE), (245, 245, 245))
    draw = ImageDraw.Draw(picture)

    def at(place: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
        return (np.asarray(place) - CORNER) * SCALE

    for center, color in zip(take.centers, take.colors, strict=True):
        if color >= 0:
            draw.rectangle((*at(center - 4), *(at(center + 4) - 1)), fill=PALETTE[COLORS[color]])
    draw.ellipse((*at(take.centers[0] - 7), *at(take.centers[0] + 7)), outline=DARK, width=2)
    way = [tuple(at(place)) for place in take.places[: step + 1]]
    if len(way) > 1:
        draw.line(way, fill=MAGENTA, width=3)
    for x, y in way:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=MAGENTA)
    x, y = way[-1]
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline=DARK, width=2)
    return picture


def draw_loops() -> tuple[Figure, np.ndarray]:
    """Returns the chapter's map: an open loop, whose answers are compared, and a closed one, whose answers act."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.7), layout="constrained")
    titles = ("open loop: answer, compare, next picture", "closed loop: answer, move, look again")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=(0, 6), ylim=(0, 2.9), title=title)
        ax.axis("off")
        for x, y, text, part in ((0.95, 2.2, "words", "language"), (0.95, 1.2, "image", "vision"),
                                 (3.1, 1.7, "policy", "fusion"), (5.1, 1.7, "action", "action")):  # fmt: skip
            _box(ax, x, y, text, PART_COLORS[part])
        for start, end in (((1.8, 2.2), (2.25, 1.85)), ((1.8, 1.2), (2.25, 1.55)), ((3.95, 1.7), (4.25, 1.7))):
            _arrow(ax, start, end)
    _box(axes[0], 5.1, 0.5, "label", "#444444")
    _arrow(axes[0], (5.1, 1.4), (5.1, 0.8), arrowstyle="<|-|>")
    axes[0].text(4.95, 1.1, "compare", ha="right", va="center", fontsize=9)
    _box(axes[1], 3.1, 0.4, "the camera moves", "#444444", width=2.4)
    axes[1].plot([5.1, 5.1], [1.4, 0.4], color="#444444", lw=1.6)
    _arrow(axes[1], (5.1, 0.4), (4.3, 0.4))
    axes[1].plot([1.9, 0.95], [0.4, 0.4], color="#444444", lw=1.6)
    _arrow(axes[1], (0.95, 0.4), (0.95, 0.9))
    return fig, axes


def _box(ax: Axes, x: float, y: float, text: str, color: str, width: float = 1.7) -> None:
    ax.add_patch(plt.Rectangle((x - width / 2, y - 0.3), width, 0.6, fc=color, ec="none"))
    ax.text(x, y, text, ha="center", va="center", color="white", fontsize=10)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.6, **style})


def draw_world(ax: Axes, centers: Float[np.ndarray, "b 2"], colors: Int64[np.ndarray, "b"]) -> None:
    """Draws a map of the world into axes, the named block with a ring."""
    ax.set(xlim=(0, WORLD_SIZE), ylim=(WORLD_SIZE, 0), aspect="equal", xticks=[], yticks=[])
    for center, color in zip(centers, colors, strict=True):
        if color >= 0:
            ax.add_patch(plt.Rectangle(center - 4, 8, 8, color=np.array(PALETTE[COLORS[color]]) / 255))
    ax.add_patch(plt.Circle(centers[0], 7.5, fill=False, color="#222222", lw=1.2))


def draw_paths(result: Result, episodes: Sequence[int]) -> tuple[Figure, np.ndarray]:
    """Returns maps of some recorded episodes with the camera's path, from the cross on."""
    fig, axes = plt.subplots(1, len(episodes), figsize=(9, 2.6), layout="constrained")
    assert result.states is not None
    for ax, episode in zip(axes, episodes, strict=True):
        world, places = BlockWorld([result.seeds[episode]]), []
        for action in result.states.actions[result.states.of_episode(episode)]:
            places.append(world.camera[0].copy())
            world.step(action[None])
        draw_world(ax, world.centers[0], world.colors[0])
        ax.plot(*np.transpose(places), "-o", color=PART_COLORS["action"], ms=2.5, lw=1)
        ax.plot(*places[0], "x", color="#222222", ms=8)
        ax.set(xlim=(24, 104), ylim=(104, 24))
        end = "success" if result.success[episode] else "failed"
        ax.set_title(f"{result.instructions[episode]}:\n{end} after {result.steps[episode]} steps", fontsize=9)
    return fig, axes


def draw_checkpoints(kinds: dict[str, list[dict[str, Any]]]) -> tuple[Figure, np.ndarray]:
    """Returns success against two offline errors, a dot for each checkpoint, a colour for each kind of training."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    colors = {"cloning": "vision", "dagger": "fusion", "stills": "language"}
    errors = {"own_error": "held-out data of its own kind", "expert_error": "the expert's held-out states"}
    for ax, (key, label) in zip(axes, errors.items(), strict=True):
        for kind, rows in kinds.items():
            x, y = ([row[name] for row in rows] for name in (key, "success"))
            name, color = {"dagger": "DAgger"}.get(kind, kind), PART_COLORS[colors[kind]]
            ax.plot(x, 100 * np.array(y), "o", ms=5, alpha=0.7, mec="none", color=color, label=name)
        ax.set(xscale="log", xlabel=f"error on {label}\n(mean squared error)", ylim=(-3, 103))
        ax.grid(color="#eeeeee")
    axes[0].set_ylabel("success (%)")
    axes[1].legend(frameon=False, loc="lower left")
    return fig, axes


def draw_chunks(results: dict[str, Any]) -> tuple[Figure, np.ndarray]:
    """Returns success by chunk length and execution horizon: median, and below it the worst and the best seed."""
    lengths = results["horizons"]
    worlds = {"exact": "still world", "drifting": f"current of {results['drift']} px a step"}
    fig, axes = plt.subplots(len(results["heads"]), 2, figsize=(9, 7.4), sharex=True, sharey=True, layout="constrained")
    for line, kind in zip(axes, results["heads"], strict=True):
        for ax, (place, name) in zip(line, worlds.items(), strict=True):
            for run in (r for r in results["runs"] if (r["head"], r["world"]) == (kind, place)):
                low, middle, high = (100 * run["success"][key] for key in ("min", "median", "max"))
                x, y = lengths.index(run["execute"]), lengths.index(run["horizon"])
                ax.add_patch(
                    plt.Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, color=plt.get_cmap("viridis")(middle / 100))
                )
                color = "black" if middle > 55 else "white"
                ax.text(x, y - 0.1, f"{middle:.0f}", ha="center", va="center", color=color, fontsize=12)
                ax.text(x, y + 0.25, f"{low:.0f} to {high:.0f}", ha="center", va="center", color=color, fontsize=8)
            ax.set(title=f"{kind}, {name}", xlim=(-0.5, len(lengths) - 0.5), ylim=(len(lengths) - 0.5, -0.5))
            ax.set(xticks=range(len(lengths)), xticklabels=lengths, yticks=range(len(lengths)), yticklabels=lengths)
            ax.set_aspect("equal")
    for ax in axes[-1]:
        ax.set_xlabel("actions executed before looking again")
    for ax in axes[:, 0]:
        ax.set_ylabel("chunk length")
    return fig, axes


def draw_policies(policies: dict[str, Any], names: dict[str, str]) -> tuple[Figure, Axes]:
    """Returns success with its interval, a dot for each seed, a row for each policy."""
    fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    for y, name in enumerate(names):
        is_learned = "runs" in policies[name]
        runs = [run["rounds"][-1] for run in policies[name]["runs"]] if is_learned else [policies[name]]
        color = PART_COLORS["action"] if is_learned else "#555555"
        for i, run in enumerate(runs):
            height = y + 0.16 * (i - (len(runs) - 1) / 2)
            ax.plot(100 * np.array(run["success_interval"]), [height] * 2, color=color, lw=2, alpha=0.45)
            ax.plot(100 * run["success"], height, "o", color=color, ms=4)
    ax.set(yticks=range(len(names)), yticklabels=list(names.values()), xlim=(-2, 102))
    ax.set_xlabel("success (%), 95 % interval; a dot per seed")
    ax.invert_yaxis()
    ax.grid(axis="x", color="#eeeeee")
    return fig, ax


def main(path: str = "closed_loop.gif") -> None:
    """Write the moving picture of the first test episode in which the two policies end differently."""
    acts = {"trained on stills": trained_policy(), "cloned from 300 episodes": clone_of_expert()}
    seeds = episode_seeds(200, seed=44)
    ends = [rollout(act, BlockWorld(seeds)).success for act in acts.values()]
    seed = seeds[int(np.flatnonzero(~ends[0] & ends[1])[0])]
    takes = {name: shoot(act, BlockWorld([seed])) for name, act in acts.items()}
    Path(path).write_bytes(side_by_side(takes))


if __name__ == "__main__":
    main(*sys.argv[1:2])
