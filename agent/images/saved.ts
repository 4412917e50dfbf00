/**
 * Layers that the engine holds but asks for all the same, taken from its own `save` of an image that has them.
 *
 * Invariant: a spooled layer has the digest it was asked under; anything else is not spooled.
 * An engine knows its layers by a blob's digest only if it pulled them; one that was built or loaded there it asks
 * for again, and also one that lies on other layers in the target than in the image that it has. Their bytes are
 * in the engine, so none come over the air. The saved archive's layout differs between versions: a layer is known
 * by its length and digest alone.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type Docker from 'dockerode';
import { extract } from 'tar-stream';
import { diskError } from '#agent/images/errors.ts';
import { ask, short } from '#agent/images/inventory.ts';

/** @returns path of the layer's tar, or undefined if the image does not give it */
export async function spoolSavedLayer(options: {
  docker: Docker;
  imageId: string;
  layer: { diffId: string; bytes: number };
  directory: string;
  signal: AbortSignal;
}): Promise<string | undefined> {
  const { docker, imageId, layer, directory, signal } = options;
  const path = join(directory, `layer-${layer.diffId.replace('sha256:', '')}`);
  const stream = (await ask(`saving image ${short(imageId)}`, () => docker.getImage(imageId).get(), {
    signal,
  })) as Readable;
  const tar = extract();
  const cancel = () => stream.destroy(new Error('called off'));
  signal.addEventListener('abort', cancel, { once: true });
  stream.once('error', (error) => tar.destroy(error));
  stream.once('aborted', () => tar.destroy(new Error('the engine broke off')));
  stream.pipe(tar);
  let file: FileHandle | undefined;
  try {
    for await (const entry of tar) {
      if (entry.header.type !== 'file' || entry.header.size !== layer.bytes) {
        entry.resume();
        continue;
      }
      await mkdir(directory, { recursive: true });
      file = await open(
        path,
        constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
        0o600,
      );
      const hash = createHash('sha256');
      for await (const chunk of entry) {
        hash.update(chunk as Buffer);
        await file.appendFile(chunk as Buffer);
      }
      await file.close();
      file = undefined;
      if (`sha256:${hash.digest('hex')}` === layer.diffId) return path;
    }
    await rm(path, { force: true });
    return undefined;
  } catch (error) {
    await rm(path, { force: true });
    throw diskError(error, `reading a layer of image ${short(imageId)} from the engine`);
  } finally {
    signal.removeEventListener('abort', cancel);
    await file?.close();
    stream.destroy();
  }
}
