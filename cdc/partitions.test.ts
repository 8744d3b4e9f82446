import test from 'ava';
import {type Corner, sharePipeline} from './test-support/share-pipeline.ts';

const shared = sharePipeline(test);

/** The rows of a table are the same on both sides, in these columns. */
async function same({pg, query}: Corner, table: string, columns: string): Promise<[unknown, unknown]> {
  const order = `ORDER BY ${columns}`;
  return [
    await query(`SELECT ${columns} FROM {an}.${table} ${order}`),
    (await pg.query(`SELECT ${columns} FROM ${table} ${order}`)).rows,
  ];
}

const sizes = shared.corner(`CREATE TABLE nothing (id int PRIMARY KEY, at timestamptz);
  CREATE TABLE one_page (id int PRIMARY KEY, at timestamptz); INSERT INTO one_page VALUES (1, NULL), (2, '2024-01-01Z')`);
test('N5 an empty table, and one of a single page whose time is NULL', async t => {
  const corner = await sizes(t);
  t.deepEqual(await corner.query('SELECT id FROM {an}.nothing'), []);
  t.deepEqual(await corner.query('SELECT id, isNull(at) AS none FROM {an}.one_page ORDER BY id'), [
    {id: 1, none: 1},
    {id: 2, none: 0},
  ]);
  await corner.pg.query(`INSERT INTO nothing VALUES (1, NULL); UPDATE one_page SET at = NULL;
    UPDATE one_page SET at = '2023-01-01Z' WHERE id = 1`);
  await corner.caughtUp();
  t.deepEqual(...(await same(corner, 'nothing', 'id')));
  t.deepEqual(await corner.query('SELECT id, isNull(at) AS none FROM {an}.one_page ORDER BY id'), [
    {id: 1, none: 0},
    {id: 2, none: 1},
  ]);
});

const nested = shared.corner(`
  CREATE TABLE n (id int, region text, at date, v int, PRIMARY KEY (id, region, at)) PARTITION BY LIST (region);
  CREATE TABLE n_eu PARTITION OF n FOR VALUES IN ('eu') PARTITION BY RANGE (at);
  CREATE TABLE n_eu_23 PARTITION OF n_eu FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
  CREATE TABLE n_us PARTITION OF n FOR VALUES IN ('us');
  INSERT INTO n VALUES (1, 'eu', '2023-05-05', 1), (2, 'us', '2023-05-05', 2), (3, 'eu', '2023-12-31', 3)`);
test('N5 partitions in partitions, rows that move between them, and one that is made later', async t => {
  const corner = await nested(t);
  const {pg, caughtUp} = corner;
  t.deepEqual(...(await same(corner, 'n', 'id, region, v')));
  await pg.query(`UPDATE n SET region = 'us', v = 10 WHERE id = 1; UPDATE n_us SET v = 20 WHERE id = 2`);
  await pg.query(`CREATE TABLE n_eu_24 PARTITION OF n_eu FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')`);
  await pg.query(
    `INSERT INTO n VALUES (4, 'eu', '2024-02-29', 4); INSERT INTO n_eu_24 VALUES (5, 'eu', '2024-03-01', 5)`,
  );
  await pg.query(`UPDATE n SET at = '2024-06-06' WHERE id = 3; DELETE FROM n WHERE id = 5`);
  // Made apart, empty, with columns in another order, and attached.
  await pg.query(`CREATE TABLE n_as (v int, at date NOT NULL, id int NOT NULL, region text NOT NULL);
    ALTER TABLE n ATTACH PARTITION n_as FOR VALUES IN ('as'); INSERT INTO n VALUES (6, 'as', '2024-01-01', 6);
    INSERT INTO n_as (id, region, at, v) VALUES (7, 'as', '2024-01-01', 7); UPDATE n SET v = 77 WHERE id = 7`);
  await caughtUp();
  t.deepEqual(...(await same(corner, 'n', 'id, region, v')));
});

const inherited = shared.corner(`
  CREATE TABLE parent (id int PRIMARY KEY, v int);
  CREATE TABLE child (more text, PRIMARY KEY (id)) INHERITS (parent);
  INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 2, 'two')`);
