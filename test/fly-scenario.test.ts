/** Scenarios as they are written: the examples, and everything that can be wrong with one. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadScenario } from '#cli/fly/main.ts';
import { parseScenario } from '#cli/fly/parse.ts';
import { FIGURE_NAMES, ScenarioError } from '#cli/fly/scenario.ts';
import { nearest } from '#cli/fly/words.ts';

const FOLDER = join(import.meta.dirname, '..', 'scenarios');
const names = readdirSync(FOLDER).filter((name) => name.endsWith('.scenario'));

const BEGIN = 'release v1 = drone\nrelease v2 = drone + drone-v2\n';
const END = 'expect owner = v1\n';
/** One line between what every scenario needs; what is told of it, without its place. */
const told = (line: string): string[] => {
  try {
    parseScenario(`${BEGIN}${line}\n${END}`);
    return [];
  } catch (error) {
    if (!(error instanceof ScenarioError)) throw error;
    return error.problems.map(({ line: at, column, text }) => `${at}:${column} ${text}`);
  }
};

describe('the examples', () => {
  test('there are some', () => expect(names.length).toBeGreaterThanOrEqual(8));

  test.each(names)('%s is read, titled, and expects something of every update', (name) => {
    const scenario = loadScenario(join(FOLDER, name));
    expect(scenario.title).not.toBe(name);
    expect(scenario.expectations.map(({ figure }) => figure)).toEqual(
      expect.arrayContaining(['stale', 'doubled', 'failsafes']),
    );
  });
});

test('a script becomes a value, in the units that are flown', () => {
  const text = `
    title   All of it   # and a comment
    drones  2
    drone   airframe=px4-sih seed=7 camera=no
    agent   warm-timeout=10
    release v1 = drone label io.midair.probation-ms=500
    release v2 = drone + broken/diverges
    at 0s             takeoff 450cm
    at 1500ms         waypoint 10 -2.5 5m at 2m/s
    on v2 warm +0.5s  circle 3m at 2.5m/s
    at 2s             update v2
    at 3s             fault kill v1 when hearing RELEASE rotors
    at 3s             fault stop v2 for 250ms
    at 3s             fault exit v2 when sending GRANTED
    at 4s             fault battery 5%
    at 5s             fault cut hub for 2s
    at 6s             fault kill agent for 1s
    at 9s             end
    expect gap <= 0.02s
    expect tilt < 10
    expect owner = nobody
  `;
  const { title, drones, sim, agent, releases, acts, expectations } = parseScenario(text);
  expect({ title, drones, sim, agent, releases }).toEqual({
    title: 'All of it',
    drones: 2,
    sim: [
      { name: 'airframe', value: 'px4-sih' },
      { name: 'seed', value: '7' },
      { name: 'camera', value: 'no' },
    ],
    agent: [{ name: 'warm-timeout', value: '10' }],
    releases: [
      { name: 'v1', folders: ['drone'], labels: [{ name: 'io.midair.probation-ms', value: '500' }] },
      { name: 'v2', folders: ['drone', 'broken/diverges'], labels: [] },
    ],
  });
  expect(acts.map(({ when, deed }) => ({ when, deed }))).toEqual([
    { when: { type: 'at', ms: 0 }, deed: { type: 'takeoff', upM: 4.5 } },
    {
      when: { type: 'at', ms: 1500 },
      deed: { type: 'waypoint', northM: 10, eastM: -2.5, upM: 5, speedMS: 2 },
    },
    {
      when: { type: 'on', release: 'v2', event: 'warm', afterMs: 500 },
      deed: { type: 'circle', radiusM: 3, speedMS: 2.5 },
    },
    { when: { type: 'at', ms: 2000 }, deed: { type: 'update', release: 'v2' } },
    {
      when: { type: 'at', ms: 3000 },
      deed: {
        type: 'fault',
        fault: {
          type: 'process',
          how: 'kill',
          target: 'v1',
          moment: { way: 'hear', type: 'RELEASE', resource: 'rotors' },
        },
      },
    },
    {
      when: { type: 'at', ms: 3000 },
      deed: { type: 'fault', fault: { type: 'process', how: 'stop', target: 'v2', forMs: 250 } },
    },
    {
      when: { type: 'at', ms: 3000 },
      deed: {
        type: 'fault',
        fault: { type: 'process', how: 'exit', target: 'v2', moment: { way: 'send', type: 'GRANTED' } },
      },
    },
    { when: { type: 'at', ms: 4000 }, deed: { type: 'fault', fault: { type: 'battery', percent: 5 } } },
    { when: { type: 'at', ms: 5000 }, deed: { type: 'fault', fault: { type: 'cut', forMs: 2000 } } },
    {
      when: { type: 'at', ms: 6000 },
      deed: { type: 'fault', fault: { type: 'process', how: 'kill', target: 'agent', forMs: 1000 } },
    },
    { when: { type: 'at', ms: 9000 }, deed: { type: 'end' } },
  ]);
  expect(expectations.map(({ figure, comparison, value }) => [figure, comparison, value])).toEqual([
    ['gap', '<=', 20],
    ['tilt', '<', 10],
    ['owner', '=', 'nobody'],
  ]);
});

