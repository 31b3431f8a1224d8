"""Episodes of the arm as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from tinyvla.arm.expert import TASKS, expert_action
from tinyvla.arm.rollout import arm_expert
from tinyvla.arm.world import ArmConfig, ArmWorld
from tinyvla.rollout import Act

if TYPE_CHECKING:  # matplotlib takes long to import
    from matplotlib.figure import Figure


def filmed(
    act: Act, seed: int, task: str, execute: int = 4, size: int = 64, shown: int = 192, named: int = 0
) -> tuple[list[UInt8[np.ndarray, "3 h w"]], str, bool]:
    """One episode, seen larger than the policy sees it.

    Args:
        act: a policy, or `arm_expert`.
        size: side of the image that the policy sees.
        shown: side of the pictures returned.

    Returns:
        A picture of every step and one of the end, the instruction, and whether the episode was a success.
    """
    world = ArmWorld([seed], task, ArmConfig(image_size=size), named)
    frames, plan = [], np.zeros((execute, 7))
    while len(world.running):
        frames.append(world.views(size=shown)[0])
        turn = int(world.steps[0]) % execute
        if act is arm_expert:
            actions = expert_action(world.state())
        else:
            if turn == 0:
                answer = np.asarray(act(world.views(), world.instructions), np.float64)
                plan = answer[0].reshape(-1, 7)
            actions = plan[None, turn]
        world.step(actions)
    return [*frames, world.views(np.arange(1), shown)[0]], world.instructions[0], bool(world.terminated[0])


def film_strip(
    act: Act, seeds: Sequence[int], execute: int = 4, size: int = 64, columns: int = 7, tasks: Sequence[str] = TASKS
) -> Figure:
    """A row of pictures per task, of the first episode that is a success (of the first one where none is).

    Args:
        act: a policy, or `arm_expert`.
        seeds: episodes to try, at most ten.
        execute: actions done before the policy looks again.
        size: side of the image that the policy sees.
        columns: pictures in a row, evenly spread over the episode.
        tasks: "reach", "pick".
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        len(tasks), columns, figsize=(1.6 * columns, 1.9 * len(tasks)), squeeze=False, layout="constrained"
    )
    for row, task in zip(axes, tasks, strict=True):
        takes = (filmed(act, seed, task, execute, size) for seed in seeds[:10])
        first = next(takes)
        frames, text, _ = first if first[2] else next((take for take in takes if take[2]), first)
        for ax, step in zip(row, np.linspace(0, len(frames) - 1, columns).round().astype(int), strict=True):
            ax.imshow(frames[step].transpose(1, 2, 0))
            ax.axhline(frames[step].shape[1] / 2 - 0.5, color="white", lw=1)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{step}" if step else text, fontsize=8, loc="left")
    return fig
