/**
 * What pilots ask for over the panel's websockets.
 *
 * Invariant: whoever flies follows it, and exactly one version does. A request that comes while another version flies
 * stays with its connection, as that connection's meta, and goes where the connection goes.
 */
import * as v from 'valibot';
import type { WebSocket } from 'ws';
import type { Request } from '../flight/control.ts';
import { LIMITS as FLIGHT } from '../flight/limits.ts';

const within = (name: string, low: number, high: number) =>
  v.pipe(
    v.number(`${name} must be a number`),
    v.minValue(low, `${name} is below ${low}`),
    v.maxValue(high, `${name} is above ${high}`),
  );
const place = (name: string) => within(name, -FLIGHT.placeMMax, FLIGHT.placeMMax);
const up = within('upM', FLIGHT.heightM.min, FLIGHT.heightM.max);
const speed = within('speedMS', 0.1, FLIGHT.cruiseMSMax);

const schema = v.variant('type', [
  v.strictObject({ type: v.literal('takeoff'), upM: up }),
  v.strictObject({
    type: v.literal('goto'),
    northM: place('northM'),
    eastM: place('eastM'),
    upM: up,
    speedMS: v.optional(speed, 1),
  }),
  v.strictObject({
    type: v.literal('circle'),
    radiusM: within('radiusM', 0.5, FLIGHT.placeMMax),
    speedMS: v.optional(speed, 1),
  }),
  v.strictObject({ type: v.literal('hover') }),
  v.strictObject({ type: v.literal('land') }),
]);

/** Travels with the connection. */
export interface PilotMeta {
  [name: string]: unknown;
  /** Not followed yet, and when it came (Unix ms): of several the newest counts. */
  waiting?: { request: Request; atMs: number };
}

export interface PilotOptions {
  flies: () => boolean;
  /** @returns why it is not followed */
  ask: (request: Request) => string | undefined;
}

export class Pilot {
  readonly #options: PilotOptions;

  constructor(options: PilotOptions) {
    this.#options = options;
  }

  /** From now on what this browser says is heard. */
  hear(socket: WebSocket, meta: PilotMeta): void {
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (!isBinary) this.#take(socket, meta, data.toString());
    });
  }

  /** What waited while another version flew. */
  flush(sockets: Iterable<[WebSocket, object]>): void {
    if (!this.#options.flies()) return;
    let newest: [WebSocket, Required<PilotMeta>['waiting']] | undefined;
    for (const [socket, meta] of sockets as Iterable<[WebSocket, PilotMeta]>) {
      const { waiting } = meta;
      if (waiting === undefined) continue;
      delete meta.waiting;
      if (newest === undefined || waiting.atMs >= newest[1].atMs) newest = [socket, waiting];
    }
    if (newest !== undefined) this.#ask(newest[0], newest[1].request);
  }

  #take(socket: WebSocket, meta: PilotMeta, text: string): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      refuse(socket, 'not JSON');
      return;
    }
    const result = v.safeParse(schema, message);
    if (!result.success) refuse(socket, result.issues[0].message);
    else if (this.#options.flies()) this.#ask(socket, result.output);
    else meta.waiting = { request: result.output, atMs: Date.now() };
  }

  #ask(socket: WebSocket, request: Request): void {
    const why = this.#options.ask(request);
    if (why === undefined) socket.send(JSON.stringify({ type: 'asked', request }));
    else refuse(socket, why);
  }
}

const refuse = (socket: WebSocket, text: string): void =>
  socket.send(JSON.stringify({ type: 'refused', text }));
