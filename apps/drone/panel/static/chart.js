/**
 * The gyro's last seconds, every sample of it, and a line where the version in command changed. The ribbon below shows
 * who commanded when.
 */
import uPlot from '/uplot/uPlot.esm.js';
import { colourOf, short } from '/versions.js';

const WINDOW_S = 8;
const SAMPLES_MAX = WINDOW_S * 250;
const DEGREES = 180 / Math.PI;
/** The scale is never finer than this: a calm hover must look calm. */
const SCALE_MIN = 2;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const createChart = (element, ribbon) => {
  /** Time in seconds, roll, pitch, yaw rate. */
  const data = [[], [], [], []];
  /** Who commanded from when on: { release, fromS }. */
  let reigns = [];
  let scale = SCALE_MIN;
  const edge = style('--edge');
  const axis = {
    stroke: style('--quiet'),
    font: '11px "DejaVu Sans Mono", monospace',
    ticks: { show: false },
  };
  const line = (name) => ({ stroke: style(name), width: 1.25, points: { show: false }, spanGaps: true });

  const plot = new uPlot(
    {
      width: element.clientWidth || 600,
      height: element.clientHeight || 270,
      padding: [20, 16, 0, 0],
      cursor: { show: false },
      legend: { show: false },
      scales: {
        x: { time: false, range: () => [endS() - WINDOW_S, endS()] },
        y: { range: () => [-scale, scale] },
      },
      axes: [
        {
          ...axis,
          size: 26,
          space: 90,
          grid: { show: false },
          splits: () => Array.from({ length: WINDOW_S / 2 + 1 }, (_, i) => endS() - WINDOW_S + 2 * i),
          values: (_, splits) => splits.map((s) => (s === endS() ? 'now' : `${Math.round(s - endS())} s`)),
        },
        { ...axis, size: 44, grid: { stroke: edge, width: 1 } },
      ],
      series: [{}, line('--x'), line('--y'), line('--z')],
      hooks: { draw: [drawChanges] },
    },
    data,
    element,
  );

  function endS() {
    return data[0].at(-1) ?? WINDOW_S;
  }

  function drawChanges(u) {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    for (const { release, fromS } of reigns.slice(1)) {
      const x = Math.round(u.valToPos(fromS, 'x', true));
      if (x < bbox.left) continue;
      const colour = colourOf(release);
      const glow = ctx.createLinearGradient(x, 0, x + 90 * ratio, 0);
      glow.addColorStop(0, `${colour}2e`);
      glow.addColorStop(1, `${colour}00`);
      ctx.fillStyle = glow;
      ctx.fillRect(x, bbox.top, Math.min(90 * ratio, bbox.left + bbox.width - x), bbox.height);
      ctx.fillStyle = colour;
      ctx.fillRect(x - ratio, bbox.top - 14 * ratio, 2 * ratio, bbox.height + 14 * ratio);
      ctx.font = `600 ${11 * ratio}px "DejaVu Sans Mono", monospace`;
      const label = `${short(release)} took over`;
      const room = bbox.left + bbox.width - x;
      const width = ctx.measureText(label).width;
      ctx.textAlign = room > width + 10 * ratio ? 'left' : 'right';
      ctx.fillText(label, x + (ctx.textAlign === 'left' ? 6 : -6) * ratio, bbox.top - 5 * ratio);
    }
    ctx.restore();
  }

  const drawRibbon = () => {
    const at = (s) => 100 * Math.min(1, Math.max(0, 1 - (endS() - s) / WINDOW_S));
    while (ribbon.children.length > reigns.length) ribbon.firstChild.remove();
    reigns.forEach(({ release, fromS }, i) => {
      const span = ribbon.children[i] ?? ribbon.appendChild(document.createElement('span'));
      if (span.textContent !== short(release)) {
        span.textContent = short(release);
        span.style.setProperty('--tone', colourOf(release));
      }
      span.style.left = `${at(fromS)}%`;
      span.style.width = `${at(reigns[i + 1]?.fromS ?? endS()) - at(fromS)}%`;
    });
  };

  const fit = () => plot.setSize({ width: element.clientWidth, height: element.clientHeight });
  new ResizeObserver(fit).observe(element);

  return {
    /** Samples seen since the page was opened. */
    samples: 0,
    /**
     * @param release who commands the rotors now
     * @param trace   [board time in µs, x, y, z in rad/s]; those already shown are skipped
     */
    add(release, trace) {
      const lastS = data[0].at(-1) ?? -1;
      for (const [us, x, y, z] of trace) {
        const s = us / 1e6;
        if (s <= (data[0].at(-1) ?? -1)) continue;
        data[0].push(s);
        data[1].push(x * DEGREES);
        data[2].push(y * DEGREES);
        data[3].push(z * DEGREES);
        this.samples += 1;
      }
      const extra = data[0].length - SAMPLES_MAX;
      if (extra > 0) for (const column of data) column.splice(0, extra);
      if (reigns.at(-1)?.release !== release)
        reigns.push({ release, fromS: reigns.length === 0 ? 0 : lastS });
      reigns = reigns.filter((_, i) => i === reigns.length - 1 || reigns[i + 1].fromS > endS() - WINDOW_S);

      let peak = SCALE_MIN;
      for (let i = 0; i < data[0].length; i += 1) {
        peak = Math.max(
          peak,
          1.15 * Math.abs(data[1][i]),
          1.15 * Math.abs(data[2][i]),
          1.15 * Math.abs(data[3][i]),
        );
      }
      // Up at once, down slowly.
      scale = peak > scale ? peak : scale + 0.03 * (peak - scale);
    },
    draw() {
      plot.setData(data);
      drawRibbon();
    },
  };
};
