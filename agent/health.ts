/** What the engine's own health checks say of a container, as they change. */
import type Docker from 'dockerode';
import * as v from 'valibot';
import { LIMITS } from '#agent/limits.ts';

const event = v.object({ Action: v.string(), Actor: v.object({ ID: v.string() }) });

/**
 * Listens until the signal; an engine that goes away is asked again.
 * @param onUnhealthy full id of a container whose HEALTHCHECK has failed as often as it allows
 */
export const watchHealth = (docker: Docker, signal: AbortSignal, onUnhealthy: (id: string) => void): void => {
  const again = (): void => {
    if (signal.aborted) return;
    const timer = setTimeout(() => void listen(), LIMITS.retryMsMin);
    signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  };
  const listen = async (): Promise<void> => {
    try {
      const filters = JSON.stringify({ type: ['container'], event: ['health_status'] });
      const stream: NodeJS.ReadableStream = await docker.getEvents({ filters, abortSignal: signal });
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const id = unhealthy(line);
          if (id !== undefined) onUnhealthy(id);
        }
      });
      stream.once('error', () => undefined);
      stream.once('close', again);
    } catch {
      again();
    }
  };
  void listen();
};

const unhealthy = (line: string): string | undefined => {
  try {
    const { Action, Actor } = v.parse(event, JSON.parse(line));
    return /^health_status: unhealthy$/.test(Action) ? Actor.ID : undefined;
  } catch {
    return undefined;
  }
};
