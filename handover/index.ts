/** `midair/handover`: what an app uses. */
export { BOUNDS } from '#handover/bounds.ts';
export { type JoinOptions, join, type LogLevel, type Readiness, Session } from '#handover/client.ts';
export { type Grant, type Holder, HolderError, type Released } from '#handover/holder.ts';
export { LIMITS } from '#handover/limits.ts';
export type { NamedDescriptor } from '#handover/lines.ts';
export { Listener } from '#handover/listener.ts';
export {
  type Json,
  type JsonObject,
  ProtocolError,
  RESOURCES,
  type Resource,
} from '#handover/messages.ts';
export { Mirror, type MirrorRecord } from '#handover/mirror.ts';
export { nowUs } from '#handover/native.ts';
export {
  type LinkRehearsal,
  type RotorsPayload,
  SerialLink,
  type SerialLinkOptions,
} from '#handover/serial.ts';
export { DivergedError, type ShadowBounds, ShadowJudge } from '#handover/shadow.ts';
export { FrameStream, type FrameStreamOptions, type FramesPayload } from '#handover/stream.ts';
export { type ConnectionsPayload, WebSockets, type WebSocketsOptions } from '#handover/websocket.ts';
