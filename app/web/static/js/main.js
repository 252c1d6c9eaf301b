// Wiring of the page: what is sent, what became of it, and what this browser sent before.

import { askForKey, announce, start } from "./shell.js";
import { Cancelled, deleteJob, pause, Refused, sendFile, sendUrl, watch } from "./api.js";
import { showProblem, showVerdict } from "./card.js";
import { one, stamp } from "./dom.js";
import * as history from "./history.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {{name: string, file: File | null, url: string, card: HTMLElement, abort: AbortController, options: import("./api.js").Options, id: string}} Item one video; `id` is empty until it has been sent */

const BUSY_TRIES = 60;
const { maxBytes, urlFetch } = document.body.dataset;
const picker = one(document, "#picker", HTMLInputElement);
const drop = one(document, "#drop", HTMLElement);
const jobs = one(document, "#jobs", HTMLElement);

/** @type {Item[]} */
const queue = [];
let sending = false;

/**
 * A card for a video that is to be sent, or for a job that was.
 * @param {string} name
 * @param {{file?: File, url?: string, id?: string}} what
 * @returns {Item}
 */
function add(name, { file, url = "", id = "" }) {
  const card = one(stamp("job-template"), ".job", HTMLElement);
  const options = { thorough: ticked("#thorough"), stability: ticked("#stability") };
  /** @type {Item} */
  const item = { name, file: file ?? null, url, card, abort: new AbortController(), options, id };
  one(card, ".name").textContent = name;
  card.dataset.id = id;
  stage(card, "Waiting for its turn", 0);
  one(card, ".cancel", HTMLButtonElement).setAttribute("aria-label", `Cancel ${name}`);
  one(card, ".cancel").addEventListener("click", () => void cancel(item));
  jobs.prepend(card);
  return item;
}

/** @param {string} selector */
const ticked = (selector) => one(document, selector, HTMLInputElement).checked;

/** @param {Iterable<File>} files */
function addFiles(files) {
  for (const file of files) queue.push(add(file.name, { file }));
  void send();
}

/** One upload at a time; the service then works on as many as it likes. */
async function send() {
  if (sending) return;
  sending = true;
  for (let item = queue.shift(); item; item = queue.shift()) {
    item.card.scrollIntoView({ block: "nearest", behavior: "smooth" });
    const sent = item;
    await settling(sent, async () => {
      const job = await submitted(sent);
      if (sent.abort.signal.aborted) return void (await deleteJob(job.id)); // cancelled once all was on its way
      sent.id = sent.card.dataset.id = job.id;
      history.remember(job.id, sent.name);
      void settling(sent, () => followed(sent));
    });
  }
  sending = false;
}

/**
 * @param {Item} item
 * @returns {Promise<Job>}
 */
function submitted({ name, file, url, card, abort: { signal }, options }) {
  announce(`Sending ${name}`);
  if (!file) {
    stage(card, "Asking the service to fetch it", null);
    return patiently(card, signal, () => sendUrl(url, options, signal));
  }
  if (file.size > Number(maxBytes)) {
    const detail = `It has ${words.bytes(file.size)}; this service accepts up to ${words.bytes(Number(maxBytes))}.`;
    throw new Refused({ type: "", title: "The file is too large", status: 413, detail, code: "limits_exceeded" });
  }
  /** @param {number} fraction */
  const onProgress = (fraction) =>
    stage(card, fraction < 1 ? `Sending, ${words.bytes(fraction * file.size)} of ${words.bytes(file.size)}` : "Sent; waiting for the service", fraction);
  onProgress(0);
  return patiently(card, signal, () => sendFile(file, options, { signal, onProgress }));
}

/** @param {Item} item whose job is in the service */
async function followed({ id, name, file, card, abort: { signal } }) {
  let said = "";
  const job = await watch(id, {
    signal,
    onProgress: (now) => {
      if (!now) return stage(card, "The service does not answer; trying again", null);
      stage(card, words.progress(now.progress), now.progress.fraction || null);
      if (now.progress.stage === said) return;
      said = now.progress.stage;
      announce(`${name}: ${words.progress(now.progress)}`);
    },
  });
  show(job, card, file);
}

/**
 * @param {Job} job that is over
 * @param {HTMLElement} card
 * @param {File | null} file
 */
function show(job, card, file) {
  const name = job.filename;
  one(card, ".name").textContent = name;
  if (job.result) {
    const onDeleted = () => remove(job.id, card, `${name}: deleted`);
    showVerdict(card, job, { file, onDeleted });
    history.note(job.id, job.result.verdict);
    announce(`${name}: ${words.VERDICTS[job.result.verdict]}, score ${words.score(job.result.score)}`);
  } else {
    const { code, message } = job.error ?? { code: job.status, message: "The service no longer keeps the answer." };
    fail(card, name, { title: job.error ? "It could not be scored" : "The answer has expired", detail: message, code });
    history.note(job.id, "failed");
  }
  drawHistory();
}

/**
 * @param {Item} item
 * @param {() => Promise<void>} act
 */
