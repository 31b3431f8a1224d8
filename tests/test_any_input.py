"""Whatever Hypothesis thinks of: settings, sentences, images and Parquet columns end well or in an `InputError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyvla.config import ModelConfig
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import read_dataset, write_dataset
from tinyvla.errors import InputError
from tinyvla.learn.checkpoint import RunSettings
from tinyvla.model.policy import TinyVLA, new_policy

QUICK = settings(
    max_examples=150,
    deadline=2_000,  # milliseconds
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
PARTS = {
    "vision": ("image_size", "patch_size", "num_channels", "embed_dim", "num_layers", "num_heads", "mlp_ratio"),
    "language": ("vocab_size", "max_length", "embed_dim", "num_layers", "num_heads", "mlp_ratio", "source"),
    "fusion": ("kind", "embed_dim", "num_heads"),
    "head": ("action_dim", "hidden_dim", "kind", "horizon", "num_bins", "fast_scale", "normalization", "statistics"),
    "observation": ("cameras", "state_dim", "resize", "state_normalization"),
}
SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 64, 1000, 8192, 2**31, 10**12, -5, 4.0, True, None, "8"])
CONFIGS = st.fixed_dictionaries(
    {}, optional={part: st.dictionaries(st.sampled_from(names), SIZES | JSON) for part, names in PARTS.items()}
)


def done(call: Callable[[], Any]) -> Any:
    """What a call gives, or None where it is refused, in one line."""
    try:
        return call()
    except InputError as error:
        said = str(error)
    assert 10 < len(said) < 900
    assert "\n" not in said
    return None


@pytest.fixture(autouse=True)
def as_users_have_it():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def policy(tiny_config) -> TinyVLA:
    return new_policy(tiny_config, 0).eval()


@pytest.fixture(scope="module")
def checkpoint(tiny_config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    new_policy(tiny_config, 0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    images = {"front": np.zeros((4, 3, 8, 8), np.uint8)}
    actions = np.zeros((4, 2), np.float32)
    recorded = Demonstrations(images, actions, ["go"] * 4, np.array([0, 0, 1, 1]), actions)
    return write_dataset(recorded, tmp_path_factory.mktemp("data") / "set")


@QUICK
@given(JSON | CONFIGS)
def test_any_settings(values):
    config = done(lambda: ModelConfig.from_dict(values))
    assert config is None or ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@QUICK
@given(CONFIGS)
def test_any_settings_of_a_checkpoint(checkpoint, values):
    """Either it is loaded, or refused before a hostile size has cost anything."""
    path = checkpoint / "config.json"
    kept = path.read_text()
    saved = json.loads(kept)
    path.write_text(json.dumps({part: {**saved[part], **values.get(part, {})} for part in saved}))
    try:
        done(lambda: TinyVLA.from_pretrained(checkpoint))
    finally:
        path.write_text(kept)


@QUICK
@given(st.dictionaries(st.sampled_from(["model", "train", "data", "step", "files"]), JSON))
def test_any_settings_of_a_run(values):
    made = done(lambda: RunSettings.from_dict(values))
    assert made is None or done(lambda: RunSettings.from_dict(made.to_dict())) == made


@QUICK
@given(st.text(st.characters(exclude_categories=()), max_size=60) | JSON)
def test_any_sentence(policy, text):
    action = done(lambda: policy.predict(np.zeros((3, 64, 64), np.uint8), text))
    assert action is None or torch.isfinite(action).all()


SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, max_side=5) | st.sampled_from([(3, 8, 8), (8, 8, 3), (2, 3, 4, 4)])
KINDS = hnp.scalar_dtypes() | st.sampled_from(["uint8", "float32", "float64", "object"]).map(np.dtype)


@QUICK
@given(KINDS.flatmap(lambda kind: hnp.arrays(kind, SHAPES, elements=st.integers() if kind.hasobject else None)))
def test_any_image(policy, image):
    action = done(lambda: policy.predict(image, "find the red block"))
    assert action is None or torch.isfinite(action).all()


CELLS = {
    "action": st.none() | st.floats() | st.lists(st.floats(width=32) | st.none(), max_size=3) | st.text(max_size=3),
    "task_index": st.none() | st.integers(-2, 2) | st.floats(),
    "episode_index": st.none() | st.integers(-2, 2) | st.text(max_size=2),
    "index": st.none() | st.integers() | st.floats(),
    "observation.images.front": st.none()
    | st.binary(max_size=9)
    | st.builds(lambda b: {"bytes": b}, st.binary(max_size=30)),
}


@QUICK
@given(st.sampled_from(sorted(CELLS)).flatmap(lambda name: st.tuples(st.just(name), st.lists(CELLS[name], max_size=5))))
def test_any_column(dataset, column):
    name, cells = column
    path = dataset / "data/chunk-000/file-000.parquet"
    kept = path.read_bytes()
    table = pq.read_table(path)
    try:
        array = pa.array((cells * 4)[: len(table)])
        spoiled = table.set_column(table.column_names.index(name), name, array)
        pq.write_table(spoiled, path)
    except (pa.ArrowException, OverflowError):
        return  # such a column there cannot be
    try:
        done(lambda: read_dataset(dataset))
    finally:
        path.write_bytes(kept)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(dataset, data):
    for name in ("data/chunk-000/file-000.parquet", "meta/tasks.parquet", "meta/info.json"):
        kept = (dataset / name).read_bytes()
        (dataset / name).write_bytes(data)
        with pytest.raises(InputError):
            read_dataset(dataset)
        (dataset / name).write_bytes(kept)
