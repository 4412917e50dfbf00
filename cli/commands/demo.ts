/** `midair demo`: the whole path on this machine, in one terminal. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';

export function demoCommand(): Command {
  return new Command('demo')
    .description(
      'Starts a hub, a simulated drone and its agent; pushes V1, flies, pushes V2 and updates it in flight.',
    )
    .option('--exit', 'end after the update; status 0 only if all promises held')
    .option('--json', 'print one JSON object as the last line')
    .addOption(
      new Option('--panel-port <port>', 'of the control panel, if it is free; 0: any')
        .argParser(integer)
        .default(8600),
    )
    .option('--svg <path>', 'where the gyro trace is written (default: beside the logs)')
    .addHelpText(
      'after',
      `
Needs root or a Docker engine at /var/run/docker.sock (or DOCKER_HOST). Keeps flying until Ctrl-C, then
removes everything that it started; logs and the picture stay.

Examples:
  $ npm run demo
  $ npm run demo -- --exit --json`,
    )
    .action(async (flags: { exit?: true; json?: true; svg?: string; panelPort: number }) => {
      const { runDemo } = await import('#cli/demo/main.ts');
      const { svg, panelPort } = flags;
      process.exitCode = await runDemo({
        exit: flags.exit === true,
        json: flags.json === true,
        svg: svg === undefined ? undefined : resolve(svg),
        panelPort,
      });
    });
}
