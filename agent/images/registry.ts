/**
 * A read-only registry on loopback that serves exactly one image, for one pull.
 *
 * Invariant: what is sent under a digest is either those bytes, whole, or a broken connection; a broken one has its
 * reason in `failure`, because the engine's own words for it are "unexpected EOF".
 *
 * Layers travel uncompressed, so a layer's digest is its diffID and the image's identity is kept. Engines accept
 * any media type under application/vnd.docker and application/vnd.oci.image; the Docker ones are the older.
 * OCI distribution specification §"Pull"; no Range, no tags list, nothing that writes.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImageError } from '#agent/images/errors.ts';

/** One layer as it is served: `open` may be called more than once, also at the same time. */
export interface ServedLayer {
  diffId: string;
  bytes: number;
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface RegistryOptions {
  /** Repository name in the reference: lower case, digits, `._-/`. */
  name: string;
  configDigest: string;
  config: Uint8Array;
  layers: readonly ServedLayer[];
  /** Bytes of layers handed to the engine. */
  onServed?: (bytes: number) => void;
  /** A layer could not be served; called with the real cause, at most once. */
  onFailure?: (cause: unknown) => void;
}

export interface Registry {
  /** `127.0.0.1:PORT/name` */
  repository: string;
  /** Digest of the manifest: `repository@digest` is what to pull. */
  digest: string;
  /** The first failure to serve a layer, if there was one. */
  failure(): { cause: unknown } | undefined;
  close(): Promise<void>;
}

const MANIFEST_TYPE = 'application/vnd.docker.distribution.manifest.v2+json';

function manifestOf({ configDigest, config, layers }: RegistryOptions): Uint8Array {
  return new TextEncoder().encode(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: {
        mediaType: 'application/vnd.docker.container.image.v1+json',
        size: config.byteLength,
        digest: configDigest,
      },
      layers: layers.map(({ diffId, bytes }) => ({
        mediaType: 'application/vnd.docker.image.rootfs.diff.tar',
        size: bytes,
        digest: diffId,
      })),
    }),
  );
}

/** Opens the registry on an ephemeral port of 127.0.0.1. */
export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  const manifest = manifestOf(options);
  const digest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`;
  const layers = new Map(options.layers.map((layer) => [layer.diffId, layer]));
  const closing = new AbortController();
  let failure: { cause: unknown } | undefined;

  const fixed = (path: string): { type: string; digest: string; bytes: Uint8Array } | undefined => {
    if (path === `manifests/${digest}`) return { type: MANIFEST_TYPE, digest, bytes: manifest };
    if (path === `blobs/${options.configDigest}`) {
      return { type: 'application/octet-stream', digest: options.configDigest, bytes: options.config };
    }
    return undefined;
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    const head = request.method === 'HEAD';
    if (request.method !== 'GET' && !head) return refuse(response, 405, 'UNSUPPORTED', 'read-only');
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    if (path === '/v2/' || path === '/v2') {
      response.setHeader('content-type', 'application/json').end('{}');
      return;
    }
    const prefix = `/v2/${options.name}/`;
    if (!path.startsWith(prefix)) return refuse(response, 404, 'NAME_UNKNOWN', 'no such repository');
    const rest = path.slice(prefix.length);

    const small = fixed(rest);
    if (small) {
      response.writeHead(200, {
        'content-type': small.type,
        'content-length': small.bytes.byteLength,
        'docker-content-digest': small.digest,
      });
      response.end(head ? undefined : small.bytes);
      return;
    }
    const layer = rest.startsWith('blobs/') ? layers.get(rest.slice('blobs/'.length)) : undefined;
    if (!layer) {
      const code = rest.startsWith('manifests/') ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN';
      return refuse(response, 404, code, 'not part of the image being installed');
    }
    // After the first failure the pull is lost: 404 is what an engine does not retry.
    if (failure) return refuse(response, 404, 'BLOB_UNKNOWN', 'the installation has failed');
    response.writeHead(200, {
      'content-type': 'application/octet-stream',
      'content-length': layer.bytes,
      'docker-content-digest': layer.diffId,
      // Layers are rebuilt from the start each time; RFC 9110 §14.3 has a word for that.
      'accept-ranges': 'none',
    });
    if (head) {
      response.end();
      return;
    }
    await send(layer, response);
  }

  async function send(layer: ServedLayer, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    let cause: { error: unknown } | undefined;
    const source = async function* () {
      let sentBytes = 0;
      try {
        for await (const chunk of layer.open(AbortSignal.any([gone.signal, closing.signal]))) {
          if (chunk.byteLength === 0) continue;
          sentBytes += chunk.byteLength;
          if (sentBytes > layer.bytes) break;
          yield chunk;
          options.onServed?.(chunk.byteLength);
        }
        if (sentBytes !== layer.bytes) {
          throw new ImageError(
            'WRONG_IMAGE',
            `layer ${layer.diffId} has ${sentBytes > layer.bytes ? 'more' : 'fewer'} bytes than the ${layer.bytes} its target says; push again`,
          );
        }
      } catch (error) {
        // Once the engine has gone, what the layer says about it is no cause.
        if (!gone.signal.aborted) cause = { error };
        throw error;
      }
    };
    try {
      await pipeline(Readable.from(source(), { objectMode: false }), response);
    } catch {
      response.destroy();
      // Without a cause of ours the engine went away: it has enough, or the pull was called off.
      if (cause) fail(cause.error);
    }
  }

  function fail(cause: unknown): void {
    if (failure || closing.signal.aborted) return;
    failure = { cause };
    options.onFailure?.(cause);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.destroy();
      fail(error);
    });
  });
  // Engines try TLS first on a loopback registry and fall back to plain HTTP when it is refused.
  server.on('clientError', (_error, socket) => socket.destroy());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  return {
    repository: `127.0.0.1:${port}/${options.name}`,
    digest,
    failure: () => failure,
    async close() {
      closing.abort();
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response
    .writeHead(status, { 'content-type': 'application/json' })
    .end(JSON.stringify({ errors: [{ code, message }] }));
}
