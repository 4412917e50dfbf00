/**
 * Loaded before a process of the handover (`node --import`): does one fault at one step, as a plan says.
 *
 * Runs in V1, V2 and the agent alike; it wraps the socket that they speak the protocol on, nothing else: not the one that a candidate
 * practises on (handover/rehearsal.ts), which the same messages pass. The plan is read when a message passes, and taken before the fault
 * is done: one fault a plan, whoever it is for.
 *
 *   FAULT_MODULES  folder of line-socket and native (with their ending, FAULT_ENDING)
 *   FAULT_PLAN     path of the plan: { who, way, type, resource?, fault }
 *   FAULT_WHO      'agent', or it is the release's name (MIDAIR_RELEASE)
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';

const {
  FAULT_MODULES,
  FAULT_ENDING = '.js',
  FAULT_PLAN,
  FAULT_WHO = process.env.MIDAIR_RELEASE,
} = process.env;
if (FAULT_MODULES && FAULT_PLAN) {
  const { LineSocket } = await import(`${FAULT_MODULES}/line-socket${FAULT_ENDING}`);
  const { native } = await import(`${FAULT_MODULES}/native${FAULT_ENDING}`);
  const FLOOD_LINES = 5_000;
  const STAND_MS_MAX = 5_000;
  /** By socket. */
  const descriptors = new WeakMap();
  let written;
  const rawSend = native.send;
  native.send = (fd, ...rest) => {
    written = fd;
    return rawSend.call(native, fd, ...rest);
  };
  /** Both ends of each pair that this process made: what it says there, it says to itself. */
  const pairs = new Set();
  const { socketPair: rawPair, close: rawClose } = native;
  native.socketPair = () => {
    const pair = rawPair.call(native);
    for (const fd of pair) pairs.add(fd);
    return pair;
  };
  native.close = (fd) => {
    pairs.delete(fd);
    return rawClose.call(native, fd);
  };

  // The first process of a container cannot kill or stop itself: it stands still here until it is done from outside.
  const signal = (name) => () => {
    if (process.pid !== 1) process.kill(process.pid, name);
    writeFileSync(`${FAULT_PLAN}.now`, name);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STAND_MS_MAX);
  };
  const faults = {
    SIGKILL: signal('SIGKILL'),
    SIGSTOP: signal('SIGSTOP'),
    exit: () => process.exit(0),
    close: (socket) => socket.close(),
    flood: (socket) => {
      const line =
        FAULT_WHO === 'agent'
          ? { type: 'PREPARE', epoch: 0 }
          : { type: 'SNAP', epoch: 0, payload: { filler: 'x'.repeat(500) } };
      for (let i = 0; i < FLOOD_LINES; i += 1) if (!send.call(socket, line)) return;
    },
    garbage: (socket) => {
      const fd = descriptors.get(socket);
      const bytes = Buffer.from(Array.from({ length: 997 }, (_, i) => (i * 131 + 7) % 256));
      if (fd !== undefined) rawSend.call(native, fd, bytes, 0, bytes.length, []);
    },
  };
  /** An app has said HELLO before anything else passes. */
  const planned = (socket, way, message) => {
    if (message.type === 'SNAP' || pairs.has(descriptors.get(socket))) return undefined;
    try {
      const plan = JSON.parse(readFileSync(FAULT_PLAN, 'utf8'));
      const fits =
        plan.who === FAULT_WHO &&
        plan.way === way &&
        plan.type === message.type &&
        (plan.resource === undefined || plan.resource === message.resource) &&
        (plan.role === undefined || plan.role === message.role);
      if (!fits) return undefined;
      rmSync(FAULT_PLAN);
      return faults[plan.fault];
    } catch {
      return undefined;
    }
  };

  const { send, start } = LineSocket.prototype;
  LineSocket.prototype.send = function (message, ...rest) {
    const fault = planned(this, 'send', message);
    const sent = send.call(this, message, ...rest);
    // The first of each is written at once.
    if (written !== undefined && !descriptors.has(this)) descriptors.set(this, written);
    fault?.(this);
    return sent;
  };
  LineSocket.prototype.start = function (handlers) {
    return start.call(this, {
      ...handlers,
      onMessage: (message, received) => {
        planned(this, 'hear', message)?.(this);
        handlers.onMessage(message, received);
      },
    });
  };
}
