"""Episodes of the arm as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from tinyvla.arm.expert import expert_action
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
    act: Act,
    seeds: Sequence[int],
    execute: int = 4,
    size: int = 64,
    columns: int = 7,
    rows: Sequence[tuple[str, int]] = (("reach", 0), ("pick", 0)),
) -> Figure:
    """Episodes in one scene, a row of pictures each.

    The scene is the first one in which all rows are successes (the first of all where there is none).

    Args:
        act: a policy, or `arm_expert`.
        seeds: scenes to try, at most ten.
        execute: actions done before the policy looks again.
        size: side of the image that the policy sees.
        columns: pictures in a row, evenly spread over the episode; fewer where it is shorter.
        rows: task and named block of each row; another block is another instruction for the same scene.
    """
    import matplotlib.pyplot as plt

    takes = [filmed(act, seeds[0], task, execute, size, named=named) for task, named in rows]
    for seed in seeds[1:10]:
        if all(success for _, _, success in takes):
            break
        others = [filmed(act, seed, task, execute, size, named=named) for task, named in rows]
        takes = others if all(success for _, _, success in others) else takes
    figsize = (1.6 * columns, 1.9 * len(rows))
    fig, axes = plt.subplots(len(rows), columns, figsize=figsize, squeeze=False, layout="constrained")
    for row, (frames, text, _) in zip(axes, takes, strict=True):
        steps = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(int))
        for ax in row[len(steps) :]:
            ax.axis("off")
        for ax, step in zip(row, steps, strict=False):
            ax.imshow(frames[step].transpose(1, 2, 0))
            ax.axhline(frames[step].shape[1] / 2 - 0.5, color="white", lw=1)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{step}" if step else text, fontsize=8, loc="left")
    return fig
