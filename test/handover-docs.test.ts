/** docs/handover-protocol.md and the parser say the same. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '#handover/limits.ts';
import { ProtocolError, parseAgentMessage, parseAppMessage } from '#handover/messages.ts';

const text = readFileSync(new URL('../docs/handover-protocol.md', import.meta.url), 'utf8');
const section = (title: string): string => text.split(`\n## ${title}\n`)[1]?.split('\n## ')[0] ?? '';

describe('docs/handover-protocol.md', () => {
  it('has a session of which every line parses, in an order in which epochs never fall', () => {
    const lines = [...section('A session').matchAll(/^V[12] ([<>]) (\{.*\})$/gm)];
    expect(lines.length).toBeGreaterThan(10);
    const agents = lines.filter(([, way]) => way === '<').map(([, , line = '']) => parseAgentMessage(line));
    const apps = lines.filter(([, way]) => way === '>').map(([, , line = '']) => parseAppMessage(line));
    expect(new Set(apps.map(({ type }) => type)).size).toBe(6);
    for (const side of [agents, apps]) {
      const epochs = side.map(({ epoch }) => epoch);
      expect(epochs).toEqual([...epochs].sort((a, b) => a - b));
    }
  });

  it.each([
    ['App to agent', parseAppMessage],
    ['Agent to app', parseAgentMessage],
  ] as const)('lists each message with the fields that it must have: %s', (title, parse) => {
    const rows = [...section(title).matchAll(/^\| ([A-Z]+) +\| (.*?) +\|/gm)];
    expect(rows.length).toBeGreaterThan(6);
    for (const [, type = '', fields = ''] of rows) {
      const named = [...fields.matchAll(/`([a-zA-Z]+)`(?=[:, ]|$)/g)].map(([, name = '']) => name);
      const missing = ((): string => {
        try {
          parse(JSON.stringify({ type, epoch: 1 }));
          return '';
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
          expect(error.code, type).toBe('INVALID_MESSAGE');
          return /\.([a-zA-Z]+): /.exec(error.message)?.[1] ?? '';
        }
      })();
      if (missing === '') expect(fields.replaceAll(/`[a-zA-Z]+\?`/g, ''), type).not.toMatch(/^`[a-z]/);
      else expect(named, `${type}.${missing}`).toContain(missing);
    }
  });

  it('tells the deadlines that hold', () => {
    const bounds = section('Order, epochs and deadlines');
    const s = (ms: number): string => `${ms / 1000} s`;
    for (const bound of [
      s(LIMITS.warmMsMax),
      `${LIMITS.prepareMsMax} ms`,
      `${LIMITS.rotorReleaseMsMax} ms / ${s(LIMITS.otherReleaseMsMax)}`,
      `${LIMITS.rotorGrantMsMax} ms / ${s(LIMITS.otherGrantMsMax)}`,
      `${LIMITS.heartbeatMsMax} ms; ${LIMITS.aloneSilenceMsMax} ms if alone`,
      s(LIMITS.fenceMsMax),
      s(LIMITS.probationMs),
      s(LIMITS.retireMsMax),
      `${LIMITS.reconnectIntervalMs} ms, waited for ${s(LIMITS.reconnectMsMax)}`,
    ]) {
      expect(bounds).toContain(`| ${bound}`.replace('| 200', 'every 200'));
    }
  });
});
