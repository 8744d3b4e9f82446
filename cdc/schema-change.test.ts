import {isDeepStrictEqual} from 'node:util';
import test, {type ExecutionContext} from 'ava';
import {Client} from 'pg';
import {Registry} from './sink/registry.ts';
import {removeTriggersSql} from './source/schema-messages.ts';
import {keepRunning} from './test-support/command-line.ts';
import {startProxy} from './test-support/proxy.ts';
import {equal, schemaChangeCases} from './test-support/schema-change-cases.ts';
import {makeWorld, type Running, server, startPipeline, transport} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

schemaChangeCases(test, 'auto');

const changesOf = ({query}: Running): Promise<Record<string, unknown>[]> =>
  query(`SELECT table_name, kind, change FROM {cdc}._schema_changes FINAL
    WHERE kind <> 'note' AND change <> 'it was read' ORDER BY since, table_name`);

test.serial('D2 killed in the middle of each kind of change: the next start finishes it', async t => {
  const world = await makeWorld(
    t,
    "CREATE TABLE k (id int PRIMARY KEY, v text, w int); INSERT INTO k SELECT i, 'v' || i FROM generate_series(1, 200) i; CREATE TABLE other (id int PRIMARY KEY)",
  );
  const {pg} = world;
  const run = (more: Record<string, string>) => keepRunning(t, {...world.environment, ...more}, ['run']);
  const first = run({});
  await world.caughtUp();
  await first.stop();
  const inPlace = (column: string): string =>
    `ALTER TABLE k ADD ${column} int; UPDATE k SET ${column} = 3 WHERE id = 9`;
  const read = (type: string): string =>
    `ALTER TABLE k ALTER w TYPE ${type} USING w::${type}; UPDATE k SET w = id WHERE id < 9`;
  const changes = [
    {place: 'schema.in_place', sql: 'ALTER TABLE k ADD n int DEFAULT 5; UPDATE k SET n = 6 WHERE id < 10'},
    {place: 'schema.before_written', sql: inPlace('a')},
    {
      place: 'schema.read',
      sql: 'ALTER TABLE k ALTER v TYPE varchar USING upper(v); UPDATE k SET n = 7 WHERE id < 5',
    },
    {place: 'schema.before_written', sql: read('text'), settled: true},
    {place: 'schema.written', sql: read('numeric'), settled: true},
    {
      place: 'schema.shown',
      sql: 'ALTER TABLE k ALTER n TYPE bigint; DELETE FROM k WHERE id > 150; INSERT INTO other VALUES (1)',
    },
    {place: 'schema.written', sql: inPlace('b'), settled: true}, // last: nothing behind it would show the column
  ];
  for (const {place, sql, settled} of changes) {
    if (settled) {
      // A table that is being read again is described as it is by then, and its change is none.
      const between = run({});
      await world.caughtUp();
      await between.stop();
    }
    const child = run({FRESHET_FAILPOINT: `${place}:1`});
    await pg.query(sql);
    t.is(await child.died(), 'SIGKILL');
  }
  run({});
  await equal(t, {...world, start: () => {}, stop: async () => {}, ended: () => new Promise(() => {})});
  t.deepEqual(
    await world.query(
      'SELECT count() AS c, countIf(v LIKE {an: String}) AS u, sum(n) AS n FROM {an}.k'.replace(
        '{an: String}',
        "'V%'",
      ),
    ),
    [{c: '150', u: '150', n: String(4 * 7 + 5 * 6 + 141 * 5)}],
  );
});

test.serial(
  'D2 one change is told of and the next one is not: both are followed, in their order',
  async t => {
    const running = await startPipeline(
      t,
      'CREATE TABLE u (id int PRIMARY KEY, a int, b int); INSERT INTO u SELECT i, i, i FROM generate_series(1, 50) i',
    );
    const {pg, settings, stop, start, query} = running;
    await running.caughtUp();
    await stop();
    await pg.query(
      'INSERT INTO u VALUES (51, 1, 1); ALTER TABLE u ADD c int DEFAULT 5; UPDATE u SET c = 6 WHERE id < 9',
    );
    await pg.query(removeTriggersSql(settings));
    await pg.query(
      'BEGIN; INSERT INTO u VALUES (52, 2, 2, 2); ALTER TABLE u DROP b; INSERT INTO u VALUES (53, 3, 3); COMMIT',
    );
    start();
    await equal(t, running);
    t.deepEqual(
      (await changesOf(running)).map(({change}) => change),
      ['column c was added', 'column b was dropped'],
    );
    t.deepEqual(await query('SELECT * FROM {an}.u WHERE id > 50 ORDER BY id'), [
      {id: 51, a: 1, c: 5},
      {id: 52, a: 2, c: 2},
      {id: 53, a: 3, c: 3},
    ]);
  },
);

