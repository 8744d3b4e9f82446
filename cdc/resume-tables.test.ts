import test, {type ExecutionContext} from 'ava';
import pg from 'pg';
import {skip} from '../scripts/stack/skip.ts';
import {exitCode, verify} from './reconcile/verify.ts';
import {freshet} from './test-support/command-line.ts';
import {type Running, startPipeline, transport} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

const DDL = `CREATE TABLE t (id int PRIMARY KEY, n numeric(9, 2) NOT NULL, v int);
  INSERT INTO t SELECT i, i, i FROM generate_series(1, 10) i; CREATE TABLE other (id int PRIMARY KEY)`;
const ROWS = 'SELECT toInt32(count()) AS n FROM {an}.t';

/** The state of the table as it is written down. */
const stateOf = async ({query}: Running, name: string): Promise<unknown> =>
  (
    await query(
      `SELECT state FROM {cdc}._tables FINAL WHERE concat(schema_name, '.', table_name) = '${name}'`,
    )
  )[0]?.state;

async function equal(t: ExecutionContext, world: Running): Promise<void> {
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.is(exitCode(verdicts), 0, JSON.stringify(verdicts.map(({table, verdict}) => [table, verdict])));
}

/** Readings beside the stream wait, from now on, until this is called. */
async function holdReadings(t: ExecutionContext, {settings}: Running): Promise<() => Promise<void>> {
  const older = new pg.Client(settings.FRESHET_PG_URL);
  await older.connect();
  t.teardown(() => older.end());
  await older.query('BEGIN; SELECT pg_current_xact_id()');
  return () => older.end();
}

for (const when of ['while it runs', 'between two runs'] as const) {
  test(`S17 a sink parks a table that is being read, and goes on ${when}: it is complete when it was read`, async t => {
    if (transport() === 'direct') return skip(t, 'there it is read again as a whole');
    const world = await startPipeline(t, DDL);
    const {pg: source, query, environment} = world;
    await world.caughtUp();
    const release = await holdReadings(t, world);
    await source.query('ALTER TABLE t ALTER v TYPE bigint USING v + 1');
    await source.query("INSERT INTO t VALUES (11, 'NaN', 11)");
    await until(async () => (await stateOf(world, 'public.t')) === 'parked');
    await source.query('ALTER TABLE t ADD COLUMN w int');
    await source.query('INSERT INTO other VALUES (1)');
    await until(async () => (await query('SELECT id FROM {an}.other')).length > 0);
    t.deepEqual(await query(ROWS), [{n: 10}]); // as it was before
    await source.query('UPDATE t SET n = 1 WHERE id = 11');
    if (when === 'between two runs') await world.stop();
    const dropped = await freshet(t, environment, ['dead-letter', 'drop', 'public.t']);
    t.is(dropped.code, 0, dropped.stdout + dropped.stderr);
    t.is(await stateOf(world, 'public.t'), 'snapshot');
    await release();
    if (when === 'between two runs') world.start();
    await equal(t, world);
    t.deepEqual(await query(ROWS), [{n: 11}]);
  });
}

test('S17 a table that a sink has parked is read again through the topics', async t => {
  if (transport() === 'direct') return skip(t, 'there are no topics');
  const world = await startPipeline(t, DDL, {FRESHET_SNAPSHOT_VIA: 'kafka'});
  const {pg: source, environment} = world;
  await world.caughtUp();
  await source.query("INSERT INTO t VALUES (11, 'NaN', 11)");
  await until(async () => (await stateOf(world, 'public.t')) === 'parked');
  await source.query('UPDATE t SET n = 1 WHERE id = 11');
  const asked = await freshet(t, environment, ['resync', 'public.t', '--wait']);
  t.is(asked.code, 0, asked.stdout + asked.stderr);
  await equal(t, world);
});

test('a table whose view would be that of another stays set aside at the next start, and when all is read again', async t => {
  const world = await startPipeline(t, 'CREATE SCHEMA s; CREATE TABLE s__t (id int PRIMARY KEY)', {
    FRESHET_TABLES_INCLUDE: 'public.*,s.*',
  });
  const {pg: source, query, settings} = world;
  await source.query('INSERT INTO s__t VALUES (1)');
  await world.caughtUp();
  await source.query('CREATE TABLE s.t (id int PRIMARY KEY)');
  await source.query('INSERT INTO s.t VALUES (100)');
  await until(async () => (await stateOf(world, 's.t')) === 'parked');
  for (const id of [2, 3]) {
    await world.stop();
    if (id === 3) await source.query('SELECT pg_drop_replication_slot($1)', [settings.FRESHET_SLOT]);
    await source.query(`INSERT INTO s__t VALUES (${id}); INSERT INTO s.t VALUES (${id + 100})`);
    world.start();
    await until(() => world.log.lines.filter(line => line.startsWith('info streaming')).length === id);
    t.is(await stateOf(world, 's.t'), 'parked');
    await until(async () => (await query('SELECT id FROM {an}.s__t')).length >= id);
    t.deepEqual(
      await query('SELECT id FROM {an}.s__t ORDER BY id'),
      Array.from({length: id}, (_, i) => ({id: i + 1})),
    );
  }
});
