/**
 * Which faults are done at which step of a handover, and what the failure matrix (docs/handover-protocol.md) says of each.
 * Pure.
 */
export type Who = 'v1' | 'v2' | 'agent';
export const FAULTS = ['SIGKILL', 'SIGSTOP', 'exit', 'close', 'flood', 'garbage'] as const;
export type Fault = (typeof FAULTS)[number];

export interface Step {
  readonly way: 'send' | 'hear';
  readonly type: string;
  readonly resource?: string;
  readonly role?: string;
  /** How far the handover is. `cold`: nobody could take over yet. */
  readonly stage: 'cold' | 'warm' | 'transfer' | 'rotors' | 'probation' | 'committed';
}
/** Who flies in the end; `failsafe`: the controller acted by itself, because nobody commanded for 200 ms. */
export type Result = 'v1' | 'v2' | 'failsafe';
export interface Row {
  readonly who: Who;
  readonly fault: Fault;
  readonly step: Step;
  readonly expected: readonly Result[];
}

const at = (
  stage: Step['stage'],
  way: Step['way'],
  type: string,
  resource?: string,
  role?: string,
): Step => ({
  way,
  type,
  stage,
  ...(resource === undefined ? {} : { resource }),
  ...(role === undefined ? {} : { role }),
});

export const STEPS: Readonly<Record<Who, readonly Step[]>> = {
  v1: [
    at('cold', 'hear', 'SHADOW', undefined, 'source'),
    at('transfer', 'hear', 'RELEASE', 'camera'),
    at('transfer', 'send', 'RELEASED', 'camera'),
    at('transfer', 'hear', 'RELEASE', 'listener'),
    at('transfer', 'send', 'RELEASED', 'connections'),
    at('rotors', 'hear', 'RELEASE', 'rotors'),
    at('probation', 'send', 'RELEASED', 'rotors'),
    at('probation', 'hear', 'SHADOW', undefined, 'shadow'),
    at('committed', 'hear', 'COMMIT'),
    at('committed', 'send', 'RETIRE'),
  ],
  v2: [
    at('cold', 'send', 'HELLO'),
    at('cold', 'hear', 'OFFER'),
    at('cold', 'hear', 'SHADOW', undefined, 'shadow'),
    at('warm', 'send', 'READY'),
    at('warm', 'hear', 'PREPARE'),
    at('transfer', 'hear', 'GRANT', 'camera'),
    at('transfer', 'send', 'GRANTED', 'camera'),
    at('transfer', 'hear', 'GRANT', 'connections'),
    at('rotors', 'hear', 'GRANT', 'rotors'),
    at('probation', 'send', 'GRANTED', 'rotors'),
    at('probation', 'hear', 'SHADOW', undefined, 'source'),
    at('committed', 'hear', 'COMMIT'),
  ],
  agent: [
    at('cold', 'hear', 'HELLO'),
    at('cold', 'send', 'OFFER'),
    at('cold', 'send', 'SHADOW', undefined, 'shadow'),
    at('warm', 'hear', 'READY'),
    at('warm', 'send', 'PREPARE'),
    at('transfer', 'send', 'RELEASE', 'camera'),
    at('transfer', 'hear', 'RELEASED', 'camera'),
    at('transfer', 'send', 'GRANT', 'connections'),
    at('rotors', 'send', 'RELEASE', 'rotors'),
    at('rotors', 'hear', 'RELEASED', 'rotors'),
    at('rotors', 'send', 'GRANT', 'rotors'),
    at('probation', 'hear', 'GRANTED', 'rotors'),
    at('probation', 'send', 'SHADOW', undefined, 'source'),
    at('committed', 'send', 'COMMIT'),
  ],
};

/** The failure matrix. */
export const expected = (who: Who, fault: Fault, { stage }: Step): Result[] => {
  const dies = fault === 'SIGKILL' || fault === 'exit';
  switch (who) {
    case 'v1':
      // It says too much, and nothing wrong.
      if (fault === 'flood') return ['v2', 'v1'];
      // Nobody is warm: dead or silent, the controller's failsafe is what there is. With its connection gone it flies on.
      if (stage === 'cold') return dies || fault === 'SIGSTOP' ? ['failsafe'] : ['v2', 'v1'];
      return ['v2'];
    case 'v2':
      if (stage === 'committed')
        return dies ? ['v1', 'failsafe'] : fault === 'SIGSTOP' ? ['failsafe', 'v1'] : ['v2'];
      return fault === 'flood' ? ['v2', 'v1'] : ['v1'];
    case 'agent': {
      const restarts = dies || fault === 'SIGSTOP';
      // Between the rotors' RELEASED and their GRANT nobody holds them, and the one who would grant them is away.
      const between = restarts && stage === 'rotors';
      // The prior flies on or gets everything back, and the update, which is not to blame, is tried again.
      return stage === 'committed' ? ['v2'] : between ? ['v1', 'v2', 'failsafe'] : ['v1', 'v2'];
    }
  }
};

export const rows = (): Row[] =>
  (['v1', 'v2', 'agent'] as const).flatMap((who) =>
    FAULTS.flatMap((fault) =>
      STEPS[who].map((step) => ({ who, fault, step, expected: expected(who, fault, step) })),
    ),
  );

export const stepName = ({ way, type, resource, role }: Step): string =>
  [way === 'send' ? 'sent' : 'heard', type, resource ?? role ?? ''].join(' ').trim();
export const rowName = ({ who, fault, step }: Row): string =>
  `${who}/${fault}/${stepName(step).replaceAll(' ', '-')}`;
