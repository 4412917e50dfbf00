/** Broken on purpose: warms up well, takes the rotors, and dies of a bug a tenth of a second into its flight. */
export const STATE_VERSION = 1;

export const parseState = <T>(state: T): T => {
  setTimeout(() => {
    throw new TypeError('hover: a bug that no warm-up shows');
  }, 100);
  return state;
};
