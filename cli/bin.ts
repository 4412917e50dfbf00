#!/usr/bin/env node
/**
 * The `midair` command.
 *
 * Invariant: status 0 is success, 1 a failure that is told on standard error, 2 a command line that is not
 * understood. A subcommand's module is loaded only when it is the one that runs.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { agentCommand } from '#cli/commands/agent.ts';
import { chaosCommand } from '#cli/commands/chaos.ts';
import { deltaCommand } from '#cli/commands/delta.ts';
import { demoCommand } from '#cli/commands/demo.ts';
import { gateCommand } from '#cli/commands/gate.ts';
import { handoverCommand } from '#cli/commands/handover.ts';
import { hubCommand } from '#cli/commands/hub.ts';
import { simCommand } from '#cli/commands/sim.ts';
import { statusCommand } from '#cli/commands/status.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const { version, description } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));

const program = new Command('midair')
  .description(`${description}.`)
  .version(version)
  .showHelpAfterError('(midair --help tells more)')
  .exitOverride()
  // What stands behind a subcommand is its own, also where both have an option of that name.
  .enablePositionalOptions()
  .addHelpText(
    'after',
    `
Examples:
  $ midair demo                                  everything on this machine, until Ctrl-C
  $ midair hub --dir ./hub --engine unix:///var/run/docker.sock
  $ midair status --hub http://127.0.0.1:8420`,
  );
for (const command of [
  demoCommand(),
  hubCommand(),
  agentCommand(),
  gateCommand(),
  simCommand(),
  statusCommand(),
  handoverCommand(),
  deltaCommand(),
  chaosCommand(),
]) {
  // Subcommands of a command do not inherit it.
  for (const one of [command, ...command.commands]) {
    one.exitOverride().showHelpAfterError(`(midair ${command.name()} --help tells more)`);
  }
  program.addCommand(command);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // commander said already what was wrong; help and version end here with status 0.
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    const { code, message } = error as NodeJS.ErrnoException;
    process.stderr.write(`midair: ${message}${code === undefined ? '' : ` (${code})`}\n`);
    process.exitCode = 1;
  }
}
