/** Errors that cross to another process with their codes, and so with their blame. */
import { type ImageCode, ImageError, textOf } from '#agent/images/errors.ts';
import { DeltaError, type DeltaErrorCode } from '#deltas/index.ts';

export type PlainError =
  | { kind: 'image'; code: ImageCode; text: string }
  | { kind: 'delta'; code: DeltaErrorCode; text: string }
  | { kind: 'other'; text: string };

export function toPlain(error: unknown): PlainError {
  if (error instanceof ImageError)
    return { kind: 'image', code: error.code, text: error.message.slice(`${error.code}: `.length) };
  if (error instanceof DeltaError) return { kind: 'delta', code: error.code, text: error.message };
  return { kind: 'other', text: textOf(error) };
}

export function fromPlain(plain: PlainError): Error {
  switch (plain.kind) {
    case 'image':
      return new ImageError(plain.code, plain.text);
    case 'delta':
      return new DeltaError(plain.code, plain.text);
    case 'other':
      return new Error(plain.text);
  }
}
