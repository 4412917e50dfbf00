/** Broken on purpose: warms up well, takes the rotors, and dies of a bug a tenth of a second into its flight. */
export const STATE_VERSION = 2;

export const parseState = <T extends { imuUs: number }>(state: T): T => {
  // Of a flight: a rehearsal's state has seen no sample.
  if (state.imuUs > 0) {
    setTimeout(() => {
      throw new TypeError('hover: a bug that no warm-up shows');
    }, 100);
  }
  return state;
};
