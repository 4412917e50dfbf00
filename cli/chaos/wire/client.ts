/** One request to a link's door. Invariant: it settles within its bound; a link that does not answer is an error with a code. */
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { ChaosError } from '#cli/chaos/errors.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import type { Fault } from '#cli/chaos/wire/link.ts';

/** @throws ChaosError `WIRE_SILENT` */
export async function setFault(control: string, fault: Fault): Promise<void> {
  await ask(control, 'POST', '/faults', JSON.stringify(fault));
}

/** @returns whether it was still set. @throws ChaosError `WIRE_SILENT` */
export async function clearFault(control: string, id: string): Promise<boolean> {
  const answer = await ask(control, 'DELETE', `/faults/${encodeURIComponent(id)}`);
  return v.parse(v.object({ cleared: v.boolean() }), answer).cleared;
}

const stateSchema = v.object({
  faults: v.array(v.object({ id: v.string(), failure: v.string() })),
  connections: v.number(),
  accepted: v.number(),
  passed: v.object({ toHub: v.number(), fromHub: v.number() }),
});

/** @throws ChaosError `WIRE_SILENT` */
export const linkState = async (control: string): Promise<v.InferOutput<typeof stateSchema>> =>
  v.parse(stateSchema, await ask(control, 'GET', '/'));

async function ask(socketPath: string, method: string, path: string, body?: string): Promise<unknown> {
  const silent = (why: string, cause?: unknown) =>
    new ChaosError('WIRE_SILENT', `the link at ${socketPath} ${why}: does midair chaos link still run?`, {
      cause,
    });
  const signal = AbortSignal.timeout(CHAOS.wireAnswerMsMax);
  const headers = body === undefined ? {} : { 'content-type': 'application/json' };
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown) => reject(silent('does not answer', cause));
    const sent = request({ socketPath, method, path, headers, signal, agent: false }, (response) => {
      text(response).then((answer) => {
        if (response.statusCode === 200) resolve(JSON.parse(answer));
        else reject(silent(`refuses (${answer})`));
      }, failed);
    });
    sent.once('error', failed);
    sent.end(body);
  });
}
