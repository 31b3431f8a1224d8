"""Answers to the exercises of chapter 08: right ones that must pass, wrong ones that must be refused, and why."""

from exercises.answers import Answers

QUEUE = """class ActionQueue:
    def __init__(self, act, execute):
        self.act, self.execute, self.queue = act, execute, []

    def reset(self):
        self.queue = []

    def __call__(self, observation):
        if not self.queue:
            self.queue = list(self.act(observation)[0][: self.execute])
        return self.queue.pop(0)[None]
"""

COLLECT = """def collect(act, world, number, earlier):
    visited = rollout(act if number else expert, world, record=len(world)).states
    return visited if earlier is None else States.joined([earlier, visited])
"""

KINDS = """def kinds_of_end(result):
    kinds = []
    reached, ended_on = result.outcome["reached"], result.outcome["ended_on"]
    for success, was_on_it, end, text in zip(result.success, reached, ended_on, result.instructions):
        if success:
            kinds.append("success")
        elif end is not None and end != text.split()[2]:
            kinds.append("wrong block")
        else:
            kinds.append("passed" if was_on_it else "lost")
    return kinds
"""

STUMBLING = """def stumbling(num_episodes, seed, noise):
    world, rng = BlockWorld(episode_seeds(num_episodes, seed)), np.random.RandomState(seed)
    images, instructions, labels, offsets = [], [], [], []
    while len(running := world.running):
        images.append(world.views())
        instructions += [world.instructions[i] for i in running]
        offsets.append(world.offsets[running])
        labels.append(expert_action(offsets[-1], 4.0))
        world.step(labels[-1] + noise * rng.randn(len(running), 2))
    return np.concatenate(images), instructions, np.concatenate(labels), np.concatenate(offsets)
"""

