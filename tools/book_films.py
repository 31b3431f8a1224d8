"""Film chapter 13's policy: every colour, both tasks, success, and failure early in its training.

Writes `results/book_films.json`.

python tools/book_films.py                              # train the policies, a quarter of an hour on two CPU cores
python tools/book_films.py --checkpoint FOLDER          # film a policy that `experiments/arm.py` or this has trained

Notable:
- test episodes only, in the order of their seeds: for each sentence the first success of the trained policy, and the
  first failure of one that was trained for `--early-steps` only, for the trained one hardly fails;
- a film is one picture with all its frames, so that a page can step, pause and rewind: on the left the arm as people
  see it, on the right what the policy sees, with circles where it looks.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

from tinyvla.act.arm.expert import BLOCK_SIZE, TASKS, disturbance
from tinyvla.act.arm.policy import arm_config
from tinyvla.act.arm.world import ArmConfig, ArmWorld, arm_instruction
from tinyvla.act.rollout import expert, rollout
from tinyvla.act.world import World, episode_seeds
from tinyvla.course import ch13
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, NUM_CELLS, cell_centers
from tinyvla.device import describe_device
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.show.attention import attention_map
from tinyvla.show.scene_svg import circle_radii

ROOT = Path(__file__).resolve().parent.parent
SIDE, COLUMNS, EXECUTE = 200, 8, 4
"""Pixels of a picture's side; frames in a row of a film; actions executed before the policy looks again."""


@dataclass(frozen=True)
class Args:
    """Train, judge, film."""

    checkpoint: Path | None = None
    """Of a trained policy; one is trained if it is not given."""
    demonstrations: int = 2_000
    steps: int = 3_000
    early_steps: int = 500
    """Of the policy whose failures are filmed."""
    scenes: int = 150
    """Test episodes of each task that are tried."""
    max_steps: int = 28
    seed: int = 0
    quality: int = 60
    """Of the pictures, as WebP."""
    device: str = "cpu"
    """Where the policy is trained."""
    out: Path = ROOT
    """A folder with the layout of the repository, into which everything is written."""


def demonstrated(policy: TinyVLA, count: int, seed: int) -> TensorSplit:
    """States of disturbed demonstrations of both tasks."""
    seeds = episode_seeds(count, seed=seed)
    world = ArmWorld(seeds, [TASKS[seed % 2] for seed in seeds], ArmConfig(max_steps=30))
    states = rollout(expert, world, disturb=disturbance(0.4), record=count, horizon=8).states
    assert states is not None
    return states.tensors(policy)


def trained(args: Args, steps: int, train: TensorSplit, val: TensorSplit) -> TinyVLA:
    """A policy as in `experiments/arm.py`, with fewer demonstrations and steps."""
    policy = new_policy(arm_config("nano", horizon=8), args.seed, args.device)
    policy.fit_statistics(train.actions)
    config = TrainConfig(optimizer="muon", learning_rate=3e-3, batch_size=128, seed=args.seed)
    fit(policy, train, val, replace(config, epochs=steps / config.steps_per_epoch(len(train))))
    return policy.eval()


def film(policy: TinyVLA, seed: int, task: str, max_steps: int) -> tuple[list[Image.Image], dict[str, Any]]:
    """An episode's frames, and what came of it."""
    world, frames = ArmWorld([seed], task, ArmConfig(max_steps=max_steps)), []

    def shoot(world_: World, actions: Any = None) -> None:
        frames.append(frame(policy, world))

    success = bool(rollout(policy, world, EXECUTE, on_step=shoot).success[0])
    shoot(world)
    up = np.flatnonzero(world.blocks[0, :, 2] - BLOCK_SIZE / 2 >= world.config.lift)
    return frames, {"success": success, "lifted": COLORS[world.colors[0, up[0]]] if len(up) else ""}


