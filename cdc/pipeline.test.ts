import test from 'ava';
import {Remembered} from './remembered.ts';
import {command} from './sink/clickhouse.ts';
import {type Running, startPipeline} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

test('a snapshot, then inserts, updates and deletes', async t => {
  const {pg, query, caughtUp} = await startPipeline(
    t,
    `CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2) NOT NULL, at timestamptz);
     INSERT INTO items VALUES (1, 'one', 1.10, '2024-01-02 03:04:05.678+00'), (2, NULL, -2, NULL)`,
  );
  await caughtUp();
  await pg.query("INSERT INTO items VALUES (3, 'three', 3, '1999-12-31 23:59:59.999999+00')");
  await pg.query("UPDATE items SET name = 'zwei', price = 2.5 WHERE id = 2");
  await pg.query('DELETE FROM items WHERE id = 1');
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, name, toString(price) AS price, toString(at) AS at FROM {an}.items ORDER BY id'),
    [
      {id: 2, name: 'zwei', price: '2.5', at: null},
      {id: 3, name: 'three', price: '3', at: '1999-12-31 23:59:59.999999'},
    ],
  );
});

test('R7 an update that leaves a TOAST column alone keeps its value', async t => {
  const {pg, query, caughtUp} = await startPipeline(
    t,
    'CREATE TABLE docs (id int PRIMARY KEY, title text, body text, bin bytea, list text[])',
  );
  await pg.query(
    `INSERT INTO docs SELECT 1, 'a', string_agg(md5(i::text), ''), string_agg(decode(md5(i::text), 'hex'), ''), array_agg(md5(i::text)) FROM generate_series(1, 2000) i`,
  );
  await caughtUp();
  await pg.query(`UPDATE docs SET title = 'b'`);
  await pg.query(`UPDATE docs SET title = 'c'`);
  await caughtUp();
  t.deepEqual(
    await query(
      `SELECT id, title, length(body) AS n, hex(MD5(assumeNotNull(bin))) AS bin, length(variantElement(list, 'Array(Nullable(String))')) AS list FROM {an}.docs`,
    ),
    [
      {
        id: 1,
        title: 'c',
        n: '64000',
        bin: (await pg.query<{h: string}>('SELECT upper(md5(bin)) AS h FROM docs')).rows[0]!.h,
        list: '2000',
      },
    ],
  );
  // Moved to another key, and from there again, in one transaction.
  await pg.query(`BEGIN; UPDATE docs SET id = 2; UPDATE docs SET id = 3, title = 'd'; COMMIT`);
  await caughtUp();
  t.deepEqual(await query('SELECT id, title, length(body) AS n FROM {an}.docs'), [
    {id: 3, title: 'd', n: '64000'},
  ]);
});

test('R10 R5 TRUNCATE, key changes over a whole table, one key deleted and inserted in one transaction', async t => {
  const {pg, query, caughtUp} = await startPipeline(
    t,
    'CREATE TABLE k (id int PRIMARY KEY, v int); INSERT INTO k SELECT i, i FROM generate_series(1, 50) i',
  );
  await caughtUp();
  await pg.query('UPDATE k SET id = id + 1000');
  await pg.query('UPDATE k SET id = id - 995');
  await pg.query('BEGIN; DELETE FROM k WHERE id = 7; INSERT INTO k VALUES (7, -7); COMMIT');
  await caughtUp();
  const sum = 'SELECT toInt32(count()) AS n, toInt32(sum(id)) AS ids, toInt32(sum(v)) AS vs FROM {an}.k';
  const {
    rows: [want],
  } = await pg.query('SELECT count(*)::int AS n, sum(id)::int AS ids, sum(v)::int AS vs FROM k');
  t.deepEqual(await query(sum), [want]);
  await pg.query(
    'BEGIN; INSERT INTO k VALUES (500, 1); TRUNCATE k; INSERT INTO k VALUES (8, 88), (9, 99); COMMIT; INSERT INTO k VALUES (10, 100)',
  );
  await caughtUp();
  t.deepEqual(await query('SELECT id, v FROM {an}.k ORDER BY id'), [
    {id: 8, v: 88},
    {id: 9, v: 99},
    {id: 10, v: 100},
  ]);
});

test('a stop and a start go on where they stood, also for what happened meanwhile', async t => {
  const {pg, query, caughtUp, stop, start} = await startPipeline(
    t,
    'CREATE TABLE r (id int PRIMARY KEY, v int); INSERT INTO r VALUES (1, 1)',
  );
  await caughtUp();
  await stop();
  await pg.query('UPDATE r SET v = 2; INSERT INTO r VALUES (2, 2)');
  start();
  await caughtUp();
  t.deepEqual(await query('SELECT id, v FROM {an}.r ORDER BY id'), [
    {id: 1, v: 2},
    {id: 2, v: 2},
  ]);
  t.deepEqual(await query('SELECT count() AS n FROM {cdc}.public__r WHERE id = 1 AND v = 1'), [{n: '1'}]);
});

test('S11 a slot that is gone leads to a new snapshot, and rows deleted meanwhile go', async t => {
  const {pg, query, caughtUp, stop, start, settings} = await startPipeline(
    t,
    'CREATE TABLE s (id int PRIMARY KEY, v int); INSERT INTO s VALUES (1, 1), (2, 2), (3, 3)',
  );
  await caughtUp();
  await stop();
  await pg.query('SELECT pg_drop_replication_slot($1)', [settings.FRESHET_SLOT]);
  await pg.query('DELETE FROM s WHERE id = 2; UPDATE s SET v = 30 WHERE id = 3; INSERT INTO s VALUES (4, 4)');
  start();
  await caughtUp();
  t.deepEqual(await query('SELECT id, v FROM {an}.s ORDER BY id'), [
    {id: 1, v: 1},
    {id: 3, v: 30},
    {id: 4, v: 4},
  ]);
});

