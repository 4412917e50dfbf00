/**
 * What the image and engine tests share: tiny images built from a static program, and a blob server with faults.
 *
 * Invariant: everything made on the engine bears this run's own name and is removed by `close`.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import Docker from 'dockerode';
import { extract, pack } from 'tar-stream';
import { addressOf } from '#agent/engine-calls.ts';
import type { Log } from '#agent/images/index.ts';
import { type LayerSource, makeDelta } from '#deltas/index.ts';
import type { Blob, Image } from '#fleet/protocol.ts';

export const quiet: Log = { debug() {}, info() {}, warn() {} };

/** What rebuilds layers stands back behind everything else on a machine: where others test beside, that is for ever. */
export const inFront = (): (() => void) => () => {};

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export const blobOf = (bytes: Uint8Array): Blob => ({ digest: sha256(bytes), bytes: bytes.byteLength });

/** Bytes that do not compress, the same for the same seed. */
export function noise(seed: string, bytes: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at * 64 < bytes; at++) parts.push(createHash('sha512').update(`${seed} ${at}`).digest());
  return Buffer.concat(parts).subarray(0, bytes);
}

/** `stubborn`: ignores SIGTERM, forks a child, both count into /beat/N. `exit N`: says so and exits. */
const PROGRAM = `
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static void beat(const char *path) {
  struct timespec pause = {0, 1000000};
  for (unsigned long n = 1;; n++) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd >= 0) { dprintf(fd, "%lu", n); close(fd); }
    nanosleep(&pause, 0);
  }
}
int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IONBF, 0);
  if (argc > 2 && !strcmp(argv[1], "exit")) {
    printf("about to exit\\n");
    fprintf(stderr, "with %s\\n", argv[2]);
    return atoi(argv[2]);
  }
  signal(SIGTERM, SIG_IGN);
  printf("stubborn\\n");
  if (fork() == 0) beat("/beat/1");
  beat("/beat/0");
}
`;

export interface Lab {
  docker: Docker;
  engineUrl: string;
  /** Of this run: repository names and labels begin with it. */
  name: string;
  directory: string;
  /** The static program, to be put into an image as `/program`. */
  program: Buffer;
  /** Builds FROM scratch, one layer for each record of files; names it so that `close` finds it. */
  build(layers: Record<string, string | Uint8Array>[], command?: string[]): Promise<string>;
  /** Takes an image off the engine as a hub would: its target shape and all its blobs. */
  take(id: string, hub: Hub): Promise<Image>;
  removeImage(id: string): Promise<void>;
  close(): Promise<void>;
}

