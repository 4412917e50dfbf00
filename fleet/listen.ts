/** Listening, with a taken address told as what it is. */
import type { AddressInfo, Server } from 'node:net';
import { codeOf, FleetError } from '#fleet/errors.ts';

/** @throws FleetError `ADDRESS_IN_USE`; another listen error as it is */
export async function listen(server: Server, at: { host: string; port: number }): Promise<AddressInfo> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(at, () => {
      server.off('error', reject);
      resolve();
    });
  }).catch((error: unknown) => {
    if (codeOf(error) !== 'EADDRINUSE') throw error;
    throw new FleetError(
      'ADDRESS_IN_USE',
      `${at.host}:${at.port} is in use`,
      'stop what listens there, or give the hub another address (--http, --mqtt; port 0 takes a free one)',
      error,
    );
  });
  return server.address() as AddressInfo;
}
