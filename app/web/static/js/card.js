// A job's card: the verdict with its evidence, or why there is none.

import { ask, deleteJob, Refused } from "./api.js";
import { timeline } from "./chart.js";
import { el, fillFacts, fillList, one, stamp, svg } from "./dom.js";
import { showAttribution, showEvidence, showProvenance, showStability } from "./evidence.js";
import { feedback } from "./feedback.js";
import { measured } from "./measures.js";
import { showSimilar } from "./similar.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").Measured} Measured */
/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").Problem} Problem */

/** Shapes as well as colours tell the verdicts apart. @type {Record<string, string[]>} */
const ICONS = {
  generated: ["M12 3l1.8 5.2L19 10l-5.2 1.8L12 17l-1.8-5.2L5 10l5.2-1.8z", "M18.5 16l.8 2.2 2.2.8-2.2.8-.8 2.2-.8-2.2-2.2-.8 2.2-.8z"],
  authentic: ["M3 8h4l2-3h6l2 3h4v11H3z", "M12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z"],
  inconclusive: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z", "M9.6 9.4a2.5 2.5 0 1 1 3.7 2.2c-.9.5-1.3 1-1.3 1.9", "M12 16.6v.1"],
};

/**
 * @param {HTMLElement} card
 * @param {Job} job that is done
 * @param {{file: File | null, onDeleted: () => void}} more
 */
export function showVerdict(card, job, { file, onDeleted }) {
  const answer = job.result;
  if (!answer) throw new Error("a job that is done has an answer");
  const view = stamp("verdict-template");
  card.dataset.verdict = answer.verdict;
  one(view, ".icon").append(...ICONS[answer.verdict].map((d) => svg("path", { d })));
  one(view, ".word").textContent = words.VERDICTS[answer.verdict];
  one(view, ".meaning").textContent = words.meaning(answer);
  one(view, ".score-number").textContent = words.score(answer.score);
  const range = words.range(answer);
  if (range) one(view, ".range").textContent = range.text;
  else one(view, ".range").remove();
  one(view, ".cost").textContent = words.cost(answer.threshold);
  void odds(view, answer);
  showDecision(view, answer);
  gauge(one(view, ".gauge"), answer, range);
  fillList(one(view, ".reasons"), answer.findings?.length ? answer.findings.map(({ text }) => text) : answer.reasons.map(words.reason));
  fillList(one(view, ".unchecked"), unchecked(answer));
  fillFacts(one(view, ".media"), mediaFacts(answer, job.bytes));
  fillFacts(one(view, ".model"), modelFacts(answer));
  fillTable(one(view, ".timeline tbody"), answer);
  one(view, ".timeline .scroll").setAttribute("aria-label", `Table of the windows of ${job.filename}`);
  showEvidence(view, answer, job.id);
  showStability(view, answer);
  showAttribution(view, answer);
  showProvenance(view, answer);
  feedback(one(view, ".feedback", HTMLFormElement), job.id, job.feedback);
  void showSimilar(one(view, ".similar", HTMLElement), job.id);
  fillJson(view, answer);
  actions(one(view, ".actions"), job, onDeleted);
  const video = one(view, "video", HTMLVideoElement);
  const frame = one(view, ".verdict");
  const readout = one(view, ".readout");
  const chart = one(view, ".chart", HTMLCanvasElement);
  settle(card, view);
  let hint = "Point at a window or use the arrow keys; click or Enter shows it in the video.";
  readout.textContent = hint;
  const movePlayhead = timeline(chart, answer, {
    onSeek: (seconds) => {
      // A hair later than the first frame's time: browsers round it down to the frame before.
      if (video.isConnected) video.currentTime = seconds + 0.001;
      movePlayhead(seconds);
    },
    onShow: (text) => {
      readout.textContent = text || hint;
    },
  });
  /** @param {string} why */
  const withoutPreview = (why) => {
    one(frame, ".preview").remove();
    frame.classList.add("no-preview");
    hint = `Point at a window or use the arrow keys. ${why}: no preview.`;
    readout.textContent = hint;
  };
  if (!file) return withoutPreview("The file is not at hand here");
  preview(video, file, () => withoutPreview("This browser can't play the format"));
  video.addEventListener("timeupdate", () => movePlayhead(video.currentTime));
}

