/** `midair sim`: a simulated drone: physics, flight-controller board on a pty, camera, judge. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { type Address, address, integer } from '#cli/commands/arguments.ts';

interface Flags {
  dir: string;
  http: Address;
  seed: number;
  logLevel: string;
}

export function simCommand(): Command {
  return new Command('sim')
    .description('A simulated quadrotor: MAVLink 2 on a pty at 250 Hz, two cameras, and a judge of what arrives.')
    .addOption(new Option('--dir <path>', 'its devices: rotors (pty), camera (socket)').env('MIDAIR_DIR').makeOptionMandatory())
    .addOption(
      new Option('--http <host:port>', 'state, judge and trace; port 0: a free one')
        .argParser(address)
        .default({ host: '127.0.0.1', port: 0 }, '127.0.0.1:0'),
    )
    .addOption(new Option('--seed <number>', 'of noise and wind').argParser(integer).default(1))
    .addOption(new Option('--log-level <level>', 'debug, info, warn or error').env('MIDAIR_LOG_LEVEL').default('info'))
    .addHelpText(
      'after',
      `
Prints one JSON line when it is ready: paths of the rotors and the camera, and the judge's URL.

Example:
  $ midair sim --dir /tmp/drone
  $ curl http://127.0.0.1:PORT/state`,
    )
    .action(async (flags: Flags) => {
      const { run } = await import('#device-sim/main.ts');
      await run({ directory: resolve(flags.dir), http: flags.http, seed: flags.seed, logLevel: flags.logLevel });
    });
}
