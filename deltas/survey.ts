/**
 * What one reading of a layer teaches: its entries in order, and of each content where it is, its digest and a sketch of it.
 *
 * Invariant: a survey follows from the layer's bytes alone, whatever image they are in, and is there only if they have the layer's
 * diffID. So one may be kept for good and used instead of reading the layer: releases have nearly all of their layers in common.
 *
 * Memory: of one layer at a time 16 MB of features, three times as much while they are written, and about 1 kB for each entry. Kept,
 * it is some 3 % of the layer's tar, and of a layer above 512 MiB still 16 MB.
 */
import { createHash } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import { type LayerSource, readLayer } from '#deltas/layer.ts';
import { LIMITS } from '#deltas/limits.ts';
import { below, SampleRate, Sampler } from '#deltas/sketch.ts';
import type { TarEntry } from '#deltas/tar.ts';

export interface SurveyedContent {
  /** Where in the layer's tar it starts, and its length there. */
  offset: number;
  bytes: number;
  /** SHA-256, hexadecimal. */
  digest: string;
  /** In their order in it; none of a sparse file, whose content the tar does not hold as it is, nor if not asked for. */
  features: Uint32Array;
}

export interface SurveyedEntry {
  entry: TarEntry;
  /** Where in the tar its header ends. */
  offset: number;
  /** Missing where the tar has none, or too little of it. */
  content?: SurveyedContent;
}

export interface Survey {
  diffId: string;
  /** Length of the tar. */
  bytes: number;
  /** All features below it were kept (sketch.ts). */
  limit: number;
  entries: SurveyedEntry[];
}

/** Where surveys are kept, as bytes that only this file understands. What it loses or spoils is made anew. */
export interface SurveyStore {
  get(diffId: string): Promise<Uint8Array | undefined>;
  put(diffId: string, bytes: Uint8Array): Promise<void>;
}

export interface SurveyOptions {
  /** Given: a layer that it has a survey of is not read, and it gets those of others. */
  surveys?: SurveyStore | undefined;
  /** Called with the number of bytes read, or known without, since the last call. */
  onBytes?: (bytes: number) => void;
}

/**
 * @param sketched whether features are wanted; a kept survey has them anyway
 * @throws DeltaError `BAD_INPUT`, `READ_FAILED`; what the store throws
 */
export async function surveyOf(
  layer: LayerSource,
  sketched: boolean,
  { surveys, onBytes = () => {} }: SurveyOptions = {},
): Promise<Survey> {
  const kept = await surveys?.get(layer.diffId);
  const known = kept && readSurvey(kept, layer);
  if (known !== undefined) {
    onBytes(layer.bytes);
    return known;
  }
  const made = await makeSurvey(layer, sketched || surveys !== undefined, onBytes);
  await surveys?.put(layer.diffId, writeSurvey(made));
  return made;
}

async function makeSurvey(
  layer: LayerSource,
  sketched: boolean,
  onBytes: (bytes: number) => void,
): Promise<Survey> {
  const entries: SurveyedEntry[] = [];
  const rate = new SampleRate(LIMITS.surveyFeaturesMax);
  const sampler = new Sampler(rate);
  /** Drops what is no longer to be kept. */
  const trim = (): void => {
    for (const { content } of entries)
      if (content !== undefined) content.features = below(content.features, rate.limit);
  };
  let told = 0;
  await readLayer(layer, async (item, source) => {
    const tell = (): void => {
      onBytes(source.position - told);
      told = source.position;
    };
    if (item.kind === 'entry') {
      entries.push({ entry: item.entry, offset: source.position });
    } else if (item.kind === 'content' || item.kind === 'run') {
      const last = item.kind === 'content' && !item.meta ? entries.at(-1) : undefined;
      const sampled = sketched && last !== undefined && !last.entry.sparse;
      const hash = createHash('sha256');
      for await (const piece of item.pieces) {
        if (last !== undefined) hash.update(piece);
        if (sampled) sampler.update(piece);
        tell();
      }
      if (item.kind === 'content' && last !== undefined) {
        const features = sampler.finish();
        last.content = { offset: item.offset, bytes: item.length, digest: hash.digest('hex'), features };
        const { limit } = rate;
        rate.add(features.length);
        if (rate.limit < limit) trim();
      }
    }
    tell();
  });
  trim();
  return { diffId: layer.diffId, bytes: layer.bytes, limit: rate.limit, entries };
}

/** Another number whenever tar.ts, sketch.ts or this file would make another survey of the same layer. */
const MAGIC = Buffer.from('midair survey 1\n');
const DIGEST_BYTES = 32;

const digestOf = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

function writeSurvey(survey: Survey): Buffer {
  const body = serialize(survey);
  return Buffer.concat([MAGIC, digestOf(body), body]);
}

/** Undefined when it is damaged, another version's, or another layer's. */
function readSurvey(bytes: Uint8Array, layer: LayerSource): Survey | undefined {
  const kept = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const bodyAt = MAGIC.length + DIGEST_BYTES;
  const body = kept.subarray(bodyAt);
  if (!kept.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  if (!kept.subarray(MAGIC.length, bodyAt).equals(digestOf(body))) return undefined;
  let survey: Survey;
  try {
    // The digest says that these are `writeSurvey`'s own bytes.
    survey = deserialize(body) as Survey;
  } catch {
    // Written by a newer Node.
    return undefined;
  }
  return survey.diffId === layer.diffId && survey.bytes === layer.bytes ? survey : undefined;
}
