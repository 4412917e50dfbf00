/** Conformance cases of a handover in which nobody fails. */
import type { Case } from '#handover/conform/case.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import {
  answered,
  namesOf,
  numberOf,
  payloadOf,
  prepares,
  readOn,
  sorted,
} from '#handover/conform/parcels.ts';
import { Shadow } from '#handover/conform/shadow.ts';
import { expect, expectWithin, pause } from '#handover/conform/wait.ts';
import { START } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll } from '#handover/line-socket.ts';
import { RESOURCES } from '#handover/messages.ts';
import { native } from '#handover/native.ts';

const group = 'good path';
export const goodPath: readonly Case[] = [
  {
    group,
    id: 'first-start',
    begins: 'nobody',
    expected: 'HELLO holding nothing; READY; GRANTED for each resource; commands; a greeting; COMMIT',
    async run(world) {
      const seat = await world.firstStart();
      const client = await world.client();
      await world.greeted(client, seat.release);
      client.say('one\n');
      await world.hears(client, 'e one');
      world.hangUp(client);
      await world.flies();
      const { app, reads, writes } = seat.hello;
      return `${app} ${seat.release}, reads ${reads.join(' ')}, writes ${writes}; owns all at epoch ${world.epoch}`;
    },
  },
  {
    group,
    id: 'heartbeat',
    begins: 'owner',
    expected: `SNAP every ${LIMITS.snapIntervalMs} ms, of the present epoch, lastWriteUs rising`,
    async run(world, owner) {
      const { peer } = owner;
      const first = peer.snap;
      const [count, startMs] = [peer.snaps, performance.now()];
      const bound = world.ms(CONFORM.heartbeatCount * LIMITS.snapIntervalMs);
      const enough = (): boolean => peer.snaps >= count + CONFORM.heartbeatCount;
      await expectWithin(bound, enough, () => `${peer.snaps - count} heartbeats`);
      const eachMs = (performance.now() - startMs) / (peer.snaps - count);
      const last = peer.snap;
      expect(last?.epoch === world.epoch, `SNAP of epoch ${last?.epoch}, not ${world.epoch}`);
      const before = numberOf(first?.payload.lastWriteUs ?? 0, 'lastWriteUs');
      const after = numberOf(last.payload.lastWriteUs, 'lastWriteUs');
      expect(after > before, `lastWriteUs ${after} after ${before}`);
      return `one each ${eachMs.toFixed(0)} ms`;
    },
  },
  {
    group,
    id: 'prepare',
    begins: 'nobody',
    expected: `READY to OFFER, and again within ${LIMITS.prepareMsMax} ms to PREPARE; its command before GRANTED`,
    async run(world) {
      const seat = await world.start();
      await seat.warm();
      await prepares(world, seat);
      for (const resource of RESOURCES.slice(0, -1)) await seat.takes(resource);
      // The board is still without input: there is no command, so nobody may say GRANTED.
      seat.give('rotors');
      await pause(CONFORM.quietMs);
      expect(seat.peer.count('GRANTED') === 0, 'GRANTED of the rotors before a command was written');
      world.board.pause(false);
      await seat.granted('rotors');
      await world.flies();
      world.owner = seat;
      return 'READY twice, GRANTED after the command';
    },
  },
  {
    group,
    id: 'pass-camera',
    begins: 'owner',
    expected: 'camera released and granted back: every frame read once; nothing read in between',
    async run(world, owner) {
      const before = await readOn(world, await owner.releases('camera'));
      await owner.takes('camera', before);
      const until = world.feed.frames + 5;
      await expectWithin(world.ms(CONFORM.answerMsMax), () => world.feed.frames >= until, 'no frames');
      await pause(CONFORM.quietMs);
      const parcel = await owner.releases('camera');
      const had = numberOf(payloadOf(before).frames, 'frames');
      const has = numberOf(payloadOf(parcel).frames, 'frames');
      expect(has > had, `still ${has} frames after the grant`);
      await owner.takes('camera', await readOn(world, parcel));
      await world.flies();
      return `${world.feed.frames} frames in order`;
    },
  },
  {
    group,
    id: 'pass-listener',
    begins: 'owner',
    expected: 'who connects while nobody accepts waits, and is greeted after the grant; others are served',
    async run(world, owner) {
      const early = await world.client();
      await world.greeted(early, owner.release);
      const parcel = await owner.releases('listener');
      const late = await world.client();
      early.say('still\n');
      await world.hears(early, 'e still');
      await pause(CONFORM.quietMs);
      expect(late.lines.length === 0 && !late.closed, 'it accepted after RELEASED');
      await owner.takes('listener', parcel);
      await world.greeted(late, owner.release);
      world.hangUp(early);
      world.hangUp(late);
      await world.flies();
      return 'greeted after the grant';
    },
  },
  {
    group,
    id: 'pass-connections',
    begins: 'owner',
    expected: 'a live connection passed in the middle of a line: answered once, by its owner only',
    async run(world, owner) {
      const client = await world.client();
      await world.greeted(client, owner.release);
      client.say('one\nha');
      await world.hears(client, 'e one');
      const parcel = await owner.releases('connections');
      const entries = namesOf(parcel);
      const descriptors = parcel.parts.flatMap((part) => part.descriptors.map(({ name }) => name));
      expect(
        sorted(entries) === sorted(descriptors),
        `entries [${sorted(entries)}], descriptors [${sorted(descriptors)}]`,
      );
      client.say('lf\ntwo\n');
      await pause(CONFORM.quietMs);
      expect(client.lines.length === 0, `it answered "${client.lines[0]}" after RELEASED`);
      expect(!client.closed, 'the connection closed');
      await owner.takes('connections', parcel);
      await world.hears(client, 'e half');
      await world.hears(client, 'e two');
      world.hangUp(client);
      await world.flies();
      return `${entries.length} passed; "half" and "two" answered`;
    },
  },
  {
    group,
    id: 'pass-many',
    begins: 'owner',
    expected: `${CONFORM.manyConnectionsCount} connections in several lines, both ways; each alive`,
    async run(world, owner) {
      const before = await owner.releases('connections');
      const pairs = Array.from({ length: CONFORM.manyConnectionsCount }, () => native.socketPair());
      const ours = pairs.map(([fd]) => fd);
      try {
        const all = pairs.map(([, fd], at) => ({
          descriptor: { name: `m${at}`, fd },
          entry: { fd: `m${at}`, protocol: 'line', head: Buffer.from(`n${at}`).toString('base64'), meta: {} },
        }));
        const half = Math.ceil(all.length / 2);
        const parts = [all.slice(0, half), all.slice(half)].map((some) => ({
          payload: { connections: some.map(({ entry }) => entry) },
          descriptors: some.map(({ descriptor }) => descriptor),
        }));
        await owner.takes('connections', { from: 'release', parts: [...before.parts, ...parts] });
        await answered(world, ours);
        const back = await owner.releases('connections');
        const entries = namesOf(back);
        expect(entries.length >= ours.length, `${entries.length} connections came back`);
        expect(back.parts.length >= 2, 'all in one line');
        // Those are ours to end: what is granted back is without them.
        closeAll(back.parts.flatMap(({ descriptors }) => descriptors.map(({ fd }) => fd)));
        await owner.takes('connections', START);
        await world.flies();
        return `${entries.length} in ${back.parts.length} lines`;
      } finally {
        closeAll(ours);
      }
    },
  },
  {
    group,
    id: 'pass-rotors',
    begins: 'owner',
    expected:
      'rotors released in the middle of an input and granted back: each input answered once, in order',
    async run(world, owner) {
      await world.flies();
      const { last } = world.board;
      world.board.half();
      // For it to be read; what is still in the tty at the release is passed as well.
      await pause(CONFORM.quietMs);
      const parcel = await owner.releases('rotors');
      world.board.whole();
      const { partial, stateVersion } = payloadOf(parcel);
      expect(typeof partial === 'string' && typeof stateVersion === 'number', 'no partial or stateVersion');
      const snaps = owner.peer.snaps;
      await pause(CONFORM.quietMs);
      expect(owner.peer.snaps === snaps, `${owner.peer.snaps - snaps} heartbeats without the rotors`);
      await owner.takes('rotors', parcel);
      await world.flies();
      return `inputs ${last.n + 1} to ${world.board.last.n}, sequence goes on`;
    },
  },
  {
    group,
    id: 'renewed-grant',
    begins: 'owner',
    expected: 'GRANT of what it has, under a higher epoch: GRANTED, the new epoch in its commands, no gap',
    async run(world, owner) {
      for (const resource of RESOURCES) await owner.takes(resource);
      await world.flies();
      const client = await world.client();
      await world.greeted(client, owner.release);
      world.hangUp(client);
      return `epoch ${world.board.last.epoch}`;
    },
  },
  {
    group,
    id: 'mirror-source',
    begins: 'owner',
    expected: 'mirrors what it reads and writes; a mirror that is full, then gone, does not slow it',
    async run(world, owner) {
      const shadow = new Shadow();
      try {
        const from = world.board.last.n;
        owner.send({ type: 'SHADOW', role: 'source' }, [{ name: 'mirror', fd: shadow.writing }]);
        shadow.sent();
        await expectWithin(
          world.ms(CONFORM.answerMsMax),
          () => shadow.read().commands.length >= CONFORM.warmCycles,
          () => `${shadow.commands.length} commands mirrored`,
        );
        expect(shadow.problem === undefined, `${shadow.problem}`);
        expect(shadow.inputs.length > 0, 'no input mirrored');
        expect(Number(shadow.commands[0]) > from, 'commands mirrored that were written before');
        for (const numbers of [shadow.inputs, shadow.commands]) {
          const gap = numbers.find((n, at) => Number(n) !== Number(numbers[0]) + at);
          expect(gap === undefined, `mirrored ${gap} out of order`);
        }
        world.board.burst(true);
        await pause(CONFORM.burstMs);
        world.board.burst(false);
        await world.flies();
      } finally {
        world.board.burst(false);
        shadow.close();
      }
      await world.flies();
      return `${shadow.inputs.length} inputs, ${shadow.commands.length} commands; flew on`;
    },
  },
  {
    group,
    id: 'drop',
    begins: 'owner',
    expected: 'DROP: every copy of the descriptor is closed; nothing else changes',
    async run(world, owner) {
      const parcel = await owner.releases('camera');
      const witness = world.witness();
      world.epoch += 1;
      owner.send({ type: 'GRANT', resource: 'camera', from: 'start', payload: null }, [
        { name: 'camera', fd: witness.given },
      ]);
      witness.sent();
      await owner.granted('camera');
      expect(!(await witness.released(CONFORM.quietMs)), 'closed before DROP');
      owner.send({ type: 'DROP', resource: 'camera' });
      expect(await witness.released(world.ms(CONFORM.answerMsMax)), 'a copy stays open');
      await owner.takes('camera', parcel);
      await world.flies();
      return 'closed';
    },
  },
  {
    group,
    id: 'revoke',
    begins: 'nobody',
    expected: 'a candidate that is revoked leaves and ends, having written nothing',
    async run(world) {
      const seat = await world.start();
      await seat.warm();
      seat.send({ type: 'REVOKE', code: 'TIMEOUT', text: 'too slow' });
      await seat.peer.left(world.ms(CONFORM.exitMsMax));
      const { program, board } = { program: seat.program, board: world.board };
      await expectWithin(world.ms(CONFORM.exitMsMax), () => program.end !== undefined, 'it runs on');
      expect(board.last.seq === 0, `${board.last.seq} commands from a candidate`);
      return `${program.end}`;
    },
  },
];
