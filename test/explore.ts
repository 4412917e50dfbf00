/**
 * Every interleaving of a handover, breadth first: messages in any order between the two sides, every deadline at any
 * moment, silence of who flies at any moment, crashes, hangs, one crash of the agent between any two effects, an
 * operator's abort, an update lock that is held at first, and a second update, during the first and after it.
 *
 * Invariant: it runs the product's own `step`; only the apps, the wires and the disk are modelled, and those
 * as dumb as can be. Time is taken out: a deadline may pass at any moment, so the times in a state are all one.
 */
import { LIMITS } from '#handover/limits.ts';
import { step } from '#handover/machine.ts';
import type { Resource } from '#handover/messages.ts';
import {
  type AppId,
  type Config,
  type Effect,
  type Event,
  initial,
  type Policy,
  type State,
} from '#handover/state.ts';
import { pilotOf } from '#handover/transfer.ts';

type ToApp =
  | { type: 'RELEASE' | 'GRANT'; epoch: number; resource: Resource }
  | { type: 'PREPARE'; epoch: number };
type ToAgent =
  | { type: 'READY' | 'HELLO'; epoch: number }
  | { type: 'RELEASED' | 'GRANTED'; epoch: number; resource: Resource };
interface App {
  alive: boolean;
  hung: boolean;
  /** By its cgroup. Only one mutant ever thaws it. */
  frozen: boolean;
  /** What it may write to, under which epoch. */
  holds: Partial<Record<Resource, number>>;
  epoch: number;
  inbox: ToApp[];
  outbox: ToAgent[];
}
/** How often each may still happen. */
export interface Left {
  crash: number;
  hang: number;
  agent: number;
  abort: number;
  /** Updates beside the first: refused during it, begun after it. */
  update: number;
  /** Answers that the app holds the update lock. */
  locked: number;
}
interface World {
  machine: State;
  saved: State;
  apps: Record<AppId, App>;
  /** Asked for, not yet carried out. */
  fencing: AppId[];
  /** Carried out, or happened; not yet known to the machine. */
  deaths: AppId[];
  /** Effects `lock` that are not answered yet. */
  locks: number;
  /** Answers to an agent that died: they reach its successor at any moment, or never. */
  late: { from: AppId; message: ToAgent }[];
  failsafe: boolean;
  /** Independent faults so far; from two on nothing more is promised than an owner or a failsafe. */
  faults: 0 | 1 | 2;
  /** Highest epoch under which each resource was used. */
  used: Partial<Record<Resource, number>>;
  left: Left;
}

/** Ways to be wrong, each of which the exploration must find. */
export const MUTANTS = [
  'no-fence',
  'any-epoch',
  'timeout-is-success',
  'no-persist',
  'thaw-on-hand-back',
  'queued-stale-grant',
] as const;
export type Mutant = 'none' | (typeof MUTANTS)[number];

export interface Found {
  states: number;
  ends: number;
  phases: string[];
  violation: string | null;
  trace: string[];
}

const FAR_MS = 1e12;
const POLICY: Policy = {
  shadowCyclesMin: 1,
  divergenceMax: 1,
  heartbeatMsMax: 1,
  probationMs: 0,
  loopHzMin: 0,
  errorMax: null,
};
const VERSIONS = { reads: [1], writes: 1 };
const VERSIONS_FIELDS = { ...VERSIONS, v: 1 as const, app: 'app', release: 'r', holds: [], fds: [] };

const app = (holds: App['holds'], outbox: ToAgent[] = []): App => ({
  alive: true,
  hung: false,
  frozen: false,
  holds,
  epoch: 0,
  inbox: [],
  outbox,
});
const candidate = (epoch: number): App =>
  app({}, [
    { type: 'HELLO', epoch },
    { type: 'READY', epoch },
  ]);
const clone = (world: World): World => JSON.parse(JSON.stringify(world)) as World;
/** One spelling for one state. */
const sorted = <T>(record: Record<string, T>): Record<string, T> =>
  Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
const fault = (world: World): void => {
  world.faults = world.faults === 0 ? 1 : 2;
};

/** The same state whenever it is reached. */
const timeless = (state: State): State => {
  const fixed: Record<string, unknown> = { ...state };
  for (const name of ['deadlineMs', 'heardMs'] as const) if (name in state) fixed[name] = 0;
  if ('untilMs' in state) fixed.untilMs = FAR_MS;
  return fixed as unknown as State;
};

