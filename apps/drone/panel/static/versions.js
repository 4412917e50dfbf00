/** A colour for each release, in the order in which this page met them. */
const COLOURS = ['#6cb6ff', '#5fd39a', '#e8b75d', '#c49bf2', '#f08ba0'];
const met = [];

export const colourOf = (release) => {
  if (!met.includes(release)) met.push(release);
  return COLOURS[met.indexOf(release) % COLOURS.length];
};

/** Digests are cut; names are not. */
export const short = (release) => {
  const bare = release.replace(/^sha256:/, '');
  return bare.length > 14 ? bare.slice(0, 10) : bare;
};