export async function openLab(engineUrl: string | undefined): Promise<Lab> {
  if (!engineUrl) throw new Error('no engine: set MIDAIR_TEST_ENGINE or DOCKER_HOST');
  const docker = new Docker(addressOf(engineUrl));
  const name = `lab-${randomBytes(4).toString('hex')}`;
  const directory = mkdtempSync(join(tmpdir(), `midair-${name}-`));
  writeFileSync(join(directory, 'program.c'), PROGRAM);
  execFileSync('gcc', [
    '-static',
    '-Os',
    '-s',
    '-o',
    join(directory, 'program'),
    join(directory, 'program.c'),
  ]);
  const program = readFileSync(join(directory, 'program'));
  let count = 0;

  async function build(
    layers: Record<string, string | Uint8Array>[],
    command: string[] = ['/program', 'stubborn'],
  ): Promise<string> {
    const context = pack();
    const lines = ['FROM scratch', `LABEL ${name}=1`];
    for (const [index, files] of layers.entries()) {
      const folders = new Set(['', ...Object.keys(files).flatMap(foldersOf)]);
      for (const folder of folders) {
        context.entry({ name: `${index}/${folder}`, type: 'directory', mode: 0o755, mtime: new Date(0) });
      }
      for (const [path, content] of Object.entries(files)) {
        context.entry({ name: `${index}/${path}`, mode: 0o755, mtime: new Date(0) }, Buffer.from(content));
      }
      lines.push(`COPY ${index}/ /`);
    }
    lines.push(`CMD ${JSON.stringify(command)}`);
    context.entry({ name: 'Dockerfile' }, lines.join('\n'));
    context.finalize();
    const tag = `${name}:${count++}`;
    const stream = await docker.buildImage(context as unknown as NodeJS.ReadableStream, {
      t: tag,
      forcerm: true,
      nocache: true,
    });
    await new Promise<void>((resolve, reject) => {
      docker.modem.followProgress(stream, (error, output) => {
        const failed = (output as { error?: string }[] | null)?.find((each) => each.error);
        if (error ?? failed) reject(error ?? new Error(failed?.error));
        else resolve();
      });
    });
    return (await docker.getImage(tag).inspect()).Id;
  }

  async function removeImage(id: string): Promise<void> {
    await docker
      .getImage(id)
      .remove({ force: true })
      .catch((error: { statusCode?: number }) => {
        if (error.statusCode !== 404) throw error;
      });
  }

  return {
    docker,
    engineUrl,
    name,
    directory,
    program,
    build,
    removeImage,
    async take(id, hub) {
      const { config, layers } = await save(docker, id);
      if (sha256(config) !== id) throw new Error('the saved config is not the image');
      return {
        id,
        config: hub.add(config),
        layers: layers.map((tar) => ({
          diffId: sha256(tar),
          bytes: tar.byteLength,
          blob: hub.add(zstdCompressSync(tar)),
        })),
        deltas: [],
      };
    },
    async close() {
      const containers = await docker.listContainers({ all: true, filters: { label: [name] } });
      for (const { Id } of containers) await docker.getContainer(Id).remove({ force: true, v: true });
      const images = await docker.listImages({ filters: { label: [name] } });
      for (const { Id } of images) await removeImage(Id);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const foldersOf = (path: string): string[] =>
  path
    .split('/')
    .slice(0, -1)
    .map((_part, index, parts) => `${parts.slice(0, index + 1).join('/')}/`);

/** Config and uncompressed layers, bottom first, in memory: for tiny images. */
async function save(docker: Docker, id: string): Promise<{ config: Buffer; layers: Buffer[] }> {
  const stream = (await docker.getImage(id).get()) as Readable;
  const files = new Map<string, Buffer>();
  const links = new Map<string, string>();
  const tar = stream.pipe(extract() as unknown as NodeJS.WritableStream) as unknown as ReturnType<
    typeof extract
  >;
  for await (const entry of tar) {
    const parts: Buffer[] = [];
    for await (const chunk of entry) parts.push(chunk as Buffer);
    files.set(entry.header.name, Buffer.concat(parts));
    if (entry.header.linkname)
      links.set(entry.header.name, join(entry.header.name, '..', entry.header.linkname));
  }
  const get = (name: string): Buffer => {
    const found = files.get(links.get(name) ?? name);
    if (!found) throw new Error(`no ${name} in the saved image`);
    return found;
  };
  const [manifest] = JSON.parse(get('manifest.json').toString()) as { Config: string; Layers: string[] }[];
  if (!manifest) throw new Error('an empty manifest');
  return { config: get(manifest.Config), layers: manifest.Layers.map(get) };
}

/** How a request is answered wrongly; each fault is used up by the requests that meet it. */
export type Fault =
  | { do: 'cut'; afterBytes: number }
  | { do: 'status'; status: number }
  | { do: 'flip' }
  | { do: 'silent' }
  | { do: 'no-range' }
  | { do: 'slow'; bytesPerSecond: number };

export interface Hub {
  url: string;
  add(bytes: Uint8Array): Blob;
  /** The same, compressed first. */
  addZstd(bytes: Uint8Array): Blob;
  get(digest: string): Buffer;
  drop(digest: string): void;
  /** For the next `times` requests of this blob, or of any. */
  fault(fault: Fault, times: number, digest?: string): void;
  /** Of each blob: body bytes that went out. */
  sentBytes: Map<string, number>;
  requests: { digest: string; range: string | undefined }[];
  sentAll(): number;
  close(): Promise<void>;
}

export async function openHub(): Promise<Hub> {
  const blobs = new Map<string, Buffer>();
  const faults: { fault: Fault; times: number; digest: string | undefined }[] = [];
  const sentBytes = new Map<string, number>();
  const requests: Hub['requests'] = [];

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const digest = /^\/v1\/blobs\/(sha256:[0-9a-f]{64})$/.exec(request.url ?? '')?.[1] ?? '';
    requests.push({ digest, range: request.headers.range });
    const met = faults.find((each) => each.times > 0 && (each.digest ?? digest) === digest);
    if (met) met.times--;
    const fault = met?.fault;
    if (fault?.do === 'silent') return;
    if (fault?.do === 'status') {
      response.writeHead(fault.status).end();
      return;
    }
    let bytes = blobs.get(digest);
    if (!bytes) {
      response.writeHead(404).end();
      return;
    }
    if (fault?.do === 'flip') {
      bytes = Buffer.from(bytes);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    }
    const from =
      fault?.do === 'no-range' ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const body = bytes.subarray(from);
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': body.length,
      ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    const count = (sent: number) => sentBytes.set(digest, (sentBytes.get(digest) ?? 0) + sent);
    if (fault?.do === 'cut') {
      const part = body.subarray(0, fault.afterBytes);
      count(part.length);
      response.write(part, () => response.destroy());
      return;
    }
    const pieceBytes = 16 * 1024;
    for (let at = 0; at < body.length; at += pieceBytes) {
      if (response.destroyed) return;
      const piece = body.subarray(at, at + pieceBytes);
      count(piece.length);
      await new Promise((done) => response.write(piece, done));
      if (fault?.do === 'slow')
        await new Promise((done) => setTimeout(done, (piece.length * 1000) / fault.bytesPerSecond));
    }
    response.end();
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const add = (bytes: Uint8Array): Blob => {
    const blob = blobOf(bytes);
    blobs.set(blob.digest, Buffer.from(bytes));
    return blob;
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    add,
    addZstd: (bytes) => add(zstdCompressSync(bytes)),
    get(digest) {
      const bytes = blobs.get(digest);
      if (!bytes) throw new Error(`the hub has no ${digest}`);
      return bytes;
    },
    drop: (digest) => void blobs.delete(digest),
    fault: (fault, times, digest) => void faults.push({ fault, times, digest }),
    sentBytes,
    requests,
    sentAll: () => [...sentBytes.values()].reduce((sum, each) => sum + each, 0),
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Waits for a condition, up to a deadline. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  msMax = 20_000,
): Promise<void> {
  const endMs = performance.now() + msMax;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`not within ${msMax} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

/** The same image with a delta from another, made and put at the hub. */
export async function addDelta(
  basis: Image,
  target: Image,
  hub: Hub,
  lab: Lab,
  listing: 'auto' | 'never' = 'never',
): Promise<Image> {
  const sources = ({ layers }: Image): LayerSource[] =>
    layers.map(({ diffId, bytes, blob }) => ({
      diffId,
      bytes,
      open: async function* () {
        yield zstdDecompressSync(hub.get(blob.digest));
      },
    }));
  const { path } = await makeDelta({
    basisId: basis.id,
    basisLayers: sources(basis),
    targetId: target.id,
    targetLayers: sources(target),
    scratchDirectory: lab.directory,
    output: join(lab.directory, `delta-${randomBytes(4).toString('hex')}`),
    listing,
  });
  const blob = hub.add(readFileSync(path));
  rmSync(path);
  return { ...target, deltas: [...target.deltas, { basis: basis.id, blob }] };
}
