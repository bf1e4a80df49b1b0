"use strict";
// What the other scripts share: data of the page, colours of the scheme in use, and the switch between schemes.
const freshkv = {
  data(id) {
    const element = document.getElementById(id);
    return element === null ? null : JSON.parse(element.textContent);
  },

  // base64 of gzip of JSON: what only the chosen runs need is unpacked when they are chosen
  async unpack(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  },

  colour(role) {
    return getComputedStyle(document.documentElement).getPropertyValue(role).trim();
  },

  // a copy in which names of roles ("--ink") are the colours of the scheme in use
  themed(value) {
    if (typeof value === "string") return value.startsWith("--") ? freshkv.colour(value) : value;
    if (Array.isArray(value)) return value.map(freshkv.themed);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, freshkv.themed(inner)]));
  },

  // fill a menu; each option is [value, words]
  fill(select, options) {
    select.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
  },

  onTheme(redraw) {
    document.addEventListener("freshkv-theme", redraw);
  },
};

(() => {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const next = { automatic: "light", light: "dark", dark: "automatic" };
  let chosen = "automatic";
  const show = () => {
    if (chosen === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = `Colours: ${chosen}`;
    document.dispatchEvent(new Event("freshkv-theme"));
  };
  button.addEventListener("click", () => {
    chosen = next[chosen];
    show();
  });
  system.addEventListener("change", show);
  // paper is light
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    document.dispatchEvent(new Event("freshkv-theme"));
  });
  addEventListener("afterprint", show);
})();
