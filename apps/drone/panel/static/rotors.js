/** The four rotors from above, nose up: an arc for the commanded share of full thrust, a blade that turns with it. */
const SVG = 'http://www.w3.org/2000/svg';
/** PX4's order: front right, rear left, front left, rear right; -1 turns counter-clockwise. */
const PLACES = [
  { x: 226, y: 66, spin: -1 },
  { x: 74, y: 194, spin: -1 },
  { x: 74, y: 66, spin: 1 },
  { x: 226, y: 194, spin: 1 },
];
const RADIUS = 50;
/** Three quarters of a circle is full thrust. */
const SWEEP = 0.75 * 2 * Math.PI * RADIUS;
const DEGREES_PER_S = 1_400;
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;

const make = (name, attributes, parent) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
};

export const createRotors = (parent) => {
  const svg = make('svg', { viewBox: '0 0 300 260', role: 'img', 'aria-label': 'rotors' }, parent);
  for (const { x, y } of PLACES.slice(0, 2))
    make('path', { class: 'frame', d: `M${x} ${y}L${300 - x} ${260 - y}` }, svg);
  make('path', { class: 'frame', d: 'M226 194L74 66' }, svg);
  make('path', { class: 'nose', d: 'M150 96l10 18h-20z' }, svg);

  const rotors = PLACES.map(({ x, y, spin }, i) => {
    const group = make('g', { class: 'rotor', transform: `translate(${x} ${y})` }, svg);
    make('circle', { r: RADIUS + 6, fill: 'var(--card)' }, group);
    const arc = { r: RADIUS, transform: 'rotate(135)', 'stroke-dasharray': `${SWEEP} 1000` };
    make('circle', { class: 'track', ...arc }, group);
    const level = make('circle', { class: 'level', ...arc }, group);
    const blade = make(
      'path',
      { class: 'blade', d: 'M-4 0C-8-16-7-32 0-40C7-32 8-16 4 0C8 16 7 32 0 40C-7 32-8 16-4 0Z' },
      group,
    );
    const text = make('text', {}, group);
    const number = make(
      'text',
      { y: RADIUS - 4, style: 'font-size:10px;font-weight:400;fill:var(--quiet)' },
      group,
    );
    number.textContent = String(i + 1);
    return { level, blade, text, spin, angle: 40 * i, share: 0 };
  });

  let lastMs = 0;
  return {
    set(shares) {
      rotors.forEach((rotor, i) => {
        rotor.share = shares[i] ?? 0;
      });
    },
    draw(nowMs) {
      const dtS = Math.min(0.1, (nowMs - lastMs) / 1e3);
      lastMs = nowMs;
      for (const rotor of rotors) {
        if (!still) rotor.angle = (rotor.angle + rotor.spin * rotor.share * DEGREES_PER_S * dtS) % 360;
        rotor.blade.setAttribute('transform', `rotate(${rotor.angle.toFixed(1)})`);
        rotor.level.setAttribute('stroke-dasharray', `${(SWEEP * rotor.share).toFixed(2)} 1000`);
        const percent = `${(100 * rotor.share).toFixed(1)}`;
        if (rotor.text.textContent !== percent) rotor.text.textContent = percent;
      }
    },
  };
};
