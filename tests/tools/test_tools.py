from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MADE_BY_OTHERS: tuple[str, ...] = ()


@pytest.fixture
def tool(monkeypatch):
    """Loads a tool by its name."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module


def test_a_figure_that_was_changed_by_hand_is_noticed(tool, tmp_path, monkeypatch):
    write_results = tool("write_results")
    (tmp_path / "book").mkdir()
    for name in ("README.md", "book/results.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(write_results, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["write_results.py", "--check"])

    def code() -> bool:
        with pytest.raises(SystemExit) as ended:
            write_results.main()
        return bool(ended.value.code)

    assert not code()
    page = tmp_path / "book" / "results.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("100.0 %", "100.1 %", 1), encoding="utf-8")
    assert code()
    monkeypatch.setattr(sys, "argv", ["write_results.py"])
    write_results.main()
    assert page.read_text(encoding="utf-8") == right


def test_every_section_has_a_title_of_its_own_and_names_its_commands(tool):
    write_results = tool("write_results")
    titles = []
    for section, names in write_results.SECTIONS:
        text = section(*map(write_results.load, names))
        titles.append(text.splitlines()[0])
        assert titles[-1].startswith("## ")
        assert "Made by `" in text
    assert len(set(titles)) == len(titles) == 23


def test_the_first_page_s_still_picture_is_what_its_policy_answers(tool, tmp_path, monkeypatch):
    policies = tool("book_policies")
    committed = (policies.LIVE / "playground.html").read_text(encoding="utf-8")
    shutil.copy(policies.LIVE / "nano.onnx", tmp_path)
    monkeypatch.setattr(policies, "LIVE", tmp_path)
    policies.still()
    mine = (tmp_path / "playground.html").read_text(encoding="utf-8")
    number = re.compile(r"-?\d+(?:\.\d+)?")
    assert number.sub("0", mine) == number.sub("0", committed)
    ours, theirs = ([float(each) for each in number.findall(text)] for text in (mine, committed))
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 0.11  # as far as rounding goes


def test_a_film_is_one_picture_with_all_its_frames(tool):
    films = tool("book_films")
    frames = [Image.new("RGB", (2 * films.SIDE, films.SIDE), (number, 0, 0)) for number in range(films.COLUMNS + 1)]
    whole = films.sheet(frames)
    assert whole.size == (films.COLUMNS * 2 * films.SIDE, 2 * films.SIDE)
    assert whole.getpixel((2 * films.SIDE * 3 + 5, 5))[0] == 3
    assert whole.getpixel((5, films.SIDE + 5))[0] == films.COLUMNS


@pytest.mark.parametrize("folder", ["experiments", "tools"])
def test_no_function_is_longer_than_a_screen(folder):
    for path in (ROOT / folder).glob("*.py"):
        if path.name in MADE_BY_OTHERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"