/**
 * @param {HTMLElement} card
 * @param {Pick<Problem, "title" | "detail" | "code">} problem
 */
export function showProblem(card, problem) {
  const view = stamp("error-template");
  one(view, ".failed-title").textContent = problem.title;
  one(view, ".failed-detail").textContent = problem.detail;
  one(view, ".failed-code code").textContent = problem.code;
  settle(card, view);
}

/**
 * @param {ParentNode} view
 * @param {ScoredFile} answer
 */
function showDecision(view, { decision }) {
  const section = one(view, ".decision", HTMLElement);
  if (!decision) return section.remove(); // an answer of before there were policies
  section.dataset.action = decision.action;
  one(section, ".action").textContent = words.action(decision.action);
  one(section, ".decided-by").textContent = words.decidedBy(decision);
  fillList(one(section, "ul"), decision.reasons.map(({ text }) => text));
}

/** How common generated videos are where this visitor's come from; the last one said. */
let prevalence = "50";

/**
 * @param {ParentNode} view
 * @param {ScoredFile} answer
 */
async function odds(view, answer) {
  const input = one(view, ".prevalence", HTMLInputElement);
  const chance = one(view, ".posterior");
  const trust = one(view, ".predictive");
  /** @type {Measured | null} */
  let rates = null;
  const tell = () => {
    if (!input.validity.valid || !input.value) {
      chance.textContent = "A number between 0.01 and 99.99.";
      trust.textContent = "";
      return;
    }
    prevalence = input.value;
    chance.textContent = words.chance(answer, input.valueAsNumber / 100, rates);
    trust.textContent = words.trust(answer, input.valueAsNumber / 100, rates);
  };
  input.value = prevalence;
  input.addEventListener("input", tell);
  rates = await measured(answer.threshold);
  tell();
}

/**
 * @param {Element} footer
 * @param {Job} job
 * @param {() => void} onDeleted
 */
function actions(footer, job, onDeleted) {
  const said = one(footer, ".said");
  /** @param {HTMLButtonElement} button @param {() => Promise<string>} act */
  const doing = async (button, act) => {
    button.disabled = true;
    said.textContent = "A moment…";
    try {
      said.textContent = await act();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      said.textContent = `${error.problem.title}. ${error.problem.detail}`;
    } finally {
      button.disabled = false;
    }
  };
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (footer.querySelectorAll("[data-format]"))) {
    const { format } = button.dataset;
    button.addEventListener("click", () =>
      doing(button, async () => {
        const answer = await ask(`/v1/jobs/${job.id}/report?format=${format}`, { accept: "*/*" });
        save(await answer.blob(), `${job.filename}.report.${format}`);
        return "The report is in your downloads.";
      }),
    );
  }
  const remove = one(footer, ".delete", HTMLButtonElement);
  remove.addEventListener("click", () =>
    doing(remove, async () => {
      await deleteJob(job.id);
      onDeleted();
      return "Deleted.";
    }),
  );
}

/**
 * @param {Blob} content
 * @param {string} name
 */
function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once the browser has taken it
}

/**
 * The outcome takes the progress bar's place, and the focus of the Cancel button that goes.
 * @param {HTMLElement} card
 * @param {DocumentFragment} view
 */
function settle(card, view) {
  const hadFocus = card.contains(document.activeElement);
  one(card, ".running").replaceWith(view);
  card.querySelector(".cancel")?.remove();
  if (hadFocus) card.focus();
}

/**
 * Play the local file; the browser may know fewer formats than the service.
 * @param {HTMLVideoElement} video
 * @param {File} file
 * @param {() => void} onUnplayable
 */
function preview(video, file, onUnplayable) {
  const url = URL.createObjectURL(file);
  video.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    onUnplayable();
  });
  video.src = url;
}

/**
 * Score and thresholds on one scale from 0 to 1.
 * @param {SVGElement} root
 * @param {ScoredFile} answer
 * @param {{low: number, high: number} | null} range
 */
