import { type Logger, pino } from 'pino';

export type Log = Logger;
/** JSON lines on standard error: standard output is for the ready line. Synchronous, so that a crash loses none. */
export const createLog = (name: string, level = 'info'): Log =>
  pino({ name, level }, pino.destination({ dest: 2, sync: true }));
