import test from 'ava';
import {ownTopics} from '../test-support/own-topics.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {Brokers} from './brokers.ts';

test('partitions of one broker are one group, whenever they were asked for', async t => {
  const own = await ownTopics(t, ['a', 'b'], {numPartitions: 1});
  if (!own) return;
  const places = own.topics.map(topic => ({topic, partition: 0}));
  const brokers = [0, 1].map(() => new Brokers(own.settings, quietLog()));
  for (const one of brokers) t.teardown(() => one.close());
  // The broker does not know topics that were made a moment ago yet.
  await brokers[0]!.insist(() => brokers[0]!.byLeader(places), new AbortController().signal);
  t.is((await brokers[1]!.byLeader(places.slice(0, 1))).size, 1);
  t.deepEqual([...(await brokers[1]!.byLeader(places)).values()], [places]);
});
