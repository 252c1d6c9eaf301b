// The operators' queue: one answer after the other, decided by pointer or by single keys.

import { askForKey, announce, start } from "./shell.js";
import { ask, askJson, Cancelled, getJob, Refused } from "./api.js";
import { showProblem, showVerdict } from "./card.js";
import { el, one, stamp } from "./dom.js";
import { showSimilar } from "./similar.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").ReviewItem} ReviewItem */
/** @typedef {"generated" | "real" | "unsure"} Label */
/** @typedef {{item: ReviewItem, at: number, label: Label}} Decided `at`: where in the list it was */

const SHORTCUTS = "specsem-shortcuts";
const PAGE = 50;
const list = one(document, "#queue", HTMLElement);
const current = one(document, "#current", HTMLElement);
const answer = one(document, "#answer", HTMLElement);
const note = one(document, "#note", HTMLInputElement);
const open = one(document, "#open", HTMLButtonElement);
const similar = one(document, "#similar", HTMLElement);
const undo = one(document, "#undo", HTMLButtonElement);
const shortcuts = one(document, "#shortcuts", HTMLInputElement);

/** @type {ReviewItem[]} */
let items = [];
/** @type {Decided[]} the latest last */
let decided = [];
let waiting = 0;
/** @type {string | null} */
let next = null;
let at = 0;
let opened = false;
let busy = false;
let showing = new AbortController();

/** @param {string} [cursor] of the page that follows; without it, from the beginning */
async function load(cursor) {
  try {
    const page = await askJson(`/v1/review?limit=${PAGE}${cursor ? `&cursor=${cursor}` : ""}`);
    items = cursor ? [...items, ...page.items] : page.items;
    ({ waiting, next } = page);
    if (!cursor) at = 0;
    draw();
  } catch (error) {
    refuse(error);
  }
}

/** @param {unknown} error */
function refuse(error) {
  if (!(error instanceof Refused)) throw error;
  const { title, detail, code } = error.problem;
  tell(`${title}. ${detail}`);
  if (items.length === 0) one(document, "#state").textContent = "";
  if (code === "unauthorized") askForKey();
}

/** @param {string} text */
function tell(text) {
  one(document, "#last").textContent = text;
  announce(text);
}

function draw() {
  one(document, "#review", HTMLElement).hidden = items.length === 0;
  one(document, "#state").textContent = items.length ? "" : "Nothing waits.";
  one(document, "#waiting-count").textContent = `${waiting} waiting`;
  one(document, "#more", HTMLElement).hidden = next === null;
  undo.disabled = decided.length === 0;
  at = Math.min(at, items.length - 1);
  list.replaceChildren(...items.map(row));
  showCurrent();
}

/**
 * @param {ReviewItem} item
 * @param {number} index
 */
function row(item, index) {
  const view = stamp("queue-template");
  const button = one(view, "button", HTMLButtonElement);
  one(view, ".name").textContent = item.job.filename || item.job.id;
  one(view, ".why").textContent = why(item);
  if (index === at) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => move(index - at));
  return view;
}

/** @param {ReviewItem} item */
function why({ verdict, action, margin, reports }) {
  const reported = reports.length ? `reported ${reports.length === 1 ? "once" : `${reports.length} times`}, ` : "";
  const asked = action === "review" ? "to be reviewed by the policy, " : "";
  return `${reported}${asked}${words.VERDICTS[verdict].toLowerCase()}, ${margin.toFixed(3)} from a threshold`;
}

function showCurrent() {
  showing.abort();
  showing = new AbortController();
  const item = items[at];
  current.hidden = !item;
  if (!item) return;
  void showSimilar(similar, item.job.id, { signal: showing.signal, onAgree: decide });
  one(current, ".name").textContent = item.job.filename || item.job.id;
  const time = item.job.created_at ? ` Sent ${new Date(item.job.created_at).toLocaleString()}.` : "";
  one(document, "#why").textContent = `${at + 1} of ${waiting}: ${why(item)}.${time}`;
  one(document, "#reports").replaceChildren(...item.reports.map(report));
  note.value = "";
  answer.replaceChildren();
  answer.hidden = !opened;
  open.setAttribute("aria-expanded", String(opened));
  if (opened) void showAnswer(item);
}