test.serial('N8 new tables that had another name, or another schema, when they were made', async t => {
  const running = await startPipeline(
    t,
    'CREATE TABLE old (id int PRIMARY KEY); INSERT INTO old VALUES (1)',
    {
      FRESHET_TABLES_INCLUDE: 'public.*,made.*',
    },
  );
  const {pg, query, stop, start} = running;
  await running.caughtUp();
  await stop();
  for (const sql of [
    'CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (2)',
    'ALTER TABLE old RENAME TO older; ALTER TABLE fresh RENAME TO old',
    'CREATE SCHEMA made; CREATE TABLE made.moved (id int PRIMARY KEY); INSERT INTO made.moved VALUES (3)',
    'ALTER TABLE made.moved SET SCHEMA public; DROP SCHEMA made',
  ])
    for (const one of sql.split(';')) await pg.query(one);
  start();
  const states =
    'SELECT schema_name, table_name, state FROM {cdc}._tables FINAL ORDER BY schema_name, table_name';
  const wanted = [
    ['made', 'moved', 'dropped'],
    ['public', 'fresh', 'dropped'],
    ['public', 'moved', 'streaming'],
    ['public', 'old', 'streaming'],
    ['public', 'older', 'streaming'],
  ].map(([schema_name, table_name, state]) => ({schema_name, table_name, state}));
  await until(async () => isDeepStrictEqual(await query(states), wanted));
  await equal(t, running);
  t.deepEqual(await query('SELECT id FROM {an}.old'), [{id: 2}]);
});

