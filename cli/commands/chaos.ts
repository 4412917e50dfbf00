/** `midair chaos`: failures on purpose, in test devices only, bounded and always undone. */
import { dirname, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { FAILURES, milliseconds, WAYS } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import {
  type Address,
  address,
  DEFAULT_ENGINE,
  engineUrl,
  httpUrl,
  integer,
  mqttUrl,
  name,
} from '#cli/commands/arguments.ts';

const DEFAULT_DIRECTORY = './chaos';

const time = (text: string): number => {
  try {
    return milliseconds(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
};
const number = (text: string): number => {
  if (!/^\d{1,6}(\.\d{1,6})?$/.test(text)) throw new InvalidArgumentError('expected a number');
  return Number(text);
};
const bytes = (text: string): number => {
  const [, count, unit = ''] = /^(\d{1,9})([km]?)$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError('expected bytes such as 4096, 64k or 1m');
  return Number(count) * (unit === 'm' ? 2 ** 20 : unit === 'k' ? 2 ** 10 : 1);
};

interface Place {
  dir: string;
  chaos?: string;
  json?: true;
}
/** Where the injector is; every command but `serve` and `link` has these. */
const placed = (command: Command): Command =>
  command
    .addOption(
      new Option('--dir <path>', "the injector's directory")
        .env('MIDAIR_CHAOS_DIR')
        .default(DEFAULT_DIRECTORY),
    )
    .addOption(new Option('--chaos <url>', 'the injector, by its URL').env('MIDAIR_CHAOS').argParser(httpUrl))
    .option('--json', 'as the API gives it');

const clientOf = async ({ chaos, dir }: Place) => {
  const { ChaosClient } = await import('#cli/chaos/client.ts');
  return chaos === undefined ? ChaosClient.of(resolve(dir)) : new ChaosClient(chaos);
};
const print = (text: string): void => void process.stdout.write(text);
const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`);

function serveCommand(): Command {
  return new Command('serve')
    .description(
      'Runs the injector: its HTTP API, and a watchdog beside it that undoes everything if it dies.',
    )
    .addOption(
      new Option('--dir <path>', 'its ledger; on another disk than those that are to be filled')
        .env('MIDAIR_CHAOS_DIR')
        .default(DEFAULT_DIRECTORY),
    )
    .option(
      '--watch <path...>',
      "where the directories of marked agents, hubs, drones and links are, at most two levels below; default: --dir's parent",
    )
    .addOption(
      new Option('--engine <url>', 'Docker engine')
        .env('DOCKER_HOST')
        .argParser(engineUrl)
        .default(DEFAULT_ENGINE),
    )
    .addOption(
      new Option('--http <host:port>', 'where the API listens, on this machine; 0 takes a free port')
        .argParser(address)
        .default({ host: '127.0.0.1', port: 0 }, '127.0.0.1:0'),
    )
    .addOption(new Option('--log-level <level>', 'debug, info, warn or error').default('info'))
    .addHelpText('after', '\nExample:\n  $ midair chaos serve --dir ./chaos --watch ./drones')
    .action(
      async (flags: { dir: string; watch?: string[]; engine: string; http: Address; logLevel: string }) => {
        const { run } = await import('#cli/chaos/serve.ts');
        const directory = resolve(flags.dir);
        await run({
          directory,
          watch: (flags.watch ?? [dirname(directory)]).map((one) => resolve(one)),
          engineUrl: flags.engine,
          http: flags.http,
          logLevel: flags.logLevel,
        });
      },
    );
}

function linkCommand(): Command {
  return new Command('link')
    .description(
      "Carries a test device's bytes to its hub and back, so that latency, loss and partition can be done to them.",
    )
    .requiredOption('--dir <path>', 'its door and its mark; below what midair chaos serve watches')
    .addOption(new Option('--device <name>', 'whose it is').argParser(name).makeOptionMandatory())
    .addOption(
      new Option('--hub <url>', "the hub's own, on this machine").argParser(httpUrl).makeOptionMandatory(),
    )
    .addOption(new Option('--mqtt <url>', "the broker's own").argParser(mqttUrl).makeOptionMandatory())
    .option(
      '--namespaces',
      'through two network namespaces, as root: loss and partition are then done to real packets by the kernel',
      false,
    )
    .addHelpText(
      'after',
      `
Prints one JSON line: the hub and mqtt addresses to give the agent instead.

Example:
  $ midair chaos link --dir ./drones/link --device drone-1 --hub http://127.0.0.1:8420 --mqtt mqtt://127.0.0.1:1883`,
    )
    .action(
      async (flags: { dir: string; device: string; hub: string; mqtt: string; namespaces: boolean }) => {
        const { run } = await import('#cli/chaos/wire/main.ts');
        const { dir: directory, ...rest } = flags;
        await run({ directory, ...rest });
      },
    );
}

interface CreateFlags extends Place {
  failure: (typeof FAILURES)[number];
  criteria: string;
  frequency: number;
  probability: number;
  duration: number;
  for: number;
  seed?: number;
  latency: number;
  jitter: number;
  loss: number;
  way: (typeof WAYS)[number];
  cores: number;
  floor: number;
}

function createCommand(): Command {
  return placed(new Command('create'))
    .description(
      'Begins an experiment: at each beat, with a chance, one of those that match gets the failure for a while.',
    )
    .addOption(new Option('--failure <kind>', 'what is to fail').choices(FAILURES).makeOptionMandatory())
    .option(
      '--criteria <list>',
      'whom: service=, app=, device=, release=, container=, role=owner|candidate|agent|hub|sim|link; with commas all must fit',
      '',
    )
    .addOption(new Option('--frequency <time>', 'a beat each').argParser(time).default(10_000, '10s'))
    .addOption(
      new Option('--probability <number>', 'of an injection at a beat').argParser(number).default(0.5),
    )
    .addOption(
      new Option('--duration <time>', 'of each injection')
        .argParser(time)
        .default(CHAOS.durationMsDefault, '2s'),
    )
    .addOption(
      new Option('--for <time>', 'until the experiment ends by itself')
        .argParser(time)
        .default(CHAOS.forMsDefault, '5m'),
    )
    .addOption(new Option('--seed <number>', 'of chance; without one, any').argParser(integer))
    .addOption(new Option('--latency <time>', 'with latency: each way').argParser(time).default(200, '200ms'))
    .addOption(new Option('--jitter <time>', 'with latency: more or less').argParser(time).default(0, '0ms'))
    .addOption(new Option('--loss <percent>', 'with loss').argParser(number).default(10))
    .addOption(new Option('--way <which>', 'with latency, loss, partition').choices(WAYS).default('both'))
    .addOption(new Option('--cores <count>', 'with cpu: busy loops').argParser(integer).default(1))
    .addOption(new Option('--floor <bytes>', 'with disk-full: left free').argParser(bytes).default(0))
    .addHelpText(
      'after',
      `
Examples:
  $ midair chaos create --failure pause --frequency 10s --probability 0.5 --criteria service=main,role=owner
  $ midair chaos create --failure partition --duration 20s --criteria device=drone-1 --for 10m`,
    )
    .action(async (flags: CreateFlags) => {
      const client = await clientOf(flags);
      const created = await client.create({
        failure: flags.failure,
        criteria: flags.criteria,
        frequencyMs: flags.frequency,
        probability: flags.probability,
        durationMs: flags.duration,
        forMs: flags.for,
        ...(flags.seed === undefined ? {} : { seed: flags.seed }),
        latencyMs: flags.latency,
        jitterMs: flags.jitter,
        lossPercent: flags.loss,
        way: flags.way,
        cores: flags.cores,
        floorBytes: flags.floor,
      });
      if (flags.json) return printJson(created);
      const { experiment, matches, notes } = created;
      print(`${experiment.id}: ${experiment.failure}, seed ${experiment.seed}, until ${experiment.until}\n`);
      if (matches.length === 0) print('nothing matches now; it is looked for again at each beat\n');
      for (const one of matches) print(`  may be harmed: ${one}\n`);
      for (const note of notes) print(`  note: ${note}\n`);
    });
}

function listCommand(): Command {
  return placed(new Command('list'))
    .description('Shows the experiments, running and ended.')
    .addHelpText('after', '\nExample:\n  $ midair chaos list --dir ./chaos')
    .action(async (flags: Place) => {
      const experiments = await (await clientOf(flags)).list();
      if (flags.json) return printJson({ experiments });
      const { listText } = await import('#cli/chaos/text.ts');
      print(listText(experiments, Date.now()));
    });
}

function stopCommand(): Command {
  return placed(new Command('stop'))
    .description('Ends an experiment, or all; returns when everything of it is undone.')
    .argument('[id]', 'as list shows it')
    .option('--all', 'every one that runs')
    .addHelpText('after', '\nExamples:\n  $ midair chaos stop x1\n  $ midair chaos stop --all')
    .action(async (id: string | undefined, flags: Place & { all?: true }, command: Command) => {
      if ((id === undefined) === (flags.all === undefined))
        command.error('error: give either an id or --all');
      const client = await clientOf(flags);
      const running = (await client.list()).filter(({ phase }) => phase !== 'ended');
      const ids = id === undefined ? running.map((one) => one.id) : [id];
      const experiments = await Promise.all(ids.map((one) => client.stop(one)));
      if (flags.json) return printJson({ experiments });
      for (const one of experiments) print(`${one.id} has ended, all undone; ${one.injections} injections\n`);
      if (experiments.length === 0) print('nothing runs\n');
    });
}

function logCommand(): Command {
  return placed(new Command('log'))
    .description('What was done to whom, when, and when and how it was undone; also without an injector.')
    .addHelpText('after', '\nExample:\n  $ midair chaos log --dir ./chaos')
    .action(async (flags: Place) => {
      const [{ historyText }, { readLedger }, { LEDGER_FILE }] = await Promise.all([
        import('#cli/chaos/text.ts'),
        import('#cli/chaos/ledger.ts'),
        import('#cli/chaos/paths.ts'),
      ]);
      const events =
        flags.chaos === undefined
          ? readLedger(resolve(flags.dir, LEDGER_FILE))
          : await (await clientOf(flags)).events();
      if (flags.json) return printJson({ events });
      print(historyText(events) || 'nothing happened yet\n');
    });
}

function undoCommand(): Command {
  return new Command('undo')
    .description(
      'Undoes what a dead injector and its watchdog left (a power cut); the next serve does the same.',
    )
    .addOption(
      new Option('--dir <path>', "the injector's directory")
        .env('MIDAIR_CHAOS_DIR')
        .default(DEFAULT_DIRECTORY),
    )
    .option('--json', 'one object')
    .addHelpText('after', '\nExample:\n  $ midair chaos undo --dir ./chaos')
    .action(async (flags: { dir: string; json?: true }) => {
      const { undoWithout } = await import('#cli/chaos/serve.ts');
      const undone = await undoWithout(resolve(flags.dir));
      if (flags.json) return printJson({ undone });
      print(undone.length === 0 ? 'nothing was left\n' : `${undone.join('\n')}\n`);
    });
}

export function chaosCommand(): Command {
  const command = new Command('chaos').description(
    'Failures on purpose, in devices that are marked as test devices (midair agent --test-device) only: bounded in time, always undone.',
  );
  for (const one of [
    serveCommand(),
    linkCommand(),
    createCommand(),
    listCommand(),
    stopCommand(),
    logCommand(),
    undoCommand(),
  ]) {
    command.addCommand(one);
  }
  return command.addHelpText(
    'after',
    `
Examples:
  $ midair chaos serve --dir ./chaos --watch ./drones &
  $ midair chaos create --failure pause --criteria service=main,role=owner --frequency 10s --probability 0.5
  $ midair chaos list
  $ midair chaos stop --all
docs/chaos.md says what each failure does and how it is undone.`,
  );
}
