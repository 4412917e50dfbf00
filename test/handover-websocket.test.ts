import { Agent, createServer, get, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { closeAll } from '#handover/lines.ts';
import type { JsonObject } from '#handover/messages.ts';
import { native } from '#handover/native.ts';
import { type ConnectionsPayload, WebSockets } from '#handover/websocket.ts';
import { type AppEnd, pass, scriptedAgent } from './handover-agent.ts';
import { cleanUp, descriptorCount, directory, otherProcess, seeded, turn, until } from './handover-kit.ts';

/** A client that sends numbered messages of many shapes, and checks that everything comes back once, in order. */
class Client {
  readonly socket: WebSocket;
  readonly faults: string[] = [];
  readonly releases = new Set<string>();
  sent = 0;
  answered = 0;
  down = 0;
  closedWith: number | undefined;

  constructor(port: number, options = {}) {
    this.socket = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false, ...options });
    this.socket.on('message', (data) => {
      const [kind, number, release] = (data as Buffer).toString().split(':');
      if (kind === 'r') {
        if (Number(number) !== this.answered) this.faults.push(`answer ${number}, expected ${this.answered}`);
        this.answered += 1;
        this.releases.add(release ?? '');
      } else if (kind === 'd') {
        if (Number(number) !== this.down) this.faults.push(`down ${number}, expected ${this.down}`);
        this.down += 1;
      } else this.faults.push((data as Buffer).toString());
    });
    this.socket.on('close', (code) => {
      this.closedWith = code;
    });
    this.socket.on('error', (error) => this.faults.push(String(error)));
    cleanUp(() => this.socket.terminate());
  }

  send(random: () => number): void {
    const size = random() < 0.02 ? 100_000 : Math.floor(random() * 2_000);
    const text = Buffer.from(`u:${this.sent}:${'x'.repeat(size)}`);
    this.sent += 1;
    if (random() < 0.5) {
      this.socket.send(text);
      return;
    }
    const cut = 12 + Math.floor(random() * (text.length - 12));
    this.socket.send(text.subarray(0, Math.min(cut, text.length)), { fin: false });
    if (random() < 0.3) this.socket.ping();
    this.socket.send(text.subarray(cut), { fin: true });
  }
}

/** One kept-alive http connection, as a program has it that asks again and again. Any error ends the test. */
class KeptAlive {
  readonly #agent: Agent;
  readonly #port: number;
  connections = 0;
  readonly answers: string[] = [];

