/**
 * Carries out what the schedule says, on what is really there.
 *
 * Invariants: before each injection, not only at its experiment's creation, the target is looked at anew and must be marked;
 * nothing is done without a watchdog, nor before the ledger has what undoes it; `close` resolves when all is undone.
 */
import { randomInt } from 'node:crypto';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { ChaosError, codeOf, textOf } from '#cli/chaos/errors.ts';
import { criteriaText, parseExperiment, type Spec } from '#cli/chaos/experiment.ts';
import { INJECT } from '#cli/chaos/failures/index.ts';
import { type Ledger, LedgerReader, type LedgerRecord, Openings } from '#cli/chaos/ledger.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import * as schedule from '#cli/chaos/schedule.ts';
import type { Surroundings } from '#cli/chaos/surroundings.ts';
import { match, type Thing, thingText } from '#cli/chaos/targets.ts';
import { bootId, monotonicMs, undo } from '#cli/chaos/undo.ts';

export interface InjectorOptions {
  readonly ledger: Ledger;
  /** The highest ids that the ledger has: none is given twice. */
  readonly numbers: schedule.State['numbers'];
  readonly surroundings: Surroundings;
  readonly watch: { readonly isWatching: boolean };
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

/** A record with its place in the history. */
export type HistoryEvent = LedgerRecord & { readonly id: number };

export interface Created {
  readonly experiment: schedule.Experiment;
  /** Who matches now. */
  readonly matches: readonly string[];
  readonly notes: readonly string[];
}

const WORDS: Record<schedule.Why, string> = {
  time: 'its time was over',
  stopped: 'the experiment was stopped',
  over: 'the experiment was over',
  closing: 'the injector ends',
};

export class Injector {
  readonly #options: InjectorOptions;
  readonly #boot = bootId();
  readonly #openings = new Openings();
  #state: schedule.State;
  /** The history is the ledger: the watchdog writes in it, too. */
  readonly #reader: LedgerReader;
  #history: HistoryEvent[] = [];
  #historyId = 0;
  #timer: NodeJS.Timeout | undefined;
  #waiting: { done: () => boolean; resolve: () => void }[] = [];
  /** Of each experiment, why its last beat did nothing: said once. */
  readonly #passed = new Map<string, string>();

  constructor(options: InjectorOptions) {
    this.#options = options;
    this.#state = schedule.initial(options.numbers);
    this.#reader = new LedgerReader(options.ledger.path);
  }

  get experiments(): readonly schedule.Experiment[] {
    return this.#state.experiments;
  }

  get active(): readonly schedule.Injection[] {
    return this.#state.active;
  }

