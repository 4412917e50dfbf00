/**
 * Does a scenario's faults to a drone: to its processes, its battery, its way to the hub.
 *
 * Invariant: a process is known by its container and its id, never by a name; what is stopped for a while goes on again,
 * also when the flight ends before.
 */
import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Drone } from '#cli/fly/drone.ts';
import { FLY } from '#cli/fly/limits.ts';
import { type Fault, FROM_INSIDE, type Moment } from '#cli/fly/scenario.ts';

type ProcessFault = Extract<Fault, { type: 'process' }>;

/** Resolves when it is done and, if it was for a while, over. @throws what went wrong */
export const doFault = async (drone: Drone, fault: Fault): Promise<void> => {
  switch (fault.type) {
    case 'battery':
      await drone.world.sim.setBattery(fault.percent);
      return;
    case 'cut':
      drone.cut();
      if (fault.forMs === undefined) return;
      await drone.world.pause(fault.forMs);
      drone.mend();
      drone.mark('the hub can be reached again');
      return;
    case 'process':
      if (fault.target === 'agent') await ofAgent(drone, fault);
      else if (fault.moment !== undefined) await atMoment(drone, fault, fault.moment);
      else await now(drone, fault);
  }
};

const ofAgent = async (drone: Drone, { how, forMs }: ProcessFault): Promise<void> => {
  const { world } = drone;
  if (how === 'kill') {
    await world.killAgent();
    if (forMs === undefined) return;
    await world.pause(forMs);
    await drone.startAgent();
    drone.mark('the agent is started again');
    return;
  }
  const { pid } = world.agentId;
  process.kill(pid, 'SIGSTOP');
  try {
    if (forMs !== undefined) await world.pause(forMs);
  } finally {
    if (forMs !== undefined) process.kill(pid, 'SIGCONT');
  }
};

const now = async (drone: Drone, { how, target, forMs }: ProcessFault): Promise<void> => {
  const { world } = drone;
  const { id, pid } = await containerOf(drone, target);
  const container = world.droneEngine.docker.getContainer(id);
  if (how === 'freeze') await container.pause();
  else process.kill(pid, how === 'kill' ? 'SIGKILL' : 'SIGSTOP');
  if (how === 'kill' || forMs === undefined) return;
  await world.pause(forMs);
  // Fenced and removed meanwhile, as it should be, or it goes on.
  if (how === 'freeze') await container.unpause().catch(() => undefined);
  else if ((await containerOf(drone, target).catch(() => undefined))?.pid === pid)
    process.kill(pid, 'SIGCONT');
};

/**
 * The process waits for the message itself (fault-hook.mjs). A container's first process cannot kill or stop itself: it
 * stands still at the message, and says so in a file.
 */
const atMoment = async (
  drone: Drone,
  { how, target, forMs }: ProcessFault,
  moment: Moment,
): Promise<void> => {
  const { world } = drone;
  const plan = world.path('agent', 'run', 'fault.json');
  const strike = `${plan}.now`;
  const isInside = (FROM_INSIDE as readonly string[]).includes(how);
  const inside = { kill: 'SIGKILL', stop: 'SIGSTOP', freeze: 'SIGSTOP' } as const;
  const planned = isInside ? how : inside[how as keyof typeof inside];
  writeFileSync(`${plan}.new`, JSON.stringify({ who: target, fault: planned, ...moment }));
  renameSync(`${plan}.new`, plan);
  // Known before it stands: the engine answers in milliseconds, which are too many then.
  const known = await containerOf(drone, target).catch(() => undefined);
  const given = AbortSignal.any([world.signal, drone.over.signal]);
  await new Promise<void>((resolve, reject) => {
    let isLooking = false;
    const look = async () => {
      given.throwIfAborted();
      const isThere = isInside ? !existsSync(plan) : existsSync(strike);
      if (!isThere) return false;
      rmSync(strike, { force: true });
      if (!isInside)
        process.kill((known ?? (await containerOf(drone, target))).pid, planned as NodeJS.Signals);
      return true;
    };
    const timer = setInterval(() => {
      if (isLooking) return;
      isLooking = true;
      look().then(
        (done) => {
          isLooking = false;
          if (!done) return;
          clearInterval(timer);
          resolve();
        },
        (error: Error) => {
          clearInterval(timer);
          reject(error);
        },
      );
    }, FLY.strikeMs);
  });
  drone.mark(`${how} ${target}: now, ${moment.way === 'hear' ? 'hearing' : 'sending'} ${moment.type}`);
  if (how !== 'stop' || forMs === undefined) return;
  await world.pause(forMs);
  const { pid } = await containerOf(drone, target);
  process.kill(pid, 'SIGCONT');
};

/** The running container of that release, and its first process as this machine numbers it. */
const containerOf = async (drone: Drone, release: string): Promise<{ id: string; pid: number }> => {
  const { device, droneEngine } = drone.world;
  const label = [`io.midair.device=${device}`, `io.midair.release=${release}`];
  const [running] = await droneEngine.docker.listContainers({ filters: { label } });
  if (running === undefined) throw new Error(`${release} does not run`);
  const { State } = await droneEngine.docker.getContainer(running.Id).inspect();
  if (State.Pid <= 1) throw new Error(`${release} does not run`);
  return { id: running.Id, pid: State.Pid };
};
