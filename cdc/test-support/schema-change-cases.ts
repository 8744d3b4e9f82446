import {isDeepStrictEqual} from 'node:util';
import type {ExecutionContext, TestFn} from 'ava';
import {type TableVerdict, verify} from '../reconcile/verify.ts';
import {type Running, startPipeline} from './start-pipeline.ts';

/** Everything is compared by value in both servers; a table that is not captured any more is not among them. */
export async function equal(t: ExecutionContext, running: Running): Promise<void> {
  const {ch, settings, caughtUp} = running;
  let verdicts: TableVerdict[] = [];
  // A table that has just been told of is not read yet, or not as it is now.
  await until(running, async () => {
    await caughtUp();
    verdicts = await verify({client: ch, settings});
    return verdicts.every(({verdict}) => verdict !== 'unsettled');
  });
  for (const {table, verdict, differences, reason} of verdicts) {
    t.deepEqual(
      {table, verdict, differences, reason},
      {table, verdict: 'equal', differences: [], reason: ''},
    );
  }
}

/** Waits for what the pipeline does by itself; its end is the better message than a wait without one. */
async function until({ended}: Running, holds: () => Promise<boolean>): Promise<void> {
  let end: unknown;
  void ended().then(error => {
    end = error ?? new Error('the pipeline was stopped');
  });
  while (!(await holds())) if (end !== undefined) throw end;
}

/**
 * The cases of schema changes. With the event triggers (auto) changes are known at their place; without them (off) the
 * catalog is watched.
 */
