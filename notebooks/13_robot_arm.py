# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13. A robot arm: the same policy, seven dimensions
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tinyvla/tinyvla/blob/main/notebooks/13_robot_arm.ipynb)
#
# So far the policy of this course has moved a camera, in two dimensions. Real VLAs move arms.
# [OpenVLA](https://arxiv.org/abs/2406.09246), for example, answers with a step, a rotation and a gripper: seven numbers,
# several times a second. How much has to change?
#
# You will build the parts that stand between a policy and an arm: a simulated scene, inverse kinematics, an expert that
# picks up blocks, and demonstrations. The policy itself stays as it is. Only its head changes: it makes chunks
# of seven numbers.
#
# **You will be able to**
#
# - read a scene of MuJoCo and say what a simulator does in a control step;
# - write the step of inverse kinematics with damped least squares, and show what the damping is for;
# - write an expert that a policy can imitate: one that decides by what can be seen;
# - record demonstrations that show how to come back from a mistake, and test whether that matters;
# - train a policy with a flow head on chunks of seven-dimensional actions, and judge whether it follows the words.
#
# **Time:** about 75 minutes to read, about 3 minutes on two CPU cores, 50 seconds on a GPU to run.
#
# **Before you start:** [Chapter 8](08_closed_loop.ipynb) explains closed loops, experts and chunks. The flow head is
# [Chapter 7](07_action_heads.ipynb)'s and the optimizer, Muon, is explained in [Chapter 9](09_speed.ipynb); both are
# imported here.

# %% tags=["nbval-ignore-output"]
# Setup: the same cell in every notebook. Installs tinyvla where it is missing, for example in Colab; leaves torch alone.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("tinyvla") is None:
    source = os.environ.get("TINYVLA_SOURCE", "git+https://github.com/tinyvla/tinyvla@v0.1.0")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

import torch

import tinyvla

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"tinyvla {tinyvla.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}, device {device}")

# %% [markdown]
# The arm is simulated by [MuJoCo](https://mujoco.org), which draws its pictures without a screen through EGL. EGL has
# to be chosen before MuJoCo is imported. Where a Linux has no EGL, `apt-get install -y libegl1` brings it, and the
# error message says so.

# %%
for package in ("mujoco", "gymnasium"):
    if importlib.util.find_spec(package) is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], check=True)
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

import warnings
from dataclasses import replace

import gymnasium
import matplotlib.pyplot as plt
import mujoco
import numpy as np

from tinyvla.act.arm.expert import (
    ACTION_NAMES,
    BLOCK_SIZE,
    HOVER,
    STEP_METRES,
    STEP_RADIANS,
    ArmState,
    disturbance,
    expert_action,
    expert_chunk,
)
from tinyvla.act.arm.kinematics import HOME, inverse_kinematics, load_model, rotation_matrix, rotation_vector, tip_pose
from tinyvla.act.arm.policy import arm_config
from tinyvla.act.arm.world import ArmConfig, ArmWorld
from tinyvla.act.rollout import expert, random_policy, rollout
from tinyvla.act.world import episode_seeds
from tinyvla.course.exercises import checking
from tinyvla.course.zoo import load_results
from tinyvla.data.dataset import COLORS
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.recipes import TrainConfig
from tinyvla.show.filmstrip import film, film_rows
from tinyvla.show.plots import PART_COLORS
from tinyvla.stats import share_with_interval, wilson_interval

plt.rcParams.update({"figure.facecolor": "white", "font.size": 10})

# %% [markdown]
# This is the expert that the policy will imitate. In each picture the upper half is the view from above, the lower half the
# view from the front. The number counts control steps of a tenth of a second.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Two film strips. Above, the open gripper flies over the named block and stops there. Below, it goes down around the named block, closes and lifts it."}}
film_rows([film(expert, ArmWorld([9], task)) for task in ("reach", "pick")])
plt.show()

# %% [markdown]
# ## 1. The scene
#
# A simulator needs a description of the scene. MuJoCo reads it from an XML file, in a format called MJCF. Ours has about
# a hundred lines: bodies inside bodies, each attached by a joint, with shapes to draw and to touch. Here are the arm's
# joints, and how many motors turn them.

# %%
model = load_model()
for joint in range(8):
    parts = model.joint(joint)
    kind = "slides, metres" if parts.type[0] == mujoco.mjtJoint.mjJNT_SLIDE else "turns, radians"
    low, high = parts.range
    print(f"joint {joint}  {parts.name:13}{kind:16}axis {parts.axis.astype(int).tolist()!s:12}{low:5.2f} to {high:.2f}")
print(f"\n{model.nu} motors, {model.nbody - 1} bodies, {model.ngeom} shapes, {model.nv} degrees of freedom in all")

# %% [markdown]
# Six hinges carry the hand, and two slides are its fingers. (The arm is said to have seven degrees of freedom because
# the fingers move as one.) The other 18 degrees of freedom are the three blocks, which may lie and turn anywhere.
#
# A control step asks MuJoCo for 20 small steps of 5 ms<!-- given -->. In each of them it computes forces (motors, gravity, contacts),
# then accelerations, then new speeds and positions. Nothing is scripted: when a block is lifted, two fingers press on it
# and friction holds it.
#
# Two cameras look at the table. Their pictures are put one above the other, so the policy still gets one square image
# and one instruction, and nothing else: no joint angles, no coordinates. (The world offers more: `observe()` has the
# joint angles as `observation.state`, and `ArmConfig(cameras="separate")` gives each camera its own picture. The policy
# of this chapter uses neither.)
#
# One term before we go on: the **tip** is the point between the fingertips. An action moves the tip.

# %% mystnb={"image": {"alt": "Three scenes as the policy sees them, 64 by 64 pixels: three coloured blocks and the dark hand, from above in the upper half and from the front in the lower half."}}
world = ArmWorld([3, 4, 5], ["reach", "pick", "pick"])
print("image", world.views()[0].shape, world.views().dtype)
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.1), layout="constrained")
for ax, view, text in zip(axes, world.views(), world.instructions, strict=True):
    ax.imshow(view.transpose(1, 2, 0), interpolation="nearest")
    ax.axhline(31.5, color="white", lw=1)
    ax.set(xticks=[], yticks=[], title=text)
plt.show()

