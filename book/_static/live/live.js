// What the live parts of the book share: the policies, scenes that can be dragged, and controls.
// A page loads this file when its reader first touches such a part (course.js), and each part loads what it needs.
// Files are plain scripts and data is base64 in scripts, so a book that was opened from a folder works, too.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const kept = new Map();
  const once = (name, make) => kept.get(name) ?? kept.set(name, make()).get(name);
  const packed = {};

  const script = (name) =>
    once(`script ${name}`, () => new Promise((done, failed) => {
      const element = document.createElement("script");
      element.src = here + name;
      element.onload = done;
      element.onerror = () => failed(new Error(`${name} is not in this build of the book; run: npm install`));
      document.head.append(element);
    }));

  const unzip = async (stream) =>
    new Uint8Array(await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());

  /** The bytes of a packed file. */
  const bytes = (name) =>
    once(`bytes ${name}`, async () => {
      await script(`assets/${name}.js`);
      const zipped = await fetch(`data:application/gzip;base64,${packed[name]}`);
      delete packed[name];
      return unzip(zipped.body);
    });
  const text = async (name) => new TextDecoder().decode(await bytes(name));
  const json = async (name) => JSON.parse(await text(name));

  /** A program: inputs {name: [type, data, shape]} to outputs {name: [numbers]}. */
  const program = (name) =>
    once(`program ${name}`, async () => {
      await script("runtime.js");
      return window.TinyVLA.load(name);
    });

  /** A policy: (pixels 3 x 64 x 64 of 0 to 255, token ids) to {action, attention}. */
  const policy = (name) =>
    once(`policy ${name}`, async () => {
      const run = await program(name);
      return async (pixels, ids) => {
        const { actions, attention } = await run({
          images: ["float32", Float32Array.from(pixels, (value) => value / 255), [1, 3, 64, 64]],
          input_ids: ["int64", BigInt64Array.from(ids, BigInt), [1, ids.length]],
          attention_mask: ["bool", new Uint8Array(ids.length).fill(1), [1, ids.length]],
        });
        return { action: actions, attention };
      };
    });

  /** Call `task` with the newest arguments only: while it runs, older ones are dropped. */
  const newest = (task) => {
    let running = null, waiting = null;
    const go = async (args) => {
      try { return await task(...args); } finally {
        const next = waiting;
        waiting = null;
        running = next && go(next);
      }
    };
    return (...args) => {
      if (running) waiting = args;
      else running = go(args);
      return running;
    };
  };

  // --- the task: scenes as the policies were trained on ---

  const palette = { red: [214, 39, 40], green: [44, 160, 44], blue: [31, 90, 220], yellow: [250, 215, 30], purple: [150, 60, 200], orange: [255, 127, 14] };
  const colors = Object.keys(palette);
  const background = 245;
  const center = (cell) => [(cell % 8) * 8 + 4, Math.floor(cell / 8) * 8 + 4];

  /** What a camera sees: blocks of 8 x 8 pixels around whole-numbered centres. */
  const paint = (blocks) => {
    const pixels = new Uint8Array(3 * 64 * 64).fill(background);
    for (const { x, y, color } of blocks)
      for (let row = Math.max(0, y - 4); row < Math.min(64, y + 4); row++)
        for (let column = Math.max(0, x - 4); column < Math.min(64, x + 4); column++)
          palette[color].forEach((value, channel) => (pixels[channel * 4096 + row * 64 + column] = value));
    return pixels;
  };

  const randomBlocks = (count = 3 + Math.floor(2 * Math.random())) => {
    const shuffled = (items) => items.map((item) => [Math.random(), item]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
    const cells = shuffled([...Array(64).keys()]);
    return shuffled(colors).slice(0, count).map((color, i) => ({ color, x: center(cells[i])[0], y: center(cells[i])[1] }));
  };

  const degrees = ([a, b], [c, d]) => (Math.abs(Math.atan2(a * d - b * c, a * c + b * d)) * 180) / Math.PI;
  const unit = ([x, y]) => [x / (Math.hypot(x, y) || 1), y / (Math.hypot(x, y) || 1)];
  const heading = ([dx, dy]) =>
    `${Math.abs(dx) < 0.2 ? "" : dx < 0 ? "left" : "right"} ${Math.abs(dy) < 0.2 ? "" : dy < 0 ? "up" : "down"}`.trim() || "nowhere";

  // --- pieces of a page ---

  const element = (tag, attributes = {}, ...children) => {
    const made = /^(svg|g|rect|circle|line|polyline|polygon|path|text|title)$/.test(tag)
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes))
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    made.append(...children);
    return made;
  };

  const button = (label, onclick, more = {}) => element("button", { type: "button", onclick, ...more }, label);

  /** Buttons of which one is pressed; `press` changes it from outside. */
  const choice = (label, options, chosen, pick, show = String) => {
    const press = (option) => buttons.forEach((each) => each.setAttribute("aria-pressed", each.value === String(option)));
    const buttons = options.map((option) =>
      button(show(option), () => (press(option), pick(option)), { value: option, "aria-pressed": String(option === chosen) }));
    options.forEach((option, i) => {
      if (palette[option]) buttons[i].prepend(element("span", { class: "tv-dot", style: `background:rgb(${palette[option]})` }));
    });
    return Object.assign(element("div", { class: "tv-row", role: "group", "aria-label": label }, ...buttons), { press });
  };

  const slider = (label, [min, max, step], value, change, show = String) => {
    const shown = element("output", {}, show(value));
    const say = () => input.setAttribute("aria-valuetext", (shown.textContent = show(+input.value)));
    const input = element("input", { type: "range", min, max, step, value, oninput: () => (say(), change(+input.value)) });
    say();
    const set = (to, most = input.max) => (Object.assign(input, { max: most, value: to }), say()); // moved by the part itself
    return Object.assign(element("label", { class: "tv-slider" }, element("span", {}, label), input, shown), { set });
  };

  const tick = (label, checked, change) => {
    const input = element("input", { type: "checkbox", checked, onchange: () => change(input.checked) });
    return element("label", { class: "tv-tick" }, input, label);
  };

  /** A line that says what the policies run on; runtime.js keeps it true. */
  const runsOn = () => element("p", { class: "tv-device", "data-device": "" }, window.TinyVLA.device?.says ?? "");

  /** A line that screen readers speak when it changes. */
  const status = () => element("p", { class: "tv-status", role: "status" });

  /** A part's frame: its title, pieces side by side or below each other, and a line for screen readers. */
  const frame = (mount, ...pieces) =>
    mount.replaceChildren(element("p", { class: "tv-title" }, mount.getAttribute("aria-label")), ...pieces);
  const columns = (...pieces) => element("div", { class: "tv-columns" }, ...pieces);
  const side = (...pieces) => element("div", { class: "tv-side" }, ...pieces);
  const picture = (...pieces) => element("div", { class: "tv-picture" }, ...pieces);
  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

  window.TinyVLA = {
    here, once, unzip, arrived: (name, data) => (packed[name] = data),
    script, bytes, text, json, program, policy, newest, palette, colors, background, center, paint, randomBlocks,
    degrees, unit, heading, element, button, choice, slider, tick, status, runsOn,
    frame, columns, side, picture, percent, parts: {},
    /** Make a part live, in place of its still picture. */
    async start(mount) {
      const name = mount.dataset.live;
      await Promise.all([script("scene.js"), script(`${name}.js`)]);
      await window.TinyVLA.parts[name](mount);
    },
  };
})();
