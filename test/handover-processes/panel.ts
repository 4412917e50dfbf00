/**
 * One version of a panel: an http server and websockets, both passed on through the SDK. Up: `u:<n>:…` must come in
 * order, and is answered `r:<n>:<release>`. Down: `d:<n>`, numbered over all versions. Each connection's numbers are
 * in its meta.
 *
 *   panel.ts RELEASE SOCKET [MS]   MS between two messages down, 2 if not said
 */
import { createServer } from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';
import { type JsonObject, join, Listener, WebSockets } from '#handover/index.ts';

const [release = '?', socketPath = '', downMs = '2'] = process.argv.slice(2);

const server = createServer((_request, response) => {
  response.setHeader('content-type', 'text/plain');
  response.end(release);
});
const accept = new WebSocketServer({ noServer: true, perMessageDeflate: true });
const listen = (socket: WebSocket, meta: JsonObject): void => {
  socket.on('message', (data) => {
    const [kind, number] = (data as Buffer).toString('latin1', 0, 20).split(':');
    if (kind !== 'u' || Number(number) !== meta.up)
      socket.send(`bad ${kind}:${number}, expected ${Number(meta.up)}`);
    meta.up = Number(meta.up) + 1;
    socket.send(`r:${number}:${release}`);
  });
};
const listener = new Listener(server);
const sockets = new WebSockets({ listener, onAdopt: listen, maxPayload: 8 << 20, flushMsMax: 1_000 });
server.on('upgrade', (request, socket, head) => {
  accept.handleUpgrade(request, socket, head, (webSocket) => {
    const meta = { up: 0, down: 0 };
    if (sockets.add(webSocket, meta)) listen(webSocket, meta);
  });
});
setInterval(() => {
  for (const [socket, meta] of sockets) {
    socket.send(`d:${Number(meta.down)}`);
    meta.down = Number(meta.down) + 1;
  }
}, Number(downMs));

await join({
  app: 'panel',
  release,
  socketPath,
  stateVersions: { reads: [1], writes: 1 },
  holders: { listener, connections: sockets },
  warmUp: () => Promise.resolve({ cycles: 1, divergence: 0 }),
  onRetire: () => {},
  onRevoked: () => process.exit(3),
});
