/** Conformance cases of the agent's death and return, at several steps. The owner flies on, and says what it holds. */
import type { Case } from '#handover/conform/case.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { stopped } from '#handover/conform/program.ts';
import { expect, expectWithin, pause } from '#handover/conform/wait.ts';
import type { Seat, World } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import { RESOURCES, type Resource } from '#handover/messages.ts';

const group = "agent's death";

const comesBack = async (world: World, owner: Seat, holds: readonly Resource[]): Promise<void> => {
  world.agent.listen();
  await owner.returns(holds);
  owner.send({ type: 'OFFER', role: 'owner' });
};
const without = (resource: Resource): Resource[] => RESOURCES.filter((other) => other !== resource);

/** RELEASE is the agent's last word: nobody can hear the RELEASED, so it did not happen. */
const unheard = (resource: Resource): Case => ({
  group,
  id: `in-release-${resource}`,
  begins: 'owner',
  expected: `dies right after RELEASE of the ${resource}: it goes on with it, and says that it holds it`,
  async run(world, owner) {
    const client = await world.client();
    await world.greeted(client, owner.release);
    // Stopped meanwhile, or its answer could be in the dead agent's socket before that is closed.
    const goOn = await stopped(owner.peer.pid);
    expect(goOn !== undefined, 'not judged: the program runs in another pid namespace');
    try {
      owner.ask(resource);
      world.die();
    } finally {
      goOn();
    }
    await pause(CONFORM.quietMs);
    await comesBack(world, owner, RESOURCES);
    client.say('here\n');
    await world.hears(client, 'e here');
    world.hangUp(client);
    await world.flies();
    expect(owner.peer.count('RELEASED') === 0, 'RELEASED to an agent that did not ask');
    for (const each of RESOURCES) await owner.takes(each);
    await world.flies();
    return 'used on, held at HELLO';
  },
});

export const agentDeath: readonly Case[] = [
  {
    group,
    id: 'no-agent-yet',
    begins: 'nobody',
    expected: 'started before the agent: finds it when it is there',
    async run(world) {
      world.die();
      const spawned = world.spawn();
      await pause(2 * LIMITS.reconnectIntervalMs);
      world.agent.listen();
      const seat = await world.start(spawned);
      return `HELLO of ${seat.hello.app}`;
    },
  },
  {
    group,
    id: 'in-flight',
    begins: 'owner',
    expected: `flies on without it; tries again every ${LIMITS.reconnectIntervalMs} ms; HELLO with all and descriptors`,
    async run(world, owner) {
      const from = world.board.last.n;
      world.die();
      await pause(2 * LIMITS.reconnectIntervalMs);
      await world.flies();
      const startMs = performance.now();
      await comesBack(world, owner, RESOURCES);
      const tookMs = performance.now() - startMs;
      expect(owner.hello.epoch === world.epoch, `HELLO of epoch ${owner.hello.epoch}, not ${world.epoch}`);
      await expectWithin(world.ms(CONFORM.answerMsMax), () => owner.peer.snaps > 2, 'no heartbeat');
      await owner.takes('rotors');
      await world.flies();
      return `${world.board.last.n - from} inputs answered; back after ${tookMs.toFixed(0)} ms`;
    },
  },
  {
    group,
    id: 'in-warm-up',
    begins: 'nobody',
    expected: 'a candidate that is offered again warms up again',
    async run(world) {
      const seat = await world.start();
      seat.send({ type: 'OFFER', role: 'candidate' });
      world.die();
      world.agent.listen();
      await seat.returns([]);
      await seat.warm();
      world.board.pause(false);
      await seat.takes('rotors');
      await world.flies();
      return 'READY to the second OFFER';
    },
  },
  unheard('camera'),
  unheard('connections'),
  unheard('rotors'),
  {
    group,
    id: 'after-released',
    begins: 'owner',
    expected: 'dies with the RELEASED of the rotors: not held at HELLO, not written, until granted again',
    async run(world, owner) {
      const parcel = await owner.releases('rotors');
      world.die();
      await comesBack(world, owner, without('rotors'));
      const { seq } = world.board.last;
      await pause(CONFORM.quietMs);
      expect(world.board.last.seq === seq, 'commands without the rotors');
      await owner.takes('rotors', parcel);
      await world.flies();
      return 'not held, then granted';
    },
  },
  {
    group,
    id: 'in-grant',
    begins: 'owner',
    expected: 'dies right after GRANT of the rotors: what HELLO says it holds, it flies; what not, not',
    async run(world, owner) {
      const parcel = await owner.releases('rotors');
      owner.give('rotors', parcel);
      world.die();
      await pause(CONFORM.quietMs);
      const { seq } = world.board.last;
      await pause(CONFORM.quietMs);
      const writes = world.board.last.seq > seq;
      await comesBack(world, owner, writes ? RESOURCES : without('rotors'));
      if (writes) await owner.takes('rotors');
      else await owner.takes('rotors', parcel);
      await world.flies();
      return writes ? 'flies, held at HELLO' : 'does not fly, not held at HELLO';
    },
  },
];
