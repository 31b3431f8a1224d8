// Chapter 8: the camera moves under a policy, as in tinyvla.act.blocks.world; the reader steers against it.
(() => {
  const RULES = { size: 128, step: 4, tolerance: 2, stop: 0.25, max: 40, push: 6 };
  const clip = (value, low, high) => Math.max(low, Math.min(high, value));

  /** What the camera sees. */
  const look = ({ camera, blocks }) => {
    const [left, top] = camera.map((value) => Math.floor(value + 0.5) - 32);
    return blocks.map(({ color, x, y }) => ({ color, x: x - left, y: y - top }));
  };
  const move = (world, [dx, dy]) => (world.camera = [world.camera[0] + dx, world.camera[1] + dy].map((value) => clip(value, 32, RULES.size - 32)));
  const distance = (world) => {
    const block = world.blocks.find(({ color }) => color === world.target);
    return block ? Math.hypot(block.x - world.camera[0], block.y - world.camera[1]) : NaN;
  };
  /** One step of a policy; true once it has stopped on the named block. */
  const step = async (world, ask, ids) => {
    const { action } = await ask(TinyVLA.paint(look(world)), ids);
    world.action = action.map((value) => clip(value, -1, 1));
    move(world, world.action.map((value) => value * RULES.step));
    world.steps++;
    return distance(world) <= RULES.tolerance && Math.hypot(...world.action) < RULES.stop;
  };
  /** A whole episode without pictures, for the test that compares it with `tinyvla rollout`. */
  const episode = async (world, ask, ids) => {
    Object.assign(world, { camera: [64, 64], steps: 0 });
    while (world.steps < RULES.max) if (await step(world, ask, ids)) return true;
    return false;
  };

  TinyVLA.parts.world = async (mount) => {
    const { element, button, choice, status, colors, palette, arrow, MAGENTA } = TinyVLA;
    await TinyVLA.script("words.js");
    const tokenizer = await TinyVLA.tokenizer(), said = status(), words = element("p", { class: "tv-answer", "aria-live": "off" });
    const policies = { "trained on stills": "nano", cloning: "cloning", DAgger: "dagger" };
    let policy = "cloning", timer = null;
    const world = {};
    const view = element("svg", { viewBox: "0 0 64 64", role: "img" }), map = element("svg", { viewBox: "20 20 88 88", role: "application", tabindex: 0 });
    const box = ({ color, x, y }) => element("rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill: `rgb(${palette[color]})` });
    const sky = () => element("rect", { width: 128, height: 128, fill: "rgb(245,245,245)" });

    const draw = (note = "") => {
      const [x, y] = world.camera, block = world.blocks.find(({ color }) => color === world.target);
      view.replaceChildren(sky(), ...look(world).map(box), arrow(world.action, MAGENTA, 1.7, 16));
      map.replaceChildren(sky(), ...world.blocks.map(box),
        ...(block ? [element("circle", { cx: block.x, cy: block.y, r: 7, fill: "none", stroke: "#222", "stroke-width": 0.8 })] : []),
        element("rect", { x: x - 32, y: y - 32, width: 64, height: 64, fill: "none", stroke: "#777", "stroke-dasharray": "2 1.5", "stroke-width": 0.5 }),
        element("polyline", { points: world.path.map(String).join(" "), fill: "none", stroke: MAGENTA, "stroke-width": 0.8 }),
        ...world.pushes.map(([a, b]) => element("circle", { cx: a, cy: b, r: 1.2, fill: "#222" })),
        element("circle", { cx: x, cy: y, r: 2, fill: MAGENTA, stroke: "#222", "stroke-width": 0.5 }));
      const rest = distance(world);
      words.textContent = `Step ${world.steps}: ${Number.isNaN(rest) ? `there is no ${world.target} block` : `${rest.toFixed(1)} px to go`}. ${note}`;
      view.setAttribute("aria-label", `What the camera sees. ${words.textContent}`);
      map.setAttribute("aria-label", `The world from above, the camera in its middle. Arrow keys push the camera. ${words.textContent}`);
      Object.assign(mount.dataset, { steps: world.steps, distance: rest.toFixed(2), ended: world.ended || "" });
      if (note) said.textContent = words.textContent;
    };
    const begin = (blocks) => {
      Object.assign(world, { blocks, camera: [64, 64], steps: 0, budget: RULES.max, action: [0, 0], path: [[64, 64]], pushes: [], ended: "" });
      draw();
    };
    const advance = TinyVLA.newest(async () => {
      if (world.ended) return;
      const ask = await TinyVLA.policy(policies[policy]);
      const isThere = await step(world, ask, tokenizer.encode(`find the ${world.target} block`));
      world.path.push([...world.camera]);
      if (isThere) world.ended = "success";
      else if (world.steps >= world.budget) world.ended = "failure";
      if (world.ended) play(false);
      draw({ success: `It stopped on it after ${world.steps} steps.`, failure: "Time is up." }[world.ended]);
    });
    const play = (on) => {
      clearInterval(timer);
      timer = on ? setInterval(advance, 200) : null;
      go.textContent = on ? "Pause" : "Go";
      go.setAttribute("aria-pressed", on);
    };
    /** After the reader did something, the policy has all its steps again. */
    const again = (note) => {
      Object.assign(world, { ended: "", budget: world.steps + RULES.max });
      draw(note);
    };
    const push = (dx, dy, name) => {
      move(world, [RULES.push * dx, RULES.push * dy]);
      world.pushes.push([...world.camera]);
      world.path.push([...world.camera]);
      again(`Pushed ${name}.`);
    };
    const ways = { ArrowLeft: [-1, 0, "left"], ArrowRight: [1, 0, "right"], ArrowUp: [0, -1, "up"], ArrowDown: [0, 1, "down"] };
    map.addEventListener("keydown", (event) => ways[event.key] && (event.preventDefault(), push(...ways[event.key])));
    const go = button("Go", () => (world.ended && begin(world.blocks), play(!timer)), { "aria-pressed": "false" });
    const scene = () => TinyVLA.randomBlocks(4).map(({ color, x, y }) => ({ color, x: x + 32, y: y + 32 }));
    const fresh = () => {
      const blocks = scene();
      world.target = blocks[0].color;
      names.press(world.target);
      play(false);
      begin(blocks);
    };
    const names = choice("the colour in the instruction", colors, null, (color) => ((world.target = color), again(`Now told to find the ${color} block.`)));
    TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(map), TinyVLA.side(
      choice("who drives", Object.keys(policies), policy, (name) => ((policy = name), again(`${name} drives now.`))), names,
      element("div", { class: "tv-row" }, go, button("One step", () => (play(false), advance())), button("From the start", () => (play(false), begin(world.blocks))), button("New scene", fresh)),
      element("div", { class: "tv-row", role: "group", "aria-label": "push the camera" }, element("span", {}, "Push:"),
        ...Object.values(ways).map(([dx, dy, name]) => button({ left: "←", right: "→", up: "↑", down: "↓" }[name], () => push(dx, dy, name), { "aria-label": `push ${name}` }))),
      words, element("div", { style: "max-width:9rem" }, TinyVLA.picture(view)), TinyVLA.runsOn())), said);
    mount.world = { world, begin };
    fresh();
    await TinyVLA.policy("cloning");
  };
  Object.assign(TinyVLA.parts.world, { episode, RULES });
})();
