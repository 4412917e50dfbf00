/**
 * A signed link from version to version: the example app's own rotors, real serial links on a pty, and the board of the
 * simulator, in virtual time, with the key.
 */
import { describe, expect, it, vi } from 'vitest';
import { HOVER } from '#apps/drone/flight/limits.ts';
import { Loop } from '#apps/drone/flight/loop.ts';
import { createRotors } from '#apps/drone/flight/rotors.ts';
import { Board } from '#device-sim/board.ts';
import { createHistory } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { summarise } from '#device-sim/summary.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import { type Frame, Parser, systemTicks, Writer } from '#handover/mavlink/index.ts';
import type { Signing } from '#handover/messages.ts';
import { AGAIN, native, READABLE } from '#handover/native.ts';
import type { RotorsPayload, SerialLink } from '#handover/serial.ts';
import { cleanUp, until } from './handover-kit.ts';

const KEY = Buffer.alloc(32, 9);
const START = 5_000_000_000;
const HOUR_TICKS = 360_000_000;
const LINK_ID = 1;

/** The board at the far end of a pty; it sees a command 1 ms after the sample that it answers. */
class Air {
  readonly history = createHistory();
  readonly truth = new Truth();
  readonly board: Board;
  readonly slave: number;
  /** Of every frame that arrived. */
  readonly sequences: number[] = [];
  readonly timestamps: number[] = [];
  readonly #master: number;
  readonly #parser = new Parser();
  #commands = 0;
  tUs = START;

  constructor(startTicks = systemTicks()) {
    const signing = { key: KEY, startTicks };
    const { history, truth } = this;
    this.board = new Board({ parameters: PARAMETERS, seed: 3, startUs: START, history, truth, signing });
    const { master, slave } = native.openPty();
    this.#master = master;
    this.slave = slave;
    const bytes = Buffer.alloc(4_096);
    const watcher = native.watch(master, READABLE, () => {
      const length = native.read(master, bytes, 0, bytes.length);
      if (length !== AGAIN) this.#take(bytes.subarray(0, length));
    });
    cleanUp(() => {
      watcher.close();
      native.close(master);
      native.close(slave);
    });
  }

