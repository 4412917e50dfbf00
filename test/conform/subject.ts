/** A program for the conformance runner, on the SDK: docs/handover-conformance.md says what it does. */
import { type Holder, takeOne } from '#handover/holder.ts';
import {
  FrameStream,
  type Grant,
  HolderError,
  type JsonObject,
  join,
  type Mirror,
  type NamedDescriptor,
  type Readiness,
  type Released,
  SerialLink,
  type ShadowBounds,
  ShadowJudge,
} from '#handover/index.ts';
import { AGAIN, native, READABLE, type Watcher } from '#handover/native.ts';

const { MIDAIR_SOCKET = '', MIDAIR_APP = '', MIDAIR_RELEASE = '' } = process.env;

/** Whole lines, and what is left of one. */
class Lines {
  rest = '';
  add(bytes: Buffer): string[] {
    const lines = (this.rest + bytes.toString('latin1')).split('\n');
    this.rest = lines.pop() ?? '';
    return lines;
  }
}

/** Answers each input line `i N` with `c EPOCH SEQ N`. */
const makeRotors = (): SerialLink => {
  const lines = new Lines();
  let [seq, n] = [0, 0];
  const link: SerialLink = new SerialLink({
    onData: (bytes) => {
      for (const line of lines.add(bytes)) {
        seq += 1;
        n = Number(line.slice(2));
        link.write(Buffer.from(`c ${link.epoch} ${seq} ${n}\n`));
      }
    },
    state: () => ({ link: { seq }, partial: Buffer.from(lines.rest), state: { n }, stateVersion: 1 }),
    resume: (payload) => {
      lines.rest = '';
      if (payload === null) return;
      seq = Number(payload.link.seq);
      n = Number(payload.state.n);
    },
  });
  return link;
};

/** Counts frames. */
class Camera implements Holder {
  frames = 0;
  readonly #stream = new FrameStream({
    onFrame: () => {
      this.frames += 1;
    },
  });
  async grant(grant: Grant): Promise<void> {
    this.frames = Number(grant.payload?.frames ?? 0);
    await this.#stream.grant(grant as Grant<JsonObject & { leftover: string }>);
  }
  async release(): Promise<Released> {
    const { payload } = await this.#stream.release();
    return { payload: { ...payload, frames: this.frames } };
  }
  drop(): void {
    this.#stream.drop();
  }
  descriptors(): readonly NamedDescriptor[] {
    return this.#stream.descriptors();
  }
}

/** Answers each line `X` with `e X`. */
class Connections implements Holder {
  readonly #open = new Map<number, { lines: Lines; watcher: Watcher }>();

  add(fd: number, head = ''): void {
    this.#open.get(fd)?.watcher.close();
    const lines = new Lines();
    lines.rest = head;
    const watcher = native.watch(fd, READABLE, () => this.#read(fd, lines));
    this.#open.set(fd, { lines, watcher });
  }
  grant({ payload, descriptors }: Grant): Promise<void> {
    const entries = (payload?.connections ?? []) as { fd: string; head: string }[];
    for (const { fd, head } of entries) {
      const descriptor = descriptors.get(fd);
      if (descriptor === undefined) throw new HolderError('NO_DESCRIPTOR', `no descriptor "${fd}"`);
      this.add(descriptor, Buffer.from(head, 'base64').toString('latin1'));
    }
    return Promise.resolve();
  }
  release(): Promise<Released> {
    const descriptors: NamedDescriptor[] = [];
    const connections: JsonObject[] = [];
    for (const [fd, { lines, watcher }] of this.#open) {
      watcher.close();
      const name = `c${descriptors.length}`;
      descriptors.push({ name, fd });
      const head = Buffer.from(lines.rest, 'latin1').toString('base64');
      connections.push({ fd: name, protocol: 'line', head, meta: {} });
    }
    return Promise.resolve({ payload: { connections, closed: 0 }, descriptors });
  }
  drop(): void {
    for (const fd of [...this.#open.keys()]) this.#close(fd);
  }

  #close(fd: number): void {
    this.#open.get(fd)?.watcher.close();
    this.#open.delete(fd);
    native.close(fd);
  }
  #read(fd: number, lines: Lines): void {
    const bytes = Buffer.allocUnsafe(4_096);
    let got = 0;
    try {
      got = native.read(fd, bytes, 0, bytes.length);
    } catch {
      // Reset by its client: as an end.
    }
    if (got === AGAIN) return;
    if (got === 0) {
      this.#close(fd);
      return;
    }
    for (const line of lines.add(bytes.subarray(0, got))) {
      const answer = Buffer.from(`e ${line}\n`);
      native.send(fd, answer, 0, answer.length, []);
    }
  }
}

/** Greets who connects, and makes it one of the connections. */
class Greeter implements Holder {
  readonly #connections: Connections;
  #fd: number | undefined;
  #watcher: Watcher | undefined;

