/**
 * What is there to be harmed: containers by the engine, parts by their marks, roles by the agents' journals.
 *
 * Invariant: observed anew at each look, and nothing is remembered; a look ends within a bound.
 */
import { join } from 'node:path';
import * as v from 'valibot';
import { APP_LABEL, type Engine, type OurContainer, RELEASE_LABEL } from '#agent/engine.ts';
import { peekJournal } from '#agent/journal.ts';
import { TEST_DEVICE_LABEL } from '#agent/test-device.ts';
import { findMarks, type Mark } from '#cli/chaos/marks.ts';
import { CONTROL_SOCKET } from '#cli/chaos/paths.ts';
import type { ContainerThing, Thing } from '#cli/chaos/targets.ts';
import { identify, isAlive } from '#cli/processes.ts';

export interface Surroundings {
  /** @throws EngineError `ENGINE_UNREACHABLE` */
  look(): Promise<Thing[]>;
}

export const openSurroundings = (
  engine: Pick<Engine, 'listOurs'>,
  watch: readonly string[],
): Surroundings => ({
  async look() {
    const containers = await engine.listOurs();
    const marks = findMarks(watch);
    return [
      ...containers.flatMap((one) => containerThing(one, marks) ?? []),
      ...marks.filter(isAlive).map((mark) => partThing(mark, marks)),
    ];
  },
});

const agentOf = (device: string | null, marks: readonly Mark[]): Mark | undefined =>
  device === null ? undefined : marks.find((mark) => mark.role === 'agent' && mark.device === device);

function containerThing(container: OurContainer, marks: readonly Mark[]): ContainerThing | undefined {
  const { id, name, labels, pid } = container;
  // The engine may lag behind a death: what the kernel no longer knows is no target.
  const process = container.running ? identify(pid) : undefined;
  if (process === undefined) return undefined;
  const device = labels['io.midair.device'] ?? null;
  const agent = agentOf(device, marks);
  return {
    kind: 'container',
    ...{ id, name, device, process },
    app: labels[APP_LABEL] ?? '',
    service: labels['io.midair.service'] ?? labels[APP_LABEL] ?? '',
    release: labels[RELEASE_LABEL] ?? '',
    role: agent === undefined ? null : roleOf(id, agent),
    marked: labels[TEST_DEVICE_LABEL] === 'true' && agent !== undefined,
  };
}

const name = v.nullable(v.string());
const stateSchema = v.union([
  v.object({ phase: v.literal('idle'), owner: name }),
  v.object({ phase: v.picklist(['probation', 'committed']), prior: name, candidate: name }),
  v.object({ phase: v.string(), prior: name, candidate: name }),
]);

/** Who has the rotors is the owner; while they pass, who had them. */
function roleOf(id: string, { directory }: Mark): 'owner' | 'candidate' | null {
  const result = v.safeParse(stateSchema, peekJournal(join(directory, 'handover.journal')));
  if (!result.success) return null;
  const state = result.output;
  if ('owner' in state) return id === state.owner ? 'owner' : null;
  const hasPassed = state.phase === 'probation' || state.phase === 'committed';
  const [owner, other] = hasPassed ? [state.candidate, null] : [state.prior, state.candidate];
  return id === owner ? 'owner' : id === other ? 'candidate' : null;
}

function partThing(mark: Mark, marks: readonly Mark[]): Thing {
  const { role, device, directory, pid, startTicks } = mark;
  const common = { id: device === null ? role : `${role}:${device}`, device, process: { pid, startTicks } };
  if (role !== 'link') return { kind: 'part', ...common, role, directory, marked: true };
  const marked = agentOf(device, marks) !== undefined;
  return { kind: 'link', ...common, role, control: join(directory, CONTROL_SOCKET), marked };
}
