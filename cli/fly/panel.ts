/**
 * A drone's control panel, open for the whole flight: what its pilot asks for goes through it, and what he would have
 * missed is counted.
 *
 * Invariant: it is opened anew when it closes, as a browser would, and each close is counted.
 */
import { PanelClient } from '#cli/demo/panel-client.ts';
import { FLY } from '#cli/fly/limits.ts';

export class Panel {
  readonly #url: string;
  readonly #signal: AbortSignal;
  readonly #clients: PanelClient[] = [];
  #opening: Promise<PanelClient> | undefined;

  constructor(url: string, signal: AbortSignal) {
    this.#url = url;
    this.#signal = signal;
  }

  /** The one that is open. @throws what connecting throws */
  async open(): Promise<PanelClient> {
    const last = this.#clients.at(-1);
    if (last?.isOpen) return last;
    // Where nobody flies any more the agent still listens, and nobody answers.
    const inTime = AbortSignal.any([this.#signal, AbortSignal.timeout(FLY.askMsMax)]);
    this.#opening ??= PanelClient.connect(this.#url, inTime)
      .then((client) => {
        this.#clients.push(client);
        return client;
      })
      .finally(() => {
        this.#opening = undefined;
      });
    return this.#opening;
  }

  /** @throws Error why it is not followed, or that nobody answered */
  async ask(request: object): Promise<void> {
    const client = await this.open();
    const late = AbortSignal.any([this.#signal, AbortSignal.timeout(FLY.askMsMax)]);
    await Promise.race([
      client.ask(request),
      new Promise<never>((_, reject) => {
        late.addEventListener('abort', () => reject(new Error('nobody answered')));
      }),
    ]);
  }

  get phase(): string {
    return this.#clients.at(-1)?.phase ?? '';
  }

  releaseOf(epoch: number): string | undefined {
    for (const client of this.#clients) {
      const release = client.releaseOf(epoch);
      if (release !== undefined) return release;
    }
    return undefined;
  }

  #sum(figure: (client: PanelClient) => number): number {
    return this.#clients.reduce((sum, client) => sum + figure(client), 0);
  }
  get framesLost(): number {
    return this.#sum((client) => client.framesLost);
  }
  get framesRepeated(): number {
    return this.#sum((client) => client.framesRepeated);
  }
  get closes(): number {
    return this.#sum((client) => client.closes);
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }
}
