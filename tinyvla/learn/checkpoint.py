"""A run's folder on disk: checkpoints, metrics and what is needed to resume.

    DIR/config.json          the run's settings, library versions, and the names of the files that it wrote
    DIR/metrics.jsonl        one line per epoch
    DIR/best/                the checkpoint with the lowest validation loss (`TinyVLA.from_pretrained`)
    DIR/epoch_005/ ...       checkpoints kept on the way
    DIR/resume.safetensors   weights, optimizer state and progress; removed when the run is complete
    DIR/.new/                a run that shall replace the one in DIR, until its first checkpoint stands

Notable:
- every file is written beside its place and moved there in one step (`os.replace`), so whenever the power goes, each
  file is either the old one or the new one, whole;
- a checkpoint folder is swapped file by file. That is safe because only the weights change during a run;
- no pickle: optimizer state is tensors, so safetensors holds it too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open

from tinyvla.config import ModelConfig
from tinyvla.errors import InputError
from tinyvla.fields import Within, check, check_fields, check_number, make, shown
from tinyvla.files import (
    check_is_file,
    named,
    parse_json,
    read_bytes,
    read_json,
    save_tensors,
    sync,
    temporary_of,
    write_text,
)
from tinyvla.learn.folder import METRICS, SETTINGS, STATE, Folder, write_settings
from tinyvla.learn.optimizer import saved_state
from tinyvla.model.checkpoint_files import check_header, is_finite
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.room import check_room

STEPS = Within(0, 10**15)
"""Steps, and epochs, that a file may speak of."""
SAVED = "saved"
"""In `config.json`: whether the run has saved a state since it began."""


def library_versions() -> dict[str, str]:
    """What a run was made with, for its `config.json`."""
    import numpy

    import tinyvla

    return {"torch": torch.__version__, "numpy": numpy.__version__, "tinyvla": tinyvla.__version__}


@dataclass
class Progress:
    """How far a run has come."""

    step: Annotated[int, STEPS] = 0
    """Optimizer steps done."""
    best_loss: Annotated[float, Within(float("-inf"), float("inf"))] = float("inf")
    """Lowest validation loss so far."""
    loss_sum: Annotated[float, Within(-1e300, 1e300)] = 0.0
    """Sum of the training losses since the epoch began."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RunSettings:
    """All that decides a run's outcome."""

    model: ModelConfig
    train: TrainConfig
    data: DataConfig
    step: str = "plain"
    """One of `tinyvla.speed.step.KINDS`: they round differently. "fast" is what "auto" was called once."""

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSettings:
        """The inverse of `to_dict`; other keys are ignored.

        Raises:
            InputError: a part is missing or refused.
        """
        check(isinstance(values, dict), f"a run's settings are {shown(values)}; they must be an object")
        missing = [name for name in ("model", "train", "data") if name not in values]
        check(not missing, f"it does not describe a run: it lacks {', '.join(missing)}")
        train, data = make(TrainConfig, values["train"], "train"), make(DataConfig, values["data"], "data")
        step = values.get("step", "plain")
        return cls(ModelConfig.from_dict(values["model"]), train, data, "auto" if step == "fast" else step)


