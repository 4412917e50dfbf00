import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync, readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { AGAIN, type Native, native, nowUs, READABLE, WRITABLE } from '#handover/native.ts';
import { descriptorCount, directory, until } from './handover-kit.ts';

const bytes = Buffer.alloc(4096);
const codeOf = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return undefined;
};
const flags = (fd: number): number =>
  Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8);
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

describe('arguments and errors', () => {
  it('refuses what is no descriptor, no range, no bytes, no text, with nothing done', () => {
    const before = descriptorCount();
    const bad = native as unknown as Record<keyof Native, (...args: unknown[]) => unknown>;
    const calls: [keyof Native, ...unknown[]][] = [
      ['close'],
      ['close', -1],
      ['close', 1.5],
      ['close', Number.NaN],
      ['close', '3'],
      ['close', 2 ** 31],
      ['read', 0, bytes, 0, 4097],
      ['read', 0, bytes, 4096, 1],
      ['read', 0, bytes, -1, 1],
      ['read', 0, bytes, 0, 0],
      ['read', 0, new Uint16Array(4), 0, 1],
      ['read', 0, 'text', 0, 1],
      ['write', 0, bytes],
      ['send', 0, bytes, 0, 1, 'none'],
      ['send', 0, bytes, 0, 1, ['x']],
      ['send', 0, bytes, 0, 1, Array.from({ length: 251 }, () => 0)],
      ['receive', 0, bytes, 0, 1, {}],
      ['unixListen', '', 1],
      ['unixListen', 'x'.repeat(108), 1],
      ['unixListen', 'a\0b', 1],
      ['unixListen', '/x', 0],
      ['tcpListen', 'localhost', 0, 1],
      ['tcpListen', '127.0.0.1', 65_536, 1],
      ['openTty', '/dev/null', 1234],
      ['watch', 0, 16, () => {}],
      ['watch', 0, 1, undefined],
      ['setFifo', 0, 100],
      ['timerSet', 0, -1, 0],
    ];
    for (const [name, ...args] of calls) {
      expect(
        codeOf(() => bad[name](...args)),
        `${name}(${args.map(String).join()})`,
      ).toBe('ERR_INVALID_ARG_VALUE');
    }
    expect(descriptorCount()).toBe(before);
  });

  it('throws the errno by its name, with the system call', () => {
    const before = descriptorCount();
    const directory_ = directory();
    expect(codeOf(() => native.unixConnect(`${directory_}/none`))).toBe('ENOENT');
    expect(codeOf(() => native.unixListen(`${directory_}/no/such`, 1))).toBe('ENOENT');
    expect(codeOf(() => native.openTty('/dev/null', 57_600))).toBe('ENOTTY');
    expect(codeOf(() => native.openTty(`${directory_}/none`, 57_600))).toBe('ENOENT');
    expect(codeOf(() => native.close(9_999))).toBe('EBADF');
    expect(codeOf(() => native.duplicate(9_999))).toBe('EBADF');
    expect(codeOf(() => native.watch(9_999, READABLE, () => {}))).toBe('EBADF');
    expect(() => native.close(9_999)).toThrow(expect.objectContaining({ syscall: 'close', errno: -9 }));
    expect(descriptorCount()).toBe(before);
  });
});