async function settling(item, act) {
  try {
    await act();
  } catch (error) {
    if (error instanceof Cancelled) remove(item.id, item.card, `${item.name}: cancelled`);
    else if (error instanceof Refused) fail(item.card, item.name, error.problem);
    else throw error;
  }
}

/** @param {Item} item */
async function cancel(item) {
  item.abort.abort();
  const waiting = queue.indexOf(item);
  if (waiting >= 0) queue.splice(waiting, 1);
  remove(item.id, item.card, `${item.name}: cancelled`);
  if (!item.id) return; // nothing was sent, or `send` deletes what becomes of it
  await deleteJob(item.id).catch((error) => {
    if (!(error instanceof Refused)) throw error; // it is over or gone already
  });
}

/**
 * @param {string} id
 * @param {HTMLElement} card
 * @param {string} said
 */
function remove(id, card, said) {
  if (card.contains(document.activeElement)) picker.focus();
  card.remove();
  history.forget(id);
  drawHistory();
  announce(said);
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

/**
 * @param {HTMLElement} card
 * @param {string} name
 * @param {Pick<import("./types.js").Problem, "title" | "detail" | "code">} problem
 */
function fail(card, name, problem) {
  showProblem(card, problem);
  announce(`${name}: ${problem.title}. ${problem.detail}`);
  if (problem.code === "unauthorized") askForKey();
}

/**
 * @param {HTMLElement} card
 * @param {string} text
 * @param {number | null} fraction null: nobody knows how long
 */
function stage(card, text, fraction) {
  const line = card.querySelector(".stage");
  if (!line) return; // the card shows an outcome already
  line.textContent = text;
  const bar = one(card, "progress", HTMLProgressElement);
  bar.setAttribute("aria-label", text);
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
}

// -- what this browser sent before ----------------------------------------------------------------------------

function drawHistory() {
  const section = one(document, "#history", HTMLElement);
  const all = history.entries();
  section.hidden = all.length === 0;
  one(section, "#history-count").textContent = String(all.length);
  one(section, "ul").replaceChildren(...all.map(historyRow));
}

/** @param {history.Entry} entry */
function historyRow({ id, name, at, outcome }) {
  const row = stamp("history-template");
  one(row, ".name").textContent = name;
  one(row, ".outcome").textContent = outcome ? (words.VERDICTS[outcome] ?? outcome) : "under way";
  const time = one(row, "time", HTMLTimeElement);
  time.dateTime = at;
  time.textContent = new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  const show = one(row, ".show", HTMLButtonElement);
  show.setAttribute("aria-label", `Show ${name}`);
  show.addEventListener("click", () => reopen(id, name));
  const forget = one(row, ".forget", HTMLButtonElement);
  forget.setAttribute("aria-label", `Forget ${name}`);
  forget.addEventListener("click", () => {
    history.forget(id);
    announce(`${name}: forgotten`);
    drawHistory();
    one(document, "#history summary", HTMLElement).focus();
  });
  return row;
}

/**
 * @param {string} id
 * @param {string} name
 */
function reopen(id, name) {
  const card = cardOf(id) ?? resume(id, name);
  card.focus();
  card.scrollIntoView({ block: "start" });
}

/** @param {string} id @returns {HTMLElement | null} */
const cardOf = (id) => jobs.querySelector(`[data-id="${CSS.escape(id)}"]`);

/**
 * A card for a job that is in the service.
 * @param {string} id
 * @param {string} name
 */
function resume(id, name) {
  const item = add(name, { id });
  void settling(item, () => followed(item));
  return item.card;
}

/** What was under way when the page was left goes on; `?job=` names one to show. */
function takeUp() {
  for (const { id, name, outcome } of history.entries()) if (outcome === null) resume(id, name);
  const wanted = new URLSearchParams(location.search).get("job");
  if (wanted && !cardOf(wanted)) resume(wanted, wanted);
}


// -- the form -------------------------------------------------------------------------------------------------

/** @param {string} address */
function addUrl(address) {
  queue.push(add(address.split(/[?#]/)[0], { url: address }));
  void send();
}

if (urlFetch === "yes") {
  const input = one(document, "#url", HTMLInputElement);
  const submit = () => {
    if (!input.value.trim() || !input.reportValidity()) return input.focus();
    addUrl(input.value.trim());
    input.value = "";
  };
  one(document, "#fetch").addEventListener("click", submit);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") submit();
  });
}

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (files.length) {
    event.preventDefault();
    return addFiles(files);
  }
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
  if (urlFetch !== "yes" || typing || !/^https?:\/\/\S+$/.test(text)) return;
  // Not sent by itself: what the clipboard holds may be meant for elsewhere.
  one(document, "#url", HTMLInputElement).value = text;
  one(document, "#fetch", HTMLButtonElement).focus();
  announce("The address was pasted. Press Fetch it to send it.");
});
picker.addEventListener("change", () => {
  addFiles(picker.files ?? []);
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
  addFiles(event.dataTransfer?.files ?? []);
});
one(document, "#forget-all").addEventListener("click", () => {
  history.forgetAll();
  drawHistory();
  announce("All forgotten");
  picker.focus();
});

one(document, "#max-size").textContent = words.bytes(Number(maxBytes));
start();
drawHistory();
takeUp();
