import { fstatSync, lstatSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BOUNDS } from '#handover/bounds.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, connectLines, type LineListener, LineSocket, listenLines } from '#handover/lines.ts';
import { type AppMessage, ProtocolError, parseAgentMessage, parseAppMessage } from '#handover/messages.ts';
import { AGAIN, native } from '#handover/native.ts';
import { cleanUp, descriptorCount, directory, seeded, turn, until } from './handover-kit.ts';

interface Plain {
  fds: string[];
  [key: string]: unknown;
}
/** Any JSON object: these tests are about lines, not about what they say. */
const parsePlain = (line: string): Plain => {
  try {
    const value = JSON.parse(line) as Plain;
    if (!Array.isArray(value.fds)) throw new Error('no fds');
    return value;
  } catch (cause) {
    throw new ProtocolError('INVALID_JSON', 'not plain', { cause });
  }
};

/** A socket whose received messages, descriptors and end are kept. */
const listening = <M extends { fds: readonly string[] }>(fd: number, parse: (line: string) => M) => {
  const seen = {
    messages: [] as M[],
    descriptors: [] as [string, number][],
    ended: false,
    error: undefined as Error | undefined,
    socket: new LineSocket<M>(fd, parse),
  };
  seen.socket.start({
    onMessage: (message, descriptors) => {
      seen.messages.push(message);
      seen.descriptors.push(...descriptors);
    },
    onClose: (error) => {
      seen.ended = true;
      seen.error = error;
    },
  });
  cleanUp(() => {
    seen.socket.close();
    closeAll(seen.descriptors.map(([, fd_]) => fd_));
  });
  return seen;
};
const codeOf = (error: Error | undefined): string | undefined =>
  error instanceof ProtocolError ? error.code : error?.message;
const line = (value: object): Buffer => Buffer.from(`${JSON.stringify(value)}\n`);
const sendAll = (fd: number, bytes: Buffer, descriptors: number[] = []): void => {
  expect(native.send(fd, bytes, 0, bytes.length, descriptors)).toBe(bytes.length);
};
const inode = (fd: number): number => fstatSync(fd).ino;

describe('what the kernel does with descriptors in a stream', () => {
  it('puts plain bytes before them into one read, and ends the read after theirs', () => {
    const [left, right] = native.socketPair();
    sendAll(left, Buffer.from('aa'));
    sendAll(left, Buffer.from('bbb'), [left]);
    sendAll(left, Buffer.from('cc'), [right]);
    sendAll(left, Buffer.from('dd'));
    const bytes = Buffer.alloc(100);
    const reads: [string, number][] = [];
    for (;;) {
      const into: number[] = [];
      const n = native.receive(right, bytes, 0, 100, into);
      if (n === AGAIN) break;
      reads.push([bytes.toString('latin1', 0, n), into.length]);
      closeAll(into);
    }
    expect(reads).toEqual([
      ['aabbb', 1],
      ['cc', 1],
      ['dd', 0],
    ]);
    closeAll([left, right]);
  });
});

