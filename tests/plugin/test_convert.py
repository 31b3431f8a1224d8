"""One checkpoint, two roads: `TinyVLA.predict`, and LeRobot's processors and `select_action`."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from with_lerobot import as_lerobot_gives, observations, save_policy

from tinyvla.errors import InputError
from tinyvla.model.policy import TinyVLA

from lerobot.policies.factory import get_policy_class, make_pre_post_processors  # isort: skip
from lerobot_policy_tinyvla import from_lerobot, to_lerobot  # isort: skip
from lerobot_policy_tinyvla.cli import main  # isort: skip

CAMERAS = {"observation.images.front": (96, 128), "observation.images.wrist": (64, 64)}


def actions_through_lerobot(checkpoint, given, steps=1):
    """What `lerobot-eval` does: processors and policy from the folder, an observation in, actions out."""
    policy = get_policy_class("tinyvla").from_pretrained(checkpoint)
    before, behind = make_pre_post_processors(policy.config, pretrained_path=checkpoint)
    answers = []
    for observation in given:
        policy.reset()
        answers.append([behind(policy.select_action(before(as_lerobot_gives(observation))))[0] for _ in range(steps)])
    return torch.stack([torch.stack(answer) for answer in answers])


@pytest.mark.parametrize(
    "config",
    [
        {"head": "l1", "horizon": 4},
        {"head": "flow", "horizon": 3, "normalization": "mean-std"},
        {"head": "regression", "horizon": 1},
    ],
    ids=["a chunk", "a head that draws", "one action"],
)
def test_equal_answers_over_100_observations(config, tmp_path):
    policy = save_policy(tmp_path / "mine", **config)
    horizon = config["horizon"]
    to_lerobot(tmp_path / "mine", tmp_path / "theirs", CAMERAS, execute=horizon)
    from_lerobot(tmp_path / "theirs", tmp_path / "back")
    back, given = TinyVLA.from_pretrained(tmp_path / "back"), observations(100)

    def draws():
        return torch.Generator().manual_seed(0)

    mine = torch.stack([policy.predict(o, generator=draws()).reshape(horizon, 6) for o in given])
    returned = torch.stack([back.predict(o, generator=draws()).reshape(horizon, 6) for o in given])
    theirs = actions_through_lerobot(tmp_path / "theirs", given, steps=horizon)
    assert (mine[:, 0].std(dim=0) > 1e-3).all()  # it looks: the answers differ
    assert (mine - theirs).abs().max() <= 1e-5
    assert (mine - returned).abs().max() == 0


def test_the_policy_looks_again_after_as_many_actions_as_it_was_told(tmp_path):
    save_policy(tmp_path / "mine", horizon=4)
    to_lerobot(tmp_path / "mine", tmp_path / "theirs", CAMERAS, execute=2)
    policy = get_policy_class("tinyvla").from_pretrained(tmp_path / "theirs")
    before, _ = make_pre_post_processors(policy.config, pretrained_path=tmp_path / "theirs")
    first, second = (before(as_lerobot_gives(o)) for o in observations(2))
    chunks = {0: policy.predict_action_chunk(first)[0], 1: policy.predict_action_chunk(second)[0]}
    done = [policy.select_action(batch)[0] for batch in (first, second, second)]
    assert torch.equal(torch.stack(done), torch.stack([chunks[0][0], chunks[0][1], chunks[1][0]]))


def test_a_float_image_and_the_bytes_behind_it_give_the_same_pixels():
    from lerobot_policy_tinyvla.processor_tinyvla import TinyVLAImagesStep

    step = TinyVLAImagesStep(32, 48, "pad")
    pixels = torch.randint(0, 256, (2, 3, 90, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = step.observation({"observation.images.a": pixels, "observation.image": pixels.float() / 255, "state": 1})
    assert seen["observation.images.a"].shape == (2, 3, 32, 48)
    assert torch.equal(seen["observation.images.a"], seen["observation.image"])
    assert seen["state"] == 1


def test_the_command_converts_and_refuses_in_one_line(tmp_path, capsys):
    save_policy(tmp_path / "mine")
    mine, theirs, back = (str(tmp_path / name) for name in ("mine", "theirs", "back"))
    main(["to", mine, theirs, *(f"--camera={key}={h}x{w}" for key, (h, w) in CAMERAS.items()), "--execute=3"])
    config = json.loads((tmp_path / "theirs/config.json").read_text())
    assert (config["type"], config["n_action_steps"]) == ("tinyvla", 3)
    assert config["input_features"]["observation.images.front"]["shape"] == [3, 96, 128]
    main(["from", theirs, back])
    for wrong in (
        ["to", mine, theirs],  # exists
        ["to", str(tmp_path / "nothing"), back + "2"],
        ["to", mine, back + "2", "--camera=front"],
        ["to", mine, back + "2", "--camera=observation.images.side=4x4"],
        ["to", mine, back + "2", "--execute=5"],
        ["from", mine, back + "2"],  # TinyVLA's own config.json names no type
        ["from", str(tmp_path / "nothing"), back + "2"],
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        out = capsys.readouterr().err
        assert stop.value.code == 2
        assert re.fullmatch("error: .*\n", out), (wrong, out)
        assert not (tmp_path / "back2").exists()


def test_lost_or_foreign_statistics_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_policy(tmp_path / "mine")
    to_lerobot(tmp_path / "mine", tmp_path / "theirs")
    weights = load_file(tmp_path / "theirs/model.safetensors")
    for name, change in (("scale", lambda x: 2 * x), ("scale", None)):
        shutil.copytree(tmp_path / "theirs", tmp_path / "damaged", dirs_exist_ok=True)
        key = f"model.head.normalizer.{name}"
        changed = {k: v for k, v in weights.items() if k != key} | ({key: change(weights[key])} if change else {})
        save_file(changed, tmp_path / "damaged/model.safetensors")
        with pytest.raises(InputError, match=r"statistics|normalizer\.scale"):
            get_policy_class("tinyvla").from_pretrained(tmp_path / "damaged")
