import test from 'ava';
import {freshet} from '../test-support/command-line.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';

const SOURCE = `
  SELECT (SELECT count(*)::int FROM pg_replication_slots WHERE database = current_database()) AS slots,
    (SELECT count(*)::int FROM pg_publication) AS publications,
    (SELECT count(*)::int FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS relations`;

test('before anything runs: 0, what would be done, and nothing is changed', async t => {
  const world = await makeWorld(t, 'CREATE TABLE items (id int PRIMARY KEY, name text)');
  const before = (await world.pg.query(SOURCE)).rows;
  const {code, stdout, stderr} = await freshet(t, world.environment, ['preflight']);
  t.is(code, 0, stdout + stderr);
  t.is(stderr, '');
  t.regex(stdout, /^PostgreSQL\n {2}✓ version \d+, database /);
  t.regex(stdout, /✓ public\.items, key \(id\)/);
  t.regex(stdout, /· will run: CREATE PUBLICATION /);
  t.regex(stdout, /^ClickHouse\n {2}✓ version [\d.]+, user \w+/m);
  if (world.settings.FRESHET_TRANSPORT === 'kafka') t.regex(stdout, /^Kafka\n {2}✓ \d+ broker/m);
  t.deepEqual((await world.pg.query(SOURCE)).rows, before);
  t.deepEqual(await world.query("SELECT name FROM system.databases WHERE name IN ('{cdc}', '{an}')"), []);
});

test('a table without a key: 1, with the SQL that mends it', async t => {
  const world = await makeWorld(t, 'CREATE TABLE items (id int PRIMARY KEY); CREATE TABLE notes (note text)');
  const {code, stdout} = await freshet(t, world.environment, ['preflight']);
  t.is(code, 1);
  const problem = stdout.split('\n').findIndex(line => /✗ .*public\.notes.*key/.test(line));
  t.true(problem > 0, stdout);
  t.regex(stdout.split('\n')[problem + 1] ?? '', /ALTER TABLE .*notes/);
  t.regex(stdout, /✓ public\.items/);
});

test('each server that is away has a line of its own, and the others are checked all the same', async t => {
  const world = await makeWorld(t, 'CREATE TABLE items (id int PRIMARY KEY)');
  const away = {
    FRESHET_CLICKHOUSE_URL: 'http://127.0.0.1:9',
    ...(world.settings.FRESHET_TRANSPORT === 'kafka' && {FRESHET_KAFKA_BROKERS: '127.0.0.1:9'}),
  };
  const {code, stdout, stderr} = await freshet(t, {...world.environment, ...away}, ['preflight']);
  t.is(code, 1);
  t.is(stderr, '');
  t.regex(stdout, /✓ public\.items/);
  t.regex(stdout, /^ClickHouse\n {2}✗ .*ECONNREFUSED.*\n {6}is ClickHouse up/m);
  if (world.settings.FRESHET_TRANSPORT === 'kafka')
    t.regex(stdout, /^Kafka\n {2}✗ Kafka: .*\n {6}are the brokers up/m);
});
