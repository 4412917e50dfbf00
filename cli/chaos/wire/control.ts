/**
 * The link's own door, on a unix socket that only its user may open: POST /faults, DELETE /faults/{id}, GET /.
 *
 * Invariant: what comes in is parsed before it is used.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as v from 'valibot';
import { WAYS } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import type { Link } from '#cli/chaos/wire/link.ts';

const number = (max: number) => v.pipe(v.number(), v.minValue(0), v.maxValue(max));
const faultSchema = v.object({
  id: v.pipe(v.string(), v.nonEmpty(), v.maxLength(200)),
  failure: v.picklist(['latency', 'loss', 'partition']),
  way: v.picklist(WAYS),
  latencyMs: number(CHAOS.latencyMsMax),
  jitterMs: number(CHAOS.latencyMsMax),
  lossPercent: number(100),
  seed: number(0xffff_ffff),
  forMs: number(CHAOS.durationMsMax + CHAOS.graceMs),
});

export async function openControl(link: Link, path: string): Promise<Server> {
  const app = new Hono();
  const small = bodyLimit({ maxSize: CHAOS.httpBodyBytesMax });
  app.get('/', (c) => c.json(link.state()));
  app.post('/faults', small, async (c) => {
    const result = v.safeParse(faultSchema, await c.req.json().catch(() => undefined));
    if (!result.success) {
      return c.json({ code: 'INVALID_REQUEST', error: v.summarize(result.issues) }, 400);
    }
    if (await link.set(result.output)) return c.json({ set: true });
    return c.json({ code: 'TOO_MANY', error: `at most ${CHAOS.wireFaultsMax} faults` }, 409);
  });
  app.delete('/faults/:id', async (c) => c.json({ cleared: await link.clear(c.req.param('id')) }));
  const server = createServer(getRequestListener(app.fetch));
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
  chmodSync(path, 0o600);
  return server;
}
