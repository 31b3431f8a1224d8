// The first page: the course's own policy, run here. Drag the blocks, type a sentence, see where it points and looks.
TinyVLA.parts.playground = async (mount) => {
  const { element, button, choice, tick, status, scene, colors, palette, MAGENTA, GREY, target, off, heading, place } = TinyVLA;
  await TinyVLA.script("words.js");
  const started = performance.now();
  const [ask, tokenizer, facts] = await Promise.all([TinyVLA.policy("nano"), TinyVLA.tokenizer(), TinyVLA.json("facts.json")]);
  const known = new Set(facts.words.nano);
  const state = { blocks: JSON.parse(mount.dataset.blocks), attention: true, answers: 0 };
  const picture = element("div", { class: "tv-picture" });
  const sentence = element("input", { type: "text", value: mount.dataset.text, maxlength: 120, autocomplete: "off", spellcheck: "false", "aria-label": "instruction" });
  const tokens = element("div"), answer = element("p", { class: "tv-answer" }), said = status();
  const view = scene({
    blocks: [], label: "Scene. Each block can be dragged, or moved with the arrow keys.",
    changed: (block, isDone) => update(isDone ? `${block.color} block: ${place(block)}. ` : null),
    removed: (block) => take(block.color),
  });
  picture.append(view.svg);

  const think = TinyVLA.newest(async (blocks, text, spoken) => {
    const words = tokenizer.words(text), ids = [101, ...words.flatMap((word) => word.ids), 102];
    chosen.press(/^find the (\w+) block$/.exec(text)?.[1]);
    tokens.replaceChildren(TinyVLA.chips(words, (id) => known.has(id)));
    if (!words.length || ids.length > 32) {
      view.draw({});
      answer.textContent = words.length ? `That is ${ids.length} tokens; 32 fit.` : "Type a sentence.";
      return;
    }
    const { action, attention } = await ask(TinyVLA.paint(blocks), ids);
    const right = target(blocks, text);
    view.draw({ arrows: [...(right ? [[right, GREY, 1]] : []), [action, MAGENTA]], attention: state.attention && attention });
    const unseen = words.filter((word) => !word.ids.every((id) => known.has(id))).map((word) => `“${word.word}”`);
    const note = unseen.length ? `Never seen in training: ${[...new Set(unseen)].join(", ")}; the answer may mean nothing.`
      : right ? `${off(action, right)}° from the truth, in grey.` : "No single block has that name. It was never taught to say so, and points somewhere.";
    answer.textContent = `(dx, dy) = (${action.map((value) => value.toFixed(2)).join(", ")}). ${note}`;
    if (spoken !== null) said.textContent = `${spoken}The policy points ${heading(action)}.`;
    mount.answer = { action, attention, ids, blocks: blocks.map((block) => ({ ...block })), text };
    mount.dataset.answers = ++state.answers;
  });
  const update = (spoken = "") => think(state.blocks.map((block) => ({ ...block })), sentence.value, spoken);

  const take = (color) => {
    state.blocks = state.blocks.filter((block) => block.color !== color);
    rebuild(`${color} block taken away. `);
    view.focus(0);
  };
  const rebuild = (spoken) => {
    view.reset(state.blocks);
    for (const each of toggles.children) each.setAttribute("aria-pressed", state.blocks.some(({ color }) => color === each.value));
    return update(spoken);
  };
  const toggle = (color) => {
    if (state.blocks.some((block) => block.color === color)) return take(color);
    const free = [...Array(64).keys()].map(TinyVLA.center).filter(([x, y]) => !state.blocks.some((block) => block.x === x && block.y === y));
    const [x, y] = free[Math.floor(Math.random() * free.length)];
    state.blocks.push({ color, x, y });
    rebuild(`${color} block added, ${place({ x, y })}. `);
  };
  const toggles = element("div", { class: "tv-row", role: "group", "aria-label": "blocks in the scene" },
    ...colors.map((color) => button(color, () => toggle(color), { value: color })));
  for (const each of toggles.children) each.prepend(element("span", { class: "tv-dot", style: `background:rgb(${palette[each.value]})` }));
  const say = (color) => ((sentence.value = `find the ${color} block`), update());
  const chosen = choice("the colour in the instruction", colors, null, say);
  sentence.addEventListener("input", () => update());

  mount.replaceChildren(picture, element("div", { class: "tv-side" },
    element("label", { class: "tv-say" }, element("span", {}, "Tell it"), sentence),
    chosen, tokens, answer,
    element("p", { class: "tv-label" }, "Blocks in the scene"), toggles,
    element("div", { class: "tv-row" },
      button("New scene", () => ((state.blocks = TinyVLA.randomBlocks()), rebuild("A new scene. "))),
      tick("show where it looks", true, (on) => ((state.attention = on), update()))), TinyVLA.runsOn()), said);
  await rebuild(null);
  mount.dataset.firstAnswer = Math.round(performance.now() - started);
};
