/**
 * How many simulated drones this machine flies on time: each a process of its own with its board on a pty at 250 Hz, and a
 * pilot at the far end that answers every sample. Without engine, agents and cameras.
 *
 * Doubles their number until more than 1 % of the boards' ticks come late by half a cycle or do not come, then halves the
 * distance. What the machine's host takes meanwhile is told beside it, and counts against the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Machine } from '#cli/fly/machine.ts';
import { flyUndisturbed, SimProcess, TtyPilot } from '#test/sim-kit.ts';

export interface Realtime {
  /** The most that were on time. */
  drones: number;
  cores: number;
  dronesPerCore: number;
  /** With so many. */
  lateTicksShare: number;
  /** Of the processors' time, over all rounds. */
  stealShare: number;
  rounds: Round[];
}

export interface Round {
  drones: number;
  lateTicksShare: number;
  /** Commands that the boards got, of one a tick. */
  answeredShare: number;
  busyShare: number;
  stealShare: number;
}

const LATE_SHARE_MAX = 0.01;
const ROUND_MS = 5_000;
/** To take off, and for the compilers to be done. */
const SETTLE_MS = 3_000;
const DRONES_MAX = 128;

export const realtime = async (say: (text: string) => void = () => undefined): Promise<Realtime> => {
  const machine = new Machine();
  const rounds: Round[] = [];
  // Flown once more if it was late: whatever else runs meanwhile only makes it worse.
  const isOnTime = async (drones: number): Promise<boolean> =>
    (await isOnTimeOnce(drones)) || (await isOnTimeOnce(drones));
  const isOnTimeOnce = async (drones: number): Promise<boolean> => {
    const round = await fly(drones);
    rounds.push(round);
    say(
      `${drones} drones: ${percent(round.lateTicksShare)} of the ticks late, ${percent(round.answeredShare)} answered, ` +
        `${percent(round.busyShare)} busy, ${percent(round.stealShare)} taken by the host`,
    );
    return round.lateTicksShare < LATE_SHARE_MAX;
  };
  let good = 0;
  let bad = 1;
  while (bad <= DRONES_MAX && (await isOnTime(bad))) {
    good = bad;
    bad *= 2;
  }
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (await isOnTime(middle)) good = middle;
    else bad = middle;
  }
  const { cores, stealShare } = machine.use();
  const best = rounds.findLast(({ drones }) => drones === good);
  return {
    drones: good,
    cores,
    dronesPerCore: good / cores,
    lateTicksShare: best?.lateTicksShare ?? 1,
    stealShare,
    rounds,
  };
};

const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;

const fly = async (drones: number): Promise<Round> => {
  const sims: SimProcess[] = [];
  const pilots: TtyPilot[] = [];
  const calm = flyUndisturbed();
  try {
    // One after the other: their starts are not what is measured.
    for (let i = 0; i < drones; i += 1) {
      const sim = await SimProcess.start('--no-camera', '--seed', String(i + 1));
      sims.push(sim);
      pilots.push(new TtyPilot(sim.rotors));
    }
    // Asked once before: the first answer compiles the board's HTTP server, beside the board.
    await Promise.all(sims.map(countsOf));
    await sleep(SETTLE_MS);
    const machine = new Machine();
    const before = await Promise.all(sims.map(countsOf));
    const answeredBefore = pilots.map(({ answered }) => answered.length);
    await sleep(ROUND_MS);
    const { busyShare, stealShare } = machine.use();
    const answered = pilots.reduce(
      (sum, pilot, i) => sum + pilot.answered.length - (answeredBefore[i] ?? 0),
      0,
    );
    const after = await Promise.all(sims.map(countsOf));
    const grown = (of: (counts: Counts) => number): number =>
      after.reduce((sum, counts, i) => sum + of(counts) - of(before[i] as Counts), 0);
    // A tick that did not come is later than any.
    const due = grown(({ ticks, skipped }) => ticks + skipped);
    return {
      drones,
      lateTicksShare: grown(({ late, skipped }) => late + skipped) / due,
      answeredShare: answered / due,
      busyShare,
      stealShare,
    };
  } finally {
    for (const pilot of pilots) pilot.close();
    await Promise.all(sims.map((sim) => sim.stop()));
    calm();
  }
};

interface Counts {
  ticks: number;
  skipped: number;
  late: number;
}

const countsOf = async (sim: SimProcess): Promise<Counts> => {
  const { board } = await sim.state();
  return {
    ticks: Number(board.ticks),
    skipped: Number(board.skippedTicks),
    late: Number(board.lateTicks),
  };
};
