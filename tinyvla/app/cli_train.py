"""The command line's verb `train`.

Notable:
- without flags a preset is trained by its own measured recipe; a flag that is given wins over the recipe;
- the same code serves one process and several: the main one alone prints and writes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from tyro.conf import arg

from tinyvla.app import cli_recordings as recorded
from tinyvla.app.cli_measure import (
    DeviceName,
    Flat,
    FusionName,
    HeadName,
    PresetName,
    StepName,
    print_report,
    print_sentences,
)
from tinyvla.app.given import OF_MODEL, check_train, compared, given, refuse
from tinyvla.config import PRESETS, ModelConfig, model_config
from tinyvla.errors import InputError
from tinyvla.files import check_folder
from tinyvla.recipes import RECIPES, RECORDINGS, DataConfig, Recipe, RecordingConfig, TrainConfig

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from tinyvla.data.batch import TensorSplit
    from tinyvla.data.demonstrations import Demonstrations
    from tinyvla.learn.callbacks import Callback, Record
    from tinyvla.learn.checkpoint import RunFolder, RunSettings
    from tinyvla.model.policy import TinyVLA

LONGER = 5
"""Epochs that are offered to whoever wants a better policy than the recipe's."""
RECIPE_NAMES = ("auto", "measured", "plain")
RecipeName = Annotated[
    str,
    arg(
        help="measured: the preset's own, the shortest that ends settled; plain: AdamW at 3e-4, 100 steps of warm-up, "
        "20 epochs; auto: the measured one unless another fusion, head or tower is named."
    ),
]


def _unset(config: type) -> type:
    """Returns a dataclass with the fields of another, in which all but switches are None unless they are given."""
    types = get_type_hints(config)
    helps = dict(re.findall(r'^    (\w+): [^\n]+\n    """(.+?)"""$', inspect.getsource(config), re.M | re.S))
    columns: list[tuple[str, Any, Any]] = []
    for each in fields(config):
        text = helps.get(each.name, "").rstrip(".")
        if isinstance(each.default, bool):
            columns.append((each.name, Annotated[bool, arg(help=text)], field(default=each.default)))
        else:
            option = arg(help=text, help_behavior_hint="(unless given: the recipe's)")
            columns.append((each.name, Annotated[types[each.name] | None, option], field(default=None)))
    return make_dataclass(f"Given{config.__name__}", columns, frozen=True)


GivenTrainConfig: Any = _unset(TrainConfig)


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
    step: StepName = "auto",
    recipe: RecipeName = "auto",
    config: Annotated[GivenTrainConfig, Flat] = GivenTrainConfig(),  # noqa: B008 - frozen
    data: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008 - frozen
    sizes: Annotated[RecordingConfig, Flat] = RecordingConfig(),  # noqa: B008 - frozen
) -> None:
    """Train a policy, keep its best checkpoint in OUT/best, and judge it on the test split.

    With --dataset it learns from recordings; the last five options are for them alone. `tinyvla dataset` looks at them.

    Args:
        out: Folder for checkpoints, settings and metrics.
        resume: Go on with the run in OUT, with the settings it was started with.
        overwrite: Replace the run in OUT.
        log_dir: Folder for TensorBoard logs.
        vision: A Hugging Face vision tower, an id or a folder, in place of the preset's; its weights stay frozen.
        language: The same for the language model.
        learn_towers: Let such towers learn, too.
    """
    from tinyvla.learn.checkpoint import RunFolder, RunSettings, library_versions
    from tinyvla.speed.data_parallel import OnlyReading

    check_train(resume, bool(data.dataset))
    check_folder(out, "--out")
    check_folder(log_dir, "--log-dir")
    place = Place.of(device, step)
    run = RunFolder(out) if place.is_main else OnlyReading(out)
    if place.is_main and data.dataset and not resume:
        run.check_is_free(overwrite)  # before its videos are decoded
    recordings = recorded.read(data, sizes.image_size) if data.dataset and not resume else None
    if resume:
        model = _saved_model(run.settings().model, preset, fusion, head, vision, language, learn_towers)
    elif recordings is not None:
        model = recordings.robot_config(sizes, preset, fusion, head)
    else:
        model = _model(preset, fusion, head, vision, language, frozen=not learn_towers)
    if resume:
        asked: Recipe | TrainConfig = run.settings().train  # there is one, so taking the lock makes no folder
    else:
        asked = _recipe(recipe, preset, model == model_config(preset), recordings is not None)
    count = data.num_train if recordings is None else round((1 - data.val_episodes) * len(recordings))
    settings = RunSettings(model, _settle(asked, config, count), data, step)
    with run.held():
        if resume:
            settings = run.settings_to_resume(settings, compared())
            run.check_state(settings.model)  # a stranger's sizes are compared before anything is built
        elif place.is_main:
            run.start(settings, library_versions(), overwrite)
        place.wait()
        if resume and run.is_complete(settings):
            print(f"{out} is complete: {settings.train.epochs:g} epochs are trained")
        else:
            try:
                _fit(settings, run, place, log_dir / out.resolve().name, recordings)
            except BaseException:  # what has saved nothing leaves the run that it was to replace
                run.drop_unsaved()
                raise
    place.leave()
    if place.is_main:
        _judge(run, settings, place)


