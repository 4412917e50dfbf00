/**
 * `npm run bench -- delta-memory [--mb N]… [--json]`: how far applying a delta raises a process's memory, for the same kind of change in
 * images of several lengths (default 300 and 3000 MB), by the kernel's own figure, in a process as the agent and the hub start it.
 *
 * Making the two deltas takes minutes; the images themselves are made as they are read and take no disk.
 */
import { commandLine } from '#scripts/command-line.ts';
import { memoryOf } from './deltas/memory.ts';

const { values, number } = commandLine('usage: npm run bench -- delta-memory [--mb N]… [--json]', {
  options: {
    mb: { type: 'string', multiple: true, default: ['300', '3000'] },
    json: { type: 'boolean', default: false },
  },
});
const sizes = values.mb.map((mb) => number('mb', mb, 1, 4_096));
const rows = [];
for (const mb of sizes) {
  rows.push(await memoryOf(mb * 1e6));
  process.stderr.write(`${mb} MB: done\n`);
}
if (values.json) {
  console.log(JSON.stringify({ bench: 'delta-memory', node: process.version, rows }));
} else {
  const line = (cells: string[]): string => cells.map((cell) => cell.padStart(13)).join('');
  console.log(line(['image MB', 'delta kB', 'MiB over base', 'core s', 'MB/s a core', 'seconds']));
  for (const { outputBytes, deltaBytes, memoryBytes = 0, cpuMs, ms } of rows) {
    console.log(
      line([
        (outputBytes / 1e6).toFixed(0),
        (deltaBytes / 1e3).toFixed(1),
        (memoryBytes / 1024 ** 2).toFixed(1),
        (cpuMs / 1e3).toFixed(2),
        (outputBytes / 1e3 / cpuMs).toFixed(0),
        (ms / 1e3).toFixed(2),
      ]),
    );
  }
}
