/**
 * The descriptors of this device's resources: opened once, by the agent, and kept as long as it lives.
 *
 * Invariant: the agent never reads or writes what it keeps here, but for the one failsafe command that it
 * sends when nobody is left. In strict mode (agent/gate/) it does not have the tty at all. After its own death it takes over the owner's copies instead of opening anew: the camera has
 * room for one reader, and a port for one listener.
 */
import { AgentError } from '#agent/errors.ts';
import type { GateClient } from '#agent/gate/client.ts';
import type { Resource } from '#handover/messages.ts';
import { isNativeError, native } from '#handover/native.ts';
import type { AppId } from '#handover/state.ts';

export interface DeviceOptions {
  /** Path of the flight controller's tty, and its speed. */
  readonly rotors: string;
  readonly baud: number;
  /** Path of the camera's unix socket, if there is one. */
  readonly camera?: string | undefined;
  /** Where the control panel listens. */
  readonly panel: { readonly host: string; readonly port: number };
  /** In strict mode it holds the tty, and gives each grant of the rotors a channel of its own. */
  readonly gate?: GateClient | undefined;
}
export type Kept = Exclude<Resource, 'connections'>;
export interface Descriptor {
  readonly name: string;
  readonly fd: number;
}
/** A GRANT that is about to be sent: to whom, and how the one before let go. */
export interface Taking {
  readonly to: AppId;
  readonly epoch: number;
  readonly from: 'release' | 'snap' | 'start';
}
export interface Devices {
  /** What cannot be opened is found out before anyone waits for it. @throws AgentError `DEVICE` */
  open(): void;
  /** What rides with a GRANT of this resource; opens it at the first call. @throws AgentError `DEVICE` */
  descriptors(resource: Kept, taking: Taking): Descriptor[];
  /** Bytes of the agent's own for the flight controller, when nobody has the rotors. @returns whether they are on their way */
  command(epoch: number, bytes: Uint8Array): boolean;
  /** The owner's copy, after the agent's restart. Takes the descriptor, and closes it if it has one already. */
  adopt(resource: Kept, fd: number, from: AppId): void;
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
      if (options.camera === undefined) throw new Error('this drone has none');
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
  const where = {
    rotors: options.rotors,
    camera: options.camera ?? 'no path',
    listener: `port ${options.panel.port}`,
  };
  const opened = (resource: Kept): number => {
    const already = kept.get(resource);
    if (already !== undefined) return already;
    try {
      const fd = open[resource]();
      kept.set(resource, fd);
      return fd;
    } catch (cause) {
      const why = isNativeError(cause) ? cause.code : String(cause);
      throw new AgentError(
        'DEVICE',
        `cannot open the ${resource} at ${where[resource]} (${why}); is it there and free?`,
        { cause },
      );
    }
  };
  const { gate } = options;
  /** Who had the last channel of a gate. */
  let holder: AppId | undefined;
  const channel = (through: GateClient, { to, epoch, from }: Taking): number => {
    const isKnown = holder !== undefined && holder !== to;
    holder = to;
    return through.channel(epoch, isKnown ? (from === 'release' ? 'released' : 'dead') : 'unknown');
  };
  return {
    open() {
      if (gate?.reached === false) {
        throw new AgentError('DEVICE', `no rotor gate has the rotors at ${where.rotors}; see its log`);
      }
      if (gate === undefined) opened('rotors');
      if (options.camera !== undefined) opened('camera');
      opened('listener');
    },
    descriptors(resource, taking) {
      const fd = resource === 'rotors' && gate !== undefined ? channel(gate, taking) : opened(resource);
      return [{ name: resource, fd }];
    },
    command(epoch, bytes) {
      if (gate !== undefined) return gate.command(epoch, bytes);
      return native.write(opened('rotors'), bytes, 0, bytes.length) === bytes.length;
    },
    adopt(resource, fd, from) {
      if (resource === 'rotors' && gate !== undefined) {
        // The end of a channel that the gate knows.
        holder = from;
        native.close(fd);
      } else if (kept.has(resource)) native.close(fd);
      else kept.set(resource, fd);
    },
    forget,
    close() {
      for (const resource of [...kept.keys()]) forget(resource);
    },
  };
};
