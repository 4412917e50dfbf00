/**
 * What a conformance case acts in: board, camera, listening socket, clients, the agent's end, and the programs.
 *
 * Invariant: `owner` is set only while that program holds every resource and is connected; a case that ends well
 * leaves it so for the next one. The epoch is one for the whole world, and rises with every step.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { type Socket, connect as tcpConnect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentEnd, type Heard, type Peer, Witness } from '#handover/conform/agent-end.ts';
import { Board } from '#handover/conform/board.ts';
import { Feed } from '#handover/conform/feed.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { Program } from '#handover/conform/program.ts';
import { expect, expectWithin, Miss, pause } from '#handover/conform/wait.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, type NamedDescriptor } from '#handover/line-socket.ts';
import { type JsonObject, RESOURCES, type Resource } from '#handover/messages.ts';
import { native } from '#handover/native.ts';

/** What one holder passed on: the lines of a RELEASED, or nothing at a first start. */
export interface Parcel {
  readonly from: 'start' | 'release' | 'snap';
  readonly parts: readonly { payload: JsonObject | null; descriptors: readonly NamedDescriptor[] }[];
}
export const START: Parcel = { from: 'start', parts: [{ payload: null, descriptors: [] }] };

/** A client of the panel: lines both ways. */
export class Client {
  readonly #socket: Socket;
  readonly lines: string[] = [];
  closed = false;
  #text = '';

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => {
      const lines = (this.#text + bytes.toString()).split('\n');
      this.#text = lines.pop() ?? '';
      this.lines.push(...lines);
    });
    socket.on('error', () => {});
    socket.once('close', () => {
      this.closed = true;
    });
  }
  say(text: string): void {
    this.#socket.write(text);
  }
  close(): void {
    this.#socket.destroy();
  }
}

/** A program and its present connection. */
export class Seat {
  readonly world: World;
  readonly program: Program;
  readonly release: string;
  peer: Peer;
  hello: Heard<'HELLO'>['message'];

  constructor(world: World, program: Program, release: string, peer: Peer, hello: Heard<'HELLO'>['message']) {
    this.world = world;
    this.program = program;
    this.release = release;
    this.peer = peer;
    this.hello = hello;
  }

  send(message: { type: string } & JsonObject, descriptors: readonly NamedDescriptor[] = []): void {
    this.peer.send({ epoch: this.world.epoch, ...message }, descriptors);
  }

  /** Offers it the candidate's place. `mirror`: the reading end of a pair, kept open here as well; `payload`: of the prior's. */
  offer(mirror?: number, payload?: JsonObject): void {
    if (mirror === undefined) {
      this.send({ type: 'OFFER', role: 'candidate' });
      return;
    }
    const shadow = { cyclesMin: CONFORM.warmCycles, divergenceMax: CONFORM.warmDivergenceMax };
    this.send({ type: 'OFFER', role: 'candidate', shadow });
    const state = payload === undefined ? {} : { payload };
    this.send({ type: 'SHADOW', role: 'shadow', ...state }, [{ name: 'mirror', fd: mirror }]);
  }

  async warm(mirror?: number, payload?: JsonObject): Promise<Heard<'READY'>['message']> {
    this.offer(mirror, payload);
    const { message } = await this.peer.next('READY', CONFORM.startMsMax);
    expect(message.epoch === this.world.epoch, `READY of epoch ${message.epoch}, not ${this.world.epoch}`);
    return message;
  }

  ask(resource: Resource): void {
    const deadlineMs = resource === 'rotors' ? LIMITS.rotorReleaseMsMax : LIMITS.otherReleaseMsMax;
    this.world.epoch += 1;
    this.send({ type: 'RELEASE', resource, deadlineMs });
  }

  /** All lines of a RELEASED. The descriptors are the caller's. */
  async released(resource: Resource): Promise<Parcel> {
    const { world } = this;
    const parts: { payload: JsonObject; descriptors: NamedDescriptor[] }[] = [];
    for (let more = true; more; ) {
      const bound = resource === 'rotors' ? LIMITS.rotorReleaseMsMax : LIMITS.otherReleaseMsMax;
      const { message, descriptors } = await this.peer.next('RELEASED', world.ms(bound));
      const named = [...descriptors].map(([name, fd]) => ({ name, fd }));
      parts.push({ payload: message.payload, descriptors: named });
      expect(message.epoch === world.epoch, `RELEASED of epoch ${message.epoch}, not ${world.epoch}`);
      expect(message.resource === resource, `RELEASED of the ${message.resource}, asked for the ${resource}`);
      expect(
        resource === 'connections' || named.length === 0,
        `RELEASED of the ${resource} with descriptors`,
      );
      more = message.more;
    }
    if (resource === 'rotors') await world.boardQuiet(parts[0]?.payload ?? {});
    return { from: 'release', parts };
  }

