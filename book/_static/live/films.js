// Chapter 13: recorded episodes, chosen by their sentence, with where the policy looked; failures are from early in its training.
TinyVLA.parts.films = async (mount) => {
  const { element, button, choice, slider, status, colors, palette } = TinyVLA;
  const { films, side, columns } = await TinyVLA.json("films.json"), said = status();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const state = { verb: "pick up", color: "red", success: true, frame: 0 };
  let timer = null;
  const picture = element("div", { class: "tv-strip", role: "img", style: "width:100%;aspect-ratio:2/1;background-size:auto;border-radius:.5rem;border:1px solid var(--pst-color-border)" });
  const words = element("p", { class: "tv-answer", "aria-live": "off" });
  const film = () => films.find((each) => each.verb === state.verb && each.color === state.color && each.success === state.success);
  const draw = (isSpoken) => {
    const it = film(), count = it ? it.frames : 1;
    play.hidden = moment.hidden = !it;
    if (!it) {
      picture.style.backgroundImage = "none";
      words.textContent = `Among the recorded episodes there is no ${state.success ? "success" : "failure"} with this sentence.`;
    } else {
      const rows = Math.ceil(count / columns), x = state.frame % columns, y = Math.floor(state.frame / columns);
      Object.assign(picture.style, {
        backgroundImage: `url("${TinyVLA.here}films/${it.file}")`, backgroundSize: `${100 * columns}% ${100 * rows}%`,
        backgroundPosition: `${columns > 1 ? (100 * x) / (columns - 1) : 0}% ${rows > 1 ? (100 * y) / (rows - 1) : 0}%`,
      });
      const end = state.frame === count - 1 ? (it.success ? " It is done: success." : ` Time is up: ${it.lifted ? `it holds the ${it.lifted} block` : "failure"}.`) : "";
      words.textContent = `“${it.sentence}”, step ${state.frame} of ${count - 1}, by the policy after ${it.trained} steps of training.${end}`;
    }
    picture.setAttribute("aria-label", `The arm beside the table, and what the policy sees, with where it looks. ${words.textContent}`);
    Object.assign(mount.dataset, { film: it?.file ?? "", frame: state.frame });
    if (isSpoken) said.textContent = words.textContent;
  };
  const show = (frame) => {
    state.frame = frame;
    moment.set(frame);
    draw(film() && frame === film().frames - 1);
  };
  const run = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => (state.frame < film().frames - 1 ? show(state.frame + 1) : run(false)), 160) : null;
    play.textContent = on ? "Pause" : "Play";
  };
  const pick = (change) => {
    Object.assign(state, change);
    run(false);
    const it = film();
    if (it) moment.set(0, it.frames - 1);
    show(0);
    if (it && !calm) run(true);
  };
  const play = button("Play", () => (timer ? run(false) : (state.frame === film().frames - 1 && show(0), run(true))), { class: "tv-wake" });
  const moment = slider("moment", [0, 1, 1], 0, (frame) => (run(false), (state.frame = frame), draw(true)), (frame) => `step ${frame}`);
  TinyVLA.frame(mount, picture, words, element("div", { class: "tv-row" }, play), moment,
    choice("verb", ["reach", "pick up"], state.verb, (verb) => pick({ verb })),
    choice("colour", colors, state.color, (color) => pick({ color })),
    choice("outcome", ["success", "failure"], "success", (outcome) => pick({ success: outcome === "success" })), said);
  pick({});
};
