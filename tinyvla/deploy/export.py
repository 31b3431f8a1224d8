"""Export: a policy as one file, ONNX or a torch.export program, that acts without this package.

Notable:
- the batch and the instruction's length stay free; image size and weights are fixed;
- a program takes named tensors: `images` (or `images_NAME` for each of several cameras), `state` where the policy is
  given one, `input_ids`, `attention_mask`; it gives `actions`;
- a file is written only after what is in it has answered as the policy does, on scenes and at several batch sizes;
- heads that draw their answer are refused: what they do depends on a generator, and an exported program has none.
"""

from __future__ import annotations

import copy
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tinyvla.config import ModelConfig, PretrainedConfig
from tinyvla.data.batch import Batch
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.fields import checked
from tinyvla.files import as_path, check_output, write_atomically
from tinyvla.model.policy import TinyVLA
from tinyvla.recipes import DataConfig

SUFFIXES = (".onnx", ".pt2")
WORDS = ("input_ids", "attention_mask")
EXPORTABLE_HEADS = ("regression", "l1", "directions")
"""Heads whose answer follows from image and instruction alone."""
TOLERANCE = 1e-4
"""Largest difference from the policy's actions that is taken for rounding."""
MAX_ONNX_BYTES = 2**31 - 2**24
"""Protocol buffers, ONNX's container, end at 2 GiB; a little is left for the graph."""

Exported = Callable[[Batch], Tensor]
"""An exported policy: a batch on the CPU to actions."""


def input_names(config: ModelConfig) -> list[str]:
    """Returns the names of an exported policy's inputs, in order."""
    cameras = config.observation.cameras
    images = ["images"] if len(cameras) == 1 else [f"images_{name}" for name in cameras]
    return [*images, *["state"] * bool(config.observation.state_dim), "input_ids", "attention_mask"]


def inputs_of(batch: Batch) -> list[Tensor]:
    """Returns a batch's tensors in the order of `input_names`."""
    state = [] if batch.state is None else [batch.state]
    return [*batch.images.values(), *state, batch.input_ids, batch.attention_mask]


class _Flat(nn.Module):
    """A policy that takes the tensors of a batch one by one."""

    def __init__(self, policy: TinyVLA) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns actions."""
        *seen, input_ids, attention_mask = tensors
        cameras = self.policy.config.observation.cameras
        images = dict(zip(cameras, seen, strict=False))
        state = seen[-1] if len(seen) > len(cameras) else None
        return self.policy(Batch(images, input_ids, attention_mask, state))


@checked
def export_policy(policy: TinyVLA, path: str | Path, split: BlockFind | None = None) -> float:
    """Write a policy as ONNX (`.onnx`) or as a torch.export program (`.pt2`), once it has been compared.

    The program takes `images`, float32 `(b, 3, h, w)` in [0, 1], `state`, float32 `(b, s)` in its own units where the
    policy is given one, `input_ids`, int64 `(b, t)`, and `attention_mask`, bool `(b, t)`, and gives `actions`, float32,
    in the action's own units.

    Args:
        policy: on any device; it is not changed.
        path: where to write; the suffix chooses the format.
        split: scenes to compare on; a few of the test split's unless given.

    Returns:
        The largest difference from the policy's own actions.

    Raises:
        InputError: the head draws its answer, the suffix is unknown, a package is missing, or the exported program
            does not answer as the policy does.
    """
    path = as_path(path, "the file")
    check_output(path, SUFFIXES)
    data = export_bytes(policy, path.suffix.lower())
    difference = check_parity(policy, run_bytes(data, path.suffix.lower()), split)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)
    return difference


@checked
def load_exported(path: str | Path) -> Exported:
    """The policy in an exported file, as a function on the CPU.

    Raises:
        InputError: there is no such file, its suffix is unknown, or a package is missing.
    """
    path = as_path(path, "the file")
    if not path.is_file():
        raise InputError(f"there is no file {path}; write one with `tinyvla export --out {path}`")
    return run_bytes(path.read_bytes(), path.suffix.lower())


def export_bytes(policy: TinyVLA, suffix: str) -> bytes:
    """What is written into a file of this suffix.

    Raises:
        InputError: as `export_policy`, but for the comparison.
    """
    _check_suffix(suffix)
    kind = policy.config.head.kind
    if kind not in EXPORTABLE_HEADS:
        can = ", ".join(EXPORTABLE_HEADS)
        raise InputError(f"a {kind} head draws its answer and cannot be exported; heads that can: {can}")
    policy.check_statistics()
    if any(isinstance(part, PretrainedConfig) for part in (policy.config.vision, policy.config.language)):
        raise InputError("a policy with pretrained towers cannot be exported; only the course's own towers can")
    if suffix == ".onnx":
        _need("onnx", "onnxscript", "onnxruntime")
        if 4 * policy.num_parameters()["total"] > MAX_ONNX_BYTES:
            raise InputError("an ONNX file holds at most 2 GiB, and this policy is larger; export it to a .pt2 file")
    with _quiet():
        program = trace(policy)
        return _onnx_bytes(program, policy.config) if suffix == ".onnx" else _pt2_bytes(program)


def trace(policy: TinyVLA) -> ExportedProgram:
    """The policy's forward pass as a graph, for any batch and any instruction that fits."""
    batch, length = Dim("batch"), Dim("length", max=policy.config.language.max_length)
    example = tuple(inputs_of(example_batch(policy, BlockFind(2, seed=0))))
    shapes = tuple({0: batch, 1: length} if name in WORDS else {0: batch} for name in input_names(policy.config))
    # The towers ask for `shape[0]`: `len` would fix the batch at the example's.
    return torch.export.export(_Flat(_free_copy(policy)), example, dynamic_shapes=(shapes,), strict=False)


