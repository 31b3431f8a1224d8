"""Every action head on the same backbone, where one answer is right and where several are. Writes `results/heads.json`.

    python experiments/heads.py --device cuda --workers 8

Three kinds of data, three seeds each:
- one answer: BlockFind;
- two answers: two blocks of the named colour, the label is one of them by chance;
- trajectories: chunks of steps to the block along an arc, to either side, with a pause at any moment.
Flow matching and diffusion are also asked with fewer and with more sampling steps than they were trained for; the time
of an answer is measured at the end, with the trained weights and nothing else running.

`results/heads_longer.json` is FAST alone, with more epochs on trajectories (`--heads fast --epochs 2 9 6`).
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from harness import Job, Row, groups, main, spreads
from page import grid, prose, section_of, share, source
from training import blockfind, judge, train

from tinyvla.config import ModelConfig, model_config
from tinyvla.data.batch import CAMERA, TensorSplit
from tinyvla.data.dataset import BlockFind, trajectories, valid_trajectories
from tinyvla.device import synchronize
from tinyvla.learn.callbacks import Callback
from tinyvla.learn.evaluate import ambiguity, predict_split
from tinyvla.model.heads import DirectionsHead
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig

RESULTS = ("heads", "heads_longer")
HORIZON = 16
HIDDEN = 256
GENERATIVE = ("bins", "fast", "flow", "diffusion")
SAMPLING_STEPS = (1, 2, 5, 10, 20, 50)
TIMED_BATCHES, REPEATS = (1, 256), 20
HEADS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression"},
    "l1": {"kind": "l1"},
    "directions-4": {"kind": "directions", "num_directions": 4},
    "directions-8": {"kind": "directions", "num_directions": 8},
    "bins": {"kind": "bins"},
    "fast": {"kind": "fast"},
    "flow": {"kind": "flow", "num_steps": 10},
    "diffusion": {"kind": "diffusion", "num_steps": 20},
}
KINDS_OF_DATA = {
    "one answer": [name for name in HEADS if name != "fast"],
    "two answers": [name for name in HEADS if name != "fast"],
    "trajectories": ["regression", "l1", "bins", "fast", "flow", "diffusion"],
}
LONGEST_FIRST = ("two answers", "trajectories", "one answer")


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge every head on all kinds of data with every seed."""

    seeds: int = 3
    preset: str = "nano"
    scenes: int = 40_000
    """Of the training split."""
    epochs: tuple[int, int, int] = (2, 8, 8)
    """On one answer, on two, and on trajectories. Heads with one answer per scene have nothing to gain from seeing two
    of them for longer, so on two answers they get as many epochs as on one."""
    learning_rate: float = 1e-3
    heads: tuple[str, ...] = tuple(HEADS)
    out: Path = Path("results/heads.json")

    def epochs_of(self, head: str, data: str) -> int:
        """Passes over the training split."""
        on = dict(zip(KINDS_OF_DATA, self.epochs, strict=True))
        return on["one answer"] if data == "two answers" and head not in GENERATIVE else on[data]

    def checkpoint(self, what: Row) -> Path:
        """Where the first seed's weights are kept."""
        return self.folder / f"{what['head']} {what['data']}".replace(" ", "_")


def jobs(args: Args) -> list[Job]:
    """All trainings, then the time of each head's answer."""
    pairs = [{"head": head, "data": data} for data in LONGEST_FIRST for head in KINDS_OF_DATA[data]]
    pairs = [pair for pair in pairs if pair["head"] in args.heads]
    trainings = [Job({"study": "train", **pair}, seed) for pair in pairs for seed in range(args.seeds)]
    done = tuple(job.name for job in trainings)
    return trainings + [Job({"study": "time", **pair}, after=done, alone=True) for pair in pairs]


def run(job: Job, args: Args) -> Row:
    if job.what["study"] == "train":
        return train_head(job, args)
    policy = TinyVLA.from_pretrained(args.checkpoint(job.what), str(args.where))
    times = {str(batch): milliseconds(policy, batch) for batch in TIMED_BATCHES}
    return {"milliseconds": times, "parameters": policy.num_parameters()["head"]}