test.serial(
  'D1 a connection that breaks while the value of a new column is asked for parks nothing',
  async t => {
    const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
    const running = await startPipeline(t, 'CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)', {
      FRESHET_CLICKHOUSE_URL: network.url,
    });
    await running.caughtUp();
    const cut = network.on(/FROM format\(JSONEachRow/, 'cut', 2);
    await running.pg.query('ALTER TABLE b ADD n int DEFAULT 5; INSERT INTO b VALUES (2, 6)');
    await cut.times(2);
    await equal(t, running);
    t.deepEqual(await running.query('SELECT id, n FROM {an}.b ORDER BY id'), [
      {id: 1, n: 5},
      {id: 2, n: 6},
    ]);
    t.deepEqual(await running.query('SELECT max(generation) AS g FROM {cdc}._schema_changes FINAL'), [
      {g: 1},
    ]);
  },
);

/** A session beside that of the test, whose transactions stay open for a while. */
async function anotherSession(t: ExecutionContext, {settings}: Running): Promise<Client> {
  const client = new Client(settings.FRESHET_PG_URL);
  await client.connect();
  t.teardown(() => client.end());
  return client;
}

test.serial(
  'D2 what a transaction saw of tables that others alter before it commits is not what they are then',
  async t => {
    const running = await startPipeline(
      t,
      `CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1);
       CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r VALUES (1); CREATE TABLE left_out (id int PRIMARY KEY);
       CREATE PUBLICATION told FOR TABLE o, r WITH (publish_via_partition_root)`,
      {FRESHET_PUBLICATION: 'told', FRESHET_TABLES_EXCLUDE: 'public.left_out'},
    );
    const {pg, query} = running;
    await running.caughtUp();
    const other = await anotherSession(t, running);
    await other.query('BEGIN; CREATE SCHEMA tenant');
    await pg.query("ALTER TABLE o ADD note text; UPDATE o SET note = 'x'; ALTER TABLE r RENAME TO q");
    await pg.query('INSERT INTO q VALUES (2); CREATE TABLE fresh (id int PRIMARY KEY)');
    await pg.query('ALTER PUBLICATION told ADD TABLE fresh; INSERT INTO fresh VALUES (1)');
    await until(async () =>
      (await changesOf(running)).some(({table_name, kind}) => table_name === 'fresh' && kind === 'read'),
    );
    await other.query('COMMIT');
    await pg.query("INSERT INTO o VALUES (2, 'y'); INSERT INTO q VALUES (3); INSERT INTO fresh VALUES (2)");
    await equal(t, running);
    t.deepEqual(await query('SELECT id, note FROM {an}.o ORDER BY id'), [
      {id: 1, note: 'x'},
      {id: 2, note: 'y'},
    ]);
    t.deepEqual(
      (await changesOf(running))
        .filter(({kind}) => kind === 'park' || kind === 'gone')
        .map(row => row.table_name),
      ['r'],
    );
  },
);

test.serial(
  'D2 tables are altered by a transaction whose snapshot is older than what others did to them',
  async t => {
    const running = await startPipeline(
      t,
      `CREATE TABLE o (id int PRIMARY KEY, v text); INSERT INTO o SELECT i, 'v' || i FROM generate_series(1, 50) i;
       CREATE TABLE w (id int PRIMARY KEY, v text); INSERT INTO w VALUES (1, 'v')`,
    );
    const {pg, query} = running;
    await running.caughtUp();
    const other = await anotherSession(t, running);
    await other.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM w');
    await pg.query("ALTER TABLE o ADD note text; UPDATE o SET note = 'x' WHERE id < 9");
    await other.query("ALTER TABLE o ADD n int; INSERT INTO o VALUES (60, 'new', 'note', 1)");
    await other.query("ALTER TABLE w ALTER v TYPE text USING v || '!'; COMMIT");
    await pg.query("INSERT INTO o VALUES (61, 'new', 'note', 2); UPDATE w SET id = 2");
    await equal(t, running);
    t.deepEqual(await query('SELECT count(note) AS notes, sum(n) AS n FROM {an}.o'), [{notes: '10', n: '3'}]);
    t.deepEqual(await query('SELECT * FROM {an}.w'), [{id: 2, v: 'v!'}]);
  },
);

test.serial(
  'T16 what a type was for a moment only is undone in the rows that have it, also beside an open transaction',
  async t => {
    const running = await startPipeline(
      t,
      `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b int);
       CREATE TABLE e (id int PRIMARY KEY, m mood); CREATE TABLE c (id int PRIMARY KEY, p pair)`,
    );
    const {pg, query} = running;
    await running.caughtUp();
    await pg.query(
      `ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; INSERT INTO e VALUES (1, 'blue'); ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'`,
    );
    await pg.query(
      `ALTER TYPE pair ADD ATTRIBUTE c int; INSERT INTO c VALUES (1, '(1,2,3)'); ALTER TYPE pair DROP ATTRIBUTE c`,
    );
    await equal(t, running);
    const other = await anotherSession(t, running);
    await other.query('BEGIN; CREATE SCHEMA tenant');
    await pg.query("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; INSERT INTO e VALUES (2, 'blue')");
    await until(
      async () => (await changesOf(running)).at(-1)?.change === 'the enum value sad was renamed to blue',
    );
    await other.query('COMMIT');
    await pg.query("INSERT INTO e VALUES (3, 'ok')");
    await equal(t, running);
    t.deepEqual(await query('SELECT id, toString(m) AS m FROM {an}.e ORDER BY id'), [
      {id: 1, m: 'blue'},
      {id: 2, m: 'blue'},
      {id: 3, m: 'ok'},
    ]);
  },
);

test.serial('views that use a changed column are named before it changes', async t => {
  const running = await startPipeline(
    t,
    'CREATE TABLE o (id int PRIMARY KEY, country text, total numeric(10,2)); INSERT INTO o VALUES (1, $$DE$$, 5)',
  );
  const {pg, ch, query, log, settings} = running;
  await running.caughtUp();
  const an = settings.FRESHET_ANALYTICS_DATABASE;
  await ch.command({
    query: `CREATE VIEW ${an}.by_country AS SELECT country, sum(total) AS s FROM ${an}.o GROUP BY country`,
  });
  await ch.command({query: `CREATE VIEW ${an}.top AS SELECT * FROM ${an}.by_country ORDER BY s`});
  await ch.command({query: `CREATE VIEW ${an}.totals AS SELECT sum(total) FROM ${an}.o`});
  await pg.query('ALTER TABLE o DROP country');
  await pg.query('INSERT INTO o VALUES (2, 7)');
  await running.caughtUp();
  const warning = log.lines.find(line => line.includes('these views use it'));
  t.regex(
    String(warning),
    new RegExp(`column country was dropped; these views use it: ${an}.by_country, ${an}.top `),
  );
  t.deepEqual(await query("SELECT views FROM {cdc}._schema_changes FINAL WHERE kind = 'in place'"), [
    {views: [`${an}.by_country`, `${an}.top`]},
  ]);
  t.is((await query('SELECT * FROM {an}.totals')).length, 1);
  await t.throwsAsync(query('SELECT * FROM {an}.top'), {message: /country/});
  t.is((await changesOf(running)).length, 1);
});

test.serial('D1 a new table gets a column before it was read: nobody sees it half read', async t => {
  const running = await startPipeline(t, 'CREATE TABLE other (id int PRIMARY KEY)');
  const {pg, query, settings} = running;
  await running.caughtUp();
  // A slot, and so the reading, waits for transactions that are older.
  const older = new Client(settings.FRESHET_PG_URL);
  await older.connect();
  await older.query('BEGIN; INSERT INTO other VALUES (1)');
  await pg.query('CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh SELECT generate_series(1, 500)');
  await until(async () => (await changesOf(running)).some(({kind}) => kind === 'read'));
  await pg.query('ALTER TABLE fresh ADD n int DEFAULT 5; UPDATE fresh SET n = 6 WHERE id <= 7');
  await until(async () => (await changesOf(running)).some(({kind}) => kind === 'in place'));
  await t.throwsAsync(query('SELECT * FROM {an}.fresh'), {message: /fresh/});
  await older.query('COMMIT');
  await older.end();
  await equal(t, running);
  t.deepEqual(await query('SELECT toInt32(sum(n)) AS n FROM {an}.fresh'), [{n: 493 * 5 + 7 * 6}]);
});

test.serial(
  'D9 a slot that starts far behind tells of changes that are long done: nothing becomes of them',
  async t => {
    const running = await startPipeline(
      t,
      `CREATE TABLE k (id int PRIMARY KEY, v text) PARTITION BY HASH (id); CREATE TABLE k0 PARTITION OF k FOR VALUES WITH (MODULUS 1, REMAINDER 0);
     INSERT INTO k SELECT i, 'v' || i FROM generate_series(1, 50) i;
     CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r VALUES (1); CREATE TABLE q (id int PRIMARY KEY, n int NOT NULL)`,
    );
    const {pg, query, settings, stop, start} = running;
    const {FRESHET_SLOT: slot, FRESHET_PUBLICATION: publication} = settings;
    await running.caughtUp();
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [slot, `${slot}_before`]);
    for (const sql of [
      `BEGIN; ALTER PUBLICATION ${publication} DROP TABLE k; INSERT INTO k VALUES (51, 'unseen');
     ALTER PUBLICATION ${publication} ADD TABLE k; COMMIT`,
      "INSERT INTO k VALUES (52, 'seen'); ALTER TABLE r RENAME TO away; INSERT INTO away VALUES (2)",
      'ALTER TABLE away RENAME TO r; INSERT INTO r VALUES (3)',
      'ALTER TABLE q DROP CONSTRAINT q_pkey; ALTER TABLE q ADD PRIMARY KEY (n); INSERT INTO q VALUES (1, 1)',
      'ALTER TABLE r ADD w int DEFAULT 5; UPDATE r SET w = 6 WHERE id < 3; ALTER TABLE r ALTER w TYPE text USING w + 1',
    ]) {
      await pg.query(sql);
      await equal(t, running);
    }
    await stop();
    await pg.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [`${slot}_before`, slot]);
    await pg.query('SELECT pg_drop_replication_slot($1)', [`${slot}_before`]);
    const told = running.log.lines.length;
    start();
    await pg.query(
      "INSERT INTO k VALUES (53, 'after'); INSERT INTO r VALUES (4); INSERT INTO q VALUES (2, 2)",
    );
    await equal(t, running);
    t.deepEqual(
      running.log.lines.slice(told).filter(line => line.includes('is parked')),
      [],
    );
    // Each was read for what it is now behind all that is told again.
    t.deepEqual(
      running.log.lines.slice(told).filter(line => line.includes('is read again')),
      [],
    );
    t.deepEqual(await query('SELECT table_name, state FROM {cdc}._tables FINAL ORDER BY table_name'), [
      {table_name: 'away', state: 'dropped'},
      {table_name: 'k', state: 'streaming'},
      {table_name: 'q', state: 'streaming'},
      {table_name: 'r', state: 'streaming'},
    ]);
  },
);

