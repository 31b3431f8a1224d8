"""One policy acts in many episodes, which run in processes of their own.

Notable:
- processes simulate and draw; the policy answers all that wait in one batch, so one GPU serves many episodes. Pictures
  and answers lie in memory that the processes share, and no message is sent for a step;
- start the processes (`Judges`) before the first use of CUDA, or use "spawn";
- results come one episode at a time, so what is known when time runs out is kept, and what is not known is missing
  rather than wrong.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32
from tqdm.auto import tqdm

from tinyvla.act.metaworld.scene import ACTION_SIZE, STATE_SIZE, MetaWorldConfig, Scene, draw_on
from tinyvla.act.metaworld.tasks import TASKS, Task, episode_seed
from tinyvla.act.metaworld.workers import be_worker, without_interrupts
from tinyvla.errors import InputError

Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From pictures uint8 `(w, h, w, 3)`, states `(w, 4)` and numbers of tasks `(w,)` to chunks `(w, chunk, 4)`."""
PATIENCE = 120.0
"""Seconds that an episode waits for the policy before its process gives up."""


@dataclass(frozen=True)
class Mode:
    """How chunks are used. `ensemble` averages all predictions for a step, with weight exp(-ensemble * number)."""

    execute: int = 1
    """Steps of a chunk that are taken before the policy looks again."""
    ensemble: float | None = None
    """Number 0 is the oldest prediction, as in ACT (https://arxiv.org/abs/2304.13705); below 0, new ones weigh more."""

    @property
    def name(self) -> str:
        """A short name for tables."""
        return f"execute {self.execute}" if self.ensemble is None else f"ensemble {self.ensemble:g}"


@dataclass(frozen=True)
class Episode:
    """How one episode went."""

    mode: str
    task: str
    index: int
    success: bool
    steps: int
    closest_hand: float = float("inf")
    """Smallest distance between fingers and goal, in metres."""
    closest_object: float = float("inf")
    """The same of the first object."""


class _Desk:
    """Memory that the processes share: one row per process for what it sees and what it gets."""

    def __init__(self, context: Any, workers: int, image_size: int, chunk: int) -> None:
        self.shapes = {
            "images": ((workers, image_size, image_size, 3), np.uint8),
            "states": ((workers, STATE_SIZE), np.float32),
            "tasks": ((workers,), np.int64),
            "chunks": ((workers, chunk, ACTION_SIZE), np.float32),
            "asked": ((workers,), np.int64),
            "answered": ((workers,), np.int64),
        }
        self.memory = {
            name: context.RawArray("b", int(np.prod(shape)) * np.dtype(kind).itemsize)
            for name, (shape, kind) in self.shapes.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            name: np.frombuffer(self.memory[name], kind).reshape(shape) for name, (shape, kind) in self.shapes.items()
        }


def _ask(desk: dict[str, np.ndarray], row: int, scene: Scene) -> Float32[np.ndarray, "chunk 4"]:
    """Returns the policy's chunk for what the scene shows now."""
    desk["images"][row] = scene.picture()
    desk["states"][row] = scene.state
    desk["tasks"][row] = TASKS.index(scene.task)
    desk["asked"][row] += 1
    started = time.monotonic()
    while desk["answered"][row] != desk["asked"][row]:
        time.sleep(1e-4)
        if time.monotonic() - started > PATIENCE:
            raise TimeoutError("the policy did not answer")
    return desk["chunks"][row].copy()


def _act(scene: Scene, ask: Callable[[Scene], np.ndarray], mode: Mode) -> tuple[float, float]:
    """One episode from its beginning to its end; returns how close hand and object came to the goal."""
    closest = np.full(2, np.inf)
    chunks: list[tuple[int, np.ndarray]] = []
    while not scene.over:
        now = scene.steps
        if now % mode.execute == 0:
            chunks.append((now, ask(scene)))
        if mode.ensemble is None:
            made, chunk = chunks[-1]
            action = chunk[now - made]
        else:
            answer = np.stack([chunk[now - made] for made, chunk in chunks if now - made < len(chunk)])
            weights = np.exp(-mode.ensemble * np.arange(len(answer)))
            action = weights @ answer / weights.sum()
        scene.step(action)
        closest = np.minimum(closest, scene.distances)
    return float(closest[0]), float(closest[1])


