/**
 * The tape beside a real simulator and a pilot on its tty: what is on the record is what the judge saw, sample by sample,
 * whatever the looks are. Measures real time: @flight
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FlightRecorder } from '#cli/fly/recorder.ts';
import { Tape } from '#cli/fly/tape.ts';
import { SimClient } from '#cli/sim-client.ts';
import { nowUs } from '#handover/native.ts';
import { readRecord } from '#test/fly-kit.ts';
import { flyUndisturbed, SimProcess, TtyPilot, until } from '#test/sim-kit.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-tape-'));
let sim: SimProcess;
let pilot: TtyPilot;
const calm = flyUndisturbed();

beforeAll(async () => {
  sim = await SimProcess.start('--no-camera');
});
afterAll(async () => {
  pilot.close();
  await sim.stop();
  calm();
  rmSync(directory, { recursive: true, force: true });
});

test('a flight with two owners, a stale command and a doubled one', async () => {
  const recorder = await FlightRecorder.open(join(directory, 'flight.mcap'), 'drone-1', 0);
  const fromUs = nowUs();
  const client = new SimClient(sim.url);
  const tape = new Tape(client, recorder, (epoch) => `v${epoch}`, fromUs);
  pilot = new TtyPilot(sim.rotors);
  let over = false;
  const taking = (async () => {
    for (let look = 0; !over; look += 1) {
      await new Promise((resolve) => setTimeout(resolve, 150 + 100 * (look % 3)));
      await tape.take(nowUs() - 300_000);
    }
  })();
  await until('it is up', async () => (await sim.state()).position[2] < -1);
  pilot.epoch = 2;
  await until('the second flies', async () => (await sim.state()).epoch === 2);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  pilot.command({ flags: 1 });
  pilot.command();
  await new Promise((resolve) => setTimeout(resolve, 500));
  over = true;
  await taking;
  const toUs = nowUs();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await tape.end(toUs);
  await recorder.close();

  const judged = await sim.judge(fromUs, toUs);
  const { totals, changes, points } = tape;
  expect(totals).toMatchObject({
    ...{ commands: judged.commands, samples: judged.samples, stale: judged.stale, doubled: judged.doubled },
    failsafes: 0,
  });
  expect(totals.tiltDegMax).toBe(judged.attitudeDegMax);
  expect(judged).toMatchObject({ stale: 1, doubled: 1 });

  const { messages } = await readRecord(recorder.path);
  const of = (topic: string) => messages.filter((message) => message.topic === topic);
  expect(of('/commands').length).toBe(judged.commands);
  expect(of('/imu').length).toBe(judged.samples);
  expect(of('/owner').map(({ data }) => data.sender)).toEqual(['v1', 'v2']);
  // Nothing twice, nothing left out: the board's own times, in order.
  const times = of('/imu').map(({ logTime }) => logTime);
  expect(new Set(times).size).toBe(times.length);
  expect([...times].sort((a, b) => (a < b ? -1 : 1))).toEqual(times);

  expect(changes.length).toBe(1);
  expect(changes[0]).toMatchObject({ before: 1, after: 2 });
  expect(changes[0]?.judged.gapMsMax).toBeLessThan(100);
  expect(changes[0]?.trace.commands.length).toBeGreaterThan(50);
  expect(points.at(-1)?.epoch).toBe(2);
  expect(points.at(-1)?.up).toBeGreaterThan(0.9);
}, 60_000);
