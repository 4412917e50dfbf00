/**
 * A scenario as a value: what flies, what happens when, what is expected. The script is read by parse.ts;
 * docs/scenarios.md is its language.
 *
 * Invariant: what is here can be flown. Times are ms from the start (all drones stand, ready), lengths m, shares percent.
 */
export interface Scenario {
  readonly title: string;
  readonly drones: number;
  /** To `midair sim` and `midair agent`, by name, in the script's own words. */
  readonly sim: readonly Option[];
  readonly agent: readonly Option[];
  readonly releases: readonly ReleaseSource[];
  readonly acts: readonly Act[];
  readonly expectations: readonly Expectation[];
}

/** `true` for a switch. */
export interface Option {
  readonly name: string;
  readonly value: string;
}

/** Folders of apps/, laid one over the other; labels for the image. */
export interface ReleaseSource {
  readonly name: string;
  readonly folders: readonly string[];
  readonly labels: readonly Option[];
}

export interface Act {
  readonly line: number;
  /** As it is written, for whoever watches. */
  readonly text: string;
  readonly when: When;
  readonly deed: Deed;
}

/** What a drone's update comes to, in order. */
export const EVENTS = ['warming', 'warm', 'releasing', 'owner', 'committed', 'updated', 'failed'] as const;
export type EventName = (typeof EVENTS)[number];

export type When =
  | { readonly type: 'at'; readonly ms: number }
  /** On each drone by itself, the first time. */
  | {
      readonly type: 'on';
      readonly release: string;
      readonly event: EventName;
      readonly afterMs: number;
    };

export type Deed =
  | { readonly type: 'takeoff'; readonly upM: number }
  | {
      readonly type: 'waypoint';
      readonly northM: number;
      readonly eastM: number;
      readonly upM: number;
      readonly speedMS: number;
    }
  | { readonly type: 'circle'; readonly radiusM: number; readonly speedMS: number }
  | { readonly type: 'hover' }
  | { readonly type: 'land' }
  /** A git push, in flight. */
  | { readonly type: 'push'; readonly release: string }
  /** Of a release that was pushed before the start. */
  | { readonly type: 'update'; readonly release: string }
  | { readonly type: 'fault'; readonly fault: Fault }
  | { readonly type: 'end' };

export const SIGNALS = ['kill', 'stop', 'freeze'] as const;
/** Those of the process itself, at a message of its own. */
export const FROM_INSIDE = ['exit', 'close', 'flood', 'garbage'] as const;

/** A message of the handover protocol (docs/handover-protocol.md), as the target hears or sends it. */
export interface Moment {
  readonly way: 'hear' | 'send';
  readonly type: string;
  readonly resource?: string;
}

export type Fault =
  | {
      readonly type: 'process';
      readonly how: (typeof SIGNALS)[number] | (typeof FROM_INSIDE)[number];
      /** A release, or `agent`. */
      readonly target: string;
      readonly moment?: Moment;
      /** Then it goes on, or is started again. */
      readonly forMs?: number;
    }
  | { readonly type: 'battery'; readonly percent: number }
  | { readonly type: 'cut'; readonly forMs?: number };

export const COMPARISONS = ['=', '<=', '>=', '<', '>'] as const;
export type Comparison = (typeof COMPARISONS)[number];

/** What can be expected, by name: its dimension, and what is meant. */
export const FIGURES = {
  owner: { dimension: 'word', meaning: 'who flies at the end: a release, or nobody' },
  update: { dimension: 'word', meaning: 'how the last update ended: done, failed or none' },
  failure: { dimension: 'word', meaning: 'the code of the failure, for instance TIMEOUT' },
  landed: { dimension: 'word', meaning: 'whether it stands on the ground at the end: yes or no' },
  crashed: { dimension: 'word', meaning: 'whether it hit the ground: yes or no' },
  handovers: { dimension: 'count', meaning: "changes of the rotors' hands" },
  gap: { dimension: 'time', meaning: 'largest time without a command, around changes of hands' },
  missed: { dimension: 'count', meaning: 'control cycles without a command, around changes of hands' },
  stale: { dimension: 'count', meaning: 'commands of a former owner' },
  doubled: { dimension: 'count', meaning: 'second answers to one IMU sample' },
  failsafes: { dimension: 'count', meaning: 'how often the flight controller had to act by itself' },
  tilt: { dimension: 'angle', meaning: 'largest tilt from level, in the whole flight' },
  'height-error': { dimension: 'length', meaning: 'largest error of height, around changes of hands' },
  height: { dimension: 'length', meaning: 'above the ground, at the end' },
  off: { dimension: 'length', meaning: 'from the last waypoint, at the end' },
  battery: { dimension: 'share', meaning: 'at the end' },
  'frames-lost': { dimension: 'count', meaning: 'camera frames that the control panel did not get' },
  'frames-repeated': { dimension: 'count', meaning: 'camera frames that it got twice' },
  'sockets-closed': { dimension: 'count', meaning: 'control panels that lost their connection' },
} as const satisfies Record<string, { dimension: string; meaning: string }>;
export type FigureName = keyof typeof FIGURES;
export const FIGURE_NAMES = Object.keys(FIGURES) as FigureName[];

export interface Expectation {
  readonly line: number;
  readonly text: string;
  readonly figure: FigureName;
  readonly comparison: Comparison;
  /** ms, m, degrees, percent, a count; or a word. */
  readonly value: number | string;
}

export interface Problem {
  /** Both from 1. */
  readonly line: number;
  readonly column: number;
  readonly length: number;
  readonly text: string;
}

export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
  readonly code = 'SCENARIO';
  readonly problems: readonly Problem[];

  /** @param source the whole script, for the lines that are shown */
  constructor(file: string, source: string, problems: readonly Problem[]) {
    const lines = source.split('\n');
    const shown = problems.map(({ line, column, length, text }) => {
      const code = (lines[line - 1] ?? '').replaceAll(/[\t\r]/g, ' ');
      const caret = `${' '.repeat(column - 1)}${'^'.repeat(Math.max(1, length))}`;
      return `${file}:${line}:${column}: ${text}\n  ${code}\n  ${caret}`;
    });
    super(shown.join('\n'));
    this.problems = problems;
  }
}
