/** Artificial horizon: the world turns, the drone's own symbol stays. Angles in degrees. */
import { createCanvas } from '/canvas.js';

const RADIANS = Math.PI / 180;
/** Degrees of pitch from the centre to the rim. */
const SPAN_DEG = 28;

export const createHorizon = (canvas) => {
  let roll = 0;
  let pitch = 0;

  const draw = createCanvas(canvas, (c, width, height) => {
    const radius = Math.min(width, height, 300) / 2 - 2;
    const perDegree = (radius * 0.92) / SPAN_DEG;
    c.translate(width / 2, height / 2);

    c.save();
    c.beginPath();
    c.arc(0, 0, radius * 0.9, 0, 2 * Math.PI);
    c.clip();
    c.rotate(-roll * RADIANS);
    c.translate(0, pitch * perDegree);
    const sky = c.createLinearGradient(0, -2 * radius, 0, 0);
    sky.addColorStop(0, '#12324a');
    sky.addColorStop(1, '#24597c');
    c.fillStyle = sky;
    c.fillRect(-3 * radius, -4 * radius, 6 * radius, 4 * radius);
    const earth = c.createLinearGradient(0, 0, 0, 2 * radius);
    earth.addColorStop(0, '#4a3a2a');
    earth.addColorStop(1, '#2a211a');
    c.fillStyle = earth;
    c.fillRect(-3 * radius, 0, 6 * radius, 4 * radius);
    c.strokeStyle = '#e6eef4';
    c.lineWidth = 1.5;
    c.beginPath();
    c.moveTo(-3 * radius, 0);
    c.lineTo(3 * radius, 0);
    c.stroke();

    c.lineWidth = 1;
    c.fillStyle = c.strokeStyle = 'rgb(230 238 244 / 70%)';
    c.font = '10px "DejaVu Sans Mono", monospace';
    c.textBaseline = 'middle';
    for (let degrees = -60; degrees <= 60; degrees += 5) {
      if (degrees === 0) continue;
      const half = radius * (degrees % 10 === 0 ? 0.24 : 0.12);
      const y = -degrees * perDegree;
      c.beginPath();
      c.moveTo(-half, y);
      c.lineTo(half, y);
      c.stroke();
      if (degrees % 10 === 0) {
        c.textAlign = 'left';
        c.fillText(String(Math.abs(degrees)), half + 6, y);
      }
    }
    c.restore();

    // Roll scale: fixed marks on the rim, a pointer that turns with the world.
    c.strokeStyle = '#7f8d9a';
    for (const degrees of [-60, -45, -30, -20, -10, 0, 10, 20, 30, 45, 60]) {
      const long = degrees % 30 === 0 ? 0.1 : 0.06;
      c.save();
      c.rotate(degrees * RADIANS);
      c.beginPath();
      c.moveTo(0, -radius * 0.9);
      c.lineTo(0, -radius * (0.9 + long));
      c.stroke();
      c.restore();
    }
    c.save();
    c.rotate(-roll * RADIANS);
    c.fillStyle = '#f0b45a';
    c.beginPath();
    c.moveTo(0, -radius * 0.89);
    c.lineTo(-6, -radius * 0.89 + 11);
    c.lineTo(6, -radius * 0.89 + 11);
    c.fill();
    c.restore();

    c.strokeStyle = '#f0b45a';
    c.lineWidth = 3;
    c.lineCap = 'round';
    c.lineJoin = 'round';
    c.beginPath();
    c.moveTo(-radius * 0.5, 0);
    c.lineTo(-radius * 0.2, 0);
    c.lineTo(-radius * 0.1, radius * 0.09);
    c.moveTo(radius * 0.5, 0);
    c.lineTo(radius * 0.2, 0);
    c.lineTo(radius * 0.1, radius * 0.09);
    c.stroke();
    c.beginPath();
    c.arc(0, 0, 2.5, 0, 2 * Math.PI);
    c.fillStyle = '#f0b45a';
    c.fill();
  });

  return {
    set(rollDeg, pitchDeg) {
      roll = rollDeg;
      pitch = pitchDeg;
    },
    draw,
  };
};
