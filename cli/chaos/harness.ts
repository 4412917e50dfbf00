/**
 * Failure injection in a world of the harness (cli/demo/world.ts): its link, its small disk, its injector.
 *
 * Invariant: each belongs to the world's scope, and ends with it, after what uses it.
 */
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { promisify } from 'node:util';
import { ChaosClient } from '#cli/chaos/client.ts';
import type { Child } from '#cli/demo/child.ts';
import type { Scope } from '#cli/demo/scope.ts';
import type { World } from '#cli/demo/world.ts';

const run = promisify(execFile);

/** The agent reaches its hub through a link from its next start on. @returns the link's unix socket */
export async function startLink(world: World): Promise<string> {
  const { ready } = await world.start(
    'link',
    [
      ...['--dir', world.path('link'), '--device', world.device],
      ...['--hub', world.hub.url, '--mqtt', world.mqttUrl],
    ],
    ['chaos', 'link'],
  );
  world.wayToHub = { hub: String(ready.hub), mqtt: String(ready.mqtt) };
  return String(ready.control);
}

/** For all that is in the world. Also again, after its end. */
export async function startChaos(world: World): Promise<{ client: ChaosClient; child: Child }> {
  const args = ['--dir', world.path('chaos'), '--watch', world.directory, '--engine', world.droneEngine.url];
  const child = await world.start('chaos', args, ['chaos', 'serve']);
  return { client: new ChaosClient(String(child.ready.url)), child };
}

/** A disk of its own for the agent, in memory, that may be filled; before its first start, as root. */
export async function mountAgentDisk(scope: Scope, world: World, bytes: number): Promise<void> {
  const directory = world.path('agent');
  await scope.use(
    'disk of the agent',
    async () => {
      mkdirSync(directory, { recursive: true });
      await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'midair', directory]);
    },
    async () => {
      // At once, whoever still looks at it; what they look at is gone when they are.
      await run('umount', ['-l', directory]);
    },
  );
}
