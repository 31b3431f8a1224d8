// Chapter 12: the memory of a training step on paper, with the formulas of tinyvla.speed.scaling.
(() => {
  /** Bytes of each part; `shape` is {vision, language: {embed_dim, num_layers, mlp_ratio}, tokens, vocab_size}. */
  const budget = ({ vision, language, tokens, vocab_size }, { batch, bfloat16, accumulate, recompute }) => {
    const blocks = (tower) => (4 + 2 * tower.mlp_ratio) * tower.num_layers * tower.embed_dim ** 2;
    const parameters = blocks(vision) + blocks(language) + vocab_size * language.embed_dim;
    const streams = [(vision.embed_dim * batch * tokens) / accumulate, language.embed_dim * 36];
    const block = bfloat16 ? 2 * 16 + 4 * 2 : 4 * 18;
    const kept = [vision, language].map(({ num_layers }) => (recompute ? 4 * num_layers + block : num_layers * block));
    return {
      parameters, weights: 4 * parameters, gradients: 4 * parameters, moments: 8 * parameters,
      copies: bfloat16 && !recompute ? 2 * (blocks(vision) + blocks(language)) : 0,
      activations: kept[0] * streams[0] + kept[1] * streams[1],
    };
  };
  const memory = (parts) => parts.weights + parts.gradients + parts.moments + parts.copies + parts.activations;

  TinyVLA.parts.fit = async (mount) => {
    const { element, choice, slider, tick, status } = TinyVLA;
    const presets = await TinyVLA.json("presets.json"), said = status();
    const state = { preset: "medium", batch: 64, bfloat16: false, accumulate: 1, recompute: false, device: 8 };
    const words = element("p", { class: "tv-answer" }), bars = element("svg", { viewBox: "0 0 200 22", role: "img", style: "width:100%;height:auto" });
    const colors = { weights: "#2a78b5", gradients: "#b3541e", moments: "#7a4fb0", copies: "#3c7d3c", activations: "#c2185b" };
    const GB = 1e9, show = (bytes) => (bytes < 0.1 * GB ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / GB).toFixed(bytes < 10 * GB ? 2 : 0)} GB`);
    const draw = () => {
      const parts = budget(presets[state.preset], state), total = memory(parts), whole = Math.max(total, state.device * GB);
      let x = 0;
      bars.replaceChildren(...Object.entries(colors).map(([name, color]) => {
        const bar = element("rect", { x: (200 * x) / whole, y: 4, width: (200 * parts[name]) / whole, height: 12, fill: color });
        x += parts[name];
        return bar;
      }), element("rect", { x: 0, y: 4, width: (200 * state.device * GB) / whole, height: 12, fill: "none", stroke: "currentColor", "stroke-width": 0.8 }));
      const list = Object.keys(colors).filter((name) => parts[name]).map((name) => `${name} ${show(parts[name])}`).join(", ");
      words.textContent = `${show(total)} of ${state.device} GB: it ${total <= state.device * GB ? "fits" : "does not fit"}. ${list}.`;
      bars.setAttribute("aria-label", words.textContent);
      said.textContent = words.textContent;
      mount.bytes = total;
    };
    const set = (name) => (value) => ((state[name] = value), draw());
    TinyVLA.frame(mount, choice("preset", Object.keys(presets), state.preset, set("preset")),
      slider("batch", [0, 12, 1], 6, (value) => set("batch")(2 ** value), (value) => `${2 ** value} scenes`),
      slider("in parts", [0, 6, 1], 0, (value) => set("accumulate")(2 ** value), (value) => `${2 ** value} part${value ? "s" : ""}`),
      element("div", { class: "tv-row" }, tick("matrix products in bfloat16", false, set("bfloat16")), tick("run each block twice", false, set("recompute"))),
      choice("memory of the device", [4, 8, 16, 24, 80], 8, set("device"), (size) => `${size} GB`), bars, words,
      element("p", {}, ...Object.entries(colors).flatMap(([name, color]) => [element("span", { class: "tv-dot", style: `background:${color}` }), `${name}   `])),
      element("p", {}, "The frame is the device’s memory. On paper: what is small is left out."), said);
    draw();
  };
  Object.assign(TinyVLA.parts.fit, { budget, memory });
})();
