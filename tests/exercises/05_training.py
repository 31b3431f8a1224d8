"""Answers to the exercises of chapter 05: right ones that must pass, wrong ones that must be refused, and why."""

from itertools import permutations

from exercises.answers import Answers

LOOP = """
def train_loop(policy, split, config, optimizer):
    losses = []
    total = config.total_steps(len(split))
    policy.train()
    for step in range(total):
        batch = split.take(index_of(step, len(split), config))
        optimizer.zero_grad()
        loss = policy.loss(batch)
        loss.backward()
        clip_by_hand(list(policy.parameters()), config.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = rate_by_hand(step, total, config)
        optimizer.step()
        losses.append(loss.item())
    return losses
"""

BY_EPOCHS = """
def train_loop(policy, split, config, optimizer):
    losses, step = [], 0
    total = config.total_steps(len(split))
    for epoch in range(config.epochs):
        for index in order_of(len(split), config.seed, epoch).split(config.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, total, config)
            loss = policy.loss(split.take(index))
            policy.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
    return losses
"""

COSINE = """
def cosine_rate(step, total_steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (total_steps - warmup)
    return peak * (1 + math.cos(math.pi * done)) / 2
"""

PIECES = """
def accumulate(policy, split, index, size):
    policy.zero_grad()
    for start in range(0, len(index), size):
        piece = index[start : start + size]
        (policy.loss(split.take(piece)) * (len(piece) / len(index))).backward()
"""

BY_GRAD = """
def accumulate(policy, split, index, size):
    weights = list(policy.parameters())
    sums = [torch.zeros_like(p) for p in weights]
    for piece in index.split(size):
        gradients = torch.autograd.grad(policy.loss(split.take(piece)), weights)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient * len(piece) / len(index)
    for p, total in zip(weights, sums, strict=True):
        p.grad = total
"""

EVERYWHERE = """
def first_bad(policy, batch):
    for name, values in (("images", batch.image), ("actions", batch.actions)):
        if not values.isfinite().all():
            return name
    names = {module: name for name, module in policy.named_modules() if not list(module.children())}
    found = []

    def hook(module, inputs, output):
        if module in names and not output.isfinite().all():
            found.append(names[module])

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        policy.loss(batch)
    finally:
        handle.remove()
    return found[0] if found else None
"""

DETECTIVE = """
def first_bad(policy, batch):
    if not torch.isfinite(batch.image).all():
        return "images"
    if not torch.isfinite(batch.actions).all():
        return "actions"
    found, handles = [], []

    def watch(name):
        def hook(module, inputs, output):
            if not output.isfinite().all():
                found.append(name)
        return hook

    for name, module in policy.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        policy.loss(batch)
    finally:
        for handle in handles:
            handle.remove()
    return next(iter(found), None)
"""

RIGHT_VERDICT = {"X": "step", "Y": "moments", "Z": "weights"}


def other_verdicts() -> dict[str, tuple[str, str]]:
    """The five other ways to give each run a cause, each with the first run whose cause is wrong."""
    wrong = {}
    for causes in permutations(RIGHT_VERDICT.values()):
        said = dict(zip("XYZ", causes, strict=True))
        if said != RIGHT_VERDICT:
            first = next(run for run in "XYZ" if said[run] != RIGHT_VERDICT[run])
            source = f"def verdict():\n    return {said}"
            wrong[", ".join(causes)] = source, f"run {first} did not forget its {said[first]}"
    return wrong


