r"""How many labels does a pretraining save? Writes `results/pretraining.json`.

    python experiments/pretraining.py --device cuda --workers 8

The towers are pretrained on captioned photographs (`tinyvla.adapt.pretraining`), anew for each seed. Then policies
learn to act from few and from many labelled photographs, all for the same number of steps, without early stopping:
- scratch: everything learns, from initial weights;
- frozen: the pretrained towers stay as they are; fusion and head learn;
- fine-tuned: everything learns, the towers from their pretrained weights on;
- random: the towers stay as they are and were never trained, which tells what freezing alone does;
- clean: scratch on the plain renderings, which tells how much of the difficulty the photographs make.

The second command asks the same of worse photographs, and writes `results/pretraining_worse.json`:

    python experiments/pretraining.py --device cuda --workers 8 \
        --camera.light 1.6 --camera.ground 80 --camera.shade 30 --camera.grain 24 --out results/pretraining_worse.json
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import harness
import torch
from harness import Job, Row, groups, main, spreads
from page import Results, grid, listed, points, prose, section_of, source, span
from safetensors.torch import load_file, save_file
from training import judge, prepared, train_rows

from tinyvla.adapt.pretraining import (
    Camera,
    ImageCaptionModel,
    PretrainConfig,
    captioned,
    matching_accuracy,
    photograph,
    pretrain,
    take_towers,
)
from tinyvla.config import model_config
from tinyvla.data.batch import CAMERA, TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.device import has_bfloat16_units
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import restart

RESULTS = ("pretraining", "pretraining_worse")
METHODS = ("scratch", "frozen", "fine-tuned", "random", "clean")
PAIRS = (("frozen", "scratch"), ("fine-tuned", "scratch"), ("frozen", "random"))
METRICS = ("direction_accuracy", "within_10_degrees", "l2_error")
SETTINGS = TrainConfig(learning_rate=1e-3)
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
"""Student's t for a 95 % interval of a mean of so many values."""


@dataclass(frozen=True)
class Args(harness.Args):
    """Pretrain, then train and judge all."""

    seeds: int = 10
    methods: tuple[str, ...] = METHODS
    sizes: tuple[int, ...] = (100, 200, 500, 1000, 2000, 8000)
    """Numbers of labelled scenes."""
    few_sizes: tuple[int, ...] = (100, 500, 2000)
    """Of the controls, random and clean."""
    num_steps: int = 800
    """Of each policy's training, whatever its number of labels."""
    num_pairs: int = 50_000
    """Captioned scenes for the pretraining."""
    pretrain_steps: int = 5_000
    pretrain_batch: int = 256
    num_test: int = 1_000
    preset: str = "nano"
    camera: Camera = Camera()  # noqa: RUF009 - frozen
    out: Path = Path("results/pretraining.json")

    @property
    def pretraining(self) -> PretrainConfig:
        """How the towers are pretrained."""
        return PretrainConfig(num_pairs=self.num_pairs, num_steps=self.pretrain_steps, batch_size=self.pretrain_batch)

    def sizes_of(self, method: str) -> tuple[int, ...]:
        """Numbers of labels."""
        return self.few_sizes if method in ("random", "clean") else self.sizes


def jobs(args: Args) -> list[Job]:
    """Pretrainings, then for each seed all methods."""
    first = [Job({"study": "pretrain"}, seed) for seed in range(args.seeds)]
    done = tuple(job.name for job in first)
    names = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    return first + [Job({"study": "labels", "method": method}, seed, after=done) for method, seed in names]


def run(job: Job, args: Args) -> Row | list[Row]:
    return pretrain_towers(job, args) if job.what["study"] == "pretrain" else train_method(job, args)


