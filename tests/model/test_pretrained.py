"""Towers of the hub's classes, built small, saved to a folder and loaded from there: no network is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tinyvla.app import cli
from tinyvla.config import LanguageConfig, ModelConfig, PretrainedConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, BlockFind, instruction_for
from tinyvla.deploy.export import export_bytes
from tinyvla.errors import InputError
from tinyvla.learn.evaluate import evaluate, predict_split
from tinyvla.learn.optimizer import make_optimizer, set_learning_rate
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import PretrainedVision, make_language, make_vision, pretrained_config
from tinyvla.recipes import TrainConfig
from tinyvla.registry import FUSION_KINDS
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

SENTENCES = [instruction_for(color) for color in COLORS]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = ("siglip", "siglip-both", "dinov2")
LANGUAGE = ("phi", "llama", "distilbert")


def save_processing(folder: Path, **values) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def byte_level_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """As SmolLM2 and Phi-2 have: bytes, no padding token, nothing in front of a sentence."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def wordpiece_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """As DistilBERT has, with ids of its own."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "find", "the", "any", "block", *COLORS]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")


def build(kind: str, folder: Path) -> None:
    """Save a small model of a kind as its authors save theirs."""
    siglip_processing = {
        "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    vision = transformers.SiglipVisionConfig(**SMALL, image_size=32, patch_size=8)
    if kind == "siglip":
        transformers.SiglipVisionModel(vision).save_pretrained(folder)
        save_processing(folder, **siglip_processing)
    elif kind == "siglip-both":  # what the hub has: both of SigLIP's towers in one file
        text = transformers.SiglipTextConfig(**SMALL, vocab_size=40)
        config = transformers.SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
        transformers.SiglipModel(config).save_pretrained(folder)
        save_processing(folder, **siglip_processing)
    elif kind == "dinov2":
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
        )
        transformers.Dinov2Model(config).save_pretrained(folder)
        save_processing(
            folder, do_center_crop=True, crop_size={"height": 56, "width": 56}, size={"shortest_edge": 64},
            resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
        )  # fmt: skip
    elif kind == "phi":
        transformers.PhiModel(transformers.PhiConfig(**SMALL, vocab_size=300)).save_pretrained(folder)
        byte_level_tokenizer().save_pretrained(folder)
    elif kind == "llama":  # with the head for the next word, as SmolLM2 is kept on the hub
        config = transformers.LlamaConfig(**SMALL, vocab_size=300, num_key_value_heads=1, tie_word_embeddings=True)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        byte_level_tokenizer().save_pretrained(folder)
    elif kind == "distilbert":
        config = transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=14)
        transformers.DistilBertModel(config).save_pretrained(folder)
        wordpiece_tokenizer().save_pretrained(folder)
    elif kind == "t5":
        config = transformers.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=300)
        config.save_pretrained(folder)
    elif kind == "resnet":
        transformers.ResNetConfig().save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    torch.manual_seed(0)
    made = {}
    for kind in (*VISION, *LANGUAGE, "t5", "resnet"):
        folder = tmp_path_factory.mktemp(kind)
        build(kind, folder)
        made[kind] = str(folder)
    return made


@pytest.fixture(scope="module")
def configure(folders, tiny_config):
    """A small policy's configuration with the towers of these kinds; None keeps the own one."""

    def make(vision: str | None = "siglip", language: str | None = "llama", frozen=True, fusion=None) -> ModelConfig:
        config = pretrained_config(
            vision and folders[vision], language and folders[language], "nano", fusion, frozen=frozen
        )
        small = replace(config, fusion=replace(config.fusion, embed_dim=16, num_heads=2), head=tiny_config.head)
        small = small if vision else replace(small, vision=tiny_config.vision)
        return small if language else replace(small, language=tiny_config.language)

    return make


