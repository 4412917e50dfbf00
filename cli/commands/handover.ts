/** `midair handover conform -- COMMAND`: whether a program speaks the handover protocol. */
import { Command, InvalidArgumentError } from 'commander';
import { table } from '#cli/text.ts';
import { CONFORM, conform, type Result } from '#handover/conform/index.ts';

const patience = (value: string): number => {
  const factor = Number(value);
  if (!(factor >= 1 && factor <= CONFORM.patienceMax)) {
    throw new InvalidArgumentError(`expected a number from 1 to ${CONFORM.patienceMax}`);
  }
  return factor;
};

interface Flags {
  json?: true;
  patience: number;
  only?: string[];
}

export function handoverCommand(): Command {
  const conformCommand = new Command('conform')
    .description('Plays the agent to COMMAND and judges what it does; status 0 only if every case passed.')
    .argument(
      '<command...>',
      'the program under test, after --; docs/handover-conformance.md says what it must do',
    )
    .option('--json', 'one JSON object: passed, failed, cases')
    .option(
      '--patience <factor>',
      "multiplies the protocol's deadlines; 1 on an idle device",
      patience,
      CONFORM.patience,
    )
    .option('--only <ids...>', 'only cases whose id contains one of these')
    .addHelpText('after', '\nExample:\n  $ midair handover conform -- python3 test/conform/subject.py')
    .action(async (command: string[], flags: Flags) => {
      const { json, only = [] } = flags;
      // An ordinary end, so that the programs under test end too.
      for (const [name, status] of [
        ['SIGINT', 130],
        ['SIGTERM', 143],
      ] as const) {
        process.once(name, () => process.exit(status));
      }
      const results = await conform({
        command,
        patience: flags.patience,
        only,
        onResult: ({ id, ok }) => {
          if (!json && process.stderr.isTTY) process.stderr.write(`${ok ? 'ok    ' : 'FAILED'} ${id}\n`);
        },
      });
      process.stdout.write(json ? `${JSON.stringify(reportOf(command, results))}\n` : conformText(results));
      if (results.some(({ ok }) => !ok)) process.exitCode = 1;
    });
  return new Command('handover').description('The handover protocol.').addCommand(conformCommand);
}

const reportOf = (command: string[], results: Result[]) => ({
  command,
  passed: results.filter(({ ok }) => ok).length,
  failed: results.filter(({ ok }) => !ok).length,
  cases: results,
});

/** Pure: the table as printed, and what the failing programs said. */
export function conformText(results: Result[]): string {
  const rows = results.map(({ id, expected, seen, ok }) => [id, expected, seen, ok ? 'ok' : 'FAILED']);
  const failed = results.filter(({ ok }) => !ok);
  const outputs = failed.flatMap(({ id, output }) =>
    output === undefined ? [] : [`\n${id}, the program's last words:\n${output}\n`],
  );
  const count = `${results.length - failed.length} passed, ${failed.length} failed\n`;
  return `${table(['case', 'expected', 'seen', 'ok'], rows)}${outputs.join('')}${count}`;
}
