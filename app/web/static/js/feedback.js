// What somebody says of an answer: right, wrong or unsure.

import { ask, Refused } from "./api.js";
import { one } from "./dom.js";

/** @typedef {import("./types.js").FeedbackSummary} FeedbackSummary */

/**
 * @param {HTMLFormElement} form
 * @param {string} id of the job
 * @param {FeedbackSummary | null} summary
 */
export function feedback(form, id, summary) {
  const address = `/v1/jobs/${id}/feedback`;
  const said = one(form, ".said");
  const withdraw = one(form, ".withdraw", HTMLButtonElement);
  const fields = /** @type {{verdict: RadioNodeList, label: HTMLSelectElement, note: HTMLInputElement}} */ (
    /** @type {unknown} */ (form.elements)
  );
  const mine = summary?.mine;
  if (mine) {
    fields.verdict.value = mine.verdict ?? "";
    fields.label.value = mine.label ?? "";
    fields.note.value = mine.note;
    said.textContent = "You said this before; sending again replaces it.";
    withdraw.hidden = false;
  }
  const decision = summary?.decision;
  if (decision) one(form, "legend").textContent = `Is this answer right? An operator says: ${decision.label ?? "unsure"}.`;

  /** @param {() => Promise<unknown>} act @param {string} done */
  const telling = async (act, done) => {
    said.textContent = "Sending…";
    try {
      await act();
      said.textContent = done;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      said.textContent = `${error.problem.title}. ${error.problem.detail}`;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = { verdict: fields.verdict.value, label: fields.label.value || null, note: fields.note.value.trim() };
    void telling(async () => {
      await ask(address, { method: "POST", json: given });
      withdraw.hidden = false;
    }, "Thank you; it is kept with the answer.");
  });
  withdraw.addEventListener("click", () => {
    void telling(async () => {
      await ask(address, { method: "DELETE" });
      form.reset();
      withdraw.hidden = true;
      one(form, "button", HTMLButtonElement).focus();
    }, "Withdrawn.");
  });
}
