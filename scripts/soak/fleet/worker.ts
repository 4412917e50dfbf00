/** A thread of the soak: seeds in, verdicts out. */
import { parentPort } from 'node:worker_threads';
import type { Mutant } from '#test/virtual/mutants.ts';
import { run } from '#test/virtual/run.ts';
import { type StoryOptions, storyOf } from '#test/virtual/story.ts';

const port = parentPort;
if (port === null) throw new Error('this is a part of scripts/soak/fleet.ts');
port.on('message', ({ seed, options, mutant }: { seed: number; options: StoryOptions; mutant: Mutant }) => {
  try {
    port.postMessage(run(storyOf(seed, options), { mutant }));
  } catch (cause) {
    throw new Error(`seed ${seed} could not be run`, { cause });
  }
});
