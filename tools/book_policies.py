"""Train the policies that run in the book's pages, and write them small. Writes `results/book_policies.json`.

python tools/book_policies.py                                # all of them
python tools/book_policies.py nano dagger                    # some of them
python tools/book_policies.py --train --device cuda pool     # only train, to be written elsewhere

Notable:
- `book/live/NAME.onnx` is what a page loads: `tinyvla export --compact` of a policy that the chapters train;
- `nano` is the notebooks' policy, `pool` the same with the fusion pool-add; `cloning` and `dagger` are chapter 8's,
  with as many steps of training each; `heads` are three heads of chapter 7, behind its perfect eyes;
- `codes` and `rank` are numbers and no policies: the codes of the patches' positions, and one change of chapter 11;
- the results file says how well each does in PyTorch, in the form in which the page has it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyvla.act.blocks.world import BlockWorld
from tinyvla.act.dagger import dagger
from tinyvla.act.rollout import rollout
from tinyvla.act.world import episode_seeds
from tinyvla.adapt.lora import target_layers
from tinyvla.config import PRESETS, model_config
from tinyvla.course.ch07_checks import config_of
from tinyvla.course.ch07_checks import train as train_head
from tinyvla.course.zoo import cache_folder, trained_policy
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import PALETTE, BlockFind, ChangedFind
from tinyvla.deploy.compact import export_compact, load_compact, without_remarks
from tinyvla.device import describe_device
from tinyvla.learn.evaluate import Metrics, predict_split
from tinyvla.learn.train import fit
from tinyvla.model.heads import make_head
from tinyvla.model.policy import TinyVLA
from tinyvla.model.vision import grid_positions
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.show.attention import attention_map
from tinyvla.speed.scaling import towers

ROOT = Path(__file__).resolve().parent.parent
LIVE, RESULTS = ROOT / "book" / "live", ROOT / "results" / "book_policies.json"
EPISODES = 500
DEVICE, KEPT = "cpu", cache_folder() / "book"  # options of the command
Row = dict[str, Any]


def write(name: str, policy: TinyVLA) -> Row:
    """Write a policy; returns its size, and how it does."""
    path = LIVE / f"{name}.onnx"
    difference = export_compact(policy, path)
    small = load_compact(path)
    split = TensorSplit.from_blockfind(BlockFind(1_000, DataConfig().test_seed), small.language.encode, "cpu")
    metrics = Metrics.of(predict_split(small, split), split.actions)
    driven = rollout(small, BlockWorld(episode_seeds(EPISODES, DataConfig().test_seed)))
    return {
        "bytes": path.stat().st_size,
        "difference": difference,
        "rounding": float((predict_split(small, split) - predict_split(policy.cpu(), split)).abs().max()),
        "direction_accuracy": metrics.direction_accuracy,
        "within_10_degrees": metrics.within_10_degrees,
        "rollout": {"episodes": EPISODES, "success": driven.success_rate},
        "words": small.language.seen.nonzero().flatten().tolist(),  # type: ignore[operator]
    }


def acting(rounds: int, epochs: int) -> TinyVLA:
    """Chapter 8's: 100 episodes of the expert, and 100 of its own in each round."""
    settings, data = TrainConfig(epochs=epochs, learning_rate=1e-3), replace(DataConfig(), train_seed=1_000)
    return dagger(model_config("nano"), rounds, 100, settings, data=data, num_test=10, device=DEVICE)[0]


POLICIES: dict[str, Callable[[], TinyVLA]] = {
    "nano": lambda: trained_policy(progress_bar=False, device=DEVICE),  # the notebooks' own
    "pool": lambda: trained_policy(fusion="pool-add", epochs=8, progress_bar=False, device=DEVICE),
    "dagger": lambda: acting(rounds=2, epochs=4),
    "cloning": lambda: acting(rounds=0, epochs=59),  # as many steps
}


def trained(name: str) -> TinyVLA:
    """The policy, from its folder of the cache, or trained now and kept there."""
    folder = KEPT / name
    if not (folder / "config.json").exists():
        POLICIES[name]().save_pretrained(folder)
        (folder / "machine.json").write_text(json.dumps(describe_device(torch.device(DEVICE))), encoding="utf-8")
    return TinyVLA.from_pretrained(folder)


def policy_row(name: str) -> Row:
    """Write a policy for the pages, and say what it is."""
    policy = trained(name)
    return {"trained_on": json.loads((KEPT / name / "machine.json").read_text(encoding="utf-8")), **write(name, policy)}


