// Chapter 4: the same scene and sentence for two trained policies that differ in their fusion.
TinyVLA.parts.fusion = async (mount) => {
  const { element, button, choice, status, scene, colors, target, off, MAGENTA, GREY, place } = TinyVLA;
  await TinyVLA.script("words.js");
  const [pool, cross, tokenizer] = await Promise.all([TinyVLA.policy("pool"), TinyVLA.policy("nano"), TinyVLA.tokenizer()]);
  const BLUE = "#1f6fae", said = status();
  let blocks = TinyVLA.randomBlocks(4), color = blocks[0].color;
  const words = element("p", { class: "tv-answer" });
  const view = scene({ blocks, label: "Scene. Each block can be dragged.", changed: (block, isDone) => update(isDone ? `${block.color} block: ${place(block)}. ` : null) });
  const update = TinyVLA.newest(async (spoken = "") => {
    const pixels = TinyVLA.paint(blocks), text = `find the ${color} block`, ids = tokenizer.encode(text);
    const answers = [await pool(pixels, ids), await cross(pixels, ids)], right = target(blocks, text);
    view.draw({ attention: answers[1].attention, arrows: [...(right ? [[right, GREY, 1]] : []), [answers[0].action, BLUE, 1.4], [answers[1].action, MAGENTA, 1.4]] });
    words.textContent = right
      ? `Told to ${text}: pool-add (blue) is ${off(answers[0].action, right)}° off, cross-attention (magenta) ${off(answers[1].action, right)}°.`
      : `There is no ${color} block; both point somewhere.`;
    mount.answer = answers.map(({ action }) => action);
    if (spoken !== null) said.textContent = spoken + words.textContent;
  });
  const chosen = choice("the colour in the instruction", colors, color, (option) => ((color = option), update()));
  TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(view.svg), TinyVLA.side(chosen, words,
    element("p", {}, "The circles show where cross-attention looks. Pool-add has no such picture: it averages all patches before it hears the words."),
    element("div", { class: "tv-row" }, button("New scene", () => {
      blocks = TinyVLA.randomBlocks(4);
      chosen.press((color = blocks[0].color));
      view.reset(blocks);
      update("A new scene. ");
    })), TinyVLA.runsOn())), said);
  view.reset(blocks);
  await update(null);
};
