/** The hub's pure parts: Dockerfile choice and template, push plan, the line, ranges, MQTT framing, words. */
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseRange } from '#fleet/blob-http.ts';
import { baseImages, chooseDockerfile, renderTemplate } from '#fleet/dockerfile.ts';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { Line } from '#fleet/line.ts';
import { PacketCap } from '#fleet/packets.ts';
import { planPush } from '#fleet/pushes.ts';
import { durationText, safeLines, sizeText } from '#fleet/text.ts';

const DEVICE = { machine: 'raspberrypi4-64', arch: 'aarch64' };

describe('which Dockerfile', () => {
  test.each([
    [
      ['Dockerfile', 'Dockerfile.template', 'Dockerfile.aarch64', 'Dockerfile.raspberrypi4-64'],
      'Dockerfile.raspberrypi4-64',
      true,
    ],
    [['Dockerfile', 'Dockerfile.template', 'Dockerfile.aarch64'], 'Dockerfile.aarch64', true],
    [['Dockerfile', 'Dockerfile.template', 'Dockerfile.amd64'], 'Dockerfile.template', true],
    [['Dockerfile', 'docker-compose.yml'], 'Dockerfile', false],
  ])('%j gives %s', (names, name, template) => {
    expect(chooseDockerfile(names, DEVICE)).toEqual({ name, template });
  });

  test('none, or a composition only, is refused with what to do', () => {
    expect(() => chooseDockerfile(['main.ts', 'dockerfile'], DEVICE)).toThrow(
      expect.objectContaining({
        code: 'NO_DOCKERFILE',
        blame: 'pusher',
        next: expect.stringContaining('push again') as unknown,
      }),
    );
    expect(() => chooseDockerfile(['docker-compose.yml'], DEVICE)).toThrow(
      expect.objectContaining({ code: 'COMPOSE_UNSUPPORTED' }),
    );
  });
});

describe('a template', () => {
  const values = { ...DEVICE, app: 'hover', service: 'main', commit: 'c0ffee' };

  test("has balena's variables, under both prefixes", () => {
    const text = ['MACHINE_NAME', 'ARCH', 'APP_NAME', 'SERVICE_NAME', 'RELEASE_HASH']
      .flatMap((name) => [`%%BALENA_${name}%%`, `%%RESIN_${name}%%`])
      .join(' ');
    expect(renderTemplate(text, 'Dockerfile.template', values)).toBe(
      'raspberrypi4-64 raspberrypi4-64 aarch64 aarch64 hover hover main main c0ffee c0ffee',
    );
  });

  test.each(['%%BALENA_MACHIN_NAME%%', '%%constructor%%'])('refuses %s and names the line', (variable) => {
    expect(() => renderTemplate(`FROM scratch\nENV A=${variable}\n`, 'Dockerfile.template', values)).toThrow(
      expect.objectContaining({
        code: 'TEMPLATE_VARIABLE',
        message: `Dockerfile.template line 2: unknown variable ${variable}`,
      }),
    );
  });

  test('what only looks like a variable stays', () => {
    expect(renderTemplate('RUN echo 100%% %%a b%%', 'f', values)).toBe('RUN echo 100%% %%a b%%');
  });
});

test('base images are told without building', () => {
  const text = `# FROM comment
ARG TAG=v24 
ARG BASE="midair/node24"
FROM --platform=linux/amd64 \${BASE} AS build
ARG TAG=inner
FROM debian:\${OTHER:-12} \\
  AS second
FROM build
FROM scratch
from node:$TAG
FROM $UNKNOWN
`;
  expect(baseImages(text)).toEqual(['midair/node24', 'debian:12', 'node:v24']);
});

describe('the plan of a push', () => {
  const A = 'a'.repeat(40);
  const B = 'b'.repeat(40);
  const NONE = '0'.repeat(40);
  const plan = (...refs: [string, string, string][]) => {
    const said: string[] = [];
    const built = planPush(
      refs.map(([before, after, ref]) => ({ before, after, ref })),
      (line) => said.push(line),
    );
    return { built: built?.ref, said };
  };

  test('main or master is built, the rest is kept', () => {
    expect(plan([A, B, 'refs/heads/main'], [NONE, B, 'refs/tags/v1'], [A, NONE, 'refs/heads/old'])).toEqual({
      built: 'refs/heads/main',
      said: ['v1 is stored and not built: only main (or master) is built', 'old is deleted'],
    });
    expect(plan([A, B, 'refs/heads/master']).built).toBe('refs/heads/master');
    expect(plan([A, B, 'refs/heads/main2']).built).toBeUndefined();
    expect(plan([A, B, 'refs/tags/main']).built).toBeUndefined();
  });

  test('what cannot be built is refused', () => {
    expect(() => plan([A, NONE, 'refs/heads/main'])).toThrow(
      expect.objectContaining({ code: 'BRANCH_DELETED' }),
    );
    expect(() => plan([A, B, 'refs/heads/main'], [A, B, 'refs/heads/master'])).toThrow(
      expect.objectContaining({ code: 'TWO_BRANCHES' }),
    );
    const many = Array.from({ length: 201 }, (_, i): [string, string, string] => [A, B, `refs/tags/t${i}`]);
    expect(() => plan(...many)).toThrow(expect.objectContaining({ code: 'TOO_MANY_REFS' }));
  });

  test("a ref's name cannot steer the pusher's terminal", () => {
    expect(plan([NONE, A, 'refs/heads/\u001b[2Jx']).said[0]).toMatch(/^x is stored/);
  });
});

