/**
 * A push, from the hook's first word to the end of git: what is refused, what is built, when it becomes the target.
 *
 * Invariant: a branch that is built moves only after its release is stored, and a release becomes the target only
 * after the branch has moved. Whatever dies in between, `reconcile` finds a pending release and looks at the branch.
 */
import type { BaseLogger } from 'pino';
import * as v from 'valibot';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { Line } from '#fleet/line.ts';
import type { Release } from '#fleet/protocol.ts';
import { BUILT_BRANCHES, type HookName, type Repositories } from '#fleet/repositories.ts';
import type { Store } from '#fleet/store.ts';
import type { Targets } from '#fleet/targets.ts';
import { countText, type Say, safeLines, shortText } from '#fleet/text.ts';

const object = v.pipe(v.string(), v.regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/));
const hookSchema = v.object({
  refs: v.array(v.object({ before: object, after: object, ref: v.pipe(v.string(), v.startsWith('refs/')) })),
  environment: v.record(v.string(), v.string()),
});
export type PushedRef = v.InferOutput<typeof hookSchema>['refs'][number];

/** Builds a commit into a release that is stored and not yet offered; `deltas` and all. */
export type MakeRelease = (request: {
  app: string;
  commit: string;
  environment: NodeJS.ProcessEnv;
  say: Say;
  signal: AbortSignal;
}) => Promise<Release>;

export interface PushSession {
  readonly app: string;
  readonly token: string;
  cancel(why: string): void;
}

interface Session extends PushSession {
  readonly cancelled: AbortController;
  pending: { release: Release; ref: string } | null;
  endTurn: () => void;
}

export interface PushesOptions {
  repositories: Repositories;
  store: Store;
  targets: Targets;
  makeRelease: MakeRelease;
  fleet: string;
  log: BaseLogger;
}

export class Pushes {
  readonly #options: PushesOptions;
  readonly #sessions = new Map<string, Session>();
  readonly #line = new Line();
  readonly #stopped = new AbortController();

  constructor(options: PushesOptions) {
    this.#options = options;
  }

  open(app: string, token: string): PushSession {
    const cancelled = new AbortController();
    const session: Session = {
      app,
      token,
      cancelled,
      cancel: (why) =>
        cancelled.abort(new FleetError('PUSH_CANCELLED', `the push was given up: ${why}`, 'push again')),
      pending: null,
      endTurn: () => {},
    };
    this.#sessions.set(token, session);
    return session;
  }

  knows(token: string): boolean {
    return this.#sessions.has(token);
  }

  /** Git has ended, so the branch is where it will stay: settles what the push made, and lets the next one in. */
  async end(push: PushSession): Promise<void> {
    const session = this.#sessions.get(push.token);
    if (!session) return;
    this.#sessions.delete(push.token);
    try {
      if (session.pending) await this.#settle(session.pending.release, session.pending.ref, true);
    } catch (error) {
      this.#options.log.error({ err: error, app: session.app }, 'a push could not be settled');
    } finally {
      session.endTurn();
    }
  }

  /** No new turns, and all running builds are given up. */
  stop(): void {
    this.#stopped.abort();
  }