  /** Oldest first, after an id. */
  events(after = 0): HistoryEvent[] {
    for (const record of this.#reader.read()) this.#history.push({ ...record, id: ++this.#historyId });
    this.#history = this.#history.slice(-CHAOS.ledgerRecordsKept);
    return this.#history.filter(({ id }) => id > after).slice(-CHAOS.eventsMax);
  }

  /** @throws ChaosError `INVALID_EXPERIMENT`, `NOT_A_TEST_DEVICE`, `TOO_MANY_EXPERIMENTS`, `CLOSING`; EngineError */
  async create(input: unknown): Promise<Created> {
    const spec = parseExperiment(input, randomInt(2 ** 32));
    const { targets, unmarked, notes } = match(spec.failure, spec.criteria, await this.#look());
    if (unmarked.length > 0) throw notATestDevice(spec, unmarked);
    if (this.#state.closing) throw new ChaosError('CLOSING', 'the injector is on its way out');
    const running = this.#state.experiments.filter(({ phase }) => phase !== 'ended');
    if (running.length >= CHAOS.experimentsMax) {
      throw new ChaosError(
        'TOO_MANY_EXPERIMENTS',
        `${running.length} experiments run already: stop one (midair chaos stop ID)`,
      );
    }
    this.#apply({ type: 'create', spec, atMs: monotonicMs() });
    const experiment = this.#state.experiments.at(-1) as schedule.Experiment;
    this.#write({ type: 'created', atMs: Date.now(), experiment: experiment.id, text: specText(spec) });
    return { experiment, matches: targets.map(thingText), notes };
  }

  /** Resolves when all of it is undone. @throws ChaosError `NO_SUCH_EXPERIMENT` */
  async stop(id: string): Promise<schedule.Experiment> {
    this.find(id);
    this.#apply({ type: 'stop', experiment: id, atMs: monotonicMs() });
    await this.#until(() => this.#state.experiments.every((one) => one.id !== id || one.phase === 'ended'));
    return this.find(id);
  }

  /** @throws ChaosError `NO_SUCH_EXPERIMENT` */
  find(id: string): schedule.Experiment {
    const found = this.#state.experiments.find((one) => one.id === id);
    if (found !== undefined) return found;
    throw new ChaosError('NO_SUCH_EXPERIMENT', `there is no experiment ${id}; midair chaos list shows all`);
  }

  /** Resolves when nothing is left. */
  async close(): Promise<void> {
    this.#apply({ type: 'close', atMs: monotonicMs() });
    await this.#until(() => this.#state.active.length === 0);
    clearTimeout(this.#timer);
  }

  // -------------------------------------------------------------- the machine

  #apply(event: schedule.Event): void {
    const [state, effects] = schedule.step(this.#state, event);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#waiting = this.#waiting.filter(({ done, resolve }) => {
      if (!done()) return true;
      resolve();
      return false;
    });
    clearTimeout(this.#timer);
    const nextMs = schedule.nextMs(this.#state);
    if (!Number.isFinite(nextMs)) return;
    const tick = () => this.#apply({ type: 'tick', atMs: monotonicMs() });
    this.#timer = setTimeout(tick, Math.max(1, nextMs - monotonicMs()));
  }

  #until(done: () => boolean): Promise<void> {
    if (done()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ done, resolve }));
  }

  #carryOut(effect: schedule.Effect): void {
    switch (effect.do) {
      case 'look':
        void this.#choose(effect.experiment);
        return;
      case 'inject':
        void this.#inject(effect.injection);
        return;
      case 'undo':
        void this.#undo(effect.injection, effect.why);
        return;
      case 'ended':
        this.#write({
          type: 'ended',
          atMs: Date.now(),
          experiment: effect.experiment,
          text: `all undone; ${WORDS[effect.why]}`,
        });
        return;
    }
  }

  /** Who may be harmed now; those without the mark are not among them, and it is said. */
  async #choose(id: string): Promise<void> {
    let targets: readonly string[] = [];
    try {
      const { spec } = this.find(id);
      const found = match(spec.failure, spec.criteria, await this.#look());
      targets = found.targets.map((one) => one.id);
      if (found.unmarked.length > 0) this.#pass(id, notATestDevice(spec, found.unmarked));
      else if (targets.length > 0) this.#passed.delete(id);
      else this.#pass(id, found.notes.join('; ') || `nothing matches ${criteriaText(spec.criteria)} now`);
    } catch (error) {
      this.#pass(id, error);
    }
    this.#apply({ type: 'looked', experiment: id, targets, atMs: monotonicMs() });
  }

  async #inject(injection: schedule.Injection): Promise<void> {
    const { id } = injection;
    try {
      const text = await this.#do(injection);
      this.#write({ type: 'on', atMs: Date.now(), injection: id, text });
      this.#apply({ type: 'injected', injection: id, atMs: monotonicMs() });
    } catch (error) {
      await this.#takeBack(injection, error);
    }
  }

  async #do(injection: schedule.Injection): Promise<string> {
    const { id, experiment, failure, target, dueMs } = injection;
    const { spec } = this.find(experiment);
    // Again: between the choice and the deed a device may have lost its mark, and a number its process.
    const thing = (await this.#look()).find((one) => one.id === target);
    if (thing === undefined) throw new ChaosError('TARGET_GONE', `${target} is not there any more`);
    if (!thing.marked) throw notATestDevice(spec, [thing]);
    if (!this.#options.watch.isWatching) {
      throw new ChaosError(
        'NO_WATCHDOG',
        'the watchdog has died and is being started again: nothing is injected meanwhile',
      );
    }
    const leftMs = () => dueMs - monotonicMs();
    return await INJECT[failure]({
      id,
      target: thing,
      parameters: spec.parameters,
      seed: (spec.seed ^ Number(id.slice(1))) >>> 0,
      leftMs,
      ledgerDirectory: dirname(this.#options.ledger.path),
      note: (undoing, text) => {
        // Closed meanwhile, or too late: then it is not begun.
        const now = this.#state.experiments.find((one) => one.id === experiment)?.phase;
        if (now !== 'running' || (failure !== 'kill' && leftMs() <= 0)) {
          throw new ChaosError('TARGET_GONE', 'too late: its time is over');
        }
        const atMs = Date.now();
        if (this.#openings.get(id) !== undefined) {
          this.#write({ type: 'more', atMs, injection: id, undo: undoing, text });
          return;
        }
        this.#write({
          type: 'begin',
          ...{ atMs, injection: id, experiment, failure, dueMs, text },
          ...{ target: thingText(thing), boot: this.#boot, undo: undoing },
        });
      },
    });
  }

  /** It failed, perhaps half-way. */
  async #takeBack(injection: schedule.Injection, error: unknown): Promise<void> {
    const open = this.#openings.get(injection.id);
    if (open === undefined) {
      this.#pass(injection.experiment, error);
      this.#apply({ type: 'not-injected', injection: injection.id, atMs: monotonicMs() });
      return;
    }
    try {
      const text = `${textOf(error)}; ${await undo(open)}`;
      this.#write({ type: 'failed', atMs: Date.now(), injection: injection.id, text });
      this.#apply({ type: 'not-injected', injection: injection.id, atMs: monotonicMs() });
    } catch (cause) {
      this.#notUndone(injection, cause);
    }
  }

  async #undo(injection: schedule.Injection, why: schedule.Why): Promise<void> {
    const { id } = injection;
    try {
      const open = this.#openings.get(id);
      if (open !== undefined) {
        const text = `${await undo(open)} (${WORDS[why]})`;
        this.#write({ type: 'undone', atMs: Date.now(), injection: id, by: 'injector', text });
      }
      this.#apply({ type: 'undone', injection: id, atMs: monotonicMs() });
    } catch (error) {
      this.#notUndone(injection, error);
    }
  }

  #notUndone({ id }: schedule.Injection, error: unknown): void {
    this.#write({
      type: 'not-undone',
      atMs: Date.now(),
      injection: id,
      text: `${textOf(error)}; trying again`,
    });
    this.#apply({ type: 'not-undone', injection: id, atMs: monotonicMs() });
  }

  // -------------------------------------------------------------- what happened

  async #look(): Promise<Thing[]> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new ChaosError('TARGET_GONE', 'the engine takes too long to say what runs')),
      CHAOS.lookMsMax,
    );
    try {
      return await Promise.race([this.#options.surroundings.look(), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Nothing was done at a beat: why, once until it changes. */
  #pass(experiment: string, reason: unknown): void {
    const text = typeof reason === 'string' ? reason : `${textOf(reason)} (${codeOf(reason) ?? 'INTERNAL'})`;
    if (this.#passed.get(experiment) === text) return;
    this.#passed.set(experiment, text);
    this.#write({ type: 'passed', atMs: Date.now(), experiment, text });
  }

  #write(record: LedgerRecord): void {
    this.#options.ledger.append(record);
    this.#openings.take(record);
    const { type, text, ...rest } = record;
    const level = type === 'failed' || type === 'not-undone' ? 'warn' : 'info';
    this.#options.log[level]({ type, ...rest, undo: undefined, boot: undefined }, text);
  }
}

function notATestDevice(spec: Spec, unmarked: readonly Thing[]): ChaosError {
  const [first, ...others] = unmarked.map(thingText);
  const more = others.length > 0 ? ` and ${others.length} more` : '';
  return new ChaosError(
    'NOT_A_TEST_DEVICE',
    `${criteriaText(spec.criteria)} also means ${first}${more}, which is not marked as a test device: narrow the criteria ` +
      '(device=NAME), or start its agent with --test-device, below a directory that midair chaos serve --watch names, and its app anew',
  );
}

const specText = (spec: Spec): string =>
  `${spec.failure} for ${spec.durationMs} ms, every ${spec.frequencyMs} ms with chance ${spec.probability}, ` +
  `on ${criteriaText(spec.criteria)}, for ${spec.forMs} ms, seed ${spec.seed}`;
