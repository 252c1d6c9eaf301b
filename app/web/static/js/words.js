// Numbers and codes in plain words.

import { posterior, predictive } from "./odds.js";

/** @typedef {import("./types.js").Measured} Measured */
/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").Threshold} Threshold */

/** @type {Record<string, string>} */
const REASONS = {
  between_thresholds: "The score lies between the two thresholds, where both kinds of video are found.",
  too_short: "Too little of the video could be analysed.",
  too_small: "The frames are too small for the fine traces that the method looks at.",
  low_quality: "Compression or blur has removed the fine detail that the method looks at.",
  static: "Almost nothing moves: the video is close to a still picture.",
  out_of_domain: "The video is unlike those that the model was calibrated on.",
  unstable: "Parts of the video contradict each other: without one of them the verdict would turn round.",
};

/** @type {Record<string, string>} */
const WARNINGS = {
  concealed_errors: "Every window had decoding errors; frames that the decoder patched up were scored.",
  hdr: "High dynamic range was converted without tone mapping.",
  header_duration_wrong: "The file claims another length than its frames have.",
  interlaced: "Interlaced: decoded as it is, with its fields interleaved.",
  irregular_timestamps: "Times that repeat or run backwards were put right.",
  mirrored: "The file asks for a mirrored picture; it was mirrored.",
  mirrored_border: "The frame is smaller than what the method looks at; its border was filled by reflection.",
  no_timestamps: "The file holds no times; they were counted at its nominal rate.",
  not_seekable: "The file could not be sought in; it was read through.",
  partly_corrupt: "Parts of the file could not be decoded and were left out.",
  several_video_streams: "The file holds several pictures; one was chosen.",
  size_changed: "The frames change size on the way.",
  unusual_colour: "The file's colours are of an unusual kind; they were converted as the usual one.",
};

/** @type {Record<string, string>} */
const STAGES = {
  queued: "Waiting for its turn in the service",
  starting: "Starting",
  fetch: "Fetching the file",
  decode: "Decoding",
  score: "Scoring",
  scan: "Scanning the whole time line",
  stability: "Scoring other ways of delivery",
  evidence: "Drawing the evidence",
};

/** @type {Record<string, string>} */
const RESHIPPINGS = {
  as_sent: "as sent",
  half_size: "half the size",
  reencode: "encoded again",
  crop: "cropped",
  flip: "mirrored",
  fewer_frames: "fewer frames",
};

/** A badge, and what it means. @type {Record<string, [string, string]>} */
const ORIGINS = {
  trusted: ["✓ Signed, and trusted", "The signature is whole and its signer is on the operator's list. It says who claims what, not that the claim is true."],
  valid: ["○ Signed, by somebody unknown here", "The signature is whole, but its signer is on no list of this service: anybody can sign."],
  invalid: ["✕ Signature broken", "The file was changed after it was signed, or signed badly."],
  absent: ["– Not signed", "Most files are not: that is no evidence of anything."],
  unsupported: ["– Not readable here", "This kind of file is not searched for signatures."],
  failed: ["? Could not be read", "The reader gave up on this file's signatures."],
  not_checked: ["– Not checked", "Nobody looked for signatures."],
};

/** @type {Record<string, string>} */
export const VERDICTS = { generated: "Generated", authentic: "Authentic", inconclusive: "Inconclusive" };

/** What the policy says is to be done. @type {Record<string, string>} */
const ACTIONS = {
  allow: "Let it pass",
  label: "Label it as generated",
  review: "Have somebody look at it",
  block: "Block it",
};

/** @param {string} action */
export const action = (action) => ACTIONS[action] ?? action;

/**
 * Which rule of which policy says so.
 * @param {import("./types.js").Decision} decision
 */
export function decidedBy({ policy, version, rule, surface }) {
  const where = surface ? ` for ${surface}` : "";
  return `By the policy “${policy}”, version ${version}${where}: ${rule ? `rule “${rule}”` : "no rule applies"}.`;
}

/**
 * @param {string} code
 * @returns {string}
 */
export const reason = (code) => REASONS[code] ?? code.replaceAll("_", " ");

/**
 * @param {string} code
 * @returns {string}
 */
export const warning = (code) => WARNINGS[code] ?? code.replaceAll("_", " ");

/** @param {string} status */
export const origin = (status) => (ORIGINS[status] ?? [status])[0];

/** @param {string} status */
export const originMeans = (status) => (ORIGINS[status] ?? ["", ""])[1];

/** @param {string} name */
export const reshipping = (name) => RESHIPPINGS[name] ?? name.replaceAll("_", " ");

/**
 * Where a job is and how long it may take.
 * @param {{stage: string, fraction: number, eta_s: number | null}} progress
 */
export function progress({ stage, fraction, eta_s: left }) {
  const done = fraction > 0 ? `, ${Math.floor(fraction * 100)}%` : "";
  return `${STAGES[stage] ?? stage}${done}${left === null ? "" : `, about ${duration(left)} left`}`;
}

