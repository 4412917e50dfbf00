/**
 * A drone that hovers and goes where it is sent, and a panel to watch it and send it: the example app.
 *
 * Invariant: opens no device and no port of its own. What it flies, sees and serves with is granted to it over the
 * handover socket, by the agent or by the version before it, and goes on to the version after it.
 */
import { join } from 'midair/handover';
import * as v from 'valibot';
import { createCamera } from './camera/camera.ts';
import { HOVER } from './flight/limits.ts';
import { Loop } from './flight/loop.ts';
import { createRotors } from './flight/rotors.ts';
import { STATE_VERSION } from './flight/state.ts';
import { follow, shadow } from './flight/warmup.ts';
import { createPanel } from './panel/panel.ts';
import { Pilot } from './panel/pilot.ts';
import { Telemetry } from './panel/telemetry.ts';
import { Viewers } from './panel/viewers.ts';
import { VIEWS } from './panel/views.ts';

const text = v.pipe(v.string(), v.minLength(1));
const environment = v.object({
  MIDAIR_SOCKET: text,
  MIDAIR_RELEASE: text,
  MIDAIR_APP: text,
  /** `asked`: stands on the ground until a pilot asks for the take-off. */
  HOVER_TAKEOFF: v.optional(v.picklist(['itself', 'asked']), 'itself'),
});
const {
  MIDAIR_SOCKET: socketPath,
  MIDAIR_RELEASE: release,
  MIDAIR_APP: app,
  HOVER_TAKEOFF: takeoff,
} = v.parse(environment, process.env);

const log = (line: string): void => console.log(`${app} ${release}: ${line}`);
// As a container's first process it has no default for this.
process.on('SIGTERM', () => process.exit(0));

const loop = new Loop(takeoff === 'asked' ? { altitudeM: null } : HOVER);
const rotors = createRotors(loop, log);
const viewers = new Viewers(release, VIEWS);
const camera = createCamera(viewers, log);
const telemetry = new Telemetry(release, loop);
const flies = () => rotors.owns;
const pilot = new Pilot({ flies, ask: (request) => loop.ask(request) });
const { listener, connections } = createPanel({ viewers, telemetry, pilot, flies });

const session = await join({
  app,
  release,
  socketPath,
  stateVersions: { reads: [STATE_VERSION], writes: STATE_VERSION },
  holders: { camera, listener, connections, rotors },
  warmUp: async (mirror, signal, bounds) => {
    const readiness = await shadow(loop, mirror, signal, bounds);
    // The first report would hold all samples of the warm-up, and be made by cold code, in flight.
    telemetry.rehearse();
    return readiness;
  },
  follow: (mirror) => follow(loop, mirror),
  health: () => ({ cycles: loop.cycles, ...(loop.offM === null ? {} : { error: loop.offM }) }),
  onOwner: () => log('flies'),
  onRetire: () => log('retires'),
  log: (level, line, data) => log(`${level}: ${line}${data === undefined ? '' : ` ${JSON.stringify(data)}`}`),
  realtime: 'fifo',
});
// The agent would see only that the connection closed: this is why.
process.on('uncaughtExceptionMonitor', (error) => session.fault('CRASHED', String(error)));
