import test from 'ava';
import {freshet, keepRunning} from '../test-support/command-line.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';

const TABLES = `
  CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2));
  INSERT INTO items SELECT i, 'item ' || i, i / 4.0 FROM generate_series(1, 200) i;
  CREATE TABLE empty (id int PRIMARY KEY)`;

test('status, verify and sql beside a pipeline that runs, and after its end', async t => {
  const world = await makeWorld(t, TABLES);
  const run = (...args: string[]) => freshet(t, world.environment, args);

  const before = await run('status');
  t.is(before.code, 1);
  t.regex(before.stdout, /: none\n/);
  t.regex(before.stdout, /^! no slot: nothing is captured; `freshet run` makes one$/m);
  t.regex(before.stdout, /^! ClickHouse has no tables of this pipeline yet$/m);

  const pipeline = keepRunning(t, world.environment, ['run']);
  await pipeline.logged('streaming');
  await world.pg.query("UPDATE items SET name = 'changed' WHERE id <= 10");
  await world.caughtUp();

  const status = await run('status');
  t.is(status.code, 0, status.stdout + status.stderr);
  t.regex(
    status.stdout,
    new RegExp(`^slot ${world.settings.FRESHET_SLOT}: read by pid \\d+, at [0-9A-F]+/[0-9A-F]+, `),
  );
  t.regex(status.stdout, /^public\.empty /m);
  t.regex(status.stdout, /^public\.items .*(ok|idle)/m);
  t.notRegex(status.stdout, /^!/m);

  const select = await run(
    'sql',
    'SELECT name, count() AS n FROM items WHERE id <= 12 GROUP BY name ORDER BY n',
  );
  t.is(select.code, 0, select.stderr);
  t.regex(select.stdout, /name.*n.*\n(.*\n)*.*changed.*10/);
  t.false(select.stdout.includes('\x1b'), 'no colours in a pipe');
  const wrong = await run('sql', 'SELECT nothing FROM items');
  t.is(wrong.code, 1);
  t.regex(wrong.stderr, /nothing(.|\n)*\[ch\.query\]/);

  const database = world.settings.FRESHET_CLICKHOUSE_DATABASE;
  const drop = await run('sql', `DROP DATABASE ${database}`);
  t.is(drop.code, 1);
  t.regex(drop.stderr, /readonly/);
  const limit = await run('sql', "SELECT getSetting('max_execution_time') AS s FORMAT TSV");
  t.is(limit.stdout, '60\n', limit.stderr);

  const equal = await run('verify', '--timeout', '30');
  t.is(equal.code, 0, equal.stdout + equal.stderr);
  t.regex(equal.stdout, /^public\.items +equal +200 +200 /m);
  t.regex(equal.stdout, /^public\.empty +equal +0 +0 /m);

  const target = `${database}.public__items`;
  await world.ch.command({
    query: `INSERT INTO ${target} SELECT * REPLACE (_version + 1 AS _version, price + 1 AS price) FROM ${target} FINAL WHERE id = 77`,
  });
  const different = await run('verify');
  t.is(different.code, 1, different.stdout);
  t.regex(different.stdout, /^public\.items +different /m);
  t.regex(different.stdout, /^✗ public\.items \{"id":"77"\}: changed price$/m);

  t.is(await pipeline.stop(), 0, pipeline.log());
  t.notRegex(pipeline.log(), /"level":"(warn|error)"/);
  const after = await run('status');
  t.is(after.code, 1);
  t.regex(after.stdout, /^! nobody reads slot \w+: PostgreSQL keeps WAL/m);
  await world.pg.query('INSERT INTO empty VALUES (1)');
  const unsettled = await run('verify', '--timeout', '0.5');
  t.regex(unsettled.stdout, /^public\.empty +unsettled +1 +0 /m);
  t.regex(unsettled.stdout, /^· public\.empty has not settled: ClickHouse is behind/m);
});

test('without a query sql opens clickhouse-client, or says that it is not installed', async t => {
  const world = await makeWorld(t, '');
  const {code, stderr} = await freshet(t, {...world.environment, PATH: '/nowhere'}, ['sql']);
  t.is(code, 1);
  t.regex(stderr, /clickhouse-client is not installed: give a query/);
});
