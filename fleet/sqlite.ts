/**
 * The store in one SQLite file.
 *
 * Invariant: WAL with synchronous=FULL, so a returned call survives the loss of power; the schema is what
 * `user_version` migrations made of it; one process holds the file at a time.
 */
import { randomBytes } from 'node:crypto';
import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import * as v from 'valibot';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import {
  type Current,
  currentSchema,
  type DeltaOffer,
  type DeviceEvent,
  deltaSchema,
  type Presence,
  type Release,
  targetSchema,
} from '#fleet/protocol.ts';
import type { DeviceRecord, EventRecord, LayerRecord, Store, Taken, TargetRecord } from '#fleet/store.ts';

/** Step n brings the schema from `user_version` n to n + 1. Only ever appended to. */
const MIGRATIONS = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE layers (diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, blob TEXT NOT NULL,
     blob_bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE releases (seq INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, number INTEGER NOT NULL,
     id TEXT NOT NULL, accepted INTEGER NOT NULL, json TEXT NOT NULL, UNIQUE (app, number), UNIQUE (app, id)) STRICT;
   CREATE TABLE release_images (image TEXT NOT NULL, release INTEGER NOT NULL REFERENCES releases (seq)
     ON DELETE CASCADE, PRIMARY KEY (image, release)) STRICT, WITHOUT ROWID;
   CREATE TABLE targets (generation INTEGER PRIMARY KEY AUTOINCREMENT, release INTEGER NOT NULL
     REFERENCES releases (seq), at_ms INTEGER NOT NULL) STRICT;
   CREATE TABLE devices (name TEXT PRIMARY KEY, session TEXT NOT NULL, online INTEGER NOT NULL,
     seen_at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE boots (seq INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, boot_id TEXT NOT NULL,
     UNIQUE (device, boot_id)) STRICT;
   CREATE TABLE currents (device TEXT PRIMARY KEY, boot_id TEXT NOT NULL, sequence INTEGER NOT NULL,
     received_at_ms INTEGER NOT NULL, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, key TEXT NOT NULL,
     at_ms INTEGER NOT NULL, received_at_ms INTEGER NOT NULL, type TEXT NOT NULL, text TEXT NOT NULL,
     data TEXT NOT NULL, UNIQUE (device, key)) STRICT;
   CREATE INDEX events_by_device ON events (device, id);`,
  `CREATE TABLE deltas (image TEXT NOT NULL, basis TEXT NOT NULL, json TEXT NOT NULL,
     PRIMARY KEY (image, basis)) STRICT, WITHOUT ROWID;`,
];

const releaseSchema = v.unwrap(targetSchema.entries.release);
const releaseOf = (row: Row): Release => v.parse(releaseSchema, JSON.parse(String(row.json)));

type Row = Record<string, SQLOutputValue>;
type Value = string | number | null;

const deviceOf = (row: Row): DeviceRecord => ({
  name: String(row.name),
  online: row.online === 1,
  session: String(row.session),
  seenAtMs: Number(row.seen_at_ms),
  current: row.json === null ? null : v.parse(currentSchema, JSON.parse(String(row.json))),
  currentAtMs: row.json === null ? null : Number(row.received_at_ms),
});

/**
 * Opens (or makes) the store in `path`; synchronous, as node:sqlite is: every call takes about one fsync.
 *
 * @throws FleetError `HUB_RUNNING` another process has it; `STORE_NEWER` a newer Midair wrote it
 */
export function openSqliteStore(path: string): Store {
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    // Exclusive before WAL: no second hub on this directory, and the lock dies with the process.
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    database.exec('PRAGMA foreign_keys = ON; BEGIN EXCLUSIVE; COMMIT');
    migrate(database);
  } catch (error) {
    database.close();
    if (error instanceof Error && /locked|busy/i.test(error.message)) {
      throw new FleetError(
        'HUB_RUNNING',
        `another hub is using ${path}`,
        'stop it first, or give this hub a directory of its own with --dir',
        error,
      );
    }
    throw error;
  }
  return new SqliteStore(database);
}

function migrate(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.user_version);
  if (version > MIGRATIONS.length) {
    throw new FleetError(
      'STORE_NEWER',
      `the hub's store has schema ${version}, this Midair knows ${MIGRATIONS.length}`,
      'run the newer Midair that wrote it, or give the hub another directory',
    );
  }
  MIGRATIONS.slice(version).forEach((step, index) => {
    database.exec(`BEGIN IMMEDIATE; ${step} PRAGMA user_version = ${version + index + 1}; COMMIT`);
  });
}

class SqliteStore implements Store {
  readonly hubId: string;
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#run(`INSERT OR IGNORE INTO meta VALUES ('hub', ?)`, randomBytes(6).toString('hex'));
    this.hubId = String(this.#one(`SELECT value FROM meta WHERE key = 'hub'`)?.value);
  }

