"""The notebooks' frame. Their outputs are compared by `pytest --nbval`; here stands what that cannot see."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NAMES = sorted(p.stem for p in FOLDER.glob("*.ipynb"))

_spec = importlib.util.spec_from_file_location("notebooks_script", ROOT / "tools" / "notebooks.py")
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def prose(name: str) -> str:
    return "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")


def test_chapters_stand_in_the_book_in_the_order_of_their_numbers():
    contents = (FOLDER.parent / "_toc.yml").read_text(encoding="utf-8")
    assert re.findall(r"file: notebooks/(\S+)", contents) == NAMES == sorted(NAMES)
    assert len({name[:2] for name in NAMES}) == len(NAMES)
    assert [name[:2] for name in NAMES[:7]] == [f"{number:02d}" for number in range(7)]  # Part I is whole


def test_notebooks_are_paired_executed_and_whole():
    assert script.problems() == []


class TestDamageIsNoticed:
    """Each kind of damage, done to a copy, must be found."""

    @pytest.fixture
    def copy(self, tmp_path) -> Path:
        for name in NAMES[:3]:
            for ending in ("py", "ipynb"):
                shutil.copy(FOLDER / f"{name}.{ending}", tmp_path)
        assert script.problems(tmp_path) == []
        return tmp_path

    def edit(self, copy: Path, change) -> list[str]:
        path = copy / f"{NAMES[1]}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        change([cell for cell in notebook.cells if cell.cell_type == "code"])
        nbformat.write(notebook, path)
        return script.problems(copy)

    def test_one_output_deleted(self, copy):
        def change(code):
            next(cell for cell in code if cell.outputs).outputs = []

        assert "changed or removed" in self.edit(copy, change)[0]

    def test_one_output_corrupted(self, copy):
        def change(code):
            next(c for c in reversed(code) if c.outputs and "text" in c.outputs[0]).outputs[0]["text"] += "!"

        assert "changed or removed" in self.edit(copy, change)[0]

    def test_outputs_stripped(self, copy):
        def change(code):
            for cell in code:
                cell.outputs, cell.execution_count = [], None

        assert any("not executed from top to bottom" in line for line in self.edit(copy, change))

    def test_setup_cell_changed(self, copy):
        path = copy / f"{NAMES[1]}.py"
        path.write_text(path.read_text().replace("# Setup: the same cell", "# Setup: my own cell"))

        def change(code):
            code[0].source = code[0].source.replace("# Setup: the same cell", "# Setup: my own cell")

        assert any("setup cell differs" in line for line in self.edit(copy, change))

    def test_source_unpaired(self, copy):
        (copy / f"{NAMES[1]}.py").unlink()
        assert script.problems(copy) == [f"{NAMES[1]}: .py is missing"]

    def test_only_what_never_ran_may_change_without_running(self):
        begin = "with checking('Exercise 1'):\n    assert answer is not None, 'write the body first'\n    assert "
        tags = {"metadata": {"tags": ["check"]}}
        old = nbformat.v4.new_code_cell(begin + "answer == 1", **tags)
        old.outputs = [nbformat.v4.new_output("stream", text="Exercise 1: not yet. Write the body first.\n")]
        assert script.says_the_same(nbformat.v4.new_code_cell(begin + "answer == 2", **tags), old)
        assert not script.says_the_same(nbformat.v4.new_code_cell(begin + "answer == 2"), old)
        assert not script.says_the_same(nbformat.v4.new_code_cell("x = 1\n" + begin + "answer == 1", **tags), old)

    def test_source_changed(self, copy):
        path = copy / f"{NAMES[1]}.py"
        path.write_text(path.read_text() + "\n# %%\nprint(1)\n")
        assert "differ" in script.problems(copy)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_has_all_its_parts(name):
    text = prose(name)
    for part in ("**You will be able to**", "**Time:**", "**Before you start:**", "## Check yourself", "## Summary"):
        assert part in text, part
    assert len(re.findall(r"^#+ Exercise \d", text, re.M)) >= 2
    assert text.count("<summary>Hint</summary>") >= 2
    questions = text.split("## Check yourself")[1].split("## Summary")[0].count("<details>")
    assert 3 <= questions <= 5
    assert text.count("<details>") == text.count("</details>")


@pytest.mark.parametrize("name", NAMES)
def test_the_badge_opens_this_notebook(name):
    slug = re.search(r'^Repository = "https://github.com/(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M).group(1)
    assert f"colab.research.google.com/github/{slug}/blob/main/notebooks/{name}.ipynb)" in prose(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_time_is_the_measured_one(name):
    assert f", {script.running_time(name)} to run" in prose(name), "run: python tools/notebooks.py times"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(name)):
        if not target.startswith("http"):
            assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_light_and_render_everywhere(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_500_000
    assert not re.search(r"^:::|^```\{", prose(name), re.M), "MyST directives do not render in Colab"


def test_the_setup_cell_installs_tinyvla_where_it_is_missing(tmp_path):
    """As in Colab: torch and the other libraries are there, tinyvla is not."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    packages = next(environment.glob("lib/python*/site-packages"))
    here = Path(pytest.__file__).parent.parent
    (packages / "libraries.pth").write_text(f"{here}\n")  # its own .pth files, and so tinyvla, are not followed
    clone = tmp_path / "clone"
    ignore = shutil.ignore_patterns(".git", ".venv", "_build", "checkpoints", "logs", ".*")
    shutil.copytree(ROOT, clone, ignore=ignore)
    setup = next(cell.source for cell in read(NAMES[0]).cells if cell.cell_type == "code")
    code = setup + "\nfrom tinyvla.course.zoo import load_results\nload_results('fusion')\nprint(tinyvla.__file__)"
    variables = {**os.environ, "TINYVLA_SOURCE": str(clone)}
    variables.pop("PYTHONPATH", None)
    before = subprocess.run([python, "-c", "import tinyvla"], capture_output=True, cwd=tmp_path, check=False)
    assert before.returncode != 0, "tinyvla is not missing, so this shows nothing"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env=variables, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(environment) in done.stdout


def test_times_cover_every_notebook():
    times = json.loads((ROOT / "results" / "notebook_times.json").read_text())
    assert set(NAMES) <= set(times["cpu"])
