/** A signing key as a file: one line, 32 bytes as hex or base64. */
import { readFileSync, statSync } from 'node:fs';
import { MavlinkError } from '#handover/mavlink/errors.ts';
import { parseKey } from '#handover/mavlink/signing.ts';

export interface KeyFile {
  readonly key: Uint8Array;
  /** Others than its owner may read it: mode 0600 is advised. */
  readonly shared: boolean;
}

/** @throws MavlinkError `INVALID_KEY`, naming the file: it cannot be read, or holds no key (which is not shown) */
export const readKeyFile = (path: string): KeyFile => {
  try {
    return { key: parseKey(readFileSync(path, 'utf8')), shared: (statSync(path).mode & 0o077) !== 0 };
  } catch (cause) {
    if (cause instanceof MavlinkError) throw new MavlinkError('INVALID_KEY', `${path}: ${cause.message}`);
    const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new MavlinkError('INVALID_KEY', `cannot read ${path} (${why})`, { cause });
  }
};