def frame(policy: TinyVLA, world: ArmWorld) -> Image.Image:
    """The arm for people beside what the policy sees and where it looks."""
    picture = Image.new("RGB", (2 * SIDE, SIDE), "white")
    people = Image.fromarray(ch13.photograph(world))
    edge = (people.width - people.height) // 2
    picture.paste(people.crop((edge, 0, edge + people.height, people.height)).resize((SIDE, SIDE)), (0, 0))
    view = world.views(np.array([0]))[0]
    seen = Image.fromarray(view.transpose(1, 2, 0)).resize((4 * SIDE, 4 * SIDE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(seen, "RGBA")
    weights = attention_map(policy, view, world.instructions[0])
    assert weights is not None
    scale = 4 * SIDE / 64
    for (x, y), radius in zip(cell_centers(np.arange(NUM_CELLS)) * scale, circle_radii(weights) * scale, strict=True):
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(122, 79, 176, 150), outline="white", width=4
        )
    picture.paste(seen.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (SIDE, 0))
    return picture


def sheet(frames: list[Image.Image]) -> Image.Image:
    """All frames in rows of `COLUMNS`."""
    rows = -(-len(frames) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * 2 * SIDE, rows * SIDE), "white")
    for number, each in enumerate(frames):
        whole.paste(each, (number % COLUMNS * 2 * SIDE, number // COLUMNS * SIDE))
    return whole


def main(args: Args) -> None:
    """Film for every sentence the first success and the first failure among the test episodes."""
    folder, listed = args.out / "book" / "_static" / "live" / "films", args.out / "book" / "live" / "films.json"
    for each in (folder, listed.parent, args.out / "results"):
        each.mkdir(parents=True, exist_ok=True)
    untrained = new_policy(arm_config("nano", horizon=8), args.seed, args.device)
    data = [demonstrated(untrained, count, seed) for count, seed in ((args.demonstrations, 42), (60, 43))]
    loaded = args.checkpoint and TinyVLA.from_pretrained(args.checkpoint, args.device)
    policy = loaded or trained(args, args.steps, *data)
    policy.save_pretrained(args.out / "checkpoints" / "arm")
    early = trained(args, args.early_steps, *data)
    seeds = episode_seeds(args.scenes, DataConfig().test_seed)
    films, judged = [], {}
    for task in TASKS:
        for name, each, success in (("trained", policy, True), ("early", early, False)):
            result = rollout(each, ArmWorld(seeds, task, ArmConfig(max_steps=args.max_steps)), EXECUTE)
            judged[f"{task}, {name}"] = {"episodes": len(seeds), "success": result.success_rate}
            print(task, name, result.success_rate, flush=True)
            for color in COLORS:
                sentence = arm_instruction(task, color)
                fitting = (
                    seed
                    for seed, text, done in zip(seeds, result.instructions, result.success, strict=True)
                    if text == sentence and done == success
                )
                if (seed := next(fitting, None)) is None:
                    continue
                frames, ended = film(each, seed, task, args.max_steps)
                assert ended["success"] == success, "an episode follows from its seed"
                file = f"{task}_{color}_{'success' if success else 'failure'}.webp"
                sheet(frames).save(folder / file, quality=args.quality, method=6)
                about = {"verb": sentence.split(" the ")[0], "color": color, "sentence": sentence, "seed": seed}
                steps = args.steps if each is policy else args.early_steps
                films.append({**about, "trained": steps, "frames": len(frames), "file": file, **ended})
    listed.write_text(json.dumps({"side": SIDE, "columns": COLUMNS, "films": films}) + "\n", encoding="utf-8")
    size = sum((folder / each["file"]).stat().st_size for each in films)
    command = (
        "python tools/book_films.py"
        + f" --device {args.device} --demonstrations {args.demonstrations} --steps {args.steps}"
        + f" --early-steps {args.early_steps}"
    )
    training = {
        "demonstrations": args.demonstrations,
        "steps": args.steps,
        "early_steps": args.early_steps,
        "seed": args.seed,
    }
    about = {"command": command, "machine": describe_device(torch.device(args.device)), **training, "judged": judged}
    text = json.dumps({**about, "films": len(films), "bytes": size}, indent=2)
    (args.out / "results" / "book_films.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args, args=sys.argv[1:]))
