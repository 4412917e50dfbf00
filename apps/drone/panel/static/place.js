/** Where it hovers: drift seen from above with a fading trail, and a height scale beside it. Metres, NED. */
import { createCanvas } from '/canvas.js';

const TRAIL_MAX = 150;
const HEIGHT_M = 3;
/** The rings widen only when the drone leaves them. */
const RINGS_M = [0.1, 0.25, 0.5, 1, 2, 5, 10, 25, 50];

export const createPlace = (canvas) => {
  const trail = [];
  let height = 0;
  let goal = null;

  const draw = createCanvas(canvas, (c, width, height_) => {
    const colour = getComputedStyle(document.body).getPropertyValue('--version');
    const bar = 58;
    const radius = Math.min((width - bar) / 2 - 6, height_ / 2 - 6);
    const x0 = (width - bar) / 2;
    const y0 = height_ / 2;
    const farthest = Math.max(...trail.map(([n, e]) => Math.hypot(n, e)), 0);
    const rim = RINGS_M.find((m) => m >= farthest) ?? farthest;

    c.strokeStyle = '#1d262f';
    c.lineWidth = 1;
    for (const share of [1 / 3, 2 / 3, 1]) {
      c.beginPath();
      c.arc(x0, y0, radius * share, 0, 2 * Math.PI);
      c.stroke();
    }
    c.beginPath();
    c.moveTo(x0 - radius, y0);
    c.lineTo(x0 + radius, y0);
    c.moveTo(x0, y0 - radius);
    c.lineTo(x0, y0 + radius);
    c.stroke();
    c.fillStyle = '#7f8d9a';
    c.font = '10px "DejaVu Sans Mono", monospace';
    c.textAlign = 'left';
    c.fillText('N', x0 + 5, y0 - radius + 11);
    c.textAlign = 'right';
    c.fillText(rim < 1 ? `${Math.round(rim * 100)} cm` : `${rim} m`, x0 + radius - 2, y0 - 5);

    c.strokeStyle = colour;
    c.lineWidth = 1.5;
    for (let i = 1; i < trail.length; i += 1) {
      c.globalAlpha = (0.6 * i) / trail.length;
      c.beginPath();
      c.moveTo(x0 + (trail[i - 1][1] / rim) * radius, y0 - (trail[i - 1][0] / rim) * radius);
      c.lineTo(x0 + (trail[i][1] / rim) * radius, y0 - (trail[i][0] / rim) * radius);
      c.stroke();
    }
    c.globalAlpha = 1;
    const [north, east] = trail.at(-1) ?? [0, 0];
    c.fillStyle = colour;
    c.beginPath();
    c.arc(x0 + (east / rim) * radius, y0 - (north / rim) * radius, 4.5, 0, 2 * Math.PI);
    c.fill();

    const top = 8;
    const bottom = height_ - 8;
    const full = Math.max(HEIGHT_M, Math.ceil(height + 0.2));
    const at = (m) => bottom - (m / full) * (bottom - top);
    const x = width - 16;
    c.fillStyle = '#1d262f';
    c.fillRect(x, top, 6, bottom - top);
    c.fillStyle = colour;
    c.fillRect(x, at(Math.max(0, height)), 6, bottom - at(Math.max(0, height)));
    c.fillStyle = '#7f8d9a';
    c.textAlign = 'right';
    c.textBaseline = 'middle';
    for (let m = 0; m <= full; m += full > 6 ? 5 : 1) c.fillText(`${m}`, x - 6, at(m));
    c.textBaseline = 'alphabetic';
    if (goal !== null) {
      c.fillStyle = '#d7e0e8';
      c.fillRect(x - 3, at(goal) - 1, 12, 2);
    }
  });

  return {
    set(position, goalM) {
      trail.push([position[0], position[1]]);
      if (trail.length > TRAIL_MAX) trail.shift();
      height = -position[2];
      goal = goalM;
    },
    draw,
  };
};