  constructor(port: number) {
    this.#port = port;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 });
    cleanUp(() => this.#agent.destroy());
  }

  async ask(): Promise<string> {
    const url = `http://127.0.0.1:${this.#port}/`;
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = get(url, { agent: this.#agent }, resolve).on('error', reject);
      request.on('socket', () => {
        if (!request.reusedSocket) this.connections += 1;
      });
    });
    const text = (await response.toArray()).join('');
    // Between the listener and the connections a version that has let go sends on.
    if (response.statusCode === 307) return this.ask();
    this.answers.push(text);
    return text;
  }
}

const HANDSHAKE =
  'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n';

/** V1 and V2 of a panel in processes of their own; V1 listens. */
const twoVersions = async (downMs: string) => {
  const path = `${directory()}/s`;
  const agent = scriptedAgent(path);
  const listening = native.tcpListen('127.0.0.1', 0, 128);
  cleanUp(() => native.close(listening));
  const port = native.tcpPort(listening);
  const own = [{ name: 'listener', fd: listening }];
  const versions: AppEnd[] = [];
  for (const release of ['v1', 'v2']) {
    otherProcess('panel.ts', release, path, downMs);
    const { app, hello } = await agent.app();
    expect(hello.message).toMatchObject({ app: 'panel', release, holds: [], epoch: 0 });
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await app.next('READY');
    versions.push(app);
  }
  const [owner] = versions as [AppEnd];
  owner.send({ type: 'GRANT', epoch: 2, resource: 'listener', from: 'start', payload: null }, own);
  await owner.next('GRANTED');
  owner.send({ type: 'GRANT', epoch: 3, resource: 'connections', from: 'start', payload: null });
  await owner.next('GRANTED');

  return { port, own, versions: versions as [AppEnd, AppEnd] };
};

describe('between two processes, under load', () => {
  it('moves 25 websockets to and fro, mid-frame and mid-fragment, with nothing lost, doubled or closed', async () => {
    const { port, versions, own } = await twoVersions('2');
    let [owner, other] = versions;
    const clients = Array.from({ length: 25 }, () => new Client(port));
    await until('all are open', () => clients.every(({ socket }) => socket.readyState === WebSocket.OPEN));
    // One that writes its message byte by byte: every handover finds it within a frame.
    const slow = connect(port, '127.0.0.1');
    cleanUp(() => slow.destroy());
    let heard = Buffer.alloc(0);
    slow.on('data', (data) => {
      heard = Buffer.concat([heard, data]);
    });
    slow.write(HANDSHAKE);
    await until('the slow one is open', () => heard.includes('\r\n\r\n'));
    const text = Buffer.from(`u:0:${'y'.repeat(60)}`);
    const mask = Buffer.from([1, 2, 3, 4]);
    const masked = Buffer.from(text.map((byte, at) => byte ^ (mask[at % 4] as number)));
    let rest: Buffer = Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask, masked]);

    const random = seeded(13);
    const talk = setInterval(() => {
      for (const client of clients) if (random() < 0.2) client.send(random);
      // It ends in the middle of the second half of the handovers.
      if (rest.length > 0 && random() < 0.5) {
        slow.write(rest.subarray(0, 1));
        rest = rest.subarray(1);
      }
    }, 2);
    cleanUp(() => clearInterval(talk));
    let epoch = 3;
    const took: number[] = [];
    for (let round = 0; round < 12; round++) {
      const sent = clients.reduce((sum, client) => sum + client.answered, 0);
      await until(
        'there is traffic',
        () => clients.reduce((sum, client) => sum + client.answered, 0) > sent + 100,
      );
      epoch += 1;
      await pass(owner, other, 'listener', epoch, own);
      epoch += 1;
      const { payload, deliveredMs } = await pass(owner, other, 'connections', epoch);
      expect(payload.closed).toBe(0);
      expect((payload.connections as unknown[]).length).toBe(26);
      took.push(deliveredMs);
      [owner, other] = [other, owner];
    }
    await until('the slow one has written', () => rest.length === 0);
    clearInterval(talk);
    await until('all is answered', () => clients.every(({ sent, answered }) => sent === answered), 20_000);
    for (const client of clients) {
      expect(client.faults).toEqual([]);
      expect(client.closedWith).toBeUndefined();
      expect([...client.releases].sort()).toEqual(['v1', 'v2']);
    }
    expect(clients.reduce((sum, client) => sum + client.answered, 0)).toBeGreaterThan(1_200);
    await until('the slow one is answered', () => heard.includes('r:0:'));
    expect(slow.destroyed).toBe(false);
    for (const app of versions) expect(app.count('FAULT')).toBe(0);
    console.log(`connections (26) passed in ms: ${took.map((ms) => ms.toFixed(1)).join(' ')}`);
  });

  it('moves 500 websockets in batches, and with them the http connections that wait for their next request', async () => {
    const { port, versions, own } = await twoVersions('100');
    let [owner, other] = versions;
    const clients = Array.from({ length: 500 }, () => new Client(port));
    await until('all are open', () => clients.every(({ socket }) => socket.readyState === WebSocket.OPEN));
    const patient = Array.from({ length: 10 }, () => new KeptAlive(port));
    const busy = Array.from({ length: 10 }, () => new KeptAlive(port));
    const random = seeded(17);
    const talk = setInterval(() => {
      for (const client of clients) if (random() < 0.02) client.send(random);
    }, 5);
    cleanUp(() => clearInterval(talk));
    let ends = false;
    const asking = busy.map(async (one) => {
      while (!ends) await one.ask();
    });
    let epoch = 3;
    const took: number[] = [];
    for (const expected of ['v1', 'v2', 'v1', 'v2']) {
      for (const one of patient) expect(await one.ask()).toBe(expected);
      epoch += 1;
      await pass(owner, other, 'listener', epoch, own);
      epoch += 1;
      const { lines, payload, deliveredMs } = await pass(owner, other, 'connections', epoch);
      const kinds = lines.flatMap(({ connections }) =>
        (connections as { kind: string }[]).map(({ kind }) => kind),
      );
      expect(payload.closed).toBe(0);
      expect(lines.length).toBeGreaterThan(2);
      expect(kinds.filter((kind) => kind === 'websocket')).toHaveLength(500);
      expect(kinds.filter((kind) => kind === 'http').length).toBeGreaterThanOrEqual(10);
      took.push(deliveredMs);
      [owner, other] = [other, owner];
    }
    ends = true;
    await Promise.all(asking);
    clearInterval(talk);
    await until('all is answered', () => clients.every(({ sent, answered }) => sent === answered), 20_000);
    for (const { faults, closedWith } of clients) expect([faults, closedWith]).toEqual([[], undefined]);
    for (const { answers, connections } of patient) {
      expect(answers).toEqual(['v1', 'v2', 'v1', 'v2']);
      expect(connections).toBe(1);
    }
    for (const { answers } of busy) expect([...new Set(answers)].sort()).toEqual(['v1', 'v2']);
    for (const app of versions) expect(app.count('FAULT')).toBe(0);
    console.log(`connections (500 and more) passed in ms: ${took.map((ms) => ms.toFixed(1)).join(' ')}`);
  });
});

