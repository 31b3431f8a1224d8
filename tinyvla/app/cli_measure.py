"""The command line's verbs that measure: a machine, a preset, a recipe.

Notable:
- the options that all verbs share are described here, once.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from tinyvla.app.given import refuse
from tinyvla.config import PRESETS, model_config
from tinyvla.errors import InputError, counted
from tinyvla.fields import Within, check, check_number, check_once
from tinyvla.files import check_output, read_json, write_text
from tinyvla.recipes import DataConfig
from tinyvla.registry import ABLATION_KINDS, FUSION_KINDS, HEAD_KINDS

PresetName = Annotated[str, arg(help=f"Size of the policy: {', '.join(PRESETS)}.")]
FusionName = Annotated[str | None, arg(help=f"Another fusion: {', '.join(FUSION_KINDS + ABLATION_KINDS)}.")]
HeadName = Annotated[str | None, arg(help=f"Another action head: {', '.join(HEAD_KINDS)}.")]
DeviceName = Annotated[str, arg(help="auto (CUDA where there is one), cpu, cuda or mps.")]
StepName = Annotated[
    str,
    arg(
        help="auto: what pays on this device; plain: float32, kernel by kernel, as the course teaches it; compiled: "
        "auto with its kernels fused by torch.compile, on a CUDA GPU, for long runs."
    ),
]
Checkpoint = Annotated[Path, arg(help="A checkpoint folder, or owner/name on the Hugging Face hub.")]
JsonFlag = Annotated[bool, arg(help="Print one JSON object instead of a table.")]
# Options of a nested dataclass without its prefix: --epochs, not --config.epochs.
Flat = arg(name="")


def load(checkpoint: Path, device: str, blocks: bool = False, instead: str = "") -> Any:
    """The policy of a checkpoint, on a device.

    Args:
        blocks: refuse one that does not answer an image and a sentence with one arrow.
        instead: what else can be done with it, for the message.
    """
    from tinyvla.model.policy import TinyVLA

    policy = TinyVLA.from_pretrained(checkpoint, device=device)
    seen, head = policy.config.observation, policy.config.head
    fits = (len(seen.cameras), seen.state_dim, head.action_dim, head.horizon) == (1, 0, 2, 1)
    check(
        fits or not blocks,
        f"the policy in {checkpoint} is for another task: it takes {counted(len(seen.cameras), 'camera')} and a "
        f"state of {counted(seen.state_dim, 'number')}, and gives {counted(head.horizon, 'action')} of "
        f"{head.action_dim}; this verb needs one camera, no state, and one action of 2{instead}",
    )
    return policy


def load_for_blocks(checkpoint: Path, device: str) -> Any:
    """The policy of a checkpoint, refused where it needs more than the world of blocks shows."""
    from tinyvla.data.batch import CAMERA

    policy = load(checkpoint, device)
    seen = policy.config.observation
    check(
        tuple(seen.cameras) == (CAMERA,) and seen.state_dim == 0,
        f"the policy in {checkpoint} sees {', '.join(seen.cameras)} and a state of "
        f"{counted(seen.state_dim, 'number')}; --world blocks shows {CAMERA!r} and no state, and --world metaworld is "
        "for those of that robot",
    )
    return policy


def print_report(policy: Any, num_samples: int, data: DataConfig, as_json: bool) -> None:
    """Judge a policy on scenes of the test split, and print what `tinyvla evaluate` says."""
    from tinyvla.data.dataset import BlockFind
    from tinyvla.learn.evaluate import evaluate

    _check_sight(policy)
    train = BlockFind(data.num_train, data.train_seed)
    report = evaluate(policy, BlockFind(num_samples, data.test_seed), train)
    print(dumps(report.to_dict()) if as_json else "\n" + report.table())


def print_sentences(policy: Any, num_samples: int, data: DataConfig, as_json: bool) -> None:
    """The same by kind of sentence."""
    from tinyvla.data.sentences import KINDS
    from tinyvla.learn.evaluate_sentences import evaluate_sentences

    _check_sight(policy)
    report = evaluate_sentences(policy, tuple(KINDS), num_samples)
    print(dumps(report.to_dict()) if as_json else "\n" + report.table())


def _check_sight(policy: Any) -> None:
    """Refuse a policy that cannot be shown BlockFind's scenes."""
    from tinyvla.data.batch import CAMERA
    from tinyvla.data.dataset import IMAGE_SIZE

    size, (camera,) = policy.config.vision.size, policy.config.observation.cameras
    check(
        size == (IMAGE_SIZE, IMAGE_SIZE) and camera == CAMERA,
        f"the policy sees {size[0]} x {size[1]} pixels of {camera!r}; evaluate shows {IMAGE_SIZE} x {IMAGE_SIZE} of "
        f"{CAMERA!r}",
    )


def doctor(device: DeviceName = "auto") -> None:
    """Check this machine: versions, CUDA, disk, 20 real training steps, and how long each preset would take."""
    from tinyvla.app.doctor import run_doctor

    if not run_doctor(device):
        sys.exit(1)


