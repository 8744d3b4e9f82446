import {setTimeout as sleep} from 'node:timers/promises';
import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {Remembered} from '../remembered.ts';
import {startPipeline, transport} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {kafkaClient} from './client.ts';
import {PartitionGrowth} from './partition-growth.ts';
import {TopicLedger} from './topic-ledger.ts';
import {endsOf, topicName} from './topics.ts';

test('new partitions of a topic that nobody applies hold up what is sent once; they are used when all is applied', async t => {
  if (transport() === 'direct') return skip(t, 'partitions are Kafka’s');
  const world = await startPipeline(t, 'CREATE TABLE a (id int PRIMARY KEY)', {
    FRESHET_TOPIC_PARTITIONS: '1',
  });
  const {settings, log} = world;
  await world.caughtUp();
  await world.pg.query('INSERT INTO a VALUES (1)');
  await world.caughtUp();
  await world.stop();
  const kafka = kafkaClient(settings, log);
  const admin = kafka.admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  const topic = topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'a');
  const group = settings.FRESHET_CONSUMER_GROUP;
  const commit = (offsets: readonly number[]): Promise<unknown> =>
    admin.setOffsets({
      groupId: group,
      topic,
      partitions: offsets.map((offset, partition) => ({partition, offset: String(offset)})),
    });
  const ledger = new TopicLedger(new Remembered(world.ch, settings));
  const ends = await endsOf(admin, topic);
  t.true(ends[0]! > 0n);
  await ledger.open(topic, ends);
  await admin.createPartitions({topicPartitions: [{topic, count: 2}]});
  await commit([0, 0]);

  const growth = new PartitionGrowth(ledger, {kafka, log, group, topics: new Map([['public.a', topic]])});
  growth.start();
  t.teardown(() => growth.stop());
  const waits = (): number => log.lines.filter(line => line.includes('which they did not in')).length;
  await until(async () => {
    t.false(await growth.took());
    return waits() === 1;
  });
  // It is looked at again every 5 s.
  const rest = sleep(11_000, 'over');
  let longest = 0;
  do {
    const began = performance.now();
    t.false(await growth.took());
    longest = Math.max(longest, performance.now() - began);
  } while ((await Promise.race([rest, sleep(50)])) !== 'over');
  t.true(longest < 5_000, `${longest} ms`);
  t.is(waits(), 1);
  await commit([Number(ends[0]), 0]);
  await until(() => growth.took());
  t.is(ledger.partitions(topic), 2);
});
