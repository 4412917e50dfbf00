/** `npm run bench -- sim-fly [--json]`: how many simulated drones this machine flies on time, in all and per core. */
import { parseArgs } from 'node:util';
import { realtime } from './sim/realtime.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const result = await realtime((text) => process.stderr.write(`${text}\n`));
const { drones, cores, dronesPerCore, lateTicksShare, stealShare } = result;
process.stdout.write(
  `${drones} drones in real time on ${cores} cores, ${dronesPerCore.toFixed(1)} per core: ` +
    `${(lateTicksShare * 100).toFixed(2)} % of the boards' ticks late; the host took ${(stealShare * 100).toFixed(1)} %\n`,
);
if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
