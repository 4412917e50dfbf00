import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { closeAll } from '#handover/lines.ts';
import { Mirror, type MirrorRecord, MirrorSource } from '#handover/mirror.ts';
import { AGAIN, native, nowUs, READABLE } from '#handover/native.ts';
import { type RotorsPayload, SerialLink, type SerialLinkOptions } from '#handover/serial.ts';
import { cleanUp, descriptorCount, seeded, turn, until } from './handover-kit.ts';

/** A board: the far end of the tty. */
const board = () => {
  const { master, slave, path } = native.openPty();
  const bytes = Buffer.alloc(65_536);
  const heard: Buffer[] = [];
  const hear = (): Buffer => {
    for (
      let n = native.read(master, bytes, 0, bytes.length);
      n !== AGAIN;
      n = native.read(master, bytes, 0, bytes.length)
    ) {
      heard.push(Buffer.from(bytes.subarray(0, n)));
    }
    return Buffer.concat(heard);
  };
  const say = (text: string | Uint8Array): void => {
    const all = Buffer.from(text);
    expect(native.write(master, all, 0, all.length)).toBe(all.length);
  };
  return { master, slave, path, say, hear };
};

const linkWith = (options: Partial<SerialLinkOptions> = {}) => {
  const data: string[] = [];
  const resumed: (RotorsPayload | null)[] = [];
  const lost: Error[] = [];
  const link = new SerialLink({
    onData: (bytes) => data.push(bytes.toString('latin1')),
    state: () => ({ link: { seq: 5 }, partial: Buffer.from('par'), state: { i: [1.5] }, stateVersion: 2 }),
    resume: (payload) => resumed.push(payload),
    onLost: (error) => lost.push(error),
    ...options,
  });
  cleanUp(() => link.drop());
  const start = (fd: number, payload: RotorsPayload | null = null, epoch = 1): Promise<void> =>
    link.grant({
      from: payload === null ? 'start' : 'release',
      payload,
      descriptors: new Map([['rotors', native.duplicate(fd)]]),
      epoch,
    });
  return { link, data, resumed, lost, start };
};

