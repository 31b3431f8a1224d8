"""LoRA against full fine-tuning and frozen towers, on a changed task. Writes `results/lora.json`.

    python experiments/lora.py --device cuda

A policy that finds red, green, blue ... blocks is to go to cyan, magenta, pink ... ones, told in other words. For each
preset and seed a base is trained with the benchmark's recipe, then changed, each way in the same number of steps:
- full: every weight is trained;
- frozen: both towers stay as they are, fusion and head are trained;
- lora-R: adapters of rank R beside the attention layers and the input projections, all else is frozen;
- lora-R-words: also beside the token embedding; lora-R-mlp: also beside the MLPs.
The presets `towers` and `towers-nano` are of `transformers`' own classes, SigLIP and Llama, at the sizes of `minimal`
and `nano`. The hub's weights are not needed: these towers are trained here like the others.

Learning rates are chosen for each way on the changed task's validation split, with the first seed. Measured on its test
split, and on the old task's to see what is forgotten; then memory, time, files, and the answers of saved and of merged
adapters.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import harness
import torch
from harness import Job, Row, groups, main, spreads
from page import Results, bare, grid, percent, prose, section_of, share, source
from safetensors.torch import load_file, save_file
from training import judge, prepared, train_rows

from tinyvla.adapt.lora import add_lora, load_adapter, merge, save_adapter, trainable_parameters
from tinyvla.config import PRESETS, ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, ChangedFind
from tinyvla.device import synchronize
from tinyvla.learn.evaluate import predict_split, validation_loss
from tinyvla.learn.train import PlainStep
from tinyvla.measure.bench import RECIPES
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import pretrained_config
from tinyvla.model.tokenizer import load_tokenizer
from tinyvla.recipes import TrainConfig
from tinyvla.speed.cuda_graph import restart
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

RESULTS = ("lora",)
TOWERS = (200, TrainConfig(learning_rate=1e-3, warmup_steps=40))
"""Steps and settings of a base of `transformers`' classes."""
EXTRA = {"words": "embedding", "mlp": "mlp"}
RATES = {"full": (1e-4, 3e-4, 1e-3), "frozen": (1e-3, 3e-3), "lora": (5e-4, 1.5e-3, 4e-3)}
SEEDS = {"train": 142, "val": 143, "test": 144}
"""Of the changed task's scenes, which are none of the old task's."""
METRICS = ("direction_accuracy", "within_10_degrees", "old_direction_accuracy", "seconds")
State = dict[str, torch.Tensor]
Splits = dict[str, TensorSplit]


@dataclass(frozen=True)
class Args(harness.Args):
    """Change every preset in every way."""

    presets: tuple[str, ...] = ("medium",)
    ways: tuple[str, ...] = ("full", "frozen", "lora-16", "lora-4", "lora-1", "lora-4-words")
    """"full", "frozen", "lora-RANK", "lora-RANK-words", "lora-RANK-mlp"."""
    sizes: tuple[int, ...] = (200, 1_000, 8_000)
    """Numbers of scenes of the changed task."""
    middle: int = 1_000
    """The one of them at which learning rates are chosen and ranks compared."""
    seeds: int = 3
    base_steps: int | None = None
    """Of a base's training; as its recipe says unless given."""
    steps: int = 150
    """Of every run, whatever the number of scenes."""
    rates: int = 3
    """How many learning rates to try for each way, from the lowest up."""
    num_val: int = 500
    num_test: int = 1_000
    out: Path = Path("results/lora.json")
    """Added to if it is there, so that presets can be measured one by one."""

    @property
    def main_way(self) -> str:
        """LoRA of the largest rank, the only one that is tried with all numbers of scenes."""
        return f"lora-{max((int(way.split('-')[1]) for way in self.ways if way.startswith('lora')), default=0)}"


def jobs(args: Args) -> list[Job]:
    """For each preset the bases, then each way on its own, since time and memory are measured."""
    found = []
    for preset in args.presets:
        bases = Job({"preset": preset, "way": "base"}, alone=True)
        ways = [Job({"preset": preset, "way": way}, after=(bases.name,), alone=True) for way in args.ways]
        found += [bases, *ways]
    return found


