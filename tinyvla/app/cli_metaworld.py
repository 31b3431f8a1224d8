"""The command line's verbs for Meta-World: record demonstrations, and let a policy act."""

from __future__ import annotations

import sys
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tinyvla.app.cli_measure import Checkpoint, load
from tinyvla.errors import InputError, counted
from tinyvla.files import check_folder

if TYPE_CHECKING:
    from tinyvla.act.metaworld.judge import Episode
    from tinyvla.act.metaworld.scene import MetaWorldConfig
    from tinyvla.model.policy import TinyVLA

TaskNames = Annotated[str, arg(help="mt50, a group (easy, medium, hard, very_hard), or names with commas between.")]
FILM_SECONDS_PER_STEP = 1 / 20


def metaworld(
    action: Annotated[Positional[str], arg(help="collect: record demonstrations of the scripted experts.")],
    folder: Annotated[Positional[Path], arg(help="Where to; becomes a LeRobotDataset v3.")],
    tasks: TaskNames = "mt50",
    demos: int = 50,
    image_size: int = 192,
    samples: int = 4,
    noise: float = 0.0,
    workers: int = 0,
) -> None:
    """Record demonstrations on Meta-World; the same command goes on where an earlier one was stopped.

    Args:
        demos: Episodes of each task.
        image_size: Side of the square pictures, in pixels.
        samples: Samples per pixel, for smooth edges; 0 for none.
        noise: Standard deviation of what is added to the experts' actions as they are done.
        workers: Processes; as many as there are cores if 0.
    """
    from tinyvla.act.metaworld.collect import Plan, collect
    from tinyvla.act.metaworld.tasks import find_tasks
    from tinyvla.act.metaworld.workers import ended_by_sigterm, num_processes

    if action != "collect":
        raise InputError(f"unknown action {action!r}; the only one is: tinyvla metaworld collect FOLDER")
    names = tuple(task.name for task in find_tasks(tasks))
    plan = Plan(names, demos, image_size, samples, noise=noise)
    processes = num_processes(workers)
    try:
        with ended_by_sigterm():
            collect(folder, plan, processes, _gpus())
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one was", file=sys.stderr)
        sys.exit(130)
    print(f"{folder}: {counted(len(plan.episodes), 'episode')} of {counted(len(names), 'task')}")
    print(f"next: tinyvla train --dataset {folder} --image-size {image_size}")


def _gpus() -> list[int]:
    """All that there are; the first where there is none, which then is the processor that draws."""
    import torch

    return list(range(max(1, torch.cuda.device_count())))


def roll_out(
    checkpoint: Checkpoint,
    tasks: str,
    episodes: int,
    seed: int,
    execute: int,
    workers: int,
    films: Path | None,
    device: str,
    json: bool,
) -> None:
    """Let a policy act on Meta-World's tasks and say how often it succeeds; see the verb `rollout`."""
    from tinyvla.act.metaworld.answer import judge_policy
    from tinyvla.act.metaworld.report import summary, table
    from tinyvla.act.metaworld.scene import MetaWorldConfig
    from tinyvla.act.metaworld.tasks import find_tasks
    from tinyvla.act.metaworld.workers import ended_by_sigterm, num_processes

    if films is not None:
        check_folder(films, "--films")
    policy = load(checkpoint, device)
    config = MetaWorldConfig(max(policy.config.vision.size), samples=4)
    processes = num_processes(workers)
    with ended_by_sigterm():
        ended = judge_policy(policy, config, find_tasks(tasks), episodes, execute, seed, processes)
    found = {"execute": execute, "seed": seed, **summary(ended)}
    written = [] if films is None else _film(policy, config, ended, execute, films, seed)
    print(dumps(found) if json else table(found, str(checkpoint)))
    for path in [] if json else written:
        print(f"wrote {path}")


def _film(
    policy: TinyVLA, config: MetaWorldConfig, ended: list[Episode], execute: int, folder: Path, seed: int
) -> list[Path]:
    """Writes a success and a failure of each task as moving pictures, where there are such."""
    from tinyvla.act.metaworld.tasks import episode_seed, find_tasks
    from tinyvla.act.metaworld.world import MetaWorld
    from tinyvla.show.filmstrip import film, save_gif

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    first = {(e.task, e.success): e for e in sorted(ended, key=lambda e: -e.index)}
    for (name, success), episode in sorted(first.items()):
        start = episode_seed("judge", find_tasks(name)[0], episode.index, seed)
        world = MetaWorld([start], name, config)
        path = folder / f"{name}-{'success' if success else 'failure'}.gif"
        save_gif(film(policy, world, execute), path, 1 / FILM_SECONDS_PER_STEP)
        world.close()
        written.append(path)
    return written
