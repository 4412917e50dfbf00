/**
 * What the demo says about an update in flight: figures, and which promises they keep.
 *
 * Invariant: pure. Every figure comes from the simulator's judge, the hub or the panel's client; none is assumed.
 */
import type { Seen } from '#cli/demo/panel-client.ts';
import type { Current } from '#cli/demo/world.ts';
import type { EventRecord, HubStatus } from '#cli/hub-client.ts';
import { PERIOD_MS } from '#cli/limits.ts';
import type { Judged } from '#cli/sim-client.ts';

type Release = HubStatus['releases'][number];

/** Monotonic us. */
export interface HandoverTimes {
  /** The first RELEASE of the handover. */
  releaseUs: number;
  rotorsReleaseUs: number;
  rotorsGrantedUs: number;
}

/** From the agent's events, newest handover. Undefined when it did not come to that. */
export function handoverTimes(events: EventRecord[]): HandoverTimes | undefined {
  const atUs = ({ data }: EventRecord) => Number(data.atUs);
  const granted = events.findLast(
    ({ type, data }) => type === 'handover.granted' && data.resource === 'rotors',
  );
  if (granted === undefined) return undefined;
  const before = events.filter((event) => event.type === 'handover.release' && atUs(event) < atUs(granted));
  const rotors = before.findLast(({ data }) => data.resource === 'rotors');
  const first = before.findLast(({ data }) => data.resource === 'camera') ?? rotors;
  if (rotors === undefined || first === undefined) return undefined;
  return { releaseUs: atUs(first), rotorsReleaseUs: atUs(rotors), rotorsGrantedUs: atUs(granted) };
}

/** The span in which the handover may be felt: from two periods before the first release to five after the grant. */
export function handoverSpan({ releaseUs, rotorsGrantedUs }: HandoverTimes): [fromUs: number, toUs: number] {
  return [releaseUs - 2 * PERIOD_MS * 1000, rotorsGrantedUs + 5 * PERIOD_MS * 1000];
}

export interface Measured {
  prior: Release;
  candidate: Release;
  current: Current;
  /** Of the container that flies, by the drone's engine. */
  containerImageId: string;
  before: Judged;
  during: Judged;
  /** From the start of the update to the end of the record. */
  whole: Judged;
  framesLost: number;
  framesRepeated: number;
  /** By the camera itself, since its reader was slow. */
  framesDroppedAtSource: number;
  socketsClosed: number;
  thermal: Seen;
  panelUrl: string;
  svg: string;
  pushMs: number;
}

export interface Pledge {
  text: string;
  held: boolean;
}

export interface FlightReport {
  owner: string;
  imageIdMatches: boolean;
  imageId: string;
  bytes: {
    /** Compressed: what the candidate's layers weigh that the device lacked, and what came instead. */
    full: number;
    delta: number | null;
    /** All of the image's layers, compressed. */
    image: number;
    fetchedAs: string;
  };
  handover: {
    periodMs: number;
    gapMs: number | null;
    missedCycles: number;
    missedCyclesBoardLate: number;
    framesLost: number;
    framesRepeated: number;
    socketsClosed: number;
    staleCommands: number;
    doubledCommands: number;
    failsafes: number;
  };
  ordinary: {
    gapMsP50: number | null;
    gapMsP99: number | null;
    gapMsMax: number | null;
    missedCycles: number;
  };
  attitude: { beforeDeg: number | null; duringDeg: number | null };
  stagesMs: Record<string, number>;
  pushMs: number;
  thermalFrames: number;
  panel: string;
  svg: string;
  promises: Pledge[];
  held: boolean;
}

/** Never more than this, whatever the machine does meanwhile; 0 on an idle one in at least 19 of 20. */
const MISSED_CYCLES_MAX = 3;

export function flightReport(measured: Measured): FlightReport {
  const { prior, candidate, current, before, during, whole } = measured;
  const image = imageOf(candidate);
  const had = new Set(imageOf(prior).layers.map((layer) => layer.diffId));
  const sum = (layers: typeof image.layers) => layers.reduce((bytes, layer) => bytes + layer.blob.bytes, 0);
  const { update, owner } = current;
  const fetched = update.status === 'done' ? update.fetched : { as: 'nothing', bytes: 0 };
  const framesLost = measured.framesLost + measured.framesDroppedAtSource;
  const handover = {
    periodMs: PERIOD_MS,
    gapMs: during.gapMsMax,
    missedCycles: during.missedCycles,
    missedCyclesBoardLate: during.missedCyclesBoardLate,
    framesLost,
    framesRepeated: measured.framesRepeated,
    socketsClosed: measured.socketsClosed,
    staleCommands: whole.stale,
    doubledCommands: whole.doubled,
    failsafes: whole.failsafes,
  };
  const imageIdMatches = image.id === measured.containerImageId && image.id === owner?.imageId;
  const promises: Pledge[] = [
    { text: `${candidate.id} owns the drone`, held: owner?.release === candidate.id },
    { text: 'its image is the pushed build, bit by bit', held: imageIdMatches },
    { text: 'no command of a former owner, none doubled', held: whole.stale === 0 && whole.doubled === 0 },
    { text: 'no failsafe', held: whole.failsafes === 0 },
    {
      text: `no missed control cycle (at most ${MISSED_CYCLES_MAX} on a busy machine)`,
      held: during.gapMsMax !== null && during.missedCycles <= MISSED_CYCLES_MAX,
    },
    { text: 'no camera frame lost', held: framesLost === 0 && measured.framesRepeated === 0 },
    { text: 'no websocket closed', held: measured.socketsClosed === 0 },
    { text: 'the new view shows in the open panel', held: measured.thermal.frames > 0 },
  ];
  return {
    owner: owner?.release ?? '',
    imageIdMatches,
    imageId: measured.containerImageId,
    bytes: {
      full: sum(image.layers.filter((layer) => !had.has(layer.diffId))),
      delta: fetched.as === 'delta' ? fetched.bytes : null,
      image: sum(image.layers),
      fetchedAs: fetched.as,
    },
    handover,
    ordinary: {
      gapMsP50: before.gapMsP50,
      gapMsP99: before.gapMsP99,
      gapMsMax: before.gapMsMax,
      missedCycles: before.missedCycles,
    },
    attitude: { beforeDeg: before.attitudeDegMax, duringDeg: during.attitudeDegMax },
    stagesMs: update.status === 'done' ? update.stagesMs : {},
    pushMs: measured.pushMs,
    thermalFrames: measured.thermal.frames,
    panel: measured.panelUrl,
    svg: measured.svg,
    promises,
    held: promises.every(({ held }) => held),
  };
}

export function imageOf(release: Release): Release['services'][string]['image'] {
  const [service] = Object.values(release.services);
  if (service === undefined) throw new Error(`release ${release.id} has no service`);
  return service.image;
}
