/** Conformance cases of an agent, or somebody in its place, that says what it may not. The flight must not notice. */
import type { Case } from '#handover/conform/case.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { expect, pause } from '#handover/conform/wait.ts';
import type { Seat, World } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import { RESOURCES } from '#handover/messages.ts';

const group = 'bad input';
const line = (value: object): Buffer => Buffer.from(`${JSON.stringify(value)}\n`);

/** It must leave, come back with all it holds, and fly all the while. */
const survives = async (world: World, owner: Seat): Promise<void> => {
  await owner.peer.left(world.ms(CONFORM.answerMsMax));
  await owner.returns(RESOURCES);
  owner.send({ type: 'OFFER', role: 'owner' });
  await world.flies();
};

/** A line that breaks a rule of the wire. `given`: how many descriptors ride with its first byte. */
const refused = (id: string, what: string, bytes: (world: World) => Buffer, given = 0): Case => ({
  group,
  id,
  begins: 'owner',
  expected: `${what}: the connection ends${given > 0 ? ', descriptors are closed' : ''}; it flies on and comes back`,
  async run(world, owner) {
    const witnesses = Array.from({ length: given }, () => world.witness());
    await owner.peer.raw(
      bytes(world),
      witnesses.map((witness) => witness.given),
    );
    for (const witness of witnesses) witness.sent();
    await survives(world, owner);
    for (const witness of witnesses) {
      expect(await witness.released(world.ms(CONFORM.answerMsMax)), 'a descriptor stays open');
    }
    return 'left, flew on, came back holding all';
  },
});

/** A step that is understood and must be refused with FAULT, on the same connection. */
const faulted = (
  id: string,
  expected: string,
  code: string | undefined,
  send: (world: World, owner: Seat) => void,
  never: 'RELEASED' | 'GRANTED' | 'RETIRE',
): Case => ({
  group,
  id,
  begins: 'owner',
  expected: `${expected}: FAULT ${code ?? ''}`.trim(),
  async run(world, owner) {
    const { epoch } = world;
    send(world, owner);
    const seen = await owner.faults(code);
    await pause(CONFORM.quietMs);
    expect(owner.peer.count(never) === 0, `${never} after the FAULT`);
    expect(!owner.peer.ended, 'the connection ended');
    await world.flies();
    expect(world.board.last.epoch <= epoch, `commands carry epoch ${world.board.last.epoch}`);
    // What it owns it still lets go of, under a right epoch.
    await owner.takes('rotors', await owner.releases('rotors'));
    await world.flies();
    return `FAULT ${seen}; flew on`;
  },
});

const staleGrant = (id: string, expected: string, below: number): Case => ({
  group,
  id,
  begins: 'owner',
  expected: `${expected}: FAULT STALE_EPOCH, its descriptor closed`,
  async run(world, owner) {
    const before = world.epoch;
    const witness = world.witness();
    const epoch = before - below;
    owner.send({ type: 'GRANT', epoch, resource: 'rotors', from: 'start', payload: null }, [
      { name: 'rotors', fd: witness.given },
    ]);
    witness.sent();
    await owner.faults('STALE_EPOCH');
    expect(await witness.released(world.ms(CONFORM.answerMsMax)), 'the descriptor stays open');
    await world.flies();
    expect(world.board.last.epoch <= before, `commands carry epoch ${world.board.last.epoch}`);
    expect(owner.peer.count('GRANTED') === 0, 'GRANTED after the FAULT');
    return 'refused, closed';
  },
});

