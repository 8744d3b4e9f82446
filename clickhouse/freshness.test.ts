import test from 'ava';
import {migrate} from './migrate.ts';
import {testWarehouse} from './testing/warehouse.ts';

/** Seconds ago of its watermark, its newest commit and the newest batch that is visible; null where there is none. */
type Case = {
  state: 'snapshot' | 'streaming' | 'parked';
  complete: number | null;
  newest?: number;
  visible?: number;
  /** Dead letters that nobody has seen to. */
  letters?: number;
  shows: {state: string; reason: RegExp; known: boolean};
};

const CASES: Record<string, Case> = {
  fresh: {
    state: 'streaming',
    complete: 1,
    newest: 2,
    visible: 2,
    shows: {state: 'ok', reason: /^$/, known: true},
  },
  behind: {
    state: 'streaming',
    complete: 400,
    newest: 400,
    visible: 400,
    shows: {state: 'late', reason: /^40\d s behind$/, known: true},
  },
  // Its newest change is no row: a TRUNCATE, or a dead letter that was dropped.
  emptied: {
    state: 'streaming',
    complete: 1,
    newest: 100,
    visible: 200,
    shows: {state: 'ok', reason: /^$/, known: true},
  },
  // Not shown yet either, but too young to be called late.
  underway: {
    state: 'streaming',
    complete: 3,
    newest: 2,
    visible: 50,
    shows: {state: 'ok', reason: /^$/, known: true},
  },
  // Complete up to now, but for those.
  lacking: {
    state: 'streaming',
    complete: 1,
    newest: 2,
    visible: 2,
    letters: 2,
    shows: {
      state: 'late',
      reason: /^changes that could not be applied: 2; see freshet dead-letter list$/,
      known: true,
    },
  },
  quiet: {
    state: 'streaming',
    complete: 1,
    newest: 4000,
    visible: 4000,
    shows: {state: 'idle', reason: /^no change since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/, known: true},
  },
  untouched: {
    state: 'streaming',
    complete: 1,
    shows: {state: 'idle', reason: /^no change so far$/, known: true},
  },
  // Its newest batch has left the log of batches.
  forgotten: {
    state: 'streaming',
    complete: 1,
    newest: 4000,
    shows: {state: 'idle', reason: /^no change since/, known: true},
  },
  reading: {
    state: 'snapshot',
    complete: 1,
    visible: 5,
    shows: {state: 'unknown', reason: /^its snapshot is not finished$/, known: false},
  },
  unmarked: {
    state: 'streaming',
    complete: null,
    visible: 5,
    shows: {state: 'unknown', reason: /^no watermark has arrived yet$/, known: false},
  },
  refused: {
    state: 'parked',
    complete: 4000,
    newest: 1,
    visible: 4000,
    shows: {state: 'parked', reason: /^NULL for a NOT NULL column$/, known: true},
  },
};

test('late, idle, unknown and parked are different things', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await migrate(warehouse);
  const ago = (seconds: number | null | undefined) =>
    seconds == null ? 'NULL' : `now64(6) - toIntervalSecond(${seconds})`;
  for (const [table, {state, complete, newest, visible}] of Object.entries(CASES)) {
    // Older rows first: the views must take the newest of each key.
    await warehouse.run(`INSERT INTO {cdc}._tables SELECT 'public', '${table}', '', 'snapshot', '', 0, 1, '', ${ago(9000)};
      INSERT INTO {cdc}._tables SELECT 'public', '${table}', '', '${state}',
        '${state === 'parked' ? 'NULL for a NOT NULL column' : ''}', 0, 1, '', ${ago(0)};`);
    if (complete !== null) {
      await warehouse.run(`INSERT INTO {cdc}._watermarks SELECT 'public', '${table}', 1, ${ago(8000)}, NULL, ${ago(9000)};
        INSERT INTO {cdc}._watermarks SELECT 'public', '${table}', 2, ${ago(complete)}, ${ago(newest)}, ${ago(0)};`);
    }
    if (visible !== undefined) {
      await warehouse.run(`INSERT INTO {cdc}._freshness SELECT 'public', '${table}',
        ${ago(visible)}, ${ago(visible)}, ${ago(visible)}, 7, 70;`);
    }
  }
  // Of a table without any, those that were seen to.
  for (const table of Object.keys(CASES))
    for (const state of ['open', 'retried', 'dropped', 'superseded'])
      await warehouse.run(`INSERT INTO {cdc}._dead_letters (schema_name, table_name, topic_partition, topic_offset, version, state, updated_at)
        SELECT 'public', '${table}', 0, number, number + ${state.length}, '${state}', now64(6)
        FROM numbers(${state === 'open' ? (CASES[table]!.letters ?? 0) : 1})`);
  const rows = await warehouse.rows<Record<string, string | number | null>>(
    'SELECT * FROM {analytics}.data_freshness',
  );
  t.deepEqual(
    rows.map(row => row.table_name).sort(),
    Object.keys(CASES)
      .map(table => `public.${table}`)
      .sort(),
  );
  for (const row of rows) {
    const {shows, complete, newest, visible} = CASES[String(row.table_name).slice('public.'.length)]!;
    t.is(row.state, shows.state, `${row.table_name}`);
    t.regex(String(row.reason), shows.reason, `${row.table_name}`);
    t.is(row.complete_up_to !== null, shows.known, `${row.table_name}`);
    if (shows.known) t.true(Number(row.seconds_behind) >= complete!);
    else t.is(row.seconds_behind, null);
    // A newest commit that lies before the watermark is shown, also where no batch of it is on record any more.
    const passed = shows.known && newest != null && complete! <= newest;
    t.is(row.newest_visible === null, visible === undefined && !passed, `${row.table_name}`);
    t.is(row.rows_last_5_min, visible !== undefined && visible < 300 ? '7' : '0', `${row.table_name}`);
  }
});

test('lag is that of the newest batch, its percentile that of the last minutes', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await migrate(warehouse);
  await warehouse.run(`INSERT INTO {cdc}._tables SELECT 'public', 'orders', '', 'streaming', '', 0, 1, '', now64(6);
    INSERT INTO {cdc}._freshness
    WITH now64(6) AS now, now - toIntervalSecond(age) AS visible
    SELECT 'public', 'orders', visible, visible - toIntervalMillisecond(worst), visible - toIntervalMillisecond(best), 10, 1
    FROM VALUES('age UInt32, best UInt32, worst UInt32', (20, 300, 400), (10, 250, 1400), (60, 1000, 2400), (3000, 90000, 90000));`);
  const [row] = await warehouse.rows<Record<string, unknown>>(
    `SELECT round(lag_seconds, 6) AS lag, round(p95_lag_seconds, 6) AS p95, rows_last_5_min AS rows,
      newest_visible = (SELECT max(newest_commit) FROM {cdc}._freshness) AS newest FROM {analytics}.data_freshness`,
  );
  // Between 1.4 and 2.4, nine tenths of the way.
  t.deepEqual(row, {lag: 0.25, p95: 2.3, rows: '30', newest: 1});
});
