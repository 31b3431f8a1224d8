"""Demonstrations of Meta-World's scripted experts, recorded by many processes into one LeRobotDataset v3.

    tinyvla metaworld collect FOLDER --tasks mt50 --demos 50

Notable:
- one file per episode, written under another name and then renamed, so a collection that is killed loses only what was
  in hand, and the same command goes on where it stopped. When all are there they are joined to the data set;
- demonstration i of a task always comes from the same seeds, so nothing is recorded twice and the number of processes
  does not matter. An expert that fails is given the next seed; how many it needed is in the file;
- processes are started anew ("spawn") and each is told its GPU before MuJoCo is imported.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene, draw_on
from tinyvla.act.metaworld.tasks import SPLITS, Task, episode_seed, find_tasks
from tinyvla.act.metaworld.workers import be_worker, without_interrupts
from tinyvla.data.lerobot_writer import INFO_PATH, DatasetWriter, Episode
from tinyvla.data.parquet import pa, pq
from tinyvla.errors import InputError, counted
from tinyvla.fields import Within, check, check_fields, make, shown
from tinyvla.files import check_folder, read_json, write_text
from tinyvla.lock import LOCK, held

PLAN_FILE = "collection.json"
FPS = 80
"""Steps a second: Meta-World's own `render_fps`."""
NAMES = {"action": ("x", "y", "z", "gripper"), "observation.state": ("x", "y", "z", "gripper")}
UNREADABLE = (pa.ArrowException, AttributeError, KeyError, OSError, TypeError, ValueError)
"""What reading a file raises that is damaged, or not what it should be."""
MAX_TRIES = 50
"""Seeds that an expert is given for one demonstration. The experts fail in about two of a hundred episodes."""


@dataclass(frozen=True)
class Plan:
    """What a collection is to hold; saved in its folder as `collection.json`."""

    tasks: tuple[str, ...]
    demos: Annotated[int, Within(1, 10_000)] = 50
    """Episodes per task."""
    image_size: int = 128
    samples: int = 0
    """Samples per pixel; see `MetaWorldConfig`."""
    split: str = "train"
    noise: Annotated[float, Within(0, 1)] = 0.0
    """Added to what the experts do, whose actions lie in [-1, 1]; see `record`."""

    @property
    def config(self) -> MetaWorldConfig:
        """How its episodes are drawn."""
        return MetaWorldConfig(image_size=self.image_size, samples=self.samples)

    def __post_init__(self) -> None:
        check_fields(self)
        names = self.tasks
        is_named = isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)
        check(bool(is_named), f"Plan.tasks is {shown(names)}; it must be names of tasks")
        find_tasks(names)
        _ = self.config
        if self.split not in SPLITS:
            raise InputError(f"unknown split {self.split!r}; choose from {', '.join(SPLITS)}")

    @property
    def episodes(self) -> list[tuple[Task, int]]:
        """Every episode's task and number, long tasks spread over the list."""
        return [(task, index) for index in range(self.demos) for task in find_tasks(self.tasks)]

    def path(self, folder: Path, task: Task, index: int) -> Path:
        """The episode's file, until all are joined."""
        return folder / "episodes" / f"{task.name}_{index:04d}.parquet"


def record(scene: Scene, seeds: Sequence[int], noise: float = 0.0) -> Episode:
    """Returns the first episode in which the expert succeeds, with one row per step.

    Its columns are those of LeRobot's data set of Meta-World: `observation.images.corner2`, `observation.state`
    `(t, 4)`, `observation.environment_state` `(t, 39)` (what the expert saw), `action` `(t, 4)`, `next.success`, and
    also `tries`, how many seeds it took.

    Args:
        scene: the task.
        seeds: tried one after another.
        noise: standard deviation of what is added to the expert's actions as they are done. What is recorded is what
            the expert meant, so these demonstrations also show how to recover.

    Raises:
        InputError: the expert failed with all seeds.
    """
    for tries, seed in enumerate(seeds, 1):
        scene.begin(seed)
        disturbed = np.random.RandomState(seed)
        rows: list[tuple[np.ndarray, ...]] = []
        while not scene.over:
            action = scene.expert_action()
            rows.append((scene.picture(), scene.state, scene.observation.astype(np.float32), action))
            scene.step(action + noise * disturbed.standard_normal(4) if noise else action)
        if scene.succeeded:
            images, states, everything, actions = (np.stack(column) for column in zip(*rows, strict=True))
            columns = {"observation.state": states, "observation.environment_state": everything, "action": actions}
            columns["next.success"] = np.arange(len(rows)) == len(rows) - 1
            columns["tries"] = np.full(len(rows), tries, np.float32)
            return Episode.of({scene.config.camera: images}, columns, [scene.task.sentence] * len(rows), FPS)
    raise InputError(f"the expert of {scene.task.name} failed in {counted(len(seeds), 'episode')}")


class _Recorder:
    """One process's part of the work. It keeps the last task's scene, since jobs of a task often follow each other."""

    scene: Scene | None = None

    @classmethod
    def start(cls, gpus: Any) -> None:
        be_worker()
        draw_on(gpus.get())

    @classmethod
    def run(cls, job: tuple[Plan, Path, Task, list[int]]) -> int:
        plan, folder, task, indices = job
        if cls.scene is None or cls.scene.task != task:
            if cls.scene:
                cls.scene.close()
            cls.scene = Scene(task, plan.config)
        for index in indices:
            seeds = [episode_seed(plan.split, task, index, attempt) for attempt in range(MAX_TRIES)]
            record(cls.scene, seeds, plan.noise).save(plan.path(folder, task, index))
        return len(indices)


