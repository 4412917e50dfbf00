/** Conformance cases of a handover between two programs, both ways. */
import type { Case } from '#handover/conform/case.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { prepares, readOn } from '#handover/conform/parcels.ts';
import { expect, expectWithin } from '#handover/conform/wait.ts';
import { type Seat, START, type World } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import { RESOURCES, type Resource } from '#handover/messages.ts';
import { native } from '#handover/native.ts';

const group = 'good path';

const passAll = async (world: World, from: Seat, to: Seat, order: readonly Resource[]): Promise<void> => {
  for (const resource of order) {
    await to.takes(resource, await from.releases(resource));
    world.check();
  }
};

export const twoPrograms: readonly Case[] = [
  {
    group,
    id: 'update',
    begins: 'owner',
    expected: 'a second program warms up in the shadow, takes all, is committed; the first retires',
    async run(world, prior) {
      const client = await world.client();
      await world.greeted(client, prior.release);
      const candidate = await world.start();
      const [writing, reading] = native.socketPair();
      const snapIntervalMs = LIMITS.watchedSnapIntervalMs;
      prior.send({ type: 'SHADOW', role: 'source', snapIntervalMs }, [{ name: 'mirror', fd: writing }]);
      native.close(writing);
      const { snap } = prior.peer;
      const ready = await candidate.warm(reading, snap?.payload).finally(() => native.close(reading));
      expect(ready.cycles >= CONFORM.warmCycles, `READY after ${ready.cycles} cycles in the shadow`);
      expect(ready.divergence === 0, `divergence ${ready.divergence} from its equal`);
      world.check();
      await prepares(world, candidate);
      client.say('ha');
      await passAll(world, prior, candidate, RESOURCES);
      client.say('lf\n');
      await world.hears(client, 'e half');
      await world.flies();
      const { snaps } = candidate.peer;
      await expectWithin(
        world.ms(CONFORM.answerMsMax),
        () => candidate.peer.snaps > snaps + 2,
        'no heartbeat',
      );
      candidate.send({ type: 'COMMIT', role: 'owner' });
      prior.send({ type: 'COMMIT', role: 'retired' });
      await prior.peer.next('RETIRE', world.ms(LIMITS.retireMsMax));
      prior.program.kill();
      prior.peer.close();
      world.owner = candidate;
      const late = await world.client();
      await world.greeted(late, candidate.release);
      world.hangUp(late);
      world.hangUp(client);
      await candidate.takes('camera', await readOn(world, await candidate.releases('camera')));
      await world.flies();
      return `${ready.cycles} cycles in the shadow; retired; nothing lost`;
    },
  },
  {
    group,
    id: 'hand-back',
    begins: 'owner',
    expected: 'all to a second program and back in the reverse order; the second is revoked and ends',
    async run(world, prior) {
      const client = await world.client();
      await world.greeted(client, prior.release);
      const candidate = await world.start();
      await candidate.warm();
      await passAll(world, prior, candidate, RESOURCES);
      client.say('there\n');
      await world.hears(client, 'e there');
      await passAll(world, candidate, prior, [...RESOURCES].reverse());
      client.say('back\n');
      await world.hears(client, 'e back');
      candidate.send({ type: 'REVOKE', code: 'ABORTED', text: 'the update was taken back' });
      const { program } = candidate;
      await expectWithin(world.ms(CONFORM.exitMsMax), () => program.end !== undefined, 'it runs on');
      expect(candidate.peer.count('FAULT') === 0, 'FAULT after all was given back');
      world.hangUp(client);
      await world.flies();
      return `back at epoch ${world.board.last.epoch}; ${program.end}`;
    },
  },
  {
    group,
    id: 'takeover',
    begins: 'nobody',
    expected:
      'the first is killed: the second gets the rotors first, from a heartbeat, then all else; flies on',
    async run(world) {
      const prior = await world.firstStart();
      const candidate = await world.start();
      await candidate.warm();
      await prepares(world, candidate);
      const snap = await world.rest(prior);
      prior.program.kill();
      await prior.peer.left(world.ms(CONFORM.exitMsMax));
      world.board.pause(false);
      const { seq } = world.board.last;
      const order = [...RESOURCES].reverse();
      for (const resource of order) {
        await candidate.takes(resource, resource === 'rotors' ? snap : { ...START, from: 'snap' });
      }
      const client = await world.client();
      await world.greeted(client, candidate.release);
      client.say('on\n');
      await world.hears(client, 'e on');
      world.hangUp(client);
      await world.flies();
      return `${order.join(', ')}; sequence went on at ${seq + 1}`;
    },
  },
];