describe('descriptors', () => {
  it('makes each close-on-exec and nonblocking, and leaks none', () => {
    const path = `${directory()}/socket`;
    const before = descriptorCount();
    const listening = native.unixListen(path, 4);
    const client = native.unixConnect(path);
    const accepted = native.accept(listening);
    expect(native.accept(listening)).toBe(AGAIN);
    const [left, right] = native.socketPair();
    const pty = native.openPty();
    const tty = native.openTty(pty.path, 57_600);
    const tcp = native.tcpListen('127.0.0.1', 0, 4);
    const tcp6 = native.tcpListen('::1', 0, 4);
    const timer = native.timerCreate();
    const copy = native.duplicate(left);
    const all = [
      listening,
      client,
      accepted,
      left,
      right,
      pty.master,
      pty.slave,
      tty,
      tcp,
      tcp6,
      timer,
      copy,
    ];
    for (const fd of all) {
      expect(flags(fd) & O_NONBLOCK, `fd ${fd}`).toBe(O_NONBLOCK);
      expect(flags(fd) & O_CLOEXEC, `fd ${fd}`).toBe(O_CLOEXEC);
    }
    expect(native.tcpPort(tcp)).toBeGreaterThan(0);
    expect(native.tcpPort(tcp6)).toBeGreaterThan(0);
    expect(native.peer(accepted)).toEqual({
      pid: process.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });
    for (const fd of all) native.close(fd);
    expect(descriptorCount()).toBe(before);
  });

  it('opens ptys and ttys raw: bytes pass as they are and nothing echoes', () => {
    const { master, slave, path } = native.openPty();
    expect(native.ttyIsRaw(slave)).toBe(true);
    expect(readlinkSync(`/proc/self/fd/${slave}`)).toBe(path);
    const all = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    expect(native.write(master, all, 0, 256)).toBe(256);
    expect(native.read(slave, bytes, 0, 4096)).toBe(256);
    expect(bytes.subarray(0, 256).equals(all)).toBe(true);
    expect(native.write(slave, all, 0, 256)).toBe(256);
    expect(native.read(master, bytes, 0, 4096)).toBe(256);
    expect(bytes.subarray(0, 256).equals(all)).toBe(true);
    expect(native.read(master, bytes, 0, 1)).toBe(AGAIN);
    const again = native.openTty(path, 921_600);
    expect(native.ttyIsRaw(again)).toBe(true);
    native.close(again);
    native.close(slave);
    expect(codeOf(() => native.read(master, bytes, 0, 1))).toBe('EIO');
    native.close(master);
  });

  it('passes 250 descriptors with one byte, and they are the same open files', () => {
    const before = descriptorCount();
    const [left, right] = native.socketPair();
    const { master, slave } = native.openPty();
    const fds = Array.from({ length: 250 }, (_, at) => (at % 2 === 0 ? master : slave));
    expect(native.send(left, Buffer.from('x'), 0, 1, fds)).toBe(1);
    const received: number[] = [-7];
    expect(native.receive(right, bytes, 0, 100, received)).toBe(1);
    expect(received.shift()).toBe(-7);
    expect(received.length).toBe(250);
    expect(received.map((fd) => fstatSync(fd).rdev)).toEqual(fds.map((fd) => fstatSync(fd).rdev));
    expect(flags(received[0] as number) & O_CLOEXEC).toBe(O_CLOEXEC);
    for (const fd of [...received, left, right, master, slave]) native.close(fd);
    expect(descriptorCount()).toBe(before);
  });

  it('reports control data that was cut, and closes what came of it', () => {
    const [left, right] = native.socketPair();
    native.send(
      left,
      Buffer.from('x'),
      0,
      1,
      Array.from({ length: 100 }, () => left),
    );
    const script = fileURLToPath(new URL('./handover-processes/few-descriptors.ts', import.meta.url));
    const child = spawnSync('sh', ['-c', 'ulimit -n 64; exec "$0" "$1"', process.execPath, script], {
      stdio: ['ignore', 'pipe', 'inherit', right],
      encoding: 'utf8',
    });
    expect(JSON.parse(child.stdout)).toEqual({ code: 'MSG_CTRUNC', given: 0, leaked: 0 });
    native.close(left);
    native.close(right);
  });

  it('gives AGAIN when the far side does not read, and an error when it is gone', () => {
    const [left, right] = native.socketPair();
    let sent = 0;
    for (
      let n = native.send(left, bytes, 0, 4096, []);
      n !== AGAIN;
      n = native.send(left, bytes, 0, 4096, [])
    )
      sent += n;
    expect(sent).toBeGreaterThan(4096);
    native.close(right);
    expect(codeOf(() => native.send(left, bytes, 0, 1, []))).toBe('EPIPE');
    native.close(left);
  });
});

