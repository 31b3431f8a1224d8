from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from tinyvla.adapt.pretraining import (
    Camera,
    ImageCaptionModel,
    PretrainConfig,
    captioned,
    captions,
    matching_accuracy,
    photograph,
    place,
    pretrain,
    sigmoid_loss,
    take_towers,
)
from tinyvla.data.dataset import COLORS, BlockFind
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode

BRIEF = PretrainConfig(num_pairs=64, num_steps=3, batch_size=8)


@pytest.fixture
def model(tiny_config) -> ImageCaptionModel:
    torch.manual_seed(0)
    return ImageCaptionModel(replace(tiny_config, language=replace(tiny_config.language, vocab_size=8192)))


def images_of(split: BlockFind) -> torch.Tensor:
    return torch.from_numpy(split.images)


def with_seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestCaptions:
    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            (0, "at the top left"),
            (3, "at the top"),
            (7, "at the top right"),
            (24, "at the left"),
            (27, "in the middle"),
            (31, "at the right"),
            (56, "at the bottom left"),
            (63, "at the bottom right"),
        ],
    )
    def test_places_have_names(self, cell, words):
        assert place(cell) == words

    def test_there_are_nine_places(self):
        assert len({place(cell) for cell in range(64)}) == 9

    def test_all_blocks_are_named_where_they_are(self):
        split = BlockFind(50, 0)
        for line, cells, colors in zip(captions(split, 0), split.cells, split.colors, strict=True):
            said = sorted(line.split(", "))
            assert said == sorted(f"{COLORS[c]} {place(int(k))}" for k, c in zip(cells, colors, strict=True) if k >= 0)

    def test_the_order_follows_from_the_seed_and_says_nothing_of_the_target(self):
        split = BlockFind(400, 0)
        assert captions(split, 1) == captions(split, 1) != captions(split, 2)
        firsts = [line.split()[0] == COLORS[c] for line, c in zip(captions(split, 1), split.colors[:, 0], strict=True)]
        assert 0.2 < np.mean(firsts) < 0.4  # of three or four blocks

    def test_every_caption_can_be_read(self):
        lines = captions(BlockFind(300, 0), 0)
        ids, mask = encode(lines)  # refuses words that it does not know, and sentences that are too long
        _, (quick_ids, quick_mask) = captioned(300, 0)
        assert torch.equal(ids, quick_ids)
        assert torch.equal(mask, quick_mask)


class TestPhotographs:
    def test_without_any_effect_nothing_changes(self):
        images = images_of(BlockFind(3, 0))
        assert torch.equal(photograph(images, with_seed(0), Camera(0.0, 0.0, 0.0, 0.0)), images)

    def test_the_generator_decides(self):
        images = images_of(BlockFind(3, 0))
        assert torch.equal(photograph(images, with_seed(1)), photograph(images, with_seed(1)))
        assert not torch.equal(photograph(images, with_seed(1)), photograph(images, with_seed(2)))

    def test_blocks_stay_where_they_are_and_the_ground_does_not_shine_through(self):
        split = BlockFind(20, 0)
        shots = photograph(images_of(split), with_seed(0), Camera(light=0.0, ground=35.0, shade=0.0, grain=0.0))
        same = (shots == images_of(split)).all(dim=1)
        is_block = torch.zeros_like(same)
        for scene, cells in enumerate(split.cells):
            for cell in cells[cells >= 0]:
                row, column = divmod(int(cell), 8)
                rows, columns = (slice(8 * index, 8 * index + 8) for index in (row, column))
                is_block[scene, rows, columns] = True
        assert same[is_block].all()
        assert same[~is_block].float().mean() < 0.01

    def test_light_dims_and_never_brightens(self):
        images = images_of(BlockFind(20, 0))
        shots = photograph(images, with_seed(0), Camera(light=1.0, ground=0.0, shade=0.0, grain=0.0)).float()
        share = (shots + 1) / images.float()
        assert shots.le(images).all()
        assert share.min() > math.exp(-1.5)
        assert share.amax(dim=(2, 3)).std() > 0.1  # its colour differs from scene to scene

    def test_grain_has_the_spread_that_was_asked_for(self):
        images = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
        noise = photograph(images, with_seed(0), Camera(0.0, 0.0, 0.0, 10.0)).float() - 128
        assert noise.std().item() == pytest.approx(10, rel=0.05)


