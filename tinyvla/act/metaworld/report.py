"""How a policy did on Meta-World: success for each task, each group of difficulty, and the mean of the groups.

Notable:
- the benchmark's figure is the mean of the groups' success rates, as LeRobot reports it; a task of a small group counts
  more in it than one of a large group;
- every share has its 95 % Wilson interval. With ten episodes of a task that is wide: 10 of 10 are 72 to 100 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvla.act.metaworld.judge import Episode
from tinyvla.act.metaworld.tasks import GROUPS, TASKS
from tinyvla.stats import share_with_interval, wilson_interval


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Returns plain numbers: `mean_of_groups`, and success with its interval by group and by task."""
    by_task = {task.name: [e.success for e in episodes if e.task == task.name] for task in TASKS}
    by_group = {
        group: [success for task in TASKS if task.group == group for success in by_task[task.name]] for group in GROUPS
    }
    groups = {name: _share(ended) for name, ended in by_group.items() if ended}
    steps = [episode.steps for episode in episodes if episode.success]
    return {
        "mean_of_groups": float(np.mean([group["success"] for group in groups.values()])) if groups else None,
        "over_episodes": _share([episode.success for episode in episodes]) if episodes else None,
        "groups": groups,
        "tasks": {name: _share(ended) for name, ended in by_task.items() if ended},
        "mean_steps_of_successes": float(np.mean(steps)) if steps else None,
    }


def _share(ended: Sequence[bool]) -> dict[str, Any]:
    rate = float(np.mean(ended))
    return {"success": rate, "interval": wilson_interval(rate, len(ended)), "episodes": len(ended)}


def table(found: dict[str, Any], name: str) -> str:
    """Returns a summary as lines for the terminal: tasks from the hardest on, then groups, then their mean."""
    head = f"{name[-25:]:27}success; 95 % Wilson interval in brackets"
    rule = "-" * len(head)
    tasks = sorted(found["tasks"].items(), key=lambda item: item[1]["success"])
    lines = [f"{task:27}{_line(share)}" for task, share in tasks]
    groups = [f"{group.replace('_', ' '):27}{_line(share)}" for group, share in found["groups"].items()]
    mean = [f"{'mean of the groups':27}{found['mean_of_groups']:.1%}"]
    return "\n".join([head, rule, *lines, rule, *groups, rule, *mean])


def _line(share: dict[str, Any]) -> str:
    return f"{share_with_interval(share['success'], share['episodes'])} of {share['episodes']}"
