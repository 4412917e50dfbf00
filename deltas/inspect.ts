/**
 * Where an artifact's bytes go: by layer, section, codec and file.
 *
 * Sections are exact. A file's share of a stream that is compressed as a whole is an estimate, by its part of the
 * stream before compression.
 */

import { type DeltaReader, openDelta } from '#deltas/artifact.ts';
import { type Basis, type List, listBasis } from '#deltas/basis.ts';
import type { SectionKind } from '#deltas/codecs.ts';
import { indexBlocks } from '#deltas/index-blocks.ts';
import { basisOf, type Content, type Patched, type Window } from '#deltas/index-format.ts';
import { bytesToPath } from '#deltas/paths.ts';
import type { RandomAccess } from '#deltas/random-access.ts';

export interface InspectedFile {
  path: string;
  bytes: number;
  how: 'copy' | 'literal' | 'patch';
  /** Codecs of its windows, for a patch. */
  codecs: (Window['codec'] | 'moves' | 'joined' | 'streams' | 'grouped')[];
  /** Basis files that it is made from. */
  from: string[];
  /** Its share of the artifact, without its part of the index. */
  storedBytesEstimate: number;
}

export interface InspectedLayer {
  diffId: string;
  /** Of the tar. */
  bytes: number;
  storedBytes: number;
  sections: Record<SectionKind, { storedBytes: number; rawBytes: number }>;
  /** undefined when names need the basis's listing and no basis was given. */
  files: InspectedFile[] | undefined;
}

export interface Inspection {
  version: 1;
  basisId: string;
  targetId: string;
  bytes: number;
  headerBytes: number;
  needsList: boolean;
  codecs: string[];
  layers: InspectedLayer[];
}

type Ratios = Record<'solid' | 'patches' | 'moves' | 'streams', number>;

/** Codecs of what is patched, and its share of the sections. */
function inspectPatched(
  patched: Patched | Extract<Content, { type: 'joined' }>,
  ratios: Ratios,
): Pick<InspectedFile, 'codecs' | 'storedBytesEstimate'> {
  if (patched.type === 'moves' || patched.type === 'joined') {
    const { movesBytes, literalBytes } = patched;
    return {
      codecs: [patched.type],
      storedBytesEstimate: movesBytes * ratios.moves + literalBytes * ratios.solid,
    };
  }
  let stored = 0;
  for (const { codec, bytes, patchBytes } of patched.windows) {
    if (codec === 'literal') stored += bytes * ratios.solid;
    if (codec === 'vcdiff') stored += patchBytes * ratios.patches;
    if (codec === 'zstd-dictionary') stored += patchBytes;
  }
  return { codecs: [...new Set(patched.windows.map(({ codec }) => codec))], storedBytesEstimate: stored };
}

function inspectContent(path: string, length: number, content: Content, ratios: Ratios): InspectedFile {
  const made = content.type === 'streams' ? content.inside : content;
  const file: InspectedFile = {
    path,
    bytes: length,
    how: made.type === 'copy' ? 'copy' : basisOf(content).length > 0 ? 'patch' : 'literal',
    codecs: [],
    from: basisOf(content),
    storedBytesEstimate: 0,
  };
  if (made.type === 'windows' || made.type === 'moves' || made.type === 'joined') {
    Object.assign(file, inspectPatched(made, ratios));
    file.storedBytesEstimate += made.basisCheck.length;
  }
  if (content.type === 'grouped') file.codecs = ['grouped'];
  if (content.type === 'solid') file.storedBytesEstimate = length * ratios.solid;
  if (content.type === 'streams') {
    file.codecs.unshift('streams');
    file.storedBytesEstimate += content.planBytes * ratios.streams;
    if (made.type === 'solid') file.storedBytesEstimate += content.openedBytes * ratios.solid;
  }
  if ('outputCheck' in content) file.storedBytesEstimate += content.outputCheck?.length ?? 0;
  file.storedBytesEstimate = Math.round(file.storedBytesEstimate);
  return file;
}

