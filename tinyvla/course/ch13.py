"""Chapter 13's moving picture: one policy, one scene, two sentences, side by side.

    python -m tinyvla.course.ch13 book/images/arm_motion.gif

Notable:
- the policy is the one of the chapter's live part, trained here: all its demonstrations had one sentence, so it does
  what that sentence asks for, whatever it is told. The left film is a success, the right one a failure;
- the pictures are for people, from a camera beside the table; the policy sees its two usual views.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from tinyvla.act.arm.expert import BLOCK_SIZE, disturbance
from tinyvla.act.arm.kinematics import load_mujoco, load_renderer
from tinyvla.act.arm.policy import arm_config
from tinyvla.act.arm.world import ArmConfig, ArmWorld
from tinyvla.act.controller import Act
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import World, episode_seeds
from tinyvla.data.batch import TensorSplit
from tinyvla.errors import InputError
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig

SENTENCE = "pick up the red block"
STEPS = 28
"""Control steps of a film."""
HEIGHT, WIDTH, CAPTION = 320, 380, 34
"""Of one film's picture and of the strip of words above it, in pixels."""
LOOK_AT, DISTANCE, AZIMUTH, ELEVATION = (0.29, 0.0, 0.23), 1.05, 128.0, -34.0
"""The camera for people: where it looks, in metres, from how far, and from which side, in degrees."""
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 150, 2500
NUM_COLORS = 96
Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class PickFilm:
    """An episode of a pick, for people."""

    pictures: list[Picture]
    """Before each step, and one of the end."""
    sentence: str
    success: bool
    lifted: list[int]
    """The blocks that are in the air at the end."""


def with_sentence(seeds: Iterable[int], sentence: str = SENTENCE) -> list[int]:
    """Returns the seeds of the scenes in which a sentence names the block of a pick."""
    seeds = list(seeds)
    return [seed for seed, text in zip(seeds, ArmWorld(seeds, "pick").instructions, strict=True) if text == sentence]


def demonstrated(policy: TinyVLA, num_scenes: int, seed: int) -> TensorSplit:
    """Returns states of disturbed demonstrations that all have the same sentence, for a policy to learn from."""
    seeds = with_sentence(episode_seeds(num_scenes, seed=seed))
    shown = rollout(expert, ArmWorld(seeds, "pick"), disturb=disturbance(0.4), record=len(seeds), horizon=8).states
    assert shown is not None  # some were recorded
    return shown.tensors(policy)


def taught_one_sentence(device: str, num_scenes: int = 1_600, epochs: float = 4) -> TinyVLA:
    """Returns a policy trained as in the chapter's live part: it has heard one sentence only."""
    policy = new_policy(arm_config("nano", horizon=8), seed=0, device=device)
    train, val = (demonstrated(policy, count, seed) for count, seed in ((num_scenes, 42), (100, 43)))
    policy.fit_statistics(train.actions)
    fit(policy, train, val, TrainConfig(epochs=epochs, batch_size=32, optimizer="muon", learning_rate=6e-3))
    return policy.eval()


def photograph(world: ArmWorld) -> Picture:
    """Returns the first episode's present as people would see it from beside the table."""
    mujoco = load_mujoco()
    world.camera_views(np.array([0]))  # paints the blocks in their colours
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance = LOOK_AT, DISTANCE
    camera.azimuth, camera.elevation = AZIMUTH, ELEVATION
    renderer: Any = load_renderer(HEIGHT, WIDTH)
    renderer.update_scene(world.scenes[0]._data, camera)
    return renderer.render().copy()


def film_beside(act: TinyVLA | Act, seed: int, named: int, execute: int = 4) -> PickFilm:
    """Returns the film of a pick, as it looks from beside the table.

    Args:
        act, execute: as for `tinyvla.act.rollout.rollout`.
        seed: of the scene.
        named: which block the sentence names.
    """
    pictures: list[Picture] = []

    def shoot(world: World, actions: np.ndarray) -> None:
        assert isinstance(world, ArmWorld)
        pictures.append(photograph(world))

    world = ArmWorld([seed], "pick", ArmConfig(max_steps=STEPS), named)
    result = rollout(act, world, execute, on_step=shoot)
    up = world.blocks[0, :, 2] - BLOCK_SIZE / 2 >= world.config.lift
    return PickFilm(
        [*pictures, photograph(world)], result.instructions[0], bool(result.success[0]), np.flatnonzero(up).tolist()
    )


def success_and_failure(policy: TinyVLA, seeds: Sequence[int]) -> list[PickFilm]:
    """Returns two films of the first scene in which a policy lifts block 0, whichever of two blocks is named.

    Raises:
        InputError: there is no such scene among the seeds.
    """
    for seed in seeds:
        films = [film_beside(policy, seed, named) for named in (0, 1)]
        if all(film.lifted == [0] for film in films):
            return films
    raise InputError("in none of these scenes the policy lifts the same block under both names")


def save_side_by_side(films: Sequence[PickFilm], path: str | Path) -> None:
    """Write films as one moving picture that repeats: side by side, each below its sentence and its outcome."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=17)
    length = max(len(film.pictures) for film in films)
    frames = []
    for number in range(length):
        frame = Image.new("RGB", (len(films) * WIDTH, CAPTION + HEIGHT), "white")
        draw = ImageDraw.Draw(frame)
        for place, film in enumerate(films):
            over = number >= len(film.pictures) - 1
            outcome = ("  -  success" if film.success else "  -  failure") if over else ""
            color = ("#1a7f37" if film.success else "#c0392b") if over else "#222222"
            draw.text((place * WIDTH + 10, 8), f"“{film.sentence}”{outcome}", fill=color, font=font)
            picture = film.pictures[min(number, len(film.pictures) - 1)]
            frame.paste(Image.fromarray(picture), (place * WIDTH, CAPTION))
        frames.append(frame)
    palette = frames[-1].quantize(NUM_COLORS)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME_MILLISECONDS] * (length - 1) + [LAST_FRAME_MILLISECONDS]
    indexed[0].save(path, format="GIF", save_all=True, append_images=indexed[1:], duration=times, loop=0, optimize=True)


def main(path: str) -> None:
    """Train the policy, find a scene and write the picture."""
    policy = taught_one_sentence("cuda" if torch.cuda.is_available() else "cpu")
    save_side_by_side(success_and_failure(policy, with_sentence(episode_seeds(300, seed=44))), path)


if __name__ == "__main__":
    main(sys.argv[1])