test('an error shows the line, and where in it; several are told at once, in order', () => {
  const text = 'release v1 = drone\nat 5s  takeof 5m\nat 5  hover\nexpect gap <= 20kg\n';
  expect(() => parseScenario(text, 'bad.scenario')).toThrow(
    [
      'bad.scenario:2:8: "takeof" is no verb; did you mean "takeoff"?',
      '  at 5s  takeof 5m',
      '         ^^^^^^',
      'bad.scenario:3:4: 5 has no unit: write 5s or 5ms',
      '  at 5  hover',
      '     ^',
      'bad.scenario:4:15: "kg" is no unit of a time: write 20s or 20ms',
      '  expect gap <= 20kg',
      '                ^^^^',
    ].join('\n'),
  );
});

test.each([
  ['atl 5s land', '3:1 "atl" is no statement; did you mean "at"?'],
  ['at', '3:3 expected a time'],
  ['at 5s', '3:6 expected what happens'],
  [
    'at 5s dance',
    '3:7 "dance" is no verb; there is takeoff, waypoint, circle, hover, land, push, update, fault, end',
  ],
  ['at -5s land', '3:4 a time cannot be below 0'],
  ['at 5s land now', '3:12 "now" is one word too many'],
  ['at 5s takeoff', '3:14 expected a height'],
  ['at 5s takeoff 0', '3:15 a height cannot be below 0.5'],
  ['at 5s takeoff high', '3:15 expected a length, for instance 3m'],
  ['at 5s waypoint 1 2', '3:19 expected metres up'],
  ['at 5s waypoint 1 2 3 at 9s', '3:25 "s" is no unit of a speed: write 9m/s'],
  ['at 5s takeoff 5000', '3:15 5000 is beyond 1000'],
  ['at 5s update v3', '3:14 "v3" is no release of this scenario; did you mean "v1"?'],
  [
    'at 5s push v1',
    '1:9 v1 is not pushed in its turn: those that are pushed in flight come last, in order, each once',
  ],
  ['on v2 worm land', '3:7 "worm" is no event; did you mean "warm"?'],
  ['at 5s fault kil v1', '3:13 "kil" is no fault; did you mean "kill"?'],
  ['at 5s fault exit v1', '3:13 exit needs a moment, for instance: exit v1 when hearing RELEASE rotors'],
  [
    'at 5s fault kill v1 when hearing RELEASED',
    '3:34 "RELEASED" is no message to an app; did you mean "RELEASE"?',
  ],
  ['at 5s fault kill agent when hearing GRANT', '3:24 the agent has no "when" here: give a time'],
  ['at 5s fault freeze agent', '3:13 freeze is for a container, at a time'],
  ['at 5s fault cut rope', '3:17 expected "hub"'],
  ['at 5s fault battery 5m', '3:21 "m" is no unit of a share: write 5%'],
  ['drone seed', ''],
  ['drone dir=/tmp', "3:7 --dir is the harness's own"],
  ['drone seed=1 seed=2', '3:14 seed is given twice'],
  ['drones 0', '3:8 from 1 to 16'],
  ['drones 1.5', '3:8 expected a whole number'],
  ['release v4 = drone', '3:9 releases are named in order, as the hub counts them: expected v3'],
  ['release v3 drone', '3:12 expected "="'],
  ['release v3 = ../etc', '3:14 "../etc" is no folder of apps/; for instance drone-v2'],
  ['expect gapp <= 1s', '3:8 "gapp" is no figure; did you mean "gap"?'],
  ['expect gap 1s', '3:12 "1s" is no comparison; there is =, <=, >=, <, >'],
  ['expect owner <= v1', '3:14 owner is compared with ='],
  ['expect landed = maybe', '3:17 "maybe" is no answer; there is yes, no'],
  ['expect stale = 1.5', '3:16 expected a whole number'],
])('%s', (line, problem) => expect(told(line)).toEqual(problem === '' ? [] : [problem]));

