/**
 * The px4 and ardupilot boards as a companion computer meets them: the simulator's own process, its pty, and the real
 * `serialport`. Measures real time: @flight.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SerialPort } from 'serialport';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  type Fields,
  type FieldsToSend,
  MAV,
  type MessageName,
  Parser,
  SignedLink,
  Writer,
} from '#handover/mavlink/index.ts';
import { nowUs } from '#handover/native.ts';
import { attitudeFields, HOVER_SHARE, moveFields, orderFields } from '#test/sim-boards-kit.ts';
import { flyUndisturbed, SimProcess, until } from '#test/sim-kit.ts';

const { CMD_DO_SET_MODE: DO_SET_MODE, CMD_COMPONENT_ARM_DISARM: ARM, CMD_NAV_TAKEOFF: TAKEOFF } = MAV;
const REBOOT = MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN;
const KEY = Buffer.alloc(32, 4);
const HEARTBEAT = {
  ...{ type: MAV.TYPE_ONBOARD_CONTROLLER, autopilot: MAV.AUTOPILOT_INVALID, base_mode: 0, custom_mode: 0 },
  ...{ system_status: MAV.STATE_ACTIVE, mavlink_version: 3 },
};
const POSITION = 'SET_POSITION_TARGET_LOCAL_NED';

const endings: (() => unknown)[] = [];
let atEase: () => void;
beforeAll(() => {
  atEase = flyUndisturbed();
});
afterAll(() => atEase());
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

class Companion {
  readonly #port: SerialPort;
  readonly #parser: Parser;
  readonly writer: Writer;
  readonly #last = new Map<string, object>();
  readonly #acks: Fields<'COMMAND_ACK'>[] = [];
  #beat: NodeJS.Timeout | undefined;

  static async open(path: string, writer?: Writer, key?: Uint8Array): Promise<Companion> {
    const signing = key && new SignedLink({ key, linkId: 1, lastTimestamp: 0 });
    const port = new SerialPort({ path, baudRate: 921_600, autoOpen: false });
    await new Promise<void>((resolve, reject) => port.open((error) => (error ? reject(error) : resolve())));
    const mine = writer ?? new Writer({ systemId: 1, componentId: 191, signing });
    const companion = new Companion(port, mine, new Parser({ signing }));
    endings.push(() => companion.close());
    return companion;
  }

  private constructor(port: SerialPort, writer: Writer, parser: Parser) {
    this.#port = port;
    this.writer = writer;
    this.#parser = parser;
    port.on('data', (bytes: Buffer) => {
      for (const frame of this.#parser.read(bytes)) {
        this.#last.set(frame.name, frame.fields);
        if (frame.name === 'COMMAND_ACK') this.#acks.push(frame.fields);
      }
    });
  }

  get counts() {
    return this.#parser.counts;
  }

  /** Of the board's newest word: what a setpoint says it answers. */
  get bootMs(): number {
    return this.last('ATTITUDE_QUATERNION')?.time_boot_ms ?? 0;
  }

  last<N extends MessageName>(name: N): Fields<N> | undefined {
    return this.#last.get(name) as Fields<N> | undefined;
  }

  write(bytes: Uint8Array): void {
    this.#port.write(Buffer.from(bytes));
  }

  send<N extends MessageName>(name: N, fields: FieldsToSend<N>): Uint8Array {
    const bytes = Uint8Array.from(this.writer.encode(name, fields));
    this.write(bytes);
    return bytes;
  }

  async order(command: number, ...params: number[]): Promise<number> {
    const before = this.#acks.length;
    this.send('COMMAND_LONG', orderFields(command, params));
    await until(`an answer to ${command}`, () => this.#acks.length > before);
    const ack = this.#acks[before];
    if (ack?.command !== command) throw new Error(`${command} was answered by ${JSON.stringify(ack)}`);
    return ack.result;
  }

  stream(hz: number, each: () => void): void {
    this.stop();
    this.#beat = setInterval(each, 1_000 / hz);
  }

  stop(): void {
    clearInterval(this.#beat);
  }

  async close(): Promise<void> {
    this.stop();
    if (this.#port.isOpen) await new Promise((resolve) => this.#port.close(resolve));
  }
}

const start = async (...args: string[]): Promise<SimProcess> => {
  const sim = await SimProcess.start('--no-camera', ...args);
  endings.push(() => sim.stop());
  return sim;
};
const wait = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms));
const height = async (sim: SimProcess): Promise<number> => -(await sim.state()).position[2];
const at = async (sim: SimProcess, goal: readonly number[]): Promise<boolean> => {
  const { position, velocity } = await sim.state();
  return (
    goal.every((each, axis) => Math.abs(each - (position[axis] as number)) < 0.35) &&
    Math.hypot(...velocity) < 0.5
  );
};

