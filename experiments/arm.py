"""Teach the arm to reach and to pick up blocks, and judge it. Writes `results/arm.json`.

    python scripts/measure_arm.py --device cuda --workers 14 --muon-rate 3e-3

`results/arm_faster.json` is the same with twice that learning rate (6e-3, which was measured first), at which one
training of eight of the first kind does not learn the words.

Every kind of policy learns both tasks from one set of demonstrations: the verb says which one is meant. Then it is
judged on the same fixed episodes as the expert and as random actions. In the swap, the scenes are the same and another
block is named. The first kind is the one that counts; the others learn from an expert that nothing disturbs (whose
episodes are shorter, so they hold fewer states), or get no words. Each kind is trained with several seeds, which
change its first weights and the order of the batches and not the demonstrations; the first seed is judged in detail,
alone on the device while it is trained if its kind is the first. Demonstrations and episodes are spread over
processes.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from tinyvla.act.arm.control import load_mujoco
from tinyvla.act.arm.expert import TASKS
from tinyvla.show.arm_filmstrip import film_strip
from tinyvla.act.arm.rollout import ArmResult, ArmStates, arm_config, arm_expert, random_arm, rollout
from tinyvla.act.arm.world import ArmConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.measure.bench import describe_device, recorded_command, spread
from tinyvla.config import DataConfig, ModelConfig, TrainConfig
from tinyvla.learn.evaluate import wilson_interval
from tinyvla.model.policy import TinyVLA
from tinyvla.act.rollout import policy_act
from tinyvla.speed.recorded import StepOptions
from tinyvla.learn.train import fit, new_policy
from tinyvla.act.block_world import episode_seeds

DATA = DataConfig()
NOISE = 0.4
"""Standard deviation of what disturbs the expert of the validation states."""
KINDS = (
    "nano/cross-attention/8/muon/0.4",
    "nano/cross-attention/8/muon/0.0",
    "nano/vision-only/8/muon/0.4",
)
Settings = dict[str, Any]


def parts_of(kind: str) -> tuple[str, str, int, str, float]:
    """Preset, fusion, patch size, optimizer and the demonstrations' noise of a kind."""
    preset, fusion, patch, optimizer, noise = kind.split("/")
    return preset, fusion, int(patch), optimizer, float(noise)


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
    """One policy, in a process of the pool."""
    kind, seed, settings, states, folder = job
    torch.set_num_threads(settings["threads"])
    device = torch.device(settings["device"])
    parts = torch.load(states, weights_only=False)
    train, val = (TensorSplit(*(tensor.to(device) for tensor in part)) for part in parts)
    policy = new_policy(config_of(kind, settings), seed, device)
    policy.fit_statistics(train.actions)
    per_epoch = math.ceil(len(train) / settings["batch_size"])
    optimizer = parts_of(kind)[3]
    config = TrainConfig(
        epochs=max(1, round(settings["steps"] / per_epoch)),
        optimizer=optimizer,
        learning_rate=settings["learning_rates"][optimizer],
        batch_size=settings["batch_size"],
        seed=seed,
    )
    started = time.perf_counter()
    options = StepOptions.for_device(device)
    said = lambda r: print(f"  {kind} {seed} {r['step']:6} {r['train_loss']:.3f} {r['val_loss']:.3f}", flush=True)  # noqa: E731
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
    kinds: tuple[str, ...] = KINDS,
    seeds: int = 8,
    episodes: int = 3_000,
    steps: int = 6_000,
    batch_size: int = 128,
    adamw_rate: float = 1e-3,
    muon_rate: float = 6e-3,
    horizon: int = 8,
    executes: tuple[int, ...] = (4, 8, 2),
    image_size: int = 64,
    recorded_steps: int = 30,
    num_test: int = 200,
    out: Path = Path("results/arm.json"),
    checkpoint: Path = Path("checkpoints/arm"),
    film: Path = Path("book/images/arm.png"),
) -> None:
    """Demonstrate, train, judge.

    Args:
        kinds: policies to train, as preset/fusion/patch size/optimizer/noise; the first is the main one.
        seeds: trainings of each kind.
        episodes: of the expert, half of each task.
        executes: actions done before the policy looks again; the first is the main one.
        adamw_rate: learning rate of that optimizer; `muon_rate` of the other.
        recorded_steps: at most, of one recorded episode.
        checkpoint: where the main policy is kept; `film`, where it is shown.
    """
    settings: Settings = {
        "device": device,
        "kinds": kinds,
        "seeds": seeds,
        "episodes": episodes,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rates": {"adamw": adamw_rate, "muon": muon_rate},
        "horizon": horizon,
        "executes": executes,
        "image_size": image_size,
        "recorded_steps": recorded_steps,
        "num_test": num_test,
    }
    run: Settings = {**settings, "parts": workers, "threads": 1}
    started = time.perf_counter()
    report: dict[str, Any] = {
        "command": recorded_command(("--out", "--checkpoint", "--film")),
        "machine": {**describe_device(torch.device(device)), "mujoco": load_mujoco().__version__, "workers": workers},
        **settings,
        "demonstrations": {},
        "policies": {},
        "runs": [],
    }

    def note(text: str) -> None:
        """Say it, and keep what is known so far."""
        report["seconds"] = time.perf_counter() - started
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{report['seconds']:6.0f} s  {text}", flush=True)

    def shown(noise: float) -> ArmStates:
        """Demonstrations with that noise."""
        made = collect(pool, "expert", episode_seeds(episodes, DATA.train_seed), run, noise=noise)
        assert made.states is not None
        report["demonstrations"][str(noise)] = {**made.to_dict(), "num_states": len(made.states)}
        note(f"{len(made.states)} states of {episodes} demonstrations, noise {noise}")
        return made.states

    def begun(kind: str, seed: int) -> Any:
        """Training that goes on by itself."""
        states = folder / f"states_{parts_of(kind)[-1]}.pt"
        return pool.apply_async(train_one, ((kind, seed, run, str(states), str(policy_folder(kind, seed))),))

    def policy_folder(kind: str, seed: int) -> Path:
        return folder / f"policy_{kinds.index(kind)}_{seed}"

    def judge(kind: str, seed: int, training: Any) -> None:
        """Keep what became of it."""
        chosen = executes if (kind, seed) == (kinds[0], 0) else executes[:1]
        said = {**training.get(), **judged(pool, str(policy_folder(kind, seed)), run, chosen)}
        if seed == 0:
            report["policies"][kind] = said
        report["runs"].append({"kind": kind, "seed": seed, **outcome(said)})
        note(f"{kind} {seed}: " + ", ".join(told(said, task) for task in TASKS))

    folder = Path(tempfile.mkdtemp())
    with mp.get_context("spawn").Pool(workers) as pool:
        val = collect(pool, "expert", episode_seeds(60, DATA.val_seed), run, noise=NOISE).states
        assert val is not None
        main_noise = parts_of(kinds[0])[-1]
        save_states(folder / f"states_{main_noise}.pt", shown(main_noise), val)
        main_training = begun(kinds[0], 0)
        # What the other processes do while the first policy is trained.
        report["expert"], report["random"] = (judged(pool, who, run, (1,)) for who in ("expert", "random"))
        note(f"expert {report['expert']['reach']['success']:.3f} {report['expert']['pick']['success']:.3f}")
        for noise in {parts_of(kind)[-1] for kind in kinds} - {main_noise}:
            save_states(folder / f"states_{noise}.pt", shown(noise), val)
        main_training.wait()
        note(f"{kinds[0]} is trained")
        jobs = [(kind, seed) for seed in range(seeds) for kind in kinds if (kind, seed) != (kinds[0], 0)]
        others = {job: begun(*job) for job in jobs}
        judge(kinds[0], 0, main_training)
        first = policy_folder(kinds[0], 0)
        shutil.copytree(first, checkpoint, dirs_exist_ok=True)
        save_film(first, film, executes[0], image_size)
        note(f"wrote {checkpoint} and {film}")
        for (kind, seed), training in others.items():
            training.wait()
            judge(kind, seed, training)
    shutil.rmtree(folder)
    report["spread"] = {kind: spread_of([r for r in report["runs"] if r["kind"] == kind]) for kind in kinds}
    note(f"wrote {out}")


def outcome(said: dict[str, Any]) -> dict[str, float]:
    """Success and swap of both tasks in four numbers; a swap counts as 0 where no scene was solved."""
    swaps = {f"{task}_swap": said[task].get("swap", {}).get("went_to_the_other", 0.0) for task in TASKS}
    return {task: said[task]["success"] for task in TASKS} | swaps


def spread_of(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Over the seeds of one kind."""
    return {name: spread([run[name] for run in runs]) for name in runs[0] if name not in ("kind", "seed")}


def save_film(policy: Path, path: Path, execute: int, image_size: int) -> None:
    """One scene under three instructions."""
    rows = (("reach", 0), ("pick", 0), ("pick", 1))
    scenes = episode_seeds(10, DATA.test_seed)
    figure = film_strip(policy_act(TinyVLA.from_pretrained(policy)), scenes, execute, image_size, rows=rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def told(said: dict[str, Any], task: str) -> str:
    """One task's outcome in a few words."""
    by = " ".join(f"{e}:{run['success']:.3f}" for e, run in said[task]["by_execute"].items())
    swap = said[task].get("swap", {}).get("went_to_the_other", 0.0)
    return f"{task} {by} (named {said[task]['went_to_named']:.3f}, swap {swap:.3f})"


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
