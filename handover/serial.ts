/**
 * The rotor link: a serial port whose descriptor is passed from version to version while it is in use.
 *
 * Invariants
 * - Apps read and write it through `serialport`, whose binding here adopts the descriptor (adopted-port.ts).
 * - A release falls between two ticks: right after a command was written, and what was not read waits in the
 *   kernel for the successor.
 */
import { fstatSync } from 'node:fs';
import { SerialPort } from 'serialport';
import * as v from 'valibot';
import { AdoptedPort, type PortOptions, unsupported } from '#handover/adopted-port.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { type Grant, type Holder, HolderError, type Released, takeOne } from '#handover/holder.ts';
import { LIMITS } from '#handover/limits.ts';
import type { NamedDescriptor } from '#handover/lines.ts';
import { LIMITS as MAVLINK_LIMITS } from '#handover/mavlink/limits.ts';
import type { JsonObject } from '#handover/messages.ts';
import { MirrorSource } from '#handover/mirror.ts';
import { native, nowUs } from '#handover/native.ts';
import type { Rehearsal } from '#handover/rehearsal.ts';

const payloadSchema = v.object({
  /** When the last command had been written, µs. */
  lastWriteUs: v.number(),
  /** The link's own state, for instance the sequence number of the last frame sent. */
  link: v.record(v.string(), v.unknown()),
  /** base64 of the beginning of a frame, already read. */
  partial: v.pipe(v.string(), v.base64()),
  /** The controller's: integrators, estimator, setpoint; read by versions that know `stateVersion`. */
  state: v.record(v.string(), v.unknown()),
  stateVersion: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** Of a signed link; the key itself is the agent's to give. */
  signing: v.exactOptional(
    v.object({
      linkId: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(255)),
      lastTimestamp: v.pipe(
        v.number(),
        v.safeInteger(),
        v.minValue(0),
        v.maxValue(MAVLINK_LIMITS.timestampMax),
      ),
    }),
  ),
});
export type RotorsPayload = JsonObject & v.InferOutput<typeof payloadSchema>;

export interface SerialLinkOptions {
  /** What was read, in order, nothing twice. After a grant first the beginning of a frame that the prior had read. */
  onData(bytes: Buffer): void;
  /** All that a successor needs; `partial`: what the parser holds of a frame whose end has not come. */
  state(): {
    link: JsonObject;
    partial: Uint8Array;
    state: JsonObject;
    stateVersion: number;
    /** As long as the link is signed: the time of the last frame that was. */
    signing?: { linkId: number; lastTimestamp: number };
  };
  /**
   * Load this state; data follow. `null` at a first start, and when a dead prior's last heartbeat is none. Throw if it cannot
   * be read: the grant then fails. With `grant.signing` sign from here on; its `lastTimestamp` is then above all that the
   * prior can have signed.
   */
  resume(payload: RotorsPayload | null, grant: Grant<RotorsPayload>): void;
  /**
   * For the rehearsal: such a link over something of your own, in the state that yours has now. By default the link alone
   * is rehearsed, and not what you do in `state`, `resume` and `onData`.
   */
  rehearsal?(): LinkRehearsal;
  /** The tty failed while it was ours. */
  onLost?(error: Error): void;
}

/** `signing`: of samples and commands, if your link may be signed. */
export type LinkRehearsal = Pick<Rehearsal, 'sample' | 'signing'> & { readonly link: SerialLink };

type Payload = v.InferOutput<typeof payloadSchema>;

/** A giver that lives can take the rotors back; after a dead one there is nobody else, whatever its last heartbeat was. */
const payloadOf = ({ payload, from }: Grant<RotorsPayload>): Payload | null => {
  if (payload === null) return null;
  if (from !== 'snap') return v.parse(payloadSchema, payload);
  const { success, output } = v.safeParse(payloadSchema, payload);
  return success ? output : null;
};

/**
 * The grant with a `lastTimestamp` above all that was signed before. The agent knows what it heard; the payload may be
 * newer. A prior that is dead signed more after its last heartbeat: on this machine's clock that is the past, unless the
 * clock was put back meanwhile. So the heartbeat's age counts, by the clock that nobody puts back.
 * @throws HolderError `NO_KEY`: the prior signed, so the board hears nothing that is not signed
 */
