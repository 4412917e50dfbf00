/**
 * The gate as a process: `node agent/gate/main.ts --socket PATH --tty PATH --baud RATE`, started by the agent, or by a
 * service manager as `midair gate`. It outlives the agent, and hands itself over to the one that replaces it.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { Gate, GateError, type GateState } from '#agent/gate/gate.ts';
import { type FromGate, parseFromGate, parseToGate, type ToGate } from '#agent/gate/messages.ts';
import { createLog } from '#agent/log.ts';
import { closeAll, connectLines, type LineListener, type LineSocket, listenLines } from '#handover/lines.ts';
import { isNativeError, native } from '#handover/native.ts';
import { setFifo } from '#handover/realtime.ts';

export interface GateOptions {
  /** Where the agent finds it; nobody but its user and root may connect. */
  readonly socket: string;
  readonly tty: string;
  readonly baud: number;
  readonly logLevel?: string;
}

type Line = LineSocket<ToGate>;

/** Asks the gate that runs, if any, for all it has. It ends once we run. */
const takeOver = (
  path: string,
): Promise<{ readonly state: GateState; readonly running: () => Promise<void> } | undefined> =>
  new Promise((resolve, reject) => {
    let said = false;
    let ended = (): void => undefined;
    const gone = new Promise<void>((done) => {
      ended = done;
    });
    try {
      const socket: LineSocket<FromGate> = connectLines(path, parseFromGate, {
        onMessage: (message, descriptors) => {
          const [tty, gate, app] = ['tty', 'gate', 'app'].map((name) => descriptors.get(name));
          if (message.type !== 'state' || tty === undefined) {
            closeAll(descriptors.values());
            reject(new Error(`the gate that runs does not give way: ${JSON.stringify(message)}`));
            return;
          }
          said = true;
          const { epoch, partial, waiting } = message;
          const state = {
            epoch,
            partial: Buffer.from(partial, 'base64'),
            waiting: waiting.map((one) => Buffer.from(one, 'base64')),
            tty,
            ...(gate === undefined || app === undefined ? {} : { ends: { gate, app } }),
          };
          const running = (): Promise<void> => {
            socket.send({ type: 'running' });
            return gone;
          };
          resolve({ state, running });
        },
        onClose: () => {
          ended();
          if (!said) reject(new Error('the gate that runs closed the connection'));
        },
      });
      socket.send({ type: 'handover' });
    } catch (error) {
      if (isNativeError(error) && (error.code === 'ENOENT' || error.code === 'ECONNREFUSED'))
        resolve(undefined);
      else reject(error as Error);
    }
  });

/** Runs until the tty fails, another gate has taken over, or SIGTERM. Prints one JSON line when it is ready. */
export const run = async ({ socket: path, tty, baud, logLevel }: GateOptions): Promise<void> => {
  const log = createLog('gate', logLevel);
  const fifo = setFifo('flies');
  if (fifo !== undefined) log.warn({ why: fifo }, 'no real time for the gate');
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const taken = await takeOver(path);
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const lost = (error: Error): void => {
    log.error({ err: error }, 'the tty failed');
    process.exitCode = 1;
    end();
  };
  const fresh = (): GateState => ({
    epoch: 0,
    partial: Buffer.alloc(0),
    waiting: [],
    tty: native.openTty(tty, baud),
  });
  const sockets = new Set<Line>();
  let gate = new Gate(taken?.state ?? fresh(), lost);
  /** Another is about to take over. */
  let heir: Line | undefined;
  let listener: LineListener | undefined;

  const answer = (socket: Line, message: ToGate, descriptors: Map<string, number>): void => {
    if (heir !== undefined && socket !== heir) throw new GateError('MOVED', 'another gate takes over');
    switch (message.type) {
      case 'open': {
        const [near, far] = [descriptors.get('gate'), descriptors.get('app')];
        if (near === undefined || far === undefined) throw new GateError('REFUSED', 'a channel has two ends');
        descriptors.clear();
        gate.open(message.epoch, message.previous, { gate: near, app: far });
        socket.send({ type: 'opened', epoch: message.epoch });
        return;
      }
      case 'command':
        gate.command(message.epoch, Buffer.from(message.bytes, 'base64'));
        socket.send({ type: 'opened', epoch: message.epoch });
        return;
      case 'stats':
        socket.send({ type: 'stats', stats: gate.stats });
        return;
      case 'handover': {
        heir = socket;
        // The path must be free for it.
        listener?.close();
        const { ends, tty: fd, ...state } = gate.pause();
        const given = [
          { name: 'tty', fd },
          ...(ends === undefined
            ? []
            : [
                { name: 'gate', fd: ends.gate },
                { name: 'app', fd: ends.app },
              ]),
        ];
        const [partial, waiting] = [
          state.partial.toString('base64'),
          state.waiting.map((one) => one.toString('base64')),
        ];
        socket.send({ type: 'state', epoch: state.epoch, partial, waiting }, given);
        return;
      }
      case 'running':
        if (socket !== heir) throw new GateError('REFUSED', 'nothing was handed over');
        log.info('another gate has taken over');
        end();
    }
  };

  const listen = (): void => {
    listener = listenLines(path, parseToGate, (socket, peer) => {
      if (peer.uid !== 0 && peer.uid !== process.getuid?.()) {
        log.warn({ peer }, 'a stranger connected; refused');
        socket.close();
        return;
      }
      sockets.add(socket);
      socket.start({
        onMessage: (message, descriptors) => {
          try {
            answer(socket, message, descriptors);
          } catch (error) {
            if (!(error instanceof GateError)) throw error;
            socket.send({ type: 'refused', code: error.code, text: error.message });
          } finally {
            closeAll(descriptors.values());
          }
        },
        onClose: () => {
          sockets.delete(socket);
          if (socket !== heir) return;
          heir = undefined;
          if (process.exitCode !== undefined || done) return;
          log.warn('the gate that was to take over went away: going on');
          gate = new Gate(gate.pause(), lost);
          listen();
        },
      });
    });
  };
  let done = false;
  void ended.then(() => {
    done = true;
  });
  listen();
  if (taken !== undefined) await taken.running();
  process.stdout.write(
    `${JSON.stringify({ ready: true, socket: path, epoch: gate.epoch, fifo: fifo === undefined })}\n`,
  );
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  await ended;
  listener?.close();
  for (const socket of sockets) socket.close();
  gate.close();
};

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      socket: { type: 'string', default: '' },
      tty: { type: 'string', default: '' },
      baud: { type: 'string', default: '921600' },
      'log-level': { type: 'string', default: 'info' },
    },
  });
  await run({
    socket: values.socket,
    tty: values.tty,
    baud: Number(values.baud),
    logLevel: values['log-level'],
  });
}