def tensors(policy: TinyVLA, count: int = 8, seed: int = 0) -> TensorSplit:
    return TensorSplit.from_blockfind(BlockFind(count, seed), policy.language.encode, "cpu")


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestConfig:
    def test_shapes_come_from_the_models_files(self, folders):
        config = pretrained_config(folders["dinov2"], folders["phi"])
        assert (config.vision.embed_dim, config.vision.num_tokens) == (16, 17)  # 4 x 4 patches of 14 pixels, and CLS
        assert (config.language.embed_dim, config.language.vocab_size) == (16, 300)
        assert pretrained_config(folders["siglip-both"], None).vision.num_tokens == 16

    def test_survives_a_round_trip(self, configure):
        config = configure()
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_what_is_not_named_is_the_presets(self, folders):
        config = pretrained_config(None, folders["phi"], preset="nano")
        assert config.vision == pretrained_config(None, None, preset="nano").vision
        assert isinstance(pretrained_config(folders["siglip"], None).language, LanguageConfig)

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"source": ""}, "source is empty"),
            ({"embed_dim": 0}, "embed_dim is 0"),
            ({"dtype": "int8"}, "unknown dtype 'int8'; choose from float32"),
            ({"dtype": "bfloat16", "frozen": False}, "learning needs float32"),
        ],
    )
    def test_impossible_values_are_refused(self, values, says):
        with pytest.raises(InputError, match=says):
            PretrainedConfig(**{"source": "a/b", "embed_dim": 16, **values})

    @pytest.mark.parametrize(("slot", "kind", "says"), [
        ("vision", "resnet", "no patches"), ("vision", "phi", "no patches"),
        ("language", "t5", "no causal or encoder language model"), ("language", "dinov2", "no causal or encoder"),
    ])  # fmt: skip
    def test_models_that_do_not_fit_are_refused(self, folders, slot, kind, says):
        with pytest.raises(InputError, match=says):
            pretrained_config(**{"vision": None, "language": None, slot: folders[kind]})


