import {insertLinesSql, linesSql} from './world.ts';

/** Names a table as SQL reads it: PostgreSQL's own name, or what a target shows of it. */
export type Named = (table: string) => string;

/** One workload. Its SQL of `tail` and `whole` is read by both servers: all has arrived when they answer the same. */
export interface Workload {
  readonly name: string;
  /** For the report. */
  readonly about: string;
  /**
   * stream: a backlog that is caught up with; snapshot: tables that are there before; latency: changes at a rate, from
   * commit to visible.
   */
  readonly kind: 'stream' | 'snapshot' | 'latency';
  /** Changes at scale 1, or rows that are there before, or seconds. */
  readonly size: number;
  /** The tables, as they are before the system starts; `count` is the last change that will be written. */
  setup(count: number): string;
  /** Changes first…last. Each is run on its own: a block that commits cannot share a query. */
  write(first: number, last: number): readonly string[];
  readonly tables: readonly string[];
  /** Cheap, asked again and again: are the last changes there? It may say yes before all are. */
  tail(last: number, named: Named): string;
  /** Says it for all; asked when the tail is there. */
  whole(named: Named): string;
  /** Changes a second, for latency. */
  readonly rate?: number;
  /** Systems that it is for; all of its kind by default. */
  readonly systems?: readonly string[];
  /** How many sinks, where the system has several processes. */
  readonly sinks?: number;
}

/** Runs a statement for ranges lo…hi of so many changes, each in a transaction of its own. */
export const inTransactions = (first: number, last: number, per: number, statement: string): string => `
  DO $$ DECLARE hi bigint; BEGIN
    FOR lo IN ${first}..${last} BY ${per} LOOP
      hi := least(lo + ${per - 1}, ${last});
      ${statement};
      COMMIT;
    END LOOP;
  END $$`;

/** The newest rows: enough that each partition of a topic has some. */
const TAIL = 50;
const sums = (table: string, named: Named, columns: readonly string[], where = ''): string =>
  `SELECT count(*) AS n, ${columns.map(column => `coalesce(sum(${column}), 0) AS s_${column}`).join(', ')}
   FROM ${named(table)} ${where}`;
const newest = (last: number): string => `WHERE id > ${last - TAIL} AND id <= ${last}`;

export type Shape = Pick<Workload, 'setup' | 'tables' | 'tail' | 'whole'>;

export const LINES: Shape = {
  setup: () => linesSql(0),
  tables: ['lines'],
  tail: (last, named) => sums('lines', named, ['id', 'quantity'], newest(last)),
  whole: named => sums('lines', named, ['id', 'order_id', 'quantity']),
};

export const inserts = (per: number): Pick<Workload, 'write'> => ({
  write: (first, last) => [inTransactions(first, last, per, insertLinesSql('lo', 'hi'))],
});

const WIDE_TYPES: readonly (readonly [string, (column: number) => string])[] = [
  ['int', column => `(i + ${column}) % 1000`],
  ['text', column => `'value ' || (i % 100000 + ${column})`],
  ['numeric(12,2)', column => `(i % 1000000 + ${column}) / 100.0`],
  ['timestamptz', column => `timestamptz '2024-01-01 00:00Z' + (i + ${column}) * interval '1.7 s'`],
  ['bigint', column => `i * ${column}`],
  ['boolean', column => `(i + ${column}) % 3 = 0`],
];
/** A table with so many columns; the first, `id`, is its key. */
export const wide = (columns: number): Shape & {insert(first: string, last: string): string} => {
  const others = Array.from({length: columns - 1}, (_, at) => {
    const [type, value] = WIDE_TYPES[at % WIDE_TYPES.length]!;
    return {name: `c${at + 1}`, type, value: value(at + 1)};
  });
  return {
    setup: () =>
      `CREATE TABLE wide (id bigint PRIMARY KEY, ${others.map(({name, type}) => `${name} ${type} NOT NULL`).join(', ')})`,
    insert: (first, last) =>
      `INSERT INTO wide SELECT i, ${others.map(({value}) => value).join(', ')} FROM generate_series(${first}::bigint, ${last}) i`,
    tables: ['wide'],
    tail: (last, named) => sums('wide', named, ['id', 'c1'], newest(last)),
    whole: named => sums('wide', named, ['id', 'c1', 'c5']),
  };
};
export const wideInserts = (columns: number): Shape & Pick<Workload, 'write'> => {
  const {insert, ...shape} = wide(columns);
  return {
    ...shape,
    write: (first, last) => [inTransactions(first, last, 100, insert('lo', 'hi'))],
  };
};

