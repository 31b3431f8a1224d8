"""Who stops on the named block? Expert, chance, stills, cloning, DAgger. Writes `results/closed_loop.json`.

    python experiments/closed_loop.py --device cpu

All are judged on the same test episodes, from seeds that nobody is trained on:
- expert: knows where the block is; random: actions drawn evenly;
- stills: the notebooks' policy, trained on BlockFind's first views and their unit arrows, never on a moving camera;
- dagger: starts from a few of the expert's episodes, then learns from the states that it visits itself;
- cloning: the same few episodes of the expert, trained for at least as many steps as DAgger, seed by seed;
- cloning_more: at least as many states as DAgger in the end, all of the expert's own, and at least as many steps.
  It tells what DAgger's states are worth from what more states are worth.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness
from harness import Job, Row, groups, main, read_json, spreads, write_json
from page import grid, prose, section_of, source, within

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.dagger import dagger
from tinyvla.act.rollout import expert, random_policy, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import model_config
from tinyvla.course.zoo import trained_policy
from tinyvla.recipes import TrainConfig

RESULTS = ("closed_loop", "closed_loop_checkpoints", "closed_loop_chunks", "closed_loop_chunks_longer")
METRICS = ("success", "reached", "ended_on_another_block", "path_ratio", "mean_steps", "mean_final_distance")
LEARNING_RATE = 1e-3
UNTRAINED = ("expert", "random", "stills")
"""These are not trained here."""


@dataclass(frozen=True)
class Args(harness.Args):
    """Measure all of them."""

    seeds: int = 3
    rounds: int = 2
    """DAgger's, after its round of cloning."""
    episodes: int = 100
    """New ones in each of DAgger's rounds."""
    epochs: int = 4
    """Passes over all states, in each of DAgger's rounds."""
    num_test: int = 500
    preset: str = "nano"
    out: Path = Path("results/closed_loop.json")


def jobs(args: Args) -> list[Job]:
    seeds = range(args.seeds)
    taught = [Job({"who": "dagger"}, seed) for seed in seeds]
    cloned = [Job({"who": who}, job.seed, after=(job.name,)) for who in ("cloning", "cloning_more") for job in taught]
    return [*(Job({"who": who}) for who in UNTRAINED), *taught, *cloned]


def run(job: Job, args: Args) -> Row:
    who = job.what["who"]
    if who in UNTRAINED:
        return judge_untrained(who, args)
    note = args.folder / f"dagger_{job.seed}.json"
    if who == "dagger":
        taught = teach(job.seed, args.rounds, args.episodes, args.epochs, args)
        write_json(note, taught)
        return taught
    episodes, epochs = enough_for(read_json(note), more=who == "cloning_more")
    return teach(job.seed, 0, episodes, epochs, args)


def judge_untrained(who: str, args: Args) -> Row:
    """Success of somebody who learns nothing here."""
    act: Any = expert if who == "expert" else random_policy()
    if who == "stills":
        act = trained_policy(args.preset, device=args.device)
    return rollout(act, BlockWorld(episode_seeds(args.num_test, args.data.test_seed))).to_dict()


def teach(seed: int, rounds: int, episodes: int, epochs: int, args: Args) -> Row:
    """One run of DAgger, or of cloning where `rounds` is 0."""
    started = time.perf_counter()
    settings = TrainConfig(epochs=epochs, learning_rate=LEARNING_RATE, seed=seed)
    # Other episodes for each seed, never those of validation and test.
    options: dict[str, Any] = {"data": replace(args.data, train_seed=1_000 + seed), "num_test": args.num_test}
    _, records = dagger(model_config(args.preset), rounds, episodes, settings, device=args.where, **options)
    return {"episodes": episodes, "epochs": epochs, "seconds": time.perf_counter() - started, "rounds": records}


def enough_for(taught: Row, more: bool) -> tuple[int, int]:
    """Episodes and epochs of cloning with at least DAgger's steps and, for `more`, with at least its states."""
    first, last = taught["rounds"][0], taught["rounds"][-1]
    states_per_episode = first["num_states"] / taught["episodes"]
    # 5 % more episodes than the average asks for, so that chance does not leave cloning with fewer states.
    episodes = math.ceil(1.05 * last["num_states"] / states_per_episode) if more else taught["episodes"]
    batches = TrainConfig().steps_per_epoch(math.ceil(episodes * states_per_episode))
    return episodes, math.ceil(last["train_steps"] / batches)


def summary(rows: list[Row], args: Args) -> Row:
    policies = {}
    for (who,), found in groups(rows, "who").items():
        runs = [{name: value for name, value in row.items() if name != "who"} for row in found]
        policies[who] = runs[0] if who in UNTRAINED else over_seeds(runs)
    settings = {**args.settings("rounds", "episodes", "epochs"), "learning_rate": LEARNING_RATE}
    about = {"world": asdict(WorldConfig()), "dagger_settings": settings}
    return {**args.settings("preset", "seeds", "num_test"), **about, "policies": policies}


def over_seeds(runs: list[Row]) -> Row:
    """Spread of each metric over the seeds, after the last round.

    Each run's own record has its Wilson interval. Pooling them would count the same test episodes once for each seed.
    """
    last = [run["rounds"][-1] for run in runs]
    return {**spreads(last, METRICS), "num_episodes": last[0]["num_episodes"], "runs": runs}


POLICIES = {
    "expert": "the scripted expert",
    "random": "random actions",
    "stills": "trained on single pictures",
    "cloning": "cloning, few episodes",
    "dagger": "DAgger, from the same few episodes",
    "cloning_more": "cloning, at least as many states as DAgger",
}


def section(loop: Row, *more: Row) -> str:
    """Its own figures, and the commands of the two other measurements of this task."""
    policies, rows = loop["policies"], []
    for key, name in POLICIES.items():
        row = policies[key]
        if "runs" in row:
            success, ratio = row["success"], row["path_ratio"]["median"]
            middle, low, high = success["median"], success["min"], success["max"]
        else:
            (low, high), middle, ratio = row["success_interval"], row["success"], row["path_ratio"]
        rows.append((name, within(middle, low, high), f"{ratio:.3f}"))
    about = f"""The camera must stop on the named block, in {loop["num_test"]} episodes that nobody was trained on.
        In brackets: for one policy its 95 % interval, for {loop["seeds"]} seeds the range of their successes. Path
        ratio: success times the expert's path over the longer one. Cloning and DAgger begin with the same
        {loop["dagger_settings"]["episodes"]} episodes of the expert; cloning takes at least as many training steps."""
    is_cure = policies["cloning_more"]["success"]["median"] >= policies["dagger"]["success"]["median"]
    cure = """Given at least as many states of the expert's own, cloning does no worse than DAgger: more data is another
        cure."""
    chapter = """[Chapter 8](../notebooks/08_closed_loop.ipynb) shows two more measurements of this task: how success
        follows the offline error from checkpoint to checkpoint, and what chunks do to it."""
    return section_of(
        "Closed loop",
        prose(about),
        grid("policy | success | path ratio", rows),
        prose(cure) if is_cure else "",
        prose(chapter),
        source(loop, *more),
    )


if __name__ == "__main__":
    main(Args, jobs, run, summary)