function gauge(root, { score, threshold: limits }, range) {
  const label = `Score ${words.score(score)} on a scale from 0, camera, to 1, generated. Camera below ${words.threshold(limits.lower)}, generated from ${words.threshold(limits.value)}.`;
  root.setAttribute("aria-label", label);
  const low = limits.lower * 300;
  const high = limits.value * 300;
  const needle = Math.min(Math.max(score * 300, 6), 294);
  root.append(
    svg("rect", { class: "track", x: 0, y: 14, width: 300, height: 14, rx: 7 }),
    svg("path", { class: "zone-low", d: `M7 14.5H${Math.max(low, 7)}V27.5H7a6.5 6.5 0 0 1 0-13z` }),
    svg("path", { class: "zone-high", d: `M293 14.5H${Math.min(high, 293)}V27.5H293a6.5 6.5 0 0 0 0-13z` }),
    svg("line", { class: "mark", x1: low, x2: low, y1: 11, y2: 31 }),
    svg("line", { class: "mark", x1: high, x2: high, y1: 11, y2: 31 }),
    svg("rect", { class: "extent", x: (range?.low ?? score) * 300, y: 19.5, width: range ? (range.high - range.low) * 300 : 0, height: 3 }),
    svg("circle", { class: "needle", cx: needle, cy: 21, r: 8 }),
    svg("text", { x: 0, y: 44 }, "camera"),
    svg("text", { x: 300, y: 44, "text-anchor": "end" }, "generated"),
  );
}

/**
 * @param {ScoredFile} answer
 * @returns {string[]}
 */
function unchecked({ coverage, segments, provenance, stability, warnings }) {
  const lines = ["Sound is not examined."];
  if (coverage.fraction < 0.995) {
    const windows = segments.length === 1 ? "One window was" : `${segments.length} windows were`;
    const seconds = `${coverage.analysed_s.toFixed(1)} of ${coverage.duration_s.toFixed(1)} s`;
    const percent = Math.max(1, Math.round(coverage.fraction * 100));
    lines.unshift(`${windows} looked at, ${seconds} (${percent}%); the rest was not.`);
  }
  if (!stability) lines.push("Whether the verdict survives delivery was not checked.");
  if (["not_checked", "unsupported", "failed"].includes(provenance.c2pa.status)) {
    lines.push("Signed origin (C2PA) was not checked.");
  }
  return [...lines, ...warnings.map(words.warning)];
}

/**
 * @param {ScoredFile} answer
 * @param {number | null} size in bytes
 * @returns {[string, string][]}
 */
function mediaFacts({ media, sha256 }, size) {
  return [
    ["Size", size === null ? "unknown" : words.bytes(size)],
    ["Container", media.container],
    ["Codec", media.codec],
    ["Frame", `${media.width} × ${media.height}`],
    ["Rate", media.fps === null ? "unknown" : `${Number(media.fps.toFixed(2))} frames a second`],
    ["Length", words.clock(media.duration_s, 1)],
    ["Frames scored", String(media.frames_scored)],
    ["SHA-256", sha256],
  ];
}

/**
 * @param {ScoredFile} answer
 * @returns {[string, string][]}
 */
function modelFacts({ model, logit, timing_ms: timing }) {
  /** @type {[string, string][]} */
  const times = Object.entries(timing).map(([stage, ms]) => [`Time, ${stage}`, `${Math.round(ms)} ms`]);
  return [["Name", model.name], ["Version", model.version], ["Weights", model.sha256.slice(0, 16)], ["Logit", logit.toFixed(3)], ...times];
}

/**
 * @param {Element} body
 * @param {ScoredFile} answer
 */
function fillTable(body, { segments, threshold: limits }) {
  const reads = { generated: "generated", authentic: "camera", between: "between the thresholds" };
  for (const segment of segments) {
    const row = document.createElement("tr");
    const cells = [segment.start_s.toFixed(2), segment.end_s.toFixed(2), words.score(segment.score)];
    row.append(...[...cells, reads[words.reading(segment.score, limits)]].map((text) => el("td", text)));
    body.append(row);
  }
}

/**
 * @param {ParentNode} view
 * @param {ScoredFile} answer
 */
function fillJson(view, answer) {
  const text = JSON.stringify(answer, null, 2);
  one(view, ".json pre").textContent = text;
  const download = one(view, ".download", HTMLAnchorElement);
  download.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  download.download = `${answer.path}.specsem.json`;
  const copy = one(view, ".copy", HTMLButtonElement);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Could not copy";
    }
    setTimeout(() => (copy.textContent = "Copy JSON"), 2000);
  });
}
