"""Every experiment from its options to its results file and its section of the page, with tiny policies."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import arm
import checkpoints
import chunks
import closed_loop
import count_presets
import fusions
import harness
import heads
import latency
import learning
import lora
import metaworld_pictures
import mt50
import mt50_page
import numpy as np
import positions
import pretraining
import processes
import pytest
import reading
import recipe_search
import scaling
import torch
import transformers
import words
import words_page
from page import load
from safetensors.torch import save_file

from tinyvla.act import dagger
from tinyvla.course import ch07
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.model.efficientnet import EfficientNetVision
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import load_tokenizer
from tinyvla.recipes import DataConfig

RESULTS = Path(__file__).parents[2] / "results"
DATA = DataConfig(num_train=64, num_val=32, num_test=32)


def done(experiment: Any, args: harness.Args) -> dict:
    """What the results file of an experiment says."""
    combine = getattr(experiment, "combine", None)
    report = harness.measure(args, experiment.jobs, experiment.run, experiment.summary, combine)
    assert not args.folder.exists()
    return report


def assert_same_form(report: dict, name: str, *paths: str) -> None:
    """The report has all keys that the recorded file has, also at some places inside; `*` is the first of several."""
    recorded = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for path in ("", *paths):
        want, have = at(recorded, path), at(report, path)
        assert want.keys() <= have.keys(), f"{path}: {want.keys() - have.keys()} are missing"


def at(value: Any, path: str) -> Any:
    for name in path.split("/") if path else []:
        several = value if isinstance(value, list) else list(value.values())
        value = several[0] if name == "*" else value[name]
    return value


def test_count_presets(tmp_path):
    report = done(count_presets, count_presets.Args(out=tmp_path / "presets.json"))
    assert report["presets"] == json.loads((RESULTS / "presets.json").read_text())["presets"]
    assert report.keys() == {"command", "presets"}
    assert "| vision |" in count_presets.section(report)


def test_latency(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "export_bytes", lambda policy, suffix: b"")  # tested in tests/deploy
    monkeypatch.setattr(latency, "run_bytes", lambda data, suffix: lambda batch: batch.image)
    args = latency.Args(presets=(tiny_preset,), batches=(1, 2), repeats=1, out=tmp_path / "latency_DEVICE.json")
    report = done(latency, args)
    assert args.out.name == "latency_cpu.json"
    report["presets"]["tiny"]["256"] = report["presets"]["tiny"]["2"]
    assert_same_form(report, "latency_cpu", "presets/*", "presets/*/1", "presets/*/1/predict")
    assert "`tiny`" in latency.section(report, report)


def test_fusions(tiny_preset, tmp_path):
    args = fusions.Args(kinds=("concat",), seeds=2, preset=tiny_preset, epochs=1, data=DATA, out=tmp_path / "f.json")
    report = done(fusions, args)
    assert_same_form(report, "fusion", "kinds/*", "kinds/*/l2_error")
    assert "| concat |" in fusions.section(report)


def test_learning(tiny_preset, tmp_path):
    options = {"presets": (tiny_preset,), "rates": (3e-4,), "seeds": 2, "large": False, "epochs": 1}
    report = done(learning, learning.Args(**options, data=DATA, out=tmp_path / "l.json"))
    assert_same_form(report, "learning", "settings", "reach/*", "full/*")
    assert report["reach"]["tiny 0.0003"]["steps"]["max"] == 1
    assert "`tiny`" in learning.section(report)


def test_learning_stops_at_the_target(tiny_config, monkeypatch):
    import torch
    import training

    monkeypatch.setattr(training, "TARGET", 0.0)
    config = training.TrainConfig(epochs=30)
    row = training.train_to_target(tiny_config, DATA, config, torch.device("cpu"))
    assert row["reached"]
    assert row["steps"] == 10


def test_heads(device, tiny_preset, tmp_path, monkeypatch):
    small = {"SAMPLING_STEPS": (1, 2), "HORIZON": 4, "HIDDEN": 16, "TIMED_BATCHES": (1, 2), "REPEATS": 1}
    for name, value in small.items():
        monkeypatch.setattr(heads, name, value)
    only = ("directions-4", "fast", "flow")
    options = {"heads": only, "seeds": 1, "preset": tiny_preset, "scenes": 64, "epochs": (1, 1, 1), "device": device}
    report = done(heads, heads.Args(**options, data=DATA, out=tmp_path / "h.json"))
    for row in (row for found in report["heads"].values() for row in found.values()):
        assert row["milliseconds"].keys() == {"1", "2"}
        row["milliseconds"]["256"] = row["milliseconds"]["2"]
    assert_same_form(report, "heads", *(f"heads/flow/{data}" for data in heads.KINDS_OF_DATA))
    assert_same_form(report, "heads_longer", "heads/fast", "heads/fast/trajectories")
    assert len(report["heads"]["flow"]["two answers"]["curves"][0]) == 1
    assert "class_accuracy" in report["heads"]["directions-4"]["one answer"]
    assert "| fast |" in heads.section(report, report)


def test_chapter_7_names_the_sampling_steps_of_its_results():
    steps = {name: kind["num_steps"] for name, kind in heads.HEADS.items() if "num_steps" in kind}
    assert steps == ch07.SAMPLING_STEPS


def test_recipe_search(device, tiny_preset, tmp_path, monkeypatch):
    changes = [
        {"optimizer": "adamw", "num_steps": 2, "learning_rate": 1e-3},
        {"optimizer": "muon", "num_steps": 2, "learning_rate": 1e-3, "weight_gain": 0.5, "batch_size": 32},
    ]
    monkeypatch.setattr(recipe_search, "BUDGETS", changes)
    args = recipe_search.Args(device=device, seeds=2, preset=tiny_preset, studies=("budget",), data=DATA)
    report = done(recipe_search, replace(args, out=tmp_path / "s.json"))
    assert_same_form(report, "search", "rows/*", "rows/*/change")
    assert [row["change"] for row in report["rows"]] == changes
    assert "| muon | 0.001 | 2 |" in recipe_search.section(report)


def test_pretraining(device, tiny_preset, tmp_path):
    sizes = {"sizes": (16, 32), "few_sizes": (16,), "num_steps": 2, "num_pairs": 64, "num_test": 16}
    towers = {"pretrain_steps": 1, "pretrain_batch": 8, "preset": tiny_preset, "seeds": 2, "device": device}
    report = done(pretraining, pretraining.Args(**sizes, **towers, data=DATA, out=tmp_path / "p.json"))
    paths = ("camera", "pretraining", "pretrained/*", "differences/*", "summary/*", "rows/*")
    assert_same_form(report, "pretraining", *paths)
    assert len(report["rows"]) == 2 * (3 * 2 + 2 * 1)
    assert [gap["num_labels"] for gap in report["differences"]] == [16, 32, 16, 32, 16]
    assert "| 16 |" in pretraining.section(report, report)


def test_scaling(device, tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "peak_flops", lambda device, dtype: 1e9)
    sizes = {"scenes": (64, 128), "steps": 2, "repeats": 1, "batch_sizes": (8,), "seeds": 1}
    places = {"device": device, "presets": (tiny_preset,), "data_presets": (tiny_preset,), "out": tmp_path / "s.json"}
    args = scaling.Args(**sizes, **places, rates=(1e-3,), data=DATA)
    report = done(scaling, replace(args, budget_seconds=0.0))
    paths = ("settings", "peaks", "steps/*", "steps/*/flops", "steps/*/rows/*/paper")
    assert_same_form({**report, "runs": []}, "scaling", *[path for path in paths if "flops" not in path])
    assert (report["left_out"], report["runs"]) == (2, [])
    ways = [row["graph"] for row in report["steps"]["tiny"]["rows"]]
    assert ways == [False] * 5 + [True] * (2 if device == "cuda" else 0)
    assert not [row["error"] for row in report["steps"]["tiny"]["rows"] if "error" in row]
    more = done(scaling, replace(args, parts=("runs",), resume=True, scenes=(128,)))
    assert [run["num_scenes"] for run in more["runs"]] == [128]
    more = done(scaling, replace(args, parts=("runs",), resume=True))
    assert [run["num_scenes"] for run in more["runs"]] == [128, 64]
    assert more["command"].count(" && ") == 2
    assert_same_form(more, "scaling_runs", "runs/*", "runs/*/test", "summary/*", "summary/*/test")
    assert "| `tiny` | 0.001 | 64 |" in scaling.section_of_runs(more, more, {"presets": {"tiny": {}}})


def test_lora(device, tiny_preset, tmp_path):
    sizes = {"sizes": (16, 32), "middle": 32, "seeds": 1, "steps": 2, "rates": 1, "num_val": 16, "num_test": 16}
    args = lora.Args(
        presets=(tiny_preset,), ways=("frozen", "lora-2", "lora-1-words"), base_steps=1, **sizes, data=DATA
    )
    args = replace(args, device=device, out=tmp_path / "lora.json")
    report = done(lora, args)
    assert_same_form(report, "lora", "presets/*", "presets/*/ways/frozen", "presets/*/ways/*/scenes/*")
    ways = report["presets"]["tiny"]["ways"]
    assert {name: list(way["scenes"]) for name, way in ways.items()} == {
        "frozen": ["16", "32"],
        "lora-2": ["16", "32"],
        "lora-1-words": ["32"],
    }
    assert ways["lora-2"]["difference_after_loading"] == 0
    assert "LoRA, rank 1-words" in lora.section(report)
    again = done(lora, replace(args, presets=(tiny_preset,), ways=("full",), sizes=(32,)))
    assert list(again["presets"]["tiny"]["ways"]) == ["full"]


def test_processes(tiny_preset, tmp_path, monkeypatch):
    """In one process, which is not started anew."""
    args = processes.Args(processes=(1,), presets=(tiny_preset,), steps=1, epochs=1, cpu=True, data=DATA)
    args = replace(args, device="cpu", out=tmp_path / "p.json")
    monkeypatch.setattr(processes, "WAYS", {"weak": 8, "strong": 16})

    def start_here(command: list[str], check: bool, env: dict) -> None:
        at_script = next(i for i, word in enumerate(command) if word.endswith("processes.py"))
        worker = processes.tyro.cli(processes.Args, args=command[at_script + 1 :])
        assert worker == replace(
            args, is_worker=True, train=True, out=args.folder / "1.json", device="auto", processes=(1, 2)
        )
        processes.work(worker)

    monkeypatch.setattr(processes.subprocess, "run", start_here)
    report = done(processes, args)
    assert_same_form({**report, "runs": report["runs"] * 2}, "processes", "runs/*", "runs/*/efficiency")
    assert report["runs"][0]["efficiency"] == {"weak": {"tiny": 1.0}, "strong": {"tiny": 1.0}}
    assert "| `tiny` | 1 |" in processes.section(report)


def test_closed_loop(tiny_preset, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(dagger, "NUM_VAL", 2)
    monkeypatch.setattr(closed_loop, "trained_policy", lambda preset, device: new_policy(tiny_config, 0).eval())
    options = {"seeds": 1, "rounds": 1, "episodes": 4, "epochs": 1, "num_test": 4, "preset": tiny_preset}
    report = done(closed_loop, closed_loop.Args(**options, data=DATA, out=tmp_path / "c.json"))
    paths = ("world", "dagger_settings", "policies", "policies/expert", "policies/dagger", "policies/dagger/runs/*")
    assert_same_form(report, "closed_loop", *paths, "policies/dagger/runs/*/rounds/*")
    runs = {who: report["policies"][who]["runs"][0] for who in ("dagger", "cloning", "cloning_more")}
    last = {who: run["rounds"][-1] for who, run in runs.items()}
    assert last["cloning"]["train_steps"] >= last["dagger"]["train_steps"]
    assert runs["cloning_more"]["episodes"] > runs["cloning"]["episodes"] == 4
    assert "the scripted expert | 100.0 %" in closed_loop.section(report)


def test_checkpoints(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setattr(dagger, "NUM_VAL", 2)
    sizes = {"steps": 4, "checkpoints": 2, "cloning": (4,), "stills": (64,), "val_episodes": 4, "dagger_episodes": (4,)}
    rounds = {"dagger_rounds": 1, "dagger_epochs": 1, "num_test": 4, "preset": tiny_preset, "seeds": 1}
    report = done(checkpoints, checkpoints.Args(**sizes, **rounds, data=DATA, out=tmp_path / "c.json"))
    assert_same_form(report, "closed_loop_checkpoints", "checkpoint_rows/*")
    kinds = [row["kind"] for row in report["checkpoint_rows"]]
    assert kinds == ["dagger", "dagger", "cloning", "cloning", "stills", "stills"]


def test_chunks(tiny_preset, tmp_path):
    sizes = {"heads": ("regression", "flow"), "horizons": (1, 2), "episodes": 4, "val_episodes": 4, "epochs": 1}
    report = done(chunks, chunks.Args(**sizes, seeds=1, num_test=4, preset=tiny_preset, out=tmp_path / "c.json"))
    assert_same_form(report, "closed_loop_chunks", "runs/*", "runs/*/success")
    assert len(report["runs"]) == 2 * (1 + 2) * 2


def test_arm(tiny_preset, tmp_path, monkeypatch):
    """The expert stands in for all who act: a policy that has seen two batches would solve nothing."""
    if find_spec("mujoco") is None:  # importing it here would settle how it draws
        pytest.skip("MuJoCo is not installed")
    monkeypatch.setattr(arm, "VAL_EPISODES", 2)
    monkeypatch.setattr(arm, "EPISODES_OF_A_JOB", 2)
    monkeypatch.setattr(arm, "who_acts", lambda who, seed, args: arm.expert)
    monkeypatch.setattr(arm, "first_success", lambda films, seeds: films(seeds[0]))
    monkeypatch.setattr(arm, "film", lambda policy, world, execute: world.instructions[0])
    shown: list[str] = []
    monkeypatch.setattr(arm, "film_rows", lambda films: (SavedNowhere(shown.extend(films)), None))
    kinds = ("tiny/concat/8/muon/0.4", "tiny/pool-add/8/adamw/0.0")
    sizes = {"episodes": 2, "steps": 2, "batch_size": 4, "horizon": 2, "executes": (2, 1), "num_test": 1, "seeds": 1}
    places = {name: tmp_path / name for name in ("checkpoint", "film")}
    args = arm.Args(kinds=kinds, workers=1, **sizes, **places, recorded_steps=3, out=tmp_path / "arm.json")
    report = done(arm, args)
    paths = ("machine", "learning_rates", "demonstrations/*", "expert/reach", "random/pick", "runs/*", "spread/*")
    assert_same_form(report, "arm", *paths, "policies/*", "policies/*/reach", "policies/*/reach/by_execute/*")
    assert report["demonstrations"]["0.0"]["num_episodes"] == 2
    assert list(report["policies"][kinds[0]]["pick"]["by_execute"]) == ["2", "1"]
    assert list(report["policies"][kinds[1]]["pick"]["by_execute"]) == ["2"]
    assert report["runs"][0] == {"kind": kinds[0], "seed": 0, "reach": 1, "pick": 1, "reach_swap": 1, "pick_swap": 1}
    assert (args.checkpoint / "config.json").exists()
    assert len(set(shown)) == 3
    assert "| expert's noise: 0 | 100.0 (100.0-100.0) |" in arm.section(report, report)


class SavedNowhere:
    def __init__(self, drawn: None) -> None: ...

    def savefig(self, path: Path, dpi: int) -> None: ...


def test_mt50(tmp_path):
    """One job, on one task: it records, learns, acts, and hears another task's sentence."""
    args = mt50.Args(
        variants=("pixels-64",),
        seeds=(1,),
        steps=2,
        tasks="drawer-close,drawer-open",
        demos=1,
        episodes=1,
        own=True,
        swaps="too",
        executes=(4, 8),
        image_size=64,
        processes=1,
        max_steps=8,
        batch_size=8,
        folder_of_data=tmp_path / "data",
        keep=tmp_path / "kept",
        out=tmp_path / "metaworld.json",
    )
    report = done(mt50, args)
    (run,) = report["runs"]
    assert set(run["tasks"]) == {"drawer-close", "drawer-open"}
    assert run["parameters"] < 20e6
    assert {(row["scene"], row["told"]) for row in report["swaps"]} == {
        ("drawer-close", "drawer-open"),
        ("drawer-open", "drawer-close"),
    }
    assert not list((tmp_path / "data").iterdir()), "its own demonstrations are gone"
    alone = done(mt50, replace(args, swaps="alone", out=tmp_path / "swaps.json"))
    assert not alone["runs"], "the policy that was kept acts once more, and nothing is trained"
    told = [[(row["scene"], row["told"], row["does_its_own"]) for row in found["swaps"]] for found in (report, alone)]
    assert told[0] == told[1]
    again = mt50.combine(report, {**report, "runs": [{**run, "seed": 2}]}, args)
    assert [run["seed"] for run in again["runs"]] == [1, 2], "rows of earlier calls stay"
    assert len(again["swaps"]) == 2, "and those that were measured again are not doubled"
    assert again["policies"]["pixels-64-2"]["seeds"] == 2
    assert run["steps"] == 2
    policy, learned = mt50.restore(tmp_path / "kept" / "pixels-64-1-2.pt")
    assert policy.language.unseen_words("Push and close a drawer") == []
    assert learned["steps"] == 2


