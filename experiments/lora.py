"""LoRA against full fine-tuning and frozen towers, on a changed task. Writes `results/lora.json`.

    python scripts/measure_lora.py --device cuda

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tinyvla.data.batch import TensorSplit, epoch_order
from tinyvla.measure.bench import RECIPES, Recipe, Runner, describe_device, recorded_command, spread, synchronize
from tinyvla.config import PRESETS, DataConfig, ModelConfig, TrainConfig
from tinyvla.data.blockfind import BlockFind, ChangedFind
from tinyvla.learn.evaluate import Metrics, predict_split, validation_loss
from tinyvla.adapt.lora import add_lora, load_adapter, merge, save_adapter, trainable_parameters
from tinyvla.model.policy import TinyVLA
from tinyvla.model.pretrained import pretrained_config
from tinyvla.speed.recorded import StepOptions
from tinyvla.model.tokenizer import load_tokenizer
from tinyvla.learn.train import learning_rate_at, make_optimizer, make_step, new_policy, set_learning_rate

TOWERS = Recipe(200, TrainConfig(learning_rate=1e-3, warmup_steps=40))
EXTRA = {"words": "embedding", "mlp": "mlp"}
RATES = {"full": (1e-4, 3e-4, 1e-3), "frozen": (1e-3, 3e-3), "lora": (5e-4, 1.5e-3, 4e-3)}
SEEDS = {"train": 142, "val": 143, "test": 144}
"""Of the changed task's scenes, which are none of the old task's."""
METRICS = ("direction_accuracy", "within_10_degrees", "old_direction_accuracy", "seconds")
State = dict[str, torch.Tensor]


@contextmanager
def config_of(preset: str) -> Iterator[ModelConfig]:
    """A preset's configuration; that of towers names two folders, which exist inside."""
    if not preset.startswith("towers"):
        yield PRESETS[preset]
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        size = "nano" if preset == "towers-nano" else "minimal"
        save_towers(Path(folder), PRESETS[size])
        yield pretrained_config(f"{folder}/vision", f"{folder}/language", size, frozen=False)


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


def prepare(policy: TinyVLA, way: str) -> TinyVLA:
    """Freeze what the way leaves alone."""
    if way == "frozen":
        policy.vision.requires_grad_(False)
        policy.language.requires_grad_(False)
    elif way.startswith("lora"):
        _, rank, *extra = way.split("-")
        add_lora(policy, rank=int(rank), targets=("attention", "inputs", *(EXTRA[name] for name in extra)))
    return policy


