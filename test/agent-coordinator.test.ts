/** An agent that comes back in the middle of a handover: first who is there, then what is to be done. */
import { expect, it } from 'vitest';
import { Coordinator } from '#agent/coordinator.ts';
import { createLock } from '#agent/lock.ts';
import { createLog } from '#agent/log.ts';
import { policyOf } from '#agent/policy.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, connectLines, type LineSocket } from '#handover/lines.ts';
import {
  type AgentMessage,
  type JsonObject,
  PROTOCOL_VERSION,
  parseAgentMessage,
  RESOURCES,
  type Resource,
} from '#handover/messages.ts';
import { nowUs } from '#handover/native.ts';
import type { AppId, Outcome, State } from '#handover/state.ts';
import { cleanUp, directory, until } from './handover-kit.ts';

/** Long enough for every deadline of the agent's to be looked at before. */
const ANSWER_MS = 20;
const SPEAKS = { reads: [1], writes: 1 };

interface Given {
  /** The journal's. */
  write: (state: State) => unknown;
  resources: readonly Resource[];
  frozen: AppId[];
  /** A grant is about to be sent. */
  granting: (resource: Resource) => void;
}

/** Two apps that hold what they held; they look for the agent's socket, and find it at once or later. */
const restarted = async (
  state: State,
  {
    write = () => undefined,
    resources = RESOURCES,
    frozen = [],
    granting = () => undefined,
  }: Partial<Given> = {},
) => {
  const path = directory();
  const ids: AppId[] = [];
  const fenced: AppId[] = [];
  const outcomes: Outcome[] = [];
  const reports: string[] = [];
  const omitted: number[] = [];
  const sockets: Record<AppId, LineSocket<AgentMessage>> = {};
  const heard: Record<AppId, AgentMessage[]> = { v1: [], v2: [] };
  const coordinator = new Coordinator({
    socketPath: `${path}/s`,
    journal: { value: state, damaged: null, write, close: () => undefined },
    devices: {
      open: () => undefined,
      descriptors: (resource) => {
        granting(resource);
        return [];
      },
      command: () => false,
      adopt: (_resource, fd) => closeAll([fd]),
      forget: () => undefined,
      close: () => undefined,
    },
    processes: {
      containerOfPid: () => ids.shift(),
      fence: async (id) => {
        fenced.push(id);
        await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
        return { dead: Promise.resolve(true) };
      },
      stop: () => Promise.resolve(),
    },
    resources,
    lock: createLock(`${path}/locks`),
    log: createLog('test', 'silent'),
    onReport: ({ type, data }) => {
      reports.push(type);
      if (typeof data.omitted === 'number') omitted.push(data.omitted);
    },
    onSettle: (outcome) => outcomes.push(outcome),
  });
  cleanUp(() => coordinator.close());
  /** @returns says a heartbeat now, of its own or `payload` */
  const connect = (id: AppId, holds: string[]): ((payload?: JsonObject) => void) => {
    ids.push(id);
    const socket = connectLines(`${path}/s`, parseAgentMessage, {
      onMessage: (message, descriptors) => {
        closeAll(descriptors.values());
        heard[id]?.push(message);
        const isAsked =
          message.type === 'PREPARE' || (message.type === 'OFFER' && message.role === 'candidate');
        if (isAsked) socket.send({ type: 'READY', epoch: message.epoch, cycles: 1_000, divergence: 0 });
        if (message.type === 'GRANT') {
          const { epoch, resource } = message;
          setTimeout(() => socket.send({ type: 'GRANTED', epoch, resource }), ANSWER_MS);
        }
        if (message.type === 'RELEASE') {
          const { epoch, resource } = message;
          socket.send({ type: 'RELEASED', epoch, resource, payload: {} });
        }
      },
      onClose: () => undefined,
    });
    sockets[id] = socket;
    const { epoch } = state;
    // Who flies says so.
    const beat = (payload: JsonObject = { learned: 1, stateVersion: 1 }): void => {
      socket.send({ type: 'SNAP', epoch, atUs: nowUs(), payload });
    };
    const timer = setInterval(() => holds.includes('rotors') && beat(), LIMITS.snapIntervalMs);
    cleanUp(() => {
      clearInterval(timer);
      socket.close();
    });
    socket.send({ type: 'HELLO', epoch, v: PROTOCOL_VERSION, app: 'hover', release: id, ...SPEAKS, holds });
    return beat;
  };
  const booting = coordinator.start(new Set(['v1', 'v2']), new Set(frozen));
  return { coordinator, booting, connect, fenced, outcomes, heard, reports, omitted, sockets };
};

