import test from 'ava';
import {type Running, startPipeline} from '../test-support/start-pipeline.ts';

/** Values that are stored out of line, of every kind that is written or looked up in its own way. */
const DDL = `
  CREATE TABLE docs (id int PRIMARY KEY, title text, body text, doc jsonb, bin bytea, list text[] NOT NULL,
    floats float8[], days date[], at timestamptz[], prices numeric(20,5)[], blobs bytea[], nothing text);
  ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL, ALTER bin SET STORAGE EXTERNAL,
    ALTER list SET STORAGE EXTERNAL, ALTER floats SET STORAGE EXTERNAL, ALTER days SET STORAGE EXTERNAL,
    ALTER at SET STORAGE EXTERNAL, ALTER prices SET STORAGE EXTERNAL, ALTER blobs SET STORAGE EXTERNAL;`;
const insert = (id: number, title: string): string => `
  INSERT INTO docs SELECT ${id}, '${title}', string_agg(E'"\\\\\\t' || md5(i::text), ''),
    jsonb_object_agg(i, E'q"\\n' || i), string_agg(decode(md5(i::text), 'hex'), ''),
    array_agg(CASE WHEN i % 7 = 0 THEN NULL ELSE E'a,"\\\\ 🌊' || md5(i::text) END),
    array_agg(CASE i % 5 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN '-Infinity' WHEN 2 THEN NULL ELSE 1e-308 * i END),
    array_agg('1900-01-01'::date + i * 100), array_agg('1969-12-31 23:59:59.999999+00'::timestamptz + i * interval '1 us'),
    array_agg(-i / 7.0), array_agg(decode(md5(i::text), 'hex')), NULL
  FROM generate_series(${id}, ${id + 1000}) i`;

/** Key and title of each row, and a digest of all that is large; `{an}` has what people read. */
const ROWS = `SELECT id, title, nothing, hex(MD5(toJSONString(tuple(body, doc, bin, list, floats, days, at, prices, blobs)))) AS large
  FROM {an}.docs ORDER BY id`;
const digest = (column: string): string =>
  `if(isNull(${column}), NULL, hex(MD5(assumeNotNull(${column})))) AS ${column}`;
const TEXT = `SELECT id, ${['body', 'doc', 'bin'].map(digest).join(', ')},
  hex(MD5(arrayStringConcat(arrayMap(e -> ifNull(e, 'NULL'), list), '|'))) AS list FROM {an}.docs ORDER BY id`;
const PG_TEXT = `SELECT id, upper(md5(body)) AS body, upper(md5(doc::text)) AS doc, upper(md5(bin)) AS bin,
  upper(md5(array_to_string(list, '|', 'NULL'))) AS list FROM docs ORDER BY id`;

/** The rows are what PostgreSQL has. */
async function same({pg, query, caughtUp}: Running): Promise<[unknown, unknown]> {
  await caughtUp();
  return [await query(TEXT), (await pg.query(PG_TEXT)).rows];
}

/** Digests of the large values of rows that were sent whole, by title. */
async function larges({query}: Running): Promise<Record<string, unknown>> {
  return Object.fromEntries((await query(ROWS)).map(({title, large}) => [String(title), large]));
}

for (const identity of ['DEFAULT', 'FULL']) {
  test(`R7 an update leaves large values alone, identity ${identity}`, async t => {
    const world = await startPipeline(
      t,
      `${DDL} ALTER TABLE docs REPLICA IDENTITY ${identity}; ${insert(1, 'read')}`,
    );
    await world.caughtUp();
    await world.pg.query(insert(2, 'streamed'));
    await world.caughtUp();
    const {read, streamed} = await larges(world);
    for (let i = 0; i < 3; i++) await world.pg.query(`UPDATE docs SET title = title || ${i}`);
    t.deepEqual(...(await same(world)));
    t.deepEqual(await world.query(ROWS), [
      {id: 1, title: 'read012', nothing: null, large: read},
      {id: 2, title: 'streamed012', nothing: null, large: streamed},
    ]);
  });
}

test('R7 the identity changes from FULL to DEFAULT and back while changes stream', async t => {
  const world = await startPipeline(t, `${DDL} ALTER TABLE docs REPLICA IDENTITY FULL; ${insert(1, 'a')}`);
  await world.caughtUp();
  const {a} = await larges(world);
  for (const identity of ['DEFAULT', 'FULL', 'DEFAULT']) {
    await world.pg.query(`UPDATE docs SET title = title || '${identity}'`);
    await world.pg.query(`ALTER TABLE docs REPLICA IDENTITY ${identity}`);
    await world.pg.query(`UPDATE docs SET title = 'a'`);
  }
  t.deepEqual(...(await same(world)));
  t.deepEqual(await larges(world), {a});
});

