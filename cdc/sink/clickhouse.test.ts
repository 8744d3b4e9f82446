import test from 'ava';
import {makeWorld} from '../test-support/start-pipeline.ts';

test('times before 1970 come first however often a query has run', async t => {
  const {query} = await makeWorld(t, 'SELECT 1');
  // ClickHouse compiles what has run three times.
  for (let times = 0; times < 6; times++)
    t.deepEqual(
      await query(
        `SELECT toString(min(at)) AS first, toString(max(at)) AS last
         FROM VALUES('k Int64, at DateTime64(6, \\'UTC\\')', (1, '1950-03-01 12:00:00'), (1, '2025-03-01 12:00:00')) GROUP BY k`,
      ),
      [{first: '1950-03-01 12:00:00.000000', last: '2025-03-01 12:00:00.000000'}],
    );
});
