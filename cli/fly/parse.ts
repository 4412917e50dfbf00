/**
 * Reads a scenario's script (docs/scenarios.md).
 *
 * Invariant: pure; whatever the text, the result is a scenario that can be flown or a ScenarioError that names what is
 * wrong, by line and column, several things at once.
 */
import {
  type Act,
  COMPARISONS,
  type Deed,
  EVENTS,
  type Expectation,
  type Fault,
  FIGURE_NAMES,
  FIGURES,
  FROM_INSIDE,
  type Moment,
  type Option,
  type Problem,
  type ReleaseSource,
  type Scenario,
  ScenarioError,
  SIGNALS,
  type When,
} from '#cli/fly/scenario.ts';
import { amount, type Dimension, oneOf, type Word, Wrong, wordsOf } from '#cli/fly/words.ts';
import { RESOURCES } from '#handover/messages.ts';

const MOST = { bytes: 65_536, lines: 500, problems: 20, drones: 16 } as const;
const KEYWORDS = ['title', 'drones', 'drone', 'agent', 'release', 'at', 'on', 'expect'] as const;
const VERBS = ['takeoff', 'waypoint', 'circle', 'hover', 'land', 'push', 'update', 'fault', 'end'] as const;
const TO_APPS = ['OFFER', 'SHADOW', 'PREPARE', 'RELEASE', 'GRANT', 'COMMIT', 'REVOKE', 'DROP'] as const;
const FROM_APPS = ['HELLO', 'READY', 'RELEASED', 'GRANTED', 'RETIRE'] as const;

/** The words of one line, taken one after the other. */
class Line {
  readonly #words: readonly Word[];
  readonly #end: Word;
  #at = 0;

  constructor(source: string) {
    this.#words = wordsOf(source);
    this.#end = { text: '', column: source.replace(/#.*$/, '').trimEnd().length + 1 };
  }

  get left(): number {
    return this.#words.length - this.#at;
  }
  peek(): Word | undefined {
    return this.#words[this.#at];
  }
  next(what: string): Word {
    const word = this.#words[this.#at];
    if (word === undefined) throw new Wrong(this.#end, `expected ${what}`);
    this.#at += 1;
    return word;
  }
  /** Takes it if it is there. */
  has(text: string): boolean {
    if (this.peek()?.text !== text) return false;
    this.#at += 1;
    return true;
  }
  expect(text: string): void {
    const word = this.next(`"${text}"`);
    if (word.text !== text) throw new Wrong(word, `expected "${text}"`);
  }
  amount(dimension: Dimension, what: string, low = 0): number {
    const word = this.next(what);
    const value = amount(word, dimension);
    if (value < low) throw new Wrong(word, `${what} cannot be below ${low}`);
    return value;
  }
  done(): void {
    const word = this.peek();
    if (word !== undefined) throw new Wrong(word, `"${word.text}" is one word too many`);
  }
}

/** @throws ScenarioError */
export const parseScenario = (source: string, file = 'scenario'): Scenario => new Reader(source, file).read();

class Reader {
  readonly #source: string;
  readonly #file: string;
  readonly #problems: Problem[] = [];
  #title: string | undefined;
  #drones: number | undefined;
  readonly #sim: Option[] = [];
  readonly #agent: Option[] = [];
  readonly #releases: (ReleaseSource & { line: number; word: Word })[] = [];
  readonly #acts: Act[] = [];
  readonly #expectations: Expectation[] = [];
  /** Named somewhere; looked at when all releases are known. */
  readonly #named: { line: number; word: Word }[] = [];

  constructor(source: string, file: string) {
    this.#source = source;
    this.#file = file;
  }

  read(): Scenario {
    const lines = this.#source.split('\n');
    if (Buffer.byteLength(this.#source) > MOST.bytes || lines.length > MOST.lines) {
      this.#problem(1, { text: '', column: 1 }, `at most ${MOST.lines} lines and ${MOST.bytes} bytes`);
      throw new ScenarioError(this.#file, this.#source.slice(0, 200), this.#problems);
    }
    for (const [at, text] of lines.entries()) {
      this.#inLine(at + 1, () => {
        const line = new Line(text);
        if (line.left > 0) this.#statement(at + 1, text, line);
      });
    }
    this.#whole(lines.length);
    if (this.#problems.length > 0) {
      const problems = this.#problems.sort((a, b) => a.line - b.line || a.column - b.column);
      throw new ScenarioError(this.#file, this.#source, problems.slice(0, MOST.problems));
    }
    return {
      title: this.#title ?? this.#file,
      drones: this.#drones ?? 1,
      sim: this.#sim,
      agent: this.#agent,
      releases: this.#releases.map(({ name, folders, labels }) => ({ name, folders, labels })),
      acts: this.#acts,
      expectations: this.#expectations,
    };
  }

  #problem(line: number, { text: { length }, column }: Word, text: string): void {
    this.#problems.push({ line, column, length: Math.max(1, length), text });
  }

