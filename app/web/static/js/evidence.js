// What stands behind the score: pictures of what the model looked at, delivery, generator, origin.

import { ask, Refused } from "./api.js";
import { el, fillFacts, one } from "./dom.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Evidence} Evidence */

/**
 * @param {ParentNode} card
 * @param {ScoredFile} answer
 * @param {string} id of the job
 */
export function showEvidence(card, answer, id) {
  const section = one(card, ".evidence", HTMLElement);
  const { evidence } = answer;
  if (!evidence) return;
  section.hidden = false;
  const frames = evidence.views.filter((view) => view.kind === "frame");
  const others = evidence.views.filter((view) => view.kind !== "frame");
  const strip = one(section, ".strip");
  if (frames.length) strip.append(...frames.map((view) => picture(view, frameCaption(view, answer), "listitem")));
  else strip.remove();
  const windows = [...new Set([evidence.peak, ...others.map((view) => view.segment)])];
  one(section, ".windows").append(...windows.map((index) => windowSection(index, answer, evidence, others)));
  void load(section, id);
}

/**
 * @param {number} index
 * @param {ScoredFile} answer
 * @param {Evidence} evidence
 * @param {View[]} views
 */
function windowSection(index, { segments }, { peak, shares, gate }, views) {
  const section = document.createElement("section");
  const { start_s: start, end_s: end, score } = segments[index];
  const name = index === peak ? "Highest window" : "Window";
  section.append(el("h4", `${name}, ${words.clock(start, 1)} to ${words.clock(end, 1)}: score ${words.score(score)}`));
  const share = shares[index];
  if (share) {
    const open = gate[index] === undefined ? "" : ` The gate raised the spectral evidence by ${Math.round(gate[index] * 100)}% (of at most 100%).`;
    const text = `Of its logit, ${signed(share.spectral)} comes from the spectrum and ${signed(share.semantic)} from the content.${open}`;
    section.append(el("p", text));
  }
  const shown = views.filter((view) => view.segment === index);
  if (shown.length) {
    const grid = el("div", "");
    grid.className = "views";
    grid.append(...shown.map((view) => picture(view, view.caption)));
    section.append(grid);
  }
  return section;
}

/** @param {number} value */
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

/** @param {View} view @param {ScoredFile} answer */
function frameCaption({ pts_s: pts, segment, caption }, { segments }) {
  return `${words.clock(pts, 1)}, window's score ${words.score(segments[segment].score)}. ${caption}`;
}

/** @param {View} view @param {string} caption @param {string} [role] */
function picture(view, caption, role) {
  const figure = document.createElement("figure");
  if (role) figure.setAttribute("role", role);
  const image = document.createElement("img");
  image.width = view.width;
  image.height = view.height;
  image.alt = caption;
  image.dataset.view = view.name;
  const under = el("figcaption", caption);
  under.setAttribute("aria-hidden", "true"); // it is the picture's text already
  figure.append(image, under);
  return figure;
}

/**
 * One after the other, with the key: an <img> by itself sends none.
 * @param {Element} section
 * @param {string} id
 */
async function load(section, id) {
  for (const image of section.querySelectorAll("img")) {
    try {
      const answer = await ask(`/v1/jobs/${id}/views/${image.dataset.view}.png`, { accept: "image/png" });
      const url = URL.createObjectURL(await answer.blob());
      image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      image.replaceWith(el("p", `The picture is not there: ${error.problem.title}.`));
    }
  }
}

/** @param {ParentNode} card @param {ScoredFile} answer */
export function showStability(card, { stability, score, verdict }) {
  if (!stability) return;
  const section = one(card, ".stability", HTMLElement);
  section.hidden = false;
  one(section, ".steady").textContent = stability.stable
    ? `In ${stability.tried.length} other ways of delivery the verdict never turns into its opposite; the score moves by ${stability.spread.toFixed(2)} at most.`
    : `Delivered another way, the verdict turns into its opposite; the score moves by ${stability.spread.toFixed(2)}.`;
  for (const tried of [{ name: "as_sent", score, verdict }, ...stability.tried]) {
    const row = document.createElement("tr");
    row.append(el("td", words.reshipping(tried.name)), el("td", words.score(tried.score)), el("td", words.VERDICTS[tried.verdict]));
    one(section, "tbody").append(row);
  }
}

/** @param {ParentNode} card @param {ScoredFile} answer */
export function showAttribution(card, { attribution }) {
  if (!attribution) return;
  const section = one(card, ".attribution", HTMLElement);
  section.hidden = false;
  const others = attribution.candidates
    .filter(({ name }) => name !== attribution.family)
    .map(({ name, probability }) => `${name} ${probability.toFixed(2)}`);
  const also = others.length ? ` Next: ${others.join(", ")}.` : "";
  one(section, ".family").textContent =
    attribution.family === "unknown"
      ? `No family that is known here is likely enough.${also}`
      : `Most like ${attribution.family}, with a probability of ${attribution.probability.toFixed(2)}.${also}`;
  one(section, ".basis").textContent = attribution.basis;
}

/** @param {ParentNode} card @param {ScoredFile} answer */
export function showProvenance(card, { provenance: { c2pa, trail } }) {
  const section = one(card, ".provenance", HTMLElement);
  section.dataset.c2pa = c2pa.status;
  one(section, ".badge").textContent = words.origin(c2pa.status);
  one(section, ".hint").textContent = c2pa.detail || words.originMeans(c2pa.status);
  /** @type {[string, string | null | undefined | false][]} */
  const facts = [
    ["Signer", c2pa.signer],
    ["Signed", c2pa.signed_at],
    ["Software", c2pa.claim_generator],
    ["Actions", c2pa.actions?.join(", ")],
    ["Source type", c2pa.digital_source_types?.join(", ")],
    ["It says", c2pa.says_generated && "made by a trained model"],
    ["Trust list", c2pa.trust_list],
    ["Written by", trail?.muxer],
    ["Encoded by", trail?.encoder],
    ["Profile", trail && [trail.profile, trail.pixel_format].filter(Boolean).join(", ")],
    ["Frame types", trail?.gop],
    ["Tracks", trail?.tracks.join(", ")],
    ["Edit lists", trail && trail.edit_lists > 0 && String(trail.edit_lists)],
    ["Bytes after its end", trail && trail.trailing_bytes > 0 && String(trail.trailing_bytes)],
  ];
  const known = /** @type {[string, string][]} */ (facts.filter(([, value]) => value));
  if (known.length) fillFacts(one(section, "dl"), known);
  else one(section, "dl").remove();
}