class OneAndJoint(nn.Module):
    """What regression answers, and the joint probabilities of the two bins."""

    def __init__(self, regression: Any, bins: Any) -> None:
        super().__init__()
        self.regression, self.bins = regression, bins

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(1, 64)` to an answer `(2,)` and probabilities `(256, 256)`, x first."""
        count = self.bins.config.num_bins
        every = torch.arange(count)[:, None]
        first = self.bins.logits(features, every[:1])[0, 0].softmax(dim=0)
        second = self.bins.logits(features.expand(count, -1), every)[:, 1].softmax(dim=1)
        return self.regression.predict(features)[0], first[:, None] * second


class Velocity(nn.Module):
    """The direction in which the flow moves points."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, features: Tensor, places: Tensor, time: Tensor) -> Tensor:
        """Features `(1, 64)`, places `(n, 2)` and the time `(1,)`, from 0, noise, to 1, to directions `(n, 2)`."""
        count = places.shape[0]
        return self.flow.network(features.expand(count, -1), places, time.expand(count))


def heads() -> Row:
    """Regression, bins and flow on scenes with two blocks of the named colour, behind chapter 7's perfect eyes."""
    split = BlockFind.ambiguous(20_000, seed=42)
    features, actions = eyes(split), torch.from_numpy(split.actions)
    made = {}
    for kind, (num_steps, rate) in {"regression": (500, 2e-3), "bins": (800, 3e-3), "flow": (1_200, 5e-3)}.items():
        torch.manual_seed(0)
        made[kind] = train_head(make_head(config_of(kind)), features, actions, num_steps, rate).requires_grad_(False)
    programs: dict[str, tuple[nn.Module, dict[str, Tensor], list[str]]] = {
        "heads": (OneAndJoint(made["regression"], made["bins"]), {"features": features[:1]}, ["mean", "joint"]),
        "flow": (
            Velocity(made["flow"]),
            {"features": features[:1], "places": torch.randn(60, 2), "time": torch.zeros(1)},
            ["velocity"],
        ),
    }
    row: Row = {}
    for name, (module, inputs, outputs) in programs.items():
        exported = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            verbose=False,
        )
        (LIVE / f"{name}.onnx").write_bytes(without_remarks(exported.model_proto).SerializeToString())
        row[name] = {"bytes": (LIVE / f"{name}.onnx").stat().st_size}
    return row


def eyes(split: BlockFind) -> Tensor:
    """Chapter 7's: for each cell, 1 if it holds a block of the named colour; (n, 64)."""
    scene, slot = np.nonzero(split.colors == split.colors[:, :1])
    seen = torch.zeros(len(split), 64)
    seen[scene, split.cells[scene, slot]] = 1
    return seen


def codes() -> Row:
    """How alike the codes of the patches' positions are, in per cent; and the codes themselves."""
    positions = grid_positions((8, 8), model_config("nano").vision.embed_dim)
    unit = positions / positions.norm(dim=1, keepdim=True)
    write_json("codes", {"alike": (100 * unit @ unit.T).round().int().tolist(), "codes": rounded(positions, 2)})
    return {"width": positions.shape[1]}


def presets() -> Row:
    """The shapes of the presets, as the formulas of `tinyvla.speed.scaling` need them."""

    def shape(tower: Any) -> Row:
        return {name: getattr(tower, name) for name in ("embed_dim", "num_layers", "mlp_ratio")}

    found = {}
    for name, config in PRESETS.items():
        vision, language = towers(config)
        parts = {"vision": shape(vision), "language": shape(language)}
        found[name] = {**parts, "tokens": vision.num_tokens, "vocab_size": language.vocab_size}
    write_json("presets", found)
    return {}


def rank() -> Row:
    """What full fine-tuning on chapter 11's changed task did to the layer that turns the sentence into a question."""
    base = trained("nano")
    changed = TinyVLA(base.config)
    changed.load_state_dict(base.state_dict())
    splits = [
        TensorSplit.from_blockfind(ChangedFind(n, s), base.language.encode, "cpu")
        for n, s in ((1_000, 142), (500, 144))
    ]
    fit(changed, *splits, TrainConfig(epochs=8, learning_rate=1e-3, warmup_steps=20))
    layers = target_layers(base, ("attention", "inputs"))
    name = "fusion.text_projection" if "fusion.text_projection" in layers else layers[-1]
    change = (changed.get_submodule(name).weight - base.get_submodule(name).weight).detach().double()  # type: ignore[operator]
    random = torch.randn(change.shape, generator=torch.Generator().manual_seed(0)).double()
    found = {"layer": name}
    for key, matrix in (("change", change), ("random", random * change.std())):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        scale = values[:, None].sqrt()
        found[key] = {
            "values": rounded(values, 5),
            "left": rounded((left * scale.T).T, 4),
            "right": rounded(scale * right, 4),
        }
    write_json("rank", found)
    accuracy = Metrics.of(predict_split(changed.eval(), splits[1]), splits[1].actions).direction_accuracy
    return {"layer": name, "shape": list(change.shape), "direction_accuracy": accuracy}


def rounded(values: Tensor, digits: int) -> list[Any]:
    return np.round(values.double().numpy(), digits).tolist()


def write_json(name: str, value: Any) -> None:
    (LIVE / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")


def still() -> Row:
    """The first page's picture before anybody touches it: the first test scene, as the page's policy answers."""
    policy, scene = load_compact(LIVE / "nano.onnx"), BlockFind(1, DataConfig().test_seed)
    cells, colors = (a[0][scene.cells[0] >= 0].tolist() for a in (scene.cells, scene.colors))
    named = list(scene.palette)
    blocks = [
        {"color": named[c], "x": cell % 8 * 8 + 4, "y": cell // 8 * 8 + 4}
        for cell, c in zip(cells, colors, strict=True)
    ]
    text = scene.instructions[0]
    action = policy.predict(scene.images[0], text).tolist()
    attention = attention_map(policy, scene.images[0], text)
    (LIVE / "playground.html").write_text(page(blocks, text, action, attention), encoding="utf-8")
    return {}


def page(blocks: list[Row], text: str, action: list[float], attention: np.ndarray) -> str:
    """The mount of the first page."""
    shapes = [
        f'<rect x="{b["x"] - 4}" y="{b["y"] - 4}" width="8" height="8" fill="rgb{PALETTE[b["color"]]}"/>'
        for b in blocks
    ]
    for cell, radius in enumerate(3.6 * np.sqrt(attention / attention.max())):
        if radius > 0.6:
            place = f'cx="{cell % 8 * 8 + 4}" cy="{cell // 8 * 8 + 4}" r="{radius:.2f}"'
            shapes.append(f'<circle {place} fill="#7a4fb0" fill-opacity=".45" stroke="#fff" stroke-width=".3"/>')
    tip, along = 32 + 26 * np.array(action), np.array(action) / np.linalg.norm(action)
    across, base = np.array([-along[1], along[0]]), tip - 3 * along
    corners = (tip, tip - 5 * along + 2.4 * across, tip - 5 * along - 2.4 * across)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    shapes.append(f'<path d="M32 32L{base[0]:.1f} {base[1]:.1f}" stroke="#c2185b" stroke-width="1.7"/>')
    shapes.append(f'<polygon points="{points}" fill="#c2185b"/>')
    label = f"A scene of {len(blocks)} blocks. Told to {text}, the policy points at it and looks there."
    data = json.dumps(blocks, separators=(",", ":")).replace('"', "&quot;")
    return (
        f'<div class="tv-live tv-playground" data-live="playground" role="group" aria-label="The policy, to play with"'
        f' data-wake="Wake the policy: drag the blocks, type a sentence" data-text="{text}" data-blocks="{data}">\n'
        f'<div class="tv-picture"><svg viewBox="0 0 64 64" role="img" aria-label="{label}">'
        f'<rect width="64" height="64" fill="#f5f5f5"/>{"".join(shapes)}</svg></div>\n'
        f'<div class="tv-side"><p class="tv-words">“{text}”</p>'
        f'<p class="tv-invitation">The arrow is the policy’s answer, the circles show where it looks.</p></div></div>\n'
    )


PARTS: dict[str, Callable[[], Row]] = {
    **{name: partial(policy_row, name) for name in POLICIES},
    "still": still,
    "heads": heads,
    "codes": codes,
    "presets": presets,
    "rank": rank,
}


def main() -> None:
    """Make the parts that are named, or all; note what each is."""
    global DEVICE, KEPT
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)}; all by default")
    options.add_argument("--device", default="cpu", help="where policies are trained")
    options.add_argument("--train", action="store_true", help="train and keep, and write nothing")
    options.add_argument("--kept", type=Path, default=KEPT, help="where trained policies are kept")
    args = options.parse_args()
    if unknown := set(args.names) - set(PARTS):
        options.error(f"unknown: {', '.join(sorted(unknown))}")
    DEVICE, KEPT = args.device, args.kept
    if args.train:
        for name in args.names or POLICIES:
            trained(name)
            print(name, flush=True)
        return
    LIVE.mkdir(exist_ok=True)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"parts": {}}
    for name in args.names or PARTS:
        started = time.perf_counter()
        results["parts"][name] = {**PARTS[name](), "seconds": time.perf_counter() - started}
        machine = describe_device(torch.device("cpu"))
        results = {"command": "python tools/book_policies.py", "machine": machine, "parts": results["parts"]}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        write_json("facts", {"words": {key: row["words"] for key, row in results["parts"].items() if "words" in row}})
        print(name, {key: value for key, value in results["parts"][name].items() if key != "words"}, flush=True)


if __name__ == "__main__":
    main()
