"""One task of Meta-World: its simulator, its picture and its scripted expert.

The protocol is that of `src/lerobot/envs/metaworld.py` in LeRobot: camera `corner2` moved to (0.75, 0.075, 0.7), its
picture turned by 180 degrees, objects and goals drawn anew at each reset, the first four numbers of Meta-World's
observation (the hand's place and how far the gripper is open) as state, actions in [-1, 1], at most
`max_path_length` (500) steps, success when `info["success"]` is once 1.

What differs from LeRobot, all of it here:
- pictures are square with `image_size` pixels (128 by default); LeRobot draws 480 x 480 and policies shrink them;
- pictures are drawn without shadows, reflections and multisampling, unless `shadows` and `samples` say otherwise; with
  `MetaWorldConfig(480, shadows=True, samples=4)` they are LeRobot's, pixel by pixel. Drawing without is several times
  faster;
- an episode follows from its seed. In LeRobot `reset(seed)` has no effect, because Meta-World 3.1.1 ignores it and
  draws objects and goals from NumPy's global generator;
- LeRobot makes an environment through `MT1(name, seed=42)`, which draws 50 goals and uses the first for one reset that
  nobody sees. Here that part is left out: later resets, the only ones with episodes, draw their own places.
  The result is the same and an environment is made much faster;
- actions outside [-1, 1] are cut off for all four numbers; Meta-World cuts off the first three.

What is the same as in LeRobot, and surprising: Meta-World draws two scenes at each reset and keeps the second, but
the goal's mark in the first picture is still where the first scene had it. Bodies and joints that the reset sets in
the model, such as the window, are not yet in their places there either. From the first step on all of it is right. So
the first picture of a task with a marked goal (reach, push, pick-place and others) shows a wrong goal, and that of
window-close a window that is shut, in demonstrations and in episodes alike.
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from tinyvla.act.metaworld.tasks import Task
from tinyvla.errors import InputError
from tinyvla.fields import Within, check_fields

CAMERA_PLACE = (0.75, 0.075, 0.7)
"""Where LeRobot puts the camera, in metres, after https://arxiv.org/abs/2206.14244."""
STATE_SIZE = 4
ACTION_SIZE = 4
WELD_SIZE = 11
"""Numbers of one constraint in the versions of MuJoCo that Meta-World 3.1.1 works with."""


def load_metaworld() -> Any:
    """The `metaworld` module, with MuJoCo set to draw without a screen.

    Raises:
        InputError: Meta-World is missing, MuJoCo has another version, or EGL is missing.
    """
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import metaworld
        import mujoco.renderer
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("metaworld", "mujoco", "gymnasium"):
            raise InputError(
                f"Meta-World needs {missing}, which is not installed; install it with: pip install 'tinyvla[metaworld]'"
            ) from None
        raise InputError(_no_drawing(error)) from None
    except (AttributeError, OSError, RuntimeError) as error:
        raise InputError(_no_drawing(error)) from None
    if mujoco.mjNEQDATA != WELD_SIZE:
        raise InputError(
            f"Meta-World does not work with MuJoCo {mujoco.__version__}; install: pip install metaworld==3.1.1 "
            "mujoco==3.3.0"
        )
    return metaworld


def _no_drawing(error: Exception) -> str:
    how = f"MUJOCO_GL is {os.environ.get('MUJOCO_GL', 'not set')!r}"
    return (
        f"MuJoCo cannot draw without a screen here ({type(error).__name__}: {error}; {how}); install EGL, on Debian, "
        "Ubuntu and Colab with: apt-get install -y libegl1, and set MUJOCO_GL=egl before Python starts"
    )


def draw_on(gpu: int) -> None:
    """Let this process draw on a GPU; call it before the first picture.

    EGL counts all GPUs of a machine, and CUDA those that `CUDA_VISIBLE_DEVICES` names, so that is looked up.

    Args:
        gpu: its number in CUDA.
    """
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = visible[gpu] if gpu < len(visible) else ""
    os.environ["MUJOCO_EGL_DEVICE_ID"] = named if named.isdecimal() else str(gpu)


@dataclass(frozen=True)
class MetaWorldConfig:
    """How episodes are drawn and how long they last."""

    image_size: Annotated[int, Within(16, 1024)] = 128
    """Side of the square picture, in pixels."""
    camera: str = "corner2"
    """The camera's name; only `corner2` is moved and turned, as in LeRobot."""
    shadows: bool = False
    """Whether to draw shadows and reflections, which takes most of the time of drawing."""
    samples: Annotated[int, Within(0, 64)] = 0
    """Samples per pixel, for smooth edges; 0 for none, and 4 in LeRobot."""
    max_steps: Annotated[int, Within(1, 500)] = 500
    """Steps until an episode is cut off; Meta-World's own limit, `max_path_length`, is 500."""

    def __post_init__(self) -> None:
        check_fields(self)


