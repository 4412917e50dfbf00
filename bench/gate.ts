/**
 * `npm run bench -- gate [--count N] [--json]`: what the strict rotor gate costs: one way, app to flight controller and
 * back, over a plain pty and over one behind a gate, in turns in the same run. A gate process as an agent starts it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { GateClient } from '#agent/gate/client.ts';
import { createLog } from '#agent/log.ts';
import { table } from '#cli/text.ts';
import { Writer } from '#handover/mavlink/index.ts';
import { AGAIN, native, nowUs, READABLE } from '#handover/native.ts';
import { setFifo } from '#handover/realtime.ts';
import { commandLine } from '#scripts/command-line.ts';
import { spread } from './handover/report.ts';

const { values, whole } = commandLine('usage: npm run bench -- gate [--count N] [--json]', {
  options: { count: { type: 'string', default: '2000' }, json: { type: 'boolean', default: false } },
});
const count = whole('count', values.count, 1, 1_000_000);
const ANSWER_MS_MAX = 1_000;
/** Between two samples: nobody is warm from the last one. */
const PAUSE_MS = 2;

const frame = Buffer.from(
  new Writer({ systemId: 1, componentId: 191 }).encode('HIL_ACTUATOR_CONTROLS', {
    time_usec: 1,
    controls: Array.from({ length: 16 }, () => 0.5),
    mode: 129,
    flags: 1,
  }),
);

/** Frames that come at `fd` are told with the time. */
class Far {
  readonly #fd: number;
  readonly #chunk = Buffer.alloc(4_096);
  #got = 0;
  #come: ((atUs: number) => void) | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    native.watch(fd, READABLE, () => this.#read()).keepAlive(false);
  }
  #read(): void {
    const got = native.read(this.#fd, this.#chunk, 0, this.#chunk.length);
    if (got === AGAIN) return;
    this.#got += got;
    if (this.#got < frame.length) return;
    this.#got = 0;
    this.#come?.(nowUs());
  }
  comes(): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('a frame did not come')), ANSWER_MS_MAX);
      this.#come = (atUs) => {
        clearTimeout(timer);
        resolve(atUs);
      };
    });
  }
}

const directory = mkdtempSync(join(tmpdir(), 'midair-gate-'));
const [plain, gated] = [native.openPty(), native.openPty()];
const socket = join(directory, 'control.sock');
const log = createLog('bench', 'silent');
const gate = await GateClient.open({ socket, tty: gated.path, baud: 921_600, log });
const gateProcess = native.peer(native.unixConnect(socket)).pid;
const fifo = setFifo('flies');
const channel = gate.channel(1, 'unknown');
const ways = [
  { way: 'app to controller', over: 'plain', from: plain.slave, to: new Far(plain.master) },
  { way: 'app to controller', over: 'gate', from: channel, to: new Far(gated.master) },
  { way: 'controller to app', over: 'plain', from: plain.master, to: new Far(plain.slave) },
  { way: 'controller to app', over: 'gate', from: gated.master, to: new Far(channel) },
].map((one) => ({ ...one, us: [] as number[] }));
try {
  for (let at = -50; at < count; at += 1) {
    for (const { from, to, us } of ways) {
      const comes = to.comes();
      const startUs = nowUs();
      native.write(from, frame, 0, frame.length);
      const tookUs = (await comes) - startUs;
      if (at >= 0) us.push(tookUs);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
} finally {
  gate.close();
  process.kill(gateProcess, 'SIGKILL');
  rmSync(directory, { recursive: true });
}

const ms = (us: readonly number[]) => spread(us.map((one) => one / 1000));
const rows = ways.map(({ way, over, us }) => ({ way, over, ms: ms(us) }));
const added = ['app to controller', 'controller to app'].map((way) => {
  const [bare, behind] = rows.filter((row) => row.way === way);
  return { way, addedMsP50: (behind?.ms.p50 ?? Number.NaN) - (bare?.ms.p50 ?? Number.NaN) };
});
if (values.json) {
  process.stdout.write(
    `${JSON.stringify({ count, fifo: fifo === undefined, load: loadavg()[0], rows, added })}\n`,
  );
} else {
  const cells = ({ p50, p90, p99, max }: (typeof rows)[number]['ms']) =>
    [p50, p90, p99, max].map((one) => one.toFixed(3));
  process.stdout.write(
    table(
      ['one way, ms', 'over', 'p50', 'p90', 'p99', 'max'],
      rows.map((row) => [row.way, row.over, ...cells(row.ms)]),
    ),
  );
  for (const { way, addedMsP50 } of added)
    process.stdout.write(`${way}: ${addedMsP50.toFixed(3)} ms added (p50)\n`);
  process.stdout.write(
    `${count} samples each, ${fifo === undefined ? 'SCHED_FIFO' : `no SCHED_FIFO: ${fifo}`}\n`,
  );
}
process.exit();
