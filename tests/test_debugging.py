"""Every message that `book/debugging.md` quotes is one that the program prints; each is provoked here."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyvla.app import cli
from tinyvla.config import ModelConfig
from tinyvla.course.exercises import checking
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import Progress, RunFolder, RunSettings
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig

PAGE = (Path(__file__).parent.parent / "book" / "debugging.md").read_text(encoding="utf-8")
OTHERS = {"Expected all tensors to be on the same device", "No module named tinyvla", "CUDA out of memory"}
"""What PyTorch and Python say."""


class Place:
    """A stopped run with a checkpoint, for one message to be provoked."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.out, self.best = folder / "run", folder / "run" / "best"
        self.run, self.config = RunFolder(self.out), config
        self.policy = new_policy(config, 0)
        self.train = TrainConfig(epochs=2, batch_size=16)
        self.run.start(RunSettings(config, self.train, DataConfig(num_train=32)), {}, overwrite=False)
        self.run.save_checkpoint(self.policy, "best")
        self.run.save_state(self.policy, make_optimizer(self.policy, self.train), Progress(step=1))

    def command(self, *words: str) -> None:
        cli.main([*words, "--device", "cpu", "--out", str(self.out)])

    def load(self) -> None:
        TinyVLA.from_pretrained(self.best)

    def spoil(self, value: float) -> None:
        weights = load_file(self.best / "model.safetensors")
        weights["head.output.bias"].fill_(value)
        save_file(weights, self.best / "model.safetensors")


def other_config(place: Place) -> None:
    new_policy(replace(place.config, fusion=replace(place.config.fusion, embed_dim=32)), 0).save_pretrained(
        place.out / "other"
    )
    (place.best / "config.json").write_bytes((place.out / "other" / "config.json").read_bytes())
    place.load()


def truncated(place: Place) -> None:
    (place.best / "model.safetensors").write_bytes((place.best / "model.safetensors").read_bytes()[:-100])
    place.load()


def without_config(place: Place) -> None:
    (place.best / "config.json").unlink()
    place.load()


def of_another_program(place: Place) -> None:
    (place.best / "config.json").write_text('{"model_type": "llama", "hidden_size": 4096}')
    place.load()


def broken_state(place: Place) -> None:
    (place.out / "resume.safetensors").write_bytes(b"nonsense")
    place.command("train", "--resume")


def not_finite(place: Place) -> None:
    place.spoil(torch.nan)
    place.load()


HOLDER = """
import sys
from tinyvla.learn.checkpoint import RunFolder
with RunFolder(sys.argv[1]).held():
    print("held", flush=True)
    input()
"""


def in_use(place: Place) -> None:
    holder = [sys.executable, "-c", HOLDER, str(place.out)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            place.command("train", "--resume")
        finally:
            process.kill()


def foreign(place: Place) -> None:
    other = place.out.parent / "other" / "best"
    other.mkdir(parents=True)
    (other / "photo.png").write_bytes(b"")
    cli.main(["train", "--device", "cpu", "--out", str(other.parent)])


def own_code(place: Place) -> None:
    tower = place.out.parent / "tower"
    tower.mkdir()
    (tower / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModel": "x.Model"}}')
    cli.main(["train", "--device", "cpu", "--vision", str(tower), "--out", str(place.out.parent / "new")])


def diverges(place: Place) -> None:
    split = TensorSplit.from_blockfind(BlockFind(32, 0), place.policy.language.encode)
    with torch.no_grad():
        place.policy.head.output.bias.fill_(torch.nan)
    fit(place.policy, split, split, place.train)


def unseen(place: Place) -> None:
    place.policy.language.note_words(place.policy.language.encode(["find the red block"])[0])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        place.policy.predict(np.zeros((64, 64, 3), np.uint8), "find the zebra block")
    raise InputError(str(said[0].message))


def unsolved(place: Place) -> None:
    with checking("Exercise 1"):
        raise AssertionError("One and one are not three.")


MESSAGES: dict[str, Callable[[Place], object]] = {
    "no checkpoint folder ... here": lambda place: TinyVLA.from_pretrained("checkpoints/beast"),
    "holds no config.json": without_config,
    "missing, truncated or not a safetensors file": truncated,
    "does not fit its config.json": other_config,
    "is the folder of a run, not of a checkpoint": lambda place: TinyVLA.from_pretrained(place.out),
    "holds unknown keys": of_another_program,
    "holds a run already": lambda place: place.command("train"),
    "--resume goes on with ...": lambda place: place.command("train", "--resume", "--learning-rate", "0.5"),
    "resume.safetensors is damaged": broken_state,
    "holds NaN or infinite numbers": not_finite,
    "is in use by process ...": in_use,
    "holds ... not written by a run": foreign,
    "asks for code of its own (auto_map)": own_code,
    "the loss is nan at step ...": diverges,
    "never seen in training: 'zebra'; ...": unseen,
    "not yet": unsolved,
}


def quoted() -> set[str]:
    """What the page quotes: the first column of its table of messages, and the words in quotation marks."""
    table = PAGE.split("| the message says | do |", 1)[1].split("\n\n", 1)[0]
    rows = {row.split("|")[1].strip() for row in table.splitlines()[2:]}
    prose = re.sub(r"(?ms)^```.*?^```", "", PAGE)
    said = re.findall(r'(?:\bwith|says|\*\*Symptom\.\*\*) "([^"]+)"', prose) + re.findall(
        r"(?:\*\*Symptom\.\*\* `|^- \*)(CUDA out[^`*]+|No module[^`*]+)", prose, re.M
    )
    return rows | {text.removesuffix(".") if not text.endswith("...") else text for text in said}


def test_each_quoted_message_has_its_cause_here():
    assert quoted() == set(MESSAGES) | OTHERS


@pytest.mark.parametrize("message", MESSAGES)
def test_the_program_says_what_the_page_quotes(message, tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, tiny_config)
    said = ""
    with suppress(SystemExit):  # a verb of the command line says it on stderr
        try:
            MESSAGES[message](place)
        except InputError as error:
            said = str(error)
    captured = capsys.readouterr()
    pattern = ".+".join(map(re.escape, message.split("...")))
    assert re.search(pattern, said + captured.err + captured.out), said + captured.err


def test_the_options_that_the_page_names_are_there(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    known = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out)) | {"--nbval"}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", PAGE)) <= known


def test_the_fingerprint_is_that_of_the_data():
    train = BlockFind(8_000, seed=42)
    data = train.images.tobytes() + train.actions.tobytes() + train.colors.tobytes()
    assert f"# {hashlib.sha256(data).hexdigest()[:16]}\n" in PAGE