test('what is missing altogether is said, too', () => {
  expect(() => parseScenario('')).toThrow(/there is no release.*\n.*\n.*\n.*nothing is expected/);
});

test('a folder that is not there is an error of its line', () => {
  expect(() => loadScenario(join(FOLDER, 'none.scenario'))).toThrow(
    /cannot be read \(ENOENT\); there are examples in/,
  );
});

test('every figure has a meaning, and the language’s document names it', () => {
  const document = readFileSync(join(import.meta.dirname, '..', 'docs', 'scenarios.md'), 'utf8');
  for (const name of FIGURE_NAMES) expect(document).toContain(`\`${name}\``);
});

test('the word that was meant is close to the one that was written', () => {
  expect(nearest('takeoff', ['takeoff'])).toBe('takeoff');
  expect(nearest('taekoff', ['land', 'takeoff'])).toBe('takeoff');
  expect(nearest('xyzzy', ['land', 'takeoff'])).toBe(undefined);
});

describe('whatever the text', () => {
  const words = [
    ...[
      'at',
      'on',
      'expect',
      'release',
      'drone',
      'drones',
      'agent',
      'title',
      'fault',
      'kill',
      'v1',
      'v2',
      '=',
    ],
    ...[
      '+',
      '5s',
      '12ms',
      '3m',
      '-1',
      'takeoff',
      'circle',
      'land',
      'push',
      'update',
      'gap',
      '<=',
      '#',
      'when',
    ],
    ...[
      'hearing',
      'RELEASE',
      'rotors',
      'for',
      'battery',
      '5%',
      'cut',
      'hub',
      'owner',
      'warm',
      '\t',
      'é',
      '\u0000',
    ],
  ];
  const line = fc.array(fc.oneof(fc.constantFrom(...words), fc.string()), { maxLength: 9 });
  const script = fc
    .array(
      line.map((some) => some.join(' ')),
      { maxLength: 25 },
    )
    .map((lines) => lines.join('\n'));

  test('it is a scenario or a ScenarioError whose places are in the text', () => {
    fc.assert(
      fc.property(fc.oneof(script, fc.string()), (text) => {
        try {
          parseScenario(text);
        } catch (error) {
          expect(error).toBeInstanceOf(ScenarioError);
          const lines = text.split('\n');
          for (const { line: at, column } of (error as ScenarioError).problems) {
            expect(at).toBeGreaterThanOrEqual(1);
            expect(at).toBeLessThanOrEqual(lines.length);
            expect(column).toBeGreaterThanOrEqual(1);
            expect(column).toBeLessThanOrEqual((lines[at - 1] ?? '').length + 1);
          }
        }
      }),
      { numRuns: 600 },
    );
  });

  test('an example with one character changed is, too', () => {
    const text = readFileSync(join(FOLDER, 'agile-update.scenario'), 'utf8');
    const place = fc.nat(text.length - 1);
    fc.assert(
      fc.property(place, fc.string({ minLength: 0, maxLength: 2 }), (at, put) => {
        try {
          parseScenario(text.slice(0, at) + put + text.slice(at + 1));
        } catch (error) {
          expect(error).toBeInstanceOf(ScenarioError);
        }
      }),
      { numRuns: 400 },
    );
  });

  test('nor can it be so large that it takes long', () => {
    const startMs = performance.now();
    expect(() => parseScenario('at 5s land\n'.repeat(100_000))).toThrow('at most 500 lines');
    expect(() => parseScenario(`at ${'x'.repeat(60_000)}`)).toThrow(ScenarioError);
    expect(performance.now() - startMs).toBeLessThan(2_000);
  });
});