class Scene:
    """One task's simulator, its picture and its scripted expert; `begin` starts an episode.

    A scene serves one episode after another, which is much faster than to make a new one for each.

    Attributes:
        observation: float64 `(39,)`, Meta-World's whole observation. A policy may see its first four numbers.
        steps: steps done in this episode.
        succeeded: whether the episode has succeeded.
    """

    def __init__(self, task: Task, config: MetaWorldConfig | None = None) -> None:
        metaworld = load_metaworld()
        from metaworld.policies import ENV_POLICY_MAP

        self.task, self.config = task, config or MetaWorldConfig()
        env = metaworld.ALL_V3_ENVIRONMENTS[task.full_name](camera_name=self.config.camera)
        # What `set_task` does, except for the goal, which every reset draws anew.
        env._set_task_called, env._freeze_rand_vec, env._partially_observable = True, False, False
        env.__dict__.pop("sawyer_observation_space", None)
        if self.config.camera == "corner2":
            env.model.camera("corner2").pos = CAMERA_PLACE
        self._env = env
        self._renderer: Any = None
        experts: dict[str, Any] = ENV_POLICY_MAP
        self._expert = experts[task.full_name]()
        self.observation = np.zeros(39)
        self.steps, self.succeeded = 0, False

    def begin(self, seed: int) -> None:
        """Start the episode that follows from a seed; NumPy's global generator is left as it was."""
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            self.observation, _ = self._env.reset()
        finally:
            np.random.set_state(before)
        self.steps, self.succeeded = 0, False

    @property
    def state(self) -> Float32[np.ndarray, "4"]:
        """The hand's place in metres and how far the gripper is open, float32 `(4,)`."""
        return self.observation[:STATE_SIZE].astype(np.float32)

    @property
    def distances(self) -> tuple[float, float]:
        """From the point between the fingers to the goal, and from the first object to it, in metres."""
        goal = self._env._target_pos
        hand, item = self._env.tcp_center, self.observation[4:7]
        return float(np.linalg.norm(hand - goal)), float(np.linalg.norm(item - goal))

    @property
    def over(self) -> bool:
        """Whether the episode has succeeded or used up its steps."""
        return self.succeeded or self.steps >= self.config.max_steps

    def step(self, action: Float[np.ndarray, "4"]) -> bool:
        """Take one step with an action `(4,)`: the hand's way along x, y, z, and the gripper's effort.

        Returns:
            Whether the episode has succeeded.
        """
        self.observation, _, _, _, info = self._env.step(np.clip(action, -1, 1).astype(np.float32))
        self.steps += 1
        self.succeeded |= bool(info["success"])
        return self.succeeded

    def expert_action(self) -> Float32[np.ndarray, "4"]:
        """What the scripted expert does now, cut off at [-1, 1], float32 `(4,)`. It sees what a policy does not."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the experts warn of actions beyond [-1, 1], which are cut off here
            action = self._expert.get_action(self.observation)
        return np.clip(action, -1, 1).astype(np.float32)

    def expert_chunk(self, horizon: int) -> Float32[np.ndarray, "h 4"]:
        """What the scripted expert does in the next steps, if it acts; found by acting and going back.

        From the step after a success on, the last action is repeated.
        """
        kept = (dict(self._env.__dict__), self.observation, self.steps, self.succeeded)
        self._env.data = copy.copy(self._env.data)  # the simulator's own state stays untouched
        actions = [self.expert_action()]
        while len(actions) < horizon and not self.step(actions[-1]) and not self.over:
            actions.append(self.expert_action())
        before, self.observation, self.steps, self.succeeded = kept
        self._env.__dict__.update(before)
        return np.stack(actions + actions[-1:] * (horizon - len(actions)))

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """The camera's picture, uint8 `(h, w, 3)`.

        Raises:
            InputError: there is no way to draw on this machine.
        """
        renderer = self._renderer or self._make_renderer()
        renderer.update_scene(self._env.data, self.config.camera)
        picture = renderer.render()
        return picture[::-1, ::-1] if self.config.camera == "corner2" else picture

    def _make_renderer(self) -> Any:
        import mujoco

        size, visual = self.config.image_size, self._env.model.vis
        # The buffer is cleared and read as a whole, so one that is just large enough makes small pictures cheap.
        visual.global_.offheight = visual.global_.offwidth = size
        visual.quality.offsamples = self.config.samples
        try:
            self._renderer = mujoco.Renderer(self._env.model, size, size)
        except (AttributeError, ImportError, OSError, RuntimeError, mujoco.FatalError) as error:
            raise InputError(_no_drawing(error)) from None
        if not self.config.shadows:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._renderer.scene.flags[flag] = 0
        weakref.finalize(self, _close, self._renderer)  # also at exit, before EGL is gone
        return self._renderer

    def close(self) -> None:
        """Give back the simulator and the renderer."""
        if self._renderer:
            self._renderer.close()
        self._renderer = None
        self._env.close()


def _close(renderer: Any) -> None:
    """Give back a renderer; at exit what it draws with may be gone already, and nothing is left to say."""
    with suppress(Exception):
        renderer.close()