const signedOn = (grant: Grant<RotorsPayload>, payload: Payload | null): Grant<RotorsPayload> => {
  const { signing, from } = grant;
  const before = payload?.signing;
  if (signing === undefined) {
    if (before === undefined) return grant;
    throw new HolderError('NO_KEY', 'the link is signed, and the grant has no key');
  }
  let lastTimestamp = Math.max(signing.lastTimestamp, before?.lastTimestamp ?? 0);
  if (from === 'snap') {
    const ageMs = Math.max(0, (nowUs() - (payload?.lastWriteUs ?? 0)) / 1_000);
    const unheardMs = Math.min(ageMs, BOUNDS.signedUnheardMsMax) + BOUNDS.signedSlackMs;
    lastTimestamp += Math.ceil(unheardMs * MAVLINK_LIMITS.ticksPerMs);
  }
  return { ...grant, signing: { ...signing, lastTimestamp } };
};

/** A link on which each byte is answered by itself. */
const echo = (): LinkRehearsal => {
  const link: SerialLink = new SerialLink({
    onData: (bytes) => link.write(bytes),
    state: () => ({ link: {}, partial: new Uint8Array(), state: {}, stateVersion: 1 }),
    resume: () => undefined,
  });
  return { link, sample: () => Buffer.of(0) };
};

const isSameFile = (one: number, other: number): boolean => {
  const [a, b] = [fstatSync(one), fstatSync(other)];
  return a.dev === b.dev && a.ino === b.ino;
};

interface Waiter {
  settle(error?: Error): void;
}

export class SerialLink implements Holder<RotorsPayload> {
  readonly #options: SerialLinkOptions;
  #fd: number | undefined;
  #adopted: AdoptedPort | undefined;
  #port: SerialPort | undefined;
  #owns = false;
  #source: MirrorSource | undefined;
  #submittedBytes = 0;
  #writtenBytes = 0;
  /** Where in the bytes submitted the last command ends. */
  #commandEnd = 0;
  readonly #commandWaiters = new Set<Waiter>();
  #lastWriteUs = 0;
  #epoch = 0;
  #lastReadUs = 0;

  constructor(options: SerialLinkOptions) {
    this.#options = options;
  }

  /** Whether commands may be written. */
  get owns(): boolean {
    return this.#owns;
  }
  /** When the last command had been written, and when bytes were last read (for a data watchdog), µs. */
  get lastWriteUs(): number {
    return this.#lastWriteUs;
  }
  get lastReadUs(): number {
    return this.#lastReadUs;
  }
  /** The port while it is ours. Write with {@link write}. */
  get port(): SerialPort | undefined {
    return this.#port;
  }
  /** Under which the rotors are ours; written into each command, so that the flight controller can refuse an old one. */
  get epoch(): number {
    return this.#epoch;
  }
  get mirrorDropped(): number {
    return this.#source?.dropped ?? 0;
  }

