/**
 * What is there, what of it is marked as a test device, and what an experiment's criteria mean by it. Pure.
 *
 * Invariant: nothing without the mark is ever among the targets. A container bears it as a label, which its agent sets
 * (also to `false`, so that an image cannot), and its device's agent has it in its directory: both are asked for.
 */
import type { Criteria, Failure, Role } from '#cli/chaos/experiment.ts';
import type { ProcessId } from '#cli/processes.ts';

interface Common {
  /** Unique, and the same for as long as the thing is: a container's id, `agent:drone-1`. */
  readonly id: string;
  readonly device: string | null;
  /** Whether it may be harmed. */
  readonly marked: boolean;
}
export interface ContainerThing extends Common {
  readonly kind: 'container';
  readonly name: string;
  readonly app: string;
  readonly service: string;
  readonly release: string;
  /** By the agent's own journal; null: it neither flies nor is about to. */
  readonly role: 'owner' | 'candidate' | null;
  readonly process: ProcessId;
}
/** A process of the harness: it marked its directory itself. */
export interface PartThing extends Common {
  readonly kind: 'part';
  readonly role: 'agent' | 'hub' | 'sim';
  readonly directory: string;
  readonly process: ProcessId;
}
/** What carries a device's bytes to the hub and back: `midair chaos link`. */
export interface LinkThing extends Common {
  readonly kind: 'link';
  readonly role: 'link';
  /** Its unix socket. */
  readonly control: string;
  readonly process: ProcessId;
}
export type Thing = ContainerThing | PartThing | LinkThing;

export interface Match {
  /** What the failure would be done to, by id. */
  readonly targets: readonly Thing[];
  /** What the criteria mean, but must not be harmed. */
  readonly unmarked: readonly Thing[];
  /** Why there is no target where one was meant. */
  readonly notes: readonly string[];
}

/** Done to the device that is meant, not to the thing itself. */
const OF_THE_LINK: readonly Failure[] = ['latency', 'loss', 'partition'];

/**
 * Who is meant: of the containers and parts those that fit; for a failure of the link or of the disk, the link or the agent's
 * directory of every device that something that fits belongs to.
 */
export function match(failure: Failure, criteria: Criteria, things: readonly Thing[]): Match {
  const meant = things.filter((thing) => fits(criteria, thing));
  const ofLink = OF_THE_LINK.includes(failure);
  if (!ofLink && failure !== 'disk-full') {
    return split(meant.filter(({ kind }) => kind !== 'link'));
  }
  const devices = [...new Set(meant.flatMap(({ device }) => device ?? []))].sort();
  const found: Thing[] = [];
  const notes: string[] = [];
  for (const device of devices) {
    const one = things.find((thing) => thing.device === device && thing.role === (ofLink ? 'link' : 'agent'));
    if (one !== undefined) found.push(one);
    else if (ofLink) {
      notes.push(
        `${device} has no link of the harness: start its agent through midair chaos link --device ${device}`,
      );
    } else notes.push(`${device} has no marked agent whose directory could be filled`);
  }
  const { targets, unmarked } = split(found);
  // The device's own containers say whether it is one: a link alone says nothing.
  const bare = meant.filter((thing) => !thing.marked && !unmarked.includes(thing));
  return { targets, unmarked: [...unmarked, ...bare], notes };
}

function split(meant: readonly Thing[]): Match {
  const sorted = [...meant].sort((a, b) => (a.id < b.id ? -1 : 1));
  return {
    targets: sorted.filter(({ marked }) => marked),
    unmarked: sorted.filter(({ marked }) => !marked),
    notes: [],
  };
}

function fits(criteria: Criteria, thing: Thing): boolean {
  const { device, role, container, ...ofContainer } = criteria;
  if (device !== undefined && thing.device !== device) return false;
  if (role !== undefined && (thing.role as Role | null) !== role) return false;
  const named = Object.entries(ofContainer);
  if (container === undefined && named.length === 0) return true;
  if (thing.kind !== 'container') return false;
  if (container !== undefined && thing.name !== container && !thing.id.startsWith(container)) return false;
  return named.every(([key, value]) => thing[key as 'app' | 'service' | 'release'] === value);
}

export function thingText(thing: Thing): string {
  if (thing.kind !== 'container')
    return thing.device === null ? thing.role : `${thing.role} of ${thing.device}`;
  const role = thing.role === null ? '' : `${thing.role} `;
  return `${role}${thing.app} ${thing.release} on ${thing.device ?? 'no device'} (${thing.id.slice(0, 12)})`;
}
