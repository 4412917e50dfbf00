/** `midair sim json`: the physics alone, for an ArduPilot (SITL) that brings its own flight controller. */
import { Command, Option } from 'commander';
import { integer } from '#cli/commands/arguments.ts';

interface Flags {
  host: string;
  port: number;
  airframe: string;
  motors: string;
  wind?: string;
  seed: number;
}

export function simJsonCommand(): Command {
  return new Command('json')
    .description("The physics alone, for an ArduPilot in its simulator: ArduPilot's JSON interface over UDP.")
    .addOption(new Option('--port <number>', 'to listen on; 0: a free one').argParser(integer).default(9002))
    .option('--host <address>', 'of loopback, the only place where it listens', '127.0.0.1')
    .option(
      '--airframe <name>',
      'whose masses and motors: sih (PX4 SIH), x500 (Gazebo), crazyflie, hummingbird',
      'x500',
    )
    .option('--motors <order>', "ArduPilot's FRAME_TYPE: x, bfx (Betaflight), djix, cwx", 'x')
    .option(
      '--wind <speed,from,turbulence,gust>',
      'm/s; degrees it comes from; none, light, moderate or severe (MIL-F-8785C); m/s of gusts on top',
    )
    .addOption(new Option('--seed <number>', 'decides turbulence and gusts').argParser(integer).default(1))
    .addHelpText(
      'after',
      `
Prints one JSON line when it listens. ArduPilot's frames drive the time (lockstep); see docs/simulated-drone.md.

Example:
  $ midair sim json --airframe x500 --wind 5,270,light
  $ sim_vehicle.py -v ArduCopter -f X --model JSON:127.0.0.1`,
    )
    .action(async (flags: Flags) => {
      const { startJsonServer } = await import('#device-sim/json-server.ts');
      const { parseWind } = await import('#device-sim/options.ts');
      const { wind, airframe, motors, ...rest } = flags;
      const server = await startJsonServer({
        ...rest,
        // Whatever was said: the simulator knows the names.
        airframe: airframe as 'x500',
        motors: motors as 'x',
        ...(wind === undefined ? {} : { wind: parseWind(wind) }),
      });
      // Never taken off again: a second signal must not cut the end short.
      const stop = (): void => void server.close();
      process.on('SIGINT', stop);
      process.on('SIGTERM', stop);
      const { host, port } = server;
      process.stdout.write(`${JSON.stringify({ ready: true, host, port, airframe })}\n`);
      try {
        await server.ended;
      } finally {
        await server.close();
      }
    });
}