# %% [markdown]
# Why two views? From above, a hand that is high looks almost like one that is low, and the hand hides what is under
# it. From the front you see how high it is and how far open, but hardly how far away. **What the policy needs for its
# decision has to be visible.** Training cannot make up for information that is not in the image.
#
# ## 2. Seven numbers
#
# An action is three numbers for the tip's position, three for the rotation of the hand and one for the gripper:
#
# | | x | y | z | roll | pitch | yaw | gripper |
# |---|---|---|---|---|---|---|---|
# | 1 means | 3 cm away from the base | 3 cm to the right of the picture | 3 cm up | 0.15 rad about x | 0.15 rad about y | 0.15 rad about z | open |
#
# The first six are *relative to where the hand is now*: the policy sees where the hand is, so it can tell what is missing.
# The gripper is absolute, open or closed. Once the fingers touch a block, the image no longer shows how far they have been
# told to close; "closed" needs no such knowledge.

# %% mystnb={"image": {"alt": "Eight pictures of the same scene: at the start, and after three steps of an action in one dimension each. The hand has moved to the side, up, tilted, turned or closed."}}
fig, axes = plt.subplots(1, 8, figsize=(9.6, 1.7), layout="constrained")
for dim, ax in enumerate(axes):
    world = ArmWorld([46])
    action = np.array([[0.0] * 6 + [1.0]])
    if dim:
        action[0, dim - 1] = -1.0 if dim == 7 else 1.0
        for _ in range(3):
            world.step(action)
    ax.imshow(world.views(np.arange(1), 160)[0].transpose(1, 2, 0))
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"+ {ACTION_NAMES[dim - 1]}".replace("+ gripper", "close") if dim else "start", fontsize=9)
plt.show()

# %% [markdown]
# ## 3. From a wish to six angles
#
# The policy asks for the tip to be 3 cm to the right. The motors need angles. How do six angles have to change so that
# the tip moves in this way? This question is **inverse kinematics**.
#
# The other direction is easy. Given the angles, the positions of all bodies follow, one after the other: forward
# kinematics. It also gives the *Jacobian* $J$, a matrix of 6 rows and 6 columns. It says how the tip's pose (three numbers
# of position, three of rotation) changes with each angle, for small changes:
#
# $$\text{change of pose} \approx J \cdot \text{change of angles}$$

# %%
data = mujoco.MjData(model)


def jacobian_at(angles):
    """How the tip's pose changes with each angle, (6, 6)."""
    data.qpos[:6] = angles
    mujoco.mj_kinematics(model, data)  # where everything is
    mujoco.mj_comPos(model, data)  # what the Jacobian needs
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], model.site("tip").id)
    return jacobian[:, :6]


print("J", jacobian_at(HOME).shape)
print("for the angles", HOME, "the tip is at", tip_pose(model, data)[0].round(2) + 0.0)
print("turning the waist by 0.1 rad moves the tip by", (0.1 * jacobian_at(HOME)[:3, 0]).round(3) + 0.0, "m")

# %% [markdown]
# So we need the inverse. Solve $J\,\Delta q = e$ for the wanted change of pose $e$, change the angles by it, look where
# the tip is now, and repeat. This is Newton's method. But there are poses in which $J$ has no inverse. When the arm is
# stretched out, no angle moves the tip farther out, and near that pose a *small* change of the tip needs *large* turns.
#
# The usual remedy is **damped least squares** ([Buss](https://mathweb.ucsd.edu/~sbuss/ResearchWeb/ikmethods/iksurvey.pdf)).
# Do not insist on $e$, and minimise $\lVert J\,\Delta q - e\rVert^2 + \lambda^2\lVert\Delta q\rVert^2$ instead: how far the
# tip misses, plus a penalty on large turns. The minimum is at
#
# $$\Delta q = J^\top\,(J J^\top + \lambda^2 I)^{-1}\,e.$$
#
# ### Exercise 1: the damped step (10 minutes)
#
# Write `damped_step(jacobian, error, damping)`, which returns $\Delta q$. The Jacobian has a row for each number of `error`
# and a column for each angle. The check also tries one with 3 rows and 6 columns, as you would use for the position alone.
#
# <details><summary>Hint</summary>
#
# `np.linalg.solve(M, e)` is $M^{-1}e$ and rounds less than an inverse does. $I$ has as many rows as the error has numbers:
# `np.eye(len(error))`.
#
# </details>


# %% tags=["exercise"]
def damped_step(jacobian, error, damping):
    """The change of angles that comes near the wanted change of pose without turning wildly."""
    # your code here


# %% tags=["check"]
with checking("Exercise 1"):
    draw = np.random.RandomState(0)
    for rows in (6, 3):
        matrix, wish = draw.randn(rows, 6), draw.randn(rows)
        answer = damped_step(matrix, wish, 0.4)
        assert answer is not None, "write the body of damped_step first"
        answer = np.asarray(answer, dtype=float)
        assert answer.shape == (6,), f"6 angles change, so the shape should be (6,), yours is {answer.shape}"
        exact = np.linalg.pinv(matrix) @ wish
        squared, once = (
            matrix.T @ np.linalg.solve(matrix @ matrix.T + extra * np.eye(rows), wish) for extra in (0.16, 0.4)
        )
        assert not np.allclose(answer, -squared, atol=1e-8), "the sign is wrong: the tip would move away"
        assert not np.allclose(answer, exact, atol=1e-8), "there is no damping in it"
        assert not np.allclose(answer, once, atol=1e-8), "the damping goes in squared"
        assert not np.allclose(answer, matrix.T @ wish, atol=1e-8), "that is J^T e alone: the inverse is missing"
        assert np.allclose(answer, squared, atol=1e-8), f"with {rows} rows the step differs from the formula's"
        little = matrix.T @ np.linalg.solve(matrix @ matrix.T + 0.01 * np.eye(rows), wish)
        assert np.allclose(damped_step(matrix, wish, 0.1), little, atol=1e-8), (
            "with the damping 0.1 yours differs from the formula's: does `damping` reach your code?"
        )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def damped_step(jacobian, error, damping):
#     damped = jacobian @ jacobian.T + damping**2 * np.eye(len(error))
#     return jacobian.T @ np.linalg.solve(damped, error)
# ```
#
# </details>
#
# The next cell goes on with that step, and repeats it until the tip is where it should be.


# %%
def step_of_angles(jacobian, error, damping):
    """As Exercise 1 asks for it."""
    damped = jacobian @ jacobian.T + damping**2 * np.eye(len(error))
    return jacobian.T @ np.linalg.solve(damped, error)


def my_inverse_kinematics(angles, position, rotation, iterations=8, damping=0.05):
    """Angles that bring the tip to a pose."""
    low, high = model.jnt_range[:6].T
    for _ in range(iterations):
        jacobian = jacobian_at(angles)
        here, turned = tip_pose(model, data)
        error = np.concatenate([position - here, rotation_vector(rotation @ turned.T)])
        if np.abs(error).max() < 1e-4:
            break
        angles = (angles + step_of_angles(jacobian, error, damping)).clip(low, high)
    return angles