def test_decoded_frames_are_those_of_the_dataset(tmp_path):
    draw = np.random.RandomState(0)
    images = {"corner2": draw.randint(0, 256, (7, 3, 4, 4)).astype(np.uint8)}
    actions, states = (draw.rand(7, 4).astype(np.float32) for _ in range(2))
    told, episodes = ["b"] * 3 + ["a"] * 4, np.array([0, 0, 0, 1, 1, 2, 2])
    recorded = Demonstrations(images, actions, told, episodes, states)
    mt50.keep_decoded(recorded, tmp_path / "decoded")
    again = mt50.read_decoded(tmp_path / "decoded")
    assert again.instructions == told
    assert np.array_equal(again.images["corner2"], images["corner2"])
    assert all(np.array_equal(getattr(again, name), getattr(recorded, name)) for name in ("actions", "states"))
    assert np.array_equal(again.episodes, episodes)


def test_metaworld_pictures(tmp_path):
    """Two scenes that look nothing alike are told apart, and a scene is not told from itself under another name."""
    args = metaworld_pictures.Args(
        tasks="drawer-close,hammer", known=(1, 2), episodes=2, image_size=32, out=tmp_path / "metaworld_pictures.json"
    )
    report = done(metaworld_pictures, args)
    assert_same_form(report, "metaworld_pictures", "machine", "rows/*")
    assert [row["recognised"] for row in report["rows"]] == [1, 1]
    assert "| 1 | 100.0 % |" in metaworld_pictures.section(report)
    same = np.array([[0.0, 0], [10, 0], [0, 8]])
    assert metaworld_pictures.nearest(np.array([[9.0, 1], [1, 5]]), same).tolist() == [1, 2]


