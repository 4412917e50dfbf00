/** `midair gate`: the rotor gate by hand: under a service manager, in the place of one that runs, or what it has counted. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';

interface Flags {
  socket: string;
  tty: string;
  baud: number;
  stats: boolean;
  logLevel: string;
}

export function gateCommand(): Command {
  const option = (flags: string, text: string, env: string) => new Option(flags, text).env(env);
  return new Command('gate')
    .description(
      "Holds the flight controller's serial device, and writes only what comes by the channel of the last epoch.",
    )
    .addOption(
      option(
        '--socket <path>',
        'where the agent finds it: gate/control.sock in its directory',
        'MIDAIR_GATE_SOCKET',
      ).makeOptionMandatory(),
    )
    .addOption(
      option('--tty <path>', 'serial device of the flight controller', 'MIDAIR_ROTORS').default(
        '/dev/ttyACM0',
      ),
    )
    .addOption(option('--baud <rate>', 'its rate', 'MIDAIR_BAUD').argParser(integer).default(921_600))
    .option('--stats', 'print what the gate that runs has counted, as JSON, and end', false)
    .addOption(
      option('--log-level <level>', 'debug, info, warn or error', 'MIDAIR_LOG_LEVEL').default('info'),
    )
    .addHelpText(
      'after',
      `
An agent with --gate starts one by itself. If one runs at the socket, this one takes over from it, in flight: that is how
a gate is updated. Prints one JSON line when it has the device; its log goes to standard error.

Example:
  $ midair gate --socket /var/lib/midair/gate/control.sock --tty /dev/ttyACM0`,
    )
    .action(async (flags: Flags) => {
      const socket = resolve(flags.socket);
      if (flags.stats) {
        const { gateStats } = await import('#agent/gate/client.ts');
        process.stdout.write(`${JSON.stringify(await gateStats(socket))}\n`);
        return;
      }
      const { run } = await import('#agent/gate/main.ts');
      await run({ socket, tty: resolve(flags.tty), baud: flags.baud, logLevel: flags.logLevel });
    });
}
