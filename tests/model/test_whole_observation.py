"""Two cameras of 96 x 128, a state of seven numbers, chunks of eight: all that a policy does, with every part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from tinyvla.act.controller import Controller
from tinyvla.config import HeadConfig, ModelConfig, ObservationConfig, VisionConfig
from tinyvla.data.batch import TensorSplit
from tinyvla.data.demonstrations import Demonstrations
from tinyvla.deploy.export import EXPORTABLE_HEADS, check_parity, export_bytes, run_bytes
from tinyvla.learn.callbacks import Callback, Interrupted
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.evaluate import validation_loss
from tinyvla.learn.train import fit
from tinyvla.model.policy import TinyVLA, new_policy
from tinyvla.recipes import DataConfig, TrainConfig
from tinyvla.registry import ABLATION_KINDS, FUSIONS, HEAD_KINDS

SIZE, CAMERAS, STATE, HORIZON, DIM = (96, 128), ("top", "wrist"), 7, 8, 7
SENTENCES = ("push the block", "pull the block")
SETTINGS = TrainConfig(epochs=12, batch_size=32, learning_rate=8e-3, warmup_steps=5)


def recording(num_episodes: int, seed: int) -> Demonstrations:
    """Episodes whose actions follow from the state and the sentence; pictures of another size show nothing of it."""
    rng = np.random.RandomState(seed)
    lengths = rng.randint(3, 7, num_episodes)
    episodes = np.repeat(np.arange(num_episodes), lengths)
    states = (50 + 20 * rng.randn(num_episodes, STATE))[episodes].astype(np.float32)
    says = rng.randint(0, 2, num_episodes)[episodes]
    actions = np.clip((states - 50) / 40 + 0.2 * says[:, None], -1, 1).astype(np.float32)
    scenes = np.random.RandomState(7).randint(0, 256, (len(CAMERAS), 3, 48, 64), np.uint8)
    images = {name: np.repeat(scene[None], len(episodes), 0) for name, scene in zip(CAMERAS, scenes, strict=True)}
    return Demonstrations(images, actions, [SENTENCES[i] for i in says], episodes, states, fps=10)


@pytest.fixture(scope="module")
def recordings() -> tuple[Demonstrations, Demonstrations]:
    return recording(60, 0), recording(12, 1)


@pytest.fixture
def config(tiny_config: ModelConfig) -> Callable[..., ModelConfig]:
    def make(fusion: str = "cross-attention", head: str = "regression", state: int = STATE) -> ModelConfig:
        is_direction = head == "directions"
        return replace(
            tiny_config,
            vision=VisionConfig(image_size=SIZE, patch_size=32, embed_dim=16, num_layers=1, num_heads=2),
            fusion=replace(tiny_config.fusion, kind=fusion),
            head=HeadConfig(
                kind=head,
                hidden_dim=32,
                action_dim=2 if is_direction else DIM,
                horizon=1 if is_direction else HORIZON,
                normalization="none" if is_direction else "quantiles",
                num_bins=16,
                num_steps=3,
            ),
            observation=ObservationConfig(cameras=CAMERAS, state_dim=state),
        )

    return make


def prepared(policy: TinyVLA, data: Demonstrations) -> TensorSplit:
    """Ready to train on; two numbers an action for a head that names directions."""
    dim = policy.config.head.action_dim
    return replace(data, actions=np.ascontiguousarray(data.actions[:, :dim])).tensors(policy)


def ready(config: ModelConfig, data: Demonstrations, seed: int = 0) -> tuple[TinyVLA, TensorSplit]:
    """A fresh policy with the data's statistics, and the data as it takes them."""
    policy = new_policy(config, seed)
    train = prepared(policy, data)
    policy.prepare_for(train)
    return policy, train


def observed(data: Demonstrations, index: slice) -> dict[str, object]:
    shown = {f"observation.images.{name}": images[index] for name, images in data.images.items()}
    return {**shown, "observation.state": data.states[index], "task": data.instructions[index]}


