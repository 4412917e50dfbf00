/** The Python client's parts by themselves, and its parser beside the one that the agent's messages are defined by. */

import { isUtf8 } from 'node:buffer';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { ProtocolError, parseAgentMessage } from '#handover/messages.ts';
import { python } from './conform-kit.ts';
import { seeded } from './handover-kit.ts';

const file = fileURLToPath(new URL('./conform/client_test.py', import.meta.url));

test('its own tests pass', () => {
  const { status, stderr } = spawnSync(python(), [file], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  expect(stderr).toMatch(/Ran \d+ tests/);
});

const KEY = Buffer.alloc(32, 0xfb).toString('base64');
const GOOD = [
  '{"type":"OFFER","epoch":1,"role":"owner"}',
  '{"type":"SHADOW","epoch":1,"role":"shadow","fds":["mirror"]}',
  '{"type":"PREPARE","epoch":9007199254740991}',
  '{"type":"RELEASE","epoch":2,"resource":"rotors","deadlineMs":50.5}',
  '{"type":"GRANT","epoch":3,"resource":"connections","from":"snap","payload":{"a":[1,{"b":null}]},"more":true}',
  '{"type":"GRANT","epoch":3,"resource":"camera","from":"start","payload":null}',
  '{"type":"DROP","epoch":4.0,"resource":"listener","fds":[]}',
  '{"type":"OFFER","epoch":1,"role":"candidate","shadow":{"cyclesMin":250,"divergenceMax":0.1}}',
  '{"type":"SHADOW","epoch":1,"role":"source","snapIntervalMs":4,"fds":["mirror"]}',
  `{"type":"GRANT","epoch":3,"resource":"rotors","from":"release","payload":{},"signing":{"key":"${KEY}","linkId":3,"lastTimestamp":12}}`,
  '{"type":"COMMIT","epoch":1e2,"role":"retired"}',
  '{"type":"REVOKE","epoch":5,"code":"X","text":""}',
];
const TOKENS = [
  '',
  '"',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '0',
  '-',
  '1e999',
  'null',
  'true',
  '"\\ud800"',
  '"é"',
  ' ',
  '1.5',
]
  .concat([
    '9007199254740992',
    '256',
    '21',
    '0.9',
    '{}',
    '"shadow":null,',
    '"signing":{},',
    '"snapIntervalMs":"4",',
    `"${KEY.slice(1)}"`,
    `"${KEY.slice(1)}-"`,
    '600001',
    'NaN',
    'Infinity',
    '{"type":"PREPARE"}',
    '"GRANT"',
    '"rotors"',
    '\ufeff',
    '\t',
  ])
  .concat([
    '"fds":["a"],',
    '"epoch":-1,',
    '"more":null,',
    '"\\u0000"',
    `"${'n'.repeat(129)}"`,
    '[[[[',
    '\u0001',
  ]);

const codeOf = (line: Buffer): string => {
  if (!isUtf8(line)) return 'INVALID_JSON';
  try {
    parseAgentMessage(line.toString());
    return 'ok';
  } catch (error) {
    if (error instanceof ProtocolError) return error.code;
    throw error;
  }
};

test('10,000 lines, good and damaged, are judged alike in both languages', () => {
  const random = seeded(20_251);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const lines = GOOD.map((text) => Buffer.from(text));
  while (lines.length < 10_000) {
    let text = pick(GOOD);
    for (let damage = Math.floor(random() * 3); damage >= 0; damage--) {
      const at = Math.floor(random() * text.length);
      // Whole values more often than single letters: what is JSON still reaches the fields.
      const value = /:("[^"]*"|[\d.e]+|null|true)/g;
      text =
        random() < 0.6
          ? text.replace(value, (whole) => (random() < 0.4 ? `:${pick(TOKENS)}` : whole))
          : text.slice(0, at) + pick(TOKENS) + text.slice(at + Math.floor(random() * 4));
    }
    const line = Buffer.from(text.replaceAll('\n', ' '));
    if (random() < 0.05 && line.length > 0) line[Math.floor(random() * line.length)] = 0xff;
    lines.push(line);
  }
  const input = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
  const { stdout, stderr } = spawnSync(python(), [file, 'parse'], {
    input,
    encoding: 'utf8',
    maxBuffer: 1e8,
  });
  expect(stderr).toBe('');
  const codes = stdout.trimEnd().split('\n');
  expect(codes.length).toBe(lines.length);
  const differ = lines.flatMap((line, at) => {
    const expected = codeOf(line);
    return expected === codes[at] ? [] : [`${line.toString()}: ${expected}, Python ${codes[at]}`];
  });
  expect(differ).toEqual([]);
  const count = (code: string): number => codes.filter((each) => each === code).length;
  for (const code of ['ok', 'INVALID_JSON', 'UNKNOWN_TYPE', 'INVALID_MESSAGE'])
    expect(count(code), code).toBeGreaterThan(200);
});
