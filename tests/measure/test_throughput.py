from __future__ import annotations

import json

import pytest

from tinyvla.config import PRESETS
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.measure.throughput import kind_of, report, step_flops, table, throughput
from tinyvla.model.tokenizer import encode
from tinyvla.speed.tuned import PLAIN


def test_flops_grow_with_the_preset_and_the_batch():
    flops = [step_flops(config, 64) for config in PRESETS.values()]
    assert flops == sorted(flops)
    # 6 operations per weight and token: 1.8 M weights, 64 x 65 tokens; attention adds a little.
    assert 1.0 < flops[1] / (6 * 1.78e6 * 64 * 65) < 1.2
    assert 1.9 < step_flops(PRESETS["minimal"], 128) / flops[1] < 2.0


def test_a_steps_time_and_arithmetic_agree(tiny_config):
    train = TensorSplit.from_blockfind(BlockFind(64, 42), encode)
    row = throughput(tiny_config, train, PLAIN, batch_size=32, num_steps=3)
    assert row["scenes_per_second"] == pytest.approx(32 / row["seconds_per_step"])
    assert row["flops_per_second"] == pytest.approx(step_flops(tiny_config, 32) / row["seconds_per_step"])


def test_the_report_is_json_and_a_table(tiny_config):
    train = TensorSplit.from_blockfind(BlockFind(64, 42), encode)
    result = json.loads(json.dumps(report({"tiny": tiny_config}, train, 32, PLAIN)))
    assert 0 < result["presets"]["tiny"]["mfu"] < 1
    assert "tiny" in table(result)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_sm90_tst_96x64_64x8", "matrix products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", "attention"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel", "optimizer and clipping"),
        ("void at::native::vectorized_elementwise_kernel<8, at::nat", "pointwise"),
        ("something new", "other"),
    ],
)
def test_kernels_are_sorted_by_name(kernel, kind):
    assert kind_of(kernel) == kind


@pytest.mark.gpu
def test_on_a_gpu_there_is_a_profile():
    train = TensorSplit.from_blockfind(BlockFind(500, 42), encode, "cuda")
    row = throughput(PRESETS["nano"], train)
    assert 0 < row["peak_gpu_memory_gb"] < 2
    assert row["profile"]["kernels"] > 50
    assert 0 < row["profile"]["busy_share"] <= 1