def same_weights(a: TinyVLA, b: TinyVLA) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class StopAfter(Callback):
    """Interrupts a training after some steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, step: int, loss: float, learning_rate: float) -> None:
        self.stop = step >= self.steps


PARTS = [(kind, "regression") for kind in FUSIONS if kind not in ABLATION_KINDS]
PARTS += [("cross-attention", kind) for kind in HEAD_KINDS if kind != "regression"]


@pytest.mark.parametrize(("fusion", "head"), PARTS)
def test_it_trains_resumes_saves_loads_exports_and_acts(config, recordings, fusion, head, tmp_path: Path):
    made = config(fusion, head)
    few = recording(8, 2)
    policy, train = ready(made, few)
    assert train.images["wrist"].shape[1:] == (3, *SIZE)
    assert (train.action_is_pad is None) == (made.head.horizon == 1)
    settings = replace(SETTINGS, epochs=2, batch_size=8)
    before, _ = validation_loss(policy, train)
    fit(policy, train, train, settings)
    assert validation_loss(policy, train)[0] < before

    resumed, _ = ready(made, few)
    run = RunFolder(tmp_path / "run")
    run.start(RunSettings(made, settings, DataConfig()), {}, overwrite=False)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        fit(resumed, train, train, settings, run=run, callbacks=[StopAfter(3)])
    again, _ = ready(made, few, seed=5)
    fit(again, train, train, settings, run=run)
    assert same_weights(again, policy)

    policy.save_pretrained(tmp_path / "policy")
    loaded = TinyVLA.from_pretrained(tmp_path / "policy")
    assert loaded.config == policy.config
    observation = observed(recordings[1], slice(5))
    answers = [p.predict(observation, generator=torch.Generator().manual_seed(0)) for p in (policy, loaded)]
    assert torch.equal(*answers)
    assert answers[0].shape == ((5, 2) if head == "directions" else (5, HORIZON, DIM))
    one = policy.predict({k: v[0] for k, v in observation.items()}, generator=torch.Generator().manual_seed(0))
    assert one.shape == answers[0].shape[1:]

    controller = Controller(policy, execute=1 if head == "directions" else 4)
    controller.reset(5)
    acted = [np.asarray(controller.act(observation, np.arange(5))) for _ in range(3)]
    assert all(actions.shape == (5, made.head.action_dim) for actions in acted)

    if head in EXPORTABLE_HEADS:
        jaxtyping.config.update("jaxtyping_disable", True)  # the tracer cannot see through the checker of shapes
        try:
            for suffix in (".onnx", ".pt2")[: 1 + (fusion == "gated")]:
                assert check_parity(policy, run_bytes(export_bytes(policy, suffix), suffix)) <= 1e-4
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("fusion", [kind for kind in FUSIONS if kind not in ABLATION_KINDS])
def test_without_the_state_it_does_worse_where_the_task_needs_it(config, recordings, fusion):
    losses = []
    for state in (STATE, 0):
        small = replace(
            config(fusion, state=state), vision=VisionConfig(32, 32, embed_dim=16, num_layers=1, num_heads=2)
        )
        policy, train = ready(small, recordings[0])
        fit(policy, train, train, SETTINGS)
        losses.append(validation_loss(policy, prepared(policy, recordings[1]))[0])
    with_state, without = losses
    assert with_state < 0.85 * without


def test_cameras_are_told_apart(config, recordings):
    policy, _ = ready(config(), recordings[0])
    observation = observed(recordings[1], slice(1))
    swapped = {**observation}
    top, wrist = (f"observation.images.{name}" for name in CAMERAS)
    swapped[top], swapped[wrist] = observation[wrist], observation[top]
    assert not torch.allclose(policy.predict(observation), policy.predict(swapped))
    with pytest.raises(Exception, match="this policy has the cameras top, wrist; give a dict"):
        policy.predict(observation[top], "push the block")


def test_missing_statistics_of_the_state_are_noticed(config, recordings):
    policy = new_policy(config(), 0)
    policy.fit_statistics(prepared(policy, recordings[0]).actions)
    with pytest.raises(Exception, match=r"normalises its states .* has no statistics"):
        policy.predict(observed(recordings[1], slice(1)))


@pytest.mark.parametrize("head", [kind for kind in HEAD_KINDS if kind != "directions"])
def test_what_lies_after_an_episodes_end_does_not_count(config, recordings, head):
    policy, train = ready(config(head=head), recordings[0])
    batch = train.take(torch.arange(30))
    assert batch.action_is_pad.any()
    spoiled = torch.where(batch.action_is_pad[..., None], 123.0, batch.actions)
    losses = [
        policy.loss(replace(batch, actions=actions), torch.Generator().manual_seed(0))
        for actions in (batch.actions, spoiled)
    ]
    assert torch.equal(*losses)
    unmasked = policy.loss(replace(batch, actions=spoiled, action_is_pad=None), torch.Generator().manual_seed(0))
    assert not torch.allclose(losses[0], unmasked)


def test_an_old_checkpoint_loads(tiny_config, tmp_path: Path):
    """Of before states, cameras and the record of words: no `observation` in its config, no `seen` in its weights."""
    import json

    from safetensors.torch import load_file, save_file

    policy = new_policy(tiny_config, 0)
    policy.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["observation"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["language.seen"]
    save_file(weights, tmp_path / "model.safetensors")
    assert same_weights(TinyVLA.from_pretrained(tmp_path), policy)
