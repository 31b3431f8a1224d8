// The theme's buttons carry a spoken label that differs from what they show; it must contain what they show.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".search-button-field").forEach((button) => {
    button.setAttribute("aria-label", button.textContent.trim().replace(/\s+/g, " "));
  });
  document.querySelectorAll(".theme-switch-button").forEach((button) => {
    button.setAttribute("aria-label", "Colour mode: light, dark, system settings");
  });
});

// A live part loads its files when it is first touched: by pointer, or by its button.
let loading;
const live = document.currentScript.src.replace(/[^/]*$/, "live/live.js");
document.addEventListener("DOMContentLoaded", () => {
  for (const mount of document.querySelectorAll("[data-live]")) {
    const button = document.createElement("button");
    button.className = "tv-wake";
    button.textContent = mount.dataset.wake || "Try it";
    let begun = false;
    const wake = async () => {
      if (begun) return;
      begun = true;
      button.textContent = "Loading…";
      mount.setAttribute("aria-busy", "true");
      try {
        await (loading ??= new Promise((done, failed) => {
          const script = Object.assign(document.createElement("script"), { src: live, onload: done, onerror: failed });
          document.head.append(script);
        }));
        const hadFocus = mount.contains(document.activeElement);
        await window.TinyVLA.start(mount);
        mount.dataset.awake = "";
        if (hadFocus) mount.querySelector("input, button, [tabindex]")?.focus({ preventScroll: true });
      } catch (error) {
        button.textContent = `This part does not run here: ${error.message || "its files are missing"}`;
        button.disabled = true;
      }
      mount.removeAttribute("aria-busy");
    };
    mount.addEventListener("pointerdown", wake);
    button.addEventListener("click", wake);
    (mount.querySelector(".tv-side") || mount).append(button);
  }
});
