/** Blobs from a hub that cuts, lies, stalls and vanishes, to a disk that fills up. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { blobPath, bytesOnDisk, type FetchOptions, fetchBlob } from '#agent/images/fetch.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { Leg, Plan } from '#agent/images/plan.ts';
import { checkSpace } from '#agent/images/space.ts';
import { system as realSystem, type System } from '#agent/images/system.ts';
import type { Blob } from '#fleet/protocol.ts';
import { blobOf, type Hub, noise, openHub, until } from '#test/images-lab.ts';

const BYTES = noise('blob', 300_000);

let hub: Hub;
let directory: string;
let blob: Blob;
let pausesMs: number[];
let abort: AbortController;

/** Real files and network; pauses are noted and not waited for. */
const system: System = {
  ...realSystem,
  random: () => 0.5,
  sleep: async (ms, signal) => {
    signal.throwIfAborted();
    pausesMs.push(ms);
  },
};
const options = (more: Partial<FetchOptions> = {}): FetchOptions => ({
  hubUrl: hub.url,
  directory,
  system,
  signal: abort.signal,
  ...more,
});
const saved = () => readFileSync(blobPath(directory, blob.digest));
const isBeginning = (bytes: number) => readFileSync(part()).equals(BYTES.subarray(0, bytes));
const part = () => `${blobPath(directory, blob.digest)}.part`;

beforeEach(async () => {
  hub = await openHub();
  directory = mkdtempSync(join(tmpdir(), 'midair-fetch-'));
  blob = hub.add(BYTES);
  pausesMs = [];
  abort = new AbortController();
});
afterEach(async () => {
  await hub.close();
  rmSync(directory, { recursive: true, force: true });
});

describe('a blob', () => {
  test('is fetched once, whole, and leaves no part', async () => {
    const seen: number[] = [];
    const first = await fetchBlob(blob, options({ onProgress: (have) => void seen.push(have) }));
    expect(first).toEqual({ path: blobPath(directory, blob.digest), receivedBytes: BYTES.length });
    expect(saved().equals(BYTES)).toBe(true);
    expect(existsSync(part())).toBe(false);
    expect(seen[0]).toBe(0);
    expect(seen.at(-1)).toBe(BYTES.length);
    expect(seen.toSorted((a, b) => a - b)).toEqual(seen);
    expect(await fetchBlob(blob, options())).toMatchObject({ receivedBytes: 0 });
    expect(hub.requests).toHaveLength(1);
  });

  test('of no bytes is a blob too', async () => {
    const empty = hub.add(new Uint8Array());
    await fetchBlob(empty, options());
    expect(statSync(blobPath(directory, empty.digest)).size).toBe(0);
  });

  test('goes on where each cut left it, and no byte is taken twice', async () => {
    hub.fault({ do: 'cut', afterBytes: 100_000 }, 2);
    const had: number[] = [];
    const { receivedBytes } = await fetchBlob(blob, options({ onProgress: (have) => void had.push(have) }));
    expect(saved().equals(BYTES)).toBe(true);
    expect(receivedBytes).toBe(BYTES.length);
    expect(hub.requests).toHaveLength(3);
    // What was on its way when the connection broke may be lost, what was written is not asked for again.
    const asked = hub.requests.map(({ range }) => Number(/^bytes=(\d+)-$/.exec(range ?? 'bytes=0-')?.[1]));
    for (const from of asked) expect(had).toContain(from);
    expect(had.toSorted((a, b) => a - b)).toEqual(had);
  });

  test('goes on from what an earlier process left', async () => {
    writeFileSync(part(), BYTES.subarray(0, 123_456));
    expect(await bytesOnDisk(directory, blob)).toBe(123_456);
    const { receivedBytes } = await fetchBlob(blob, options());
    expect(receivedBytes).toBe(BYTES.length - 123_456);
    expect(saved().equals(BYTES)).toBe(true);
  });

  test('that was whole but not yet named needs no byte', async () => {
    writeFileSync(part(), BYTES);
    expect(await fetchBlob(blob, options())).toMatchObject({ receivedBytes: 0 });
    expect(hub.requests).toHaveLength(0);
    expect(saved().equals(BYTES)).toBe(true);
  });

  test('is begun again when what a power cut left is not its beginning', async () => {
    writeFileSync(part(), Buffer.concat([BYTES.subarray(0, 50_000), Buffer.alloc(70_000)]));
    await fetchBlob(blob, options());
    expect(saved().equals(BYTES)).toBe(true);
    expect(hub.requests.map(({ range }) => range)).toEqual(['bytes=120000-', undefined]);
  });

  test('is begun again when the left part is longer than it', async () => {
    writeFileSync(part(), Buffer.alloc(BYTES.length + 1));
    await fetchBlob(blob, options());
    expect(saved().equals(BYTES)).toBe(true);
  });

  test('comes from a hub without ranges too', async () => {
    writeFileSync(part(), BYTES.subarray(0, 99));
    hub.fault({ do: 'no-range' }, 9);
    const { receivedBytes } = await fetchBlob(blob, options());
    expect(receivedBytes).toBe(BYTES.length);
    expect(saved().equals(BYTES)).toBe(true);
  });
});

