import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {targetTable} from '../sink/target.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {planTables} from '../source/tables.ts';
import {testedVersion} from '../test-support/server-version.ts';
import {type Running, startPipeline} from '../test-support/start-pipeline.ts';
import {
  arrays,
  createTable,
  insertRows,
  ODD_ARRAYS,
  scalars,
  TYPES_SQL,
  typesUnderTest,
} from '../types/testing/every-type.ts';
import {keyHashes, sourceTable} from './checksum.ts';
import {divide} from './pieces.ts';
import {exitCode, type TableVerdict, verify} from './verify.ts';

const check = ({ch: client, settings}: Running, timeoutMs = 20_000): Promise<TableVerdict[]> =>
  verify({client, settings, timeoutMs});

const SHOP = `
  CREATE TABLE "Odd ""na\`me's.\\n ü" ("k 1" text COLLATE "C", e int, "o""\`'\\," numeric(12,3), u timestamptz, PRIMARY KEY (e, "k 1"));
  INSERT INTO "Odd ""na\`me's.\\n ü" SELECT 'k' || i, i % 7, i / 1000.0, now() - i * interval '1 hour' FROM generate_series(1, 3000) i;
  CREATE TABLE plain (id int PRIMARY KEY, v int)`;
const ODD = '{cdc}.`public__Odd "na\\`me\'s.\\\\n ü`';

test('every type, NULLs, arrays and odd names are equal', async t => {
  const {types, extensions} = await typesUnderTest(t);
  const tables = {scalars: scalars(types, false), arrays: arrays(types, false), odd_arrays: ODD_ARRAYS};
  const world = await startPipeline(
    t,
    [
      ...extensions.map(name => `CREATE EXTENSION ${name};`),
      TYPES_SQL,
      ...Object.entries(tables).map(([name, table]) => createTable(name, table) + insertRows(name, table, 0)),
      // A composite of NULLs and NULL, false and NULL: each two are different values.
      'CREATE TABLE nulls (id int PRIMARY KEY, p pair, b bool, l text[], ps pair[])',
      `;INSERT INTO nulls VALUES (1, NULL, NULL, NULL, NULL), (2, ROW(NULL, NULL), false, '{}', ARRAY[ROW(NULL, NULL), NULL]::pair[]);`,
      SHOP,
    ].join('\n'),
  );
  await world.caughtUp();
  const verdicts = await check(world);
  t.deepEqual(
    verdicts.filter(({verdict}) => verdict !== 'equal'),
    [],
  );
  t.is(exitCode(verdicts), 0);
  t.is(verdicts.length, 6);
  for (const {checksum, rows} of verdicts) {
    t.is(checksum.postgres, checksum.clickhouse);
    t.is(rows.postgres, rows.clickhouse);
  }
  t.is(verdicts.find(({table}) => table.includes('Odd'))?.rows.postgres, 3000n);
});

test('a changed digit, a missing row and a doubled row are found, by key and column', async t => {
  const world = await startPipeline(t, SHOP);
  await world.caughtUp();
  const table = ODD.replace('{cdc}', world.settings.FRESHET_CLICKHOUSE_DATABASE);
  const plant = (change: string, where: string): Promise<unknown> =>
    world.ch.command({
      query: `INSERT INTO ${table} SELECT * REPLACE (_version + 1 AS _version, ${change})
        FROM (SELECT * FROM ${table} FINAL WHERE ${where})`,
    });
  await plant('`o"\\`\'\\\\,` + 0.001 AS `o"\\`\'\\\\,`', "`k 1` = 'k5'");
  await plant('1 AS _is_deleted', "`k 1` = 'k2000'");
  await plant("'k9999' AS `k 1`", "`k 1` = 'k6'");
  const verdicts = await check(world);
  t.is(exitCode(verdicts), 1);
  const odd = verdicts.find(({table}) => table.includes('Odd'))!;
  t.is(odd.verdict, 'different');
  t.deepEqual(odd.rows, {postgres: 3000n, clickhouse: 3000n});
  t.not(odd.checksum.postgres, odd.checksum.clickhouse);
  t.deepEqual(odd.differences, [
    {key: '{"e":"5","k 1":"k2000"}', what: 'missing', columns: []},
    {key: '{"e":"5","k 1":"k5"}', what: 'changed', columns: ['o"`\'\\,']},
    {key: '{"e":"6","k 1":"k9999"}', what: 'extra', columns: []},
  ]);
  t.is(verdicts.find(({table}) => table === 'public.plain')?.verdict, 'equal');
});

