from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyvla.app import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_figures_are_those_of_the_results_files():
    check = [sys.executable, str(ROOT / "tools" / "write_results.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "run: python tools/write_results.py"


def test_ci_runs_the_readmes_test_line():
    lines = [line for line in README.splitlines() if line.startswith("python3") and "pytest" in line]
    assert len(lines) == 1
    assert lines[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_verb_is_explained():
    table = README.split("| verb | does |")[1].split("\n\n")[0]
    for verb in cli.VERBS:
        assert f"`{verb}`" in table


def test_links_and_pictures_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_python_example_runs(tiny_policy, tmp_path, monkeypatch):
    tiny_policy.save_pretrained(tmp_path / "checkpoints" / "best")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", README, re.S).group(1), names)
    assert -1 <= names["dx"] <= 1


@pytest.mark.parametrize("path", ["requirements.txt", "environment.yml", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"])
def test_the_frame_is_there(path):
    assert (ROOT / path).stat().st_size > 0


def test_pins_name_torch_and_no_cuda_package():
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert not [pin for pin in pins if pin.startswith(("nvidia", "triton", "cuda"))]
    assert all("==" in pin for pin in pins if not pin.startswith("#"))