const isGone = (one: App | undefined): boolean => one?.alive !== true || one.frozen;
const kill = (one: App): void => {
  Object.assign(one, { alive: false, hung: false, frozen: false, holds: {}, inbox: [] });
};

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
        if (mutant === 'thaw-on-hand-back' && message.type === 'GRANT') to.frozen = false;
        to.inbox.push({ type: message.type, epoch: message.epoch, resource: message.resource });
      } else if (message.type === 'PREPARE') to.inbox.push({ type: 'PREPARE', epoch: message.epoch });
      return;
    }
    case 'fence':
    case 'stop': {
      const one = world.apps[effect.who];
      if (!one) return;
      // "It never said that it took anything": its grant may still lie in its socket.
      const trusted = mutant === 'queued-stale-grant' && Object.keys(one.holds).length === 0;
      if (mutant === 'no-fence' || trusted) world.deaths.push(effect.who);
      else if (!world.fencing.includes(effect.who)) world.fencing.push(effect.who);
      return;
    }
    case 'lock':
      world.locks++;
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
  const [machine, effects] = step(thawable(world, mutant), event, config);
  const after: World[] = [];
  const next = { ...clone(world), machine: timeless(machine) };
  for (let done = 0; done <= effects.length; done++) {
    if (next.left.agent > 0) {
      const crashed = clone(next);
      crashed.left.agent--;
      fault(crashed);
      // Its timers, its unread input and the effects that were left are gone. What it wrote can still be read.
      crashed.machine = crashed.saved;
      crashed.fencing = [];
      crashed.deaths = [];
      crashed.locks = 0;
      for (const [from, one] of Object.entries(crashed.apps)) {
        const answers = one.outbox.filter(({ type }) => type === 'RELEASED' || type === 'GRANTED');
        crashed.late.push(...answers.map((message) => ({ from, message })));
        one.outbox = [];
      }
      after.push(...booted(crashed, config, mutant));
    }
    const effect = effects[done];
    if (effect) act(next, effect, mutant);
  }
  return [...after, next];
};

/** The mutant that takes a frozen prior for one that can still be handed back to. */
const thawable = ({ machine, apps }: World, mutant: Mutant): State => {
  if (mutant !== 'thaw-on-hand-back' || !('fenced' in machine) || machine.prior === null) return machine;
  const taken = apps[machine.candidate]?.alive === false;
  return taken && apps[machine.prior]?.frozen
    ? { ...machine, fenced: { ...machine.fenced, prior: false } }
    : machine;
};

const booted = (world: World, config: Config, mutant: Mutant): World[] => {
  const gone = Object.keys(world.apps).filter((id) => isGone(world.apps[id]));
  let worlds = happen(world, { type: 'boot', gone, atMs: 0 }, config, mutant);
  for (const id of gone) {
    worlds = worlds.flatMap((w) => happen(w, { type: 'dead', who: id, atMs: 0 }, config, mutant));
  }
  return worlds;
};

/** An app as the protocol asks for it: a step counts only under a higher epoch. */
const receive = (world: World, id: AppId): void => {
  const one = world.apps[id];
  const message = one?.inbox.shift();
  if (!one || !message) return;
  if (message.type === 'PREPARE') {
    one.outbox.push({ type: 'READY', epoch: message.epoch });
    return;
  }
  if (message.epoch <= one.epoch) return;
  const { resource, epoch } = message;
  one.epoch = epoch;
  if (message.type === 'RELEASE') {
    delete one.holds[resource];
    one.outbox.push({ type: 'RELEASED', epoch, resource });
  } else {
    one.holds = sorted({ ...one.holds, [resource]: epoch });
    world.used[resource] = Math.max(epoch, world.used[resource] ?? 0);
    one.outbox.push({ type: 'GRANTED', epoch, resource });
  }
};

const messageOf = (world: World, message: ToAgent, mutant: Mutant) => {
  const epoch = mutant === 'any-epoch' ? world.machine.epoch : message.epoch;
  switch (message.type) {
    case 'HELLO':
      return { ...VERSIONS_FIELDS, type: message.type, epoch };
    case 'READY':
      return { type: message.type, epoch, cycles: 1, divergence: 0, fds: [] };
    case 'RELEASED':
      return {
        type: message.type,
        epoch,
        resource: message.resource,
        payload: {},
        more: false,
        fds: [] as string[],
      };
    case 'GRANTED':
      return { type: message.type, epoch, resource: message.resource, fds: [] };
  }
};

