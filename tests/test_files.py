from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tinyvla.adapt.lora import load_adapter
from tinyvla.data import parquet
from tinyvla.errors import InputError
from tinyvla.files import check_folder, check_output, parse_json, read_json, write_atomically, write_text
from tinyvla.model.checkpoint_files import read_weights
from tinyvla.model.policy import TinyVLA


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_full_disk_says_which_file(tmp_path):
    def fail(temporary):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "file", fail)
    assert caught.value.filename == str(tmp_path / "file")


def test_what_is_no_object_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path, "") == {"a": 1}
    with pytest.raises(InputError, match="there is none"):
        read_json(tmp_path / "none", "there is none")
    for text, says in (
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ("[" * 10**5, "not JSON"),
        (b"\xff", "not JSON"),
    ):
        with pytest.raises(InputError, match=says):
            parse_json(text, "it")
    path.write_bytes(b" " * (2**24 + 1))
    with pytest.raises(InputError, match="larger than 16 MB"):
        read_json(path, "")


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="there is none"):
        read_json(tmp_path / "pipe", "there is none")
    with pytest.raises(InputError, match="no ordinary file"):
        check_output(tmp_path / "pipe")


@pytest.mark.parametrize(
    "read",
    [
        lambda pipe, policy: read_weights(pipe, {}),
        lambda pipe, policy: TinyVLA.from_pretrained(pipe.parent),
        lambda pipe, policy: load_adapter(policy, pipe.parent),
        lambda pipe, policy: parquet.num_rows(pipe),
        lambda pipe, policy: parquet.picture_rows(pipe, "image"),
        lambda pipe, policy: parquet.read_tables([pipe], []),
        lambda pipe, policy: next(parquet.Pictures.of_group(pipe, "image", 0, 0)),
    ],
)
def test_a_pipe_in_the_place_of_weights_or_tables_does_not_block(tiny_policy, tmp_path, read):
    tiny_policy.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    os.mkfifo(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors is no ordinary file"):
        read(tmp_path / "model.safetensors", tiny_policy)


def test_a_place_that_will_do_is_left_as_it_is(tmp_path):
    check_output(tmp_path / "new.PNG", (".png",))
    (tmp_path / "old.png").write_text("mine")
    check_output(tmp_path / "old.png", (".png",))
    check_folder(tmp_path / "a/b/c", "--out")
    assert [p.name for p in tmp_path.iterdir()] == ["old.png"]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
def test_a_read_only_folder_is_refused():
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o555)
        if not user:  # root may write anywhere
            os.seteuid(65534)
        try:
            with pytest.raises(InputError, match=f"cannot write to {folder}: Permission denied; choose another --out"):
                check_output(Path(folder) / "a.png")
            with pytest.raises(InputError, match="choose another --log-dir"):
                check_folder(Path(folder) / "a/b", "--log-dir")
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o755)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(float(sys.argv[1]) * 2**20)
if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from tinyvla.app.cli import main
main(sys.argv[2:])
"""
SIZES = ["--preset", "nano", "--num-train", "64", "--num-val", "16", "--num-test", "16", "--device", "cpu"]


def tinyvla(megabytes: float, *args: str) -> subprocess.CompletedProcess:
    """The command line in a process whose files may not grow beyond a limit; 0 sets none."""
    run = [sys.executable, "-c", LIMITED, str(megabytes), *args]
    return subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)


def test_training_on_a_full_disk_is_one_line_and_goes_on_when_there_is_room(tmp_path):
    places = ["--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    full = tinyvla(4, "train", *SIZES, *places, "--epochs", "1")
    assert full.returncode == 2
    assert len(full.stderr.splitlines()) == 1, full.stderr
    assert "cannot read or write" in full.stderr
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json"}
    assert tinyvla(0, "train", "--resume", *places, "--device", "cpu").returncode == 0
    before = (tmp_path / "run/best/model.safetensors").read_bytes()
    again = tinyvla(4, "train", *SIZES, *places, "--epochs", "1", "--overwrite", "--seed", "5")
    assert again.returncode == 2, again.stderr
    assert len(again.stderr.splitlines()) == 1, again.stderr
    assert (tmp_path / "run/best/model.safetensors").read_bytes() == before
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl", "best"}
    for verb in (["sample", "--out"], ["visualize", "--checkpoint", str(tmp_path / "run/best"), "--out"]):
        picture = tinyvla(0.001, *verb, str(tmp_path / "a.png"))
        assert picture.returncode == 2
        assert len(picture.stderr.splitlines()) == 1, picture.stderr
        assert not (tmp_path / "a.png").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system, and not everywhere")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_file_system_of_4_megabytes(small_disk):
    full = tinyvla(0, "train", *SIZES, "--epochs", "1", "--out", str(small_disk / "run"), "--log-dir", str(small_disk))
    assert full.returncode == 2, full.stderr
    assert len(full.stderr.splitlines()) == 1, full.stderr
    assert os.strerror(errno.ENOSPC) in full.stderr
    assert not list((small_disk / "run").glob(".*"))
