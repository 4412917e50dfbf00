/**
 * The key of this device's rotor link, and how far its time has got by what the apps say.
 *
 * Invariants
 * - The key goes to who is granted the rotors, and nowhere else: into no journal, log or report.
 * - One link id for all versions and for good: a flight controller keeps 16 streams, and forgets none.
 * - Nothing is kept on disk. After a restart the owner's next heartbeat says the time; who is granted the rotors without
 *   one has it from the clock, and from the first frame that the flight controller signs.
 */
import * as v from 'valibot';
import type { Log } from '#agent/log.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { MAVLINK_LIMITS, readKeyFile } from '#handover/mavlink/index.ts';
import type { JsonObject, Signing } from '#handover/messages.ts';

const LINK_ID = 1;

const heardSchema = v.object({
  signing: v.object({
    lastTimestamp: v.pipe(
      v.number(),
      v.safeInteger(),
      v.minValue(0),
      v.maxValue(MAVLINK_LIMITS.timestampMax),
    ),
  }),
});

export class LinkSigning {
  readonly #key: string;
  #lastTimestamp = 0;

  constructor(key: Uint8Array) {
    this.#key = Buffer.from(key).toString('base64');
  }

  /** @throws MavlinkError `INVALID_KEY` */
  static open(path: string, log: Log): LinkSigning {
    const { key, shared } = readKeyFile(path);
    if (shared) log.warn({ path }, 'others may read the signing key: chmod 600');
    return new LinkSigning(key);
  }

  /** What an app says of the rotors, in a heartbeat or a release; of an app that does not sign, nothing. */
  heard(payload: JsonObject): void {
    const result = v.safeParse(heardSchema, payload);
    if (!result.success) return;
    this.#lastTimestamp = Math.max(this.#lastTimestamp, result.output.signing.lastTimestamp);
  }

  /** For a GRANT of the rotors. */
  get signing(): Signing {
    return { key: this.#key, linkId: LINK_ID, lastTimestamp: this.#lastTimestamp };
  }

  /** For the agent's own command: the last heartbeat may be older than what was signed, by as long as a fence takes. */
  afterLoss(): Signing {
    const unheardMs = BOUNDS.signedUnheardMsMax + BOUNDS.signedSlackMs;
    this.#lastTimestamp += unheardMs * MAVLINK_LIMITS.ticksPerMs;
    return this.signing;
  }
}
