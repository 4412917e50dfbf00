/**
 * Every interleaving of a handover, breadth first: messages in any order between the two sides, every deadline
 * at any moment, one crash of each app, one hang, one agent crash between any two effects.
 *
 * Invariant: it runs the product's own `step`; only the apps, the wires and the disk are modelled, and those
 * as dumb as can be.
 */
import { LIMITS } from '#handover/limits.ts';
import { deadlineMs, step } from '#handover/machine.ts';
import type { Resource } from '#handover/messages.ts';
import { type AppId, type Config, type Effect, type Event, initial, type State } from '#handover/state.ts';

type ToApp =
  | { type: 'RELEASE' | 'GRANT'; epoch: number; resource: Resource }
  | { type: 'PREPARE'; epoch: number };
type ToAgent =
  | { type: 'READY'; epoch: number }
  | { type: 'RELEASED' | 'GRANTED'; epoch: number; resource: Resource };
interface App {
  alive: boolean;
  hung: boolean;
  holds: Resource[];
  epoch: number;
  inbox: ToApp[];
  outbox: ToAgent[];
}
interface World {
  machine: State;
  saved: State;
  apps: Record<AppId, App>;
  /** Asked for, not yet carried out. */
  fencing: AppId[];
  /** Carried out, or happened; not yet known to the machine. */
  deaths: AppId[];
  failsafe: boolean;
  left: { crash: number; hang: number; agent: number; abort: number; update: number };
}

/** Ways to be wrong, each of which the exploration must find. */
export type Mutant = 'none' | 'no-fence' | 'any-epoch' | 'timeout-is-success' | 'no-persist';

export interface Found {
  states: number;
  ends: number;
  violation: string | null;
  trace: string[];
}

const app = (holds: Resource[]): App => ({
  alive: true,
  hung: false,
  holds,
  epoch: 0,
  inbox: [],
  outbox: [],
});

const clone = (world: World): World => structuredClone(world);

const act = (world: World, effect: Effect, mutant: Mutant): void => {
  switch (effect.do) {
    case 'persist':
      if (mutant !== 'no-persist') world.saved = world.machine;
      return;
    case 'send': {
      const to = world.apps[effect.to];
      const { message } = effect;
      if (!to?.alive) return;
      if (message.type === 'RELEASE' || message.type === 'GRANT') {
        to.inbox.push({ type: message.type, epoch: message.epoch, resource: message.resource });
      } else if (message.type === 'PREPARE') to.inbox.push({ type: 'PREPARE', epoch: message.epoch });
      return;
    }
    case 'fence':
    case 'stop':
      if (mutant === 'no-fence') world.deaths.push(effect.who);
      else if (!world.fencing.includes(effect.who)) world.fencing.push(effect.who);
      return;
    case 'failsafe':
      world.failsafe = true;
      return;
    case 'mirror':
    case 'report':
    case 'settle':
      return;
  }
};

/** The world after an event; and, while an agent crash is left, after a crash between any two of its effects. */
const happen = (world: World, event: Event, config: Config, mutant: Mutant): World[] => {
  const [machine, effects] = step(world.machine, event, config);
  const after: World[] = [];
  const next = { ...clone(world), machine };
  for (let done = 0; done <= effects.length; done++) {
    if (next.left.agent > 0) {
      const crashed = clone(next);
      crashed.left.agent--;
      // Its timers, its unread input and the effects that were left are gone. What it wrote can still be read.
      crashed.machine = crashed.saved;
      crashed.fencing = [];
      crashed.deaths = [];
      for (const one of Object.values(crashed.apps)) one.outbox = [];
      after.push(...booted(crashed, config, mutant));
    }
    const effect = effects[done];
    if (effect) act(next, effect, mutant);
  }
  return [...after, next];
};

