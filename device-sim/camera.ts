/**
 * The camera: two streams of numbered frames on one unix socket, for one reader at a time.
 *
 * Invariants: frames come at their rates and are numbered whether anybody reads or not; each is sent whole, or dropped
 * and counted; a reader begins with a whole frame; a second reader is told that it is one too many, and gets nothing
 * else. The place is free as soon as nobody holds the reader's end, however that came to be. Nothing is drawn that nobody
 * would get.
 *
 * The format is in docs/simulated-camera.md. The thermal picture is no JPEG: its levels are temperatures, and a view of
 * them would mark what a coder made up.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { JpegEncoder } from '#device-sim/jpeg.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { AT } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { type Pose, renderThermal, renderVisible, stampNumber } from '#device-sim/scene.ts';
import { TRUTH, type Truth } from '#device-sim/truth.ts';

export const CAMERA_KINDS = ['visible', 'thermal'] as const;
/** In the place of a kind: no picture follows, but why there is none, and the connection ends. */
export const CAMERA_REFUSAL = 255;
const BUSY = 'CAMERA_BUSY: the camera has another reader; stop it, or wait until it is gone';

/** Shared between the threads; per kind [visible, thermal] where an index is given. */
export const CAMERA = {
  /** produced = sent + dropped (the reader was slow) + unread (there was none). */
  produced: 0,
  sent: 2,
  dropped: 4,
  unread: 6,
  reader: 8,
  refused: 9,
  length: 10,
} as const;

export const createCameraCounts = (): SharedArrayBuffer => new SharedArrayBuffer(CAMERA.length * 8);

export const frameBytes = (
  kind: 0 | 1 | typeof CAMERA_REFUSAL,
  number: number,
  captureUs: number,
  picture: Uint8Array,
): Buffer => {
  const frame = Buffer.allocUnsafe(4 + LIMITS.cameraHeaderBytes + picture.length);
  frame.writeUInt32LE(LIMITS.cameraHeaderBytes + picture.length, 0);
  frame.writeUInt32LE(kind, 4);
  frame.writeUInt32LE(number >>> 0, 8);
  frame.writeDoubleLE(captureUs, 12);
  frame.set(picture, 4 + LIMITS.cameraHeaderBytes);
  return frame;
};

const nowUs = (): number => Number(process.hrtime.bigint() / 1_000n);
const PERIODS_US = [1e6 / LIMITS.visible.rateHz, 1e6 / LIMITS.thermal.rateHz] as const;

export class Camera {
  readonly #truth: Truth;
  readonly #counts: Float64Array;
  readonly #random: Random;
  readonly #server: Server;
  readonly #encoder: JpegEncoder;
  readonly #rgba = new Uint8Array(LIMITS.visible.width * LIMITS.visible.height * 4);
  readonly #grey = new Uint8Array(LIMITS.thermal.width * LIMITS.thermal.height);
  readonly #dueUs: [number, number];
  #reader: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(truth: Truth, counts: SharedArrayBuffer, seed: number) {
    this.#truth = truth;
    this.#counts = new Float64Array(counts);
    this.#random = new Random(seed, 1);
    const { width, height, jpegQuality } = LIMITS.visible;
    this.#encoder = new JpegEncoder(width, height, jpegQuality);
    this.#server = createServer((socket) => this.#connect(socket));
    const start = nowUs();
    this.#dueUs = [start, start];
  }

  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#run();
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#reader?.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #connect(socket: Socket): void {
    socket.on('error', () => undefined);
    if (this.#reader !== undefined) {
      this.#count(CAMERA.refused);
      socket.resume();
      socket.end(
        frameBytes(CAMERA_REFUSAL, this.#counts[CAMERA.refused] as number, nowUs(), Buffer.from(BUSY)),
      );
      return;
    }
    this.#reader = socket;
    this.#counts[CAMERA.reader] = 1;
    const gone = (): void => {
      if (this.#reader !== socket) return;
      this.#reader = undefined;
      this.#counts[CAMERA.reader] = 0;
      socket.destroy();
    };
    // Nothing is expected from a reader; reading notices its end, at once, though much may wait to be written to it.
    socket.resume();
    socket.on('end', gone);
    socket.on('close', gone);
  }

  #run(): void {
    for (const kind of [0, 1] as const) {
      const now = nowUs();
      if (now < this.#dueUs[kind]) continue;
      this.#dueUs[kind] += PERIODS_US[kind];
      if (now - this.#dueUs[kind] > LIMITS.cameraLateUsMax) this.#dueUs[kind] = now;
      this.#take(kind, now);
    }
    const waitMs = (Math.min(...this.#dueUs) - nowUs()) / 1_000;
    this.#timer = setTimeout(() => this.#run(), Math.max(0, waitMs));
  }

  #take(kind: 0 | 1, captureUs: number): void {
    const number = this.#counts[CAMERA.produced + kind] as number;
    this.#count(CAMERA.produced + kind);
    const reader = this.#reader;
    if (reader === undefined) {
      this.#count(CAMERA.unread + kind);
    } else if (!reader.writable || reader.writableLength > LIMITS.cameraQueueBytesMax) {
      this.#count(CAMERA.dropped + kind);
    } else {
      reader.write(frameBytes(kind, number, captureUs, this.#draw(kind, number)));
      this.#count(CAMERA.sent + kind);
    }
  }

  #draw(kind: 0 | 1, number: number): Uint8Array {
    const pose = this.#pose();
    const { width, height } = kind === 0 ? LIMITS.visible : LIMITS.thermal;
    if (kind === 0) {
      renderVisible(pose, width, height, this.#rgba);
      stampNumber(number, width, height, this.#rgba, 4);
      return this.#encoder.encode(this.#rgba);
    }
    renderThermal(pose, width, height, this.#grey, () => 0.4 * this.#random.normal());
    stampNumber(number, width, height, this.#grey, 1);
    return this.#grey;
  }

  #pose(): Pose {
    const values = this.#truth.read();
    const at = (index: number): number => values[TRUTH.state + index] as number;
    const q = AT.attitude;
    return { n: at(0), e: at(1), d: at(2), w: at(q), x: at(q + 1), y: at(q + 2), z: at(q + 3) };
  }

  #count(index: number): void {
    this.#counts[index] = (this.#counts[index] as number) + 1;
  }
}