def example_batch(policy: TinyVLA, split: BlockFind) -> Batch:
    """Returns scenes as the policy takes them: scaled to its size, turned for each camera, with a random state."""
    rng = np.random.RandomState(0)
    dim = policy.config.observation.state_dim
    cameras = policy.config.observation.cameras
    images = {name: np.ascontiguousarray(np.rot90(split.images, k, axes=(2, 3))) for k, name in enumerate(cameras)}
    state = rng.randn(len(split), dim).astype(np.float32) if dim else None
    return policy.prepare.split(images, split.instructions, split.actions, state=state).take(slice(None))


def _free_copy(policy: TinyVLA) -> TinyVLA:
    """On the CPU, ready to act; each row's sentence is encoded, since shapes must not depend on how many differ."""
    policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
    policy.language.sentence = policy.language.mean_state  # type: ignore[method-assign]
    return policy


def _onnx_bytes(program: ExportedProgram, config: ModelConfig) -> bytes:
    names = input_names(config)
    shapes = tuple({0: "batch", 1: "length"} if name in WORDS else {0: "batch"} for name in names)
    exported = torch.onnx.export(
        program,
        input_names=names,
        output_names=["actions"],
        dynamic_shapes=(shapes,),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    return exported.model_proto.SerializeToString()


def _pt2_bytes(program: ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def run_bytes(data: bytes, suffix: str) -> Exported:
    """The program in a file's bytes, as a function; onnxruntime gets as many threads as PyTorch has.

    Raises:
        InputError: the suffix is unknown, a package is missing, or the bytes are not of that format.
    """
    _check_suffix(suffix)
    load = _run_onnx if suffix == ".onnx" else _run_pt2
    if suffix == ".onnx":
        _need("onnxruntime")
    try:
        return load(data)
    except Exception as error:  # both libraries raise kinds of their own
        raise InputError(f"this is not a usable {suffix} program ({type(error).__name__}: {error})") from None


def _run_onnx(data: bytes) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    names = [each.name for each in session.get_inputs()]

    def run(batch: Batch) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs_of(batch), strict=True)}
        return torch.from_numpy(session.run(["actions"], arrays)[0])

    return run


def _run_pt2(data: bytes) -> Exported:
    with _quiet():
        module = torch.export.load(io.BytesIO(data)).module()

    @torch.no_grad()
    def run(batch: Batch) -> Tensor:
        return module(*inputs_of(batch))

    return run


@torch.no_grad()
@checked
def parity(policy: TinyVLA, exported: Exported, split: BlockFind | None = None) -> float:
    """Largest difference between the actions of a policy and those of its exported program.

    Compared with one scene, two, and all of the split, each with the instruction as it is and padded to the longest.
    """
    split = split or BlockFind(16, DataConfig().test_seed)
    whole, policy = example_batch(policy, split), _free_copy(policy)
    longest = policy.config.language.max_length
    differences = []
    for count in sorted({1, min(2, len(split)), len(split)}):
        batch = whole[:count]
        for padding in (0, longest - batch.input_ids.shape[1]):
            ids, mask = (F.pad(getattr(batch, name), (0, padding)) for name in WORDS)
            padded = replace(batch, input_ids=ids, attention_mask=mask)
            differences.append((policy(padded) - exported(padded)).abs().max())
    return float(torch.stack(differences).max())


def check_parity(policy: TinyVLA, exported: Exported, split: BlockFind | None = None) -> float:
    """`parity`, refused where it is more than rounding.

    Raises:
        InputError: the largest difference is above `TOLERANCE`, or not a number.
    """
    difference = parity(policy, exported, split)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported program's actions differ from the policy's by up to {difference:.2g}; "
            f"at most {TOLERANCE:g} is rounding, so nothing was written"
        )
    return difference


@checked
def usage(path: str | Path, config: ModelConfig | None = None) -> str:
    """Returns three lines of Python that run an exported file on a black image and "find the red block"."""
    config = config or ModelConfig()
    row, place = [101, 2424, 1996, 2417, 3796, 102], Path(path).as_posix()
    height, width = config.vision.size
    onnx, torch_ = {}, {}
    for name in input_names(config):
        shape = f"1, {config.observation.state_dim}" if name == "state" else f"1, 3, {height}, {width}"
        onnx[name], torch_[name] = f'np.zeros(({shape}), "float32")', f"torch.zeros({shape})"
    onnx |= {"input_ids": f'np.array([{row}], "int64")', "attention_mask": "np.ones((1, 6), bool)"}
    torch_ |= {"input_ids": f"torch.tensor([{row}])", "attention_mask": "torch.ones(1, 6, dtype=torch.bool)"}
    if Path(path).suffix.lower() == ".onnx":
        named = ", ".join(f'"{name}": {value}' for name, value in onnx.items())
        return (
            f"import numpy as np, onnxruntime\ninputs = {{{named}}}\n"
            f'print(onnxruntime.InferenceSession("{place}").run(["actions"], inputs)[0])'
        )
    return f'import torch\ninputs = {", ".join(torch_.values())}\nprint(torch.export.load("{place}").module()(*inputs))'


def _check_suffix(suffix: str) -> None:
    if suffix not in SUFFIXES:
        raise InputError(f"cannot export to {suffix or 'a file without a suffix'!r}; choose from {', '.join(SUFFIXES)}")


def _need(*packages: str) -> None:
    """Refuse where a package is missing."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f'ONNX needs {package}: pip install "tinyvla[export]"') from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks about themselves, such as optional packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
