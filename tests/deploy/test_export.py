from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from policies import awakened, batch_of

from tinyvla import BlockFind
from tinyvla.app import cli
from tinyvla.config import ModelConfig, ObservationConfig
from tinyvla.deploy import export
from tinyvla.deploy.export import check_parity, export_bytes, export_policy, load_exported, parity, run_bytes, usage
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.registry import HEAD_KINDS


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """Shapes are not checked while a policy is traced: the tracer cannot see through the checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def make(tiny_config: ModelConfig) -> Callable[..., TinyVLA]:
    def policy(fusion: str = "cross-attention", **head: object) -> TinyVLA:
        parts = {"fusion": replace(tiny_config.fusion, kind=fusion), "head": replace(tiny_config.head, **head)}
        made = awakened(new_policy(replace(tiny_config, **parts), seed=0))
        if made.config.head.normalization != "none":
            shape = (50, *made.head.shape) if made.config.head.horizon > 1 else (50, 2)
            made.fit_statistics(100 + 30 * torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        return made

    return policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_config) -> tuple[TinyVLA, Path]:
    """A policy and its ONNX file."""
    jaxtyping.config.update("jaxtyping_disable", True)
    policy, path = awakened(new_policy(tiny_config, seed=0)), tmp_path_factory.mktemp("export") / "policy.onnx"
    assert export_policy(policy, path) <= 1e-4
    return policy, path


def test_a_policy_that_normalises_acts_the_same_in_onnxruntime(make):
    """Every fusion and every head that can be exported does so in tests/model/test_whole_observation.py."""
    policy = make("gated", kind="l1", normalization="mean-std", horizon=3)
    run = run_bytes(export_bytes(policy, ".onnx"), ".onnx")
    assert check_parity(policy, run, BlockFind(5, seed=1)) <= 1e-4


def test_onnx_takes_any_batch_and_length(exported):
    policy, path = exported
    assert [file.name for file in path.parent.iterdir()] == ["policy.onnx"]  # weights included, nothing left over
    session = onnxruntime.InferenceSession(path)
    ins = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    assert ins == {
        "images": ("tensor(float)", ["batch", 3, 64, 64]),
        "input_ids": ("tensor(int64)", ["batch", "length"]),
        "attention_mask": ("tensor(bool)", ["batch", "length"]),
    }
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("actions", ["batch", 2])]
    policy.eval()
    for count, length in ((1, 1), (3, 32), (7, 5)):
        ids = torch.arange(count * length).view(count, length) % 3000
        mask = torch.ones(count, length, dtype=torch.bool)
        mask[0, 1 + length // 2 :] = False
        images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        given = {"images": images.numpy(), "input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, given)[0], policy(batch_of(images, ids, mask)), atol=1e-4)


def test_torch_program_acts_the_same_and_leaves_the_policy_alone(make, tmp_path):
    policy = make()
    path = tmp_path / "policy.pt2"
    assert export_policy(policy, path, BlockFind(5, seed=1)) <= 1e-4
    assert parity(policy, load_exported(path), BlockFind(3, seed=2)) <= 1e-4
    assert policy.language.sentence != policy.language.mean_state  # the policy itself is as it was
    assert policy.training
    assert all(p.requires_grad for p in policy.parameters())
    run_example(path)


def run_example(path: Path) -> None:
    code = usage(path)
    assert len(code.splitlines()) == 3
    assert str(encode(["find the red block"])[0][0].tolist()) in code
    said = io.StringIO()
    with redirect_stdout(said):
        exec(code, {})
    assert said.getvalue().count(".") == 2  # two numbers


def test_the_printed_example_runs(exported):
    run_example(exported[1])


def test_another_policy_is_not_taken_for_the_same(exported, make):
    policy, path = exported
    other = make()
    with torch.no_grad():
        other.head.output.bias.add_(0.1)
    assert parity(other, load_exported(path)) > 0.01
    with pytest.raises(InputError, match=r"differ from the policy's by up to 0\.\d+"):
        check_parity(other, load_exported(path))
    with pytest.raises(InputError, match="up to nan"):
        check_parity(policy, lambda batch: torch.full((len(batch), 2), torch.nan))


@pytest.mark.parametrize("kind", [kind for kind in HEAD_KINDS if kind not in export.EXPORTABLE_HEADS])
def test_heads_that_draw_are_refused(kind, make, tmp_path):
    with pytest.raises(InputError, match=f"a {kind} head draws .* regression, l1, directions"):
        export_policy(make(kind=kind), tmp_path / "policy.onnx")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("policy.h5", "policy.h5; its name must end with .onnx, .pt2"),
        ("policy", "policy; its name must end with"),
        ("none/p.onnx", "no folder"),
    ],
)
def test_unusable_paths_are_refused(name, says, tiny_policy, tmp_path):
    with pytest.raises(InputError, match=says):
        export_policy(tiny_policy, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(package, tiny_policy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'ONNX needs {package}: pip install "tinyvla\[export\]"'):
        export_policy(tiny_policy, tmp_path / "policy.onnx")


def test_missing_statistics_are_noticed(tiny_config, tmp_path):
    config = replace(tiny_config, head=replace(tiny_config.head, normalization="mean-std"))
    with pytest.raises(InputError, match="has no statistics"):
        export_policy(new_policy(config, seed=0), tmp_path / "policy.onnx")


def test_a_policy_too_large_for_onnx_is_sent_to_pt2(tiny_policy, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(InputError, match=r"export it to a \.pt2 file"):
        export_policy(tiny_policy, tmp_path / "policy.onnx")


def test_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load_exported(tmp_path / "none.onnx")
    for name in ("bad.onnx", "bad.pt2"):
        (tmp_path / name).write_bytes(b"nothing of use")
        with pytest.raises(InputError, match="not a usable"):
            load_exported(tmp_path / name)


@pytest.fixture
def checkpoint(make, tmp_path) -> Path:
    make().save_pretrained(tmp_path / "best")
    return tmp_path / "best"


def test_the_verb_reports_size_difference_and_use(checkpoint, make, tmp_path, capsys):
    out = tmp_path / "policy.PT2"
    cli.main(["export", "--checkpoint", str(checkpoint), "--out", str(out)])
    said = capsys.readouterr().out
    assert f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB" in said
    assert "largest difference" in said
    assert usage(out) in said
    assert parity(make(), load_exported(out)) <= 1e-4


@pytest.mark.parametrize("name", ["policy.pt2", "POLICY.PT2", "policy.ONNX"])
def test_the_printed_example_of_a_robots_policy_runs(name, tiny_config, tmp_path, capsys):
    robot = ObservationConfig(("top", "wrist"), 3, state_normalization="none")
    head = replace(tiny_config.head, action_dim=4, horizon=2)
    new_policy(replace(tiny_config, observation=robot, head=head), 0).save_pretrained(tmp_path / "robot")
    cli.main(["export", "--checkpoint", str(tmp_path / "robot"), "--out", str(tmp_path / name)])
    code = capsys.readouterr().out.split("next, in Python:\n\n")[1]
    exec(code, {})
    assert capsys.readouterr().out.count(".") == 8


def test_the_verb_writes_nothing_where_parity_fails(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "export_bytes", lambda policy, suffix: b"another policy's")
    monkeypatch.setattr(export, "run_bytes", lambda data, suffix: lambda batch: torch.ones(len(batch), 2))
    out = tmp_path / "policy.pt2"
    out.write_text("an earlier one")
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "--checkpoint", str(checkpoint), "--out", str(out)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "nothing was written" in said
    assert len(said.splitlines()) == 1
    assert out.read_text() == "an earlier one"
