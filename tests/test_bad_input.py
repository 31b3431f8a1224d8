"""Calls that are wrong, on every verb and on the Python API. Each is refused in one line that says why.

At the command line that is exit code 2, with nothing written and nothing changed; in Python it is an `InputError`. A
refusal takes at most two seconds and one gigabyte. The types that jaxtyping checks in all other tests are not checked
here: users have no such checks.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tinyvla.act.arm.world import ArmConfig
from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.controller import Controller
from tinyvla.act.dagger import dagger, demonstrations
from tinyvla.act.metaworld.scene import MetaWorldConfig
from tinyvla.act.rollout import expert, random_policy, replay, rollout
from tinyvla.adapt.lora import add_lora, load_adapter, merge, save_adapter
from tinyvla.app import cli
from tinyvla.config import (
    FusionConfig,
    HeadConfig,
    LanguageConfig,
    ModelConfig,
    ObservationConfig,
    PretrainedConfig,
    VisionConfig,
    model_config,
)
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind, trajectories, valid_trajectories
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import camera_name, read_dataset, write_dataset
from tinyvla.data.report import inspect
from tinyvla.data.sentences import SentenceFind
from tinyvla.data.video import VideoWriter, frames_at
from tinyvla.deploy.compact import export_compact
from tinyvla.deploy.export import export_policy, load_exported
from tinyvla.errors import InputError
from tinyvla.fields import Within
from tinyvla.learn.callbacks import Interrupted, OnEpoch, TensorBoard
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.evaluate import Metrics, ambiguity, evaluate, floors, predict_split, swap_accuracy, validation_loss
from tinyvla.learn.evaluate_sentences import evaluate_sentences, pair_accuracy
from tinyvla.learn.offline import evaluate_offline
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import PlainStep, fit, train_step
from tinyvla.model.heads import make_head
from tinyvla.model.normalize import Normalizer
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, RecordingConfig, TrainConfig, recipe
from tinyvla.registry import register
from tinyvla.speed.step import make_step
from tinyvla.stats import spread, wilson_interval

SECONDS, KILOBYTES = 2.0, 2**20
NUMBERS = {
    "train": [
        *("batch-size", "warmup-steps", "newton-schulz", "seed", "checkpoint-every", "accumulate"),
        *("num-train", "num-val", "num-test", "train-seed", "val-seed", "test-seed"),
    ],
    "evaluate": ["num-samples"],
    "rollout": ["episodes", "seed"],
    "visualize": ["num-samples", "seed"],
    "sample": ["seed", "index"],
    "demo": ["scene-seed"],
    "bench": ["seeds", "steps", "reference", "cold", "epochs"],
    "throughput": ["batch-size"],
}
FRACTIONS = ("learning-rate", "weight-decay", "beta1", "beta2", "momentum", "decay-fraction", "grad-clip", "epochs")
FILES = {
    "visualize": ("--checkpoint {best} --out", "png"),
    "sample": ("--out", "pdf"),
    "demo": ("--checkpoint {best} --picture", "png"),
    "export": ("--checkpoint {best} --out", "pt2"),
    "rollout": ("--checkpoint {best} --gif", "gif"),
    "bench": ("--seeds 1 --out", "json"),
    "throughput": ("--out", "json"),
}
OUTPUTS = (
    ("sample", "out", "png"),
    ("bench", "out", "json"),
    ("throughput", "out", "json"),
    ("export --checkpoint {best}", "out", "onnx"),
    ("dataset {set}", "out", "png"),
    ("demo", "picture", "png"),
    ("rollout --policy expert", "gif", "gif"),
    ("rollout --world metaworld --checkpoint {robot}", "films", "x/films"),
    ("train", "out", "x/run"),
)
METAWORLD_ROLLOUTS = ("seed -1", f"seed {2**32}", "episodes 0", "episodes 1000000000", "execute 0", "workers -1")
COLLECTIONS = (
    *("image-size 5", "image-size -1", "image-size 2000", "samples -1", "samples 1000000", "workers -1", "tasks fly"),
    *("noise nan", "noise inf", "noise -1", "noise 1e30", "demos 0", "demos -1", "demos 1000000000"),
)
METAWORLD_RACES = (
    "demos 1000000000",
    "preset huge",
    "preset nano",
    "preset minimal",
    "step auto",
    "seeds 20",
    "step nonsense",
    "step plain",
    "seeds 3",
    "cold 1",
    "demos 0",
)
NAMES = ("preset", "fusion", "head", "device", "step", "recipe", "optimizer")

COMMANDS: list[str] = [
    *(f"{verb} {wrong}" for verb in cli.VERBS for wrong in ("--nonsense 1", "stray", "-x", "--device", "--=")),
    *(f"{verb} --{name} {x}" for verb, names in NUMBERS.items() for name in names for x in ("x", "1.5", "1e400", "''")),
    *(f"{verb} --{name} {x}" for verb, names in NUMBERS.items() for name in names for x in (-1, 2**70)),
    *(f"train --{name} {x}" for name in FRACTIONS for x in ("x", "nan", "inf", "-1", "1e30")),
    *(f"train --{name} {x}" for name in NAMES for x in ("nothing", "''")),
    *(f"{verb} --device {x}" for verb in ("doctor", "bench", "throughput") for x in ("tpu", "cpu:x", "cuda:99")),
    *(f"{v} --checkpoint {{best}} --device tpu" for v in ("evaluate", "rollout", "visualize", "demo")),
    *(f"{verb} {options} {place}" for verb, (options, _) in FILES.items() for place in ("{tmp}", "{tmp}/a.xyz", "''")),
    *(
        f"{verb} {options} {place}.{kind}"
        for verb, (options, kind) in FILES.items()
        for place in ("{tmp}/no/a", "{file}/a")
    ),
    *(f"{verb} {options} {place}" for verb, (options, _) in FILES.items() for place in ("{tmp}/.png", "/dev/null")),
    *(
        f"{verb} --checkpoint {place}"
        for verb in ("evaluate", "rollout", "visualize", "demo", "export", "info")
        for place in ("{tmp}/none", "nobody/nothing", "{file}", "{run}", "{tmp}")
    ),
    *(f"{verb} --checkpoint {{other}}" for verb in ("evaluate", "visualize", "demo", "rollout")),
    "fly",
    "''",
    "train --val-seed 42",
    "train --epochs 0",
    "train --learning-rate 0",
    "train --batch-size 4 --accumulate 5",
    "train --learn-towers",
    "train --vision {tmp}/none",
    "train --language {file}",
    "train --vision {auto_map}",
    "train --language {auto_map}",
    "train --step compiled --device cpu",
    "train --out {run}",
    "train --out {file}",
    "train --out {file}/below",
    "train --out {best}",
    "train --out {best} --overwrite",
    "train --out {mine} --overwrite",
    "train --out {tmp}/new --log-dir {file}",
    "train --out {tmp}/new --log-dir {file}/below",
    "train --out {run} --overwrite --log-dir {file}",
    "train --out {run} --overwrite --num-train 10000000000",
    "train --out {run} --overwrite --vision {tmp}/none",
    "train --resume --out {tmp}/none",
    "train --resume --out {best}",
    "train --resume --out {tmp}",
    "train --resume --out {run} --epochs 7",
    "train --resume --out {run} --preset medium",
    "train --resume --out {run} --seed 5",
    "train --resume --out {run} --step auto --num-train 77",
    "train --resume --out {run} --preset minimal",
    "train --resume --out {run} --fusion cross_attention",
    *(
        f"train --resume --out {{run}} --{given}"
        for given in (
            "epochs 20",
            "step auto",
            "num-train 8000",
            "recipe auto",
            "overwrite",
            "horizon 16",
            "batch-size 64",
        )
    ),
    *(
        f"train --{given}"
        for given in ("val-episodes 0.02", "horizon 16", "image-size 192", "no-learn-towers --stem x")
    ),
    *(
        f"train --dataset {{tmp}} --{given}"
        for given in ("num-train 8000", "num-test 20000", "train-seed 42", "sentences", "learn-towers", "vision x")
    ),
    *(f"{verb} --device cpu --device cpu" for verb in ("train", "evaluate", "bench", "doctor")),
    "evaluate --checkpoint {best} --val-episodes 0.1",
    "evaluate --checkpoint {best} --dataset {tmp} --num-samples 1000",
    "rollout --policy expert --checkpoint checkpoints/best",
    "rollout --policy expert --execute 2",
    *(
        f"rollout --policy {policy} --{option}"
        for policy in ("expert", "random")
        for option in ("device cpu", "device auto", "checkpoint {best}", "execute 2", "films {tmp}/films", "workers 2")
    ),
    *(f"evaluate --checkpoint {{best}} --{option}" for option in ("states x", "leave-out 1", "val-episodes 0.02")),
    "evaluate --checkpoint {best} --dataset {set} --sentences",
    "rollout --policy expert --tasks mt50",
    "bench --demos 50",
    *(f"{verb} --{option} {{tmp}}/{'n' * length}.{kind}" for verb, option, kind in OUTPUTS for length in (254, 9_999)),
    f"sample --out {{tmp}}/{'n' * 245}.png",
    *(f"{verb} --{option} '{{tmp}}/{name}.{kind}'" for verb, option, kind in OUTPUTS for name in ("a\0b", "\ud800")),
    "train --out {tmp}/run --log-dir '{tmp}/a\0b'",
    *(f"{verb} --checkpoint '{place}'" for verb in ("evaluate", "info") for place in ("a\0b", "\ud800", "x" * 99_999)),
    *(f"dataset '{place}'" for place in ("a\0b", "\ud800", "x" * 99_999, "\x1b[31m")),
    *(
        "x" * 99_999,
        "\x1b[31m",
        f"sample --{'x' * 99_999} 1",
        f"train --preset {'x' * 99_999}",
        "train --head '\x1b[2J'",
    ),
    "train --dataset {set} --out {run}",
    "train --dataset {set} --out {tmp}/new --log-dir {file}",
    "train --resume yes",
    "rollout --policy pilot",
    "rollout --policy",
    "rollout --policy expert --episodes 0",
    "rollout --policy expert --films {tmp}/films",
    "rollout --policy expert --tasks reach --workers 2",
    *(f"rollout --world metaworld --checkpoint {{robot}} --{wrong}" for wrong in METAWORLD_ROLLOUTS),
    *(f"metaworld collect {{tmp}}/new --tasks reach --demos 1 --{wrong}" for wrong in COLLECTIONS),
    "visualize --checkpoint {best} --num-samples 65",
    "info --preset huge",
    "info --preset nano --checkpoint {best}",
    "bench --preset huge",
    "bench --step quick --device cpu",
    "bench --demos 5 --tasks reach",
    *(f"bench --world metaworld --folder {{tmp}}/new --{wrong}" for wrong in METAWORLD_RACES),
    "bench --step compiled --device cpu",
    "bench --seeds 1 --out {best}/config.json",
    "throughput --presets nano --out {run}/config.json",
    "throughput --presets huge",
    "throughput --presets nano nano",
    "throughput --presets",
    "throughput --step compiled --device cpu",
]


def config_says(text: str | bytes) -> Callable[[Path], None]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "config.json").write_bytes(data) and None


def config_with(part: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[part] = {**config.get(part, {}), **values}
        (folder / "config.json").write_text(json.dumps(config))

    return change


def model_with(part: str, **values: Any) -> Callable[[Path], None]:
    """A change of the model in a run's settings."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["model"][part] |= values
        (folder / "config.json").write_text(json.dumps(config))

    return change


