// The service's answers as JSDoc types (see /docs); no code.

/**
 * @typedef {{value: number, lower: number, max_fpr: number, fpr_upper95: number, calibration_n: number}} Threshold
 * @typedef {{start_s: number, end_s: number, score: number}} Segment
 * @typedef {"generated" | "authentic" | "inconclusive"} Verdict
 * @typedef {{pts_s: number, score: number}} Moment
 * @typedef {{name: string, kind: "frame" | "residual" | "spectrum" | "reference_spectrum" | "gate", segment: number, pts_s: number, width: number, height: number, caption: string}} View
 *
 * @typedef {object} Evidence
 * @property {number} peak index in `segments`
 * @property {Moment} highest
 * @property {Moment} lowest
 * @property {{spectral: number, semantic: number}[]} shares one a segment
 * @property {number[]} gate
 * @property {View[]} views
 *
 * @typedef {object} C2pa
 * @property {"not_checked" | "absent" | "trusted" | "valid" | "invalid" | "unsupported" | "failed"} status
 * @property {string} [detail]
 * @property {string | null} [signer]
 * @property {string | null} [signed_at]
 * @property {string | null} [claim_generator]
 * @property {string[]} [actions]
 * @property {string[]} [digital_source_types]
 * @property {boolean} [says_generated]
 * @property {string | null} [trust_list]
 *
 * @typedef {object} Trail
 * @property {string | null} muxer
 * @property {string | null} encoder
 * @property {string | null} created_at
 * @property {string[]} brands
 * @property {string | null} profile
 * @property {string | null} pixel_format
 * @property {string | null} gop
 * @property {number | null} keyframe_interval
 * @property {number} edit_lists
 * @property {string[]} tracks
 * @property {number} trailing_bytes
 *
 * @typedef {{name: string, score: number, verdict: Verdict}} Reshipping
 * @typedef {{stable: boolean, spread: number, tried: Reshipping[]}} Stability
 * @typedef {{family: string, probability: number, candidates: {name: string, probability: number}[], basis: string}} Attribution
 * @typedef {{code: string, text: string, figures: Record<string, number>}} Finding
 * @typedef {"allow" | "label" | "review" | "block"} Action
 * @typedef {{action: Action, policy: string, version: number, rule: string | null, threshold: {value: number, max_fpr: number, fpr_upper95: number, calibration_n: number} | null, reasons: Finding[], surface: string}} Decision
 *
 * An answer may be older than this page: what came later may be missing.
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
 * @property {{c2pa: C2pa, trail?: Trail | null}} provenance
 * @property {Finding[]} [findings]
 * @property {Evidence | null} [evidence]
 * @property {Stability | null} [stability]
 * @property {Attribution | null} [attribution]
 * @property {Decision | null} [decision]
 * @property {{name: string, version: string, sha256: string}} model
 * @property {Record<string, number>} timing_ms
 * @property {string[]} warnings
 *
 * @typedef {object} Feedback
 * @property {"right" | "wrong" | "unsure" | null} verdict
 * @property {"real" | "generated" | null} label
 * @property {string} note
 * @property {"user" | "review"} source
 * @property {string} created_at
 * @typedef {{right: number, wrong: number, unsure: number, mine: Feedback | null, decision: Feedback | null}} FeedbackSummary
 *
 * @typedef {{job: string, share: number, bits: number, same_bytes: boolean, filename: string | null, verdict: Verdict | null, created_at: string | null, decision: Feedback | null, feedback: FeedbackSummary}} SimilarJob
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {"queued" | "running" | "done" | "failed" | "expired"} status
 * @property {{stage: string, fraction: number, eta_s: number | null}} progress
 * @property {ScoredFile | null} result
 * @property {{code: string, message: string} | null} error
 * @property {string} filename
 * @property {number | null} bytes
 * @property {string | null} url
 * @property {string | null} created_at
 * @property {FeedbackSummary | null} feedback
 *
 * @typedef {{job: Job, verdict: Verdict, action: Action | null, margin: number, reports: Feedback[]}} ReviewItem
 * @typedef {{items: ReviewItem[], waiting: number, next: string | null}} ReviewQueue
 *
 * @typedef {object} Measured
 * @property {number} n_generated
 * @property {number} n_real
 * @property {number} generated_called_generated
 * @property {[number, number] | null} generated_called_generated95
 * @property {number} camera_called_generated
 * @property {number} generated_called_authentic
 * @property {number} camera_called_authentic
 * @property {number} calibration_error
 * @typedef {{name: string, active: boolean, threshold: Threshold | null, measured: Measured | null}} Policy
 *
 * @typedef {{type: string, title: string, status: number, detail: string, code: string}} Problem
 */

export {};