export const badInput: readonly Case[] = [
  refused('invalid-json', 'a line that is not JSON', () => Buffer.from('{"type":"PREPARE",\n')),
  refused('not-utf8', 'a line that is not UTF-8', () => Buffer.from('7b2274797065223a22ff22227d0a', 'hex')),
  refused('too-long', `a line over ${LIMITS.lineBytesMax} bytes`, () =>
    Buffer.alloc(LIMITS.lineBytesMax + 1, 'x'),
  ),
  refused('unknown-type', 'a message of no known type', ({ epoch }) => line({ type: 'LAND', epoch })),
  refused('invalid-message', 'a known message without its fields', ({ epoch }) =>
    line({ type: 'RELEASE', epoch: epoch + 1, resource: 'wings', deadlineMs: 50 }),
  ),
  refused('negative-epoch', 'an epoch below 0', () => line({ type: 'PREPARE', epoch: -1 })),
  refused('missing-descriptor', 'a GRANT whose descriptor did not come', ({ epoch }) =>
    line({
      type: 'GRANT',
      epoch: epoch + 1,
      resource: 'rotors',
      from: 'start',
      payload: null,
      fds: ['rotors'],
    }),
  ),
  refused(
    'unnamed-descriptor',
    'a descriptor that no name is for',
    ({ epoch }) => line({ type: 'PREPARE', epoch }),
    1,
  ),
  refused(
    'twice-named',
    'two descriptors of one name',
    ({ epoch }) =>
      line({
        type: 'GRANT',
        epoch: epoch + 1,
        resource: 'camera',
        from: 'start',
        payload: null,
        fds: ['camera', 'camera'],
      }),
    2,
  ),
  {
    group,
    id: 'descriptor-inside',
    begins: 'owner',
    expected:
      'a descriptor in the middle of a line: the connection ends, it is closed; it flies on and comes back',
    async run(world, owner) {
      const witness = world.witness();
      const bytes = line({ type: 'PREPARE', epoch: world.epoch, fds: ['x'] });
      await owner.peer.raw(bytes.subarray(0, 10));
      // Read by itself, or the kernel would bring both at once: the descriptor is then of the line that begins there.
      await pause(CONFORM.quietMs);
      await owner.peer.raw(bytes.subarray(10), [witness.given]);
      witness.sent();
      await survives(world, owner);
      expect(await witness.released(world.ms(CONFORM.answerMsMax)), 'the descriptor stays open');
      return 'left, flew on, came back holding all';
    },
  },
  faulted(
    'stale-release',
    'RELEASE of an epoch that is not above the last',
    'STALE_EPOCH',
    (world, owner) => owner.send({ type: 'RELEASE', epoch: world.epoch, resource: 'rotors', deadlineMs: 50 }),
    'RELEASED',
  ),
  faulted(
    'older-release',
    'RELEASE of an older epoch',
    'STALE_EPOCH',
    (world, owner) =>
      owner.send({ type: 'RELEASE', epoch: world.epoch - 1, resource: 'rotors', deadlineMs: 50 }),
    'RELEASED',
  ),
  staleGrant('stale-grant', 'GRANT of an epoch that is not above the last', 0),
  staleGrant('older-grant', 'GRANT of an older epoch', 1),
  faulted(
    'stale-drop',
    'DROP of an older epoch',
    'STALE_EPOCH',
    (world, owner) => owner.send({ type: 'DROP', epoch: world.epoch - 1, resource: 'rotors' }),
    'RELEASED',
  ),
  faulted(
    'retired-holding',
    'COMMIT retired to one who holds something',
    undefined,
    (_world, owner) => owner.send({ type: 'COMMIT', role: 'retired' }),
    'RETIRE',
  ),
  faulted(
    'revoked-holding',
    'REVOKE to one who holds something',
    undefined,
    (_world, owner) => owner.send({ type: 'REVOKE', code: 'TIMEOUT', text: 'go' }),
    'RETIRE',
  ),
  {
    group,
    id: 'release-not-own',
    begins: 'owner',
    expected: 'RELEASE of what it does not hold: FAULT, no RELEASED',
    async run(world, owner) {
      const parcel = await owner.releases('camera');
      owner.ask('camera');
      const code = await owner.faults();
      await pause(CONFORM.quietMs);
      expect(owner.peer.count('RELEASED') === 0, 'RELEASED of what it did not hold');
      await owner.takes('camera', parcel);
      await world.flies();
      return `FAULT ${code}`;
    },
  },
  {
    group,
    id: 'grant-without',
    begins: 'nobody',
    expected:
      'GRANT of the rotors without a descriptor, correctly named: FAULT, no GRANTED; then a right one',
    async run(world) {
      const seat = await world.start();
      await seat.warm();
      world.epoch += 1;
      seat.send({ type: 'GRANT', resource: 'rotors', from: 'start', payload: null });
      const code = await seat.faults();
      expect(seat.peer.count('GRANTED') === 0, 'GRANTED without a descriptor');
      world.board.pause(false);
      await seat.takes('rotors');
      await world.flies();
      return `FAULT ${code}; then granted`;
    },
  },
];