ANSWERS = {
    "Exercise 1": Answers(
        right=[
            QUEUE,
            """class ActionQueue:
    def __init__(self, act, execute):
        self.act, self.execute = act, execute
        self.reset()

    def reset(self):
        self.plan, self.done = None, 0

    def __call__(self, observation):
        if self.plan is None or self.done == self.execute:
            self.plan, self.done = np.asarray(self.act(observation)), 0
        self.done += 1
        return self.plan[:, self.done - 1]
""",
        ],
        wrong={
            "reset does nothing": (
                QUEUE.replace("    def reset(self):\n        self.queue = []", "    def reset(self):\n        pass"),
                "old episode's plan",
            ),
            "one plan for all": (
                QUEUE.replace("class ActionQueue:\n", "class ActionQueue:\n    queue = []\n\n")
                .replace(
                    "self.act, self.execute, self.queue = act, execute, []", "self.act, self.execute = act, execute"
                )
                .replace("self.queue = []\n", "self.queue.clear()\n")
                .replace("self.queue = list(self", "self.queue += list(self"),
                "two queues share one plan",
            ),
            "does the whole chunk": (QUEUE.replace("[0][: self.execute]", "[0]"), "does the whole chunk"),
            "asks in every step": (QUEUE.replace("if not self.queue:", "if True:"), "asks in every step"),
            "from the end": (QUEUE.replace("pop(0)", "pop()"), "begin with the first one"),
            "one too many": (
                QUEUE.replace("[: self.execute]", "[: self.execute + 1]"),
                "with execute 3 the actions should begin",
            ),
            "drops the episode's axis": (QUEUE.replace("pop(0)[None]", "pop(0)"), "shape (1, 2)"),
            "does not return": (QUEUE.replace("return self.queue", "self.queue"), "write the body of __call__"),
        },
    ),
    "Exercise 2": Answers(
        right=[
            COLLECT,
            """def collect(act, world, number, earlier):
    driver = expert if number == 0 else act
    new = visited_states(driver, world)
    parts = [part for part in (earlier, new) if part is not None]
    return States.joined(parts)
""",
        ],
        wrong={
            "records a hundred episodes, however many there are": (
                """
def collect(act, world, number, earlier):
    visited = rollout(act if number else expert, world, record=100).states
    return visited if earlier is None else States.joined([earlier, visited])
""",
                "of 310 yours records",
            ),
            "the policy drives in round 0": (
                COLLECT.replace("act if number else expert", "act"),
                "let the expert drive",
            ),
            "the expert always drives": (
                COLLECT.replace("act if number else expert", "expert"),
                "let the policy drive",
            ),
            "forgets the rounds before": (
                COLLECT.replace(
                    "return visited if earlier is None else States.joined([earlier, visited])", "return visited"
                ),
                "rounds before are lost",
            ),
            "records one episode": (COLLECT.replace("record=len(world)", "record=1"), "record all 5 episodes"),
            "labels with what was done": (
                COLLECT.replace(
                    "    return", "    visited = replace(visited, expert_chunks=visited.actions[:, None])\n    return"
                ),
                "label with the expert's action",
            ),
            "only states of failed episodes": (
                COLLECT.replace(
                    "    visited = rollout(act if number else expert, world, record=len(world)).states\n",
                    "    result = rollout(act if number else expert, world, record=len(world))\n"
                    "    s = result.states\n"
                    "    kept = np.flatnonzero(~result.success[s.episodes] | (number == 0))\n"
                    "    visited = replace(\n"
                    "        s, images={name: seen[kept] for name, seen in s.images.items()},\n"
                    "        instructions=[s.instructions[i] for i in kept], expert_chunks=s.expert_chunks[kept],\n"
                    "        actions=s.actions[kept], episodes=s.episodes[kept],\n"
                    "    )\n",
                ),
                "also those of episodes that succeed",
            ),
            "the expert drives in round 2": (
                COLLECT.replace("act if number else expert", "act if number == 1 else expert"),
                "in round 2 the expert drives",
            ),
            "keeps the old ones twice": (
                COLLECT.replace("[earlier, visited]", "[earlier, earlier, visited]"),
                "after round 1 there should be",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            KINDS,
            """def kinds_of_end(result):
    named = np.array([text.split()[2] for text in result.instructions], dtype=object)
    end, reached = result.outcome["ended_on"], np.asarray(result.outcome["reached"], bool)
    on_other = np.array([e is not None and e != n for e, n in zip(end, named)])
    kinds = np.where(reached, "passed", "lost").astype(object)
    kinds[on_other] = "wrong block"
    kinds[np.asarray(result.success, bool)] = "success"
    return [str(kind) for kind in kinds]
""",
        ],
        wrong={
            "passed before wrong block": (
                """def kinds_of_end(result):
    kinds = []
    reached, ended_on = result.outcome["reached"], result.outcome["ended_on"]
    for success, was_on_it, end in zip(result.success, reached, ended_on):
        kinds.append("success" if success else "passed" if was_on_it else "wrong block" if end is not None else "lost")
    return kinds
""",
                "passed the red block and ended on the blue one",
            ),
            "any block at the end is a wrong one": (
                KINDS.replace("end is not None and end != text.split()[2]", "end is not None"),
                "time was up while it was on the red block",
            ),
            "on the named block at the end is a success": (
                KINDS.replace("        if success:", "        if end == text.split()[2]:"),
                "time was up while it was on the red block",
            ),
            "reached is a success": (
                KINDS.replace("        if success:", "        if was_on_it:"),
                "passed the red block and ended",
            ),
            "on no block is a wrong block": (
                KINDS.replace("end is not None and end != text", "end != text"),
                "was on the red block and ended on none",
            ),
            "never lost": (KINDS.replace('"passed" if was_on_it else "lost"', '"passed"'), "was on no block at all"),
            "the first episode's colour for all": (
                KINDS.replace("text.split()[2]", "result.instructions[0].split()[2]"),
                "take each episode's own sentence",
            ),
            "a word too few": (KINDS.replace("    return kinds", "    return kinds[:-1]"), "episodes, but"),
        },
    ),
    "Exercise 4": Answers(
        right=[
            STUMBLING,
            """def stumbling(num_episodes, seed, noise):
    rng = np.random.RandomState(seed)

    def push(actions, _):
        return actions + rng.normal(0, 1, actions.shape) * noise

    world, offsets = BlockWorld(episode_seeds(num_episodes, seed)), []

    def look(world, actions):
        offsets.extend(world.offsets[world.running])

    states = rollout(expert, world, disturb=push, record=num_episodes, on_step=look).states
    return states.images["camera"], states.instructions, states.expert_actions, np.array(offsets)
""",
            STUMBLING.replace("rng.randn(len(running), 2)", "rng.randn(2, len(running)).T"),
        ],
        wrong={
            "labels what is seen after the step": (
                """
def stumbling(num_episodes, seed, noise):
    world, rng = BlockWorld(episode_seeds(num_episodes, seed)), np.random.RandomState(seed)
    images, instructions, labels, offsets = [], [], [], []
    while len(running := world.running):
        images.append(world.views())
        instructions += [world.instructions[i] for i in running]
        world.step(expert_action(world.offsets[running], 4.0) + noise * rng.randn(len(running), 2))
        offsets.append(world.offsets[running])
        labels.append(expert_action(offsets[-1], 4.0))
    return np.concatenate(images), instructions, np.concatenate(labels), np.concatenate(offsets)
""",
                "before* the step",
            ),
            "the same noise on x and y": (
                """
def stumbling(num_episodes, seed, noise):
    world, rng = BlockWorld(episode_seeds(num_episodes, seed)), np.random.RandomState(seed)
    images, instructions, labels, offsets = [], [], [], []
    while len(running := world.running):
        images.append(world.views())
        instructions += [world.instructions[i] for i in running]
        offsets.append(world.offsets[running])
        labels.append(expert_action(offsets[-1], 4.0))
        world.step(labels[-1] + noise * rng.randn(len(running), 1))
    return np.concatenate(images), instructions, np.concatenate(labels), np.concatenate(offsets)
""",
                "x and y get the same noise",
            ),
            "labels with the noise": (
                STUMBLING.replace(
                    "labels.append(expert_action(offsets[-1], 4.0))",
                    "labels.append(expert_action(offsets[-1], 4.0) + noise * rng.randn(len(running), 2))",
                ).replace("world.step(labels[-1] + noise * rng.randn(len(running), 2))", "world.step(labels[-1])"),
                "without noise; yours differ",
            ),
            "the noise is not executed": (
                STUMBLING.replace("labels[-1] + noise * rng.randn(len(running), 2)", "labels[-1]"),
                "is the noise executed",
            ),
            "always the same noise": (
                STUMBLING.replace("noise * rng.randn", "0.5 * rng.randn"),
                "without noise the expert visits",
            ),
            "another seed each time": (
                STUMBLING.replace("np.random.RandomState(seed)", "np.random.RandomState()"),
                "same seed should give the same",
            ),
            "seed 0 whatever the seed": (
                STUMBLING.replace("np.random.RandomState(seed)", "np.random.RandomState(0)"),
                "another seed or generator",
            ),
            "another generator": (
                STUMBLING.replace("np.random.RandomState(seed)", "np.random.default_rng(seed)").replace(
                    "rng.randn(len(running), 2)", "rng.standard_normal((len(running), 2))"
                ),
                "another seed or generator",
            ),
            "a speed limit after the noise": (
                STUMBLING.replace(
                    "        world.step(labels[-1] + noise * rng.randn(len(running), 2))",
                    "        moved = labels[-1] + noise * rng.randn(len(running), 2)\n"
                    "        world.step(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1))",
                ),
                "exactly the label plus noise",
            ),
            "the generator in the loop": (
                STUMBLING.replace(
                    "world, rng = BlockWorld(episode_seeds(num_episodes, seed)), np.random.RandomState(seed)",
                    "world = BlockWorld(episode_seeds(num_episodes, seed))",
                ).replace("        images.append", "        rng = np.random.RandomState(seed)\n        images.append"),
                "same in every step",
            ),
            "uniform noise": (
                STUMBLING.replace("rng.randn(len(running), 2)", "rng.uniform(-1, 1, (len(running), 2))"),
                "add normal noise",
            ),
            "noise that scales the action": (
                STUMBLING.replace(
                    "labels[-1] + noise * rng.randn(len(running), 2)",
                    "labels[-1] * (1 + noise * rng.randn(len(running), 2))",
                ),
                "add normal noise",
            ),
            "one push for all": (STUMBLING.replace("rng.randn(len(running), 2)", "rng.randn(2)"), "same push"),
            "sentences by their place": (
                STUMBLING.replace("for i in running]", "for i in range(len(running))]"),
                "sentence of its own episode",
            ),
            "looks after the step": (
                STUMBLING.replace("        images.append(world.views())\n", "").replace(
                    "rng.randn(len(running), 2))\n",
                    "rng.randn(len(running), 2))\n        images.append(world.views(running))\n",
                ),
                "*before* each step",
            ),
            "a single step": (
                STUMBLING.replace("while len(running := world.running):", "for running in [world.running]:"),
                "run the episodes to their ends",
            ),
            "sentences of all episodes in turn": (
                STUMBLING.replace("[world.instructions[i] for i in running]", "[world.instructions[0]] * len(running)"),
                "sentence of its own episode",
            ),
        },
    ),
}
