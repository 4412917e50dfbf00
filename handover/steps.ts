/**
 * What an app holds, and the steps by which that changes: RELEASE, GRANT and DROP.
 *
 * Invariants
 * - One step at a time, in the order in which the agent asked; but a GRANT of the rotors waits for no other resource's
 *   step: it comes before its turn only when whoever flew is dead.
 * - A RELEASED that did not reach the agent did not happen: the resource is used again.
 * - A resource counts as held from the moment its holder may act until its RELEASED is with the kernel.
 */
import { Joined, split } from '#handover/batches.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { type Grant, type Holder, HolderError, type Released } from '#handover/holder.ts';
import type { LineSocket } from '#handover/lines.ts';
import { type AgentMessage, ProtocolError, RESOURCES, type Resource } from '#handover/messages.ts';

export type AgentSocket = LineSocket<AgentMessage>;
export type Message<T extends AgentMessage['type']> = Extract<AgentMessage, { type: T }>;
export type Holders = { readonly [R in Resource]?: Holder };

/** What the steps need of their session. */
export interface Host {
  readonly holders: Holders;
  /** Versions of the rotors' state that can be taken over. */
  readonly reads: readonly number[];
  /** The agent's connection now; another one than a step came by means that its agent is gone. */
  current(): AgentSocket | undefined;
  fault(code: string, text: string): void;
  warn(text: string): void;
  /**
   * `next` (all else is held), `granting`, `owned`, then `leaving` and `left`; `left` at any time, too: real time
   * begins, the shadow ends, the heartbeat begins, it ends, real time ends.
   */
  rotors(turn: 'next' | 'granting' | 'owned' | 'leaving' | 'left'): void;
}

/** What a holder keeps of a grant that a release nobody heard brings back. */
type Terms = Pick<Grant, 'epoch' | 'signing'>;
type Step = Message<'RELEASE'> | (Message<'GRANT'> & { joined: Joined });

export class Steps {
  readonly #host: Host;
  readonly #owned = new Set<Resource>();
  #joining: { epoch: number; resource: Resource; joined: Joined } | undefined;
  /** The resource of the step that is carried out. */
  #running: Resource | undefined;
  /** A grant of the rotors that overtook it. */
  #urgent: Promise<void> | undefined;
  readonly #waiting: { step: Step; socket: AgentSocket }[] = [];
  /** Of each resource's last grant. */
  readonly #terms = new Map<Resource, Terms>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** In the order of RESOURCES. */
  get held(): Resource[] {
    return RESOURCES.filter((resource) => this.#owned.has(resource));
  }
  owns(resource: Resource): boolean {
    return this.#owned.has(resource);
  }
  /** Whether this is a further line of a GRANT whose first line was accepted. */
  continues({ epoch, resource }: Message<'GRANT'>): boolean {
    return this.#joining?.epoch === epoch && this.#joining.resource === resource;
  }

  release(message: Message<'RELEASE'>, socket: AgentSocket): void {
    this.#enqueue(message, socket);
  }

  grant(message: Message<'GRANT'>, descriptors: ReadonlyMap<string, number>, socket: AgentSocket): void {
    const { epoch, resource } = message;
    if (!this.continues(message)) {
      this.#joining?.joined.drop();
      this.#joining = { epoch, resource, joined: new Joined() };
    }
    const joined = this.#joining?.joined;
    if (joined === undefined) return;
    try {
      joined.add(message.payload, descriptors);
    } catch (error) {
      this.#joining = undefined;
      if (!(error instanceof ProtocolError)) throw error;
      this.#host.fault(error.code, error.message);
      return;
    }
    if (message.more) return;
    this.#joining = undefined;
    this.#enqueue({ ...message, joined }, socket);
  }

  drop(resource: Resource): void {
    this.#owned.delete(resource);
    if (resource === 'rotors') this.#host.rotors('left');
    this.#host.holders[resource]?.drop();
  }

  /** The agent is gone: what it asked and was not begun is forgotten. What is held is held. */
  forget(): void {
    this.#joining?.joined.drop();
    this.#joining = undefined;
    for (const { step } of this.#waiting.splice(0)) if (step.type === 'GRANT') step.joined.drop();
  }

  #enqueue(step: Step, socket: AgentSocket): void {
    if (this.#waiting.length >= BOUNDS.stepsWaitingMax) {
      if (step.type === 'GRANT') step.joined.drop();
      this.#host.fault('UNEXPECTED_MESSAGE', `${this.#waiting.length} steps wait already`);
      return;
    }
    const isUrgent = step.type === 'GRANT' && step.resource === 'rotors' && this.#urgent === undefined;
    if (isUrgent && this.#running !== undefined && !this.#moves('rotors')) {
      this.#urgent = this.#carryOut(step, socket).finally(() => {
        this.#urgent = undefined;
      });
      return;
    }
    this.#waiting.push({ step, socket });
    if (this.#running === undefined) void this.#run();
  }

