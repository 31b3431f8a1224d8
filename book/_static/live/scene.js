// A scene that can be touched: blocks are dragged, or moved with the arrow keys; arrows and attention are drawn over it.
(() => {
  const { element, palette, center, degrees, unit } = window.TinyVLA;
  const MAGENTA = "#c2185b", GREY = "#6b6b6b";

  const arrow = ([dx, dy], color, width = 1.7, length = 26) => {
    const [x, y] = [32 + length * dx, 32 + length * dy];
    const [a, b] = unit([dx, dy]);
    const corner = (back, side) => `${x - back * a - side * b},${y - back * b + side * a}`;
    return element("g", { class: "tv-arrow" },
      element("line", { x1: 32, y1: 32, x2: x - 3 * a, y2: y - 3 * b, stroke: color, "stroke-width": width }),
      element("polygon", { points: `${x},${y} ${corner(5, 2.4)} ${corner(5, -2.4)}`, fill: color }));
  };

  const circles = (attention) => {
    const most = Math.max(...attention);
    return attention.map((weight, cell) => element("circle", {
      cx: center(cell)[0], cy: center(cell)[1], r: (3.6 * Math.sqrt(weight / most)).toFixed(2),
      fill: "#7a4fb0", "fill-opacity": 0.45, stroke: "#fff", "stroke-width": 0.3,
    }));
  };

  /** Words for where a block is. */
  const place = ({ x, y }) => `row ${Math.floor(y / 8) + 1}, column ${Math.floor(x / 8) + 1}`;

  /**
   * options: blocks [{color, x, y}], changed(block or null, isDone), removed(block), label.
   * A block follows the pointer pixel by pixel and settles on a cell when it is let go.
   */
  const scene = ({ blocks, changed, removed, label }) => {
    const over = element("g", { "pointer-events": "none", "aria-hidden": "true" });
    const under = element("g");
    const svg = element("svg", { viewBox: "0 0 64 64", role: "group", "aria-label": label },
      element("rect", { width: 64, height: 64, fill: "rgb(245,245,245)" }), under, over);
    const free = (block, x, y) => !blocks.some((other) => other !== block && other.x === x && other.y === y);
    const clamp = (value) => Math.max(4, Math.min(60, value));
    const settle = (value) => clamp(Math.floor(value / 8) * 8 + 4);

    const shape = (block) => {
      const rect = element("rect", { width: 8, height: 8, fill: `rgb(${palette[block.color]})`, tabindex: 0, role: "button", class: "tv-block" });
      const put = (x, y) => {
        [block.x, block.y] = [x, y];
        rect.setAttribute("x", x - 4), rect.setAttribute("y", y - 4);
        rect.setAttribute("aria-label", `${block.color} block, ${place(block)}; arrow keys move it${removed ? ", Delete takes it away" : ""}`);
      };
      put(block.x, block.y);
      let grip = null;
      const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      rect.addEventListener("pointerdown", (event) => {
        const { x, y } = at(event);
        grip = { x: block.x - x, y: block.y - y, from: [block.x, block.y] };
        rect.setPointerCapture(event.pointerId);
        event.preventDefault(), rect.focus({ preventScroll: true });
      });
      rect.addEventListener("pointermove", (event) => {
        if (!grip) return;
        const { x, y } = at(event);
        put(clamp(Math.round(x + grip.x)), clamp(Math.round(y + grip.y)));
        changed(block, false);
      });
      const drop = () => {
        if (!grip) return;
        const [x, y] = [settle(block.x), settle(block.y)];
        free(block, x, y) ? put(x, y) : put(...grip.from);
        grip = null;
        changed(block, true);
      };
      rect.addEventListener("pointerup", drop), rect.addEventListener("pointercancel", drop);
      rect.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
        if (step) {
          event.preventDefault();
          const [x, y] = [clamp(block.x + step[0]), clamp(block.y + step[1])];
          if (free(block, x, y)) put(x, y), changed(block, true);
        } else if (removed && ["Delete", "Backspace"].includes(event.key)) event.preventDefault(), removed(block);
      });
      return rect;
    };

    return {
      svg,
      /** Draw the blocks anew after some were added or taken away. */
      reset(next) {
        blocks = next;
        under.replaceChildren(...blocks.map(shape));
      },
      /** Draw over them: arrows [[action, color, width]], attention of the 64 cells, other shapes. */
      draw: ({ arrows = [], attention = null, shapes = [] }) =>
        over.replaceChildren(...(attention ? circles(attention) : []), ...shapes, ...arrows.map((each) => arrow(...each))),
      focus: (index) => under.children[index]?.focus(),
    };
  };

  /** The unit vector from the middle of the view to the only block that a sentence names, if there is one. */
  const target = (blocks, sentence) => {
    const words = sentence.toLowerCase().split(/[^a-z]+/);
    const named = Object.keys(palette).filter((color) => words.includes(color));
    const block = named.length === 1 && blocks.find(({ color }) => color === named[0]);
    return block ? unit([block.x - 32, block.y - 32]) : null;
  };

  Object.assign(window.TinyVLA, { scene, arrow, target, place, MAGENTA, GREY, off: (a, b) => degrees(a, b).toFixed(1) });
})();
