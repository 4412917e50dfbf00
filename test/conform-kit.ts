/** What the conformance tests share: the interpreter, and the subjects' commands. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const path = (name: string): string => fileURLToPath(new URL(`./conform/${name}`, import.meta.url));

/** @throws if there is none, with what to install */
export const python = (): string => {
  const check = 'import sys; sys.exit(sys.version_info < (3, 9))';
  const { error, status } = spawnSync('python3', ['-c', check]);
  if (error !== undefined || status !== 0) {
    throw new Error(
      'the Python client needs Python 3.9 or newer as `python3`; install it (Debian, Ubuntu: apt-get install python3)',
    );
  }
  return 'python3';
};

export const subjects = {
  typescript: (): string[] => [process.execPath, path('subject.ts')],
  python: (): string[] => [python(), path('subject.py')],
  wrong: (way: string): string[] => [python(), path('wrong.py'), way],
};