/** V2 has the rotors, and V1 waits beside it. */
const inProbation = (probationMs: number): State => ({
  phase: 'probation',
  epoch: 9,
  prior: 'v1',
  candidate: 'v2',
  fenced: { prior: false, candidate: false },
  failure: null,
  speaks: { prior: SPEAKS, candidate: SPEAKS },
  policy: { ...policyOf({}), probationMs },
  heardMs: 0,
  loop: null,
  deadlineMs: 1,
});

/** V1 is the owner, holds everything, and has been heard for as long as the agent waited for V2. */
const flying = async (given: Partial<Given> = {}) => {
  const lab = await restarted({ phase: 'idle', epoch: 5, owner: 'v1', speaks: SPEAKS }, given);
  lab.connect('v1', [...RESOURCES]);
  await lab.booting;
  return lab;
};

it('while apps connect again no deadline of its former life passes: the prior flies on, the candidate is fenced', async () => {
  const state: State = {
    phase: 'releasing',
    epoch: 5,
    prior: 'v1',
    candidate: 'v2',
    fenced: { prior: false, candidate: false },
    failure: null,
    speaks: { prior: SPEAKS, candidate: SPEAKS },
    policy: policyOf({}),
    heardMs: 0,
    direction: 'forward',
    resource: 'connections',
    left: ['rotors'],
    // It passed long ago.
    deadlineMs: 1,
  };
  const { booting, connect, fenced, outcomes, heard } = await restarted(state);
  connect('v1', ['rotors']);
  connect('v2', ['camera', 'listener']);
  await booting;
  await until('it is settled', () => outcomes.length > 0);
  expect(fenced).toEqual(['v2']);
  expect(outcomes).toMatchObject([{ type: 'failed', owner: 'v1', failure: { code: 'AGENT_RESTARTED' } }]);
  const granted = heard.v1?.flatMap((message) => (message.type === 'GRANT' ? message.resource : []));
  // The rotors were still with it.
  expect(granted).toEqual(['connections', 'listener', 'camera']);
});

it('in probation V2 is watched at once, and V1 follows when the first cycles are over', async () => {
  const { booting, connect, fenced, outcomes, heard, reports } = await restarted(inProbation(500));
  connect('v1', []);
  connect('v2', ['rotors']);
  await booting;
  const shadows = (id: AppId) => heard[id]?.flatMap((one) => (one.type === 'SHADOW' ? one.role : []));
  await until('V2 is asked', () => shadows('v2')?.length === 1);
  expect([shadows('v2'), shadows('v1')]).toEqual([['source'], []]);
  await until('V1 follows', () => shadows('v1')?.length === 1);
  expect(shadows('v1')).toEqual(['shadow']);
  await until('it is committed', () => heard.v2?.some(({ type }) => type === 'COMMIT') === true);
  expect(fenced).toEqual([]);
  expect(outcomes).toEqual([]);
  expect(reports).toContain('handover.committed');
});

// A long heartbeat: more of them than are read in one turn.
it.each([1, 5_000])(
  'an agent that had no core calls nobody silent before it has read what was said meanwhile: %j bytes a heartbeat',
  async (bytes) => {
    const { coordinator, booting, connect, fenced } = await restarted(inProbation(60_000));
    connect('v1', []);
    const beat = connect('v2', ['rotors']);
    await booting;
    expect(coordinator.state.phase).toBe('probation');
    for (let stall = 0; stall < 8; stall += 1) {
      // Its sockets have been read, its timer is over, and before it looks it stands still for longer than a heartbeat may take.
      await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
      await new Promise<void>((resolve) => {
        setImmediate(() => {
          const untilMs = performance.now() + LIMITS.heartbeatMsMax * 1.5;
          let lastMs = 0;
          while (performance.now() < untilMs) {
            if (performance.now() - lastMs < LIMITS.watchedSnapIntervalMs) continue;
            lastMs = performance.now();
            beat({ filler: 'x'.repeat(bytes) });
          }
          resolve();
        });
      });
    }
    expect([coordinator.state.phase, fenced]).toEqual(['probation', []]);
  },
);