test('a table of the publication that is excluded holds nothing up', async t => {
  const {pg, query, caughtUp} = await startPipeline(
    t,
    `CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE left_out (id int PRIMARY KEY);
     CREATE PUBLICATION of_both FOR TABLE kept, left_out WITH (publish_via_partition_root = true)`,
    {FRESHET_PUBLICATION: 'of_both', FRESHET_TABLES_EXCLUDE: 'public.left_out'},
  );
  await caughtUp();
  await pg.query('INSERT INTO left_out VALUES (1), (2); INSERT INTO kept VALUES (1); TRUNCATE left_out');
  await caughtUp();
  t.deepEqual(await query('SELECT id FROM {an}.kept'), [{id: 1}]);
  t.deepEqual(await query('SELECT DISTINCT table_name FROM {cdc}._tables'), [{table_name: 'kept'}]);
});

test('a target table that somebody dropped is read again, and nothing is missing', async t => {
  const {pg, query, caughtUp, stop, start, ch, settings} = await startPipeline(
    t,
    'CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (1), (2)',
  );
  await caughtUp();
  await stop();
  await command(ch, `DROP TABLE ${settings.FRESHET_CLICKHOUSE_DATABASE}.public__d SYNC`);
  await pg.query('INSERT INTO d VALUES (3)');
  start();
  await caughtUp();
  t.deepEqual(await query('SELECT id FROM {an}.d ORDER BY id'), [{id: 1}, {id: 2}, {id: 3}]);
});

test('a publication that somebody dropped is made again, and what was not sent meanwhile is read', async t => {
  const {pg, query, caughtUp, stop, start, settings} = await startPipeline(
    t,
    'CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2)',
  );
  await caughtUp();
  await stop();
  await pg.query(`DROP PUBLICATION ${settings.FRESHET_PUBLICATION}`);
  await pg.query('INSERT INTO p VALUES (3); DELETE FROM p WHERE id = 1');
  start();
  await caughtUp();
  t.deepEqual(await query('SELECT id FROM {an}.p ORDER BY id'), [{id: 2}, {id: 3}]);
});

test('N8 the last table is dropped while the pipeline is stopped, and made again after its start', async t => {
  const {pg, query, caughtUp, stop, start} = await startPipeline(
    t,
    'CREATE TABLE lone (id int PRIMARY KEY); INSERT INTO lone VALUES (1)',
  );
  await caughtUp();
  await stop();
  await pg.query('DROP TABLE lone');
  start();
  await until(
    async () => (await query("SELECT * FROM {cdc}._tables FINAL WHERE state = 'dropped'")).length === 1,
  );
  await pg.query("CREATE TABLE lone (v text PRIMARY KEY); INSERT INTO lone VALUES ('again')");
  await caughtUp();
  t.deepEqual(await query('SELECT * FROM {an}.lone'), [{v: 'again'}]);
});

test('what was acknowledged is known although a host whose clock is ahead wrote it down before', async t => {
  const {pg, caughtUp, stop, start, ch, settings} = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY)',
  );
  await caughtUp();
  await stop();
  const table = `${settings.FRESHET_CLICKHOUSE_DATABASE}._acknowledged`;
  await command(
    ch,
    `INSERT INTO ${table} SELECT * REPLACE (version + 86400000000 AS version) FROM ${table} FINAL`,
  );
  const before = await new Remembered(ch, settings).acknowledged();
  start();
  await pg.query('INSERT INTO a VALUES (1)');
  await caughtUp();
  await stop();
  const after = await new Remembered(ch, settings).acknowledged();
  t.true(after!.position > before!.position);
});

/** Ends the one connection of the pipeline whose last question was such. */
const loseConnection = ({pg, settings}: Running, asked: string): Promise<void> =>
  until(async () => {
    const {rowCount} = await pg.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = $1 AND backend_type = 'client backend' AND query LIKE $2`,
      [`freshet ${settings.FRESHET_SLOT}`, asked],
    );
    return rowCount === 1;
  });

test('complete up to moves on although the connection that asks for the time was lost', async t => {
  const running = await startPipeline(t, 'CREATE TABLE c (id int PRIMARY KEY)');
  await running.caughtUp();
  await loseConnection(running, '%clock_timestamp()%AS micros%');
  const {rows} = await running.pg.query<{now: string}>(
    "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::text AS now",
  );
  const complete = `SELECT * FROM {cdc}._watermarks FINAL WHERE complete_up_to > '${rows[0]!.now}'`;
  await until(async () => (await running.query(complete)).length === 1);
  t.pass();
});

test('a change that nobody announces is found although the connection that looks for it was lost', async t => {
  const running = await startPipeline(t, 'CREATE TABLE c (id int PRIMARY KEY)', {
    FRESHET_EVENT_TRIGGERS: 'off',
  });
  await running.caughtUp();
  await loseConnection(running, "%SELECT json_build_object('oid'%");
  await running.pg.query('ALTER TABLE c ADD n int');
  const column = "SELECT 1 FROM system.columns WHERE database = '{an}' AND table = 'c' AND name = 'n'";
  await until(async () => (await running.query(column)).length === 1);
  t.pass();
});