def train_head(job: Job, args: Args) -> Row:
    """A trained head's figures on the test split; of two answers, also after each epoch."""
    head, data = job.what["head"], job.what["data"]
    scenes = scenes_of(data, args)
    policy = new_policy(with_head(args.preset, head, data), job.seed, args.where)
    split, val = (tensors(policy, part, data, number) for number, part in enumerate(scenes[:2]))
    if data == "trajectories":
        policy.fit_statistics(split.actions)
    epochs = args.epochs_of(head, data)
    config = TrainConfig(epochs=epochs, learning_rate=args.learning_rate, seed=job.seed)
    watch = NearOne(policy, scenes[1] if data == "two answers" else None)
    trained = train(policy, split, val, config, callbacks=[watch])
    row = {"seconds": trained.seconds, "curve": watch.curve, "epochs": epochs, **figures(policy, data, scenes[2])}
    if job.seed == 0:
        policy.save_pretrained(args.checkpoint(job.what))
    if data == "two answers" and head in ("flow", "diffusion"):
        row["by_sampling_steps"] = by_sampling_steps(policy, scenes[2])
    return row


def scenes_of(data: str, args: Args) -> tuple[BlockFind, BlockFind, BlockFind]:
    """Training, validation and test scenes of a kind of data."""
    sizes = replace(args.data, num_train=args.scenes)
    if data != "two answers":
        return blockfind(sizes)
    pairs = ((sizes.num_train, sizes.train_seed), (sizes.num_val, sizes.val_seed), (sizes.num_test, sizes.test_seed))
    train_scenes, val_scenes, test_scenes = (BlockFind.ambiguous(count, seed) for count, seed in pairs)
    return train_scenes, val_scenes, test_scenes


def with_head(preset: str, name: str, data: str) -> ModelConfig:
    """The preset with a head for a kind of data."""
    config = model_config(preset)
    head = replace(config.head, hidden_dim=HIDDEN, **HEADS[name])
    if data == "trajectories":
        # Tokens need bounded numbers; noise of variance one needs actions of about that variance.
        normalization = "quantiles" if name in ("bins", "fast") else "mean-std"
        head = replace(head, horizon=HORIZON, normalization=normalization)
    return replace(config, head=head)


def tensors(policy: TinyVLA, scenes: BlockFind, data: str, seed: int = 0) -> TensorSplit:
    """The scenes with their arrows, or with trajectories drawn from a seed."""
    actions = trajectories(scenes, HORIZON, seed) if data == "trajectories" else scenes.actions
    images = {CAMERA: scenes.images}
    return TensorSplit.from_arrays(images, scenes.instructions, actions, policy.language.encode, policy.device)