def test_on_the_page_of_results_the_policy_stands_beside_others_by_its_mean():
    text = mt50_page.section(load("metaworld"))
    table = [row.split(" | ") for row in text.split(mt50_page.END)[0].splitlines() if row.startswith("| ")][1:]
    means = [float(row[3].strip("*").split("*")[0]) for row in table]
    assert means == sorted(means)
    assert len(table) == len(mt50_page.OTHERS) + 1
    shares = [[float(share) for share in row[2].split("/")] for row in table if row[2].strip()]
    own = [mean for mean, row in zip(means, table, strict=True) if row[2].strip()]
    for mean, groups in zip(own, shares, strict=True):
        assert mean == pytest.approx(sum(groups) / 4, abs=0.11), "the mean of the four groups, also for the others"


def test_positions(device, tiny_preset, tmp_path):
    kinds = ("sine-cosine", "scaled", "learned-0.1")
    sizes = {"kinds": kinds, "seeds": 1, "steps": 2, "preset": tiny_preset, "device": device}
    report = done(positions, positions.Args(**sizes, data=DATA, out=tmp_path / "p.json"))
    assert_same_form(report, "positions", "kinds/scaled", "kinds/learned-0.1/direction_accuracy")
    assert "| learned-0.1 |" in positions.section(report)