describe('a rotor link', () => {
  it('is taken when its first command is written, and not before', async () => {
    const { slave, say, hear } = board();
    const { link, data, resumed, start } = linkWith();
    let taken = false;
    const granted = start(slave, null, 4).then(() => {
      taken = true;
    });
    expect(link.owns).toBe(true);
    expect(link.epoch).toBe(4);
    expect(resumed).toEqual([null]);
    say('imu');
    await until('it is read', () => data.join('') === 'imu');
    expect(link.write(Buffer.from('heartbeat'), false)).toBe(true);
    await until('it is written', () => hear().toString() === 'heartbeat');
    await turn();
    expect(taken).toBe(false);
    expect(link.lastWriteUs).toBe(0);
    const beforeUs = nowUs();
    link.write(Buffer.from('command'));
    await granted;
    expect(link.lastWriteUs).toBeGreaterThanOrEqual(beforeUs);
    expect(link.lastWriteUs).toBeLessThanOrEqual(nowUs());
    expect(hear().toString()).toBe('heartbeatcommand');
  });

  it('lets go right after the next command, with all that a successor needs, and leaves the rest unread', async () => {
    const { slave, say, hear } = board();
    const first = linkWith();
    const granted = first.start(slave);
    first.link.write(Buffer.from('1'));
    await granted;
    await until('the command is old', () => nowUs() - first.link.lastWriteUs > 1_000);
    let settled = false;
    const releasing = first.link.release(50).then((released) => {
      settled = true;
      return released;
    });
    await turn();
    expect(settled).toBe(false);
    say('in time');
    await until('it is read', () => first.data.join('') === 'in time');
    first.link.write(Buffer.from('2'));
    first.link.write(Buffer.from('aside'), false);
    const { payload } = await releasing;
    expect(payload).toEqual({
      lastWriteUs: first.link.lastWriteUs,
      link: { seq: 5 },
      partial: Buffer.from('par').toString('base64'),
      state: { i: [1.5] },
      stateVersion: 2,
    });
    expect(hear().toString()).toBe('12aside');
    expect(first.link.write(Buffer.from('3'))).toBe(false);
    say('for the successor');
    await turn();
    await turn();
    expect(first.data.join('')).toBe('in time');

    const second = linkWith();
    const taken = second.start(slave, payload, 2);
    first.link.drop();
    await until('it is read', () => second.data.join('') === 'parfor the successor');
    expect(second.resumed).toEqual([payload]);
    expect(second.link.lastWriteUs).toBe(payload.lastWriteUs);
    second.link.write(Buffer.from('3'));
    await taken;
    await until('it is heard', () => hear().toString() === '12aside3');
    expect(native.ttyIsRaw(slave)).toBe(true);
  });

  it('lets go within its bound when no command comes', async () => {
    const { slave } = board();
    const { link, start } = linkWith();
    const granted = start(slave);
    link.write(Buffer.from('1'));
    await granted;
    await until('the command is old', () => nowUs() - link.lastWriteUs > 1_000);
    const startUs = nowUs();
    await link.release(50);
    expect(nowUs() - startUs).toBeLessThan(45_000);
  });

  it('says so when the tty takes no bytes, when it is not ours, when it is taken back', async () => {
    const { slave } = board();
    const { link, start } = linkWith();
    await expect(link.release(50)).rejects.toMatchObject({ code: 'NOT_OWNER' });
    const granted = start(slave);
    link.drop();
    await expect(granted).rejects.toMatchObject({ code: 'DROPPED' });
    await expect(
      link.grant({ from: 'start', payload: null, descriptors: new Map(), epoch: 1 }),
    ).rejects.toMatchObject({
      code: 'NO_DESCRIPTOR',
    });
    const stuck = start(slave);
    link.write(Buffer.alloc(100));
    await stuck;
    for (let n = 0; n < 200; n++) link.write(Buffer.alloc(4096), false);
    await expect(link.release(100)).rejects.toMatchObject({ code: 'WRITE_STUCK' });
  });

  it('reads nothing while its last write waits for room, so that the successor answers what comes then', async () => {
    const { slave, say, hear } = board();
    const { link, data, start } = linkWith();
    const granted = start(slave);
    link.write(Buffer.from('1'));
    await granted;
    for (let n = 0; n < 30; n++) link.write(Buffer.alloc(4096));
    let settled = false;
    const releasing = link.release(2_000).then(() => {
      settled = true;
    });
    await until('it has stopped', () => !link.owns);
    say('imu');
    for (let n = 0; n < 20; n++) await turn();
    expect(settled).toBe(false);
    await until('it is written', () => hear().length === 1 + 30 * 4096);
    await releasing;
    expect(data).toEqual([]);
    const bytes = Buffer.alloc(10);
    expect(native.read(slave, bytes, 0, 10)).toBe(3);
  });

  it('refuses a payload that is none, with its descriptor closed by the drop that follows', async () => {
    const before = descriptorCount();
    const { master, slave } = board();
    const { link, start } = linkWith();
    await expect(
      start(slave, { link: {}, partial: '', state: {}, stateVersion: 1 } as unknown as RotorsPayload),
    ).rejects.toThrow('lastWriteUs');
    link.drop();
    closeAll([master, slave]);
    expect(descriptorCount()).toBe(before);
  });

  it('refuses to go on where it could not sign: no key from the agent, or an app that does not sign', async () => {
    const before = descriptorCount();
    const { master, slave } = board();
    const { link, start } = linkWith();
    const payload = { lastWriteUs: 1, link: {}, partial: '', state: {}, stateVersion: 1 };
    const signed = { ...payload, signing: { linkId: 1, lastTimestamp: 5 } };
    await expect(start(slave, signed)).rejects.toMatchObject({ code: 'NO_KEY' });
    link.drop();
    const descriptors = new Map([['rotors', native.duplicate(slave)]]);
    const signing = { key: Buffer.alloc(32).toString('base64'), linkId: 1, lastTimestamp: 0 };
    const granted = link.grant({ from: 'release', payload, descriptors, epoch: 2, signing });
    await expect(granted).rejects.toMatchObject({ code: 'NOT_SIGNING' });
    expect(link.owns).toBe(false);
    link.drop();
    closeAll([master, slave]);
    expect(descriptorCount()).toBe(before);
  });

  it.each([
    ['release', 7, 7],
    ['snap', 7, 10_000],
  ] as const)(
    'from %s: is told a time above all that the prior signed, whoever knows it',
    async (from, known, aheadMin) => {
      const { slave } = board();
      const told: number[] = [];
      const { link } = linkWith({
        resume: (_payload, { signing }) => void told.push(signing?.lastTimestamp ?? -1),
        state: () => ({
          link: {},
          partial: Buffer.alloc(0),
          state: {},
          stateVersion: 1,
          signing: { linkId: 1, lastTimestamp: 0 },
        }),
      });
      const at = (
        lastTimestamp: number,
        ageMs: number,
        lastWriteUs = nowUs() - ageMs * 1_000,
      ): RotorsPayload => ({
        lastWriteUs,
        link: {},
        partial: '',
        state: {},
        stateVersion: 1,
        signing: { linkId: 1, lastTimestamp },
      });
      const grant = async (payload: RotorsPayload, lastTimestamp: number): Promise<number> => {
        const signing = { key: Buffer.alloc(32).toString('base64'), linkId: 1, lastTimestamp };
        const descriptors = new Map([['rotors', native.duplicate(slave)]]);
        const granted = link.grant({ from, payload, descriptors, epoch: 2, signing });
        link.write(Buffer.from('c'));
        await granted;
        link.drop();
        return told.at(-1) as number;
      };
      // The agent's word is the newer one, or the payload's is.
      for (const [payload, agent] of [
        [known, 0],
        [0, known],
      ] as const) {
        expect(await grant(at(payload, 0), agent)).toBeGreaterThanOrEqual(aheadMin);
      }
      // A heartbeat that is old leaves room for all that was signed since; bounded, whatever it says of its age.
      const room = (await grant(at(0, 40), 0)) - (await grant(at(0, 0), 0));
      expect(room > 3_000 && room < 5_000).toBe(from === 'snap');
      const [low, high] = from === 'snap' ? [1_050_000, 1_070_000] : [0, 0];
      const longest = await grant(at(0, 0, 0), 0);
      expect(longest).toBeGreaterThanOrEqual(low);
      expect(longest).toBeLessThanOrEqual(high);
    },
  );

  it('gives its app serialport, and refuses what would disturb the other holders', async () => {
    const { slave } = board();
    const { link, start } = linkWith();
    const granted = start(slave);
    link.write(Buffer.from('1'));
    await granted;
    const { port } = link;
    expect(port?.constructor.name).toBe('SerialPort');
    expect(port?.isOpen).toBe(true);
    const failure = await new Promise<Error | null | undefined>((resolve) => port?.flush(resolve));
    expect(failure).toMatchObject({ code: 'SHARED_LINE' });
  });

  it('tells when the far end hangs up', async () => {
    const { master, slave } = board();
    const { link, lost, start } = linkWith();
    const granted = start(slave);
    link.write(Buffer.from('1'));
    await granted;
    native.close(master);
    await until('it is told', () => lost.length === 1);
    expect(link.owns).toBe(false);
    expect(link.write(Buffer.from('2'))).toBe(false);
  });

  it('writes on under a new epoch when it is granted anew', async () => {
    const { slave, hear } = board();
    const { link, start } = linkWith();
    const granted = start(slave, null, 3);
    link.write(Buffer.from('1'));
    await granted;
    const renewed = link.renew({
      from: 'snap',
      payload: null,
      descriptors: new Map([['rotors', native.duplicate(slave)]]),
      epoch: 9,
    });
    expect(link.epoch).toBe(9);
    link.write(Buffer.from('2'));
    await renewed;
    expect(hear().toString()).toBe('12');
  });

  it.each([[{}], [{ filler: 'x' }], [{ lastWriteUs: 'now' }]])(
    'is taken from a dead prior whose last heartbeat says nothing: %j',
    async (payload) => {
      const { slave, hear } = board();
      const { link, resumed } = linkWith();
      const grant = (from: 'snap' | 'release') =>
        link.grant({
          from,
          payload: payload as unknown as RotorsPayload,
          descriptors: new Map([['rotors', native.duplicate(slave)]]),
          epoch: 3,
        });
      // One that lives gets them back.
      await expect(grant('release')).rejects.toThrow(/Invalid/);
      const granted = grant('snap');
      expect(resumed).toEqual([null]);
      link.write(Buffer.from('1'));
      await granted;
      expect([link.owns, hear().toString()]).toEqual([true, '1']);
    },
  );

  it('goes on by another descriptor when it is granted anew by one', async () => {
    const [first, second] = [board(), board()];
    const { link, data, start } = linkWith();
    const granted = start(first.slave, null, 3);
    link.write(Buffer.from('1'));
    await granted;
    const renewed = link.renew({
      from: 'snap',
      payload: null,
      descriptors: new Map([['rotors', native.duplicate(second.slave)]]),
      epoch: 9,
    });
    second.say('heard');
    await until('it is read', () => data.join('') === 'parheard');
    link.write(Buffer.from('2'));
    await renewed;
    expect(link.epoch).toBe(9);
    expect([first.hear().toString(), second.hear().toString()]).toEqual(['1', '2']);
  });
});