test('tables are equal, and a planted difference is found, while rows are written all the time', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE busy (id int PRIMARY KEY, n int NOT NULL, note text);
     INSERT INTO busy SELECT i, 0, 'note ' || i FROM generate_series(1, 500) i`,
  );
  await world.caughtUp();
  let writing = true;
  const traffic = (async () => {
    for (let i = 1; writing; i++) {
      // One row changes every time, more often than it can be read in both servers.
      await world.pg.query('UPDATE busy SET n = n + 1 WHERE id IN (1, $1)', [1 + ((i * 7919) % 400)]);
      await world.pg.query('INSERT INTO busy VALUES ($1, 0)', [1000 + i]);
      if (i % 2 === 0) await world.pg.query('DELETE FROM busy WHERE id = $1', [1000 + i - 1]);
    }
  })();
  try {
    const [equal] = await check(world);
    t.like(equal, {verdict: 'equal', differences: []});
    t.is(equal!.checksum.postgres, equal!.checksum.clickhouse);
    await world.ch.command({
      query: `INSERT INTO ${world.settings.FRESHET_CLICKHOUSE_DATABASE}.public__busy
        SELECT * REPLACE (_version + 1 AS _version, 'mote 450' AS note) FROM ${world.settings.FRESHET_CLICKHOUSE_DATABASE}.public__busy FINAL WHERE id = 450`,
    });
    const [different] = await check(world);
    t.like(different, {verdict: 'different'});
    t.deepEqual(different!.differences, [{key: '{"id":"450"}', what: 'changed', columns: ['note']}]);
  } finally {
    writing = false;
    await traffic;
  }
});

test('what does not catch up has not settled', async t => {
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)',
  );
  await world.caughtUp();
  await world.stop();
  await world.pg.query('INSERT INTO a VALUES (1)');
  const verdicts = await check(world, 500);
  t.like(verdicts, [
    {
      table: 'public.a',
      verdict: 'unsettled',
      rows: {postgres: 1n, clickhouse: 0n},
      reason: 'ClickHouse is behind (streaming)',
    },
    {table: 'public.b', verdict: 'equal', reason: ''},
  ]);
  t.is(exitCode(verdicts), 2);
});

test('only what the publication sends is compared: its rows, its columns, all partitions', async t => {
  if ((await testedVersion()) < 150_000) return skip(t, 'PostgreSQL 15 is needed');
  const world = await startPipeline(
    t,
    `CREATE TABLE part (id int PRIMARY KEY, secret text, v text) PARTITION BY RANGE (id);
     CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
     CREATE TABLE part_2 (v text, id int NOT NULL, secret text);
     ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20);
     CREATE TABLE parent (id int PRIMARY KEY, v text);
     CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
     INSERT INTO part SELECT i, 's', 'v' || i FROM generate_series(0, 19) i;
     INSERT INTO parent VALUES (1, 'sent'), (2, 'not sent');
     INSERT INTO child VALUES (3, 'of the child', 1);
     CREATE PUBLICATION part_of_it FOR TABLE part (id, v), ONLY parent WHERE (id <> 2)
     WITH (publish_via_partition_root = true)`,
    {FRESHET_PUBLICATION: 'part_of_it', FRESHET_TABLES_EXCLUDE: 'public.child'},
  );
  await world.caughtUp();
  await world.pg.query('UPDATE parent SET id = id + 10');
  // By the root, by a leaf, from one leaf to the other, and in a leaf that is attached while it streams.
  await world.pg.query(`UPDATE part SET v = v || '!' WHERE id < 12; DELETE FROM part_2 WHERE id = 12;
    UPDATE part SET id = 12 WHERE id = 3; UPDATE part SET id = 3 WHERE id = 14;
    CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (20) TO (30); INSERT INTO part_3 VALUES (25, 's', 'v25')`);
  await world.caughtUp();
  const verdicts = await check(world);
  t.like(
    verdicts.map(({table, verdict, rows}) => [table, verdict, rows.postgres]),
    [
      ['public.parent', 'equal', 2n],
      ['public.part', 'equal', 20n],
    ],
  );
});

test('a key whose first column has few values is divided by a hash, and compared all the same', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE few (tenant int, n int, v text, PRIMARY KEY (tenant, n));
     INSERT INTO few SELECT i % 2, i, 'v' || i FROM generate_series(1, 9000) i;
     CREATE TABLE many (n int, tenant int, v text, PRIMARY KEY (n, tenant));
     INSERT INTO many SELECT i, i % 2, 'v' || i FROM generate_series(1, 9000) i`,
  );
  await world.caughtUp();
  await withClient(clientConfig(world.settings), async postgres => {
    const {rows} = await postgres.query("SELECT current_setting('server_version_num')::int AS version");
    const {captured} = await planTables(postgres, world.settings, rows[0].version);
    const kinds = captured.map(async table => {
      const target = targetTable(world.settings, table.schema);
      const divided = {
        table: table.schema,
        from: sourceTable(table),
        target,
        rows: 9000,
        hashes: keyHashes(table),
      };
      const {kind, names} = await divide(postgres, world.ch, divided);
      return [table.schema.name, kind, names && names.length >= 4];
    });
    t.deepEqual(await Promise.all(kinds), [
      ['public.few', 'buckets of keys', undefined],
      ['public.many', 'key ranges', true],
    ]);
  });
  for (const table of ['few', 'many']) {
    const name = `${world.settings.FRESHET_CLICKHOUSE_DATABASE}.public__${table}`;
    await world.ch.command({
      query: `INSERT INTO ${name} SELECT * REPLACE (_version + 1 AS _version, 'w' AS v) FROM (SELECT * FROM ${name} FINAL WHERE n IN (1, 4567, 9000))`,
    });
  }
  const verdicts = await check(world);
  for (const {differences, rows, found} of verdicts) {
    t.deepEqual(
      differences.map(({key, what, columns}) => [/"n":"(\d+)"/.exec(key)?.[1], what, ...columns]).sort(),
      ['1', '4567', '9000'].map(n => [n, 'changed', 'v']),
    );
    t.is(found, 3);
    t.deepEqual(rows, {postgres: 9000n, clickhouse: 9000n});
  }
});