it('a slow disk costs nobody his place: who is asked has his whole time from when he is asked', async () => {
  const state: State = { phase: 'idle', epoch: 5, owner: 'v1', speaks: SPEAKS };
  const slow = new Int32Array(new SharedArrayBuffer(4));
  const { coordinator, booting, connect, fenced, heard } = await restarted(state, {
    resources: ['camera'],
    // Longer than the answer may take.
    write: ({ phase }) =>
      void (phase === 'releasing' && Atomics.wait(slow, 0, 0, LIMITS.otherReleaseMsMax + 100)),
  });
  connect('v1', ['camera']);
  await booting;
  coordinator.update('v2', policyOf({}));
  connect('v2', []);
  await until('V2 has it', () => heard.v2?.some(({ type }) => type === 'GRANT') === true);
  expect(fenced).toEqual([]);
  expect(heard.v1?.filter(({ type }) => type === 'RELEASE')).toHaveLength(1);
});

it('a prior that a former life froze is dead: V2 stands by and gets the rotors at once, and the frozen one is ended', async () => {
  const pair = { prior: 'v1', candidate: 'v2', fenced: { prior: false, candidate: false }, failure: null };
  const state: State = {
    ...pair,
    phase: 'ready',
    epoch: 5,
    speaks: { prior: SPEAKS, candidate: SPEAKS },
    policy: policyOf({}),
    heardMs: 0,
    deadlineMs: 1,
  };
  const written: State[] = [];
  const { booting, connect, fenced, heard } = await restarted(state, {
    frozen: ['v1'],
    write: (one) => void written.push(one),
  });
  // Nobody waits for what cannot speak.
  connect('v2', []);
  await booting;
  await until('V2 flies', () => heard.v2?.some(({ type }) => type === 'GRANT') === true);
  expect(heard.v2?.find(({ type }) => type === 'GRANT')).toMatchObject({ resource: 'rotors', from: 'snap' });
  // The grant of a former life, of which nothing was written, was under 6.
  expect(written[0]).toMatchObject({ phase: 'granting', epoch: 7, fenced: { prior: true } });
  expect(fenced).toEqual(['v1']);
});

it('V1 dies while V2 stands by: that V2 may is on disk before, and that it does after it has the rotors', async () => {
  const order: string[] = [];
  const { coordinator, connect, heard } = await flying({
    write: ({ phase, epoch }) => void order.push(`${phase} ${epoch} is written`),
    granting: (resource) => void order.push(`the ${resource} are granted`),
  });
  coordinator.update('v2', policyOf({}));
  connect('v2', []);
  await until('V2 stands by', () => heard.v2?.some(({ type }) => type === 'PREPARE') === true);
  expect(order.slice(0, 2)).toEqual(['warming 5 is written', 'ready 5 is written']);
  const before = order.length;
  coordinator.died('v1');
  const [first, second] = order.slice(before);
  expect(first).toBe('the rotors are granted');
  expect(second).toMatch(/^granting \d is written$/);
});

it('what a candidate says of the rotors is not what flew: it is granted them with the words of the one that did', async () => {
  let stoodBy = (): void => undefined;
  const standsBy = new Promise<void>((resolve) => {
    stoodBy = resolve;
  });
  const { coordinator, connect, heard } = await flying({
    write: ({ phase }) => phase === 'ready' && stoodBy(),
  });
  coordinator.update('v2', policyOf({}));
  const beat = connect('v2', []);
  await standsBy;
  beat({ filler: 'x' });
  // The next turn reads it; V1 dies before V2's answer to PREPARE is read.
  for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  coordinator.died('v1');
  await until('V2 has them', () => heard.v2?.some(({ type }) => type === 'GRANT') === true);
  expect(heard.v2?.find(({ type }) => type === 'GRANT')).toMatchObject({
    resource: 'rotors',
    from: 'snap',
    payload: { learned: 1 },
  });
});