const booted = (world: World, config: Config, mutant: Mutant): World[] => {
  let worlds = happen(world, { type: 'boot', atMs: 0 }, config, mutant);
  for (const [id, one] of Object.entries(world.apps)) {
    if (!one.alive)
      worlds = worlds.flatMap((w) => happen(w, { type: 'dead', who: id, atMs: 0 }, config, mutant));
  }
  return worlds;
};

const receive = (world: World, id: AppId): void => {
  const one = world.apps[id];
  const message = one?.inbox.shift();
  if (!one || !message) return;
  if (message.type === 'PREPARE') {
    one.outbox.push({ type: 'READY', epoch: message.epoch });
    return;
  }
  if (message.epoch <= one.epoch) return;
  one.epoch = Math.max(one.epoch, message.epoch);
  const { resource, epoch } = message;
  if (message.type === 'RELEASE') {
    one.holds = one.holds.filter((held) => held !== resource);
    one.outbox.push({ type: 'RELEASED', epoch, resource });
  } else {
    if (!one.holds.includes(resource)) one.holds = [...one.holds, resource].sort();
    one.outbox.push({ type: 'GRANTED', epoch, resource });
  }
};

const successors = (world: World, config: Config, mutant: Mutant): [string, World][] => {
  const all: [string, World][] = [];
  const event = (name: string, prepare: (w: World) => void, make: Event) => {
    const next = clone(world);
    prepare(next);
    for (const one of happen(next, make, config, mutant)) all.push([name, one]);
  };
  const change = (name: string, apply: (w: World) => void) => {
    const next = clone(world);
    apply(next);
    all.push([name, next]);
  };
  for (const [id, one] of Object.entries(world.apps)) {
    if (one.outbox.length > 0) {
      const message = one.outbox[0] as ToAgent;
      const extra = message.type === 'READY' ? { cycles: 1, divergence: 0 } : { payload: {}, more: false };
      event(`agent hears ${message.type} ${message.epoch} of ${id}`, (w) => w.apps[id]?.outbox.shift(), {
        type: 'message',
        from: id,
        atMs: 0,
        message: {
          ...message,
          ...(mutant === 'any-epoch' ? { epoch: world.machine.epoch } : {}),
          ...extra,
          fds: [],
        } as never,
      });
    }
    if (!one.alive) continue;
    if (one.inbox.length > 0 && !one.hung) change(`${id} reads ${one.inbox[0]?.type}`, (w) => receive(w, id));
    if (one.hung) change(`${id} wakes`, (w) => Object.assign(w.apps[id] as App, { hung: false }));
    else if (world.left.hang > 0) {
      change(`${id} hangs`, (w) => {
        (w.apps[id] as App).hung = true;
        w.left.hang--;
      });
    }
    if (world.left.crash > 0) {
      change(`${id} crashes`, (w) => {
        Object.assign(w.apps[id] as App, { alive: false, hung: false, holds: [], inbox: [] });
        w.deaths.push(id);
        w.left.crash--;
      });
    }
  }
  for (const id of world.fencing) {
    change(`${id} is fenced`, (w) => {
      w.fencing = w.fencing.filter((who) => who !== id);
      Object.assign(w.apps[id] as App, { alive: false, hung: false, holds: [], inbox: [] });
      if (!w.deaths.includes(id)) w.deaths.push(id);
    });
  }
  for (const id of world.deaths) {
    event(`agent learns that ${id} is dead`, (w) => w.deaths.splice(w.deaths.indexOf(id), 1), {
      type: 'dead',
      who: id,
      atMs: 0,
    });
  }
  const atMs = deadlineMs(world.machine, config);
  if (Number.isFinite(atMs)) {
    const { machine } = world;
    if (mutant === 'timeout-is-success' && machine.phase === 'releasing') {
      const from = (machine.direction === 'forward' ? machine.prior : machine.candidate) as AppId;
      const { epoch, resource } = machine;
      const message = {
        type: 'RELEASED' as const,
        epoch,
        resource,
        payload: {},
        more: false,
        fds: [] as string[],
      };
      event('deadline', () => {}, { type: 'message', from, atMs: 0, message });
    } else event('deadline', () => {}, { type: 'tick', atMs });
  }
  if (world.left.abort > 0) {
    event('operator aborts', (w) => void w.left.abort--, {
      type: 'abort',
      atMs: 0,
      failure: { code: 'ABORTED', text: 'by the operator' },
    });
  }
  if (world.left.update > 0 && !['idle', 'failsafe'].includes(world.machine.phase)) {
    event('a second update', (w) => void w.left.update--, { type: 'update', candidate: 'C', atMs: 0 });
  }
  return all;
};

