/**
 * The control panel as two resources: the socket that browsers connect to, and the connections that are open.
 *
 * Invariant: the browsers hear of exactly one version at a time. Before the connections go, the last of this version's
 * flight is said; when they come, they are greeted, then get what waited. An upgrade that comes while the connections
 * are with the other version waits for them.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type Grant, type Holder, type JsonObject, Listener, WebSockets } from 'midair/handover';
import { WebSocketServer } from 'ws';
import { LIMITS } from './limits.ts';
import type { Pilot, PilotMeta } from './pilot.ts';
import { createPanelServer } from './static-files.ts';
import type { Telemetry } from './telemetry.ts';
import type { Viewers } from './viewers.ts';

export interface PanelOptions {
  viewers: Viewers;
  telemetry: Telemetry;
  pilot: Pilot;
  /** Whether this version commands the rotors: only then is there a flight to tell of. */
  flies: () => boolean;
}

export const createPanel = ({
  viewers,
  telemetry,
  pilot,
  flies,
}: PanelOptions): { listener: Holder; connections: Holder } => {
  const server = createPanelServer();
  // Compression contexts live in a process and cannot be handed over.
  const upgrader = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: LIMITS.messageBytesMax,
  });
  const listener = new Listener(server);
  const sockets = new WebSockets({
    listener,
    onAdopt: (socket, meta) => {
      pilot.hear(socket, meta);
      viewers.add(socket);
    },
    onReturn: (socket) => viewers.back(socket),
    maxPayload: LIMITS.messageBytesMax,
  });

  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    upgrader.handleUpgrade(request, socket, head, (browser) => {
      const meta: PilotMeta = {};
      sockets.add(browser, meta as JsonObject);
      pilot.hear(browser, meta);
      viewers.add(browser);
    });
  };
  let early: Parameters<typeof upgrade>[] = [];
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    if (request.url !== '/ws') socket.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n');
    else if (sockets.owns) upgrade(request, socket, head);
    else if (early.length < LIMITS.upgradesWaitingMax) early.push([request, socket, head]);
    else socket.destroy();
  });

  const tell = (): void => {
    pilot.flush(sockets);
    const message = viewers.count > 0 && flies() ? telemetry.next() : null;
    if (message !== null) viewers.telemetry(message);
  };
  setInterval(tell, LIMITS.telemetryIntervalMs);

  const connections: Holder = {
    release(deadlineMs) {
      tell();
      viewers.close();
      return sockets.release(deadlineMs);
    },
    async grant(grant) {
      await sockets.grant(grant as Grant<never>);
      viewers.open();
      const waiting = early;
      early = [];
      for (const [request, socket, head] of waiting) if (!socket.destroyed) upgrade(request, socket, head);
    },
    rehearse: () => sockets.rehearse(),
    retire: () => sockets.retire(),
    drop() {
      viewers.close();
      sockets.drop();
    },
  };
  return { listener, connections };
};
