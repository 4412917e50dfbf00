/** The delta that a push makes is the one that a device can use: applied here, digest by digest (MIDAIR_TEST_ENGINE). */
import { createHash, randomBytes } from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';
import { afterEach, expect, test } from 'vitest';
import { applyLayer, basisFromLayers, memoryAccess, openDelta } from '#deltas/index.ts';
import type { Image, Layer, Release } from '#fleet/protocol.ts';
import { Checkout, Cleanup, Device, getJson, type TestHub, testEngine, testHub } from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const blob = async (hub: TestHub, digest: string) =>
  Buffer.from(await (await fetch(`${hub.url}/v1/blobs/${digest}`)).arrayBuffer());
