import {setTimeout as sleep} from 'node:timers/promises';
import pg from 'pg';
import type {Random} from '../../scripts/shop/random.ts';

/** Tables of a run, with rows for the first snapshot. `docs` has large values that updates leave alone. */
export const TABLES_SQL = `
  CREATE TABLE accounts (id int PRIMARY KEY, name text NOT NULL, balance numeric(14,2) NOT NULL, changed timestamptz);
  CREATE TABLE docs (id bigint PRIMARY KEY, title text, body text, extra jsonb);
  ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE lines (order_id int, line int, qty int NOT NULL, note varchar(60), PRIMARY KEY (order_id, line));
  CREATE TABLE scratch (id int PRIMARY KEY, v text);
  INSERT INTO accounts SELECT n, 'name ' || n, n * 1.01, '2024-01-01'::timestamptz + n * interval '1 min' FROM generate_series(1, 2500) n;
  INSERT INTO docs SELECT n, 'title ' || n, (SELECT string_agg(md5((n * 1000 + k)::text), '') FROM generate_series(1, 160) k), jsonb_build_object('n', n)
    FROM generate_series(1, 150) n;
  INSERT INTO lines SELECT n / 5, n % 5, n, 'note ' || n FROM generate_series(1, 2500) n;
  INSERT INTO scratch SELECT n, md5(n::text) FROM generate_series(1, 200) n;
  ANALYZE`;

/** Key numbers that no row has had yet begin here. */
const FRESH = 100_000;
const body = (salt: number, pieces: number): string =>
  `(SELECT string_agg(md5((${salt} + k)::text), '') FROM generate_series(1, ${pieces}) k)`;

/** Kinds of transactions; `n` is a number no row has, `r` a number some row may have. */
const CHANGES: readonly (readonly [weight: number, sql: (n: number, r: number, random: Random) => string])[] =
  [
    [6, n => `INSERT INTO accounts SELECT i, 'new ' || i, i, now() FROM generate_series(${n}, ${n + 9}) i`],
    [6, (_, r) => `UPDATE accounts SET balance = balance + 1.5, changed = now() WHERE id % 97 = ${r % 97}`],
    [3, (_, r) => `DELETE FROM accounts WHERE id % 211 = ${r % 211}`],
    [3, (n, r) => `UPDATE accounts SET id = ${n} WHERE id = (SELECT min(id) FROM accounts WHERE id > ${r})`],
    [4, n => `INSERT INTO docs VALUES (${n}, 'doc ${n}', ${body(n, 120)}, '{"a": [1, null]}')`],
    [5, (n, r) => `UPDATE docs SET title = 'title ${n}' WHERE id % 13 = ${r % 13}`],
    [2, (n, r) => `UPDATE docs SET body = ${body(n, 130)} WHERE id % 53 = ${r % 53}`],
    [
      3,
      (n, r) =>
        `UPDATE docs SET id = ${n}, title = 'moved' WHERE id = (SELECT min(id) FROM docs WHERE id > ${r % 150})`,
    ],
    [2, (_, r) => `DELETE FROM docs WHERE id % 101 = ${r % 101}`],
    [4, (n, r) => `INSERT INTO lines SELECT ${n}, i, ${r}, 'line' FROM generate_series(1, 8) i`],
    [3, (n, r) => `UPDATE lines SET order_id = ${n}, note = NULL WHERE order_id = ${r % 500}`],
    [2, (_, r) => `DELETE FROM lines WHERE order_id % 61 = ${r % 61}`],
    [2, n => `INSERT INTO scratch SELECT i, 'v' FROM generate_series(${n}, ${n + 20}) i`],
    [1, () => 'TRUNCATE scratch'],
    [
      2,
      (n, r) =>
        `BEGIN; INSERT INTO accounts VALUES (${n}, 'both', 1, NULL); DELETE FROM accounts WHERE id = ${n};
       INSERT INTO accounts VALUES (${n}, 'again', 2, now()); UPDATE docs SET extra = '[${r}]' WHERE id % 31 = ${r % 31}; COMMIT`,
    ],
  ];

