/**
 * The hub's HTTP API: reads of the store, and the choice of the target.
 *
 * Invariant: every answer is JSON (but for the status page), every refusal `{error: {code, text, next}}`.
 */
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { BaseLogger } from 'pino';
import * as v from 'valibot';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { statusPage } from '#fleet/page.ts';
import type { Release } from '#fleet/protocol.ts';
import type { Store } from '#fleet/store.ts';
import type { Targets } from '#fleet/targets.ts';

export interface ApiOptions {
  fleet: string;
  store: Store;
  targets: Targets;
  /** The release with the deltas that were made for it later. */
  offer: (release: Release) => Release;
  addresses: () => { url: string; mqttUrl: string };
  log: BaseLogger;
}

const chooseSchema = v.object({ release: v.string(), app: v.optional(v.string()) });
const whole = v.pipe(v.string(), v.regex(/^\d{1,15}$/, 'not a whole number'), v.transform(Number));
const eventsSchema = v.object({ device: v.optional(v.string()), after: v.optional(whole) });

export function statusOf(error: FleetError): ContentfulStatusCode {
  if (error.code === 'NOT_FOUND') return 404;
  if (error.code === 'AMBIGUOUS') return 409;
  if (error.code === 'TOO_LARGE') return 413;
  if (error.code === 'BUSY') return 503;
  return error.blame === 'hub' ? 500 : 400;
}

export const errorBody = (error: FleetError) => ({
  error: { code: error.code, text: error.message, next: error.next },
});

export function createApi({ fleet, store, targets, offer, addresses, log }: ApiOptions): Hono {
  const target = () => {
    const record = store.target();
    return { ...record, release: record.release && offer(record.release) };
  };
  const status = () => ({
    fleet,
    ...addresses(),
    target: target(),
    devices: store.devices(),
    releases: store.releases(LIMITS.releasesPerAnswerMax),
  });
  const api = new Hono();

  api.get('/healthz', (context) => context.json({ ok: true }));
  api.get('/v1/status', (context) => context.json(status()));
  api.get('/v1/devices', (context) => context.json({ devices: store.devices() }));
  api.get('/v1/releases', (context) =>
    context.json({ releases: store.releases(LIMITS.releasesPerAnswerMax) }),
  );
  api.get('/v1/events', (context) => {
    const { device, after } = parsed(eventsSchema, context.req.query());
    const events = store.events({
      ...(device === undefined ? {} : { device }),
      ...(after === undefined ? {} : { afterId: after }),
      limit: LIMITS.eventsPerAnswerMax,
    });
    return context.json({ events, after: events.at(-1)?.id ?? after ?? 0 });
  });

  const tooLarge = () => {
    throw new FleetError(
      'TOO_LARGE',
      'the request is too large',
      `send at most ${LIMITS.requestBytesMax} bytes`,
    );
  };
  api.post(
    '/v1/target',
    bodyLimit({ maxSize: LIMITS.requestBytesMax, onError: tooLarge }),
    async (context) => {
      // A form on a foreign web page cannot send this type without the browser asking first.
      if (!context.req.header('content-type')?.startsWith('application/json')) {
        throw new FleetError('BAD_REQUEST', 'the body is not JSON', 'send content-type: application/json');
      }
      const body = await context.req.json<unknown>().catch(() => undefined);
      const { release, app } = parsed(chooseSchema, body);
      const target = await targets.choose(release, app);
      log.info({ release, generation: target.generation }, 'target chosen');
      return context.json({ target });
    },
  );

  api.get('/', (context) => {
    const events = store.events({ limit: LIMITS.eventsPerAnswerMax }).reverse();
    return context.html(statusPage({ ...status(), events, nowMs: Date.now() }), 200, {
      'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
    });
  });

  api.notFound((context) => {
    const error = new FleetError(
      'NOT_FOUND',
      `there is nothing at ${context.req.path}`,
      'GET /v1/status is a start',
    );
    return context.json(errorBody(error), 404);
  });
  api.onError((error, context) => {
    const told = asFleetError(error);
    if (told.blame === 'hub') log.error({ err: error, path: context.req.path }, 'request failed');
    return context.json(errorBody(told), statusOf(told));
  });
  return api;
}

function parsed<S extends v.GenericSchema>(schema: S, input: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  throw new FleetError('BAD_REQUEST', v.summarize(result.issues), 'correct the request');
}
