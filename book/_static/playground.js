// The first page's playground: what a trained policy answered, drawn. The answers were computed beforehand
// (tools/book_playground.py); nothing is fetched and no network runs here.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("playground");
  if (!root || !window.TINYVLA) return;
  const { palette, scenes } = window.TINYVLA;
  const colors = Object.keys(palette);
  const rgb = (color) => `rgb(${palette[color].join(",")})`;
  const names = (scene) => scene.blocks.map(([, color]) => colors[color]);
  const state = { scene: 0, color: names(scenes[0])[0], attention: false };

  const svg = () => {
    const scene = scenes[state.scene];
    const answer = scene.answers[colors.indexOf(state.color)];
    const [dx, dy] = answer.action;
    const parts = ['<rect width="64" height="64" fill="rgb(245,245,245)"/>'];
    for (const [cell, color] of scene.blocks)
      parts.push(`<rect x="${(cell % 8) * 8}" y="${Math.floor(cell / 8) * 8}" width="8" height="8" fill="${rgb(colors[color])}"/>`);
    if (state.attention) {
      const most = Math.max(...answer.attention);
      answer.attention.forEach((weight, cell) => {
        const radius = 3.6 * Math.sqrt(weight / most);
        parts.push(`<circle cx="${(cell % 8) * 8 + 4}" cy="${Math.floor(cell / 8) * 8 + 4}" r="${radius.toFixed(2)}" fill="#7a4fb0" fill-opacity="0.45" stroke="#fff" stroke-width="0.3"/>`);
      });
    }
    const [x, y] = [32 + 26 * dx, 32 + 26 * dy];
    const [along, across] = [[dx, dy], [-dy, dx]].map(([a, b]) => [a, b].map((v) => v / (Math.hypot(dx, dy) || 1)));
    const corner = (back, side) => `${x - back * along[0] + side * across[0]},${y - back * along[1] + side * across[1]}`;
    parts.push(`<line x1="32" y1="32" x2="${x - 3 * along[0]}" y2="${y - 3 * along[1]}" stroke="#c2185b" stroke-width="1.7"/>`);
    parts.push(`<polygon points="${x},${y} ${corner(5, 2.4)} ${corner(5, -2.4)}" fill="#c2185b"/>`);
    const where = `${Math.abs(dx) < 0.2 ? "" : dx < 0 ? "left" : "right"} ${Math.abs(dy) < 0.2 ? "" : dy < 0 ? "up" : "down"}`.trim();
    const label = `Scene with ${names(scene).join(", ")} blocks. Told to find the ${state.color} block, the policy points ${where || "nowhere"}.`;
    return `<svg viewBox="0 0 64 64" role="img" aria-label="${label}">${parts.join("")}</svg>`;
  };

  const draw = () => {
    const scene = scenes[state.scene];
    const [dx, dy] = scene.answers[colors.indexOf(state.color)].action;
    const here = names(scene).includes(state.color);
    root.innerHTML = `<div class="tv-picture">${svg()}</div><div class="tv-side">
      <p class="tv-words">“find the <strong>${state.color}</strong> block”</p>
      <div class="tv-row tv-colors" role="group" aria-label="The colour in the instruction"></div>
      <p class="tv-answer" aria-live="polite">(dx, dy) = (${dx.toFixed(2)}, ${dy.toFixed(2)})${here ? "" : "<br>There is no such block. It was never taught to say so, and points somewhere."}</p>
      <div class="tv-row tv-more"></div></div>`;
    const add = (row, text, pressed, act, color) => {
      const element = document.createElement("button");
      element.type = "button";
      element.innerHTML = color ? `<span class="tv-dot" style="background:${rgb(color)}"></span>${text}` : text;
      if (pressed !== null) element.setAttribute("aria-pressed", pressed);
      element.addEventListener("click", () => {
        act();
        draw();
        [...root.querySelectorAll("button")].find((b) => b.textContent === element.textContent)?.focus();
      });
      root.querySelector(row).append(element);
    };
    colors.forEach((color) => add(".tv-colors", color, color === state.color, () => (state.color = color), color));
    add(".tv-more", "Next scene", null, () => {
      state.scene = (state.scene + 1) % scenes.length;
      if (!names(scenes[state.scene]).includes(state.color)) state.color = names(scenes[state.scene])[0];
    });
    add(".tv-more", "Show attention", state.attention, () => (state.attention = !state.attention));
  };
  draw();
});
