/** Loads the base image into an engine and says what it is: `node scripts/base-image.ts [unix:///…/docker.sock]`. */
import { ensureBaseImage } from '#cli/base-image.ts';
import { connect, openEngine } from '#cli/engine.ts';

const named = process.argv[2];
const engine = named === undefined ? await openEngine({ name: 'base' }) : undefined;
try {
  const startMs = performance.now();
  const base = await ensureBaseImage(engine?.docker ?? connect(named as string));
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  const how = base.wasLoaded
    ? `loaded in ${((performance.now() - startMs) / 1000).toFixed(1)} s`
    : 'was there';
  process.stdout.write(`midair/node24 ${base.id} ${megabytes(base.bytes)} (${how})\n`);
  for (const layer of base.layers) process.stdout.write(`  ${layer.diffId} ${megabytes(layer.bytes)}\n`);
} finally {
  await engine?.close();
}