@dataclass(frozen=True)
class Place:
    """Where a policy is trained: a device, and the other processes if there are any."""

    device: torch.device
    accelerator: Accelerator | None = None

    @classmethod
    def of(cls, device: str, step: str) -> Place:
        """Returns the place that the user and the launcher ask for.

        Raises:
            InputError: it does not exist, or such a step is not possible there.
        """
        from tinyvla.device import choose_device
        from tinyvla.speed.data_parallel import make_accelerator
        from tinyvla.speed.step import step_options

        accelerator = make_accelerator(device)
        if accelerator is not None and step == "compiled":
            raise InputError("--step compiled is for one process; leave it out where several train together")
        where = choose_device(device) if accelerator is None else accelerator.device
        step_options(step, where)
        return cls(where, accelerator)

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.accelerator is None or self.accelerator.is_main_process

    def wait(self) -> None:
        """Let the others come as far."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Let all processes end together."""
        if self.accelerator is not None:
            self.accelerator.end_training()

    def __str__(self) -> str:
        if self.accelerator is None:
            return f"{self.device}"
        return f"{self.accelerator.num_processes} processes ({self.device.type})"


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


def _saved_model(saved: ModelConfig, preset: str, fusion: str | None, head: str | None, *towers: Any) -> ModelConfig:
    """The policy that --resume goes on with; another one that is asked for is refused before its towers are read."""
    vision, language, learn = towers
    named = (getattr(saved.vision, "source", None), getattr(saved.language, "source", None))
    is_another = (vision, language) != named if vision or language else learn
    if is_another or (given(*OF_MODEL) and _model(preset, fusion, head, vision, language, not learn) != saved):
        refuse(OF_MODEL, "--resume goes on with the saved model")
    return saved


def _recipe(name: str, preset: str, is_preset: bool, is_recorded: bool) -> Recipe | TrainConfig:
    """Returns what `--recipe` asks for; the measured ones are for the presets as they are, and for recordings."""
    if name not in RECIPE_NAMES:
        raise InputError(f"unknown recipe {name!r}; choose from {', '.join(RECIPE_NAMES)}")
    if is_recorded:
        return TrainConfig() if name == "plain" else RECORDINGS
    is_measured = name == "measured" or (name == "auto" and is_preset)
    return RECIPES[preset] if is_measured else TrainConfig()


def _settle(asked: Recipe | TrainConfig, wanted: Any, num_scenes: int) -> TrainConfig:
    """Returns the settings of a recipe, but for those that the user gives."""
    changes = {name: value for name, value in vars(wanted).items() if value is not None}
    if isinstance(asked, TrainConfig):
        return replace(asked, **changes)
    changed = replace(asked.train, **changes)
    return changed if "epochs" in changes else Recipe(asked.num_steps, changed).for_scenes(num_scenes)


def _splits(
    settings: RunSettings, policy: TinyVLA, device: torch.device, recordings: Demonstrations | None
) -> tuple[TensorSplit, TensorSplit]:
    """Returns what to learn from, and what to look at after each epoch."""
    from tinyvla.data.batch import TensorSplit
    from tinyvla.data.dataset import BlockFind
    from tinyvla.data.sentences import SentenceFind

    data = settings.data
    if data.dataset:
        size, resize = policy.config.vision.size, policy.config.observation.resize
        return recorded.splits(recordings or recorded.read(data, size, resize), policy, data, device)
    task = SentenceFind if data.sentences else BlockFind
    train, val = task(data.num_train, data.train_seed), task(data.num_val, data.val_seed)
    encode = policy.language.encode
    return TensorSplit.from_blockfind(train, encode, device), TensorSplit.from_blockfind(val, encode, device)


