"""How long an answer takes, for every preset. Writes `results/latency_DEVICE.json`.

    python scripts/measure_latency.py --device cuda

Of one image and of 256 at once; the weights are untrained, which costs the same time. On a CPU, ONNX Runtime is timed
beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tinyvla.measure.bench import describe_device, recorded_command
from tinyvla.config import PRESETS, model_config
from tinyvla.data.blockfind import BlockFind
from tinyvla.deploy.export import export_bytes, run_bytes
from tinyvla.measure.latency import latency
from tinyvla.learn.train import new_policy


def main(
    device: str = "cpu",
    presets: tuple[str, ...] = tuple(PRESETS),
    batches: tuple[int, ...] = (1, 256),
    repeats: int = 30,
    out: Path | None = None,
) -> None:
    """Measure and write.

    Args:
        batches: images in a call.
        repeats: calls that count.
    """
    split, rows = BlockFind(max(batches), 1), {}
    for name in presets:
        policy = new_policy(model_config(name), 0, device).eval()
        onnx = run_bytes(export_bytes(policy, ".onnx"), ".onnx") if device == "cpu" else None
        rows[name] = {str(batch): latency(policy, split, batch, repeats, onnx) for batch in batches}
        for batch, row in rows[name].items():
            times = {what: values["median"] for what, values in row.items() if isinstance(values, dict)}
            print(f"{name:14} batch {batch:4}", *(f"{what} {ms:.2f} ms" for what, ms in times.items()), flush=True)
    out = out or Path(f"results/latency_{device}.json")
    report = {
        "command": recorded_command(),
        "machine": describe_device(torch.device(device)),
        "presets": rows,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
