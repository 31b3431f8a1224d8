from __future__ import annotations

import json

import pytest

from tinyvla.app import cli


def test_throughput_writes_its_figures(tmp_path, capsys):
    out = tmp_path / "throughput.json"
    cli.main(["throughput", "--presets", "nano", "--batch-size", "8", "--device", "cpu", "--out", str(out)])
    values = json.loads(out.read_text())
    assert values["command"] == "tinyvla throughput --presets nano --batch-size 8 --device cpu"
    assert values["presets"]["nano"]["scenes_per_second"] > 0
    assert "MFU" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["bench --preset nano --seeds 1 --steps 2", "throughput --presets nano --batch-size 8"]
)
def test_nothing_is_written_unasked(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main([*command.split(), "--device", "cpu"])
    assert "nano" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_bench_compares_with_the_plain_recipe(tmp_path, capsys, monkeypatch):
    rows = {"seconds": {"median": 50.0, "min": 50.0, "mean": 50.0, "max": 50.0}}
    monkeypatch.setattr("tinyvla.measure.bench.bench_reference", lambda config, device, seeds: rows)
    out = tmp_path / "bench.json"
    args = [
        "--preset",
        "nano",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--reference",
        "1",
        "--step",
        "plain",
        "--device",
        "cpu",
    ]
    cli.main(["bench", *args, "--out", str(out)])
    values = json.loads(out.read_text())
    assert values["speedup"] == pytest.approx(50 / values["seconds"]["median"])
    assert values["command"].endswith("--step plain --reference 1 --steps 2")
    assert not values["options"]["bfloat16"]
    assert "times as long" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bench", "--steps", "0"], "--steps is 0"),
        (["throughput", "--presets", "huge"], "unknown preset"),
        (["throughput", "--step", "compiled", "--device", "cpu"], "needs a CUDA GPU"),
        (["bench", "--step", "quick", "--device", "cpu"], "unknown step 'quick'; choose from auto, plain, compiled"),
        (["info", "--preset", "nano", "--checkpoint", "x"], "not both"),
    ],
)
def test_bad_input_is_one_line(args, says, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err