  constructor(connections: Connections) {
    this.#connections = connections;
  }
  grant(grant: Grant): Promise<void> {
    const fd = takeOne(grant, 'listener');
    if (fd !== this.#fd) this.drop();
    this.#fd = fd;
    this.#watcher?.close();
    this.#watcher = native.watch(fd, READABLE, () => {
      const accepted = native.accept(fd);
      if (accepted === AGAIN) return;
      const hello = Buffer.from(`hello ${MIDAIR_RELEASE}\n`);
      native.send(accepted, hello, 0, hello.length, []);
      this.#connections.add(accepted);
    });
    return Promise.resolve();
  }
  release(): Promise<Released> {
    this.#watcher?.close();
    this.#watcher = undefined;
    return Promise.resolve({ payload: {} });
  }
  drop(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    if (this.#fd !== undefined) native.close(this.#fd);
    this.#fd = undefined;
  }
  descriptors(): readonly NamedDescriptor[] {
    return this.#fd === undefined ? [] : [{ name: 'listener', fd: this.#fd }];
  }
}

/** One cycle a command of the prior's: 0 from it if the input that it answers was mirrored, 1 if not. */
const warmUp = async (
  mirror: Mirror,
  signal: AbortSignal,
  bounds: ShadowBounds | null,
): Promise<Readiness> => {
  if (!mirror.available || bounds === null) return { cycles: 0, divergence: 0 };
  const lines = { in: new Lines(), out: new Lines() };
  const judge = new ShadowJudge(bounds);
  const startMs = performance.now();
  const seen = new Set<number>();
  let first = Number.POSITIVE_INFINITY;
  for await (const { kind, bytes } of mirror) {
    signal.throwIfAborted();
    for (const line of lines[kind].add(bytes)) {
      const words = line.split(' ');
      const n = Number(words.at(-1));
      if (kind === 'in') {
        // Of the first one perhaps only the end was mirrored.
        if (words.length !== 2) continue;
        seen.add(n);
        first = Math.min(first, n);
      } else if (n >= first && judge.add(seen.has(n) ? 0 : 1, performance.now() - startMs)) {
        return judge.readiness;
      }
    }
  }
  return judge.readiness;
};

const connections = new Connections();
const rotors = makeRotors();
await join({
  app: MIDAIR_APP,
  release: MIDAIR_RELEASE,
  socketPath: MIDAIR_SOCKET,
  stateVersions: { reads: [1], writes: 1 },
  // What the successor answers is in the rotors' payload when they come back.
  follow: () => {},
  health: () => ({ cycles: Number(rotors.snapshot().link.seq) }),
  holders: {
    camera: new Camera(),
    listener: new Greeter(connections),
    connections,
    rotors,
  },
  warmUp,
  log: (level, text, data) => process.stderr.write(`${level} ${text} ${JSON.stringify(data ?? {})}\n`),
});