describe('the mirror', () => {
  it('shows all input and output, whole and in order', async () => {
    const { slave, say, hear } = board();
    const { link, data, start } = linkWith();
    const granted = start(slave);
    link.write(Buffer.from('before'));
    await granted;
    const [reading, writing] = native.socketPair();
    link.mirror(writing);
    const mirror = new Mirror(reading);
    cleanUp(() => mirror.close());
    expect(mirror.available).toBe(true);
    const seen: string[] = [];
    const iterating = (async () => {
      for await (const { kind, bytes } of mirror) seen.push(`${kind} ${bytes.toString()}`);
    })();
    for (let n = 0; n < 20; n++) {
      say(`imu${n}`);
      await until('it is read', () => data.length === n + 1);
      link.write(Buffer.from(`cmd${n}`));
    }
    await until('all are mirrored', () => seen.length === 40);
    expect(seen).toEqual(Array.from({ length: 20 }, (_, n) => [`in imu${n}`, `out cmd${n}`]).flat());
    expect(hear().toString()).toContain('cmd19');
    await link.release(50);
    link.drop();
    await iterating;
    expect(mirror.ended).toBe(true);
  });

  it('never waits for a shadow that does not read, and resumes with whole records', async () => {
    const [reading, writing] = native.socketPair();
    const source = new MirrorSource(writing);
    const random = seeded(3);
    let records = 0;
    while (source.dropped < 100) {
      records += 1;
      source.record(
        random() < 0.5 ? 'in' : 'out',
        Buffer.alloc(1 + Math.floor(random() * 65_000), records % 251),
      );
    }
    const mirror = new Mirror(reading);
    cleanUp(() => mirror.close());
    const got: MirrorRecord[] = [];
    mirror.onRecord((record) => got.push(record));
    await until('the kernel is empty', () => got.length >= records - 101);
    source.record('in', Buffer.from('after'));
    await until('the last', () => got.at(-1)?.bytes.toString() === 'after');
    for (const { bytes } of got.slice(0, -1)) expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
    source.close();
    await until('the end', () => mirror.ended);
    source.record('in', Buffer.from('nothing'));
  });

  it('survives a shadow that is gone, and a source that talks nonsense', async () => {
    const before = descriptorCount();
    const [reading, writing] = native.socketPair();
    const source = new MirrorSource(writing);
    native.close(reading);
    source.record('in', Buffer.from('x'));
    source.record('in', Buffer.from('x'));
    const [other, nonsense] = native.socketPair();
    const mirror = new Mirror(other);
    native.send(nonsense, Buffer.from([0, 255, 255, 255, 255, 1]), 0, 6, []);
    await until('it ends', () => mirror.ended);
    native.close(nonsense);
    expect(descriptorCount()).toBe(before);
  });

  it('has ended at a first start, and drops the oldest for a slow reader', async () => {
    const none = new Mirror();
    expect(none.available).toBe(false);
    for await (const _ of none) throw new Error('there is nothing to mirror');
    const [reading, writing] = native.socketPair();
    const source = new MirrorSource(writing);
    const mirror = new Mirror(reading);
    for (let n = 0; n < 3_000; n++) {
      source.record('in', Buffer.from(String(n)));
      if (n % 50 === 49) await turn();
    }
    source.close();
    await until('the end', () => mirror.ended);
    const seen: string[] = [];
    for await (const { bytes } of mirror) seen.push(bytes.toString());
    expect(seen.length).toBe(2_000);
    expect(seen.at(-1)).toBe('2999');
    expect(mirror.dropped).toBe(1_000);
  });
});

