/**
 * `FIELD_OUT_OF_RANGE`, `INVALID_ID`, `INVALID_SEQUENCE`, `INVALID_TIMESTAMP`, `INVALID_KEY`, `HEAD_TOO_LONG`: the
 * caller's fault. What the peer sends wrong is never thrown: the parser drops and counts it.
 */
export type MavlinkCode =
  | 'FIELD_OUT_OF_RANGE'
  | 'INVALID_ID'
  | 'INVALID_SEQUENCE'
  | 'INVALID_TIMESTAMP'
  | 'INVALID_KEY'
  | 'HEAD_TOO_LONG';

export class MavlinkError extends Error {
  override readonly name = 'MavlinkError';
  readonly code: MavlinkCode;
  constructor(code: MavlinkCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}