test.serial(
  'D9 what the slot still sends from before a table was read anew is passed over, by any start',
  async t => {
    const running = await startPipeline(
      t,
      'CREATE TABLE r (id int PRIMARY KEY, v text); INSERT INTO r SELECT i FROM generate_series(1, 50) i; CREATE TABLE s (id int PRIMARY KEY)',
    );
    const {pg, ch, settings, stop, start} = running;
    const {FRESHET_SLOT: slot} = settings;
    await running.caughtUp();
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [slot, `${slot}_before`]);
    await stop();
    await pg.query(
      `INSERT INTO r VALUES (51, 'old'); ALTER TABLE r ADD w int DEFAULT 5; UPDATE r SET w = 6 WHERE id < 9; ALTER TABLE r RENAME TO x;
     ALTER TABLE s RENAME TO r; INSERT INTO r VALUES (1); ALTER TABLE r RENAME TO s; ALTER TABLE x RENAME TO r; DELETE FROM r WHERE id = 51`,
    );
    const registry = new Registry(ch, settings);
    for (const table of ['r', 's'])
      await registry.announce({schema: 'public', table}, 'to be read by the next start');
    start();
    await equal(t, running);
    await stop();
    const generations = await registry.history();
    // What was acknowledged is not known to a slot that a crash sent back to where it was last written.
    await pg.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [`${slot}_before`, slot]);
    await pg.query('SELECT pg_drop_replication_slot($1)', [`${slot}_before`]);
    start();
    await pg.query("INSERT INTO r VALUES (60, 'new', 1); INSERT INTO s VALUES (60)");
    await equal(t, running);
    t.deepEqual((await registry.history()).generations, generations.generations);
  },
);

