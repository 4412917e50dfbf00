/** The example app's flight, closed over the simulator's physics without processes, clocks or links. */
import { describe, expect, it } from 'vitest';
import {
  ask,
  type ControllerState,
  dtOf,
  type Request,
  type Sample,
  START,
  step,
} from '#apps/drone/flight/control.ts';
import { HOVER, LIMITS, type Setpoint } from '#apps/drone/flight/limits.ts';
import { lead, mix } from '#apps/drone/flight/mixer.ts';
import { parseState } from '#apps/drone/flight/state.ts';
import {
  add,
  attitudeOf,
  conjugate,
  eulerDeg,
  type Motors,
  type Quaternion,
  rotate,
  type Vector,
} from '#apps/drone/flight/vectors.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { AT, createState, step as move, tiltRad } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';

const three = (x: Float64Array, at = 0): Vector => [
  x[at] as number,
  x[at + 1] as number,
  x[at + 2] as number,
];
const degrees = 180 / Math.PI;

/** A drone at the true rates: physics 1 kHz, IMU 250 Hz, fix 50 Hz, landed 5 Hz; a command acts from the next cycle on. */
class Flight {
  readonly truth = createState();
  readonly #sensors: Sensors;
  controller: ControllerState = START;
  cycle = 0;
  /** The board brings it down. */
  landing = false;
  readonly motors: Motors[] = [];
  readonly tiltDeg: number[] = [];
  readonly heightM: number[] = [];
  #attitude: Sample['attitude'] = null;
  #command: Motors = [0, 0, 0, 0];

  readonly places: Vector[] = [];
  readonly targets: ControllerState['target'][] = [];
  readonly #setpoint: Setpoint;

  constructor(seed: number, setpoint: Setpoint = HOVER) {
    this.#setpoint = setpoint;
    this.#sensors = new Sensors(PARAMETERS, new Random(seed));
  }

