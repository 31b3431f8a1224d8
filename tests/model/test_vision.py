from __future__ import annotations

import pytest
import torch

from tinyvla.config import VisionConfig
from tinyvla.errors import InputError
from tinyvla.model.vision import TinyViT, grid_positions

CONFIG = VisionConfig(embed_dim=16, num_layers=1, num_heads=2)


def test_tokens_are_cls_and_patches():
    assert TinyViT(CONFIG)(torch.rand(2, 3, 64, 64)).shape == (2, 65, 16)


def test_patchify_cuts_row_by_row():
    images = torch.rand(2, 3, 64, 64)
    patches = TinyViT(CONFIG).patchify(images)
    assert patches.shape == (2, 64, 192)
    torch.testing.assert_close(patches[0, 8 * 2 + 5], images[0, :, 16:24, 40:48].flatten())


def test_positions_differ_and_are_odd_around_the_centre():
    positions = grid_positions((8, 8), 16)
    assert len(positions.unique(dim=0)) == 64
    sines = [*range(4), *range(8, 12)]
    torch.testing.assert_close(positions[0, sines], -positions[63, sines])


def test_positions_of_a_grid_that_is_no_square():
    positions = grid_positions((3, 5), 16)
    assert positions.shape == (15, 16)
    x, y = positions.view(3, 5, 16).split(8, dim=-1)
    assert torch.equal(x[0], x[2]), "x depends on the column alone"
    assert torch.equal(y[:, 0], y[:, 4]), "y depends on the row alone"
    torch.testing.assert_close(x[0, :, :4], -x[0].flip(0)[:, :4])
    torch.testing.assert_close(y[:, 0, :4], -y[:, 0].flip(0)[:, :4])


def test_images_of_any_height_and_width():
    config = VisionConfig(image_size=(24, 40), embed_dim=16, num_layers=1, num_heads=2)
    assert (config.grid, config.num_tokens) == ((3, 5), 16)
    vit, images = TinyViT(config), torch.rand(2, 3, 24, 40)
    assert vit(images).shape == (2, 16, 16)
    torch.testing.assert_close(vit.patchify(images)[1, 5 * 2 + 3], images[1, :, 16:24, 24:32].flatten())


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (60, "56 or 64 would be, or a patch_size of 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60"),
        ((96, 100), "96 or 104 would be, or a patch_size of 1, 2, 4"),
        ((4, 64), "8 would be"),
        ((0, 64), "from 1 to 8192: one number, or height and width"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_would(size, says):
    with pytest.raises(InputError) as caught:
        VisionConfig(image_size=size)
    assert says in str(caught.value)


def test_a_convolutional_stem_makes_one_token_for_each_patch_and_sees_its_neighbourhood():
    config = VisionConfig((24, 40), 8, embed_dim=16, num_layers=1, num_heads=2, stem="convolutional")
    tower = TinyViT(config)
    image = torch.rand(1, 3, 24, 40, requires_grad=True)
    tokens = tower.stem(image)
    assert tokens.shape == (1, 15, 16)
    assert tower(image).shape == (1, 16, 16)
    (seen,) = torch.autograd.grad(tokens[0, 7].sum(), image)  # row 1, column 2 of 3 x 5
    rows, columns = (seen[0].abs().sum(dim=0).sum(dim=axis).nonzero().flatten() for axis in (1, 0))
    assert (rows.min(), rows.max()) == (2, 15), "from rows 8 to 15, and six above"
    assert (columns.min(), columns.max()) == (10, 23)


def test_the_stem_needs_squares_of_a_quarter_of_a_patch():
    with pytest.raises(InputError, match="4 must divide patch_size, which is 6"):
        VisionConfig(24, 6, stem="convolutional")
    with pytest.raises(InputError, match="unknown stem 'deep'; choose from linear, convolutional"):
        VisionConfig(stem="deep")
