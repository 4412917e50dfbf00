/** The simulator as a process, over a real tty: what an app and the demo meet. */
import { existsSync, readlinkSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { SimError } from '#device-sim/options.ts';
import { startSim } from '#device-sim/sim.ts';
import type { Trace } from '#device-sim/summary.ts';
import { Parser } from '#handover/mavlink/index.ts';
import { native, nowUs } from '#handover/native.ts';
import { flyUndisturbed, SimProcess, TtyPilot, until } from '#test/sim-kit.ts';

const endings: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});
let atEase: () => void;
beforeAll(() => {
  atEase = flyUndisturbed();
});
afterAll(() => atEase());
const start = async (...args: string[]): Promise<SimProcess> => {
  const sim = await SimProcess.start(...args);
  endings.push(() => sim.stop());
  return sim;
};
const listen = (sim: SimProcess): TtyPilot => {
  const pilot = new TtyPilot(sim.rotors);
  endings.push(() => pilot.close());
  return pilot;
};
const height = async (sim: SimProcess): Promise<number> => -(await sim.state()).position[2];
const fly = async (sim: SimProcess): Promise<TtyPilot> => {
  const pilot = listen(sim);
  await until('it hovers', async () => {
    const { position, velocity } = await sim.state();
    return position[2] < -1.9 && Math.abs(velocity[2]) < 0.1;
  });
  return pilot;
};

test('flight over the tty: take-off, hover; the judge sees each command once', async () => {
  const sim = await start('--no-camera');
  expect((await sim.state()).landed).toBe(true);
  const pilot = await fly(sim);
  const from = nowUs();
  const heard = pilot.parser.counts.lost;
  const answered = pilot.answered.length;
  await until('five seconds', () => nowUs() - from > 5e6);
  pilot.flying = false;
  const sent = pilot.answered.slice(answered);
  const last = sent.at(-1) as number;
  const arrivals = async (): Promise<Trace['commands']> =>
    (await sim.get<Trace>('/trace')).commands.filter(({ kind }) => kind !== 'silence');
  await until('all arrived', async () => (await arrivals()).at(-1)?.imuUs === last);
  // Exactly what was sent, once each, in order.
  const commands = (await arrivals()).filter(({ imuUs }) => imuUs >= (sent[0] as number));
  expect(commands.map(({ imuUs }) => imuUs)).toEqual(sent);
  expect(commands.every(({ imuUs, tUs, kind }) => imuUs <= tUs && kind === 'fresh')).toBe(true);
  expect(sent.length).toBeGreaterThan(1_000);

  const to = from + 5e6;
  const summary = await sim.judge(from, to);
  expect(summary).toMatchObject({ doubled: 0, stale: 0, invalid: 0, ignored: 0, failsafes: 0 });
  expect(summary.epochs).toMatchObject([{ epoch: 1, commands: summary.commands }]);
  expect(summary.samples + summary.skippedTicks).toBeGreaterThanOrEqual(1_245);
  expect(summary.attitudeDegRms).toBeLessThan(1.5);
  expect(summary.altitudeErrorMMax).toBeLessThan(0.3);
  expect(pilot.parser.counts.lost).toBe(heard);
  expect(pilot.parser.counts).toMatchObject({ garbageBytes: 0, badChecksums: 0 });
  const { samples } = await sim.get<Trace>(`/trace?fromUs=${from}&toUs=${to}`);
  expect(samples.length).toBe(summary.samples);
  const times = samples.map(({ tUs }) => tUs);
  expect(times).toEqual(times.toSorted((a, b) => a - b));
});

test('silence in flight: the failsafe after 200 ms lands it; then it can be flown again, by a new process', async () => {
  const sim = await start('--no-camera');
  const pilot = await fly(sim);
  pilot.flying = false;
  await until('the failsafe', async () => (await sim.state()).failsafe);
  const { commands } = await sim.get<Trace>('/trace');
  const silence = commands.findLast(({ kind }) => kind === 'silence');
  expect(silence?.gapMs).toBeGreaterThanOrEqual(200);
  // The board's own lateness (see judge) extends it; it is bounded on any machine that can fly.
  expect(silence?.gapMs).toBeLessThan(300);
  await until('it landed', async () => (await sim.state()).landed, 20_000);
  expect(await sim.state()).toMatchObject({ failsafe: false, armed: false, crashed: false });
  pilot.close();
  const next = listen(sim);
  next.epoch = 2;
  await until('it flies again', async () => (await height(sim)) > 1);
  expect((await sim.judge(0)).failsafes).toBeGreaterThanOrEqual(1);
}, 60_000);

test('doubled, stale and future commands over the tty are counted exactly', async () => {
  const sim = await start('--no-camera');
  const pilot = await fly(sim);
  pilot.epoch = 5;
  await until('the new epoch is known', async () => (await sim.state()).epoch === 5);
  const from = nowUs();
  let turn = 0;
  pilot.onFrame = (frame) => {
    if (frame.name !== 'ATTITUDE_QUATERNION' || turn >= 100) return;
    turn += 1;
    if (turn % 10 === 0) pilot.command();
    if (turn % 20 === 0) pilot.command({ flags: 4 });
    if (turn % 50 === 0) pilot.command({ time_usec: pilot.pilot.answersUs + 1e6 });
  };
  await until('a hundred cycles', () => turn >= 100);
  await until('all arrived', async () => (await sim.judge(from)).invalid === 2);
  expect(await sim.judge(from)).toMatchObject({ doubled: 10, stale: 5, invalid: 2, failsafes: 0 });
}, 30_000);

