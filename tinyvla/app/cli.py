"""The command line: `tinyvla VERB`, generated from the functions and dataclasses below by tyro.

Notable:
- a verb is a function; its arguments are the options, its docstring the help;
- whatever the user can get wrong ends as one line on standard error and exit code 2, with nothing overwritten.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial, wraps
from itertools import pairwise
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from tinyvla import __version__
from tinyvla.app.cli_evaluate import evaluate
from tinyvla.app.cli_measure import (
    Checkpoint,
    DeviceName,
    JsonFlag,
    bench,
    doctor,
    info,
    load,
    load_for_blocks,
    throughput,
)
from tinyvla.app.cli_metaworld import TaskNames, metaworld, roll_out
from tinyvla.app.cli_recordings import dataset
from tinyvla.app.cli_train import train
from tinyvla.app.given import note_options, option_of, refuse
from tinyvla.errors import InputError, one_line
from tinyvla.fields import MANY, SEED, Within, check, check_number, shown
from tinyvla.files import PICTURES, check_output
from tinyvla.recipes import DataConfig

EPISODES, EPISODES_OF_A_TASK = 500, 10


def rollout(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    policy: Annotated[str, arg(help="checkpoint, or without one: expert or random.")] = "checkpoint",
    episodes: int | None = None,
    seed: int = DataConfig().test_seed,
    gif: Path | None = None,
    device: DeviceName = "auto",
    json: JsonFlag = False,
    world: Annotated[str, arg(help="blocks, or metaworld, for which the last four options are.")] = "blocks",
    tasks: TaskNames = "mt50",
    execute: int = 2,
    workers: int = 0,
    films: Path | None = None,
) -> None:
    """Close the loop: let a policy move the camera, view by view, until it stops on the named block.

    Args:
        episodes: How many, each of at most 40 steps; 500 unless given. On Meta-World of each task; 10 unless given.
        seed: Which episodes; the default's are none that a policy is trained on.
        gif: Where to write the first episode as a moving picture; an earlier one is replaced.
        execute: Actions of a chunk that are done before the policy looks again.
        workers: Processes that simulate; as many as there are cores if 0.
        films: A folder for a success and a failure of each task, as moving pictures.
    """
    if world == "metaworld":
        count = EPISODES_OF_A_TASK if episodes is None else episodes
        if policy != "checkpoint" or gif:
            raise InputError("--world metaworld takes a --checkpoint, and --films in place of --gif")
        roll_out(checkpoint, tasks, count, seed, execute, workers, films, device, json)
        return
    if world != "blocks":
        raise InputError(f"unknown --world {world!r}; choose from blocks, metaworld")
    refuse(("tasks", "execute", "workers", "films"), "not for --world blocks")
    from tinyvla.act import rollout as loop
    from tinyvla.act.blocks.world import BlockWorld
    from tinyvla.act.world import episode_seeds

    if policy not in ("checkpoint", "expert", "random"):
        raise InputError(f"unknown --policy {policy!r}; choose from checkpoint, expert, random")
    if policy != "checkpoint":
        refuse(("checkpoint", "device"), f"not for --policy {policy}")
    if gif:
        check_output(gif, (".gif",), "--gif")
    blocks = BlockWorld(episode_seeds(EPISODES if episodes is None else episodes, seed))
    act = {"expert": loop.expert, "random": loop.random_policy()}.get(policy) or load_for_blocks(checkpoint, device)
    result = loop.rollout(act, blocks, record=1 if gif else 0)
    if gif and result.states:
        from tinyvla.show.filmstrip import film, save_gif

        save_gif(film(loop.replay(result.states, 0), BlockWorld(blocks.seeds[:1])), gif)
    if json:
        print(dumps(result.to_dict()))
        return
    print(result.table(str(checkpoint) if policy == "checkpoint" else policy))
    print("success: stopped on the named block; reached: was on it after some step, whether it stopped or not")
    print("path ratio: mean of success * expert's path / max(own, expert's); distance: pixels to the named block")
    if gif:
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
        out: Where to write the picture; an earlier one is replaced.
        num_samples: Scenes in the picture, at most 64.
        seed: Seed of the scenes; the default shows the test split's first ones.
    """
    from tinyvla.data.dataset import BlockFind

    if not 1 <= num_samples <= 64:
        raise InputError(f"--num-samples is {num_samples}; a picture holds 1 to 64 scenes")
    check_number("--seed", seed, SEED)
    check_output(out, PICTURES)
    policy = load(checkpoint, device, blocks=True)
    _use_file_backend()
    from tinyvla.show.plots import plot_predictions

    split = BlockFind(num_samples, seed)
    fig, _ = plot_predictions(split, policy.predict(split.images, split.instructions).numpy())
    _save_figure(fig, out)


