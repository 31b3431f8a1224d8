from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tinyvla.data.demonstrations import Demonstrations
from tinyvla.data.report import inspect, shown_numbers

LENGTH, COUNT, FPS = 20, 8, 10
SAY = ["pick up the red block", "pick up the blue block"]


def frames(episode: int) -> slice:
    return slice(LENGTH * episode, LENGTH * (episode + 1))


@pytest.fixture
def healthy() -> Demonstrations:
    """An arm that moves all the time, before two cameras."""
    rng, total = np.random.RandomState(0), LENGTH * COUNT
    time = np.tile(np.arange(LENGTH), COUNT)
    place = np.stack([np.sin(0.2 * time), np.cos(0.15 * time), time > 10], axis=1).astype(np.float32)
    images = {name: np.full((total, 3, 32, 32), value, np.uint8) for name, value in (("front", 150), ("wrist", 70))}
    for i in range(total):
        for name, row in (("front", 4), ("wrist", 18)):
            images[name][i, :, row : row + 8, time[i] : time[i] + 8] = 230
    images = {name: (each + rng.randint(0, 2, each.shape)).astype(np.uint8) for name, each in images.items()}
    return Demonstrations(
        images,
        place,
        [SAY[i // LENGTH % 2] for i in range(total)],
        np.repeat(np.arange(COUNT), LENGTH),
        place.copy(),
        FPS,
        ("shoulder", "elbow", "gripper"),
        time / FPS,
    )


def faults(data: Demonstrations) -> list[tuple[str, tuple[int, ...]]]:
    return [(fault.kind, fault.episodes) for fault in inspect(data).faults]


def test_nothing_is_found_where_nothing_is_wrong(healthy):
    report = inspect(healthy)
    assert report.faults == []
    assert "nothing that looks wrong" in report.text()
    assert report.lengths.tolist() == [LENGTH] * COUNT
    assert report.sentences == {text: COUNT // 2 for text in SAY}
    assert report.actions["gripper"]["max"] == 1
    assert report.cameras["wrist"]["height"] == 32
    assert json.loads(json.dumps(report.to_dict()))["frames"] == LENGTH * COUNT


def test_a_dark_and_a_frozen_camera(healthy):
    images = {name: each.copy() for name, each in healthy.images.items()}
    images["wrist"][frames(3)] = 5
    images["front"][LENGTH * 5 + 4 : LENGTH * 5 + 16] = images["front"][LENGTH * 5 + 4]
    found = inspect(replace(healthy, images=images)).faults
    assert {(fault.kind, fault.episodes) for fault in found} == {("dark", (3,)), ("frozen", (5,))}
    assert {fault.what for fault in found} == {
        "episode 3: the camera wrist is dark",
        "episode 5: the camera front is frozen while the robot moves",
    }


def test_a_camera_that_stands_still_with_the_robot_is_not_frozen(healthy):
    images, states = {n: each.copy() for n, each in healthy.images.items()}, healthy.states.copy()
    here = slice(LENGTH * 5 + 4, LENGTH * 5 + 10)
    for each in (*images.values(), states):
        each[here] = each[here.start]
    assert faults(replace(healthy, images=images, states=states)) == []


def test_cameras_that_were_exchanged(healthy):
    images = {name: each.copy() for name, each in healthy.images.items()}
    images["front"][frames(6)], images["wrist"][frames(6)] = (
        healthy.images["wrist"][frames(6)],
        healthy.images["front"][frames(6)],
    )
    assert faults(replace(healthy, images=images)) == [("swapped", (6,))]


def test_a_glitch_is_no_motion(healthy):
    actions = healthy.actions.copy()
    actions[LENGTH * 2 + 7, 0] += 1.5
    assert faults(replace(healthy, actions=actions)) == [("jump", (2,))]


def test_numbers_that_never_change(healthy):
    actions = healthy.actions.copy()
    actions[:, 1] = 0.25
    (fault,) = inspect(replace(healthy, actions=actions)).faults
    assert (fault.kind, fault.episodes) == ("constant", ())
    assert "elbow" in fault.what
    actions = healthy.actions.copy()
    actions[frames(4)] = actions[LENGTH * 4]
    assert ("constant", (4,)) in faults(replace(healthy, actions=actions))


def test_pauses(healthy):
    states, actions = healthy.states.copy(), healthy.actions.copy()
    images = {name: each.copy() for name, each in healthy.images.items()}
    for each in (states, actions, *images.values()):
        each[LENGTH : LENGTH + 9] = each[LENGTH]
        each[LENGTH * 4 - 9 : LENGTH * 4] = each[LENGTH * 4 - 9]
    found = inspect(replace(healthy, states=states, actions=actions, images=images)).faults
    assert [(fault.kind, fault.episodes) for fault in found] == [("idle", (1,)), ("idle", (3,))]
    assert "first 30%" in found[0].what
    assert "last 30%" in found[1].what


def test_time_stamps(healthy):
    times = healthy.timestamps.copy()
    times[LENGTH * 3 + 5 : LENGTH * 4] += 0.1
    assert faults(replace(healthy, timestamps=times)) == [("times", (3,))]
    assert faults(replace(healthy, timestamps=None)) == []


def test_lengths(healthy):
    kept = np.concatenate([np.arange(LENGTH * COUNT)[frames(e)][: 5 if e == 2 else None] for e in range(COUNT)])
    assert faults(healthy.rows(kept)) == [("short", (2,))]
    numbers = healthy.episodes.copy()
    numbers[numbers <= 3] = 0
    numbers[numbers > 3] -= 3
    assert ("long", (0,)) in faults(replace(healthy, episodes=numbers, timestamps=None))


def test_sentences(healthy):
    say = list(healthy.instructions)
    say[frames(6)] = ["pick up the rde block"] * LENGTH
    say[frames(7)] = ["Pick up the blue block."] * LENGTH
    assert faults(replace(healthy, instructions=say)) == [("sentence", (7,))], "three letters say too little"
    say[frames(6)] = ["pick up the red blokc"] * LENGTH
    (typo, capitals) = inspect(replace(healthy, instructions=say)).faults
    assert "'blokc' in the sentence looks like 'block' misspelt" in typo.what
    assert (typo.episodes, capitals.episodes) == ((6,), (7,))


def test_numbers_in_words():
    assert shown_numbers([3]) == "3"
    assert shown_numbers([7, 3]) == "3 and 7"
    assert shown_numbers([9, 1, 4]) == "1, 4 and 9"
    assert shown_numbers(range(20)) == "0, 1, 2, 3, 4, 5 and 14 more"