  #moves(resource: Resource): boolean {
    return this.#running === resource || this.#waiting.some(({ step }) => step.resource === resource);
  }

  /** The first step begins within the caller's turn: nothing waits between the socket and the holder. */
  async #run(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      this.#running = next.step.resource;
      if (this.#urgent !== undefined) await this.#urgent;
      await this.#carryOut(next.step, next.socket);
    }
    this.#running = undefined;
  }

  async #carryOut(step: Step, socket: AgentSocket): Promise<void> {
    try {
      if (step.type === 'RELEASE') await this.#release(step, socket);
      else await this.#grant(step, socket);
    } catch (error) {
      this.#host.fault(codeOf(error), `${step.type} of the ${step.resource}: ${textOf(error)}`);
    }
  }

  async #release({ resource, epoch, deadlineMs }: Message<'RELEASE'>, socket: AgentSocket): Promise<void> {
    const holder = this.#host.holders[resource];
    if (holder === undefined || !this.#owned.has(resource)) {
      this.#host.fault('NOT_OWNER', `the ${resource} cannot be released`);
      return;
    }
    if (resource === 'rotors') this.#host.rotors('leaving');
    else await this.#betweenTicks();
    const released = await holder.release(deadlineMs);
    if (await this.#deliver(resource, epoch, released, socket)) {
      this.#owned.delete(resource);
      if (resource === 'rotors') this.#host.rotors('left');
      holder.drop();
      return;
    }
    this.#host.warn(`nobody heard that the ${resource} were let go: going on with them`);
    await this.#resume(resource, holder, released);
  }

  /** Refused while its giver can take it back; from a dead one's heartbeat the holder makes what it can. */
  #reads({ resource, from, joined }: Extract<Step, { type: 'GRANT' }>): boolean {
    const version = joined.payload?.stateVersion;
    return (
      resource !== 'rotors' ||
      from === 'snap' ||
      version === undefined ||
      this.#host.reads.includes(version as number)
    );
  }

  #lacksOnlyRotors(): boolean {
    const { holders } = this.#host;
    return RESOURCES.every(
      (one) => this.#owned.has(one) !== (one === 'rotors') || holders[one] === undefined,
    );
  }

  /** Who flies does other work right after a command: it has the rest of the period then. */
  async #betweenTicks(): Promise<void> {
    if (this.#owned.has('rotors')) await this.#host.holders.rotors?.tick?.(BOUNDS.releaseTickMsMax);
  }

  async #resume(resource: Resource, holder: Holder, { payload, descriptors }: Released): Promise<void> {
    const own = descriptors ?? holder.descriptors?.() ?? [];
    try {
      await holder.grant({
        from: 'release',
        payload,
        descriptors: new Map(own.map(({ name, fd }) => [name, fd])),
        ...(this.#terms.get(resource) ?? { epoch: 0 }),
      });
    } catch (error) {
      this.drop(resource);
      throw error;
    }
    if (resource === 'rotors') this.#host.rotors('owned');
  }

  /** False: the agent that asked will not hear of it; its socket is closed, whether or not there is a new one. */
  #deliver(resource: Resource, epoch: number, released: Released, socket: AgentSocket): Promise<boolean> {
    const batches = split(released);
    return new Promise((resolve) => {
      for (const [at, { payload, descriptors }] of batches.entries()) {
        const more = at < batches.length - 1;
        const line = { type: 'RELEASED', epoch, resource, payload, ...(more ? { more } : {}) };
        if (!socket.send(line, descriptors, more ? undefined : resolve)) {
          resolve(false);
          return;
        }
      }
    });
  }

  async #grant(step: Extract<Step, { type: 'GRANT' }>, socket: AgentSocket): Promise<void> {
    const { resource, epoch, from, joined, signing } = step;
    const holder = this.#host.holders[resource];
    if (holder === undefined) {
      joined.drop();
      this.#host.fault('NO_HOLDER', `this app has no use for the ${resource}`);
      return;
    }
    const renewed = this.#owned.has(resource);
    if (!renewed && !this.#reads(step)) {
      joined.drop();
      const { stateVersion } = joined.payload ?? {};
      const text = `the state is of version ${JSON.stringify(stateVersion)}, not of ${this.#host.reads.join(', ')}`;
      throw new HolderError('INCOMPATIBLE_STATE', text);
    }
    if (resource === 'rotors') this.#host.rotors('granting');
    else await this.#betweenTicks();
    const terms: Terms = { epoch, ...(signing === undefined ? {} : { signing }) };
    this.#terms.set(resource, terms);
    const grant = { from, payload: joined.payload, descriptors: joined.descriptors, ...terms };
    if (renewed) {
      if (holder.renew === undefined) joined.drop();
      else await holder.renew(grant);
    } else {
      this.#owned.add(resource);
      try {
        await holder.grant(grant);
      } catch (error) {
        this.drop(resource);
        throw error;
      }
    }
    const current = this.#host.current();
    // To another agent, HELLO has said it.
    if (current === socket) socket.send({ type: 'GRANTED', epoch, resource });
    if (resource === 'rotors') this.#host.rotors('owned');
    else if (this.#lacksOnlyRotors()) this.#host.rotors('next');
  }
}

export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'APP_ERROR';
