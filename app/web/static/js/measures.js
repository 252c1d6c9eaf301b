// What the active model's policies were measured to do, as far as the service tells.

import { askJson, Refused } from "./api.js";

/** @typedef {import("./types.js").Measured} Measured */
/** @typedef {import("./types.js").Policy} Policy */
/** @typedef {import("./types.js").Threshold} Threshold */

/** @type {Policy[]} */
let policies = [];

/**
 * Of the policy that these thresholds belong to; null where it is another model's, or was never measured.
 * @param {Threshold} limits
 * @returns {Promise<Measured | null>}
 */
export async function measured(limits) {
  const found = policyOf(limits);
  if (found) return found.measured;
  try {
    policies = (await askJson("/v1/policies")).policies;
  } catch (error) {
    if (!(error instanceof Refused)) throw error; // without them, less is said
  }
  return policyOf(limits)?.measured ?? null;
}

/** @param {Threshold} limits */
const policyOf = (limits) => policies.find(({ threshold }) => threshold?.value === limits.value && threshold.lower === limits.lower);