  async releases(resource: Resource): Promise<Parcel> {
    this.ask(resource);
    return this.released(resource);
  }

  /** Sends it the resource, without waiting for its answer. */
  give(resource: Resource, { from, parts }: Parcel = START): void {
    const { world } = this;
    world.epoch += 1;
    parts.forEach(({ payload, descriptors }, at) => {
      this.send({ type: 'GRANT', resource, from, payload, more: at < parts.length - 1 }, [
        ...descriptors,
        ...world.own(resource),
      ]);
    });
    closeAll(parts.flatMap(({ descriptors }) => descriptors.map(({ fd }) => fd)));
  }

  async granted(resource: Resource): Promise<void> {
    const { world } = this;
    const bound = resource === 'rotors' ? LIMITS.rotorGrantMsMax : LIMITS.otherGrantMsMax;
    const { message } = await this.peer.next('GRANTED', world.ms(bound));
    expect(message.epoch === world.epoch, `GRANTED of epoch ${message.epoch}, not ${world.epoch}`);
    expect(message.resource === resource, `GRANTED of the ${message.resource}, not the ${resource}`);
    if (resource !== 'rotors') return;
    const { board } = world;
    await expectWithin(
      world.ms(CONFORM.answerMsMax),
      () => board.last.epoch === world.epoch,
      () => `commands carry epoch ${board.last.epoch}, not ${world.epoch}`,
    );
  }

  async takes(resource: Resource, parcel: Parcel = START): Promise<void> {
    this.give(resource, parcel);
    await this.granted(resource);
  }

  /** @throws Miss if there is no FAULT of this code (any, when undefined) by then */
  async faults(code?: string): Promise<string> {
    const { message } = await this.peer.next('FAULT', this.world.ms(CONFORM.answerMsMax));
    if (code !== undefined) expect(message.code === code, `FAULT ${message.code}, not ${code}`);
    return message.code;
  }

  /** Its next connection, after the agent or the connection was lost. */
  async returns(holds: readonly Resource[]): Promise<void> {
    const { world, release } = this;
    const { peer, hello } = await world.agent.hello(release, world.ms(2 * LIMITS.reconnectIntervalMs));
    const names = [...hello.descriptors.keys()];
    closeAll(hello.descriptors.values());
    this.peer = peer;
    this.hello = hello.message;
    const told = [...hello.message.holds].sort().join(' ');
    expect(
      told === [...holds].sort().join(' '),
      `HELLO holds [${told}], not [${[...holds].sort().join(' ')}]`,
    );
    const due = holds.filter((resource) => resource !== 'connections').sort();
    expect(
      [...names].sort().join(' ') === due.join(' '),
      `HELLO came with descriptors [${names.join(' ')}], not [${due.join(' ')}]`,
    );
    expect(hello.message.epoch <= world.epoch, `HELLO of epoch ${hello.message.epoch}, above ${world.epoch}`);
  }
}

export class World {
  readonly #command: readonly string[];
  readonly #patience: number;
  readonly #directory = mkdtempSync(join(tmpdir(), 'midair-conform-'));
  readonly #programs: Program[] = [];
  readonly #clients = new Set<Client>();
  readonly #witnesses: Witness[] = [];
  readonly #listener: number;
  #releases = 0;
  #closed = false;
  readonly agent: AgentEnd;
  readonly board = new Board();
  readonly feed = new Feed();
  readonly port: number;
  /** Of the last step; the next one is higher. */
  epoch = 1;
  owner: Seat | undefined;
  /** Whether any program has said HELLO here. */
  met = false;

