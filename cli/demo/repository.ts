/**
 * The example app as its developer has it: a git repository, pushed to the hub like any other.
 *
 * Invariant: the user's own git settings play no part. Commits have a fixed author, so that they need none.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LIMITS } from '#cli/limits.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const PERSON = { name: 'Example Developer', email: 'developer@example.invalid' };

export class PushError extends Error {
  readonly code = 'PUSH';
  /** What the hub and git said. */
  readonly lines: string[];
  constructor(text: string, lines: string[]) {
    super(text);
    this.lines = lines;
  }
}

export class Repository {
  readonly directory: string;
  readonly remote: string;
  readonly #signal: AbortSignal;

  private constructor(directory: string, remote: string, signal: AbortSignal) {
    this.directory = directory;
    this.remote = remote;
    this.#signal = signal;
  }

  /** An empty repository whose remote is the app `name` at the hub. */
  static async create(
    directory: string,
    hubUrl: string,
    name: string,
    signal: AbortSignal,
  ): Promise<Repository> {
    mkdirSync(directory, { recursive: true });
    const repository = new Repository(directory, `${hubUrl}/git/${name}.git`, signal);
    await repository.#git(['init', '--quiet', '--initial-branch=main']);
    const manifest = { name, private: true, type: 'module' };
    writeFileSync(join(directory, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    return repository;
  }

  /** Lays a folder of `apps/` over the tree. */
  overlay(folder: string): void {
    cpSync(join(PACKAGE_ROOT, 'apps', folder), this.directory, { recursive: true });
  }

  /** Leaves nothing of what was laid before. */
  clear(): void {
    for (const name of readdirSync(this.directory)) {
      if (name !== '.git' && name !== 'package.json') {
        rmSync(join(this.directory, name), { recursive: true, force: true });
      }
    }
  }

  write(path: string, text: string): void {
    writeFileSync(join(this.directory, path), text);
  }

  /** Commits everything; returns the commit. */
  async commit(subject: string): Promise<string> {
    await this.#git(['add', '--all']);
    await this.#git(['commit', '--quiet', '--allow-empty', '-m', subject]);
    return (await this.#git(['rev-parse', 'HEAD'])).join('').trim();
  }

  /** `git push`, for real. @throws PushError with every line that was said */
  async push(onLine: (line: string) => void = () => {}, msMax: number = LIMITS.pushMsMax): Promise<string[]> {
    return this.#git(['push', this.remote, 'HEAD:main'], onLine, msMax);
  }

  async #git(
    args: string[],
    onLine: (line: string) => void = () => {},
    msMax: number = LIMITS.pushMsMax,
  ): Promise<string[]> {
    const lines: string[] = [];
    const child = spawn('git', ['-c', 'http.proxy=', ...args], {
      cwd: this.directory,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: this.directory,
        GIT_CONFIG_NOSYSTEM: '1',
        GIT_CONFIG_GLOBAL: '/dev/null',
        GIT_TERMINAL_PROMPT: '0',
        GIT_AUTHOR_NAME: PERSON.name,
        GIT_AUTHOR_EMAIL: PERSON.email,
        GIT_COMMITTER_NAME: PERSON.name,
        GIT_COMMITTER_EMAIL: PERSON.email,
        LC_ALL: 'C',
      },
      signal: AbortSignal.any([this.#signal, AbortSignal.timeout(msMax)]),
    });
    const take = (line: string) => {
      // Progress lines overwrite themselves in a terminal: the last state is the one that stays.
      const text = line.split('\r').at(-1)?.trimEnd() ?? '';
      if (text === '') return;
      lines.push(text);
      onLine(text);
    };
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', take);
    const status = await exit(child);
    if (status !== 0) {
      throw new PushError(`git ${args[0]} ended with status ${status}:\n${lines.join('\n')}`, lines);
    }
    return lines;
  }
}

function exit(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
}