test('columns may be named like anything in the queries', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE named (n int, bound int, piece text, unit text, line text, texts text, lines text, t0 text, t1 text, k0 text,
       given text, "from" text, numbered text, PRIMARY KEY (n, k0));
     INSERT INTO named (n, k0, line, unit) SELECT i, 'k', 'l' || i, 'u' FROM generate_series(1, 5000) i`,
  );
  await world.caughtUp();
  const name = `${world.settings.FRESHET_CLICKHOUSE_DATABASE}.public__named`;
  await world.ch.command({
    query: `INSERT INTO ${name} SELECT * REPLACE (_version + 1 AS _version, 'x' AS line, 'y' AS t0) FROM (SELECT * FROM ${name} FINAL WHERE n = 3333)`,
  });
  const [different] = await check(world);
  t.deepEqual(different?.differences, [
    {key: '{"n":"3333","k0":"k"}', what: 'changed', columns: ['line', 't0']},
  ]);
  const {ch: client, settings} = world;
  t.is(exitCode(await verify({client, settings, timeoutMs: 20_000, repair: true})), 0);
});

test('exit codes', t => {
  const code = (...verdicts: TableVerdict['verdict'][]): number =>
    exitCode(verdicts.map(verdict => ({verdict})));
  t.deepEqual(
    [code(), code('equal'), code('equal', 'unsettled'), code('unsettled', 'different')],
    [0, 0, 2, 1],
  );
});