test('R7 inserted and updated in one batch: twice, deleted, inserted anew, moved', async t => {
  const world = await startPipeline(t, DDL, {FRESHET_FLUSH_MS: '500'});
  await world.caughtUp();
  const {pg} = world;
  await pg.query(
    `BEGIN; ${insert(1, 'twice')}; UPDATE docs SET title = 'x'; UPDATE docs SET title = 'y'; COMMIT`,
  );
  await pg.query(insert(2, 'deleted'));
  await pg.query(`UPDATE docs SET title = 'seen' WHERE id = 2`);
  await pg.query('DELETE FROM docs WHERE id = 2');
  await pg.query(
    `${insert(3, 'anew')}; UPDATE docs SET title = 'old' WHERE id = 3; DELETE FROM docs WHERE id = 3`,
  );
  await pg.query(`INSERT INTO docs (id, title, body, list) VALUES (3, 'new', 'small', '{}')`);
  await pg.query(`UPDATE docs SET title = 'newer' WHERE id = 3`);
  await pg.query(`BEGIN; ${insert(4, 'moved')}; UPDATE docs SET id = 5 WHERE id = 4; COMMIT`);
  await pg.query(`UPDATE docs SET title = 'updated' WHERE id = 5`);
  await pg.query(
    `BEGIN; ${insert(6, 'x')}; UPDATE docs SET title = 'y' WHERE id = 6; UPDATE docs SET body = 'b' WHERE id = 6; COMMIT`,
  );
  t.deepEqual(...(await same(world)));
  t.deepEqual(await world.query('SELECT id, title FROM {an}.docs ORDER BY id'), [
    {id: 1, title: 'y'},
    {id: 3, title: 'newer'},
    {id: 5, title: 'updated'},
    {id: 6, title: 'y'},
  ]);
});

test('R7c keys change with large values unchanged: there, on, and back', async t => {
  const world = await startPipeline(t, `${DDL} ${insert(1, 'a')}; ${insert(2, 'b')}`);
  await world.caughtUp();
  const before = await larges(world);
  const {pg} = world;
  await pg.query('UPDATE docs SET id = id + 10');
  await world.caughtUp();
  t.deepEqual(await larges(world), before);
  await pg.query('BEGIN; UPDATE docs SET id = id + 10; UPDATE docs SET id = id - 20; COMMIT');
  await pg.query('UPDATE docs SET id = 3 WHERE id = 1');
  await pg.query('UPDATE docs SET id = 1 WHERE id = 2');
  await pg.query('UPDATE docs SET id = 2 WHERE id = 3'); // the two have changed places
  t.deepEqual(...(await same(world)));
  t.deepEqual(await larges(world), before);
});

test('R7 in one batch the newest image before a row counts, and never that of another row', async t => {
  const {pg, query, caughtUp} = await startPipeline(
    t,
    `CREATE TABLE o (id int PRIMARY KEY, n int, body text); ALTER TABLE o ALTER body SET STORAGE EXTERNAL;
     INSERT INTO o SELECT i, 0, repeat(i::text, 5000) FROM generate_series(1, 3) i`,
  );
  await caughtUp();
  await pg.query(`BEGIN; UPDATE o SET n = 1 WHERE id = 1; UPDATE o SET body = repeat('new', 2000) WHERE id = 1;
    UPDATE o SET n = 2 WHERE id = 1; COMMIT`);
  // Another row comes to the key that one has just left.
  await pg.query(`BEGIN; UPDATE o SET n = 1 WHERE id = 2; UPDATE o SET id = 20 WHERE id = 2;
    UPDATE o SET id = 2 WHERE id = 3; UPDATE o SET n = 5 WHERE id = 2; COMMIT`);
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, n, hex(MD5(assumeNotNull(body))) AS body FROM {an}.o ORDER BY id'),
    (await pg.query('SELECT id, n, upper(md5(body)) AS body FROM o ORDER BY id')).rows,
  );
});

test('R7 updated, then deleted, while ClickHouse knows the row', async t => {
  const world = await startPipeline(t, `${DDL} ${insert(1, 'a')}; ${insert(2, 'b')}`, {
    FRESHET_FLUSH_MS: '500',
  });
  await world.caughtUp();
  await world.pg.query(`UPDATE docs SET title = 'x'`);
  await world.pg.query('DELETE FROM docs WHERE id = 1');
  await world.pg.query(`UPDATE docs SET id = 9, title = 'z' WHERE id = 2`);
  await world.pg.query('DELETE FROM docs WHERE id = 9');
  await world.pg.query(`UPDATE docs SET title = 'gone'`);
  await world.caughtUp();
  t.deepEqual(await larges(world), {});
});

test('R8 a key that is itself stored out of line does not change', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE k (id text PRIMARY KEY, n int, body text) WITH (toast_tuple_target = 128);
     ALTER TABLE k ALTER id SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL;
     INSERT INTO k SELECT string_agg(md5(i::text), ''), 1, repeat('b', 9000) FROM generate_series(1, 75) i`,
  );
  await world.caughtUp();
  await world.pg.query('UPDATE k SET n = 2');
  await world.pg.query('UPDATE k SET n = 3');
  await world.caughtUp();
  const {rows} = await world.pg.query('SELECT upper(md5(id)) AS id, n, length(body)::text AS body FROM k');
  t.deepEqual(await world.query('SELECT hex(MD5(id)) AS id, n, length(body) AS body FROM {an}.k'), rows);
  await world.pg.query('DELETE FROM k');
  await world.caughtUp();
  t.deepEqual(await world.query('SELECT n FROM {an}.k'), []);
});
