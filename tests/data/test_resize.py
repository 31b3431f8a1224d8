from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyvla.data.resize import resized


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (7, 31)])
@pytest.mark.parametrize("kind", ["stretch", "pad"])
def test_a_frame_in_a_video_is_scaled_as_an_image_in_an_array(size, kind):
    """What is decoded has its channels last in memory, what a policy is shown has them first."""
    frames = np.random.RandomState(0).randint(0, 256, (3, 48, 64, 3)).astype(np.uint8)
    last = torch.from_numpy(frames).permute(0, 3, 1, 2)
    one_by_one = torch.cat([resized(frame[None], size, kind) for frame in last])
    assert torch.equal(one_by_one, resized(last.contiguous(), size, kind))
    assert one_by_one.shape == (3, 3, *size)
