/**
 * The agent's side of the gate: finds the one that runs or starts one, and keeps it in touch.
 *
 * Invariant: what was asked last is asked again of every gate that is reached anew, with the very same channel; so a gate
 * that is replaced, or dies and is started again, goes on where the app is.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '#agent/errors.ts';
import type { Ends, Previous } from '#agent/gate/gate.ts';
import { GATE } from '#agent/gate/limits.ts';
import { type FromGate, parseFromGate } from '#agent/gate/messages.ts';
import type { Log } from '#agent/log.ts';
import { closeAll, connectLines, type LineSocket } from '#handover/lines.ts';
import { native } from '#handover/native.ts';

export interface GateClientOptions {
  readonly socket: string;
  readonly tty: string;
  readonly baud: number;
  readonly log: Log;
}

type Asked =
  | { readonly type: 'open'; readonly epoch: number; readonly previous: Previous; readonly ends: Ends }
  | { readonly type: 'command'; readonly epoch: number; readonly bytes: Uint8Array };

export class GateClient {
  readonly #options: GateClientOptions;
  #socket: LineSocket<FromGate> | undefined;
  #asked: Asked | undefined;
  #closed = false;

  private constructor(options: GateClientOptions) {
    this.#options = options;
  }

  /** @throws AgentError `DEVICE`: none runs, and none could be started; with its last words */
  static async open(options: GateClientOptions): Promise<GateClient> {
    mkdirSync(dirname(options.socket), { recursive: true, mode: 0o700 });
    const client = new GateClient(options);
    await client.#find(GATE.answerMsMax);
    return client;
  }

  /** Whether there is one to write now. */
  get reached(): boolean {
    return this.#socket !== undefined;
  }

  /** A channel of this epoch: the app's end, ours until the next is asked for. No round trip: what the app writes waits in it. */
  channel(epoch: number, previous: Previous): number {
    const [gate, app] = native.socketPair();
    this.#ask({ type: 'open', epoch, previous, ends: { gate, app } });
    return app;
  }

  /** Nobody's channel from here on, and these bytes. @returns false: there is no gate to write them */
  command(epoch: number, bytes: Uint8Array): boolean {
    this.#ask({ type: 'command', epoch, bytes });
    return this.#socket !== undefined;
  }

  /** The gate itself runs on. */
  close(): void {
    this.#closed = true;
    this.#socket?.close();
    this.#forget();
  }

  #ask(asked: Asked): void {
    this.#forget();
    this.#asked = asked;
    this.#tell();
  }

  #forget(): void {
    if (this.#asked?.type === 'open') closeAll(Object.values(this.#asked.ends));
    this.#asked = undefined;
  }

  #tell(): void {
    const asked = this.#asked;
    if (asked === undefined || this.#socket === undefined) return;
    if (asked.type === 'command') {
      this.#socket.send({ ...asked, bytes: Buffer.from(asked.bytes).toString('base64') });
      return;
    }
    const { ends, ...message } = asked;
    this.#socket.send(message, [
      { name: 'gate', fd: ends.gate },
      { name: 'app', fd: ends.app },
    ]);
  }

  #connect(): boolean {
    const { socket: path, log } = this.#options;
    try {
      const socket = connectLines(path, parseFromGate, {
        onMessage: (message, descriptors) => {
          closeAll(descriptors.values());
          if (message.type === 'refused')
            log.error({ code: message.code }, `the gate refuses: ${message.text}`);
        },
        onClose: (err) => {
          if (this.#socket === socket) this.#socket = undefined;
          if (this.#closed) return;
          log.warn({ err }, 'the gate is gone; looking for the next');
          void this.#find(Number.POSITIVE_INFINITY);
        },
      });
      this.#socket = socket;
    } catch {
      return false;
    }
    this.#tell();
    return true;
  }

  async #find(msMax: number): Promise<void> {
    const { socket, tty, baud, log } = this.#options;
    const endMs = performance.now() + msMax;
    let child: { ended: boolean } | undefined;
    while (!this.#closed && !this.#connect()) {
      if (performance.now() > endMs) {
        const words = `its log: ${join(dirname(socket), 'gate.log')}`;
        throw new AgentError('DEVICE', `the rotor gate at ${socket} does not answer; ${words}`);
      }
      // One that is being replaced is away for a moment; the next is started once the last has ended.
      if (child === undefined || child.ended) child = start(socket, tty, baud, log);
      await sleep(GATE.retryMs);
    }
  }
}

/** In a session of its own: it outlives us. */
const start = (socket: string, tty: string, baud: number, log: Log): { ended: boolean } => {
  const ending = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
  const words = openSync(join(dirname(socket), 'gate.log'), 'a');
  const args = ['--socket', socket, '--tty', tty, '--baud', String(baud)];
  const child = spawn(process.execPath, [join(import.meta.dirname, `main.${ending}`), ...args], {
    detached: true,
    stdio: ['ignore', 'ignore', words],
  });
  closeSync(words);
  child.unref();
  const state = { ended: false };
  child.once('error', (err) => log.error({ err }, 'the gate could not be started'));
  child.once('exit', () => {
    state.ended = true;
  });
  log.info({ pid: child.pid }, 'the rotor gate is started');
  return state;
};

/** What the gate that runs there has counted. @throws AgentError `DEVICE`: none does */
export const gateStats = (path: string): Promise<Record<string, number>> =>
  new Promise((resolve, reject) => {
    const none = (cause?: unknown): void =>
      reject(
        new AgentError('DEVICE', `no rotor gate answers at ${path}; is the agent run with --gate?`, {
          cause,
        }),
      );
    try {
      const socket = connectLines(path, parseFromGate, {
        onMessage: (message) => {
          if (message.type === 'stats') resolve(message.stats);
          socket.close();
        },
        onClose: none,
      });
      socket.send({ type: 'stats' });
    } catch (cause) {
      none(cause);
    }
  });
