"""Episodes as pictures, in every world: film strips for the page, a GIF for the screen.

Notable:
- an episode anew: `film_strip(film(policy, BlockWorld([5])))`;
- one of a recorded rollout, done again: `film(replay(result.states, 7), BlockWorld([result.seeds[7]]))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from tinyvla.act.controller import Act, Controller
from tinyvla.act.rollout import rollout
from tinyvla.act.world import World
from tinyvla.errors import InputError
from tinyvla.files import as_path, check_output, write_atomically
from tinyvla.model.policy import TinyVLA

if TYPE_CHECKING:  # matplotlib takes long to import
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Film:
    """An episode from its beginning to its end."""

    pictures: list[UInt8[np.ndarray, "h w 3"]]
    """Before each step, and one of the end."""
    captions: list[str]
    """One for each picture."""
    instruction: str
    success: bool

    def __len__(self) -> int:
        return len(self.pictures)


def film(
    act: Controller | TinyVLA | Act,
    world: World,
    execute: int = 1,
    ensemble: float | None = None,
    caption: Callable[[Any], str] | None = None,
) -> Film:
    """Returns the film of a world's episode, as a policy acts in it.

    Args:
        act, execute, ensemble: as for `tinyvla.act.rollout.rollout`.
        world: a new one with a single episode.
        caption: says something about the world at each step, such as `pixels_left`; the caption begins with the step.

    Raises:
        InputError: the world has several episodes.
    """
    if len(world) != 1:
        raise InputError(f"the world has {len(world)} episodes; a film shows one")
    pictures, captions = [], []

    def shoot(world: World, actions: np.ndarray | None = None) -> None:
        pictures.append(world.picture(0, None if actions is None else actions[0]))
        captions.append(f"step {world.steps[0]}" + (f": {caption(world)}" if caption else ""))

    result = rollout(act, world, execute, ensemble, on_step=shoot)
    shoot(world)
    return Film(pictures, captions, result.instructions[0], bool(result.success[0]))


def pixels_left(world: Any) -> str:
    """A caption for the block world: how far the camera is from the target's centre."""
    return f"{world.distances[0]:.1f} px"


def first_success(films: Callable[[int], Sequence[Film]], seeds: Sequence[int]) -> Sequence[Film]:
    """Returns the films of the first seed with which every episode succeeds; of the first seed where there is none.

    Args:
        films: makes one or several films from a seed, such as one for each instruction.
        seeds: to try, one after the other.
    """
    first: Sequence[Film] = ()
    for seed in seeds:
        made = films(seed)
        if all(one.success for one in made):
            return made
        first = first or made
    return first


def film_strip(film: Film, columns: int = 6, every: int = 1) -> tuple[Figure, np.ndarray]:
    """Returns a figure of an episode's pictures, in order, and its axes.

    Args:
        columns: pictures in a row, at most.
        every: show one step in so many.
    """
    import matplotlib.pyplot as plt

    shown = range(0, len(film), every)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    size = (1.7 * columns, 1.95 * rows + 0.4)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, step in zip(axes.flat, shown, strict=False):
        ax.imshow(film.pictures[step])
        ax.set_title(film.captions[step], fontsize=8, parse_math=False)
    fig.suptitle(film.instruction, fontsize=10, parse_math=False)
    return fig, axes


def film_rows(films: Sequence[Film], columns: int = 7) -> tuple[Figure, np.ndarray]:
    """Returns a figure of several episodes, a row each, and its axes; the numbers count steps.

    Args:
        columns: pictures in a row, evenly spread over the episode; fewer where it is shorter.
    """
    import matplotlib.pyplot as plt

    size = (1.6 * columns, 1.9 * len(films))
    fig, axes = plt.subplots(len(films), columns, figsize=size, squeeze=False, layout="constrained")
    for row, film in zip(axes, films, strict=True):
        steps = np.unique(np.linspace(0, len(film) - 1, columns).round().astype(int))
        for ax in row[len(steps) :]:
            ax.axis("off")
        for ax, step in zip(row, steps, strict=False):
            ax.imshow(film.pictures[step])
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{step}" if step else film.instruction, fontsize=8, loc="left", parse_math=False)
    return fig, axes


def save_gif(film: Film, path: str | Path, frames_per_second: float = 4.0) -> None:
    """Write an episode as a moving picture that repeats."""
    from PIL import Image

    frames = [Image.fromarray(picture) for picture in film.pictures]
    duration = round(1000 / frames_per_second)
    options = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
    path = as_path(path, "the picture")
    check_output(path, option="the picture")
    write_atomically(path, lambda temporary: frames[0].save(temporary, format="GIF", **options))
