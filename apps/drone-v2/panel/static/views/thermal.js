/** The thermal camera: 80 x 60 levels in, false colours out, the hottest spot marked with its temperature. */
const WIDTH = 80;
const HEIGHT = 60;
const SCALE = 8;
/** The camera's calibration: level 110 is 18 °C, eight levels are one degree. */
const celsius = (level) => 18 + (level - 110) / 8;
/** The camera prints its frame's number into the lower left corner: nothing there is a temperature. */
const printed = (pixel) => pixel >= (HEIGHT - 7) * WIDTH && pixel % WIDTH < 36;
/** From cold to hot, as thermographers know it; at least so many levels apart. */
const IRON = ['#05030f', '#2a0a5c', '#7a1283', '#c02a6b', '#ea5a2f', '#fb9b06', '#fdd93b', '#fffbe6'];
const SPAN_MIN = 48;

/** 256 colours as RGBA in a little-endian word. */
const PALETTE = Uint32Array.from({ length: 256 }, (_, level) => {
  const at = (level / 255) * (IRON.length - 1);
  const from = Math.min(IRON.length - 2, Math.floor(at));
  const channel = (i) => {
    const part = (hex) => Number.parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    return Math.round(part(IRON[from]) + (part(IRON[from + 1]) - part(IRON[from])) * (at - from));
  };
  return ((255 << 24) | (channel(2) << 16) | (channel(1) << 8) | channel(0)) >>> 0;
});

export const mount = (picture) => {
  const canvas = picture.appendChild(document.createElement('canvas'));
  canvas.width = WIDTH * SCALE;
  canvas.height = HEIGHT * SCALE;
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  const small = new OffscreenCanvas(WIDTH, HEIGHT);
  const pixels = new ImageData(WIDTH, HEIGHT);
  const colours = new Uint32Array(pixels.data.buffer);

  return (levels) => {
    if (levels.length !== WIDTH * HEIGHT) return;
    let low = 0;
    let hot = 0;
    for (let i = 0; i < levels.length; i += 1) {
      if (printed(i)) continue;
      if (levels[i] < levels[low]) low = i;
      if (levels[i] > levels[hot]) hot = i;
    }
    const span = Math.max(SPAN_MIN, levels[hot] - levels[low]);
    for (let i = 0; i < levels.length; i += 1) {
      colours[i] = PALETTE[Math.min(255, Math.max(0, Math.round(((levels[i] - levels[low]) / span) * 255)))];
    }
    small.getContext('2d').putImageData(pixels, 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);

    // Labels keep their size on the screen, however small the canvas is shown.
    const unit = Math.max(canvas.width / canvas.clientWidth, canvas.height / canvas.clientHeight);
    if (!Number.isFinite(unit)) return;
    const pitch = SCALE / unit;
    context.save();
    context.scale(unit, unit);
    legend(context, WIDTH * pitch, HEIGHT * pitch, celsius(levels[low]), celsius(levels[low] + span));
    const [x, y] = [(hot % WIDTH) + 0.5, Math.floor(hot / WIDTH) + 0.5];
    mark(context, x * pitch, y * pitch, x > 0.55 * WIDTH, celsius(levels[hot]));
    context.restore();
  };
};

const write = (context, text, x, y) => {
  context.font = '600 13px "DejaVu Sans Mono", monospace';
  context.lineWidth = 3;
  context.strokeStyle = 'rgb(0 0 0 / 60%)';
  context.strokeText(text, x, y);
  context.fillStyle = '#fff';
  context.fillText(text, x, y);
};

const mark = (context, x, y, toTheLeft, temperatureC) => {
  context.strokeStyle = '#fff';
  context.lineWidth = 1.5;
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  for (const [right, down] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ]) {
    context.moveTo(x + 4 * right, y + 4 * down);
    context.lineTo(x + 11 * right, y + 11 * down);
  }
  context.stroke();
  context.textAlign = toTheLeft ? 'right' : 'left';
  write(context, `${temperatureC.toFixed(1)} °C`, x + (toTheLeft ? -15 : 15), Math.max(16, y - 6));
};

const legend = (context, width, height, lowC, highC) => {
  const [x, top, bottom] = [width - 18, 32, height - 32];
  const ramp = context.createLinearGradient(0, bottom, 0, top);
  IRON.forEach((colour, i) => {
    ramp.addColorStop(i / (IRON.length - 1), colour);
  });
  context.fillStyle = ramp;
  context.fillRect(x, top, 7, bottom - top);
  context.strokeStyle = 'rgb(255 255 255 / 40%)';
  context.lineWidth = 1;
  context.strokeRect(x, top, 7, bottom - top);
  context.textAlign = 'right';
  write(context, `${highC.toFixed(0)}°`, x + 8, top - 8);
  write(context, `${lowC.toFixed(0)}°`, x + 8, bottom + 18);
};
