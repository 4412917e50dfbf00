/** A handover practised before the real one: over a pty and a pretended agent, by the real session and the real link. */
import { afterEach, expect, test } from 'vitest';
import { BOUNDS } from '#handover/bounds.ts';
import { Session } from '#handover/client.ts';
import type { JsonObject } from '#handover/messages.ts';
import { type Rehearsal, rehearse } from '#handover/rehearsal.ts';
import { type LinkRehearsal, SerialLink } from '#handover/serial.ts';
import { HOVER } from '../apps/drone/flight/limits.ts';
import { Loop } from '../apps/drone/flight/loop.ts';
import { createRotors } from '../apps/drone/flight/rotors.ts';
import { STATE_VERSION } from '../apps/drone/flight/state.ts';
import { descriptorCount } from './handover-kit.ts';

const never = new AbortController().signal;
let sessions: Session[] = [];
afterEach(() => {
  for (const session of sessions) session.close();
  sessions = [];
});

/** As `Session` itself begins one; the real one's own is tried in test/app-handover.test.ts. */
const practise = (rehearsal: Rehearsal, version: number, signal = never): Promise<void> =>
  rehearse(
    rehearsal,
    (connect) => {
      const session = new Session(
        {
          ...{
            app: 'a',
            release: 'v2',
            socketPath: '',
            stateVersions: { reads: [version], writes: version },
          },
          holders: { rotors: rehearsal.holder },
          warmUp: async () => ({ cycles: 0, divergence: 0 }),
        },
        connect,
      );
      sessions.push(session);
      session.connect();
      return session;
    },
    signal,
  );

const link = (
  options: { resume?: () => void; answer?: boolean } = {},
): LinkRehearsal & { heard: () => number } => {
  let heard = 0;
  const made: SerialLink = new SerialLink({
    onData: (bytes) => {
      heard += bytes.length;
      if (options.answer !== false) made.write(bytes);
    },
    state: () => ({ link: {}, partial: new Uint8Array(), state: {}, stateVersion: 7 }),
    resume: options.resume ?? (() => undefined),
  });
  return { link: made, sample: () => Buffer.of(1), heard: () => heard };
};

test('the link is taken and let go many times, by release and by snap, and nothing is left open', async () => {
  const own = link();
  const before = descriptorCount();
  await practise({ ...own, holder: own.link, payload: own.link.snapshot() }, 7);
  // Two samples a round.
  expect(own.heard()).toBeGreaterThan(20);
  expect(own.heard()).toBeLessThanOrEqual(2 * BOUNDS.rehearsals);
  expect(own.link.owns).toBe(false);
  // Each round opens seven.
  expect(descriptorCount()).toBeLessThanOrEqual(before);
});

test('a link of no rehearsal of its own is rehearsed by itself', async () => {
  const { holder, payload, sample } = link().link.rehearsal();
  await practise({ holder, payload, sample }, 1);
  expect((payload as JsonObject).stateVersion).toBe(1);
});

test('the example app practises with the state of its flight, signed, and its own loop does not notice', async () => {
  const loop = new Loop(HOVER);
  const before = JSON.stringify(loop.cursor());
  const rehearsal = createRotors(loop, () => undefined).rehearsal();
  expect(rehearsal.signing).toBeDefined();
  await practise(rehearsal, STATE_VERSION);
  expect(JSON.stringify(loop.cursor())).toBe(before);
  expect(loop.cycles).toBe(0);
});

test('what would fail in flight fails here, and says why', async () => {
  const resume = () => {
    throw new TypeError('this state has no wings');
  };
  const own = link({ resume });
  const before = descriptorCount();
  const practised = practise({ ...own, holder: own.link, payload: own.link.snapshot() }, 7);
  await expect(practised).rejects.toThrow('this state has no wings');
  expect(descriptorCount()).toBe(before);
});

test('a loop that answers nothing is no failure: it is given up in time', async () => {
  const own = link({ answer: false });
  await practise({ ...own, holder: own.link, payload: own.link.snapshot() }, 7);
  expect(own.link.owns).toBe(false);
});

test('a candidate that is revoked meanwhile practises no further', async () => {
  const own = link();
  const revoked = new AbortController();
  revoked.abort();
  await practise({ ...own, holder: own.link, payload: own.link.snapshot() }, 7, revoked.signal);
  expect(own.heard()).toBe(0);
});
