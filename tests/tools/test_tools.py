from __future__ import annotations

import ast
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from tinyvla.model.policy import new_policy

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
    assert len(set(titles)) == len(titles) == 18


def test_the_playgrounds_answers_have_the_form_of_those_in_the_book(tool, tiny_config, tmp_path, monkeypatch):
    playground = tool("book_playground")
    monkeypatch.setattr(playground, "trained_policy", lambda: new_policy(tiny_config, 0).eval())
    book, mine = playground.OUT, tmp_path / "data.js"
    monkeypatch.setattr(playground, "OUT", mine)
    playground.main()

    def shown(path: Path) -> dict:
        text = path.read_text(encoding="utf-8")
        return json.loads(text.removeprefix("window.TINYVLA = ").removesuffix(";\n"))

    ours, theirs = shown(mine), shown(book)
    assert ours.keys() == theirs.keys()
    assert (ours["command"], ours["palette"]) == (theirs["command"], theirs["palette"])
    assert [scene["blocks"] for scene in ours["scenes"]] == [scene["blocks"] for scene in theirs["scenes"]]
    for scene in ours["scenes"]:
        assert [len(answer["attention"]) for answer in scene["answers"]] == [64] * 6
        assert [len(answer["action"]) for answer in scene["answers"]] == [2] * 6


@pytest.mark.parametrize("folder", ["experiments", "tools"])
def test_no_function_is_longer_than_a_screen(folder):
    for path in (ROOT / folder).glob("*.py"):
        if path.name in MADE_BY_OTHERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"