  #inLine(line: number, act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      const { column, length, message } = error;
      this.#problems.push({ line, column, length: Math.max(1, length), text: message });
    }
  }

  #statement(number: number, text: string, line: Line): void {
    const keyword = oneOf(line.next('a statement'), KEYWORDS, 'statement');
    switch (keyword) {
      case 'title':
        line.next('the title');
        this.#title = text.replace(/#.*$/, '').trim().slice('title'.length).trim();
        return;
      case 'drones': {
        const word = line.next('how many');
        const count = amount(word, 'count');
        if (count < 1 || count > MOST.drones) throw new Wrong(word, `from 1 to ${MOST.drones}`);
        this.#drones = count;
        line.done();
        return;
      }
      case 'drone':
        this.#options(line, this.#sim, 'seed=7');
        return;
      case 'agent':
        this.#options(line, this.#agent, 'warm-timeout=10');
        return;
      case 'release':
        this.#release(number, line);
        return;
      case 'expect':
        this.#expect(number, text, line);
        return;
      case 'at':
      case 'on': {
        const when: When =
          keyword === 'at' ? { type: 'at', ms: line.amount('time', 'a time') } : this.#on(number, line);
        const deed = this.#deed(number, line);
        line.done();
        this.#acts.push({ line: number, text: text.replace(/#.*$/, '').trim(), when, deed });
      }
    }
  }

  #options(line: Line, into: Option[], example: string): void {
    do {
      const name = line.next(`an option, for instance ${example}`);
      if (!/^[a-z][a-z0-9-]{0,40}$/.test(name.text)) {
        throw new Wrong(name, `"${name.text}" cannot be an option's name; for instance ${example}`);
      }
      if (['dir', 'port', 'signing-key', 'device', 'hub', 'mqtt', 'engine'].includes(name.text)) {
        throw new Wrong(name, `--${name.text} is the harness's own`);
      }
      if (into.some((one) => one.name === name.text)) throw new Wrong(name, `${name.text} is given twice`);
      const value = line.has('=') ? line.next('a value').text : 'true';
      into.push({ name: name.text, value });
    } while (line.left > 0);
  }

  #release(number: number, line: Line): void {
    const word = line.next('its name');
    const wanted = `v${this.#releases.length + 1}`;
    if (word.text !== wanted) {
      throw new Wrong(word, `releases are named in order, as the hub counts them: expected ${wanted}`);
    }
    line.expect('=');
    const folders: string[] = [];
    do {
      const folder = line.next('a folder of apps/');
      if (!/^[a-z0-9][a-z0-9-]*(\/[a-z0-9][a-z0-9-]*)*$/.test(folder.text)) {
        throw new Wrong(folder, `"${folder.text}" is no folder of apps/; for instance drone-v2`);
      }
      folders.push(folder.text);
    } while (line.has('+'));
    const labels: Option[] = [];
    while (line.has('label')) {
      const name = line.next('a label, for instance io.midair.probation-ms=500').text;
      line.expect('=');
      labels.push({ name, value: line.next('its value').text });
    }
    line.done();
    this.#releases.push({ name: word.text, folders, labels, line: number, word });
  }

  #on(number: number, line: Line): When {
    const release = this.#nameOf(number, line);
    const event = oneOf(line.next('what happens'), EVENTS, 'event');
    const afterMs = line.has('+') ? line.amount('time', 'a time') : 0;
    return { type: 'on', release, event, afterMs };
  }

  #nameOf(number: number, line: Line): string {
    const word = line.next('a release');
    this.#named.push({ line: number, word });
    return word.text;
  }

  #deed(number: number, line: Line): Deed {
    const speedMS = () => (line.has('at') ? line.amount('speed', 'a speed', 0.1) : 1);
    const verb = oneOf(line.next('what happens'), VERBS, 'verb');
    switch (verb) {
      case 'takeoff':
        return { type: verb, upM: line.amount('length', 'a height', 0.5) };
      case 'waypoint': {
        const northM = line.amount('length', 'metres north', Number.NEGATIVE_INFINITY);
        const eastM = line.amount('length', 'metres east', Number.NEGATIVE_INFINITY);
        const upM = line.amount('length', 'metres up', 0.5);
        return { type: verb, northM, eastM, upM, speedMS: speedMS() };
      }
      case 'circle':
        return { type: verb, radiusM: line.amount('length', 'a radius', 0.5), speedMS: speedMS() };
      case 'hover':
      case 'land':
      case 'end':
        return { type: verb };
      case 'push':
      case 'update':
        return { type: verb, release: this.#nameOf(number, line) };
      case 'fault':
        return { type: verb, fault: this.#fault(number, line) };
    }
  }

  #fault(number: number, line: Line): Fault {
    const kinds = [...SIGNALS, ...FROM_INSIDE, 'battery', 'cut'] as const;
    const word = line.next('a fault');
    const kind = oneOf(word, kinds, 'fault');
    const forMs = () => (line.has('for') ? { forMs: line.amount('time', 'how long') } : {});
    if (kind === 'battery') return { type: kind, percent: line.amount('share', 'a share') };
    if (kind === 'cut') {
      line.expect('hub');
      return { type: kind, ...forMs() };
    }
    const isAgent = line.peek()?.text === 'agent';
    const target = isAgent ? line.next('a target').text : this.#nameOf(number, line);
    const when = line.peek();
    const moment = line.has('when') ? this.#moment(line) : undefined;
    if (moment !== undefined && isAgent && when)
      throw new Wrong(when, 'the agent has no "when" here: give a time');
    const fromInside = FROM_INSIDE.find((one) => one === kind);
    if (fromInside !== undefined && moment === undefined) {
      throw new Wrong(word, `${kind} needs a moment, for instance: ${kind} v1 when hearing RELEASE rotors`);
    }
    if (kind === 'freeze' && (isAgent || moment !== undefined)) {
      throw new Wrong(word, 'freeze is for a container, at a time');
    }
    return { type: 'process', how: kind, target, ...(moment === undefined ? {} : { moment }), ...forMs() };
  }

  #moment(line: Line): Moment {
    const way = oneOf(line.next('hearing or sending'), ['hearing', 'sending'] as const, 'moment');
    const word = line.next('a message');
    const type: string =
      way === 'hearing' ? oneOf(word, TO_APPS, 'message to an app') : oneOf(word, FROM_APPS, "app's message");
    const next = line.peek();
    const isResource = next !== undefined && next.text !== 'for';
    const resource = isResource ? oneOf(line.next('a resource'), RESOURCES, 'resource') : undefined;
    return {
      way: way === 'hearing' ? 'hear' : 'send',
      type,
      ...(resource === undefined ? {} : { resource }),
    };
  }

  #expect(number: number, text: string, line: Line): void {
    const figure = oneOf(line.next('a figure'), FIGURE_NAMES, 'figure');
    const { dimension } = FIGURES[figure];
    const sign = line.next('a comparison, for instance <=');
    const comparison = oneOf(sign, COMPARISONS, 'comparison');
    const word = line.next('a value');
    if (dimension === 'word' && comparison !== '=') throw new Wrong(sign, `${figure} is compared with =`);
    const value = dimension === 'word' ? this.#word(number, figure, word) : amount(word, dimension);
    line.done();
    this.#expectations.push({
      line: number,
      text: text.replace(/#.*$/, '').trim().slice('expect'.length).trim(),
      figure,
      comparison,
      value,
    });
  }

  #word(number: number, figure: keyof typeof FIGURES, word: Word): string {
    if (figure === 'landed' || figure === 'crashed') return oneOf(word, ['yes', 'no'] as const, 'answer');
    if (figure === 'update') return oneOf(word, ['done', 'failed', 'none'] as const, 'end of an update');
    if (figure === 'owner' && word.text !== 'nobody') this.#named.push({ line: number, word });
    return word.text;
  }

  /** What no line can know by itself. */
  #whole(lines: number): void {
    const names = this.#releases.map(({ name }) => name);
    for (const { line, word } of this.#named) {
      this.#inLine(line, () => {
        if (names.length > 0) oneOf(word, names, 'release of this scenario');
      });
    }
    const end = { text: '', column: 1 };
    if (names.length === 0)
      this.#problem(lines, end, 'there is no release; for instance: release v1 = drone');
    if (this.#expectations.length === 0) {
      this.#problem(lines, end, 'nothing is expected; for instance: expect owner = v1');
    }
    this.#order();
  }

  /** The hub counts pushes: those of the flight come after all others, and in order. */
  #order(): void {
    const pushes = this.#acts.filter(({ deed }) => deed.type === 'push');
    const pushed = pushes.map(({ deed }) => (deed as { release: string }).release);
    const others = this.#releases.filter(({ name }) => !pushed.includes(name));
    const expected = [...others.map(({ name }) => name), ...pushed];
    for (const { name, line, word } of this.#releases) {
      const at = expected.indexOf(name);
      if (`v${at + 1}` === name) continue;
      const text = `${name} is not pushed in its turn: those that are pushed in flight come last, in order, each once`;
      this.#problem(line, word, text);
      return;
    }
    if (pushed.length !== new Set(pushed).size || pushed.includes('v1')) {
      const { line } = pushes[0] as Act;
      const text = pushed.includes('v1') ? 'v1 flies from the start' : 'a release is pushed once';
      this.#problem(line, { text: '', column: 1 }, text);
    }
    for (const { deed, line } of this.#acts) {
      if (deed.type === 'update' && pushed.includes(deed.release)) {
        this.#problem(
          line,
          { text: '', column: 1 },
          `${deed.release} is pushed in flight: "push" is its update`,
        );
      }
    }
  }
}
