/**
 * The panel's files over HTTP: those in static/ and uPlot's.
 *
 * Invariant: only files that were there at the start are served, each by its exact path; no path is ever built from a
 * request. A response ends its connection: the next request goes to whichever version listens by then.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LIMITS } from './limits.ts';

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const readFiles = (): Map<string, { body: Buffer; type: string }> => {
  const files = new Map<string, { body: Buffer; type: string }>();
  const add = (path: string, file: string) => {
    const type = TYPES[extname(file)];
    if (type !== undefined) files.set(path, { body: readFileSync(file), type });
  };
  const directory = fileURLToPath(new URL('./static/', import.meta.url));
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name);
    if (entry.isFile()) add(`/${file.slice(directory.length)}`, file);
  }
  const uplot = new URL('.', import.meta.resolve('uplot'));
  for (const name of ['uPlot.esm.js', 'uPlot.min.css'])
    add(`/uplot/${name}`, fileURLToPath(new URL(name, uplot)));
  const index = files.get('/index.html');
  if (index !== undefined) files.set('/', index);
  return files;
};

/** A server that is not listening yet. @throws what reading the files throws */
export const createPanelServer = (): Server => {
  const files = readFiles();
  const server = createServer((request, response) => {
    response.setHeader('connection', 'close');
    response.setHeader(
      'content-security-policy',
      "default-src 'self'; img-src 'self' blob:; style-src 'self' 'unsafe-inline'",
    );
    response.setHeader('x-content-type-options', 'nosniff');
    response.setHeader('cache-control', 'no-store');
    const file = files.get((request.url ?? '').split('?', 1)[0] as string);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405).end();
    } else if (file === undefined) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('not found\n');
    } else {
      response.writeHead(200, { 'content-type': file.type, 'content-length': file.body.length });
      response.end(request.method === 'HEAD' ? undefined : file.body);
    }
  });
  server.requestTimeout = LIMITS.requestMs;
  server.headersTimeout = LIMITS.requestMs;
  return server;
};
