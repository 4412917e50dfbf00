/** Conformance cases of a shadow and who is watched by it: heartbeats, divergence, a prior that follows, what is taken away. */
import type { Case } from '#handover/conform/case.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { numberOf, payloadOf } from '#handover/conform/parcels.ts';
import { Shadow } from '#handover/conform/shadow.ts';
import { expect, expectWithin, pause, within } from '#handover/conform/wait.ts';
import type { Seat, World } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import { MirrorSource } from '#handover/mirror.ts';
import { native, nowUs } from '#handover/native.ts';

const group = 'watched';

/** Heartbeats in so many of the board's periods, again and again until it is as `wanted`. */
const rate = async (
  world: World,
  { peer }: Seat,
  wanted: (snaps: number, tookMs: number) => boolean,
  what: string,
): Promise<number> => {
  const { board } = world;
  const now = () => ({ n: board.last.n, snaps: peer.snaps, atMs: nowUs() / 1000 });
  let from = now();
  let [snaps, tookMs] = [0, 0];
  const look = (): boolean => {
    if (board.last.n < from.n + CONFORM.watchedPeriods) return false;
    const to = now();
    [snaps, tookMs] = [to.snaps - from.snaps, to.atMs - from.atMs];
    from = to;
    return wanted(snaps, tookMs);
  };
  const bound = world.ms(CONFORM.answerMsMax);
  const seen = (): string =>
    `${snaps} heartbeats in ${CONFORM.watchedPeriods} commands and ${tookMs.toFixed()} ms, ${what}`;
  await expectWithin(bound, look, seen);
  return snaps;
};