def weights_are(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").write_bytes(data) and None


def weights_with(function: Callable[[dict], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        function(weights)
        save_file(weights, folder / "model.safetensors")

    return change


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100]) and None


def header(size: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", size) + text


BIG = (0, -1, 96.0, "192", True, None, 10**9, [8], {})
CHECKPOINTS: dict[str, Callable[[Path], Any]] = {
    **{f"config: {text[:20]!r}": config_says(text) for text in ("", "{", "[]", "null", "5", '"text"', "[" * 100_000)},
    "config: UTF-16 cut": config_says(b"\xff\xfe\x00"),
    "config: bytes": config_says(b"\x80\x81\x82"),
    "config: 17 MB": config_says(" " * (17 * 2**20) + "{}"),
    "config: a number of 5,000 digits": config_says('{"vision": ' + "9" * 5_000 + "}"),
    "config: missing": lambda folder: (folder / "config.json").unlink(),
    "config: a folder": lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
    "config: an unknown key": config_with("gripper", width=3),
    "config: an unknown field": config_with("vision", depth=3),
    **{f"config: {part} is no object": config_says(json.dumps({part: 5})) for part in ("vision", "head", "fusion")},
    **{f"vision width {value}": config_with("vision", embed_dim=value) for value in BIG},
    **{f"words {value}": config_with("language", max_length=value) for value in BIG},
    **{f"layers {value}": config_with("language", num_layers=value) for value in (*BIG, 2, 256)},
    **{f"vocabulary {value}": config_with("language", vocab_size=value) for value in (2**20, 10**9, 100)},
    **{f"image {value}": config_with("vision", image_size=value) for value in (*BIG[:-2], 63, 8192, [64], [64, "x"])},
    **{f"head width {value}": config_with("head", hidden_dim=value) for value in BIG},
    **{f"horizon {value}": config_with("head", horizon=value) for value in (True, 0, 2, 1024, 10**9)},
    **{f"head {value}": config_with("head", kind=value) for value in ("none", "bins", "fast", "flow", 5, None, ["l1"])},
    **{f"waypoints {value}": config_with("head", waypoints=value) for value in (5, None, ["a"], [0], [True], [10**20])},
    **{f"fusion {value}": config_with("fusion", kind=value) for value in ("none", "prefix", 5, {})},
    **{
        f"cameras {value}": config_with("observation", cameras=value) for value in ([], ["a", "a"], "abc", [1], 5, [""])
    },
    "a state": config_with("observation", state_dim=3),
    "statistics that are not there": config_with("head", normalization="quantiles", statistics="abc"),
    "two large towers": config_with("language", embed_dim=8_192, num_layers=256, num_heads=1, vocab_size=2**20),
    "a tower with code": config_with("vision", source="{auto_map}"),
    "weights: missing": lambda folder: (folder / "model.safetensors").unlink(),
    "weights: a folder": lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
    "weights: empty": weights_are(b""),
    "weights: cut": cut("model.safetensors"),
    "weights: nonsense": weights_are(b"nonsense" * 100),
    "weights: a pickle": weights_are(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n."),
    "weights: Git LFS": weights_are(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"),
    "weights: an endless header": weights_are(header(2**60)),
    "weights: no tensors": weights_are(header(2)),
    "weights: not finite": weights_with(lambda w: w["head.output.bias"].fill_(torch.nan)),
    "weights: infinite": weights_with(lambda w: w["vision.cls_token"].fill_(torch.inf)),
    "weights: whole": weights_with(lambda w: w.update({"head.output.bias": torch.ones(2, dtype=torch.int64)})),
    "weights: one is missing": weights_with(lambda w: w.pop("head.output.bias")),
    "weights: one too many": weights_with(lambda w: w.update(extra=torch.zeros(1))),
    "weights: another shape": weights_with(lambda w: w.update({"head.output.bias": torch.zeros(3)})),
}
COMMANDS += [f"evaluate --checkpoint {{checkpoint:{kind}}}" for kind in CHECKPOINTS]


def state_with(metadata: dict[str, str] | None = None, **tensors: torch.Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "resume.safetensors"
        with_progress = {"progress": json.dumps({"step": 4, "best_loss": 0.5, "loss_sum": 0.0})}
        found = load_file(path)
        save_file({**found, **{k.replace("__", "."): v for k, v in tensors.items()}}, path, metadata or with_progress)

    return change


def metrics_are(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "metrics.jsonl").write_text(text) and None


RUNS: dict[str, Callable[[Path], Any]] = {
    **{f"settings: {text!r}": config_says(text) for text in ("", "{", "[]", "{}", '{"model": {}}', '{"model": 5}')},
    **{f"train {value}": config_with("train", epochs=value) for value in ("x", None, 0, [1])},
    "an unknown setting": config_with("train", speed=3),
    "sizes of another model": model_with("language", vocab_size=30_522),
    "a huge width": model_with("vision", embed_dim=8_192, num_heads=1_024),
    "a huge depth": model_with("language", num_layers=128),
    "a huge policy and no state": lambda folder: (
        (folder / "resume.safetensors").unlink(),
        model_with("vision", embed_dim=8_192, num_heads=1_024, num_layers=256)(folder),
    ),
    "an unknown seed": config_with("data", train_seed=-1),
    **{
        f"metrics: {text!r}": metrics_are(text)
        for text in ("{", "5\n", "{}\n", '{"step": "x", "epoch": 1}\n', "\xe9\x00")
    },
    "state: nonsense": lambda folder: (folder / "resume.safetensors").write_bytes(b"nonsense"),
    "state: empty": lambda folder: (folder / "resume.safetensors").write_bytes(b""),
    "state: cut": cut("resume.safetensors"),
    **{
        f"progress: {text}": state_with({"progress": text})
        for text in ("{", "5", '{"step": "x"}', '{"step": -1}', '{"loss_sum": NaN}', '{"speed": 1}', '{"step": 1.5}')
    },
    "no progress": state_with({"other": "x"}),
    "another weight": state_with(model__head__output__bias=torch.zeros(3)),
    "a weight that is not finite": state_with(model__head__output__bias=torch.full((2,), torch.nan)),
    "a moment of another shape": state_with(optimizer__0__exp_avg=torch.zeros(5, 5)),
    "a moment of no weight": state_with(optimizer__999__exp_avg=torch.zeros(1)),
}
COMMANDS += [f"train --resume --device cpu --out {{stopped:{kind}}}" for kind in RUNS]


class StopsAt(Interrupted):
    """Raised in the second epoch."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_config) -> dict[str, Path]:
    """A run that was stopped, a checkpoint, one of another task, a model that asks for code, a file."""
    folder = tmp_path_factory.mktemp("kept")
    config = dataclasses.replace(tiny_config, language=dataclasses.replace(tiny_config.language, vocab_size=6_400))
    settings = RunSettings(config, TrainConfig(epochs=2, batch_size=16), DataConfig(num_train=32, num_val=16))
    run = RunFolder(folder / "run")
    run.start(settings, {}, overwrite=False)
    policy = new_policy(config, 0)
    split = TensorSplit.from_blockfind(BlockFind(32, 42), policy.language.encode)
    from tinyvla.learn.callbacks import OnEpoch

    def stop(record: Any) -> None:
        raise StopsAt

    with pytest.raises(StopsAt):
        fit(policy, split, split, settings.train, run=run, callbacks=[OnEpoch(stop)])
    other = dataclasses.replace(config, observation=ObservationConfig(("top", "wrist"), 3, state_normalization="none"))
    new_policy(other, 0).save_pretrained(folder / "other")
    robot = ObservationConfig(("corner2",), 4, state_normalization="none")
    head = dataclasses.replace(config.head, action_dim=4, horizon=4)
    new_policy(dataclasses.replace(config, observation=robot, head=head), 0).save_pretrained(folder / "robot")
    (folder / "auto_map").mkdir()
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}
    (folder / "auto_map/config.json").write_text(json.dumps(code))
    (folder / "auto_map/evil.py").write_text(f"open({str(folder / 'was_run')!r}, 'w')\nclass Config: ...\n")
    (folder / "file").write_text("mine")
    (folder / "mine/best").mkdir(parents=True)
    (folder / "mine/best/photo.png").write_text("mine")
    write_dataset(recording(), folder / "set")
    names = ("run", "other", "robot", "auto_map", "file", "mine", "set")
    return {name: folder / name for name in names} | {"best": run.best}


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch):
    """Without the checks of types that other tests have, and with nobody who answers a question."""
    jaxtyping.config.update("jaxtyping_disable", True)

    def ask(prompt: str = "") -> str:
        raise AssertionError(f"a question: {prompt}")

    monkeypatch.setattr("builtins.input", ask)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Imported once: a refusal is timed without them."""
    import matplotlib.pyplot
    import onnxruntime
    import peft
    import torch.utils.tensorboard
    import transformers.models.auto.modeling_auto

    _ = (matplotlib.pyplot, onnxruntime, peft, torch.utils.tensorboard, transformers.models.auto.modeling_auto)
    from tinyvla.deploy import export
    from tinyvla.show import plots

    _ = (export, plots)


@pytest.fixture
def place(kept, tmp_path, monkeypatch) -> dict[str, Path]:
    monkeypatch.chdir(tmp_path)
    return {**kept, "tmp": tmp_path}


def filled(command: str, place: dict[str, Path]) -> list[str]:
    """The command with its places; damaged checkpoints and runs are made in the present folder first."""
    if "{checkpoint:" in command or "{stopped:" in command:
        head, rest = command.split("{", 1)
        what, kind = rest[:-1].split(":", 1)
        source, damages = (place["best"], CHECKPOINTS) if what == "checkpoint" else (place["run"], RUNS)
        shutil.copytree(source, place["tmp"] / "damaged")
        damages[kind](place["tmp"] / "damaged")
        return [*head.split(), str(place["tmp"] / "damaged")]
    return [word.format(**place) for word in shlex.split(command)]


def contents(*folders: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for folder in folders for p in folder.rglob("*")}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:100])
def test_a_wrong_command_is_refused_in_one_line(command, place, capfd):
    argv = filled(command, place)
    before = contents(place["tmp"], place["file"].parent)
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < KILOBYTES
    out, said = capfd.readouterr()
    assert stop.value.code == 2, said
    assert len(said.splitlines()) == 1, said
    assert said.startswith("tinyvla: error: ")
    assert 30 < len(said) < 900
    assert out == ""
    assert said.strip().isprintable()
    assert contents(place["tmp"], place["file"].parent) == before


def fields_and_numbers() -> list[tuple[type, str, Any]]:
    """Every number of every configuration, with values that it cannot have."""
    calls = []
    for kind in (VisionConfig, LanguageConfig, FusionConfig, HeadConfig, ObservationConfig, TrainConfig, DataConfig):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if bounds := next((note for note in get_args(hint)[1:] if isinstance(note, Within)), None):
                beyond = (bounds.low if bounds.above else bounds.low - 1, bounds.high * 2 + 1, float("nan"))
                calls += [(kind, name, value) for value in (*beyond, True, None, "8", [8], torch.ones(2))]
    return calls


@pytest.mark.parametrize(("kind", "name", "value"), fields_and_numbers(), ids=lambda part: str(part)[:40])
def test_a_number_out_of_bounds_is_refused(kind, name, value):
    with pytest.raises(InputError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{kind.__name__}.{name} is ")
    assert "it must be a" in str(caught.value)


IMAGE = np.zeros((3, 64, 64), np.uint8)
SAY = "find the red block"


def broken_picture() -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:2_000]))


PREDICT: dict[str, tuple] = {
    **{
        f"image {value!r:.30}": (value, SAY)
        for value in (None, 5, 1.5, "a.png", b"abc", [], (), {}, [None], [[IMAGE]], object)
    },
    "image 0-d": (np.zeros(()), SAY),
    "image 1-d": (np.zeros(3), SAY),
    "image 5-d": (np.zeros((1, 1, 3, 8, 8)), SAY),
    "image of objects": (IMAGE.astype(object), SAY),
    "image of text": (IMAGE.astype(str), SAY),
    "image of dates": (IMAGE.astype("datetime64[s]"), SAY),
    "image of bools": (IMAGE.astype(bool), SAY),
    "image of whole numbers": (IMAGE.astype(np.int32), SAY),
    "image of complex numbers": (IMAGE.astype(complex), SAY),
    "image of long doubles": (IMAGE.astype(np.longdouble), SAY),
    "image in another byte order": (IMAGE.astype(">f4"), SAY),
    "image with fields": (np.zeros((3, 8, 8), [("a", "f4")]), SAY),
    "image of NaN": (IMAGE * np.nan, SAY),
    "image too bright": (IMAGE + 1.5, SAY),
    "image that is one value, repeated": (np.broadcast_to(np.uint8(0), (3, 10**6, 10**6)), SAY),
    "image that is sparse": (torch.zeros(3, 64, 64).to_sparse(), SAY),
    "image without numbers": (torch.zeros(3, 64, 64, device="meta"), SAY),
    "image that is nested": (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), SAY),
    "image of 8-bit floats": (torch.zeros(3, 64, 64).to(torch.float8_e4m3fn), SAY),
    "grey picture": (Image.new("L", (64, 64)), SAY),
    "picture with alpha": (Image.new("RGBA", (64, 64)), SAY),
    "broken picture": (broken_picture(), SAY),
    "no images": (np.zeros((0, 3, 64, 64), np.uint8), SAY),
    **{
        f"words {'an object' if type(value) is object else repr(value)[:30]}": (IMAGE, value)
        for value in (None, 5, b"find", "", "  ", [5], [None], [[SAY]], [], {}, object())
    },
    "half a character": (IMAGE, "find the \ud83d block"),
    "half a character in a list": (IMAGE[None], ["find the \ud83d block"]),
    "too many words": (IMAGE, "red " * 40),
    "a book": (IMAGE, "red " * 10**6),
    "another number of words": (IMAGE, [SAY, SAY]),
    "another key": ({"image": IMAGE, "task": SAY}, None),
    "no task": ({"observation.images.camera": IMAGE}, None),
    "words without an image": ({"task": SAY}, None),
}