class TestLoss:
    def test_it_is_siglips(self):
        """The very lines of transformers' SiglipModel."""
        logits = 3 * torch.randn(5, 5, generator=with_seed(0))
        eye = torch.eye(5)
        expected = -F.logsigmoid((-torch.ones_like(logits) + 2 * eye) * logits).sum(dim=-1).mean()
        torch.testing.assert_close(sigmoid_loss(logits), expected)

    def test_and_so_says_transformers_itself(self):
        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.SiglipConfig(
            text_config={**small, "vocab_size": 40}, vision_config={**small, "image_size": 32, "patch_size": 8}
        )
        torch.manual_seed(0)
        siglip = transformers.SiglipModel(config).eval()
        out = siglip(input_ids=torch.randint(2, 40, (4, 6)), pixel_values=torch.rand(4, 3, 32, 32), return_loss=True)
        torch.testing.assert_close(sigmoid_loss(out.logits_per_text), out.loss)

    def test_it_is_small_where_pairs_are_told_apart(self):
        assert sigmoid_loss(20 * (2 * torch.eye(4) - 1)).item() < 1e-6
        assert sigmoid_loss(-20 * (2 * torch.eye(4) - 1)).item() > 50

    def test_the_first_loss_is_that_of_siglips_initial_bias(self, model):
        images, (ids, mask) = captioned(8, 0)
        logits = model(images.float() / 255, ids, mask)
        assert logits.shape == (8, 8)
        assert (logits + 10).abs().max() <= 10 + 1e-4  # scale 10 times a cosine, bias -10


class TestPretraining:
    def test_it_learns_to_tell_pairs_apart(self, model):
        config = PretrainConfig(num_pairs=256, num_steps=120, batch_size=32, learning_rate=5e-3)
        plain = Camera(0.0, 0.0, 0.0, 0.0)
        losses: list[float] = []
        last = pretrain(model, config, plain, on_step=lambda step, loss: losses.append(loss))
        assert last == losses[-1] < losses[0]
        images, (ids, mask) = captioned(20, 99)
        assert matching_accuracy(model, images, ids, mask) >= 2 / 20  # far from perfect, twice as good as chance

    def test_one_seed_gives_one_result(self, tiny_config):
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            made = ImageCaptionModel(tiny_config)
            pretrain(made, BRIEF)
            results.append(made.state_dict())
        assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
        assert not made.training

    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_policy_takes_the_towers(self, frozen, model, tiny_config):
        pretrain(model, BRIEF)
        policy = new_policy(replace(tiny_config, language=replace(tiny_config.language, vocab_size=8192)), seed=3)
        head = {name: value.clone() for name, value in policy.head.state_dict().items()}
        assert take_towers(policy, model, frozen) is policy
        for slot in ("vision", "language"):
            theirs = getattr(model, slot).state_dict()
            mine = getattr(policy, slot).state_dict()
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        learns = {name.split(".")[0] for name, parameter in policy.named_parameters() if parameter.requires_grad}
        assert learns == ({"fusion", "head"} if frozen else {"vision", "language", "fusion", "head"})
        assert all(torch.equal(value, head[name]) for name, value in policy.head.state_dict().items())

    def test_taken_towers_are_copies(self, model, tiny_config):
        policy = new_policy(replace(tiny_config, language=replace(tiny_config.language, vocab_size=8192)), seed=3)
        take_towers(policy, model)
        with torch.no_grad():
            policy.vision.cls_token.add_(1)
        assert not torch.equal(policy.vision.cls_token, model.vision.cls_token)