export const watched: readonly Case[] = [
  {
    group,
    id: 'watched-heartbeat',
    begins: 'owner',
    expected: `SHADOW source with snapIntervalMs: SNAP at least after each command, cycles rising; as before once it is not read`,
    async run(world, owner) {
      const shadow = new Shadow();
      let [often, cycles] = [0, 0];
      world.board.pace(CONFORM.watchedPeriodMs);
      try {
        const message = { type: 'SHADOW', role: 'source', snapIntervalMs: LIMITS.watchedSnapIntervalMs };
        owner.send(message, [{ name: 'mirror', fd: shadow.writing }]);
        shadow.sent();
        const before = numberOf(owner.peer.snap?.cycles ?? 0, 'cycles');
        const each = (snaps: number, tookMs: number): boolean => {
          shadow.read();
          return snaps >= 0.9 * CONFORM.watchedPeriods && tookMs <= CONFORM.watchedMsMax;
        };
        often = await rate(world, owner, each, 'while it is mirrored');
        cycles = numberOf(owner.peer.snap?.cycles, 'cycles') - before;
        expect(cycles > 0, `${cycles} control cycles meanwhile`);
      } finally {
        shadow.close();
      }
      const usual = (snaps: number): boolean => snaps <= 0.75 * CONFORM.watchedPeriods;
      const seldom = await rate(world, owner, usual, 'with nobody at the mirror');
      world.board.pace(CONFORM.boardPeriodMs);
      await world.flies();
      return `${often} heartbeats in ${CONFORM.watchedPeriods} commands, then ${seldom}; ${cycles} cycles`;
    },
  },
  {
    group,
    id: 'diverges',
    begins: 'nobody',
    expected: 'a candidate whose prior does something else: FAULT DIVERGED, never READY',
    async run(world) {
      const seat = await world.start();
      const [writing, reading] = native.socketPair();
      seat.offer(reading);
      native.close(reading);
      const prior = new MirrorSource(writing);
      try {
        let cycle = 0;
        const told = (): boolean => seat.peer.count('FAULT') + seat.peer.count('READY') > 0;
        for (; cycle < CONFORM.divergedCycles && !told(); cycle += 1) {
          prior.record('in', Buffer.from(`i ${cycle + 1}\n`));
          // An answer to what was never asked.
          prior.record('out', Buffer.from(`c 1 ${cycle + 1} ${cycle + 1 + CONFORM.divergedCycles}\n`));
          await pause(CONFORM.pollMs);
        }
        await within(world.ms(CONFORM.answerMsMax), told);
        expect(
          seat.peer.count('READY') === 0,
          `READY after ${cycle} cycles of which none was as the prior's`,
        );
        const { message } = await seat.peer.next('FAULT', world.ms(CONFORM.answerMsMax));
        expect(message.code === 'DIVERGED', `FAULT ${message.code}, not DIVERGED`);
        expect(world.board.last.seq === 0, `${world.board.last.seq} commands from a candidate`);
        return message.text;
      } finally {
        prior.close();
      }
    },
  },
  {
    group,
    id: 'follow',
    begins: 'owner',
    expected:
      'SHADOW shadow to one that released the rotors: it writes nothing; the mirror is closed once they are back',
    async run(world, owner) {
      const parcel = await owner.releases('rotors');
      const [writing, reading] = native.socketPair();
      owner.send({ type: 'SHADOW', role: 'shadow' }, [{ name: 'mirror', fd: reading }]);
      native.close(reading);
      const successor = new MirrorSource(writing);
      try {
        const { n } = world.board.last;
        const { seq } = world.board.last;
        for (let at = 1; at <= CONFORM.warmCycles; at += 1) {
          successor.record('in', Buffer.from(`i ${n + at}\n`));
          successor.record('out', Buffer.from(`c ${world.epoch} ${seq + at} ${n + at}\n`));
        }
        await pause(CONFORM.quietMs);
        expect(world.board.last.seq === seq, `${world.board.last.seq - seq} commands from one that follows`);
        expect(owner.peer.count('READY') === 0, 'READY without an OFFER');
        const follows = successor.open;
        await owner.takes('rotors', parcel);
        const gone = (): boolean => {
          successor.record('in', Buffer.from('i'));
          return !successor.open;
        };
        expect(await within(world.ms(CONFORM.answerMsMax), gone), 'the mirror stays open while it flies');
        await world.flies();
        return `${follows ? 'follows' : 'has no use for it'}; flew on`;
      } finally {
        successor.close();
      }
    },
  },
  {
    group,
    id: 'drop-rotors',
    begins: 'owner',
    expected:
      'DROP of the rotors in flight: no command and no heartbeat from then on; granted again, it flies',
    async run(world, owner) {
      const snap = await world.rest(owner);
      owner.send({ type: 'DROP', resource: 'rotors' });
      // Answered by one that is behind the DROP: from here on it has obeyed.
      owner.send({ type: 'PREPARE' });
      await owner.peer.next('READY', world.ms(LIMITS.prepareMsMax));
      world.board.pause(false);
      const { snaps } = owner.peer;
      const { seq } = world.board.last;
      await pause(CONFORM.quietMs);
      expect(world.board.last.seq === seq, `${world.board.last.seq - seq} commands after DROP`);
      expect(owner.peer.snaps === snaps, `${owner.peer.snaps - snaps} heartbeats after DROP`);
      await owner.takes('rotors', snap);
      await world.flies();
      return 'silent, then granted again';
    },
  },
  {
    group,
    id: 'state-version',
    begins: 'owner',
    expected: 'GRANT of a state of a version that it does not read: FAULT, no command; then a right one',
    async run(world, owner) {
      const parcel = await owner.releases('rotors');
      const stateVersion = Math.max(...owner.hello.reads) + 1;
      const { seq } = world.board.last;
      owner.give('rotors', {
        from: 'release',
        parts: [{ payload: { ...payloadOf(parcel), stateVersion }, descriptors: [] }],
      });
      const code = await owner.faults('INCOMPATIBLE_STATE');
      await pause(CONFORM.quietMs);
      expect(
        world.board.last.seq === seq,
        `${world.board.last.seq - seq} commands of a state that it cannot read`,
      );
      expect(owner.peer.count('GRANTED') === 0, 'GRANTED after the FAULT');
      await owner.takes('rotors', parcel);
      await world.flies();
      return `FAULT ${code}; then granted`;
    },
  },
];