test('a successor on the same tty: sequence handed over, no frame lost, nothing missed at the board', async () => {
  const sim = await start('--no-camera');
  const prior = await fly(sim);
  // Between two samples, in one turn of the event loop.
  await prior.next('ATTITUDE_QUATERNION');
  prior.flying = false;
  prior.close();
  const successor = listen(sim);
  successor.writer.sequence = prior.writer.sequence;
  successor.epoch = 2;
  const from = nowUs();
  await until('the successor flies', async () => (await sim.state()).epoch === 2);
  await until('a second', () => nowUs() - from > 1e6);
  const summary = await sim.judge(from - 1e6);
  expect(summary).toMatchObject({ doubled: 0, stale: 0, failsafes: 0 });
  expect(summary.epochs.map(({ epoch }) => epoch)).toEqual([1, 2]);
  expect((await sim.state()).board).toMatchObject({ commandsLost: 0, garbageBytes: 0 });
}, 30_000);

test('nobody reads for a while: who then opens the tty hears the present at once', async () => {
  const sim = await start('--no-camera');
  await until('two seconds of frames', async () => ((await sim.state()).board.ticks as number) > 500);
  expect((await sim.state()).board.bytesDiscarded).toBeGreaterThan(20_000);
  const opened = nowUs();
  const pilot = listen(sim);
  pilot.flying = false;
  const imu = await pilot.next('HIGHRES_IMU');
  // The kernel alone would begin with the first frames after power-on, two seconds ago.
  expect(imu.fields.time_usec).toBeGreaterThan(opened - 200_000);
  const before = pilot.parser.counts.frames;
  await until('it goes on', () => pilot.parser.counts.frames - before > 400);
});