describe('the line', () => {
  const never = new AbortController().signal;

  test('one at a time, in order, and who waits is told who has the turn', async () => {
    const line = new Line();
    const order: string[] = [];
    const first = await line.take('a', never, () => order.push('a waits'));
    const second = line.take('b', never, (holder, ahead) => order.push(`b waits for ${holder}, ${ahead}`));
    const third = line.take('c', never, (holder, ahead) => order.push(`c waits for ${holder}, ${ahead}`));
    expect(order).toEqual(['b waits for a, 1', 'c waits for a, 2']);
    first();
    first();
    const endSecond = await second;
    let thirdHas = false;
    const thirdTurn = third.then((end) => {
      thirdHas = true;
      return end;
    });
    await new Promise(setImmediate);
    expect(thirdHas).toBe(false);
    endSecond();
    (await thirdTurn)();
    (await line.take('d', never, () => order.push('d waits')))();
    expect(order).not.toContain('d waits');
  });

  test('who gives up while waiting is passed over', async () => {
    const line = new Line();
    const first = await line.take('a', never, () => {});
    const gone = new AbortController();
    const second = line.take('b', gone.signal, () => {});
    const third = line.take('c', never, () => {});
    gone.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    first();
    (await third)();
    await expect(line.take('d', gone.signal, () => {})).rejects.toThrow('gone');
  });
});

test.each([
  [undefined, null],
  ['bytes=0-', { start: 0, end: 9 }],
  ['bytes=3-5', { start: 3, end: 5 }],
  ['bytes=3-500', { start: 3, end: 9 }],
  ['bytes=-4', { start: 6, end: 9 }],
  ['bytes=-400', { start: 0, end: 9 }],
  ['bytes=9-9', { start: 9, end: 9 }],
  ['bytes=10-', 'unsatisfiable'],
  ['bytes=-0', 'unsatisfiable'],
  ['bytes=5-3', null],
  ['bytes=0-1,3-4', null],
  ['chunks=0-1', null],
  ['bytes=-', null],
])('range %j of ten bytes', (header, range) => {
  expect(parseRange(header, 10)).toEqual(range);
});

test('no range asks for bytes that are not there', () => {
  fc.assert(
    fc.property(
      fc.nat(20),
      fc.string({ unit: fc.constantFrom(...'bytes=0123456789-,'.split('')), maxLength: 14 }),
      (size, text) => {
        for (const header of [text, `bytes=${text}`]) {
          const range = parseRange(header, size);
          if (range === null || range === 'unsatisfiable') continue;
          expect(range.start).toBeGreaterThanOrEqual(0);
          expect(range.end).toBeGreaterThanOrEqual(range.start);
          expect(range.end).toBeLessThan(size);
        }
      },
    ),
  );
});

describe('MQTT framing', () => {
  /** Fixed header with the shortest length encoding, then the body. */
  const packet = (length: number) => {
    const bytes = [0x30];
    let rest = length;
    do {
      bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
      rest = Math.floor(rest / 128);
    } while (rest > 0);
    return Buffer.concat([Buffer.from(bytes), Buffer.alloc(length, 7)]);
  };
  const through = (bytes: Buffer, cuts: number[], cap = 300) => {
    const parts: Buffer[] = [];
    let at = 0;
    for (const cut of [...cuts.map((one) => one % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
      parts.push(bytes.subarray(at, cut));
      at = cut;
    }
    return buffer(Readable.from(parts.filter((part) => part.length > 0)).pipe(new PacketCap(cap)));
  };

  test('packets pass whole, however they are cut; one that is too long does not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 6 }),
        fc.array(fc.nat(2_000), { maxLength: 12 }),
        async (lengths, cuts) => {
          const bytes = Buffer.concat(lengths.map(packet));
          expect(await through(bytes, cuts)).toEqual(bytes);
          await expect(through(Buffer.concat([bytes, packet(301)]), cuts)).rejects.toThrow('MQTT packet');
        },
      ),
      { numRuns: 50 },
    );
  });

  test('a length without end is refused', async () => {
    await expect(through(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x80]), [])).rejects.toThrow(
      'MQTT packet',
    );
  });
});

test('sizes and durations are short', () => {
  expect([812, 6_120, 12_000_000, 190_400_000, 999_600].map(sizeText)).toEqual([
    '812 B',
    '6.1 kB',
    '12 MB',
    '190 MB',
    '1.0 MB',
  ]);
  expect([400, 12_300, 185_000].map(durationText)).toEqual(['0.4 s', '12 s', '3 min 5 s']);
});

test('foreign lines lose what steers a terminal', () => {
  expect(safeLines('\u001b[31mred\u001b[0m\n10%\r50%\r100%\r\n\u001b]0;title\u0007x\u0000\u009b2J')).toEqual([
    'red',
    '100%',
    'x2J',
  ]);
  expect(safeLines('y'.repeat(501))[0]).toHaveLength(501);
});

test('known system errors are named', () => {
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  expect(asFleetError(new Error('outer', { cause: full })).code).toBe('DISK_FULL');
  expect(asFleetError(Object.assign(new Error('full'), { errcode: 13 })).code).toBe('DISK_FULL');
  expect(asFleetError(Object.assign(new Error('x'), { code: 'ECONNREFUSED', syscall: 'connect' })).code).toBe(
    'ENGINE_UNREACHABLE',
  );
  expect(asFleetError(new Error('x')).code).toBe('INTERNAL');
  const ours = new FleetError('NO_DOCKERFILE', 'x', 'y');
  expect(asFleetError(new Error('outer', { cause: ours }))).toBe(ours);
});
