"""One process at a time, and nothing removed but what was written: `tinyvla.learn.folder`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tinyvla.app import cli, cli_train
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.callbacks import Callback, DivergedError, Interrupted
from tinyvla.learn.checkpoint import Progress, RunFolder, RunSettings
from tinyvla.learn.folder import written
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, TrainConfig

SHORT = TrainConfig(epochs=2, batch_size=16, checkpoint_every=1, learning_rate=1e-2)
FILES = ("config.json", "metrics.jsonl", "best/config.json", "best/model.safetensors", "best/README.md")


@pytest.fixture(scope="module")
def split() -> TensorSplit:
    return TensorSplit.from_blockfind(BlockFind(32, 0), encode)


def train(path, config, split, seed=0, overwrite=False, callbacks=()) -> RunFolder:
    run, settings = RunFolder(path), dataclasses.replace(SHORT, seed=seed)
    run.start(RunSettings(config, settings, DataConfig()), {}, overwrite)
    fit(new_policy(config, seed), split, split, settings, run=run, callbacks=callbacks)
    return run


@pytest.fixture
def run(tiny_config, split, tmp_path) -> RunFolder:
    return train(tmp_path / "run", tiny_config, split)


def contents(path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_run_notes_what_it_writes(run):
    names = {
        *FILES,
        *(f"epoch_00{n}/{file}" for n in (1, 2) for file in ("config.json", "model.safetensors", "README.md")),
    }
    assert set(written(run.path)) == names | {"resume.safetensors"}
    assert contents(run.path).keys() == names


def test_overwriting_leaves_what_is_not_its_own(run, tiny_config, split):
    mine = ("notes.txt", "best/notes.txt", "epoch_1999_photos/a.jpg", "photos/epoch_001/a.jpg")
    for name in mine:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("mine")
    train(run.path, tiny_config, split, seed=1, overwrite=True)
    assert all((run.path / name).read_text() == "mine" for name in mine)
    assert json.loads((run.path / "config.json").read_text())["train"]["seed"] == 1
    assert TinyVLA.from_pretrained(run.best).config == tiny_config
    assert {p.name for p in run.path.iterdir()} == {
        *("config.json", "metrics.jsonl", "best", "epoch_001", "epoch_002"),
        *("notes.txt", "epoch_1999_photos", "photos"),
    }


@pytest.mark.parametrize("name", ["config.json", "best/photo.png", "epoch_005/a.txt", "metrics.jsonl"])
def test_where_others_have_written_no_run_begins(tiny_config, split, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"holds {name.split('/')[0]} not written by a run"):
            train(tmp_path, tiny_config, split, overwrite=overwrite)
    assert contents(tmp_path) == {name: b"{}"}


def test_a_checkpoint_is_no_run(run, tiny_config, split):
    before = contents(run.path)
    with pytest.raises(InputError, match="not written by a run"):
        train(run.best, tiny_config, split, overwrite=True)
    assert contents(run.path) == before


def test_a_run_of_before_names_were_noted_can_be_overwritten(run, tiny_config, split):
    path = run.path / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "files"}))
    train(run.path, tiny_config, split, seed=1, overwrite=True)
    assert set(written(run.path)) - {"resume.safetensors"} == contents(run.path).keys()


@pytest.mark.parametrize(
    "names", [["../mine"], ["/etc/passwd"], ["best/../../mine"], [5, None, "", "."], "best", {"best": 1}]
)
def test_names_that_lead_elsewhere_are_not_followed(run, tiny_config, split, names):
    (run.path.parent / "mine").write_text("mine")
    path = run.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": names}))
    assert written(run.path) == (["best"] if names == ["best"] else [])
    with pytest.raises(InputError, match="not written by a run"):
        train(run.path, tiny_config, split, overwrite=True)
    assert (run.path.parent / "mine").read_text() == "mine"


class Raises(Callback):
    def __init__(self, error, at):
        self.error, self.at = error, at

    def on_step(self, step, loss, learning_rate):
        if step == self.at:
            raise self.error


@pytest.mark.parametrize(
    "error", [DivergedError("diverged"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_the_old_run_stays_until_the_new_one_has_a_checkpoint(run, tiny_config, split, error):
    before = contents(run.path)
    with pytest.raises(type(error)):
        train(run.path, tiny_config, split, seed=1, overwrite=True, callbacks=[Raises(error, 2)])
    after = contents(run.path)
    assert {name: after[name] for name in before} == before
    run.drop_unsaved()
    assert contents(run.path) == before
    assert RunFolder(run.path).settings().train.seed == 0
    with pytest.raises(type(error)):  # in the second epoch
        train(run.path, tiny_config, split, seed=1, overwrite=True, callbacks=[Raises(error, 3)])
    assert RunFolder(run.path).settings().train.seed == 1
    assert (run.path / "resume.safetensors").exists()


def test_an_overwriting_run_that_was_interrupted_goes_on(run, tiny_config, split, tmp_path):
    class Stops(Callback):
        def on_step(self, step, loss, learning_rate):
            self.stop = step == 1

    before = contents(run.path)
    with pytest.raises(Interrupted):
        train(run.path, tiny_config, split, seed=1, overwrite=True, callbacks=[Stops()])
    again = RunFolder(run.path)
    assert {name: contents(run.path)[name] for name in before} == before
    assert again.settings().train.seed == 1
    fit(new_policy(tiny_config, 9), split, split, again.settings().train, run=again)
    whole = train(tmp_path / "whole", tiny_config, split, seed=1)
    assert contents(again.path) == contents(whole.path)


def test_what_saved_nothing_may_be_begun_again_without_a_word(tiny_config, split, tmp_path):
    with pytest.raises(DivergedError):
        train(tmp_path / "run", tiny_config, split, callbacks=[Raises(DivergedError("diverged"), 1)])
    train(tmp_path / "run", tiny_config, split, seed=1)
    assert RunFolder(tmp_path / "run").settings().train.seed == 1


def test_what_a_killed_process_was_writing_is_cleared_away(run, tiny_config, split):
    for name in (".best.123.tmp", ".config.json.123.tmp", ".mine.123.tmp", ".best.tmp"):
        (run.path / name).write_text("half")
    for name in (".epoch_001.5.tmp", ".epoch_001.123.tmp"):
        (run.path / name).mkdir()
    (run.path / ".lock").write_text("123")
    with run.held():
        pass
    kept = {".mine.123.tmp", ".best.tmp", ".epoch_001.5.tmp"}
    assert {p.name for p in run.path.iterdir() if p.name.startswith(".")} == kept


HOLD = """
import sys, time
from tinyvla.learn.folder import Folder
from pathlib import Path
with Folder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(run):
    """Another process that works in the run's folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_second_process_is_refused_and_a_dead_one_is_no_hindrance(run, holder, how, tmp_path, capsys):
    before = contents(run.path)
    sizes = ["--num-train", "32", "--num-val", "16", "--num-test", "16", "--preset", "nano", "--epochs", "1"]
    args = [*(sizes if how == "--overwrite" else []), "--log-dir", str(tmp_path / "logs"), "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", how, "--out", str(run.path), *args])
    assert stop.value.code == 2
    assert f"is in use by process {holder.pid}" in capsys.readouterr().err
    assert contents(run.path) == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (run.path / ".lock").read_text() == str(holder.pid), "a stale lock"
    with RunFolder(run.path).held():
        assert (run.path / ".lock").read_text() == str(os.getpid())
    assert not (run.path / ".lock").exists()


def test_a_holder_may_hold_again(run):
    with run.held():
        with run.held():
            pass
        assert (run.path / ".lock").exists()
        with pytest.raises(InputError, match="in use"), RunFolder(run.path).held():
            pass
    assert not (run.path / ".lock").exists()


def test_training_holds_its_folder(tiny_config, split, tmp_path):
    class Looks(Callback):
        def on_step(self, step, loss, learning_rate):
            with pytest.raises(InputError, match="in use by process"), RunFolder(tmp_path / "run").held():
                pass

    train(tmp_path / "run", tiny_config, split, callbacks=[Looks()])


def test_the_new_weights_are_those_of_a_run_of_its_own(run, tiny_config, split, tmp_path):
    train(run.path, tiny_config, split, seed=1, overwrite=True)
    whole = train(tmp_path / "whole", tiny_config, split, seed=1)
    mine, theirs = (load_file(each / "best/model.safetensors") for each in (run.path, whole.path))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_what_a_killed_save_of_safetensors_left_is_tidied(run):
    left = run.path / ".resume.safetensors.123.tmp"
    left.mkdir()
    (left / ".tmp9aaE7X").write_bytes(b"half of the weights")
    (run.path / ".lock").write_text("123")
    with run.held():
        assert not left.exists()


MINE = (".swap/precious", ".new/precious", ".tmpABCDEF", ".best.5.tmp/precious", ".config.json.5.tmp", ".lock")


@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("is_run", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_somebody_keeps_under_a_name_of_ours_stays(tiny_config, split, tmp_path, name, is_run, overwrite):
    path = tmp_path / "a"
    if is_run:
        train(path, tiny_config, split)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("mine")
    if not is_run:
        (path / "config.json").write_text("{}")
    before = contents(path)
    if is_run and overwrite and not name.startswith((".swap", ".new", ".lock")):
        train(path, tiny_config, split, seed=1, overwrite=True)
    else:
        with pytest.raises(InputError, match=r"not written by a run|holds a run already"):
            train(path, tiny_config, split, overwrite=overwrite)
        assert contents(path) == before
    assert (path / name).read_text() == "mine"


def test_a_run_that_somebody_keeps_in_a_folder_of_theirs_is_not_moved(run, tiny_config, split, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text("{}")
    shutil.copytree(run.path, theirs / ".swap")
    before = contents(theirs)
    with pytest.raises(InputError, match="not written by a run"):
        train(theirs, tiny_config, split, overwrite=True)
    assert contents(theirs) == before


def noted(path, *names) -> None:
    """Add to the names of files that a run's `config.json` notes."""
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**values, "files": [*values["files"], *names]}))