def collect(folder: Path, plan: Plan, workers: int = 4, gpus: Sequence[int] = (0,), progress_bar: bool = True) -> None:
    """Record what the plan asks for and the folder does not hold yet, and make a LeRobotDataset of it.

    Args:
        folder: made if needed; may hold a part of the same plan.
        plan: what to record.
        workers: processes, at most.
        gpus: numbers of the GPUs that the processes draw on, in turn.
        progress_bar: whether to show one.

    Raises:
        InputError: the folder holds something else, a collection with another plan or a damaged episode, another
            process works in it, or an expert failed too often.
    """
    if _is_whole(folder, plan) and not (folder / "episodes").exists():
        return  # even where nothing can be written
    check_folder(folder, "FOLDER")
    _check_plan(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    with held(FileLock(folder / LOCK), "a collection", "give another folder"):
        if _is_whole(folder, plan):
            shutil.rmtree(folder / "episodes", ignore_errors=True)  # left by a kill after all were joined
            return
        record_episodes(folder, plan, workers, gpus, progress_bar)
        join(folder, plan, progress_bar)


def _is_whole(folder: Path, plan: Plan) -> bool:
    return (folder / INFO_PATH).exists() and read_plan(folder) == plan


def record_episodes(
    folder: Path, plan: Plan, workers: int = 4, gpus: Sequence[int] = (0,), progress_bar: bool = True
) -> None:
    """Record the episodes that are missing, each as a file of its own; see `collect`."""
    _check_plan(folder, plan)
    parts = folder / "episodes"
    if not (folder / PLAN_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PLAN_FILE, json.dumps(vars(plan), indent=1) + "\n")
    parts.mkdir(exist_ok=True)
    for leftover in parts.glob("*.part"):
        leftover.unlink()
    missing: dict[Task, list[int]] = {}
    for task, index in plan.episodes:
        path = plan.path(folder, task, index)
        if path.exists():
            _check_episode(path, task)
        else:
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
    with without_interrupts():
        processes = context.Pool(workers, _Recorder.start, (devices,))
    with (
        processes as pool,
        tqdm(total=total, initial=done, unit="episode", mininterval=2, disable=not progress_bar) as bar,
    ):
        for count in pool.imap_unordered(_Recorder.run, jobs):
            bar.update(count)


def join(folder: Path, plan: Plan, progress_bar: bool = True) -> None:
    """Make a LeRobotDataset of all recorded episodes, in the plan's order; their own files go when it is whole."""
    for unfinished in ("data", "meta"):
        shutil.rmtree(folder / unfinished, ignore_errors=True)
    tasks = list(dict.fromkeys(task.sentence for task in find_tasks(plan.tasks)))
    writer = DatasetWriter(folder, FPS, tasks, NAMES, robot_type="sawyer")
    show = {"unit": "episode", "mininterval": 2, "desc": "joining", "disable": not progress_bar}
    for task, index in tqdm(plan.episodes, **show):
        path = plan.path(folder, task, index)
        _check_episode(path, task)
        try:
            episode = Episode.load(path)
        except UNREADABLE:
            raise InputError(_damaged(path)) from None
        try:
            writer.add(episode)
        except (pa.ArrowException, KeyError, ValueError):  # its columns are others than those of the rest
            raise InputError(_damaged(path)) from None
    writer.close()
    shutil.rmtree(folder / "episodes")


def _check_episode(path: Path, task: Task) -> None:
    """Refuse a file that is cut, or no episode of a task. What stands at its end is read alone, which is quick."""
    try:
        told = set(json.loads(pq.read_schema(path).metadata[b"tinyvla"])["tasks"])
    except UNREADABLE:
        told = set()
    check(told == {task.sentence}, _damaged(path))


def _damaged(path: Path) -> str:
    return f"{path} is damaged, or no episode of its task; remove it, and run the same collection to go on"


def _check_plan(folder: Path, plan: Plan) -> None:
    """Refuse a folder that holds anything else but a part of this collection; nothing is changed in it."""
    path = folder / PLAN_FILE
    if path.exists():
        found = _saved_plan(path)
        if found != plan:
            raise InputError(f"{folder} holds another collection ({vars(found)}); give another folder or the same plan")
    elif folder.exists() and any(each.name != LOCK for each in folder.iterdir()):
        raise InputError(f"{folder} holds other files; give a new folder for the demonstrations")


def _saved_plan(path: Path) -> Plan:
    values = read_json(path, f"{path.parent} holds no demonstrations: there is no {PLAN_FILE} in it")
    try:
        return make(Plan, values, str(path))
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from None


def read_plan(folder: Path) -> Plan:
    """Returns what a folder is to hold from its `collection.json`.

    Raises:
        InputError: the folder is no collection, or not all of its episodes are there.
    """
    plan = _saved_plan(folder / PLAN_FILE)
    if not (folder / INFO_PATH).exists():
        here = sum(plan.path(folder, task, index).exists() for task, index in plan.episodes)
        total = counted(len(plan.episodes), "episode")
        raise InputError(f"{folder} holds {here} of {total}; run the same collection to go on")
    return plan