def _fit(
    settings: RunSettings, run: RunFolder, place: Place, log_dir: Path, recordings: Demonstrations | None = None
) -> None:
    """Train, or go on with a training; Ctrl-C ends the process with a word on how to go on."""
    from tinyvla.learn.train import Interrupted, fit
    from tinyvla.model.policy import new_policy
    from tinyvla.speed.step import make_step

    config = settings.train
    policy = new_policy(settings.model, config.seed, place.device)
    train_tensors, val_tensors = _splits(settings, policy, place.device, recordings)
    policy.prepare_for(train_tensors)
    # A run that was compiled on a GPU goes on elsewhere as well as that device can.
    kind = "auto" if settings.step == "compiled" and place.device.type != "cuda" else settings.step
    step = make_step(policy, train_tensors, config, kind, place.accelerator)
    # A damaged one is refused before anything is shown or logged.
    run.load_state(policy, step.optimizer, config.total_steps(len(train_tensors)))
    if place.is_main:
        size, steps = policy.num_parameters()["total"] / 1e6, config.total_steps(len(train_tensors))
        what = "frames" if settings.data.dataset else "scenes"
        size_of_batch = min(config.batch_size, len(train_tensors))
        what = f"{steps} steps of {size_of_batch} {what}, {config.optimizer} at {config.learning_rate:g}"
        print(f"training {size:.1f} M parameters on {place}: {what} (step: {getattr(step, 'options', 'plain')})")
    with _watchers(place, log_dir, bool(settings.data.dataset)) as callbacks:
        try:
            fit(policy, train_tensors, val_tensors, config, step, run, callbacks)
        except Interrupted as stopped:
            print(f"\n{stopped}; go on with: tinyvla train --resume --out {run.path}", file=sys.stderr)
            sys.exit(130)


@contextmanager
def _watchers(place: Place, log_dir: Path, is_recorded: bool = False) -> Iterator[list[Callback]]:
    """What the main process shows and logs; Ctrl-C stops a process that trains alone."""
    from tinyvla.learn.callbacks import OnEpoch, ProgressBar, StopOnInterrupt, TensorBoard, event_file

    if not place.is_main:
        yield []
        return
    with event_file(log_dir) as writer:
        alone: list[Callback] = [StopOnInterrupt()] if place.accelerator is None else []
        bar: list[Callback] = [ProgressBar()] if sys.stderr.isatty() else []
        yield [*alone, *bar, TensorBoard(writer), OnEpoch(partial(_print_epoch, is_recorded=is_recorded))]


def _print_epoch(record: Record, is_recorded: bool) -> None:
    from tqdm.auto import tqdm

    line = f"epoch {record['epoch']:4.3g}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
    line += f"L2 {record['l2_error']:.4f}"
    tqdm.write(line if is_recorded else f"{line}  direction {record['direction_accuracy']:.1%}")


def _judge(run: RunFolder, settings: RunSettings, place: Place) -> None:
    """Print how good the best checkpoint is, and what can be done next."""
    if settings.data.dataset:
        print(f"\nbest checkpoint: {run.best}, judged by the held-out episodes' loss")
        print(f"next: tinyvla evaluate --dataset {settings.data.dataset} --checkpoint {run.best}")
        return
    from tinyvla.model.policy import TinyVLA

    best: TinyVLA = TinyVLA.from_pretrained(run.best, device=str(place.device))
    report = print_sentences if settings.data.sentences else print_report
    report(best, settings.data.num_test, settings.data, as_json=False)
    print(f"\nbest checkpoint: {run.best}\nnext: tinyvla visualize --checkpoint {run.best}")
    preset = next((name for name, model in PRESETS.items() if model == settings.model), None)
    if preset and settings.train.epochs < LONGER:
        print(f"train longer: tinyvla train --preset {preset} --epochs {LONGER} --out {run.path}-longer")