@pytest.mark.parametrize("arguments", PREDICT.values(), ids=PREDICT)
def test_predict_refuses(arguments, tiny_policy):
    refused(lambda: tiny_policy.predict(*arguments))


def refused(call: Callable[[], Any]) -> str:
    """An `InputError` of one line, soon."""
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        call()
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < KILOBYTES
    said = str(caught.value)
    assert 10 < len(said) < 900
    assert said.isprintable()
    return said


STATES = (
    None,
    "left",
    [1.0],
    ["1", "2"],
    [1, None],
    [[1, 2], [3, 4]],
    [1.0, np.nan],
    [1e300, 1],
    torch.zeros(2, device="meta"),
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: repr(state)[:30])
def test_predict_refuses_a_state(state, tiny_config):
    policy = new_policy(
        dataclasses.replace(tiny_config, observation=ObservationConfig(state_dim=2, state_normalization="none")), 0
    )
    refused(lambda: policy.predict({"observation.images.camera": IMAGE, "observation.state": state, "task": SAY}))


RULES = [
    *((WorldConfig, name) for name in ("step_size", "tolerance", "stop_norm", "max_steps")),
    *((ArmConfig, name) for name in ("image_size", "max_steps", "tolerance", "still", "lift", "substeps")),
    *((MetaWorldConfig, name) for name in ("image_size", "max_steps")),
]
PYTHON: dict[str, Callable[[TinyVLA], Any]] = {
    **{
        f"from_pretrained {x!r:.20}": lambda p, x=x: TinyVLA.from_pretrained(x)
        for x in (None, 5, b"a", "", "a\0b", "x" * 9_999, [])
    },
    **{
        f"a device {x!r}": lambda p, x=x: TinyVLA.from_pretrained(".", device=x) for x in ("tpu", "", "cuda:99", "meta")
    },
    **{f"a generator {x!r}": lambda p, x=x: p.predict(IMAGE, SAY, x) for x in (5, "x", 1.5)},
    "encode a sentence": lambda p: encode(SAY),
    "encode nothing": lambda p: encode([]),
    **{f"encode {x!r}": lambda p, x=x: encode([x]) for x in (5, None, b"find")},
    **{f"seed {x!r}": lambda p, x=x: BlockFind(1, x) for x in (-1, 2**32, 1.5, "x", None, True)},
    **{f"scenes {x!r}": lambda p, x=x: BlockFind(x, 0) for x in (0, -1, 10**12, 1.5, "x", None)},
    "ambiguous scenes": lambda p: BlockFind.ambiguous(0, 0),
    **{f"rank {x!r}": lambda p, x=x: add_lora(p, rank=x) for x in (0, -1, 1.5, "8", None, True, 10**9)},
    **{f"alpha {x!r}": lambda p, x=x: add_lora(p, alpha=x) for x in (0, -1.0, float("nan"), "x", True)},
    **{
        f"targets {x!r}": lambda p, x=x: add_lora(p, targets=x)
        for x in ((), [], "attention", ["none"], [5], [""], [None])
    },
    "load a file that is not there": lambda p: load_exported("none.onnx"),
    "load a file of another kind": lambda p: load_exported(__file__),
    "statistics of no rows": lambda p: Normalizer("quantiles", 2).fit(torch.zeros(0, 2)),
    "statistics of NaN": lambda p: Normalizer("mean-std", 2).fit(torch.full((3, 2), torch.nan)),
    "statistics of other numbers": lambda p: Normalizer("mean-std", 2).fit(torch.zeros(3, 5)),
    "statistics that nobody needs": lambda p: p.fit_statistics(torch.zeros(3, 2)),
    **{f"a part {x!r}": lambda p, x=x: ModelConfig(vision=x) for x in (5, None, {}, HeadConfig())},
    **{
        f"settings {x!r:.20}": lambda p, x=x: ModelConfig.from_dict(x)
        for x in (5, None, [], "x", {"x": 1}, {"head": 1})
    },
    **{f"source {x!r}": lambda p, x=x: PretrainedConfig(x, 16) for x in ("", 5, None)},
    "a dtype": lambda p: PretrainedConfig("x", 16, dtype="int8"),
    **{f"optimizer {x!r}": lambda p, x=x: TrainConfig(optimizer=x) for x in ("sgd", 5, None)},
    **{f"recompute {x!r}": lambda p, x=x: TrainConfig(recompute=x) for x in (1, "yes", None)},
    **{
        f"execute {x!r}": lambda p, x=x: Controller(p, execute=x)
        for x in (None, "2", True, 1.5, 0, 2**20, float("inf"))
    },
    **{f"ensemble {x!r}": lambda p, x=x: Controller(p, ensemble=x) for x in ("x", True, float("nan"), 6, [])},
    **{f"acting {x!r}": lambda p, x=x: Controller(x) for x in (None, "x", 5, [])},
    **{f"a world {x!r}": lambda p, x=x: rollout(p, x) for x in (None, "x", 5, [], float("nan"))},
    **{f"beta {x!r}": lambda p, x=x: rollout(p, BlockWorld([0]), beta=x) for x in (None, "x", True, 2, float("nan"))},
    **{f"record {x!r}": lambda p, x=x: rollout(p, BlockWorld([0]), record=x) for x in (None, "x", True, -1, 0.5)},
    **{f"a label of {x!r}": lambda p, x=x: rollout(p, BlockWorld([0]), horizon=x) for x in (None, "x", True, 0, 0.5)},
    **{f"episodes {x!r}": lambda p, x=x: BlockWorld(x) for x in (None, "x", 5, [], [True], [0.5], ["x"], [None], [-1])},
    **{
        f"{kind.__name__} {name} {x!r}": lambda p, kind=kind, name=name, x=x: kind(**{name: x})
        for kind, name in RULES
        for x in (None, "x", True, 0, -1, float("nan"), float("inf"), [])
    },
    **{f"a normalization {x!r}": lambda p, x=x: Normalizer(x, 2) for x in ("nonsense", None, 5, [], "")},
    **{f"numbers {x!r}": lambda p, x=x: Normalizer("quantiles", x) for x in (0, -1, "x", None, True, 1.5, 10**12)},
    **{f"register {x!r}": lambda p, x=x: register("head", "mine")(x) for x in (None, "x", 5, [], len)},
    **{f"register as {x!r}": lambda p, x=x: register("head", x)(dict) for x in (None, "", 5, [], "l1")},
    **{f"register a {x!r}": lambda p, x=x: register(x, "mine") for x in (None, "", 5, "tower")},
    **{
        f"read {x!r:.20}": lambda p, x=x: read_dataset(x)
        for x in (None, 5, [], "", "a\0b", "\ud800", b"a", "x" * 9_999)
    },
    **{f"write to {x!r:.20}": lambda p, x=x: write_dataset(recording(), x) for x in (None, 5, "", "a\0b", "\ud800")},
    **{f"load {x!r:.20}": lambda p, x=x: load_exported(x) for x in (None, 5, [], "", "a\0b", "\ud800", "x" * 9_999)},
    **{
        f"export to {x!r:.20}": lambda p, x=x: export_policy(p, x)
        for x in (None, 5, "", "a.zip", "a\0.onnx", "no/a.pt2")
    },
    **{
        f"times {x!r}": lambda p, x=x: [*frames_at(Path("a"), x, 0.1)]
        for x in (None, "x", np.zeros(0), np.full(2, np.inf))
    },
    **{f"a video at {x!r}": lambda p, x=x: VideoWriter(Path("a.mp4"), x) for x in (None, "x", 0, 1_000, 2.5, True)},
    **{
        f"rows {x!r}": lambda p, x=x: recording().tensors(new_policy(recording().policy_config("nano"), 0)).rows(x)
        for x in (torch.tensor([6]), torch.tensor([-7]), torch.ones(7, dtype=torch.bool), "x")
    },
    **{f"cameras {x!r}": lambda p, x=x: ObservationConfig(x) for x in ((), "abc", (1,), ("a", "a"), None, ["a"])},
}


