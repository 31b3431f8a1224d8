"""The command line on recordings: look at them, learn from them, judge a policy on them."""

from __future__ import annotations

from dataclasses import replace
from json import dumps  # not `json`: that is an option's name
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Bool
from tyro.conf import Positional, arg

from tinyvla.app.cli_measure import Checkpoint, JsonFlag, load
from tinyvla.errors import InputError, counted
from tinyvla.fields import Within, check, check_number, check_once, shown
from tinyvla.files import PICTURES, check_output
from tinyvla.recipes import DataConfig, RecordingConfig

if TYPE_CHECKING:
    import torch

    from tinyvla.data.batch import TensorSplit
    from tinyvla.data.demonstrations import Demonstrations
    from tinyvla.model.policy import TinyVLA

SHOWN_EPISODES = 4
"""Rows of the figure: of healthy episodes and of those with faults."""
JUDGED_EPISODES = 0.1
"""Share of the episodes that a policy is judged on where its run does not say which ones it has not seen."""


def read(data: DataConfig, size: int | tuple[int, int] | None = None, resize: str = "stretch") -> Demonstrations:
    """Returns the recordings that are to be learned from.

    Args:
        data: names them, and what of them is wanted.
        size: of the policy's images, at which they are kept in the cache.
        resize: as in the policy's configuration.

    Raises:
        InputError: there is no data set, or fewer than two of its episodes are left.
    """
    from tinyvla.data.lerobot import read_dataset

    recordings = read_dataset(data.dataset, size, data.cameras, data.states, resize)
    count = int(recordings.episodes[-1]) + 1
    check_once(data.leave_out, "episodes of --leave-out")
    unknown = [number for number in data.leave_out if not 0 <= number < count]
    check(not unknown, f"--leave-out names episode {shown(unknown)}; {data.dataset} has the episodes 0 to {count - 1}")
    left = count - len(data.leave_out)
    if left < 2:
        word = counted(count, "episode")
        word += f", of which --leave-out leaves {'one' if left else 'none'}" if data.leave_out else ""
        raise InputError(f"{data.dataset} holds {word}; at least two are needed, one to learn from and one to check")
    return recordings


def held_out(recordings: Demonstrations, data: DataConfig) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Returns which frames are learned from and which are held out: whole episodes, drawn by the data's seed."""
    count = int(recordings.episodes[-1]) + 1
    kept = [number for number in range(count) if number not in data.leave_out]
    how_many = min(len(kept) - 1, max(1, round(data.val_episodes * len(kept))))
    chosen = np.array(kept)[np.random.RandomState(data.val_seed).permutation(len(kept))[:how_many]]
    is_val = np.isin(recordings.episodes, chosen)
    return np.isin(recordings.episodes, kept) & ~is_val, is_val


def splits(
    recordings: Demonstrations, policy: TinyVLA, data: DataConfig, device: torch.device
) -> tuple[TensorSplit, TensorSplit]:
    """Returns what to learn from and what is held out, on a device."""
    import torch

    tensors = recordings.tensors(policy, "cpu")
    is_train, is_val = (torch.from_numpy(mask) for mask in held_out(recordings, data))
    return tensors.rows(is_train).to(device), tensors.rows(is_val).to(device)


def dataset(
    folder: Annotated[
        Positional[str], arg(help="A LeRobotDataset: its folder, or owner/name on the Hugging Face hub.")
    ],
    out: Path | None = None,
    cameras: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    image_size: int = RecordingConfig().image_size,
    json: JsonFlag = False,
) -> None:
    """Look at a data set before training on it: what is in it, and what seems to be wrong.

    Args:
        out: Where to write a picture of sample frames, in place of an earlier one; episodes with faults come first.
        cameras: Which; all unless given.
        states: Keys whose numbers make the robot's state; observation.state unless given.
        image_size: To which images are scaled; the same as for training, so that they are decoded once.
    """
    from tinyvla.data.lerobot import read_dataset
    from tinyvla.data.report import inspect

    check_number("--image-size", image_size, Within(8, 8_192))
    if out is not None:
        check_output(out, PICTURES)
    recordings = read_dataset(folder, image_size, cameras, states)
    report = inspect(recordings)
    print(dumps(report.to_dict()) if json else report.text())
    if out is not None:
        import matplotlib

        matplotlib.use("Agg")
        from tinyvla.show.plots import save_figure
        from tinyvla.show.recordings import plot_frames

        faulty = list(dict.fromkeys(number for fault in report.faults for number in fault.episodes[:1]))
        rest = [number for number in range(len(report.lengths)) if number not in faulty]
        fig, _ = plot_frames(recordings, (faulty[: SHOWN_EPISODES - 1] + rest)[:SHOWN_EPISODES])
        save_figure(fig, out)
        if not json:
            print(f"wrote {out}")


def judge(checkpoint: Checkpoint, data: DataConfig, val_episodes: float | None, device: str, json: bool) -> None:
    """Judge a policy on recordings; see the verb `evaluate`.

    Args:
        checkpoint: the policy's.
        data: the recordings.
        val_episodes: share of the episodes to judge it on; those that its run held out if None.
        device: where.
        json: print an object, and no table.
    """
    from tinyvla.learn.offline import evaluate_offline

    policy = load(checkpoint, device)
    seen, vision = policy.config.observation, policy.config.vision
    run = run_of(checkpoint)
    is_its_own = run is not None and Path(run.dataset).resolve() == Path(data.dataset).resolve()
    given: dict[str, Any] = {name: value for name in ("states", "leave_out") if (value := getattr(data, name))}
    if run is not None and is_its_own:
        data = replace(run, dataset=data.dataset, **given)
    share = val_episodes or (data.val_episodes if is_its_own else JUDGED_EPISODES)
    data = replace(data, cameras=seen.cameras, val_episodes=share)
    recordings = read(data, vision.size, seen.resize)
    _, judged = held_out(recordings, data)
    report = evaluate_offline(policy, recordings, judged)
    if json:
        print(dumps(report.to_dict()))
        return
    print(report.table())
    if is_its_own and val_episodes is None and not given:
        print("these episodes were held out when the policy was trained")
    else:
        print("whether the policy has learned from these episodes, its folder does not say")


def run_of(checkpoint: Path) -> DataConfig | None:
    """Returns what the run of a checkpoint learned from; None where no run lies around it."""
    from tinyvla.files import read_json
    from tinyvla.learn.checkpoint import RunSettings
    from tinyvla.learn.folder import SETTINGS

    path = Path(checkpoint).absolute().parent / SETTINGS
    if not path.is_file():
        return None
    try:
        settings: Any = RunSettings.from_dict(read_json(path, ""))
    except InputError:  # a file of the same name that is no run's
        return None
    return settings.data if settings.data.dataset else None