  /** Finishes what a hub that died left undone. Before anything else about this app, and while nobody pushes to it. */
  async reconcile(app: string): Promise<void> {
    if ([...this.#sessions.values()].some((session) => session.app === app)) return;
    for (const release of this.#options.store.pending(app)) {
      for (const ref of BUILT_BRANCHES) {
        const settled = await this.#settle(release, ref, false);
        if (settled)
          this.#options.log.info({ app, release: release.id }, 'took up a release that was left pending');
        if (settled) break;
      }
    }
  }

  /**
   * What the hook asks.
   *
   * @param body its JSON, unchecked
   * @returns the exit status of the hook: not 0 is git's refusal
   */
  async hook(token: string, name: HookName, body: unknown, say: Say): Promise<number> {
    const session = this.#sessions.get(token);
    const asked = v.safeParse(hookSchema, body);
    try {
      if (!session || !asked.success) {
        throw new FleetError('BAD_REQUEST', 'this is not a push that the hub knows', 'push again');
      }
      const { refs, environment } = asked.output;
      if (name === 'pre-receive') await this.#preReceive(session, refs, environment, say);
      else await this.#postReceive(session, say);
      return 0;
    } catch (error) {
      this.#tellFailure(error, session?.app ?? '', say);
      return 1;
    }
  }

  async #preReceive(
    session: Session,
    refs: PushedRef[],
    environment: Record<string, string>,
    say: Say,
  ): Promise<void> {
    const { repositories, store, makeRelease } = this.#options;
    const { app } = session;
    const built = planPush(refs, say);
    if (!built) return;
    const quarantine = repositories.quarantine(app, environment);
    const signal = AbortSignal.any([session.cancelled.signal, this.#stopped.signal]);
    session.endTurn = await this.#line.take(
      `${app} at ${shortText(built.after)}`,
      signal,
      (holder, ahead) => {
        say(
          `another push is being built (${holder}); waiting for its turn, ${countText(ahead, 'push', 'pushes')} ahead`,
        );
      },
    );
    const tip = (await repositories.tip(app, built.ref)) ?? NOTHING.slice(0, built.before.length);
    if (tip !== built.before) {
      throw new FleetError(
        'PUSH_OVERTAKEN',
        `another push moved ${branchName(built.ref)} to ${shortText(tip)} while this one waited`,
        'git pull (or fetch and rebase), then push again',
      );
    }
    for (const left of store.pending(app)) store.dropPending(app, left.id);
    const release = await makeRelease({ app, commit: built.after, environment: quarantine, say, signal });
    signal.throwIfAborted();
    store.putPending(release);
    session.pending = { release, ref: built.ref };
  }

  async #postReceive(session: Session, say: Say): Promise<void> {
    const { store, targets, fleet } = this.#options;
    if (!session.pending) return;
    const { release, ref } = session.pending;
    const before = store.target().release;
    const target = await this.#settle(release, ref, true);
    session.pending = null;
    if (!target) return;
    const { known, online } = targets.audience();
    if (before && before.app !== release.app) {
      say(`note: the fleet's target was ${before.app} ${before.id}; it is now another app's`);
    }
    say(
      `${release.app} ${release.id} is the target of fleet ${fleet} (generation ${target.generation}): ` +
        `${countText(known, 'device')} told, ${online} online`,
    );
  }

  /** Offers a pending release if its branch has moved to it; else forgets it, if asked to. */
  async #settle(release: Release, ref: string, forget: boolean) {
    const { repositories, store, targets } = this.#options;
    if ((await repositories.tip(release.app, ref)) === release.commit) {
      await repositories.setHead(release.app, ref);
      const target = store.acceptPending(release.app, release.id, Date.now());
      await targets.publishAll();
      return target;
    }
    if (forget) store.dropPending(release.app, release.id);
    return undefined;
  }

  #tellFailure(error: unknown, app: string, say: Say): void {
    const told =
      this.#stopped.signal.aborted && !(error instanceof FleetError)
        ? new FleetError('PUSH_CANCELLED', 'the hub is stopping', 'push again when it runs')
        : asFleetError(error);
    const { log, store } = this.#options;
    log[told.blame === 'hub' ? 'error' : 'info']({ app, code: told.code, err: error }, 'push refused');
    const kept = store.target().release;
    for (const line of safeLines(`error ${told.code}: ${told.message}`)) say(line);
    for (const line of safeLines(`  next: ${told.next}`)) say(line);
    say(kept ? `  nothing changed: ${kept.app} ${kept.id} is still the target` : '  nothing changed');
  }
}

/** What git names a ref's old or new object when there is none. */
const NOTHING = '0'.repeat(64);
const branchName = (ref: string) => ref.replace(/^refs\/heads\//, '');

/**
 * Which of the pushed refs is to be built; says what happens to the others.
 *
 * @throws FleetError `TOO_MANY_REFS`, `BRANCH_DELETED`, `TWO_BRANCHES`
 */
export function planPush(refs: PushedRef[], say: Say): PushedRef | undefined {
  if (refs.length > LIMITS.refsPerPushMax) {
    throw new FleetError(
      'TOO_MANY_REFS',
      `a push of ${refs.length} refs`,
      `push at most ${LIMITS.refsPerPushMax} at once`,
    );
  }
  const isBuilt = ({ ref }: PushedRef) => (BUILT_BRANCHES as readonly string[]).includes(ref);
  const built = refs.filter(isBuilt);
  if (built.length > 1) {
    throw new FleetError(
      'TWO_BRANCHES',
      'main and master were pushed at once',
      'push the one that is to fly',
    );
  }
  const [first] = built;
  if (first && /^0+$/.test(first.after)) {
    throw new FleetError(
      'BRANCH_DELETED',
      `${branchName(first.ref)} is the branch that is built, it cannot be deleted`,
      'push the commit that is to fly instead',
    );
  }
  for (const other of refs.filter((ref) => !isBuilt(ref))) {
    const deleted = /^0+$/.test(other.after);
    const [name = ''] = safeLines(other.ref.replace(/^refs\/(?:heads|tags)\//, ''));
    say(deleted ? `${name} is deleted` : `${name} is stored and not built: only main (or master) is built`);
  }
  return first;
}
