"""Teach the arm to reach and to pick up blocks, and judge it. Writes `results/arm.json`.

    python scripts/measure_arm.py --device cuda --workers 16

Every kind of policy learns both tasks from one set of demonstrations: the verb says which one is meant. It clones the
disturbed expert (round 0); in each later round it acts itself, the expert labels what it came to, and it learns from
all states so far (DAgger). Then it is judged on the same fixed episodes as the expert and as random actions. In the
swap, the scenes are the same and another block is named. Demonstrations and episodes are spread over processes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from tinyvla.arm.control import load_mujoco
from tinyvla.arm.expert import TASKS
from tinyvla.arm.film import film_strip
from tinyvla.arm.rollout import ArmResult, ArmStates, arm_config, arm_expert, random_arm, rollout
from tinyvla.arm.world import ArmConfig
from tinyvla.batching import TensorSplit
from tinyvla.bench import describe_device
from tinyvla.config import DataConfig, ModelConfig, TrainConfig
from tinyvla.evaluate import wilson_interval
from tinyvla.model import TinyVLA
from tinyvla.rollout import policy_act
from tinyvla.speed import StepOptions
from tinyvla.train import fit, new_policy
from tinyvla.world import episode_seeds

DATA = DataConfig()
NOISE = 0.4
"""Standard deviation of what disturbs the expert, unless a kind names another."""
Settings = dict[str, Any]


def parts_of(kind: str) -> tuple[str, str, int, str, float]:
    """Preset, fusion, patch size, optimizer and the demonstrations' noise of a kind."""
    preset, fusion, patch, optimizer, *rest = kind.split("/")
    return preset, fusion, int(patch), optimizer, float(rest[0]) if rest else NOISE


def config_of(kind: str, settings: Settings) -> ModelConfig:
    preset, fusion, patch, *_ = parts_of(kind)
    config = arm_config(preset, settings["horizon"], settings["image_size"])
    vision = replace(config.vision, patch_size=patch)
    return replace(config, fusion=replace(config.fusion, kind=fusion), vision=vision)


def act_of(who: str) -> Any:
    if who == "expert":
        return arm_expert
    return random_arm() if who == "random" else policy_act(TinyVLA.from_pretrained(who))


def run_episodes(job: tuple[str, list[int], list[str], dict[str, Any]]) -> ArmResult:
    """Some episodes, in a process of the pool."""
    who, seeds, tasks, options = job
    torch.set_num_threads(1)
    return rollout(act_of(who), seeds, tasks, **options)


def spread_episodes(pool: Any, who: str, seeds: list[int], tasks: list[str], parts: int, **options: Any) -> ArmResult:
    """The same episodes in the same order, however many processes there are."""
    cuts = np.array_split(np.arange(len(seeds)), min(parts, len(seeds)))
    jobs = [(who, [seeds[i] for i in cut], [tasks[i] for i in cut], options) for cut in cuts]
    return ArmResult.joined(list(pool.imap(run_episodes, jobs, chunksize=1)))