/** Rows of about so many bytes. PostgreSQL stores them uncompressed, so that making them costs little. */
export const documents = (bytes: number): Shape & Pick<Workload, 'write'> => ({
  setup: () => `CREATE TABLE documents (id bigint PRIMARY KEY, kind int NOT NULL, body text NOT NULL);
    ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL`,
  write: (first, last) => [
    inTransactions(
      first,
      last,
      10,
      `INSERT INTO documents SELECT i, i % 10, repeat(md5(i::text) || md5((-i)::text), ${Math.round(bytes / 64)})
       FROM generate_series(lo::bigint, hi) i`,
    ),
  ],
  tables: ['documents'],
  tail: (last, named) => sums('documents', named, ['id', 'kind'], newest(last)),
  whole: named => sums('documents', named, ['id', 'kind']),
});

const [ACCOUNTS, TELLERS, BRANCHES] = [20_000, 100, 10];
/** Of four changes three are updates of ever the same rows, one is a new row, as in TPC-B. */
export const TPCB: Shape & Pick<Workload, 'write'> = {
  setup: () => `
    CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE tellers (id int PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL);
    CREATE TABLE accounts (id int PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL, filler text NOT NULL);
    CREATE TABLE history (id bigint PRIMARY KEY, teller int NOT NULL, branch int NOT NULL, account int NOT NULL,
      delta bigint NOT NULL, at timestamptz NOT NULL);
    INSERT INTO branches SELECT i, 0 FROM generate_series(1, ${BRANCHES}) i;
    INSERT INTO tellers SELECT i, i % ${BRANCHES} + 1, 0 FROM generate_series(1, ${TELLERS}) i;
    INSERT INTO accounts SELECT i, i % ${BRANCHES} + 1, 0, repeat('x', 84) FROM generate_series(1, ${ACCOUNTS}) i`,
  write: (first, last) => [
    inTransactions(
      first,
      last,
      4,
      `UPDATE accounts SET balance = balance + lo % 199 WHERE id = 1 + lo::bigint * 7919 % ${ACCOUNTS};
       UPDATE tellers SET balance = balance + lo % 199 WHERE id = 1 + lo / 4 % ${TELLERS};
       UPDATE branches SET balance = balance + lo % 199 WHERE id = 1 + lo / 4 % ${BRANCHES};
       INSERT INTO history VALUES (lo, 1 + lo / 4 % ${TELLERS}, 1 + lo / 4 % ${BRANCHES},
         1 + lo::bigint * 7919 % ${ACCOUNTS}, lo % 199, clock_timestamp())`,
    ),
  ],
  tables: ['branches', 'tellers', 'accounts', 'history'],
  tail: (last, named) => sums('history', named, ['id', 'delta'], newest(last)),
  whole: named =>
    `SELECT b.total AS branches, t.total AS tellers, a.total AS accounts, h.n AS n, h.total AS history
     FROM (SELECT sum(balance) AS total FROM ${named('branches')}) AS b
     CROSS JOIN (SELECT sum(balance) AS total FROM ${named('tellers')}) AS t
     CROSS JOIN (SELECT sum(balance) AS total FROM ${named('accounts')}) AS a
     CROSS JOIN (SELECT count(*) AS n, coalesce(sum(delta), 0) AS total FROM ${named('history')}) AS h`,
};

/** The same rows over more or fewer tables, a transaction of ten rows to each in turn. */
export const spread = (count: number): Shape & Pick<Workload, 'write'> => {
  const tables = Array.from({length: count}, (_, i) => `small_${i}`);
  const all = (named: Named, some: readonly string[], where = ''): string =>
    `SELECT count(*) AS n, coalesce(sum(id), 0) AS ids
     FROM (${some.map(table => `SELECT id FROM ${named(table)} ${where}`).join(' UNION ALL ')}) AS small`;
  return {
    setup: () =>
      tables
        .map(
          table =>
            `CREATE TABLE ${table} (id bigint PRIMARY KEY, n int NOT NULL, note text NOT NULL, at timestamptz NOT NULL)`,
        )
        .join(';'),
    write: (first, last) => [
      inTransactions(
        first,
        last,
        10,
        `EXECUTE format('INSERT INTO small_%s SELECT i, i %% 1000, md5(i::text), now() FROM generate_series($1::bigint, $2) i',
           lo / 10 % ${count}) USING lo, hi`,
      ),
    ],
    tables,
    tail: (last, named) =>
      all(
        named,
        [0, 1, 2, 3].map(back => `small_${Math.max(0, Math.floor(last / 10) - back) % count}`),
        newest(last),
      ),
    whole: named => all(named, tables),
  };
};
