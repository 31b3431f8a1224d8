"""How much do Meta-World's first pictures give away? Writes `results/metaworld_pictures.json`.

    python experiments/metaworld_pictures.py

No policy and no words: a new episode's task is guessed from its first picture alone, by the most similar of some first
pictures whose tasks are known. What is recognised in this way, a policy can do without being told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
from harness import Job, Row, main
from page import grid, percent, prose, section_of, source

from tinyvla.act.metaworld.scene import MetaWorldConfig, Scene
from tinyvla.act.metaworld.tasks import Task, episode_seed, find_tasks

RESULTS = ("metaworld_pictures",)


@dataclass(frozen=True)
class Args(harness.Args):
    """Draw first pictures and compare them."""

    tasks: str = "mt50"
    known: tuple[int, ...] = (1, 3, 10, 30)
    """First pictures of each task that are known."""
    episodes: int = 10
    """New starts of each task."""
    image_size: int = 64
    out: Path = Path("results/metaworld_pictures.json")


def jobs(args: Args) -> list[Job]:
    return [Job({"what": "pictures"})]


def run(job: Job, args: Args) -> list[Row]:
    tasks = find_tasks(args.tasks)
    drawn = [first_pictures(task, args) for task in tasks]
    known, new = (np.stack([pair[part] for pair in drawn]) for part in (0, 1))  # (tasks, starts, pixels)
    labels = np.repeat(np.arange(len(tasks)), args.episodes)
    rows = []
    for count in args.known:
        guessed = nearest(new.reshape(len(labels), -1), known[:, :count].reshape(len(tasks) * count, -1)) // count
        wrong = Counter((tasks[a].name, tasks[b].name) for a, b in zip(labels, guessed, strict=True) if a != b)
        rows.append({
            "known": count,
            "recognised": float((guessed == labels).mean()),
            "pictures": len(labels),
            "by_task": {t.name: float((guessed == labels)[labels == i].mean()) for i, t in enumerate(tasks)},
            "confused": [[*pair, times] for pair, times in wrong.most_common()],
        })  # fmt: skip
    return rows


def first_pictures(task: Task, args: Args) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first pictures of known episodes and of new ones, each as a row of numbers."""
    scene = Scene(task, MetaWorldConfig(args.image_size))

    def draw(split: str, count: int) -> np.ndarray:
        pictures = []
        for index in range(count):
            scene.begin(episode_seed(split, task, index))
            pictures.append(scene.picture().reshape(-1).astype(np.float32))
        return np.stack(pictures)

    pictures = draw("train", max(args.known)), draw("judge", args.episodes)
    scene.close()
    return pictures


def nearest(new: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns for each new picture the number of the known one with the smallest squared difference."""
    apart = (known**2).sum(1) - 2 * new @ known.T  # and a part that is the same for all known ones
    return apart.argmin(1)


def summary(rows: list[Row], args: Args) -> Row:
    return {
        **args.settings("known", "episodes", "image_size"),
        "tasks": len(find_tasks(args.tasks)),
        "rows": [{name: value for name, value in row.items() if name != "what"} for row in rows],
    }


def section(results: Row) -> str:
    """Returns the results page's section."""
    table = [(str(row["known"]), percent(row["recognised"], 1), _often(row["confused"])) for row in results["rows"]]
    about = f"""A new episode's task is guessed from its first picture by the most similar known first picture, without
        learning and without words, over {results["rows"][0]["pictures"]} starts of {results["tasks"]} tasks. Blind
        guessing would be right in {100 / results["tasks"]:.0f} %. Pictures are as the benchmark gives them: in the
        first one the goal's mark and some bodies are not yet where the episode has them."""
    heads = "known pictures of each task | right | most often confused"
    return section_of("What Meta-World's first pictures give away", prose(about), grid(heads, table), source(results))


def _often(confused: list[list[str | int]]) -> str:
    return ", ".join(f"{first} taken for {second} ({times})" for first, second, times in confused[:3])


if __name__ == "__main__":
    main(Args, jobs, run, summary)