/** @param {import("./types.js").Feedback} given */
function report({ verdict, label, note: words }) {
  return el("li", `A user says ${verdict}${label ? `, it is ${label}` : ""}${words ? `: “${words}”` : "."}`);
}

/** @param {ReviewItem} item */
async function showAnswer(item) {
  const { signal } = showing;
  const card = one(stamp("job-template"), ".job", HTMLElement);
  one(card, ".job-head").remove(); // the name is above
  one(card, ".stage").textContent = "Loading the answer";
  one(card, "progress").remove();
  answer.replaceChildren(card);
  try {
    const job = await getJob(item.job.id, signal);
    if (signal.aborted) return;
    if (!job.result) throw new Refused({ type: "", title: "The answer has expired", status: 0, detail: "", code: "expired" });
    const onDeleted = () => leave(item);
    showVerdict(card, job, { file: null, onDeleted });
    for (const part of [".feedback", ".similar"]) one(card, part).remove(); // the queue has both
  } catch (error) {
    if (error instanceof Refused) showProblem(card, error.problem);
    else if (!(error instanceof Cancelled)) throw error;
  }
}

/** It is no longer in the queue. @param {ReviewItem} item @returns {number} where it was */
function leave(item) {
  const index = items.indexOf(item);
  items.splice(index, 1);
  waiting -= 1;
  if (index < at) at -= 1;
  draw();
  return index;
}

/** @param {Label} label */
async function decide(label) {
  const item = items[at];
  if (!item || busy) return;
  busy = true;
  try {
    await ask(`/v1/review/${item.job.id}`, { method: "PUT", json: { label, note: note.value.trim() } });
    decided.push({ item, at: leave(item), label });
    undo.disabled = false;
    tell(`${item.job.filename}: ${label}. ${waiting} left.`);
    if (items.length === 0 && next) await load();
  } catch (error) {
    refuse(error);
  } finally {
    busy = false;
    if (current.hidden) undo.focus();
  }
}

async function takeBack() {
  const last = decided.at(-1);
  if (!last || busy) return;
  busy = true;
  try {
    await ask(`/v1/review/${last.item.job.id}`, { method: "DELETE" });
    decided.pop();
    items.splice(last.at, 0, last.item);
    waiting += 1;
    at = last.at;
    draw();
    tell(`${last.item.job.filename}: “${last.label}” was undone.`);
  } catch (error) {
    refuse(error);
  } finally {
    busy = false;
  }
}

/** @param {number} by */
function move(by) {
  if (items.length === 0) return;
  at = Math.min(Math.max(at + by, 0), items.length - 1);
  [...list.querySelectorAll("button")].forEach((button, index) => {
    if (index === at) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  showCurrent();
  announce(`${items[at].job.filename}, ${one(document, "#why").textContent}`);
}

function toggle() {
  opened = !opened;
  showCurrent();
}

/** @type {Record<string, () => unknown>} */
const KEYS = {
  g: () => decide("generated"),
  r: () => decide("real"),
  u: () => decide("unsure"),
  j: () => move(1),
  k: () => move(-1),
  o: toggle,
  z: takeBack,
};

document.addEventListener("keydown", (event) => {
  const plain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.repeat;
  const typing = event.target instanceof Element && event.target.closest("input:not([type=checkbox], [type=radio]), select, textarea");
  const act = KEYS[event.key.toLowerCase()];
  if (!shortcuts.checked || !plain || typing || !act) return;
  event.preventDefault();
  void act();
});
for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-label]"))) {
  button.addEventListener("click", () => decide(/** @type {Label} */ (button.dataset.label)));
}
for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-move]"))) {
  button.addEventListener("click", () => move(Number(button.dataset.move)));
}
open.addEventListener("click", toggle);
undo.addEventListener("click", takeBack);
one(document, "#more").addEventListener("click", () => next && load(next));
shortcuts.checked = localStorage.getItem(SHORTCUTS) !== "off";
shortcuts.addEventListener("change", () => localStorage.setItem(SHORTCUTS, shortcuts.checked ? "on" : "off"));

start(() => void load());
void load();
