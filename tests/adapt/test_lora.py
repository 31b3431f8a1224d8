from __future__ import annotations

import copy
import sys

import pytest
import torch
from policies import awakened
from test_pretrained import build
from torch import nn

from tinyvla.adapt.lora import (
    TARGETS,
    adapter_off,
    add_lora,
    base_fingerprint,
    has_adapter,
    load_adapter,
    merge,
    save_adapter,
    target_layers,
    trainable_parameters,
)
from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import NEW_PALETTE, BlockFind, ChangedFind
from tinyvla.errors import InputError
from tinyvla.learn.evaluate import swap_accuracy
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import fit, train_step
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import pretrained_config
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import TrainConfig
from tinyvla.speed.patching import one_product
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

SETTINGS = TrainConfig(epochs=2, batch_size=32, learning_rate=3e-3)
ALL = ("attention", "mlp", "inputs", "embedding", "head")


@pytest.fixture(scope="module")
def data() -> TensorSplit:
    return TensorSplit.from_blockfind(ChangedFind(128, seed=1), encode)


def answers(policy: TinyVLA, data: TensorSplit) -> torch.Tensor:
    batch = data.take(slice(32))
    with torch.no_grad():
        return policy.eval()(batch)


@pytest.fixture
def adapted(tiny_policy, data) -> TinyVLA:
    """With an adapter that has been trained a little, so that no part of it is zero."""
    policy = add_lora(tiny_policy, rank=4, targets=ALL)
    fit(policy, data, data, SETTINGS)
    return policy.eval()


@pytest.mark.parametrize("targets", [("attention", "inputs"), ALL, ("mlp.hidden",)])
def test_a_fresh_adapter_changes_no_answer(tiny_policy, data, targets):
    before = answers(tiny_policy, data)
    assert add_lora(tiny_policy, rank=4, targets=targets) is tiny_policy
    assert torch.equal(answers(tiny_policy, data), before)


def test_a_layer_computes_what_the_paper_says(tiny_policy):
    layer, x = tiny_policy.vision.blocks[0].attention.query, torch.randn(5, 16)
    weight, bias = layer.weight.clone(), layer.bias.clone()
    add_lora(tiny_policy, rank=3, alpha=12.0)
    layer = tiny_policy.vision.blocks[0].attention.query
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == ((3, 16), (16, 3))
    assert not b.any()
    nn.init.normal_(b)
    torch.testing.assert_close(layer(x), x @ weight.T + bias + 12 / 3 * x @ a.T @ b.T)


def test_only_the_adapter_is_trained(tiny_policy, data):
    policy = add_lora(tiny_policy, rank=2)
    names = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    trained, total = trainable_parameters(policy)
    layers = [m for name, m in policy.named_modules() if hasattr(m, "lora_A")]
    assert trained == sum(2 * (layer.in_features + layer.out_features) for layer in layers)
    assert total == sum(p.numel() for p in policy.parameters())
    optimized = [p for group in make_optimizer(policy, SETTINGS).param_groups for p in group["params"]]
    assert sum(p.numel() for p in optimized) == trained
    before, base = copy.deepcopy(policy.state_dict()), base_fingerprint(policy)
    records = fit(policy, data, data, SETTINGS)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert base_fingerprint(policy) == base
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {*names, "language.seen"}  # a record of the training's words, and no weight


def test_every_preset_can_be_adapted_with_two_percent():
    for config in (PRESETS["minimal"], PRESETS["medium"], PRESETS["smolvla_like"]):
        with torch.device("meta"):
            policy = add_lora(TinyVLA(config))
        trained, total = trainable_parameters(policy)
        assert trained / total <= 0.02