class TestTowers:
    @pytest.mark.parametrize("kind", VISION)
    def test_tokens_are_those_of_the_model_itself(self, kind, folders):
        config = pretrained_config(folders[kind], None).vision
        tower = make_vision(config)
        images = torch.rand(3, 3, 64, 64)
        tokens = tower(images)
        assert tokens.shape == (3, config.num_tokens, 16)
        if kind == "siglip-both":
            model = transformers.SiglipModel.from_pretrained(folders[kind]).vision_model
        else:
            model = transformers.AutoModel.from_pretrained(folders[kind])
        with torch.no_grad():
            expected = model.eval()(pixel_values=tower.prepare(images)).last_hidden_state
        torch.testing.assert_close(tokens, expected)

    def test_pixels_are_prepared_as_the_models_own_image_processor_does(self, folders):
        processor_of = getattr(transformers, "SiglipImageProcessorPil", transformers.SiglipImageProcessor)
        images = torch.from_numpy(BlockFind(2, 0).images)
        theirs = processor_of.from_pretrained(folders["siglip"])(list(images.numpy()), return_tensors="pt")
        ours = make_vision(pretrained_config(folders["siglip"], None).vision).prepare(images.float() / 255)
        torch.testing.assert_close(ours, theirs["pixel_values"], atol=2.5 / 255 / 0.5, rtol=0)  # PIL rounds to bytes

    def test_nothing_is_cropped(self, folders):
        """DINOv2's centre crop would hide a block at the edge."""
        tower = make_vision(pretrained_config(folders["dinov2"], None).vision)
        empty, edge = (
            BlockFind.from_blocks(torch.tensor([[10, c]]).numpy(), torch.tensor([[0, 1]]).numpy()).images
            for c in (-1, 0)
        )
        seen = [tower.prepare(torch.from_numpy(image).float() / 255) for image in (empty, edge)]
        changed = (seen[0] != seen[1]).any(dim=1)[0]
        assert changed[:7, :7].all()  # 8 of 64 pixels are 7 of 56

    @pytest.mark.parametrize("kind", LANGUAGE)
    def test_padding_changes_nothing(self, kind, folders):
        tower = make_language(pretrained_config(None, folders[kind]).language)
        alone, beside = (
            tower.encode(["find the red block"]),
            tower.encode(["find the red block", f"{SENTENCES[-1]} {SENTENCES[-1]}"]),
        )
        assert beside[0].shape[1] > alone[0].shape[1]
        torch.testing.assert_close(tower.sentence(*beside)[0], tower.sentence(*alone)[0], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(*tower.sentence(*beside))

    @pytest.mark.parametrize("kind", LANGUAGE)
    def test_ids_and_states_are_those_of_the_models_own_tokenizer_and_class(self, kind, folders):
        tower = make_language(pretrained_config(None, folders[kind]).language)
        ids, mask = tower.encode(["find the red block"])
        assert (
            ids[0].tolist() == transformers.AutoTokenizer.from_pretrained(folders[kind])("find the red block").input_ids
        )
        model = transformers.AutoModel.from_pretrained(folders[kind]).eval()
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(tower(ids, mask), expected)

    @pytest.mark.parametrize("kind", LANGUAGE)
    def test_embedded_tokens_are_read_as_ids_are(self, kind, folders):
        """`read` is what prefix fusion uses; with words alone and the model's own mask it must say the same."""
        tower = make_language(pretrained_config(None, folders[kind]).language)
        ids, mask = tower.encode(SENTENCES)
        sees = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        allowed = sees if kind == "distilbert" else sees & torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        read = tower.read(tower.embed(ids), allowed)
        torch.testing.assert_close(read[mask], tower(ids, mask)[mask], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tower.read(tower.embed(ids), allowed, skip=2), read[:, 2:])

    @pytest.mark.parametrize(("text", "says"), [
        ("", "is empty"), (" ", "is empty"), ("find the mauve block", "no token for a part"),
        ("red " * 40, "tokens, at most 32 fit"),
    ])  # fmt: skip
    def test_instructions_that_cannot_be_read_are_refused(self, text, says, folders):
        tower = make_language(pretrained_config(None, folders["distilbert"]).language)
        with pytest.raises(InputError, match=says):
            tower.encode([text])

    def test_half_precision_is_for_frozen_towers(self, folders):
        config = pretrained_config(folders["siglip"], folders["llama"], dtype="bfloat16")
        vision, language = make_vision(config.vision), make_language(config.language)
        assert {p.dtype for tower in (vision, language) for p in tower.parameters()} == {torch.bfloat16}
        assert vision(torch.rand(1, 3, 64, 64)).dtype == torch.float32
        ids, mask = language.encode(SENTENCES[:2])
        assert language.sentence(ids, mask).dtype == torch.float32
        allowed = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        assert language.read(language.embed(ids), allowed).isfinite().all()


class TestPolicies:
    @pytest.mark.parametrize("kind", [*FUSION_KINDS, "vision-only", "language-only"])
    def test_every_fusion_takes_them(self, kind, configure):
        policy = new_policy(configure("siglip", "llama", fusion=kind), 0)
        assert policy.predict(BlockFind(2, 0).images, "find the red block").shape == (2, 2)

    @pytest.mark.parametrize("language", LANGUAGE)
    @pytest.mark.parametrize("vision", ["siglip", "dinov2"])
    def test_projection_fusion_and_head_learn_and_frozen_towers_do_not(self, vision, language, configure):
        policy = new_policy(configure(vision, language), 0)
        before, data = weights(policy), tensors(policy)
        losses = fit(policy, data, data, TrainConfig(epochs=8, learning_rate=1e-2))
        assert losses[-1]["train_loss"] < losses[0]["train_loss"]
        changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {name for name in before if name.startswith(("fusion.", "head."))}

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_towers_that_are_not_frozen_learn(self, optimizer, configure):
        policy = new_policy(configure("siglip", "distilbert", frozen=False), 0)
        before, data = weights(policy), tensors(policy)
        fit(policy, data, data, TrainConfig(epochs=2, optimizer=optimizer))
        changed = {name.split(".")[0] for name, value in policy.state_dict().items() if not value.equal(before[name])}
        assert changed == {"vision", "language", "fusion", "head"}

    def test_the_optimizer_holds_what_learns(self, configure):
        policy = new_policy(configure("siglip", None), 0)
        held = {id(p) for group in make_optimizer(policy, TrainConfig()).param_groups for p in group["params"]}
        assert held == {id(p) for p in policy.parameters() if p.requires_grad}
        assert not held & {id(p) for p in policy.vision.parameters()}

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_pretrained_weights_can_learn_more_slowly(self, optimizer, configure):
        policy = new_policy(configure("siglip", "distilbert", frozen=False), 0)
        config = TrainConfig(optimizer=optimizer, learning_rate=1e-2, pretrained_rate=0.1)
        made = make_optimizer(policy, config)
        set_learning_rate(made, 2e-2)
        towers = {id(p) for tower in (policy.vision, policy.language) for p in tower.parameters()}
        rates = {(id(p) in towers, round(group["lr"], 9)) for group in made.param_groups for p in group["params"]}
        assert rates == {(True, 2e-3), (False, 2e-2)}
        held = [id(p) for group in made.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in policy.parameters())
        decayed = {p.ndim == 1 for group in made.param_groups if group["weight_decay"] for p in group["params"]}
        assert decayed == {False}

    def test_frozen_towers_keep_acting_while_the_rest_trains(self, configure):
        """DistilBERT has dropout; a frozen one must not use it."""
        frozen = new_policy(configure("siglip", "distilbert"), 0).train()
        assert frozen.training
        assert not frozen.language.model.training
        assert new_policy(configure("siglip", "distilbert", frozen=False), 0).train().language.model.training

    def test_pretrained_weights_survive_the_drawing_of_initial_ones(self, configure, folders):
        policy = new_policy(configure("dinov2", "phi"), 0)
        model = transformers.AutoModel.from_pretrained(folders["phi"])
        assert same(weights(policy.language.model), weights(model))

    def test_one_seed_gives_one_policy(self, configure):
        first, second, other = (new_policy(configure("siglip", "phi"), seed) for seed in (0, 0, 1))
        assert same(weights(first), weights(second))
        assert not same(weights(first.fusion), weights(other.fusion))

    def test_slots_can_be_mixed_with_the_courses_own_towers(self, configure):
        for policy in (new_policy(configure("siglip", None), 0), new_policy(configure(None, "llama"), 0)):
            assert policy.predict(BlockFind(1, 0).images[0], "find the red block").shape == (2,)
            assert policy.num_parameters()["total"] == sum(p.numel() for p in policy.parameters())

    def test_it_can_be_evaluated_in_its_own_tokens(self, configure):
        policy = new_policy(configure("siglip", "distilbert"), 0).eval()
        report = evaluate(policy, BlockFind(20, 1), BlockFind(20, 2))
        assert report.policy.num_samples == 20

    def test_its_steps_are_not_recorded(self, configure):
        options = StepOptions(graph=True, bfloat16=True)
        assert options.supported_by(new_policy(configure("siglip", None), 0)) == StepOptions(bfloat16=True)

    def test_bfloat16_autocast_works(self, configure):
        policy = new_policy(configure("siglip", "llama"), 0)
        data = tensors(policy)
        config = TrainConfig(epochs=1)
        records = fit(policy, data, data, config, make_step(policy, data, config, StepOptions(bfloat16=True)))
        assert torch.isfinite(torch.tensor(records[0]["train_loss"]))


class TestCheckpoints:
    def trained(self, config: ModelConfig) -> TinyVLA:
        policy = new_policy(config, 0)
        data = tensors(policy)
        fit(policy, data, data, TrainConfig(epochs=1))
        return policy.eval()

    @pytest.mark.parametrize("frozen", [True, False])
    @pytest.mark.parametrize("language", LANGUAGE)
    def test_a_loaded_policy_acts_the_same(self, language, frozen, configure, tmp_path):
        policy = self.trained(configure("siglip-both", language, frozen=frozen))
        policy.save_pretrained(tmp_path)
        loaded = TinyVLA.from_pretrained(tmp_path)
        assert loaded.config == policy.config
        assert same(weights(loaded), weights(policy))
        assert not loaded.training
        data = tensors(policy, seed=5)
        assert torch.equal(predict_split(loaded, data), predict_split(policy, data))
        assert loaded.vision.model.training is False

    def test_frozen_towers_are_named_and_not_held(self, configure, tmp_path, folders):
        policy = self.trained(configure("siglip", "llama"))
        policy.save_pretrained(tmp_path)
        kept = load_file(tmp_path / "model.safetensors")
        assert {name.split(".")[0] for name in kept} == {"fusion", "head"}
        described = json.loads((tmp_path / "config.json").read_text())
        assert described["vision"]["source"] == folders["siglip"]
        assert described["language"]["frozen"] is True
        assert len(described["vision"]["fingerprint"]) == 12

    def test_towers_that_learned_are_held_and_need_no_source(self, tmp_path, tiny_config, configure):
        gone = {}
        for kind in ("dinov2", "phi"):
            (tmp_path / kind).mkdir()
            build(kind, tmp_path / kind)
            gone[kind] = str(tmp_path / kind)
        config = pretrained_config(gone["dinov2"], gone["phi"], "nano", frozen=False)
        policy = self.trained(config)
        policy.save_pretrained(tmp_path / "policy")
        for kind in gone:
            os.rename(gone[kind], gone[kind] + "-gone")
        loaded = TinyVLA.from_pretrained(tmp_path / "policy")
        assert same(weights(loaded), weights(policy))
        assert torch.equal(predict_split(loaded, tensors(policy)), predict_split(policy, tensors(policy)))
        with pytest.raises(InputError, match="cannot load"):
            new_policy(config, 0)  # a new one needs them

    def test_a_frozen_tower_whose_source_is_gone_is_asked_for(self, tmp_path, tiny_config):
        (tmp_path / "siglip").mkdir()
        build("siglip", tmp_path / "siglip")
        policy = self.trained(replace(tiny_config, vision=pretrained_config(str(tmp_path / "siglip"), None).vision))
        policy.save_pretrained(tmp_path / "policy")
        os.rename(tmp_path / "siglip", tmp_path / "gone")
        with pytest.raises(InputError, match=r"cannot load .*siglip"):
            TinyVLA.from_pretrained(tmp_path / "policy")

    def test_other_weights_at_the_same_source_are_refused(self, tmp_path, tiny_config):
        (tmp_path / "siglip").mkdir()
        build("siglip", tmp_path / "siglip")
        policy = self.trained(replace(tiny_config, vision=pretrained_config(str(tmp_path / "siglip"), None).vision))
        policy.save_pretrained(tmp_path / "policy")
        torch.manual_seed(99)
        build("siglip", tmp_path / "siglip")
        with pytest.raises(InputError, match="not those that the policy was trained with"):
            TinyVLA.from_pretrained(tmp_path / "policy")

    def test_mixed(self, configure, tmp_path):
        config = configure("siglip", "llama")
        policy = self.trained(replace(config, language=replace(config.language, frozen=False)))
        policy.save_pretrained(tmp_path)
        kept = {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")}
        assert kept == {"language", "fusion", "head"}
        assert same(weights(TinyVLA.from_pretrained(tmp_path)), weights(policy))

    def test_a_wrong_width_is_refused(self, configure):
        config = configure("siglip", None)
        with pytest.raises(InputError, match="is 16 wide, not 20"):
            new_policy(replace(config, vision=replace(config.vision, embed_dim=20)), 0)


class TestWithoutTheHub:
    """tests/conftest.py sets HF_HUB_OFFLINE."""

    @pytest.mark.parametrize("load", [
        lambda: pretrained_config("google/siglip-base-patch16-224", None),
        lambda: pretrained_config(None, "microsoft/phi-2"),
        lambda: make_vision(PretrainedConfig("google/siglip-base-patch16-224", 768)),
        lambda: make_language(PretrainedConfig("HuggingFaceTB/SmolLM2-135M", 576)),
    ])  # fmt: skip
    def test_one_message_says_what_to_do(self, load, monkeypatch, tmp_path):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(InputError) as caught:
            load()
        text = str(caught.value)
        assert caught.value.__cause__ is None
        for part in ("cannot load '", str(tmp_path), "hf download ", "HF_HUB_OFFLINE=1", "tinyvla.adapt.pretraining"):
            assert part in text, part
        assert "\n" not in text

    def test_so_does_a_network_that_does_not_answer(self, tmp_path):
        code = (
            "import time; time.sleep = lambda seconds: None  # the client waits longer before each of its retries\n"
            "from tinyvla.model.pretrained import pretrained_config; from tinyvla import InputError\n"
            "try: pretrained_config('google/siglip-base-patch16-224', None)\n"
            "except InputError as error: print(error)"
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        assert "cannot load 'google/siglip-base-patch16-224'" in done.stdout, done.stderr
        assert str(tmp_path) in done.stdout

    def test_a_folder_without_a_model_is_named(self, tmp_path):
        with pytest.raises(InputError, match="cannot load"):
            pretrained_config(str(tmp_path), None)


def test_the_plain_model_is_at_hand(configure):
    """Adapters look for linear layers under the names that transformers gives them."""
    policy = new_policy(configure("siglip", "llama"), 0)
    assert isinstance(policy.vision, PretrainedVision)
    for tower in (policy.vision, policy.language):
        assert isinstance(tower.model, transformers.PreTrainedModel)
        names = {name.split(".")[-1] for name, m in tower.model.named_modules() if isinstance(m, torch.nn.Linear)}
        assert {"q_proj", "v_proj"} <= names


def test_export_is_refused(configure):
    policy = new_policy(configure("siglip", None), 0)
    with pytest.raises(InputError, match="pretrained towers cannot be exported"):
        export_bytes(policy, ".pt2")


@pytest.mark.parametrize("learns", [False, True])
def test_the_command_line_trains_on_pretrained_towers(folders, tmp_path, capsys, learns):
    towers = ["--vision", folders["dinov2"], "--language", folders["llama"], *["--learn-towers"] * learns]
    places = ["--device", "cpu", "--out", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    sizes = ["--preset", "nano", "--num-train", "64", "--num-val", "16", "--num-test", "16", "--epochs", "1"]
    cli.main(["train", *towers, *sizes, *places])
    policy = TinyVLA.from_pretrained(tmp_path / "run" / "best")
    assert isinstance(policy.vision, PretrainedVision)
    assert any(p.requires_grad for p in policy.vision.parameters()) == learns
    cli.main(["train", "--resume", *places])
    assert "is complete" in capsys.readouterr().out
