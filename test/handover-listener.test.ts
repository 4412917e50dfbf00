import { Agent, createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { BOUNDS } from '#handover/bounds.ts';
import { Listener } from '#handover/listener.ts';
import { native } from '#handover/native.ts';
import { cleanUp, descriptorCount, until } from './handover-kit.ts';

const listening = (): { fd: number; port: number } => {
  const fd = native.tcpListen('127.0.0.1', 0, 128);
  cleanUp(() => native.close(fd));
  return { fd, port: native.tcpPort(fd) };
};
const version = (name: string, answer?: (request: IncomingMessage, response: ServerResponse) => void) => {
  const server = createServer(answer ?? ((_request, response) => response.end(name)));
  const listener = new Listener(server);
  cleanUp(() => {
    listener.drop();
    server.closeAllConnections();
  });
  const start = (fd: number): Promise<void> =>
    listener.grant({
      from: 'start',
      payload: null,
      descriptors: new Map([['listener', native.duplicate(fd)]]),
      epoch: 1,
    });
  return { server, listener, start };
};
const ask = (port: number, agent?: Agent): Promise<string> =>
  new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', agent: agent ?? false }, (response) => {
      let text = '';
      response.on('data', (data) => {
        text += String(data);
      });
      response.on('end', () => resolve(text));
    }).on('error', reject);
  });
const raw = (port: number): { socket: Socket; text: () => string; ended: () => boolean } => {
  const socket = connect(port, '127.0.0.1');
  cleanUp(() => socket.destroy());
  let text = '';
  let ended = false;
  socket.on('data', (data) => {
    text += String(data);
  });
  socket.on('end', () => {
    ended = true;
  });
  return { socket, text: () => text, ended: () => ended };
};

describe('a listening socket', () => {
  it('serves on with the successor; who came between waited in the backlog, and none was refused', async () => {
    const { fd, port } = listening();
    const [first, second] = [version('first'), version('second')];
    await first.start(fd);
    expect(await ask(port)).toBe('first');
    await first.listener.release();
    expect(first.listener.owns).toBe(false);
    first.listener.drop();
    const waiting = Array.from({ length: 50 }, () => ask(port));
    // They are connected by the kernel, though nobody accepts.
    const one = raw(port);
    await new Promise((resolve) => one.socket.once('connect', resolve));
    await second.start(fd);
    expect(await Promise.all(waiting)).toEqual(Array.from({ length: 50 }, () => 'second'));
    expect(second.listener.owns).toBe(true);
  });

  it('comes back in a hand-back', async () => {
    const { fd, port } = listening();
    const [first, second] = [version('first'), version('second')];
    await first.start(fd);
    for (let round = 0; round < 10; round++) {
      expect(await ask(port)).toBe('first');
      await first.listener.release();
      first.listener.drop();
      await second.start(fd);
      expect(await ask(port)).toBe('second');
      await second.listener.release();
      second.listener.drop();
      await first.start(fd);
    }
  });

  it('finishes a response under way, then closes its connection', async () => {
    const { fd, port } = listening();
    const open: ServerResponse[] = [];
    const first = version('first', (_request, response) => {
      response.write('begun,');
      open.push(response);
    });
    await first.start(fd);
    const client = raw(port);
    client.socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await until('it has begun', () => client.text().includes('begun,'));
    await first.listener.release();
    first.listener.drop();
    open[0]?.end('done');
    await until('it is answered and closed', () => client.text().includes('done') && client.ended());
    await until('none is left', () => first.listener.connections === 0);
    expect(client.text()).toMatch(/begun,.*done/s);
  });

  it('sends what still comes to the successor: accepted before, asked after', async () => {
    const { fd, port } = listening();
    const [first, second] = [version('first'), version('second')];
    await first.start(fd);
    const ask_ = (path: string): ReturnType<typeof raw> => {
      const client = raw(port);
      client.socket.write(`GET ${path} HTTP/1.1\r\n`);
      return client;
    };
    const clients = [ask_('/view.js?x=1'), ask_('//elsewhere/'), raw(port)];
    await until('all are accepted', () => first.listener.connections === 3);
    await first.listener.release();
    first.listener.drop();
    await second.start(fd);
    for (const { socket } of clients.slice(0, 2)) socket.write('Host: x\r\n\r\n');
    await until('all are closed', () => clients.every(({ ended }) => ended()));
    expect(clients[0]?.text()).toMatch(/^HTTP\/1.1 307 .*location: \/view.js\?x=1\r\n/s);
    expect(clients[1]?.text()).toMatch(/^HTTP\/1.1 503 /);
    expect(clients[1]?.text()).not.toContain('location');
    expect(clients[2]?.text()).toBe('');
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('second');
    // The one that let go answers again when it has it back.
    await second.listener.release();
    second.listener.drop();
    await first.start(fd);
    expect(await ask(port)).toBe('first');
  });

  it('closes idle kept-alive connections, whose next request goes to the successor', async () => {
    const { fd, port } = listening();
    const [first, second] = [version('first'), version('second')];
    await first.start(fd);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    cleanUp(() => agent.destroy());
    expect(await ask(port, agent)).toBe('first');
    expect(await ask(port, agent)).toBe('first');
    expect(first.listener.connections).toBe(1);
    await first.listener.release();
    first.listener.drop();
    await second.start(fd);
    await until(
      'it is closed',
      () => first.listener.connections === 0 && Object.keys(agent.freeSockets).length === 0,
      BOUNDS.freshConnectionMsMax / 2,
    );
    expect(await ask(port, agent)).toBe('second');
  });

  it('leaks nothing over 100 requests and a drop, and refuses to release what it has not', async () => {
    const { fd, port } = listening();
    const first = version('first');
    const before = descriptorCount();
    await first.start(fd);
    for (let n = 0; n < 100; n++) await ask(port);
    await first.listener.release();
    await expect(first.listener.release()).rejects.toMatchObject({ code: 'NOT_OWNER' });
    first.listener.drop();
    await until('all are closed', () => descriptorCount() === before);
  });
});
