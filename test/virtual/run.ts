/**
 * One seed from its beginning to its end: builds the world, lets the operator roll out, and asks at the end whether
 * everything that waited has come to an end.
 *
 * Invariant: the same story gives the same trace, whatever else this machine does.
 */
import { plan } from '#agent/planner.ts';
import { Trace } from '#device-sim/virtual/trace.ts';
import { targetOf } from '#fleet/rollout.ts';
import { RESOURCES } from '#handover/messages.ts';
import { Drone } from './drone.ts';
import { Hub } from './hub.ts';
import type { Mutant } from './mutants.ts';
import type { Rollout, Story } from './story.ts';
import { Broken, seconds, World } from './world.ts';

export interface Verdict {
  readonly seed: number;
  /** SHA-256 over the trace. */
  readonly hash: string;
  /** `null`: every promise was kept. */
  readonly broken: string | null;
  /** The last lines of the trace. */
  readonly story: readonly string[];
  readonly events: number;
  readonly virtualMs: number;
  /** How each rollout ended. */
  readonly rollouts: readonly string[];
  /** By release: on how many drones it was ever started. */
  readonly started: Readonly<Record<string, number>>;
}
export interface RunOptions {
  readonly mutant?: Mutant;
  readonly storyLines?: number;
  readonly onLine?: (line: string) => void;
}

const BEGIN_US = seconds(5);
const LOOK_US = seconds(5);
/** After the calm and the last rollout: retries, time-outs and pauses are all shorter. */
const END_US = seconds(600);

export const run = (story: Story, options: RunOptions = {}): Verdict => {
  const trace = new Trace(options.storyLines ?? 60, options.onLine);
  const world = new World(story, options.mutant ?? 'none', trace);
  const hub = new Hub(world);
  world.hub = hub;
  const drones = Array.from({ length: story.drones }, (_, index) => new Drone(world, index));
  const ended: string[] = [];
  let broken: string | null = null;
  try {
    for (const drone of drones) drone.begin(!story.isFirstStart);
    let isOver = false;
    operate(world, hub, story.rollouts, ended, () => {
      const byUs = Math.max(world.scheduler.nowUs, story.calmUs) + END_US;
      const look = (): void => {
        const left = world.isCalm ? unfinished(hub, drones) : 'not calm yet';
        if (left === null) {
          isOver = true;
          return;
        }
        if (world.scheduler.nowUs > byUs) world.broken(left);
        world.scheduler.at(world.scheduler.nowUs + LOOK_US, look);
      };
      look();
    });
    world.scheduler.at(story.calmUs, () => {
      const { network } = world;
      network.weather = { lost: 0, doubled: 0, latencyUsMin: 5_000, latencyUsMax: 40_000 };
      for (const { name } of drones) network.cut(name, false);
      world.note('world', 'calm');
    });
    world.scheduler.run(seconds(7_200), () => isOver);
    if (!isOver) world.broken('the rollouts have not ended after two hours');
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    broken = error.message;
  } finally {
    hub.close();
  }
  const started: Record<string, number> = {};
  for (const drone of drones)
    for (const release of drone.started) started[release] = (started[release] ?? 0) + 1;
  return {
    seed: story.seed,
    hash: trace.digest(),
    broken,
    story: broken === null ? [] : trace.story(),
    events: world.scheduler.done,
    virtualMs: world.scheduler.nowUs / 1000,
    rollouts: ended,
    started,
  };
};

/** Rolls out one release after the other. Resumes what is paused for a good release, and gives up on a bad one. */
const operate = (
  world: World,
  hub: Hub,
  rollouts: readonly Rollout[],
  ended: string[],
  then: () => void,
): void => {
  const { scheduler, story } = world;
  const next = (index: number): void => {
    const wanted = rollouts[index];
    if (!wanted) {
      then();
      return;
    }
    const beganUs = scheduler.nowUs;
    let resumes = 0;
    const look = (): void => {
      const { rollout } = hub;
      const again = (): void => scheduler.at(scheduler.nowUs + LOOK_US, look);
      if (!hub.isUp) again();
      else if (rollout?.release !== wanted.release) {
        hub.ask(wanted);
        again();
      } else if (rollout.phase === 'done' || rollout.phase === 'aborted') {
        const why = rollout.phase === 'aborted' ? ` (${rollout.why.code})` : '';
        ended.push(`${wanted.release} ${rollout.phase}${why}`);
        next(index + 1);
      } else if (rollout.phase === 'paused') {
        const isGood = story.releases[wanted.release]?.behaviour === 'good';
        hub.ask(isGood && resumes < 20 ? (resumes++ % 3 === 1 ? 'retry' : 'resume') : 'abort');
        again();
      } else {
        if (wanted.abortUs !== null && scheduler.nowUs - beganUs > wanted.abortUs) hub.ask('abort');
        again();
      }
    };
    look();
  };
  scheduler.at(BEGIN_US, () => next(0));
};

/** What must be true once nothing goes wrong any more; `null`: all of it is. */
const unfinished = (hub: Hub, drones: readonly Drone[]): string | null => {
  const { rollout } = hub;
  if (!hub.isUp || rollout === null) return 'the hub is down';
  for (const drone of drones) {
    const { agent, name } = drone;
    if (agent === null || !agent.isBooted) return `${name} has no agent`;
    const { state, memory } = agent;
    const wanted = targetOf(rollout, name);
    if (memory.target?.generation !== wanted.generation)
      return `${name} has target ${memory.target?.generation ?? 'none'}, the hub wants it at ${wanted.generation}`;
    // Its release crashes and is started again, for ever: only the operator can change that.
    if (drone.isCrashing) continue;
    if (!agent.isCalm) return `${name} is not done: it is ${state.phase}, to ${plan(agent.observed).do}`;
    const owner = state.phase === 'idle' && state.owner !== null ? drone.apps.get(state.owner) : undefined;
    if (owner === undefined) {
      // Nothing ever flew on it, and what is wanted has failed on it: there is nothing to start.
      const wish = memory.target?.release ?? null;
      const isHopeless = wish === null || memory.failed?.release === wish.id;
      if (memory.good !== null || !isHopeless) return `nobody flies ${name}`;
      continue;
    }
    if (!owner.running) return `${name}: the owner ${owner.id} is dead`;
    const missing = RESOURCES.filter((resource) => !owner.holds.has(resource));
    if (missing.length > 0) return `${name}: the owner ${owner.id} lacks ${missing.join(', ')}`;
    if (!drone.isCommanded) return `${name}: the owner does not command it`;
    if (memory.good?.id !== owner.release)
      return `${name} flies ${owner.release}, and remembers ${memory.good?.id ?? 'nothing'} as good`;
    const device = rollout.devices[name];
    if (rollout.phase !== 'aborted' && device !== undefined) {
      const isDone = device.status === 'done';
      const flies = owner.release === rollout.release && device.status !== 'waiting';
      if (isDone !== flies) return `${name} flies ${owner.release}, and is ${device.status} at the hub`;
    }
  }
  return null;
};