class Changer:
    """One way to change a base: set up, and recorded where that pays, once; then trained again and again."""

    def __init__(self, way: str, base: TinyVLA, train: TensorSplit, options: StepOptions) -> None:
        self.policy = prepare(copy.deepcopy(base).requires_grad_(True), way).to(train.images.device).train()
        self.settings = TrainConfig()
        self.optimizer = make_optimizer(self.policy, self.settings, capturable=options.graph)
        generator = torch.Generator(train.images.device)
        self.step = make_step(self.policy, self.optimizer, train, self.settings, generator, options)

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
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def run(self, base: State, scenes: int, steps: int, rate: float, seed: int) -> float:
        """Train on the first scenes; returns the seconds."""
        self.begin(base, seed)
        size, device = self.settings.batch_size, self.policy.device
        epochs = -(-steps * size // scenes)
        order = torch.cat([epoch_order(scenes, seed, epoch) for epoch in range(epochs)]).to(device)
        config = replace(self.settings, learning_rate=rate, warmup_steps=steps // 5)
        synchronize(device)
        started = time.perf_counter()
        for number, index in enumerate(order.split(size)[:steps]):
            if len(index) == size:
                set_learning_rate(self.optimizer, learning_rate_at(number, steps, config))
                self.step(index)
        synchronize(device)
        return time.perf_counter() - started


def accuracy(policy: TinyVLA, split: TensorSplit) -> Metrics:
    return Metrics.of(predict_split(policy, split), split.actions.cpu())


def judge(policy: TinyVLA, splits: dict[str, TensorSplit]) -> dict[str, float]:
    new = accuracy(policy, splits["test"])
    return {
        "direction_accuracy": new.direction_accuracy,
        "within_10_degrees": new.within_10_degrees,
        "old_direction_accuracy": accuracy(policy, splits["old_test"]).direction_accuracy,
    }


def cost(way: str, base: TinyVLA, train: TensorSplit, options: StepOptions, steps: int = 5) -> dict[str, Any]:
    """Trainable share, peak memory and time of a plain step; a recorded one keeps its memory to itself."""
    device, options = train.images.device, replace(options, graph=False)
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    changer = Changer(way, base, train, options)
    index = torch.arange(changer.settings.batch_size, device=device)
    for _ in range(2):
        changer.step(index)
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        changer.step(index)
    synchronize(device)
    trained, total = trainable_parameters(changer.policy)
    row = {"trainable": trained, "parameters": total, "share": trained / total}
    row["plain_step_seconds"] = (time.perf_counter() - started) / steps
    row["peak_gb"] = (torch.cuda.max_memory_allocated(device) - before) / 1e9 if is_cuda else None
    row["weights_gb"], row["gradients_and_optimizer_gb"] = 4 * total / 1e9, 12 * trained / 1e9
    return row


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


def choose_rate(
    changer: Changer, way: str, base: State, splits: dict[str, TensorSplit], scenes: int, steps: int, rates: int
) -> tuple[float, dict[str, float]]:
    """The candidate with the lowest validation loss after training with the first seed; and all losses."""
    losses = {}
    for rate in RATES[way.split("-")[0]][:rates]:
        changer.run(base, scenes, steps, rate, 0)
        losses[rate] = validation_loss(changer.policy, splits["val"])[0]
    finite = {rate: loss for rate, loss in losses.items() if loss == loss}
    return min(finite, key=finite.__getitem__), {f"{rate:g}": loss for rate, loss in losses.items()}


def measure(
    config: ModelConfig,
    recipe: Recipe,
    ways: tuple[str, ...],
    sizes: tuple[int, ...],
    middle: int,
    seeds: int,
    steps: int,
    rates: int,
    splits: dict[str, TensorSplit],
) -> Iterator[dict[str, Any]]:
    """What is known after each way; ranks below the largest, and extra targets, with one number of scenes alone."""
    device = splits["train"].images.device
    base = new_policy(config, 0)
    options = StepOptions.for_device(device).that_work_with(base)
    runner = Runner(base.config, splits["old_train"], recipe, options)
    bases: list[State] = []
    before = []
    for seed in range(seeds):
        runner.run(seed)
        bases.append({name: value.detach().clone() for name, value in runner.policy.state_dict().items()})
        before.append(judge(runner.policy, splits))
    base.load_state_dict(bases[0])
    del runner
    main_rank = max((int(way.split("-")[1]) for way in ways if way.startswith("lora")), default=0)
    report: dict[str, Any] = {"base": {m: spread([row[m] for row in before]) for m in METRICS[:3]}, "ways": {}}
    for way in ways:
        entry = cost(way, base, splits["train"], options)
        changer = Changer(way, base, splits["train"], options)
        rate, losses = choose_rate(changer, way, bases[0], splits, middle, steps, rates)
        entry |= {"learning_rate": rate, "validation_losses": losses, "scenes": {}}
        is_main = way in ("full", "frozen", f"lora-{main_rank}")
        for scenes in sizes if is_main else (middle,):
            rows = []
            for seed in range(seeds):
                seconds = changer.run(bases[seed], scenes, steps, rate, seed)
                rows.append({**judge(changer.policy, splits), "seconds": seconds})
            entry["scenes"][str(scenes)] = {m: spread([row[m] for row in rows]) for m in METRICS} | {"runs": rows}
        if way == f"lora-{main_rank}":
            base.load_state_dict(bases[seeds - 1])
            entry |= files_and_answers(changer.policy, base, splits["test"])
            base.load_state_dict(bases[0])
        report["ways"][way] = entry
        shown = {k: round(v["direction_accuracy"]["median"], 3) for k, v in entry["scenes"].items()}
        print(way, f"{entry['share']:.2%}", f"rate {rate:g}", shown, flush=True)
        del changer
        yield report


def main(
    device: str = "cpu",
    presets: tuple[str, ...] = ("medium",),
    ways: tuple[str, ...] = ("full", "frozen", "lora-16", "lora-4", "lora-1", "lora-4-words"),
    sizes: tuple[int, ...] = (200, 1_000, 8_000),
    middle: int = 1_000,
    seeds: int = 3,
    steps: int = 150,
    rates: int = 3,
    num_test: int = 1_000,
    out: Path = Path("results/lora.json"),
) -> None:
    """Change every preset in every way.

    Args:
        ways: "full", "frozen", "lora-RANK", "lora-RANK-words", "lora-RANK-mlp".
        sizes: numbers of scenes of the changed task.
        middle: the one of them at which learning rates are chosen and ranks compared.
        steps: of every run, whatever the number of scenes.
        rates: how many learning rates to try for each way, from the lowest up.
        out: added to if it is there, so that presets can be measured one by one.
    """
    started, where, data = time.perf_counter(), torch.device(device), DataConfig()
    changed = {"train": max(sizes), "val": 500, "test": num_test}
    splits = {
        name: TensorSplit.from_blockfind(ChangedFind(count, SEEDS[name]), where) for name, count in changed.items()
    }
    splits["old_train"] = TensorSplit.from_blockfind(BlockFind(data.num_train, data.train_seed), where)
    splits["old_test"] = TensorSplit.from_blockfind(BlockFind(num_test, data.test_seed), where)
    for preset in presets:
        about = {
            "command": recorded_command(),
            "machine": describe_device(where),
            "steps": steps,
            "seeds": seeds,
            "num_test": num_test,
            "middle": middle,
            "train_config": asdict(TrainConfig()),
        }
        with config_of(preset) as config:
            recipe = RECIPES.get(preset, TOWERS)
            for measured in measure(config, recipe, ways, sizes, middle, seeds, steps, rates, splits):
                about["seconds"] = time.perf_counter() - started
                report = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"presets": {}}
                report["presets"][preset] = {**about, **measured}
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{preset}: {about['seconds']:.0f} s since the start; wrote {out}", flush=True)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
