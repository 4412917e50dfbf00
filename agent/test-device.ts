/**
 * The mark of a test device: the only devices that failure injection (`midair chaos`) may touch.
 *
 * Invariant: every container that the agent starts says on a label whether its device is one, `true` or `false`, so that no
 * image's own label can; the file in the agent's directory is there while, and only while, its agent was last started as one.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startTicksOf } from '#agent/engine-cgroup.ts';

export const TEST_DEVICE_LABEL = 'io.midair.test-device';
/** In the directory of each part that may be harmed. */
export const MARK_FILE = 'test-device.json';

export const markTestDevice = (directory: string, device: string, isTestDevice: boolean): void => {
  const path = join(directory, MARK_FILE);
  if (!isTestDevice) {
    rmSync(path, { force: true });
    return;
  }
  const { pid } = process;
  const mark = { role: 'agent', device, pid, startTicks: String(startTicksOf(pid)) };
  mkdirSync(directory, { recursive: true });
  writeFileSync(`${path}.new`, `${JSON.stringify(mark)}\n`);
  renameSync(`${path}.new`, path);
};
