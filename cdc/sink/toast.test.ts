import test from 'ava';
import {type Corner, sharePipeline} from '../test-support/share-pipeline.ts';
import {startPipeline, transport} from '../test-support/start-pipeline.ts';
import {Registry} from './registry.ts';
import {inPieces} from './toast-pieces.ts';

/** Rows wait a while for their insert, so that what belongs to one batch comes into one. */
const shared = sharePipeline(test, {FRESHET_FLUSH_MS: '300'});

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
async function same({pg, query, caughtUp}: Corner): Promise<[unknown, unknown]> {
  await caughtUp();
  return [await query(TEXT), (await pg.query(PG_TEXT)).rows];
}

/** Digests of the large values of rows that were sent whole, by title. */
async function larges({query}: Corner): Promise<Record<string, unknown>> {
  return Object.fromEntries((await query(ROWS)).map(({title, large}) => [String(title), large]));
}

for (const identity of ['DEFAULT', 'FULL']) {
  const corner = shared.corner(`${DDL} ALTER TABLE docs REPLICA IDENTITY ${identity}; ${insert(1, 'read')}`);
  test(`R7 an update leaves large values alone, identity ${identity}`, async t => {
    const world = await corner(t);
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

const switched = shared.corner(`${DDL} ALTER TABLE docs REPLICA IDENTITY FULL; ${insert(1, 'a')}`);
test('R7 the identity changes from FULL to DEFAULT and back while changes stream', async t => {
  const world = await switched(t);
  const {a} = await larges(world);
  for (const identity of ['DEFAULT', 'FULL', 'DEFAULT']) {
    await world.pg.query(`UPDATE docs SET title = title || '${identity}'`);
    await world.pg.query(`ALTER TABLE docs REPLICA IDENTITY ${identity}`);
    await world.pg.query(`UPDATE docs SET title = 'a'`);
  }
  t.deepEqual(...(await same(world)));
  t.deepEqual(await larges(world), {a});
});

const oneBatch = shared.corner(DDL);
test('R7 inserted and updated in one batch: twice, deleted, inserted anew, moved', async t => {
  const world = await oneBatch(t);
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

const moving = shared.corner(`${DDL} ${insert(1, 'a')}; ${insert(2, 'b')}`);
test('R7c keys change with large values unchanged: there, on, and back', async t => {
  const world = await moving(t);
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

const newest =
  shared.corner(`CREATE TABLE o (id int PRIMARY KEY, n int, body text); ALTER TABLE o ALTER body SET STORAGE EXTERNAL;
  INSERT INTO o SELECT i, 0, repeat(i::text, 5000) FROM generate_series(1, 3) i`);
test('R7 in one batch the newest image before a row counts, and never that of another row', async t => {
  const {pg, query, caughtUp} = await newest(t);
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

const vanishing = shared.corner(`${DDL} ${insert(1, 'a')}; ${insert(2, 'b')}`);
test('R7 updated, then deleted, while ClickHouse knows the row', async t => {
  const world = await vanishing(t);
  await world.pg.query(`UPDATE docs SET title = 'x'`);
  await world.pg.query('DELETE FROM docs WHERE id = 1');
  await world.pg.query(`UPDATE docs SET id = 9, title = 'z' WHERE id = 2`);
  await world.pg.query('DELETE FROM docs WHERE id = 9');
  await world.pg.query(`UPDATE docs SET title = 'gone'`);
  await world.caughtUp();
  t.deepEqual(await larges(world), {});
});

const largeKey =
  shared.corner(`CREATE TABLE k (id text PRIMARY KEY, n int, body text) WITH (toast_tuple_target = 128);
  ALTER TABLE k ALTER id SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL;
  INSERT INTO k SELECT string_agg(md5(i::text), ''), 1, repeat('b', 9000) FROM generate_series(1, 75) i`);
test('R8 a key that is itself stored out of line does not change', async t => {
  const world = await largeKey(t);
  await world.pg.query('UPDATE k SET n = 2');
  await world.pg.query('UPDATE k SET n = 3');
  await world.caughtUp();
  const {rows} = await world.pg.query('SELECT upper(md5(id)) AS id, n, length(body)::text AS body FROM k');
  t.deepEqual(await world.query('SELECT hex(MD5(id)) AS id, n, length(body) AS body FROM {an}.k'), rows);
  await world.pg.query('DELETE FROM k');
  await world.caughtUp();
  t.deepEqual(await world.query('SELECT n FROM {an}.k'), []);
});

const halfLarge = shared.corner(`
  CREATE TABLE p (a text, b int, n int, body text, PRIMARY KEY (a, b)) WITH (toast_tuple_target = 128);
  ALTER TABLE p ALTER a SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL;
  INSERT INTO p VALUES ('', 1, 0, 'never touched')`);
test('R8 the large part of a key stays, the other part changes; and its row is gone before it is looked up', async t => {
  const {pg, query, caughtUp} = await halfLarge(t);
  const large = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 60) i)`;
  await pg.query(
    `INSERT INTO p VALUES (${large}, 1, 1, repeat('b', 9000)), (${large}, 7, 7, repeat('c', 9000))`,
  );
  await pg.query('UPDATE p SET b = 2, n = 2 WHERE n = 1');
  await caughtUp();
  // Inserted, changed and gone before anybody looks: the row that has '' in its key must not suffer for it.
  await pg.query(`INSERT INTO p VALUES (${large}, 3, 3, repeat('d', 9000)); UPDATE p SET b = 1 WHERE n = 3;
    UPDATE p SET n = 4 WHERE n = 3; DELETE FROM p WHERE n = 4`);
  await pg.query('UPDATE p SET b = 8 WHERE n = 7; DELETE FROM p WHERE n = 7');
  await caughtUp();
  t.deepEqual(
    await query(
      'SELECT hex(MD5(a)) AS a, b, n, hex(MD5(assumeNotNull(body))) AS body FROM {an}.p ORDER BY b',
    ),
    (await pg.query('SELECT upper(md5(a)) AS a, b, n, upper(md5(body)) AS body FROM p ORDER BY b')).rows,
  );
});

const refused = shared.corner(`
  CREATE TABLE x (id int PRIMARY KEY, n int, body text, price numeric(10,2), grid int[]);
  ALTER TABLE x ALTER body SET STORAGE EXTERNAL, ALTER grid SET STORAGE EXTERNAL;
  INSERT INTO x SELECT i, 0, repeat('old', 3000), 1, NULL FROM generate_series(1, 3) i`);
test('R7 rows with values that ClickHouse cannot hold stand before it in the batch, and come from PostgreSQL', async t => {
  const {pg, query, caughtUp, schema} = await refused(t);
  await pg.query(`BEGIN; UPDATE x SET body = repeat('new', 3000), price = 'NaN' WHERE id = 1;
    UPDATE x SET n = 1 WHERE id = 1; COMMIT`);
  // An array of two dimensions is NULL in ClickHouse; so it stays, wherever its value is taken from.
  const grid = 'ARRAY(SELECT i FROM generate_series(1, 2000) i)';
  await pg.query(`UPDATE x SET grid = ARRAY[${grid}, ${grid}], body = repeat('2', 9000) WHERE id = 2`);
  await pg.query('UPDATE x SET n = 2 WHERE id = 2');
  await pg.query('UPDATE x SET n = 3, id = 20 WHERE id = 2');
  await caughtUp();
  t.deepEqual(
    await query('SELECT id, n, hex(MD5(assumeNotNull(body))) AS body, price FROM {an}.x ORDER BY id'),
    (
      await pg.query(
        `SELECT id, n, upper(md5(body)) AS body, nullif(price, 'NaN')::float8 AS price FROM x ORDER BY id`,
      )
    ).rows,
  );
  t.deepEqual(
    await query(
      `SELECT DISTINCT key, column_name, value LIKE '%1999,2000},{1,2,%' AS grid FROM {cdc}._rejects WHERE schema_name = '${schema}' ORDER BY length(key), key`,
    ),
    [
      {key: '{"id":1}', column_name: 'price', grid: 0},
      {key: '{"id":2}', column_name: 'grid', grid: 1},
      {key: '{"id":20}', column_name: 'grid', grid: 1},
    ],
  );
});

const large = shared.corner(`CREATE TABLE l (id int PRIMARY KEY, n int NOT NULL, body text NOT NULL);
  ALTER TABLE l ALTER body SET STORAGE EXTERNAL;
  INSERT INTO l SELECT i, 0, repeat(chr(65 + i % 26), 500000) FROM generate_series(1, 40) i;
  INSERT INTO l SELECT i, 0, repeat(chr(65 + i % 26), 5000) FROM generate_series(101, 300) i`);
test('R7 small changes of many large rows: what is looked up at a time is bounded by bytes', async t => {
  const {pg, ch, settings, query, caughtUp, schema} = await large(t);
  await caughtUp();
  const registry = new Registry(ch, settings);
  const row = (await registry.tables()).find(({schema_name}) => schema_name === schema)!;
  const rows = Array.from({length: 40}, (_, i) => ({
    key: `{"id":${i + 1}}`,
    keyText: `{"id":"${i + 1}"}`,
    unchanged: i % 20 === 0 ? [] : ['body'],
    moved: false,
    version: 0n,
    xid: 0,
    members: new Map<string, string>(),
    rejects: [],
  }));
  const pieces = await inPieces(ch, settings, await registry.schema(row.schema_id), rows);
  t.deepEqual(
    pieces.map(piece => piece.length),
    [17, 17, 6], // 8 MiB is 16 rows of half a million bytes
  );
  t.deepEqual(pieces.flat(), rows);
  await pg.query(`BEGIN; UPDATE l SET n = n + 1; UPDATE l SET id = id + 1000 WHERE id > 30;
    UPDATE l SET n = n + 1 WHERE id % 3 = 0; COMMIT`);
  await caughtUp();
  t.deepEqual(
    await query(`SELECT id, n, hex(MD5(body)) AS body FROM {an}.l ORDER BY id`),
    (await pg.query('SELECT id, n, upper(md5(body)) AS body FROM l ORDER BY id')).rows,
  );
});

for (const way of new Set(['direct', transport()])) {
  test(`R7 one UPDATE of thousands of rows looks up more keys than a statement of ClickHouse usually holds (${way})`, async t => {
    const {pg, query, caughtUp} = await startPipeline(
      t,
      `CREATE TABLE many (id uuid PRIMARY KEY, flag bool, body text); ALTER TABLE many ALTER body SET STORAGE EXTERNAL;
       INSERT INTO many SELECT gen_random_uuid(), false, repeat(chr(65 + i % 26), 2100) FROM generate_series(1, 10000) i`,
      {FRESHET_TRANSPORT: way},
    );
    await caughtUp();
    await pg.query('UPDATE many SET flag = true');
    await caughtUp();
    const large = 'SELECT flag, length(body) AS length, left(body, 1) AS letter, count(*)';
    t.deepEqual(
      await query(`${large} AS count FROM {an}.many GROUP BY 1, 2, 3 ORDER BY letter`),
      (await pg.query(`${large} FROM many GROUP BY 1, 2, 3 ORDER BY letter`)).rows.map(row => ({
        ...row,
        length: String(row.length),
      })),
    );
  });
}
