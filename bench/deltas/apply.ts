/**
 * `node bench/deltas/apply.ts OLD.tar DELTA`: rebuilds the layers and tells, as JSON, how long that took, how much of a core's time, and how far the process's
 * memory rose over what it was when the basis and the delta were open: the kernel's own figure (VmHWM), set back before.
 */
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applyLayer, basisFromLayers, fileAccess, openDelta } from '#deltas/index.ts';

const [old, path] = process.argv.slice(2) as [string, string];
const field = (name: string): number =>
  1024 *
  Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
const scratch = mkdtempSync(join(tmpdir(), 'bench-apply-'));
try {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(old)) hash.update(piece as Buffer);
  const layer = {
    diffId: `sha256:${hash.digest('hex')}`,
    bytes: statSync(old).size,
    open: () => createReadStream(old) as AsyncIterable<Uint8Array>,
  };
  const basis = await basisFromLayers([layer], scratch);
  const file = await fileAccess(path);
  const delta = await openDelta(file);
  globalThis.gc?.();
  // 5: the peak is the present from here on (proc(5), clear_refs).
  writeFileSync('/proc/self/clear_refs', '5');
  const before = field('VmRSS');
  const startMs = performance.now();
  const startCpu = process.cpuUsage();
  let bytes = 0;
  for (const { diffId } of delta.layers)
    for await (const chunk of applyLayer(delta, diffId, basis)) bytes += chunk.length;
  const ms = performance.now() - startMs;
  const cpu = process.cpuUsage(startCpu);
  const cpuMs = (cpu.user + cpu.system) / 1000;
  const overBytes = field('VmHWM') - before;
  await file.close();
  await basis.close();
  console.log(JSON.stringify({ ms, cpuMs, bytes, overBytes }));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
