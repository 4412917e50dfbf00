/**
 * What a user does today: the same drone, the same control loop in the same kind of container, the tty opened by the
 * app itself, and V2 for V1 by the engine's own means.
 *
 * - `restart`: stop V1, then start V2.
 * - `overlap`: start V2, wait until it is up, kill V1: what balena's update strategy `hand-over` comes to. Meanwhile both
 *   have the tty open.
 * - `close-open`: V2 is up and waits; V1 closes the tty and exits; V2 opens it.
 */
import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import type Docker from 'dockerode';
import type { World } from '#cli/demo/world.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import type { Judged } from '#cli/sim-client.ts';
import { nowUs } from '#handover/native.ts';

export const SCHEMES = ['restart', 'overlap', 'close-open'] as const;
export type Scheme = (typeof SCHEMES)[number];

const AFTER_MS = 4_000;
/** V2 is given this long beside V1 in `overlap`, as one waits for a health check. */
const OVERLAP_MS = 1_000;
/** Above any epoch that the handovers before used: the judge takes a lower one for stale. */
let epoch = 1_000_000;

interface Peer {
  readonly container: Docker.Container;
  /** The app has said that it is up. */
  up(): Promise<void>;
  words(): Promise<string>;
}

/** @param imageId of the example app, on the drone's engine */
export const flyPeer = async (
  world: World,
  imageId: string,
  tty: string,
  scheme: Scheme,
): Promise<Judged> => {
  const { docker } = world.droneEngine;
  const make = async (wait: boolean): Promise<Peer> => {
    epoch += 1;
    const env = [
      `PEER_TTY=${realpathSync(tty).replace('/dev/pts/', '/host-pts/')}`,
      `PEER_EPOCH=${epoch}`,
      `PEER_KEY=${world.signingKey}`,
    ];
    const container = await docker.createContainer({
      Image: imageId,
      Cmd: ['node', '--single-threaded-gc', '/bench/handover/peer-app.ts'],
      Env: [
        ...env,
        'PEER_REALTIME=/node_modules/midair/handover/realtime.js',
        'PEER_MAVLINK=/node_modules/midair/handover/mavlink/index.js',
        ...(wait ? ['PEER_WAIT=1'] : []),
        // Two that open the tty side by side have to give up serialport's lock.
        ...(scheme === 'overlap' ? ['PEER_LOCK=0'] : []),
      ],
      Labels: { 'io.midair.device': world.device },
      HostConfig: {
        NetworkMode: 'none',
        Binds: [
          '/dev/pts:/host-pts',
          `${join(PACKAGE_ROOT, 'apps')}:/apps:ro`,
          `${join(PACKAGE_ROOT, 'bench', 'handover')}:/bench/handover:ro`,
        ],
        // The numbers of Unix98 pseudo-terminals.
        DeviceCgroupRules: ['c 136:* rwm'],
        CapAdd: ['SYS_NICE'],
        ...({ CpuRealtimeRuntime: 400_000, CpuRealtimePeriod: 1_000_000 } as object),
      },
    });
    const words = async () =>
      (await container.logs({ stdout: true, stderr: true })).toString('utf8').replace(/[^\x20-\x7e]+/g, ' ');
    const up = () =>
      world.until('the peer to be up', async () => {
        const text = await words();
        if (/Error/.test(text)) throw new Error(`the peer failed: ${text}`);
        return text.includes('ready') ? true : undefined;
      });
    return { container, words, up: async () => void (await up()) };
  };
  // Whoever flew before is gone, so the board lands; an app that sees it land stays down.
  await world.until('the drone to stand', async () => ((await world.sim.state()).landed ? true : undefined));
  const first = await make(false);
  const made = [first];
  try {
    // The kernel takes the real-time share of the containers before back only when their control groups are gone.
    await world.until('the real-time share', () =>
      first.container.start().then(
        () => true as const,
        (error: Error) => {
          if (error.message.includes('rt_runtime')) return undefined;
          throw error;
        },
      ),
    );
    await first.up();
    await world.hovering().catch(async (error: Error) => {
      throw new Error(`${error.message}; ${await first.words()}; ${JSON.stringify(await world.sim.state())}`);
    });
    const second = await make(scheme === 'close-open');
    made.push(second);
    let atUs: number;
    switch (scheme) {
      case 'restart':
        atUs = nowUs();
        await first.container.stop({ t: 3 });
        await second.container.start();
        break;
      case 'overlap':
        atUs = nowUs();
        await second.container.start();
        await second.up();
        await world.pause(OVERLAP_MS);
        await first.container.kill();
        break;
      case 'close-open': {
        await second.container.start();
        await second.up();
        await world.pause(OVERLAP_MS);
        atUs = nowUs();
        const ended = first.container.wait();
        await first.container.kill({ signal: 'SIGUSR1' });
        await ended;
        await second.container.kill({ signal: 'SIGUSR2' });
        break;
      }
    }
    await world.pause(AFTER_MS);
    return await world.sim.judge(atUs - 8_000, nowUs());
  } finally {
    for (const { container } of made) await container.remove({ force: true });
  }
};
