"""`lerobot-train --policy.type=tinyvla` on a data set of our own writer: the loss falls, the checkpoint works."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from with_lerobot import DEVICE, lerobot

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.lerobot import write_dataset
from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA

from lerobot.configs.types import FeatureType, PolicyFeature  # isort: skip
from lerobot_policy_tinyvla import TinyVLAConfig, TinyVLAPolicy, from_lerobot  # isort: skip

STEPS = 40


@pytest.fixture(scope="module")
def demonstrations():
    """An arm of one joint and a gripper: it points to the red square, and opens or closes as it is told."""
    draw, columns = np.random.RandomState(0), {"images": [], "actions": [], "states": [], "words": [], "episodes": []}
    for number in range(20):
        closes, place, joint = number % 2, draw.randint(4, 28), 0.0
        for _ in range(8):
            image = np.full((3, 32, 32), 30, np.uint8)
            image[0, 12:20, place - 4 : place + 4] = 250
            goal = (3.0 * (place - 16), 100.0 * closes)
            words = f"{'close' if closes else 'open'} the gripper"
            for name, value in zip(columns, (image, goal, (joint, 50.0), words, number), strict=True):
                columns[name].append(value)
            joint += (goal[0] - joint) / 2
    numbers = (np.array(columns[name], np.float32) for name in ("actions", "states"))
    actions, states = numbers
    episodes = np.array(columns["episodes"], np.int64)
    return Demonstrations({"front": np.stack(columns["images"])}, actions, columns["words"], episodes, states, fps=10)


@pytest.fixture(scope="module")
def trained(demonstrations, tmp_path_factory):
    """The run's folder, and what the command said."""
    folder = tmp_path_factory.mktemp("train")
    write_dataset(demonstrations, folder / "squares")
    return folder, lerobot("lerobot-train", *options(folder))


def options(folder):
    return (
        "--dataset.repo_id=local/squares",
        f"--dataset.root={folder / 'squares'}",
        "--policy.type=tinyvla",
        "--policy.preset=nano",
        "--policy.image_size=32",
        "--policy.chunk_size=3",
        "--policy.n_action_steps=2",
        "--policy.optimizer_lr=3e-3",
        "--policy.scheduler_warmup_steps=0",
        f"--policy.device={DEVICE}",
        "--policy.push_to_hub=false",
        f"--output_dir={folder / 'run'}",
        "--batch_size=16",
        f"--steps={STEPS}",
        f"--save_freq={STEPS}",
        "--log_freq=10",
        "--num_workers=0",
        "--wandb.enable=false",
    )


def test_the_loss_falls(trained):
    losses = [float(loss) for loss in re.findall(r" loss:([\d.]+)", trained[1])]
    assert len(losses) == STEPS // 10
    assert losses[-1] < 0.6 * losses[0], losses


def test_the_trained_checkpoint_is_a_tinyvla_with_the_data_set_s_statistics(trained, demonstrations, tmp_path):
    checkpoint = trained[0] / f"run/checkpoints/{STEPS:06d}/pretrained_model"
    policy = TinyVLA.from_pretrained(from_lerobot(checkpoint, tmp_path / "mine"))
    assert torch.allclose(policy.head.normalizer.offset, torch.from_numpy(demonstrations.actions).double().mean(dim=0))
    assert policy.language.unseen_words("close the drawer") == ["drawer"]
    seen = {
        "observation.images.front": demonstrations.images["front"],
        "observation.state": demonstrations.states,
        "task": demonstrations.instructions,
    }
    error = np.abs(policy.predict(seen)[:, 0].numpy() - demonstrations.actions).mean()
    assert error < 0.7 * np.abs(demonstrations.actions - demonstrations.actions.mean(axis=0)).mean()


def test_a_checkpoint_is_trained_further(trained, tmp_path):
    checkpoint = trained[0] / f"run/checkpoints/{STEPS:06d}/pretrained_model"
    known = [o for o in options(trained[0]) if not o.startswith(("--policy.", "--output_dir", "--steps", "--save"))]
    more = (f"--policy.path={checkpoint}", "--policy.push_to_hub=false", "--steps=2", "--save_freq=2")
    said = lerobot("lerobot-train", *known, *more, f"--output_dir={tmp_path / 'more'}", "--log_freq=1")
    first = float(re.findall(r" loss:([\d.]+)", said)[0])
    start = float(re.findall(r" loss:([\d.]+)", trained[1])[0])
    assert first < 0.7 * start  # it did not begin anew
    assert (tmp_path / "more/checkpoints/000002/pretrained_model/model.safetensors").is_file()


FRONT = {"observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 64, 64))}
ACTION = {"action": PolicyFeature(FeatureType.ACTION, (2,))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_obs_steps": 2}, "looks at one moment"),
        ({"n_action_steps": 17}, "n_action_steps is 17"),
        ({"preset": "enormous"}, "unknown preset"),
        ({"head": "oracle"}, "oracle"),
        ({"head": "fast"}, "tinyvla train"),
        ({"image_size": 100}, "32 must divide it"),
        ({"normalization": "max"}, "unknown normalization"),
        ({"input_features": {}}, "at least one camera"),
        ({"output_features": {}}, "no feature named action"),
        ({"input_features": {**FRONT, "observation.front": FRONT["observation.images.front"]}}, "one name"),
        ({"model": {"head": {"kind": "flow"}}}, "the checkpoint was made with 'flow'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(options, message):
    with pytest.raises(InputError, match=message):
        TinyVLAPolicy(TinyVLAConfig(**{"input_features": FRONT, "output_features": ACTION, "device": "cpu", **options}))


def test_quantiles_that_a_data_set_lacks_are_named():
    config = TinyVLAConfig(
        input_features=FRONT, output_features=ACTION, preset="nano", normalization="quantiles", device="cpu"
    )
    with pytest.raises(InputError, match="lack q01 and q99"):
        TinyVLAPolicy(config, dataset_stats={"action": {"mean": np.zeros(2), "std": np.ones(2)}})


def test_the_statistics_are_exactly_those_of_lerobot_s_stats():
    config = TinyVLAConfig(
        input_features=FRONT, output_features=ACTION, preset="nano", normalization="quantiles", device="cpu"
    )
    stats = {"action": {"q01": np.array([-0.3, 1.0]), "q99": np.array([0.7, 5.0])}}
    normalizer = TinyVLAPolicy(config, dataset_stats=stats).model.head.normalizer
    assert torch.allclose(normalizer.offset, torch.tensor([0.2, 3.0]).double())
    assert torch.allclose(normalizer.scale, torch.tensor([0.5, 2.0]).double())
