"""How data are drawn and how a policy is trained, as frozen dataclasses, and the measured recipe of each preset.

Notable:
- `TrainConfig()` is the plain recipe, which the course teaches: AdamW at 3e-4, a hundred steps of warm-up;
- `RECIPES` are short ones that end settled, judged by `experiments/first_command.py`; `tinyvla train` takes them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

from tinyvla.config import NORMALIZATIONS, STEMS
from tinyvla.fields import MANY, SEED, Many, StepsAhead, Within, check, check_fields, checked

Scenes = Annotated[int, Within(1, 10**15)]
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class DataConfig:
    """Sizes and seeds of the three BlockFind splits."""

    num_train: Annotated[int, MANY] = 8_000
    num_val: Annotated[int, MANY] = 1_000
    num_test: Annotated[int, MANY] = 1_000
    train_seed: Annotated[int, SEED] = 42
    val_seed: Annotated[int, SEED] = 43
    test_seed: Annotated[int, SEED] = 44
    sentences: bool = False
    """Learn sentences with structure (`tinyvla.data.sentences`) in place of "find the {color} block"."""
    dataset: str = ""
    """A LeRobotDataset to learn from, in place of BlockFind: its folder, or owner/name on the Hugging Face hub."""
    val_episodes: Annotated[float, Within(0, 0.9, above=True)] = 0.02
    """Share of a data set's episodes that are held out, to see how training goes; at least one episode."""
    cameras: tuple[str, ...] = ()
    """Cameras of a data set, by name; all unless given."""
    states: tuple[str, ...] = ()
    """Keys of a data set whose numbers make the robot's state; observation.state unless given."""
    leave_out: tuple[int, ...] = ()
    """Episodes of a data set that nothing is learned from and nothing is judged on, by number."""

    def __post_init__(self) -> None:
        check_fields(self)
        seeds = {self.train_seed, self.val_seed, self.test_seed}
        check(len(seeds) == 3, "train_seed, val_seed and test_seed must differ, or the splits share their scenes")
        check(all((*self.cameras, *self.states)), "a name in cameras or states is empty")
        chosen = self.cameras or self.states or self.leave_out
        check(bool(self.dataset) or not chosen, "cameras, states and leave_out are of a data set; name it: --dataset")


