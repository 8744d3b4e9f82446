import test from 'ava';
import {loadSettings} from '../settings/settings.ts';
import {connect} from '../source/postgres.ts';
import {planTables} from '../source/tables.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {TYPES_SQL, typesUnderTest} from '../types/testing/every-type.ts';
import {sourceKey, sourceTable, withKeys} from './checksum.ts';
import {keyJson, keyParameters} from './keys.ts';
import {rangePieces} from './pieces.ts';
import {typesOfKey} from './verify-table.ts';

test('every type that can be a key: its text for comparisons finds the row, by the index where it can', async t => {
  const {types, extensions} = await typesUnderTest(t);
  const {pg, environment} = await makeWorld(
    t,
    `${extensions.map(name => `CREATE EXTENSION ${name};`).join('')} ${TYPES_SQL} CREATE TABLE a (id int PRIMARY KEY)`,
  );
  let keys = 0;
  for (const [i, {sql, samples}] of types.entries()) {
    // A type without an order has no primary key.
    const made = await pg
      .query(
        `CREATE TABLE "k ${i}" (before int, k ${sql}, "an ""other" int DEFAULT 1, PRIMARY KEY (k, "an ""other"))`,
      )
      .then(
        () => true,
        () => false,
      );
    if (!made) continue;
    keys += 1;
    for (const sample of samples)
      await pg.query({text: `INSERT INTO "k ${i}" (k) VALUES ($1) ON CONFLICT DO NOTHING`, values: [sample]});
  }
  t.true(keys > 40, `${keys}`);
  const settings = loadSettings(environment);
  const client = await connect({connectionString: settings.FRESHET_PG_URL, silenceMs: 0});
  t.teardown(() => client.end());
  const {rows: version} = await pg.query("SELECT current_setting('server_version_num')::int AS v");
  const {captured} = await planTables(client, settings, version[0].v);
  const found = captured.filter(({schema}) => schema.definition.key.length === 2);
  t.true(found.length > 40, `${found.length}`);
  const indexed = new Set<string>();
  for (const table of found) {
    const {rows} = await client.query<{key: string}>(
      `SELECT ${sourceKey(table)} AS key FROM ${sourceTable(table)}`,
    );
    // What ClickHouse cannot hold cannot be in a key.
    const all = rows
      .map(({key}) => key)
      .filter(key => !key.startsWith('n'))
      .sort();
    const name = `${table.schema.columns[1]!.type.name} ${JSON.stringify(all)}`;
    if (keyParameters(table.schema, all)) indexed.add(table.schema.columns[1]!.type.name);
    const values: unknown[] = [];
    const where = withKeys(
      table,
      await typesOfKey(client, table),
      all,
      list => `$${values.push(list)}::text[]`,
    );
    const again = await client.query<{key: string}>(
      `SELECT ${sourceKey(table)} AS key FROM ${sourceTable(table)} WHERE ${where}`,
      values,
    );
    t.deepEqual(again.rows.map(({key}) => key).sort(), all, name);
    for (const key of all) t.notThrows(() => JSON.parse(keyJson(table.schema, key)), name);
  }
  for (const type of ['int8', 'text', 'uuid', 'numeric', 'timestamptz', 'bytea', 'float8'])
    t.true(indexed.has(type), type);
  t.false(indexed.has('seg'));
});

test('ranges that are neighbours are one condition; the first and the last have no end', t => {
  const {pgIn, chIn} = rangePieces(['-5', '10', '20', '30'], {name: 'id', target: 'id'});
  t.is(pgIn(['-5']), `(("id" < '10'::bigint))`);
  t.is(pgIn(['30']), `(("id" >= '30'::bigint))`);
  t.is(pgIn(['20', '10']), `(("id" >= '10'::bigint AND "id" < '30'::bigint))`);
  t.is(chIn(['-5', '20']), "((`id` < toInt64('10')) OR (`id` >= toInt64('20') AND `id` < toInt64('30')))");
  t.is(pgIn(['-5', '10', '20', '30']), '(true)');
  t.is(pgIn([]), 'false');
});
