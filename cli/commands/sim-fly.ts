/** `midair sim fly`: a scenario, flown for real on this machine. */
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';

interface Flags {
  scenario: string;
  drones?: number;
  json?: true;
  out?: string;
}

const DRONES_MAX = 16;

const drones = (value: string): number => {
  const count = integer(value);
  if (count < 1 || count > DRONES_MAX) throw new InvalidArgumentError(`expected 1 to ${DRONES_MAX}`);
  return count;
};

export function simFlyCommand(): Command {
  return new Command('fly')
    .description(
      'Flies a scenario: real time, real agents, real engine; judges each drone, leaves a record and pictures.',
    )
    .addOption(new Option('--scenario <file>', 'the script (docs/scenarios.md)').makeOptionMandatory())
    .addOption(
      new Option('--drones <number>', "how many; default: the script's own number, or 1").argParser(drones),
    )
    .option('--out <path>', 'where records (MCAP), pictures (SVG, PNG) and report.json are copied')
    .option('--json', 'one JSON object a line while it flies, the report last')
    .addHelpText(
      'after',
      `
Status 0: every expectation of the script held on every drone; 1: not; 2: the script cannot be read.
Needs root or a Docker engine at /var/run/docker.sock (or DOCKER_HOST).

Examples:
  $ midair sim fly --scenario scenarios/waypoint-update.scenario
  $ midair sim fly --scenario scenarios/takeoff-update.scenario --drones 2 --out /tmp/flight --json`,
    )
    .action(async (flags: Flags) => {
      const { runFly } = await import('#cli/fly/main.ts');
      process.exitCode = await runFly({
        scenario: flags.scenario,
        drones: flags.drones,
        json: flags.json === true,
        out: flags.out === undefined ? undefined : resolve(flags.out),
      });
    });
}
