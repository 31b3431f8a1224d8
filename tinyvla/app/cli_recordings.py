"""What the verb `train` does with recordings: read them, and split them into what is learned and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyvla.errors import InputError
from tinyvla.recipes import DataConfig

if TYPE_CHECKING:
    import torch

    from tinyvla.data.batch import TensorSplit
    from tinyvla.data.demonstrations import Demonstrations
    from tinyvla.model.policy import TinyVLA


def read(data: DataConfig) -> Demonstrations:
    """Returns the recordings that are to be learned from.

    Raises:
        InputError: there is no data set in the folder, or it has a single episode.
    """
    from tinyvla.data.lerobot import read_dataset

    recordings = read_dataset(Path(data.dataset))
    if recordings.episodes[-1] == 0:
        raise InputError(
            f"{data.dataset} holds one episode; at least two are needed, one to learn from and one to check"
        )
    return recordings


def splits(
    recordings: Demonstrations, policy: TinyVLA, data: DataConfig, device: torch.device
) -> tuple[TensorSplit, TensorSplit]:
    """Returns what to learn from and what is held out: whole episodes, drawn by the data's seed."""
    import torch

    count = int(recordings.episodes[-1]) + 1
    held_out = min(count - 1, max(1, round(data.val_episodes * count)))
    chosen = np.random.RandomState(data.val_seed).permutation(count)[:held_out]
    is_val = torch.from_numpy(np.isin(recordings.episodes, chosen)).to(device)
    tensors = recordings.tensors(policy, device)
    return tensors.rows(~is_val), tensors.rows(is_val)
