// The theme's buttons carry a spoken label that differs from what they show; it must contain what they show.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".search-button-field").forEach((button) => {
    button.setAttribute("aria-label", button.textContent.trim().replace(/\s+/g, " "));
  });
  document.querySelectorAll(".theme-switch-button").forEach((button) => {
    button.setAttribute("aria-label", "Colour mode: light, dark, system settings");
  });
});
