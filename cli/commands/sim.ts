/** `midair sim`: a simulated drone: physics, flight-controller board on a pty, camera, judge. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';
import { simFlyCommand } from '#cli/commands/sim-fly.ts';

interface Flags {
  dir?: string;
  port: number;
  seed: number;
  camera: boolean;
  signingKey?: string;
}

export function simCommand(): Command {
  const sim: Command = new Command('sim')
    .description(
      'A simulated quadrotor: MAVLink 2 on a pty at 250 Hz, two cameras, and a judge of what arrives.',
    )
    // Not mandatory for commander: it would be for subcommands, too.
    .addOption(new Option('--dir <path>', 'where rotors (pty) and camera (socket) appear').env('MIDAIR_DIR'))
    .addOption(
      new Option('--port <number>', 'of state, judge and trace on 127.0.0.1; 0: a free one')
        .argParser(integer)
        .default(0),
    )
    .addOption(new Option('--seed <number>', 'decides all noise and biases').argParser(integer).default(1))
    .option('--no-camera', 'without the camera')
    .addOption(
      new Option(
        '--signing-key <file>',
        '32 bytes as hex or base64: the board signs, and hears only what is signed',
      ).env('MIDAIR_SIGNING_KEY'),
    )
    .addHelpText(
      'after',
      `
Prints one JSON line when it is ready: paths of the rotors and the camera, and the judge's URL.

Example:
  $ midair sim --dir /tmp/drone
  $ curl http://127.0.0.1:PORT/state`,
    )
    .action(async (flags: Flags) => {
      if (flags.dir === undefined) sim.error("error: required option '--dir <path>' not specified");
      const { run } = await import('#device-sim/main.ts');
      await run({
        dir: resolve(flags.dir),
        port: flags.port,
        seed: flags.seed,
        camera: flags.camera,
        ...(flags.signingKey === undefined ? {} : { signingKey: resolve(flags.signingKey) }),
      });
    });
  return sim.addCommand(simFlyCommand());
}
