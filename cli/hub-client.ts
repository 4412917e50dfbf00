/**
 * The hub's API as this command line reads it.
 *
 * Invariant: what the hub says is parsed before it is used; a hub that does not answer is told with the next step.
 */
import * as v from 'valibot';
import { LIMITS } from '#cli/limits.ts';
import { currentSchema, eventSchema, targetSchema } from '#fleet/protocol.ts';

const time = v.pipe(v.number(), v.safeInteger());
const release = v.unwrap(targetSchema.entries.release);

const statusSchema = v.object({
  fleet: v.string(),
  url: v.string(),
  mqttUrl: v.string(),
  target: v.object({ generation: time, release: v.nullable(release), changedAtMs: time }),
  devices: v.array(
    v.object({ name: v.string(), online: v.boolean(), seenAtMs: time, current: v.nullable(currentSchema) }),
  ),
  releases: v.array(release),
});
const eventsSchema = v.object({
  events: v.array(v.object({ ...eventSchema.entries, id: time, receivedAtMs: time })),
});

export type HubStatus = v.InferOutput<typeof statusSchema>;
export type EventRecord = v.InferOutput<typeof eventsSchema>['events'][number];

export class HubError extends Error {
  readonly code = 'HUB_UNREACHABLE';
}

export class HubClient {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** @throws HubError */
  status(): Promise<HubStatus> {
    return this.#get('/v1/status', statusSchema);
  }

  /** Oldest first; the newest few hundred, or those after an id. */
  async events(afterId?: number): Promise<EventRecord[]> {
    const query = afterId === undefined ? '' : `?after=${afterId}`;
    return (await this.#get(`/v1/events${query}`, eventsSchema)).events;
  }

  /** Makes an earlier (or the newest) release the target. */
  async choose(release: string): Promise<void> {
    const response = await fetch(`${this.url}/v1/target`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ release }),
      signal: AbortSignal.timeout(LIMITS.requestMsMax),
    });
    if (!response.ok) throw new HubError(`the hub refuses ${release}: ${await response.text()}`);
  }

  async #get<S extends v.GenericSchema>(path: string, schema: S): Promise<v.InferOutput<S>> {
    try {
      const response = await fetch(this.url + path, { signal: AbortSignal.timeout(LIMITS.requestMsMax) });
      const body: unknown = await response.json();
      if (!response.ok) throw new Error(`status ${response.status}: ${JSON.stringify(body)}`);
      return v.parse(schema, body);
    } catch (cause) {
      const reason = (cause as { cause?: { code?: string } }).cause?.code ?? (cause as Error).message;
      throw new HubError(
        `the hub at ${this.url} does not answer (${reason}): is it running, is the address right?`,
        {
          cause,
        },
      );
    }
  }
}
