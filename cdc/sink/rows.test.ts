import test from 'ava';
import {CopyTextReader} from '../source/copy-text.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import {sharePipeline} from '../test-support/share-pipeline.ts';
import {startPipeline, transport} from '../test-support/start-pipeline.ts';
import {Registry} from './registry.ts';
import {SnapshotBatch} from './snapshot-batch.ts';

const shared = sharePipeline(test, {FRESHET_TOPIC_PARTITIONS: '3'});

const together = shared.corner('CREATE TABLE r (id int PRIMARY KEY, v text)');
test('R1 inserted and updated in one transaction: the update', async t => {
  const {pg, query, caughtUp} = await together(t);
  await pg.query("BEGIN; INSERT INTO r VALUES (1, 'a'); UPDATE r SET v = 'b'; COMMIT");
  await pg.query("BEGIN; INSERT INTO r VALUES (2, 'a'); UPDATE r SET v = NULL WHERE id = 2; COMMIT");
  await caughtUp();
  t.deepEqual(await query('SELECT id, v FROM {an}.r ORDER BY id'), [
    {id: 1, v: 'b'},
    {id: 2, v: null},
  ]);
});

const absent = shared.corner(
  "CREATE TABLE r (id int PRIMARY KEY, v text); INSERT INTO r VALUES (3, 'there')",
);
test('R3 inserted and deleted in one transaction: absent', async t => {
  const {pg, query, caughtUp} = await absent(t);
  await pg.query("BEGIN; INSERT INTO r VALUES (1, 'a'); DELETE FROM r WHERE id = 1; COMMIT");
  await pg.query("BEGIN; INSERT INTO r VALUES (2, 'a'); UPDATE r SET v = 'b'; DELETE FROM r; COMMIT");
  await pg.query(
    "BEGIN; INSERT INTO r VALUES (4, 'a'); DELETE FROM r WHERE id = 4; INSERT INTO r VALUES (4, 'c'); COMMIT",
  );
  await caughtUp();
  t.deepEqual(await query('SELECT id, v FROM {an}.r ORDER BY id'), [{id: 4, v: 'c'}]);
});

const late = shared.corner(
  'CREATE TABLE l (id int PRIMARY KEY, v int); INSERT INTO l SELECT i, 0 FROM generate_series(1, 4) i',
);
test('R4 a streamed change wins over the snapshot, also where the snapshot lands behind it', async t => {
  const {pg, query, caughtUp, ch, settings, schema} = await late(t);
  await pg.query(
    'UPDATE l SET v = 1 WHERE id = 1; DELETE FROM l WHERE id = 2; UPDATE l SET id = 30 WHERE id = 3',
  );
  await caughtUp();
  const expected = [
    {id: 1, v: 1},
    {id: 4, v: 0},
    {id: 30, v: 0},
  ];
  t.deepEqual(await query('SELECT id, v FROM {an}.l ORDER BY id'), expected);
  const registry = new Registry(ch, settings);
  const row = (await registry.tables()).find(({schema_name}) => schema_name === schema)!;
  const version = rowVersion(0, BigInt(row.snapshot_position) as Lsn, 0);
  const table = await registry.schema(row.schema_id);
  const batch = new SnapshotBatch({client: ch, settings, table}, {version, commitMicros: 0n});
  const reader = new CopyTextReader(tuple => batch.add(tuple));
  for (const id of [1, 2, 3, 4]) reader.push(Buffer.from(`${id}\t0\n`));
  await batch.write();
  t.deepEqual(await query('SELECT id, v FROM {an}.l ORDER BY id'), expected);
});