describe('px4', () => {
  test('offboard mode asked for, flown, handed from companion to companion, and lost', async () => {
    const sim = await start('--board', 'px4');
    const first = await Companion.open(sim.rotors);
    expect(await first.order(TAKEOFF, 0, 0, 0, 0, 0, 0, Number.NaN)).toBe(MAV.RESULT_ACCEPTED);
    expect(await first.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
    await until('it is up', async () => (await height(sim)) > 2);
    expect(await first.order(ARM, 0)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);

    // No stream, no offboard mode; with one of a second it is let in.
    expect(await first.order(DO_SET_MODE, 1, 6)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    const goal = [2, -1, -3] as const;
    const position = (companion: Companion) => () =>
      companion.send(POSITION, moveFields({ position: goal }, companion.bootMs));
    first.stream(50, position(first));
    await wait(200);
    expect(await first.order(DO_SET_MODE, 1, 6)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    await wait(1_200);
    expect(await first.order(DO_SET_MODE, 1, 6)).toBe(MAV.RESULT_ACCEPTED);
    await until('the position is reached', async () => await at(sim, goal));

    first.stream(100, () =>
      first.send(
        'SET_ATTITUDE_TARGET',
        attitudeFields([0.15, 0, 0], HOVER_SHARE / Math.cos(0.15), first.bootMs),
      ),
    );
    await until('the attitude is there', async () => Math.abs((await sim.state()).tiltDeg - 8.6) < 0.7);

    // The successor opens the port after the prior has closed it, and streams within COM_OF_LOSS_T.
    const handedUs = nowUs();
    await first.close();
    const second = await Companion.open(sim.rotors, first.writer);
    await until('it hears the board', () => second.bootMs > 0, 900);
    second.stream(50, position(second));
    await until('it flies on', async () => (await sim.judge(handedUs)).commands > 50);
    await until('it is where it was', async () => await at(sim, goal));
    const judged = await sim.judge(handedUs);
    expect(judged).toMatchObject({ failsafes: 0, stale: 0, ignored: 0, invalid: 0, missedCycles: 0 });
    expect(judged.gapMsMax).toBeLessThan(1_000);
    expect((await sim.state()).board).toMatchObject({ commandsLost: 0, kind: 'px4' });

    second.stop();
    await until('the failsafe', async () => (await sim.state()).failsafe);
    const { commands } = await sim.get<{ commands: { kind: string; gapMs: number | null }[] }>('/trace');
    const silence = commands.findLast(({ kind }) => kind === 'silence')?.gapMs ?? 0;
    expect(silence).toBeGreaterThanOrEqual(1_000);
    expect(silence).toBeLessThan(1_150);
    await until('it says Hold', () => second.last('HEARTBEAT')?.custom_mode === 0x304_0000);
    expect(second.last('HEARTBEAT')?.system_status).toBe(MAV.STATE_CRITICAL);
    await wait(1_000);
    expect(await height(sim)).toBeGreaterThan(2.5);
    expect(second.counts).toMatchObject({ badChecksums: 0 });
  }, 60_000);
});

describe('ardupilot', () => {
  test('GUIDED over a signed link: flown, handed over, expired; orders refused in the air, recorded ones always', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'midair-key-'));
    endings.push(() => rm(directory, { recursive: true, force: true }));
    const keyFile = join(directory, 'key');
    await writeFile(keyFile, KEY.toString('hex'), { mode: 0o600 });
    const sim = await start('--board', 'ardupilot', '--signing-key', keyFile);
    const first = await Companion.open(sim.rotors, undefined, KEY);
    expect(await first.order(MAV.CMD_SET_MESSAGE_INTERVAL, 31, 20_000)).toBe(MAV.RESULT_ACCEPTED);
    expect(await first.order(ARM, 1)).toBe(MAV.RESULT_FAILED);
    expect(await first.order(DO_SET_MODE, 1, 4)).toBe(MAV.RESULT_ACCEPTED);
    const disarm = first.send('COMMAND_LONG', orderFields(ARM, [0]));
    expect(await first.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
    expect(await first.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 3)).toBe(MAV.RESULT_ACCEPTED);
    await until('it is up', async () => (await height(sim)) > 2.7);
    expect(await first.order(ARM, 0)).toBe(MAV.RESULT_FAILED);
    expect(await first.order(REBOOT, 1)).toBe(MAV.RESULT_FAILED);
    for (let turn = 0; turn < 3; turn += 1) first.write(disarm);
    await until('the recorded order is refused', async () => (await sim.judge(0)).replayed === 3);
    expect((await sim.state()).armed).toBe(true);

    const lean = (companion: Companion) => () =>
      companion.send('SET_ATTITUDE_TARGET', attitudeFields([0.15, 0, 0], 0.5, companion.bootMs));
    first.stream(20, lean(first));
    await until('the attitude is there', async () => Math.abs((await sim.state()).tiltDeg - 8.6) < 0.7);

    const handedUs = nowUs();
    await first.close();
    await wait(1_500);
    const second = await Companion.open(sim.rotors, first.writer, KEY);
    await until('it hears the board', () => second.bootMs > 0, 900);
    second.stream(20, lean(second));
    await wait(1_000);
    const judged = await sim.judge(handedUs);
    expect(judged).toMatchObject({ failsafes: 0, stale: 0, doubled: 0, invalid: 0, replayed: 0 });
    expect(judged.gapMsMax).toBeGreaterThan(1_400);
    expect((await sim.state()).tiltDeg).toBeGreaterThan(7);

    second.stop();
    await wait(2_500);
    expect((await sim.state()).failsafe).toBe(false);
    await until('the last word stands no more', async () => (await sim.state()).failsafe, 2_000);
    await until('it is level', async () => (await sim.state()).tiltDeg < 1.5, 3_000);
    expect(await height(sim)).toBeGreaterThan(2.5);
    const { commands } = await sim.get<{ commands: { kind: string; gapMs: number | null }[] }>('/trace');
    const silence = commands.findLast(({ kind }) => kind === 'silence')?.gapMs ?? 0;
    expect(silence).toBeGreaterThan(3_000);
    expect(silence).toBeLessThan(3_150);

    expect(await second.order(MAV.CMD_NAV_LAND)).toBe(MAV.RESULT_ACCEPTED);
    await until('it landed', async () => (await sim.state()).landed, 20_000);
    expect(await sim.state()).toMatchObject({ armed: false, crashed: false });
    expect(await second.order(REBOOT, 1)).toBe(MAV.RESULT_ACCEPTED);
  }, 90_000);
});

