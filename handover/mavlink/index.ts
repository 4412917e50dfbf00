/** MAVLink 2 for the messages in use: the definitions, a writer, a parser, signing. Imports nothing from elsewhere. */
export { crcOf } from '#handover/mavlink/crc.ts';
export { type MavlinkCode, MavlinkError } from '#handover/mavlink/errors.ts';
export { type KeyFile, readKeyFile } from '#handover/mavlink/key-file.ts';
export { LAYOUTS, type Layout } from '#handover/mavlink/layout.ts';
export { LIMITS as MAVLINK_LIMITS } from '#handover/mavlink/limits.ts';
export {
  type Definition,
  type Fields,
  type FieldsToSend,
  MAV,
  MESSAGES,
  type MessageName,
} from '#handover/mavlink/messages.ts';
export { type Frame, Parser, type ParserCounts, type ParserOptions } from '#handover/mavlink/parser.ts';
export { rehearseSigning } from '#handover/mavlink/rehearsal.ts';
export {
  parseKey,
  REFUSALS,
  type Refusal,
  SignedLink,
  type SigningOptions,
  type Stream,
  systemTicks,
} from '#handover/mavlink/signing.ts';
export { Writer } from '#handover/mavlink/writer.ts';
