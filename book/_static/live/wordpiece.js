// Chapter 3: any sentence as word pieces and ids, with the whole vocabulary.
TinyVLA.parts.wordpiece = async (mount) => {
  const { element, button, status } = TinyVLA;
  await TinyVLA.script("words.js");
  const [tokenizer, facts] = await Promise.all([TinyVLA.tokenizer(), TinyVLA.json("facts.json")]);
  const known = new Set(facts.words.nano), said = status();
  const input = element("input", { type: "text", maxlength: 200, value: "Find the ultramarine block, s'il te plaît!", "aria-label": "sentence", oninput: () => draw(), spellcheck: "false" });
  const chips = element("div"), words = element("p", { class: "tv-answer" });
  const draw = () => {
    const split = tokenizer.words(input.value), ids = split.flatMap((word) => word.ids);
    chips.replaceChildren(TinyVLA.chips(split, (id) => known.has(id)));
    const broken = split.filter((word) => word.pieces.length > 1).map((word) => `“${word.word}”: ${word.pieces.length} pieces`);
    const unknown = ids.filter((id) => id === 100).length;
    words.textContent = `${split.length} words and marks, ${ids.length + 2} tokens with [CLS] and [SEP]. ` +
      `${broken.length ? `${broken.join("; ")}. ` : ""}${unknown ? `${unknown} cannot be spelled: [UNK]. ` : ""}` +
      `${ids.filter((id) => !known.has(id)).length} of them were never shown to the course’s policy (dashed).`;
    said.textContent = words.textContent;
  };
  const tries = ["find the red block", "pick up the aquamarine cuboid", "Étagère № 42", "antidisestablishmentarianism", "go 🤖 go"];
  TinyVLA.frame(mount, element("label", { class: "tv-say" }, element("span", {}, "Sentence"), input), chips, words,
    element("div", { class: "tv-row", role: "group", "aria-label": "sentences to try" },
      ...tries.map((text) => button(text, () => ((input.value = text), draw())))), said);
  draw();
};