describe('a hub at fault', () => {
  test('whose bytes are wrong once is asked again from zero', async () => {
    hub.fault({ do: 'flip' }, 1);
    const { receivedBytes } = await fetchBlob(blob, options());
    expect(receivedBytes).toBe(2 * BYTES.length);
    expect(saved().equals(BYTES)).toBe(true);
  });

  test('whose bytes are wrong twice is not asked a third time', async () => {
    hub.fault({ do: 'flip' }, 9);
    await expect(fetchBlob(blob, options())).rejects.toMatchObject({
      code: 'BLOB_CORRUPT',
      blame: 'peer',
      message: expect.stringContaining('push again'),
    });
    expect(hub.requests).toHaveLength(2);
    expect(existsSync(blobPath(directory, blob.digest))).toBe(false);
    expect(await bytesOnDisk(directory, blob)).toBe(0);
  });

  test('that sends more than the target says is stopped', async () => {
    const lie = { digest: blob.digest, bytes: 1_000 };
    await expect(fetchBlob(lie, options())).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    expect(await bytesOnDisk(directory, blob)).toBe(0);
  });

  test('that has fewer bytes than the target says is no endless loop', async () => {
    const lie = { digest: blob.digest, bytes: BYTES.length + 1 };
    await expect(fetchBlob(lie, options())).rejects.toMatchObject({ code: /BLOB_CORRUPT|HUB_UNREACHABLE/ });
  });

  test('that lost the blob is not asked again', async () => {
    hub.drop(blob.digest);
    await expect(fetchBlob(blob, options())).rejects.toMatchObject({ code: 'BLOB_MISSING' });
    expect(hub.requests).toHaveLength(1);
  });

  test('that refuses is not asked again', async () => {
    hub.fault({ do: 'status', status: 403 }, 9);
    await expect(fetchBlob(blob, options())).rejects.toMatchObject({ code: 'HUB_REFUSED' });
    expect(hub.requests).toHaveLength(1);
  });

  test('that is overloaded is asked again after growing pauses', async () => {
    hub.fault({ do: 'status', status: 503 }, 3);
    await fetchBlob(blob, options());
    expect(pausesMs).toEqual([250, 500, 1_000]);
  });

  test('that is gone is given up after a bounded number of attempts, and what came is kept', async () => {
    writeFileSync(part(), BYTES.subarray(0, 1_000));
    hub.fault({ do: 'cut', afterBytes: 0 }, 99);
    await expect(fetchBlob(blob, options())).rejects.toMatchObject({
      code: 'HUB_UNREACHABLE',
      message: expect.stringContaining('what was fetched is kept'),
    });
    expect(hub.requests).toHaveLength(LIMITS.failuresInRowMax);
    expect(Math.max(...pausesMs)).toBeLessThanOrEqual(LIMITS.backoffMsMax);
    const kept = await bytesOnDisk(directory, blob);
    expect(kept).toBeGreaterThanOrEqual(1_000);
    expect(isBeginning(kept)).toBe(true);
  });

  test('that does not listen at all is unreachable, with the reason', async () => {
    const url = hub.url;
    await hub.close();
    await expect(fetchBlob(blob, options({ hubUrl: url }))).rejects.toMatchObject({
      code: 'HUB_UNREACHABLE',
      message: expect.stringContaining('ECONNREFUSED'),
    });
    hub = await openHub();
  });

  test('that falls silent is cut off and asked again', async () => {
    hub.fault({ do: 'silent' }, 1);
    await fetchBlob(blob, options({ idleMsMax: 200 }));
    expect(hub.requests).toHaveLength(2);
    expect(saved().equals(BYTES)).toBe(true);
  });
});