def _work(row: int, gpu: int, desk: _Desk, jobs: Any, results: Any, config: MetaWorldConfig) -> None:
    """A process: takes jobs until there is none; keeps the last task's scene."""
    be_worker()
    draw_on(gpu)
    arrays, scene = desk.arrays(), None
    try:
        for mode, task, indices, seeds in iter(jobs.get, None):
            if scene is None or scene.task != task:
                if scene:
                    scene.close()
                scene = Scene(task, config)
            for index, seed in zip(indices, seeds, strict=True):
                scene.begin(seed)
                closest = _act(scene, partial(_ask, arrays, row), mode)
                results.put(Episode(mode.name, task.name, index, scene.succeeded, scene.steps, *closest))
    except InputError as error:  # this machine cannot draw, for example; whoever waits for results says so
        results.put(error)


class Judges:
    """Processes that wait for episodes to run.

    Args:
        workers: how many processes.
        config: pictures and length of episodes.
        chunk: actions in one answer of the policy.
        gpu: the GPU that they draw on.
        start: "spawn", or "fork" if CUDA has not been used yet in this process.
    """

    def __init__(self, workers: int, config: MetaWorldConfig, chunk: int, gpu: int = 0, start: str = "spawn") -> None:
        context: Any = multiprocessing.get_context(start)
        self._desk = _Desk(context, workers, config.image_size, chunk)
        self._jobs, self._results = context.Queue(), context.Queue()
        arguments = (gpu, self._desk, self._jobs, self._results, config)
        self._processes = [context.Process(target=_work, args=(row, *arguments), daemon=True) for row in range(workers)]
        with without_interrupts():
            for process in self._processes:
                process.start()

    def run(
        self,
        answer: Answer,
        modes: Sequence[Mode],
        tasks: Sequence[Task],
        seeds: Callable[[Task, int], int],
        episodes: int = 10,
        seconds: float = float("inf"),
    ) -> Iterator[Episode]:
        """Run the episodes of all modes, one mode after another, and yield each as it ends.

        Args:
            answer: the policy; rows of processes that wait for nothing hold old pictures, and their answers are unused.
            modes: how chunks are used.
            tasks: which tasks.
            seeds: an episode's seed from its task and number.
            episodes: episodes per task and mode.
            seconds: no result is waited for longer than this in total.

        Raises:
            InputError: Meta-World cannot be used here.
        """
        parts = [range(start, min(start + 3, episodes)) for start in range(0, episodes, 3)]
        for mode in modes:
            for part in parts:
                for task in tasks:
                    self._jobs.put((mode, task, list(part), [seeds(task, index) for index in part]))
        desk, left = self._desk.arrays(), len(modes) * len(tasks) * episodes
        desk["tasks"][:] = TASKS.index(tasks[0])  # rows that wait for nothing: no other task's sentence is asked about
        until = time.monotonic() + seconds
        while left and time.monotonic() < until and any(process.is_alive() for process in self._processes):
            asked = desk["asked"].copy()
            waiting = np.flatnonzero(asked != desk["answered"])
            if len(waiting):
                chunks = answer(desk["images"], desk["states"], desk["tasks"])
                desk["chunks"][waiting] = chunks[waiting]
                desk["answered"][waiting] = asked[waiting]
            try:
                while True:
                    result = self._results.get_nowait()
                    if isinstance(result, InputError):
                        raise result
                    yield result
                    left -= 1
            except queue.Empty:
                if not len(waiting):
                    time.sleep(1e-4)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()


def judge(
    judges: Judges,
    answer: Answer,
    tasks: Sequence[Task],
    episodes: int = 10,
    mode: Mode | None = None,
    seed: int = 0,
    progress_bar: bool = True,
) -> list[Episode]:
    """Returns how the episodes of some tasks went, in the order in which they ended.

    Args:
        judges: processes that wait.
        answer: the policy.
        tasks: which.
        episodes: of each task.
        mode: how chunks are used; two actions after each look by default.
        seed: another one gives other starts. Two policies that are compared should have the same.
        progress_bar: whether to show one.
    """

    def start(task: Task, index: int) -> int:
        return episode_seed("judge", task, index, seed)

    planned = len(tasks) * episodes
    found = judges.run(answer, [mode or Mode(2)], tasks, start, episodes)
    ended = list(tqdm(found, total=planned, unit="episode", mininterval=2, disable=not progress_bar))
    if len(ended) < planned:
        raise RuntimeError(f"only {len(ended)} of {planned} episodes ended: the processes are gone")
    return ended
