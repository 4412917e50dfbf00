/**
 * The descriptors of this device's resources: opened once, by the agent, and kept as long as it lives.
 *
 * Invariant: the agent never reads or writes what it keeps here, but for the one failsafe command that it
 * sends when nobody is left. After its own death it takes over the owner's copies instead of opening anew: the camera has
 * room for one reader, and a port for one listener.
 */
import { AgentError } from '#agent/errors.ts';
import type { Resource } from '#handover/messages.ts';
import { isNativeError, native } from '#handover/native.ts';

export interface DeviceOptions {
  /** Path of the flight controller's tty, and its speed. */
  readonly rotors: string;
  readonly baud: number;
  /** Path of the camera's unix socket. */
  readonly camera: string;
  /** Where the control panel listens. */
  readonly panel: { readonly host: string; readonly port: number };
}
export type Kept = Exclude<Resource, 'connections'>;
export interface Descriptor {
  readonly name: string;
  readonly fd: number;
}
export interface Devices {
  /** What rides with a GRANT of this resource; opens it at the first call. @throws AgentError `DEVICE` */
  descriptors(resource: Kept): Descriptor[];
  /** The owner's copy, after the agent's restart. Takes the descriptor, and closes it if it has one already. */
  adopt(resource: Kept, fd: number): void;
  /** The device went away (its far end closed): the next grant opens it anew. */
  forget(resource: Kept): void;
  close(): void;
}

const BACKLOG = 128;

export const createDevices = (options: DeviceOptions): Devices => {
  const kept = new Map<Kept, number>();
  const open = {
    rotors: () => native.openTty(options.rotors, options.baud),
    camera: () => {
      const fd = native.unixConnect(options.camera);
      if (fd < 0) throw new Error('the camera has another reader');
      return fd;
    },
    listener: () => native.tcpListen(options.panel.host, options.panel.port, BACKLOG),
  };
  const forget = (resource: Kept): void => {
    const fd = kept.get(resource);
    kept.delete(resource);
    if (fd !== undefined) native.close(fd);
  };
  return {
    descriptors(resource) {
      let fd = kept.get(resource);
      if (fd === undefined) {
        try {
          fd = open[resource]();
        } catch (cause) {
          const where = {
            rotors: options.rotors,
            camera: options.camera,
            listener: `port ${options.panel.port}`,
          };
          const why = isNativeError(cause) ? cause.code : String(cause);
          throw new AgentError(
            'DEVICE',
            `cannot open the ${resource} at ${where[resource]} (${why}); is it there and free?`,
            {
              cause,
            },
          );
        }
        kept.set(resource, fd);
      }
      return [{ name: resource, fd }];
    },
    adopt(resource, fd) {
      if (kept.has(resource)) native.close(fd);
      else kept.set(resource, fd);
    },
    forget,
    close() {
      for (const resource of [...kept.keys()]) forget(resource);
    },
  };
};