test('a call-off ends the download at once and keeps what came', async () => {
  hub.fault({ do: 'slow', bytesPerSecond: 200_000 }, 1);
  const fetching = fetchBlob(blob, options({ system: realSystem }));
  await until('some bytes came', async () => (await bytesOnDisk(directory, blob)) > 0);
  abort.abort();
  await expect(fetching).rejects.toMatchObject({ code: 'ABORTED' });
  expect(await bytesOnDisk(directory, blob)).toBeGreaterThan(0);
  await expect(fetchBlob(blob, options())).rejects.toMatchObject({ code: 'ABORTED' });
});

describe('a disk', () => {
  let tiny: string | undefined;
  afterEach(() => {
    if (tiny) execFileSync('umount', [tiny]);
    tiny = undefined;
  });

  test('that fills up is told so, and gets back what the download took', async () => {
    const mounted = join(directory, 'tiny');
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'midair-test', mounted]);
    tiny = mounted;
    const large = hub.add(noise('large', 2_000_000));
    await expect(fetchBlob(large, options({ directory: mounted }))).rejects.toMatchObject({
      code: 'DISK_FULL',
      blame: 'device',
      message: expect.stringContaining('free space on the device'),
    });
    expect(await bytesOnDisk(mounted, large)).toBe(0);
    expect(hub.requests).toHaveLength(1);
  });

  test('with too little room is found out before the first byte', async () => {
    const layer = { diffId: blob.digest, bytes: 80 * 1024 * 1024, blob };
    const image = { id: blob.digest, config: blob, layers: [layer], deltas: [] };
    const legs: Leg[] = [{ image, lacking: [layer] }];
    const plan: Plan = { as: 'layers', legs, blobs: [blob], remainingBytes: 10 * 1024 * 1024 };
    const room = (disks: Record<string, { disk: number; bytes: number }>): Promise<void> =>
      checkSpace({
        system: { ...system, freeSpace: async (path) => disks[path] },
        plan,
        downloads: '/agent/downloads',
        engineRoot: '/engine',
      });
    const mib = 1024 * 1024;
    const needed = 10 * mib + 160 * mib + LIMITS.spareBytesMin;
    const one = (bytes: number) => ({ '/agent': { disk: 1, bytes }, '/engine': { disk: 1, bytes } });
    await room(one(needed));
    await expect(room(one(needed - 1))).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(/202\.0 MiB are needed .* 202\.0 MiB are free; free space/),
    });
    const two = { '/agent': { disk: 1, bytes: 42 * mib }, '/engine': { disk: 2, bytes: 192 * mib } };
    await room(two);
    await expect(room({ ...two, '/engine': { disk: 2, bytes: 191 * mib } })).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringContaining('/engine'),
    });
    // Out of sight: nothing can be said about the engine's disk.
    await room({ '/agent': { disk: 1, bytes: 42 * mib } });
    // Nor can its layers be read where they are then: what a delta names of them is spooled beside the downloads.
    const cost = { outputBytes: 1, basisBytes: 20 * mib, cpuMs: 1 };
    plan.legs = [{ image, lacking: [layer], delta: { basis: blob.digest, blob, cost } }];
    await expect(room({ '/agent': { disk: 1, bytes: 61 * mib } })).rejects.toMatchObject({
      code: 'DISK_FULL',
    });
    await room({ '/agent': { disk: 1, bytes: 62 * mib } });
    await room(two);
    // Images on the way are on the engine's disk, too, until the last is there.
    plan.legs = [...plan.legs, { image, lacking: [layer] }];
    await expect(room(two)).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringContaining('352.0 MiB'),
    });
  });

  test('that cannot be written is no full one', async () => {
    writeFileSync(join(directory, 'file'), '');
    await expect(
      fetchBlob(blob, options({ directory: join(directory, 'file/below') })),
    ).rejects.toMatchObject({
      code: 'DISK',
    });
  });
});

test('the address of a hub may have a path', async () => {
  let asked = '';
  const noted: System = {
    ...system,
    fetch: async (input) => {
      asked = input instanceof URL ? input.href : '';
      return new Response(BYTES);
    },
  };
  await fetchBlob(blobOf(BYTES), options({ hubUrl: 'http://127.0.0.1:1/hub', system: noted }));
  expect(asked).toBe(`http://127.0.0.1:1/hub/v1/blobs/${blob.digest}`);
});
