"""Meta-World MT50: the course's policies on a benchmark that others report on. Writes `results/metaworld.json`.

    python experiments/mt50.py --device cuda --workers 2 --variants main --seeds 1 2 3 --own

Each job trains one variant with one seed on one GPU and judges it in ten new episodes of each of the 50 tasks. With
`--own` it also records its own demonstrations, so its seconds are those from an empty folder to the last episode.
Otherwise all jobs learn from one collection, which is recorded first. Rows of earlier calls are kept. A policy that is
trained is kept in half precision, and that one is judged: a call that is stopped while judging goes on from there.
With `--swaps too` each policy acts once more in scenes that look alike, told the other's sentence; `--swaps alone` does
nothing else, with the policies that an earlier call kept.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import harness
import numpy as np
import torch
from harness import Job, Row, groups, main

from tinyvla.act.metaworld.answer import PolicyAnswer
from tinyvla.act.metaworld.collect import Plan, collect
from tinyvla.act.metaworld.judge import Judges, Mode, judge
from tinyvla.act.metaworld.report import summary as report_of
from tinyvla.act.metaworld.scene import MetaWorldConfig
from tinyvla.act.metaworld.tasks import find_tasks
from tinyvla.config import ModelConfig
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import read_dataset
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import RECORDINGS, RecordingConfig, TrainConfig
from tinyvla.speed.step import make_step


@dataclass(frozen=True)
class Variant:
    """What differs from the main policy, and a sentence that says so."""

    about: str
    preset: str = "minimal"
    fusion: str = "prefix"
    head: str = "l1"
    sizes: RecordingConfig = RecordingConfig()  # noqa: RUF009 - frozen
    train: tuple[tuple[str, Any], ...] = ()
    """Settings of the training that differ from the recipe's."""
    demos: int = 50
    words: bool = True
    picture: bool = True
    state: bool = True


def sized(**changes: Any) -> RecordingConfig:
    """The sizes of a policy that differs in some."""
    return RecordingConfig(**changes)


VARIANTS: dict[str, Variant] = {
    "main": Variant("the recipe"),
    "pixels-64": Variant("pictures of 64 x 64", sizes=sized(image_size=64), train=(("shift", 3),)),
    "pixels-96": Variant("pictures of 96 x 96", sizes=sized(image_size=96), train=(("shift", 4),)),
    "pixels-128": Variant("pictures of 128 x 128", sizes=sized(image_size=128), train=(("shift", 6),)),
    "demos-5": Variant("5 demonstrations a task", demos=5),
    "demos-10": Variant("10 demonstrations a task", demos=10),
    "demos-25": Variant("25 demonstrations a task", demos=25),
    "no-waypoints": Variant("no waypoints", sizes=sized(waypoints=())),
    "linear-stem": Variant("patches through one linear layer", sizes=sized(stem="linear")),
    "no-shift": Variant("pictures are not moved", train=(("shift", 0),)),
    "no-noise": Variant("no noise on the state", train=(("state_noise", 0.0),)),
    "adamw": Variant("AdamW at 8e-4", train=(("optimizer", "adamw"), ("learning_rate", 8e-4))),
    "cross-attention": Variant("cross-attention instead of a prefix", fusion="cross-attention"),
    "flow": Variant("flow matching instead of L1", head="flow"),
    "bins": Variant("bins instead of L1", head="bins"),
    "horizon-8": Variant("chunks of 8", sizes=sized(horizon=8)),
    "nano": Variant("preset nano", preset="nano"),
    "medium": Variant("preset medium", preset="medium", train=(("learning_rate", 2e-3),)),
    "no-words": Variant("every task has the same sentence", words=False),
    "no-picture": Variant("the pictures are black", picture=False),
    "no-state": Variant("the state is left out", state=False, sizes=sized(waypoints=())),
}
PAIRS: tuple[tuple[str, str], ...] = (
    ("window-open", "window-close"),
    ("drawer-open", "drawer-close"),
    ("door-open", "door-close"),
    ("door-lock", "door-unlock"),
    ("faucet-open", "faucet-close"),
    ("handle-press", "handle-pull"),
    ("handle-press-side", "handle-pull-side"),
    ("plate-slide", "plate-slide-back"),
    ("plate-slide-side", "plate-slide-back-side"),
    ("coffee-push", "coffee-pull"),
    ("peg-insert-side", "peg-unplug-side"),
    ("stick-push", "stick-pull"),
    ("reach", "push"),
    ("push", "pick-place"),
    ("reach", "pick-place"),
)
"""Tasks whose scenes look alike and whose sentences differ."""
GOALS = {"reach": ("closest_hand", 0.05), "push": ("closest_object", 0.05), "pick-place": ("closest_object", 0.07)}
"""When these three tasks are done, in any scene: what must come how close to the goal, as in Meta-World."""
SAME_SENTENCE = "do the task"


