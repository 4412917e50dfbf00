/**
 * The injector's API as this command line reads it.
 *
 * Invariant: what the injector refuses is thrown with its code; one that does not answer is told with the next step.
 */

import type { ExperimentJson } from '#cli/chaos/api.ts';
import { type ChaosCode, ChaosError } from '#cli/chaos/errors.ts';
import type { Asked } from '#cli/chaos/experiment.ts';
import type { HistoryEvent } from '#cli/chaos/injector.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { ownerOf } from '#cli/chaos/serve.ts';
import { isAlive } from '#cli/processes.ts';

export class ChaosClient {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** The one that has a directory. @throws ChaosError `INJECTOR_UNREACHABLE` */
  static of(directory: string): ChaosClient {
    const owner = ownerOf(directory);
    if (owner?.url === undefined || !isAlive(owner)) {
      throw new ChaosError(
        'INJECTOR_UNREACHABLE',
        `no injector runs in ${directory}: start one (midair chaos serve --dir ${directory}), or name its URL (--chaos)`,
      );
    }
    return new ChaosClient(owner.url);
  }

  create(asked: Asked): Promise<{ experiment: ExperimentJson; matches: string[]; notes: string[] }> {
    return this.#ask('POST', '/v1/chaos', asked);
  }
  async list(): Promise<ExperimentJson[]> {
    return (await this.#ask<{ experiments: ExperimentJson[] }>('GET', '/v1/chaos')).experiments;
  }
  async find(id: string): Promise<ExperimentJson> {
    return (await this.#ask<{ experiment: ExperimentJson }>('GET', `/v1/chaos/${id}`)).experiment;
  }
  /** Resolves when all of it is undone. */
  async stop(id: string): Promise<ExperimentJson> {
    return (await this.#ask<{ experiment: ExperimentJson }>('DELETE', `/v1/chaos/${id}`)).experiment;
  }
  async events(after = 0): Promise<HistoryEvent[]> {
    return (await this.#ask<{ events: HistoryEvent[] }>('GET', `/v1/chaos/events?after=${after}`)).events;
  }

  async #ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    let response: Response;
    let answer: unknown;
    try {
      response = await fetch(this.url + path, {
        method,
        signal: AbortSignal.timeout(CHAOS.requestMsMax),
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      answer = await response.json();
    } catch (cause) {
      const reason = (cause as { cause?: { code?: string } }).cause?.code ?? (cause as Error).message;
      throw new ChaosError(
        'INJECTOR_UNREACHABLE',
        `the injector at ${this.url} does not answer (${reason}): is it running (midair chaos serve), is the address right?`,
        { cause },
      );
    }
    if (response.ok) return answer as T;
    const { code, error } = answer as { code: ChaosCode; error: string };
    throw new ChaosError(code, error);
  }
}