def sample(out: Path = Path("sample_visualization.png"), seed: int = 42, index: int = 0) -> None:
    """Write a picture of one scene: its blocks, instruction and true arrow.

    Args:
        out: Where to write the picture; an earlier one is replaced.
        seed: Seed of the split; 42 is the training split.
        index: Which of its scenes.
    """
    from tinyvla.data.dataset import BlockFind

    check_number("--index", index, Within(0, MANY.high - 1))
    check_number("--seed", seed, SEED)
    check_output(out, PICTURES)
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
    from tinyvla.show.plots import save_figure

    save_figure(fig, path)
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
        picture: Where each answer's picture is written, in place of the one before.
    """
    from tinyvla.app.demo import run_demo

    check_number("--scene-seed", scene_seed, SEED)
    check_output(picture, PICTURES, "--picture")
    policy = load(checkpoint, device, blocks=True)
    _use_file_backend()
    run_demo(policy, scene_seed, picture)


def export(
    checkpoint: Checkpoint = Path("checkpoints/best"), out: Path = Path("policy.onnx"), compact: bool = False
) -> None:
    """Write a policy as ONNX (.onnx) or as a torch.export program (.pt2) that runs without this package.

    Args:
        out: Where to write; its suffix chooses the format, and an earlier file is replaced.
        compact: For a web page: weights in half precision, rows for the words of training alone, and a second output,
            where the policy looks.
    """
    from tinyvla.deploy.compact import export_compact
    from tinyvla.deploy.export import SUFFIXES, export_policy, usage

    check_output(out, (".onnx",) if compact else SUFFIXES)
    policy = load(checkpoint, "cpu")
    difference = (export_compact if compact else export_policy)(policy, out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB; largest difference from PyTorch {difference:.1e}")
    print(f"next, in Python:\n\n{usage(out, policy.config)}")


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "rollout": rollout,
    "visualize": visualize,
    "sample": sample,
    "demo": demo,
    "export": export,
    "dataset": dataset,
    "metaworld": metaworld,
    "doctor": doctor,
    "info": info,
    "bench": bench,
    "throughput": throughput,
}


def main(argv: list[str] | None = None) -> None:
    """Run one verb. Exit code 2 and one line on standard error when the input is at fault."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        return print(f"tinyvla {__version__}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):  # a name with other letters is shown in a terminal that knows ASCII alone
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _brief_warnings():
            parse(argv)()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # whoever read what is printed has heard enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        _fail("there is not enough memory for this; choose a smaller --preset, --batch-size or number of scenes")
    except KeyboardInterrupt:
        sys.exit(130)


def parse(argv: list[str]) -> Callable[[], None]:
    """Returns a verb with its options, ready to run.

    Raises:
        InputError: the command line is not understood; tyro says so in a box of many lines, which becomes one.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise InputError(f"unknown verb {shown(argv[0])}; choose from {', '.join(VERBS)}")
    for word in argv:
        check(_can_be_said(word), f"the command line holds {shown(word)}, with a character that no option can have")
    for option, value in pairwise([*argv, "end"]):
        if value == "" or re.fullmatch(r"--[\w-]+=", option):
            is_value = option.startswith("--")
            advice = f"the value of {option.rstrip('=')} is empty; leave the option out"
            raise InputError(advice if is_value else f"what stands after {shown(option)} is empty; name something")
    note_options(argv)
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _later(verb) for name, verb in VERBS.items()},
                prog="tinyvla",
                description="TinyVLA",
                args=argv or ["--help"],
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip("│╭╮╰╯─| ") for line in box.getvalue().splitlines()[1:]]
    said = " ".join(line for line in lines if line.strip("-"))  # where the terminal knows no ─, rules are of dashes
    said = re.split(r"\.? (?:Argument helptext|Available subcommands|Got errors|For full helptext)", said)[0]
    said = re.sub(r" \(applied to [^)]*\)| or misplaced|\.? Arguments are applied to .*? can matter\.", "", said)
    said = re.sub(r"(--[\w-]+)(.*) Perhaps you meant: \1(?![\w-]).*", r"\1\2", said)  # another verb's option
    said = re.sub(r"Perhaps you meant: (--[\w-]+).*", r"(perhaps \1 is meant)", said)
    said = re.sub(r"Could not find valid parse for arguments: \[(.*?)\]", r"\1 cannot be such a value", said)
    said = re.sub(r"no type matching (?:\{None\}\|)?(\S+) could be instantiated from \[(.*)\]", r"\2 is no \1", said)
    verb = f"{argv[0]} " if argv[0] in VERBS else ""
    raise InputError(f"{said.strip(' .')}; `tinyvla {verb}--help` lists the {'options' if verb else 'verbs'}")


def _can_be_said(word: str) -> bool:
    """Whether a shell could give this word to a process."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


@contextmanager
def _brief_warnings() -> Iterator[None]:
    """Warnings of this package in one line, without the place in the code; those of others as they are."""
    usual = warnings.formatwarning

    def brief(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        is_ours = category.__module__.startswith("tinyvla.")
        return f"tinyvla: warning: {one_line(str(message))}\n" if is_ours else usual(message, category, *where, **more)

    warnings.formatwarning = brief
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _later(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Returns a function with the same options; what it is called with is run later."""

    @wraps(verb)
    def bind(*args: Any, **options: Any) -> Callable[[], None]:
        return partial(verb, *args, **options)

    return bind


def _fail(message: str) -> None:
    """End with a message, in which a setting has its option's name where it was given as one."""
    named = re.sub(r"\b([A-Z][A-Za-z]+)\.(\w+)(?= (is|are) )", lambda at: option_of(at[2]) or at[0], message)
    with suppress(OSError):  # where errors cannot be written, the exit code still says that there is one
        print(f"tinyvla: error: {one_line(named)}", file=sys.stderr)
    sys.exit(2)
