/** `GET` and `HEAD /v1/blobs/{digest}`, with one byte range (RFC 9110 §14), resumable and cacheable for ever. */
import { createReadStream } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Blobs } from '#fleet/blobs.ts';
import { FleetError } from '#fleet/errors.ts';

/** @throws FleetError `BAD_REQUEST`, `NOT_FOUND` before anything was answered */
export async function serveBlob(
  blobs: Blobs,
  digest: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    throw new FleetError('BAD_REQUEST', `${request.method} is not for blobs`, 'use GET or HEAD');
  }
  const size = await blobs.size(digest);
  if (size === undefined) {
    throw new FleetError(
      'NOT_FOUND',
      `there is no blob ${digest}`,
      'take digests from the target state or /v1/releases',
    );
  }
  const etag = `"${digest}"`;
  response.setHeader('etag', etag);
  response.setHeader('accept-ranges', 'bytes');
  response.setHeader('cache-control', 'public, max-age=31536000, immutable');
  response.setHeader('content-type', 'application/octet-stream');
  response.setHeader('x-content-type-options', 'nosniff');
  if (request.headers['if-none-match']?.includes(etag)) {
    response.writeHead(304).end();
    return;
  }
  const condition = request.headers['if-range'];
  const range =
    request.method === 'GET' && (condition === undefined || condition === etag)
      ? parseRange(request.headers.range, size)
      : null;
  if (range === 'unsatisfiable') {
    response.writeHead(416, { 'content-range': `bytes */${size}`, 'content-length': 0 }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: size - 1 };
  response.setHeader('content-length', end - start + 1);
  if (range) response.setHeader('content-range', `bytes ${start}-${end}/${size}`);
  response.writeHead(range ? 206 : 200);
  if (request.method === 'HEAD' || size === 0) {
    response.end();
    return;
  }
  // A client that goes away in the middle comes back with a range: no error of ours.
  await pipeline(createReadStream(blobs.path(digest), { start, end }), response).catch(() =>
    response.destroy(),
  );
}

/**
 * One range in bytes, both ends included; null where the header is absent, malformed, of another unit or of several
 * ranges, all of which a server may answer with the whole (RFC 9110 §14.2).
 */
export function parseRange(
  header: string | undefined,
  size: number,
): { start: number; end: number } | 'unsatisfiable' | null {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? '') ?? [];
  if (first === '' && last === '') return null;
  if (first === '') {
    const length = Math.min(Number(last), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size - 1 };
  }
  const start = Number(first);
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1);
  if (last !== '' && Number(last) < start) return null;
  return start >= size ? 'unsatisfiable' : { start, end };
}
