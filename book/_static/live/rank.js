// Chapter 11: what an update of rank r holds of a full change of one layer, and of a random matrix.
TinyVLA.parts.rank = async (mount) => {
  const { element, choice, slider, status, percent } = TinyVLA;
  const data = await TinyVLA.json("rank.json"), said = status();
  const state = { kind: "change", rank: 8 }, size = data.change.left[0].length, wide = data.change.right[0].length;
  const names = { change: "the full change of chapter 11", random: "a random matrix" };
  const canvas = element("canvas", { width: wide, height: size, role: "img", style: "image-rendering:pixelated" });
  const words = element("p", { class: "tv-answer" });
  const held = (values, rank) => {
    const energy = (some) => some.reduce((sum, value) => sum + value * value, 0);
    return energy(values.slice(0, rank)) / energy(values);
  };
  const draw = () => {
    const { left, right, values } = data[state.kind], sum = new Float64Array(size * wide);
    for (let k = 0; k < state.rank; k++)
      for (let i = 0; i < size; i++) for (let j = 0; j < wide; j++) sum[i * wide + j] += left[k][i] * right[k][j];
    const scale = 3 * Math.sqrt(values.reduce((all, value) => all + value * value, 0) / sum.length);
    const picture = new ImageData(wide, size);
    sum.forEach((value, i) => {
      const strength = Math.min(1, Math.abs(value) / scale), pale = 245 * (1 - strength);
      picture.data.set(value > 0 ? [178 * strength + pale, 24 * strength + pale, 43 * strength + pale, 255] : [33 * strength + pale, 102 * strength + pale, 172 * strength + pale, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(picture, 0, 0);
    const share = held(values, state.rank), weights = state.rank * (size + wide);
    words.textContent = `Rank ${state.rank} of ${names[state.kind]}: ${weights.toLocaleString("en")} weights instead of ${(size * wide).toLocaleString("en")} ` +
      `(${percent(weights / (size * wide))}), and ${percent(share, 1)} of the squared change.`;
    canvas.setAttribute("aria-label", `the matrix at rank ${state.rank}`);
    mount.share = share;
    said.textContent = words.textContent;
  };
  TinyVLA.frame(mount, TinyVLA.columns(TinyVLA.picture(canvas), TinyVLA.side(
    choice("matrix", ["change", "random"], state.kind, (kind) => ((state.kind = kind), draw()), (kind) => names[kind]),
    slider("rank", [1, data.change.values.length, 1], state.rank, (rank) => ((state.rank = rank), draw())), words,
    element("p", {}, `The layer is ${data.layer}; red is positive, blue is negative.`))), said);
  draw();
};
