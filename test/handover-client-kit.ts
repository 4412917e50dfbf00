/** A session of the SDK under a scripted agent, and resources that write down what becomes of them. */
import { expect } from 'vitest';
import { type JoinOptions, join, type Readiness } from '#handover/client.ts';
import type { Grant, Holder, Released } from '#handover/holder.ts';
import { closeAll, type NamedDescriptor } from '#handover/lines.ts';
import type { Resource } from '#handover/messages.ts';
import type { Mirror } from '#handover/mirror.ts';
import { native } from '#handover/native.ts';
import { type AppEnd, scriptedAgent } from './handover-agent.ts';
import { cleanUp, directory } from './handover-kit.ts';

/** A resource that writes down what becomes of it. */
export class Diary implements Holder {
  readonly name: Resource;
  readonly lines: string[] = [];
  readonly grants: Grant[] = [];
  fds: NamedDescriptor[] = [];
  /** What `release` gives, what it waits for, and what `grant` waits for. */
  gives: Released = { payload: {} };
  releasing: Promise<void> | undefined;
  granting: Promise<void> | undefined;

  constructor(name: Resource) {
    this.name = name;
  }
  async grant(grant: Grant): Promise<void> {
    this.lines.push(`grant ${grant.from} ${grant.epoch}`);
    this.grants.push(grant);
    this.fds = [...grant.descriptors].map(([name, fd]) => ({ name, fd }));
    await this.granting;
  }
  async release(deadlineMs: number): Promise<Released> {
    this.lines.push(`release ${deadlineMs}`);
    await this.releasing;
    return this.gives;
  }
  renew({ epoch, descriptors }: Grant): Promise<void> {
    closeAll(descriptors.values());
    this.lines.push(`renew ${epoch}`);
    return Promise.resolve();
  }
  descriptors(): NamedDescriptor[] {
    return this.fds;
  }
  drop(): void {
    if (this.fds.length > 0) this.lines.push('drop');
    closeAll(this.fds.splice(0).map(({ fd }) => fd));
  }
  mirrored: number[] = [];
  mirror(fd: number): void {
    this.mirrored.push(fd);
    cleanUp(() => native.close(fd));
  }
}

export const setUp = async (options: Partial<JoinOptions> = {}) => {
  const path = `${directory()}/s`;
  const agent = scriptedAgent(path);
  const holders = {
    camera: new Diary('camera'),
    connections: new Diary('connections'),
    rotors: new Diary('rotors'),
  };
  const logs: string[] = [];
  const warm: { resolve(readiness: Readiness): void; mirror: Mirror; signal: AbortSignal }[] = [];
  const session = await join({
    app: 'hover',
    release: 'r1',
    socketPath: path,
    stateVersions: { reads: [1, 2], writes: 2 },
    holders,
    warmUp: (mirror, signal) => new Promise((resolve) => warm.push({ resolve, mirror, signal })),
    snapshot: () => ({ lastWriteUs: 1 }),
    onRevoked: (code) => logs.push(`revoked ${code}`),
    onRetire: () => {
      logs.push('retire');
    },
    onOwner: () => logs.push('owner'),
    log: (level, text) => logs.push(`${level} ${text}`),
    ...options,
  });
  cleanUp(() => session.close());
  const { app, hello } = await agent.app();
  return { path, agent, holders, logs, warm, session, app, hello };
};
export const descriptor = (name: string): { name: string; fd: number } => {
  const [left, right] = native.socketPair();
  native.close(right);
  cleanUp(() => native.close(left));
  return { name, fd: left };
};
/** As at a first start: one resource after the other. */
export const own = async (app: AppEnd, resources: Resource[], from = 2): Promise<number> => {
  let epoch = from;
  for (const resource of resources) {
    const fds = resource === 'connections' ? [] : [descriptor(resource)];
    app.send({ type: 'GRANT', epoch, resource, from: 'start', payload: null }, fds);
    expect((await app.next('GRANTED')).message).toMatchObject({ epoch, resource });
    epoch += 1;
  }
  return epoch;
};