/** @param {number} seconds */
function duration(seconds) {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

/**
 * A score with two decimals, never rounded up to certainty.
 * @param {number} value 0..1
 * @returns {string}
 */
export function score(value) {
  if (value > 0.994) return "> 0.99";
  if (value < 0.006) return "< 0.01";
  return value.toFixed(2);
}

/**
 * A threshold as exactly as it is needed to tell it from 0 and 1.
 * @param {number} value 0..1
 * @returns {string}
 */
export function threshold(value) {
  const decimals = Math.min(value, 1 - value) < 0.01 ? 4 : 2;
  return value.toFixed(decimals);
}

/**
 * A rate as "1.5 in 100", rounded up: it stands behind "at most" and "below".
 * @param {number} rate 0..1
 * @returns {string}
 */
function rate(rate) {
  const percent = Number((rate * 100).toPrecision(3)); // as the sentences beside it: 2.2001 is 2.2
  const scale = percent >= 10 ? 1 : percent >= 1 ? 10 : 100;
  return `${Math.ceil(percent * scale) / scale} in 100`;
}

/**
 * How far the score moves. No confidence interval: that would need to know how wrong the model may be.
 * @param {ScoredFile} answer
 * @returns {{low: number, high: number, text: string} | null} null: there is nothing to compare with
 */
export function range({ score: own, stability, segments }) {
  if (stability) {
    const scores = [own, ...stability.tried.map((tried) => tried.score)];
    return extent(scores, `over ${stability.tried.length} other ways of delivery. A range that was tried, not a confidence interval.`);
  }
  if (segments.length < 2) return null;
  const scores = segments.map((segment) => segment.score);
  return extent(scores, `for its ${segments.length} windows by themselves. How much they differ, not a confidence interval.`);
}

/** @param {number[]} scores @param {string} over */
function extent(scores, over) {
  const low = Math.min(...scores);
  const high = Math.max(...scores);
  const span = score(low) === score(high) ? score(low) : `${score(low)} to ${score(high)}`;
  return { low, high, text: `${span} ${over}` };
}

/**
 * What the score is worth where generated videos are so common.
 * @param {ScoredFile} answer
 * @param {number} prevalence 0..1
 * @param {Measured | null} measured
 */
export function chance({ score: own }, prevalence, measured) {
  const among = `Where ${share(prevalence)} in 100 such videos are generated, one with this score is generated with a chance of ${score(posterior(own, prevalence))}.`;
  if (!measured) return `${among} How far the score is off was never measured.`;
  const clips = `${measured.n_generated} generated and ${measured.n_real} camera clips of unseen sources`;
  return `${among} On ${clips}, scores missed the share that was generated by ${measured.calibration_error.toFixed(2)} on average.`;
}

/**
 * How often a verdict like this one is right there.
 * @param {ScoredFile} answer
 * @param {number} prevalence 0..1
 * @param {Measured | null} measured
 */
export function trust({ verdict, threshold: limits }, prevalence, measured) {
  if (!measured) return "";
  if (verdict === "inconclusive") return "No verdict, so none that could be right: the score alone is all there is.";
  const { share: right, least } = predictive(verdict, prevalence, measured, limits);
  const text = `Of 100 such videos that are called ${verdict}, about ${Math.round(right * 100)} are`;
  const found = measured.generated_called_generated95;
  if (verdict === "authentic" || least === null || !found) {
    return `${text}, as the rates were on clips of unseen sources. How sure that is was not worked out.`;
  }
  return (
    `${text}, and ${Math.floor(least * 100)} if both rates are as bad as their 95% bounds: ` +
    `only ${share(found[0])} in 100 generated clips found, ${share(limits.fpr_upper95)} in 100 camera clips called generated.`
  );
}

/** @param {number} value 0..1, said in a hundred */
const share = (value) => String(Number((value * 100).toPrecision(2)));

/**
 * What the verdict says, in one sentence.
 * @param {ScoredFile} answer
 * @returns {string}
 */
export function meaning({ verdict, threshold: limits, segments }) {
  if (verdict === "generated") return `The score reaches ${threshold(limits.value)}, where “generated” begins.`;
  const loud = segments.filter((segment) => segment.score >= limits.value).length;
  const but = loud
    ? ` But ${loud} of ${segments.length} windows reach ${threshold(limits.value)} on their own, which proves less than a whole video: see the time line.`
    : "";
  if (verdict === "authentic") return `The score is below ${threshold(limits.lower)}: it reads as camera video.${but}`;
  return `No verdict: this score alone should not decide anything.${but}`;
}

/**
 * What the threshold costs in false alarms, and how well that is known.
 * @param {Threshold} limits
 * @returns {string}
 */
export function cost(limits) {
  if (limits.calibration_n === 0) {
    return "How many camera videos this threshold calls generated by mistake was never measured.";
  }
  return (
    `The threshold is set so that at most ${rate(limits.max_fpr)} camera videos are called generated by mistake. ` +
    `It was checked on ${limits.calibration_n} camera clips that the model had not seen: with 95% confidence the ` +
    `true rate on such clips is at most ${rate(limits.fpr_upper95)}.`
  );
}

/**
 * How a window's score reads under the thresholds.
 * @param {number} value
 * @param {Threshold} limits
 * @returns {"generated" | "authentic" | "between"}
 */
export function reading(value, limits) {
  if (value >= limits.value) return "generated";
  return value < limits.lower ? "authentic" : "between";
}

/**
 * @param {number} count
 * @returns {string}
 */
export function bytes(count) {
  for (const [unit, size] of /** @type {[string, number][]} */ ([["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])) {
    if (count >= size) return `${(count / size).toFixed(count >= 10 * size ? 0 : 1)} ${unit}`;
  }
  return `${count} bytes`;
}

/**
 * Seconds as 0:07.2 or 1:02:03.
 * @param {number} seconds
 * @param {number} [decimals]
 * @returns {string}
 */
export function clock(seconds, decimals = 0) {
  const scaled = Math.round(seconds * 10 ** decimals) / 10 ** decimals;
  const hours = Math.floor(scaled / 3600);
  const minutes = Math.floor((scaled % 3600) / 60);
  const rest = (scaled % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