describe('between two processes', () => {
  it('passes the tty to and fro under load with no byte lost, none doubled, none from the one that let go', async () => {
    const { master, slave } = board();
    const start = (name: string): ChildProcess => {
      const child = spawn(
        process.execPath,
        [fileURLToPath(new URL('./handover-processes/link.ts', import.meta.url)), name],
        { stdio: ['ignore', 'inherit', 'inherit', slave, 'ipc'] },
      );
      cleanUp(() => child.kill('SIGKILL'));
      return child;
    };
    const [a, b] = [start('A'), start('B')];
    const answer = (child: ChildProcess, type: string): Promise<{ payload: RotorsPayload }> =>
      new Promise((resolve, reject) => {
        const hear = (message: { type: string; payload: RotorsPayload }): void => {
          if (message.type !== type) return;
          child.off('message', hear);
          child.off('exit', died);
          resolve(message);
        };
        const died = (): void => reject(new Error(`died before ${type}`));
        child.on('message', hear);
        child.once('exit', died);
      });
    await Promise.all([answer(a, 'ready'), answer(b, 'ready')]);

    const random = seeded(5);
    let sent = 0;
    let pending = Buffer.alloc(0);
    const talk = setInterval(() => {
      for (let n = 0; n < 2; n++) {
        const filler = Math.floor(random() * 40);
        const record = Buffer.alloc(5 + filler, 0x55);
        record.writeUInt32LE(sent, 0);
        record[4] = filler;
        sent += 1;
        pending = Buffer.concat([pending, record]);
      }
      // Records are cut anywhere: a release finds a half read one most of the time.
      const length = Math.floor(random() * (pending.length + 1));
      if (length === 0) return;
      const written = native.write(master, pending, 0, length);
      if (written !== AGAIN) pending = pending.subarray(written);
    }, 1);
    cleanUp(() => clearInterval(talk));
    const heard: [number, string][] = [];
    let rest = Buffer.alloc(0);
    const bytes = Buffer.alloc(4096);
    const watcher = native.watch(master, READABLE, () => {
      const n = native.read(master, bytes, 0, bytes.length);
      if (n === AGAIN) return;
      rest = Buffer.concat([rest, bytes.subarray(0, n)]);
      for (; rest.length >= 5; rest = rest.subarray(5)) {
        heard.push([rest.readUInt32LE(0), String.fromCharCode(rest[4] as number)]);
      }
    });
    cleanUp(() => watcher.close());

    let [owner, other] = [a, b];
    const first = answer(owner, 'granted');
    owner.send({ type: 'grant', payload: null, epoch: 1 });
    await first;
    for (let epoch = 2; epoch <= 41; epoch++) {
      const released = answer(owner, 'released');
      owner.send({ type: 'release' });
      const { payload } = await released;
      const granted = answer(other, 'granted');
      other.send({ type: 'grant', payload, epoch });
      await granted;
      [owner, other] = [other, owner];
      const count = heard.length;
      await until('it flies', () => heard.length > count + 10);
    }
    clearInterval(talk);
    while (pending.length > 0) {
      const written = native.write(master, pending, 0, pending.length);
      if (written !== AGAIN) pending = pending.subarray(written);
      await turn();
    }
    await until('every record is answered', () => heard.length >= sent);
    expect(heard.map(([seq]) => seq)).toEqual(Array.from({ length: sent }, (_, seq) => seq));
    const turns = heard.filter(([, who], at) => at === 0 || who !== heard[at - 1]?.[1]).length;
    expect(turns).toBe(41);
    // A process that ends leaves the line raw for those who go on with it.
    const gone = new Promise((resolve) => other.once('exit', resolve));
    other.disconnect();
    await gone;
    expect(native.ttyIsRaw(slave)).toBe(true);
  });
});
