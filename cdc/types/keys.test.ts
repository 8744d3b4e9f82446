import test from 'ava';
import {pgLiteral} from '../source/table-schema.ts';
import {makeWorld, startPipeline} from '../test-support/start-pipeline.ts';
import {captured, compare} from './testing/compare.ts';
import {TYPES_SQL, type TypeUnderTest, typesUnderTest} from './testing/every-type.ts';

/** PostgreSQL takes 32 columns in a key. */
const COLUMNS_A_KEY = 24;
/** Beyond the limit of an index entry together with others, or no two rows apart. */
const MAX_LENGTH = 80;

test('each type that can be a key tells rows apart, by snapshot, stream and look-up', async t => {
  const {types, extensions} = await typesUnderTest(t);
  const setUp = [...extensions.map(name => `CREATE EXTENSION ${name};`), TYPES_SQL].join('\n');
  const {pg: catalog} = await makeWorld(t, setUp);
  const keys: TypeUnderTest[] = [];
  for (const {sql, samples} of types) {
    const fits = samples.filter(sample => sample.length <= MAX_LENGTH);
    const made = await catalog
      .query(`SELECT NULL::${sql} = NULL::${sql}; CREATE TEMP TABLE k (k ${sql} PRIMARY KEY)`)
      .catch(() => null);
    if (!made) continue;
    keys.push({sql, samples: fits});
    await catalog.query('DROP TABLE k');
  }
  t.true(keys.length > 80);
  const tables = Array.from({length: Math.ceil(keys.length / COLUMNS_A_KEY)}, (_, i) =>
    keys.slice(i * COLUMNS_A_KEY, (i + 1) * COLUMNS_A_KEY),
  );
  const create = tables.map((own, n) => {
    const columns = own.map(({sql}, i) => `k${i} ${sql}`).join(', ');
    const key = own.map((_, i) => `k${i}`).join(', ');
    const rows = Array.from({length: Math.max(...own.map(({samples}) => samples.length))}, (_, id) =>
      own.map(({sql, samples}) => `${pgLiteral(samples[id % samples.length]!)}::${sql}`),
    );
    return `CREATE TABLE keys${n} (${columns}, id int, big text, n int, PRIMARY KEY (${key}, id)) WITH (toast_tuple_target = 128);
      ALTER TABLE keys${n} ALTER big SET STORAGE EXTERNAL;
      INSERT INTO keys${n} VALUES ${rows.map((row, id) => `(${row.join(', ')}, ${id}, repeat('${id}', 3000), 0)`).join(', ')};`;
  });
  const world = await startPipeline(t, setUp + create.join('\n'));
  const schemas = async () => captured(world);
  const then = async (change: string): Promise<void> => {
    await world.pg.query(tables.map((_, n) => change.replaceAll('keys', `keys${n}`)).join('; '));
    await world.caughtUp();
    for (const table of await schemas()) t.deepEqual((await compare(world, table)).wrong, [], change);
  };
  await then('SELECT');
  await then('UPDATE keys SET n = id');
  await then('INSERT INTO keys SELECT * FROM keys WHERE false');
  await then('UPDATE keys SET id = id + 1000 WHERE id % 3 = 0');
  await then('DELETE FROM keys WHERE id % 2 = 0');
  await then('UPDATE keys SET n = 7');
});

test('a key is looked up in PostgreSQL by domains over enums and by types of extensions in any schema', async t => {
  const {extensions} = await typesUnderTest(t);
  if (!['citext', 'ltree'].every(name => extensions.includes(name))) {
    t.pass('no such extensions');
    return;
  }
  const world = await startPipeline(
    t,
    `CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext;
     CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN feeling AS mood; CREATE SCHEMA other;
     CREATE TYPE other.feeling AS (a int); CREATE DOMAIN never AS int NOT NULL;
     CREATE TABLE f (f feeling, p other.feeling, c ext.citext, l ext.ltree, big text, n never, PRIMARY KEY (f, p, c, l));
     ALTER TABLE f ALTER big SET STORAGE EXTERNAL;
     INSERT INTO f VALUES ('sad', '(1)', 'Ab', 'a.b', repeat('x', 3000), 1)`,
  );
  await world.caughtUp();
  for (const change of ["f = 'ok'", "p = '(2)'", "c = 'aB'", "l = 'b'"]) {
    await world.pg.query(`UPDATE f SET ${change}`);
    await world.caughtUp();
  }
  t.deepEqual(await world.query('SELECT f, p, c, l, length(big) AS n FROM {an}.f'), [
    {f: 'ok', p: '(2)', c: 'aB', l: 'b', n: '3000'},
  ]);
});
