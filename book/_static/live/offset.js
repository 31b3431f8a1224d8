// Chapter 1: a label that aims at another point of the block's cell than its middle, and how wrong its arrow is.
TinyVLA.parts.offset = async (mount) => {
  const { element, slider, status, scene, center, unit, degrees, place, MAGENTA, GREY } = TinyVLA;
  const blocks = [{ color: "red", x: 44, y: 20 }], said = status();
  const words = element("p", { class: "tv-answer" });
  let aim = 0;
  const view = scene({ blocks, label: "Scene with one block, which can be dragged.", changed: (block, isDone) => draw(isDone) });

  /** Degrees between the label's arrow and the right one in a cell; null where the label has no length. */
  const error = ([x, y]) => {
    const label = [x - 4 + aim - 32, y - 4 + aim - 32];
    return label[0] || label[1] ? degrees(label, [x - 32, y - 32]) : null;
  };
  const draw = (isSpoken) => {
    const { x, y } = blocks[0], cell = [Math.floor(x / 8) * 8 + 4, Math.floor(y / 8) * 8 + 4];
    const all = [...Array(64).keys()].map(center), errors = all.map(error), seen = errors.filter((value) => value !== null);
    const shades = all.map(([left, top], i) => element("rect", {
      x: left - 4, y: top - 4, width: 8, height: 8, fill: "#7a4fb0", stroke: "#fff", "stroke-width": 0.2,
      "fill-opacity": errors[i] === null ? 0.9 : ((0.75 * errors[i]) / 45).toFixed(3),
    }));
    const label = [cell[0] - 4 + aim - 32, cell[1] - 4 + aim - 32], own = error(cell);
    view.draw({ shapes: shades, arrows: [[unit([cell[0] - 32, cell[1] - 32]), GREY, 1], ...(own === null ? [] : [[unit(label), MAGENTA]])] });
    const zero = errors.length - seen.length;
    words.textContent = `This cell: ${own === null ? "the label has no length" : `${own.toFixed(1)}° off`}. All cells: ` +
      `${(seen.reduce((a, b) => a + b) / seen.length).toFixed(1)}° on average, ${Math.max(...seen).toFixed(1)}° at most` +
      `${zero ? `; ${zero} label has no length at all` : ""}.`;
    if (isSpoken) said.textContent = `${place(blocks[0])}. ${words.textContent}`;
  };
  TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(view.svg), TinyVLA.side(
    slider("the label aims at", [0, 8, 0.5], aim, (value) => ((aim = value), draw(true)), (value) =>
      `${value} px from the corner${value === 4 ? ": the middle" : value === 0 ? ": the corner" : ""}`),
    words, element("p", {}, "Grey: the arrow through the block’s middle. Magenta: the label. The darker a cell, the larger its error."))), said);
  view.reset(blocks);
  draw(false);
};
