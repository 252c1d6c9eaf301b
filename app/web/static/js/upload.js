// One upload to /v1/score with real progress and cancel. XMLHttpRequest: fetch reports no upload progress.

/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").Problem} Problem */

/** A refusal by the service, or a connection that broke. */
export class Refused extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The user cancelled. */
export class Cancelled extends Error {}

/**
 * @param {File} file
 * @param {{thorough: boolean, key: string, signal: AbortSignal, onProgress: (fraction: number) => void, onSent: () => void}} options
 * @returns {Promise<ScoredFile>}
 */
export function score(file, { thorough, key, signal, onProgress, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/score?thorough=${thorough}`);
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Prefer", "wait"); // the page waits for the answer, however long the video
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.upload.onload = onSent;
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Refused(asProblem(request)));
    };
    request.onerror = () => {
      reject(
        new Refused({
          type: "",
          title: "The connection broke",
          status: 0,
          detail: "The service could not be reached, or it closed the connection. Is it still running?",
          code: "connection_lost",
        }),
      );
    };
    request.onabort = () => reject(new Cancelled("cancelled"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    if (signal.aborted) return reject(new Cancelled("cancelled"));
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

/**
 * @param {XMLHttpRequest} request
 * @returns {Problem}
 */
function asProblem(request) {
  const body = request.response;
  if (body && typeof body === "object" && typeof body.code === "string") return body;
  return {
    type: "",
    title: "The service gave no usable answer",
    status: request.status,
    detail: `It answered with status ${request.status}.`,
    code: "unexpected_answer",
  };
}