def pretrain_towers(job: Job, args: Args) -> Row:
    """One pretraining; its weights go to a file."""
    model = new_towers(args.preset, job.seed).to(args.where)
    started = time.perf_counter()
    config, bfloat16 = replace(args.pretraining, seed=job.seed), has_bfloat16_units(args.where)
    loss = pretrain(model, config, args.camera, bfloat16)
    seconds = time.perf_counter() - started
    images, (ids, mask) = captioned(200, 8_000_000, args.where)
    photographs = photograph(images, torch.Generator(args.where).manual_seed(0), args.camera)
    match = matching_accuracy(model, photographs, ids, mask)
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, args.folder / f"towers_{job.seed}.safetensors")
    return {"loss": loss, "matching_accuracy_of_200": match, "seconds": seconds}


def new_towers(preset: str, seed: int) -> ImageCaptionModel:
    """Towers that nobody has trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ImageCaptionModel(model_config(preset))


def train_method(job: Job, args: Args) -> list[Row]:
    """One method and seed, with every number of labels; a step that is prepared once serves them all."""
    method, sizes = job.what["method"], args.sizes_of(job.what["method"])
    start, policy = (start_of(method, job.seed, args).to(args.where) for _ in range(2))
    camera = None if method == "clean" else args.camera
    split = labelled(policy, max(sizes), 1_000 + job.seed, camera)
    test = labelled(policy, args.num_test, args.data.test_seed, camera)
    config = replace(SETTINGS, seed=job.seed)
    step = prepared(policy, split, config)
    rows = []
    for count in sizes:
        restart(policy, step.optimizer, start)
        trained = train_rows(policy, split, config, step, range(count), args.num_steps)
        last, figures = trained.losses[-20:], judge(policy, test)
        row = {"num_labels": count, "train_loss": sum(last) / len(last), "seconds": trained.seconds}
        rows.append({**row, **{name: getattr(figures, name) for name in METRICS}})
    return rows


def start_of(method: str, seed: int, args: Args) -> TinyVLA:
    """A policy as it is before the first label."""
    policy = new_policy(model_config(args.preset), seed)
    if method in ("frozen", "fine-tuned"):
        model = new_towers(args.preset, seed)
        model.load_state_dict(load_file(args.folder / f"towers_{seed}.safetensors"))
        take_towers(policy, model, frozen=method == "frozen")
    if method == "random":
        policy.vision.requires_grad_(False)
        policy.language.requires_grad_(False)
    return policy


def labelled(policy: TinyVLA, count: int, seed: int, camera: Camera | None) -> TensorSplit:
    """Scenes with instruction and action; photographed, or plain without a camera. The same on every device."""
    split = TensorSplit.from_blockfind(BlockFind(count, seed), policy.language.encode)
    if camera:
        generator = torch.Generator().manual_seed(seed)
        parts = [photograph(part, generator, camera) for part in split.images[CAMERA].split(500)]
        split = replace(split, images={CAMERA: torch.cat(parts)})
    return split.to(policy.device)


def summary(rows: list[Row], args: Args) -> Row:
    studies = groups(rows, "study")
    found, pretrained = ([without_study(row) for row in studies[(name,)]] for name in ("labels", "pretrain"))
    by_size = groups(found, "method", "num_labels")
    gaps = [
        paired_difference(by_size[better, count], by_size[worse, count])
        for better, worse in PAIRS
        for count in args.sizes
        if {(better, count), (worse, count)} <= by_size.keys()
    ]
    names = ("seeds", "preset", "sizes", "few_sizes", "num_steps", "num_test", "camera")
    return {
        **args.settings(*names),
        "learning_rate": SETTINGS.learning_rate,
        "batch_size": SETTINGS.batch_size,
        "pretraining": asdict(args.pretraining),
        "pretrained": pretrained,
        "complete": True,
        "differences": gaps,
        "summary": [
            {"method": method, "num_labels": count, **spreads(runs, (*METRICS, "train_loss"))}
            for (method, count), runs in by_size.items()
        ],
        "rows": found,
    }


def without_study(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "study"}


def paired_difference(better: list[Row], worse: list[Row]) -> Row:
    """Mean difference in direction accuracy over the seeds, and its 95 % t-interval."""
    one, other = ({run["seed"]: run["direction_accuracy"] for run in runs} for runs in (better, worse))
    gaps = torch.tensor([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())], dtype=torch.double)
    half = T_95[len(gaps)] * gaps.std().item() / math.sqrt(len(gaps)) if len(gaps) in T_95 else math.nan
    mean = gaps.mean().item()
    about = {"better": better[0]["method"], "worse": worse[0]["method"], "num_labels": better[0]["num_labels"]}
    return {**about, "mean": mean, "interval": [mean - half, mean + half], "gaps": gaps.tolist()}


def accuracy_table(results: Results, methods: tuple[str, ...]) -> str:
    """Direction accuracy of each way, for each number of labels."""
    found = {(row["method"], row["num_labels"]): row["direction_accuracy"] for row in results["summary"]}
    rows = []
    for count in results["sizes"]:
        spreads_of_count = (found.get((method, count)) for method in methods)
        cells = (span({key: 100 * x for key, x in row.items()}, ".0f") if row else "" for row in spreads_of_count)
        rows.append((f"{count:,}", *cells))
    return grid(f"labels | {' | '.join(methods)}", rows)


def difference_table(files: tuple[Results, ...]) -> str:
    """Points within each seed, and the 95 % interval of their mean, for each camera; bold where it leaves out zero."""
    rows: dict[tuple[str, str, int], list[str]] = {}
    for results in files:
        for gap in results["differences"]:
            mean, low, high = (points(x, 1) for x in (gap["mean"], *gap["interval"]))
            key = (gap["better"], gap["worse"], gap["num_labels"])
            text = f"{mean} ({low} to {high})"
            ends = gap["interval"]
            rows.setdefault(key, []).append(f"**{text}**" if ends[0] * ends[1] > 0 else text)
    cells = ((f"{better} − {worse}", f"{count:,}", *row) for (better, worse, count), row in rows.items())
    return grid("difference | labels | first camera | second camera", cells)


def unfitted(results: Results) -> str:
    """How many runs from scratch have not learned the most labels that they were given."""
    most = max(results["sizes"])
    losses = [r["train_loss"] for r in results["rows"] if (r["method"], r["num_labels"]) == ("scratch", most)]
    return f"{sum(loss > 0.1 for loss in losses)} of {len(losses)}"


def section(first: Row, second: Row) -> str:
    cost, most = first["pretraining"], max(first["sizes"])
    about = f"""`{first["preset"]}` on photographs of scenes, {first["seeds"]} seeds, {first["num_test"]:,} test
        scenes, {first["num_steps"]} steps of {first["batch_size"]} whatever the number of labels. For each seed two
        towers learn anew from {cost["num_pairs"]:,} captioned photographs ({cost["num_steps"]:,} steps of
        {cost["batch_size"]}). *Scratch*: the policy learns from labels alone. *Frozen*: the pretrained towers stay
        as they are. *Fine-tuned*: they learn on. *Random*: towers that nobody trained stay as they are. *Clean*:
        scratch, on plain renderings. Direction accuracy in per cent, median (minimum-maximum):"""
    camera = listed(f"{name} {first['camera'][name]:g} to {value:g}" for name, value in second["camera"].items())
    again = f"""The same protocol with worse photographs ({camera}). **This second camera was chosen after the first
        result had been seen.** So it is no independent test; it shows how far the answer depends on the pictures:"""
    gaps = """Differences in points within each seed, and the 95 % interval of their mean, in bold where it leaves
        out zero:"""
    steps = f"""With {most:,} labels, {unfitted(first)} runs from scratch (first camera) and {unfitted(second)}
        (second) have not fitted their own labels when their {first["num_steps"]} steps are over (training loss above
        0.1). More labels would not help those, and the differences there contain them."""
    return section_of(
        "Pretrained towers",
        prose(about),
        accuracy_table(first, METHODS),
        prose(again),
        accuracy_table(second, METHODS[:-1]),
        prose(gaps),
        difference_table((first, second)),
        prose(steps),
        source(first, second),
    )


if __name__ == "__main__":
    main(Args, jobs, run, summary)