def info(
    preset: Annotated[str | None, arg(help=f"A preset: {', '.join(PRESETS)}; all of them if none is named.")] = None,
    checkpoint: Annotated[Path | None, arg(help="A checkpoint folder instead.")] = None,
    json: JsonFlag = False,
) -> None:
    """Count the parameters of each component."""
    import torch

    from tinyvla.model.policy import TinyVLA

    if preset and checkpoint:
        raise InputError("give --preset or --checkpoint, not both")
    counts: dict[str, dict[str, int]] = {}
    if checkpoint:
        counts[str(checkpoint)] = load(checkpoint, "cpu").num_parameters()
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
    step: StepName = "auto",
    reference: int = 0,
    cold: int = 0,
    epochs: int = 0,
    out: Path | None = None,
    world: Annotated[str, arg(help="blocks, or metaworld: from an empty folder to a judged policy.")] = "blocks",
    tasks: Annotated[str, arg(help="Of Meta-World.")] = "mt50",
    demos: Annotated[int, arg(help="Of each of Meta-World's tasks.")] = 50,
    folder: Annotated[Path, arg(help="For Meta-World's demonstrations; must be empty.")] = Path(
        "metaworld-demonstrations"
    ),
) -> None:
    """Measure how long a recipe with a fixed number of steps takes, and how many runs reach 95 % direction accuracy.

    Args:
        seeds: Runs, with seeds 0, 1, ...
        reference: Runs of the plain recipe in the same call, to compare with.
        cold: Fresh Python processes to time, imports included.
        epochs: Also time so many epochs, at the settings that the course teaches.
        out: A file to write the figures to, such as results/bench_minimal_cpu.json; none is written unless given.
    """
    from tinyvla.device import choose_device
    from tinyvla.measure import bench as b
    from tinyvla.speed.step import step_options

    check_number("--seeds", seeds, Within(1, 10_000))
    for option, value in (("reference", reference), ("cold", cold), ("epochs", epochs)):
        check_number(f"--{option}", value, Within(0, 10_000))
    check_number("--steps", 1 if steps is None else steps, Within(1, 10**6))
    _check_figures(out)
    if world == "metaworld":
        refuse(("preset", "seeds", "step", "reference", "cold", "epochs"), "not for --world metaworld")
        from tinyvla.measure.race import race, table

        raced = race(folder, tasks, demos, steps, device)
        command = f"tinyvla bench --world metaworld --tasks {tasks} --demos {demos} --steps {raced['steps']}"
        _show(table(raced), {"command": command, **raced}, out)
        return
    if world != "blocks":
        raise InputError(f"unknown --world {world!r}; choose from blocks, metaworld")
    refuse(("tasks", "demos", "folder"), "not for --world blocks")
    where, config = choose_device(device), model_config(preset)
    recipe = b.RECIPES[preset] if steps is None else replace(b.RECIPES[preset], num_steps=steps)
    result = b.bench(config, recipe, where, seeds, step_options(step, where))
    if reference:
        result["reference"] = b.bench_reference(config, where, reference)
        result["speedup"] = result["reference"]["seconds"]["median"] / result["seconds"]["median"]
    if cold:
        from tinyvla.measure.cold import bench_cold

        result["cold"] = bench_cold(preset, where, cold)
    if epochs:
        ways = [(64, False), (256, False)] if where.type == "cuda" else [(64, False)]
        result["epochs"] = [b.bench_epochs(config, where, epochs, *way) for way in ways]
    options = {"reference": reference, "cold": cold, "epochs": epochs, "steps": steps}
    command = f"tinyvla bench --preset {preset} --seeds {seeds} --device {where.type}"
    command += f" --step {step}" * (step != "auto")
    command += "".join(f" --{name} {value}" for name, value in options.items() if value)
    _show(b.table(preset, result), {"command": command, "preset": preset, **result}, out)


def throughput(
    presets: Annotated[tuple[str, ...], arg(help=f"Which: {', '.join(PRESETS)}.")] = tuple(PRESETS),
    batch_size: int = 64,
    device: DeviceName = "auto",
    step: StepName = "auto",
    out: Path | None = None,
) -> None:
    """Measure the training step of presets: time, memory, share of the device's peak, and a profile on a GPU.

    Args:
        batch_size: Scenes in a step.
        out: A file to write the figures to, such as results/throughput_cuda.json; none is written unless given.
    """
    from tinyvla.device import choose_device
    from tinyvla.measure.bench import splits
    from tinyvla.measure.throughput import report, table
    from tinyvla.speed.step import step_options

    check_number("--batch-size", batch_size, Within(1, DataConfig().num_train))
    check(bool(presets), f"--presets names none; choose from {', '.join(PRESETS)}")
    check_once(presets, "presets")
    _check_figures(out)
    where = choose_device(device)
    options = step_options(step, where)
    configs = {name: model_config(name) for name in presets}
    result = report(configs, splits(where)["train"], batch_size, options)
    command = f"tinyvla throughput --presets {' '.join(presets)} --batch-size {batch_size} --device {where.type}"
    command += f" --step {step}" * (step != "auto")
    _show(table(result), {"command": command, **result}, out)


def _check_figures(out: Path | None) -> None:
    """Refuse a place where no figures can be written, or other things are, before they are measured."""
    if out is None:
        return
    check_output(out, (".json",))
    if out.exists():
        try:
            command = str(read_json(out, "").get("command"))
        except InputError:
            command = ""
        is_ours = command.startswith(("tinyvla bench ", "tinyvla throughput "))
        check(is_ours, f"--out is {out}, which holds no figures of an earlier call; choose another name")


def _show(table: str, result: dict[str, Any], out: Path | None) -> None:
    """Print what was measured; write it where the user says."""
    if out is not None:
        write_text(out, dumps(result, indent=2) + "\n")
    print(table)
    if out is not None:
        print(f"wrote {out}")
