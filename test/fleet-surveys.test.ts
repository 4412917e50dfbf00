/** Surveys as files: nothing depends on them, so nothing that is wrong with them is an error. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { surveyFiles } from '#fleet/surveys.ts';
import { Cleanup, fakeDigest, temporaryDirectory } from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function place() {
  const directory = await temporaryDirectory(cleanup);
  const scratch = join(directory, 'scratch');
  await mkdir(scratch);
  return { directory: join(directory, 'surveys'), scratch };
}

test('one is there once it was put, whole, and may be put again', async () => {
  const { directory, scratch } = await place();
  const surveys = surveyFiles(directory, scratch);
  const id = fakeDigest('a');
  expect(await surveys.get(id)).toBeUndefined();
  for (const text of ['one', 'another']) {
    await surveys.put(id, Buffer.from(text));
    expect(Buffer.from((await surveys.get(id)) ?? []).toString()).toBe(text);
  }
  expect(await surveys.get(fakeDigest('b'))).toBeUndefined();
  expect(await readdir(join(directory, 'aa'))).toEqual([id.slice('sha256:'.length)]);
  expect(await readdir(scratch)).toEqual([]);
});

test('what cannot be written or read is not there', async () => {
  const { directory, scratch } = await place();
  await writeFile(directory, 'in the way');
  const blocked = surveyFiles(directory, scratch);
  await blocked.put(fakeDigest('a'), Buffer.from('x'));
  expect(await blocked.get(fakeDigest('a'))).toBeUndefined();
  expect(await readdir(scratch)).toEqual([]);
  await surveyFiles(join(scratch, 'surveys'), join(scratch, 'none')).put(fakeDigest('a'), Buffer.from('x'));
});
