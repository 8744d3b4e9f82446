import test from 'ava';
import pg from 'pg';
import {serveStatus} from '../observe/http.ts';
import {freshet} from '../test-support/command-line.ts';
import {startPipeline} from '../test-support/start-pipeline.ts';

test('status and the page tell of schema changes, of views that fail since, of tables that are read or parked', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE o (id int PRIMARY KEY, country text, total numeric(10,2)); INSERT INTO o SELECT i, 'DE', i FROM generate_series(1, 500) i;
     CREATE TABLE p (id int PRIMARY KEY); ANALYZE o`,
  );
  const {pg: source, ch, query, settings, environment} = world;
  const run = (...args: string[]) => freshet(t, environment, args);
  const stateOf = async (table: string): Promise<unknown> =>
    (await query(`SELECT state FROM {cdc}._tables FINAL WHERE table_name = '${table}'`))[0]?.state;
  await world.caughtUp();
  const fresh = await run('status');
  t.is(fresh.code, 0, fresh.stdout);
  t.regex(fresh.stdout, /^schema changes: announced by event triggers$/m);
  t.notRegex(fresh.stdout, /^when /m);

  const an = settings.FRESHET_ANALYTICS_DATABASE;
  await ch.command({
    query: `CREATE VIEW ${an}.by_country AS SELECT country, sum(total) AS s FROM ${an}.o GROUP BY country`,
  });
  await ch.command({query: `CREATE VIEW ${an}.top AS SELECT * FROM ${an}.by_country ORDER BY s`});
  await ch.command({query: `CREATE VIEW ${an}.mended AS SELECT count(country) AS n FROM ${an}.o`});
  await source.query('ALTER TABLE o DROP country');
  await world.caughtUp();
  await ch.command({query: `CREATE OR REPLACE VIEW ${an}.mended AS SELECT count() AS n FROM ${an}.o`});
  const failing = await run('status');
  t.is(failing.code, 1);
  t.regex(failing.stdout, /^[-\d]{10} [:\d]{8} +public\.o +column country was dropped +in place$/m);
  for (const view of ['by_country', 'top'])
    t.true(
      new RegExp(
        `^! view ${an}\\.${view} fails since public\\.o changed \\(column country was dropped\\): .*country.*\\n    change or drop it: DROP VIEW \`${an}\`\\.\`${view}\`;$`,
        'm',
      ).test(failing.stdout),
      failing.stdout,
    );
  t.notRegex(failing.stdout, /view \w+\.mended/);
  await ch.command({query: `DROP VIEW ${an}.top`});
  await ch.command({query: `DROP VIEW ${an}.by_country`});
  t.is((await run('status')).code, 0);

  // A reading waits for the transactions before it.
  const holder = new pg.Client(settings.FRESHET_PG_URL);
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('BEGIN; SELECT pg_current_xact_id()');
  await source.query('ALTER TABLE o ALTER total TYPE text');
  while ((await stateOf('o')) !== 'snapshot') await source.query('SELECT 1');
  const reading = await run('status');
  t.is(reading.code, 0, reading.stdout);
  t.regex(reading.stdout, /^public\.o +unknown .*being read, 0 of about 500 rows \(its rows were rew/m);
  t.regex(reading.stdout, /^\S+ \S+ +public\.o +its rows were rewritten +being read again$/m);
  await holder.query('COMMIT');
  while ((await stateOf('o')) !== 'streaming') await source.query('SELECT 1');
  t.regex((await run('status')).stdout, /public\.o +its rows were rewritten +read again$/m);

  await source.query('ALTER TABLE p DROP CONSTRAINT p_pkey');
  while ((await stateOf('p')) !== 'parked') await source.query('SELECT 1');
  const parked = await run('status');
  t.is(parked.code, 1);
  t.regex(
    parked.stdout,
    /^! public\.p is parked: it has no primary key.*ADD PRIMARY KEY.*\n {4}.*mend it at the source/im,
  );
  const {port, close} = await serveStatus(ch, settings, 0);
  t.teardown(close);
  const page = await (await fetch(`http://127.0.0.1:${port}/`)).text();
  t.regex(page, /<p class="late">public\.p is parked: /);
  t.regex(page, /<h2>Schema changes<\/h2>.*column country was dropped/s);

  await source.query(`DROP EVENT TRIGGER ddl_${settings.FRESHET_SLOT}_rewrite`);
  t.regex(
    (await run('status')).stdout,
    /^schema changes: found by looking at the catalog every 2 s; .* freshet triggers \| psql/m,
  );

  await world.stop();
  const cdc = settings.FRESHET_CLICKHOUSE_DATABASE;
  await ch.command({query: `TRUNCATE TABLE ${cdc}._watermarks`});
  await ch.command({
    query: `INSERT INTO ${cdc}._rollup_watermark (one, complete_up_to) VALUES (0, '2020-01-01 12:34:56')`,
  });
  const {code, stdout} = await run('status');
  t.is(code, 1);
  t.regex(stdout, /^! public\.o is unknown: no watermark has arrived yet$/m);
  t.regex(stdout, /^! metrics is late: \d+ s behind/m);
});
