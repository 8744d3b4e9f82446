import test, {type ExecutionContext} from 'ava';
import pg from 'pg';
import {exitCode, verify} from '../reconcile/verify.ts';
import {command} from '../sink/clickhouse.ts';
import {freshet} from '../test-support/command-line.ts';
import {type Running, startPipeline} from '../test-support/start-pipeline.ts';

/** The state of a table as the pipeline writes it down. */
const stateOf = async ({query}: Running, table: string): Promise<unknown> =>
  (await query(`SELECT state FROM {cdc}._tables FINAL WHERE table_name = '${table}'`))[0]?.state;

async function equal(t: ExecutionContext, {ch, settings, caughtUp}: Running): Promise<void> {
  await caughtUp();
  const verdicts = await verify({client: ch, settings});
  t.is(exitCode(verdicts), 0, JSON.stringify(verdicts.map(({table, verdict}) => [table, verdict])));
}

test('resync reads tables again: wrong rows are gone afterwards, and readers never see less than there is', async t => {
  const running = await startPipeline(
    t,
    `CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 20000) i;
     CREATE TABLE "it*ems" (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)`,
  );
  const {ch, query, environment, settings} = running;
  await running.caughtUp();
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__items`;
  // From nowhere, changed, and deleted, at a version above all that PostgreSQL will ever write.
  await command(
    ch,
    `INSERT INTO ${target} SELECT * REPLACE (if(id = 1, 90000, id) AS id, 'wrong' AS v, id = 3 AS _is_deleted, bitShiftLeft(toUInt128(9), 120) AS _version)
     FROM (SELECT * FROM ${target} FINAL WHERE id <= 3)`,
  );
  const refused = await freshet(t, environment, ['resync', 'public.items', 'public.itms', 'x.*']);
  t.is(refused.code, 1);
  t.regex(
    refused.stderr,
    /no such table: public\.itms, x\.\*\n.*knows public\.it\*ems, public\.items, public\.other\n/,
  );
  t.is((await query('SELECT * FROM {an}.items WHERE v = $$wrong$$')).length, 2);

  let least = Number.POSITIVE_INFINITY;
  let over = false;
  const reading = (async () => {
    while (!over) {
      const [row] = await query('SELECT count() AS n FROM {an}.items');
      least = Math.min(least, Number(row?.n));
    }
  })();
  const {code, stdout, stderr} = await freshet(t, environment, ['resync', 'public.items', '--wait']);
  over = true;
  await reading;
  t.is(code, 0, stdout + stderr);
  t.regex(stdout, /^public\.items: read again beside the stream/m);
  t.regex(stdout, /✓ public\.items was read, and streams\n$/);
  t.true(least >= 20_000, String(least));
  await equal(t, running);
  t.deepEqual(await query("SELECT count() AS n, countIf(v = 'wrong') AS wrong FROM {an}.items"), [
    {n: '20000', wrong: '0'},
  ]);
  // A name stands for itself before it is a pattern.
  const one = await freshet(t, environment, ['resync', 'public.it*ems', '--wait']);
  t.regex(one.stdout, /^public\.it\*ems: read again/);
  const generations = await query(
    'SELECT table_name AS t, max(generation) AS g FROM {cdc}._schema_changes FINAL GROUP BY t ORDER BY t',
  );
  t.deepEqual(generations, [
    {t: 'it*ems', g: 2},
    {t: 'items', g: 2},
    {t: 'other', g: 1},
  ]);
});

test('resync brings back a table that is parked, and refuses one that cannot be captured', async t => {
  const running = await startPipeline(
    t,
    'CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items VALUES (1, $$one$$); CREATE TABLE other (id int PRIMARY KEY)',
  );
  const {ch, query, environment, settings, log} = running;
  await running.caughtUp();
  await command(ch, `DROP TABLE ${settings.FRESHET_CLICKHOUSE_DATABASE}.public__items SYNC`);
  await running.pg.query('ALTER TABLE items ADD n int DEFAULT 7');
  while ((await stateOf(running, 'items')) !== 'parked')
    t.is(
      log.lines.find(l => /halt/.test(l)),
      undefined,
    );
  await running.pg.query("INSERT INTO items VALUES (2, 'two', 2); INSERT INTO other VALUES (1)");
  const {code, stdout, stderr} = await freshet(t, environment, ['resync', 'public.*', '--wait']);
  t.is(code, 0, stdout + stderr);
  await equal(t, running);
  t.deepEqual(await query('SELECT * FROM {an}.items ORDER BY id'), [
    {id: 1, v: 'one', n: 7},
    {id: 2, v: 'two', n: 2},
  ]);

  await running.pg.query('ALTER TABLE items DROP CONSTRAINT items_pkey');
  while ((await stateOf(running, 'items')) !== 'parked') await query('SELECT 1');
  const refused = await freshet(t, environment, ['resync', 'public.*']);
  t.is(refused.code, 1);
  t.regex(
    refused.stderr,
    /nothing was asked for\n✗ public\.items: it has no primary key.*\n.*ADD PRIMARY KEY/,
  );
  t.is(await stateOf(running, 'other'), 'streaming');
});

test('R7b resync while ClickHouse holds an old image: an update that leaves the large value alone has what PostgreSQL has', async t => {
  const running = await startPipeline(
    t,
    `CREATE TABLE docs (id int PRIMARY KEY, title text, body text);
     INSERT INTO docs SELECT 1, 'a', string_agg(md5(i::text), '') FROM generate_series(1, 2000) i`,
  );
  const {pg: source, ch, query, environment, settings} = running;
  await running.caughtUp();
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__docs`;
  await command(
    ch,
    `INSERT INTO ${target} SELECT * REPLACE ('stale' AS body, _version + 1 AS _version) FROM ${target} FINAL`,
  );
  // The second reading begins when the transactions before it have ended.
  const holder = new pg.Client(settings.FRESHET_PG_URL);
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('BEGIN; SELECT pg_current_xact_id()');
  t.is((await freshet(t, environment, ['resync', 'public.docs'])).code, 0);
  while ((await stateOf(running, 'docs')) !== 'snapshot') await source.query('SELECT 1');
  await source.query("UPDATE docs SET title = 'b'");
  let read: Record<string, unknown>[] = [];
  while (read.length === 0)
    read = await query('SELECT title, length(body) AS n FROM {cdc}.public__docs__2 FINAL');
  t.deepEqual(read, [{title: 'b', n: '64000'}]);
  t.deepEqual(await query('SELECT title, body FROM {an}.docs'), [{title: 'a', body: 'stale'}]);
  await holder.query('COMMIT');
  while ((await stateOf(running, 'docs')) !== 'streaming') await source.query('SELECT 1');
  await equal(t, running);
});

