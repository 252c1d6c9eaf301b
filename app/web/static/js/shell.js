// What both pages have: the key, the service's state, and a voice for screen readers.

import { access, pause } from "./api.js";
import { one } from "./dom.js";

const KEY = "specsem-key";
const input = one(document, "#key", HTMLInputElement);
const status = one(document, "#status", HTMLElement);
const announcer = one(document, "#announcer", HTMLElement);

/** @param {string} text */
export function announce(text) {
  announcer.textContent = text;
}

/** Show the field for the key: the first one may be younger than this page. */
export function askForKey() {
  one(document, "#key-row", HTMLElement).hidden = false;
  input.focus();
}

/** @param {() => void} [onChange] hears that somebody gave another key */
export function start(onChange) {
  if (document.body.dataset.needsKey === "yes") access.key = sessionStorage.getItem(KEY) ?? "";
  input.value = access.key;
  input.addEventListener("input", () => {
    access.key = input.value.trim();
    sessionStorage.setItem(KEY, access.key); // for as long as the tab is open
  });
  input.addEventListener("change", () => onChange?.());
  void watchReadiness();
}

async function watchReadiness() {
  let wait = 1000;
  for (;;) {
    try {
      const answer = await fetch("/readyz");
      const body = await answer.json();
      if (answer.ok) {
        show("ready", `Ready · ${body.model} on ${body.device}`);
        wait = 30000;
      } else {
        show("waiting", body.detail);
        wait = 1000;
      }
    } catch {
      show("down", "The service does not answer");
      wait = 5000;
    }
    await pause(wait);
  }
}

/**
 * @param {"ready" | "waiting" | "down"} state
 * @param {string} text
 */
function show(state, text) {
  if (status.dataset.state === state && one(status, "#status-text").textContent === text) return;
  status.dataset.state = state;
  one(status, "#status-text").textContent = text;
}
