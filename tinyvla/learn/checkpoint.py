"""A run's folder on disk: checkpoints, metrics and what is needed to resume.

    DIR/config.json          the run's settings and library versions
    DIR/metrics.jsonl        one line per epoch
    DIR/best/                the checkpoint with the lowest validation loss (`TinyVLA.from_pretrained`)
    DIR/epoch_005/ ...       checkpoints kept on the way
    DIR/resume.safetensors   weights, optimizer state and progress; removed when the run is complete

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
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tinyvla.config import ModelConfig, model_config
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import DataConfig, TrainConfig


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then move it there in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def library_versions() -> dict[str, str]:
    """What a run was made with, for its `config.json`."""
    import numpy

    import tinyvla

    return {"torch": torch.__version__, "numpy": numpy.__version__, "tinyvla": tinyvla.__version__}


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps done."""
    best_loss: float = float("inf")
    """Lowest validation loss so far."""
    loss_sum: float = 0.0
    """Sum of the training losses since the epoch began."""


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
        """The inverse of `to_dict`; other keys are ignored."""
        parts = ModelConfig.from_dict(values["model"]), TrainConfig(**values["train"]), DataConfig(**values["data"])
        step = values.get("step", "plain")
        return cls(*parts, step="auto" if step == "fast" else step)


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._config = self.path / "config.json"
        self._metrics = self.path / "metrics.jsonl"
        self._state = self.path / "resume.safetensors"

    @property
    def best(self) -> Path:
        """The best checkpoint's folder."""
        return self.path / "best"

    def start(self, settings: RunSettings, versions: dict[str, str], overwrite: bool) -> None:
        """Make the folder ready for a new run.

        Raises:
            InputError: it holds a run already and `overwrite` is false, or it is not a run's folder.
            OSError: it cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; --out must name a folder")
        if self._config.exists() and not overwrite:
            raise InputError(
                f"{self.path} holds a run already; go on with --resume, replace it with --overwrite, "
                "or choose another --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if self._config.exists():
            self._clear()
        text = json.dumps({**settings.to_dict(), "versions": versions}, indent=2)
        write_atomically(self._config, lambda path: _write_text(path, text + "\n"))

    def _clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        self._config.unlink()
        for file in (self._metrics, self._state):
            file.unlink(missing_ok=True)
        for folder in (self.best, *self.path.glob("epoch_[0-9]*")):
            shutil.rmtree(folder, ignore_errors=True)

    def settings(self) -> RunSettings:
        """The settings of the run in this folder.

        Raises:
            InputError: there is none.
        """
        try:
            return RunSettings.from_dict(json.loads(self._config.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no run to resume; start one without --resume") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self._config} does not describe a run ({error})") from None

    def settings_to_resume(self, asked: RunSettings, step_was_asked: bool = False) -> RunSettings:
        """The settings of the run in this folder, given what the user asked for.

        The kind of step counts as asked for only where that is said: its default depends on the device.

        Raises:
            InputError: there is no run, or others were asked for: that is an error, not a silent choice.
        """
        saved = self.settings()
        if asked.model not in (saved.model, model_config("minimal")):
            raise InputError(
                "--resume goes on with the saved model; leave out --preset, --fusion, --head, --vision and --language, "
                "or use another --out"
            )
        if step_was_asked and asked.step != saved.step:
            raise InputError(
                f"--resume goes on with the {saved.step} step; {asked.step} needs a new run in another --out"
            )
        for kind, default in (("train", TrainConfig()), ("data", DataConfig())):
            for field in fields(default):
                want, have = (getattr(getattr(s, kind), field.name) for s in (asked, saved))
                if want not in (have, getattr(default, field.name)):
                    raise InputError(
                        f"--resume goes on with {field.name} {have}; {want} needs a new run in another --out"
                    )
        return saved

    def is_complete(self, settings: RunSettings) -> bool:
        """Whether the run in this folder has been trained to its end."""
        records = self.records()
        return bool(records) and records[-1]["epoch"] == settings.train.epochs and not self._state.exists()

    def records(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        if not self._metrics.exists():
            return []
        return [json.loads(line) for line in self._metrics.read_text(encoding="utf-8").splitlines()]

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Replace `metrics.jsonl`."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self._metrics, lambda path: _write_text(path, lines))

    def save_checkpoint(self, policy: TinyVLA, name: str) -> None:
        """Write a checkpoint folder, replacing one of that name only by a whole one."""
        folder = self.path / name
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        policy.save_pretrained(temporary)
        if not folder.exists():
            os.replace(temporary, folder)
            return
        for file in filter(Path.is_file, temporary.iterdir()):  # folders hold tokenizers and the like, always the same
            os.replace(file, folder / file.name)
        shutil.rmtree(temporary)

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

    def save_state(self, policy: TinyVLA, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write all that training needs to go on as if it had never stopped."""
        tensors = {f"model.{name}": value.contiguous() for name, value in policy.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value.contiguous() for name, value in state.items()}
        metadata = {"progress": json.dumps(asdict(progress))}
        write_atomically(self._state, lambda path: save_file(tensors, path, metadata))

    def load_state(self, policy: TinyVLA, optimizer: torch.optim.Optimizer) -> Progress:
        """Restore what `save_state` wrote; a run that was stopped before its first save starts afresh."""
        if not self._state.exists():
            return Progress()
        try:
            with safe_open(self._state, framework="pt", device=str(policy.device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                progress = Progress(**json.loads(file.metadata()["progress"]))
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(f"{self._state} is damaged ({error}); start again with --overwrite") from None
        policy.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                # Step counts live on the CPU, except where a fused optimizer wants them beside the weights.
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return progress

    def finish(self) -> None:
        """Drop the resume state of a complete run."""
        self._state.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