  layer(diffId: string): LayerRecord | undefined {
    const row = this.#one('SELECT * FROM layers WHERE diff_id = ?', diffId);
    if (!row) return undefined;
    const blob = { digest: String(row.blob), bytes: Number(row.blob_bytes) };
    return { diffId, bytes: Number(row.bytes), blob };
  }

  putLayer(layer: LayerRecord): void {
    const { diffId, bytes, blob } = layer;
    this.#run('INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?)', diffId, bytes, blob.digest, blob.bytes);
  }

  nextReleaseId(app: string): string {
    const row = this.#one('SELECT coalesce(max(number), 0) + 1 AS next FROM releases WHERE app = ?', app);
    return `v${Number(row?.next)}`;
  }

  putPending(release: Release): void {
    this.#transaction(() => {
      const { lastInsertRowid } = this.#run(
        'INSERT INTO releases (app, number, id, accepted, json) VALUES (?, ?, ?, 0, ?)',
        release.app,
        Number(release.id.slice(1)),
        release.id,
        JSON.stringify(release),
      );
      for (const { image } of Object.values(release.services)) {
        this.#run('INSERT OR IGNORE INTO release_images VALUES (?, ?)', image.id, Number(lastInsertRowid));
      }
    });
  }

  pending(app: string): Release[] {
    return this.#all('SELECT json FROM releases WHERE app = ? AND accepted = 0 ORDER BY seq', app).map(
      releaseOf,
    );
  }

  dropPending(app: string, id: string): void {
    this.#run('DELETE FROM releases WHERE app = ? AND id = ? AND accepted = 0', app, id);
  }

  acceptPending(app: string, id: string, atMs: number): TargetRecord {
    return this.#transaction(() => {
      this.#run('UPDATE releases SET accepted = 1 WHERE app = ? AND id = ?', app, id);
      return this.#insertTarget(app, id, atMs);
    });
  }

  releases(limit: number): Release[] {
    return this.#all('SELECT json FROM releases WHERE accepted = 1 ORDER BY seq DESC LIMIT ?', limit).map(
      releaseOf,
    );
  }

  release(app: string, id: string): Release | undefined {
    const row = this.#one('SELECT json FROM releases WHERE app = ? AND id = ? AND accepted = 1', app, id);
    return row && releaseOf(row);
  }

  releasesNamed(id: string): Release[] {
    return this.#all('SELECT json FROM releases WHERE id = ? AND accepted = 1 ORDER BY seq', id).map(
      releaseOf,
    );
  }

  releaseOfImage(imageId: string): Release | undefined {
    const row = this.#one(
      `SELECT json FROM releases JOIN release_images ON release = seq
       WHERE image = ? AND accepted = 1 ORDER BY seq DESC LIMIT 1`,
      imageId,
    );
    return row && releaseOf(row);
  }

  latestRelease(app: string): Release | undefined {
    const row = this.#one(
      'SELECT json FROM releases WHERE app = ? AND accepted = 1 ORDER BY seq DESC LIMIT 1',
      app,
    );
    return row && releaseOf(row);
  }

  deltas(imageId: string): DeltaOffer[] {
    return this.#all('SELECT json FROM deltas WHERE image = ? ORDER BY basis', imageId).map((row) =>
      v.parse(deltaSchema, JSON.parse(String(row.json))),
    );
  }

  putDelta(imageId: string, delta: DeltaOffer): void {
    this.#run('INSERT OR REPLACE INTO deltas VALUES (?, ?, ?)', imageId, delta.basis, JSON.stringify(delta));
  }

  target(): TargetRecord {
    const row = this.#one(
      `SELECT generation, at_ms, json FROM targets JOIN releases ON release = seq
       ORDER BY generation DESC LIMIT 1`,
    );
    if (!row) return { generation: 0, release: null, changedAtMs: 0 };
    return {
      generation: Number(row.generation),
      release: releaseOf(row),
      changedAtMs: Number(row.at_ms),
    };
  }

  setTarget(app: string, id: string, atMs: number): TargetRecord {
    return this.#transaction(() => this.#insertTarget(app, id, atMs));
  }

  #insertTarget(app: string, id: string, atMs: number): TargetRecord {
    const { changes } = this.#run(
      'INSERT INTO targets (release, at_ms) SELECT seq, ? FROM releases WHERE app = ? AND id = ? AND accepted = 1',
      atMs,
      app,
      id,
    );
    if (Number(changes) !== 1) throw new Error(`no release ${app} ${id} to set as the target`);
    return this.target();
  }

  seen(device: string, atMs: number): boolean {
    const { changes } = this.#run('UPDATE devices SET seen_at_ms = ? WHERE name = ?', atMs, device);
    if (Number(changes) === 1) return true;
    const count = Number(this.#one('SELECT count(*) AS count FROM devices')?.count);
    if (count >= LIMITS.devicesMax) return false;
    this.#run(`INSERT INTO devices VALUES (?, '', 0, ?)`, device, atMs);
    return true;
  }

  presence(presence: Presence, atMs: number): Taken {
    const { device, session, online } = presence;
    if (online) {
      this.#run(
        `INSERT INTO devices VALUES (?, ?, 1, ?)
         ON CONFLICT DO UPDATE SET session = excluded.session, online = 1, seen_at_ms = excluded.seen_at_ms`,
        device,
        session,
        atMs,
      );
      return 'new';
    }
    // The will of a session that a newer birth has replaced says nothing about the newer one.
    const { changes } = this.#run(
      'UPDATE devices SET online = 0 WHERE name = ? AND session = ?',
      device,
      session,
    );
    return Number(changes) === 1 ? 'new' : 'stale';
  }

  allOffline(): void {
    this.#run('UPDATE devices SET online = 0 WHERE online = 1');
  }

  current(current: Current, atMs: number): Taken {
    return this.#transaction(() => {
      const { device, bootId, sequence } = current;
      this.#run('INSERT OR IGNORE INTO boots (device, boot_id) VALUES (?, ?)', device, bootId);
      const newest = this.#one(
        'SELECT boot_id FROM boots WHERE device = ? ORDER BY seq DESC LIMIT 1',
        device,
      );
      if (newest?.boot_id !== bootId) return 'stale';
      const { changes } = this.#run(
        `INSERT INTO currents VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
         SET boot_id = excluded.boot_id, sequence = excluded.sequence, received_at_ms = excluded.received_at_ms,
           json = excluded.json
         WHERE boot_id <> excluded.boot_id OR sequence < excluded.sequence`,
        device,
        bootId,
        sequence,
        atMs,
        JSON.stringify(current),
      );
      this.#run(
        `DELETE FROM boots WHERE device = ? AND seq NOT IN
           (SELECT seq FROM boots WHERE device = ? ORDER BY seq DESC LIMIT ${LIMITS.bootsPerDeviceMax})`,
        device,
        device,
      );
      return Number(changes) === 1 ? 'new' : 'stale';
    });
  }

  event(event: DeviceEvent, atMs: number): Taken {
    return this.#transaction(() => {
      const { changes } = this.#run(
        `INSERT OR IGNORE INTO events (device, key, at_ms, received_at_ms, type, text, data)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
        event.device,
        event.key,
        event.atMs,
        atMs,
        event.type,
        event.text,
        JSON.stringify(event.data),
      );
      if (Number(changes) !== 1) return 'stale';
      this.#run(
        `DELETE FROM events WHERE device = ? AND id <=
           (SELECT id FROM events WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ${LIMITS.eventsPerDeviceMax})`,
        event.device,
        event.device,
      );
      return 'new';
    });
  }

  devices(): DeviceRecord[] {
    const rows = this.#all(
      'SELECT * FROM devices LEFT JOIN currents ON device = name ORDER BY name LIMIT ?',
      LIMITS.devicesMax,
    );
    return rows.map(deviceOf);
  }

  device(name: string): DeviceRecord | undefined {
    const row = this.#one('SELECT * FROM devices LEFT JOIN currents ON device = name WHERE name = ?', name);
    return row && deviceOf(row);
  }

  events(query: { device?: string; afterId?: number; limit: number }): EventRecord[] {
    // Without `after`, the newest ones; with it, the next ones. Oldest first either way.
    const order = query.afterId === undefined ? 'DESC' : 'ASC';
    const rows = this.#all(
      `SELECT * FROM events WHERE (?1 IS NULL OR device = ?1) AND id > ?2 ORDER BY id ${order} LIMIT ?3`,
      query.device ?? null,
      query.afterId ?? 0,
      query.limit,
    );
    const events = rows.map((row) => ({
      id: Number(row.id),
      device: String(row.device),
      key: String(row.key),
      atMs: Number(row.at_ms),
      receivedAtMs: Number(row.received_at_ms),
      type: String(row.type),
      text: String(row.text),
      data: JSON.parse(String(row.data)) as Record<string, unknown>,
    }));
    return order === 'DESC' ? events.reverse() : events;
  }

  close(): void {
    this.#database.close();
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #run(sql: string, ...values: Value[]) {
    return this.#prepare(sql).run(...values);
  }

  #one(sql: string, ...values: Value[]): Row | undefined {
    return this.#prepare(sql).get(...values);
  }

  #all(sql: string, ...values: Value[]): Row[] {
    return this.#prepare(sql).all(...values);
  }

  #transaction<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw error;
    }
  }
}
