"""Teach the arm to reach and to pick up blocks, and judge it. Writes `results/arm.json`.

    python experiments/arm.py --device cuda --workers 14 --muon-rate 3e-3

`results/arm_faster.json` is the same with twice that learning rate (6e-3, which was measured first), at which one
training of eight of the first kind does not learn the words.

Every kind of policy learns both tasks from one set of demonstrations: the verb says which one is meant. Then it is
judged on the same fixed episodes as the expert and as random actions. In the swap, the scenes are the same and another
block is named. The first kind is the one that counts; the others learn from an expert that nothing disturbs (whose
episodes are shorter, so they hold fewer states), or get no words. Each kind is trained with several seeds, which
change its first weights and the order of the batches and not the demonstrations. The first training of the first kind
is alone on the machine, since its time is shown, and is judged in detail.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
import torch
from harness import Job, Row, groups, main, spreads
from page import Results, bare, grid, listed, prose, section_of, source, span, within
from training import train

from tinyvla.act.arm.expert import TASKS, disturbance
from tinyvla.act.arm.kinematics import load_mujoco
from tinyvla.act.arm.policy import arm_config
from tinyvla.act.arm.world import ACTION_DIM, ArmConfig, ArmWorld
from tinyvla.act.result import Result, States
from tinyvla.act.rollout import expert, random_policy, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import ModelConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.device import describe_device
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.show.filmstrip import Film, film, film_rows, first_success
from tinyvla.stats import wilson_interval

RESULTS = ("arm", "arm_faster")
NOISE = "0.4"
"""Standard deviation of what disturbs the expert of the validation states."""
VAL_EPISODES = 60
EPISODES_OF_A_JOB = 50
KINDS = (
    "nano/cross-attention/8/muon/0.4",
    "nano/cross-attention/8/muon/0.0",
    "nano/vision-only/8/muon/0.4",
)
UNTRAINED = ("expert", "random")


@dataclass(frozen=True)
class Kind:
    """What is trained, read from a text such as "nano/cross-attention/8/muon/0.4"."""

    preset: str
    fusion: str
    patch_size: int
    optimizer: str
    noise: str
    """Of the demonstrations."""

    @staticmethod
    def of(text: str) -> Kind:
        """Read the text."""
        preset, fusion, patch_size, optimizer, noise = text.split("/")
        return Kind(preset, fusion, int(patch_size), optimizer, noise)


@dataclass(frozen=True)
class Args(harness.Args):
    """Demonstrate, train, judge."""

    workers: int = 2
    kinds: tuple[str, ...] = KINDS
    """Policies to train, as preset/fusion/patch size/optimizer/noise; the first is the main one."""
    seeds: int = 8
    """Trainings of each kind."""
    episodes: int = 3_000
    """Of the expert, half of each task."""
    steps: int = 6_000
    batch_size: int = 128
    adamw_rate: float = 1e-3
    """Learning rate of that optimizer."""
    muon_rate: float = 6e-3
    """Learning rate of the other."""
    horizon: int = 8
    executes: tuple[int, ...] = (4, 8, 2)
    """Actions done before the policy looks again; the first is the main one."""
    image_size: int = 64
    recorded_steps: int = 30
    """At most, of one recorded episode."""
    num_test: int = 200
    out: Path = Path("results/arm.json")
    checkpoint: Path = Path("checkpoints/arm")
    """Where the main policy is kept."""
    film: Path = Path("book/images/arm.png")
    """Where the main policy is shown."""

    def policy_folder(self, kind: str, seed: int) -> Path:
        """Where a trained policy is kept until the end."""
        return self.folder / f"policy_{self.kinds.index(kind)}_{seed}"


def jobs(args: Args) -> list[Job]:
    """Demonstrations, those who need no training, the main training, all others; each is judged when it is trained."""
    noises = list(dict.fromkeys(Kind.of(kind).noise for kind in args.kinds))
    shown = {noise: demonstrations_of(noise, args) for noise in noises}
    val = Job({"study": "demonstrate", "noise": NOISE, "part": "val"})
    fixed = [Job({"study": "judge", "who": who, "task": task}) for who in UNTRAINED for task in TASKS]
    trainings, judgements = [], []
    for seed in range(args.seeds):
        for kind in args.kinds:
            after = tuple(job.name for job in [val, *shown[Kind.of(kind).noise]])
            is_main = (kind, seed) == (args.kinds[0], 0)
            trainings.append(Job({"study": "train", "who": kind}, seed, after, alone=is_main))
            done = (trainings[-1].name,)
            judgements += [Job({"study": "judge", "who": kind, "task": task}, seed, done) for task in TASKS]
    picture = Job({"study": "film"}, after=(trainings[0].name,))
    return [val, *(job for some in shown.values() for job in some), *fixed, *trainings, picture, *judgements]


def demonstrations_of(noise: str, args: Args) -> list[Job]:
    """The expert's episodes, a few in each job."""
    parts = range(-(-args.episodes // EPISODES_OF_A_JOB))
    return [Job({"study": "demonstrate", "noise": noise, "part": part}) for part in parts]


def run(job: Job, args: Args) -> Row:
    study = {"demonstrate": demonstrate, "train": train_one, "judge": judge, "film": show}
    return study[job.what["study"]](job, args)


def demonstrate(job: Job, args: Args) -> Row:
    """Some of the expert's episodes, of both tasks in turn; every visited state goes to a file."""
    part, noise = job.what["part"], job.what["noise"]
    if part == "val":
        seeds = episode_seeds(VAL_EPISODES, args.data.val_seed)
    else:
        seeds = episode_seeds(args.episodes, args.data.train_seed)[part * EPISODES_OF_A_JOB :][:EPISODES_OF_A_JOB]
    tasks = [TASKS[seed % 2] for seed in seeds]
    world = ArmWorld(seeds, tasks, ArmConfig(image_size=args.image_size, max_steps=args.recorded_steps))
    disturb = disturbance(float(noise)) if float(noise) else None
    result = rollout(expert, world, disturb=disturb, record=len(seeds), horizon=args.horizon)
    assert result.states is not None
    torch.save(result.states, args.folder / f"states_{noise}_{part}.pt")
    torch.save(replace(result, states=None), args.folder / f"result_{noise}_{part}.pt")
    return {"num_states": len(result.states)}


def states(noise: str, parts: list[Any], policy: TinyVLA, args: Args) -> TensorSplit:
    """Demonstrated states, for a policy to learn from."""
    paths = [args.folder / f"states_{noise}_{part}.pt" for part in parts]
    return States.joined([torch.load(path, weights_only=False) for path in paths]).tensors(policy)


def train_one(job: Job, args: Args) -> Row:
    """One policy; its weights go to a folder."""
    kind = Kind.of(job.what["who"])
    policy = new_policy(config_of(kind, args), job.seed, args.where)
    parts = [shown.what["part"] for shown in demonstrations_of(kind.noise, args)]
    split, val = states(kind.noise, parts, policy, args), states(NOISE, ["val"], policy, args)
    policy.fit_statistics(split.actions)
    rate = {"adamw": args.adamw_rate, "muon": args.muon_rate}[kind.optimizer]
    config = TrainConfig(optimizer=kind.optimizer, learning_rate=rate, batch_size=args.batch_size, seed=job.seed)
    config = replace(config, epochs=args.steps / config.steps_per_epoch(len(split)))
    trained = train(policy, split, val, config)
    policy.save_pretrained(args.policy_folder(job.what["who"], job.seed))
    kept = {name: trained.last[name] for name in ("step", "train_loss", "val_loss")}
    return {**kept, "seconds": trained.seconds, "parameters": policy.num_parameters()["total"]}


def config_of(kind: Kind, args: Args) -> ModelConfig:
    """The policy's configuration."""
    config = arm_config(kind.preset, args.horizon, args.image_size)
    vision = replace(config.vision, patch_size=kind.patch_size)
    return replace(config, fusion=replace(config.fusion, kind=kind.fusion), vision=vision)


def judge(job: Job, args: Args) -> Row:
    """One task on the fixed test episodes, with every execution horizon, and the swap with the first."""
    who, task = job.what["who"], job.what["task"]
    seeds, world = episode_seeds(args.num_test, args.data.test_seed), ArmConfig(image_size=args.image_size)
    act, executes = who_acts(who, job.seed, args), executes_of(who, job.seed, args)
    results = {execute: rollout(act, ArmWorld(seeds, task, world), execute) for execute in executes}
    first = results[executes[0]]
    found = {**first.to_dict(), "by_execute": {str(execute): r.to_dict() for execute, r in results.items()}}
    solved = [seed for seed, success in zip(seeds, first.success, strict=True) if success]
    if who not in UNTRAINED and solved:
        found["swap"] = followed(rollout(act, ArmWorld(solved, task, world, named=1), executes[0]))
    return {"found": found}


def who_acts(who: str, seed: int | None, args: Args) -> Any:
    if who == "expert":
        return expert
    if who == "random":
        return random_policy(action_dim=ACTION_DIM)
    return TinyVLA.from_pretrained(args.policy_folder(who, seed or 0), str(args.where))


def executes_of(who: str, seed: int | None, args: Args) -> tuple[int, ...]:
    """Actions done before the next look: all that are to be tried for the main policy, one for the others."""
    if who in UNTRAINED:
        return (1,)
    return args.executes if (who, seed) == (args.kinds[0], 0) else args.executes[:1]


def followed(swap: Result) -> Row:
    """In which share of the solved scenes the arm goes to another block when that one is named."""
    share = swap.summary["went_to_named"]
    return {
        "went_to_the_other": share,
        "interval": wilson_interval(share, len(swap)),
        "success": swap.success_rate,
        "num_scenes": len(swap),
    }


def show(job: Job, args: Args) -> Row:
    """Keep the main policy, and a picture of one scene under three instructions."""
    folder, rows = args.policy_folder(args.kinds[0], 0), (("reach", 0), ("pick", 0), ("pick", 1))
    shutil.copytree(folder, args.checkpoint, dirs_exist_ok=True)
    policy, world = TinyVLA.from_pretrained(folder), ArmConfig(image_size=args.image_size)

    def films(seed: int) -> list[Film]:
        return [film(policy, ArmWorld([seed], task, world, named), args.executes[0]) for task, named in rows]

    figure, _ = film_rows(first_success(films, episode_seeds(10, args.data.test_seed)))
    args.film.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.film, dpi=100)
    return {"path": str(args.film)}


def summary(rows: list[Row], args: Args) -> Row:
    studies = groups(rows, "study")
    judged = {key: found for key, found in groups(studies[("judge",)], "who").items()}
    untrained = {who: {row["task"]: row["found"] for row in judged.pop((who,))} for who in UNTRAINED}
    policies, runs = {}, []
    for row in studies[("train",)]:
        kind, seed = row["who"], row["seed"]
        tasks = {found["task"]: found["found"] for found in judged[(kind,)] if found["seed"] == seed}
        runs.append({"kind": kind, "seed": seed, **outcome(tasks)})
        if seed == 0:
            policies[kind] = {name: row[name] for name in row if name not in ("study", "who", "seed")} | tasks
    names = ("device", "kinds", "seeds", "episodes", "steps", "batch_size")
    more = ("horizon", "executes", "image_size", "recorded_steps", "num_test")
    return {
        "machine": machine(args),
        **args.settings(*names, *more),
        "learning_rates": {"adamw": args.adamw_rate, "muon": args.muon_rate},
        "demonstrations": demonstrated(studies[("demonstrate",)], args),
        **untrained,
        "policies": policies,
        "runs": runs,
        "spread": {kind: spreads(found, outcome_names()) for (kind,), found in groups(runs, "kind").items()},
    }


def machine(args: Args) -> Row:
    return {**describe_device(args.where), "mujoco": load_mujoco().__version__, "workers": args.workers}


def demonstrated(rows: list[Row], args: Args) -> Row:
    """How the expert's episodes went, for each noise."""
    found = {}
    for (noise,), parts in groups([row for row in rows if row["part"] != "val"], "noise").items():
        paths = [args.folder / f"result_{noise}_{row['part']}.pt" for row in parts]
        whole = Result.joined([torch.load(path, weights_only=False) for path in paths])
        found[noise] = {**whole.to_dict(), "num_states": sum(row["num_states"] for row in parts)}
    return found


def outcome_names() -> list[str]:
    return [*TASKS, *(f"{task}_swap" for task in TASKS)]


def outcome(tasks: Row) -> dict[str, float]:
    """Success and swap of both tasks in four numbers; a swap counts as 0 where no scene was solved."""
    swaps = [tasks[task].get("swap", {}).get("went_to_the_other", 0.0) for task in TASKS]
    return dict(zip(outcome_names(), [*(tasks[task]["success"] for task in TASKS), *swaps], strict=True))


def section(arm: Row, faster: Row) -> str:
    main_kind = arm["kinds"][0]
    noise = Kind.of(main_kind).noise
    rates = [results["learning_rates"]["muon"] for results in (arm, faster)]
    shown, undisturbed = (arm["demonstrations"][key]["num_states"] for key in (noise, "0.0"))
    preset, seconds = Kind.of(main_kind).preset, arm["policies"][main_kind]["seconds"]
    about = f"""`{preset}` with a flow head, both tasks in one policy, trained {arm["seeds"]} times on
        {arm["episodes"]:,} demonstrations ({shown:,} states) of an expert whose actions are disturbed by noise of
        {noise}; the first training took {seconds:.0f} s. Below it, the same without the noise
        ({undisturbed:,} states) and the same without words. Success in {arm["num_test"]} episodes: for expert and
        random actions its 95 % interval, for trainings the median and the range. Follows names: in how many trainings
        the arm goes to another block when that one is named, in more than 90 % of the scenes that it solved, in both
        tasks. The last column is the same with a learning rate of {rates[1]:g} instead of {rates[0]:g}, measured
        first: one training of the policy failed there, so the rate was halved."""
    heads = f"who | reach, % | pick, % | follows names | at rate {rates[1]:g}"
    rows = [
        untrained_row("the expert", arm["expert"]),
        *(kind_row(kind, arm, faster) for kind in arm["kinds"]),
        untrained_row("random actions", arm["random"]),
    ]
    return section_of("The robot arm", prose(about), grid(heads, rows), source(arm, faster))


def untrained_row(name: str, found: Results) -> tuple[str, ...]:
    """Success of both tasks with its interval."""
    tasks = (found[task] for task in ("reach", "pick"))
    return name, *(bare(within(task["success"], *task["success_interval"])) for task in tasks), "", ""


def kind_row(text: str, arm: Results, faster: Results) -> tuple[str, ...]:
    """A kind by what tells it from the first, and how its trainings went."""
    kind, first = Kind.of(text), Kind.of(arm["kinds"][0])
    changes = ["without words"] * (kind.fusion == "vision-only")
    changes += [f"expert's noise: {float(kind.noise):g}"] * (kind.noise != first.noise)
    spread_of_tasks = (arm["spread"][text][task] for task in ("reach", "pick"))
    cells = (span({key: 100 * x for key, x in row.items()}, ".1f") for row in spread_of_tasks)
    followed = (follow_words([run for run in results["runs"] if run["kind"] == text]) for results in (arm, faster))
    return (listed(changes) if changes else "the policy", *cells, *followed)


def follow_words(runs: list[Results]) -> str:
    """In how many trainings another name leads to another block, in both tasks."""
    return f"{sum(min(run['reach_swap'], run['pick_swap']) > 0.9 for run in runs)} of {len(runs)}"


if __name__ == "__main__":
    main(Args, jobs, run, summary)