describe('lines', () => {
  it('passes messages both ways, names their descriptors, and closes nothing of the sender', async () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const a = listening(left, parsePlain);
    const b = listening(right, parsePlain);
    const { master, slave } = native.openPty();
    a.socket.send({ n: 1, text: 'zwölf\n"Boxkämpfer"' });
    a.socket.send({ n: 2 }, [
      { name: 'master', fd: master },
      { name: 'slave', fd: slave },
    ]);
    b.socket.send({ n: 3, fds: ['a lie'] });
    await until('all are there', () => b.messages.length === 2 && a.messages.length === 1);
    expect(b.messages).toEqual([
      { n: 1, text: 'zwölf\n"Boxkämpfer"', fds: [] },
      { n: 2, fds: ['master', 'slave'] },
    ]);
    expect(a.messages).toEqual([{ n: 3, fds: [] }]);
    const received = new Map(b.descriptors);
    expect(inode(received.get('slave') as number)).toBe(inode(slave));
    expect(fstatSync(received.get('master') as number).rdev).toBe(fstatSync(master).rdev);
    closeAll([...received.values(), master, slave]);
    b.descriptors.length = 0;
    a.socket.close();
    await until('the end is seen', () => b.ended);
    expect(b.error).toBeUndefined();
    expect(descriptorCount()).toBe(before);
  });

  it('finds the line of each descriptor, however many lines one read brings and however it is cut', async () => {
    const [left, right] = native.socketPair();
    const { master, slave } = native.openPty();
    const b = listening(right, parsePlain);
    // One turn of the event loop: the receiver sees all of it at once.
    sendAll(left, line({ n: 1, fds: [] }));
    sendAll(left, line({ n: 2, fds: ['m'] }), [master]);
    sendAll(left, line({ n: 3, fds: [] }));
    const cut = line({ n: 4, fds: ['s'] });
    sendAll(left, cut.subarray(0, 1), [slave]);
    await until('three', () => b.messages.length === 3);
    sendAll(left, cut.subarray(1, 5));
    await turn();
    sendAll(left, Buffer.concat([cut.subarray(5), line({ n: 5, fds: [] })]));
    await until('all five', () => b.messages.length === 5);
    expect(b.messages.map(({ n }) => n)).toEqual([1, 2, 3, 4, 5]);
    expect(
      b.descriptors.map(([name, fd]) => [name, inode(fd) === inode(name === 'm' ? master : slave)]),
    ).toEqual([
      ['m', true],
      ['s', true],
    ]);
    expect(b.ended).toBe(false);
    closeAll([left, master, slave]);
  });

  const refusals: [string, (left: number, fd: number) => void, string, number][] = [
    [
      'descriptors that the line does not name',
      (left, fd) => sendAll(left, line({ fds: [] }), [fd]),
      'WRONG_DESCRIPTORS',
      0,
    ],
    ['names without descriptors', (left) => sendAll(left, line({ fds: ['x'] })), 'WRONG_DESCRIPTORS', 0],
    ['too few of them', (left, fd) => sendAll(left, line({ fds: ['x', 'y'] }), [fd]), 'WRONG_DESCRIPTORS', 0],
    [
      'one name twice',
      (left, fd) => sendAll(left, line({ fds: ['x', 'x'] }), [fd, fd]),
      'WRONG_DESCRIPTORS',
      0,
    ],
    [
      'descriptors of the line after',
      (left, fd) => sendAll(left, Buffer.concat([line({ fds: ['x'] }), line({ fds: [] })]), [fd]),
      'WRONG_DESCRIPTORS',
      0,
    ],
    ['an empty line', (left) => sendAll(left, Buffer.from('\n')), 'INVALID_JSON', 0],
    [
      'bytes that are no UTF-8',
      (left) => sendAll(left, Buffer.from('{"fds":[],"a":"\xff"}\n', 'latin1')),
      'INVALID_JSON',
      0,
    ],
    [
      'the second of two lines, the first being good',
      (left) => sendAll(left, Buffer.concat([line({ fds: [] }), Buffer.from('no\n'), line({ fds: [] })])),
      'INVALID_JSON',
      1,
    ],
    [
      'a bad line before one with descriptors',
      (left, fd) => {
        sendAll(left, Buffer.from('no\n'));
        sendAll(left, line({ fds: ['x'] }), [fd]);
      },
      'INVALID_JSON',
      0,
    ],
  ];
  it.each(refusals)('refuses %s, and closes every descriptor', async (_what, send, code, accepted) => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const b = listening(right, parsePlain);
    send(left, left);
    await until('it is refused', () => b.ended);
    expect(codeOf(b.error)).toBe(code);
    expect(b.messages.length).toBe(accepted);
    native.close(left);
    expect(descriptorCount()).toBe(before);
  });

  it('refuses descriptors that come inside a line', async () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const b = listening(right, parsePlain);
    sendAll(left, Buffer.concat([line({ fds: [] }), Buffer.from('{"fds":')]));
    await until('the beginning is read', () => b.messages.length === 1);
    sendAll(left, Buffer.from('["x"]}\n'), [left]);
    await until('it is refused', () => b.ended);
    expect(codeOf(b.error)).toBe('WRONG_DESCRIPTORS');
    expect(b.messages.length).toBe(1);
    native.close(left);
    expect(descriptorCount()).toBe(before);
  });

  it('takes a line of exactly the bound, byte by byte bounded, and refuses one byte more', async () => {
    const fill = (bytes: number): Buffer => {
      const empty = line({ a: '', fds: [] });
      return line({ a: 'x'.repeat(bytes - (empty.length - 1)), fds: [] });
    };
    for (const [over, code] of [
      [0, undefined],
      [1, 'LINE_TOO_LONG'],
    ] as const) {
      const [left, right] = native.socketPair();
      const b = listening(right, parsePlain);
      const bytes = fill(LIMITS.lineBytesMax + over);
      expect(bytes.length).toBe(LIMITS.lineBytesMax + over + 1);
      let at = 0;
      while (at < bytes.length && !b.ended) {
        const sent = native.send(left, bytes, at, Math.min(60_000, bytes.length - at), []);
        if (sent === AGAIN) await turn();
        else at += sent;
      }
      await until('an answer', () => b.ended || b.messages.length > 0);
      expect(codeOf(b.error)).toBe(code);
      expect(b.messages.length).toBe(over === 0 ? 1 : 0);
      native.close(left);
    }
  });

  it('refuses a peer that never ends its line, before it took more than the bound', async () => {
    const [left, right] = native.socketPair();
    const b = listening(right, parsePlain);
    const bytes = Buffer.alloc(60_000, 'x');
    let sent = 0;
    while (!b.ended && sent < 4 * LIMITS.lineBytesMax) {
      try {
        const n = native.send(left, bytes, 0, bytes.length, []);
        if (n !== AGAIN) sent += n;
      } catch {
        break;
      }
      await turn();
    }
    expect(codeOf(b.error)).toBe('LINE_TOO_LONG');
    native.close(left);
  });

  it('does not send what the other side would refuse', () => {
    const [left, right] = native.socketPair();
    const a = listening(left, parsePlain);
    const code = (work: () => void): unknown => {
      try {
        work();
      } catch (error) {
        return codeOf(error as Error);
      }
      return undefined;
    };
    expect(code(() => a.socket.send({ a: 'x'.repeat(LIMITS.lineBytesMax) }))).toBe('LINE_TOO_LONG');
    const many = Array.from({ length: 251 }, (_, at) => ({ name: `f${at}`, fd: left }));
    expect(code(() => a.socket.send({}, many))).toBe('WRONG_DESCRIPTORS');
    native.close(right);
  });
});

