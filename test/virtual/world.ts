/**
 * What all parts of a virtual fleet share: time, chance, the trace, and the promises that are held.
 *
 * Invariant: the first broken promise ends the run, by `Broken`.
 */
import { Random } from '#device-sim/random.ts';
import { Network } from '#device-sim/virtual/network.ts';
import { createScheduler, type Scheduler } from '#device-sim/virtual/scheduler.ts';
import type { Trace } from '#device-sim/virtual/trace.ts';
import type { Release } from '#fleet/protocol.ts';
import type { Hub } from './hub.ts';
import type { Mutant } from './mutants.ts';
import type { Behaviour, Story } from './story.ts';

/** A promise that was not kept. */
export class Broken extends Error {
  override readonly name = 'Broken';
}

export const ms = (amount: number): number => Math.round(amount * 1_000);
export const seconds = (amount: number): number => Math.round(amount * 1_000_000);

export class World {
  readonly scheduler: Scheduler = createScheduler();
  readonly network: Network;
  readonly trace: Trace;
  readonly story: Story;
  readonly mutant: Mutant;
  hub: Hub | null = null;
  /** What a generation means, from when a device first accepted it. */
  readonly #meant = new Map<number, string>();
  #generationMax = 0;

  constructor(story: Story, mutant: Mutant, trace: Trace) {
    this.story = story;
    this.mutant = mutant;
    this.trace = trace;
    this.network = new Network(this.scheduler, this.random(2));
    this.network.weather = { ...story.weather };
  }

  /** Independent chance for each part, so that one more draw here changes nothing there. */
  random(stream: number): Random {
    return new Random(this.story.seed, stream);
  }

  note(who: string, what: string, atUs = this.scheduler.nowUs): void {
    this.trace.add(atUs, who, what);
  }

  broken(what: string): never {
    this.note('PROMISE', what);
    throw new Broken(what);
  }

  isHubUp(): boolean {
    return this.hub?.isUp === true;
  }

  /** From calm on nothing new goes wrong. */
  get isCalm(): boolean {
    return this.scheduler.nowUs >= this.story.calmUs;
  }

  behaviourOf(release: string, index: number): Behaviour {
    const known = this.story.releases[release];
    if (known === undefined) throw new Error(`no release ${release}`);
    // The same drones for each run of a seed, spread over the fleet.
    return new Random(this.story.seed, 1_000 + index).uniform() < known.share ? known.behaviour : 'good';
  }

  /** A device has taken that target for its own. */
  accepted(device: string, generation: number, release: string | null): void {
    const before = this.#meant.get(generation);
    const now = release ?? 'nothing';
    if (before !== undefined && before !== now)
      this.broken(`generation ${generation} meant ${before}, and means ${now} to ${device}`);
    this.#meant.set(generation, now);
    this.#generationMax = Math.max(this.#generationMax, generation);
  }
  /** The hub has started, and remembers that it gave out generations up to this one. */
  remembered(generation: number): void {
    if (generation < this.#generationMax)
      this.broken(`the hub is at generation ${generation}, a device was told ${this.#generationMax}`);
  }
}

const digest = (n: number): string => `sha256:${n.toString(16).padStart(64, '0')}`;
/** A release as the fleet's protocol has it; its one image is named by its number. */
export const releaseOf = (id: string): Release => {
  const image = {
    id: digest(Number(id.slice(1))),
    config: { digest: digest(0), bytes: 1 },
    layers: [],
    deltas: [],
  };
  const labels = { 'io.midair.probation.error': '1', 'io.midair.probation.loop-hz': '40' };
  return { id, app: 'hover', commit: '', createdAtMs: 0, services: { main: { image, labels } } };
};
