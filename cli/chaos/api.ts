/**
 * The injector's HTTP API (docs/chaos.md): POST and GET /v1/chaos, GET and DELETE /v1/chaos/{id}, GET /v1/chaos/events.
 *
 * Invariant: what comes in is parsed before it is used; every refusal has a code and says what to do. A browser's page on
 * this machine is refused: it would say where it comes from.
 */
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { EngineError } from '#agent/engine.ts';
import { ChaosError, textOf } from '#cli/chaos/errors.ts';
import { criteriaText } from '#cli/chaos/experiment.ts';
import type { Injector } from '#cli/chaos/injector.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import type { Experiment } from '#cli/chaos/schedule.ts';
import { monotonicMs } from '#cli/chaos/undo.ts';

export function createApi(injector: Injector): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    if (c.req.header('origin') !== undefined) {
      throw new ChaosError(
        'FOREIGN_ORIGIN',
        'from a page in a browser: use midair chaos, or a program of yours',
      );
    }
    await next();
  });
  const small = bodyLimit({
    maxSize: CHAOS.httpBodyBytesMax,
    onError: () => {
      throw new ChaosError('TOO_LARGE', `an experiment has at most ${CHAOS.httpBodyBytesMax} bytes`);
    },
  });
  app.post('/v1/chaos', small, async (c) => {
    const body: unknown = await c.req.json().catch(() => {
      throw new ChaosError('INVALID_REQUEST', 'the body is not JSON');
    });
    const { experiment, matches, notes } = await injector.create(body);
    return c.json({ experiment: experimentJson(experiment, injector), matches, notes }, 201);
  });
  app.get('/v1/chaos', (c) =>
    c.json({ experiments: injector.experiments.map((one) => experimentJson(one, injector)) }),
  );
  app.get('/v1/chaos/events', (c) => {
    const after = c.req.query('after') ?? '0';
    if (!/^\d{1,15}$/.test(after)) throw new ChaosError('INVALID_REQUEST', 'after: must be an event’s id');
    return c.json({ events: injector.events(Number(after)) });
  });
  app.get('/v1/chaos/:id', (c) =>
    c.json({ experiment: experimentJson(injector.find(c.req.param('id')), injector) }),
  );
  app.delete('/v1/chaos/:id', async (c) =>
    c.json({ experiment: experimentJson(await injector.stop(c.req.param('id')), injector) }),
  );
  app.notFound(() => {
    throw new ChaosError(
      'NOT_FOUND',
      'there is POST and GET /v1/chaos, GET and DELETE /v1/chaos/{id}, GET /v1/chaos/events',
    );
  });
  app.onError((error, c) => {
    const { code, status } =
      error instanceof ChaosError
        ? error
        : error instanceof EngineError
          ? ({ code: error.code, status: 502 } as const)
          : ({ code: 'INTERNAL', status: 500 } as const);
    return c.json({ code, error: textOf(error) }, status);
  });
  return app;
}

/** As the API shows it; times on the wall clock. */
export function experimentJson(one: Experiment, injector: Pick<Injector, 'active'>) {
  const { criteria, parameters, ...spec } = one.spec;
  const wall = (atMs: number) => new Date(Date.now() + atMs - monotonicMs()).toISOString();
  return {
    id: one.id,
    ...spec,
    criteria: criteriaText(criteria),
    parameters,
    phase: one.phase,
    why: one.why,
    createdAt: wall(one.createdMs),
    until: wall(one.untilMs),
    beats: one.beats,
    injections: one.injections,
    active: injector.active
      .filter(({ experiment }) => experiment === one.id)
      .map(({ id, target, phase, dueMs }) => ({
        id,
        target,
        phase,
        leftMs: Math.max(0, dueMs - monotonicMs()),
      })),
  };
}
export type ExperimentJson = ReturnType<typeof experimentJson>;