async function inspectLayer(delta: DeltaReader, at: number, list: List | undefined): Promise<InspectedLayer> {
  const layer = delta.header.layers[at] as DeltaReader['header']['layers'][number];
  const summary = delta.layers[at] as DeltaReader['layers'][number];
  const none = (): { storedBytes: number; rawBytes: number } => ({ storedBytes: 0, rawBytes: 0 });
  const sections: InspectedLayer['sections'] = {
    index: none(),
    solid: none(),
    patches: none(),
    frames: none(),
    moves: none(),
    streams: none(),
    groups: none(),
  };
  for (const { kind, bytes, rawBytes } of layer.sections) {
    sections[kind].storedBytes += bytes;
    sections[kind].rawBytes += rawBytes;
  }
  const inspected: InspectedLayer = { ...summary, sections, files: undefined };
  if (delta.needsList && list === undefined) return inspected;
  const ratio = (kind: SectionKind): number =>
    sections[kind].storedBytes / Math.max(sections[kind].rawBytes, 1);
  const ratios = {
    solid: ratio('solid'),
    patches: ratio('patches'),
    moves: ratio('moves'),
    streams: ratio('streams'),
  };
  const files: InspectedFile[] = [];
  for await (const block of indexBlocks(delta, layer, list)) {
    let name = '';
    while (!block.ended) {
      const item = block.next();
      if (item.kind === 'header') name = item.name;
      if (item.kind === 'run')
        files.push(inspectContent('(not a tar)', item.length, { type: 'solid' }, ratios));
      if (item.kind !== 'content' || item.content.type === 'meta') continue;
      const path = bytesToPath(Buffer.from(name, 'latin1')) ?? name;
      files.push(inspectContent(path, item.length, item.content, ratios));
    }
  }
  // What each takes of its group does not show: a share by its length.
  const grouped = files.filter(({ codecs }) => codecs.includes('grouped'));
  const groupedBytes = grouped.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const file of grouped)
    file.storedBytesEstimate = Math.round((file.bytes * sections.groups.storedBytes) / groupedBytes);
  return { ...inspected, files };
}

/**
 * @param basis only needed for the files of an artifact whose `needsList` is true
 * @throws DeltaError as openDelta does, and `BASIS_MISMATCH` when the basis is another one
 */
export async function inspectDelta(source: RandomAccess | DeltaReader, basis?: Basis): Promise<Inspection> {
  const delta = 'header' in source ? source : await openDelta(source);
  const { listDigest } = delta.header;
  const list =
    listDigest === undefined || basis === undefined ? undefined : await listBasis(basis, listDigest);
  const layers: InspectedLayer[] = [];
  for (const at of delta.layers.keys()) layers.push(await inspectLayer(delta, at, list));
  const { basisId, targetId, bytes, headerBytes, needsList } = delta;
  return { version: 1, basisId, targetId, bytes, headerBytes, needsList, codecs: [...delta.codecs], layers };
}

const number = (value: number): string => value.toLocaleString('en-US');

/** Columns of text, the first to the left, the others to the right. */
function table(rows: string[][]): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  return rows
    .map((row) =>
      row
        .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A name as it may be shown on a terminal. */
const printable = (name: string): string => name.replace(/[\p{Cc}\p{Cf}]/gu, '?');

/** Where a file comes from, in a few words. */
const origin = (from: readonly string[]): string =>
  printable(from[0] ?? '') + (from.length > 1 ? ` and ${from.length - 1} more` : '');

/** Plain text, at most `filesMax` of the largest files of each layer. */
export function renderInspection(inspection: Inspection, filesMax = 20): string {
  const parts = [
    `delta format ${inspection.version}, ${number(inspection.bytes)} bytes (header ${number(inspection.headerBytes)})`,
    `basis  ${inspection.basisId}`,
    `target ${inspection.targetId}`,
    `codecs ${inspection.codecs.join(', ')}${inspection.needsList ? '; needs the listing of the basis' : ''}`,
  ];
  for (const layer of inspection.layers) {
    parts.push('', `layer ${layer.diffId}: ${number(layer.bytes)} bytes from ${number(layer.storedBytes)}`);
    const rows = [['section', 'stored', 'before compression']];
    for (const [kind, { storedBytes, rawBytes }] of Object.entries(layer.sections)) {
      if (rawBytes > 0) rows.push([kind, number(storedBytes), number(rawBytes)]);
    }
    parts.push(table(rows));
    if (layer.files === undefined) {
      parts.push('files: give the basis image to see them');
      continue;
    }
    const counts = new Map<string, { files: number; bytes: number; stored: number }>();
    for (const { how, bytes, storedBytesEstimate } of layer.files) {
      const count = counts.get(how) ?? { files: 0, bytes: 0, stored: 0 };
      counts.set(how, {
        files: count.files + 1,
        bytes: count.bytes + bytes,
        stored: count.stored + storedBytesEstimate,
      });
    }
    parts.push(
      table([
        ['contents', 'files', 'bytes', 'stored about'],
        ...[...counts].map(([how, { files, bytes, stored }]) => [
          how,
          number(files),
          number(bytes),
          number(stored),
        ]),
      ]),
    );
    const largest = layer.files.filter(({ how }) => how !== 'copy');
    largest.sort((a, b) => b.storedBytesEstimate - a.storedBytesEstimate);
    if (largest.length === 0) continue;
    parts.push(
      table([
        ['file', 'bytes', 'stored about', 'by', 'from'],
        ...largest
          .slice(0, filesMax)
          .map(({ path, bytes, storedBytesEstimate, how, codecs, from }) => [
            printable(path),
            number(bytes),
            number(storedBytesEstimate),
            codecs.length > 0 ? codecs.join('+') : how,
            from.length === 1 && from[0] === path ? '' : origin(from),
          ]),
      ]),
    );
  }
  return `${parts.join('\n')}\n`;
}
