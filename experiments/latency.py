"""How long an answer takes, for every preset. Writes `results/latency_DEVICE.json`.

    python experiments/latency.py --device cuda

Of one image and of 256 at once; the weights are untrained, which costs the same time. On a CPU, ONNX Runtime is timed
beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Job, Row, main
from page import grid, place, prose, section_of, source

from tinyvla.config import PRESETS, model_config
from tinyvla.data.dataset import BlockFind
from tinyvla.deploy.export import export_bytes, run_bytes
from tinyvla.measure.latency import latency
from tinyvla.model.policy import new_policy

RESULTS = ("latency_cpu", "latency_cuda")


@dataclass(frozen=True)
class Args(harness.Args):
    """Measure and write."""

    presets: tuple[str, ...] = tuple(PRESETS)
    batches: tuple[int, ...] = (1, 256)
    """Images in a call."""
    repeats: int = 30
    """Calls that count."""
    out: Path = Path("results/latency_DEVICE.json")
    """Where the results go; DEVICE stands for the device."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", self.out.with_name(self.out.name.replace("DEVICE", self.device)))


def jobs(args: Args) -> list[Job]:
    return [Job({"preset": name}, alone=True) for name in args.presets]


def run(job: Job, args: Args) -> Row:
    policy = new_policy(model_config(job.what["preset"]), 0, args.where).eval()
    onnx = run_bytes(export_bytes(policy, ".onnx"), ".onnx") if args.where.type == "cpu" else None
    scenes = BlockFind(max(args.batches), 1)
    return {"times": {str(batch): latency(policy, scenes, batch, args.repeats, onnx) for batch in args.batches}}


def summary(rows: list[Row], args: Args) -> Row:
    return {"presets": {row["preset"]: row["times"] for row in rows}}


def section(*results: Row) -> str:
    rows = []
    for device, measured in zip(("cpu", "cuda"), results, strict=True):
        for preset, row in measured["presets"].items():
            cells = [row[n][what]["median"] for n, what in (("1", "predict"), ("256", "predict"), ("1", "forward"))]
            exported = f"{row['1']['exported']['median']:.1f}" if "exported" in row["1"] else ""
            rows.append((f"`{preset}`", place(measured["machine"], device), *(f"{ms:.1f}" for ms in cells), exported))
    about = """Milliseconds, median: `predict`, from camera bytes and a sentence to an action, for one scene and for
        256; and the bare forward pass of one scene. On the CPU also the exported ONNX program in ONNX Runtime."""
    return section_of(
        "How long an answer takes",
        prose(about),
        grid("preset | on | predict, 1 | predict, 256 | forward, 1 | ONNX, 1", rows),
        source(*results),
    )


if __name__ == "__main__":
    main(Args, jobs, run, summary)
