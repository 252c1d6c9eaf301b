// What operators decided on videos that look like this one: offered, and never applied.

import { askJson, Cancelled, Refused } from "./api.js";
import { el, one } from "./dom.js";

/** @typedef {import("./types.js").SimilarJob} SimilarJob */
/** @typedef {"generated" | "real" | "unsure"} Label */

const FOUND = { generated: "generated", real: "from a camera" };

/**
 * Fill a section, which stays hidden where there is nothing to offer.
 * @param {HTMLElement} section
 * @param {string} id of the job
 * @param {{signal?: AbortSignal, onAgree?: (label: Label) => unknown}} [how] onAgree: there are buttons to decide the same
 */
export async function showSimilar(section, id, { signal, onAgree } = {}) {
  section.hidden = true;
  try {
    const { jobs } = await askJson(`/v1/jobs/${id}/similar`, { signal });
    if (signal?.aborted) return;
    const decided = /** @type {SimilarJob[]} */ (jobs).filter(({ decision }) => decision);
    one(section, "ul").replaceChildren(...decided.map((job) => row(job, onAgree)));
    section.hidden = decided.length === 0;
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Cancelled)) throw error; // the answer stands without it
  }
}

/**
 * @param {SimilarJob} job
 * @param {((label: Label) => unknown) | undefined} onAgree
 */
function row({ filename, share, same_bytes: same, decision }, onAgree) {
  if (!decision) throw new Error("only what was decided is shown");
  const { label, note, created_at: at } = decision;
  const said = label ? `found ${FOUND[label]}` : "left undecided";
  const alike = same ? "the same file" : `${Math.round(share * 100)}% of its frames match`;
  const when = new Date(at).toLocaleDateString(undefined, { dateStyle: "medium" });
  const text = `${filename ?? "A video whose answer has expired"} (${alike}): ${said} by an operator, ${when}.`;
  const item = el("li", note ? `${text} “${note}” ` : `${text} `);
  if (!onAgree) return item;
  const button = el("button", "Decide the same");
  button.className = "button quiet";
  button.setAttribute("type", "button");
  button.addEventListener("click", () => onAgree(label ?? "unsure"));
  item.append(button);
  return item;
}