/** A server with websockets in this process, and a second holder to take them over. */
const panel = async (options = {}, flushMsMax?: number) => {
  const server: Server = createServer();
  const accept = new WebSocketServer({ server, ...options });
  const opened: WebSocket[] = [];
  const first = new WebSockets({ onAdopt: () => {}, ...(flushMsMax === undefined ? {} : { flushMsMax }) });
  accept.on('connection', (socket) => {
    first.add(socket, { n: opened.length });
    opened.push(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  await first.grant({ from: 'start', payload: null, descriptors: new Map(), epoch: 1 });
  cleanUp(() => {
    for (const socket of opened) socket.terminate();
    first.drop();
    accept.close();
    server.close();
  });
  const adopted: [WebSocket, JsonObject][] = [];
  const second = new WebSockets({
    onAdopt: (socket, meta) => {
      adopted.push([socket, meta]);
      socket.on('message', (data) => socket.send(`second:${(data as Buffer).toString()}`));
    },
  });
  cleanUp(() => {
    for (const [socket] of adopted) socket.terminate();
  });
  const move = async (): Promise<ConnectionsPayload> => {
    const { payload, descriptors = [] } = await first.release(1_000);
    await second.grant({
      from: 'release',
      payload,
      descriptors: new Map(descriptors.map(({ name, fd }) => [name, native.duplicate(fd)])),
      epoch: 2,
    });
    first.drop();
    return payload;
  };
  return { port: (server.address() as AddressInfo).port, first, second, opened, adopted, move };
};
const opening = async (
  port: number,
  options = {},
  protocols: string[] = [],
): Promise<WebSocket & { codes: number[]; texts: string[] }> => {
  const socket = Object.assign(new WebSocket(`ws://127.0.0.1:${port}/`, protocols, options), {
    codes: [] as number[],
    texts: [] as string[],
  });
  socket.on('close', (code) => socket.codes.push(code));
  socket.on('message', (data) => socket.texts.push((data as Buffer).toString()));
  cleanUp(() => socket.terminate());
  await new Promise((resolve) => socket.once('open', resolve));
  return socket;
};

describe('a connection', () => {
  it('goes with its protocol and meta, answers pings, and closes normally afterwards', async () => {
    const { port, second, adopted, move, first } = await panel({ handleProtocols: () => 'panel.v1' });
    const client = await opening(port, {}, ['panel.v1', 'panel.v0']);
    await until('it is there', () => first.size === 1);
    const payload = await move();
    expect(payload).toMatchObject({
      closed: 0,
      connections: [{ fd: 'c0', protocol: 'panel.v1', head: '', meta: { n: 0 } }],
    });
    expect(first.size).toBe(0);
    expect([...second].map(([, meta]) => meta)).toEqual([{ n: 0 }]);
    expect(adopted[0]?.[0].protocol).toBe('panel.v1');
    let pongs = 0;
    client.on('pong', () => {
      pongs += 1;
    });
    client.ping();
    client.send('hello');
    await until('both are answered', () => pongs === 1 && client.texts.length === 1);
    expect(client.texts).toEqual(['second:hello']);
    client.close(1000);
    await until('it is closed', () => client.codes.length === 1);
    expect(client.codes).toEqual([1000]);
    await until('the holder knows', () => second.size === 0);
  });

  it('is closed with 1012 and counted when it has compression, a half sent message, or a huge half received one', async () => {
    const { port, first, second, opened, move } = await panel({
      perMessageDeflate: true,
      maxPayload: 1 << 20,
    });
    const plain = await opening(port, { perMessageDeflate: false });
    const compressed = await opening(port, { perMessageDeflate: true });
    const half = await opening(port, { perMessageDeflate: false });
    const huge = await opening(port, { perMessageDeflate: false });
    await until('all are there', () => first.size === 4);
    opened[2]?.send('the first part', { fin: false });
    huge.send(Buffer.alloc(200_000), { fin: false });
    await until(
      'it is half received',
      () =>
        (opened[3] as unknown as { _receiver: { _fragments: unknown[] } })._receiver._fragments.length > 0,
    );
    const payload = await move();
    expect(payload.closed).toBe(3);
    expect(payload.connections.length).toBe(1);
    await until('they are told', () => [compressed, half, huge].every(({ codes }) => codes.length === 1));
    for (const { codes } of [compressed, half, huge]) expect(codes).toEqual([1012]);
    expect(plain.codes).toEqual([]);
    plain.send('x');
    await until('the other lives on', () => plain.texts.length === 1);
    expect(second.size).toBe(1);
  });

  /** Its client does not read, and has more to read than the kernel holds. */
  const slowReader = async () => {
    const all = await panel();
    const client = await opening(all.port);
    await until('it is there', () => all.first.size === 1);
    const [served] = all.opened as [WebSocket];
    const heard: string[] = [];
    served.on('message', (data) => heard.push((data as Buffer).toString()));
    client.pause();
    for (let n = 0; n < 400; n++) served.send(`${n}:${'s'.repeat(65_536)}`);
    return { ...all, client, served, heard };
  };
  const upTo = (count: number) => Array.from({ length: count }, (_, n) => n);
  const numbers = (texts: string[]) => texts.map((text) => Number.parseInt(text, 10));

  it('that does not take its bytes stays, served, until this version retires; then it is told to come again', async () => {
    const { first, second, client, served, heard, move } = await slowReader();
    expect(await move()).toMatchObject({ closed: 0, kept: 1, connections: [] });
    expect([first.size, first.kept, second.size]).toEqual([0, 1, 0]);
    client.resume();
    client.send('still heard');
    await until('it is heard', () => heard.length === 1);
    await until('it has all', () => client.texts.length === 400);
    served.send('400: and still told');
    client.pause();
    for (let n = 401; n < 500; n++) served.send(`${n}:${'s'.repeat(65_536)}`);
    const retiring = first.retire();
    client.resume();
    await retiring;
    await until('it is told', () => client.codes.length === 1);
    expect(client.codes).toEqual([1012]);
    expect(numbers(client.texts)).toEqual(upTo(500));
    expect(first.kept).toBe(0);
  });

  it('that had stayed is as it was after a hand-back', async () => {
    const { first, second, client, served, move } = await slowReader();
    await move();
    const { payload } = await second.release(1_000);
    await first.grant({ from: 'release', payload, descriptors: new Map(), epoch: 3 });
    second.drop();
    expect([first.size, first.kept]).toEqual([1, 0]);
    expect([...first]).toEqual([[served, { n: 0 }]]);
    client.resume();
    await until('it has all', () => client.texts.length === 400);
    first.broadcast('400: once more');
    await until('it is told', () => client.texts.length === 401);
    expect(numbers(client.texts)).toEqual(upTo(401));
    expect(client.codes).toEqual([]);
  });

  it('that does not read even its farewell is ended', async () => {
    const { first, client, move } = await slowReader();
    await move();
    await first.retire();
    expect(first.kept).toBe(0);
    client.resume();
    await until('it is closed', () => client.codes.length === 1);
    expect(client.codes).toEqual([1006]);
  });

  it('that comes back from a version that died goes on if that one never touched it, else it is told to come again', async () => {
    const { port, first, opened } = await panel();
    const clients = await Promise.all([opening(port), opening(port), opening(port)]);
    await until('all are there', () => first.size === 3);
    const [asked, told, idle] = clients as [(typeof clients)[0], (typeof clients)[0], (typeof clients)[0]];
    const { payload, descriptors = [] } = await first.release(1_000);
    const lent = () => new Map(descriptors.map(({ name, fd }) => [name, native.duplicate(fd)]));
    const [kept, given] = [lent(), lent()];
    first.drop();
    // It answers one, tells another something, and is no more: its descriptors close without a word.
    const second = new WebSockets({
      onAdopt: (socket, { n }) => {
        socket.on('message', () => socket.pause());
        if (opened[n as number] === opened[1]) socket.send('from the second');
      },
    });
    await second.grant({ from: 'release', payload, descriptors: given, epoch: 2 });
    asked.send('a question');
    await until('it is told', () => told.texts.length === 1);
    await until(
      'it is read',
      () => native.tcpPosition(kept.get('c0') as number)[0] !== payload.connections[0]?.position?.[0],
    );
    const dead = [...second].map(
      ([socket]) => socket as unknown as { _socket: Socket & { _handle: { close(): void } } },
    );
    for (const { _socket } of dead) _socket._handle.close();
    await first.grant({ from: 'snap', payload, descriptors: kept, epoch: 3 });
    await until('two are told', () => [asked, told].every(({ codes }) => codes.length === 1));
    expect([asked.codes, told.codes, idle.codes]).toEqual([[1012], [1012], []]);
    expect(first.size).toBe(1);
    first.broadcast('from the first');
    await until('it is told', () => idle.texts.length === 1);
    expect(idle.texts).toEqual(['from the first']);
  });

  it('of a client that reads late but in time keeps every byte, and hears nothing that came after the release', async () => {
    const { port, first, second, opened } = await panel({}, 5_000);
    const client = await opening(port);
    await until('it is there', () => first.size === 1);
    let count = 0;
    for (; opened[0]?.bufferedAmount === 0 && count < 5_000; count++)
      opened[0]?.send(`${count}:${'z'.repeat(50_000)}`);
    expect(opened[0]?.bufferedAmount).toBeGreaterThan(0);
    const releasing = first.release(10_000);
    opened[0]?.send('late');
    const { payload, descriptors = [] } = await releasing;
    expect(payload).toMatchObject({ closed: 0 });
    await second.grant({
      from: 'release',
      payload,
      descriptors: new Map(descriptors.map(({ name, fd }) => [name, native.duplicate(fd)])),
      epoch: 2,
    });
    first.drop();
    client.send('x');
    await until('all came', () => client.texts.at(-1) === 'second:x');
    expect(client.texts.slice(0, -1).map((text) => Number.parseInt(text, 10))).toEqual(
      Array.from({ length: count }, (_, n) => n),
    );
  });

  it('that comes while another version owns them is told to come again', async () => {
    const { port, first, move } = await panel();
    await move();
    const client = await opening(port);
    await until('it is told', () => client.codes.length === 1);
    expect(client.codes).toEqual([1012]);
    expect(first.size).toBe(0);
  });

  it('stays when nobody heard of the release', async () => {
    const before = descriptorCount();
    const { port, first, opened } = await panel();
    const again: string[] = [];
    const client = await opening(port);
    await until('it is there', () => first.size === 1);
    opened[0]?.on('message', () => again.push('the old one heard'));
    const { payload, descriptors = [] } = await first.release(1_000);
    const later = new WebSockets({ onAdopt: () => {} });
    expect(later.size).toBe(0);
    await first.grant({
      from: 'release',
      payload,
      descriptors: new Map(descriptors.map(({ name, fd }) => [name, fd])),
      epoch: 1,
    });
    expect(first.size).toBe(1);
    const [[socket] = []] = first;
    socket?.on('message', (data) => socket.send((data as Buffer).toString()));
    client.send('still here');
    await until('it is answered', () => client.texts.length === 1);
    expect(again).toEqual([]);
    expect(client.codes).toEqual([]);
    first.drop();
    await until('a drop says goodbye', () => client.codes.length === 1);
    expect(client.codes).toEqual([1012]);
    expect(descriptorCount()).toBeGreaterThanOrEqual(before);
  });

  it('leaks no descriptor over 200 moves', async () => {
    const { port, first, second, adopted, move } = await panel();
    const client = await opening(port);
    await until('it is there', () => first.size === 1);
    await move();
    const before = descriptorCount();
    let [from, to] = [second, first];
    for (let n = 0; n < 200; n++) {
      const { payload, descriptors = [] } = await from.release(1_000);
      await to.grant({
        from: 'release',
        payload,
        descriptors: new Map(descriptors.map(({ name, fd }) => [name, native.duplicate(fd)])),
        epoch: 2,
      });
      from.drop();
      [from, to] = [to, from];
      if (n % 20 === 0) await turn();
    }
    await until('closed handles are gone', () => descriptorCount() <= before);
    client.send('x');
    await until('it is answered', () => client.texts.length === 1);
    expect(adopted.length).toBe(101);
  });

  it('whose grant is wrong is refused, every descriptor closed', async () => {
    const before = descriptorCount();
    const holder = new WebSockets({ onAdopt: () => {} });
    const [left, right] = native.socketPair();
    const wrong: [JsonObject, string][] = [
      [{ connections: [{ fd: 'other', protocol: '', head: '', meta: {} }] }, 'NO_DESCRIPTOR'],
      [{ connections: [{ fd: 'c0', protocol: '', head: 'not base64!', meta: {} }] }, 'Base64'],
      [{ connections: 'many' }, 'Array'],
    ];
    for (const [payload, text] of wrong) {
      await expect(
        holder.grant({
          from: 'release',
          payload: payload as ConnectionsPayload,
          descriptors: new Map([['c0', native.duplicate(left)]]),
          epoch: 1,
        }),
      ).rejects.toThrow(text);
    }
    closeAll([left, right]);
    expect(descriptorCount()).toBe(before);
  });
});
