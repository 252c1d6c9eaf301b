// From a score to the chance of being right, where generated videos are as common as somebody says.

/** @typedef {import("./types.js").Measured} Measured */
/** @typedef {import("./types.js").Threshold} Threshold */

/**
 * The score is calibrated at even odds, so its odds are the likelihood ratio that the evidence is worth.
 * @param {number} score 0..1
 * @param {number} prevalence share of generated videos before a look, 0..1
 * @returns {number} chance that this one is generated, 0..1
 */
export function posterior(score, prevalence) {
  const generated = score * prevalence;
  const camera = (1 - score) * (1 - prevalence);
  return generated / (generated + camera);
}

/**
 * Of the videos that are given this verdict, the share for which it is right; and how low that may be where
 * both rates are as bad as their 95% bounds allow, null where one of these is not known.
 * @param {"generated" | "authentic"} verdict
 * @param {number} prevalence
 * @param {Measured} measured
 * @param {Threshold} limits
 * @returns {{share: number, least: number | null}}
 */
export function predictive(verdict, prevalence, measured, limits) {
  if (verdict === "authentic") {
    const camera = (1 - prevalence) * measured.camera_called_authentic;
    return { share: camera / (camera + prevalence * measured.generated_called_authentic), least: null };
  }
  /** @param {number} found @param {number} alarms */
  const of = (found, alarms) => (prevalence * found) / (prevalence * found + (1 - prevalence) * alarms);
  const bounds = measured.generated_called_generated95;
  return {
    share: of(measured.generated_called_generated, measured.camera_called_generated),
    least: bounds && of(bounds[0], limits.fpr_upper95),
  };
}
