import test, {type ExecutionContext} from 'ava';
import kafkajs from 'kafkajs';
import {freshet, keepRunning} from '../test-support/command-line.ts';
import {makeWorld, type World} from '../test-support/start-pipeline.ts';

/** All that a pipeline leaves on the three servers. */
async function traces({pg, query, settings}: World) {
  const prefix = settings.FRESHET_TOPIC_PREFIX;
  const {rows} = await pg.query(
    `SELECT (SELECT count(*)::int FROM pg_replication_slots WHERE slot_name LIKE $1 || '%') AS slots,
       (SELECT count(*)::int FROM pg_publication) AS publications, (SELECT count(*)::int FROM pg_event_trigger) AS triggers,
       (SELECT count(*)::int FROM pg_namespace WHERE nspname = 'freshet') AS schemas`,
    [settings.FRESHET_SLOT],
  );
  const databases = await query("SELECT name FROM system.databases WHERE name IN ('{cdc}', '{an}')");
  return {
    ...rows[0],
    databases: databases.length,
    ...(await kafkaTraces(settings.FRESHET_KAFKA_BROKERS, prefix)),
  };
}

async function kafkaTraces(brokers: string[], prefix: string): Promise<{topics: number; groups: number}> {
  if (brokers.length === 0) return {topics: 0, groups: 0};
  const admin = new kafkajs.Kafka({brokers, logLevel: kafkajs.logLevel.NOTHING}).admin();
  await admin.connect();
  const topics = (await admin.listTopics()).filter(topic => topic.startsWith(`${prefix}.`));
  const {groups} = await admin.listGroups();
  await admin.disconnect();
  return {topics: topics.length, groups: groups.filter(({groupId}) => groupId.startsWith(prefix)).length};
}

async function runOnce(t: ExecutionContext, world: World, sql: string): Promise<void> {
  const pipeline = keepRunning(t, world.environment, ['run']);
  await pipeline.logged('streaming');
  await world.pg.query(sql);
  await world.caughtUp();
  const {code, stdout} = await freshet(t, world.environment, ['verify']);
  t.is(code, 0, stdout);
  t.is(await pipeline.stop(), 0, pipeline.log());
}

test('teardown drops what was said, and no more', async t => {
  const world = await makeWorld(
    t,
    'CREATE TABLE items (id int PRIMARY KEY, v int); INSERT INTO items VALUES (1, 1), (2, 2), (3, 3)',
  );
  const kafka = world.settings.FRESHET_TRANSPORT === 'kafka';
  const teardown = (...args: string[]) => freshet(t, world.environment, ['teardown', ...args]);
  await runOnce(t, world, 'UPDATE items SET v = 20 WHERE id = 2');
  const all = {
    slots: 1,
    publications: 1,
    triggers: 3,
    schemas: 1,
    databases: 2,
    topics: kafka ? 3 : 0,
    groups: kafka ? 1 : 0,
  };
  t.deepEqual(await traces(world), all);

  const asked = await teardown();
  t.is(asked.code, 1);
  t.regex(asked.stdout, /Run it with --yes, or with --keep-data/);
  for (const name of [world.settings.FRESHET_SLOT, `${world.settings.FRESHET_TOPIC_PREFIX}.*`, '_cdc', '_an'])
    t.true(asked.stdout.includes(name), name);
  t.deepEqual(await traces(world), all);

  const kept = await teardown('--keep-data');
  t.is(kept.code, 0, kept.stderr);
  t.deepEqual(await traces(world), {...all, slots: 0, publications: 0, triggers: 0, schemas: 0});
  t.deepEqual(await world.query('SELECT id, v FROM {an}.items ORDER BY id'), [
    {id: 1, v: 1},
    {id: 2, v: 20},
    {id: 3, v: 3},
  ]);

  // Nobody listens now: what changes here is known to a new snapshot alone.
  await world.pg.query('DELETE FROM items WHERE id = 1; UPDATE items SET v = 30 WHERE id = 3');
  await runOnce(t, world, 'INSERT INTO items VALUES (4, 4)');
  t.deepEqual(await world.query('SELECT id, v FROM {an}.items ORDER BY id'), [
    {id: 2, v: 20},
    {id: 3, v: 30},
    {id: 4, v: 4},
  ]);

  const gone = await teardown('--yes');
  t.is(gone.code, 0, gone.stderr);
  t.deepEqual(await traces(world), {
    slots: 0,
    publications: 0,
    triggers: 0,
    schemas: 0,
    databases: 0,
    topics: 0,
    groups: 0,
  });
  const twice = await teardown('--yes');
  t.is(twice.code, 0, twice.stderr);
});

test('a slot that is being read is not dropped, nor anything else; views of others stay', async t => {
  const world = await makeWorld(t, 'CREATE TABLE items (id int PRIMARY KEY)');
  const pipeline = keepRunning(t, world.environment, ['run']);
  await pipeline.logged('streaming');
  await world.caughtUp();
  const {cdc, an} = {
    cdc: world.settings.FRESHET_CLICKHOUSE_DATABASE,
    an: world.settings.FRESHET_ANALYTICS_DATABASE,
  };
  await world.ch.command({query: `CREATE VIEW ${an}.of_mine AS SELECT 1 AS one`});
  const before = await traces(world);
  const busy = await freshet(t, world.environment, ['teardown', '--yes']);
  t.is(busy.code, 1);
  t.regex(busy.stderr, /\[pg\.slot_active\] another process reads this slot/);
  t.deepEqual(await traces(world), before);
  t.is(await pipeline.stop(), 0, pipeline.log());
  const {code, stderr} = await freshet(t, world.environment, ['teardown', '--yes']);
  t.is(code, 0, stderr);
  t.deepEqual(
    await world.query("SELECT database, name FROM system.tables WHERE database IN ('{cdc}', '{an}')"),
    [{database: an, name: 'of_mine'}],
  );
  t.deepEqual(await world.query(`SELECT name FROM system.databases WHERE name = '${cdc}'`), []);
});
