import {setTimeout as sleep} from 'node:timers/promises';
import test from 'ava';
import {command} from '../sink/clickhouse.ts';
import {type Running, startPipeline} from '../test-support/start-pipeline.ts';
import {exitCode, type TableVerdict, verify} from './verify.ts';

const check = ({ch: client, settings}: Running, repair: boolean): Promise<TableVerdict[]> =>
  verify({client, settings, repair, timeoutMs: 60_000});

/** Runs a statement in ClickHouse; `{t}` stands for a target table. */
const inTarget = ({ch, settings}: Running, table: string, sql: string): Promise<void> =>
  command(ch, sql.replaceAll('{t}', `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__${table}`));

/** Writes current rows once more, with another version and other values. */
const plant = (world: Running, table: string, which: string, values: string): Promise<void> =>
  inTarget(
    world,
    table,
    `INSERT INTO {t} SELECT * REPLACE (${values}, _version + 1 AS _version) FROM (SELECT * FROM {t} FINAL WHERE ${which})`,
  );

/** Key columns by table, and the values of 60 keys, made of `i`. */
const KEYS: Readonly<Record<string, readonly [string, string]>> = {
  whole: ['k bigint', 'i * 1000000007::bigint'],
  texts: ['k text', `repeat(chr(8364) || '''"\\\\ ' || E'\\n\\t', i % 3) || i`],
  bytes: ['k bytea', `decode(lpad(to_hex(i), 4, '0'), 'hex')`],
  uuids: ['k uuid', `md5(i::text)::uuid`],
  times: ['k timestamptz', `timestamptz '1969-12-31 23:59:59.5Z' + i * interval '0.333333 s'`],
  floats: ['k float8', 'i / 3.0::float8'],
  fixed: ['k char(5)', `i::text`],
  // Looked up by its text: an enum's value is none for the index.
  moods: ['e mood, k int', `(ARRAY['sad', 'it''s'])[1 + i % 2]::mood, i`],
  several: ['"a ""b" smallint, k text, c bytea', `i % 4, 'k' || i, decode(lpad(to_hex(i), 2, '0'), 'hex')`],
};
const names = (columns: string): string =>
  columns
    .split(', ')
    .map(column => column.slice(0, column.lastIndexOf(' ')))
    .join(', ');
const DDL = `CREATE TYPE mood AS ENUM ('sad', 'it''s'); ${Object.entries(KEYS)
  .map(
    ([table, [columns, values]]) =>
      `CREATE TABLE ${table} (n int NOT NULL, ${columns}, v text, w jsonb, touched int DEFAULT 0, PRIMARY KEY (${names(columns)}));
     INSERT INTO ${table} SELECT i, ${values}, 'v' || i, jsonb_build_object('i', i) FROM generate_series(1, 60) i;`,
  )
  .join('')}`;

test('--repair: changed, missing, extra and wrongly deleted rows of odd keys are put right under traffic', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, query} = world;
  const tables = Object.keys(KEYS).sort();
  await world.caughtUp();
  await pg.query(tables.map(table => `DELETE FROM ${table} WHERE n = 5`).join(';'));
  await world.caughtUp();
  for (const table of tables) {
    await plant(
      world,
      table,
      'n < 4',
      `if(n < 3, 'wrong', v) AS v, if(n = 2, NULL, w) AS w, n = 3 AS _is_deleted`,
    );
    await inTarget(world, table, 'ALTER TABLE {t} DELETE WHERE n = 4 SETTINGS mutations_sync = 2');
    // It knows a deleted row's key alone.
    await inTarget(
      world,
      table,
      'INSERT INTO {t} SELECT * REPLACE (0 AS _is_deleted, _version + 1 AS _version) FROM (SELECT * FROM {t} WHERE _is_deleted = 1 AND n = 0)',
    );
  }
  let writing = true;
  const traffic = (async () => {
    for (let i = 0; writing; i++) {
      const table = tables[i % tables.length];
      await pg.query(`UPDATE ${table} SET touched = touched + 1 WHERE n = ${6 + (i % 55)}`);
      await sleep(3); // the others need the machine too
    }
  })();
  const repaired = await check(world, true).finally(async () => {
    writing = false;
    await traffic;
  });
  for (const {table, verdict, repair, differences, reason} of repaired) {
    const kinds = repair?.differences.map(({what, columns}) => [what, ...columns].join(' '));
    t.deepEqual(kinds?.sort(), ['changed v', 'changed v w', 'extra', 'missing', 'missing'], table);
    t.is(verdict, 'equal', `${table} ${reason} ${JSON.stringify(differences)}`);
    t.like(repair, {keys: 5, ahead: []}, table);
  }
  t.is(exitCode(repaired), 0);
  const several = repaired.find(({table}) => table === 'public.several')?.repair?.differences;
  t.deepEqual(
    several?.find(({columns}) => columns.length === 2),
    {
      key: '{"a \\"b":"2","k":"k2","c":"02"}',
      what: 'changed',
      columns: ['v', 'w'],
    },
  );
  await world.caughtUp();
  for (const table of tables) {
    const {rows} = await pg.query(`SELECT n, v, w::text AS w, touched FROM ${table} ORDER BY n`);
    t.deepEqual(await query(`SELECT n, v, w, touched FROM {an}.${table} ORDER BY n`), rows, table);
  }
  const slots = await pg.query(
    'SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND temporary',
  );
  t.deepEqual(slots.rows, []);
});

