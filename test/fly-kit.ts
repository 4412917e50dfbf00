/** Reads a flight's record as Foxglove would: by its index, decompressed, schemas and all. */
import { readFileSync } from 'node:fs';
import { zstdDecompressSync } from 'node:zlib';
import { McapIndexedReader } from '@mcap/core';

export interface Message {
  topic: string;
  logTime: bigint;
  sequence: number;
  data: Record<string, unknown>;
}

export interface Record_ {
  messages: Message[];
  /** By topic. */
  schemas: Map<string, { name: string; encoding: string; properties: string[] }>;
  /** As the file's own statistics say. */
  messageCount: bigint;
  chunks: number;
  compression: string[];
}

export const readRecord = async (path: string): Promise<Record_> => {
  const file = readFileSync(path);
  const reader = await McapIndexedReader.Initialize({
    readable: {
      size: async () => BigInt(file.length),
      read: async (offset, length) => file.subarray(Number(offset), Number(offset + length)),
    },
    decompressHandlers: { zstd: (bytes) => zstdDecompressSync(bytes) },
  });
  const schemas = new Map<string, { name: string; encoding: string; properties: string[] }>();
  for (const { topic, schemaId } of reader.channelsById.values()) {
    const schema = reader.schemasById.get(schemaId);
    if (schema === undefined) throw new Error(`${topic} has no schema`);
    const { properties } = JSON.parse(Buffer.from(schema.data).toString()) as { properties: object };
    schemas.set(topic, {
      name: schema.name,
      encoding: schema.encoding,
      properties: Object.keys(properties),
    });
  }
  const messages: Message[] = [];
  for await (const { channelId, logTime, sequence, data } of reader.readMessages()) {
    const topic = reader.channelsById.get(channelId)?.topic ?? '';
    messages.push({ topic, logTime, sequence, data: JSON.parse(Buffer.from(data).toString()) });
  }
  return {
    messages,
    schemas,
    messageCount: reader.statistics?.messageCount ?? 0n,
    chunks: reader.chunkIndexes.length,
    compression: [...new Set(reader.chunkIndexes.map((chunk) => chunk.compression))],
  };
};
