"""Meta-World: the tasks and the plans need nothing; what simulates is skipped where `metaworld` does not work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tinyvla.act.metaworld.collect import Plan, collect, episode_seed, read_episode, read_plan, record
from tinyvla.act.metaworld.judge import Judges, Mode, _act
from tinyvla.act.metaworld.scene import CAMERA_PLACE, MetaWorldConfig, Scene, load_metaworld
from tinyvla.act.metaworld.tasks import GROUPS, SENTENCES, TASKS, find_tasks
from tinyvla.act.metaworld.world import MetaWorld
from tinyvla.errors import InputError

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
    with pytest.raises(InputError, match="at least one demonstration"):
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
    length = len(found["action"])
    assert scene.succeeded
    assert scene.steps == length
    assert found["images"].shape == (length, 32, 32, 3)
    assert np.abs(found["action"]).max() <= 1
    assert (found["state"] == found["environment_state"][:, :4]).all()


def test_a_collection_goes_on_where_it_stopped(metaworld, tmp_path):
    plan = Plan(("drawer-close",), demos=2, image_size=32)
    collect(tmp_path, plan, workers=1)
    files = sorted(tmp_path.glob("*.npz"))
    assert [path.name for path in files] == ["drawer-close_0000.npz", "drawer-close_0001.npz"]
    kept, (again,) = files[0].stat().st_mtime_ns, read_episode(files[1], "action")
    files[1].unlink()
    (tmp_path / "drawer-close_0001.9.part").write_bytes(b"killed here")
    with pytest.raises(InputError, match="holds 1 of 2 episodes"):
        read_plan(tmp_path)
    collect(tmp_path, plan, workers=1)
    assert files[0].stat().st_mtime_ns == kept, "what is there is not recorded again"
    assert (read_episode(files[1], "action")[0] == again).all(), "and the rest is as it would have been"
    assert not list(tmp_path.glob("*.part"))
    assert read_plan(tmp_path) == plan
    with pytest.raises(InputError, match="another collection"):
        collect(tmp_path, Plan(("drawer-close",), demos=3, image_size=32))
    assert json.loads((tmp_path / "collection.json").read_text())["demos"] == 2


def test_chunks_are_executed_or_averaged():
    class Line(Scene):
        """A scene whose state counts its steps; it notes what is done."""

        def __init__(self):
            self.steps, self.done = 0, []  # no simulator

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
    _act(line, ask, Mode(2))
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
