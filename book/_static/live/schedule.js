// Chapter 5: the learning rate over a training, as tinyvla.learn.optimizer has it, and what was measured at such rates.
(() => {
  const rateAt = (step, total, { peak, warmup, decay }) => {
    const climbing = Math.min(warmup, Math.floor(total / 4)), falling = decay * total;
    const climb = step < climbing ? (step + 1) / climbing : 1;
    const fall = total - step < falling ? (total - step) / falling : 1;
    return peak * Math.min(climb, fall);
  };

  TinyVLA.parts.schedule = async (mount) => {
    const { element, choice, slider, status, percent } = TinyVLA;
    const { reach, settings } = await TinyVLA.json("learning.json");
    const said = status(), words = element("p", { class: "tv-answer" });
    const state = { peak: 3e-4, warmup: settings.warmup_steps, decay: settings.decay_fraction, epochs: 4, at: 0 };
    const chart = element("svg", { viewBox: "0 0 200 90", role: "img", style: "width:100%;height:auto;background:#f5f5f5;border-radius:.5rem" });
    const draw = () => {
      const total = Math.round(125 * state.epochs), top = 1.1e-3;
      const place = (step) => `${(8 + (184 * step) / total).toFixed(1)},${(82 - (74 * rateAt(step, total, state)) / top).toFixed(1)}`;
      const steps = [...Array(total).keys()], step = Math.min(total - 1, Math.round(state.at * (total - 1)));
      const [x, y] = place(step).split(",");
      chart.replaceChildren(
        element("line", { x1: 8, y1: 82, x2: 192, y2: 82, stroke: "#777", "stroke-width": 0.5 }),
        element("polyline", { points: steps.map(place).join(" "), fill: "none", stroke: "#c2185b", "stroke-width": 1.2 }),
        element("circle", { cx: x, cy: y, r: 2, fill: "#222" }),
        element("text", { x: 8, y: 89, "font-size": 5, fill: "#333" }, "step 0"),
        element("text", { x: 192, y: 89, "font-size": 5, fill: "#333", "text-anchor": "end" }, `step ${total}`));
      const rate = rateAt(step, total, state), measured = reach[`nano ${state.peak}`];
      const mean = steps.reduce((sum, each) => sum + rateAt(each, total, state), 0) / total / state.peak;
      words.textContent = `At step ${step} of ${total} the rate is ${rate.toExponential(2)}; over the training it is ${percent(mean)} of its peak on average. ` +
        `Measured with nano at this peak: ${measured.reached} of ${measured.runs} runs reach 95 %, after ${measured.steps.median} steps (${measured.steps.min} to ${measured.steps.max}).`;
      chart.setAttribute("aria-label", `Learning rate over ${total} steps. ${words.textContent}`);
      said.textContent = words.textContent;
    };
    const set = (name) => (value) => ((state[name] = value), draw());
    TinyVLA.frame(mount, chart, choice("peak", [1e-4, 3e-4, 1e-3], state.peak, set("peak"), (rate) => `peak ${rate}`),
      slider("warm-up", [0, 300, 10], state.warmup, set("warmup"), (value) => `${value} steps`),
      slider("decay", [0, 1, 0.05], state.decay, set("decay"), (value) => `the last ${percent(value)}`),
      slider("length", [1, 20, 1], state.epochs, set("epochs"), (value) => `${value} epochs`),
      slider("look at", [0, 1, 0.01], state.at, set("at"), (value) => percent(value)), words,
      element("p", {}, `The measurement: ${settings.epochs} epochs, warm-up ${settings.warmup_steps}, decay over the last ${percent(settings.decay_fraction)}; at most a quarter of a training is warm-up.`), said);
    draw();
  };
  TinyVLA.parts.schedule.rateAt = rateAt;
})();
