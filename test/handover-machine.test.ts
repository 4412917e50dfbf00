import { expect, test } from 'vitest';
import type { Resource } from '#handover/messages.ts';
import { explore, type Left, MUTANTS } from '#test/explore.ts';

const none: Left = { crash: 0, hang: 0, agent: 0, abort: 0, update: 0, locked: 0 };

/** Half a minute each, alone on a machine. */
const EXPLORED_MS_MAX = 300_000;

test.each<[string, Resource[], Left]>([
  ['two faults of the apps', ['connections', 'rotors'], { ...none, crash: 1, hang: 1 }],
  [
    'a crash, the agent’s crash, an abort',
    ['connections', 'rotors'],
    { ...none, crash: 1, agent: 1, abort: 1 },
  ],
  [
    'a hang, the agent’s crash, a held lock',
    ['connections', 'rotors'],
    { ...none, hang: 1, agent: 1, locked: 1 },
  ],
  ['two crashes and an abort', ['connections', 'rotors'], { ...none, crash: 2, abort: 1 }],
  ['two updates and a crash', ['rotors'], { ...none, crash: 1, update: 1 }],
  ['two updates and the agent’s crash', ['rotors'], { ...none, agent: 1, update: 1 }],
  ['everything at once', ['rotors'], { crash: 1, hang: 1, agent: 1, abort: 1, update: 0, locked: 1 }],
  ['four resources, one fault', ['camera', 'listener', 'connections', 'rotors'], { ...none, crash: 1 }],
])(
  'no interleaving has two owners, a dead end, or nobody without a failsafe: %s',
  (name, resources, left) => {
    const found = explore(resources, left);
    console.log(
      `explored ${found.states} states, ${found.ends} ends: ${name}; phases ${found.phases.join(' ')}`,
    );
    expect(found.violation, found.trace.join('\n')).toBeNull();
    expect(found.phases).toContain('committed');
  },
  EXPLORED_MS_MAX,
);

test.each(MUTANTS)(
  'the exploration finds the planted fault: %s',
  (mutant) => {
    const left =
      mutant === 'any-epoch' ? { ...none, agent: 1, update: 1 } : { ...none, crash: 1, hang: 1, agent: 1 };
    const found = explore(['rotors'], left, mutant);
    console.log(`${mutant}: ${found.violation}\n  ${found.trace.slice(0, -1).join('\n  ')}`);
    expect(found.violation).toMatch(/two owners|stale epoch|lacks|is dead|stuck|nobody/);
  },
  EXPLORED_MS_MAX,
);
