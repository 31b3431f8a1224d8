from __future__ import annotations

import warnings

import pytest

from tinyvla.app.demo import run_demo, scene_as_text
from tinyvla.data.dataset import BlockFind
from tinyvla.model.tokenizer import encode


@pytest.fixture
def sample():
    return BlockFind(1, 0)[0]  # blue, orange, purple, yellow


def test_scene_as_letters(sample):
    lines = scene_as_text(sample, in_color=False).split("\n")
    assert len(lines) == 8
    letters = [c for line in lines for c in line if c not in " ."]
    assert sorted(letters) == sorted(color[0].upper() for color in sample.colors)


def test_scene_in_colour_resets_every_line(sample):
    assert all(line.endswith("\x1b[0m") for line in scene_as_text(sample, in_color=True).split("\n"))


def test_a_conversation(tiny_policy, tmp_path, monkeypatch, capsys):
    lines = iter(["find the blue block", "find the blue zebra", "find \ud83d", "find the red block", "new", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    tiny_policy.language.note_words(encode(["find the blue block", "find the red block"])[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is printed need not be warned of as well
        run_demo(tiny_policy, 0, tmp_path / "demo.png")
    said = capsys.readouterr().out
    assert said.count("angle") == 3
    assert said.count("never seen in training") == 1
    assert "never seen in training: 'zebra'; " in said
    assert "the instruction holds U+D83D" in said
    assert "warning: there is no red block" in said
    assert "scene 1:" in said
    assert (tmp_path / "demo.png").stat().st_size > 5_000


def test_end_of_input_ends_it(tiny_policy, tmp_path, monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    run_demo(tiny_policy, 0, tmp_path / "demo.png")
