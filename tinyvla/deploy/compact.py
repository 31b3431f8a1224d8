"""A policy for a web page: an ONNX file of about a tenth of the size, which also says where the policy looks.

Notable:
- words that training never showed have rows of the embedding that are still noise. They share one row, [UNK]'s, so the
  file holds a row for each word that was learned and a table from token ids to rows;
- weights are rounded to half precision, and the file stores them in two bytes. `compact` does both to the policy
  itself, so what PyTorch answers with `compact(policy)` is what the page answers;
- `load_compact` reads the file back into a `TinyVLA`: one file serves the page and the tests that hold it to PyTorch.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from tinyvla.config import ModelConfig, PretrainedConfig
from tinyvla.data.batch import Batch
from tinyvla.data.dataset import BlockFind
from tinyvla.deploy.export import (
    EXPORTABLE_HEADS,
    WORDS,
    _free_copy,
    _need,
    _quiet,
    check_parity,
    example_batch,
    input_names,
    run_bytes,
)
from tinyvla.errors import InputError
from tinyvla.fields import check, checked, shown
from tinyvla.files import as_path, check_is_no_pointer, check_output, write_atomically
from tinyvla.model.fusion import CrossAttention
from tinyvla.model.language import TinyLanguageModel
from tinyvla.model.policy import TinyVLA
from tinyvla.model.tokenizer import vocabulary
from tinyvla.model.vision import TinyViT

ABOUT = "tinyvla"
"""The entry of the file's metadata that `load_compact` reads."""


