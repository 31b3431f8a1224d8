from __future__ import annotations

import pytest

from tinyvla.data.blockfind import BlockFind
from tinyvla.app.demo import angle_of, named_colors, run_demo, scene_as_text, warning_for


@pytest.fixture
def sample():
    return BlockFind(1, 0)[0]  # blue, orange, purple, yellow


def test_angle_is_counter_clockwise_with_up_at_90():
    assert [angle_of(*v) for v in ((1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.0, 1.0))] == [0, 90, 180, 270]


def test_named_colours_are_whole_words():
    assert named_colors("Find the RED block, not the blue one") == ["red", "blue"]
    assert named_colors("find the reddish block") == []


def test_scene_as_letters(sample):
    lines = scene_as_text(sample, in_color=False).split("\n")
    assert len(lines) == 8
    letters = [c for line in lines for c in line if c not in " ."]
    assert sorted(letters) == sorted(color[0].upper() for color in sample.colors)


def test_scene_in_colour_resets_every_line(sample):
    assert all(line.endswith("\x1b[0m") for line in scene_as_text(sample, in_color=True).split("\n"))


def test_warnings(sample):
    assert warning_for("find the blue block", sample) is None
    assert "no red block in this scene" in warning_for("find the red block", sample)
    assert "names no block colour" in warning_for("find the block", sample)


def test_a_conversation(tiny_policy, tmp_path, monkeypatch, capsys):
    lines = iter(["find the blue block", "find the zebra", "find the red block", "new", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    run_demo(tiny_policy, 0, tmp_path / "demo.png")
    said = capsys.readouterr().out
    assert said.count("angle") == 2
    assert "unknown words 'zebra'" in said
    assert "warning: there is no red block" in said
    assert "scene 1:" in said
    assert (tmp_path / "demo.png").stat().st_size > 5_000


def test_end_of_input_ends_it(tiny_policy, tmp_path, monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    run_demo(tiny_policy, 0, tmp_path / "demo.png")
