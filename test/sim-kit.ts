/**
 * A reference pilot, for tests: flies the simulated drone with nothing but what its board sends.
 *
 * Position (P) to velocity (PI) to tilt to rates (P) to motors, gains from the airframe's own numbers. Not the example
 * app's controller: it exists to show that the physics and the board can be flown.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { PITCH, ROLL, YAW } from '#device-sim/physics.ts';
import type { Summary } from '#device-sim/summary.ts';
import { type Fields, type Frame, Parser, Writer } from '#handover/mavlink/index.ts';
import { AGAIN, native, nowUs, READABLE, type Watcher } from '#handover/native.ts';

const P = PARAMETERS;
const HOVER_N = P.massKg * P.gravityMS2;

export class Pilot {
  /** NED, m. */
  goal: [number, number, number] = [0, 0, -2];
  #position: Fields<'LOCAL_POSITION_NED'> | undefined;
  #imu: Fields<'HIGHRES_IMU'> | undefined;
  readonly #integral = [0, 0, 0];
  readonly throttles: [number, number, number, number] = [0, 0, 0, 0];

  /** Takes a frame in; true when the throttles are new, to be sent as the answer to `answersUs`. */
  hear(frame: Frame): boolean {
    if (frame.name === 'LOCAL_POSITION_NED') this.#position = frame.fields;
    if (frame.name === 'HIGHRES_IMU') this.#imu = frame.fields;
    if (frame.name !== 'ATTITUDE_QUATERNION' || this.#imu === undefined || this.#position === undefined) {
      return false;
    }
    this.#fly(frame.fields, this.#imu, this.#position);
    return true;
  }

  get answersUs(): number {
    return this.#imu?.time_usec ?? 0;
  }

  #fly(
    { q1: w, q2: x, q3: y, q4: z }: Fields<'ATTITUDE_QUATERNION'>,
    imu: Fields<'HIGHRES_IMU'>,
    at: Fields<'LOCAL_POSITION_NED'>,
  ): void {
    const velocity = [at.vx, at.vy, at.vz];
    const wanted = [at.x, at.y, at.z].map((value, axis) => {
      const limit = axis === 2 ? 1 : 2;
      const speed = Math.min(limit, Math.max(-limit, (this.goal[axis] as number) - value));
      const error = speed - (velocity[axis] as number);
      const sum = (this.#integral[axis] as number) + error * 0.004;
      this.#integral[axis] = Math.min(2, Math.max(-2, sum));
      return 2.5 * error + 0.8 * (this.#integral[axis] as number) + P.dragNPerMS * speed;
    }) as [number, number, number];
    // The thrust that accelerates so: its direction is where the body's -z shall point.
    const force = [-wanted[0], -wanted[1], P.gravityMS2 - wanted[2]] as const;
    const norm = Math.hypot(...force);
    const [dn, de, dd] = force.map((value) => value / norm) as [number, number, number];
    // That "down" in the body: (0, 0, 1) when there.
    const bx = (1 - 2 * (y * y + z * z)) * dn + 2 * (x * y + w * z) * de + 2 * (x * z - w * y) * dd;
    const by = 2 * (x * y - w * z) * dn + (1 - 2 * (x * x + z * z)) * de + 2 * (y * z + w * x) * dd;
    const yaw = Math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z));
    const moments = [
      P.inertiaKgM2[0] * (-64 * by - 14 * imu.xgyro),
      P.inertiaKgM2[1] * (64 * bx - 14 * imu.ygyro),
      P.inertiaKgM2[2] * (-4 * yaw - 4 * imu.zgyro),
    ] as const;
    const base = (HOVER_N * norm) / P.gravityMS2 / (4 * P.thrustN);
    for (let motor = 0; motor < 4; motor += 1) {
      const throttle =
        base +
        ((ROLL[motor] as number) * moments[0]) / (4 * P.armM.roll * P.thrustN) +
        ((PITCH[motor] as number) * moments[1]) / (4 * P.armM.pitch * P.thrustN) +
        ((YAW[motor] as number) * moments[2]) / (4 * P.torqueNm);
      this.throttles[motor] = Math.min(1, Math.max(0, throttle));
    }
  }
}

/** The pilot at the far end of the tty. */
export class TtyPilot {
  readonly pilot = new Pilot();
  readonly writer = new Writer({ systemId: 1, componentId: 191 });
  readonly parser = new Parser();
  readonly #fd: number;
  readonly #buffer = new Uint8Array(4096);
  readonly #watcher: Watcher;
  #open = true;
  /** `time_usec` of every sample that was answered. */
  readonly answered: number[] = [];
  epoch = 1;
  /** Commands go out only while true. */
  flying = true;
  /** Called for every frame heard, after the pilot. */
  onFrame: (frame: Frame) => void = () => undefined;

