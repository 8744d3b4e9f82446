import test from 'ava';
import {verify} from '../reconcile/verify.ts';
import {startPipeline, type World} from '../test-support/start-pipeline.ts';
import {captured, compare} from './testing/compare.ts';

type Record_ = readonly [id: number, column: string, value: string];

/** The records behind `from`, each with the version of the row that ClickHouse shows or showed. */
async function recorded({query}: World, from: number): Promise<{records: Record_[]; strays: unknown[]}> {
  const found = await query(
    `SELECT toInt32(extract(key, '"id":(\\\\d+)')) AS id, column_name AS column, value,
       (id, r.version) IN (SELECT id, _version FROM {cdc}.public__r) AS known
     FROM {cdc}._rejects AS r WHERE schema_name = 'public' AND table_name = 'r' AND reason != ''
     ORDER BY r.version, key, column`,
  );
  const later = found.slice(from);
  return {
    records: later.map(row => [Number(row.id), String(row.column), String(row.value)]),
    strays: later.filter(row => row.known !== 1),
  };
}

const SQUARE = `{${Array.from({length: 1000}, (_, i) => `{${i},${-i}}`).join(',')}}`;

for (const identity of ['DEFAULT', 'FULL']) {
  test(`T3 values without a place through the life of their rows, REPLICA IDENTITY ${identity}`, async t => {
    const world = await startPipeline(
      t,
      `CREATE TABLE r (id int PRIMARY KEY, d date, n numeric(5,1)[], big int[], s int NOT NULL DEFAULT 0)
         WITH (toast_tuple_target = 128);
       ALTER TABLE r ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY ${identity};
       INSERT INTO r VALUES (1, 'infinity', '{1,NaN}', NULL), (9, '2024-01-01', '{}', '{1}')`,
    );
    let seen = 0;
    const then = async (sql: string, ...records: Record_[]): Promise<void> => {
      await world.pg.query(sql);
      await world.caughtUp();
      const [table] = await captured(world);
      t.deepEqual((await compare(world, table!)).wrong, [], sql);
      t.deepEqual(await recorded(world, seen), {records, strays: []}, sql);
      seen += records.length;
    };
    const [bad, worse] = ['{1.0,NaN}', '{NaN,2.0,NaN}'];
    await then('', [1, 'd', 'infinity'], [1, 'n', bad]);
    await then("INSERT INTO r VALUES (2, 'infinity', '{1,NaN}')", [2, 'd', 'infinity'], [2, 'n', bad]);
    // A good value of the same row is there, and a row that is sent again is recorded again.
    await then("UPDATE r SET s = 1, d = '2024-01-01' WHERE id = 2", [2, 'n', bad]);
    await then("UPDATE r SET n = '{1,2}' WHERE id = 2");
    t.deepEqual(await world.query('SELECT d, n FROM {an}.r WHERE id = 2'), [{d: '2024-01-01', n: [1, 2]}]);
    await then(
      "UPDATE r SET n = '{NaN,2,NaN}' WHERE id < 9",
      [1, 'd', 'infinity'],
      [1, 'n', worse],
      [2, 'n', worse],
    );
    await then(
      `INSERT INTO r VALUES (3, '1899-12-31', '{}', '${SQUARE}')`,
      [3, 'big', SQUARE],
      [3, 'd', '1899-12-31'],
    );
    // PostgreSQL does not send the large value again, but under FULL.
    const again: Record_[] = identity === 'FULL' ? [[3, 'big', SQUARE]] : [];
    await then('UPDATE r SET s = 3 WHERE id = 3', ...again, [3, 'd', '1899-12-31']);
    await then('UPDATE r SET id = 4 WHERE id = 3', [4, 'big', SQUARE], [4, 'd', '1899-12-31']);
    await then("UPDATE r SET big = '{7}', d = NULL WHERE id = 4");
    await then(`UPDATE r SET big = '${SQUARE}' WHERE id = 4`, [4, 'big', SQUARE]);
    await then('DELETE FROM r WHERE id IN (2, 4)');
    const verdicts = await verify({client: world.ch, settings: world.settings});
    t.deepEqual(
      verdicts.map(({table, verdict, rows}) => [table, verdict, rows.clickhouse]),
      [['public.r', 'equal', 2n]],
    );
  });
}