PLAIN = TrainConfig(epochs=1)
NONE_OF_THEM = (None, "x", 5, [], {}, float("nan"), torch.nn.Linear(2, 2), DataConfig())
"""What no policy, split, set of scenes, recording or configuration of a training is."""


def scenes() -> BlockFind:
    return BlockFind(8, 0)


def split(**changes: Any) -> TensorSplit:
    return dataclasses.replace(TensorSplit.from_blockfind(scenes(), encode), **changes)


def arrays(**changes: Any) -> TensorSplit:
    own = scenes()
    values = {"images": {"camera": own.images}, "instructions": own.instructions, "actions": own.actions}
    return TensorSplit.from_arrays(**{**values, "tokenize": encode, **changes})


def stateful(policy: TinyVLA) -> TinyVLA:
    observation = ObservationConfig(state_dim=2, state_normalization="none")
    return new_policy(dataclasses.replace(policy.config, observation=observation), 0)


TYPED: dict[str, Callable[[TinyVLA, Any], Any]] = {
    "fit a policy": lambda p, x: fit(x, split(), split(), PLAIN),
    "fit on": lambda p, x: fit(p, x, split(), PLAIN),
    "fit with val": lambda p, x: fit(p, split(), x, PLAIN),
    "fit with a config": lambda p, x: fit(p, split(), split(), x),
    "prepare for": lambda p, x: p.prepare_for(x),
    "a step of": lambda p, x: make_step(x, split(), PLAIN),
    "a step on": lambda p, x: make_step(p, x, PLAIN),
    "a step with": lambda p, x: make_step(p, split(), x),
    "a plain step on": lambda p, x: PlainStep(p, x, PLAIN),
    "an optimizer with": lambda p, x: make_optimizer(p, x),
    "one step of": lambda p, x: train_step(x, None, split().take(slice(2)), 1.0),
    "judge a policy": lambda p, x: evaluate(x, scenes(), scenes()),
    "judge on": lambda p, x: evaluate(p, x, scenes()),
    "judge beside": lambda p, x: evaluate(p, scenes(), x),
    "answers of": lambda p, x: predict_split(x, split()),
    "answers to": lambda p, x: predict_split(p, x),
    "the loss on": lambda p, x: validation_loss(p, x),
    "swaps of": lambda p, x: swap_accuracy(p, x),
    "two answers to": lambda p, x: ambiguity(p, x),
    "floors of": lambda p, x: floors(x, scenes()),
    "pairs of": lambda p, x: pair_accuracy(p, x),
    "kinds of sentences by": lambda p, x: evaluate_sentences(x),
    "judge offline by": lambda p, x: evaluate_offline(x, recording(), np.ones(6, bool)),
    "judge offline on": lambda p, x: evaluate_offline(p, x, np.ones(6, bool)),
    "judge offline where": lambda p, x: evaluate_offline(p, recording(), x),
    "metrics of": lambda p, x: Metrics.of(x, torch.zeros(8, 2)),
    "export": lambda p, x: export_policy(x, "a.onnx"),
    "export a compact": lambda p, x: export_compact(x, "a.onnx"),
    "write": lambda p, x: write_dataset(x, "new"),
    "look at": lambda p, x: inspect(x),
    "tensors for": lambda p, x: recording().tensors(x),
    "join": lambda p, x: recording().joined(x),
    "a split of": lambda p, x: TensorSplit.from_blockfind(x, encode),
    "a split's other half": lambda p, x: split().joined(x),
    "trajectories in": lambda p, x: trajectories(x, 8, 0),
    "a new policy": lambda p, x: new_policy(x, 0),
    "a head": lambda p, x: make_head(x),
    "an adapter for": lambda p, x: add_lora(x),
    "save an adapter of": lambda p, x: save_adapter(x, "a"),
    "load an adapter into": lambda p, x: load_adapter(x, "a"),
    "merge": lambda p, x: merge(x),
    "demonstrations for": lambda p, x: demonstrations(BlockWorld([0]), x),
    "demonstrations in": lambda p, x: demonstrations(x, p),
    "dagger": lambda p, x: dagger(x, 0, 2),
    "do again": lambda p, x: replay(x, 0),
}
PYTHON |= {
    f"{name} {x!r:.10}": lambda p, call=call, x=x: call(p, x) for name, call in TYPED.items() for x in NONE_OF_THEM
}
EMPTY = torch.zeros(8, dtype=torch.bool)
PYTHON |= {
    "fit on no rows": lambda p: fit(p, split().rows(EMPTY), split(), PLAIN),
    "fit with no rows to judge": lambda p: fit(p, split(), split().rows(EMPTY), PLAIN),
    "fit on another camera": lambda p: fit(p, split(images={"wrist": split().images["camera"]}), split(), PLAIN),
    "fit on images of another size": lambda p: fit(
        p, split(), split(images={"camera": split().images["camera"][..., :32]}), PLAIN
    ),
    "fit without a state": lambda p: fit(stateful(p), split(), split(), PLAIN),
    "fit on another tokenizer's words": lambda p: fit(p, split(input_ids=split().input_ids + 30_000), split(), PLAIN),
    **{f"fit with the step {x!r}": lambda p, x=x: fit(p, split(), split(), PLAIN, x) for x in ("x", 5, {}, [])},
    **{f"fit in {x!r}": lambda p, x=x: fit(p, split(), split(), PLAIN, run=x) for x in ("x", 5, {}, Path("x"))},
    **{
        f"watched by {x!r}": lambda p, x=x: fit(p, split(), split(), PLAIN, callbacks=x)
        for x in (None, 5, "x", [5], print)
    },
    **{f"call {x!r}": lambda p, x=x: OnEpoch(x) for x in (None, 5, "x")},
    **{f"log to {x!r}": lambda p, x=x: TensorBoard(x) for x in (None, 5, "x")},
    **{
        f"images {repr(x)[:40]}": lambda p, x=x: arrays(images=x)
        for x in (
            *(None, 5, [], "x", {}, {5: scenes().images}, {"camera": None}, {"camera": scenes().images[:3]}),
            *({"camera": scenes().images / 255}, {"camera": [*scenes().images]}, {"camera": scenes().images[:, 0]}),
        )
    },
    **{
        f"sentences {repr(x)[:20]}": lambda p, x=x: arrays(instructions=x)
        for x in (None, 5, SAY, [], [SAY], [5] * 8, (SAY for _ in range(8)))
    },
    **{
        f"labels {repr(x)[:40]}": lambda p, x=x: arrays(actions=x)
        for x in (None, 5, "x", [], np.zeros((3, 2)), np.zeros((8, 2), str), np.zeros((8, 2), object), np.zeros(()))
    },
    **{f"states {repr(x)[:20]}": lambda p, x=x: arrays(state=x) for x in ("x", np.zeros((3, 2)), [[None]] * 8)},
    **{f"padding {repr(x)[:20]}": lambda p, x=x: arrays(action_is_pad=x) for x in ("x", np.zeros((3, 2), bool))},
    **{f"words by {x!r}": lambda p, x=x: arrays(tokenize=x) for x in (None, 5, "x")},
    **{f"a split on {x!r}": lambda p, x=x: arrays(device=x) for x in (None, 5, "gpu", "cuda:99")},
    **{f"a policy on {x!r}": lambda p, x=x: new_policy(p.config, 0, x) for x in (None, 5, "gpu", "cuda:99")},
    **{f"a policy's seed {x!r}": lambda p, x=x: new_policy(p.config, x) for x in (None, "x", -1, 1.5, 2**70)},
    **{f"batches of {x!r}": lambda p, x=x: split().in_order(x) for x in (None, "x", 0, -1, 1.5)},
    **{f"a policy of {x!r:.20}": lambda p, x=x: TinyVLA(x) for x in (5, "nano", {}, VisionConfig())},
    **{f"a tower {x!r}": lambda p, x=x: TinyVLA(p.config, vision=x) for x in (5, "x", {})},
    **{
        f"save to {x!r:.20}": lambda p, x=x: p.save_pretrained(x)
        for x in (None, 5, [], "", b"a", "a\0b", "\ud800", "x" * 9_999, __file__, "/proc/x")
    },
    **{f"statistics of {x!r}": lambda p, x=x: p.fit_statistics(x) for x in (5, "x", [], np.zeros((3, 2)))},
    **{f"the preset {x!r}": lambda p, x=x: model_config(x) for x in (None, "huge", 5, [], {})},
    **{f"the recipe of {x!r}": lambda p, x=x: recipe(x) for x in (None, "huge", 5, [])},
    **{f"a recipe for {x!r}": lambda p, x=x: recipe("nano", x) for x in (None, "x", 0, -1, 1.5, float("nan"))},
    **{f"steps for {x!r}": lambda p, x=x: PLAIN.total_steps(x) for x in (None, "x", 0, -1, 1.5, float("nan"))},
    **{f"slot {x!r}": lambda p, x=x: scenes().retargeted(x) for x in (None, "x", 99, -1, 3, [], float("nan"))},
    **{f"scenes at {x!r}": lambda p, x=x: scenes().rows(x) for x in ("x", [99], 1.5)},
    **{f"frames at {x!r}": lambda p, x=x: recording().rows(x) for x in (None, "x", [99], 1.5, np.array([5, 0]))},
    **{
        f"blocks {repr(x)[:30]}": lambda p, x=x: BlockFind.from_blocks(x, x)
        for x in (None, "x", [[1]], np.zeros((2, 2)), np.full((2, 3), 99), np.full((2, 3), -1))
    },
    **{f"a way of {x!r}": lambda p, x=x: trajectories(scenes(), x, 0) for x in (None, "x", 1.5, -3, 10**9)},
    **{f"all ways of {x!r}": lambda p, x=x: valid_trajectories(scenes(), x) for x in (None, "x", 1.5, -3, 10**9)},
    **{f"kinds {x!r}": lambda p, x=x: SentenceFind(4, 0, x) for x in (None, "color", ("x",), (), 5, {"color": 1})},
    **{f"judge the kinds {x!r}": lambda p, x=x: evaluate_sentences(p, x, 9) for x in (None, "color", ("x",), (), 5)},
    **{f"draws {x!r}": lambda p, x=x: ambiguity(p, BlockFind.ambiguous(8, 0), x) for x in (None, "x", 0, -1, 1.5)},
    "metrics of another number": lambda p: Metrics.of(torch.zeros(8, 2), torch.zeros(3, 2)),
    "metrics of nothing": lambda p: Metrics.of(torch.zeros(0, 2), torch.zeros(0, 2)),
    **{f"an interval of {x}": lambda p, x=x: wilson_interval(*x) for x in ((None, 5), (2.0, 5), ("x", 5), (0.5, -1))},
    **{f"the spread of {x!r}": lambda p, x=x: spread(x) for x in (None, [], "x", [None], 5)},
    **{f"settings of a run {x!r}": lambda p, x=x: RunSettings.from_dict(x) for x in (None, 5, [], {})},
    **{f"compare on {x!r}": lambda p, x=x: export_policy(p, "a.onnx", x) for x in ("x", 5, {})},
    **{f"robot type {x!r}": lambda p, x=x: write_dataset(recording(), "new", x) for x in (None, 5, [])},
    **{f"as video {x!r}": lambda p, x=x: write_dataset(recording(), "new", video=x) for x in (None, 5, "yes")},
    **{f"codec {x!r}": lambda p, x=x: write_dataset(recording(), "new", video=True, codec=x) for x in (None, "x", [])},
    **{f"the name {x!r}": lambda p, x=x: camera_name(x) for x in (None, 5, [])},
    **{f"steps ahead {x!r}": lambda p, x=x: recording().future(x) for x in (None, "x", 5, [-1], [1.5], [None])},
    **{
        f"waypoints {x!r}": lambda p, x=x: recording().policy_config("nano", waypoints=x)
        for x in (None, "x", 5, ["a"], (1.5,), [8])
    },
    **{f"sizes {x!r}": lambda p, x=x: recording().robot_config(x) for x in ("x", 5, {})},
    **{f"a robot's {n}": lambda p, n=n: RecordingConfig(**{n: "x"}) for n in ("stem", "normalization", "waypoints")},
    **{f"save an adapter to {x!r}": lambda p, x=x: save_adapter(add_lora(p, 2), x) for x in (None, 5, "")},
    **{f"an adapter's seed {x!r}": lambda p, x=x: add_lora(p, seed=x) for x in (None, "x", -1, 2**70, 1.5)},
    **{f"targets {x!r:.20}": lambda p, x=x: add_lora(p, targets=x) for x in (5, {"attention": 1}, iter(["mlp"]))},
    **{f"chance {x!r}": lambda p, x=x: random_policy(x) for x in (None, "x", -1, 2**70, 1.5)},
    **{f"disturbed by {x!r}": lambda p, x=x: rollout(expert, BlockWorld([0]), disturb=x) for x in ("x", 5)},
    **{f"rules {x!r}": lambda p, x=x: BlockWorld([0], x) for x in ("x", 5, {})},
    **{f"rounds {x!r}": lambda p, x=x: dagger(p.config, x, 2) for x in (None, "x", -1, 1.5)},
    **{f"dagger in {x!r}": lambda p, x=x: dagger(p.config, 0, 2, make_world=x) for x in (None, "x", 5)},
    **{f"dagger with {x!r}": lambda p, x=x: dagger(p.config, 0, 2, x) for x in (None, "x", 5)},
    **{f"act on {x!r}": lambda p, x=x: Controller(p).act(x) for x in (None, "x", [])},
    **{f"begin {x!r}": lambda p, x=x: Controller(p).reset(x) for x in (None, "x", -1, 1.5)},
}


