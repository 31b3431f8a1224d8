// Chapter 7: two blocks of the named colour. Where regression, bins and flow go, and the flow's way from noise.
TinyVLA.parts.ambiguity = async (mount) => {
  const { element, button, choice, slider, status, scene, degrees, unit, percent, MAGENTA, GREY } = TinyVLA;
  const [heads, flow] = await Promise.all([TinyVLA.program("heads"), TinyVLA.program("flow")]);
  const COUNT = 60, said = status(), words = element("p", { class: "tv-answer" });
  const blocks = [{ color: "red", x: 52, y: 12 }, { color: "red", x: 12, y: 36 }];
  const state = { head: "flow", steps: 10, moment: 10 };
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  let noise = Array.from({ length: COUNT * 2 }, normal);

  /** The feature: which cells hold a block of the named colour. */
  const eyes = () => {
    const seen = new Float32Array(64);
    for (const { x, y } of blocks) seen[Math.floor(y / 8) * 8 + Math.floor(x / 8)] = 1;
    return ["float32", seen, [1, 64]];
  };
  /** Places of the points before each step of the flow and after the last. */
  const way = async (features) => {
    const places = [noise];
    for (let step = 0; step < state.steps; step++) {
      const at = places.at(-1), inputs = { features, places: ["float32", Float32Array.from(at), [COUNT, 2]], time: ["float32", [step / state.steps], [1]] };
      const { velocity } = await flow(inputs);
      places.push(at.map((value, i) => value + velocity[i] / state.steps));
    }
    return places;
  };
  /** Draws pairs of bins from their joint probabilities. */
  const drawn = (joint) => {
    const sums = [];
    joint.reduce((sum, share) => sums[sums.push(sum + share) - 1], 0);
    return Array.from({ length: COUNT }, () => {
      const at = Math.max(0, sums.findIndex(((value) => (sum) => sum > value)(Math.random() * sums.at(-1))));
      return [Math.floor(at / 256), at % 256].map((bin) => ((bin + 0.5) / 256) * 2 - 1);
    });
  };
  const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);

  const update = TinyVLA.newest(async () => {
    const features = eyes(), right = blocks.map(({ x, y }) => unit([x - 32, y - 32]));
    const { mean, joint } = await heads({ features });
    const places = state.head === "flow" ? (await way(features)).map(pairs) : null;
    const moment = Math.min(state.moment, state.steps);
    const answers = state.head === "regression" ? [mean] : state.head === "bins" ? drawn(joint) : places[moment];
    const near = answers.filter((answer) => right.some((each) => degrees(answer, each) < 10)).length / answers.length;
    const dot = ([x, y]) => element("circle", { cx: 32 + 26 * x, cy: 32 + 26 * y, r: 0.9, fill: MAGENTA, "fill-opacity": 0.75 });
    const line = (i) => element("polyline", { points: places.slice(0, moment + 1).map((all) => `${32 + 26 * all[i][0]},${32 + 26 * all[i][1]}`).join(" "), fill: "none", stroke: MAGENTA, "stroke-width": 0.25, "stroke-opacity": 0.5 });
    view.draw({ shapes: [...(places ? answers.map((_, i) => line(i)) : []), ...answers.map(dot)], arrows: [...right.map((each) => [each, GREY, 0.8]), ...(state.head === "regression" ? [[mean, MAGENTA]] : [])] });
    words.textContent = state.head === "regression"
      ? `Regression answers (${mean.map((value) => value.toFixed(2)).join(", ")}) every time: ${Math.hypot(...mean).toFixed(2)} long, ${near ? "near a block" : "near neither block"}.`
      : `${state.head === "flow" ? `After ${moment} of ${state.steps} steps` : "Of 60 draws of the bins"}, ${percent(near)} lie within 10° of one of the two blocks.`;
    Object.assign(mount, { near, answers, mean });
    said.textContent = words.textContent;
  });
  const view = scene({ blocks, label: "Scene with two red blocks, which can be dragged.", changed: update });
  const moment = slider("moment of the flow", [0, 10, 1], 10, (value) => ((state.moment = value), update()), (value) => `after step ${value}`);
  const steps = choice("steps of the flow", [1, 2, 5, 10], 10, (option) => {
    state.steps = state.moment = option;
    const input = moment.querySelector("input");
    Object.assign(input, { max: option, value: option });
    input.dispatchEvent(new Event("input"));
  }, (count) => `${count} step${count > 1 ? "s" : ""}`);
  TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(view.svg), TinyVLA.side(
    element("p", { class: "tv-words" }, "“find any red block”"),
    choice("head", ["regression", "bins", "flow"], "flow", (option) => {
      state.head = option;
      steps.hidden = moment.hidden = option !== "flow";
      update();
    }), steps, moment, words,
    element("div", { class: "tv-row" }, button("New noise", () => ((noise = noise.map(normal)), update()))), TinyVLA.runsOn())), said);
  view.reset(blocks);
  await update();
};
