/**
 * The program that rebuilds an image's layers and serves them to the engine: one order in, then it answers the engine until it
 * is told to stop or its agent is gone. See patcher.ts.
 */
import { readFile } from 'node:fs/promises';
import { LIMITS } from '#agent/images/limits.ts';
import type { Order, Told, ToPatcher } from '#agent/images/patcher.ts';
import { openRegistry } from '#agent/images/registry.ts';
import { openLayers } from '#agent/images/sources.ts';
import { toPlain } from '#agent/images/told-error.ts';

const closing = new AbortController();
const fetches = new Map<number, PromiseWithResolvers<string>>();
let fetchId = 0;
let serving: Promise<void> = Promise.resolve();
let closeAll = async (): Promise<void> => {};

const tell = (told: Told): void => void process.send?.(told);

/** The network is the agent's: it keeps account of what came over it. */
const fetch: Order['fetch'] = (blob) => {
  const answer = Promise.withResolvers<string>();
  fetchId += 1;
  fetches.set(fetchId, answer);
  tell({ type: 'fetch', id: fetchId, blob });
  return answer.promise;
};

async function serve(order: Omit<Order, 'fetch'>): Promise<void> {
  const { engine, name, image, config } = order;
  const layers = await openLayers({
    ...order,
    // Loaded when it is needed: it takes as much memory as all the rest here.
    docker: async () => new (await import('dockerode')).default(engine),
    fetched: new Set(order.fetched),
    fetch,
    signal: closing.signal,
  });
  closeAll = () => layers.close();
  let servedBytes = 0;
  let toldMs = 0;
  const registry = await openRegistry({
    name,
    configDigest: image.id,
    config: await readFile(config),
    layers: layers.served,
    onServed(bytes) {
      servedBytes += bytes;
      const nowMs = performance.now();
      if (nowMs - toldMs < LIMITS.servedIntervalMs) return;
      toldMs = nowMs;
      tell({ type: 'served', bytes: servedBytes });
      servedBytes = 0;
    },
    onFailure: (cause) => tell({ type: 'failed', error: toPlain(cause) }),
  });
  closeAll = async () => {
    await registry.close();
    await layers.close();
  };
  tell({ type: 'ready', repository: registry.repository, digest: registry.digest });
}

process.on('message', (message: ToPatcher) => {
  switch (message.type) {
    case 'order':
      serving = serve(message.order).catch((error: unknown) =>
        tell({ type: 'refused', error: toPlain(error) }),
      );
      return;
    case 'fetched': {
      const answer = fetches.get(message.id);
      fetches.delete(message.id);
      if ('path' in message) answer?.resolve(message.path);
      else answer?.reject(new Error(message.text));
      return;
    }
    case 'close':
      closing.abort(new Error('called off'));
      // A basis that is just being exported has a container to remove.
      void serving
        .then(() => closeAll())
        .catch(() => undefined)
        .then(() => process.exit(0));
  }
});
// Without its agent nobody pulls; what is left on the disk and the engine the next agent clears.
process.on('disconnect', () => process.exit(1));
