// What the pages ask of the service.

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {{thorough: boolean, stability: boolean}} Options */

const MAX_STREAMS = 2; // a browser opens six connections to one host: the others are for uploads and pictures
const POLL_MS = 1500;
const SILENT_TRIES = 60;
const OVER = ["done", "failed", "expired"];

/** The key that is sent with each request; empty where none is needed. */
export const access = { key: "" };

/** A refusal by the service, or a connection that broke. */
export class Refused extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The user cancelled, or the job was deleted. */
export class Cancelled extends Error {}

/**
 * @param {string} path
 * @param {{method?: string, json?: unknown, signal?: AbortSignal, accept?: string}} [options]
 * @returns {Promise<Response>} one that went well
 */
export async function ask(path, { method = "GET", json, signal, accept = "application/json" } = {}) {
  const headers = new Headers({ Accept: accept });
  if (access.key) headers.set("Authorization", `Bearer ${access.key}`);
  if (json !== undefined) headers.set("Content-Type", "application/json");
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: json === undefined ? undefined : JSON.stringify(json) });
  } catch {
    if (signal?.aborted) throw new Cancelled("cancelled");
    throw new Refused(broken());
  }
  if (!answer.ok) throw new Refused(asProblem(answer.status, await answer.json().catch(() => null)));
  return answer;
}

/**
 * What ``ask`` gets, read: it may be cancelled, and the connection break, in the middle of an answer, too.
 * @param {string} path
 * @param {Parameters<typeof ask>[1]} [options]
 */
export async function askJson(path, options) {
  const answer = await ask(path, options);
  try {
    return await answer.json();
  } catch {
    if (options?.signal?.aborted) throw new Cancelled("cancelled");
    throw new Refused(broken());
  }
}

/**
 * Cancelled before the last byte, no job is made. After it there will be one: its id is waited for.
 * @param {File} file
 * @param {Options} options
 * @param {{signal: AbortSignal, onProgress: (fraction: number) => void}} how
 * @returns {Promise<Job>}
 */
export function sendFile(file, options, { signal, onProgress }) {
  // XMLHttpRequest: fetch reports no upload progress.
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", submission(options));
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    if (access.key) request.setRequestHeader("Authorization", `Bearer ${access.key}`);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    let sent = false;
    request.upload.onload = () => {
      sent = true;
    };
    request.onload = () => {
      if (request.status === 202) resolve(request.response);
      else reject(new Refused(asProblem(request.status, request.response)));
    };
    request.onerror = () => reject(new Refused(broken()));
    request.onabort = () => reject(new Cancelled("cancelled"));
    signal.addEventListener("abort", () => sent || request.abort(), { once: true });
    if (signal.aborted) return reject(new Cancelled("cancelled"));
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

/**
 * @param {string} url
 * @param {Options} options
 * @param {AbortSignal} signal
 * @returns {Promise<Job>}
 */
export async function sendUrl(url, options, signal) {
  return askJson(submission(options), { method: "POST", json: { url }, signal });
}

/** @param {Options} options */
const submission = ({ thorough, stability }) => `/v1/jobs?thorough=${thorough}&stability=${stability}&evidence=true`;

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Job>} */
export const getJob = (id, signal) => askJson(`/v1/jobs/${id}`, { signal });

/** @param {string} id */
export const deleteJob = (id) => ask(`/v1/jobs/${id}`, { method: "DELETE" });

let streams = 0;

/**
 * Follow a job to its end: by events, and by asking where they fail.
 * @param {string} id
 * @param {{signal: AbortSignal, onProgress: (job: Pick<Job, "status" | "progress"> | null) => void}} how null: the service is silent
 * @returns {Promise<Job>} done, failed or expired
 */
export async function watch(id, { signal, onProgress }) {
  for (let silent = 0; ; silent += 1) {
    try {
      if (streams < MAX_STREAMS) await follow(id, signal, onProgress);
      const job = await getJob(id, signal);
      if (OVER.includes(job.status)) return job;
      onProgress(job);
      silent = 0;
    } catch (error) {
      if (!(error instanceof Refused) || !passes(error.problem.status) || silent >= SILENT_TRIES) throw error;
      onProgress(null);
    }
    await pause(POLL_MS);
    if (signal.aborted) throw new Cancelled("cancelled");
  }
}

/** Whether it may go better another time. @param {number} status */
const passes = (status) => status === 0 || status === 429 || status >= 500;

/**
 * Until the stream ends, for whatever reason.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(job: Pick<Job, "status" | "progress">) => void} onProgress
 */
async function follow(id, signal, onProgress) {
  streams += 1;
  try {
    const answer = await ask(`/v1/jobs/${id}/events`, { signal, accept: "text/event-stream" });
    if (!answer.body) return;
    for await (const { event, data } of events(answer.body)) {
      if (event === "deleted") throw new Cancelled("deleted");
      if (event !== "progress") return; // the job is asked for: events lack what was said of it
      onProgress(JSON.parse(data));
    }
  } catch (error) {
    if (signal.aborted) throw new Cancelled("cancelled");
    if (error instanceof Cancelled || (error instanceof Refused && !passes(error.problem.status))) throw error;
    // No stream to be had now, or it broke: whoever follows asks.
  } finally {
    streams -= 1;
  }
}

/**
 * Server-sent events. EventSource would do it, but it sends no key.
 * @param {ReadableStream<Uint8Array>} body
 */
async function* events(body) {
  const reader = body.pipeThrough(/** @type {ReadableWritablePair<string, any>} */ (new TextDecoderStream())).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text = (text + part.value).replaceAll("\r\n", "\n");
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const found = { event: "message", data: "" };
      for (const line of text.slice(0, end).split("\n")) {
        const [, field, value] = /^(event|data): ?(.*)$/.exec(line) ?? [];
        if (field === "event") found.event = value;
        else if (field === "data") found.data += value;
      }
      text = text.slice(end + 2);
      if (found.data) yield found;
    }
  }
}

/** @param {number} ms @returns {Promise<void>} */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @returns {Problem} */
const broken = () => ({
  type: "",
  title: "The connection broke",
  status: 0,
  detail: "The service could not be reached, or it closed the connection. Is it still running?",
  code: "connection_lost",
});

/**
 * @param {number} status
 * @param {any} body
 * @returns {Problem}
 */
function asProblem(status, body) {
  if (body && typeof body === "object" && typeof body.code === "string") return body;
  return {
    type: "",
    title: "The service gave no usable answer",
    status,
    detail: `It answered with status ${status}.`,
    code: "unexpected_answer",
  };
}
