"""The command line: `tinyvla VERB`, generated from the functions and dataclasses below by tyro.

Notable:
- a verb is a function; its arguments are the options, its docstring the help;
- whatever the user can get wrong ends as one line on standard error and exit code 2, with nothing overwritten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from tinyvla.config import (
    ABLATION_KINDS,
    FUSION_KINDS,
    HEAD_KINDS,
    PRESETS,
    DataConfig,
    InputError,
    TrainConfig,
    model_config,
)

PresetName = Annotated[str, arg(help=f"Size of the policy: {', '.join(PRESETS)}.")]
FusionName = Annotated[str | None, arg(help=f"Another fusion: {', '.join(FUSION_KINDS + ABLATION_KINDS)}.")]
HeadName = Annotated[str | None, arg(help=f"Another action head: {', '.join(HEAD_KINDS)}.")]
DeviceName = Annotated[str, arg(help="auto (CUDA where there is one), cpu, cuda or mps.")]
Checkpoint = Annotated[Path, arg(help="A checkpoint folder, or owner/name on the Hugging Face hub.")]
JsonFlag = Annotated[bool, arg(help="Print one JSON object instead of a table.")]
# Options of a nested dataclass without its prefix: --epochs, not --config.epochs.
Flat = arg(name="")


def train(
    preset: PresetName = "minimal",
    out: Path = Path("checkpoints"),
    fusion: FusionName = None,
    device: DeviceName = "auto",
    resume: bool = False,
    overwrite: bool = False,
    log_dir: Path = Path("logs"),
    head: HeadName = None,
    fast: bool = False,
    plain: bool = False,
    compile: bool = False,
    config: Annotated[TrainConfig, Flat] = TrainConfig(),  # noqa: B008 - frozen
    data: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008 - frozen
) -> None:
    """Train a policy, keep its best checkpoint in OUT/best, and judge it on the test split.

    Args:
        out: Folder for checkpoints, settings and metrics.
        resume: Go on with the run in OUT, with the settings it was started with.
        overwrite: Replace the run in OUT.
        log_dir: Folder for TensorBoard logs.
        fast: Take the fast step: recorded on a GPU, in bfloat16 where that is faster. The default where it pays.
        plain: Take the plain step: float32, kernel by kernel.
        compile: Take the fast step and also fuse its kernels with torch.compile; pays in long runs.
    """
    from torch.utils.tensorboard import SummaryWriter

    from tinyvla.batching import TensorSplit
    from tinyvla.checkpoint import RunFolder, RunSettings, library_versions
    from tinyvla.dataset import BlockFind
    from tinyvla.distributed import make_accelerator
    from tinyvla.model import TinyVLA
    from tinyvla.speed import StepOptions, choose_step
    from tinyvla.train import Interrupted, choose_device, fit, new_policy

    accelerator = make_accelerator(device)
    where = choose_device(device) if accelerator is None else accelerator.device
    is_main = accelerator is None or accelerator.is_main_process
    settings = RunSettings(model_config(preset, fusion, head), config, data, choose_step(where, fast, plain, compile))
    run = RunFolder(out)
    if resume:
        settings = run.settings_to_resume(settings, step_was_asked=fast or plain or compile)
    elif is_main:
        run.start(settings, library_versions(), overwrite)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    train_split = BlockFind(settings.data.num_train, settings.data.train_seed)
    if resume and run.is_complete(settings):
        print(f"{out} is complete: {settings.train.epochs} epochs are trained")
    else:
        policy = new_policy(settings.model, settings.train.seed, where)
        val_split = BlockFind(settings.data.num_val, settings.data.val_seed)
        train_tensors, val_tensors = (TensorSplit.from_blockfind(s, where) for s in (train_split, val_split))
        if settings.model.head.kind == "fast":  # the tokenizer of its actions
            policy.fit_statistics(train_tensors.actions)
        if is_main:
            size = policy.num_parameters()["total"] / 1e6
            places = f"{where}" if accelerator is None else f"{accelerator.num_processes} processes ({where.type})"
            what = f"{settings.train.epochs} epochs of {len(train_split)} scenes"
            print(f"training {size:.1f} M parameters on {places}, {settings.step} step: {what}")
        with SummaryWriter(str(log_dir / out.resolve().name)) if is_main else nullcontext() as writer:
            try:
                fit(
                    policy,
                    train_tensors,
                    val_tensors,
                    settings.train,
                    run,
                    writer,
                    on_epoch=_print_epoch,
                    options=StepOptions.named(settings.step, where),
                    accelerator=accelerator,
                )
            except Interrupted as stopped:
                print(f"\n{stopped}; go on with: tinyvla train --resume --out {out}", file=sys.stderr)
                sys.exit(130)
    if not is_main:
        return
    best = TinyVLA.from_pretrained(run.best, device=str(where))
    _report(best, settings.data.num_test, settings.data, as_json=False)
    print(f"\nbest checkpoint: {run.best}\nnext: tinyvla visualize --checkpoint {run.best}")


def _print_epoch(record: dict[str, Any]) -> None:
    from tqdm.auto import tqdm

    tqdm.write(
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
        f"L2 {record['l2_error']:.4f}  direction {record['direction_accuracy']:.1%}"
    )


def _report(policy: Any, num_samples: int, data: DataConfig, as_json: bool) -> None:
    from tinyvla.dataset import BlockFind
    from tinyvla.evaluate import evaluate as evaluate_policy

    split = BlockFind(num_samples, data.test_seed)
    report = evaluate_policy(policy, split, BlockFind(data.num_train, data.train_seed))
    print(dumps(report.to_dict()) if as_json else "\n" + report.table())


def _load(checkpoint: Path, device: str) -> Any:
    from tinyvla.model import TinyVLA
    from tinyvla.train import choose_device

    return TinyVLA.from_pretrained(checkpoint, device=str(choose_device(device)))


def evaluate(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    num_samples: int = 1_000,
    device: DeviceName = "auto",
    json: JsonFlag = False,
) -> None:
    """Judge a policy on the test split, beside floors and the instruction swap.

    Args:
        num_samples: Test scenes.
    """
    _report(_load(checkpoint, device), num_samples, DataConfig(), as_json=json)


def rollout(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    policy: Annotated[str, arg(help="checkpoint, or without one: expert or random.")] = "checkpoint",
    episodes: int = 500,
    seed: int = DataConfig().test_seed,
    gif: Path | None = None,
    device: DeviceName = "auto",
    json: JsonFlag = False,
) -> None:
    """Close the loop: let a policy move the camera, view by view, until it stops on the named block.

    Args:
        episodes: How many, each of at most 40 steps.
        seed: Which episodes; the default's are none that a policy is trained on.
        gif: Where to write the first episode as a moving picture.
    """
    from tinyvla import rollout as loop

    if policy not in ("checkpoint", "expert", "random"):
        raise InputError(f"unknown --policy {policy!r}; choose from checkpoint, expert, random")
    seeds = loop.episode_seeds(episodes, seed)
    act = {"expert": loop.expert, "random": loop.random_policy()}.get(policy)
    act = act or loop.policy_act(_load(checkpoint, device))
    result = loop.rollout(act, seeds, num_recorded=1 if gif else 0)
    if gif and result.states:
        loop.save_gif(result.states, gif)
    print(dumps(result.to_dict()) if json else result.table(str(checkpoint) if policy == "checkpoint" else policy))
    if gif and not json:
        print(f"wrote {gif}")


def visualize(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    out: Path = Path("predictions.png"),
    num_samples: int = 12,
    seed: int = DataConfig().test_seed,
    device: DeviceName = "auto",
) -> None:
    """Write a picture of scenes with the true and the predicted arrows.

    Args:
        out: Where to write the picture.
        num_samples: Scenes in the picture, at most 64.
        seed: Seed of the scenes; the default shows the test split's first ones.
    """
    from tinyvla.dataset import BlockFind

    if not 1 <= num_samples <= 64:
        raise InputError(f"--num-samples is {num_samples}; a picture holds 1 to 64 scenes")
    policy = _load(checkpoint, device)
    _use_file_backend()
    from tinyvla.plots import plot_predictions

    split = BlockFind(num_samples, seed)
    fig, _ = plot_predictions(split, policy.predict(split.images, split.instructions).numpy())
    _save_figure(fig, out)


def sample(out: Path = Path("sample_visualization.png"), seed: int = 42, index: int = 0) -> None:
    """Write a picture of one scene: its blocks, instruction and true arrow.

    Args:
        out: Where to write the picture.
        seed: Seed of the split; 42 is the training split.
        index: Which of its scenes.
    """
    from tinyvla.dataset import BlockFind

    if index < 0:
        raise InputError(f"--index is {index}; it must not be negative")
    _use_file_backend()
    from tinyvla.plots import plot_sample

    chosen = BlockFind(max(index + 1, DataConfig().num_train), seed)[index]
    fig, _ = plot_sample(chosen)
    _save_figure(fig, out)
    dx, dy = chosen.action
    print(f"{chosen.instruction}: dx {dx:+.3f}, dy {dy:+.3f}; blocks: {', '.join(sorted(chosen.colors))}")


def _use_file_backend() -> None:
    import matplotlib

    matplotlib.use("Agg")


def _save_figure(fig: Any, path: Path) -> None:
    fig.savefig(path, dpi=150)
    print(f"wrote {path}")


def demo(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    scene_seed: int = 0,
    picture: Path = Path("demo.png"),
    device: DeviceName = "auto",
) -> None:
    """Talk to a policy: type an instruction, get dx, dy, the angle and a picture. An empty line ends it.

    Args:
        scene_seed: Seed of the scene; `new` while running draws the next one.
        picture: Where each answer's picture is written.
    """
    from tinyvla.demo import run_demo

    policy = _load(checkpoint, device)
    _use_file_backend()
    run_demo(policy, scene_seed, picture)


def export(checkpoint: Checkpoint = Path("checkpoints/best"), out: Path = Path("policy.onnx")) -> None:
    """Write a policy as ONNX (.onnx) or as a torch.export program (.pt2) that runs without this package.

    Args:
        out: Where to write; its suffix chooses the format.
    """
    from tinyvla.export import export_policy, usage

    difference = export_policy(_load(checkpoint, "cpu"), out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB; largest difference from PyTorch {difference:.1e}")
    print(f"next, in Python:\n\n{usage(out)}")


def doctor(device: DeviceName = "auto") -> None:
    """Check this machine: versions, CUDA, disk, 20 real training steps, and how long each preset would take."""
    from tinyvla.doctor import run_doctor

    if not run_doctor(device):
        sys.exit(1)


def info(
    preset: Annotated[str | None, arg(help=f"A preset: {', '.join(PRESETS)}; all of them if none is named.")] = None,
    checkpoint: Annotated[Path | None, arg(help="A checkpoint folder instead.")] = None,
    json: JsonFlag = False,
) -> None:
    """Count the parameters of each component."""
    import torch

    from tinyvla.model import TinyVLA

    if preset and checkpoint:
        raise InputError("give --preset or --checkpoint, not both")
    counts: dict[str, dict[str, int]] = {}
    if checkpoint:
        counts[str(checkpoint)] = _load(checkpoint, "cpu").num_parameters()
    else:
        with torch.device("meta"):  # shapes without memory
            for name in [preset] if preset else PRESETS:
                counts[name] = TinyVLA(model_config(name)).num_parameters()
    if json:
        print(dumps(counts if len(counts) > 1 else next(iter(counts.values()))))
        return
    for name, parts in counts.items():
        print(f"{name}")
        for part, number in parts.items():
            print(f"  {part:18}{number:>13,}{number / parts['total']:>8.1%}")
        print()
    rows = PRESETS["minimal"].language.vocab_size
    print(f"token embedding: one row for each of DistilBERT's {rows:,} word pieces, of which BlockFind uses 11")


def bench(
    preset: PresetName = "minimal",
    seeds: int = 20,
    device: DeviceName = "auto",
    steps: Annotated[int | None, arg(help="Instead of the recipe's.")] = None,
    plain: bool = False,
    reference: int = 0,
    cold: int = 0,
    epochs: int = 0,
    out: Path | None = None,
) -> None:
    """Measure how long a recipe with a fixed number of steps takes, and how many runs reach 95 % direction accuracy.

    Args:
        seeds: Runs, with seeds 0, 1, ...
        plain: Use the plain step instead of the device's fast one.
        reference: Runs of the plain recipe in the same call, to compare with.
        cold: Fresh Python processes to time, imports included.
        epochs: Also time so many epochs, at the settings that the course teaches.
        out: Where to write the figures; results/bench_PRESET_DEVICE.json unless told.
    """
    from tinyvla import bench as b
    from tinyvla.speed import PLAIN, StepOptions
    from tinyvla.train import choose_device

    if seeds < 1 or (steps is not None and steps < 1):
        raise InputError("--seeds and --steps must be at least 1")
    where, config = choose_device(device), model_config(preset)
    recipe = b.RECIPES[preset] if steps is None else replace(b.RECIPES[preset], num_steps=steps)
    result = b.bench(config, recipe, where, seeds, PLAIN if plain else StepOptions.for_device(where))
    if reference:
        result["reference"] = b.bench_reference(config, where, reference)
        result["speedup"] = result["reference"]["seconds"]["median"] / result["seconds"]["median"]
    if cold:
        result["cold"] = b.bench_cold(preset, where, cold)
    if epochs:
        ways = [(64, False), (64, True), (256, False), (256, True)] if where.type == "cuda" else [(64, False)]
        result["epochs"] = [b.bench_epochs(config, where, epochs, *way) for way in ways]
    out = out or Path("results") / f"bench_{preset}_{where.type}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    options = {"reference": reference, "cold": cold, "epochs": epochs, "steps": steps}
    command = f"tinyvla bench --preset {preset} --seeds {seeds} --device {where.type}" + " --plain" * plain
    command += "".join(f" --{name} {value}" for name, value in options.items() if value)
    out.write_text(dumps({"command": command, "preset": preset, **result}, indent=2) + "\n", encoding="utf-8")
    print(b.table(preset, result))
    print(f"wrote {out}")


def throughput(
    presets: Annotated[tuple[str, ...], arg(help=f"Which: {', '.join(PRESETS)}.")] = tuple(PRESETS),
    batch_size: int = 64,
    device: DeviceName = "auto",
    compile: bool = False,
    out: Path | None = None,
) -> None:
    """Measure the training step of presets: time, memory, share of the device's peak, and a profile on a GPU.

    Args:
        batch_size: Scenes in a step.
        compile: Fuse kernels with torch.compile first; needs a CUDA GPU.
        out: Where to write the figures; results/throughput_DEVICE.json unless told.
    """
    from tinyvla.batching import TensorSplit
    from tinyvla.dataset import BlockFind
    from tinyvla.speed import choose_step
    from tinyvla.throughput import report, table
    from tinyvla.train import choose_device

    where = choose_device(device)
    choose_step(where, fast=False, plain=False, compile=compile)  # refuses what the device cannot do
    configs = {name: model_config(name) for name in presets}
    split = TensorSplit.from_blockfind(BlockFind(DataConfig().num_train, DataConfig().train_seed), where)
    result = report(configs, split, batch_size, compile)
    out = out or Path("results") / f"throughput_{where.type}{'_compiled' if compile else ''}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = f"tinyvla throughput --presets {' '.join(presets)} --batch-size {batch_size} --device {where.type}"
    command += " --compile" * compile
    out.write_text(dumps({"command": command, **result}, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    print(f"wrote {out}")


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "rollout": rollout,
    "visualize": visualize,
    "sample": sample,
    "demo": demo,
    "export": export,
    "doctor": doctor,
    "info": info,
    "bench": bench,
    "throughput": throughput,
}


def main(argv: list[str] | None = None) -> None:
    """Run one verb. Exit code 2 and one line on standard error when the input is at fault."""
    argv = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
            raise InputError(f"unknown verb {argv[0]!r}; choose from {', '.join(VERBS)}")
        tyro.extras.subcommand_cli_from_dict(VERBS, prog="tinyvla", description="TinyVLA", args=argv or ["--help"])
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"tinyvla: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
