"""Who stops on the named block? Expert, chance, stills, cloning, DAgger. Writes `results/closed_loop.json`.

    python scripts/measure_closed_loop.py --device cpu

All are judged on the same test episodes, from seeds that nobody is trained on:
- expert: knows where the block is; random: actions drawn evenly;
- stills: the notebooks' policy, trained on BlockFind's first views and their unit arrows, never on a moving camera;
- dagger: starts from a few of the expert's episodes, then learns from the states that it visits itself;
- cloning: the same few episodes of the expert, trained for at least as many steps as DAgger, seed by seed;
- cloning_more: at least as many states as DAgger in the end, all of the expert's own, and at least as many steps.
  It tells what DAgger's states are worth from what more states are worth.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tinyvla.measure.bench import describe_device, spread
from tinyvla.config import DataConfig, TrainConfig, model_config
from tinyvla.act.rollout import dagger, expert, policy_act, random_policy, rollout
from tinyvla.learn.train import choose_device
from tinyvla.act.block_world import WorldConfig, episode_seeds
from tinyvla.course.zoo import trained_policy

METRICS = (
    "success",
    "reached",
    "ended_on_another_block",
    "path_ratio",
    "mean_steps",
    "mean_final_distance",
)


def train(
    preset: str, seed: int, device: str, rounds: int, episodes: int, epochs: int, num_test: int
) -> dict[str, Any]:
    """One run of DAgger, or of cloning where `rounds` is 0."""
    started = time.perf_counter()
    settings = replace(TrainConfig(), epochs=epochs, learning_rate=1e-3, seed=seed)
    data = DataConfig(train_seed=1_000 + seed)  # other episodes for each seed, never those of validation and test
    _, records = dagger(
        model_config(preset), rounds, episodes, settings, data=data, num_test=num_test, device=choose_device(device)
    )
    seconds = time.perf_counter() - started
    return {"seed": seed, "episodes": episodes, "epochs": epochs, "seconds": seconds, "rounds": records}


def cloning_like(taught: dict[str, Any], preset: str, device: str, num_test: int, more: bool) -> dict[str, Any]:
    """Cloning with DAgger's steps at least, on its first episodes or, for `more`, on as many states as it had."""
    first, last = taught["rounds"][0], taught["rounds"][-1]
    states_per_episode = first["num_states"] / taught["episodes"]
    # 5 % more episodes than the average asks for, so that chance does not leave cloning with fewer states.
    episodes = math.ceil(1.05 * last["num_states"] / states_per_episode) if more else taught["episodes"]
    batches = math.ceil(episodes * states_per_episode / 64)
    epochs = math.ceil(last["train_steps"] / batches)
    return train(preset, taught["seed"], device, 0, episodes, epochs, num_test)


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of each metric over the seeds, after the last round.

    Each run's own record has its Wilson interval. Pooling them would count the same test episodes once for each seed.
    """
    last = [run["rounds"][-1] for run in runs]
    rows = {name: spread([row[name] for row in last]) for name in METRICS}
    return {**rows, "num_episodes": last[0]["num_episodes"], "runs": runs}


def main(
    device: str = "cpu",
    seeds: int = 3,
    rounds: int = 2,
    episodes: int = 100,
    epochs: int = 4,
    num_test: int = 500,
    preset: str = "nano",
    threads: int | None = None,
    out: Path = Path("results/closed_loop.json"),
) -> None:
    """Measure all of them.

    Args:
        rounds: DAgger's, after its round of cloning.
        episodes: new ones in each of DAgger's rounds.
        epochs: passes over all states, in each of DAgger's rounds.
        threads: CPU threads; as many as torch chooses unless told. On a shared machine, 1 can be the fastest.
    """
    where = choose_device(device)
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    test = episode_seeds(num_test, DataConfig().test_seed)
    stills = trained_policy(preset, device=device, progress_bar=False)
    acts = {"expert": expert, "random": random_policy(), "stills": policy_act(stills)}
    who: dict[str, Any] = {name: rollout(act, test).to_dict() for name, act in acts.items()}
    taught = [train(preset, seed, device, rounds, episodes, epochs, num_test) for seed in range(seeds)]
    for name, more in (("cloning", False), ("cloning_more", True)):
        who[name] = over_seeds([cloning_like(run, preset, device, num_test, more) for run in taught])
    who["dagger"] = over_seeds(taught)
    report = {
        "command": f"python scripts/measure_closed_loop.py --device {device}"
        + (f" --threads {threads}" if threads else ""),
        "machine": describe_device(where),
        "seconds": time.perf_counter() - started,
        "preset": preset,
        "world": asdict(WorldConfig()),
        "dagger_settings": {"rounds": rounds, "episodes": episodes, "epochs": epochs, "learning_rate": 1e-3},
        "seeds": seeds,
        "num_test": num_test,
        "policies": who,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{report['seconds']:.0f} s; wrote {out}")
    for name, row in who.items():
        print(name, {k: v for k, v in row.items() if k in METRICS})


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
