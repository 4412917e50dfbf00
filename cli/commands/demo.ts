/** `midair demo`: the whole path on this machine, in one terminal. */
import { Command } from 'commander';

export function demoCommand(): Command {
  return new Command('demo')
    .description(
      'Starts a hub, a simulated drone and its agent; pushes V1, flies, pushes V2 and updates it in flight.',
    )
    .option('--exit', 'end after the update; status 0 only if all promises held')
    .option('--json', 'print one JSON object as the last line')
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
    .action(async (flags: { exit?: true; json?: true; svg?: string }) => {
      const { runDemo } = await import('#cli/demo/main.ts');
      process.exitCode = await runDemo({
        exit: flags.exit === true,
        json: flags.json === true,
        svg: flags.svg,
      });
    });
}