  fly(seconds: number, pushMS2: Vector = [0, 0, 0]): this {
    const { truth } = this;
    for (let end = this.cycle + 250 * seconds; this.cycle < end; this.cycle += 1) {
      this.#sensors.sample(truth);
      const sample: Sample = {
        imuUs: 1_000_000 + 4_000 * this.cycle,
        gyro: three(this.#sensors.gyro),
        // An accelerometer feels a push like any other force.
        acceleration: add(three(this.#sensors.accelerometer), rotate(conjugate(this.#true()), pushMS2)),
        attitude: this.#attitude,
        fix:
          this.cycle % 5 === 0
            ? { position: three(this.#sensors.position), velocity: three(this.#sensors.velocity) }
            : null,
        landed: this.cycle % 50 === 0 ? truth.onGround : null,
        landing: this.landing && !truth.onGround,
      };
      const [w, x, y, z] = this.#sensors.attitude as unknown as [number, number, number, number];
      this.#attitude = [w, x, y, z];
      const [state, motors] = step(
        this.controller,
        sample,
        this.#setpoint,
        dtOf(this.controller, sample.imuUs),
      );
      this.controller = state;
      this.motors.push(motors);
      for (let ms = 0; ms < 4; ms += 1) {
        move(truth, this.#command, 0.001, PARAMETERS);
        // Half a cycle of transport, as the link has it.
        if (ms === 1) this.#command = motors;
        for (let i = 0; i < 3; i += 1) {
          truth.x[AT.velocity + i] = (truth.x[AT.velocity + i] as number) + (pushMS2[i] as number) / 1e3;
        }
      }
      this.tiltDeg.push(tiltRad(truth.x) * degrees);
      this.heightM.push(-(truth.x[AT.position + 2] as number));
      this.places.push(three(truth.x, AT.position));
      this.targets.push(this.controller.target);
    }
    return this;
  }
  ask(request: Request): this {
    const asked = ask(this.controller, request);
    if (typeof asked === 'string') throw new Error(asked);
    this.controller = asked;
    return this;
  }
  #true(): Quaternion {
    return [...this.truth.x.subarray(AT.attitude, AT.rates)] as unknown as Quaternion;
  }
  last<T>(values: T[], seconds: number): T[] {
    return values.slice(-250 * seconds);
  }
}

const rms = (values: number[]) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
const seeds = [1, 2, 3, 4, 5];

describe('flight', () => {
  it.each(seeds)('takes off, climbs without overshoot and hovers still (seed %i)', (seed) => {
    const flight = new Flight(seed).fly(10);
    expect(flight.controller.phase).toBe('hover');
    expect(Math.max(...flight.heightM)).toBeLessThan(HOVER.altitudeM + 0.12);
    expect(Math.max(...flight.tiltDeg)).toBeLessThan(3);
    flight.fly(10);
    // The board's own position wanders by 1 cm (one sigma): the flight cannot be better than that.
    for (const height of flight.last(flight.heightM, 10))
      expect(Math.abs(height - HOVER.altitudeM)).toBeLessThan(0.06);
    expect(rms(flight.last(flight.tiltDeg, 10))).toBeLessThan(0.3);
    const [north, east] = three(flight.truth.x, AT.position);
    expect(Math.hypot(north, east)).toBeLessThan(0.1);
  });

  it.each(seeds)('leans into wind and holds its place (seed %i)', (seed) => {
    const flight = new Flight(seed).fly(9).fly(15, [1.2, -0.8, 0]);
    const [north, east] = three(flight.truth.x, AT.position);
    expect(Math.hypot(north, east)).toBeLessThan(0.15);
    const [tiltDeg] = flight.last(flight.tiltDeg, 1);
    expect(tiltDeg).toBeGreaterThan(7);
    expect(flight.controller.phase).toBe('hover');
  });

  it('recovers from a blow to its attitude', () => {
    const flight = new Flight(7).fly(9);
    flight.truth.x[AT.rates] = 4;
    flight.truth.x[AT.rates + 1] = -3;
    flight.fly(0.4);
    expect(Math.max(...flight.last(flight.tiltDeg, 0.4))).toBeGreaterThan(5);
    flight.fly(4);
    expect(rms(flight.last(flight.tiltDeg, 1))).toBeLessThan(0.5);
    expect(flight.truth.x[AT.position + 2]).toBeCloseTo(-HOVER.altitudeM, 1);
  });

  it('bears the link of a handover that went badly: 100 ms without an answer', () => {
    const flight = new Flight(8).fly(9);
    const held = flight.controller;
    for (let ms = 0; ms < 100; ms += 1) move(flight.truth, held.command, 0.001, PARAMETERS);
    flight.cycle += 25;
    flight.fly(4);
    expect(Math.max(...flight.last(flight.tiltDeg, 4))).toBeLessThan(5);
    expect(flight.truth.x[AT.position + 2]).toBeCloseTo(-HOVER.altitudeM, 1);
  });

  it('holds its place when it is started in the air without a state', () => {
    const flight = new Flight(9).fly(9);
    flight.controller = START;
    flight.fly(0.5);
    expect(flight.controller.phase).toBe('hover');
    flight.fly(5);
    for (const height of flight.last(flight.heightM, 5))
      expect(height).toBeGreaterThan(HOVER.altitudeM - 0.15);
  });

  it('stays down when something else has landed it', () => {
    const flight = new Flight(10).fly(9);
    flight.fly(4, [0, 0, 60]);
    expect(flight.controller.phase).toBe('landed');
    expect(flight.motors.at(-1)).toEqual([0, 0, 0, 0]);
  });

  it.each([
    ['flying', (flight: Flight) => flight.controller],
    ['started anew meanwhile', () => START],
  ])('lets the board land it, %s, stays down, and takes off again for a pilot alone', (_, state) => {
    const flight = new Flight(10).fly(9);
    flight.controller = state(flight);
    flight.landing = true;
    flight.fly(0.5);
    expect(flight.controller.phase).toBe('landed');
    expect(() => flight.ask({ type: 'takeoff', upM: 2 })).toThrow('it is being landed');
    // Motors off, here, is how it comes down.
    flight.fly(3);
    flight.landing = false;
    flight.fly(5);
    expect(flight.controller.phase).toBe('landed');
    expect(
      flight
        .last(flight.motors, 8)
        .flat()
        .every((motor) => motor === 0),
    ).toBe(true);
    expect(flight.truth.onGround).toBe(true);
    flight.ask({ type: 'takeoff', upM: 2 }).fly(8);
    expect(flight.controller.phase).toBe('hover');
    expect(flight.heightM.at(-1)).toBeCloseTo(2, 1);
  });

  it('lands as it was asked to, whatever the board calls that', () => {
    const flight = new Flight(10).fly(9).ask({ type: 'land' });
    flight.landing = true;
    flight.fly(12);
    expect(flight.controller.phase).toBe('stand');
  });
});

describe('what a pilot asks for', () => {
  const waiting = (seed: number) => new Flight(seed, { altitudeM: null }).fly(1);
  const high = (seed: number) => waiting(seed).ask({ type: 'takeoff', upM: 5 }).fly(11);

  it('stands until it is asked to take off, and is told why when it is asked for something else', () => {
    const flight = waiting(21).fly(2);
    expect(flight.controller.phase).toBe('stand');
    expect(flight.motors.every((motors) => motors.every((motor) => motor === 0))).toBe(true);
    expect(() => flight.ask({ type: 'land' })).toThrow('it does not fly (stand)');
    flight.ask({ type: 'takeoff', upM: 5 }).fly(1);
    expect(() => flight.ask({ type: 'hover' })).toThrow('only just taking off');
    flight.fly(10);
    expect(flight.controller.phase).toBe('hover');
    expect(flight.heightM.at(-1)).toBeCloseTo(5, 1);
    expect(Math.max(...flight.heightM)).toBeLessThan(5.12);
    expect(() => flight.ask({ type: 'takeoff', upM: 5 })).toThrow('does not stand on the ground');
  });

  it.each(seeds)('goes to a place, straight and without overshoot, and stays there (seed %i)', (seed) => {
    const flight = high(seed).ask({ type: 'goto', northM: 10, eastM: -4, upM: 3, speedMS: 2 }).fly(13);
    for (const [north, east, down] of flight.last(flight.places, 1)) {
      expect(Math.hypot(north - 10, east + 4)).toBeLessThan(0.15);
      expect(-down).toBeCloseTo(3, 1);
    }
    expect(Math.max(...flight.places.map(([north]) => north))).toBeLessThan(10.4);
    expect(Math.max(...flight.tiltDeg)).toBeLessThan(20);
  });

  it('flies a circle at its speed, leaning into it, without losing height', () => {
    const flight = high(23).ask({ type: 'circle', radiusM: 3, speedMS: 2.5 }).fly(16);
    const [centre] = [3];
    for (const [north, east] of flight.last(flight.places, 8)) {
      expect(Math.abs(Math.hypot(north - centre, east) - 3)).toBeLessThan(0.4);
    }
    const tilt = flight.last(flight.tiltDeg, 8);
    expect(Math.min(...tilt)).toBeGreaterThan(10);
    expect(Math.max(...tilt)).toBeLessThan(25);
    for (const height of flight.last(flight.heightM, 8)) expect(Math.abs(height - 5)).toBeLessThan(0.2);
  });

  it('lands, stands, and takes off again', () => {
    const flight = high(24).ask({ type: 'land' }).fly(14);
    expect(flight.controller.phase).toBe('stand');
    expect(flight.motors.at(-1)).toEqual([0, 0, 0, 0]);
    flight.ask({ type: 'takeoff', upM: 2 }).fly(8);
    expect(flight.controller.phase).toBe('hover');
    expect(flight.heightM.at(-1)).toBeCloseTo(2, 1);
  });

  it('never lets its setpoint jump, whatever is asked, and when', () => {
    const random = new Random(25);
    const flight = high(25);
    const any = (low: number, high: number) => low + (high - low) * random.uniform();
    for (let i = 0; i < 40; i += 1) {
      const requests: Request[] = [
        { type: 'goto', northM: any(-8, 8), eastM: any(-8, 8), upM: any(2, 6), speedMS: any(0.5, 3) },
        { type: 'circle', radiusM: any(3, 5), speedMS: any(0.5, 3) },
        { type: 'hover' },
      ];
      flight.ask(requests[i % 3] as Request).fly(any(0.1, 2));
    }
    const { targets } = flight;
    for (let i = 1; i < targets.length; i += 1) {
      const [a, b] = [targets[i - 1], targets[i]] as [ControllerState['target'], ControllerState['target']];
      if (a.velocity[2] === 0 && Math.hypot(...a.velocity) === 0) continue;
      const change = Math.hypot(...a.velocity.map((one, axis) => one - (b.velocity[axis] as number)));
      // 0.1 m/s is where a target is taken to have arrived.
      expect(change).toBeLessThan(0.1);
      expect(Math.hypot(...a.place.map((one, axis) => one - (b.place[axis] as number)))).toBeLessThan(0.02);
    }
    expect(Math.max(...flight.tiltDeg)).toBeLessThan(32);
  });

  it('refuses a circle that is too tight for its speed, and says by how much', () => {
    expect(() => high(26).ask({ type: 'circle', radiusM: 1, speedMS: 3 })).toThrow(
      '3 m/s around 1 m asks for 9.0 m/s², at most 3',
    );
  });

  it.each<Request>([
    { type: 'goto', northM: 6, eastM: 6, upM: 4, speedMS: 2 },
    { type: 'circle', radiusM: 3, speedMS: 2.5 },
    { type: 'land' },
  ])('on its way it goes through JSON and goes on bit by bit: %j', (request) => {
    const [straight, resumed] = [high(27).ask(request).fly(2), high(27).ask(request).fly(2)];
    resumed.controller = parseState(JSON.parse(JSON.stringify(resumed.controller)));
    straight.fly(4);
    resumed.fly(4);
    expect(JSON.stringify(resumed.controller)).toBe(JSON.stringify(straight.controller));
  });
});

describe('controller state', () => {
  it.each([0.2, 1.5, 4, 8])('goes through JSON after %d s and goes on bit by bit', (seconds) => {
    const [straight, resumed] = [new Flight(11), new Flight(11)];
    straight.fly(seconds);
    resumed.fly(seconds);
    resumed.controller = parseState(JSON.parse(JSON.stringify(resumed.controller)));
    const wind: Vector = [0.5, 0.2, -0.1];
    straight.fly(3, wind);
    resumed.fly(3, wind);
    expect(resumed.motors.length).toBeGreaterThan(700);
    resumed.motors.forEach((motors, i) => {
      for (let m = 0; m < 4; m += 1) expect(motors[m] === straight.motors[i]?.[m]).toBe(true);
    });
    expect(JSON.stringify(resumed.controller)).toBe(JSON.stringify(straight.controller));
  });

  it('refuses a state that it cannot read', () => {
    const good = new Flight(12).fly(2).controller;
    expect(parseState(good)).toEqual(good);
    const bad: unknown[] = [
      null,
      {},
      { ...good, phase: 'dance' },
      { ...good, thrust: [1, 1, 1] },
      { ...good, yawRad: Number.NaN },
      { ...good, target: { ...good.target, place: [0, 0, 1e12] } },
      { ...good, goal: { type: 'somewhere' } },
      { ...good, estimate: { ...good.estimate, attitude: 'up' } },
    ];
    for (const state of bad) expect(() => parseState(state)).toThrowError(/^STATE_UNREADABLE/);
  });
});

describe('mixer', () => {
  it('stays within bounds whatever is asked, and keeps tilt before lift before yaw', () => {
    const random = new Random(13);
    const any = (size: number) => size * (2 * random.uniform() - 1);
    for (let i = 0; i < 2_000; i += 1) {
      const moment: Vector = [any(6), any(6), any(1)];
      const motors = lead(mix(moment, any(40)), mix([any(2), any(2), 0], any(20)));
      for (const motor of motors) {
        expect(motor).toBeGreaterThanOrEqual(LIMITS.motorMin);
        expect(motor).toBeLessThanOrEqual(LIMITS.motorMax);
      }
    }
    // Full lift and full yaw asked: the roll moment comes out whole.
    const [m1, m2, m3, m4] = mix([1, 0, 1], 40);
    expect(PARAMETERS.armM.roll * PARAMETERS.thrustN * (-m1 + m2 + m3 - m4)).toBeCloseTo(1, 9);
  });

  it('turns the way the simulator turns', () => {
    const axis = (moment: Vector) => {
      const state = createState(10);
      for (let ms = 0; ms < 100; ms += 1) move(state, mix(moment, 9.8), 0.001, PARAMETERS);
      return three(state.x, AT.rates);
    };
    expect(axis([0.1, 0, 0])[0]).toBeGreaterThan(0.1);
    expect(axis([0, 0.1, 0])[1]).toBeGreaterThan(0.1);
    expect(axis([0, 0, 0.05])[2]).toBeGreaterThan(0.05);
  });
});

describe('attitude', () => {
  it('is made of a downward axis and a heading, all the way round', () => {
    for (let yaw = -180; yaw <= 180; yaw += 15) {
      const [roll, pitch, heading] = eulerDeg(attitudeOf([0.1, -0.2, Math.sqrt(1 - 0.05)], yaw / degrees));
      expect(Math.abs(Math.sin((heading - yaw) / 2 / degrees))).toBeLessThan(0.02);
      expect(Math.hypot(roll, pitch)).toBeCloseTo(12.9, 0);
    }
  });
});