def train_one(job: tuple[str, int, Settings, str, str]) -> dict[str, Any]:
    """One round of one policy: from new weights, or on from the last round's."""
    kind, number, settings, states, folder = job
    torch.set_num_threads(settings["threads"])
    device = torch.device(settings["device"])
    parts = torch.load(states, weights_only=False)
    train, val = (TensorSplit(*(tensor.to(device) for tensor in part)) for part in parts)
    if number == 0:
        policy = new_policy(config_of(kind, settings), 0, device)
        policy.fit_statistics(train.actions)
    else:
        policy = TinyVLA.from_pretrained(folder, device=str(device))
    per_epoch = max(1, len(train) // settings["batch_size"])
    steps = settings["steps"] if number == 0 else settings["later_steps"]
    optimizer = parts_of(kind)[3]
    config = TrainConfig(
        epochs=max(1, round(steps / per_epoch)),
        optimizer=optimizer,
        learning_rate=settings["learning_rates"][optimizer],
        batch_size=settings["batch_size"],
        seed=number,
    )
    started = time.perf_counter()
    options = StepOptions.for_device(device)
    said = lambda r: print(f"  {kind} {r['step']:6} {r['train_loss']:.3f} {r['val_loss']:.3f}", flush=True)  # noqa: E731
    records = fit(policy, train, val, config, progress_bar=False, options=options, on_epoch=said)
    policy.save_pretrained(folder)
    last = records[-1]
    kept = {name: last[name] for name in ("step", "train_loss", "val_loss")}
    return {**kept, "seconds": time.perf_counter() - started, "parameters": policy.num_parameters()["total"]}


def save_states(path: Path, *parts: ArmStates) -> None:
    """As tensors that a training process reads."""
    splits = [part.tensors() for part in parts]
    torch.save([(s.images, s.input_ids, s.attention_mask, s.actions) for s in splits], path)


def judged(pool: Any, who: str, settings: Settings, executes: tuple[int, ...]) -> dict[str, Any]:
    """Both tasks on the fixed test episodes, with every execution horizon, and the swap with the first."""
    seeds = episode_seeds(settings["num_test"], DATA.test_seed)
    world, parts = ArmConfig(image_size=settings["image_size"]), settings["parts"]
    said: dict[str, Any] = {}
    for task in TASKS:
        tasks = [task] * len(seeds)
        runs = {e: spread_episodes(pool, who, seeds, tasks, parts, config=world, execute=e) for e in executes}
        first = runs[executes[0]]
        said[task] = {**first.to_dict(), "by_execute": {str(e): run.to_dict() for e, run in runs.items()}}
        kept = [i for i, success in enumerate(first.success) if success]
        if who not in ("expert", "random") and kept:
            options = {"config": world, "execute": executes[0], "named": 1}
            chosen = [seeds[i] for i in kept]
            swap = spread_episodes(pool, who, chosen, [task] * len(kept), parts, **options)
            followed = float((swap.went_to == 1).mean())
            said[task]["swap"] = {
                "went_to_the_other": followed,
                "interval": wilson_interval(followed, len(kept)),
                "success": swap.success_rate,
                "num_scenes": len(kept),
            }
    return said


def collect(pool: Any, who: str, seeds: list[int], settings: Settings, **options: Any) -> ArmResult:
    """Episodes of both tasks in turn, with every visited state recorded."""
    tasks = [TASKS[i % 2] for i in range(len(seeds))]
    world = ArmConfig(image_size=settings["image_size"], max_steps=settings["recorded_steps"])
    parts = 4 * settings["parts"]
    return spread_episodes(pool, who, seeds, tasks, parts, config=world, horizon=settings["horizon"], **options)


def main(
    device: str = "cpu",
    workers: int = 2,
    kinds: tuple[str, ...] = ("nano/cross-attention/8/muon",),
    episodes: int = 3_000,
    rounds: int = 1,
    later_episodes: int = 1_500,
    steps: int = 8_000,
    later_steps: int = 6_000,
    batch_size: int = 128,
    adamw_rate: float = 1e-3,
    muon_rate: float = 6e-3,
    horizon: int = 8,
    executes: tuple[int, ...] = (4, 1, 2, 8),
    image_size: int = 64,
    recorded_steps: int = 30,
    num_test: int = 200,
    out: Path = Path("results/arm.json"),
    checkpoint: Path = Path("checkpoints/arm"),
    film: Path = Path("book/images/arm.png"),
) -> None:
    """Demonstrate, train, judge.

    Args:
        kinds: policies to train, as preset/fusion/patch size/optimizer/noise; the first has later rounds and is filmed.
        episodes: of the disturbed expert, half of each task.
        rounds: of DAgger after the cloning.
        later_episodes: that the policy drives in each of those rounds.
        executes: actions done before the policy looks again; the first is the main one.
        adamw_rate: learning rate of that optimizer; `muon_rate` of the other.
        recorded_steps: at most, of one recorded episode.
    """
    settings: Settings = {
        "device": device,
        "kinds": kinds,
        "episodes": episodes,
        "rounds": rounds,
        "later_episodes": later_episodes,
        "steps": steps,
        "later_steps": later_steps,
        "batch_size": batch_size,
        "learning_rates": {"adamw": adamw_rate, "muon": muon_rate},
        "horizon": horizon,
        "image_size": image_size,
        "recorded_steps": recorded_steps,
        "num_test": num_test,
    }
    run: Settings = {**settings, "parts": workers, "threads": 1}
    started = time.perf_counter()
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": {**describe_device(torch.device(device)), "mujoco": load_mujoco().__version__, "workers": workers},
        **settings,
    }

    def note(text: str) -> None:
        """Say it, and keep what is known so far."""
        report["seconds"] = time.perf_counter() - started
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{report['seconds']:6.0f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp())
    train_seeds = episode_seeds(episodes + rounds * later_episodes, DATA.train_seed)
    with mp.get_context("spawn").Pool(workers) as pool:
        shown: dict[float, ArmStates] = {}
        report["demonstrations"] = {}
        for noise in dict.fromkeys(parts_of(kind)[-1] for kind in kinds):
            made = collect(pool, "expert", train_seeds[:episodes], run, noise=noise)
            assert made.states is not None
            shown[noise] = made.states
            report["demonstrations"][str(noise)] = {**made.to_dict(), "num_states": len(made.states)}
            note(f"{len(made.states)} states of {episodes} demonstrations, noise {noise}")
        val = collect(pool, "expert", episode_seeds(60, DATA.val_seed), run, noise=NOISE).states
        assert val is not None
        report["expert"] = judged(pool, "expert", run, (1,))
        report["random"] = judged(pool, "random", run, (1,))
        note(f"expert {report['expert']['reach']['success']:.3f} {report['expert']['pick']['success']:.3f}")
        report["policies"] = {kind: {"rounds": []} for kind in kinds}
        states = {kind: shown[parts_of(kind)[-1]] for kind in kinds}
        for number in range(rounds + 1):
            jobs, trained = [], kinds if number == 0 else kinds[:1]
            for i, kind in enumerate(trained):
                path = folder / f"states{i}.pt"
                save_states(path, states[kind], val)
                jobs.append((kind, number, run, str(path), str(folder / f"policy{i}")))
            for kind, record in zip(trained, pool.map(train_one, jobs, chunksize=1), strict=True):
                report["policies"][kind]["rounds"].append({**record, "num_states": len(states[kind])})
            note(f"round {number} trained")
            for i, kind in enumerate(trained):
                is_final = number == rounds or i > 0
                said = judged(pool, str(folder / f"policy{i}"), run, executes if number == rounds else executes[:1])
                report["policies"][kind]["rounds"][-1].update(said)
                note(f"{kind} round {number}: " + ", ".join(told(said, task) for task in TASKS))
                if not is_final:
                    begin = episodes + number * later_episodes
                    driven = train_seeds[begin : begin + later_episodes]
                    new = collect(pool, str(folder / "policy0"), driven, run, execute=executes[0]).states
                    assert new is not None
                    states[kind] = ArmStates.joined([states[kind], new])
        report["judged"] = report["policies"][kinds[0]]["rounds"][-1]
    policy = TinyVLA.from_pretrained(folder / "policy0")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "policy0", checkpoint, dirs_exist_ok=True)
    film.parent.mkdir(parents=True, exist_ok=True)
    rows = (("reach", 0), ("pick", 0), ("pick", 1))
    scenes = episode_seeds(10, DATA.test_seed)
    figure = film_strip(policy_act(policy), scenes, executes[0], image_size, rows=rows)
    figure.savefig(film, dpi=100)
    shutil.rmtree(folder)
    note(f"wrote {out}, {checkpoint} and {film}")


def told(said: dict[str, Any], task: str) -> str:
    """One task's outcome in a few words."""
    by = " ".join(f"{e}:{run['success']:.3f}" for e, run in said[task]["by_execute"].items())
    swap = said[task].get("swap", {}).get("went_to_the_other", 0.0)
    return f"{task} {by} (named {said[task]['went_to_named']:.3f}, swap {swap:.3f})"


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
