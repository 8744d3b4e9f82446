import test from 'ava';
import {Client} from 'pg';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {readCatalog} from './catalog.ts';
import {readServerVersion} from './postgres.ts';
import {beginReading, rowsByKey} from './rows-by-key.ts';
import {capturedTable, planTable} from './tables.ts';

test('another table takes the name while a row is looked up: the row is found under its new name', async t => {
  const {pg, settings} = await makeWorld(
    t,
    "CREATE TABLE a (id numeric PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'one')",
  );
  const version = await readServerVersion(pg);
  const [source] = await readCatalog(pg, settings, version);
  const {schema} = planTable(source!, settings, version, true);
  const {definition} = capturedTable(schema!, source!).schema;
  const reader = new Client(settings.FRESHET_PG_URL);
  await reader.connect();
  t.teardown(() => reader.end());
  await pg.query('BEGIN; ALTER TABLE a RENAME TO b; CREATE TABLE a (id timestamptz PRIMARY KEY, v text)');
  const reading = beginReading(reader, definition.oid);
  const other = new Client(settings.FRESHET_PG_URL);
  await other.connect();
  await until(async () => {
    const {rows} = await other.query('SELECT FROM pg_locks WHERE NOT granted AND relation = $1', [
      definition.oid,
    ]);
    return rows.length > 0;
  });
  await other.end();
  await pg.query('COMMIT');
  await reading;
  t.deepEqual([...(await rowsByKey(reader, definition, ['v'], ['{"id":"1"}']))], [['{"id":"1"}', ['one']]]);
  await reader.query('COMMIT');
  await pg.query('DROP TABLE b');
  await beginReading(reader, definition.oid);
  t.deepEqual([...(await rowsByKey(reader, definition, ['v'], ['{"id":"1"}']))], []);
});