@dataclass(frozen=True)
class TrainConfig:
    """How the policy is trained."""

    epochs: Annotated[int | float, Within(0, 10**6, above=True)] = 20
    """Passes over the training split; the last one may be a part: 0.6 are 75 of the 125 batches of 8,000 scenes."""
    batch_size: Annotated[int, MANY] = 64
    optimizer: str = "adamw"
    """One of `OPTIMIZERS`; "muon" needs fewer steps and wants about ten times the learning rate."""
    learning_rate: Annotated[float, Within(0, 1_000, above=True)] = 3e-4
    weight_decay: Annotated[float, Within(0, 1_000)] = 0.01
    """Applied to matrices; embeddings, biases and norms are left alone."""
    pretrained_rate: Annotated[float, Within(0, 1, above=True)] = 1.0
    """Share of the learning rate at which pretrained towers learn that are not frozen; below 1 always by AdamW."""
    beta1: Annotated[float, Within(0, 0.999999)] = 0.9
    beta2: Annotated[float, Within(0, 0.999999)] = 0.99
    momentum: Annotated[float, Within(0, 0.999999)] = 0.95
    """Of Muon; a short training may do better with less."""
    newton_schulz: Annotated[int, Within(1, 20)] = 5
    """Iterations that make Muon's updates orthogonal; fewer take less time and are less exact."""
    warmup_steps: Annotated[int, Within(0, 10**9)] = 100
    """Steps in which the learning rate climbs from zero, at most a quarter of all steps."""
    decay_fraction: Annotated[float, Within(0, 1)] = 0.5
    """Last share of the steps, in which the learning rate falls linearly to zero."""
    grad_clip: Annotated[float, Within(0, 10**9, above=True)] = 1.0
    """Largest gradient norm; longer gradients are scaled down to it."""
    seed: Annotated[int, Within(0, 2**63 - 1)] = 0
    """Decides the initial weights and the order of the scenes."""
    checkpoint_every: Annotated[int, MANY] = 5
    """Epochs between kept checkpoints (`epoch_005`, `epoch_010`, ...)."""
    shift: Annotated[int, Within(0, 1_000)] = 0
    """Pixels by which each training image is moved at most, at random, along each axis; its edge is repeated."""
    state_noise: Annotated[float, Within(0, 1_000)] = 0.0
    """Noise on the robot's own state in training, in standard deviations of the training states."""
    accumulate: Annotated[int, MANY] = 1
    """Parts in which a batch is taken, their gradients added up: the same step with less memory."""
    recompute: bool = False
    """Keep each block's input alone and run the block again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epochs == int(self.epochs):
            object.__setattr__(self, "epochs", int(self.epochs))
        check(
            self.accumulate <= self.batch_size,
            f"accumulate is {self.accumulate}, but a batch has {self.batch_size} scenes; it cannot have more parts",
        )
        check(
            self.optimizer in OPTIMIZERS, f"unknown optimizer {self.optimizer!r}; choose from {', '.join(OPTIMIZERS)}"
        )

    @checked
    def steps_per_epoch(self, num_scenes: Scenes) -> int:
        """Returns the batches in one pass over a split; the last one may be smaller."""
        return math.ceil(num_scenes / self.batch_size)

    @checked
    def total_steps(self, num_scenes: Scenes) -> int:
        """Returns the batches in all epochs, at least one."""
        return max(1, round(self.epochs * self.steps_per_epoch(num_scenes)))


@dataclass(frozen=True)
class RecordingConfig:
    """The policy that learns from recordings of a robot: sizes that were found on Meta-World."""

    image_size: Annotated[int, Within(32, 8_192)] = 192
    """Height and width to which images are scaled; they become 8 x 8 tokens, so 32 must divide it."""
    horizon: Annotated[int, Within(1, 1_024)] = 16
    """Actions in a chunk."""
    stem: str = "convolutional"
    """How a patch becomes a token, one of `tinyvla.config.STEMS`."""
    waypoints: tuple[StepsAhead, ...] = (8, 16, 32, 64, 500)
    """Steps ahead at which the robot's own state is a further target in training."""
    normalization: str = "quantiles"
    """Of actions, one of `tinyvla.config.NORMALIZATIONS`."""

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.stem in STEMS, f"unknown stem {self.stem!r}; choose from {', '.join(STEMS)}")
        check(
            self.normalization in NORMALIZATIONS,
            f"unknown normalization {self.normalization!r}; choose from {', '.join(NORMALIZATIONS)}",
        )
        check(
            self.image_size % 32 == 0,
            f"image_size is {self.image_size}; images become 8 x 8 tokens of 4 x 4 squares, so 32 must divide it",
        )

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return self.image_size // 8


@dataclass(frozen=True)
class Recipe:
    """Training settings and a number of steps that were found by measuring."""

    num_steps: int
    train: TrainConfig

    def for_scenes(self, num_scenes: int) -> TrainConfig:
        """Returns the settings with as many epochs, or as much of one, as the steps are on a split of this size."""
        epochs = self.num_steps / self.train.steps_per_epoch(num_scenes)
        return dataclasses.replace(self.train, epochs=epochs)


def _muon(num_steps: int, learning_rate: float, **changes: Any) -> Recipe:
    """Muon; unless changed, the rate climbs for a tenth of the steps and falls to zero over the last three quarters."""
    settings = {"warmup_steps": num_steps // 10, "decay_fraction": 0.75, **changes}
    return Recipe(num_steps, TrainConfig(optimizer="muon", learning_rate=learning_rate, **settings))


RECIPES: dict[str, Recipe] = {
    "nano": _muon(150, 1e-2),
    "minimal": _muon(125, 7e-3, batch_size=32, momentum=0.8, newton_schulz=3, warmup_steps=8, decay_fraction=1.0),
    "medium": _muon(120, 2e-3),
    "smolvla_like": _muon(120, 1e-3),
}
"""For each preset few steps that end settled: at least 99 % direction accuracy and an L2 error of at most 0.05."""


RECORDINGS = Recipe(
    12_500,
    TrainConfig(
        batch_size=512,
        optimizer="muon",
        learning_rate=3e-3,
        weight_decay=0.05,
        warmup_steps=300,
        decay_fraction=0.6,
        shift=8,
        state_noise=0.02,
    ),
)
"""For recordings of a robot; found on Meta-World by `experiments/mt50.py`."""


@checked
def recipe(preset: str, num_scenes: Many = DataConfig().num_train) -> TrainConfig:
    """Returns the measured recipe of a preset, for a training split of this size.

    Raises:
        InputError: there is no such preset.
    """
    check(preset in RECIPES, f"unknown preset {preset!r}; choose from {', '.join(RECIPES)}")
    return RECIPES[preset].for_scenes(num_scenes)