class NearOne(Callback):
    """Notes after each epoch which share of the answers is near one of the two right ones."""

    def __init__(self, policy: TinyVLA, val: BlockFind | None) -> None:
        self.policy, self.val, self.curve = policy, val, []

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Ask, where two answers are right."""
        if self.val is not None:
            self.curve.append(ambiguity(self.policy, self.val, num_draws=2).near_one)


def figures(policy: TinyVLA, data: str, test: BlockFind) -> Row:
    """What a trained policy is worth on the test split."""
    if data == "two answers":
        return asdict(ambiguity(policy, test))
    split = tensors(policy, test, data)
    if data == "trajectories":
        return figures_of_chunks(predict_split(policy, split).numpy(), test)
    row = asdict(judge(policy, split))
    if isinstance(policy.head, DirectionsHead):
        predicted, labels = (actions.to(policy.device) for actions in (predict_split(policy, split), split.actions))
        right = policy.head.classes(predicted) == policy.head.classes(labels)
        row["class_accuracy"] = right.double().mean().item()
    return row


def figures_of_chunks(predicted: np.ndarray, test: BlockFind) -> dict[str, float]:
    """How far from the block a chunk ends, and from the nearest of the ways that were demonstrated, in pixels.

    Also: how many of its steps stand still, shorter than a tenth of the mean step, and the share of the chunks near a
    way that bulge to the left.
    """
    valid = valid_trajectories(test, HORIZON)
    ends = np.linalg.norm(predicted.sum(axis=1) - valid[:, 0].sum(axis=1), axis=1)
    places, ways = predicted.cumsum(axis=1), valid.cumsum(axis=2)
    off = np.linalg.norm(places[:, None] - ways, axis=-1).mean(axis=2)  # (n, ways); sides take turns
    nearest, off = off.argmin(axis=1), off.min(axis=1)
    lengths = np.linalg.norm(predicted, axis=2)
    return {
        "end_error": float(np.median(ends)),
        "distance_to_a_way": float(np.median(off)),
        "near_a_way": float((off < 1.5).mean()),
        "left_chosen": float((nearest[off < 1.5] % 2 == 0).mean()) if (off < 1.5).any() else 0.5,
        "still_steps": float((lengths < 0.1 * lengths.mean(axis=1, keepdims=True)).sum(axis=1).mean()),
    }


def by_sampling_steps(policy: TinyVLA, test: BlockFind) -> dict[str, float]:
    """Share of the answers near a right one, with fewer and more steps from noise to action."""
    found, trained_with = {}, policy.head.config
    for steps in SAMPLING_STEPS:
        policy.head.config = replace(trained_with, num_steps=steps)
        found[str(steps)] = ambiguity(policy, test).near_one
    policy.head.config = trained_with
    return found


@torch.no_grad()
def milliseconds(policy: TinyVLA, size: int) -> float:
    """Median time of an answer, image and words included."""
    batch = tensors(policy, BlockFind(size, 1), "one answer").take(slice(0, size))
    times = []
    for _ in range(REPEATS + 3):
        synchronize(policy.device)
        started = time.perf_counter()
        policy(batch)
        synchronize(policy.device)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[3:])


def summary(rows: list[Row], args: Args) -> Row:
    studies = groups(rows, "study")
    heads: Row = {head: {} for head in args.heads}
    for (head, data), runs in groups(studies[("train",)], "head", "data").items():
        heads[head][data] = over_seeds(runs)
    for row in studies[("time",)]:
        heads[row["head"]][row["data"]] |= {name: row[name] for name in ("milliseconds", "parameters")}
    kept = args.settings("preset", "scenes", "learning_rate", "seeds")
    return {**kept, "hidden_dim": HIDDEN, "horizon": HORIZON, "heads": heads}


def over_seeds(runs: list[Row]) -> Row:
    """Spread of each figure."""
    about = ("seed", "epochs")
    names = [name for name, value in runs[0].items() if isinstance(value, int | float) and name not in about]
    found: Row = {**spreads(runs, names), "epochs": runs[0]["epochs"], "curves": [run["curve"] for run in runs]}
    if "by_sampling_steps" in runs[0]:
        found["by_sampling_steps"] = spreads([run["by_sampling_steps"] for run in runs], map(str, SAMPLING_STEPS))
    return found


def section(heads: Row, more: Row) -> str:
    rows = []
    for name, row in heads["heads"].items():
        one, two, ways = (row.get(data) for data in ("one answer", "two answers", "trajectories"))
        cells = [
            share(one.get("class_accuracy", one["direction_accuracy"])) if one else "",
            share(two["near_one"]) if two else "",
            share(two["first_chosen"]) if two else "",
            share(ways["near_a_way"]) if ways else "",
            f"{one['milliseconds']['1']:.1f}" if one else "",
        ]
        rows.append((name, *cells))
    about = f"""`{heads["preset"]}`, {heads["seeds"]} seeds. One answer: direction accuracy. Two answers: the share
        of answers within 10 degrees of one of the two blocks, and how often the first one was chosen. Trajectories:
        the share near a demonstrated way. Flow matching takes {HEADS["flow"]["num_steps"]} sampling steps, diffusion
        {HEADS["diffusion"]["num_steps"]}. Milliseconds of one answer, for one scene; not shown for FAST, which answers
        with chunks and was measured on them."""
    longer, short = more["heads"]["fast"]["trajectories"], heads["heads"]["fast"]["trajectories"]["epochs"]
    near = share(longer["near_a_way"])
    note = f"""Four and eight directions are judged by whether they name the right one: the nearest of four may lie 45
        degrees off. FAST with {longer["epochs"]} epochs on trajectories instead of {short}, in all seeds: {near}."""
    return section_of(
        "Action heads",
        prose(about),
        grid("head | one answer | two answers | first chosen | trajectories | ms", rows),
        prose(note),
        source(heads, more),
    )


if __name__ == "__main__":
    main(Args, jobs, run, summary)
