// Chapter 8: what was measured for chunks of several lengths, of which one or more actions are executed.
TinyVLA.parts.chunks = async (mount) => {
  const { element, choice, status, percent } = TinyVLA;
  const results = await TinyVLA.json("closed_loop_chunks.json"), said = status();
  const state = { head: results.heads[0], world: "exact", horizon: 8, execute: 8 };
  const names = { exact: "still world", drifting: `current of ${results.drift} px a step` };
  const words = element("p", { class: "tv-answer" }), grid = element("table", { class: "tv-table" });
  const row = (horizon, execute) => results.runs.find((run) => run.head === state.head && run.world === state.world && run.horizon === horizon && run.execute === execute);
  const draw = () => {
    state.execute = Math.min(state.execute, state.horizon);
    const head = element("tr", {}, element("th", { scope: "col" }, "chunk \\ execute"), ...results.horizons.map((execute) => element("th", { scope: "col" }, String(execute))));
    grid.replaceChildren(element("caption", {}, `success, ${state.head}, ${names[state.world]}`), element("thead", {}, head), element("tbody", {},
      ...results.horizons.map((horizon) => element("tr", {}, element("th", { scope: "row" }, String(horizon)), ...results.horizons.map((execute) => {
        const run = row(horizon, execute), isIt = horizon === state.horizon && execute === state.execute;
        const median = run?.success.median ?? 0, style = run ? `background:rgba(122,79,176,${(0.4 * median).toFixed(2)});${isIt ? "outline:2px solid #c2185b;outline-offset:-2px" : ""}` : "";
        return element("td", { style, "aria-current": isIt ? "true" : null }, run ? percent(median) : "");
      })))));
    const run = row(state.horizon, state.execute);
    words.textContent = `A chunk of ${state.horizon}, ${state.execute} executed before it looks again, ${names[state.world]}: success ${percent(run.success.median, 1)} ` +
      `(${percent(run.success.min, 1)} to ${percent(run.success.max, 1)} over ${results.seeds} seeds), with ${run.mean_looks.median.toFixed(1)} looks an episode.`;
    executes.querySelectorAll("button").forEach((each) => (each.disabled = +each.value > state.horizon));
    executes.press(state.execute);
    said.textContent = words.textContent;
  };
  const set = (name) => (option) => ((state[name] = option), draw());
  const executes = choice("actions executed", results.horizons, state.execute, set("execute"), (count) => `execute ${count}`);
  TinyVLA.frame(mount, choice("head", results.heads, state.head, set("head")),
    choice("world", ["exact", "drifting"], state.world, set("world"), (world) => names[world]),
    choice("chunk length", results.horizons, state.horizon, set("horizon"), (count) => `chunk of ${count}`), executes, words,
    element("div", { class: "tv-scroll", tabindex: 0, role: "region", "aria-label": "success by chunk and execution" }, grid),
    element("p", {}, `Measured: ${results.preset}, ${results.num_test} episodes each; ${results.command}.`), said);
  draw();
};