def run(job: Job, args: Args) -> Row:
    preset, way = job.what["preset"], job.what["way"]
    return {"found": train_bases(preset, args) if way == "base" else measure_way(preset, way, args)}


def train_bases(preset: str, args: Args) -> Row:
    """A base for each seed; its weights go to a file."""
    policy, splits = old_task(preset, args)
    steps, config = recipe_of(preset, args)
    step = prepared(policy, splits["old_train"], config)
    rows = []
    for seed in range(args.seeds):
        restart(policy, step.optimizer, new_policy(policy.config, seed))
        whole = range(len(splits["old_train"]))
        train_rows(policy, splits["old_train"], replace(config, seed=seed), step, whole, steps)
        weights = {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}
        save_file(weights, args.folder / f"{preset}_{seed}.safetensors")
        rows.append(figures(policy, splits))
    old_task.cache_clear()  # its weights have changed
    return spreads(rows, METRICS[:3])


def recipe_of(preset: str, args: Args) -> tuple[int, TrainConfig]:
    """Steps and settings of a base's training."""
    steps, config = TOWERS
    if preset in RECIPES:
        steps, config = RECIPES[preset].num_steps, RECIPES[preset].train
    return args.base_steps or steps, config


@lru_cache(maxsize=1)
def old_task(preset: str, args: Args) -> tuple[TinyVLA, Splits]:
    """A new policy and the scenes of both tasks, in its own tokens."""
    policy = new_policy(config_of(preset, args), 0, args.where)
    counts = {"train": max(args.sizes), "val": args.num_val, "test": args.num_test}
    scenes: dict[str, BlockFind] = {name: ChangedFind(count, SEEDS[name]) for name, count in counts.items()}
    scenes["old_train"] = BlockFind(args.data.num_train, args.data.train_seed)
    scenes["old_test"] = BlockFind(args.num_test, args.data.test_seed)
    encode = policy.language.encode
    return policy, {name: TensorSplit.from_blockfind(part, encode, args.where) for name, part in scenes.items()}


def config_of(preset: str, args: Args) -> ModelConfig:
    """A preset's configuration; that of towers names two folders, which are made if they are not there."""
    if not preset.startswith("towers"):
        return PRESETS[preset]
    size, folder = "nano" if preset == "towers-nano" else "minimal", args.folder / preset
    if not folder.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            save_towers(folder, PRESETS[size])
    return pretrained_config(str(folder / "vision"), str(folder / "language"), size, frozen=False)


def save_towers(folder: Path, sizes: ModelConfig) -> None:
    """New towers of `transformers`; positions and words at std 1, or nothing would be learned in so few steps."""
    import transformers

    def shape(tower: Any) -> dict[str, int]:
        heads = {"num_hidden_layers": tower.num_layers, "num_attention_heads": tower.num_heads}
        return {"hidden_size": tower.embed_dim, "intermediate_size": tower.mlp_ratio * tower.embed_dim, **heads}

    pixels = {"image_size": sizes.vision.image_size, "patch_size": sizes.vision.patch_size}
    vision = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape(sizes.vision), **pixels))
    words = {"vocab_size": sizes.language.vocab_size}
    language = transformers.LlamaModel(transformers.LlamaConfig(**shape(sizes.language), **words))
    with torch.no_grad():
        for module in (*vision.modules(), *language.modules()):
            if isinstance(module, torch.nn.Embedding):
                module.weight.normal_()
    vision.save_pretrained(folder / "vision")
    processing = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "vision" / "preprocessor_config.json").write_text(json.dumps(processing), encoding="utf-8")
    language.save_pretrained(folder / "language")
    load_tokenizer().save_pretrained(folder / "language")


def measure_way(preset: str, way: str, args: Args) -> Row:
    """Cost, learning rate and figures of one way; lower ranks and extra targets with one number of scenes alone."""
    new, splits = old_task(preset, args)
    bases = [load_file(args.folder / f"{preset}_{seed}.safetensors", str(args.where)) for seed in range(args.seeds)]
    base = copy.deepcopy(new)
    base.load_state_dict(bases[0])
    entry = cost(way, base, splits["train"])
    changer = Changer(way, base, splits["train"], args.steps)
    rate, losses = choose_rate(changer, bases[0], splits, args)
    entry |= {"learning_rate": rate, "validation_losses": losses, "scenes": {}}
    for scenes in args.sizes if way in ("full", "frozen", args.main_way) else (args.middle,):
        rows = []
        for seed in range(args.seeds):
            seconds = changer.run(bases[seed], scenes, rate, seed)
            rows.append({**figures(changer.policy, splits), "seconds": seconds})
        entry["scenes"][str(scenes)] = {**spreads(rows, METRICS), "runs": rows}
    if way == args.main_way:
        base.load_state_dict(bases[-1])
        entry |= files_and_answers(changer.policy, base, splits["test"])
    return entry