test('N5 a table that inherits is a table of its own, with its columns; its rows are not its parent’s', async t => {
  const corner = await inherited(t);
  const {pg, query, caughtUp} = corner;
  await pg.query(`INSERT INTO parent VALUES (3, 3); INSERT INTO child VALUES (4, 4, 'four')`);
  await pg.query('UPDATE parent SET v = v + 10; DELETE FROM parent WHERE id = 2'); // both tables' rows
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, v FROM {an}.parent ORDER BY id'),
    (await pg.query('SELECT id, v FROM ONLY parent ORDER BY id')).rows,
  );
  t.deepEqual(...(await same(corner, 'child', 'id, v, more')));
});

const shuffled = shared.corner(`
  CREATE TABLE d (id int, gone int, name text, n int, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
  ALTER TABLE d DROP gone;
  CREATE TABLE d_low PARTITION OF d FOR VALUES FROM (0) TO (100);
  CREATE TABLE d_high (body text, dropped uuid, n int, id int NOT NULL, also int, name text);
  ALTER TABLE d_high DROP dropped, DROP also, ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE d ATTACH PARTITION d_high FOR VALUES FROM (100) TO (200);
  INSERT INTO d SELECT i, 'name' || i, i, repeat(md5(i::text), 200) FROM generate_series(98, 102) i`);
test('D7 partitions with columns in another order, and dropped ones: columns go by name', async t => {
  const corner = await shuffled(t);
  const {pg, caughtUp} = corner;
  const columns = 'id, name, n, body';
  t.deepEqual(...(await same(corner, 'd', columns)));
  await pg.query(`UPDATE d SET n = -n WHERE id IN (99, 101); DELETE FROM d WHERE id = 102`);
  await pg.query(
    `INSERT INTO d_high (name, id, body, n) VALUES ('direct', 150, 'b', 15); INSERT INTO d VALUES (50, 'low', 5, NULL)`,
  );
  await pg.query('UPDATE d SET id = 110 WHERE id = 98; UPDATE d SET id = 10 WHERE id = 100'); // to the other partition
  await caughtUp();
  t.deepEqual(...(await same(corner, 'd', columns)));
});

const identities = shared.corner(`
  CREATE TABLE i (id int, n int NOT NULL, v text NOT NULL, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
  ALTER TABLE i REPLICA IDENTITY FULL, ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE i_low PARTITION OF i FOR VALUES FROM (0) TO (100);
  CREATE TABLE i_high PARTITION OF i FOR VALUES FROM (100) TO (200);
  ALTER TABLE i_high REPLICA IDENTITY FULL;
  CREATE TABLE d (id int, n int NOT NULL, v text NOT NULL, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
  CREATE TABLE d_low PARTITION OF d FOR VALUES FROM (0) TO (200);
  ALTER TABLE d_low REPLICA IDENTITY FULL, ALTER body SET STORAGE EXTERNAL;
  INSERT INTO i SELECT i, i, 'v' || i, repeat(md5(i::text), 200) FROM generate_series(98, 102) i; INSERT INTO d SELECT * FROM i`);
test('R6 partitions whose REPLICA IDENTITY is another one than their root’s', async t => {
  const corner = await identities(t);
  const {pg, caughtUp} = corner;
  await pg.query('CREATE TABLE i_new PARTITION OF i FOR VALUES FROM (200) TO (300)');
  for (const table of ['i', 'd']) {
    // Keys change, within a partition and across, while large values do not; and rows go.
    await pg.query(`UPDATE ${table} SET id = id - 50 WHERE id = 98; UPDATE ${table} SET id = 150 WHERE id = 101;
      UPDATE ${table} SET n = -n WHERE id IN (99, 102); DELETE FROM ${table} WHERE id IN (100, 99)`);
  }
  await pg.query(`INSERT INTO i VALUES (200, 1, 'x', repeat('y', 5000)), (201, 2, 'z', NULL);
    UPDATE i SET id = 202 WHERE id = 200; DELETE FROM i WHERE id = 201; UPDATE i SET id = 203 WHERE id = 150`);
  await caughtUp();
  for (const table of ['i', 'd']) t.deepEqual(...(await same(corner, table, 'id, n, v, body')));
});