const keys = shared.corner(
  'CREATE TABLE k (id int PRIMARY KEY, v int NOT NULL); INSERT INTO k SELECT i, i FROM generate_series(11, 40) i',
);
test('R5 keys move over each other, and an old key is used again', async t => {
  const {pg, query, caughtUp} = await keys(t);
  await pg.query('UPDATE k SET id = id - 10'); // 11 to 40 become 1 to 30: most of them take a key just left
  await pg.query('BEGIN; UPDATE k SET id = 100 WHERE id = 5; INSERT INTO k VALUES (5, -5); COMMIT');
  await pg.query(
    'BEGIN; UPDATE k SET id = 101 WHERE id = 6; UPDATE k SET id = 6, v = -6 WHERE id = 101; COMMIT',
  );
  await pg.query('BEGIN; DELETE FROM k WHERE id = 7; UPDATE k SET id = 7 WHERE id = 8; COMMIT');
  await pg.query('BEGIN; INSERT INTO k VALUES (200, 1); DELETE FROM k WHERE id = 200; COMMIT');
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, v FROM {an}.k ORDER BY id'),
    (await pg.query('SELECT id, v FROM k ORDER BY id')).rows,
  );
});

const identities =
  shared.corner(`CREATE TABLE i (id int PRIMARY KEY, b text NOT NULL, a uuid NOT NULL, n numeric(9,2) NOT NULL, at timestamptz NOT NULL DEFAULT now(),
       list int[] NOT NULL DEFAULT '{1}');
     CREATE UNIQUE INDEX by_a ON i (a, b); ALTER TABLE i REPLICA IDENTITY USING INDEX by_a;
     CREATE TABLE d (id int PRIMARY KEY, b text NOT NULL, n numeric(9,2) NOT NULL, at timestamptz NOT NULL DEFAULT now(), e date NOT NULL);
     INSERT INTO i SELECT n, 'b' || n, gen_random_uuid(), n FROM generate_series(1, 6) n;
     INSERT INTO d SELECT n, 'b' || n, n, now(), '2024-01-01' FROM generate_series(1, 6) n`);
test('R9 identity by another index, and columns that may not be NULL', async t => {
  const {pg, query, caughtUp, schema} = await identities(t);
  await pg.query('DELETE FROM i WHERE id = 1; DELETE FROM d WHERE id = 1'); // no more than the key is sent
  await pg.query(`UPDATE i SET id = 20, n = 2.5 WHERE id = 2`); // not the key that counts here
  await pg.query(
    `UPDATE i SET b = 'moved', a = gen_random_uuid() WHERE id = 3; UPDATE i SET b = 'on' WHERE id = 3`,
  );
  await pg.query(
    'DELETE FROM i WHERE id = 4; UPDATE d SET id = 40 WHERE id = 4; DELETE FROM d WHERE id = 40',
  );
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, b, toString(a) AS a, toFloat64(n) AS n FROM {an}.i ORDER BY id'),
    (await pg.query('SELECT id, b, a, n::float8 AS n FROM i ORDER BY id')).rows,
  );
  t.deepEqual(
    await query('SELECT id, b FROM {an}.d ORDER BY id'),
    (await pg.query('SELECT id, b FROM d ORDER BY id')).rows,
  );
  t.deepEqual(
    await query(`SELECT sorting_key FROM system.tables WHERE database = '{cdc}' AND name = '${schema}__i'`),
    [{sorting_key: 'a, b'}],
  );
});

for (const by of new Set([transport(), 'direct'])) {
  test(`R9 of a deleted row the key alone is kept, also where all of it was sent: ${by}`, async t => {
    const {pg, query, caughtUp} = await startPipeline(
      t,
      `CREATE TABLE people (id int, "the name" text NOT NULL, at timestamptz DEFAULT now(), born date, no int, PRIMARY KEY (no, id));
       ALTER TABLE people REPLICA IDENTITY FULL`,
      {FRESHET_TRANSPORT: by},
    );
    await caughtUp();
    // A date beyond ClickHouse's has a record of its own.
    await pg.query(
      `INSERT INTO people SELECT i, 'Ada', now(), CASE WHEN i = 2 THEN '9999-01-01' ELSE '1985-12-10' END::date, 1 FROM generate_series(1, 4) i`,
    );
    await pg.query('UPDATE people SET id = 10 WHERE id = 1; DELETE FROM people WHERE id IN (2, 3)');
    await caughtUp();
    t.deepEqual(
      await query(
        'SELECT no, id, `the name` AS name, at, born FROM {cdc}.public__people WHERE _is_deleted = 1 ORDER BY id',
      ),
      [1, 2, 3].map(id => ({no: 1, id, name: '', at: null, born: null})),
    );
    t.deepEqual(
      await query('SELECT id, `the name` AS name, toString(born) AS born FROM {an}.people ORDER BY id'),
      [4, 10].map(id => ({id, name: 'Ada', born: '1985-12-10'})),
    );
  });
}