class RunFolder(Folder):
    """Reads and writes one run's folder."""

    def start(self, settings: RunSettings, versions: dict[str, str], overwrite: bool) -> None:
        """Make the folder ready for a new run; one that shall be replaced stays until the new one has a checkpoint.

        Raises:
            InputError: it holds a run already and `overwrite` is false, holds other files where a run would write, is
                in use, or is no folder.
            OSError: it cannot be written.
        """
        with self.held():
            place = self.make_way(overwrite)
            write_settings(place, {**settings.to_dict(), "versions": versions, "files": [SETTINGS, METRICS, STATE]})

    def settings(self) -> RunSettings:
        """The settings of the run in this folder.

        Raises:
            InputError: there is none, or its file is damaged.
        """
        missing = f"{self.path} holds no run to resume; start one without --resume"
        values = read_json(self.place / SETTINGS, missing)
        with named(self.place / SETTINGS):
            return RunSettings.from_dict(values)

    def settings_to_resume(self, asked: RunSettings, given: Collection[str]) -> RunSettings:
        """The settings of the run in this folder, once what the user asked for is known to be the same.

        Args:
            given: fields that the user named, of the settings or their parts; no others are compared.

        Raises:
            InputError: there is no run, or others were asked for: that is an error, not a silent choice.
        """
        saved = self.settings()
        if "model" in given and asked.model != saved.model:
            raise InputError(
                "--resume goes on with the saved model; leave out --preset, --fusion, --head, --vision and --language, "
                "or use another --out"
            )
        if "step" in given and asked.step != saved.step:
            raise InputError(
                f"--resume goes on with the {saved.step} step; {asked.step} needs a new run in another --out"
            )
        wanted = vars(asked.train) | vars(asked.data)
        for name, have in (vars(saved.train) | vars(saved.data)).items():
            if name in given and wanted[name] != have:
                old, new = ("nothing" if value in ("", ()) else value for value in (have, wanted[name]))
                raise InputError(f"--resume goes on with {name} {old}; {new} needs a new run in another --out")
        return saved

    def is_complete(self, settings: RunSettings) -> bool:
        """Whether the run in this folder has been trained to its end."""
        records = self.records()
        return bool(records) and records[-1]["epoch"] == settings.train.epochs and not self._state.exists()

    @property
    def _state(self) -> Path:
        return self.place / STATE

    def records(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`.

        Raises:
            InputError: one of them is no record.
        """
        path = self.place / METRICS
        if not path.exists():
            return []
        records = []
        for number, line in enumerate(read_bytes(path, f"{path} is no file").splitlines(), start=1):
            where = f"line {number} of {path}"
            record = parse_json(line, where)
            for name in ("step", "epoch"):
                check_number(f"{name} in {where}", record.get(name), STEPS, whole=name == "step")
            records.append(record)
        return records

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Replace `metrics.jsonl`."""
        write_text(self.place / METRICS, "".join(json.dumps(record) + "\n" for record in records))

    def save_checkpoint(self, policy: TinyVLA, name: str) -> None:
        """Write a checkpoint folder, replacing one of that name only by a whole one."""
        folder = self.place / name
        temporary = temporary_of(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            policy.save_pretrained(temporary)
            files = [path for path in temporary.rglob("*") if path.is_file()]
            for file in files:
                sync(file)
            self.note(f"{name}/{file.relative_to(temporary).as_posix()}" for file in files)
            if not folder.exists():
                os.replace(temporary, folder)
                return
            for file in files:  # in folders lie tokenizers and the like, always the same
                (folder / file.relative_to(temporary)).parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, folder / file.relative_to(temporary))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def save_epoch(
        self,
        policy: TinyVLA,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        records: list[dict[str, Any]],
        checkpoint_every: int,
    ) -> None:
        """Write an epoch's files, the resume state last: a kill before it repeats the epoch and writes them again."""
        record = records[-1]
        if record["val_loss"] <= progress.best_loss:
            progress.best_loss = record["val_loss"]
            self.save_checkpoint(policy, "best")
        if record["epoch"] % checkpoint_every == 0:
            self.save_checkpoint(policy, f"epoch_{record['epoch']:03d}")
        self.write_records(records)
        self.save_state(policy, optimizer, progress)
        self.swap()  # a checkpoint stands, so an older run can go

    def save_state(self, policy: TinyVLA, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write all that training needs to go on as if it had never stopped."""
        tensors = {f"model.{name}": value.contiguous() for name, value in policy.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value.contiguous() for name, value in state.items()}
        metadata = {"progress": json.dumps(asdict(progress))}
        folder = temporary_of(self._state)  # a folder: safetensors begins a file of its own beside the one it writes
        folder.mkdir(exist_ok=True)
        try:
            save_tensors(tensors, folder / STATE, metadata)
            sync(folder / STATE)
            os.replace(folder / STATE, self._state)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._note_saved()

    def _note_saved(self) -> None:
        """Write down that there is a state, so that one that is missing later is known to be lost."""
        values = read_json(self.place / SETTINGS, f"{self.place} holds no {SETTINGS}")
        if not values.get(SAVED):
            write_settings(self.place, {**values, SAVED: True})

    def check_state(self, model: ModelConfig) -> None:
        """Compare the header of the resume state with the policy that the settings describe, before one is built.

        Raises:
            InputError: they do not fit; or there is no state yet, and the policy's weights alone fill this machine; or
                the run cannot go on with what is in its folder.
        """
        self._check_can_go_on()
        expected = TinyVLA.outline(model, self.best)
        problem = f"{self._state} does not fit its {SETTINGS}"
        if not self._state.exists():
            check_room(4 * sum(tensor.numel() for tensor in expected.values()), f"the policy of {self.path}")
            return
        try:
            with safe_open(self._state, framework="pt") as file:
                check_header(file, expected, problem, prefix="model.")
        except (SafetensorError, OSError) as error:
            raise _damaged(self._state, error) from None

    def _check_can_go_on(self) -> None:
        """Refuse a folder where others have written, and a run whose state is gone."""
        self.check_is_own("move it away before you go on")
        check_is_file(self._state)
        values = read_json(self.place / SETTINGS, f"{self.place} holds no {SETTINGS}")
        was_saved = values.get(SAVED) or len(self.records()) > 1  # of before it was noted
        has_more = self.best.exists() or (self.place / METRICS).exists()
        if was_saved and has_more and not self._state.exists() and not self.is_complete(self.settings()):
            raise InputError(f"{self._state} is missing; bring it back, or start again with --overwrite")

    def load_state(self, policy: TinyVLA, optimizer: torch.optim.Optimizer, total: int | None = None) -> Progress:
        """Restore what `save_state` wrote; a run that was stopped before its first save starts afresh.

        Args:
            total: the run's steps; a state beyond them is refused.

        Raises:
            InputError: it is damaged, or another policy's; or it is missing, and a run was here.
        """
        with self.held():
            self._check_can_go_on()
            return self._load_state(policy, optimizer, total) if self._state.exists() else Progress()

    def _load_state(self, policy: TinyVLA, optimizer: torch.optim.Optimizer, total: int | None) -> Progress:
        try:
            with safe_open(self._state, framework="pt", device=str(policy.device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                metadata = file.metadata() or {}
            for name, value in tensors.items():
                check(is_finite(value), f"{name} is not finite")
            progress = make(Progress, parse_json(metadata.get("progress", ""), "its progress"), "its progress")
            check(total is None or progress.step <= total, f"it is at step {progress.step} of {total}")
            state = saved_state(tensors, policy, optimizer)
            policy.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise _damaged(self._state, error) from None
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return progress

    def finish(self) -> None:
        """Drop the resume state of a complete run."""
        self._note_saved()  # a process that died between the state and its note has not done so
        self._state.unlink(missing_ok=True)


def _damaged(path: Path, error: Exception) -> InputError:
    first = " ".join(str(error).split())[:200]
    return InputError(f"{path} is damaged ({first}); start again with --overwrite")