@pytest.mark.parametrize("call", PYTHON.values(), ids=PYTHON)
def test_python_refuses(call, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: call(new_policy(tiny_config, 0)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"cameras": x} for x in ("front", None, 5, [5], {"front": 1}, b"front", [""])])
def test_names_are_several(options, kept):
    for name in ("cameras", "states"):
        refused(lambda name=name: read_dataset(kept["set"], **{name: options["cameras"]}))


def test_pictures_are_no_state(kept):
    said = refused(lambda: read_dataset(kept["set"], states=["observation.images.front"]))
    assert "lacks observation.images.front; it has the features action, observation.state" in said


def test_what_cannot_be_saved_leaves_an_older_checkpoint(tiny_config, tmp_path, monkeypatch):
    policy = new_policy(tiny_config, 0)
    policy.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    before = contents(tmp_path)
    refused(lambda: add_lora(new_policy(tiny_config, 1), 2).save_pretrained(tmp_path))
    assert contents(tmp_path) == before
    with monkeypatch.context() as patched:
        patched.setattr("tinyvla.model.policy.save_tensors", lambda *args: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            new_policy(tiny_config, 1).save_pretrained(tmp_path)
    assert contents(tmp_path) == before
    new_policy(tiny_config, 1).save_pretrained(tmp_path)
    assert {path.name for path, data in contents(tmp_path).items() if before[path] != data} == {"model.safetensors"}


def recording(**changes: Any) -> Demonstrations:
    values = {
        "images": {"front": np.random.RandomState(0).randint(0, 255, (6, 3, 16, 16), np.uint8)},
        "actions": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2),
        "instructions": [SAY] * 6,
        "episodes": np.array([0, 0, 0, 1, 1, 1]),
        "states": np.ones((6, 3), np.float32),
        "action_names": ("dx", "dy"),
    }
    return Demonstrations(**{**values, **changes})


