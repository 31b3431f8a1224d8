"""Images that stay in their file: a split that is larger than the memory is read batch by batch.

Notable:
- the file is memory-mapped: the system keeps what was read lately in memory as long as there is room, and no longer;
- it looks like a tensor to `TensorSplit`, which takes batches from it by index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

SHARE_OF_FREE_MEMORY = 0.6
"""One camera's images are put on a GPU where they take at most this share of what is free there."""


class StoredImages:
    """One camera's images in a file; batches of them come out as tensors on a device.

    Args:
        file: uint8 of shape `(n, c, h, w)`, as `numpy.load(path, mmap_mode="r")` gives it.
        index: which of its images, in which order; all of them if None.
        device: where batches go.
    """

    dtype = torch.uint8

    def __init__(
        self,
        file: UInt8[np.ndarray, "n c h w"],
        index: Int64[np.ndarray, "k"] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.file, self.device = file, torch.device(device)
        self.index = np.arange(len(file)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> torch.Size:
        """Number, channels, height and width."""
        return torch.Size((len(self), *self.file.shape[1:]))

    def __getitem__(self, index: slice | Int64[Tensor, "b"]) -> UInt8[Tensor, "b c h w"]:
        """Returns the images at an index, copied from the file to the device."""
        chosen = self.index[index.cpu().numpy() if isinstance(index, Tensor) else index]
        return torch.from_numpy(np.ascontiguousarray(self.file[chosen])).to(self.device)

    def rows(self, index: Any) -> StoredImages:
        """Returns the images at an index, or where a mask is True, still in their file."""
        chosen = index.cpu().numpy() if isinstance(index, Tensor) else index
        return StoredImages(self.file, self.index[chosen], self.device)

    def to(self, device: torch.device | str) -> StoredImages | Tensor:
        """Returns the images on a GPU where they fit; else they stay in their file, and batches go to the device."""
        where = torch.device(device)
        if where.type == "cuda":
            free = torch.cuda.mem_get_info(where)[0]
            if int(np.prod(self.shape)) <= SHARE_OF_FREE_MEMORY * free:
                return self._copied(where)
        return StoredImages(self.file, self.index, where)

    def _copied(self, device: torch.device) -> Tensor:
        """All images on a device, a few at a time: they need not all lie in memory on the way."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), 1_024):
            images[start : start + 1_024] = self[start : start + 1_024]
        return images
