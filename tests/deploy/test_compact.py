from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from policies import awakened

from tinyvla import BlockFind
from tinyvla.app import cli
from tinyvla.config import ModelConfig, ObservationConfig
from tinyvla.deploy.compact import compact, compact_bytes, export_compact, load_compact
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.show.attention import attention_map

KNOWN = ["find the red block", "find the blue block"]
TYPED = [*KNOWN, "find the crimson block", "go to any odd thing, please!"]


@pytest.fixture(autouse=True, scope="module")
def unchecked():
    """Shapes are not checked while a policy is traced: the tracer cannot see through the checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def learned(config: ModelConfig) -> TinyVLA:
    """A policy that has heard two sentences."""
    policy = awakened(new_policy(config, seed=0)).eval()
    policy.language.note_words(encode(KNOWN)[0])
    return policy


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_config):
    policy, path = learned(tiny_config), tmp_path_factory.mktemp("compact") / "policy.onnx"
    assert export_compact(policy, path) <= 1e-4
    return policy, path


def predicted(policy: TinyVLA, images: np.ndarray, text: str) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return policy.predict(images, text)


def test_the_file_answers_any_sentence_as_pytorch_does(written):
    policy, path = written
    small, split = compact(policy), BlockFind(5, seed=3)
    session = onnxruntime.InferenceSession(path)
    assert [each.name for each in session.get_outputs()] == ["actions", "attention"]
    for text in TYPED:
        ids, mask = encode([text] * len(split))
        inputs = {
            "images": split.images.astype(np.float32) / 255,
            "input_ids": ids.numpy(),
            "attention_mask": mask.numpy(),
        }
        actions, attention = session.run(None, inputs)
        np.testing.assert_allclose(actions, predicted(small, split.images, text).numpy(), atol=1e-5)
        np.testing.assert_allclose(attention[0], attention_map(small, split.images[0], text), atol=1e-5)


def test_what_is_lost_is_rounding_and_words_that_were_never_heard(written):
    policy, _ = written
    small, image = compact(policy), BlockFind(1, seed=3).images[0]
    for text in KNOWN:
        difference = (policy.predict(image, text) - small.predict(image, text)).abs().max()
        assert 0 < difference < 1e-2
    one, other = (predicted(small, image, f"find the {word} block") for word in ("crimson", "silver"))
    assert torch.equal(one, other)
    assert not torch.equal(one, small.predict(image, KNOWN[0]))
    assert not torch.equal(*(predicted(policy, image, f"find the {word} block") for word in ("crimson", "silver")))


def test_the_file_is_small_and_can_be_read_back(written):
    policy, path = written
    rest = policy.num_parameters()["total"] - policy.num_parameters()["token embedding"]
    assert path.stat().st_size < 2 * rest + 150_000  # the table of ids, and the graph
    back, small = load_compact(path), compact(policy)
    assert back.config == small.config
    for (name, mine), theirs in zip(back.state_dict().items(), small.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert back.language.unseen_words("find the crimson block") == ["crimson"]


def test_a_fusion_without_a_map_gives_actions_alone(tiny_config):
    policy = learned(replace(tiny_config, fusion=replace(tiny_config.fusion, kind="pool-add")))
    session = onnxruntime.InferenceSession(compact_bytes(compact(policy)))
    assert [each.name for each in session.get_outputs()] == ["actions"]


def test_what_has_no_compact_form_is_refused(tiny_config, tmp_path):
    policy = learned(tiny_config)
    with pytest.raises(InputError, match="no record of the words"):
        compact(new_policy(tiny_config, seed=0))
    with pytest.raises(InputError, match="one camera and no state"):
        compact_bytes(learned(replace(tiny_config, observation=ObservationConfig(cameras=("a", "b")))))
    with pytest.raises(InputError, match="draws its answer"):
        compact_bytes(learned(replace(tiny_config, head=replace(tiny_config.head, kind="flow"))))
    with pytest.raises(InputError, match="onnx"):
        export_compact(policy, tmp_path / "policy.pt2")
    with pytest.raises(InputError, match="there is no file"):
        load_compact(tmp_path / "nothing.onnx")
    (tmp_path / "other.onnx").write_bytes(b"something else")
    with pytest.raises(InputError, match="not a compact policy"):
        load_compact(tmp_path / "other.onnx")


def with_note(**changes: Any) -> Callable[[Any], None]:
    """A change of what the file says of its policy."""

    def change(model: Any) -> None:
        about = json.loads(model.metadata_props[0].value)
        about |= {key: value(about[key]) if callable(value) else value for key, value in changes.items()}
        model.metadata_props[0].value = json.dumps(about)

    return change


def elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")


def nan(model: Any) -> None:
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.nan, tensor.name))


def config_with(part: str, **values: Any) -> Callable[[Any], None]:
    return with_note(config=lambda config: {**config, part: {**config[part], **values}})


DAMAGES: dict[str, Callable[[Any], Any]] = {
    **{f"note {x!r}": lambda m, x=x: setattr(m.metadata_props[0], "value", x) for x in ("", "{", "[]", "5", "{}")},
    **{f"config {x!r}": with_note(config=x) for x in (5, None, [], {"head": 5})},
    **{f"weights {x!r}": with_note(weights=x) for x in (5, None, [], {}, {"a": 5}, {"a": ["b", 1]}, {"a": [[], 1]})},
    **{f"rows {x!r}": with_note(row_of_id=x) for x in (5, None, [], "none")},
    "a weight too many": with_note(weights=lambda weights: {**weights, "extra": next(iter(weights.values()))}),
    "most weights left out": with_note(weights=lambda w: {k: w[k] for k in w if "token_embedding" in k}),
    "weights exchanged": with_note(
        weights=lambda w: dict(zip(w, [*list(w.values())[1:], next(iter(w.values()))], strict=True))
    ),
    "rows that are weights": with_note(row_of_id=lambda name: "none"),
    "a large tower": config_with("vision", embed_dim=8_192, num_heads=8, num_layers=256),
    "more words": config_with("language", vocab_size=20_000),
    "another tower": with_note(config=lambda c: {**c, "vision": {"source": "nobody/nothing", "embed_dim": 32}}),
    "weights elsewhere": elsewhere,
    "weights of NaN": nan,
    "no weights": lambda model: model.graph.ClearField("initializer"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(damage, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(written[1].read_bytes())
    damage(model)
    (tmp_path / "damaged.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"is damaged|is not a compact policy") as caught:
        load_compact(tmp_path / "damaged.onnx")
    assert "\n" not in str(caught.value)


def test_the_command_writes_it(tiny_config, tmp_path, monkeypatch, capsys):
    learned(tiny_config).save_pretrained(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    cli.main(["export", "--checkpoint", "policy", "--compact", "--out", "small.onnx"])
    assert load_compact("small.onnx").config == tiny_config
    assert "largest difference" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        cli.main(["export", "--checkpoint", "policy", "--compact", "--out", "small.pt2"])
    assert refused.value.code == 2
