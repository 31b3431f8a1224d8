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
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from tinyvla.app.cli_measure import (
    Checkpoint,
    DeviceName,
    Flat,
    FusionName,
    HeadName,
    JsonFlag,
    PresetName,
    bench,
    doctor,
    info,
    load,
    throughput,
)
from tinyvla.config import DataConfig, InputError, ModelConfig, TrainConfig, model_config


def train(
    preset: PresetName = "minimal",
    out: Path = Path("checkpoints"),
    fusion: FusionName = None,
    device: DeviceName = "auto",
    resume: bool = False,
    overwrite: bool = False,
    log_dir: Path = Path("logs"),
    head: HeadName = None,
    vision: str | None = None,
    language: str | None = None,
    learn_towers: bool = False,
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
        vision: A Hugging Face vision tower, an id or a folder, in place of the preset's; its weights stay frozen.
        language: The same for the language model.
        learn_towers: Let such towers learn, too.
        fast: Take the fast step: recorded on a GPU, in bfloat16 where that is faster. The default where it pays.
        plain: Take the plain step: float32, kernel by kernel.
        compile: Take the fast step and also fuse its kernels with torch.compile; pays in long runs.
    """
    from torch.utils.tensorboard import SummaryWriter

    from tinyvla.data.batch import TensorSplit
    from tinyvla.learn.checkpoint import RunFolder, RunSettings, library_versions
    from tinyvla.data.blockfind import BlockFind
    from tinyvla.speed.processes import make_accelerator
    from tinyvla.model.policy import TinyVLA
    from tinyvla.speed.recorded import StepOptions, choose_step
    from tinyvla.learn.train import Interrupted, choose_device, fit, new_policy

    accelerator = make_accelerator(device)
    if accelerator is not None and compile:
        raise InputError("--compile is for one process; leave it out where several train together")
    where = choose_device(device) if accelerator is None else accelerator.device
    is_main = accelerator is None or accelerator.is_main_process
    model = _model(preset, fusion, head, vision, language, frozen=not learn_towers)
    settings = RunSettings(model, config, data, choose_step(where, fast, plain, compile))
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
        tokenize = policy.language.encode
        train_tensors, val_tensors = (TensorSplit.from_blockfind(s, where, tokenize) for s in (train_split, val_split))
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
    if accelerator is not None:
        accelerator.end_training()  # all leave together
    if not is_main:
        return
    best = TinyVLA.from_pretrained(run.best, device=str(where))
    _report(best, settings.data.num_test, settings.data, as_json=False)
    print(f"\nbest checkpoint: {run.best}\nnext: tinyvla visualize --checkpoint {run.best}")


def _model(
    preset: str, fusion: str | None, head: str | None, vision: str | None, language: str | None, frozen: bool
) -> ModelConfig:
    """The preset's policy, with pretrained towers where they are named."""
    if not (vision or language):
        if not frozen:
            raise InputError("--learn-towers is for pretrained towers; name them with --vision and --language")
        return model_config(preset, fusion, head)
    from tinyvla.model.pretrained import pretrained_config

    return pretrained_config(vision, language, preset, fusion, head, frozen)


def _print_epoch(record: dict[str, Any]) -> None:
    from tqdm.auto import tqdm

    tqdm.write(
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
        f"L2 {record['l2_error']:.4f}  direction {record['direction_accuracy']:.1%}"
    )


def _report(policy: Any, num_samples: int, data: DataConfig, as_json: bool) -> None:
    from tinyvla.data.blockfind import BlockFind
    from tinyvla.learn.evaluate import evaluate as evaluate_policy

    split = BlockFind(num_samples, data.test_seed)
    report = evaluate_policy(policy, split, BlockFind(data.num_train, data.train_seed))
    print(dumps(report.to_dict()) if as_json else "\n" + report.table())


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
    _report(load(checkpoint, device), num_samples, DataConfig(), as_json=json)


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
    from tinyvla.act import rollout as loop

    if policy not in ("checkpoint", "expert", "random"):
        raise InputError(f"unknown --policy {policy!r}; choose from checkpoint, expert, random")
    seeds = loop.episode_seeds(episodes, seed)
    act = {"expert": loop.expert, "random": loop.random_policy()}.get(policy)
    act = act or loop.policy_act(load(checkpoint, device))
    result = loop.rollout(act, seeds, num_recorded=1 if gif else 0)
    if gif and result.states:
        from tinyvla.show.filmstrip import save_gif

        save_gif(result.states, gif)
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
    from tinyvla.data.blockfind import BlockFind

    if not 1 <= num_samples <= 64:
        raise InputError(f"--num-samples is {num_samples}; a picture holds 1 to 64 scenes")
    policy = load(checkpoint, device)
    _use_file_backend()
    from tinyvla.show.plots import plot_predictions

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
    from tinyvla.data.blockfind import BlockFind

    if index < 0:
        raise InputError(f"--index is {index}; it must not be negative")
    _use_file_backend()
    from tinyvla.show.plots import plot_sample

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
    from tinyvla.app.demo import run_demo

    policy = load(checkpoint, device)
    _use_file_backend()
    run_demo(policy, scene_seed, picture)


def export(checkpoint: Checkpoint = Path("checkpoints/best"), out: Path = Path("policy.onnx")) -> None:
    """Write a policy as ONNX (.onnx) or as a torch.export program (.pt2) that runs without this package.

    Args:
        out: Where to write; its suffix chooses the format.
    """
    from tinyvla.deploy.export import export_policy, usage

    difference = export_policy(load(checkpoint, "cpu"), out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB; largest difference from PyTorch {difference:.1e}")
    print(f"next, in Python:\n\n{usage(out)}")


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
