// The jobs of this browser: ids and names in local storage, nowhere else.

/** @typedef {import("./types.js").Verdict} Verdict */
/** @typedef {{id: string, name: string, at: string, outcome: Verdict | "failed" | null}} Entry at: when it was sent; outcome: null while it is under way */

const STORE = "specsem-jobs";
const MOST = 100;

/** @returns {Entry[]} the latest first */
export function entries() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return Array.isArray(found) ? found.filter((entry) => typeof entry?.id === "string") : [];
  } catch {
    return []; // storage is switched off, or not ours to read
  }
}

/** @param {Entry[]} all */
function keep(all) {
  try {
    if (all.length) localStorage.setItem(STORE, JSON.stringify(all.slice(0, MOST)));
    else localStorage.removeItem(STORE);
  } catch {
    // Switched off or full: this visit works without.
  }
}

/** @param {string} id @param {string} name */
export function remember(id, name) {
  const at = new Date().toISOString();
  keep([{ id, name, at, outcome: null }, ...entries().filter((entry) => entry.id !== id)]);
}

/** @param {string} id @param {Verdict | "failed"} outcome */
export function note(id, outcome) {
  keep(entries().map((entry) => (entry.id === id ? { ...entry, outcome } : entry)));
}

/** @param {string} id */
export const forget = (id) => keep(entries().filter((entry) => entry.id !== id));

export const forgetAll = () => keep([]);