  constructor(command: readonly string[], patience: number) {
    this.#command = command;
    this.#patience = patience;
    this.#listener = native.tcpListen('127.0.0.1', 0, 64);
    this.port = native.tcpPort(this.#listener);
    this.agent = new AgentEnd(this.#socketPath);
    this.agent.listen();
  }

  get #socketPath(): string {
    return join(this.#directory, 's');
  }

  /** A bound of the protocol, as patient as the runner was asked to be. */
  ms(bound: number): number {
    return bound * this.#patience;
  }

  own(resource: Resource): NamedDescriptor[] {
    switch (resource) {
      case 'camera':
        return [{ name: 'camera', fd: this.feed.camera }];
      case 'listener':
        return [{ name: 'listener', fd: this.#listener }];
      case 'rotors':
        return [{ name: 'rotors', fd: this.board.rotors }];
      case 'connections':
        return [];
    }
  }

  spawn(): { program: Program; release: string } {
    this.#releases += 1;
    const release = `r${this.#releases}`;
    const program = new Program(this.#command, {
      MIDAIR_SOCKET: this.#socketPath,
      MIDAIR_APP: 'conform',
      MIDAIR_RELEASE: release,
    });
    this.#programs.push(program);
    return { program, release };
  }

  /** A program that has said HELLO and holds nothing. */
  async start(spawned = this.spawn()): Promise<Seat> {
    const { program, release } = spawned;
    const met = await this.agent.hello(release, CONFORM.startMsMax, () => {
      if (program.end !== undefined)
        throw new Miss(`it ended before HELLO (${program.end}) ${program.output}`);
    });
    this.met = true;
    const { message, descriptors } = met.hello;
    closeAll(descriptors.values());
    expect(message.holds.length === 0, `its first HELLO holds ${message.holds.join(', ')}`);
    return new Seat(this, program, release, met.peer, message);
  }

  /** A first start, up to the commit: the program owns everything. */
  async firstStart(): Promise<Seat> {
    const seat = await this.start();
    await seat.warm();
    this.board.pause(false);
    for (const resource of RESOURCES) await seat.takes(resource);
    seat.send({ type: 'COMMIT', role: 'owner' });
    this.owner = seat;
    return seat;
  }

  /** The agent dies; nobody is told but by the closed connections. */
  die(): void {
    this.agent.die((path) => rmSync(path, { force: true }));
  }

  async client(): Promise<Client> {
    const client = new Client(tcpConnect(this.port, '127.0.0.1'));
    this.#clients.add(client);
    return client;
  }
  /** Whether it was greeted by this release. */
  async greeted(client: Client, release: string): Promise<void> {
    await this.hears(client, `hello ${release}`);
  }
  async hears(client: Client, line: string): Promise<void> {
    await expectWithin(
      this.ms(CONFORM.answerMsMax),
      () => client.lines.length > 0 || client.closed,
      `no answer "${line}"`,
    );
    const heard = client.lines.shift();
    expect(heard === line, heard === undefined ? 'the connection closed' : `"${heard}", not "${line}"`);
  }
  hangUp(client: Client): void {
    this.#clients.delete(client);
    client.close();
  }

  witness(): Witness {
    const witness = new Witness();
    this.#witnesses.push(witness);
    return witness;
  }

  /** Waits until the board has every command written before the RELEASED, and sees that no other follows. */
  async boardQuiet(payload: JsonObject): Promise<void> {
    const { board } = this;
    const link = payload.link;
    const seq = typeof link === 'object' && link !== null && 'seq' in link ? link.seq : undefined;
    expect(typeof seq === 'number', `the rotors' payload has no link.seq: ${JSON.stringify(payload)}`);
    expect(typeof payload.lastWriteUs === 'number', 'the rotors’ payload has no lastWriteUs');
    await expectWithin(
      this.ms(CONFORM.answerMsMax),
      () => board.last.seq >= seq,
      () => `the payload tells of command ${seq}; the board got ${board.last.seq}`,
    );
    await pause(CONFORM.quietMs);
    expect(board.last.seq === seq, `${board.last.seq - seq} commands after RELEASED`);
  }

  /** Nothing is on its way: all is answered, and the owner's last heartbeat says so. It is a parcel like a dead one's. */
  async rest(owner: Seat): Promise<Parcel> {
    const { board } = this;
    board.pause(true);
    const told = (): unknown => {
      const { state } = owner.peer.snap?.payload ?? {};
      return typeof state === 'object' && state !== null && 'n' in state ? state.n : undefined;
    };
    await expectWithin(
      this.ms(CONFORM.answerMsMax),
      () => board.unanswered === 0 && told() === board.last.n,
      () => `its heartbeat tells of input ${String(told())}; the last one is ${board.inputs}`,
    );
    return { from: 'snap', parts: [{ payload: owner.peer.snap?.payload ?? null, descriptors: [] }] };
  }

  /** All inputs so far are answered, each once, in order. @throws Miss */
  async flies(): Promise<void> {
    const { board } = this;
    const upTo = board.inputs + 3;
    await expectWithin(
      this.ms(CONFORM.answerMsMax),
      () => board.last.n >= upTo || board.problems.length > 0,
      () => `input ${board.last.n + 1} is not answered`,
    );
    this.check();
  }

  check(): void {
    const [first, ...others] = this.board.problems.splice(0);
    if (first !== undefined)
      throw new Miss(`${first}${others.length > 0 ? `, and ${others.length} more` : ''}`);
  }

  /** What the programs printed last: for a case that failed. */
  get output(): string {
    return this.#programs.map(({ output }) => output).findLast((text) => text !== '') ?? '';
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const program of this.#programs) program.kill();
    this.die();
    for (const client of this.#clients) client.close();
    for (const witness of this.#witnesses) witness.close();
    this.board.close();
    this.feed.close();
    native.close(this.#listener);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
