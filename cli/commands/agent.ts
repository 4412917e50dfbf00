/** `midair agent`: the on-device supervisor. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { LIMITS } from '#agent/limits.ts';
import {
  type Address,
  address,
  DEFAULT_ENGINE,
  engineUrl,
  httpUrl,
  integer,
  mqttUrl,
  name,
} from '#cli/commands/arguments.ts';

interface Flags {
  dir: string;
  device: string;
  fleet: string;
  hub: string;
  mqtt: string;
  engine: string;
  rotors: string;
  baud: number;
  camera?: string;
  panel: Address;
  gate: boolean;
  signingKey?: string;
  warmTimeout: number;
  appRealtime: number;
  testDevice: boolean;
  logLevel: string;
}

export function agentCommand(): Command {
  const option = (flags: string, text: string, env: string) => new Option(flags, text).env(env);
  return new Command('agent')
    .description(
      'Runs on the drone: installs releases and hands the resources from the old version to the new.',
    )
    .addOption(
      option(
        '--dir <path>',
        'journals, images in transit, the handover socket',
        'MIDAIR_DIR',
      ).makeOptionMandatory(),
    )
    .addOption(
      option('--device <name>', 'this device', 'MIDAIR_DEVICE').argParser(name).makeOptionMandatory(),
    )
    .addOption(option('--fleet <name>', 'its fleet', 'MIDAIR_FLEET').argParser(name).default('fleet'))
    .addOption(
      option('--hub <url>', 'where blobs are fetched', 'MIDAIR_HUB').argParser(httpUrl).makeOptionMandatory(),
    )
    .addOption(option('--mqtt <url>', 'the broker', 'MIDAIR_MQTT').argParser(mqttUrl).makeOptionMandatory())
    .addOption(
      option('--engine <url>', 'Docker engine', 'DOCKER_HOST').argParser(engineUrl).default(DEFAULT_ENGINE),
    )
    .addOption(
      option(
        '--rotors <path>',
        'serial device of the flight controller',
        'MIDAIR_ROTORS',
      ).makeOptionMandatory(),
    )
    .addOption(option('--baud <rate>', 'its rate', 'MIDAIR_BAUD').argParser(integer).default(921_600))
    .addOption(
      option(
        '--gate',
        'strict mode: a process of its own has the serial device, and refuses all but the last epoch (midair gate --help)',
        'MIDAIR_GATE',
      ).default(false),
    )
    .addOption(
      option(
        '--signing-key <file>',
        "the rotor link's MAVLink signing key: 32 bytes as hex or base64; without it nothing is signed",
        'MIDAIR_SIGNING_KEY',
      ),
    )
    .addOption(option('--camera <path>', 'unix socket of the camera, if there is one', 'MIDAIR_CAMERA'))
    .addOption(
      option('--panel <host:port>', 'where the control panel listens', 'MIDAIR_PANEL')
        .argParser(address)
        .default({ host: '127.0.0.1', port: 8600 }, '127.0.0.1:8600'),
    )
    .addOption(
      option(
        '--warm-timeout <seconds>',
        'how long a candidate may take until it is warm',
        'MIDAIR_WARM_TIMEOUT',
      )
        .argParser(integer)
        .default(60),
    )
    .addOption(
      option(
        '--app-realtime <microseconds>',
        'of each second, that the control loop of an app may run under SCHED_FIFO; two apps run during an update',
        'MIDAIR_APP_REALTIME',
      )
        .argParser(integer)
        .default(LIMITS.appRealtimeUs),
    )
    .addOption(
      option(
        '--test-device',
        'mark this device and what it runs as one that failure injection may harm (midair chaos --help)',
        'MIDAIR_TEST_DEVICE',
      ).default(false),
    )
    .addOption(
      option('--log-level <level>', 'debug, info, warn or error', 'MIDAIR_LOG_LEVEL').default('info'),
    )
    .addHelpText(
      'after',
      `
Prints one JSON line when it is ready; its log goes to standard error. SIGTERM ends it, the app flies on.

Example:
  $ midair agent --dir /var/lib/midair --device drone-1 --hub http://127.0.0.1:8420 \\
      --mqtt mqtt://127.0.0.1:1883 --rotors /dev/ttyACM0 --camera /run/camera`,
    )
    .action(async (flags: Flags) => {
      const { run } = await import('#agent/main.ts');
      await run({
        directory: resolve(flags.dir),
        device: flags.device,
        fleet: flags.fleet,
        hubUrl: flags.hub,
        mqttUrl: flags.mqtt,
        engineUrl: flags.engine,
        rotors: resolve(flags.rotors),
        baud: flags.baud,
        gate: flags.gate,
        ...(flags.signingKey === undefined ? {} : { signingKey: resolve(flags.signingKey) }),
        ...(flags.camera === undefined ? {} : { camera: resolve(flags.camera) }),
        panel: flags.panel,
        warmMsMax: flags.warmTimeout * 1000,
        appRealtimeUs: flags.appRealtime,
        testDevice: flags.testDevice,
        logLevel: flags.logLevel,
      });
    });
}
