/**
 * Where a delta's bytes go, as a picture: each rectangle is a file or section, its area its share of the artifact, its colour how it
 * is told. Squarified as by Bruls, Huizing and van Wijk (2000): rectangles as near to squares as may be.
 */
import type { Inspection } from '#deltas/index.ts';

export interface Tile {
  label: string;
  bytes: number;
  how: string;
}

interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

const WIDTH = 960;
const HEIGHT = 540;
const HEAD = 34;
const FOOT = 30;
/** A file below this share is added up with others like it. */
const SHARE_MIN = 0.001;
const COLOURS: Record<string, string> = {
  index: '#8d99ae',
  header: '#b8c0cc',
  literal: '#d1495b',
  moves: '#2a9d8f',
  vcdiff: '#e9a23b',
  'zstd-dictionary': '#6c5ce7',
  copy: '#4a6fa5',
};

/** What the areas are: files by their estimate, scaled so that all sections add up to the artifact. */
export function tilesOf(inspection: Inspection): Tile[] {
  const tiles: Tile[] = [{ label: 'header and digests', bytes: inspection.headerBytes, how: 'header' }];
  for (const { sections, files } of inspection.layers) {
    tiles.push({ label: 'index: names, times, order', bytes: sections.index.storedBytes, how: 'index' });
    if (files === undefined) {
      for (const [how, { storedBytes }] of Object.entries(sections)) {
        if (how !== 'index')
          tiles.push({ label: `section ${how}`, bytes: storedBytes, how: how === 'solid' ? 'literal' : how });
      }
      continue;
    }
    for (const { path, how, codecs, storedBytesEstimate } of files) {
      const codec = codecs.find((one) => one !== 'copy' && one !== 'literal') ?? how;
      tiles.push({ label: path, bytes: storedBytesEstimate, how: codec });
    }
  }
  const least = inspection.bytes * SHARE_MIN;
  const rest = new Map<string, { bytes: number; count: number }>();
  const shown = tiles.filter(({ bytes, how }) => {
    if (bytes >= least) return true;
    const sum = rest.get(how) ?? { bytes: 0, count: 0 };
    rest.set(how, { bytes: sum.bytes + bytes, count: sum.count + 1 });
    return false;
  });
  for (const [how, { bytes, count }] of rest) {
    if (bytes > 0) shown.push({ label: `${count} smaller files`, bytes, how });
  }
  return shown.toSorted((a, b) => b.bytes - a.bytes);
}

/** Rectangles of the tiles, which are largest first, in their order. */
export function squarify(tiles: readonly Tile[], area: Rectangle): Rectangle[] {
  const sum = tiles.reduce((all, { bytes }) => all + bytes, 0);
  if (sum === 0) return [];
  const scale = (area.width * area.height) / sum;
  const made: Rectangle[] = [];
  let { x, y, width, height } = area;
  let at = 0;
  while (at < tiles.length) {
    const side = Math.min(width, height);
    let row: number[] = [];
    let rowSum = 0;
    const worst = (sizes: number[], total: number): number =>
      Math.max(
        (side * side * Math.max(...sizes)) / (total * total),
        (total * total) / (side * side * Math.min(...sizes)),
      );
    while (at + row.length < tiles.length) {
      const next = (tiles[at + row.length] as Tile).bytes * scale;
      if (row.length > 0 && worst([...row, next], rowSum + next) > worst(row, rowSum)) break;
      row = [...row, next];
      rowSum += next;
    }
    const thick = side === 0 ? 0 : rowSum / side;
    let along = 0;
    for (const size of row) {
      const long = thick === 0 ? 0 : size / thick;
      made.push(
        width >= height
          ? { x, y: y + along, width: thick, height: long }
          : { x: x + along, y, width: long, height: thick },
      );
      along += long;
    }
    if (width >= height) {
      x += thick;
      width -= thick;
    } else {
      y += thick;
      height -= thick;
    }
    at += row.length;
  }
  return made;
}

const escaped = (text: string): string =>
  text.replace(
    /[&<>"\p{Cc}]/gu,
    (one) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[one] ?? '?',
  );

const size = (bytes: number): string =>
  bytes < 1000
    ? `${Math.round(bytes)} B`
    : bytes < 1e6
      ? `${(bytes / 1e3).toFixed(1)} kB`
      : `${(bytes / 1e6).toFixed(2)} MB`;

/** An SVG of its own, for a browser or a report. */
export function treemapSvg(inspection: Inspection): string {
  const tiles = tilesOf(inspection).filter(({ bytes }) => bytes > 0);
  const places = squarify(tiles, { x: 0, y: HEAD, width: WIDTH, height: HEIGHT - HEAD - FOOT });
  const tarBytes = inspection.layers.reduce((sum, { bytes }) => sum + bytes, 0);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif">`,
    '<rect width="100%" height="100%" fill="#ffffff"/>',
    `<text x="8" y="22" font-size="15" fill="#1b263b">${size(inspection.bytes)} of delta for ${size(tarBytes)} of layers</text>`,
  ];
  for (const [at, { x, y, width, height }] of places.entries()) {
    const { label, bytes, how } = tiles[at] as Tile;
    const share = ((100 * bytes) / Math.max(inspection.bytes, 1)).toFixed(1);
    parts.push(
      `<g><title>${escaped(label)}: ${size(bytes)}, ${share} %, ${how}</title>`,
      `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" fill="${COLOURS[how] ?? '#999999'}" stroke="#ffffff"/>`,
    );
    const letters = Math.floor((width - 8) / 6.6);
    if (letters >= 4 && height >= 18) {
      const name = label.length <= letters ? label : `…${label.slice(1 - letters)}`;
      parts.push(
        `<text x="${(x + 4).toFixed(1)}" y="${(y + 14).toFixed(1)}" font-size="11" fill="#ffffff">${escaped(name)}</text>`,
      );
      if (height >= 32)
        parts.push(
          `<text x="${(x + 4).toFixed(1)}" y="${(y + 28).toFixed(1)}" font-size="11" fill="#ffffff">${size(bytes)}</text>`,
        );
    }
    parts.push('</g>');
  }
  let x = 8;
  for (const how of new Set(tiles.map((tile) => tile.how))) {
    parts.push(
      `<rect x="${x}" y="${HEIGHT - 20}" width="12" height="12" fill="${COLOURS[how] ?? '#999999'}"/>`,
      `<text x="${x + 17}" y="${HEIGHT - 10}" font-size="12" fill="#1b263b">${how}</text>`,
    );
    x += 36 + 7 * how.length;
  }
  return `${parts.join('\n')}\n</svg>\n`;
}