const truncated = shared.corner(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
     CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a); CREATE TABLE d (id int PRIMARY KEY);
     INSERT INTO a SELECT generate_series(1, 50); INSERT INTO b SELECT generate_series(1, 50);
     INSERT INTO c SELECT i, i FROM generate_series(1, 50) i; INSERT INTO d VALUES (1)`);
test('R10 TRUNCATE of several tables, with rows in flight before and behind it', async t => {
  const {pg, query, caughtUp} = await truncated(t);
  await pg.query(
    'INSERT INTO a SELECT generate_series(51, 500); UPDATE c SET id = id + 1000; DELETE FROM b WHERE id < 9',
  );
  await pg.query('TRUNCATE a, b CASCADE'); // and c by it
  await pg.query(
    'INSERT INTO a SELECT generate_series(40, 60); INSERT INTO c SELECT i, i FROM generate_series(45, 55) i',
  );
  await pg.query(
    'BEGIN; INSERT INTO b VALUES (1), (2); TRUNCATE b; INSERT INTO b VALUES (2), (3); TRUNCATE b; INSERT INTO b VALUES (3); COMMIT',
  );
  await pg.query('BEGIN; TRUNCATE d; INSERT INTO d VALUES (7); ROLLBACK');
  await caughtUp();
  for (const table of ['a', 'b', 'c', 'd']) {
    t.deepEqual(
      await query(`SELECT * FROM {an}.${table} ORDER BY id`),
      (await pg.query(`SELECT * FROM ${table} ORDER BY id`)).rows,
      table,
    );
  }
});

test('S1 rows that share positions in the log arrive all, wherever the pipeline is stopped', async t => {
  const {pg, query, caughtUp, stop, start} = await startPipeline(
    t,
    'CREATE TABLE s (id int PRIMARY KEY, round int, filler text)',
    {FRESHET_BATCH_BYTES: '65536'},
  );
  await caughtUp();
  const twenty = (round: number): string =>
    Array.from(
      {length: 20},
      (_, i) => `INSERT INTO s VALUES (${round * 100 + i + 1}, ${round}, repeat('x', 9000))`,
    ).join(';');
  for (let round = 0; round < 4; round++) {
    await pg.query(twenty(round)); // one simple query, one transaction, several batches
    // One record of the log for many rows, as COPY makes it.
    const many = pg.query(
      `INSERT INTO s SELECT ${round} * 100 + 50 + i, ${round}, repeat('y', 2000) FROM generate_series(1, 40) i`,
    );
    await (round % 2 === 0 ? stop() : Promise.all([stop(), many])); // in the middle of it, or just behind
    await many;
    start();
  }
  await caughtUp();
  t.deepEqual(
    await query(
      'SELECT round, toInt32(count()) AS n, toInt32(sum(id)) AS ids FROM {an}.s GROUP BY round ORDER BY round',
    ),
    (
      await pg.query(
        'SELECT round, count(*)::int AS n, sum(id)::int AS ids FROM s GROUP BY round ORDER BY round',
      )
    ).rows,
  );
  // Each row has one version, however often it was sent, and those of a transaction count up by two.
  t.deepEqual(
    await query(
      `SELECT toInt32(uniqExact(_version)) AS n, toInt32(min(_version % 281474976710656)) AS first, toInt32(max(_version % 281474976710656)) AS last
       FROM {cdc}.public__s WHERE filler LIKE 'x%' GROUP BY round ORDER BY round`,
    ),
    Array.from({length: 4}, () => ({n: 20, first: 2, last: 40})),
  );
});
