"""The command as a process: what it is given by the shell, and what it leaves there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinyvla.model.policy import new_policy


@pytest.fixture(scope="module")
def best(tmp_path_factory, tiny_config):
    place = tmp_path_factory.mktemp("kept") / "best"
    new_policy(tiny_config, 0).save_pretrained(place)
    return place


def run(command: str, **options) -> subprocess.CompletedProcess[str]:
    """What a shell says to a command line; `tinyvla` in it is this package's."""
    script = f'tinyvla() {{ "{sys.executable}" -m tinyvla "$@"; }}\n{command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=100, **options)


def test_ctrl_c_while_the_imports_run_is_no_traceback():
    code = """
import sys, tinyvla.__main__
class Finder:
    def find_spec(self, name, *more):
        if name == "tinyvla.app.cli_train":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
tinyvla.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("verb", ["info", "sample", "doctor", "train --preset nano", "--help", ""])
def test_a_folder_that_is_gone_is_one_line(verb, tmp_path):
    place = os.environ.get("PYTHONPATH") or os.getcwd()
    command = f"mkdir gone; cd gone; rmdir ../gone; tinyvla {verb}"
    done = run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": place})
    assert done.returncode == 2
    assert done.stderr == "tinyvla: error: the current folder is gone; go to another one with cd\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", ["demo --checkpoint {best}", "--help", "train --help", "info --preset nano"])
def test_a_stream_may_be_closed(verb, closed, best, tmp_path):
    done = run(f"tinyvla {verb.format(best=best)} {closed}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed in ("<&-", "2>&-"))


@pytest.mark.parametrize("verb", ["nosuch", "sample --index -1", "info --preset x"])
def test_errors_that_cannot_be_written_are_in_the_exit_code(verb, tmp_path):
    assert run(f"tinyvla {verb} 2>/dev/full", cwd=tmp_path).returncode == 2


def test_a_letter_that_the_font_lacks_is_no_warning(best, tmp_path):
    command = (
        f"echo 'find the \N{SLICE OF PIZZA} block' | PYTHONWARNINGS=error::UserWarning tinyvla demo --checkpoint {best}"
    )
    done = run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "demo.png").exists()