const broken = (world: World, config: Config): string | null => {
  for (const resource of config.resources) {
    const holders = Object.entries(world.apps).filter(([, one]) => one.alive && one.holds.includes(resource));
    if (holders.length > 1)
      return `two owners of the ${resource}: ${holders.map(([id]) => id).join(' and ')}`;
  }
  return null;
};

/** What must be true when nothing more can happen by itself. */
const unfinished = (world: World, config: Config): string | null => {
  const { machine } = world;
  if (machine.phase === 'failsafe') return world.failsafe ? null : 'failsafe was never told';
  if (machine.phase !== 'idle') return `stuck in ${machine.phase}`;
  if (machine.owner === null) return world.failsafe ? null : 'nobody owns it and no failsafe was told';
  const owner = world.apps[machine.owner];
  if (!owner?.alive) return 'the owner is dead';
  const missing = config.resources.filter((resource) => !owner.holds.includes(resource));
  return missing.length > 0 ? `the owner lacks ${missing.join(', ')}` : null;
};

/** @param resources how many of the last of RESOURCES the device has; the count of states grows steeply with it */
export const explore = (
  resources: readonly Resource[],
  mutant: Mutant = 'none',
  statesMax = 2_000_000,
): Found => {
  const config: Config = { limits: LIMITS, resources };
  const owned: State = { ...initial, owner: 'A' } as State;
  const [warming] = step(owned, { type: 'update', candidate: 'B', atMs: 0 }, config);
  const start: World = {
    machine: warming,
    saved: warming,
    apps: { A: app([...resources].sort()), B: { ...app([]), outbox: [{ type: 'READY', epoch: 0 }] } },
    fencing: [],
    deaths: [],
    failsafe: false,
    left: { crash: 1, hang: 1, agent: 1, abort: 1, update: 1 },
  };
  const parents = new Map<string, { from: string | null; by: string }>();
  const trace = (key: string): string[] => {
    const lines: string[] = [];
    for (let at: string | null = key; at !== null; ) {
      const parent: { from: string | null; by: string } | undefined = parents.get(at);
      lines.unshift(parent?.by ?? '');
      at = parent?.from ?? null;
    }
    return lines;
  };
  const queue: World[] = [start];
  parents.set(JSON.stringify(start), { from: null, by: 'start' });
  let ends = 0;
  for (let index = 0; index < queue.length && index < statesMax; index++) {
    const world = queue[index] as World;
    queue[index] = undefined as never;
    const key = JSON.stringify(world);
    const fault = broken(world, config);
    if (fault) return { states: parents.size, ends, violation: fault, trace: trace(key) };
    const after = successors(world, config, mutant);
    // A world in which only faults could still happen is at rest.
    if (after.every(([name]) => /crashes|hangs|operator|second/.test(name))) {
      ends++;
      const left = unfinished(world, config);
      if (left) return { states: parents.size, ends, violation: left, trace: trace(key) };
    }
    for (const [by, next] of after) {
      const nextKey = JSON.stringify(next);
      if (parents.has(nextKey)) continue;
      parents.set(nextKey, { from: key, by });
      queue.push(next);
    }
  }
  if (queue.length > statesMax) throw new Error(`more than ${statesMax} states`);
  return { states: parents.size, ends, violation: null, trace: [] };
};