/** Schema changes: in place, read again, a new table, a dropped one. `n` is their number. */
const SCHEMA_CHANGES: readonly ((n: number) => string)[] = [
  n => `ALTER TABLE accounts ADD COLUMN added_${n} int DEFAULT ${n}`,
  n =>
    `CREATE TABLE made_${n} (id int PRIMARY KEY, v text); INSERT INTO made_${n} SELECT i, 'x' FROM generate_series(1, 50) i`,
  n => `ALTER TABLE lines ALTER note TYPE varchar(${60 + n})`,
  n =>
    `ALTER TABLE docs RENAME COLUMN title TO title_${n}; ALTER TABLE docs RENAME COLUMN title_${n} TO title`,
  n => `ALTER TABLE scratch ALTER v TYPE ${n % 2 === 0 ? 'varchar(80)' : 'text'}`,
  n => `ALTER TABLE lines ALTER qty TYPE ${n % 2 === 0 ? 'bigint' : 'int'}`,
  n =>
    `ALTER TABLE accounts ADD COLUMN gone_${n} text DEFAULT 'g'; ALTER TABLE accounts DROP COLUMN gone_${n}`,
  n =>
    `CREATE TABLE IF NOT EXISTS passing (id int PRIMARY KEY); INSERT INTO passing VALUES (${n}); DROP TABLE passing`,
];

const PAUSE_MS = 15;
/** SQLSTATE classes of an outage: the statement may or may not have been done, and rows are compared in the end. */
const OUTAGE = /^(57P|08|53|40P01|55P03)|ECONN|EPIPE/;

/** Writes to PostgreSQL until it is stopped, by its own connection, which is made again when it breaks. */
export class Workload {
  readonly #url: string;
  readonly #random: Random;
  readonly #over = new AbortController();
  #client: pg.Client | undefined;
  #fresh = FRESH;
  #schemaChanges = 0;
  #running: Promise<void> | undefined;
  /** One statement at a time: a schema change waits for the rows before it. */
  #last: Promise<void> = Promise.resolve();
  /** Changes that were made. */
  done = 0;

  constructor(url: string, random: Random) {
    this.#url = url;
    this.#random = random;
  }

  start(): void {
    this.#running = this.#loop();
    this.#running.catch(() => {}); // thrown by `stop`
  }

  async #loop(): Promise<void> {
    while (!this.#over.signal.aborted) {
      await this.change();
      await sleep(this.#random.between(1, 2 * PAUSE_MS));
    }
  }

  change(): Promise<void> {
    const [, sql] = CHANGES[this.#random.weighted(CHANGES.map(([weight]) => weight))]!;
    this.#fresh += 50;
    return this.run(sql(this.#fresh, this.#random.between(1, 2500), this.#random));
  }

  /** Each kind in turn, from a seeded one. */
  async schemaChange(first: number): Promise<void> {
    const number = ++this.#schemaChanges;
    await this.run(SCHEMA_CHANGES[(first + number) % SCHEMA_CHANGES.length]!(number));
  }

  /** A statement of the caller's own. */
  run(sql: string): Promise<void> {
    const done = this.#last.then(() => this.#run(sql));
    this.#last = done.catch(() => {});
    return done;
  }

  async #run(sql: string): Promise<void> {
    try {
      this.#client ??= await connect(this.#url);
      await this.#client.query(sql);
      this.done += 1;
    } catch (error) {
      const {code = '', message = ''} = error as {code?: string; message?: string};
      if (!OUTAGE.test(code) && !/terminated|not queryable|timeout/i.test(message)) throw error;
      await this.#client?.end().catch(() => {});
      this.#client = undefined;
      await sleep(100);
    }
  }

  /** Rejects where a statement failed for another reason than an outage. */
  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
    await this.#last;
    await this.#client?.end().catch(() => {});
    this.#client = undefined;
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({connectionString: url, connectionTimeoutMillis: 10_000});
  client.on('error', () => {});
  await client.connect();
  await client.query("SET lock_timeout = '20s'");
  return client;
}