  /**
   * Writes bytes, whole and in order; they may not be changed afterwards.
   * @param command false for what does not command the rotors (a heartbeat)
   * @returns false, and nothing is written, when the link is not ours
   */
  write(bytes: Uint8Array, command = true): boolean {
    if (!this.#owns || this.#port === undefined) return false;
    this.#submittedBytes += bytes.length;
    if (command) this.#commandEnd = this.#submittedBytes;
    this.#port.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    return true;
  }

  /** The payload of a release or a heartbeat, as of now. */
  snapshot(): RotorsPayload {
    const { partial, ...rest } = this.#options.state();
    return { ...rest, partial: Buffer.from(partial).toString('base64'), lastWriteUs: this.#lastWriteUs };
  }

  async grant(grant: Grant<RotorsPayload>): Promise<void> {
    const fd = takeOne(grant, 'rotors');
    if (fd !== this.#fd) this.drop();
    this.#fd = fd;
    const payload = payloadOf(grant);
    this.#epoch = grant.epoch;
    this.#options.resume(payload as RotorsPayload | null, signedOn(grant, payload));
    if (grant.signing !== undefined && this.#options.state().signing === undefined) {
      throw new HolderError('NOT_SIGNING', 'the link is signed, and this app does not sign');
    }
    if (payload !== null) this.#lastWriteUs = payload.lastWriteUs;
    this.#openPort(fd);
    this.#owns = true;
    const commanded = this.#nextCommand();
    if (payload !== null && payload.partial !== '') {
      this.#options.onData(Buffer.from(payload.partial, 'base64'));
    }
    await commanded;
  }

  async release(deadlineMs: number): Promise<Released<RotorsPayload>> {
    const port = this.#port;
    if (!this.#owns || port === undefined) throw new HolderError('NOT_OWNER', 'the rotors are not ours');
    if (nowUs() - this.#lastWriteUs > BOUNDS.freshWriteUsMax) {
      // The rest of a period is too short for the successor: let this one's command go first.
      await this.#nextCommand(Math.min(BOUNDS.releaseTickMsMax, deadlineMs / 2)).catch(() => undefined);
    }
    if (this.#port !== port) throw new HolderError('LINK_LOST', 'the link failed while it was released');
    return { payload: await this.#letGo(port, deadlineMs / 2) };
  }

  async #letGo(port: SerialPort, withinMs: number): Promise<RotorsPayload> {
    this.#adopted?.stopReading();
    this.#owns = false;
    if (this.#writtenBytes < this.#submittedBytes) await this.#written(port, withinMs);
    // The port is closed with the rest, by `drop`: the successor waits for these words.
    return this.snapshot();
  }

  tick(withinMs: number): Promise<void> {
    return this.#nextCommand(withinMs).catch(() => undefined);
  }

  rehearsal(): Rehearsal {
    const { link: holder, ...rest } = this.#options.rehearsal?.() ?? echo();
    return { ...rest, holder, payload: holder.snapshot() };
  }

  async renew(grant: Grant<RotorsPayload>): Promise<void> {
    const fd = takeOne(grant, 'rotors');
    const [mine, port] = [this.#fd, this.#port];
    if (mine === undefined || port === undefined)
      throw new HolderError('NOT_OWNER', 'the rotors are not ours');
    if (isSameFile(fd, mine)) {
      native.close(fd);
      this.#epoch = grant.epoch;
      await this.#nextCommand();
      return;
    }
    const payload = await this.#letGo(port, LIMITS.rotorReleaseMsMax);
    native.close(mine);
    this.#fd = fd;
    await this.grant({ ...grant, from: 'release', payload, descriptors: new Map([['rotors', fd]]) });
  }

  mirror(fd: number): void {
    this.#source?.close();
    this.#source = new MirrorSource(fd);
  }

  get mirroring(): boolean {
    return this.#source?.open === true;
  }

  descriptors(): readonly NamedDescriptor[] {
    return this.#fd === undefined ? [] : [{ name: 'rotors', fd: this.#fd }];
  }

  drop(): void {
    this.#owns = false;
    this.#closePort();
    this.#source?.close();
    this.#source = undefined;
    if (this.#fd !== undefined) native.close(this.#fd);
    this.#fd = undefined;
    this.#settle(new HolderError('DROPPED', 'the rotors were taken back before the first command'));
  }

  #openPort(fd: number): void {
    this.#closePort();
    this.#submittedBytes = 0;
    this.#writtenBytes = 0;
    this.#commandEnd = 0;
    const open = (options: PortOptions): Promise<AdoptedPort> => {
      const adopted = new AdoptedPort(
        fd,
        options,
        (bytes) => {
          this.#lastReadUs = nowUs();
          this.#source?.record('in', bytes);
        },
        (bytes) => this.#wrote(bytes),
      );
      this.#adopted = adopted;
      return Promise.resolve(adopted);
    };
    const options = { path: 'rotors', baudRate: 57_600, binding: { open, list: unsupported('list') } };
    // SerialPort spreads its options over its own binding, as SerialPortStream asks; its types hide that.
    const port = new SerialPort(options as unknown as PortOptions);
    this.#port = port;
    port.on('data', (bytes: Buffer) => this.#options.onData(bytes));
    const lost = (error: Error | null): void => {
      if (this.#port !== port || !this.#owns) return;
      this.#owns = false;
      this.#port = undefined;
      this.#adopted = undefined;
      this.#settle(new HolderError('LINK_LOST', 'the tty failed', { cause: error }));
      this.#options.onLost?.(error ?? new Error('the port closed'));
    };
    port.on('error', lost);
    port.on('close', lost);
  }

  #closePort(): void {
    const port = this.#port;
    this.#port = undefined;
    this.#adopted = undefined;
    if (port?.isOpen === true) port.close();
  }

  #wrote(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#source?.record('out', bytes);
    this.#writtenBytes += bytes.length;
    if (this.#commandEnd > 0 && this.#writtenBytes >= this.#commandEnd) {
      this.#commandEnd = 0;
      this.#lastWriteUs = nowUs();
      this.#settle();
    }
  }

  /** Until a command has been written; without `withinMs` for as long as it is ours. */
  #nextCommand(withinMs?: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        settle: (error) => {
          clearTimeout(timer);
          this.#commandWaiters.delete(waiter);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      const timer =
        withinMs === undefined
          ? undefined
          : setTimeout(() => waiter.settle(new HolderError('TIMEOUT', 'no command')), withinMs);
      this.#commandWaiters.add(waiter);
    });
  }

  #settle(error?: Error): void {
    for (const waiter of this.#commandWaiters) waiter.settle(error);
  }

  /** Until what was submitted is with the kernel: a write of nothing comes after all others. */
  #written(port: SerialPort, withinMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new HolderError('WRITE_STUCK', 'the tty takes no bytes')),
        withinMs,
      );
      port.write(Buffer.alloc(0), (error) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve();
      });
    });
  }
}
