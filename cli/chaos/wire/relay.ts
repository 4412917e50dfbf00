/**
 * `relay (LISTEN TARGET)...`: carries the connections of each address to the other, bytes as they are; an address is a unix
 * socket's path or HOST:PORT. Runs in a network namespace of its own (namespaces.ts), which lives as long as it does.
 *
 * Invariant: it ends when its standard input does, so with whoever started it.
 */
import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net';

const words = process.argv.slice(2);

function optionsOf(text: string): NetConnectOpts {
  if (text.startsWith('/')) return { path: text, allowHalfOpen: true };
  const [host = '', port = ''] = text.split(':');
  return { host, port: Number(port), allowHalfOpen: true };
}

/** Each side's end is the other's, its failure too. */
export function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => to.destroy());
    from.on('close', () => {
      if (!from.readableEnded) to.destroy();
    });
    from.pipe(to);
  }
}

if (import.meta.main) {
  process.stdin.resume();
  process.stdin.on('close', () => process.exit(0));
  let left = words.length / 2;
  for (let at = 0; at + 1 < words.length; at += 2) {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.setNoDelay(true);
      const onward = connect(optionsOf(words[at + 1] as string));
      onward.setNoDelay(true);
      join(socket, onward);
    });
    server.listen(optionsOf(words[at] as string), () => {
      left -= 1;
      if (left === 0) process.stdout.write('ready\n');
    });
  }
}