@pytest.mark.parametrize("place", ["", ".new/", ".swap/"])
def test_a_noted_name_is_not_followed_through_a_link(run, tiny_config, split, tmp_path, place):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("mine")
    if place:
        shutil.copytree(run.path, run.path / place)
    (run.path / place / "best/sub").symlink_to(victim)
    noted(run.path / place, "best/sub/precious")
    before = contents(run.path)
    with pytest.raises(InputError, match=f"holds {place}best/sub not written by a run"):
        train(run.path, tiny_config, split, seed=1, overwrite=True)
    assert (victim / "precious").read_text() == "mine"
    assert contents(run.path) == before


@pytest.mark.parametrize("name", ["best", "config.json/a", "best/" + "a" * 300])
def test_a_noted_folder_is_refused_before_training(run, tiny_config, split, name):
    noted(run.path, name)
    if name == "best":
        with pytest.raises(InputError, match="holds best not written by a run"):
            train(run.path, tiny_config, split, seed=1, overwrite=True)
        assert RunFolder(run.path).settings().train.seed == 0
    else:
        train(run.path, tiny_config, split, seed=1, overwrite=True)
        assert RunFolder(run.path).settings().train.seed == 1
    assert not list(run.path.glob(".*"))


class Stops(Callback):
    def __init__(self, at):
        self.at = at

    def on_step(self, step, loss, learning_rate):
        self.stop = step == self.at