test('a wire of 57,600 baud: 5.76 kB/s of whole frames, as many heartbeats as ever, orders obeyed', async () => {
  const sim = await start('--board', 'px4', '--baud', '57600');
  const companion = await Companion.open(sim.rotors);
  await until('it hears the board', () => companion.bootMs > 0);
  // 250 Hz of everything is more than this wire carries.
  expect(await companion.order(MAV.CMD_SET_MESSAGE_INTERVAL, 31, 4_000)).toBe(MAV.RESULT_ACCEPTED);
  expect(await companion.order(MAV.CMD_SET_MESSAGE_INTERVAL, 105, 4_000)).toBe(MAV.RESULT_ACCEPTED);
  companion.stream(1, () => companion.send('HEARTBEAT', HEARTBEAT));
  const { badChecksums } = companion.counts;
  await wait(3_000);
  const { board } = await sim.state();
  expect(board).toMatchObject({ baud: 57_600, wireInDroppedBytes: 0 });
  expect(board.framesDropped).toBeGreaterThan(100);
  expect(companion.counts.badChecksums).toBe(badChecksums);
  expect(await companion.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
});

test('the direct kind says so, and knows no setpoints', async () => {
  const sim = await start('--board', 'direct');
  const companion = await Companion.open(sim.rotors);
  companion.send(POSITION, moveFields({ position: [0, 0, -2] }));
  expect(await companion.order(DO_SET_MODE, 1, 6)).toBe(MAV.RESULT_UNSUPPORTED);
  expect((await sim.state()).board).toMatchObject({ kind: 'direct', baud: null });
});