angles = my_inverse_kinematics(HOME, np.array([0.4, 0.1, 0.1]), np.eye(3))
jacobian_at(angles)
print("asked for [0.4 0.1 0.1], came to", tip_pose(model, data)[0].round(3))

# %% [markdown]
# ### Predict, run, explain: a stretched arm
#
# The tip is asked to go 3 cm farther out, from several distances. At 40 cm, in the middle of the table, the fastest joint
# turns by 6 degrees for it. With the hand upright and 20 cm high, the arm reaches to about 67 cm. **Guess** by how much
# the fastest joint turns when the tip is at 66 cm, without damping ($\lambda = 0$):
#
# 1. about 6 degrees, as at 40 cm;
# 2. about 10 degrees;
# 3. about 30 degrees.

# %%
outwards = np.array([STEP_METRES, 0, 0, 0, 0, 0])
print(f"{'tip at':>8}{'without damping':>18}{'damping 0.05':>15}")
turns = {}
for distance in (0.4, 0.5, 0.6, 0.64, 0.66):
    there = my_inverse_kinematics(HOME, np.array([distance, 0, 0.2]), np.eye(3), iterations=300)
    jacobian = jacobian_at(there)
    turns[distance] = [np.degrees(np.abs(step_of_angles(jacobian, outwards, d)).max()) for d in (0.0, 0.05)]
    plain, damped = turns[distance]
    print(f"{100 * distance:6.0f} cm{plain:14.0f} deg{damped:11.0f} deg")
assert turns[0.66][0] > 25
assert turns[0.66][1] < turns[0.66][0] / 2

# %% [markdown]
# The third answer is right. Without damping the joints turn faster and faster towards the edge, and for a fully stretched
# arm there would be no solution. With damping one step moves the tip less than was asked for where that would need large
# turns. In the middle of the table the two hardly differ. Repeated steps still arrive where the arm can reach the target.
# A policy may at any time ask for what the arm cannot do, so what happens then has to be harmless. (This world also keeps
# targets within a box, `LIMITS` in `tinyvla/act/arm/scene.py`. In most of it damping shortens a step by a few hundredths.
# At the far upper corners it takes away about a fifth, and the repetition makes up for that. A robot needs both, box and
# damping.)
#
# ### Same as the package

# %%
rng = np.random.RandomState(0)
scratch = mujoco.MjData(model)
for _ in range(50):
    position = rng.uniform([0.3, -0.2, 0.02], [0.5, 0.2, 0.25])
    rotation = rotation_matrix(rng.uniform(-0.4, 0.4, 3))
    mine = my_inverse_kinematics(HOME, position, rotation)
    theirs = inverse_kinematics(model, scratch, HOME, position, rotation)
    np.testing.assert_allclose(mine, theirs, atol=1e-9)
print("my_inverse_kinematics equals tinyvla.act.arm.kinematics.inverse_kinematics for 50 poses")

# %% [markdown]
# ## 4. An expert that can be imitated
#
# To pick up a block, the hand goes over it, goes down, closes and lifts. You could write this as a script that remembers how
# far it has come: "first ... then ...". **Do not.** The policy sees one image and has no memory. If the expert's next
# action depends on a counter, two equal images can have two different labels, and the policy cannot tell them apart.
#
# So our expert decides by the task and by three things that can be seen: where the block is relative to the tip
# (`offsets`), how the hand is turned (`tilts`) and how far it is open (`openings`).
#
# The way down is a *funnel*, so that the fingers do not sweep through blocks. The farther the tip is from the block's
# axis, an upright line through its centre, the higher it has to be:
#
# $$\text{height over the block} = 4 \cdot (\text{distance from its axis} - 8\,\text{mm}),$$
#
# but at least 0 and at most 7 cm.


# %%
def my_expert(state):
    """What to do in each of some states: (n, 7)."""
    beside = np.linalg.norm(state.offsets[:, :2], axis=1)
    is_around = (beside < 0.02) & (np.abs(state.offsets[:, 2]) < 0.018)  # the block lies between the fingers
    is_held = is_around & (state.openings < BLOCK_SIZE + 0.006)  # and they touch it
    actions = np.zeros((len(beside), 7))
    for i in range(len(beside)):
        way = state.offsets[i].copy()
        way[2] += np.clip(4 * (beside[i] - 0.008), 0, HOVER) if state.picking[i] else HOVER
        close = state.picking[i] and is_around[i]
        if close:  # wait until the fingers have closed, then go up
            way = np.array([0.0, 0.0, STEP_METRES if is_held[i] else 0.0])
        actions[i, :3] = way / max(np.linalg.norm(way), STEP_METRES)
        actions[i, 3:6] = np.clip(state.tilts[i] / STEP_RADIANS, -1, 1)
        actions[i, 6] = -1 if close else 1
    return actions


world = ArmWorld(range(20), ["reach", "pick"] * 10)
num_compared = 0
while len(world.running):
    actions = my_expert(world.state())
    np.testing.assert_allclose(actions, expert_action(world.state()), atol=1e-12)
    num_compared += len(actions)
    world.step(actions)
assert world.succeeded.all()
print("my_expert equals tinyvla.act.arm.expert.expert_action on the way to 20 successes")

# %% [markdown]
# How good is the expert? And how good is a policy that acts at random? We need both ends of the scale. An episode ends with
# the success, or after 20 steps. That is more than the expert needs.
#
# - **Reach** is a success when the tip is within 3 cm of the point 7 cm over the named block's centre *and* has
#   stopped: it moved less than 1 cm in the last step.
# - **Pick** is a success when the named block is 5 cm above the table.

# %%
test_seeds = episode_seeds(50, seed=44)
for name, act in (("expert", expert), ("random", random_policy(0, action_dim=7))):
    for task in ("reach", "pick"):
        result = rollout(act, ArmWorld(test_seeds, task, ArmConfig(max_steps=20)))
        print(f"{name}, {task:5}: {share_with_interval(result.success_rate, len(result))}")

# %% [markdown]
# ### The same as Gymnasium environments
#
# There is one environment per task. The expert's action is in `info`, and a policy must not use it.

# %%
env = gymnasium.make("tinyvla.act.arm:tinyvla/ArmPick-v0")
observation, info = env.reset(seed=3)
print({name: getattr(value, "shape", value) for name, value in observation.items()}, "action", env.action_space.shape)
terminated = truncated = False
while not (terminated or truncated):
    observation, reward, terminated, truncated, info = env.step(info["expert_action"].astype(np.float32))
print(f"terminated {terminated}, truncated {truncated}, reward {reward:.0f}")