test.serial(
  'D9 a partitioned table is renamed and back, of which its leaves tell nothing, also when it is long gone',
  async t => {
    const create = (more: string): string =>
      `CREATE TABLE p (id int PRIMARY KEY${more}) PARTITION BY HASH (id); CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0)`;
    const running = await startPipeline(t, create(', v int'));
    const {pg, settings, stop, start, log} = running;
    const {FRESHET_SLOT: slot, FRESHET_PUBLICATION: publication} = settings;
    await running.caughtUp();
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [slot, `${slot}_before`]);
    await pg.query(
      'BEGIN; ALTER TABLE p RENAME TO away; INSERT INTO away VALUES (1, 1); ALTER TABLE away RENAME TO p; COMMIT',
    );
    await pg.query('INSERT INTO p VALUES (2, 2); UPDATE p SET v = 3 WHERE id = 1');
    await equal(t, running);
    await pg.query(`DROP TABLE p; ${create('')}; ALTER PUBLICATION ${publication} ADD TABLE p`);
    await pg.query('INSERT INTO p VALUES (7)');
    await equal(t, running);
    await stop();
    await pg.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await pg.query('SELECT pg_copy_logical_replication_slot($1, $2)', [`${slot}_before`, slot]);
    await pg.query('SELECT pg_drop_replication_slot($1)', [`${slot}_before`]);
    start();
    await pg.query('INSERT INTO p VALUES (8)');
    await equal(t, running);
    t.deepEqual(
      log.lines.filter(line => line.includes('pg.schema_changed')),
      [],
    );
  },
);

for (const FRESHET_TRANSPORT of ['direct', transport()].filter((name, at, all) => all.indexOf(name) === at)) {
  test.serial(
    `D1 a table whose target is gone when it is to follow a change is parked, the others go on, transport ${FRESHET_TRANSPORT}`,
    async t => {
      const running = await startPipeline(
        t,
        'CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE s (id int PRIMARY KEY)',
        {FRESHET_TRANSPORT},
      );
      const {pg, ch, query, settings} = running;
      await running.caughtUp();
      const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__r`;
      await ch.command({query: `RENAME TABLE ${target} TO ${target}_away`});
      await pg.query(
        'INSERT INTO s VALUES (1); BEGIN; ALTER TABLE r ADD n int; INSERT INTO r VALUES (1, 1); COMMIT',
      );
      const states = 'SELECT table_name, state FROM {cdc}._tables FINAL ORDER BY table_name';
      await until(async () => (await query(states))[0]!.state === 'parked');
      await pg.query('INSERT INTO r VALUES (2, 2); INSERT INTO s VALUES (2)');
      await until(async () => (await query('SELECT id FROM {an}.s')).length === 2);
      t.deepEqual(await query(states), [
        {table_name: 'r', state: 'parked'},
        {table_name: 's', state: 'streaming'},
      ]);
      await running.stop();
      running.start(); // reads it again, into a target of its own
      await equal(t, running);
    },
  );
}