def test_the_seed_decides_the_beginning(tiny_config):
    first, same, other = (add_lora(new_policy(tiny_config, 0), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_saved_and_loaded_it_answers_the_same(adapted, tiny_config, data, tmp_path):
    save_adapter(adapted, tmp_path / "adapter")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = awakened(new_policy(tiny_config, seed=0))
    plain = answers(base, data)
    loaded = load_adapter(base, tmp_path / "adapter")
    assert not loaded.training
    assert torch.equal(answers(loaded, data), answers(adapted, data))
    assert not torch.allclose(plain, answers(adapted, data), atol=1e-3)


def test_peft_itself_can_load_the_folder(adapted, tiny_config, data, tmp_path):
    from peft import PeftModel

    save_adapter(adapted, tmp_path)
    theirs = PeftModel.from_pretrained(awakened(new_policy(tiny_config, seed=0)), str(tmp_path))
    assert torch.equal(answers(theirs.base_model.model, data), answers(adapted, data))


def test_it_is_refused_on_another_base(adapted, tiny_config, data, tmp_path):
    save_adapter(adapted, tmp_path)
    other = new_policy(tiny_config, seed=1)
    before = answers(other, data)
    with pytest.raises(InputError, match="trained on a base with fingerprint"):
        load_adapter(other, tmp_path)
    assert not has_adapter(other)
    assert torch.equal(answers(other, data), before)


def test_merged_it_is_a_plain_policy_with_the_same_answers(adapted, tiny_config, data, tmp_path):
    before = answers(adapted, data)
    merged = merge(adapted)
    assert not has_adapter(merged)
    torch.testing.assert_close(answers(merged, data), before, rtol=0, atol=1e-5)
    assert merged.state_dict().keys() == new_policy(tiny_config, 0).state_dict().keys()
    assert all(p.requires_grad for p in merged.parameters())
    merged.save_pretrained(tmp_path)
    assert torch.equal(answers(TinyVLA.from_pretrained(tmp_path), data), answers(merged, data))
    add_lora(merged, rank=1)  # and it can be adapted again


def test_with_the_adapter_off_the_base_answers(adapted, tiny_config, data):
    before = answers(adapted, data)
    with adapter_off(adapted):
        assert torch.equal(answers(adapted, data), answers(awakened(new_policy(tiny_config, 0)), data))
    assert torch.equal(answers(adapted, data), before)
    assert trainable_parameters(adapted)[0] > 0


def test_the_fast_step_does_not_pass_an_adapter_by(adapted, data):
    """One product for the three projections would multiply the frozen weights and forget the adapter."""
    before = answers(adapted, data)
    with one_product(adapted):
        assert not any("project" in vars(m) for m in adapted.modules())
        assert torch.equal(answers(adapted, data), before)


def test_where_one_projection_is_adapted_all_three_take_the_ordinary_path(tiny_policy, data):
    policy = add_lora(tiny_policy, rank=4, targets=("vision.blocks.0.attention.value",))
    nn.init.normal_(policy.vision.blocks[0].attention.value.lora_B["default"].weight)
    before = answers(policy, data)
    with one_product(policy):
        assert "project" not in vars(policy.vision.blocks[0].attention)
        assert "project" in vars(policy.language.blocks[0].attention)
        torch.testing.assert_close(answers(policy, data), before, rtol=0, atol=1e-5)


TOWERS = [("siglip", "phi"), ("siglip-both", "llama"), ("dinov2", "distilbert")]


@pytest.mark.parametrize(("vision", "language"), TOWERS)
def test_transformers_towers_can_be_adapted_saved_loaded_and_merged(vision, language, tmp_path):
    """The frozen ones too, which is what adapters are for."""
    folders = {}
    for kind in (vision, language):
        folders[kind] = tmp_path / kind
        folders[kind].mkdir()
        torch.manual_seed(0)
        build(kind, folders[kind])

    def base() -> TinyVLA:
        return new_policy(pretrained_config(str(folders[vision]), str(folders[language]), "nano"), seed=0)

    policy = add_lora(base(), rank=2, targets=("attention", "mlp", "embedding"))
    towers = {name.split(".")[0] for name, p in policy.named_parameters() if p.requires_grad}
    assert towers == {"vision", "language", "fusion"}
    layers = {name.rsplit(".lora_A", 1)[0] for name, p in policy.named_parameters() if ".lora_A." in name}
    assert len(layers) == {"phi": 28, "llama": 30, "distilbert": 28}[language]
    train = TensorSplit.from_blockfind(BlockFind(32, 1), policy.language.encode, "cpu")
    plain, hashed = answers(base(), train), base_fingerprint(policy)
    assert torch.equal(answers(policy, train), plain)
    fit(policy, train, train, SETTINGS)
    changed = answers(policy, train)
    assert (changed - plain).abs().max() > 1e-3
    assert base_fingerprint(policy) == hashed
    save_adapter(policy, tmp_path / "adapter")
    assert torch.equal(answers(load_adapter(base(), tmp_path / "adapter"), train), changed)
    merge(policy).save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(answers(policy, train), changed, rtol=0, atol=1e-5)
    again = TinyVLA.from_pretrained(tmp_path / "merged")
    assert torch.equal(answers(again, train), answers(policy, train))


def losses(device: str, options: StepOptions) -> torch.Tensor:
    train = TensorSplit.from_blockfind(ChangedFind(128, 1), encode, device)
    policy = add_lora(new_policy(PRESETS["nano"], 0), rank=4, targets=ALL).to(device)
    step = make_step(policy, train, SETTINGS, options)
    return torch.stack([step(torch.arange(n, n + 32, device=device)) for n in range(20)])


def test_bfloat16_gives_the_same_losses_up_to_rounding():
    assert (losses("cpu", StepOptions()) - losses("cpu", StepOptions(bfloat16=True))).abs().max() < 0.03


@pytest.mark.gpu
def test_the_recorded_step_gives_the_plain_losses_up_to_rounding():
    plain, recorded = losses("cuda", StepOptions()), losses("cuda", StepOptions(graph=True))
    assert plain[-1] < plain[0]
    assert (plain - recorded).abs().max() < 0.01


def test_frozen_towers_get_no_gradient(tiny_policy, data):
    for tower in (tiny_policy.vision, tiny_policy.language):
        tower.requires_grad_(False)
    before = copy.deepcopy(tiny_policy.state_dict())
    train_step(tiny_policy, make_optimizer(tiny_policy, SETTINGS), data.take(slice(32)), 1.0)
    changed = {name for name, value in tiny_policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("fusion", "head")) for name in changed)


def test_target_layers_are_those_of_the_group(tiny_policy):
    names = target_layers(tiny_policy, ("attention",))
    assert "vision.blocks.0.attention.output" in names
    assert "fusion.attention.query" in names
    assert not any("mlp" in name for name in names)
    assert target_layers(tiny_policy, ("head",)) == ["head.hidden", "head.output"]
    assert set(target_layers(tiny_policy, tuple(TARGETS))) == {
        name for name, m in tiny_policy.named_modules() if isinstance(m, nn.Linear | nn.Embedding)
    }


def test_what_cannot_be_done_is_refused(tiny_policy, adapted, tmp_path):
    with pytest.raises(InputError, match="rank is 0"):
        add_lora(tiny_policy, rank=0)
    with pytest.raises(InputError, match="has an adapter already"):
        add_lora(adapted)
    with pytest.raises(InputError, match="write it with save_adapter"):
        adapted.save_pretrained(tmp_path / "checkpoint")
    plain = merge(adapted)
    with pytest.raises(InputError, match="fits the target 'no_such_layer'"):
        add_lora(plain, targets=("no_such_layer",))
    for act in (merge, lambda policy: save_adapter(policy, tmp_path), lambda policy: adapter_off(policy).__enter__()):
        with pytest.raises(InputError, match="has no adapter"):
            act(plain)
    with pytest.raises(InputError, match="holds no adapter"):
        load_adapter(plain, tmp_path / "nothing")


def test_a_damaged_file_is_reported(adapted, tiny_config, tmp_path):
    save_adapter(adapted, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        load_adapter(awakened(new_policy(tiny_config, 0)), tmp_path)


def test_without_peft_the_message_says_what_to_install(tiny_policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r'pip install "tinyvla\[lora\]"'):
        add_lora(tiny_policy)


def test_the_changed_task_has_other_colours_and_words():
    old, new = BlockFind(50, 3), ChangedFind(50, 3)
    assert (old.cells == new.cells).all()
    assert (old.actions == new.actions).all()
    assert not set(old.instructions) & set(new.instructions)
    assert new[7].instruction == new.instructions[7]
    assert new[7].colors[0] in new[7].instruction
    assert type(new.retargeted()) is ChangedFind


def test_a_swap_keeps_the_changed_task(tiny_config, monkeypatch):
    """New colours and wordings, not those of BlockFind, whose colours have the same numbers."""
    asked = []
    policy = new_policy(tiny_config, 0)
    encode = policy.language.encode
    monkeypatch.setattr(policy.language, "encode", lambda texts: asked.extend(texts) or encode(texts))
    swap_accuracy(policy, ChangedFind(50, 1))
    assert asked
    assert all(any(color in text for color in NEW_PALETTE) for text in asked)
