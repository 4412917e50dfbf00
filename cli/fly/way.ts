/**
 * The way from a drone to its hub, which can be cut: TCP connections passed on, byte by byte.
 *
 * Invariant: while it is cut nothing passes and nobody gets in; connections that were open are reset, as by a radio that
 * is gone. Loopback only.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

export class Way {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  /** @param url of the real one, `scheme://127.0.0.1:port` */
  static async open(url: string): Promise<Way> {
    const { hostname, port } = new URL(url);
    const way = new Way(hostname, Number(port));
    await new Promise<void>((resolve, reject) => {
      way.#server.once('error', reject);
      way.#server.listen(0, '127.0.0.1', resolve);
    });
    return way;
  }

  private constructor(host: string, port: number) {
    this.#server = createServer({ pauseOnConnect: true }, (near) => {
      if (this.#isCut) {
        near.resetAndDestroy();
        return;
      }
      const far = connect(port, host);
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => other.destroy());
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }

  /** Of this way, in the same scheme. */
  url(scheme: 'http' | 'mqtt'): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the way is closed');
    return `${scheme}://127.0.0.1:${address.port}`;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
