/**
 * Judges every command as a flight controller would: who sent it, what it answers, how long after the last.
 *
 * Invariant: pure bookkeeping. Times come in, nothing is asked of a clock; the same arrivals give the same record.
 * Only fresh commands (neither stale nor doubled) close a gap, so that a wrong sender cannot hide a pause.
 */
import { type History, KINDS, type Kind } from '#device-sim/history.ts';
import type { Refusal } from '#handover/mavlink/index.ts';

export interface Arrival {
  /** CLOCK_MONOTONIC, us. */
  readonly tUs: number;
  /** The sender: the handover epoch under which it owns the rotors. */
  readonly epoch: number;
  /** `time_usec` of the IMU sample that it answers; NaN: it does not say, so that only the gap counts. */
  readonly imuUs: number;
}

const NUMBERS = Object.fromEntries(KINDS.map((kind, index) => [kind, index])) as Record<Kind, number>;

export class Judge {
  readonly #history: History;
  #epochMax = -1;
  #answeredUs = -1;
  /** The board's own lateness since the last fresh command: not the sender's fault. */
  #boardLateUs = 0;

  constructor(history: History) {
    this.#history = history;
  }

  record(arrival: Arrival): 'fresh' | 'doubled' | 'stale' {
    const { tUs, epoch, imuUs } = arrival;
    if (epoch < this.#epochMax || imuUs < this.#answeredUs) {
      this.#push('stale', arrival, Number.NaN);
      return 'stale';
    }
    this.#epochMax = epoch;
    if (imuUs === this.#answeredUs) {
      this.#push('doubled', arrival, Number.NaN);
      return 'doubled';
    }
    if (!Number.isNaN(imuUs)) this.#answeredUs = imuUs;
    const { open } = this.#history;
    this.#push('fresh', arrival, (tUs - (open[0] as number)) / 1_000);
    open[0] = tUs;
    this.#boardLateUs = 0;
    return 'fresh';
  }

  /** One that the board did not follow: in failsafe, not fit to be followed, or not signed as it has to be. */
  refuse(arrival: Arrival, kind: 'ignored' | 'invalid' | Refusal): void {
    this.#push(kind, arrival, Number.NaN);
  }

  /** The true state at one tick of the board. */
  sample(
    tUs: number,
    gyro: ArrayLike<number>,
    tiltDeg: number,
    z: number,
    lateUs: number,
    skippedTicks: number,
  ): void {
    this.late(lateUs);
    const { samples } = this.#history;
    const [gx, gy, gz] = [gyro[0] as number, gyro[1] as number, gyro[2] as number];
    samples.push(tUs, gx, gy, gz, tiltDeg, z, lateUs, skippedTicks);
  }

  /** The board itself was late by this much, which may explain the gap that is open. */
  late(lateUs: number): void {
    this.#boardLateUs = Math.max(this.#boardLateUs, lateUs);
  }

  /** The drone went down by itself, since nobody commanded: the open gap ends here, on the record. */
  failsafe(tUs: number): void {
    const { open, failsafes } = this.#history;
    failsafes.push(tUs);
    const arrival = { tUs, epoch: this.#epochMax, imuUs: this.#answeredUs };
    this.#push('silence', arrival, (tUs - (open[0] as number)) / 1_000);
    this.pause();
  }

  /** No command is expected from here on (disarmed): the next one closes no gap. */
  pause(): void {
    this.#history.open[0] = Number.NaN;
    this.#boardLateUs = 0;
  }

  #push(kind: Kind, { tUs, epoch, imuUs }: Arrival, gapMs: number): void {
    this.#history.commands.push(tUs, epoch, imuUs, gapMs, NUMBERS[kind], this.#boardLateUs / 1_000);
  }
}
