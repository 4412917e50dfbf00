/** `midair sim`: a simulated drone: physics, flight-controller board on a pty, camera, judge. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';
import { simFlyCommand } from '#cli/commands/sim-fly.ts';
import { simJsonCommand } from '#cli/commands/sim-json.ts';
import { BOARDS, type BoardName } from '#device-sim/boards/profile.ts';

interface Flags {
  /** Not mandatory for commander, which would ask subcommands for it too. */
  dir?: string;
  port: number;
  seed: number;
  airframe: string;
  wind?: string;
  board: BoardName;
  baud?: number;
  camera: boolean;
  signingKey?: string;
}

export function simCommand(): Command {
  const command: Command = new Command('sim')
    // What stands behind a subcommand is its own, the port above all.
    .enablePositionalOptions()
    .addCommand(simFlyCommand())
    .addCommand(simJsonCommand())
    .description(
      'A simulated quadrotor: MAVLink 2 on a pty at 250 Hz, two cameras, and a judge of what arrives.',
    )
    .addOption(new Option('--dir <path>', 'where rotors (pty) and camera (socket) appear').env('MIDAIR_DIR'))
    .addOption(
      new Option('--port <number>', 'of state, judge and trace on 127.0.0.1; 0: a free one')
        .argParser(integer)
        .default(0),
    )
    .addOption(new Option('--seed <number>', 'decides all noise and biases').argParser(integer).default(1))
    .option(
      '--airframe <name>',
      'whose masses and motors: sih (PX4 SIH), x500 (Gazebo), crazyflie, hummingbird, or a file FILE.json',
      'sih',
    )
    .option(
      '--wind <speed,from,turbulence,gust>',
      'm/s; degrees it comes from; none, light, moderate or severe (MIL-F-8785C); m/s of gusts on top',
    )
    .addOption(
      new Option('--board <kind>', 'flight controller: motor commands from the app, offboard, or GUIDED')
        .choices(BOARDS)
        .default('direct'),
    )
    .addOption(
      new Option('--baud <number>', 'of the wire to the board; left out, it is as fast as the pty').argParser(
        integer,
      ),
    )
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
  $ midair sim --dir /tmp/drone --board px4 --baud 921600
  $ midair sim --dir /tmp/drone --wind 5,270,light
  $ curl http://127.0.0.1:PORT/state`,
    )
    .action(async (flags: Flags) => {
      if (flags.dir === undefined)
        return command.error("error: required option '--dir <path>' not specified");
      const { run } = await import('#device-sim/main.ts');
      const { parseWind } = await import('#device-sim/options.ts');
      await run({
        dir: resolve(flags.dir),
        port: flags.port,
        seed: flags.seed,
        airframe: flags.airframe,
        ...(flags.wind === undefined ? {} : { wind: parseWind(flags.wind) }),
        board: flags.board,
        ...(flags.baud === undefined ? {} : { baud: flags.baud }),
        camera: flags.camera,
        ...(flags.signingKey === undefined ? {} : { signingKey: resolve(flags.signingKey) }),
      });
    });
  return command;
}