@pytest.fixture
def stopped(tiny_config, split, tmp_path) -> RunFolder:
    """A run that was stopped in its second epoch."""
    with pytest.raises(Interrupted):
        train(tmp_path / "run", tiny_config, split, callbacks=[Stops(3)])
    return RunFolder(tmp_path / "run")


def resume(run, config, split) -> None:
    settings = run.settings()
    run.check_state(settings.model)
    fit(new_policy(config, 9), split, split, settings.train, run=run)


def fails_to_resume(run, config, split, says) -> None:
    """Both the look at the header and the training itself refuse, and change nothing."""
    before, settings = contents(run.path), run.settings()
    with pytest.raises(InputError, match=says):
        run.check_state(settings.model)
    with pytest.raises(InputError, match=says):
        fit(new_policy(config, 9), split, split, settings.train, run=run)
    assert contents(run.path) == before


def test_a_stopped_run_goes_on_to_what_it_would_have_been(stopped, tiny_config, split, tmp_path):
    resume(stopped, tiny_config, split)
    assert contents(stopped.path) == contents(train(tmp_path / "whole", tiny_config, split).path)


def test_no_run_goes_on_through_a_link(stopped, tiny_config, split, tmp_path):
    precious = tmp_path / "precious"
    os.replace(stopped.best, precious)
    stopped.best.symlink_to(precious)
    before = contents(precious)
    fails_to_resume(stopped, tiny_config, split, "holds best not written by a run; move it away before you go on")
    assert contents(precious) == before


@pytest.mark.parametrize("is_link", [False, True])
def test_a_run_whose_state_is_gone_does_not_begin_anew(stopped, tiny_config, split, is_link):
    state = stopped.path / "resume.safetensors"
    state.unlink()
    if is_link:
        state.symlink_to("nowhere")
    says = "holds resume.safetensors not written" if is_link else "resume.safetensors is missing; bring it back, or"
    fails_to_resume(stopped, tiny_config, split, says)


def test_a_folder_for_a_checkpoint_that_leads_elsewhere_is_not_written_to(run, tiny_policy, tmp_path):
    (tmp_path / "mine").mkdir()
    (run.path / "epoch_009").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="holds epoch_009 not written by a run"):
        run.save_checkpoint(tiny_policy, "epoch_009")
    assert not contents(tmp_path / "mine")


def test_a_state_beyond_the_end_is_damaged_and_stays(stopped, tiny_config, split):
    policy, state = new_policy(tiny_config, 0), stopped.path / "resume.safetensors"
    stopped.save_state(policy, make_optimizer(policy, SHORT), Progress(step=10**9))
    before = state.read_bytes()
    with pytest.raises(InputError, match=r"resume.safetensors is damaged \(it is at step 1000000000 of 4\)"):
        resume(stopped, tiny_config, split)
    assert state.read_bytes() == before


def test_what_fails_before_its_first_step_leaves_the_old_run(tmp_path, monkeypatch):
    def train_here(*options):
        sizes = ["--num-train", "32", "--num-val", "16", "--num-test", "16", "--preset", "nano", "--epochs", "1"]
        places = ["--out", str(tmp_path / "o"), "--log-dir", str(tmp_path / "logs"), "--device", "cpu"]
        cli.main(["train", *places, *([] if "--resume" in options else sizes), *options])

    def refuses(*_):
        raise InputError("it does not fit")

    train_here()
    before = contents(tmp_path / "o")
    with monkeypatch.context() as patch:
        patch.setattr(cli_train, "_splits", refuses)
        with pytest.raises(SystemExit):
            train_here("--overwrite")
    assert contents(tmp_path / "o") == before
    assert not (tmp_path / "o/.new").exists()
    train_here("--resume")
