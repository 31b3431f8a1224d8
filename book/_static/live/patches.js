// Chapter 2: an image as a sequence of 64 patches; patches that look alike, and codes of positions that do not.
TinyVLA.parts.patches = async (mount) => {
  const { element, button, choice, slider, status, scene, center } = TinyVLA;
  const { alike, codes } = await TinyVLA.json("codes.json");
  const said = status(), words = element("p", { class: "tv-answer" }), numbers = element("p", { class: "tv-numbers" });
  let blocks = TinyVLA.randomBlocks(4), patch = 27, compare = "pixels";
  const row = element("svg", { viewBox: "0 0 64 4", role: "img" });
  const view = scene({ blocks, label: "Scene. Each block can be dragged.", changed: () => draw() });

  const draw = () => {
    const pixels = TinyVLA.paint(blocks);
    const numbersOf = (cell) => [0, 1, 2].flatMap((channel) => [...Array(64).keys()].map((i) =>
      pixels[channel * 4096 + (Math.floor(cell / 8) * 8 + Math.floor(i / 8)) * 64 + (cell % 8) * 8 + (i % 8)]));
    const patches = [...Array(64).keys()].map(numbersOf), own = String(patches[patch]);
    const same = patches.map((each) => String(each) === own);
    const likeness = compare === "pixels" ? same.map(Number) : alike[patch].map((value) => Math.max(0, (value - 30) / 70));
    view.draw({ shapes: [
      ...likeness.map((value, cell) => element("rect", { x: center(cell)[0] - 4, y: center(cell)[1] - 4, width: 8, height: 8, fill: "#2a78b5", "fill-opacity": (0.6 * value).toFixed(2), stroke: "#fff", "stroke-width": 0.2 })),
      element("rect", { x: center(patch)[0] - 4, y: center(patch)[1] - 4, width: 8, height: 8, fill: "none", stroke: "#c2185b", "stroke-width": 1 }),
    ] });
    row.replaceChildren(...patches.map((each, cell) => element("rect", { x: cell, y: 0, width: 1, height: 4, fill: `rgb(${each[27]},${each[91]},${each[155]})`, stroke: cell === patch ? "#c2185b" : "#999", "stroke-width": cell === patch ? 0.4 : 0.05 })));
    row.setAttribute("aria-label", `the 64 patches in a row, number ${patch} marked`);
    const others = same.filter(Boolean).length - 1;
    words.textContent = compare === "pixels"
      ? `Patch ${patch} stands in row ${Math.floor(patch / 8) + 1}, column ${(patch % 8) + 1}. ${others} other patches hold the very same 192 numbers (blue).`
      : `No other patch has the code of patch ${patch}. The bluer a patch, the more alike its code: most of all its neighbours’.`;
    numbers.textContent = compare === "pixels" ? `its pixels: ${patches[patch].slice(0, 12).join(" ")} …` : `its code: ${codes[patch].slice(0, 12).join(" ")} …`;
    said.textContent = words.textContent;
  };
  const choose = (value) => ((patch = value), draw());
  view.svg.addEventListener("click", (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(view.svg.getScreenCTM().inverse());
    const input = mount.querySelector("input[type=range]");
    input.value = Math.min(7, Math.floor(y / 8)) * 8 + Math.min(7, Math.floor(x / 8));
    input.dispatchEvent(new Event("input"));
  });
  TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(view.svg), TinyVLA.side(
    slider("patch", [0, 63, 1], patch, choose),
    choice("what is compared", ["pixels", "position codes"], "pixels", (option) => ((compare = option), draw())),
    words, numbers, button("New scene", () => ((blocks = TinyVLA.randomBlocks(4)), view.reset(blocks), draw()), { class: "tv-wake" }))), row, said);
  view.reset(blocks);
  draw();
};
