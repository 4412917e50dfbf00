/**
 * The bare git repositories that are pushed to, one an app, and what the hub reads from them.
 *
 * Invariant: every repository has the hub's hooks, so no branch that is built moves without the hub's consent;
 * a push that does not come through the hub is refused by the hook itself.
 */
import { chmod, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { type GitOptions, git, spawnGit } from '#fleet/processes.ts';

/** The branches that are built. Others are kept as they come. */
export const BUILT_BRANCHES = ['refs/heads/main', 'refs/heads/master'] as const;

const APP_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
const HOOKS = ['pre-receive', 'post-receive'] as const;
export type HookName = (typeof HOOKS)[number];

const hookScript = (name: HookName) => `#!/bin/sh
# Written by the Midair hub: asks it whether this push may be kept, and shows what it answers.
if [ -z "$MIDAIR_HOOK_NODE" ]; then
  echo "Midair: push to the hub's address, not into its directory" >&2
  exit 1
fi
exec "$MIDAIR_HOOK_NODE" "$MIDAIR_HOOK_PROGRAM" ${name}
`;

export interface TreeEntry {
  name: string;
  kind: 'file' | 'symlink' | 'directory' | 'submodule';
}

export class Repositories {
  /** Git's project root. */
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  path(app: string): string {
    if (!APP_NAME.test(app)) {
      throw new FleetError(
        'BAD_APP_NAME',
        `"${app.slice(0, 80)}" is not a name for an app`,
        'use at most 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit first',
      );
    }
    return join(this.directory, `${app}.git`);
  }

  async exists(app: string): Promise<boolean> {
    const found = await stat(join(this.path(app), 'HEAD')).catch(() => undefined);
    return found?.isFile() ?? false;
  }

  async apps(): Promise<string[]> {
    const names = await readdir(this.directory);
    return names.filter((name) => name.endsWith('.git')).map((name) => name.slice(0, -'.git'.length));
  }

  /** Makes the repository if there is none, and its hooks in any case. */
  async ensure(app: string): Promise<string> {
    const path = this.path(app);
    if (!(await this.exists(app))) {
      if ((await this.apps()).length >= LIMITS.appsMax) {
        throw new FleetError(
          'BUSY',
          `the hub has ${LIMITS.appsMax} apps already`,
          'remove one of them first',
        );
      }
      await mkdir(this.directory, { recursive: true });
      // Made aside and renamed, so that a half-made repository never has the name.
      const aside = join(this.directory, `.new-${process.pid}-${process.hrtime.bigint()}`);
      try {
        await git(this.directory, [
          'init',
          '--quiet',
          '--bare',
          '--template=',
          '--initial-branch=main',
          aside,
        ]);
        for (const [key, value] of [
          ['http.receivepack', 'true'],
          ['http.getanyfile', 'false'],
          ['receive.maxInputSize', String(LIMITS.packBytesMax)],
          // The hub's own collection would race with the pushes; a push-fed repository of one app stays small.
          ['receive.autogc', 'false'],
          ['core.fsync', 'all'],
        ] as const) {
          await git(aside, ['config', key, value]);
        }
        await rename(aside, path);
      } catch (error) {
        // Two first pushes at once: the other one's repository is as good.
        if (!(await this.exists(app))) throw error;
      } finally {
        await rm(aside, { recursive: true, force: true });
      }
    }
    await mkdir(join(path, 'hooks'), { recursive: true });
    for (const name of HOOKS) {
      const file = join(path, 'hooks', name);
      const aside = `${file}.${process.hrtime.bigint()}`;
      await writeFile(aside, hookScript(name));
      await chmod(aside, 0o755);
      await rename(aside, file);
    }
    return path;
  }

  /**
   * Removes what pushes that were killed left: git keeps a push's objects aside, and leaves them there when it is
   * ended by a signal. What may belong to a push that still goes on is not touched.
   */
  async removeLeftQuarantines(app: string): Promise<void> {
    const objects = join(this.path(app), 'objects');
    for (const name of await readdir(objects)) {
      if (!/^(?:tmp_objdir-)?incoming-/.test(name)) continue;
      const { mtimeMs } = await stat(join(objects, name));
      if (Date.now() - mtimeMs > LIMITS.pushMsMax)
        await rm(join(objects, name), { recursive: true, force: true });
    }
  }

  /** The commit that a ref names, or undefined. */
  async tip(app: string, ref: string): Promise<string | undefined> {
    const answer = await git(this.path(app), ['for-each-ref', '--format=%(objectname)', ref]);
    return answer.toString().trim() || undefined;
  }

  /** HEAD follows the first branch that is built, so that a clone checks something out. */
  async setHead(app: string, ref: string): Promise<void> {
    if (await this.tip(app, 'refs/heads/main')) return;
    await git(this.path(app), ['symbolic-ref', 'HEAD', ref]);
  }

  /**
   * Lets git see the objects of a push that is not accepted yet (git's quarantine, see git-receive-pack(1)).
   * The paths come from the hook and must lie in the repository.
   */
  quarantine(app: string, environment: Record<string, string>): NodeJS.ProcessEnv {
    const repository = this.path(app);
    const objects = environment.GIT_OBJECT_DIRECTORY;
    if (objects === undefined) return {};
    const path = resolve(repository, objects);
    if (!path.startsWith(join(repository, 'objects') + sep)) {
      throw new FleetError('BAD_REQUEST', 'the hook named objects outside of its repository', 'push again');
    }
    return { GIT_OBJECT_DIRECTORY: path, GIT_ALTERNATE_OBJECT_DIRECTORIES: join(repository, 'objects') };
  }

  /** What lies in the commit's root directory. */
  async root(app: string, commit: string, options: GitOptions): Promise<TreeEntry[]> {
    const answer = await git(this.path(app), ['ls-tree', '-z', `${commit}^{tree}`], options);
    return answer
      .toString()
      .split('\0')
      .filter((line) => line !== '')
      .map((line) => {
        const [meta = '', name = ''] = line.split('\t', 2);
        const mode = meta.slice(0, 6);
        const kind =
          mode === '040000'
            ? 'directory'
            : mode === '120000'
              ? 'symlink'
              : mode === '160000'
                ? 'submodule'
                : 'file';
        return { name, kind };
      });
  }

  /** A regular file of the commit's root directory, whole. */
  async file(app: string, commit: string, name: string, options: GitOptions): Promise<string> {
    return (await git(this.path(app), ['cat-file', 'blob', `${commit}:${name}`], options)).toString();
  }

  async subject(app: string, commit: string, options: GitOptions): Promise<string> {
    const answer = await git(this.path(app), ['log', '-1', '--format=%s', commit], options);
    return answer.toString().trim();
  }

  /** `git archive` of the commit, as a running process whose output is a tar. */
  archive(app: string, commit: string, options: GitOptions) {
    return spawnGit(this.path(app), ['archive', '--format=tar', commit], options);
  }
}