@dataclass(frozen=True)
class Args(harness.Args):
    """Train variants and judge them."""

    variants: tuple[str, ...] = ("main",)
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = RECORDINGS.num_steps
    tasks: str = "mt50"
    demos: int = 50
    episodes: int = 10
    own: bool = False
    """Each job records its own demonstrations."""
    swaps: Literal["no", "too", "alone"] = "no"
    """Whether to tell the policy the sentence of a task that looks alike."""
    executes: tuple[int, ...] = (2,)
    """Actions done after each look; the first one is the benchmark's."""
    image_size: int = 192
    """Side of the recorded pictures."""
    processes: int = 16
    """That record and act, for each job."""
    max_steps: int = 500
    """Of an episode."""
    batch_size: int = RECORDINGS.train.batch_size
    folder_of_data: Path = Path("metaworld-demonstrations")
    keep: Path = Path("metaworld-policies")
    """Where trained policies are kept."""
    out: Path = Path("results/metaworld.json")


def jobs(args: Args) -> list[Job]:
    which = [(name, seed) for seed in args.seeds for name in args.variants]
    if args.swaps == "alone":
        return [Job({"swaps": name}, seed) for name, seed in which]
    record = [] if args.own else [Job({"what": "demonstrations"})]
    before = tuple(job.name for job in record)
    trained = [Job({"variant": name}, seed, after=before) for name, seed in which]
    told = [Job({"swaps": job.what["variant"]}, job.seed, after=(job.name,)) for job in trained if args.swaps == "too"]
    return record + trained + told


def run(job: Job, args: Args) -> Row | list[Row]:
    started = time.time()
    if "what" in job.what:
        seconds = record(args.folder_of_data, args, range(max(1, torch.cuda.device_count())))
        if not (args.folder_of_data / "decoded").exists():
            keep_decoded(read_dataset(args.folder_of_data), args.folder_of_data / "decoded")
        return {"seconds": seconds}
    gpu = torch.cuda.current_device() if args.where.type == "cuda" else 0
    if "swaps" in job.what:
        return tell_others(job, args, gpu)
    variant = VARIANTS[job.what["variant"]]
    folder = args.folder_of_data / f"{os.getpid()}-{job.seed}" if args.own else args.folder_of_data
    found: Row = {"about": variant.about, "own": args.own}
    if args.own:
        found["seconds_to_record"] = record(folder, args, [gpu])
    judges = judges_for(variant, args, gpu)
    kept = path_of(job.what["variant"], job.seed, args)
    if not kept.exists():
        recorded = read_dataset(folder) if args.own else read_decoded(folder / "decoded")
        save(*learn(variant, recorded, int(job.seed or 0), args), kept)
        del recorded
    policy, learned = restore(kept, args.where)
    found |= learned
    found |= judged(policy, judges, args, int(job.seed or 0), variant)
    judges.close()
    if args.own:
        shutil.rmtree(folder)
    return {**found, "seconds_in_all": time.time() - started}


def path_of(variant: str, seed: int | None, args: Args) -> Path:
    """Where a trained policy is kept."""
    return args.keep / f"{variant}-{seed}-{args.steps}.pt"


def judges_for(variant: Variant, args: Args, gpu: int) -> Judges:
    """Processes in which a policy of that variant acts."""
    config = MetaWorldConfig(args.image_size, samples=4, max_steps=args.max_steps)
    return Judges(args.processes, config, variant.sizes.horizon, gpu)


def record(folder: Path, args: Args, gpus: Any) -> float:
    """Record the demonstrations; returns the seconds that it took."""
    started = time.time()
    names = tuple(task.name for task in find_tasks(args.tasks))
    workers = args.processes * (1 if args.own else max(1, args.workers))
    collect(folder, Plan(names, args.demos, args.image_size, samples=4), workers, list(gpus))
    return time.time() - started


def keep_decoded(recorded: Demonstrations, folder: Path) -> None:
    """Keep frames as arrays, so that many jobs on one machine need not decode them again."""
    whole, folder = folder, folder.with_name(f"decoding-{os.getpid()}")
    folder.mkdir()
    (camera,) = recorded.images
    sentences = list(dict.fromkeys(recorded.instructions))
    told = np.array([sentences.index(text) for text in recorded.instructions])
    arrays = {"actions": recorded.actions, "states": recorded.states, "episodes": recorded.episodes, "told": told}
    for name, array in {camera: recorded.images[camera], "sentences": np.array(sentences), **arrays}.items():
        np.save(folder / name, array)  # type: ignore[arg-type]
    folder.rename(whole)