describe('a slow or lost peer', () => {
  it('queues in order with the descriptors, though their owner closed them, and settles when they went', async () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const a = listening(left, parsePlain);
    const settled: [number, boolean][] = [];
    const inodes: number[] = [];
    for (let n = 0; n < 60; n++) {
      const [one, two] = native.socketPair();
      inodes.push(inode(one));
      a.socket.send({ n, fill: 'x'.repeat(20_000) }, [{ name: 'one', fd: one }], (ok) =>
        settled.push([n, ok]),
      );
      closeAll([one, two]);
    }
    expect(a.socket.queuedBytes).toBeGreaterThan(0);
    expect(settled.length).toBeLessThan(60);
    const b = listening(right, parsePlain);
    await until('all', () => b.messages.length === 60);
    expect(b.messages.map(({ n }) => n)).toEqual(Array.from({ length: 60 }, (_, n) => n));
    expect(b.descriptors.map(([, fd]) => inode(fd))).toEqual(inodes);
    expect(settled).toEqual(Array.from({ length: 60 }, (_, n) => [n, true]));
    expect(a.socket.queuedBytes).toBe(0);
    closeAll(b.descriptors.splice(0).map(([, fd]) => fd));
    a.socket.close();
    b.socket.close();
    expect(descriptorCount()).toBe(before);
  });

  it('ends with a peer that never reads, at the bound, with nothing leaked', () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const a = listening(left, parsePlain);
    const { master, slave } = native.openPty();
    let lost = 0;
    let sent = 0;
    while (!a.ended && sent < 1_000) {
      sent += 1;
      a.socket.send({ fill: 'x'.repeat(100_000) }, [{ name: 'm', fd: master }], (ok) => {
        if (!ok) lost += 1;
      });
    }
    expect(a.ended).toBe(true);
    expect(sent * 100_000).toBeGreaterThan(BOUNDS.sendQueueBytesMax);
    expect(sent * 100_000).toBeLessThan(BOUNDS.sendQueueBytesMax + 2_000_000);
    expect(lost).toBeGreaterThan(50);
    expect(a.socket.send({})).toBe(false);
    closeAll([right, master, slave]);
    expect(descriptorCount()).toBe(before);
  });

  it('still reads the last words of a peer that is gone', async () => {
    const [left, right] = native.socketPair();
    sendAll(left, line({ n: 'last', fds: [] }));
    native.close(left);
    const b = listening(right, parsePlain);
    expect(b.socket.send({ too: 'late' })).toBe(false);
    await until('the end', () => b.ended);
    expect(b.messages.map(({ n }) => n)).toEqual(['last']);
  });

  it('stops within a read when a handler closes it', async () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const seen: unknown[] = [];
    const socket = new LineSocket(right, parsePlain).start({
      onMessage: ({ n }) => {
        seen.push(n);
        socket.close();
      },
      onClose: () => seen.push('closed'),
    });
    sendAll(left, line({ n: 1, fds: [] }));
    sendAll(left, line({ n: 2, fds: ['x'] }), [left]);
    await until('one', () => seen.length > 0);
    await turn();
    expect(seen).toEqual([1]);
    native.close(left);
    expect(descriptorCount()).toBe(before);
  });
});

