/** Broken on purpose: warms up well, takes the rotors, and dies of a bug in the first second of its flight. */
export const STATE_VERSION = 2;

/** Longer than from the last rehearsal to the grant, shorter than a probation. */
const AFTER_MS = 700;
let bug: NodeJS.Timeout | undefined;
let isShadow = true;

export const parseState = <T>(state: T): T => {
  // The shadow begins with a state, rehearsals have one each: the last call is the flight's.
  clearTimeout(bug);
  if (!isShadow) {
    bug = setTimeout(() => {
      throw new TypeError('hover: a bug that no warm-up shows');
    }, AFTER_MS);
  }
  isShadow = false;
  return state;
};