class SharedRows(nn.Module):
    """An embedding in which many ids share a row."""

    def __init__(self, rows: Float[Tensor, "k d"], row_of_id: Int[Tensor, "v"]) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows, requires_grad=False)
        kind = torch.uint8 if len(rows) <= 256 else torch.int32
        self.register_buffer("row_of_id", row_of_id.to(kind))

    def forward(self, input_ids: Int[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Returns the row of each id."""
        return self.rows[self.row_of_id[input_ids].long()]  # type: ignore[index]


@checked
def compact(policy: TinyVLA) -> TinyVLA:
    """Returns a copy of a policy, on the CPU, as a compact file holds it: rounded, unseen words as [UNK].

    Raises:
        InputError: it has other towers than the course's own, or no record of the words of its training.
    """
    if not isinstance(policy.language, TinyLanguageModel) or not isinstance(policy.vision, TinyViT):
        raise InputError("only a policy with the course's own towers has a compact form")
    if not bool(policy.language.seen.any()):
        raise InputError("this policy has no record of the words of its training, so none can be left out; train it")
    small = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
    rows: Any = small.language.token_embedding.weight
    rows[~policy.language.seen.cpu()] = rows[vocabulary()["[UNK]"]].clone()
    for parameter in small.parameters():
        parameter.copy_(parameter.half().float())
    return small


@checked
def export_compact(policy: TinyVLA, path: str | Path, split: BlockFind | None = None) -> float:
    """Write the compact form of a policy as ONNX, once it has been compared.

    The program takes what `tinyvla.deploy.export.export_policy` describes, and gives `actions` and, from a policy with
    cross-attention and one camera, `attention`, float32 `(b, n)`: the share of each patch, averaged over the heads.

    Args:
        policy: on any device; it is not changed.
        path: where to write.
        split: scenes to compare on; a few of the test split's unless given.

    Returns:
        The largest difference from the actions of `compact(policy)`.

    Raises:
        InputError: the policy has no compact form or cannot be exported, or the file would not answer as it does.
    """
    path = as_path(path, "the file")
    check_output(path, (".onnx",))
    small = compact(policy)
    data = compact_bytes(small)
    difference = check_parity(small, run_bytes(data, ".onnx"), split)
    write_atomically(path, lambda temporary: temporary.write_bytes(data) and None)
    return difference


@checked
def load_compact(path: str | Path) -> TinyVLA:
    """Returns the policy in a compact file, ready to act.

    Raises:
        InputError: there is no such file, or it is not a compact policy.
    """
    _need("onnx")
    import onnx

    path = as_path(path, "the file")
    if not path.is_file():
        raise InputError(f"there is no file {path}; write one with `tinyvla export --compact --out {path}`")
    check_is_no_pointer(path)
    try:
        model = onnx.load_from_string(path.read_bytes())
        about = json.loads(next(entry.value for entry in model.metadata_props if entry.key == ABOUT))
    except Exception as error:  # of the parser, or of what it parsed
        raise InputError(f"{path} is not a compact policy ({type(error).__name__})") from None
    try:
        config, stored = ModelConfig.from_dict(about["config"]), _stored_weights(model, about)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        cause = error if isinstance(error, InputError) else type(error).__name__
        raise InputError(f"{path} is damaged: what it says of its policy does not fit its weights ({cause})") from None
    towers = (config.vision, config.language)
    check(not any(isinstance(part, PretrainedConfig) for part in towers), f"{path} is damaged: it has other towers")
    outline = TinyVLA.outline(config, path.parent)  # sizes are compared before anything is built
    for name, tensor in stored.items():
        fits = name in outline and outline[name].shape == tensor.shape
        check(fits, f"{path} is damaged: {shown(name)} is no weight of its policy, or has another shape")
    missing = [name for name, tensor in outline.items() if name not in stored and tensor.ndim > 1]  # no biases of zeros
    check(not missing, f"{path} is damaged: it lacks {shown(missing)}")
    policy = TinyVLA(config).eval().requires_grad_(False)
    state = {name: stored.get(name, torch.zeros_like(tensor)) for name, tensor in policy.state_dict().items()}
    policy.load_state_dict(state)
    return policy


def _stored_weights(model: Any, about: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a compact file by their names in the policy; words that share a row have one of their own again.

    Raises:
        InputError: a part of them lies in another file, or a number is not finite.
    """
    import onnx

    elsewhere = [each.name for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    check(not elsewhere, f"{shown(elsewhere)} lie in other files")
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {}
    for name, (stored, is_transposed) in about["weights"].items():
        array = arrays[stored].astype(np.float32)
        check(bool(np.isfinite(array).all()), f"{shown(name)} holds NaN or infinite numbers")
        weights[name] = torch.from_numpy(np.ascontiguousarray(array.T if is_transposed else array))
    row_of_id = torch.from_numpy(arrays[about["row_of_id"]].astype(np.int64))
    words = "language.token_embedding.weight"
    return {**weights, words: weights[words][row_of_id], "language.seen": row_of_id > 0}


class _Looking(nn.Module):
    """A policy that takes tensors one by one, and gives its actions and where it looks."""

    def __init__(self, policy: TinyVLA) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Returns actions, and the attention to the patches where the fusion has one."""
        policy, words = self.policy, (input_ids, attention_mask)
        camera = policy.config.observation.cameras[0]
        tokens = policy.see(Batch({camera: images}, *words))
        fusion, attention = policy.fusion, tuple[Tensor, ...]()
        if isinstance(fusion, CrossAttention):
            query = fusion.query(policy.language, *words)
            fusion.query = lambda *_: query  # type: ignore[method-assign]  # the sentence is read once, for both answers
            weights = fusion.attention.weights(query, context=tokens)  # (b, heads, 1, 1 + n), CLS first
            attention = (weights[:, :, 0, 1:].mean(dim=1),)
        return policy.head.predict(fusion(tokens, policy.language, *words), None), *attention


def compact_bytes(small: TinyVLA) -> bytes:
    """Returns what is written into the file of a policy that `compact` made.

    Raises:
        InputError: the policy has several cameras or a state, its head draws its answer, or a package is missing.
    """
    if len(small.config.observation.cameras) > 1 or small.config.observation.state_dim:
        raise InputError("only a policy with one camera and no state has a compact form")
    if small.config.head.kind not in EXPORTABLE_HEADS:
        can = ", ".join(EXPORTABLE_HEADS)
        raise InputError(
            f"a {small.config.head.kind} head draws its answer and cannot be exported; heads that can: {can}"
        )
    _need("onnx", "onnxscript", "onnxruntime")
    free = _free_copy(small)
    free.language.token_embedding = shared = _shared(small)
    outputs = ["actions", "attention"] if isinstance(small.fusion, CrossAttention) else ["actions"]
    batch, length = Dim("batch"), Dim("length", max=small.config.language.max_length)
    names = input_names(small.config)
    shapes = tuple({0: batch, 1: length} if name in WORDS else {0: batch} for name in names)
    seen = example_batch(small, BlockFind(2, seed=0))
    example = (seen.image, seen.input_ids, seen.attention_mask)
    with _quiet():
        program = torch.export.export(_Looking(free), example, dynamic_shapes=shapes, strict=False)
        named = tuple({0: "batch", 1: "length"} if name in WORDS else {0: "batch"} for name in names)
        exported = torch.onnx.export(
            program, input_names=names, output_names=outputs, dynamic_shapes=named, dynamo=True, verbose=False
        )
    assert exported is not None
    return _stored_small(exported.model_proto, small, shared)


def _shared(small: TinyVLA) -> SharedRows:
    """The embedding of a compact policy: row 0 is [UNK]'s, the others are those of the words that were learned."""
    learned = small.language.seen.nonzero().flatten()  # type: ignore[operator]
    weight: Any = small.language.token_embedding.weight
    row_of_id = torch.zeros(len(weight), dtype=torch.int64)
    row_of_id[learned] = 1 + torch.arange(len(learned))
    unknown = torch.tensor([vocabulary()["[UNK]"]])
    return SharedRows(weight[torch.cat([unknown, learned])].clone(), row_of_id)


def _stored_small(model: Any, small: TinyVLA, shared: SharedRows) -> bytes:
    """The program with two bytes for each weight that loses nothing by it, and the way back in its metadata."""
    import onnx

    weights = {name: tensor.numpy() for name, tensor in small.state_dict().items() if tensor.is_floating_point()}
    weights["language.token_embedding.weight"] = shared.rows.numpy()
    found: dict[str, tuple[str, bool]] = {}
    casts, about = [], {"config": asdict(small.config), "weights": found}
    for each in model.graph.initializer:
        array = onnx.numpy_helper.to_array(each)
        if array.shape == shared.row_of_id.shape:
            about["row_of_id"] = each.name
        if array.dtype != np.float32:
            continue
        with np.errstate(over="ignore"):
            name, halved = each.name, array.astype(np.float16)
        if array.size >= 64 and np.array_equal(halved.astype(np.float32), array):
            stored = f"{name}.half"
            casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
            each.CopyFrom(onnx.numpy_helper.from_array(halved, stored))
        for own, weight in weights.items():
            if own not in found and (is_it := _same(array, weight)) is not None:
                found[own] = (each.name, is_it)  # weights that are equal may share one
    # A bias of zeros may be left out of the program; `load_compact` knows that.
    missing = {name for name, weight in weights.items() if name not in found and weight.any()}
    assert not missing, f"weights that the exporter changed: {sorted(missing)}"
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    without_remarks(model)
    onnx.helper.set_model_props(model, {ABOUT: json.dumps(about)})
    return model.SerializeToString()


def _same(array: np.ndarray, weight: np.ndarray) -> bool | None:
    """False where an array is a weight, True where it is its transpose, None where it is neither."""
    if array.shape == weight.shape and np.array_equal(array, weight):
        return False
    return True if weight.ndim == 2 and np.array_equal(array.T, weight) else None


def without_remarks(model: Any) -> Any:
    """Returns an ONNX model without the exporter's notes on where in the source each step came from."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    return model
