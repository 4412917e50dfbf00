/** Broken on purpose: written anew for motors of 3 N, and flown on a drone whose motors have 5 N. It would leap. */
type Vector = readonly [number, number, number];
type Motors = readonly [number, number, number, number];

const THRUST_N = 3;
const ARM_M = 0.2;
const TORQUE_NM = 0.1;

export const mix = ([rollNm, pitchNm, yawNm]: Vector, liftN: number): Motors => {
  const lift = liftN / (4 * THRUST_N);
  const roll = rollNm / (4 * ARM_M * THRUST_N);
  const pitch = pitchNm / (4 * ARM_M * THRUST_N);
  const yaw = yawNm / (4 * TORQUE_NM);
  const motor = (share: number): number => Math.min(Math.max(share, 0.04), 1);
  return [
    motor(lift - roll + pitch + yaw),
    motor(lift + roll - pitch + yaw),
    motor(lift + roll + pitch - yaw),
    motor(lift - roll - pitch - yaw),
  ];
};

export const lead = (wanted: Motors): Motors => wanted;
export const follow = (_thrust: Motors, command: Motors): Motors => command;