ANSWERS = {
    "Exercise 1": Answers(
        right=[LOOP, BY_EPOCHS],
        wrong={
            "never clears the gradients": (LOOP.replace("        optimizer.zero_grad()\n", ""), "(zero_grad)"),
            "clears them after backward": (
                LOOP.replace("        optimizer.zero_grad()\n", "").replace(
                    "loss.backward()\n", "loss.backward()\n        optimizer.zero_grad()\n"
                ),
                "zero_grad comes before backward",
            ),
            "never clips": (
                LOOP.replace("        clip_by_hand(list(policy.parameters()), config.grad_clip)\n", ""),
                "clip between backward and step",
            ),
            "clips to length one": (LOOP.replace("config.grad_clip", "1.0"), "to config.grad_clip"),
            "clips each parameter on its own": (
                LOOP.replace(
                    "clip_by_hand(list(policy.parameters()), config.grad_clip)",
                    "[clip_by_hand([p], config.grad_clip) for p in policy.parameters()]",
                ),
                "all parameters together",
            ),
            "clips before backward": (
                LOOP.replace("        clip_by_hand(list(policy.parameters()), config.grad_clip)\n", "").replace(
                    "        loss.backward()\n",
                    "        nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip)\n"
                    "        loss.backward()\n",
                ),
                "clip between backward and step",
            ),
            "leaves the learning rate alone": (
                LOOP.replace("rate_by_hand(step, total, config)", 'group["lr"]'),
                "the learning rates of the groups should be",
            ),
            "sets the rate of the first group alone": (
                LOOP.replace("in optimizer.param_groups:", "in optimizer.param_groups[:1]:"),
                "the learning rates of the groups should be",
            ),
            "counts steps from one in the schedule": (
                LOOP.replace("rate_by_hand(step, ", "rate_by_hand(step + 1, "),
                "the learning rates of the groups should be",
            ),
            "one epoch": (
                LOOP.replace("config.total_steps(len(split))", "math.ceil(len(split) / config.batch_size)"),
                "are 8 steps; the optimizer took 4",
            ),
            "always the first batch": (LOOP.replace("index_of(step,", "index_of(0,"), "the scenes differ"),
            "the scenes in their stored order": (
                LOOP.replace(
                    "index_of(step, len(split), config)",
                    "torch.arange(len(split)).split(config.batch_size)[step % 4]",
                ),
                "the scenes differ",
            ),
            "the loss after the step": (
                LOOP.replace("losses.append(loss.item())", "losses.append(policy.loss(batch).item())"),
                "that of its batch before the step",
            ),
            "the order of seed 0": (
                LOOP.replace(
                    "index_of(step, len(split), config)", "index_of(step, len(split), TrainConfig(batch_size=16))"
                ),
                "those of seed 0",
            ),
            "returns tensors": (LOOP.replace("loss.item()", "loss"), "loss.item() is the loss as a number"),
            "returns tensors without a graph": (
                BY_EPOCHS.replace("float(loss.detach())", "loss.detach()"),
                "loss.item() is the loss as a number",
            ),
            "returns the last loss alone": (
                LOOP.replace("return losses", "return losses[-1:]"),
                "there should be 8 losses",
            ),
            "returns the last loss as a number": (
                LOOP.replace("return losses", "return losses[-1]"),
                "the list of all losses",
            ),
            "returns the last loss as a tensor": (
                LOOP.replace("return losses", "return loss.detach()"),
                "the list of all losses",
            ),
            "scales the loss down": (
                LOOP.replace("loss.backward()", "(0.01 * loss).backward()"),
                "is the loss scaled before backward",
            ),
            "divides the loss by the batch": (
                LOOP.replace("loss.backward()", "(loss / len(batch)).backward()"),
                "is the loss scaled before backward",
            ),
            "returns nothing": (LOOP.replace("    return losses\n", ""), "return the losses"),
        },
    ),
    "Exercise 2": Answers(
        right=[
            COSINE,
            "def cosine_rate(step, total_steps, peak, warmup):\n"
            "    if step < warmup:\n"
            "        return np.float32(peak) * (step + 1) / warmup\n"
            "    return peak * np.cos(0.5 * np.pi * (step - warmup) / (total_steps - warmup)) ** 2",
            "def cosine_rate(step, total_steps, peak, warmup):\n"
            "    x = torch.tensor((step - warmup) / (total_steps - warmup), dtype=torch.float64)\n"
            "    return peak * (step + 1) / warmup if step < warmup else peak * (0.5 + 0.5 * (x * torch.pi).cos())",
        ],
        wrong={
            "starts the warm-up at zero": (
                COSINE.replace("(step + 1) / warmup", "step / warmup"),
                "a tenth of the peak",
            ),
            "the cosine runs over the whole training": (
                COSINE.replace("(step - warmup) / (total_steps - warmup)", "step / total_steps"),
                "the fall should start at the peak",
            ),
            "ends one step early": (
                COSINE.replace("(total_steps - warmup)", "(total_steps - 1 - warmup)"),
                "half-way",
            ),
            "falls in a line": (
                COSINE.replace("(1 + math.cos(math.pi * done)) / 2", "(1 - done)"),
                "a cosine, not a line",
            ),
            "a quarter of a period": (
                COSINE.replace("(1 + math.cos(math.pi * done)) / 2", "math.cos(math.pi * done / 2)"),
                "half-way",
            ),
            "takes a whole period": (COSINE.replace("math.pi * done", "2 * math.pi * done"), "half-way"),
            "forgets the peak in the fall": (
                COSINE.replace("return peak * (1 +", "return (1 +"),
                "in proportion to the peak",
            ),
            "forgets the peak in the warm-up": (
                COSINE.replace("return peak * (step + 1) / warmup", "return (step + 1) / warmup"),
                "the warm-up, too",
            ),
            "divides by the warm-up first": (
                COSINE.replace("    if step < warmup:", "    climb = (step + 1) / warmup\n    if step < warmup:"),
                "raised ZeroDivisionError",
            ),
        },
    ),
    "Exercise 3": Answers(
        right=[
            PIECES,
            "def accumulate(policy, split, index, size):\n"
            "    for p in policy.parameters():\n"
            "        p.grad = None\n"
            "    for piece in torch.split(index, size):\n"
            "        loss = policy.loss(split.take(piece))\n"
            "        (len(piece) * loss).backward()\n"
            "    for p in policy.parameters():\n"
            "        p.grad /= len(index)",
            BY_GRAD,
            "def accumulate(policy, split, index, size):\n"
            "    policy.zero_grad()\n"
            "    for piece in index.split(size):\n"
            "        b = split.take(piece)\n"
            "        loss = (policy(b) - b.actions).square().mean()\n"
            "        (loss * len(piece) / len(index)).backward()",
        ],
        wrong={
            "writes the number of scenes down": (
                PIECES.replace("len(index))).backward", "20)).backward"),
                "is the number 20 written into it",
            ),
            "adds up the means": (
                PIECES.replace(" * (len(piece) / len(index))", ""),
                "the sum of two means is not the mean",
            ),
            "divides by the number of pieces": (
                PIECES.replace("(len(piece) / len(index))", "(1 / math.ceil(len(index) / size))"),
                "weigh each piece by its share",
            ),
            "divides by the size of a full piece": (
                PIECES.replace("(len(piece) / len(index))", "(size / len(index))"),
                "weigh each piece by its share",
            ),
            "keeps the old gradient": (
                PIECES.replace("    policy.zero_grad()\n", ""),
                "is the old gradient cleared first",
            ),
            "clears the gradient at each piece": (
                PIECES.replace("    policy.zero_grad()\n", "").replace(
                    "        piece =", "        policy.zero_grad()\n        piece ="
                ),
                "two equal pieces of 10",
            ),
            "takes all at once": (
                "def accumulate(policy, split, index, size):\n"
                "    policy.zero_grad()\n    policy.loss(split.take(index)).backward()",
                "at most 10 were allowed",
            ),
            "as few pieces as fit, and each too large": (
                PIECES.replace(
                    "for start in range(0, len(index), size):\n        piece = index[start : start + size]",
                    "for piece in index.chunk(len(index) // size):",
                ),
                "a piece had 10 scenes, at most 8 were allowed",
            ),
            "other scenes than those of the index": (
                PIECES.replace("index[start : start + size]", "torch.arange(start, min(start + size, len(index)))"),
                "over the scenes `index`",
            ),
            "drops the last, smaller piece": (
                PIECES.replace("range(0, len(index), size)", "range(0, len(index) - size + 1, size)"),
                "pieces of 8, 8 and 4",
            ),
            "computes the loss and no gradient": (
                PIECES.replace(".backward()", ".detach()"),
                "call backward on each piece's loss",
            ),
            "clears the gradients at the end": (
                PIECES + "    policy.zero_grad()\n",
                "or were they cleared at the end",
            ),
            "adds up the losses and keeps all activations": (
                "def accumulate(policy, split, index, size):\n"
                "    policy.zero_grad()\n"
                "    loss = sum(policy.loss(split.take(p)) * len(p) / len(index) for p in index.split(size))\n"
                "    loss.backward()",
                "no memory is saved",
            ),
            "calls backward after the last piece": (
                "def accumulate(policy, split, index, size):\n"
                "    policy.zero_grad()\n"
                "    losses = [policy.loss(split.take(p)) * len(p) / len(index) for p in index.split(size)]\n"
                "    for loss in losses:\n"
                "        loss.backward()",
                "no memory is saved",
            ),
            "takes all scenes and cuts the batch": (
                "def accumulate(policy, split, index, size):\n"
                "    policy.zero_grad()\n"
                "    b = split.take(index)\n"
                "    for start in range(0, len(index), size):\n"
                "        part = slice(start, start + size)\n"
                "        piece = replace(b, images={name: x[part] for name, x in b.images.items()},\n"
                "            input_ids=b.input_ids[part], attention_mask=b.attention_mask[part],\n"
                "            actions=b.actions[part])\n"
                "        (policy.loss(piece) * len(piece) / len(index)).backward()",
                "split.take took 20 scenes at once",
            ),
            "clips in the end": (
                PIECES + "    clip_by_hand(list(policy.parameters()), 1.0)\n",
                "leave the clipping to the training loop",
            ),
            "does nothing": ("def accumulate(policy, split, index, size):\n    pass", "write the body of accumulate"),
            "keeps each graph after its backward pass": (
                "def accumulate(policy, split, index, size):\n"
                "    policy.zero_grad()\n"
                "    losses = []\n"
                "    for piece in index.split(size):\n"
                "        losses.append(policy.loss(split.take(piece)) * len(piece) / len(index))\n"
                "        losses[-1].backward(retain_graph=True)",
                "no memory is saved",
            ),
        },
    ),
    "Exercise 4": Answers(
        right=[
            "def verdict():\n    return dict(zip('ZXY', ['weights', 'step', 'moments']))",
            "def verdict():\n    answer = {}\n    answer['Y'] = 'moments'\n    answer['Z'] = 'weights'\n"
            "    answer['X'] = 'step'\n    return answer",
        ],
        wrong={
            **other_verdicts(),
            "one cause twice": (
                "def verdict():\n    return {'X': 'step', 'Y': 'moments', 'Z': 'step'}",
                "occurs once",
            ),
            "a run is missing": ("def verdict():\n    return {'X': 'step', 'Y': 'moments'}", "the keys should be"),
        },
    ),
    "Exercise 5": Answers(
        right=[
            DETECTIVE,
            "from contextlib import ExitStack\n\n"
            "def first_bad(policy, batch):\n"
            "    for name in ('images', 'actions'):\n"
            "        values = batch.image if name == 'images' else batch.actions\n"
            "        if (~values.isfinite()).any():\n"
            "            return name\n"
            "    names = {m: n for n, m in policy.named_modules() if not list(m.children())}\n"
            "    order = []\n"
            "    with ExitStack() as stack, torch.no_grad():\n"
            "        for module in names:\n"
            "            handle = module.register_forward_hook(\n"
            "                lambda m, i, o: order.append(names[m]) if not torch.isfinite(o).all() else None)\n"
            "            stack.callback(handle.remove)\n"
            "        policy.loss(batch)\n"
            "    return order[0] if order else None",
            EVERYWHERE,
        ],
        wrong={
            "tests the largest value": (
                DETECTIVE.replace("output.isfinite().all()", "output.max().isfinite()"),
                "minus infinity is not finite either",
            ),
            "tests the first scene": (
                DETECTIVE.replace("output.isfinite().all()", "output[0].isfinite().all()"),
                "test all of them",
            ),
            "scans the parameters": (
                "def first_bad(policy, batch):\n"
                "    if not torch.isfinite(batch.image).all():\n        return 'images'\n"
                "    if not torch.isfinite(batch.actions).all():\n        return 'actions'\n"
                "    for name, parameter in policy.named_parameters():\n"
                "        if not torch.isfinite(parameter).all():\n            return name.rpartition('.')[0]\n"
                "    return None",
                "all weights are finite, but the output",
            ),
            "tests the sum of the values": (
                DETECTIVE.replace("output.isfinite().all()", "torch.isfinite(output.sum())"),
                "test each value, not their sum",
            ),
            "looks for NaN alone": (
                DETECTIVE.replace("torch.isfinite(batch.image)", "(~batch.image.isnan())").replace(
                    "output.isfinite()", "(~output.isnan())"
                ),
                "infinity is not finite either",
            ),
            "looks for NaN alone in the outputs": (
                DETECTIVE.replace("output.isfinite()", "(~output.isnan())"),
                "an infinity starts in the language model",
            ),
            "forgets the labels": (
                DETECTIVE.replace("torch.isfinite(batch.actions)", "torch.isfinite(batch.image)"),
                "there is a NaN in the labels",
            ),
            "does not look at the batch": (
                DETECTIVE.replace('    if not torch.isfinite(batch.image).all():\n        return "images"\n', ""),
                "look at the batch first",
            ),
            "takes the last": (
                DETECTIVE.replace("next(iter(found), None)", "found[-1] if found else None"),
                "the NaN starts in vision.patch_projection",
            ),
            "watches modules with children, too": (
                DETECTIVE.replace("if not any(True for _ in module.children()):", "if name:").replace(
                    "found.append(name)", "found.insert(0, name)"
                ),
                "the NaN starts in vision.patch_projection",
            ),
            "the loop's last name": (
                DETECTIVE.replace(
                    "module.register_forward_hook(watch(name))", "module.register_forward_hook(hook)"
                ).replace(
                    "    def watch(name):\n        def hook(module, inputs, output):\n"
                    "            if not output.isfinite().all():\n"
                    "                found.append(name)\n        return hook\n",
                    "    def hook(module, inputs, output):\n"
                    "        if not output.isfinite().all():\n            found.append(name)\n",
                ),
                "the NaN starts in vision.patch_projection",
            ),
            "leaves its hooks": (
                DETECTIVE.replace("            handle.remove()\n", "            pass\n"),
                "a hook was left behind",
            ),
            "leaves its hooks after an error": (
                DETECTIVE.replace(
                    "    try:\n        policy.loss(batch)\n    finally:\n", "    policy.loss(batch)\n    if True:\n"
                ),
                "in `finally`",
            ),
            "leaves its hook on all modules": (
                EVERYWHERE.replace("handle.remove()", "pass"),
                "on all modules of the process was left behind",
            ),
            "leaves its hook on all modules after an error": (
                EVERYWHERE.replace(
                    "    try:\n        policy.loss(batch)\n    finally:\n", "    policy.loss(batch)\n    if True:\n"
                ),
                "in `finally`",
            ),
            "counts modules that are not the policy's": (
                EVERYWHERE.replace("module in names and not", "not")
                .replace("names[module]", "names.get(module)")
                .replace("return found[0] if found else None", 'return (found[0] or "?") if found else None'),
                "not the policy's was counted",
            ),
            "leaves hooks that run before the modules": (
                DETECTIVE.replace(
                    "handles.append(module.register_forward_hook(watch(name)))",
                    "handles.append(module.register_forward_hook(watch(name)))\n"
                    "            module.register_forward_pre_hook(lambda module, inputs: None)",
                ),
                "a hook was left behind",
            ),
            "clears the hooks of others": (
                DETECTIVE.replace(
                    "        for handle in handles:\n            handle.remove()\n",
                    "        for module in policy.modules():\n            module._forward_hooks.clear()\n",
                ),
                "remove your own handles alone",
            ),
            "swallows an error of the forward pass": (
                DETECTIVE.replace("    finally:\n", "    except Exception:\n        pass\n    finally:\n"),
                "catch no error",
            ),
            "blames a batch that is well": (
                DETECTIVE.replace("next(iter(found), None)", 'next(iter(found), "images")'),
                "the answer should be None",
            ),
        },
    ),
}
