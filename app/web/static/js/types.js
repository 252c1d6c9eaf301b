// The service's answers as JSDoc types (see /docs); no code.

/**
 * @typedef {{value: number, lower: number, max_fpr: number, fpr_upper95: number, calibration_n: number}} Threshold
 * @typedef {{start_s: number, end_s: number, score: number}} Segment
 * @typedef {"generated" | "authentic" | "inconclusive"} Verdict
 *
 * @typedef {object} ScoredFile
 * @property {string} path
 * @property {string} sha256
 * @property {Verdict} verdict
 * @property {number} score
 * @property {number} logit
 * @property {Threshold} threshold
 * @property {string[]} reasons
 * @property {Segment[]} segments
 * @property {{analysed_s: number, duration_s: number, fraction: number}} coverage
 * @property {{container: string, codec: string, width: number, height: number, fps: number | null, duration_s: number, frames_scored: number}} media
 * @property {{c2pa: Record<string, string>}} provenance
 * @property {{name: string, version: string, sha256: string}} model
 * @property {Record<string, number>} timing_ms
 * @property {string[]} warnings
 *
 * @typedef {{type: string, title: string, status: number, detail: string, code: string}} Problem
 */

export {};