export function schemaChangeCases(test: TestFn, triggers: 'auto' | 'off'): void {
  const named = (title: string): string => `${title}${triggers === 'off' ? ', without event triggers' : ''}`;
  const start = (
    t: ExecutionContext,
    sql: string,
    overrides: Record<string, string> = {},
  ): Promise<Running> => startPipeline(t, sql, {FRESHET_EVENT_TRIGGERS: triggers, ...overrides});

  test.serial(
    named('D1 a column with a default is added: rows of before show it, whatever becomes of the default'),
    async t => {
      const running = await start(
        t,
        `CREATE TABLE d1 (id int PRIMARY KEY, v text); INSERT INTO d1 SELECT i, 'v' || i FROM generate_series(1, 1000) i`,
      );
      const {pg, query} = running;
      await running.caughtUp();
      await pg.query(`ALTER TABLE d1 ADD n int NOT NULL DEFAULT 5, ADD s text DEFAULT 'it''s \\ "q"', ADD l text[] NOT NULL DEFAULT '{a,NULL}', ADD m int[] DEFAULT '{7,NULL}',
      ADD d numeric(10,2) DEFAULT 1.5, ADD at timestamptz DEFAULT '2020-02-29 12:00:00.123456+01', ADD b bytea DEFAULT '\\x00ff', ADD e date`);
      await pg.query(
        "UPDATE d1 SET v = 'new' WHERE id <= 10; INSERT INTO d1 (id, n, l) VALUES (2000, 7, '{}')",
      );
      await pg.query('ALTER TABLE d1 ALTER n SET DEFAULT 6; ALTER TABLE d1 ALTER s DROP DEFAULT');
      await pg.query('INSERT INTO d1 (id) VALUES (2001)');
      await equal(t, running);
      t.deepEqual(await query('SELECT n, count() AS c FROM {an}.d1 GROUP BY n ORDER BY n'), [
        {n: 5, c: '1000'},
        {n: 6, c: '1'},
        {n: 7, c: '1'},
      ]);
      t.deepEqual(await query('SELECT generation FROM {cdc}._schema_changes FINAL WHERE generation > 1'), []);
    },
  );

  test.serial(
    named('D1 a column with a volatile default is added: the rows were rewritten, so they are read again'),
    async t => {
      const running = await start(
        t,
        `CREATE TABLE d1v (id int PRIMARY KEY); INSERT INTO d1v SELECT generate_series(1, 500);
       CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)`,
      );
      await running.caughtUp();
      await running.pg.query(
        'ALTER TABLE d1v ADD r float8 DEFAULT random(), ADD g int GENERATED ALWAYS AS (id * 2) STORED',
      );
      await running.pg.query(
        'INSERT INTO d1v (id) VALUES (1000); DELETE FROM d1v WHERE id <= 100; INSERT INTO other VALUES (2)',
      );
      await equal(t, running);
      t.deepEqual(await running.query('SELECT count() AS c, uniqExact(r) AS r FROM {an}.d1v'), [
        {c: '401', r: '401'},
      ]);
    },
  );

  test.serial(named('D3 T20 a column that was NOT NULL takes NULL, and takes none again'), async t => {
    const running = await start(
      t,
      "CREATE TABLE v (id int PRIMARY KEY, n int NOT NULL, d text NOT NULL DEFAULT 'x')",
    );
    const {pg, query} = running;
    await running.caughtUp();
    await pg.query('INSERT INTO v VALUES (1, 1)');
    await pg.query('ALTER TABLE v ALTER n DROP NOT NULL, ALTER d DROP NOT NULL');
    await pg.query('INSERT INTO v VALUES (2, NULL, NULL)');
    await equal(t, running);
    t.deepEqual(await query('SELECT * FROM {an}.v ORDER BY id'), [
      {id: 1, n: 1, d: 'x'},
      {id: 2, n: null, d: null},
    ]);
    await pg.query(
      'DELETE FROM v WHERE n IS NULL; ALTER TABLE v ALTER n SET NOT NULL; INSERT INTO v VALUES (3, 3)',
    );
    await equal(t, running);
    t.deepEqual(await query('SELECT max(generation) AS g FROM {cdc}._schema_changes FINAL'), [{g: 1}]);
    // Before it is told of, it is as it was.
    await pg.query('CREATE TABLE w (id int PRIMARY KEY, n int NOT NULL); INSERT INTO w VALUES (1, 1)');
    await equal(t, running);
    await pg.query('ALTER TABLE w ALTER n DROP NOT NULL; INSERT INTO w VALUES (2, NULL)');
    await pg.query(
      'DELETE FROM w WHERE n IS NULL; ALTER TABLE w ALTER n SET NOT NULL; INSERT INTO w VALUES (3, 3)',
    );
    await equal(t, running);
    t.deepEqual(await query('SELECT id, n FROM {an}.w ORDER BY id'), [
      {id: 1, n: 1},
      {id: 3, n: 3},
    ]);
  });

  test.serial(named('D2 several changes and rows in one transaction'), async t => {
    const running = await start(
      t,
      "CREATE TABLE d2 (id int PRIMARY KEY, a text); INSERT INTO d2 VALUES (1, 'one')",
    );
    const {pg, query, stop, start: again} = running;
    await running.caughtUp();
    const twice = async (n: number): Promise<void> => {
      await pg.query(`BEGIN; INSERT INTO d2 VALUES (${n}, 'before');
        ALTER TABLE d2 ADD b int DEFAULT ${n}; INSERT INTO d2 VALUES (${n + 1}, 'with b');
        ALTER TABLE d2 RENAME a TO c; UPDATE d2 SET b = b + 100 WHERE id = 1; INSERT INTO d2 (id, c) VALUES (${n + 2}, 'renamed');
        ALTER TABLE d2 DROP b; INSERT INTO d2 VALUES (${n + 3}, 'without b'); ALTER TABLE d2 ADD b text; UPDATE d2 SET b = 'text' WHERE id = ${n};
        ALTER TABLE d2 DROP b; ALTER TABLE d2 RENAME c TO a; COMMIT`);
    };
    await twice(10);
    await equal(t, running);
    await stop();
    await twice(20);
    again();
    await equal(t, running);
    t.deepEqual(
      (await query('SELECT id, a FROM {an}.d2 WHERE id < 20 ORDER BY id')).map(row => row.a),
      ['one', 'before', 'with b', 'renamed', 'without b'],
    );
  });

  test.serial(named('D4 types change: wider ones stay in place, others are read again'), async t => {
    const running = await start(
      t,
      `CREATE TABLE d4 (id int PRIMARY KEY, n numeric(10,2), v varchar(10), i int, x text);
       INSERT INTO d4 SELECT i, i / 100.0, 'v' || i, i, i::text FROM generate_series(1, 300) i`,
    );
    const {pg, query} = running;
    await running.caughtUp();
    await pg.query(
      "ALTER TABLE d4 ALTER n TYPE numeric(14,2), ALTER v TYPE text; INSERT INTO d4 VALUES (1000, 123456789012.34, 'a longer text', 1, '1')",
    );
    await equal(t, running);
    const generation = 'SELECT max(generation) AS g FROM {cdc}._schema_changes FINAL';
    t.deepEqual(await query(generation), [{g: 1}]);
    await pg.query(
      'ALTER TABLE d4 ALTER i TYPE bigint; INSERT INTO d4 VALUES (1001, 1, NULL, 9223372036854775807, NULL)',
    );
    await equal(t, running);
    await pg.query('ALTER TABLE d4 ALTER x TYPE int USING x::int * 2; UPDATE d4 SET x = 7 WHERE id = 3');
    await equal(t, running);
    t.deepEqual(await query('SELECT id, i, x FROM {an}.d4 WHERE id IN (3, 4, 1001) ORDER BY id'), [
      {id: 3, i: '3', x: 7},
      {id: 4, i: '4', x: 8},
      {id: 1001, i: '9223372036854775807', x: null},
    ]);
    await pg.query('ALTER TABLE d4 ALTER n TYPE numeric(20,6)');
    await equal(t, running);
    // Of a key nothing can be changed in place.
    await pg.query('CREATE TABLE d4k (k numeric(18,0) PRIMARY KEY, v int); INSERT INTO d4k VALUES (7, 7)');
    await until(running, async () => (await query('SELECT v FROM {an}.d4k').catch(() => [])).length === 1);
    await pg.query(
      'ALTER TABLE d4k ALTER k TYPE numeric(20,0); INSERT INTO d4k VALUES (12345678901234567890, 1); DELETE FROM d4k WHERE k = 7',
    );
    // Without triggers the row may come before the change is known: the table is set aside until it was read again.
    await until(
      running,
      async () => (await query('SELECT toString(k) AS k FROM {an}.d4k'))[0]?.k === '12345678901234567890',
    );
    await equal(t, running);
    t.deepEqual(await query("SELECT state FROM {cdc}._tables FINAL WHERE table_name = 'd4k'"), [
      {state: 'streaming'},
    ]);
    t.deepEqual(await query('SELECT toString(k) AS k, v FROM {an}.d4k'), [{k: '12345678901234567890', v: 1}]);
  });

  test.serial(named('D5 a change that no row follows is applied'), async t => {
    const running = await start(
      t,
      'CREATE TABLE d5 (id int PRIMARY KEY, a int, b int); INSERT INTO d5 VALUES (1, 1, 1)',
    );
    const {pg, query} = running;
    await running.caughtUp();
    await pg.query(
      'ALTER TABLE d5 ADD c int DEFAULT 3; ALTER TABLE d5 DROP a; ALTER TABLE d5 RENAME b TO "B b"',
    );
    const seen = async (): Promise<object> => (await query('SELECT * FROM {an}.d5'))[0]!;
    await until(running, async () => Object.hasOwn(await seen(), 'B b'));
    t.deepEqual(await seen(), {id: 1, 'B b': 1, c: 3});
    await equal(t, running);
  });

  test.serial(named('D6 the column list and the row filter of the publication change'), async t => {
    const running = await start(
      t,
      `CREATE TABLE d6 (id int PRIMARY KEY, a int, b int); INSERT INTO d6 VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);
       CREATE PUBLICATION d6 FOR TABLE d6 (id, a) WHERE (id > 1)`,
      {FRESHET_PUBLICATION: 'd6'},
    );
    const {pg, query} = running;
    await running.caughtUp();
    t.deepEqual(await query('SELECT * FROM {an}.d6 ORDER BY id'), [
      {id: 2, a: 2},
      {id: 3, a: 3},
    ]);
    await pg.query('ALTER PUBLICATION d6 SET TABLE d6 (id, a, b) WHERE (id > 2)');
    await until(running, async () => (await query('SELECT * FROM {an}.d6')).length === 1);
    await pg.query('INSERT INTO d6 VALUES (4, 4, 4)');
    await running.caughtUp();
    t.deepEqual(await query('SELECT * FROM {an}.d6 ORDER BY id'), [
      {id: 3, a: 3, b: 3},
      {id: 4, a: 4, b: 4},
    ]);
  });

  test.serial(
    named('D8 a key that is dropped parks the table, another one brings it back; other tables go on'),
    async t => {
      const running = await start(
        t,
        'CREATE TABLE d8 (id int PRIMARY KEY, k int NOT NULL); CREATE TABLE other (id int PRIMARY KEY); INSERT INTO d8 VALUES (1, 10), (2, 20)',
      );
      const {pg, query} = running;
      await running.caughtUp();
      await pg.query('ALTER TABLE d8 DROP CONSTRAINT d8_pkey');
      const state = async (): Promise<unknown> =>
        (await query("SELECT state FROM {cdc}._tables FINAL WHERE table_name = 'd8'"))[0]?.state;
      await pg.query('INSERT INTO other VALUES (1)');
      await until(running, async () => (await state()) === 'parked');
      const [row] = await query("SELECT reason FROM {cdc}._tables FINAL WHERE table_name = 'd8'");
      t.regex(String(row?.reason), /no primary key.*ADD PRIMARY KEY/);
      await pg.query('INSERT INTO d8 VALUES (2, 30); INSERT INTO other VALUES (2)');
      await until(running, async () => (await query('SELECT * FROM {an}.other')).length === 2);
      await pg.query('ALTER TABLE d8 ADD PRIMARY KEY (k); DELETE FROM d8 WHERE k = 20');
      await until(running, async () => (await state()) !== 'parked');
      await pg.query('INSERT INTO d8 VALUES (2, 40); UPDATE d8 SET id = 5 WHERE k = 10');
      await equal(t, running);
      t.deepEqual(await query('SELECT id, k FROM {an}.d8 ORDER BY k'), [
        {id: 5, k: 10},
        {id: 2, k: 30},
        {id: 2, k: 40},
      ]);
    },
  );

  test.serial(named('D9 a replay does not bring back what a table was before'), async t => {
    const running = await start(
      t,
      'CREATE TABLE d9 (id int PRIMARY KEY, a int); INSERT INTO d9 VALUES (1, 1)',
    );
    const {pg, query, stop, start: again} = running;
    await running.caughtUp();
    await stop();
    // The first start ends where the second change is due; the slot then sends all of it again.
    await pg.query(
      'UPDATE d9 SET a = 2; ALTER TABLE d9 ADD b int DEFAULT 8; UPDATE d9 SET a = 3; ALTER TABLE d9 DROP a; UPDATE d9 SET b = 9',
    );
    again();
    await equal(t, running);
    const {rows} = await pg.query(
      'SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1',
      [running.settings.FRESHET_SLOT],
    );
    t.is(rows.length, 1);
    t.deepEqual(await query('SELECT * FROM {an}.d9'), [{id: 1, b: 9}]);
  });

  test.serial(
    named('N8 tables are made, taken out of the publication and put back, dropped, renamed, and made again'),
    async t => {
      const running = await start(
        t,
        'CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE old (id int PRIMARY KEY, v int); INSERT INTO old VALUES (1, 1)',
      );
      const {pg, query, settings} = running;
      const states = async (): Promise<Record<string, unknown>> =>
        Object.fromEntries(
          (await query('SELECT table_name, state FROM {cdc}._tables FINAL ORDER BY table_name')).map(row => [
            row.table_name,
            row.state,
          ]),
        );
      await running.caughtUp();
      await pg.query("CREATE TABLE fresh (id int PRIMARY KEY, v text); INSERT INTO fresh VALUES (1, 'x')");
      await until(running, async () => (await states()).fresh === 'streaming');
      await pg.query("INSERT INTO fresh VALUES (2, 'y')");
      await equal(t, running);
      t.is((await query('SELECT * FROM {an}.fresh')).length, 2);

      await pg.query(`ALTER PUBLICATION ${settings.FRESHET_PUBLICATION} DROP TABLE fresh`);
      await until(running, async () => (await states()).fresh === 'parked');
      await pg.query("UPDATE fresh SET v = 'unseen'");
      await pg.query(`ALTER PUBLICATION ${settings.FRESHET_PUBLICATION} ADD TABLE fresh`);
      await until(running, async () => (await states()).fresh === 'streaming');
      await equal(t, running);
      t.deepEqual(await query('SELECT DISTINCT v FROM {an}.fresh'), [{v: 'unseen'}]);

      await pg.query('DROP TABLE old');
      await until(running, async () => (await states()).old === 'dropped');
      await t.throwsAsync(query('SELECT * FROM {an}.old'), {message: /old/});
      await pg.query('CREATE TABLE old (v text PRIMARY KEY)');
      await pg.query("INSERT INTO old VALUES ('again')");
      await until(running, async () => (await states()).old === 'streaming');
      await equal(t, running);
      t.deepEqual(await query('SELECT * FROM {an}.old'), [{v: 'again'}]);

      await pg.query("ALTER TABLE fresh RENAME TO renamed; INSERT INTO renamed VALUES (3, 'z')");
      await until(running, async () => (await states()).renamed === 'streaming');
      await equal(t, running);
      t.is((await query('SELECT * FROM {an}.renamed')).length, 3);
      t.is((await states()).fresh, 'dropped');

      const shows = (sql: string, rows: unknown): Promise<void> =>
        until(running, async () => isDeepStrictEqual(await query(sql).catch(String), rows));
      await pg.query(
        'BEGIN; DROP TABLE old; CREATE TABLE old (n int PRIMARY KEY); INSERT INTO old VALUES (7); COMMIT',
      );
      await shows('SELECT * FROM {an}.old', [{n: 7}]);
      await equal(t, running);
      await pg.query(
        'BEGIN; ALTER TABLE old RENAME TO away; ALTER TABLE kept RENAME TO old; ALTER TABLE away RENAME TO kept; INSERT INTO kept VALUES (8); COMMIT',
      );
      await shows('SELECT * FROM {an}.kept ORDER BY n', [{n: 7}, {n: 8}]);
      await shows('SELECT * FROM {an}.old', []);
      await equal(t, running);
      const {old, kept} = await states();
      t.deepEqual({old, kept}, {old: 'streaming', kept: 'streaming'});
    },
  );

  test.serial(
    named(
      'T17 attributes of a composite are dropped and added again by one command, and come to be of another kind',
    ),
    async t => {
      const running = await start(
        t,
        `CREATE TYPE address AS (street text, zip text); CREATE TABLE c (id int PRIMARY KEY, a address, l address[]);
         INSERT INTO c VALUES (1, '(High Street,N1)', '{"(High Street,N1)"}')`,
      );
      const {pg, query} = running;
      await running.caughtUp();
      await pg.query('ALTER TYPE address DROP ATTRIBUTE zip, ADD ATTRIBUTE zip text');
      await until(running, async () => (await query('SELECT a FROM {an}.c'))[0]!.a === '("High Street",)');
      await equal(t, running);
      const state = async () => (await query('SELECT state, reason FROM {cdc}._tables FINAL'))[0]!;
      await pg.query('ALTER TYPE address ADD ATTRIBUTE place regclass');
      await until(running, async () => (await state()).state === 'parked');
      t.regex(String((await state()).reason), /column a has regclass within/);
      await pg.query('ALTER TYPE address DROP ATTRIBUTE place');
      await until(running, async () => (await state()).state === 'streaming');
      await equal(t, running);
    },
  );

  test.serial(
    named('N8 a partitioned table is taken out of the publication and put back, with it and its partitions'),
    async t => {
      const running = await start(
        t,
        `CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
         CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO p VALUES (1, 1)`,
      );
      const {pg, query, settings} = running;
      const publication = `ALTER PUBLICATION ${settings.FRESHET_PUBLICATION}`;
      const becomes = (state: string): Promise<void> =>
        until(
          running,
          async () => (await query('SELECT state FROM {cdc}._tables FINAL'))[0]!.state === state,
        );
      await running.caughtUp();
      for (const [away, back] of [
        [`${publication} DROP TABLE p`, `${publication} ADD TABLE p`],
        [
          `${publication} SET (publish_via_partition_root = false)`,
          `${publication} SET (publish_via_partition_root = true)`,
        ],
      ]) {
        await pg.query(away!);
        await becomes('parked');
        await pg.query(`UPDATE p SET v = v + 1; ${back}`);
        await becomes('streaming');
        await pg.query('UPDATE p SET v = v + 1');
        await equal(t, running);
      }
    },
  );

  test.serial(named('T16 values of an enum are added and renamed while changes stream'), async t => {
    const running = await start(
      t,
      "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE e (id int PRIMARY KEY, m mood, l mood[]); INSERT INTO e VALUES (1, 'sad', '{sad,ok}')",
    );
    const {pg, query} = running;
    await running.caughtUp();
    await pg.query("ALTER TYPE mood ADD VALUE 'glad'");
    await pg.query("INSERT INTO e VALUES (2, 'glad', '{glad}')");
    await equal(t, running);
    t.deepEqual(await query('SELECT max(generation) AS g FROM {cdc}._schema_changes FINAL'), [{g: 1}]);
    await pg.query("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'");
    await until(running, async () => (await query("SELECT * FROM {an}.e WHERE m = 'blue'")).length > 0);
    await pg.query("INSERT INTO e VALUES (3, 'blue', NULL)");
    await equal(t, running);
    t.deepEqual(await query('SELECT id, toString(m) AS m FROM {an}.e ORDER BY id'), [
      {id: 1, m: 'blue'},
      {id: 2, m: 'glad'},
      {id: 3, m: 'blue'},
    ]);
  });

  test.serial(
    named('N5 R10 partitions are added, attached with rows, detached, truncated and dropped'),
    async t => {
      const running = await start(
        t,
        `CREATE TABLE p (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
       CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
       INSERT INTO p SELECT i, '2024-05-05', 'v' || i FROM generate_series(1, 50) i`,
      );
      const {pg, query} = running;
      const rows = async (): Promise<number> => (await query('SELECT * FROM {an}.p')).length;
      const becomes = async (count: number): Promise<void> => {
        await until(running, async () => (await rows()) === count);
        await equal(t, running);
      };
      await running.caughtUp();
      await pg.query(
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); INSERT INTO p VALUES (1, '2025-05-05', 'x')",
      );
      await becomes(51);
      await pg.query(`CREATE TABLE p3 (v text, gone int, at date NOT NULL, id int NOT NULL, PRIMARY KEY (id, at)); ALTER TABLE p3 DROP gone;
      INSERT INTO p3 VALUES ('there', '2026-05-05', 1), ('there', '2026-05-05', 2); ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`);
      await becomes(53);
      await pg.query('TRUNCATE p1');
      await becomes(3);
      await pg.query('ALTER TABLE p DETACH PARTITION p3');
      await becomes(1);
      await pg.query("DROP TABLE p2; INSERT INTO p VALUES (7, '2024-06-06', 'y')");
      await becomes(1);
    },
  );
}
