import test from 'ava';
import {skip} from '../scripts/stack/skip.ts';
import {testedVersion} from './test-support/server-version.ts';
import {startPipeline} from './test-support/start-pipeline.ts';

const version = await testedVersion();

const TABLE = `CREATE TABLE t (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED
  ${version >= 180_000 ? ', v int GENERATED ALWAYS AS (a * 3) VIRTUAL' : ''}, b text);
  INSERT INTO t (id, a, b) VALUES (1, 10, 'read')`;
const WITH = 'WITH (publish_via_partition_root)';

/** Publications that leave generated columns to the server; `stored` where it then sends those that are stored. */
const PUBLICATIONS: Readonly<Record<string, {since?: number; sql: string; stored?: boolean}>> = {
  'made by the pipeline': {sql: '', stored: version >= 180_000},
  'of the table': {sql: `CREATE PUBLICATION {p} FOR TABLE t ${WITH}`},
  'of all tables': {sql: `CREATE PUBLICATION {p} FOR ALL TABLES ${WITH}`},
  'of a schema': {since: 150_000, sql: `CREATE PUBLICATION {p} FOR TABLES IN SCHEMA public ${WITH}`},
  'with a list that names one': {
    since: 180_000,
    sql: `CREATE PUBLICATION {p} FOR TABLE t (id, a, s, b) ${WITH}`,
    stored: true,
  },
};

for (const [what, {since = 0, sql, stored = false}] of Object.entries(PUBLICATIONS)) {
  test(`Versions: generated columns arrive where the server sends them, by a publication ${what}`, async t => {
    if (version < since) return skip(t, `PostgreSQL ${since / 10_000} is needed`);
    const slot = `g${process.pid}_${Object.keys(PUBLICATIONS).indexOf(what)}`;
    const world = await startPipeline(t, `${TABLE}; ${sql.replace('{p}', slot)}`, {
      FRESHET_PUBLICATION: slot,
    });
    await world.caughtUp();
    await world.pg.query(`INSERT INTO t (id, a, b) VALUES (2, 20, 'sent'); UPDATE t SET a = 11 WHERE id = 1`);
    await world.caughtUp();
    t.deepEqual(await world.query('SELECT * FROM {an}.t ORDER BY id'), [
      {id: 1, a: 11, ...(stored && {s: 22}), b: 'read'},
      {id: 2, a: 20, ...(stored && {s: 40}), b: 'sent'},
    ]);
  });
}
