from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode


@pytest.fixture(scope="module")
def scenes() -> BlockFind:
    return BlockFind(3, 0)


def counts(preset: str) -> dict[str, int]:
    with torch.device("meta"):
        return TinyVLA(PRESETS[preset]).num_parameters()


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [("minimal", 13e6, 15e6), ("medium", 95e6, 105e6), ("smolvla_like", 427.5e6, 472.5e6)],
)
def test_presets_have_the_size_that_their_names_promise(preset, least, most):
    assert least <= counts(preset)["total"] <= most


def test_components_add_up():
    parts = counts("minimal")
    total = parts.pop("total")
    assert sum(parts.values()) == total
    assert parts["token embedding"] == 30_522 * 256


def test_smolvla_like_has_smolvlas_widths():
    config = PRESETS["smolvla_like"]
    assert (config.vision.embed_dim, config.vision.num_layers, config.language.embed_dim) == (768, 12, 960)


def test_initial_weights_are_those_of_the_table(tiny_config):
    policy = new_policy(tiny_config, seed=0)
    assert abs(policy.language.token_embedding.weight.std() - 1) < 0.01
    assert abs(policy.vision.patch_projection.weight.std() - 0.5 / 192**0.5) < 0.002
    for block in (*policy.vision.blocks, *policy.language.blocks):
        assert not block.attention.output.weight.any()
        assert not block.mlp.output.weight.any()
    assert all(not p.any() for name, p in policy.named_parameters() if name.endswith("bias"))


def test_seeds_decide_the_initial_weights(tiny_config):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = (new_policy(tiny_config, seed).state_dict() for seed in (3, 3, 4))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(a["head.output.weight"], c["head.output.weight"])
    assert torch.equal(torch.get_rng_state(), before), "the global random state is left alone"


def test_predict_takes_one_or_many(tiny_policy, scenes):
    one = tiny_policy.predict(Image.fromarray(scenes.images[0].transpose(1, 2, 0)), "find the red block")
    many = tiny_policy.predict(scenes.images, "find the red block")
    listed = tiny_policy.predict(list(scenes.images), ["find the red block"] * 3)
    assert one.shape == (2,)
    assert many.shape == (3, 2)
    torch.testing.assert_close(many[0], one)
    torch.testing.assert_close(many, listed)
    different = tiny_policy.predict(scenes.images[0], "find the blue block")
    assert not torch.allclose(different, one)


def test_predict_is_what_forward_computes(tiny_policy, scenes):
    with torch.no_grad():
        want = tiny_policy(TensorSplit.from_blockfind(scenes, encode).take(slice(None)))
    torch.testing.assert_close(tiny_policy.predict(scenes.images, scenes.instructions), want)


def test_predict_leaves_the_training_mode_as_it_was(tiny_policy, scenes):
    tiny_policy.train()
    tiny_policy.predict(scenes.images, "find the red block")
    assert tiny_policy.training


def test_predict_refuses_a_mismatch(tiny_policy, scenes):
    with pytest.raises(InputError, match="3 images but 2 instructions"):
        tiny_policy.predict(scenes.images, ["find the red block"] * 2)


def test_save_and_load_give_the_same_policy(tiny_policy, scenes, tmp_path):
    tiny_policy.train().save_pretrained(tmp_path / "policy")
    assert {p.name for p in (tmp_path / "policy").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = TinyVLA.from_pretrained(tmp_path / "policy")
    assert not loaded.training
    assert loaded.config == tiny_policy.config
    torch.testing.assert_close(loaded.state_dict(), tiny_policy.state_dict(), rtol=0, atol=0)
    want = tiny_policy.predict(scenes.images, scenes.instructions)
    torch.testing.assert_close(loaded.predict(scenes.images, scenes.instructions), want, rtol=0, atol=0)


def test_the_model_card_can_be_read_by_the_hub(tiny_policy, tmp_path):
    from huggingface_hub import ModelCard

    tiny_policy.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "tinyvla"
    assert "robotics" in card.data.tags


def test_push_to_hub_uploads_what_save_pretrained_writes(tiny_policy, monkeypatch):
    from huggingface_hub import HfApi

    uploaded = {}

    def create_repo(self, repo_id, **kwargs):
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id, folder_path, **kwargs):
        uploaded[repo_id] = {p.name for p in folder_path.iterdir()}
        return "https://example.org/commit"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    tiny_policy.push_to_hub("someone/tiny")
    assert uploaded == {"someone/tiny": {"config.json", "model.safetensors", "README.md"}}


def test_from_pretrained_downloads_from_the_hub(tiny_policy, tmp_path, monkeypatch):
    tiny_policy.save_pretrained(tmp_path)
    asked = []

    def download(repo_id, **options):
        asked.append((repo_id, options.get("revision")))
        return str(tmp_path)

    monkeypatch.setattr("tinyvla.model.checkpoint_files.snapshot_download", download)
    TinyVLA.from_pretrained("someone/tiny", revision="v1")
    assert asked == [("someone/tiny", "v1")]
    with pytest.raises(InputError, match="no checkpoint folder 'checkpoints/best' here; train one"):
        TinyVLA.from_pretrained("checkpoints/best")  # the command line's default; a stranger may own it on the hub
    assert len(asked) == 1


class TestDamagedCheckpoints:
    @pytest.fixture
    def folder(self, tiny_policy, tmp_path):
        tiny_policy.save_pretrained(tmp_path / "policy")
        return tmp_path / "policy"

    def refuse(self, folder, says):
        with pytest.raises(InputError) as caught:
            TinyVLA.from_pretrained(folder)
        assert says in str(caught.value)

    def test_missing_folder(self, tmp_path):
        self.refuse(tmp_path / "nowhere", "no checkpoint folder")

    def test_a_name_that_neither_disk_nor_hub_knows(self):
        self.refuse("nobody/nothing", "no checkpoint folder 'nobody/nothing' here, and the hub did not give one")

    def test_a_file(self, folder):
        self.refuse(folder / "config.json", "is a file")

    def test_no_config(self, folder):
        (folder / "config.json").unlink()
        self.refuse(folder, "holds no config.json")

    def test_config_is_not_json(self, folder):
        (folder / "config.json").write_text('{"vision": ')
        self.refuse(folder, "is not JSON")

    def test_foreign_config(self, folder):
        (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 4096}')
        self.refuse(folder, "unknown keys ['hidden_size', 'model_type']")

    def test_config_that_is_no_object(self, folder):
        (folder / "config.json").write_text("[1, 2]")
        self.refuse(folder, "holds [1, 2]; it must be an object")

    def test_dimensions_that_do_not_divide(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["vision"]["num_heads"] = 5
        (folder / "config.json").write_text(json.dumps(config))
        self.refuse(folder, "embed_dim 16 is not divisible by num_heads 5")

    def test_weights_of_another_size(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["vision"]["num_layers"] = 2
        (folder / "config.json").write_text(json.dumps(config))
        self.refuse(folder, "does not fit its config.json")

    def test_truncated_weights(self, folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.refuse(folder, "truncated")

    def test_missing_weights(self, folder):
        (folder / "model.safetensors").unlink()
        self.refuse(folder, "missing")

    def test_a_pickle_is_never_loaded(self, folder):
        torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
        self.refuse(folder, "not a safetensors file")


@pytest.mark.gpu
def test_cpu_and_gpu_agree(tiny_policy, scenes):
    want = tiny_policy.predict(scenes.images, scenes.instructions)
    got = tiny_policy.to("cuda").predict(scenes.images, scenes.instructions)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
