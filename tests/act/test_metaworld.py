"""Meta-World: the tasks and the plans need nothing; what simulates is skipped where `metaworld` does not work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from tinyvla.act.metaworld.answer import PolicyAnswer, judge_policy
from tinyvla.act.metaworld.collect import Plan, collect, join, read_plan, record, record_episodes
from tinyvla.act.metaworld.judge import Episode, Judges, Mode, _act
from tinyvla.act.metaworld.report import summary, table
from tinyvla.act.metaworld.scene import CAMERA_PLACE, MetaWorldConfig, Scene, draw_on, load_metaworld
from tinyvla.act.metaworld.tasks import GROUPS, SENTENCES, TASKS, episode_seed, find_tasks
from tinyvla.act.metaworld.workers import num_processes
from tinyvla.act.metaworld.world import MetaWorld
from tinyvla.data.lerobot import read_dataset
from tinyvla.data.lerobot_writer import Episode as Recorded
from tinyvla.errors import InputError
from tinyvla.model.policy import new_policy
from tinyvla.recipes import RecordingConfig

SMALL = MetaWorldConfig(image_size=32)


@pytest.fixture(scope="module")
def metaworld():
    try:
        module = load_metaworld()
        scene = Scene(find_tasks("reach")[0], SMALL)
        scene.begin(0)
        scene.picture()
    except InputError as error:
        pytest.skip(str(error))
    return module


def test_fifty_tasks_four_groups_and_49_sentences():
    assert Counter(task.group for task in TASKS) == {"easy": 28, "medium": 11, "hard": 6, "very_hard": 5}
    assert len({task.name for task in TASKS}) == 50
    assert len(SENTENCES) == 49
    shared = [task.name for task in TASKS if task.sentence == "Push the puck to a goal"]
    assert shared == ["push-back", "push"]


def test_tasks_are_found_by_name_and_by_group():
    assert find_tasks("mt50") == list(TASKS)
    assert [task.name for task in find_tasks("reach-v3, door-open,reach")] == ["reach", "door-open"]
    assert sum(len(find_tasks(group)) for group in GROUPS) == 50
    with pytest.raises(InputError, match=r"unknown Meta-World task 'fly'; choose mt50, a group .*, reach,"):
        find_tasks("fly")


@pytest.mark.parametrize(
    ("visible", "gpu", "drawn_on"),
    [(None, 1, "1"), ("", 0, "0"), ("2,3", 0, "2"), ("2, 3", 1, "3"), ("GPU-030c94aa", 0, "0")],
)
def test_pictures_are_drawn_on_the_gpu_that_the_policy_has(monkeypatch, visible, gpu, drawn_on):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    draw_on(gpu)
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == drawn_on


def test_seeds_of_splits_do_not_meet():
    seeds = [
        episode_seed(split, task, index, attempt)
        for split in ("train", "validation", "judge")
        for task in TASKS
        for index in range(10)
        for attempt in range(3)
    ]
    assert len(set(seeds)) == len(seeds)


def test_unusable_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="image_size is 8"):
        MetaWorldConfig(image_size=8)
    with pytest.raises(InputError, match="max_steps is 501"):
        MetaWorldConfig(max_steps=501)
    with pytest.raises(InputError, match="at least one seed"):
        MetaWorld([])
    with pytest.raises(InputError, match="'hard' is several tasks"):
        MetaWorld([0], "hard")
    with pytest.raises(InputError, match="2 seeds but 1 tasks"):
        MetaWorld([0, 1], ["reach"])
    with pytest.raises(InputError, match=r"Plan\.demos is 0"):
        Plan(("reach",), demos=0)
    with pytest.raises(InputError, match=r"no collection\.json"):
        read_plan(tmp_path)


def test_a_missing_metaworld_is_named():
    code = (
        "import sys; sys.modules['metaworld'] = None\n"
        "from tinyvla.act.metaworld.scene import load_metaworld\n"
        "from tinyvla.errors import InputError\n"
        "try: load_metaworld()\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tinyvla[metaworld]'" in done.stdout


def test_an_episode_follows_from_its_seed_alone(metaworld):
    task = find_tasks("assembly")[0]
    fresh, used = Scene(task, SMALL), Scene(task, SMALL)
    used.begin(1)
    for _ in range(15):
        used.step(used.expert_action())
    before = np.random.get_state()[1].copy()
    for scene in (fresh, used):
        scene.begin(7)
    assert (np.random.get_state()[1] == before).all(), "NumPy's generator is left as it was"
    for _ in range(10):
        assert (fresh.observation == used.observation).all()
        assert (fresh.picture() == used.picture()).all()
        for scene in (fresh, used):
            scene.step(scene.expert_action())
    used.begin(8)
    assert (fresh.observation != used.observation).any()


def test_the_picture_and_the_start_are_those_of_lerobots_environment(metaworld):
    made = metaworld.MT1("push-v3", seed=42)
    env = made.train_classes["push-v3"](render_mode="rgb_array", camera_name="corner2", width=64, height=64)
    env.set_task(made.train_tasks[0])
    env.model.cam_pos[2] = CAMERA_PLACE
    env.reset()
    env._freeze_rand_vec = False
    np.random.seed(3)
    theirs, _ = env.reset()
    scene = Scene(find_tasks("push")[0], MetaWorldConfig(image_size=64, shadows=True, samples=4))
    scene.begin(3)
    assert (scene.observation == theirs).all()
    assert (scene.picture() == np.flip(env.render(), (0, 1))).all()
    for _ in range(5):
        action = scene.expert_action()
        scene.step(action)
        theirs = env.step(action)[0]
    assert (scene.observation == theirs).all()
    assert (scene.picture() == np.flip(env.render(), (0, 1))).all()
    env.close()


def test_the_first_picture_shows_another_goal(metaworld):
    scene = Scene(find_tasks("reach")[0], MetaWorldConfig(image_size=128))
    scene.begin(7)
    goal, mark = scene.observation[-3:], scene._env.data.site("goal").xpos
    assert np.linalg.norm(goal - mark) > 0.02
    scene.step(np.zeros(4))
    assert np.linalg.norm(goal - mark) < 1e-6


def test_the_experts_chunk_is_what_it_does(metaworld):
    for name in ("hammer", "pick-place", "drawer-close"):
        scene, twin = Scene(find_tasks(name)[0], SMALL), Scene(find_tasks(name)[0], SMALL)
        for one in (scene, twin):
            one.begin(5)
            for _ in range(8):
                one.step(one.expert_action())
        chunk = scene.expert_chunk(6)
        assert (scene.picture() == twin.picture()).all()
        for planned in chunk:
            assert np.allclose(planned, twin.expert_action())
            assert np.allclose(scene.observation, twin.observation)
            for one in (scene, twin):
                one.step(planned)


def test_many_episodes_side_by_side(metaworld):
    world = MetaWorld(
        [0, 1, 2], ["drawer-close", "button-press", "reach"], MetaWorldConfig(image_size=32, max_steps=200)
    )
    seen = world.observe()
    assert seen["observation.images.corner2"].shape == (3, 3, 32, 32)
    assert seen["observation.state"].shape == (3, 4)
    assert seen["task"] == ["Push and close a drawer", "Press a button", "Reach a goal position"]
    assert world.observe(np.array([1]))["task"] == ["Press a button"]
    while len(world.running):
        world.step(world.expert_chunk(1)[:, 0])
    assert world.succeeded.all()
    assert len(set(world.steps)) == 3, "episodes end one by one"
    world.close()


def test_a_world_refuses_wrong_actions(metaworld):
    world = MetaWorld([0, 1], "reach", SMALL)
    with pytest.raises(InputError, match="2 running episodes need"):
        world.step(np.zeros((1, 4)))
    with pytest.raises(InputError, match="NaN"):
        world.step(np.full((2, 4), np.nan))


def test_a_world_is_one_of_the_courses(metaworld):
    from tinyvla.act.rollout import expert, rollout
    from tinyvla.act.world import World

    world = MetaWorld([0, 1], ["drawer-close", "hand-insert"], SMALL)
    assert isinstance(world, World)
    result = rollout(expert, world)
    assert result.success.all()
    assert result.summary == {"success_easy": 1.0, "success_hard": 1.0, "mean_of_groups": 1.0}


def test_a_record_ends_with_the_success(metaworld):
    task = find_tasks("drawer-close")[0]
    scene = Scene(task, SMALL)
    found = record(scene, [episode_seed("train", task, 0)])
    length = len(found.table)
    assert scene.succeeded
    assert scene.steps == length
    assert set(found.tasks) == {task.sentence}
    columns = {key: np.array(found.table.column(key).to_pylist()) for key in found.table.column_names[1:]}
    assert columns["action"].shape == (length, 4)
    assert np.abs(columns["action"]).max() <= 1
    assert (columns["observation.state"] == columns["observation.environment_state"][:, :4]).all()
    assert columns["next.success"].tolist() == [False] * (length - 1) + [True]
    assert found.histograms["observation.images.corner2"].sum() == length * 32 * 32 * 3


def test_a_disturbed_expert_recovers_and_is_recorded_as_it_meant(metaworld):
    scene, task = Scene(find_tasks("drawer-close")[0], SMALL), find_tasks("drawer-close")[0]
    seeds = [episode_seed("train", task, 0, attempt) for attempt in range(5)]
    plain, disturbed = (record(scene, seeds, noise).table.column("action").to_pylist() for noise in (0.0, 0.3))
    assert plain[0] == disturbed[0], "the first action is meant before anything is disturbed"
    assert plain != disturbed
    assert np.abs(disturbed).max() <= 1


@pytest.fixture(scope="module")
def collected(metaworld, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected") / "set"
    plan = Plan(("drawer-close", "button-press"), demos=2, image_size=32)
    collect(folder, plan, workers=1)
    return folder, plan


def test_a_collection_is_a_data_set_that_anyone_reads(collected):
    folder, plan = collected
    data = read_dataset(folder)
    assert list(data.images) == ["corner2"]
    assert data.images["corner2"].shape[1:] == (3, 32, 32)
    assert data.states.shape[1] == data.actions.shape[1] == 4
    assert data.action_names == ("x", "y", "z", "gripper")
    first = [data.instructions[np.flatnonzero(data.episodes == i)[0]] for i in range(4)]
    assert first == [task.sentence for task, _ in plan.episodes]
    assert not (folder / "episodes").exists(), "their own files are gone"
    assert not (folder / ".lock").exists()
    assert read_plan(folder) == plan
    (folder / "episodes").mkdir()  # as a kill leaves it between the last two steps
    collect(folder, plan)
    assert not (folder / "episodes").exists()


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "collection.json").write_text("{")
    with pytest.raises(InputError, match=r"collection\.json"):
        read_plan(tmp_path)
    (tmp_path / "collection.json").write_text('{"tasks": ["reach"], "colour": 1}')
    with pytest.raises(InputError, match=r"unknown keys \['colour'\]"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "value",
    ['"demos": "x"', '"noise": null', '"tasks": 5', '"tasks": []', '"tasks": ["fly"]', '"split": 1', '"samples": -1'],
)
def test_a_plan_with_a_wrong_value_is_damaged(value, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no such checks
    text = '{"tasks": ["reach"], ' * ("tasks" not in value) + "{" * ("tasks" in value) + value + "}"
    (tmp_path / "collection.json").write_text(text)
    for verb in (read_plan, partial(collect, plan=Plan(("reach",), image_size=32))):
        with pytest.raises(InputError, match=r"collection\.json is damaged: "):
            verb(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["collection.json"]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "foreign", "another task", "folder"])
def test_a_damaged_episode_is_named(damage, tmp_path):
    plan = Plan(("drawer-close", "reach"), demos=1, image_size=32)
    (tmp_path / "episodes").mkdir()
    (tmp_path / "collection.json").write_text(json.dumps(vars(plan)))
    path = tmp_path / "episodes" / "reach_0000.parquet"
    images, columns = {"corner2": np.zeros((2, 32, 32, 3), np.uint8)}, {"action": np.zeros((2, 4), np.float32)}
    Recorded.of(
        images, columns, ["Open a drawer" if damage == "another task" else "Reach a goal position"] * 2, 80
    ).save(path)
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    elif damage != "another task":
        path.write_bytes({"cut": path.read_bytes()[:-9], "empty": b"", "garbage": b"garbage" * 100}[damage])
    for work in (record_episodes, join):
        with pytest.raises(InputError, match=r"reach_0000\.parquet is damaged, or no episode of its task"):
            work(tmp_path, Plan(("reach",), demos=1, image_size=32) if work is join else plan)


def test_two_collections_do_not_work_in_one_folder(tmp_path):
    (tmp_path / "episodes").mkdir()
    (tmp_path / "episodes" / "reach_0000.part").write_text("in hand")
    plan = Plan(("reach",), demos=1, image_size=32)
    (tmp_path / "collection.json").write_text(json.dumps(vars(plan)))
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="in use by another process"):
        collect(tmp_path, plan)
    assert (tmp_path / "episodes" / "reach_0000.part").read_text() == "in hand"


def test_a_collection_goes_on_where_it_stopped(metaworld, tmp_path):
    plan = Plan(("drawer-close",), demos=2, image_size=32)
    record_episodes(tmp_path, plan, workers=1)
    files = [plan.path(tmp_path, task, index) for task, index in plan.episodes]
    kept, again = files[0].stat().st_mtime_ns, files[1].read_bytes()
    files[1].unlink()
    files[1].with_suffix(".12345.part").write_bytes(b"killed here")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "half").write_text("killed while joining")
    with pytest.raises(InputError, match="holds 1 of 2 episodes; run the same collection to go on"):
        read_plan(tmp_path)
    with pytest.raises(InputError, match=r"meta/info\.json"):
        read_dataset(tmp_path)
    record_episodes(tmp_path, plan, workers=1)
    assert files[0].stat().st_mtime_ns == kept, "what is there is not recorded again"
    assert files[1].read_bytes() == again, "and the rest is as it would have been"
    assert not list(tmp_path.rglob("*.part"))
    join(tmp_path, plan)
    assert read_dataset(tmp_path).episodes[-1] == 1
    assert not (tmp_path / "data" / "half").exists()
    with pytest.raises(InputError, match="another collection"):
        collect(tmp_path, Plan(("drawer-close",), demos=3, image_size=32))
    assert json.loads((tmp_path / "collection.json").read_text())["demos"] == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["photo.jpg"], "holds other files"),
        ([".lock", "photo.jpg"], "holds other files"),
        (["episodes"], "holds other files"),
        ([".lock"], r"\.lock was not written by a collection; move it away, or give another folder"),
    ],
)
def test_a_folder_with_other_files_is_left_alone(names, message, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=message):
        collect(tmp_path, Plan(("drawer-close",), demos=1, image_size=32))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def test_a_folder_is_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file is a file; FOLDER must name a folder"):
            collect(place, Plan(("drawer-close",), demos=1, image_size=32))


STOPPED = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder, name, whom = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
command = ["-m", "tinyvla", "metaworld", "collect", str(folder), "--tasks", "drawer-close", "--demos", "40"]
command += ["--image-size", "32", "--samples", "0", "--workers", "2"]
process = subprocess.Popen([sys.executable, *command], start_new_session=True)
while not list(folder.glob("episodes/*.parquet")):
    time.sleep(0.02)
    assert process.poll() is None
(os.killpg if whom == "all" else os.kill)(process.pid, getattr(signal, name))
code, end = process.wait(60), time.time() + 3
while time.time() < end:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        sys.exit(code % 256)
    time.sleep(0.05)
os.killpg(process.pid, signal.SIGKILL)
sys.exit("its processes work on")
"""
"""Stops a collection that has begun, and ends with its exit code once all of its processes have ended."""