test('a range of keys that is missing, and one that should not be there, while rows are written', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL, v text);
     INSERT INTO big SELECT i * 3 - 50000, 0, 'v' || i FROM generate_series(1, 40000) i`,
  );
  await world.caughtUp();
  await inTarget(
    world,
    'big',
    'ALTER TABLE {t} DELETE WHERE id BETWEEN 1000 AND 40000 SETTINGS mutations_sync = 2',
  );
  await inTarget(
    world,
    'big',
    `INSERT INTO {t} (id, n, v, _version, _is_deleted) SELECT number + 1000000, 0, 'x', 1, 0 FROM numbers(7000)`,
  );
  await plant(world, 'big', 'id = -49997', `'y' AS v`);
  let writing = true;
  const traffic = (async () => {
    for (let i = 0; writing; i++) {
      // Also of the rows that are being repaired some change.
      await world.pg.query('UPDATE big SET n = n + 1 WHERE id % 500 = $1', [i % 50]);
      await world.pg.query('INSERT INTO big VALUES ($1, 0)', [500_000 + i]);
    }
  })();
  const [verdict] = await check(world, true).finally(async () => {
    writing = false;
    await traffic;
  });
  t.is(verdict?.verdict, 'equal', JSON.stringify(verdict?.differences));
  t.true((verdict?.repair?.keys ?? 0) > 15_000, `${verdict?.repair?.keys}`);
  t.is(verdict?.repair?.differences.length, 20);
  await world.caughtUp();
  const {rows} = await world.pg.query(
    'SELECT count(*)::int AS rows, sum(id)::text AS ids, sum(n)::int AS n FROM big',
  );
  t.deepEqual(
    await world.query(
      'SELECT toInt32(count()) AS rows, toString(sum(id)) AS ids, toInt32(sum(n)) AS n FROM {an}.big',
    ),
    rows,
  );
});

test('a version above all that PostgreSQL has written is said, with what to do', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, n int, v text); INSERT INTO a SELECT i, i, 'v' FROM generate_series(1, 9) i`,
  );
  await world.caughtUp();
  const far = (1n << 120n) + 5n;
  await inTarget(
    world,
    'a',
    `INSERT INTO {t} SELECT * REPLACE ('w' AS v, toUInt128('${far}') AS _version) FROM {t} FINAL WHERE n = 3`,
  );
  await plant(world, 'a', 'n = 4', `'w' AS v`);
  const verdicts = await check(world, true);
  t.is(exitCode(verdicts), 1);
  t.like(verdicts[0], {
    verdict: 'different',
    found: 1,
    differences: [{key: '{"id":"3"}', what: 'changed', columns: ['v']}],
    repair: {keys: 2, ahead: [{key: '{"id":"3"}', version: far}]},
  });
  await inTarget(
    world,
    'a',
    `ALTER TABLE {t} DELETE WHERE _version IN ('${far}') SETTINGS mutations_sync = 2`,
  );
  const again = await check(world, true);
  t.is(exitCode(again), 0);
});

test('a value ClickHouse cannot hold is repaired by the policy of all others', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, n int, d numeric(8,2)); INSERT INTO a VALUES (1, 1, 'NaN'), (2, 2, 2.5)`,
  );
  await world.caughtUp();
  await plant(world, 'a', 'n = 1', 'toDecimal64(7, 2) AS d');
  t.is(exitCode(await check(world, true)), 0);
  t.deepEqual(await world.query('SELECT id, d FROM {an}.a ORDER BY id'), [
    {id: 1, d: null},
    {id: 2, d: 2.5},
  ]);
  t.deepEqual(
    await world.query('SELECT count() > 1 AS told, any(column_name) AS column FROM {cdc}._rejects'),
    [{told: 1, column: 'd'}],
  );
});
