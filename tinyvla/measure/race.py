"""A race on Meta-World: from an empty folder to a policy that has been judged, on one GPU, with the clock running.

    tinyvla bench --world metaworld

Demonstrations are recorded, a policy is trained from scratch and acts in new episodes of every task. SmolVLA, with
450 M parameters, is reported at 57.3 % (https://arxiv.org/abs/2506.01844): the mark to pass.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from tinyvla.act.metaworld.answer import judge_policy
from tinyvla.act.metaworld.collect import Plan, collect
from tinyvla.act.metaworld.report import summary
from tinyvla.act.metaworld.report import table as table_of_tasks
from tinyvla.act.metaworld.scene import MetaWorldConfig
from tinyvla.act.metaworld.tasks import find_tasks
from tinyvla.act.metaworld.workers import num_processes
from tinyvla.data.lerobot import read_dataset
from tinyvla.device import choose_device, describe_device
from tinyvla.errors import InputError
from tinyvla.files import check_folder
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import RECORDINGS, Recipe, RecordingConfig
from tinyvla.speed.step import make_step

MARK = 0.573
"""SmolVLA's mean of the four groups, as its paper reports it."""
EPISODES = 10
"""Of each task."""
PARTS = ("record", "load", "train", "judge")
STEPS = 5_000
"""Of training, unless others are asked for."""


def race(
    folder: Path, tasks: str = "mt50", demos: int = 50, steps: int | None = None, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Returns the seconds of each part and how good the policy is.

    Args:
        folder: for the demonstrations; must be empty.
        tasks: what is recorded, learned and judged.
        demos: demonstrations of each task.
        steps: of training, `STEPS` by default.
        device: of the policy.
        seed: of the training.

    Raises:
        InputError: the folder is not empty, or an argument is not usable.
    """
    check_folder(folder, "--folder")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; the clock starts with an empty folder")
    where, sizes, chosen = choose_device(device), RecordingConfig(), find_tasks(tasks)
    config, clock = MetaWorldConfig(sizes.image_size, samples=4), [time.time()]
    names = tuple(task.name for task in chosen)
    collect(folder, Plan(names, demos, config.image_size, config.samples), num_processes())
    clock.append(time.time())
    recordings = read_dataset(folder)
    policy = new_policy(recordings.robot_config(sizes), seed, where)
    tensors = recordings.tensors(policy, where)
    policy.prepare_for(tensors)
    train = Recipe(steps or STEPS, RECORDINGS.train).for_scenes(len(tensors))
    step = make_step(policy, tensors, train, "compiled" if where.type == "cuda" else "auto")
    clock.append(time.time())
    few = torch.arange(0, len(tensors), max(1, len(tensors) // 500), device=where)
    fit(policy, tensors, tensors.rows(few), train, step)
    clock.append(time.time())
    ended = judge_policy(policy, config, chosen, EPISODES, workers=num_processes())
    clock.append(time.time())
    parts = {name: clock[i + 1] - clock[i] for i, name in enumerate(PARTS)}
    numbers = {"steps": steps or STEPS, "seed": seed, "parameters": policy.num_parameters()["total"]}
    found = summary(ended)
    passed = {"mark": MARK, "is_past_it": found["mean_of_groups"] > MARK}
    return {
        "seconds": {**parts, "all": clock[-1] - clock[0]},
        **numbers,
        **passed,
        **found,
        "machine": describe_device(where),
    }


def table(raced: dict[str, Any]) -> str:
    """Returns a race as lines for the terminal."""
    seconds = raced["seconds"]
    parts = "  ".join(f"{name} {seconds[name]:.0f} s" for name in PARTS)
    verdict = "past" if raced["is_past_it"] else "not past"
    return (
        f"{table_of_tasks(raced, 'metaworld')}\n{parts}\n{seconds['all']:.0f} s from an empty folder on, with "
        f"{raced['parameters'] / 1e6:.1f} M parameters and {raced['steps']:,} steps on {raced['machine']['device']}: "
        f"{verdict} SmolVLA's {raced['mark']:.1%}"
    )