# %% [markdown]
# ## 5. Demonstrations
#
# A perfect expert makes no mistakes, so it never shows how to come back from one. [Chapter 8](08_closed_loop.ipynb) shows
# what can happen to a policy that leaves the expert's path. One remedy is to disturb the expert: in half of the steps, noise
# is added to what is *done*, and now and then the gripper slips. The *label* stays what the expert meant to do. The idea is
# [DART](https://arxiv.org/abs/1703.09327)'s, which also fits the size of the noise to the policy's errors; ours is fixed.
# Section 7 measures whether this arm needs it. **Guess** now: of eight policies that learn from the *undisturbed* expert, how
# many will succeed?
#
# The labels are chunks: the expert's next 8 actions, planned without looking again, in a simple model in which the tip
# goes exactly where it is sent.

# %%
world = ArmWorld(episode_seeds(60, seed=42), ["reach", "pick"] * 30)
states = rollout(expert, world, disturb=disturbance(0.4), record=60, horizon=8).states
images, chunks = states.images["camera"], states.expert_chunks
print("images", images.shape[1:], images.dtype, "| chunks", chunks.shape[1:])
print("sentences:", len(set(states.instructions)), "| first:", states.instructions[0])
assert np.abs(chunks[:, 0, :6] - states.actions[:, :6]).max() > 0.5, "the expert was not disturbed"
assert len(states) > 600

# %% mystnb={"image": {"alt": "Three panels, x, y and z, over the steps of one episode: a line for what the expert meant, dots for what was done. Most dots lie on the line, some are far from it."}}
episode = np.flatnonzero(states.episodes == 1)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.3), layout="constrained", sharey=True)
for dim, ax in enumerate(axes):
    ax.plot(states.actions[episode, dim], "o", ms=4, color="#999999", label="done")
    ax.plot(chunks[episode, 0, dim], color=PART_COLORS["action"], label="meant: the label")
    ax.set(title=ACTION_NAMES[dim], xlabel="step")
