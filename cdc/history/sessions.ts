import {Readable} from 'node:stream';
import {buffer} from 'node:stream/consumers';
import {pipeline} from 'node:stream/promises';
import pg from 'pg';
import {from as copyFrom, to as copyTo} from 'pg-copy-streams';
import {readTables, type Table} from './catalog.ts';

const SESSIONS = 3;
/** A statement that waits for a lock waits for a session that does nothing meanwhile: steps come one by one. */
const LOCK_MS = 15;
/** What takes a table whole waits for readers, such as a snapshot's, where no other session is in a transaction. */
const PATIENT_LOCK_MS = 3_000;

interface Session {
  readonly client: pg.Client;
  open: boolean;
  savepoints: number;
  changed: boolean;
  tables: {epoch: number; list: Table[]} | undefined;
}

export interface Counts {
  /** Statements that changed rows, or would have. */
  operations: number;
  schemaChanges: number;
  errors: number;
}

/** The sessions that a history's statements come from, and the record of what they did. */
export class Sessions {
  readonly lines: string[] = [];
  readonly counts: Counts = {operations: 0, schemaChanges: 0, errors: 0};
  readonly #sessions: Session[] = [];
  /** Rises with everything that may change tables. */
  #epoch = 0;
  #fresh = 1_000;

  static async open(url: string): Promise<Sessions> {
    const sessions = new Sessions();
    for (let i = 0; i < SESSIONS; i++) {
      const client = new pg.Client({connectionString: url, application_name: `history session ${i}`});
      client.on('error', () => {});
      await client.connect();
      await client.query(
        `SET lock_timeout = ${LOCK_MS}; SET statement_timeout = 20000; SET client_min_messages = error`,
      );
      sessions.#sessions.push({
        client,
        open: false,
        savepoints: 0,
        changed: false,
        tables: undefined,
      });
    }
    return sessions;
  }

  get anyOpen(): boolean {
    return this.#sessions.some(({open}) => open);
  }
  isOpen(session: number): boolean {
    return this.#sessions[session]!.open;
  }
  /** Numbers that were not given yet, in a row; the first of them. */
  fresh(count: number): number {
    this.#fresh += count;
    return this.#fresh - count;
  }
  note(line: string): void {
    this.lines.push(line);
  }

  /** The tables as the session sees them. */
  async tables(session: number): Promise<readonly Table[]> {
    const own = this.#sessions[session]!;
    if (own.tables?.epoch !== this.#epoch) {
      own.tables = {epoch: this.#epoch, list: await readTables(own.client)};
    }
    return own.tables.list;
  }

  async read(session: number, sql: string): Promise<string[]> {
    try {
      const {rows} = await this.#sessions[session]!.client.query<[string]>({text: sql, rowMode: 'array'});
      return rows.map(([value]) => value);
    } catch (error) {
      await this.#failed(session, sql, error);
      return [];
    }
  }

  /** Begins or ends a transaction, or part of it; nothing where that is not possible now. */
  async control(session: number, does: string): Promise<void> {
    const own = this.#sessions[session]!;
    switch (does) {
      case 'begin':
        if (!own.open) await this.#run(session, 'BEGIN');
        own.open = true;
        return;
      case 'savepoint':
        if (own.open) await this.#run(session, `SAVEPOINT s${++own.savepoints}`);
        return;
      case 'release':
        if (own.savepoints > 0) await this.#run(session, `RELEASE s${own.savepoints--}`);
        return;
      case 'rollback to':
        if (own.savepoints > 0) await this.#rollbackTo(session);
        return;
      case 'commit':
      case 'rollback':
        if (own.open) await this.#end(session, does === 'commit' ? 'COMMIT' : 'ROLLBACK');
        return;
      default:
        throw new Error(`no such step: ${does}`);
    }
  }

  /** Ends what is open in the other sessions. */
  async commitOthers(session: number): Promise<void> {
    for (const other of this.#sessions.keys()) if (other !== session) await this.control(other, 'commit');
  }
  async commitAll(): Promise<void> {
    for (const session of this.#sessions.keys()) await this.control(session, 'commit');
  }

  /**
   * Runs statements, more than one of them in a transaction. An error takes back to the newest savepoint, or all of
   * the transaction, as an application would; the history goes on.
   */
  async execute(session: number, statements: readonly string[], kind: 'rows' | 'schema'): Promise<void> {
    const own = this.#sessions[session]!;
    const wrap = statements.length > 1 && !own.open;
    if (wrap) await this.control(session, 'begin');
    if (kind === 'schema') own.changed = true;
    const patient =
      (kind === 'schema' || statements.some(sql => sql.startsWith('TRUNCATE'))) &&
      !this.#sessions.some((other, i) => i !== session && other.open);
    if (patient) await own.client.query(`SET lock_timeout = ${PATIENT_LOCK_MS}`);
    for (const sql of statements) {
      if (kind === 'rows') this.counts.operations += 1;
      if (!(await this.#run(session, sql))) break;
      if (kind === 'schema') this.#epoch += 1;
    }
    if (patient) await own.client.query(`SET lock_timeout = ${LOCK_MS}`);
    if (kind === 'schema') this.counts.schemaChanges += 1;
    if (wrap) await this.control(session, 'commit'); // nothing is open after an error
  }

  async close(): Promise<void> {
    for (const {client} of this.#sessions) await client.end().catch(() => {});
  }

  async #run(session: number, sql: string): Promise<boolean> {
    const {client} = this.#sessions[session]!;
    try {
      const count = sql.startsWith('COPY ') ? await copy(client, sql) : (await client.query(sql)).rowCount;
      this.note(`${session}: ${sql};${typeof count === 'number' ? ` -- ${count}` : ''}`);
      return true;
    } catch (error) {
      await this.#failed(session, sql, error);
      return false;
    }
  }

  async #failed(session: number, sql: string, error: unknown): Promise<void> {
    const {code, message} = error as {code?: string; message: string};
    // Anything but an answer of the server (a lost connection) is no part of a history.
    if (code === undefined) throw error;
    this.counts.errors += 1;
    this.note(`${session}: ${sql}; -- ERROR ${code} ${message}`);
    const own = this.#sessions[session]!;
    if (own.savepoints > 0) await this.#rollbackTo(session);
    else if (own.open) await this.#end(session, 'ROLLBACK');
  }

  async #rollbackTo(session: number): Promise<void> {
    const own = this.#sessions[session]!;
    if (own.changed) this.#epoch += 1;
    await this.#run(session, `ROLLBACK TO s${own.savepoints}`);
  }

  async #end(session: number, sql: string): Promise<void> {
    const own = this.#sessions[session]!;
    await this.#run(session, sql);
    if (own.changed) this.#epoch += 1;
    Object.assign(own, {open: false, savepoints: 0, changed: false});
  }
}

/** `COPY t (c) FROM STDIN -- SELECT …`: the rows of the query, as a client would send them. */
async function copy(client: pg.Client, sql: string): Promise<number> {
  const [into, query] = sql.split(' -- ', 2);
  const data = await buffer(client.query(copyTo(`COPY (${query}) TO STDOUT`)));
  const target = client.query(copyFrom(into!));
  await pipeline(Readable.from([data]), target);
  return target.rowCount;
}
