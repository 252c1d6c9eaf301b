// A client that is generated from docs/openapi.json, as its user would write it: `main.js URL FILE`.
// Prints what it got as one JSON object. tests/integration/test_typescript_client.py builds and runs it.

import { openAsBlob } from "node:fs";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./generated/specsem.js";

type Job = components["schemas"]["Job"];
type Problem = components["schemas"]["ProblemDocument"];

const [url, file] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url });

function required<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

async function submit(path: string): Promise<Job> {
  const video = await openAsBlob(path);
  const answer = await client.POST("/v1/jobs", {
    params: { header: { "Idempotency-Key": `typescript ${basename(path)}` } },
    // The generator writes `string` for binary; what is sent is the form below.
    body: { file: "", evidence: true },
    bodySerializer: () => {
      const form = new FormData();
      form.append("file", video, basename(path));
      form.append("evidence", "true");
      return form;
    },
  });
  return required(answer);
}

async function ended(job: Job): Promise<Job> {
  while (job.status === "queued" || job.status === "running") {
    await sleep(100);
    job = required(await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } }));
  }
  return job;
}

const first = await submit(file);
const again = await submit(file);
const job = await ended(first);
const listed = required(await client.GET("/v1/jobs", { params: { query: { status: ["done"], limit: 5 } } }));
const said = required(
  await client.POST("/v1/jobs/{job_id}/feedback", {
    params: { path: { job_id: job.id } },
    body: { verdict: "right", note: "from TypeScript" },
  }),
);
const unknown = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: "0".repeat(32) } } });
const problem: Problem | undefined = unknown.error;

console.log(
  JSON.stringify({
    same: again.id === first.id,
    verdict: job.result?.verdict,
    score: job.result?.score,
    findings: job.result?.findings?.map((finding) => finding.code),
    listed: listed.jobs.map((each) => each.id === job.id),
    right: said.right,
    refused: problem?.code,
  }),
);