@pytest.mark.parametrize(
    ("name", "whom", "code", "says"),
    [
        ("SIGINT", "all", 130, "stopped; the same command goes on"),
        ("SIGTERM", "one", 143, ""),
        ("SIGTERM", "all", 143, ""),
        ("SIGKILL", "one", 256 - signal.SIGKILL, ""),
    ],
)
def test_a_collection_that_is_stopped_leaves_no_process_and_no_traceback(metaworld, name, whom, code, says, tmp_path):
    run = [sys.executable, "-c", STOPPED, str(tmp_path / "set"), name, whom]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "leaked" not in done.stderr or name == "SIGKILL", done.stderr
    there = [path.name for path in (tmp_path / "set").iterdir()]
    assert (".lock" in there) == (name == "SIGKILL")


def test_chunks_are_executed_or_averaged():
    class Line(Scene):
        """A scene whose state counts its steps; it notes what is done."""

        def __init__(self):
            self.steps, self.done = 0, []  # no simulator

        @property
        def distances(self):
            return abs(3 - self.steps), 0.5

        @property
        def over(self):
            return self.steps == 6

        def step(self, action):
            self.done.append(float(action[0]))
            self.steps += 1

    def ask(scene):
        """A chunk of three actions that says when it was made, and for how many steps later each action is."""
        return np.array([[10 * scene.steps + later] * 4 for later in range(3)], np.float32)

    line = Line()
    assert _act(line, ask, Mode(2)) == (0, 0.5), "the closest that hand and object came"
    assert line.done == [0, 1, 20, 21, 40, 41]
    line = Line()
    _act(line, ask, Mode(ensemble=0.0))
    assert line.done == pytest.approx([0, (10 + 1) / 2, (20 + 11 + 2) / 3, 21, 31, 41], abs=1e-5)


