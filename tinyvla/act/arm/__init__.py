"""Chapter 13: a robot arm that moves in seven dimensions, three of place, three of turning, one of its gripper.

    world        many episodes side by side: what is seen, what a step does (start here)
    scene        one episode: where things are, and its two cameras
    kinematics   joint angles that bring the hand to a place; loading MuJoCo
    expert       the scripted expert, and how its demonstrations are disturbed
    policy       the configuration of a policy for this arm
    env          the same world for Gymnasium

    import gymnasium
    env = gymnasium.make("tinyvla.act.arm:tinyvla/ArmReach-v0")

Notable:
- the scene is a small MJCF file of our own, simulated by MuJoCo (https://mujoco.org) and drawn without a screen;
- importing this needs neither MuJoCo nor Gymnasium; making a world or an environment does, and says so;
- an episode is its seed, in the environments as in `tinyvla.act.rollout`.
"""

from __future__ import annotations

from importlib.util import find_spec

ENV_IDS = {"reach": "tinyvla/ArmReach-v0", "pick": "tinyvla/ArmPick-v0"}
"""The Gymnasium environments, one per task."""

if find_spec("gymnasium") is not None:
    import gymnasium

    for _task, _name in ENV_IDS.items():
        if _name not in gymnasium.registry:
            gymnasium.register(_name, entry_point="tinyvla.act.arm.env:ArmEnv", kwargs={"task": _task})
