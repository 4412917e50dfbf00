/**
 * Delta sizes and times beside Debian's xdelta3 and zstd, on the same two tars, in the same run.
 *
 *   node bench/deltas.ts [--json] [OLD.tar NEW.tar]
 *
 * Without tars: an app of 2,000 source files of which 5 change, every mtime fresh; and a file of 24 MB with a few bytes
 * put in, taken out and changed. A peer that is not installed is left out.
 */
import { spawnSync } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { pack } from 'tar-stream';
import {
  applyLayer,
  basisFromLayers,
  fileAccess,
  type LayerSource,
  makeDelta,
  openDelta,
} from '#deltas/index.ts';

interface Row {
  pair: string;
  tool: string;
  bytes: number;
  makeMs: number;
  applyMs: number | undefined;
}

const sha256 = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return `sha256:${hash.digest('hex')}`;
};
const noise = (bytes: number, seed: string): Buffer =>
  createCipheriv('aes-128-ctr', seed.padEnd(16).slice(0, 16), Buffer.alloc(16)).update(Buffer.alloc(bytes));

type Files = Iterable<{ name: string; content: Buffer; mtime: number }>;
async function tar(path: string, files: Files): Promise<string> {
  const stream = pack();
  for (const { name, content, mtime } of files)
    stream.entry({ name, mtime: new Date(mtime * 1000) }, content);
  stream.finalize();
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  writeFileSync(path, Buffer.concat(parts));
  return path;
}

function* app(changed: boolean): Files {
  const words = ['const', 'await', 'rotor', 'state', 'limit', 'epoch', 'camera', 'frame', 'value', 'return'];
  for (let at = 0; at < 2_000; at += 1) {
    const random = noise(4_000, `app ${at}`);
    let text = changed && at % 400 === 7 ? '// a line put in\n' : '';
    for (let line = 0; line < 20 + ((at * 7) % 90); line += 1) {
      const [a = 0, b = 0, c = 0, d = 0] = random.subarray(4 * line);
      text += `  ${words[a % 10]} ${words[b % 10]}${c} = ${words[d % 10]}(${a ^ d});\n`;
    }
    const folder = `app/node_modules/package-${String(Math.floor(at / 12)).padStart(4, '0')}`;
    const mtime = (changed ? 1_700_000_000 : 1_690_000_000) + ((random[3_999] as number) % 4);
    yield { name: `${folder}/file-${at}.js`, content: Buffer.from(text), mtime };
  }
}

function* large(changed: boolean): Files {
  const old = noise(24_000_000, 'large');
  const young = [
    old.subarray(0, 5e6),
    Buffer.from('put in'),
    old.subarray(5e6, 12e6),
    old.subarray(12e6 + 100),
  ];
  const content = changed ? Buffer.concat(young) : old;
  content[20_000_000] = changed ? 1 : 0;
  yield { name: 'model.bin', content, mtime: changed ? 2 : 1 };
}

async function ours(folder: string, pair: string, old: string, young: string): Promise<Row[]> {
  const layer = async (path: string): Promise<LayerSource> => ({
    diffId: await sha256(path),
    bytes: statSync(path).size,
    open: () => createReadStream(path) as AsyncIterable<Uint8Array>,
  });
  const [basis, target] = [await layer(old), await layer(young)];
  const rows: Row[] = [];
  for (const listing of ['never', 'auto'] as const) {
    const output = join(folder, 'delta');
    const start = performance.now();
    const { bytes, summary } = await makeDelta({
      basisId: basis.diffId,
      basisLayers: [basis],
      targetId: target.diffId,
      targetLayers: [target],
      scratchDirectory: folder,
      output,
      listing,
    });
    const makeMs = performance.now() - start;
    const files = await basisFromLayers([basis], folder);
    const artifact = await fileAccess(output);
    const from = performance.now();
    for await (const _ of applyLayer(await openDelta(artifact), target.diffId, files));
    const applyMs = performance.now() - from;
    await artifact.close();
    await files.close();
    if (listing === 'never' || summary.needsList) {
      rows.push({
        pair,
        tool: listing === 'auto' ? 'midair, listed basis' : 'midair',
        bytes,
        makeMs,
        applyMs,
      });
    }
  }
  return rows;
}

function peer(pair: string, tool: string, command: string[], output: string): Row[] {
  const start = performance.now();
  const { status } = spawnSync(command[0] as string, command.slice(1), { stdio: 'ignore' });
  if (status !== 0) return [];
  return [
    { pair, tool, bytes: statSync(output).size, makeMs: performance.now() - start, applyMs: undefined },
  ];
}

async function measure(folder: string, pair: string, old: string, young: string): Promise<Row[]> {
  const out = (name: string): string => join(folder, name);
  const bytes = statSync(young).size;
  return [
    { pair, tool: 'raw', bytes, makeMs: 0, applyMs: undefined },
    ...peer(pair, 'zstd -19', ['zstd', '-19', '-f', '-q', young, '-o', out('z')], out('z')),
    ...peer(pair, 'xdelta3 -9', ['xdelta3', '-9', '-f', '-e', '-s', old, young, out('x')], out('x')),
    ...peer(
      pair,
      'zstd --patch-from -19',
      ['zstd', '-19', '--long=27', '-f', '-q', `--patch-from=${old}`, young, '-o', out('p')],
      out('p'),
    ),
    ...(await ours(folder, pair, old, young)),
  ];
}

const { values, positionals } = parseArgs({ options: { json: { type: 'boolean' } }, allowPositionals: true });
const folder = mkdtempSync(join(tmpdir(), 'bench-deltas-'));
try {
  const rows: Row[] = [];
  const [old, young] = positionals;
  if (old !== undefined && young !== undefined) {
    rows.push(...(await measure(folder, 'given', old, young)));
  } else {
    for (const [pair, files] of [
      ['app update', app],
      ['24 MB file', large],
    ] as const) {
      const before = await tar(join(folder, 'old.tar'), files(false));
      const after = await tar(join(folder, 'new.tar'), files(true));
      rows.push(...(await measure(folder, pair, before, after)));
    }
  }
  if (values.json === true) {
    console.log(JSON.stringify({ bench: 'deltas', node: process.version, rows }));
  } else {
    const ms = (value: number | undefined): string => (value ? value.toFixed(0) : '');
    console.log(
      `${'pair'.padEnd(12)}${'tool'.padEnd(24)}${'bytes'.padStart(12)}${'make ms'.padStart(10)}${'apply ms'.padStart(10)}`,
    );
    for (const { pair, tool, bytes, makeMs, applyMs } of rows) {
      const sizes = bytes.toLocaleString('en-US').padStart(12);
      console.log(
        `${pair.padEnd(12)}${tool.padEnd(24)}${sizes}${ms(makeMs).padStart(10)}${ms(applyMs).padStart(10)}`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