/** Whom the state's own deadline is for. */
const awaited = (state: State): AppId | null => {
  switch (state.phase) {
    case 'warming':
    case 'ready':
      return state.candidate;
    case 'releasing':
      return state.direction === 'forward' ? state.prior : state.candidate;
    case 'granting':
      return state.direction === 'forward' ? state.candidate : state.prior;
    case 'fencing': {
      const giver = state.direction === 'forward' ? state.prior : state.candidate;
      return state.fenced[state.who] ? giver : null;
    }
    default:
      return null;
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
  const { machine } = world;
  const works = (id: AppId | null): boolean => {
    const one = id === null ? undefined : world.apps[id];
    return one?.alive === true && !one.hung && !one.frozen;
  };
  for (const [id, one] of Object.entries(world.apps)) {
    const [message] = one.outbox;
    if (message) {
      event(`agent hears ${message.type} ${message.epoch} of ${id}`, (w) => w.apps[id]?.outbox.shift(), {
        type: 'message',
        from: id,
        atMs: 0,
        message: messageOf(world, message, mutant),
      });
    }
    if (!one.alive || one.frozen) continue;
    if (one.inbox.length > 0 && !one.hung) change(`${id} reads ${one.inbox[0]?.type}`, (w) => receive(w, id));
    if (one.hung) change(`${id} wakes`, (w) => Object.assign(w.apps[id] as App, { hung: false }));
    else if (world.left.hang > 0) {
      change(`${id} hangs`, (w) => {
        (w.apps[id] as App).hung = true;
        w.left.hang--;
        fault(w);
      });
    }
    if (world.left.crash > 0) {
      change(`${id} crashes`, (w) => {
        kill(w.apps[id] as App);
        w.deaths.push(id);
        w.left.crash--;
        fault(w);
        // Nobody was warm yet, or any more: the controller's failsafe is all there is.
        if (machine.phase === 'warming' && id === machine.prior) fault(w);
        if (machine.phase === 'committed' && id === machine.candidate) fault(w);
        if (machine.phase === 'idle' && id === machine.owner) fault(w);
      });
    }
  }
  world.late.forEach(({ from, message }, index) => {
    event(
      `agent hears ${message.type} ${message.epoch} of ${from}, late`,
      (w) => void w.late.splice(index, 1),
      {
        type: 'message',
        from,
        atMs: 0,
        message: messageOf(world, message, mutant),
      },
    );
  });
  for (const id of world.fencing) {
    change(`${id} is fenced`, (w) => {
      w.fencing = w.fencing.filter((who) => who !== id);
      // It dies of it behind that; an agent that is restarted before finds it so.
      const one = w.apps[id] as App;
      one.frozen = true;
      if (mutant !== 'thaw-on-hand-back') Object.assign(one, { hung: false, holds: {}, inbox: [] });
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
  if (world.locks > 0) {
    event('the lock is taken', (w) => void w.locks--, { type: 'lock', atMs: 0, taken: true });
    if (world.left.locked > 0) {
      const held = (w: World): void => {
        w.locks--;
        w.left.locked--;
      };
      event('the lock is held', held, { type: 'lock', atMs: 0, taken: false });
    }
  }
  const at = (times: object) => (w: World) => void Object.assign(w.machine, times);
  const tick: Event = { type: 'tick', atMs: 0 };
  if ('deadlineMs' in machine) {
    const late = (w: World): void => {
      at({ deadlineMs: 0, heardMs: FAR_MS })(w);
      // It answers within its time, and a death is known in less than any deadline.
      if (works(awaited(machine)) || machine.phase === 'fencing' || w.deaths.length > 0) fault(w);
    };
    if (mutant === 'timeout-is-success' && machine.phase === 'releasing') {
      const from = (machine.direction === 'forward' ? machine.prior : machine.candidate) as AppId;
      const { epoch, resource } = machine;
      const message = messageOf(world, { type: 'RELEASED', epoch, resource }, mutant);
      event('deadline', () => {}, { type: 'message', from, atMs: 0, message });
    } else event('deadline', late, tick);
  }
  if (machine.phase === 'postponed') {
    const inVain = (w: World): void => {
      at({ untilMs: 0, heardMs: FAR_MS })(w);
      fault(w);
    };
    event('the lock is waited for in vain', inVain, tick);
  }
  const pilot = pilotOf(machine, config);
  if (pilot !== null && 'candidate' in machine) {
    const silent = (w: World): void => {
      at({ deadlineMs: FAR_MS, heardMs: -FAR_MS })(w);
      if (works(machine[pilot])) fault(w);
    };
    event(`the ${pilot} is silent`, silent, tick);
  }
  if (world.left.abort > 0) {
    const failure = { code: 'ABORTED', text: 'by the operator' };
    const aborted = (w: World): void => {
      w.left.abort--;
      // The candidate is sent away: from here on the prior has nobody behind it.
      fault(w);
    };
    event('operator aborts', aborted, { type: 'abort', atMs: 0, failure });
  }
  // During an update it is refused; the supervisor begins one only beside an owner.
  if (
    world.left.update > 0 &&
    !(machine.phase === 'idle' && machine.owner === null) &&
    machine.phase !== 'failsafe'
  ) {
    const started = (w: World): void => {
      w.left.update--;
      w.apps.C = candidate(machine.epoch);
    };
    event('second update', started, { type: 'update', candidate: 'C', policy: POLICY, atMs: 0 });
  }
  return all;
};

const broken = (world: World, config: Config): string | null => {
  for (const resource of config.resources) {
    const holders = Object.entries(world.apps).filter(
      ([, one]) => one.alive && !one.frozen && one.holds[resource] !== undefined,
    );
    if (holders.length > 1)
      return `two owners of the ${resource}: ${holders.map(([id]) => id).join(' and ')}`;
    for (const [id, one] of holders) {
      const epoch = one.holds[resource] as number;
      if (epoch < (world.used[resource] ?? 0))
        return `${id} may use the ${resource} under stale epoch ${epoch}`;
    }
  }
  return null;
};

/** What must be true when nothing more can happen by itself. */
const unfinished = (world: World, config: Config): string | null => {
  const { machine } = world;
  if (machine.phase !== 'idle' && machine.phase !== 'failsafe') return `stuck in ${machine.phase}`;
  const owner = machine.phase === 'idle' && machine.owner !== null ? world.apps[machine.owner] : undefined;
  if (!owner) {
    if (!world.failsafe) return 'nobody owns it and no failsafe was told';
    return world.faults < 2 ? 'one fault, and nobody owns it' : null;
  }
  if (isGone(owner)) return 'the owner is dead';
  const missing = config.resources.filter((resource) => owner.holds[resource] === undefined);
  return missing.length > 0 ? `the owner lacks ${missing.join(', ')}` : null;
};

/**
 * @param resources which of RESOURCES the device has; the count of states grows steeply with their number
 * @param left how often each fault, abort, lock and further update may happen
 */
export const explore = (
  resources: readonly Resource[],
  left: Left,
  mutant: Mutant = 'none',
  statesMax = 500_000,
): Found => {
  const config: Config = { limits: LIMITS, resources };
  const owned: State = { phase: 'idle', epoch: initial.epoch, owner: 'A', speaks: VERSIONS };
  const [begun] = step(owned, { type: 'update', candidate: 'B', policy: POLICY, atMs: 0 }, config);
  const warming = timeless(begun);
  const start: World = {
    machine: warming,
    saved: warming,
    apps: { A: app(sorted(Object.fromEntries(resources.map((one) => [one, 0])))), B: candidate(0) },
    fencing: [],
    deaths: [],
    locks: 0,
    late: [],
    failsafe: false,
    faults: 0,
    used: {},
    left,
  };
  const queue: string[] = [JSON.stringify(start)];
  const parents = new Map<string, { from: number; by: string }>([
    [queue[0] as string, { from: -1, by: 'start' }],
  ]);
  const trace = (index: number): string[] => {
    const lines: string[] = [];
    for (let at = index; at >= 0; ) {
      const parent = parents.get(queue[at] as string);
      lines.unshift(parent?.by ?? '');
      at = parent?.from ?? -1;
    }
    return lines;
  };
  const phases = new Set<string>();
  let ends = 0;
  const result = (violation: string | null, index: number): Found => ({
    states: parents.size,
    ends,
    phases: [...phases].sort(),
    violation,
    trace: violation === null ? [] : [...trace(index), queue[index] as string],
  });
  for (let index = 0; index < queue.length; index++) {
    if (queue.length > statesMax) throw new Error(`more than ${statesMax} states`);
    const world = JSON.parse(queue[index] as string) as World;
    phases.add(world.machine.phase);
    const wrong = broken(world, config);
    if (wrong) return result(wrong, index);
    const after = successors(world, config, mutant);
    // A world in which only faults could still happen is at rest.
    if (after.every(([name]) => /crashes|hangs|operator|second|late$/.test(name))) {
      ends++;
      const left = unfinished(world, config);
      if (left) return result(left, index);
    }
    for (const [by, next] of after) {
      const key = JSON.stringify(next);
      if (parents.has(key)) continue;
      parents.set(key, { from: index, by });
      queue.push(key);
    }
  }
  return result(null, 0);
};