def test_judges_run_the_experts_task_in_processes(metaworld):
    judges = Judges(2, MetaWorldConfig(image_size=32, max_steps=30), chunk=4)

    def answer(images, states, tasks):
        assert images.shape == (2, 32, 32, 3)
        return np.zeros((2, 4, 4), np.float32)

    modes, tasks = [Mode(4), Mode(ensemble=0.01)], find_tasks("reach,door-open")
    found = list(judges.run(answer, modes, tasks, lambda task, i: episode_seed("judge", task, i), 2, seconds=120.0))
    judges.close()
    assert Counter((e.mode, e.task) for e in found) == {(m.name, t.name): 2 for m in modes for t in tasks}
    assert all(not e.success and e.steps == 30 for e in found), "who does nothing does not reach"


@pytest.fixture(scope="module")
def small_policy(collected):
    """Untrained, for 32 x 32 pixels."""
    data = read_dataset(collected[0])
    config = data.robot_config(RecordingConfig(image_size=32, horizon=4, waypoints=(2,)), preset="nano")
    policy = new_policy(config, 0)
    policy.prepare_for(data.tensors(policy))
    return policy


def test_a_policy_is_judged(collected, small_policy):
    tasks, config = find_tasks("drawer-close,reach"), MetaWorldConfig(image_size=32, max_steps=8)
    found = judge_policy(small_policy, config, tasks, episodes=2, execute=4, workers=2)
    assert Counter(episode.task for episode in found) == {"drawer-close": 2, "reach": 2}
    report = summary(found)
    assert report["groups"]["easy"]["episodes"] == 4
    assert report["mean_of_groups"] == report["groups"]["easy"]["success"] == report["over_episodes"]["success"]
    assert "mean of the groups" in table(report, "a policy")
    with pytest.raises(InputError, match="chunk of 4"):
        judge_policy(small_policy, config, tasks, execute=5)
    with pytest.raises(InputError, match=r"episodes of a task is 0; it must be .* from 1 to 10000"):
        judge_policy(small_policy, config, tasks, episodes=0)


