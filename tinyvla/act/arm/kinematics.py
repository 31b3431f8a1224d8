"""MuJoCo, and the way from "move the tip a little" to angles of six joints.

Notable:
- the inverse kinematics is damped least squares: where a joint's direction is used up (a stretched arm, a singular
  wrist), plain least squares would ask for endless speed, and the damping asks for a little less than was wanted
  (Buss 2004, "Introduction to inverse kinematics with Jacobian transpose, pseudoinverse and damped least squares");
- it is solved on a copy of the joints, without dynamics; motors then follow the angles that were found;
- rendering without a screen goes through EGL, which has to be chosen before MuJoCo is imported.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float

from tinyvla.errors import InputError

NUM_JOINTS = 6
SITE = "tip"
"""The point between the fingertips, which an action moves."""
HOME = np.array([0.0, 0.3, 0.5, 0.0, -0.8, 0.0])
"""Joint angles, in radians, from which a pose is sought."""
DAMPING = 0.05


def load_mujoco() -> Any:
    """The `mujoco` module, set to draw without a screen.

    Raises:
        InputError: MuJoCo is not installed, or EGL is missing.
    """
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco
        import mujoco.renderer
    except ImportError as error:
        if "mujoco" in str(error.name or "mujoco"):
            raise InputError(
                "the arm needs MuJoCo, which is not installed; install it with: pip install 'tinyvla[arm]'"
            ) from None
        raise InputError(_no_egl(error)) from None
    except (AttributeError, OSError, RuntimeError) as error:
        raise InputError(_no_egl(error)) from None
    return mujoco


@cache
def load_renderer(height: int, width: int) -> Any:
    """A `mujoco.Renderer` for the scene with that many pixels, made once in a process.

    Raises:
        InputError: there is no way to draw on this machine.
    """
    mujoco, model = load_mujoco(), load_model()
    # The buffer is cleared and read as a whole, so one that is just large enough makes small pictures cheap.
    model.vis.global_.offheight, model.vis.global_.offwidth = height, width
    try:
        return mujoco.Renderer(model, height, width)
    except (AttributeError, ImportError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise InputError(_no_egl(error)) from None


def _no_egl(error: Exception) -> str:
    how = f"MUJOCO_GL is {os.environ.get('MUJOCO_GL', 'not set')!r}"
    return (
        f"MuJoCo cannot draw without a screen here ({type(error).__name__}: {error}; {how}); install EGL, on Debian, "
        "Ubuntu and Colab with: apt-get install -y libegl1, and set MUJOCO_GL=egl before Python starts"
    )


@cache
def load_model() -> Any:
    """The scene, `tinyvla/act/arm/scene.xml`, as a `mujoco.MjModel`, read once in a process."""
    text = resources.files("tinyvla.act.arm").joinpath("scene.xml").read_text(encoding="utf-8")
    return load_mujoco().MjModel.from_xml_string(text)


def rotation_vector(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """A rotation as its axis times its angle, in radians; angles up to half a turn."""
    mujoco = load_mujoco()
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, rotation.flatten())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def rotation_matrix(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The inverse of `rotation_vector` (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def tip_pose(model: Any, data: Any) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
    """Place, in metres, and orientation of the tip; the identity is "fingers straight down, opening along y"."""
    site = model.site(SITE).id
    return data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()


def inverse_kinematics(
    model: Any,
    scratch: Any,
    angles: Float[np.ndarray, "6"],
    position: Float[np.ndarray, "3"],
    rotation: Float[np.ndarray, "3 3"],
    iterations: int = 8,
) -> Float[np.ndarray, "6"]:
    """Joint angles, in radians, that bring the tip to a pose, or as near as the arm comes.

    Args:
        scratch: a `mujoco.MjData` that may be overwritten.
        angles: where to begin; the nearest solution is found.
        position: in metres.
        rotation: the tip's orientation.
        iterations: steps of damped least squares, at most.
    """
    mujoco = load_mujoco()
    site = model.site(SITE).id
    low, high = model.jnt_range[:NUM_JOINTS].T
    jacobian = np.zeros((6, model.nv))
    angles = angles.copy()
    for _ in range(iterations):
        scratch.qpos[:NUM_JOINTS] = angles
        mujoco.mj_kinematics(model, scratch)
        mujoco.mj_comPos(model, scratch)
        here, turned = tip_pose(model, scratch)
        error = np.concatenate([position - here, rotation_vector(rotation @ turned.T)])
        if np.abs(error).max() < 1e-4:
            break
        mujoco.mj_jacSite(model, scratch, jacobian[:3], jacobian[3:], site)
        j = jacobian[:, :NUM_JOINTS]
        angles += j.T @ np.linalg.solve(j @ j.T + DAMPING**2 * np.eye(6), error)
        angles = angles.clip(low, high)
    return angles