class Changer:
    """One way to change a base: set up, and recorded where that pays, once; then trained again and again."""

    def __init__(self, way: str, base: TinyVLA, split: TensorSplit, steps: int) -> None:
        self.way, self.split, self.steps = way, split, steps
        self.policy = changeable(base, way)
        self.step = prepared(self.policy, split, TrainConfig())

    @torch.no_grad()
    def begin(self, base: State, seed: int) -> None:
        """Back to the base, with a fresh adapter and a fresh optimizer, in place as a recording needs it."""
        torch.manual_seed(seed)
        for layer in self.policy.modules():
            if hasattr(layer, "reset_lora_parameters"):
                layer.reset_lora_parameters("default", True)
        for name, value in self.policy.state_dict().items():
            if "lora_" not in name:
                value.copy_(base[name.replace(".base_layer.", ".")])
        for state in self.step.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def run(self, base: State, scenes: int, rate: float, seed: int) -> float:
        """Train on the first scenes; returns the seconds."""
        self.begin(base, seed)
        config = TrainConfig(learning_rate=rate, warmup_steps=self.steps // 5, seed=seed)
        return train_rows(self.policy, self.split, config, self.step, range(scenes), self.steps).seconds


def changeable(base: TinyVLA, way: str) -> TinyVLA:
    """A copy of the base in which only that learns which the way changes."""
    policy = copy.deepcopy(base).requires_grad_(True)
    if way == "frozen":
        policy.vision.requires_grad_(False)
        policy.language.requires_grad_(False)
    elif way.startswith("lora"):
        _, rank, *extra = way.split("-")
        add_lora(policy, rank=int(rank), targets=("attention", "inputs", *(EXTRA[name] for name in extra)))
    return policy.to(base.device).train()


def cost(way: str, base: TinyVLA, split: TensorSplit, steps: int = 5) -> Row:
    """Trainable share, peak memory and time of a plain step; a recorded one keeps its memory to itself."""
    device, before = split.device, 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    policy = changeable(base, way)
    step = plain_step(policy, split)
    index = torch.arange(TrainConfig().batch_size, device=device) % len(split)
    for _ in range(2):
        step(index)
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step(index)
    synchronize(device)
    seconds = (time.perf_counter() - started) / steps
    trained, total = trainable_parameters(policy)
    row: Row = {"trainable": trained, "parameters": total, "share": trained / total, "plain_step_seconds": seconds}
    row["peak_gb"] = (torch.cuda.max_memory_allocated(device) - before) / 1e9 if device.type == "cuda" else None
    row["weights_gb"], row["gradients_and_optimizer_gb"] = 4 * total / 1e9, 12 * trained / 1e9
    return row


def plain_step(policy: TinyVLA, split: TensorSplit) -> PlainStep:
    """The fastest step that is not recorded."""
    return make_step(policy, split, TrainConfig(), replace(StepOptions.for_device(split.device), graph=False))


def choose_rate(changer: Changer, base: State, splits: Splits, args: Args) -> tuple[float, dict[str, float]]:
    """The candidate with the lowest validation loss after training with the first seed; and all losses."""
    losses = {}
    for rate in RATES[changer.way.split("-")[0]][: args.rates]:
        changer.run(base, args.middle, rate, 0)
        losses[rate] = validation_loss(changer.policy, splits["val"])[0]
    finite = {rate: loss for rate, loss in losses.items() if loss == loss}
    return min(finite, key=finite.__getitem__), {f"{rate:g}": loss for rate, loss in losses.items()}


def figures(policy: TinyVLA, splits: Splits) -> dict[str, float]:
    """On the test scenes of both tasks."""
    new = judge(policy, splits["test"])
    return {
        "direction_accuracy": new.direction_accuracy,
        "within_10_degrees": new.within_10_degrees,
        "old_direction_accuracy": judge(policy, splits["old_test"]).direction_accuracy,
    }


@torch.no_grad()
def files_and_answers(policy: TinyVLA, base: TinyVLA, test: TensorSplit) -> dict[str, float]:
    """Sizes on disk, and how far the answers of the saved and of the merged adapter are from the trained one's."""
    answers = predict_split(policy, test)
    with tempfile.TemporaryDirectory() as folder:
        base.save_pretrained(f"{folder}/base")
        save_adapter(policy, f"{folder}/adapter")
        sizes = [sum(f.stat().st_size for f in Path(folder, name).iterdir()) for name in ("base", "adapter")]
        loaded = load_adapter(TinyVLA.from_pretrained(f"{folder}/base", str(policy.device)), f"{folder}/adapter")
    after_loading = (predict_split(loaded, test) - answers).abs().max().item()
    after_merging = (predict_split(merge(loaded), test) - answers).abs().max().item()
    return {
        "checkpoint_mb": sizes[0] / 1e6,
        "adapter_mb": sizes[1] / 1e6,
        "difference_after_loading": after_loading,
        "difference_after_merging": after_merging,
    }


def summary(rows: list[Row], args: Args) -> Row:
    """What was found for each preset; `combine` puts command and machine beside it."""
    presets = {}
    for (preset,), found in groups(rows, "preset").items():
        ways = {row["way"]: row["found"] for row in found}
        presets[preset] = {"base": ways.pop("base"), "ways": ways}
    about = {**args.settings("steps", "seeds", "num_test", "middle"), "train_config": asdict(TrainConfig())}
    return {**about, "presets": presets}


def combine(old: Row, new: Row, args: Args) -> Row:
    """The presets that were measured before, and those of now, each with its own command and machine."""
    about = {name: value for name, value in new.items() if name != "presets"}
    found = {preset: {**about, **measured} for preset, measured in new["presets"].items()}
    return {"presets": {**old.get("presets", {}), **found}}


def section(lora: Row) -> str:
    presets = lora["presets"]
    settings = "; ".join(
        f"`{preset}` with {part['seeds']} seeds, {part['steps']} steps and {part['middle']:,} scenes"
        for preset, part in presets.items()
    )
    about = f"""A trained policy learns a changed task, other colours in other words: {settings}. Each way has a
        learning rate of its own, chosen on validation scenes. Where fusion and head learn, the towers are frozen;
        `towers-nano` has towers of `transformers`' classes. Direction accuracy on the changed and on the old task,
        from the worst to the best seed. Gradients and optimizer state are counted, 12 bytes a trained weight; the
        peak of a step is measured, if on a GPU."""
    heads = "policy | trained | share, % | changed task, % | old task, % | gradients, optimizer, MB | peak, MB"
    rows = [row for preset, part in presets.items() for row in page_rows(preset, part)]
    return section_of("LoRA", prose(about), grid(heads, rows), source(*presets.values()))


def page_rows(preset: str, part: Results) -> list[tuple[str, ...]]:
    """The base, and what each way makes of it."""
    tasks = ("direction_accuracy", "old_direction_accuracy")
    rows = [(f"`{preset}`", "nothing yet", "", *(bare(share(part["base"][task])) for task in tasks), "", "")]
    names = {"full": "all weights", "frozen": "fusion and head"}
    for way, entry in part["ways"].items():
        name = names.get(way, way.replace("lora-", "LoRA, rank "))
        runs = entry["scenes"][str(part["middle"])]
        memory = (megabytes(entry[key]) for key in ("gradients_and_optimizer_gb", "peak_gb"))
        shares = (bare(text) for text in (percent(entry["share"], 2), *(share(runs[task]) for task in tasks)))
        rows.append((f"`{preset}`", name, *shares, *memory))
    return rows


def megabytes(gigabytes: float | None) -> str:
    if gigabytes is None:
        return ""
    return f"{1000 * gigabytes:,.0f}" if gigabytes > 0.01 else f"{1000 * gigabytes:.1f}"


if __name__ == "__main__":
    main(Args, jobs, run, summary, combine)
