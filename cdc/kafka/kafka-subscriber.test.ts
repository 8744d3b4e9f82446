import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {runSinkOnly} from '../pipeline.ts';
import {command} from '../sink/clickhouse.ts';
import {type Running, startPipeline, transport} from '../test-support/start-pipeline.ts';
import {kafkaClient} from './client.ts';
import {topicName} from './topics.ts';

const DDL = 'CREATE TABLE a (id int PRIMARY KEY, v int)';
const PARTITIONS = 3;

async function same({pg, query}: Running): Promise<[unknown, unknown]> {
  return [
    await query('SELECT id, v FROM {an}.a ORDER BY id'),
    (await pg.query('SELECT * FROM a ORDER BY id')).rows,
  ];
}

/** Moves the stopped sink's group back to this part (0 to 1) of what each partition holds; gives how much that is. */
async function rewind({settings, log}: Running, part: number): Promise<number> {
  const topic = topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'a');
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  const ends = await admin.fetchTopicOffsets(topic);
  const partitions = ends.map(({partition, high}) => ({
    partition,
    offset: String(Math.floor(Number(high) * part)),
  }));
  await admin.setOffsets({groupId: settings.FRESHET_CONSUMER_GROUP, topic, partitions});
  await admin.disconnect();
  return ends.reduce((sum, {high}, i) => sum + Number(high) - Number(partitions[i]!.offset), 0);
}

/** Inserts, updates, moves, deletions, and one TRUNCATE among them. */
async function changes({pg}: Running): Promise<void> {
  await pg.query('INSERT INTO a SELECT i, 0 FROM generate_series(1, 300) i');
  await pg.query('UPDATE a SET v = v + 1 WHERE id % 2 = 0; UPDATE a SET id = id + 1000 WHERE id % 5 = 0');
  await pg.query(
    'DELETE FROM a WHERE id < 50; TRUNCATE a; INSERT INTO a SELECT i, 7 FROM generate_series(20, 120) i',
  );
  await pg.query('DELETE FROM a WHERE id % 7 = 0; UPDATE a SET v = -v WHERE id % 3 = 0');
}

test('S16 ranges of offsets that were applied before, whole, overlapping, or with new ones behind: each change counts once', async t => {
  if (transport() === 'direct') return skip(t, 'offsets are Kafka’s');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: String(PARTITIONS)});
  await world.caughtUp();
  await changes(world);
  await world.caughtUp();
  const expected = await same(world);
  t.deepEqual(...expected);
  for (const part of [0, 0.5, 0.9]) {
    await world.stop();
    t.true((await rewind(world, part)) > 0);
    if (part > 0)
      await world.pg.query(
        'UPDATE a SET v = v + 1 WHERE id % 4 = 0; INSERT INTO a VALUES ($1, 1)'.replace(
          '$1',
          String(5_000 + part * 100),
        ),
      );
    world.start();
    await world.caughtUp();
    t.deepEqual(...(await same(world)), `from ${part}`);
  }
});

test('S16 sinks come and go while changes stream: the partitions move, and each change counts once', async t => {
  if (transport() === 'direct') return skip(t, 'one process has the only sink');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: String(PARTITIONS)});
  const {pg, settings, log} = world;
  await world.caughtUp();
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  /** Writes until the group has so many members, and its partitions are theirs. */
  const until = async (members: number): Promise<void> => {
    for (let at = 0; ; at++) {
      const {groups} = await admin.describeGroups([settings.FRESHET_CONSUMER_GROUP]);
      if (groups[0]?.state === 'Stable' && groups[0].members.length === members) return;
      await pg.query(`INSERT INTO a VALUES (${members * 100_000 + at}, 0) ON CONFLICT DO NOTHING`);
      await pg.query(`UPDATE a SET v = v + 1 WHERE id % 10 = ${at % 10}`);
    }
  };
  const stopper = new AbortController();
  const second = runSinkOnly({settings, log, signal: stopper.signal});
  await until(2);
  await pg.query('UPDATE a SET v = v + 1');
  stopper.abort(); // and back again, with rows under way
  await pg.query('UPDATE a SET v = v + 1');
  await until(1);
  await second;
  await world.caughtUp();
  t.deepEqual(...(await same(world)));
});

test('R13 deletions are cleaned away, and older changes come again: absent when those are applied', async t => {
  if (transport() === 'direct') return skip(t, 'nothing comes again');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: String(PARTITIONS)});
  const {ch, settings, query} = world;
  await world.caughtUp();
  await changes(world);
  await world.pg.query('DELETE FROM a WHERE id > 60');
  await world.caughtUp();
  await world.stop();
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__a`;
  await command(
    ch,
    `ALTER TABLE ${target} MODIFY SETTING allow_experimental_replacing_merge_with_cleanup = 1`,
  );
  await command(ch, `OPTIMIZE TABLE ${target} FINAL CLEANUP`);
  t.deepEqual(await query('SELECT id FROM {cdc}.public__a WHERE _is_deleted'), []);
  t.true((await rewind(world, 0)) > 0);
  world.start();
  // What is complete is told by the deletions that follow in the same partitions, so nobody waits for less.
  await world.caughtUp();
  t.deepEqual(...(await same(world)));
});