describe('watchers and timers', () => {
  it('tells when a descriptor is readable or writable, until it is told otherwise', async () => {
    const [left, right] = native.socketPair();
    const seen: number[] = [];
    const watcher = native.watch(right, READABLE | WRITABLE, (events) => {
      seen.push(events);
      watcher.change(READABLE);
    });
    await until('writable', () => seen.includes(WRITABLE));
    expect(codeOf(() => native.watch(right, READABLE, () => {}))).toBe('EEXIST');
    native.send(left, bytes, 0, 1, []);
    await until('readable', () => seen.includes(READABLE));
    watcher.change(0);
    const count = seen.length;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(seen.length).toBe(count);
    watcher.close();
    watcher.close();
    expect(codeOf(() => watcher.change(READABLE))).toBe('EBADF');
    native.close(left);
    native.close(right);
  });

  it('fires at microseconds on the monotonic clock, without drift', async () => {
    const before = descriptorCount();
    const startUs = nowUs() + 2_000;
    let expiries = 0;
    let firstUs = 0;
    const timer = native.timer((count) => {
      if (expiries === 0) firstUs = nowUs();
      expiries += count;
    });
    timer.set(startUs, 500);
    await until('100 expiries', () => expiries >= 100);
    const tookUs = nowUs() - startUs;
    expect(firstUs).toBeGreaterThanOrEqual(startUs);
    expect(expiries).toBeLessThanOrEqual(Math.floor(tookUs / 500) + 1);
    timer.close();
    timer.close();
    await until('its descriptor is closed', () => descriptorCount() === before);
  });

  it('frees the watchers of a worker that ends, whether or not they were closed', async () => {
    const module = new URL('../handover/native.ts', import.meta.url).href;
    const source = `import(${JSON.stringify(module)}).then(({ native, READABLE }) => {
      for (let i = 0; i < 20; i++) {
        const [left, right] = native.socketPair();
        native.watch(left, READABLE, () => {});
        if (i % 2) native.watch(right, READABLE, () => {}).close();
      }
      require('node:worker_threads').parentPort.postMessage('ready');
    });`;
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(source, { eval: true, execArgv: [] });
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      expect(await worker.terminate()).toBe(1);
    }
  });

  it('says what to do when it is not built', () => {
    const source = new URL('../handover/native.ts', import.meta.url).href;
    const copy = `${directory()}/native.mts`;
    execFileSync('cp', [fileURLToPath(source), copy]);
    const child = spawnSync(process.execPath, [copy], { encoding: 'utf8', env: { PATH: process.env.PATH } });
    expect(child.status).not.toBe(0);
    expect(child.stderr).toContain('npm rebuild');
    const addon = fileURLToPath(
      new URL('../handover/native/build/Release/descriptors.node', import.meta.url),
    );
    const found = spawnSync(process.execPath, [copy], {
      env: { PATH: process.env.PATH, MIDAIR_NATIVE: addon },
    });
    expect(found.status).toBe(0);
  });
});

it('a pidfd is readable once its process has ended, and signals no other', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  const fd = native.pidfdOpen(child.pid as number);
  let readable = 0;
  const watcher = native.watch(fd, READABLE, () => {
    readable += 1;
    watcher.change(0);
  });
  try {
    native.pidfdSignal(fd, 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(readable).toBe(0);
    const exited = once(child, 'exit');
    native.pidfdSignal(fd, constants.signals.SIGKILL);
    expect(await exited).toEqual([null, 'SIGKILL']);
    await until('the pidfd is readable', () => readable === 1);
    expect(() => native.pidfdSignal(fd, constants.signals.SIGKILL)).toThrow(
      expect.objectContaining({ code: 'ESRCH' }),
    );
    expect(() => native.pidfdOpen(child.pid as number)).toThrow(expect.objectContaining({ code: 'ESRCH' }));
  } finally {
    watcher.close();
    native.close(fd);
    child.kill('SIGKILL');
  }
});
