/**
 * The build context: the pushed commit as a tar, in one pass.
 *
 * Invariant: exactly the commit's files less what `.dockerignore` names; a rendered template takes the place of
 * its source, so that no file is added that the commit does not have.
 */

import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import dockerignore from '@balena/dockerignore';
import * as tar from 'tar-stream';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { finished } from '#fleet/processes.ts';
import type { Repositories } from '#fleet/repositories.ts';

export interface ContextOptions {
  repositories: Repositories;
  app: string;
  commit: string;
  environment: NodeJS.ProcessEnv;
  /** File in the root directory whose content is replaced. */
  replace: { name: string; text: string };
  /** Content of `.dockerignore`. */
  ignored: string | null;
  signal: AbortSignal;
}

/** The context as a tar stream; it fails if git fails. */
export function buildContext(options: ContextOptions): Readable {
  const { app, commit, environment, signal, replace } = options;
  const args = { environment, signal };
  const archive = options.repositories.archive(app, commit, args);
  const source = tar.extract();
  const output = tar.pack();
  const rules = options.ignored === null ? null : dockerignore.default().add(options.ignored.split(/\r?\n/));
  // The engine reads these two itself, and leaves them out if they are ignored.
  const keeps = (name: string) =>
    name === replace.name ||
    name === '.dockerignore' ||
    rules === null ||
    !rules.ignores(name.replace(/\/$/, ''));

  const repack = async () => {
    let bytes = 0;
    for await (const entry of source) {
      const header = entry.header;
      if (!keeps(header.name)) {
        entry.resume();
        continue;
      }
      bytes += header.size ?? 0;
      if (bytes > LIMITS.contextBytesMax) {
        throw new FleetError(
          'TOO_LARGE',
          'the commit is too large to build',
          'leave large files out with .dockerignore',
        );
      }
      if (header.name === replace.name) {
        entry.resume();
        const text = Buffer.from(replace.text);
        output.entry({ ...header, size: text.length }, text);
      } else if (header.type === 'file') {
        const file = output.entry(header);
        for await (const chunk of entry) if (!file.write(chunk)) await once(file, 'drain');
        file.end('');
      } else {
        entry.resume();
        output.entry(header, '');
      }
    }
    output.finalize();
  };

  const work = Promise.all([repack(), pipeline(archive.stdout, source), finished(archive, ['archive'])]);
  work.catch((error: unknown) => output.destroy(error instanceof Error ? error : new Error(String(error))));
  output.on('close', () => archive.kill());
  return Readable.from(output, { objectMode: false });
}
