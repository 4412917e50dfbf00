/** The demo's panel client counts what a pilot would have missed: shown on a panel that loses and repeats. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import { PanelClient } from '#cli/demo/panel-client.ts';

let server: WebSocketServer;
let client: PanelClient;
let panel: WebSocket;

beforeEach(async () => {
  server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws' });
  await once(server, 'listening');
  const connected = once(server, 'connection');
  const { port } = server.address() as AddressInfo;
  client = await PanelClient.connect(`http://127.0.0.1:${port}`, AbortSignal.timeout(5_000));
  [panel] = (await connected) as [WebSocket];
});
afterEach(() => {
  client.close();
  server.close();
});

function frame(kind: number, sequence: number): void {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt8(kind, 0);
  bytes.writeUInt32LE(sequence, 4);
  panel.send(bytes);
}

const hello = (release: string, ...kinds: number[]) =>
  panel.send(
    JSON.stringify({ type: 'hello', release, views: kinds.map((kind) => ({ kind, id: `view${kind}` })) }),
  );

/** Everything sent so far has arrived. */
async function arrived(): Promise<void> {
  panel.ping();
  await once(panel, 'pong');
}

test('frames in order are no loss; skipped and repeated ones are counted by kind', async () => {
  hello('v1', 0, 1);
  for (const sequence of [7, 8, 9, 12, 12, 13]) frame(0, sequence);
  for (const sequence of [100, 101]) frame(1, sequence);
  await arrived();
  expect(client.seen(0)).toEqual({ frames: 6, lost: 2, repeated: 1 });
  expect(client.seen(1)).toEqual({ frames: 2, lost: 0, repeated: 0 });
  expect(client.framesLost).toBe(2);
  expect(client.framesRepeated).toBe(1);
  expect(client.releases).toEqual(['v1']);
});

test('a new view begins anywhere; one that was there goes on', async () => {
  hello('v1', 0);
  frame(0, 1);
  hello('v2', 0, 1);
  frame(1, 500);
  frame(0, 3);
  hello('v1', 0);
  hello('v2', 0, 1);
  frame(1, 900);
  await arrived();
  expect(client.seen(1).lost).toBe(0);
  expect(client.seen(0).lost).toBe(1);
});

test('a socket that closes is counted, our own goodbye is not', async () => {
  panel.close();
  await once(panel, 'close');
  await expect.poll(() => client.closes).toBe(1);
  client.close();
  expect(client.closes).toBe(1);
});
