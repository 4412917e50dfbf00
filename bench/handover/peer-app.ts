/**
 * The example drone as it flies without Midair: it opens the tty itself, as any such program does, through serialport.
 *
 * Started in a container of the example app's own image, with its sources and this folder mounted: the same control loop, the
 * same runtime, the same scheduling. SIGUSR1: close the port and exit. SIGUSR2: open it (with PEER_WAIT=1 not before).
 */
import { SerialPort } from 'serialport';
import { HOVER } from '../../apps/drone/flight/limits.ts';
import { Loop } from '../../apps/drone/flight/loop.ts';

const {
  PEER_TTY: path = '',
  PEER_EPOCH: epoch = '0',
  PEER_WAIT: wait,
  PEER_LOCK,
  PEER_REALTIME: realtime = '',
  PEER_MAVLINK: mavlink = '',
  PEER_KEY: key = '',
} = process.env;
// Not part of the package's interface: only to be scheduled as the app is that it is compared with.
const { setFifo } = (await import(realtime)) as typeof import('#handover/realtime.ts');

const { SignedLink } = (await import(mavlink)) as typeof import('#handover/mavlink/index.ts');

const loop = new Loop(HOVER);
let port: SerialPort | undefined;

const open = (): void => {
  setFifo('flies');
  const opened = new SerialPort({ path, baudRate: 921_600, lock: PEER_LOCK !== '0' });
  port = opened;
  loop.resume(null, 0, new SignedLink({ key: Buffer.from(key, 'hex'), linkId: 1, lastTimestamp: 0 }));
  loop.output = { epoch: Number(epoch), send: (frame) => void opened.write(Buffer.from(frame)) };
  opened.on('data', (bytes: Buffer) => loop.read(bytes));
};

process.on('SIGTERM', () => process.exit(0));
process.on('SIGUSR1', () => {
  if (port === undefined) process.exit(0);
  else port.close(() => process.exit(0));
});
process.on('SIGUSR2', open);
if (wait === undefined) open();
else setInterval(() => undefined, 60_000);
console.log('ready');
