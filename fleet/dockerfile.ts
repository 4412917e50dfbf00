/**
 * Which of a repository's files is its Dockerfile, and what balena's template variables in it stand for.
 * Pure; the order and the names are balena's (docs.balena.io/learn/develop/dockerfile).
 */
import { FleetError } from '#fleet/errors.ts';

export interface DeviceType {
  /** balena's machine name, such as `raspberrypi4-64`. */
  machine: string;
  /** balena's architecture, such as `aarch64`. */
  arch: string;
}

/** balena's words for what the engine calls its architecture, and the generic machine of that architecture. */
export function deviceTypeOf(engineArchitecture: string): DeviceType {
  switch (engineArchitecture) {
    case 'x86_64':
    case 'amd64':
      return { machine: 'genericx86-64-ext', arch: 'amd64' };
    case 'aarch64':
    case 'arm64':
      return { machine: 'generic-aarch64', arch: 'aarch64' };
    case 'armv7l':
      return { machine: 'generic-armv7ahf', arch: 'armv7hf' };
    case 'armv6l':
      return { machine: 'raspberry-pi', arch: 'rpi' };
    default:
      return { machine: engineArchitecture, arch: engineArchitecture };
  }
}

const COMPOSE = ['docker-compose.yml', 'docker-compose.yaml', 'compose.yml', 'compose.yaml'];

export interface Choice {
  name: string;
  /** Its variables are to be replaced; a plain Dockerfile is taken as it is. */
  template: boolean;
}

/**
 * The file to build from: the device type's own, then its architecture's, then the template, then the plain one.
 *
 * @throws FleetError `NO_DOCKERFILE`, `COMPOSE_UNSUPPORTED`
 */
export function chooseDockerfile(names: readonly string[], device: DeviceType): Choice {
  const has = new Set(names);
  const specific = [`Dockerfile.${device.machine}`, `Dockerfile.${device.arch}`, 'Dockerfile.template'];
  const name = specific.find((candidate) => has.has(candidate));
  if (name !== undefined) return { name, template: true };
  if (has.has('Dockerfile')) return { name: 'Dockerfile', template: false };
  const compose = COMPOSE.find((candidate) => has.has(candidate));
  if (compose !== undefined) {
    throw new FleetError(
      'COMPOSE_UNSUPPORTED',
      `this repository has ${compose} and no Dockerfile; releases of several services are not supported yet`,
      'add a Dockerfile (or Dockerfile.template) for the one service that flies to the root directory, commit, push again',
    );
  }
  throw new FleetError(
    'NO_DOCKERFILE',
    'there is no Dockerfile and no Dockerfile.template in the root directory of the pushed commit',
    'add one (for a start: FROM, COPY and CMD), commit it, push again',
  );
}

export interface TemplateValues extends DeviceType {
  app: string;
  service: string;
  commit: string;
}

/**
 * The template with each %%BALENA_…%% and %%RESIN_…%% replaced.
 *
 * @throws FleetError `TEMPLATE_VARIABLE` with the line of the unknown one
 */
export function renderTemplate(text: string, file: string, values: TemplateValues): string {
  const known: Record<string, string> = {};
  for (const prefix of ['BALENA', 'RESIN']) {
    known[`${prefix}_MACHINE_NAME`] = values.machine;
    known[`${prefix}_ARCH`] = values.arch;
    known[`${prefix}_APP_NAME`] = values.app;
    known[`${prefix}_SERVICE_NAME`] = values.service;
    known[`${prefix}_RELEASE_HASH`] = values.commit;
  }
  return text.replace(/%%([A-Za-z0-9_]+)%%/g, (whole, name: string, offset: number) => {
    const value = Object.hasOwn(known, name) ? known[name] : undefined;
    if (value !== undefined) return value;
    const line = text.slice(0, offset).split('\n').length;
    throw new FleetError(
      'TEMPLATE_VARIABLE',
      `${file} line ${line}: unknown variable ${whole}`,
      `use one of ${Object.keys(known)
        .filter((candidate) => candidate.startsWith('BALENA'))
        .map((candidate) => `%%${candidate}%%`)
        .join(', ')}`,
    );
  });
}

/**
 * The images that the Dockerfile starts from and does not make itself, as far as they can be told without
 * building: ARG defaults before the first FROM are filled in, `scratch` and earlier stages left out.
 */
export function baseImages(dockerfile: string): string[] {
  const defaults = new Map<string, string>();
  const stages = new Set<string>(['scratch']);
  const images = new Set<string>();
  const joined = dockerfile.replace(/^\s*#.*$/gm, '').replace(/\\\r?\n/g, ' ');
  for (const line of joined.split('\n')) {
    const [, instruction = '', rest = ''] = /^\s*([A-Za-z]+)\s+(.*?)\s*$/.exec(line) ?? [];
    if (instruction.toUpperCase() === 'ARG' && images.size === 0 && stages.size === 1) {
      const [, name, value] = /^([A-Za-z0-9_]+)=["']?([^"']*)["']?$/.exec(rest) ?? [];
      if (name !== undefined && value !== undefined) defaults.set(name, value);
    }
    if (instruction.toUpperCase() !== 'FROM') continue;
    const words = rest.split(/\s+/).filter((word) => !word.startsWith('--'));
    const image = (words[0] ?? '').replace(
      /\$(?:\{([A-Za-z0-9_]+)(?::-([^}]*))?\}|([A-Za-z0-9_]+))/g,
      (whole, braced?: string, otherwise?: string, bare?: string) =>
        defaults.get(braced ?? bare ?? '') ?? otherwise ?? whole,
    );
    if (image !== '' && !image.includes('$') && !stages.has(image.toLowerCase())) images.add(image);
    if (words[1]?.toUpperCase() === 'AS' && words[2]) stages.add(words[2].toLowerCase());
    // A stage without a name still ends the part in which ARGs are defaults for FROM.
    stages.add(`#${stages.size}`);
  }
  return [...images];
}
