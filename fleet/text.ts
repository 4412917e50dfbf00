/** Words for people: sizes, durations, and foreign text made safe for a terminal. */
import { LIMITS } from '#fleet/limits.ts';

/** Where progress goes, a line at a time, without line breaks. Never throws, never blocks. */
export type Say = (line: string) => void;

/** `812 B`, `6.1 kB`, `190 MB`: powers of 1000, at most three digits. */
export function sizeText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  let value = bytes;
  for (const unit of ['kB', 'MB', 'GB', 'TB']) {
    value /= 1000;
    if (value < 999.5 || unit === 'TB')
      return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
  }
  return `${bytes} B`;
}

/** `0.4 s`, `12 s`, `3 min 5 s`. */
export function durationText(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** First hexadecimal digits of a digest or commit. */
export const shortText = (digest: string): string => digest.replace(/^sha256:/, '').slice(0, 12);

export const countText = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`;

// Escape sequences first, whole, so that no half of one stays; then what is left of control characters.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\^_])/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Foreign output as lines that cannot steer the reader's terminal; a progress bar's `\r` gives its last state. */
export function safeLines(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.slice(line.lastIndexOf('\r', line.length - 2) + 1))
    .map((line) => line.replace(ESCAPES, '').replace(CONTROLS, ''))
    .map((line) => (line.length > LIMITS.lineCharsMax ? `${line.slice(0, LIMITS.lineCharsMax)}…` : line));
}
