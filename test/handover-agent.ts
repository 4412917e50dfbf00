/** An agent that does what a test says, line by line, over the real socket. */
import { closeAll, type LineSocket, listenLines, type NamedDescriptor } from '#handover/lines.ts';
import { type AppMessage, type JsonObject, parseAppMessage, type Resource } from '#handover/messages.ts';
import { cleanUp, until } from './handover-kit.ts';

type Type = AppMessage['type'];
export interface Heard<T extends Type = Type> {
  readonly message: Extract<AppMessage, { type: T }>;
  readonly descriptors: Map<string, number>;
}

/** One app's connection, as the agent sees it. */
export class AppEnd {
  readonly #socket: LineSocket<AppMessage>;
  readonly heard: Heard[] = [];
  ended = false;
  error: Error | undefined;

  constructor(socket: LineSocket<AppMessage>) {
    this.#socket = socket.start({
      onMessage: (message, descriptors) => this.heard.push({ message, descriptors }),
      onClose: (error) => {
        this.ended = true;
        this.error = error;
      },
    });
    cleanUp(() => this.close());
  }

  send(message: { type: string; epoch: number } & JsonObject, descriptors: NamedDescriptor[] = []): void {
    this.#socket.send(message, descriptors);
  }
  close(): void {
    this.#socket.close();
    for (const { descriptors } of this.heard.splice(0)) closeAll(descriptors.values());
  }

  /** The next message of this type, taken out; what came of other types stays for its own `next`. */
  async next<T extends Type>(type: T, withinMs = 10_000): Promise<Heard<T>> {
    const at = (): number => this.heard.findIndex(({ message }) => message.type === type);
    await until(`${type} is heard`, () => at() >= 0 || this.ended, withinMs);
    const [found] = at() < 0 ? [] : this.heard.splice(at(), 1);
    if (found === undefined) throw new Error(`it ended before ${type}: ${this.error?.message ?? ''}`);
    return found as unknown as Heard<T>;
  }
  count(type: Type): number {
    return this.heard.filter(({ message }) => message.type === type).length;
  }
}

export const scriptedAgent = (path: string) => {
  const apps: AppEnd[] = [];
  const listener = listenLines(path, parseAppMessage, (socket) => apps.push(new AppEnd(socket)));
  cleanUp(() => listener.close());
  let taken = 0;
  return {
    apps,
    /** The next app that connects, after its HELLO. */
    app: async (): Promise<{ app: AppEnd; hello: Heard<'HELLO'> }> => {
      await until('an app connects', () => apps.length > taken);
      const app = apps[taken++] as AppEnd;
      return { app, hello: await app.next('HELLO') };
    },
    /** Dies: every connection closes, and nobody listens. */
    die: (): void => {
      listener.close();
      for (const app of apps) app.close();
    },
  };
};

/** Asks one app for a resource and grants it to another: all lines of it. Returns the last line's payload. */
export const pass = async (
  from: AppEnd,
  to: AppEnd,
  resource: Resource,
  epoch: number,
  own: NamedDescriptor[] = [],
): Promise<{ lines: JsonObject[]; payload: JsonObject; deliveredMs: number }> => {
  const startMs = performance.now();
  from.send({ type: 'RELEASE', epoch, resource, deadlineMs: resource === 'rotors' ? 50 : 1_000 });
  const heard: Heard<'RELEASED'>[] = [];
  do heard.push(await from.next('RELEASED'));
  while (heard.at(-1)?.message.more === true);
  for (const { message, descriptors } of heard) {
    const named = [...descriptors].map(([name, fd]) => ({ name, fd }));
    const { payload, more } = message;
    to.send({ type: 'GRANT', epoch, resource, from: 'release', payload, more }, [...named, ...own]);
    closeAll(descriptors.values());
  }
  await to.next('GRANTED');
  const last = heard.at(-1) as Heard<'RELEASED'>;
  const lines = heard.map(({ message }) => message.payload);
  return { lines, payload: last.message.payload, deliveredMs: performance.now() - startMs };
};
