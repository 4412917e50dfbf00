/**
 * Arguments that more than one command takes, parsed at the door.
 *
 * Invariant: a value that passes is one that the parts accept; the message of one that does not names the form.
 */
import { isIP } from 'node:net';
import { InvalidArgumentError } from 'commander';

export interface Address {
  host: string;
  port: number;
}

/** `HOST:PORT`, `:PORT` or `PORT`; 0 lets the system choose. */
export function address(value: string): Address {
  const match = /^(?:(.*):)?(\d{1,5})$/.exec(value);
  const host = (match?.[1] || '127.0.0.1').replace(/^\[(.*)\]$/, '$1');
  const port = Number(match?.[2]);
  if (match === null || port > 65_535 || (isIP(host) === 0 && host !== 'localhost')) {
    throw new InvalidArgumentError('expected HOST:PORT, for example 127.0.0.1:8420');
  }
  return { host, port };
}

const urlOf = (protocols: string[]) => (value: string) => {
  if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol)) {
    throw new InvalidArgumentError(
      `expected a URL that begins with ${protocols.map((p) => `${p}//`).join(' or ')}`,
    );
  }
  return value.replace(/\/$/, '');
};

export const httpUrl = urlOf(['http:', 'https:']);
export const mqttUrl = urlOf(['mqtt:', 'mqtts:']);

export function engineUrl(value: string): string {
  if (!/^unix:\/\/\/./.test(value)) throw new InvalidArgumentError('expected unix:///path/of/docker.sock');
  return value;
}

/** A device's, fleet's or app's name, as topics and directories carry it. */
export function name(value: string): string {
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(value)) {
    throw new InvalidArgumentError('expected lower case letters, digits, "." "_" "-", at most 63');
  }
  return value;
}

export function integer(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new InvalidArgumentError('expected a whole number');
  return Number(value);
}

export const DEFAULT_ENGINE = 'unix:///var/run/docker.sock';
