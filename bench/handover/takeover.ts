/** V1 killed, and V1 stopped, while V2 stands by: what the flight controller sees until V2 commands. */
import { rmSync, writeFileSync } from 'node:fs';
import type { World } from '#cli/demo/world.ts';
import type { Judged } from '#cli/sim-client.ts';
import { nowUs } from '#handover/native.ts';

export interface Takeover {
  readonly during: Judged;
  readonly whole: Judged;
}

/** After the fault, for the gap to end in it. */
const AFTER_MS = 600;
/** Before it: two periods, so that the gap's beginning is in. */
const BEFORE_US = 8_000;

/**
 * The app's update lock keeps V2 warm beside V1 for as long as we like; then V1 gets the signal.
 * @param to the release that is to stand by
 */
export const takeOver = async (
  world: World,
  to: string,
  signal: 'SIGKILL' | 'SIGSTOP',
  trace?: (line: string) => void,
): Promise<Takeover> => {
  const lock = world.path('agent', 'locks', 'updates.lock');
  const seen = (await world.hub.events()).at(-1)?.id ?? 0;
  const startUs = nowUs();
  writeFileSync(lock, 'bench\n', { flag: 'wx' });
  try {
    await world.hub.choose(to);
    await world.until(`${to} to stand by`, async () =>
      (await world.hub.events(seen)).find(({ type }) => type === 'update.postponed'),
    );
    await world.pause(300);
    const pid = await ownerPid(world);
    const atUs = nowUs();
    process.kill(pid, signal);
    await world.pause(AFTER_MS);
    const during = await world.sim.judge(atUs - BEFORE_US, atUs + AFTER_MS * 1000);
    rmSync(lock, { force: true });
    await world.updated(to);
    await world.pause(300);
    if (trace) {
      const relative = (us: unknown) => ((Number(us) - atUs) / 1000).toFixed(2);
      const events = (await world.hub.events(seen)).filter(({ data }) => Number(data.atUs) > atUs - 5_000);
      trace(
        `  ${events.map(({ type, data }) => `${type} ${typeof data.resource === 'string' ? data.resource : ''} ${relative(data.atUs)}`).join(', ')}`,
      );
      const { commands } = await world.sim.trace(atUs - 6_000, atUs + 80_000);
      trace(`  ${commands.map(({ tUs, epoch }) => `${relative(tUs)}/${epoch}`).join(' ')}`);
    }
    return { during, whole: await world.sim.judge(startUs, nowUs()) };
  } finally {
    rmSync(lock, { force: true });
  }
};

/** The first process of the container that flies, as this machine numbers it. */
const ownerPid = async (world: World): Promise<number> => {
  const id = (await world.current())?.owner?.container;
  if (id === undefined) throw new Error('nobody flies');
  const { State } = await world.droneEngine.docker.getContainer(id).inspect();
  if (!State.Running || State.Pid <= 1) throw new Error(`${id.slice(0, 12)} does not run`);
  return State.Pid;
};
