/**
 * The conformance runner: plays the agent to a program in any language, and judges what it does
 * (docs/handover-conformance.md says what the program must do with its resources).
 *
 * Invariant: a case passes only by what was seen. One that fails ends its world, programs and all, so that the next
 * begins anew; a case that is broken itself, by an error that is no Miss, is not reported but thrown.
 */
import { agentDeath } from '#handover/conform/agent-death.ts';
import { badInput } from '#handover/conform/bad-input.ts';
import type { Case } from '#handover/conform/case.ts';
import { goodPath } from '#handover/conform/good-path.ts';
import { CONFORM } from '#handover/conform/limits.ts';
import { twoPrograms } from '#handover/conform/two-programs.ts';
import { Miss } from '#handover/conform/wait.ts';
import { watched } from '#handover/conform/watched.ts';
import { World } from '#handover/conform/world.ts';

export { CONFORM } from '#handover/conform/limits.ts';

export interface Result {
  readonly group: Case['group'];
  readonly id: string;
  readonly expected: string;
  readonly seen: string;
  readonly ok: boolean;
  readonly tookMs: number;
  /** The last lines that the program printed, of a case that failed. */
  readonly output?: string;
}
export interface ConformOptions {
  /** File and arguments of the program under test; started once a program, often two at a time. */
  readonly command: readonly string[];
  /** Multiplies the protocol's deadlines. Default `CONFORM.patience`; 1 on an idle device. */
  readonly patience?: number;
  /** Cases whose id contains one of these; all if empty. */
  readonly only?: readonly string[];
  readonly onResult?: (result: Result) => void;
}

export const CASES: readonly Case[] = [...goodPath, ...twoPrograms, ...watched, ...badInput, ...agentDeath];

/** @throws RangeError if `only` names no case */
export const conform = async (options: ConformOptions): Promise<Result[]> => {
  const { command, patience = CONFORM.patience, only = [], onResult } = options;
  const chosen = CASES.filter(({ id }) => only.length === 0 || only.some((part) => id.includes(part)));
  if (chosen.length === 0) throw new RangeError(`no case is named ${only.join(' or ')}`);
  const results: Result[] = [];
  let shared: World | undefined;
  try {
    for (const one of chosen) {
      const startMs = performance.now();
      const world =
        one.begins === 'owner' ? (shared ?? new World(command, patience)) : new World(command, patience);
      const { ok, seen } = await judge(one, world);
      const tookMs = Math.round(performance.now() - startMs);
      const { output } = world;
      // Kept for the next case only if it is as this one found it.
      const keeps = ok && world.owner !== undefined;
      if (world !== shared || !keeps) {
        if (world === shared) shared = undefined;
        if (keeps && shared === undefined) shared = world;
        else world.close();
      }
      const { group, id, expected } = one;
      const result = { group, id, expected, seen, ok, tookMs, ...(ok || output === '' ? {} : { output }) };
      results.push(result);
      onResult?.(result);
      if (!world.met) {
        // It cannot be waited for in every case anew.
        for (const other of chosen.slice(results.length)) {
          const { group, id, expected } = other;
          results.push({ group, id, expected, seen: 'not run: no HELLO', ok: false, tookMs: 0 });
        }
        break;
      }
    }
  } finally {
    shared?.close();
  }
  return results;
};

const judge = async (one: Case, world: World): Promise<{ ok: boolean; seen: string }> => {
  try {
    const owner = one.begins === 'owner' ? (world.owner ?? (await world.firstStart())) : undefined;
    const seen = await one.run(world, owner as NonNullable<typeof owner>);
    world.check();
    return { ok: true, seen };
  } catch (error) {
    if (error instanceof Miss) return { ok: false, seen: error.message };
    world.close();
    throw error;
  }
};