def spoiled(value: float, row: int, column: int) -> np.ndarray:
    actions = recording().actions.copy()
    actions[row, column] = value
    return actions


FRONT = recording().images["front"]
RECORDINGS: dict[str, dict[str, Any]] = {
    "no images": {"images": {}},
    "float images": {"images": {"front": FRONT / 255}},
    "grey images": {"images": {"front": FRONT[:, :1]}},
    "flat images": {"images": {"front": FRONT[:, 0]}},
    "images the other way round": {"images": {"front": FRONT.transpose(0, 2, 3, 1)}},
    "images in a list": {"images": {"front": list(FRONT)}},
    "fewer images": {"images": {"front": FRONT[:5]}},
    "no actions": {"actions": np.zeros((0, 2), np.float32)},
    "double actions": {"actions": spoiled(0, 0, 0).astype(np.float64)},
    "flat actions": {"actions": spoiled(0, 0, 0)[:, 0]},
    "actions of NaN": {"actions": spoiled(np.nan, 4, 1)},
    "actions that are infinite": {"actions": spoiled(np.inf, 2, 0)},
    "actions in a list": {"actions": spoiled(0, 0, 0).tolist()},
    "states of NaN": {"states": np.full((6, 3), np.nan, np.float32)},
    "states in a list": {"states": [[1.0]] * 6},
    "no sentences": {"instructions": None},
    "a sentence is None": {"instructions": [SAY, None, SAY, SAY, SAY, SAY]},
    "a sentence is empty": {"instructions": [SAY, " ", SAY, SAY, SAY, SAY]},
    "one sentence": {"instructions": SAY},
    "fewer sentences": {"instructions": [SAY]},
    "episodes that begin at 1": {"episodes": np.array([1, 1, 1, 2, 2, 2])},
    "episodes that leap": {"episodes": np.array([0, 0, 0, 5, 5, 5])},
    "episodes as floats": {"episodes": np.zeros(6)},
    **{f"fps {value!r}": {"fps": value} for value in (0, -1, 2.5, "5", None, True)},
    "times of NaN": {"timestamps": np.full(6, np.nan)},
    "fewer times": {"timestamps": np.zeros(5)},
    "times in a list": {"timestamps": [0.0] * 6},
    "times of another kind": {"timestamps": np.zeros(6, np.int64)},
    **{f"images {value!r}": {"images": value} for value in (None, 5, [], "x", {5: FRONT}, {"": FRONT})},
    "fewer names": {"action_names": ("dx",)},
    "names that are numbers": {"action_names": (1, 2)},
    "one name for all": {"action_names": "dxdy!"},
}


