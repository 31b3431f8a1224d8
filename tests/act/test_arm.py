"""The arm's way from a command to the angles of its joints, and what is said where something is missing."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from tinyvla.act.arm import ENV_IDS, kinematics
from tinyvla.act.arm.kinematics import (
    HOME,
    inverse_kinematics,
    load_mujoco,
    load_renderer,
    rotation_matrix,
    rotation_vector,
    tip_pose,
)
from tinyvla.errors import InputError

if find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed", allow_module_level=True)


@pytest.fixture
def model():
    return kinematics.load_model()


@pytest.fixture
def scratch(model):
    return load_mujoco().MjData(model)


def test_importing_it_needs_no_simulator():
    code = (
        "import sys; sys.modules['mujoco'] = None; import tinyvla.act.arm.world, tinyvla.act.arm.policy; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_without_mujoco_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(InputError, match=r"pip install 'tinyvla\[arm\]'"):
        load_mujoco()


def test_without_egl_the_error_says_what_to_install(monkeypatch):
    class NoScreen:
        FatalError = KeyError

        def Renderer(self, *arguments):
            raise RuntimeError("Cannot initialize a EGL device display")

    monkeypatch.setattr(kinematics, "load_mujoco", NoScreen)
    vis = SimpleNamespace(global_=SimpleNamespace())
    monkeypatch.setattr(kinematics, "load_model", lambda: SimpleNamespace(vis=vis))
    with pytest.raises(
        InputError, match=r"cannot draw .* EGL device display.*apt-get install -y libegl1.*MUJOCO_GL=egl"
    ):
        load_renderer(7, 9)


def test_mujoco_imported_too_early_is_told():
    code = (
        "import mujoco, tinyvla.act.arm.kinematics as c\n"
        "try: c.load_renderer(8, 8)\n"
        "except ValueError as error: print(error)"
    )
    hidden = {"MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"}
    rest = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=rest)
    assert "set MUJOCO_GL=egl before Python starts" in done.stdout, done.stderr


def test_a_broken_egl_is_told_at_import():
    code = (
        "import sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'mujoco': raise AttributeError(\"'NoneType' has no attribute 'eglQueryString'\")\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from tinyvla.act.arm.kinematics import load_mujoco\n"
        "try: load_mujoco()\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "eglQueryString" in done.stdout, done.stderr
    assert "libegl1" in done.stdout


def test_both_environments_are_registered():
    gymnasium = pytest.importorskip("gymnasium")
    importlib.import_module("tinyvla.act.arm")
    assert set(ENV_IDS.values()) == {"tinyvla/ArmReach-v0", "tinyvla/ArmPick-v0"}
    assert set(ENV_IDS.values()) <= set(gymnasium.registry)


def test_rotations_there_and_back():
    rng = np.random.RandomState(0)
    for vector in [np.zeros(3), *rng.uniform(-1, 1, (20, 3))]:
        rotation = rotation_matrix(vector)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(rotation_vector(rotation), vector, atol=1e-9)


def test_inverse_kinematics_finds_the_pose(model, scratch):
    rng = np.random.RandomState(0)
    for _ in range(50):
        place = rng.uniform([0.31, -0.17, 0.03], [0.49, 0.17, 0.2])
        rotation = rotation_matrix(rng.uniform(-0.4, 0.4, 3))
        angles = inverse_kinematics(model, scratch, HOME, place, rotation, iterations=100)
        scratch.qpos[:6] = angles
        load_mujoco().mj_kinematics(model, scratch)
        here, turned = tip_pose(model, scratch)
        np.testing.assert_allclose(here, place, atol=5e-4)
        np.testing.assert_allclose(turned, rotation, atol=5e-3)


def test_out_of_reach_it_stretches_and_stays_calm(model, scratch):
    angles = HOME
    for _ in range(20):
        new = inverse_kinematics(model, scratch, angles, np.array([2.0, 0.0, 0.3]), np.eye(3))
        assert np.isfinite(new).all()
        angles = new
    low, high = model.jnt_range[:6].T
    assert ((angles >= low) & (angles <= high)).all()


def test_the_hand_points_down_at_zero(model, scratch):
    load_mujoco().mj_kinematics(model, scratch)
    place, rotation = tip_pose(model, scratch)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(place[1], 0, atol=1e-9)