def test_reading(tmp_path):
    """From video to the cache to the policy, in little memory."""
    sizes = {"frames": 20, "episode": 8, "height": 32, "width": 48, "many_frames": 64, "image_size": 32}
    few = {"codecs": ("h264",), "repeats": 1, "batch_size": 4, "steps": 1}
    report = done(reading, reading.Args(**sizes, **few, out=tmp_path / "reading.json"))
    assert report["decode"]["h264"]["frames"] == 40
    assert report["decode"]["h264"]["frames_per_second"]["median"] > 0
    assert set(report["train"]["milliseconds"]) == {"file", "arrays"}
    assert 0 < report["memory"]["megabytes"] < 1_024 * report["memory"]["limit_gigabytes"]
    assert "32 x 32" in reading.section(report)


def small_minilm(folder: Path) -> Path:
    """A tower of MiniLM's class, small and untrained, with the tokenizer that it has; and EfficientNet's shape."""
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(**shape)).save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)
    save_file(EfficientNetVision(pretrained=False).state_dict(), folder / "efficientnet.safetensors")
    return folder


def test_words(tiny_preset, tmp_path, monkeypatch):
    """All studies, with all towers, on few scenes."""
    monkeypatch.setattr(words, "FLOOR_SCENES", 60)
    sizes = {"num_train": 16, "few": (8,), "batch_size": 4, "num_test": 4, "num_names": 24, "seeds": 2, "few_seeds": 2}
    steps = {"steps": 1, "short_steps": 1, "preset": tiny_preset}
    args = words.Args(**sizes, **steps, weights=small_minilm(tmp_path / "minilm"), out=tmp_path / "words.json")
    report = done(words, args)
    assert list(report["towers"]) == list(words.TOWERS)
    assert {row["vision"] for row in report["vision"]} == {"efficientnet", "random-efficientnet"}
    assert [row["names"] for row in report["names"] if row["tower"] == "lora"] == [0, 1, 2, 3]
    moved = {(row["tower"], row["times"]): row["cosine_with_before"]["mean"] for row in report["six_words"]}
    assert moved["frozen", 1] > 0.9999
    assert moved["learned", 10] < moved["learned", 1] < 0.99999
    assert "| new relations |" in words_page.section(report)
    assert "| frozen |" in words_page.six_words_section(report)
