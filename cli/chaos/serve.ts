/**
 * `midair chaos serve`: the injector as a process.
 *
 * Invariants: one injector a directory. Before anything else, what a dead one left in the ledger is undone (it, its watchdog
 * and the machine may have died at once). It listens on this machine only. When it ends, all is undone.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getRequestListener } from '@hono/node-server';
import { pino } from 'pino';
import { openEngine } from '#agent/engine.ts';
import { createApi } from '#cli/chaos/api.ts';
import { ChaosError, textOf } from '#cli/chaos/errors.ts';
import { Injector } from '#cli/chaos/injector.ts';
import { Ledger, numbersIn, openIn, readLedger, shortenLedger } from '#cli/chaos/ledger.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { LEDGER_FILE, OWNER_FILE } from '#cli/chaos/paths.ts';
import { openSurroundings } from '#cli/chaos/surroundings.ts';
import { undo } from '#cli/chaos/undo.ts';
import { Watch } from '#cli/chaos/watch.ts';
import { identify, isAlive, type ProcessId } from '#cli/processes.ts';

export interface ServeOptions {
  readonly directory: string;
  /** Where marked parts are looked for: these, and two levels below. */
  readonly watch: readonly string[];
  readonly engineUrl: string;
  readonly http: { readonly host: string; readonly port: number };
  readonly logLevel?: string;
}

/** Until SIGINT or SIGTERM. @throws ChaosError `NOT_LOOPBACK`, `DIRECTORY`, `ALREADY_RUNNING`, `NO_WATCHDOG`; EngineError */
export async function run(options: ServeOptions): Promise<void> {
  const { directory, http } = options;
  if (!/^(127\.|::1$|localhost$)/.test(http.host)) {
    throw new ChaosError(
      'NOT_LOOPBACK',
      `${http.host}: an injector listens on this machine only; give 127.0.0.1:PORT`,
    );
  }
  const log = pino(
    { name: 'chaos', level: options.logLevel ?? 'info' },
    pino.destination({ dest: 2, sync: true }),
  );
  const release = claim(directory);
  try {
    const ledger = openLedger(join(directory, LEDGER_FILE));
    await undoLeftovers(ledger, log);
    const engine = await openEngine(options.engineUrl);
    const watch = await Watch.start(directory);
    const injector = new Injector({
      ledger,
      watch,
      log,
      numbers: numbersIn(readLedger(ledger.path)),
      surroundings: openSurroundings(engine, options.watch),
    });
    const server = createServer(getRequestListener(createApi(injector).fetch));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(http, () => {
        server.off('error', reject);
        resolve();
      });
    });
    const { address, port, family } = server.address() as AddressInfo;
    const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
    own(directory, url);
    process.stdout.write(`${JSON.stringify({ ready: true, url, directory, watchdog: watch.pid })}\n`);
    await new Promise<void>((done) => {
      process.on('SIGINT', () => done());
      process.on('SIGTERM', () => done());
    });
    // Still answering: who stopped an experiment hears that it is undone.
    await injector.close();
    server.close();
    server.closeAllConnections();
    await watch.close();
    ledger.close();
  } finally {
    release();
  }
}

/** What the ledger of a directory says is still to be undone, without an injector. @returns how each was */
export async function undoWithout(directory: string): Promise<string[]> {
  const release = claim(directory);
  try {
    const ledger = openLedger(join(directory, LEDGER_FILE));
    const texts: string[] = [];
    await undoLeftovers(ledger, {
      info: (_: object, text: string) => texts.push(text),
      error: () => undefined,
    });
    ledger.close();
    return texts;
  } finally {
    release();
  }
}

/** Until it is done: nothing new is injected over what is not undone. */
async function undoLeftovers(
  ledger: Ledger,
  log: { info(fields: object, text: string): void; error(fields: object, text: string): void },
): Promise<void> {
  for (const open of openIn(readLedger(ledger.path))) {
    const { injection, text } = open.begun;
    for (let done = false; !done; ) {
      try {
        const how = await undo(open);
        ledger.append({ type: 'undone', atMs: Date.now(), injection, by: 'next start', text: how });
        log.info({ injection }, `${text}: ${how}`);
        done = true;
      } catch (error) {
        log.error({ injection, err: error }, `${text}: not undone yet: ${textOf(error)}`);
        await sleep(CHAOS.undoRetryMs);
      }
    }
  }
}

/** @throws ChaosError `DIRECTORY` */
function openLedger(path: string): Ledger {
  try {
    shortenLedger(path);
    return new Ledger(path);
  } catch (cause) {
    throw new ChaosError('DIRECTORY', `the ledger ${path} cannot be written: ${textOf(cause)}`, { cause });
  }
}

/** @returns gives the directory back. @throws ChaosError `DIRECTORY`, `ALREADY_RUNNING` */
function claim(directory: string): () => void {
  const file = join(directory, OWNER_FILE);
  const self = JSON.stringify(identify(process.pid));
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (let tries = 0; ; tries += 1) {
      try {
        writeFileSync(file, self, { flag: 'wx', mode: 0o600 });
        return () => rmSync(file, { force: true });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || tries > 0) throw error;
      }
      const owner = ownerOf(directory);
      if (owner !== undefined && isAlive(owner)) {
        throw new ChaosError(
          'ALREADY_RUNNING',
          `process ${owner.pid} injects from ${directory}: use it (midair chaos list --dir ${directory}), or name another`,
        );
      }
      rmSync(file, { force: true });
    }
  } catch (cause) {
    if (cause instanceof ChaosError) throw cause;
    throw new ChaosError('DIRECTORY', `${directory} cannot be used: ${textOf(cause)}`, { cause });
  }
}

function own(directory: string, url: string): void {
  const file = join(directory, OWNER_FILE);
  writeFileSync(`${file}.new`, JSON.stringify({ ...identify(process.pid), url }), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Who has the directory, alive or not. */
export function ownerOf(directory: string): (ProcessId & { url?: string }) | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, OWNER_FILE), 'utf8')) as ProcessId & { url?: string };
  } catch {
    return undefined;
  }
}
