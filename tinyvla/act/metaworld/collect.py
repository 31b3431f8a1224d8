"""Demonstrations of Meta-World's scripted experts, recorded by many processes.

    python -m tinyvla.act.metaworld.collect FOLDER --tasks mt50 --demos 50 --image-size 128 --workers 14 --gpus 0

Notable:
- one file per episode, written under another name and then renamed, so a collection that is killed loses only what was
  in hand, and the same command goes on where it stopped;
- demonstration i of a task always comes from the same seeds, so nothing is recorded twice and the number of processes
  does not matter. An expert that fails is given the next seed; how many it needed is in the file;
- processes are started anew ("spawn") and each is told its GPU before MuJoCo is imported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import TASKS, Task, find_tasks
from tinyvla.errors import InputError

SPLITS = ("train", "validation", "judge")
MAX_TRIES = 50
"""Seeds that an expert is given for one demonstration. The experts fail in about two of a hundred episodes."""


def episode_seed(split: str, task: Task, index: int, attempt: int = 0) -> int:
    """Returns an episode's seed from what it is for: no two episodes of any split share a seed, but by rare chance."""
    parts = [SPLITS.index(split), TASKS.index(task), index, attempt]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@dataclass(frozen=True)
class Plan:
    """What a collection is to hold; saved in its folder as `collection.json`."""

    tasks: tuple[str, ...]
    demos: int = 50
    """Episodes per task."""
    image_size: int = 128
    samples: int = 0
    """Samples per pixel; see `MetaWorldConfig`."""
    split: str = "train"

    @property
    def config(self) -> MetaWorldConfig:
        """How its episodes are drawn."""
        return MetaWorldConfig(image_size=self.image_size, samples=self.samples)

    def __post_init__(self) -> None:
        if self.demos < 1:
            raise InputError(f"demos is {self.demos}; at least one demonstration per task is needed")
        if self.split not in SPLITS:
            raise InputError(f"unknown split {self.split!r}; choose from {', '.join(SPLITS)}")

    @property
    def episodes(self) -> list[tuple[Task, int]]:
        """Every episode's task and number, long tasks spread over the list."""
        return [(task, index) for index in range(self.demos) for task in find_tasks(self.tasks)]

    def path(self, folder: Path, task: Task, index: int) -> Path:
        """The episode's file."""
        return folder / f"{task.name}_{index:04d}.npz"


def record(scene: Scene, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the first episode in which the expert succeeds, with one entry per step.

    Args:
        scene: the task.
        seeds: tried one after another.

    Returns:
        `images` uint8 `(t, h, w, 3)`, `state` float32 `(t, 4)`, `action` float32 `(t, 4)`, `environment_state` float32
        `(t, 39)` (what the expert saw, as in LeRobot's data set), and `tries`, how many seeds it took.

    Raises:
        InputError: the expert failed with all seeds.
    """
    for tries, seed in enumerate(seeds, 1):
        scene.begin(seed)
        rows: list[tuple[np.ndarray, ...]] = []
        while not scene.over:
            action = scene.expert_action()
            rows.append((scene.picture(), scene.state, action, scene.observation.astype(np.float32)))
            scene.step(action)
        if scene.succeeded:
            names = ("images", "state", "action", "environment_state")
            columns = {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
            return columns | {"tries": np.array(tries)}
    raise InputError(f"the expert of {scene.task.name} failed in {len(seeds)} episodes")


class _Recorder:
    """One process's part of the work. It keeps the last task's scene, since jobs of a task often follow each other."""

    scene: Scene | None = None

    @classmethod
    def start(cls, gpus: Any) -> None:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(gpus.get())

    @classmethod
    def run(cls, job: tuple[Plan, Path, Task, list[int]]) -> int:
        plan, folder, task, indices = job
        if cls.scene is None or cls.scene.task != task:
            if cls.scene:
                cls.scene.close()
            cls.scene = Scene(task, plan.config)
        for index in indices:
            seeds = [episode_seed(plan.split, task, index, attempt) for attempt in range(MAX_TRIES)]
            target = plan.path(folder, task, index)
            unfinished = target.with_suffix(f".{os.getpid()}.part")
            with unfinished.open("wb") as file:
                np.savez(file, **record(cls.scene, seeds))  # type: ignore[arg-type]
            unfinished.replace(target)
        return len(indices)


def collect(folder: Path, plan: Plan, workers: int = 4, gpus: Sequence[int] = (0,)) -> None:
    """Record what the plan asks for and the folder does not hold yet.

    Args:
        folder: made if needed; may hold a part of the same plan.
        plan: what to record.
        workers: processes, at most.
        gpus: numbers of the GPUs that the processes draw on, in turn.

    Raises:
        InputError: the folder holds a collection with another plan, or an expert failed too often.
    """
    from tqdm.auto import tqdm

    _check_plan(folder, plan)
    for leftover in folder.glob("*.part"):
        leftover.unlink()
    missing: dict[Task, list[int]] = {}
    for task, index in plan.episodes:
        if not plan.path(folder, task, index).exists():
            missing.setdefault(task, []).append(index)
    # A job is a few episodes of one task: few enough that no process works long after the others are done.
    jobs = [(plan, folder, task, ids[i : i + 5]) for task, ids in missing.items() for i in range(0, len(ids), 5)]
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(jobs))
    devices = context.SimpleQueue()
    for worker in range(workers):
        devices.put(gpus[worker % len(gpus)])
    total = len(plan.episodes)
    done = total - sum(len(ids) for ids in missing.values())
    with (
        context.Pool(workers, _Recorder.start, (devices,)) as pool,
        tqdm(total=total, initial=done, unit="episode", mininterval=2) as bar,
    ):
        for count in pool.imap_unordered(_Recorder.run, jobs):
            bar.update(count)


def _check_plan(folder: Path, plan: Plan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "collection.json"
    wanted = json.loads(json.dumps(vars(plan)))
    if path.exists():
        found = json.loads(path.read_text())
        if found != wanted:
            raise InputError(f"{folder} holds another collection ({found}); give another folder or the same plan")
    else:
        path.write_text(json.dumps(wanted, indent=1) + "\n")


def read_plan(folder: Path) -> Plan:
    """Returns what a folder is to hold from its `collection.json`.

    Raises:
        InputError: the folder is no collection, or not all of its episodes are there.
    """
    path = folder / "collection.json"
    if not path.exists():
        raise InputError(f"{folder} holds no demonstrations: there is no collection.json in it")
    fields = json.loads(path.read_text())
    plan = Plan(**fields | {"tasks": tuple(fields["tasks"])})
    here = sum(plan.path(folder, task, index).exists() for task, index in plan.episodes)
    if here < len(plan.episodes):
        raise InputError(f"{folder} holds {here} of {len(plan.episodes)} episodes; run the same collection to go on")
    return plan


def read_episode(path: Path, *columns: str) -> list[np.ndarray]:
    """Returns the named columns from an episode's file; see `record` for their names and shapes."""
    with np.load(path) as file:
        return [file[column] for column in columns]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Record demonstrations of Meta-World's scripted experts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default="mt50")
    parser.add_argument("--demos", type=int, default=50)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--split", default="train", choices=SPLITS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--gpus", type=int, nargs="+", default=[0], help="numbers of the GPUs to draw on")
    given = parser.parse_args()
    names = tuple(task.name for task in find_tasks(given.tasks))
    plan = Plan(names, given.demos, given.image_size, given.samples, given.split)
    collect(given.folder, plan, given.workers, given.gpus)


if __name__ == "__main__":
    main()
