/**
 * `npm run bench -- deltas [--pair NAME]… [--json] [OLD.tar NEW.tar]`: sizes, times and memory of both ends, beside Debian's xdelta3,
 * zstd, bsdiff and rdiff (librsync, as balenaEngine uses it) on the same two tars in the same run.
 *
 * Without tars: the pairs of bench/deltas/pairs.ts. A peer that is not installed is left out, and so is a pair whose packages are not
 * to be had. Memory is the kernel's peak of the whole process; for our apply, what it rose over the process's baseline.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { APPLY_FLAGS } from '#deltas/trial.ts';
import { commandLine } from '#scripts/command-line.ts';
import { PAIRS } from './deltas/pairs.ts';
import { measured } from './deltas/run.ts';

interface Row {
  pair: string;
  tool: string;
  bytes: number;
  makeMs?: number;
  makePeakBytes?: number;
  applyMs?: number;
  /** User and system time. */
  applyCpuMs?: number;
  applyPeakBytes?: number;
  /** What applying gives: the tar's length. */
  outputBytes: number;
}

/** bsdiff holds 17 times the file. */
const BSDIFF_BYTES_MAX = 300 * 1024 ** 2;
const LEVEL = ['-19', '-f', '-q'];
/** The kernel counts in steps of 10 ms: below this a speed says nothing. */
const CPU_MS_MIN = 100;

const USAGE = `usage: npm run bench -- deltas [--pair NAME]… [--json] [OLD.tar NEW.tar]
pairs: ${PAIRS.map(({ name }) => name).join(', ')}`;
const { values, positionals, refuse } = commandLine(USAGE, {
  options: { json: { type: 'boolean', default: false }, pair: { type: 'string', multiple: true } },
  allowPositionals: true,
});
const unknown = values.pair?.filter((name) => !PAIRS.some((pair) => pair.name === name)) ?? [];
if (unknown.length > 0) refuse(`there is no pair ${unknown.join(', ')}`);
if (positionals.length === 1 || positionals.length > 2) refuse('two tars are compared: OLD.tar NEW.tar');

interface Peer {
  tool: string;
  make: string[];
  apply: string[];
  fits?: boolean;
}

const peers = (old: string, young: string, delta: string, back: string, bytes: number): Peer[] => [
  {
    tool: 'zstd -19',
    make: ['zstd', ...LEVEL, young, '-o', delta],
    apply: ['zstd', '-d', '-f', '-q', delta, '-o', back],
  },
  {
    tool: 'rdiff 512 + zstd -19',
    make: [
      'sh',
      '-c',
      'rdiff -b 512 signature "$1" "$3.sig" && rdiff delta "$3.sig" "$2" "$3.raw" && zstd -19 -f -q "$3.raw" -o "$3"',
      'sh',
      old,
      young,
      delta,
    ],
    apply: [
      'sh',
      '-c',
      'zstd -d -f -q "$2" -o "$2.raw" && rdiff -f patch "$1" "$2.raw" "$3"',
      'sh',
      old,
      delta,
      back,
    ],
  },
  {
    tool: 'xdelta3 -9',
    make: ['xdelta3', '-9', '-f', '-e', '-s', old, young, delta],
    apply: ['xdelta3', '-f', '-d', '-s', old, delta, back],
  },
  {
    tool: 'zstd --patch-from -19',
    make: ['zstd', ...LEVEL, '--long=27', `--patch-from=${old}`, young, '-o', delta],
    apply: ['zstd', '-d', '-f', '-q', '--long=31', `--patch-from=${old}`, delta, '-o', back],
  },
  {
    tool: 'bsdiff',
    make: ['bsdiff', old, young, delta],
    apply: ['bspatch', old, back, delta],
    fits: bytes <= BSDIFF_BYTES_MAX,
  },
];

