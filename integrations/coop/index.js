/**
 * SpecSem as a signal of ROOST's Coop: the score of a video, 0 (camera) to 1 (generated).
 *
 * A CoopIntegrationPlugin as `@roostorg/types` has it. The service fetches the video from its address, so that
 * no bytes pass through Coop: it needs SPECSEM_URL_FETCH, and a key with the scope `jobs`.
 */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const INTEGRATION_ID = 'SPECSEM';
const SIGNAL_TYPE = 'SPECSEM_GENERATED_VIDEO_SCORE';
const DEFAULT_TIMEOUT_S = 120;
const LONGEST_PAUSE_MS = 5000;

// Made from the model's own card and figures by `make docs`.
const { modelCard, recommendedThresholds } = JSON.parse(
  readFileSync(new URL('./model.json', import.meta.url), 'utf8'),
);

/** @type {import('@roostorg/types').IntegrationManifest} */
export const manifest = {
  id: INTEGRATION_ID,
  name: 'SpecSem',
  version: '0.1.0',
  description: 'Tells AI-generated video from camera video, with a calibrated score.',
  requiresConfig: true,
  configurationFields: [
    {
      key: 'serviceUrl',
      label: 'Address of the service',
      required: true,
      inputType: 'text',
      placeholder: 'https://specsem.example.org',
    },
    { key: 'apiKey', label: 'Key with the scope jobs', required: false, inputType: 'password' },
    {
      key: 'timeoutSeconds',
      label: 'Seconds to wait for a score',
      required: false,
      inputType: 'text',
      placeholder: String(DEFAULT_TIMEOUT_S),
    },
  ],
  signalTypeIds: [SIGNAL_TYPE],
  modelCard,
};

/** The video's address in a signal's input: of a VIDEO or MEDIA value, or a URL. */
function addressOf(input) {
  const tagged = input?.value;
  const value = tagged?.value;
  const url = typeof value === 'string' ? value : value?.url;
  if (typeof url !== 'string' || !/^https?:\/\//.test(url)) {
    throw new Error('SpecSem: the input has no address of a video.');
  }
  return url;
}

/** What the service answers; throws its stable code where it refuses. */
async function ask(config, path, options = {}) {
  const headers = { ...options.headers };
  if (config.apiKey) headers.authorization = `Bearer ${config.apiKey}`;
  const address = new URL(path, config.serviceUrl);
  const answer = await fetch(address, { ...options, headers, signal: AbortSignal.timeout(30_000) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`SpecSem: ${body.code ?? answer.status}.`);
  return body;
}

/** The score of a video. Asked again for the same item, it is the same job. */
async function score(config, input) {
  const url = addressOf(input);
  const key = createHash('sha256')
    .update(JSON.stringify([input.orgId, input.contentId ?? '', url]))
    .digest('hex');
  let job = await ask(config, '/v1/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': `coop-${key}` },
    body: JSON.stringify({ url }),
  });
  const ends = Date.now() + 1000 * (Number(config.timeoutSeconds) || DEFAULT_TIMEOUT_S);
  for (let pauseMs = 200; job.status === 'queued' || job.status === 'running'; pauseMs *= 1.5) {
    if (Date.now() > ends) throw new Error('SpecSem: no score in time.');
    await new Promise((done) => setTimeout(done, Math.min(pauseMs, LONGEST_PAUSE_MS)));
    job = await ask(config, `/v1/jobs/${job.id}`);
  }
  if (job.status !== 'done') throw new Error(`SpecSem: ${job.error?.code ?? job.status}.`);
  return job.result.score;
}

/** @type {import('@roostorg/types').CoopIntegrationPlugin['createSignals']} */
export function createSignals({ integrationId, getCredential }) {
  const outputType = { scalarType: 'NUMBER' };
  const signal = {
    id: { type: SIGNAL_TYPE },
    displayName: 'Generated video (SpecSem)',
    description: 'How likely the video was made by a generator, 0 to 1. Evidence for a person, not proof.',
    docsUrl: null,
    recommendedThresholds,
    supportedLanguages: 'ALL',
    pricingStructure: { type: 'FREE' },
    eligibleInputs: ['VIDEO', 'MEDIA', 'URL'],
    outputType,
    getCost: () => 50,
    needsMatchingValues: false,
    eligibleSubcategories: [],
    needsActionPenalties: false,
    integration: integrationId,
    allowedInAutomatedRules: true,
    run: async (input) => ({ outputType, score: await score(await getCredential(input.orgId), input) }),
    getDisabledInfo: async (orgId) => {
      const config = await getCredential(orgId);
      return config?.serviceUrl
        ? { disabled: false }
        : { disabled: true, disabledMessage: 'Say in the integration where the SpecSem service is.' };
    },
  };
  return [{ signalTypeId: SIGNAL_TYPE, signal }];
}

export default { manifest, createSignals };
