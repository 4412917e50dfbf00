/**
 * `npm run bench -- faults`: every fault, in V1, V2 and the agent, at every step
 * of a handover in flight, on the real engine; each beside what the failure matrix says. Eight to sixteen seconds a row.
 * Status 1 if a row came out otherwise.
 */
import { writeFileSync } from 'node:fs';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { table } from '#cli/text.ts';
import { commandLine } from '#scripts/command-line.ts';
import { FaultLab, type Seen } from '#test/faults/lab.ts';
import { rowName, rows, stepName } from '#test/faults/rows.ts';

const USAGE = `usage: npm run bench -- faults [options]

  --only TEXT      only rows whose name holds it; several times: any of them
  --gate           the strict rotor gate between app and tty
  --trace          the agent's events of each row
  --markdown FILE  the table of docs/fault-matrix.md
  --json           one JSON object, at the end
`;
const { values, refuse } = commandLine(USAGE, {
  options: {
    only: { type: 'string', multiple: true, default: [''] },
    gate: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    markdown: { type: 'string' },
  },
});
const chosen = rows().filter((row) => values.only.some((text) => rowName(row).includes(text)));
if (chosen.length === 0) {
  refuse(
    `no row's name holds "${values.only.join('" or "')}"; there is, for one, ${rows().slice(0, 3).map(rowName).join(', ')}`,
  );
}
const say = (text: string) => process.stderr.write(`${text}\n`);
const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
}
const scope = new Scope();
const directory = await createRunDirectory();
const seen: Seen[] = [];
try {
  const world = new World({
    scope,
    directory,
    signal: interrupt.signal,
    device: `faults-${process.pid}`,
    gate: values.gate,
  });
  say('preparing: engines, base image, hub, drone, agent; V1 and V2 with the fault hook in them');
  await world.openEngines(say);
  await world.loadBase();
  const lab = new FaultLab(world);
  await lab.open();
  for (const [at, row] of chosen.entries()) {
    const one = await lab.fly(row);
    seen.push(one);
    const { judged, result, held, done } = one;
    if (values.trace) for (const line of one.events) say(`    ${line}`);
    say(
      `${String(at + 1).padStart(3)}/${chosen.length} ${held ? 'ok  ' : 'FAIL'} ${rowName(row)}: ${done ? result : 'the step did not come'}` +
        `, gap ${judged.gapMsMax?.toFixed(1) ?? '–'} ms, tilt ${judged.attitudeDegMax?.toFixed(2) ?? '–'}°, stale ${judged.stale}` +
        (held ? '' : `, expected ${row.expected.join(' or ')}; ${one.told}`),
    );
  }
} catch (error) {
  say(`bench faults: ${(error as Error).message}\nlogs: ${directory}/logs`);
  process.exitCode = 1;
}
for (const error of await scope.close()) {
  say(error.message);
  process.exitCode = 1;
}
await endLeftovers(directory);
if (seen.every(({ held }) => held)) emptyRunDirectory(directory);
else process.exitCode = 1;

const HEAD = ['who', 'fault', 'at', 'flies in the end', 'expected', 'gap ms', 'tilt °', 'stale, doubled', ''];
const lines = seen.map(({ row, result, held, judged }) => [
  row.who,
  row.fault,
  stepName(row.step),
  result,
  row.expected.join(' or '),
  judged.gapMsMax?.toFixed(1) ?? '–',
  judged.attitudeDegMax?.toFixed(2) ?? '–',
  `${judged.stale}, ${judged.doubled}`,
  held ? 'ok' : 'FAIL',
]);
process.stdout.write(table(HEAD, lines));
process.stdout.write(
  `\n${seen.filter(({ held }) => held).length} of ${seen.length} rows as the failure matrix says\n`,
);
if (values.json) process.stdout.write(`${JSON.stringify(seen)}\n`);
if (values.markdown !== undefined) {
  const rule = HEAD.map(() => '---');
  const text = [HEAD, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  writeFileSync(
    values.markdown,
    `# Fault matrix, as flown\n\n\`npm run bench -- faults --markdown FILE\` writes this table.\n\n${text}\n`,
  );
}