@pytest.mark.parametrize("changes", RECORDINGS.values(), ids=RECORDINGS)
def test_a_recording_is_refused(changes):
    refused(lambda: recording(**changes))


@pytest.mark.parametrize("horizon", [0, -1, 1.5, "4", None, 10**9])
def test_a_horizon_is_refused(horizon):
    refused(lambda: recording().chunks(horizon))
    refused(lambda: recording().policy_config("nano", horizon=horizon))


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_number_that_is_not_finite_is_named(value, shown):
    assert f"the actions hold {shown} in frame 4, dimension 1" in refused(
        lambda: recording(actions=spoiled(value, 4, 1))
    )
    images = {"camera": torch.zeros(6, 3, 8, 8, dtype=torch.uint8)}
    say = ([SAY] * 6, spoiled(value, 4, 1), encode)
    assert f"hold {shown} in frame 4, dimension 1" in refused(lambda: TensorSplit.from_arrays(images, *say))
    chunks = np.zeros((6, 5, 2), np.float32)
    chunks[3, 4, 0] = value
    split = (images, [SAY] * 6, chunks, encode)
    assert "in frame 3, dimension 0, step 4" in refused(lambda: TensorSplit.from_arrays(*split))
    pad = np.zeros((6, 5), bool)
    pad[3, 4] = True
    assert len(TensorSplit.from_arrays(*split, action_is_pad=pad)) == 6, "after an episode's end anything may stand"