test('T3 a new table with a value that has no place is set aside when it is read, and the others go on', async t => {
  const running = await startPipeline(t, 'CREATE TABLE other (id int PRIMARY KEY)');
  await running.caughtUp();
  let end: unknown;
  void running.ended().then(error => {
    end = error;
  });
  await running.pg.query(
    "CREATE TABLE bad (id int PRIMARY KEY, n numeric(5,2) NOT NULL); INSERT INTO bad VALUES (1, 'NaN')",
  );
  while ((await stateOf(running, 'bad')) !== 'parked') if (end !== undefined) throw end;
  await running.pg.query('INSERT INTO other VALUES (1)');
  while ((await running.query('SELECT * FROM {an}.other')).length === 0) if (end !== undefined) throw end;
  t.pass();
});

test('a table that the sink set aside is well again after a resync, while the sink runs', async t => {
  const running = await startPipeline(
    t,
    'CREATE TABLE items (id int PRIMARY KEY, n numeric(5,2) NOT NULL); INSERT INTO items VALUES (1, 1)',
  );
  const {pg: source, query, environment} = running;
  await running.caughtUp();
  await source.query("INSERT INTO items VALUES (2, 'NaN')");
  while ((await stateOf(running, 'items')) !== 'parked') await source.query('SELECT 1');
  const status = await freshet(t, environment, ['status']);
  t.is(status.code, 1);
  t.regex(status.stdout, /^! public\.items is parked: .*NaN.*\n.*freshet dead-letter retry public\.items/m);
  // What is in the topic stays as it is: a row that the definition it came with has no place for.
  await source.query('ALTER TABLE items ALTER n DROP NOT NULL');
  const {code, stdout} = await freshet(t, environment, ['resync', 'public.items', '--wait']);
  t.is(code, 0, stdout);
  t.deepEqual(await query('SELECT id, n FROM {an}.items ORDER BY id'), [
    {id: 1, n: 1},
    {id: 2, n: null},
  ]);
  await source.query('INSERT INTO items VALUES (4, 4)');
  await equal(t, running);
  t.is((await freshet(t, environment, ['dead-letter', 'list'])).code, 0);
});