test('an owner that commands but stopped reading: frames are dropped whole and counted', async () => {
  const sim = await start('--no-camera');
  const fd = native.openTty(sim.rotors, 921_600);
  endings.push(() => native.close(fd));
  const deaf = listen(sim);
  // Some commands keep the board convinced that somebody is there.
  await deaf.next('ATTITUDE_QUATERNION');
  deaf.flying = false;
  const imuUs = deaf.pilot.answersUs;
  deaf.close();
  const { writer } = deaf;
  await until(
    'frames are dropped',
    async () => {
      const bytes = writer.encode('HIL_ACTUATOR_CONTROLS', {
        time_usec: imuUs,
        controls: [0.1],
        mode: 0x81,
        flags: 1,
      });
      native.write(fd, bytes, 0, bytes.length);
      return ((await sim.state()).board.framesDropped as number) > 100;
    },
    20_000,
  );
  // Its successor finds the stream whole.
  const buffer = new Uint8Array(65_536);
  const parser = new Parser();
  const from = nowUs();
  while (nowUs() - from < 200_000) {
    const length = native.read(fd, buffer, 0, buffer.length);
    if (length > 0) parser.read(buffer.subarray(0, length));
    else await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(parser.counts.frames).toBeGreaterThan(50);
  expect(parser.counts.badChecksums).toBe(0);
}, 30_000);

test('garbage on the tty: the flight goes on', async () => {
  const sim = await start('--no-camera');
  const pilot = await fly(sim);
  const from = nowUs();
  const noise = Uint8Array.from({ length: 61 }, (_, i) => (i * 41 + 0xfd) & 0xff);
  let turn = 0;
  pilot.onFrame = () => {
    turn += 1;
    if (turn < 200 && turn % 8 === 0) pilot.write(noise);
  };
  await until('enough of it', () => turn > 800);
  const summary = await sim.judge(from);
  expect(summary).toMatchObject({ failsafes: 0, doubled: 0, stale: 0 });
  expect((await sim.state()).board.garbageBytes).toBeGreaterThanOrEqual(24 * noise.length);
  expect((await sim.state()).armed).toBe(true);
});

test('the camera and the board run side by side; a second camera reader is refused', async () => {
  const sim = await start();
  const pilot = await fly(sim);
  let bytes = 0;
  const reader = connect(sim.camera);
  endings.push(() => reader.destroy());
  reader.on('data', (chunk) => {
    bytes += chunk.length;
  });
  const from = nowUs();
  await until('pictures', () => bytes > 50_000);
  const second = connect(sim.camera);
  await new Promise((resolve) => second.resume().once('close', resolve));
  const camera = await sim.get<{ refused: number; reader: boolean; visible: { dropped: number } }>('/camera');
  expect(camera).toMatchObject({ refused: 1, reader: true, visible: { dropped: 0 } });
  expect(await sim.judge(from)).toMatchObject({ failsafes: 0, doubled: 0, stale: 0 });
  expect(pilot.parser.counts.badChecksums).toBe(0);
});

test('the HTTP API: battery both ways, wrong requests refused with what is wrong', async () => {
  const sim = await start('--no-camera');
  const post = async (body: string): Promise<Response> =>
    await fetch(`${sim.url}/battery`, { method: 'POST', body });
  expect((await post('{"percent":15}')).status).toBe(200);
  await until('the battery is set', async () => (await sim.state()).battery === 15);
  for (const body of ['{"percent":101}', '{"percent":"15"}', '{}', 'no JSON']) {
    const response = await post(body);
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([
      400,
      'INVALID_REQUEST',
    ]);
  }
  expect((await post('x'.repeat(10_000))).status).toBe(413);
  expect(await sim.get('/judge?fromUs=now')).toMatchObject({ code: 'INVALID_REQUEST' });
  expect(await sim.get('/trace?fromUs=9&toUs=8')).toMatchObject({ error: 'fromUs: is after toUs' });
  expect(await sim.get('/nothing')).toMatchObject({ code: 'NOT_FOUND' });
});

test('SIGTERM leaves nothing behind, even when it comes again and again', async () => {
  const sim = await start();
  const tty = readlinkSync(sim.rotors);
  expect(existsSync(tty)).toBe(true);
  const again = setInterval(() => sim.child.kill('SIGTERM'), 1);
  endings.push(() => clearInterval(again));
  await until('it ended', () => sim.child.exitCode !== null || sim.child.signalCode !== null);
  for (const path of [sim.rotors, sim.camera, join(sim.directory, 'sim.lock')]) {
    expect(existsSync(path), path).toBe(false);
  }

  const other = await start('--no-camera');
  other.child.kill('SIGTERM');
  await until('it ended', () => other.child.exitCode !== null || other.child.signalCode !== null);
  expect(other.child.exitCode).toBe(0);
});

test('options: each wrong one is named; one simulator a directory; what a killed one left is replaced', async () => {
  const refusal = async (options: object): Promise<string> => {
    try {
      const sim = await startSim(options as { dir: string });
      await sim.close();
      return 'started';
    } catch (error) {
      expect(error).toBeInstanceOf(SimError);
      return (error as SimError).message;
    }
  };
  expect(await refusal({ dir: '' })).toBe('INVALID_OPTIONS: dir must name a directory');
  expect(await refusal({ dir: 'x'.repeat(96) })).toMatch('INVALID_OPTIONS: dir must be at most 95 bytes');
  expect(await refusal({ dir: '/tmp/x', seed: -1 })).toBe('INVALID_OPTIONS: seed must be at least 0');
  expect(await refusal({ dir: '/tmp/x', seed: 1.5 })).toBe('INVALID_OPTIONS: seed must be a whole number');
  expect(await refusal({ dir: '/tmp/x', port: 70_000 })).toBe('INVALID_OPTIONS: port must be at most 65535');
  expect(await refusal({ dir: '/tmp/x', board: 'pixhawk' })).toBe(
    'INVALID_OPTIONS: board must be direct, px4 or ardupilot',
  );
  expect(await refusal({ dir: '/tmp/x', baud: 300 })).toBe('INVALID_OPTIONS: baud must be at least 1200');
  expect(await refusal({ dir: '/tmp/x', baud: 2e7 })).toBe('INVALID_OPTIONS: baud must be at most 12000000');
  expect(await refusal({ dir: '/tmp/x', baud: Number.NaN })).toMatch(
    'INVALID_OPTIONS: baud must be a number',
  );
  expect(await refusal({ dir: '/tmp/x', sed: 1 })).toMatch('INVALID_OPTIONS: sed');
  expect(await refusal({ dir: '/tmp/x', signingKey: '/tmp/x/none' })).toMatch(
    'cannot read /tmp/x/none (ENOENT)',
  );
  expect(await refusal({ dir: '/dev/null/x' })).toMatch(/^DIRECTORY: .*name a directory that can be written/);

  const sim = await start('--no-camera');
  expect(await refusal({ dir: sim.directory })).toMatch(/^ALREADY_RUNNING: a simulator runs in /);
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  endings.push(() => taken.close());
  const { port } = taken.address() as { port: number };
  const other = await mkdtemp(join(tmpdir(), 'midair-sim-'));
  endings.push(() => rm(other, { recursive: true, force: true }));
  expect(await refusal({ dir: other, port })).toMatch(/^NO_START: the HTTP API did not start: .*EADDRINUSE/);
  expect(existsSync(join(other, 'sim.lock'))).toBe(false);

  sim.child.kill('SIGKILL');
  await until('it ended', () => sim.child.signalCode !== null);
  expect(existsSync(join(sim.directory, 'sim.lock'))).toBe(true);
  await writeFile(join(sim.directory, 'rotors.new'), 'left over');
  const again = await startSim({ dir: sim.directory, fifo: false, logLevel: 'silent' });
  expect(again.ready.fifo).toBe(false);
  expect(existsSync(again.ready.rotors)).toBe(true);
  await again.close();
  await again.ended;
}, 30_000);
