/** `midair hub`: git receive, build, store, broker and API in one process. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { type Address, address, DEFAULT_ENGINE, engineUrl, name } from '#cli/commands/arguments.ts';

interface Flags {
  dir: string;
  http: Address;
  mqtt: Address;
  engine: string;
  fleet: string;
  logLevel: string;
}

export function hubCommand(): Command {
  const option = (flags: string, text: string, env: string) => new Option(flags, text).env(env);
  const listen = (flags: string, text: string, env: string, port: number) =>
    option(flags, text, env).argParser(address).default({ host: '127.0.0.1', port }, `127.0.0.1:${port}`);
  return new Command('hub')
    .description('Receives git pushes, builds them, and tells the fleet what to fly.')
    .addOption(option('--dir <path>', 'everything that the hub keeps', 'MIDAIR_DIR').makeOptionMandatory())
    .addOption(
      listen('--http <host:port>', 'git, API and status page; port 0: a free one', 'MIDAIR_HTTP', 8420),
    )
    .addOption(listen('--mqtt <host:port>', 'the devices’ broker; port 0: a free one', 'MIDAIR_MQTT', 1883))
    .addOption(
      option('--engine <url>', 'Docker engine that builds', 'DOCKER_HOST')
        .argParser(engineUrl)
        .default(DEFAULT_ENGINE),
    )
    .addOption(
      option('--fleet <name>', 'the fleet that it serves', 'MIDAIR_FLEET').argParser(name).default('fleet'),
    )
    .addOption(
      option('--log-level <level>', 'debug, info, warn or error', 'MIDAIR_LOG_LEVEL').default('info'),
    )
    .addHelpText(
      'after',
      `
Prints one JSON line when it is ready; its log goes to standard error.

Example:
  $ midair hub --dir /var/lib/midair-hub
  $ git push http://127.0.0.1:8420/git/hover.git HEAD:main     (in the app's repository)`,
    )
    .action(async (flags: Flags) => {
      const { run } = await import('#fleet/main.ts');
      await run({
        dir: resolve(flags.dir),
        http: text(flags.http),
        mqtt: text(flags.mqtt),
        engine: flags.engine,
        fleet: flags.fleet,
        logLevel: flags.logLevel,
      });
    });
}

const text = ({ host, port }: Address) => `${host}:${port}`;