def test_a_policy_hears_what_it_is_told(small_policy):
    images, states = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 4), np.float32)
    own = PolicyAnswer(small_policy)(images, states, np.array([0, 1]))
    told = PolicyAnswer(small_policy, told={TASKS[1].name: TASKS[0].sentence})(images, states, np.array([0, 1]))
    assert own.shape == (2, 4, 4)
    np.testing.assert_allclose(told[0], own[0], atol=1e-5)
    np.testing.assert_allclose(told[1], own[0], atol=1e-5)


def test_a_policy_of_another_robot_is_refused(tiny_policy):
    with pytest.raises(InputError, match="this policy has the cameras camera, a state of 0 and actions of 2 numbers"):
        PolicyAnswer(tiny_policy)


def test_the_mean_of_the_groups_weighs_groups_alike():
    episodes = [Episode("execute 2", task.name, 0, task.group == "easy", 10) for task in TASKS]
    found = summary(episodes)
    assert found["mean_of_groups"] == 0.25
    assert found["over_episodes"]["success"] == 28 / 50
    assert found["tasks"]["reach"]["episodes"] == 1


def test_processes():
    assert num_processes(3) == 3
    assert num_processes() >= 1
    for wrong in (-1, 1_000_000):
        with pytest.raises(InputError, match=f"workers are {wrong}; give at least 1 and at most"):
            num_processes(wrong)