def info_with(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "meta/info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def file_is(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


DATA, TASKS, INFO = "data/chunk-000/file-000.parquet", "meta/tasks.parquet", "meta/info.json"


def column(name: str, make: Callable[[list], Any], file: str = DATA) -> Callable[[Path], None]:
    """A column of a Parquet file made anew; left out where that gives None."""

    def change(folder: Path) -> None:
        table = pq.read_table(folder / file)
        values = make(table.column(name).to_pylist())
        at = table.column_names.index(name)
        table = table.remove_column(at)
        pq.write_table(table if values is None else table.add_column(at, name, pa.array(values)), folder / file)

    return change


def cell(value: Any, row: int = 3) -> Callable[[list], list]:
    return lambda values: [*values[:row], value, *values[row + 1 :]]


def link_at(name: str) -> Callable[[Path], None]:
    """A folder, moved away if there is one, and a link to all files of this machine in its place."""

    def change(folder: Path) -> None:
        if (folder / name).exists():
            (folder / name).rename(folder / "moved")
        (folder / name).symlink_to("/")

    return change


FRONT_KEY = "observation.images.front"
DATASETS: dict[str, Callable[[Path], Any]] = {
    **{f"{n}: missing": lambda f, n=n: (f / n).unlink() for n in (DATA, TASKS, INFO)},
    **{
        f"{n}: {d!r:.12}": file_is(n, d)
        for n in (DATA, TASKS, INFO)
        for d in (b"", b"nonsense", b"PAR1" * 20, b"\xff\xfe{")
    },
    **{f"{n}: cut": cut(n) for n in (DATA, TASKS)},
    **{f"info: {text!r}": file_is(INFO, text) for text in (b"[]", b"null", b"5", b"{}", b"[" * 50_000)},
    **{f"fps {value!r}": info_with(fps=value) for value in (2.5, 0, -5, "5", None, 10**9, True)},
    **{f"version {value!r}": info_with(codebase_version=value) for value in ("v2.1", None, 3, "")},
    **{f"features {value!r}": info_with(features=value) for value in (None, 5, [], {}, {"action": 5}, {"action": {}})},
    "more frames than there are": info_with(total_frames=7),
    "another number of frames": info_with(total_frames="six"),
    **{f"{value!r} episodes in all": info_with(total_episodes=value) for value in (9, 0, "two", None)},
    **{
        f"no {name}": column(name, lambda values: None)
        for name in ("action", "index", "task_index", "episode_index", FRONT_KEY)
    },
    "an action is null": column("action", cell(None)),
    "a number is null": column("action", cell([1.0, None])),
    "a number is NaN": column("action", cell([1.0, float("nan")])),
    "an action is longer": column("action", cell([1.0, 2.0, 3.0])),
    "actions are text": column("action", lambda values: ["left"] * 6),
    "actions are lists of text": column("action", lambda values: [["a", "b"]] * 6),
    "actions are deeper": column("action", lambda values: [[[1.0]]] * 6),
    "states are longer": column("observation.state", cell([1.0])),
    "a state is null": column("observation.state", cell(None)),
    "an unknown task": column("task_index", cell(9)),
    "a task is null": column("task_index", cell(None)),
    "tasks are fractions": column("task_index", lambda values: [0.5] * 6),
    "episodes are text": column("episode_index", lambda values: ["a"] * 6),
    "an index is null": column("index", cell(None)),
    "an index is text": column("index", lambda values: ["a"] * 6),
    "a picture is null": column(FRONT_KEY, cell(None)),
    "pictures are numbers": column(FRONT_KEY, lambda values: [5] * 6),
    "pictures are elsewhere": column(FRONT_KEY, lambda values: [{"bytes": None, "path": "a.png"}] * 6),
    "a picture is damaged": column(FRONT_KEY, cell({"bytes": b"\x89PNG nonsense", "path": "a.png"})),
    "a picture is cut": column(FRONT_KEY, lambda values: [{**v, "bytes": v["bytes"][:60]} for v in values]),
    "a picture of another size": column(FRONT_KEY, lambda values: [{**values[0], "bytes": png(8)}, *values[1:]]),
    "a picture of another format": column(FRONT_KEY, lambda values: [{**v, "bytes": png(16, "BMP")} for v in values]),
    "no sentences": column("task", lambda values: None, TASKS),
    "a sentence is null": column("task", lambda values: [None], TASKS),
    "sentences are numbers": column("task", lambda values: [5], TASKS),
    "sentences without numbers": column("task_index", lambda values: None, TASKS),
    **{f"{name} leads out": link_at(name) for name in ("videos", "meta", "data", "data/chunk-000", "meta/other")},
    "no rows": lambda f: pq.write_table(pq.read_table(f / DATA).slice(0, 0), f / DATA),
    "a second file of another shape": lambda f: pq.write_table(
        pa.table({"action": [1]}), f / "data/chunk-000/file-001.parquet"
    ),
}


def png(side: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("damage", DATASETS.values(), ids=DATASETS)
def test_a_damaged_dataset_is_refused(damage, tmp_path):
    folder = write_dataset(recording(), tmp_path / "set")
    assert len(read_dataset(folder)) == 6
    damage(folder)
    refused(lambda: read_dataset(folder))


def adapter_says(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def adapter_with(function: Callable[[dict], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from safetensors import safe_open

        path = folder / "adapter_model.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        weights = load_file(path)
        function(weights)
        save_file(weights, path, metadata)

    return change


def first(weights: dict) -> str:
    return sorted(weights)[0]


ADAPTERS: dict[str, Callable[[Path], Any]] = {
    **{f"rank {value!r}": adapter_says(r=value) for value in (4, 0, 1.5, "2", None, 10**9)},
    **{f"alpha {value!r}": adapter_says(lora_alpha=value) for value in (0, "x", None)},
    **{
        f"targets {value!r}": adapter_says(target_modules=value)
        for value in ([], None, "all-linear", ["none"], [5], ".*")
    },
    **{f"type {value!r}": adapter_says(peft_type=value) for value in ("IA3", "LOHA", None, 5)},
    "a module to import": adapter_says(megatron_config={"a": 1}, megatron_core="evil"),
    "an unknown setting": adapter_says(speed=1),
    "another way": adapter_says(use_dora=True),
    **{f"settings {d!r}": file_is("adapter_config.json", d) for d in (b"", b"{", b"[]", b"{}", b"\xff")},
    **{
        f"weights {d!r:.12}": file_is("adapter_model.safetensors", d)
        for d in (b"", b"nonsense", header(2**60), header(2))
    },
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "weights are cut": cut("adapter_model.safetensors"),
    "a weight is missing": adapter_with(lambda w: w.pop(first(w))),
    "a weight too many": adapter_with(lambda w: w.update(extra=torch.zeros(2))),
    "a weight of another shape": adapter_with(lambda w: w.update({first(w): torch.zeros(3, 3)})),
    "a weight is not finite": adapter_with(lambda w: w[first(w)].fill_(torch.nan)),
    "a weight is whole": adapter_with(lambda w: w.update({first(w): w[first(w)].long()})),
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_config) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(add_lora(new_policy(tiny_config, 0), rank=2), folder)
    return folder


@pytest.mark.parametrize("damage", ADAPTERS.values(), ids=ADAPTERS)
def test_a_damaged_adapter_is_refused(damage, adapter, tiny_config, tmp_path):
    shutil.copytree(adapter, tmp_path / "copy")
    load_adapter(new_policy(tiny_config, 0), tmp_path / "copy")
    damage(tmp_path / "copy")
    policy = new_policy(tiny_config, 0)
    refused(lambda: load_adapter(policy, tmp_path / "copy"))


def test_what_a_stranger_wrote_does_not_command_the_terminal(tmp_path, capsys):
    said = "open\x1b]0;owned\x07 the \u202eroob\nnothing that looks wrong"
    names = ("x\x1b[31m", "y")
    write_dataset(recording(instructions=[said] * 6, action_names=names), tmp_path / "set")
    cli.main(["dataset", str(tmp_path / "set")])
    out = capsys.readouterr().out
    assert "open\\x1b]0;owned\\x07 the \\u202eroob\\nnothing" in out
    assert all(line.isprintable() for line in out.splitlines())


def test_the_table_is_long():
    numbers = len(fields_and_numbers())
    tables = (COMMANDS, PREDICT, STATES, PYTHON, RECORDINGS, DATASETS, ADAPTERS)
    assert len(COMMANDS) >= 400
    assert sum(map(len, tables)) + numbers >= 900


def test_input_that_is_not_text_ends_a_demo(place, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(place["tmp"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"find \xff\xfe\n"), encoding="utf-8"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--checkpoint", str(place["best"])])
    assert stop.value.code == 2
    assert "the instructions are not UTF-8" in capsys.readouterr().err


def test_after_the_last_seed_comes_the_first(place, monkeypatch, capsys):
    lines = iter(["new", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    cli.main(["demo", "--checkpoint", str(place["best"]), "--scene-seed", str(2**32 - 1)])
    assert "scene 0:" in capsys.readouterr().out


def test_no_code_of_a_checkpoint_was_run(kept):
    assert not (kept["file"].parent / "was_run").exists()


def test_a_rate_that_diverges_is_one_line_and_may_be_tried_again(tmp_path, capfd):
    sizes = shlex.split(
        "--preset nano --num-train 64 --num-val 16 --num-test 16 --device cpu --step plain --recipe plain"
    )
    places = ["--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    with pytest.raises(SystemExit):
        cli.main(
            [
                "train",
                *sizes,
                *places,
                "--batch-size",
                "8",
                "--epochs",
                "40",
                "--learning-rate",
                "1000",
                "--warmup-steps",
                "0",
            ]
        )
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1, said
    assert "training diverged" in said
    assert not (tmp_path / "run" / "best").exists()
    cli.main(["train", *sizes, *places, "--epochs", "1"])
    assert (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize(
    "command",
    [
        "sample --index -1",
        "train --epochs x",
        "evaluate --checkpoint {checkpoint:weights: cut}",
        "train --vision {auto_map}",
    ],
)
def test_a_process_says_the_same(command, place):
    """The real thing, with nobody at the keyboard and a closed standard input."""
    run = [sys.executable, "-m", "tinyvla", *filled(command, place)]
    environment = {**os.environ, "TINYVLA_CACHE": str(place["tmp"])}
    done = subprocess.run(run, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
