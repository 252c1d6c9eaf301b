// Wiring: the form, the queue of videos (one at a time), and the service's state.

import { showProblem, showVerdict } from "./card.js";
import { one, stamp } from "./dom.js";
import { Cancelled, Refused, score } from "./upload.js";
import { bytes, score as inWords, VERDICTS } from "./words.js";

/** @typedef {{file: File, card: HTMLElement, abort: AbortController, thorough: boolean}} Job */

const KEY = "specsem-key";
const BUSY_TRIES = 60;
const { maxBytes, needsKey } = document.body.dataset;
const picker = one(document, "#picker", HTMLInputElement);
const drop = one(document, "#drop", HTMLElement);
const keyInput = one(document, "#key", HTMLInputElement);
const thorough = one(document, "#thorough", HTMLInputElement);
const jobs = one(document, "#jobs", HTMLElement);
const announcer = one(document, "#announcer", HTMLElement);
const status = one(document, "#status", HTMLElement);

/** @type {Job[]} */
const queue = [];
let working = false;

/** @param {Iterable<File>} files */
function add(files) {
  for (const file of files) {
    const card = one(stamp("job-template"), ".job", HTMLElement);
    const abort = new AbortController();
    const job = { file, card, abort, thorough: thorough.checked };
    one(card, ".name").textContent = file.name;
    stage(card, "Waiting for its turn", 0);
    one(card, ".cancel", HTMLButtonElement).setAttribute("aria-label", `Cancel ${file.name}`);
    one(card, ".cancel").addEventListener("click", () => {
      abort.abort();
      if (queue.includes(job)) finishCancelled(job); // it had not begun
    });
    jobs.prepend(card);
    queue.push(job);
  }
  void work();
}

async function work() {
  if (working) return;
  working = true;
  for (let job = queue.shift(); job; job = queue.shift()) {
    try {
      await run(job);
    } catch (error) {
      console.error(error); // a defect of the page: this video's card stays as it is, the next ones go on
    }
  }
  working = false;
}

/** @param {Job} job */
async function run({ file, card, abort, thorough: whole }) {
  card.scrollIntoView({ block: "nearest", behavior: "smooth" });
  if (file.size > Number(maxBytes)) {
    const detail = `It has ${bytes(file.size)}; this service accepts up to ${bytes(Number(maxBytes))}.`;
    return fail(card, file, { type: "", title: "The file is too large", status: 413, detail, code: "limits_exceeded" });
  }
  while (status.dataset.state === "waiting" && !abort.signal.aborted) {
    stage(card, "Waiting until the model is warm", null);
    await pause(300);
  }
  if (abort.signal.aborted) return finishCancelled({ card, file });
  announce(`Sending ${file.name}`);
  stage(card, `Sending, 0 of ${bytes(file.size)}`, 0);
  try {
    const answer = await patiently(card, abort.signal, () => score(file, {
      thorough: whole,
      key: keyInput.value.trim(),
      signal: abort.signal,
      onProgress: (fraction) => stage(card, `Sending, ${bytes(fraction * file.size)} of ${bytes(file.size)}`, fraction),
      onSent: () => {
        announce(`Analysing ${file.name}`);
        stage(card, whole ? "Analysing the whole time line…" : "Analysing…", null);
      },
    }));
    showVerdict(card, answer, file);
    announce(`${file.name}: ${VERDICTS[answer.verdict]}, score ${inWords(answer.score)}`);
    sessionStorage.setItem(KEY, keyInput.value.trim());
  } catch (error) {
    if (error instanceof Cancelled) finishCancelled({ card, file });
    else if (error instanceof Refused) fail(card, file, error.problem);
    else throw error;
  }
}

/**
 * Try again while the service is full: it says so before a byte is sent.
 * @template T
 * @param {HTMLElement} card
 * @param {AbortSignal} signal
 * @param {() => Promise<T>} attempt
 * @returns {Promise<T>}
 */
async function patiently(card, signal, attempt) {
  for (let left = BUSY_TRIES; ; left -= 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Refused) || error.problem.code !== "busy" || left === 0) throw error;
    }
    stage(card, "The service is busy; trying again", null);
    await pause(2000);
    if (signal.aborted) throw new Cancelled("cancelled");
  }
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {Pick<Job, "card" | "file">} job */
function finishCancelled({ card, file }) {
  const index = queue.findIndex((job) => job.card === card);
  if (index >= 0) queue.splice(index, 1);
  announce(`${file.name}: cancelled`);
  if (card.contains(document.activeElement)) picker.focus();
  card.remove();
}

/**
 * @param {HTMLElement} card
 * @param {File} file
 * @param {import("./types.js").Problem} problem
 */
function fail(card, file, problem) {
  showProblem(card, problem);
  announce(`${file.name}: ${problem.title}. ${problem.detail}`);
  if (problem.code !== "unauthorized") return;
  one(document, "#key-row").hidden = false; // the first key may be younger than this page
  keyInput.focus();
}

/**
 * @param {HTMLElement} card
 * @param {string} text
 * @param {number | null} fraction null: nobody knows how long
 */
function stage(card, text, fraction) {
  one(card, ".stage").textContent = text;
  const bar = one(card, "progress", HTMLProgressElement);
  bar.setAttribute("aria-label", text);
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
}

/** @param {string} text */
function announce(text) {
  announcer.textContent = text;
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

one(document, "#max-size").textContent = bytes(Number(maxBytes));
if (needsKey === "yes") keyInput.value = sessionStorage.getItem(KEY) ?? "";
picker.addEventListener("change", () => {
  add(picker.files ?? []);
  picker.value = ""; // the same file may be chosen again
});
one(document, "#intake").addEventListener("submit", (event) => event.preventDefault());
// The whole window takes the drop: a file let go beside the zone must not replace the page.
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer?.files ?? []);
});
void watchReadiness();