describe('a listening socket', () => {
  const open = (path: string): { listener: LineListener; pids: number[]; sockets: LineSocket<Plain>[] } => {
    const pids: number[] = [];
    const sockets: LineSocket<Plain>[] = [];
    const listener = listenLines(path, parsePlain, (socket, { pid }) => {
      pids.push(pid);
      sockets.push(socket.start({ onMessage: () => {}, onClose: () => {} }));
    });
    cleanUp(() => {
      listener.close();
      for (const socket of sockets) socket.close();
    });
    return { listener, pids, sockets };
  };
  const silent = { onMessage: () => {}, onClose: () => {} };

  it('knows its peers, is 0660, and removes its file', async () => {
    const path = `${directory()}/s`;
    const { listener, pids } = open(path);
    expect(statSync(path).mode & 0o777).toBe(0o660);
    const client = connectLines(path, parsePlain, silent);
    await until('accepted', () => pids.length === 1);
    expect(pids).toEqual([process.pid]);
    client.close();
    listener.close();
    listener.close();
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();
    expect(() => connectLines(path, parsePlain, silent)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });

  it('replaces a dead socket file, and neither a live one nor a file that is no socket', () => {
    const path = `${directory()}/s`;
    native.close(native.unixListen(path, 1));
    expect(() => connectLines(path, parsePlain, silent)).toThrow(
      expect.objectContaining({ code: 'ECONNREFUSED' }),
    );
    open(path);
    expect(() => open(path)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
    const file = `${directory()}/f`;
    writeFileSync(file, 'precious');
    expect(() => open(file)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
    expect(statSync(file).size).toBe(8);
  });

  it('bounds its connections, and takes new ones when others end', async () => {
    const path = `${directory()}/s`;
    const { sockets } = open(path);
    let refused = 0;
    const clients: LineSocket<Plain>[] = [];
    const connect = (): void => {
      clients.push(connectLines(path, parsePlain, { onMessage: () => {}, onClose: () => (refused += 1) }));
    };
    cleanUp(() => {
      for (const client of clients) client.close();
    });
    for (let at = 0; at < BOUNDS.connectionsMax; at++) {
      connect();
      if (at % 32 === 31) await until('accepted', () => sockets.length === at + 1);
    }
    connect();
    await until('the last is refused', () => refused === 1);
    clients[0]?.close();
    await until('its end is seen', () => sockets.some((socket) => socket.closed));
    connect();
    await until('a new one is accepted', () => sockets.length === BOUNDS.connectionsMax + 1);
    expect(refused).toBe(1);
  });
});

describe('seeded', () => {
  /** Messages as an app would send them, with the number of their descriptors. */
  const samples = (random: () => number): { message: Record<string, unknown>; fds: number } => {
    const epoch = Math.floor(random() * 1e6);
    const pick = Math.floor(random() * 6);
    const text = String.fromCodePoint(32 + Math.floor(random() * 90), 0x1f6f8).repeat(
      1 + Math.floor(random() * 40),
    );
    if (pick === 0) {
      return {
        message: {
          type: 'HELLO',
          v: 1,
          epoch,
          app: 'a',
          release: text,
          reads: [1, 2],
          writes: 2,
          holds: ['rotors'],
        },
        fds: 1,
      };
    }
    if (pick === 1) return { message: { type: 'READY', epoch, cycles: epoch, divergence: random() }, fds: 0 };
    if (pick === 2) return { message: { type: 'SNAP', epoch, payload: { text, x: random() } }, fds: 0 };
    if (pick === 3) {
      const fds = Math.floor(random() * 4);
      return { message: { type: 'RELEASED', epoch, resource: 'connections', payload: { text } }, fds };
    }
    if (pick === 4) return { message: { type: 'GRANTED', epoch, resource: 'camera' }, fds: 0 };
    return { message: { type: 'FAULT', epoch, code: 'X', text }, fds: 0 };
  };

  it('carries 10,000 messages, cut and glued at random, each whole and in order with its own descriptors', async () => {
    const before = descriptorCount();
    const random = seeded(7);
    const [left, right] = native.socketPair();
    const { master, slave } = native.openPty();
    const b = listening(right, parseAppMessage);
    const expected: string[] = [];
    let plain = Buffer.alloc(0);
    const push = async (bytes: Buffer, descriptors: number[]): Promise<void> => {
      for (let at = 0; at < bytes.length; ) {
        const length = random() < 0.5 ? bytes.length - at : 1 + Math.floor(random() * (bytes.length - at));
        const sent = native.send(left, bytes, at, length, at === 0 ? descriptors : []);
        if (sent === AGAIN) await turn();
        else at += sent;
      }
    };
    for (let n = 0; n < 10_000; n++) {
      const { message, fds } = samples(random);
      const names = Array.from({ length: fds }, (_, at) => `f${at}`);
      expected.push(JSON.stringify({ type: message.type, epoch: message.epoch, names }));
      const bytes = line({ ...message, fds: names });
      if (fds === 0) plain = Buffer.concat([plain, bytes]);
      if (fds > 0 || random() < 0.3) {
        if (plain.length > 0) await push(plain, []);
        plain = Buffer.alloc(0);
      }
      if (fds > 0)
        await push(
          bytes,
          names.map((_, at) => (at % 2 === 0 ? master : slave)),
        );
      if (b.descriptors.length > 100) {
        for (const [name, fd] of b.descriptors.splice(0)) {
          expect(inode(fd) === inode(slave)).toBe(Number(name.slice(1)) % 2 === 1);
          native.close(fd);
        }
      }
    }
    await push(Buffer.concat([plain, line({ type: 'RETIRE', epoch: 0 })]), []);
    await until('the last', () => b.messages.at(-1)?.type === 'RETIRE' || b.ended, 30_000);
    expect(b.error).toBeUndefined();
    expect(
      b.messages.slice(0, -1).map(({ type, epoch, fds }) => JSON.stringify({ type, epoch, names: fds })),
    ).toEqual(expected);
    closeAll(b.descriptors.splice(0).map(([, fd]) => fd));
    b.socket.close();
    closeAll([left, master, slave]);
    expect(descriptorCount()).toBe(before);
  });

  it('survives 10,000 lines with flipped bits: refused, or read as a valid message that says what the bytes say', async () => {
    const before = descriptorCount();
    const random = seeded(11);
    const { master, slave } = native.openPty();
    const codes = new Map<string, number>();
    let accepted = 0;
    for (let n = 0; n < 10_000; n++) {
      const [left, right] = native.socketPair();
      const { message, fds } = samples(random);
      const names = Array.from({ length: fds }, (_, at) => `f${at}`);
      const bytes = line({ ...message, fds: names });
      for (let flips = 1 + Math.floor(random() * 3); flips > 0; flips--) {
        const at = Math.floor(random() * bytes.length);
        bytes[at] = (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
      }
      const b = {
        messages: [] as AppMessage[],
        descriptors: [] as number[],
        ended: false,
        error: undefined as Error | undefined,
      };
      const socket = new LineSocket(right, parseAppMessage).start({
        onMessage: (got, descriptors) => {
          b.messages.push(got);
          b.descriptors.push(...descriptors.values());
        },
        onClose: (error) => {
          b.ended = true;
          b.error = error;
        },
      });
      // A receiver may see the line at once or in two parts.
      const half = random() < 0.5 ? bytes.length : 1 + Math.floor(random() * (bytes.length - 1));
      sendAll(
        left,
        bytes.subarray(0, half),
        names.map(() => master),
      );
      if (half < bytes.length) sendAll(left, bytes.subarray(half));
      native.close(left);
      await until('the end', () => b.ended);
      for (const got of b.messages) {
        accepted += 1;
        expect(got.fds.length).toBe(fds);
        const text = bytes.toString('utf8');
        const same = text.split('\n').some((part) => {
          try {
            const said = JSON.parse(part) as AppMessage;
            return said.type === got.type && said.epoch === got.epoch;
          } catch {
            return false;
          }
        });
        expect(same, text).toBe(true);
      }
      if (b.error !== undefined) {
        const code = codeOf(b.error) ?? '';
        codes.set(code, (codes.get(code) ?? 0) + 1);
      }
      expect(b.descriptors.length === 0 || b.descriptors.length === fds).toBe(true);
      closeAll(b.descriptors);
      socket.close();
    }
    closeAll([master, slave]);
    expect(descriptorCount()).toBe(before);
    // Each way of refusing was seen, and nothing else than a ProtocolError.
    for (const code of ['INVALID_JSON', 'UNKNOWN_TYPE', 'INVALID_MESSAGE', 'WRONG_DESCRIPTORS']) {
      expect(codes.get(code) ?? 0, code).toBeGreaterThan(0);
      codes.delete(code);
    }
    expect([...codes.keys()]).toEqual([]);
    expect(accepted).toBeGreaterThan(100);
  });

  it('never takes an agent message for an app message', () => {
    expect(() =>
      parseAppMessage('{"type":"GRANT","epoch":1,"resource":"rotors","from":"snap","payload":null}'),
    ).toThrow('UNKNOWN_TYPE');
    expect(() => parseAgentMessage('{"type":"SNAP","epoch":1,"payload":{}}')).toThrow('UNKNOWN_TYPE');
    expect(() => parseAgentMessage('{"type":"__proto__","epoch":1}')).toThrow('UNKNOWN_TYPE');
  });
});