  constructor(path: string) {
    this.#fd = native.openTty(path, 921_600);
    this.#watcher = native.watch(this.#fd, READABLE, () => this.#read());
  }

  #read(): void {
    const length = native.read(this.#fd, this.#buffer, 0, this.#buffer.length);
    if (length === AGAIN || length === 0) return;
    for (const frame of this.parser.read(this.#buffer.subarray(0, length))) {
      if (this.pilot.hear(frame) && this.flying && this.pilot.answersUs > (this.answered.at(-1) ?? 0)) {
        this.answered.push(this.pilot.answersUs);
        this.command();
      }
      this.onFrame(frame);
    }
  }

  /** Sends the present throttles as the answer to the last IMU sample. */
  command(fields: Partial<Fields<'HIL_ACTUATOR_CONTROLS'>> = {}): void {
    this.write(
      this.writer.encode('HIL_ACTUATOR_CONTROLS', {
        time_usec: this.pilot.answersUs,
        controls: this.pilot.throttles,
        mode: 0x81,
        flags: this.epoch,
        ...fields,
      }),
    );
  }

  write(bytes: Uint8Array): void {
    native.write(this.#fd, bytes, 0, bytes.length);
  }

  /** The next frame of this name. */
  async next<N extends Frame['name']>(name: N, deadlineMs = 5_000): Promise<Extract<Frame, { name: N }>> {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${name} within ${deadlineMs} ms`)), deadlineMs);
      const before = this.onFrame;
      this.onFrame = (frame) => {
        before(frame);
        if (frame.name !== name) return;
        clearTimeout(timer);
        this.onFrame = before;
        resolve(frame as Extract<Frame, { name: N }>);
      };
    });
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watcher.close();
    native.close(this.#fd);
  }
}

export interface SimState {
  tUs: number;
  position: [number, number, number];
  velocity: [number, number, number];
  tiltDeg: number;
  armed: boolean;
  landed: boolean;
  failsafe: boolean;
  crashed: boolean;
  battery: number;
  epoch: number;
  board: Record<string, number | boolean>;
}

/** The simulator as its users get it: a process of its own. */
export class SimProcess {
  readonly directory: string;
  readonly url: string;
  readonly rotors: string;
  readonly camera: string;
  readonly child: ChildProcess;

  static async start(...args: string[]): Promise<SimProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'midair-sim-'));
    const main = new URL('../device-sim/main.ts', import.meta.url).pathname;
    const child = spawn(process.execPath, [main, '--dir', directory, '--log-level', 'warn', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve, reject) => {
      let text = '';
      child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        if (text.includes('\n')) resolve(text.split('\n')[0] as string);
      });
      child.once('exit', (code) => reject(new Error(`the simulator ended with status ${code}`)));
    });
    return new SimProcess(
      directory,
      child,
      JSON.parse(line) as { url: string; rotors: string; camera: string },
    );
  }

  private constructor(
    directory: string,
    child: ChildProcess,
    ready: { url: string; rotors: string; camera: string },
  ) {
    this.directory = directory;
    this.child = child;
    this.url = ready.url;
    this.rotors = ready.rotors;
    this.camera = ready.camera;
  }

  async get<T>(path: string): Promise<T> {
    return (await (await fetch(`${this.url}${path}`)).json()) as T;
  }

  async state(): Promise<SimState> {
    return await this.get('/state');
  }

  async judge(fromUs: number, toUs = nowUs()): Promise<Summary> {
    return await this.get(`/judge?fromUs=${fromUs}&toUs=${toUs}`);
  }

  /** Ends it by its pid; leaves nothing. */
  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const ended = new Promise((resolve) => this.child.once('exit', resolve));
      this.child.kill('SIGTERM');
      await ended;
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

/**
 * The pilot's process on the footing of the board's, where the system allows it: other tests that run beside it are
 * then not seen as its silence. Returns the way back.
 */
export const flyUndisturbed = (): (() => void) => {
  try {
    native.setFifo(0, 5);
  } catch {
    return () => undefined;
  }
  return () => native.setFifo(0, 0);
};

/** Waits for a condition, asked every 20 ms, with a deadline. */
export const until = async (
  what: string,
  holds: () => Promise<boolean> | boolean,
  deadlineMs = 15_000,
): Promise<void> => {
  const end = performance.now() + deadlineMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