def read_decoded(folder: Path) -> Demonstrations:
    """Returns what `keep_decoded` kept; the pictures stay in the file until they are used."""
    kept = {path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")}
    sentences, told, names = kept.pop("sentences").tolist(), kept.pop("told"), ("actions", "states", "episodes")
    actions, states, episodes = (np.asarray(kept.pop(name)) for name in names)
    return Demonstrations(kept, actions, [sentences[number] for number in told], episodes, states)


def learn(variant: Variant, recorded: Demonstrations, seed: int, args: Args) -> tuple[TinyVLA, Row]:
    """Returns a policy that was trained on the first demonstrations of each task, and how that went."""
    started = time.time()
    data = reduced(recorded, variant, len(find_tasks(args.tasks)))
    model = data.robot_config(variant.sizes, variant.preset, variant.fusion, variant.head)
    policy = new_policy(model, seed, args.where)
    tensors = data.tensors(policy, args.where)
    del recorded, data
    gc.collect()
    train = replace(RECORDINGS.train, **{"seed": seed, "batch_size": args.batch_size, **dict(variant.train)})
    train = replace(train, epochs=args.steps / train.steps_per_epoch(len(tensors)))
    policy.prepare_for(tensors)
    step = make_step(policy, tensors, train, "compiled" if args.where.type == "cuda" else "auto")
    loaded = time.time()
    look = tensors.rows(torch.arange(0, len(tensors), max(1, len(tensors) // 500), device=tensors.device))
    records = fit(policy, tensors, look, train, step)
    numbers = {"parameters": policy.num_parameters()["total"], "frames": len(tensors)}
    numbers |= {"steps": args.steps, "epochs": train.epochs, "batch_size": train.batch_size}
    numbers |= {"seconds_to_load": loaded - started, "seconds_to_train": time.time() - loaded}
    return policy, {**numbers, "train_loss": records[-1]["train_loss"], "recipe": recipe_of(train)}


def reduced(recorded: Demonstrations, variant: Variant, num_tasks: int) -> Demonstrations:
    """What a variant may learn from: fewer episodes, black pictures, one sentence for all, no state."""
    data = recorded
    if variant.demos * num_tasks <= data.episodes[-1]:
        data = data.rows(np.flatnonzero(data.episodes < variant.demos * num_tasks))
    if not variant.picture:
        data = replace(data, images={name: np.zeros_like(images) for name, images in data.images.items()})
    if not variant.words:
        data = replace(data, instructions=[SAME_SENTENCE] * len(data))
    return data if variant.state else replace(data, states=None)


def recipe_of(train: TrainConfig) -> Row:
    """The settings that decide what is learned."""
    names = ("optimizer", "learning_rate", "weight_decay", "warmup_steps", "decay_fraction", "shift", "state_noise")
    return {name: getattr(train, name) for name in names}


def judged(policy: TinyVLA, judges: Judges, args: Args, seed: int, variant: Variant) -> Row:
    """Returns how a policy acts: the benchmark, other numbers of actions after a look, and sentences of other tasks."""
    started, tasks = time.time(), find_tasks(args.tasks)
    told = None if variant.words else {task.name: SAME_SENTENCE for task in tasks}
    answer = Blind(policy, told, variant.picture)
    found: Row = {}
    for execute in args.executes:
        episodes = judge(judges, answer, tasks, args.episodes, Mode(execute), seed)
        if execute == args.executes[0]:
            found |= {"execute": execute, **report_of(episodes), "seconds_to_judge": time.time() - started}
        else:
            found[f"execute_{execute}"] = report_of(episodes)["mean_of_groups"]
    return found


def tell_others(job: Job, args: Args, gpu: int) -> list[Row]:
    """Returns how often a scene's own task is done when the policy is told a task that looks alike, by scene and told.

    The starts are those of the benchmark, where it was told the scene's own sentence.
    """
    name, seed = job.what["swaps"], int(job.seed or 0)
    judges = judges_for(VARIANTS[name], args, gpu)
    policy, _ = restore(path_of(name, job.seed, args), args.where)
    here = {task.name: task for task in find_tasks(args.tasks)}
    others: dict[str, list[str]] = {}
    for first, second in (pair for pair in PAIRS if set(pair) <= set(here)):
        others.setdefault(first, []).append(second)
        others.setdefault(second, []).append(first)
    rows = []
    for turn in range(max(map(len, others.values()), default=0)):
        told = {name: names[turn] for name, names in others.items() if turn < len(names)}
        answer = PolicyAnswer(policy, told={name: here[other].sentence for name, other in told.items()})
        ended = judge(judges, answer, [here[name] for name in told], args.episodes, Mode(args.executes[0]), seed)
        for name, other in told.items():
            own = [episode for episode in ended if episode.task == name]
            row: Row = {"scene": name, "told": other, "does_its_own": sum(episode.success for episode in own)}
            if other in GOALS:
                which, within_metres = GOALS[other]
                row["does_the_other"] = sum(getattr(episode, which) <= within_metres for episode in own)
            rows.append({**row, "episodes": len(own), "steps": args.steps})
    judges.close()
    return rows


class Blind(PolicyAnswer):
    """A policy that may be shown black pictures, as it was in training."""

    def __init__(self, policy: TinyVLA, told: dict[str, str] | None, picture: bool) -> None:
        super().__init__(policy, told=told)
        self.picture = picture

    def __call__(self, images: np.ndarray, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Returns chunks, as every answer does."""
        return super().__call__(images if self.picture else np.zeros_like(images), states, tasks)


def save(policy: TinyVLA, learned: Row, path: Path) -> None:
    """Keep a policy in half precision, of the word embedding only the rows that were trained, and how it learned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in
               policy.state_dict().items()}  # fmt: skip
    embedding = weights.pop("language.token_embedding.weight")
    rows = policy.language.seen.nonzero().flatten()  # type: ignore[operator]
    kept = {"config": policy.config.to_dict(), "weights": weights, "rows": rows, "embedding": embedding[rows].clone()}
    torch.save({name: _on_cpu(value) for name, value in kept.items()} | {"learned": learned}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _on_cpu(inner) for name, inner in value.items()}
    return value.cpu() if isinstance(value, torch.Tensor) else value


def restore(path: Path, device: torch.device | str = "cpu") -> tuple[TinyVLA, Row]:
    """Returns a policy that `save` kept, and how it learned; the words that it was never taught are new ones."""
    kept = torch.load(path, map_location="cpu", weights_only=True)
    policy = new_policy(ModelConfig.from_dict(kept["config"]), 0, torch.device("cpu"))
    own = policy.state_dict()
    embedding = own["language.token_embedding.weight"]
    embedding[kept["rows"]] = kept["embedding"].float()
    policy.load_state_dict({**{name: value.to(own[name].dtype) for name, value in kept["weights"].items()},
                            "language.token_embedding.weight": embedding})  # fmt: skip
    return policy.eval().to(device), kept.get("learned", {})


def summary(rows: list[Row], args: Args) -> Row:
    device = harness.describe_device(args.where)["device"]
    runs = [{**row, "device": device} for row in rows if "variant" in row]
    return {
        **args.settings("tasks", "demos", "image_size"),
        "policies": over_seeds(runs),
        "runs": runs,
        "swaps": [{**row, "device": device} for row in rows if "swaps" in row],
        "recordings": [row for row in rows if "what" in row],
    }


def over_seeds(runs: list[Row]) -> Row:
    """Each variant, by its name (and its steps, where they are others than the recipe's), over its seeds."""
    found: Row = {}
    for (name, steps), some in groups(runs, "variant", "steps").items():
        means = [run["mean_of_groups"] for run in some]
        groups_of = {g: float(np.mean([run["groups"][g]["success"] for run in some])) for g in some[0]["groups"]}
        found[name if steps == RECORDINGS.num_steps else f"{name}-{steps}"] = {
            "mean": float(np.mean(means)),
            "min": min(means),
            "max": max(means),
            "seeds": len(some),
            "groups": groups_of,
            "share_of_episodes": float(np.mean([run["over_episodes"]["success"] for run in some])),
            "episodes": some[0]["over_episodes"]["episodes"],
            **{key: some[0][key] for key in ("parameters", "frames", "steps")},
        }
    return found


KEYS = {"runs": ("variant", "seed", "steps"), "swaps": ("swaps", "seed", "steps", "scene", "told")}
"""What tells a row of an earlier call from others."""


def combine(before: Row, now: Row, args: Args) -> Row:
    """Rows of earlier calls stay, but for those that were measured again; each says which command made it."""
    joined = {}
    for kind, keys in KEYS.items():
        rows = [{**row, "command": now["command"]} for row in now[kind]]
        again = {tuple(row[key] for key in keys) for row in rows}
        joined[kind] = [r for r in before.get(kind, []) if tuple(r[key] for key in keys) not in again] + rows
    commands = list(dict.fromkeys(row["command"] for rows in joined.values() for row in rows))
    recordings = now["recordings"] or before.get("recordings", [])
    policies = over_seeds(joined["runs"])
    return {**now, "command": " && ".join(commands), "policies": policies, **joined, "recordings": recordings}


if __name__ == "__main__":
    main(Args, jobs, run, summary, combine)