axes[0].set_ylabel("action, 1 is 3 cm")
axes[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The dots are what was asked of the arm, noise included. The world cuts it off at -1 and 1. Over all demonstrations half of
# the steps are disturbed. In this episode, by chance, it is fewer: look for the steps in which a dot is off the line. (The
# rotations are disturbed as well, and the gripper slips now and then; the figure leaves both out.)
#
# ### Different units, different sizes
#
# The seven numbers have different sizes. Look at how much each of them varies.

# %%
spread = chunks.reshape(-1, 7).std(axis=0)
for name, value in zip(ACTION_NAMES, spread, strict=True):
    print(f"{name:8}{'#' * round(40 * value)}")
assert spread[6] > 2 * spread[4], "the gripper should vary most"

# %% [markdown]
# The gripper jumps between -1 and 1; the rotations are mostly small. A flow head starts from noise with standard
# deviation 1 in every number. So the head learns *normalised* actions: minus their mean, divided by their standard
# deviation. Its answers are turned back. `fit_statistics` measures both, once, on the training actions, and they are saved
# in the checkpoint.
#
# ## 6. The policy
#
# The policy has no new part: `nano`'s two towers, cross-attention, and the flow head. Only `action_dim` is 7 now, `horizon`
# is 8, and the head normalises.

# %%
config = arm_config("nano", horizon=8)
policy = new_policy(config, seed=0, device=device)
split = states.tensors(policy)
policy.fit_statistics(split.actions)
print(f"head: {config.head.kind}, {config.head.horizon} actions of {config.head.action_dim} numbers")
print("one image and one sentence in, out:", tuple(policy.predict(images[0], states.instructions[0]).shape))
counts = policy.num_parameters()
print(f"parameters: {counts['total']:,}, of which in the head {counts['head']:,}")

# %% [markdown]
# ### Live, and small
#
# On a CPU we want to wait about a minute and a half. So this part is smaller than the full training of Section 7: about a
# tenth of the demonstrations and of the steps. And it has an easier task: all its demonstrations have the same sentence,
# "pick up the red block". The optimizer is Muon, because it needs fewer steps than AdamW
# ([Chapter 9](09_speed.ipynb) measures that on BlockFind).

# %% tags=["nbval-ignore-output", "slow"]
SENTENCE = "pick up the red block"


def with_sentence(seeds):
    """Those of some scenes in which the red block is the named one."""
    seeds = list(seeds)
    return [seed for seed, text in zip(seeds, ArmWorld(seeds, "pick").instructions, strict=True) if text == SENTENCE]


lesson_seeds = [with_sentence(episode_seeds(count, seed=seed)) for count, seed in ((1_600, 42), (100, 43))]
policy = new_policy(config, seed=0, device=device)
recorded = {"disturb": disturbance(0.4), "record": 1_600, "horizon": 8}
lessons = [rollout(expert, ArmWorld(seeds, "pick"), **recorded).states for seeds in lesson_seeds]
train, val = (part.tensors(policy) for part in lessons)
print(f"{len(train)} states of {len(lesson_seeds[0])} demonstrations")
policy.fit_statistics(train.actions)
settings = TrainConfig(epochs=4, batch_size=32, optimizer="muon", learning_rate=6e-3)
records = fit(policy, train, val, settings)
for record in records:
    print(f"step {record['step']:4}: validation loss {record['val_loss']:.2f}")
assert records[-1]["val_loss"] < 0.8 * records[0]["val_loss"], "it should learn"

# %% tags=["nbval-ignore-output", "slow"]
judge_seeds = with_sentence(episode_seeds(300, seed=44))[:40]
acted = rollout(policy, ArmWorld(judge_seeds, "pick"), execute=4)
print(f"picks up the red block: {share_with_interval(acted.success_rate, len(acted))} of {len(acted)} scenes")
assert acted.success_rate > 0.4, "it should pick up the red block more often than not"

# %% [markdown]
# After a few hundred demonstrations it picks up red blocks in most of these scenes, which it has never seen. Does it
# understand what it is told?
#
# ### Predict, run, explain: another name
#
# Take the same scenes and the same policy. But now name another block, as in "pick up the blue block". **Guess** where the
# hand goes:
#
# 1. to the block that is named;
# 2. to any block;
# 3. to the red one.

# %% tags=["nbval-ignore-output", "slow"]
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    other = rollout(policy, ArmWorld(judge_seeds, "pick", named=1), execute=4)
went_to = other.outcome["went_to"]
print("the policy warns:", warned[0].message)
print("told, for example:", other.instructions[:3])
print(f"goes to the named block in {(went_to == 1).mean():.0%} of the scenes, to the red one in "
      f"{(went_to == 0).mean():.0%}")  # fmt: skip
assert (went_to == 0).mean() > 0.7, "it should go to the red block whatever it is told"

# %% [markdown]
# It goes to the red block, and it warns that it never saw the word. Here are a success and a failure of this policy, side by
# side, in the same scene. Left, the sentence of its training; right, another one:
#
# ![Two moving pictures of the same scene, side by side. Left, told to pick up the red block: the arm goes over the red block, closes its fingers and lifts it; success. Right, told to pick up another block: the arm moves in nearly the same way, and lifts the red block again; failure.](../book/images/arm_motion.gif)
#
# (Made by `python -m tinyvla.course.ch13 book/images/arm_motion.gif`, from a camera beside the table. The policy sees only
# its two usual views.)
#
# In its demonstrations the sentence was always the same, so the words carried no information, and nothing rewarded reading
# them. The policy learned *red* from the images alone. A high success rate can hide a policy that ignores its words. Expect
# that wherever the image alone tells what to do. **For words to matter, scenes that look alike must come with different
# sentences and different actions.** The full size has that: six colours, two verbs, and any block may be named. Whether a
# training then learns the words is another question.
#
# ## 7. The full size
#
# The same code with more of everything: both tasks in one policy, and the verb says which is meant. The figures below come
# from `results/arm.json`, which `experiments/arm.py` writes. Three kinds of policy are trained: one that hears the words
# and learns from the disturbed expert ("this policy"), one that learns from an undisturbed expert, and one that is like
# the first and hears no words. Each kind is trained eight times. Its demonstrations stay the same; the first weights and
# the order of the batches change. For these three kinds the table has the median of the eight trainings and their range. The
# expert and the random policy in the last two rows are not trained: theirs is one share of the test episodes, with its 95 %
# interval.

# %%
full = load_results("arm")
names = dict(zip(full["kinds"], ("this policy", "from an undisturbed expert", "hears no words"), strict=True))
main_kind, calm_kind, deaf_kind = names
main = full["policies"][main_kind]  # the first of its trainings, judged in more detail
made, calm_made = (full["demonstrations"][noise]["num_states"] for noise in ("0.4", "0.0"))
print(f"{full['episodes']} demonstrations: {made} states, undisturbed {calm_made}; "
      f"{main['step']} steps of {full['batch_size']}")  # fmt: skip
print(f"the first one trained in {main['seconds']:.0f} s on one {full['machine']['device']}; "
      f"{full['num_test']} test episodes of each task\n")  # fmt: skip
print(f"{'success: median (min to max)':30}{'reach':>28}{'pick':>28}")
for kind, name in names.items():
    cells = [full["spread"][kind][task] for task in ("reach", "pick")]
    texts = [f"{cell['median']:.1%} ({cell['min']:.1%} to {cell['max']:.1%})" for cell in cells]
    print(f"{name:30}{texts[0]:>28}{texts[1]:>28}")
for name in ("expert", "random"):
    shares = [share_with_interval(full[name][task]["success"], full["num_test"]) for task in ("reach", "pick")]
    print(f"{name:30}{shares[0]:>28}{shares[1]:>28}")
assert full["spread"][main_kind]["reach"]["min"] >= 0.8
assert full["spread"][main_kind]["pick"]["min"] >= 0.5
assert full["spread"][deaf_kind]["reach"]["max"] < 0.5

# %% [markdown]
# In all 8<!-- result: arm/seeds --> trainings this policy succeeds in nearly every test scene, as the expert does. The next
# two rows teach more.
#
# - **One hears no words.** If it took one of the three blocks at random and did the right thing there, it would be right
#   in one scene of three. Its trainings are right in 19.5<!-- result: arm/runs/seed=5,reach=0.195/reach*100:.1f --> to 30.0 %<!-- result: arm/runs/seed=7,reach=0.3/reach:.1% -->
#   of the scenes: it also does not know whether to reach or to pick. So the words are
#   probably what it lacks.
# - **One learned from an undisturbed expert.** It had the same number of demonstrations, without a single mistake in them.
#   They are shorter, so there are fewer states, 25,605<!-- result: arm/demonstrations/0.0/num_states:, --> instead of
#   36,178<!-- result: arm/demonstrations/0.4/num_states:, -->, and a difference might come from that. Its median is about as good,
#   but look at the range. The next table shows each training by itself. Beside the successes it has the direct question: where
#   the policy succeeds, we name another block in the same scene. Does it go there? The column shows the task in which it does
#   so less often.

# %%
runs = {kind: [run for run in full["runs"] if run["kind"] == kind] for kind in names}
print(f"{'':6}{names[main_kind]:^34}{names[calm_kind]:^36}")
print(f"{'seed':6}" + f"{'reach':>10}{'pick':>8}{'follows, worse':>16}" * 2)
for pair in zip(runs[main_kind], runs[calm_kind], strict=True):
    cells = [
        f"{run['reach']:>10.1%}{run['pick']:>8.1%}{min(run['reach_swap'], run['pick_swap']):>16.0%}" for run in pair
    ]
    print(f"{pair[0]['seed']:<6}" + "".join(cells))


def listens(run):
    """Does it go to another block when that is named, in both tasks?"""
    return min(run["reach_swap"], run["pick_swap"]) > 0.9


heard = {kind: sum(listens(run) for run in runs[kind]) for kind in names}
for run in runs[main_kind] + runs[calm_kind]:
    assert listens(run) == (run["pick"] > 0.9), "there should be nothing in between"
assert heard[deaf_kind] == 0
print(f"\nof {full['seeds']} trainings, follow names: {', '.join(f'{names[k]} {n}' for k, n in heard.items())}")
best_calm = [run["pick"] for run in runs[calm_kind] if listens(run)]
print(f"undisturbed and following names, pick: {min(best_calm):.1%} to {max(best_calm):.1%}")
assert min(best_calm) > 0.95

# %% [markdown]
# In these 16 trainings nothing lies in between. A training either succeeds nearly always and goes to whichever block is
# named, or it does about as badly as the policy that hears no words. So success and **following the words** came together.
# And **a policy can succeed without having seen the way back**, here: the undisturbed trainings that learned the words
# succeed in 98.5 %<!-- result: arm/runs/seed=3,reach=0.985/pick:.1% --> of the scenes or more. On an arm that is pushed, or slips,
# that may be different.
#
# **Does the noise make a policy follow the words?** All of this policy's trainings do, and not all of the undisturbed ones.
# But there are only eight of each. The same seeds had been trained before with twice the learning rate. One training of this
# policy failed there, and for that reason the rate was halved:

# %%
faster = load_results("arm_faster")
counts = {}
for measured in (faster, full):
    for kind in (main_kind, calm_kind):
        count = sum(listens(run) for run in measured["runs"] if run["kind"] == kind)
        counts[kind] = counts.get(kind, 0) + count
        share = share_with_interval(count / measured["seeds"], measured["seeds"])
        print(f"rate {measured['learning_rates']['muon']:.3f}  {names[kind]:28}{count} of {measured['seeds']}: {share}")
total = faster["seeds"] + full["seeds"]
intervals = {kind: wilson_interval(count / total, total) for kind, count in counts.items()}
for kind, (low, high) in intervals.items():
    print(f"both rates  {names[kind]:28}{counts[kind]} of {total}: [{low:.0%}, {high:.0%}]")
assert counts[main_kind] > counts[calm_kind]
assert intervals[main_kind][0] < intervals[calm_kind][1], "the intervals should overlap"

# %% [markdown]
# Both rates point the same way, and the intervals overlap. Overlapping intervals are no test; Fisher's exact test on 15 and
# 10 of 16 gives $p = 0.08$. And these sixteen are not independent: both rates share their seeds and demonstrations, and
# the lower rate was chosen after a failure on these very test scenes. So it is a hint. If the true shares were the ones in
# the table, forty new trainings of each kind would show the difference at the 5 %<!-- given --> level in about nine of ten studies.
#
# **One training shows little.** Look at seed 0 alone: you would conclude that a perfect expert is a poor teacher. Look at
# seed 1 alone: you would conclude that noise makes no difference. Eight seeds refute the first as a rule and leave the
# second open.
#
# Why would a training miss the words? This is *our explanation*, and nothing here tests it. In every image but the
# first ones the position of the hand tells which block is meant, since the expert flies straight to it, and that may be
# easier to learn than words. It fits nearly every demonstration. But when the policy itself moves the hand, the hand
# only tells what the policy did before, and so the policy follows its own first error. A policy that mistakes something
# that goes along with the expert's action for its cause suffers from **causal confusion** ([de Haan et al.
# 2019](https://arxiv.org/abs/1905.11979)); one that goes by the expert's own last actions is called a copycat ([Wen et
# al. 2020](https://arxiv.org/abs/2010.14876)). Noise would make the hand a worse clue, and that would fit the hint.
#
# ### How often does it have to look?
#
# A chunk has 8 actions. The policy may do all of them before it looks again, or only the first 2. Looking costs time:
# each look is a forward pass, and on a robot the arm waits for it or moves on without it.

# %%
print(f"{'actions per look':20}{'reach':>10}{'pick':>10}{'steps of a pick, mean':>26}")
for execute in sorted(full["executes"]):
    runs = [main[task]["by_execute"][str(execute)] for task in ("reach", "pick")]
    print(f"{execute:<20}{runs[0]['success']:>10.1%}{runs[1]['success']:>10.1%}{runs[1]['mean_steps']:>26.1f}")
print(f"{'expert, 1':20}{full['expert']['reach']['success']:>10.1%}{full['expert']['pick']['success']:>10.1%}"
      f"{full['expert']['pick']['mean_steps']:>26.1f}")  # fmt: skip
steps = [main["pick"]["by_execute"][str(e)]["mean_steps"] for e in sorted(full["executes"])]
assert max(steps) < 1.2 * min(steps)

# %% [markdown]
# It hardly matters here. Only the first training was asked. Its picks are a little quicker when it looks more often. Nothing
# on this table moves by itself, so a plan stays good. Compare with [Chapter 8](08_closed_loop.ipynb), and expect another
# answer where blocks roll, people reach in, or the arm does not go where it is sent.
#
# ## 8. Does it follow the words?
#
# Success alone can mislead. With three blocks one guess in three is right, and in Section 6 a policy that ignored its words
# picked up most red blocks. The direct question is the swap of the last section. Take the scenes in which the policy
# succeeded, leave everything as it is, and name another block. Does it go there, and does it *succeed* there? Here is the
# first training in full, and the worst of the eight.

# %%
for task in ("reach", "pick"):
    swap = main[task]["swap"]
    low, high = swap["interval"]
    share = f"{swap['went_to_the_other']:.1%} [{low:.1%}, {high:.1%}]"
    print(f"{task:5}: goes to the other block in {share} of {swap['num_scenes']} scenes", end="")
    print(f", and succeeds there in {swap['success']:.1%}")
    worst = full["spread"][main_kind][f"{task}_swap"]["min"]
    print(f"       worst of {full['seeds']} trainings: {worst:.1%}")
    assert worst >= 0.9

# %% [markdown]
# One scene, three instructions, the trained policy:
#
# ![Three film strips of the same scene. The policy reaches one block, picks it up, and picks up another block when that one is named.](../book/images/arm.png)
#
# The numbers count control steps. Compare the last two rows. Image and hand are the same, one word differs, and the hand
# goes to another block.
#
# ## 9. What is not here
#
# - **A real robot.** Here the light never changes, the cameras stand still, and the motors do as they are told. On a
#   robot a policy from simulation meets all of that at once.
# - **Most of touch.** The arm's links pass through blocks; only fingers, blocks and the table touch. No force is measured:
#   the policy can only see.
# - **People's demonstrations.** Our expert is consistent. People do the same thing in different ways. For such data you
#   want a head that learns a distribution ([Chapter 7](07_action_heads.ipynb)).

# %% [markdown]
# ## Exercise 2: a Jacobian by trying (10 minutes)
#
# MuJoCo computed the Jacobian for us. Check it: write `tried_jacobian(angles)`, a matrix `(3, 6)` whose column $i$ is
# the change of the tip's *position* for a tiny change of angle $i$, divided by that change. `place_at(angles)` tells you
# where the tip is.
#
# <details><summary>Hint</summary>
#
# `np.eye(6)[i]` is 1 in place `i` and 0 elsewhere. A change of `1e-6` rad is small enough. Take the difference of a
# step forward and a step back, divided by twice the step: its error is much smaller.
#
# </details>


# %%
def place_at(angles):
    """Where the tip is, in metres."""
    jacobian_at(angles)
    return tip_pose(model, data)[0]


# %% tags=["exercise"]
def tried_jacobian(angles):
    """How the tip's place changes with each angle: (3, 6)."""
    # your code here


# %% tags=["check"]
with checking("Exercise 2"):
    for angles in np.random.RandomState(0).uniform(-0.5, 0.5, (10, 6)):
        given = angles.copy()
        answer = tried_jacobian(angles)
        assert answer is not None, "write the body of tried_jacobian first"
        assert np.array_equal(angles, given), "your code changes the angles that it was given: work on copies"
        answer = np.asarray(answer, dtype=float)
        assert answer.shape != (6, 3), "a column for each angle: yours has a row for each, so transpose it"
        assert answer.shape == (3, 6), f"the shape should be (3, 6), yours is {answer.shape}"
        right = jacobian_at(angles)[:3]
        assert np.abs(answer).max() > 1e-3, "yours is nearly zero: divide by the change of the angle"
        assert not np.allclose(answer, -right, atol=1e-3), "the sign is wrong: new position minus old one"
        assert not np.allclose(answer, 2 * right, atol=1e-3), "twice too large: forward and back are two steps apart"
        assert not np.allclose(answer, right / 2, atol=1e-3), "half of what it should be: divide by the whole change"
        assert not np.allclose(answer, right * np.pi / 180, atol=1e-3), "angles are in radians here, not in degrees"
        wrong = np.abs(answer - right).max()
        assert wrong < 1e-4, (
            f"MuJoCo's numbers differ from yours by up to {wrong:.4f} m per radian: is your step about 1e-6? A larger one "
            "is inexact, and a much smaller one is lost in rounding"
        )
    measure = place_at
    try:  # another arm, whose tip is where `place_at` says now
        place_at = lambda angles: 2 * measure(angles)  # noqa: E731
        answer = np.asarray(tried_jacobian(given), dtype=float)
    finally:
        place_at = measure
    assert np.allclose(answer, 2 * right, atol=1e-3), (
        "with a `place_at` of another arm yours does not change: find the numbers by trying, with `place_at` alone"
    )

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def tried_jacobian(angles):
#     step = 1e-6
#     columns = [place_at(angles + step * one) - place_at(angles - step * one) for one in np.eye(6)]
#     return np.stack(columns, axis=1) / (2 * step)
# ```
#
# </details>
#
# ## Exercise 3: an expert for a task of your own (20 minutes)
#
# Write `touch_expert(state)` for a new task, "touch the block": with *closed* fingers, come down on the named block's
# top and stop there. Return actions `(n, 7)` for `n` states, as `my_expert` does. It is done when, within 25 steps,
#
# - the fingers are closed: less than 1 cm apart;
# - the tip is within 1 cm of the block's axis, and 3 to 4 cm over its centre (the fingers end 1 cm below the tip);
# - the hand is upright: tilted by less than 0.05 rad;
# - no block was pushed by more than 1 cm. The check lets the hand begin low, where a straight way sweeps through blocks.
#
# <details><summary>Hint</summary>
#
# Take `my_expert` and change three things: the gripper is always -1, there is nothing to grip, and the whole funnel,
# its top included, lies 3.5 cm higher. Closed fingers at a height of 7 cm still sweep through blocks when the hand comes
# from below, so it may come down only where it is nearly on the axis.
#
# </details>


# %% tags=["exercise"]
def touch_expert(state):
    """Actions (n, 7) that bring closed fingers down on the named block's top."""
    # your code here


# %% tags=["check"]
with checking("Exercise 3"):
    world = ArmWorld([201, 202, 203, 204, 205, 206, 208, 209, 213, 216], "pick", ArmConfig(max_steps=100))
    for _ in range(4):  # the hand begins low, beside the blocks
        lower = np.zeros((10, 7))
        lower[:, 2], lower[:, 6] = (0.05 - world.tips[:, 2]) / STEP_METRES, -1
        world.step(lower)
    before = world.blocks
    for _ in range(25):
        answer = touch_expert(world.state())
        assert answer is not None, "write the body of touch_expert first"
        assert np.shape(answer) == (10, 7), f"for 10 states the shape should be (10, 7), yours is {np.shape(answer)}"
        world.step(np.asarray(answer, dtype=float))
    ends = world.state()
    open_by, beside = 100 * ends.openings.max(), 100 * np.linalg.norm(ends.offsets[:, :2], axis=1).max()
    assert open_by < 1, f"the fingers should be closed in the end; yours are up to {open_by:.1f} cm apart"
    assert beside < 1, f"the tip should end within 1 cm of the block's axis; yours is up to {beside:.1f} cm beside it"
    low, high = -100 * ends.offsets[:, 2].max(), -100 * ends.offsets[:, 2].min()
    assert low > 3, f"the tip should end 3 to 4 cm over the block's centre; yours goes down to {low:.1f} cm"
    assert high < 4, f"the tip should end 3 to 4 cm over the block's centre; yours stays up to {high:.1f} cm over it"
    tilt = np.linalg.norm(ends.tilts, axis=1).max()
    assert tilt < 0.05, f"the hand should be upright in the end; yours is tilted by up to {tilt:.2f} rad"
    pushed = 100 * np.linalg.norm(world.blocks - before, axis=2).max()
    assert pushed < 1, f"no block should be pushed by more than 1 cm; yours pushes one by {pushed:.1f} cm: go up first"

    def lower_by(world):
        """As above: down to 5 cm, with closed fingers."""
        down = np.zeros((10, 7))
        down[:, 2], down[:, 6] = (0.05 - world.tips[:, 2]) / STEP_METRES, -1
        return down

    repeated = ArmWorld([201, 202, 203, 204, 205, 206, 208, 209, 213, 216], "pick", ArmConfig(max_steps=100))
    opened, alone_apart = 0.0, 0.0
    for step in range(29):  # the same beginning, and the same expert
        state = repeated.state()
        action = np.asarray(touch_expert(state), dtype=float) if step >= 4 else lower_by(repeated)
        if step >= 4:
            opened = max(opened, 100 * state.openings.max())
            one = replace(state, **{name: value[3:4] for name, value in vars(state).items()})
            alone_apart = max(alone_apart, np.abs(np.asarray(touch_expert(one), dtype=float)[0] - action[3]).max())
        repeated.step(action)
    assert np.allclose(repeated.state().offsets, ends.offsets, atol=1e-3), (
        "from the same start it acts otherwise the second time: go by what can be seen, without a clock"
    )
    assert alone_apart < 1e-6, (
        "a state gets another action alone than among others: take norms of each row (axis=1), not of the whole array"
    )
    assert opened < 1, f"the fingers should be closed on the way, too; yours open to {opened:.1f} cm"
    tips = [repeated.tips]
    for _ in range(4):
        repeated.step(np.asarray(touch_expert(repeated.state()), dtype=float))
        tips.append(repeated.tips)
    moved = 1000 * np.linalg.norm(np.diff(tips, axis=0), axis=2).max()
    assert moved < 2, f"it should come down and stop there; yours still moves the tip by {moved:.1f} mm a step"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def touch_expert(state):
#     beside = np.linalg.norm(state.offsets[:, :2], axis=1)
#     way = state.offsets.copy()
#     way[:, 2] += np.clip(0.035 + 4 * (beside - 0.004), 0.035, HOVER + 0.02)
#     move = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), STEP_METRES)
#     turn = np.clip(state.tilts / STEP_RADIANS, -1, 1)
#     return np.concatenate([move, turn, np.full((len(way), 1), -1.0)], axis=1)
# ```
#
# To teach it to a policy you would need the word: "touch" is in the vocabulary. Give the world a third task with its
# own success, record, and train as in Section 6.
#
# </details>
#
# ## Exercise 4: does it follow the words? (10 minutes)
#
# Write `follows(first, second)`, the share behind the swap's row above. Both are what `rollout` returns for the *same
# seeds*: in `first` the instructions name block 0 of each scene, in `second` block 1. Take only the scenes in which the
# first run was a `success`. In what share of *them* did the hand end nearest to block 1 in the second run
# (`outcome["went_to"]`)?
#
# <details><summary>Hint</summary>
#
# `success` is an array of `bool`: use it as an index. The mean of a `bool` array is a share.
#
# </details>


# %% tags=["exercise"]
def follows(first, second):
    """Share of the first run's successes in which the second run goes to block 1."""
    # your code here


# %% tags=["check"]
with checking("Exercise 4"):
    named, other = (rollout(expert, ArmWorld(range(300, 308), "reach", named=block)) for block in (0, 1))
    answer = follows(named, other)
    assert answer is not None, "write the body of follows first"
    assert answer == 1, f"the expert always follows, you say {answer:.2f}"
    stays = replace(other, outcome={**other.outcome, "went_to": named.outcome["went_to"]})
    deaf = follows(named, stays)
    assert deaf == 0, f"a policy that goes to block 0 in both runs does not follow at all, you say {deaf:.2f}"
    half = replace(named, success=np.arange(8) < 5)
    went_to = np.array([1, 1, 0, 2, 2, 1, 1, 1])
    mixed = replace(other, success=np.arange(8) > 2, outcome={**other.outcome, "went_to": went_to})
    answer = follows(half, mixed)
    assert abs(answer - 5 / 8) > 1e-9, (
        "5 of all 8 go to block 1, but only those count in which the first run was a success"
    )
    assert abs(answer - 2 / 8) > 1e-9, "2 follow, of the 5 successes, not of all 8 scenes: divide by 5"
    assert abs(answer - 4 / 5) > 1e-9, "going to block 2 is not following: count block 1 alone"
    assert abs(answer - 3 / 5) > 1e-9, "take the successes of the first run, not those of the second"
    assert abs(answer - 2 / 5) < 1e-9, f"of 5 successes 2 follow, that is 0.4, and you say {answer:.2f}"

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def follows(first, second):
#     return (second.outcome["went_to"][first.success] == 1).mean()
# ```
#
# </details>
#
# ## Check yourself
#
# <details><summary>Why must the expert not count its steps?</summary>
#
# The policy sees one image and has no memory. If the expert's action depends on a counter, the same image has
# different labels at different times, and the policy can at best learn a mixture of them.
#
# </details>
#
# <details><summary>What does damping buy, and what does it cost?</summary>
#
# Near a singular pose some motions of the tip would need very large turns, and damping limits them in each step. The cost is
# that such a step moves the tip less than was asked for. Far from singular poses the cost is small.
#
# </details>
#
# <details><summary>Why would you disturb an expert, and did it help here?</summary>
#
# A perfect expert never leaves its narrow path, so the data do not show how to come back to it. A policy makes mistakes,
# leaves the path, and is then among states that it has never seen. A disturbed expert shows the way back, with the right
# label. Here a training can do without: those from perfect demonstrations that learned the words succeed nearly as often.
# Perhaps more of the disturbed ones learn the words; the trainings made here do not settle it.
#
# </details>
#
# <details><summary>You change one thing, train once, and success falls from 100 % to 23 %. What do you do next?</summary>
#
# Train both again with other seeds. Success can jump between trainings of the very same kind, and then one of each says
# nothing about the change.
#
# </details>
#
# <details><summary>Actions are relative to where the hand is, the gripper is not. Why?</summary>
#
# With both choices the right answer can be read off the image. The image shows where the hand is and what is missing. Once
# the fingers hold a block, it does not show how far they were told to close, so "a little more closed" would need a memory;
# "closed" does not.
#
# </details>
#
# ## Summary
#
# - From a camera's two numbers to an arm's seven, the policy changed in one place: how many numbers its head makes, and
#   their scale.
# - Inverse kinematics stands between a policy and an arm. Damped least squares limits the turns of a step near
#   poses in which a motion cannot be done.
# - An expert that is to be imitated decides by what can be seen, without a clock. The policy sees nothing else.
# - Noise on what is done, and not on the label, shows how to come back from a mistake. Here a training could succeed without
#   it. Success went together with following the words, and that differed from seed to seed. Whether noise makes it likelier
#   is open.
# - One training of each kind shows little. Train several before you say what a change does.
# - Normalise actions whose numbers differ in size, and keep the statistics with the weights.
# - Judge by success with an interval, and by the swap.
#
# ## Sources
#
# - [MuJoCo](https://mujoco.org), its [MJCF reference](https://mujoco.readthedocs.io/en/stable/XMLreference.html).
# - S. R. Buss, [Introduction to inverse kinematics with Jacobian transpose, pseudoinverse and damped least squares
#   methods](https://mathweb.ucsd.edu/~sbuss/ResearchWeb/ikmethods/iksurvey.pdf).
# - Laskey et al., [DART](https://arxiv.org/abs/1703.09327): noise in demonstrations.
# - de Haan et al., [Causal confusion in imitation learning](https://arxiv.org/abs/1905.11979); Wen et al., [Fighting
#   copycat agents](https://arxiv.org/abs/2010.14876).
# - Actions of seven numbers, about 6 a second on an RTX 4090: [OpenVLA](https://arxiv.org/abs/2406.09246). Flow heads
#   and chunks: [pi0](https://arxiv.org/abs/2410.24164), [SmolVLA](https://arxiv.org/abs/2506.01844).
# - [`tinyvla/act/arm/`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/act/arm): `scene.xml`, `scene.py`,
#   `kinematics.py`, `world.py`, `expert.py`, `policy.py`, `env.py`; and
#   [`rollout.py`](https://github.com/tinyvla/tinyvla/blob/main/tinyvla/act/rollout.py) beside it, which serves every
#   world.
#
# ## Next
#
# [Chapter 14](14_metaworld.ipynb) takes a policy to tasks that others report on.
# [To a robot](../book/to_a_robot.md) says what is left to do before a policy like this one may move a real arm.