  #take(bytes: Buffer): void {
    // The app writes frame by frame, but the tty does not keep them apart.
    for (let at = 0; at < bytes.length; ) {
      const next = at + 12 + (bytes[at + 1] as number) + (bytes[at + 2] === 1 ? 13 : 0);
      const frame = bytes.subarray(at, next);
      const [read] = this.#parser.read(frame) as [Frame];
      this.sequences.push(read.sequence);
      if (frame[2] === 1) this.timestamps.push(frame.readUIntLE(frame.length - 12, 6));
      if (read.name === 'HIL_ACTUATOR_CONTROLS') this.#commands += 1;
      at = next;
    }
    this.hear(bytes);
  }

  hear(bytes: Uint8Array): void {
    this.board.receive(bytes, this.tUs + 1_000);
  }

  /** One sample, without its answer. */
  say(): void {
    this.tUs += LIMITS.tickUs;
    this.repeat(this.board.tick(this.tUs, 0, 0));
  }

  repeat(bytes: Uint8Array): void {
    if (native.write(this.#master, bytes, 0, bytes.length) !== bytes.length)
      throw new Error('the pty is full');
  }

  /** Samples, each of them answered before the next. */
  async fly(ticks: number): Promise<void> {
    for (let tick = 0; tick < ticks; tick += 1) {
      const before = this.#commands;
      this.say();
      await until('the sample is answered', () => this.#commands === before + 1);
    }
  }

  get streams(): number {
    return this.truth.values[TRUTH.streams] as number;
  }

  judged() {
    return summarise(this.history, START, this.tUs + LIMITS.tickUs - 1);
  }
}

/** The agent's part: it knows the key, and what it heard. */
const signingFrom = (lastTimestamp: number): Signing => ({
  key: KEY.toString('base64'),
  linkId: LINK_ID,
  lastTimestamp,
});

class Version {
  readonly log: string[] = [];
  readonly link: SerialLink = createRotors(new Loop(HOVER), (text) => this.log.push(text));

  constructor() {
    cleanUp(() => this.link.drop());
  }

  grant(air: Air, payload: RotorsPayload | null, signing: Signing | undefined, from = 'release', epoch = 1) {
    return this.link.grant({
      from: payload === null ? 'start' : (from as 'release' | 'snap'),
      payload,
      descriptors: new Map([['rotors', native.duplicate(air.slave)]]),
      epoch,
      ...(signing && { signing }),
    });
  }
}

/** The first version, in the air. */
const flying = async (air: Air): Promise<Version> => {
  const version = new Version();
  const granted = version.grant(air, null, signingFrom(0));
  await air.fly(300);
  await granted;
  return version;
};

const rising = (numbers: readonly number[]): boolean =>
  numbers.every((number, at) => at === 0 || number > (numbers[at - 1] as number));
const NOTHING_REFUSED = { unsigned: 0, badSignature: 0, replayed: 0, tooOld: 0, tooManyStreams: 0 };

/** What goes over the socket is JSON. */
const sent = (payload: RotorsPayload): RotorsPayload => JSON.parse(JSON.stringify(payload)) as RotorsPayload;

/** A release while a sample comes: the giver answers it, or leaves it to the taker. The board sees one answer to each. */
const passOn = async (air: Air, giver: Version, taker: Version, epoch: number): Promise<RotorsPayload> => {
  const releasing = giver.link.release(50);
  const answered = air.fly(1);
  const { payload } = await releasing;
  giver.link.drop();
  const { signing } = payload as { signing: { lastTimestamp: number } };
  // What the agent heard may be older than what was released.
  const granted = taker.grant(air, sent(payload), signingFrom(signing.lastTimestamp - 500), 'release', epoch);
  await answered;
  await Promise.all([granted, air.fly(1)]);
  return payload;
};

describe('a signed link passes from V1 to V2 and back', () => {
  it.each([
    ['the clock runs', () => undefined],
    [
      'the clock stands: one tick a message, no more',
      () => vi.spyOn(Date, 'now').mockReturnValue(Date.now()),
    ],
  ])('%s', async (what, clock) => {
    const mocked = clock();
    cleanUp(() => mocked?.mockRestore());
    const air = new Air();
    const v1 = await flying(air);
    const streams = air.streams;
    const v2 = new Version();
    const payload = await passOn(air, v1, v2, 2);
    expect(payload).toMatchObject({
      link: { seq: expect.any(Number), streams: [[1, 1, 0, expect.any(Number)]] },
      signing: { linkId: LINK_ID },
      state: { phase: expect.any(String) },
    });
    expect(payload.lastWriteUs).toBeGreaterThan(0);
    expect(JSON.stringify(payload)).not.toContain(KEY.toString('base64'));
    await air.fly(100);
    await passOn(air, v2, v1, 3);
    await air.fly(100);

    expect(air.sequences).toEqual(air.sequences.map((_, at) => at % 256));
    expect(air.timestamps).toHaveLength(air.sequences.length);
    expect(rising(air.timestamps)).toBe(true);
    if (mocked !== undefined) {
      const { timestamps } = air;
      const messages = timestamps.length - 1;
      // Only what the board signs moves on by itself: ours is one tick a message above it.
      const boardTicks = (air.tUs - START) / 10;
      const ownTicks = (timestamps.at(-1) as number) - (timestamps[0] as number);
      expect(ownTicks, what).toBeLessThanOrEqual(boardTicks + messages);
    }
    expect(air.judged()).toMatchObject({ ...NOTHING_REFUSED, missedCycles: 0, doubled: 0, stale: 0 });
    expect([streams, air.streams]).toEqual([1, 1]);
    expect([...v1.log, ...v2.log]).toEqual([]);
  });

  it('the clock is put back by an hour in between', async () => {
    const air = new Air();
    const v1 = await flying(air);
    const now = vi.spyOn(Date, 'now').mockReturnValue(Date.now() - 3_600_000);
    cleanUp(() => now.mockRestore());
    const v2 = new Version();
    await passOn(air, v1, v2, 2);
    await air.fly(100);
    expect(rising(air.timestamps)).toBe(true);
    expect(air.judged()).toMatchObject({ ...NOTHING_REFUSED, missedCycles: 0 });
  });

  it('what V1 heard, V2 hears no second time', async () => {
    const air = new Air();
    const v1 = await flying(air);
    air.tUs += LIMITS.tickUs;
    const old = Buffer.from(air.board.tick(air.tUs, 0, 0));
    await air.fly(1);
    const { payload } = await v1.link.release(50);
    v1.link.drop();
    // Before V2 has heard anything of the board's itself.
    air.repeat(old);
    const v2 = new Version();
    const granted = v2.grant(air, sent(payload), signingFrom(0), 'release', 2);
    await Promise.all([granted, air.fly(10)]);
    expect(v2.log).toEqual(['the board is not heard: its frames are refused (replayed)']);
  });
});

describe('V1 dies', () => {
  it('after its last heartbeat it signed more, and the clock is put back: V2 is above all of it', async () => {
    const air = new Air();
    const v1 = await flying(air);
    const payload = sent(v1.link.snapshot());
    const { signing } = payload as unknown as { signing: Signing };
    await air.fly(25);
    v1.link.drop();
    const real = Date.now;
    const now = vi.spyOn(Date, 'now').mockImplementation(() => real() - 3_600_000);
    cleanUp(() => now.mockRestore());
    const v2 = new Version();
    const last = air.timestamps.at(-1) as number;
    const seen: number[] = [];
    const granted = v2.grant(air, payload, signingFrom(signing.lastTimestamp), 'snap', 2);
    seen.push((v2.link.snapshot() as unknown as { signing: Signing }).signing.lastTimestamp);
    // Before it has heard anything.
    expect(seen[0]).toBeGreaterThan(last);
    expect((seen[0] as number) - last).toBeLessThan(HOUR_TICKS / 60);
    await air.fly(100);
    await granted;
    expect(rising(air.timestamps)).toBe(true);
    expect(air.judged()).toMatchObject(NOTHING_REFUSED);
    expect(air.streams).toBe(1);
  });

  it('nothing is known of what it signed: V2 has the time of what the board says', async () => {
    const air = new Air();
    const v1 = await flying(air);
    v1.link.drop();
    const now = vi.spyOn(Date, 'now').mockReturnValue(Date.now() - 3_600_000);
    cleanUp(() => now.mockRestore());
    const v2 = new Version();
    const granted = v2.grant(air, null, signingFrom(0));
    await air.fly(50);
    await granted;
    expect(rising(air.timestamps)).toBe(true);
    expect(air.judged()).toMatchObject(NOTHING_REFUSED);
  });
});

describe('who does not sign is refused before it writes', () => {
  it('a grant without the key, after a prior that signed', async () => {
    const air = new Air();
    const v1 = await flying(air);
    const releasing = v1.link.release(50);
    const answered = air.fly(1);
    const { payload } = await releasing;
    const v2 = new Version();
    await expect(v2.grant(air, sent(payload), undefined)).rejects.toMatchObject({ code: 'NO_KEY' });
    expect(v2.link.owns).toBe(false);
    // V1 gets it back, with the key that its first grant had.
    const { signing } = payload as unknown as { signing: Signing };
    v1.link.drop();
    const again = v1.grant(air, sent(payload), signingFrom(signing.lastTimestamp), 'release', 3);
    await answered;
    await air.fly(20);
    await again;
    expect(air.judged()).toMatchObject({ ...NOTHING_REFUSED, missedCycles: 0 });
  });
});

describe('the board', () => {
  it('has no clock: it is told the time by the heartbeat that answers what is too old, and then heard', async () => {
    const air = new Air(0);
    const version = new Version();
    const granted = version.grant(air, null, signingFrom(0));
    air.say();
    await until('the heartbeat', () => air.sequences.length === 1);
    expect(version.log).toEqual(['the board is not heard: its frames are refused (tooOld)']);
    await air.fly(50);
    await granted;
    expect(air.judged()).toMatchObject(NOTHING_REFUSED);
  });

  it('follows no stranger beside the one who signs: unsigned, wrongly signed, recorded and sent again', async () => {
    const air = new Air();
    const recorded: Uint8Array[] = [];
    const receive = air.board.receive.bind(air.board);
    air.board.receive = (bytes, nowUs) => {
      recorded.push(Uint8Array.from(bytes));
      receive(bytes, nowUs);
    };
    await flying(air);
    // A command, without the setpoint that may follow it.
    const bytes = recorded.at(-1) as Uint8Array;
    const last = bytes.subarray(0, 12 + (bytes[1] as number) + 13);
    const stranger = new Writer({ systemId: 1, componentId: 191 });
    const fields = { time_usec: air.tUs, controls: [0, 0, 0, 0], mode: 0x81, flags: 9 };
    air.hear(stranger.encode('HIL_ACTUATOR_CONTROLS', fields));
    const forged = Uint8Array.from(last);
    forged[forged.length - 1] = (forged.at(-1) as number) ^ 1;
    air.hear(forged);
    air.hear(last);
    expect(air.judged()).toMatchObject({ ...NOTHING_REFUSED, unsigned: 1, badSignature: 1, replayed: 1 });
    expect(air.truth.values[TRUTH.epoch]).toBe(1);
    expect(air.judged()).toMatchObject({ stale: 0, doubled: 0 });
  });
});