it('nor what it says while the camera passes, before the rotors', async () => {
  let candidate: (payload: JsonObject) => void = () => undefined;
  const { coordinator, connect, heard } = await flying({
    // From within the grant: V2 answers it later.
    granting: (resource) => resource === 'camera' && candidate({ filler: 'x' }),
  });
  coordinator.update('v2', policyOf({}));
  candidate = connect('v2', []);
  await until('V2 has the camera', () => heard.v2?.some(({ type }) => type === 'GRANT') === true);
  await new Promise((resolve) => setTimeout(resolve, ANSWER_MS / 2));
  expect(coordinator.state).toMatchObject({ resource: 'camera' });
  coordinator.died('v1');
  const rotors = () => heard.v2?.find((one) => one.type === 'GRANT' && one.resource === 'rotors');
  await until('V2 has them', () => rotors() !== undefined);
  expect(rotors()).toMatchObject({ from: 'snap', payload: { learned: 1 } });
});

it('of what an app can cause at will so much is told a second; the next report says how much was not', async () => {
  const { connect, coordinator, reports, omitted, sockets } = await flying();
  connect('v2', []);
  await until('it is turned away', () => reports.includes('app.unknown'));
  const flood = 5_000;
  for (let line = 0; line < flood; line += 1) sockets.v2?.send({ type: 'RETIRE', epoch: 5 });
  sockets.v2?.send({
    type: 'HELLO',
    v: PROTOCOL_VERSION,
    epoch: 5,
    app: 'hover',
    release: 'v2',
    ...SPEAKS,
    holds: [],
  });
  const told = (type: string) => reports.filter((one) => one === type).length;
  // A report of something that changed is always told, and tells.
  coordinator.update('v2', policyOf({}));
  await until('all was read', () => told('handover.warming') === 1);
  expect(told('handover.stale')).toBeLessThanOrEqual(2 * BOUNDS.repeatsPerSecMax);
  expect(told('handover.stale') + told('app.unknown') + omitted.reduce((sum, one) => sum + one, 0)).toBe(
    flood + 1,
  );
});

it('the shadow is told where the one that flies was at its last heartbeat', async () => {
  const { coordinator, connect, heard } = await flying();
  coordinator.update('v2', policyOf({}));
  connect('v2', []);
  await until('V2 follows', () => heard.v2?.some(({ type }) => type === 'SHADOW') === true);
  expect(heard.v2?.find(({ type }) => type === 'SHADOW')).toMatchObject({
    role: 'shadow',
    payload: { learned: 1, stateVersion: 1 },
  });
  expect(heard.v1?.find(({ type }) => type === 'SHADOW')).not.toHaveProperty('payload');
});

it('a candidate that is quicker than the engine is heard once it is known who it is', async () => {
  const { coordinator, connect, heard } = await flying();
  const started = coordinator.starting();
  connect('v2', []);
  // It has said HELLO, and the engine has not answered yet.
  await new Promise((resolve) => setTimeout(resolve, 5 * ANSWER_MS));
  expect(heard.v2).toEqual([]);
  coordinator.update('v2', policyOf({}));
  started();
  await until('it is welcome', () => heard.v2?.some(({ type }) => type === 'OFFER') === true);
  expect(heard.v2?.some(({ type }) => type === 'REVOKE')).toBe(false);
});

it('who was started in vain is turned away', async () => {
  const { coordinator, connect, heard } = await flying();
  const started = coordinator.starting();
  connect('v2', []);
  await new Promise((resolve) => setTimeout(resolve, 5 * ANSWER_MS));
  started();
  await until('it is told', () => heard.v2?.length === 1);
  expect(heard.v2?.[0]).toMatchObject({ type: 'REVOKE', code: 'UNKNOWN_APP' });
});
