/** Pictures of a flight, as SVG and PNG: one of the whole, one of each change of hands. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { traceSvg } from '#cli/demo/trace-svg.ts';
import type { Drone } from '#cli/fly/drone.ts';
import { flightSvg } from '#cli/fly/flight-svg.ts';
import { FLY } from '#cli/fly/limits.ts';
import type { Change } from '#cli/fly/tape.ts';
import { PERIOD_MS } from '#cli/limits.ts';

export interface Pictures {
  flight: string;
  /** By change of hands, in order. */
  handovers: string[];
}

/** @returns the SVGs' paths; the PNG of each lies beside it */
export const drawFlight = async (
  drone: Drone,
  directory: string,
  title: string,
  span: { startUs: number; endUs: number },
): Promise<Pictures> => {
  const nameOf = (epoch: number) => drone.panel.releaseOf(epoch) ?? `epoch ${epoch}`;
  const draw = async (name: string, svg: string): Promise<string> => {
    const path = join(directory, `${name}.svg`);
    writeFileSync(path, svg);
    writeFileSync(path.replace(/svg$/, 'png'), await png(svg));
    return path;
  };
  const { points, changes } = drone.tape;
  const picture = { title, points, marks: drone.marks, changes, nameOf, ...span };
  const flight = await draw(`${drone.name}-flight`, flightSvg(picture));
  const handovers: string[] = [];
  for (const [at, change] of changes.entries()) {
    const { trace, lastUs, firstUs, judged } = change;
    // Nobody flew in between: that is on the picture of the flight.
    if (firstUs - lastUs > FLY.pictureGapUsMax) continue;
    const svg = traceSvg({
      ...{ trace, lastUs, firstUs, periodMs: PERIOD_MS },
      prior: nameOf(change.before),
      candidate: nameOf(change.after),
      missedCycles: judged.missedCycles,
      title: titleOf(nameOf(change.before), nameOf(change.after), change),
      events: drone.steps,
    });
    handovers.push(await draw(`${drone.name}-handover-${at + 1}`, svg));
  }
  return { flight, handovers };
};

const titleOf = (prior: string, candidate: string, { lastUs, firstUs, judged }: Change): string => {
  const gapMs = ((firstUs - lastUs) / 1000).toFixed(2);
  const { missedCycles } = judged;
  const cycles = missedCycles === 1 ? '1 missed control cycle' : `${missedCycles} missed control cycles`;
  return `${prior} to ${candidate}: ${gapMs} ms between two commands, ${cycles}`;
};

/** Loaded when there is something to draw: libvips is large. */
export const png = async (svg: string, width: number = FLY.pngWidth): Promise<Buffer> => {
  const { default: sharp } = await import('sharp');
  return sharp(Buffer.from(svg), { density: 144 })
    .resize({ width })
    .png({ palette: true, colours: 64, compressionLevel: 9, effort: 10 })
    .toBuffer();
};