async function measure(folder: string, pair: string, old: string, young: string): Promise<Row[]> {
  const bytes = statSync(young).size;
  const rows: Row[] = [{ pair, tool: 'raw', bytes, outputBytes: bytes }];
  const [delta, back] = [join(folder, 'delta'), join(folder, 'back')];
  const say = (row: Row): void => {
    rows.push(row);
    process.stderr.write(`${pair}: ${row.tool} ${row.bytes.toLocaleString('en-US')}\n`);
  };
  for (const { tool, make, apply, fits } of peers(old, young, delta, back, bytes)) {
    if (fits === false) continue;
    const [program, ...args] = make as [string, ...string[]];
    const made = await measured(program, args);
    if (!made.ok) continue;
    const [other, ...more] = apply as [string, ...string[]];
    const applied = await measured(other, more);
    const row: Row = {
      pair,
      tool,
      bytes: statSync(delta).size,
      makeMs: made.ms,
      makePeakBytes: made.peakBytes,
      outputBytes: bytes,
    };
    const { ms, cpuMs, peakBytes } = applied;
    say(applied.ok ? { ...row, applyMs: ms, applyCpuMs: cpuMs, applyPeakBytes: peakBytes } : row);
  }
  const made = await measured(process.execPath, [
    join(PACKAGE_ROOT, 'cli/bin.ts'),
    'delta',
    'create',
    old,
    young,
    '-o',
    delta,
  ]);
  if (!made.ok) throw new Error(`midair delta create failed on ${pair}`);
  const script = join(PACKAGE_ROOT, 'bench/deltas/apply.ts');
  const applied = await measured(process.execPath, ['--expose-gc', ...APPLY_FLAGS, script, old, delta]);
  if (!applied.ok) throw new Error(`our own delta does not apply on ${pair}`);
  const { ms, cpuMs, overBytes } = JSON.parse(applied.stdout) as Record<'ms' | 'cpuMs' | 'overBytes', number>;
  say({
    pair,
    tool: 'midair',
    bytes: statSync(delta).size,
    makeMs: made.ms,
    makePeakBytes: made.peakBytes,
    applyMs: ms,
    applyCpuMs: cpuMs,
    applyPeakBytes: overBytes,
    outputBytes: bytes,
  });
  return rows;
}

const rows: Row[] = [];
const folder = mkdtempSync(join(tmpdir(), 'bench-deltas-'));
try {
  const [old, young] = positionals;
  if (old !== undefined && young !== undefined) {
    rows.push(...(await measure(folder, 'given', old, young)));
  } else {
    for (const one of PAIRS) {
      const { name, what } = one;
      if (values.pair !== undefined && !values.pair.includes(name)) continue;
      const place = mkdtempSync(join(folder, `${name}-`));
      process.stderr.write(`${name}: ${what}\n`);
      const tars = one.build(place);
      if (tars === undefined)
        process.stderr.write(`${name}: left out, its packages or compiler are not to be had\n`);
      else rows.push(...(await measure(place, name, ...tars)));
      rmSync(place, { recursive: true, force: true });
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

if (values.json) {
  console.log(JSON.stringify({ bench: 'deltas', node: process.version, rows }));
} else {
  const number = (value: number | undefined, unit: number, digits: number): string =>
    value === undefined ? '' : (value / unit).toFixed(digits);
  const line = (cells: string[]): string =>
    cells
      .map((cell, at) => (at < 2 ? cell.padEnd(at === 0 ? 15 : 24) : cell.padStart(13)))
      .join('')
      .trimEnd();
  console.log(
    line(['pair', 'tool', 'bytes', 'of ours', 'make s', 'make MiB', 'apply s', 'MB/s a core', 'apply MiB']),
  );
  for (const row of rows) {
    const { pair, tool, bytes, makeMs, makePeakBytes, applyMs, applyCpuMs, applyPeakBytes, outputBytes } =
      row;
    const perCore =
      applyCpuMs === undefined || applyCpuMs < CPU_MS_MIN ? undefined : outputBytes / applyCpuMs;
    const ours = rows.find((one) => one.pair === pair && one.tool === 'midair')?.bytes ?? bytes;
    console.log(
      line([
        pair,
        tool,
        bytes.toLocaleString('en-US'),
        (bytes / ours).toFixed(1),
        number(makeMs, 1000, 1),
        number(makePeakBytes, 1024 ** 2, 0),
        number(applyMs, 1000, 2),
        number(perCore, 1000, 0),
        number(applyPeakBytes, 1024 ** 2, 0),
      ]),
    );
  }
}
