import test from 'ava';
import fc from 'fast-check';
import {skip} from '../../scripts/stack/skip.ts';
import {PipelineError} from '../failures.ts';
import {makeWorld, server} from '../test-support/start-pipeline.ts';
import {kafkaClient} from './client.ts';
import {deadLetterTopic, partitionsFor, prepareTopics, topicName, watermarkTopic} from './topics.ts';

const LEGAL = /^[A-Za-z0-9._-]{1,249}$/;
/** PostgreSQL's names: up to 63 bytes, of anything but NUL. Letters of the escape itself make near misses likely. */
const weird = fc.oneof(
  fc.string({unit: fc.constantFrom('_', 'x', '.', '2', 'e', '5', 'f', 'X', ' '), minLength: 1, maxLength: 6}),
  fc.string({unit: 'binary', minLength: 1, maxLength: 6}),
);
const table = fc.tuple(weird, weird);
const seed = Date.now() % 2 ** 31;

test('every topic name is one that Kafka takes', t => {
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(table, ([schema, name]) => LEGAL.test(topicName('shop-1', schema, name))),
    {seed, numRuns: 2_000},
  );
  t.is(topicName('p', 'public', 'orders'), 'p.public.orders');
  t.is(topicName('p', 'public', 'order_items'), 'p.public.order_items');
  t.is(topicName('p', 'Übung', 'a.b c'), 'p._xc3_x9cbung.a_x2eb_x20c');
});

test('two tables never share a topic, nor one with the watermarks', t => {
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(table, table, (one, other) => {
      const topic = topicName('p', ...one);
      const same = one[0] === other[0] && one[1] === other[1];
      return (topic === topicName('p', ...other)) === same && topic !== watermarkTopic('p');
    }),
    {seed, numRuns: 10_000},
  );
  // Each of these pairs was one topic under some simpler rule.
  for (const [one, other] of [
    [
      ['a.b', 'c'],
      ['a', 'b.c'],
    ],
    [
      ['s', 'a_x2eb'],
      ['s', 'a.b'],
    ],
    [
      ['s', '_'],
      ['s', '_x5f'],
    ],
    [
      ['s', 'é'],
      ['s', 'è'],
    ],
  ] as const) {
    t.not(topicName('p', one[0], one[1]), topicName('p', other[0], other[1]));
  }
});

test('names of 63 bytes have topics of their own, however long they become', t => {
  const long = ['ü'.repeat(31), '漢'.repeat(21), `${'漢'.repeat(20)}字`, 'x'.repeat(63), '_x'.repeat(31)];
  const topics = long.flatMap(schema => long.map(table => topicName('p'.repeat(100), schema, table)));
  t.is(new Set(topics).size, long.length ** 2);
  for (const topic of topics) t.regex(topic, LEGAL);
});

test('a topic that the brokers refuse is named, and not asked for again and again', async t => {
  if (!server('TEST_KAFKA_BROKERS')) return skip(t, 'no Kafka');
  const {settings, log} = await makeWorld(t, '');
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  const prefix = settings.FRESHET_TOPIC_PREFIX;
  t.teardown(() => admin.disconnect());
  // To Kafka's metrics these two are one name.
  const [first, second] = [topicName(prefix, 'a_b', 'c'), topicName(prefix, 'a', 'b_c')];
  await prepareTopics(admin, settings, [{topic: first, partitions: 1}], log);
  const error = await t.throwsAsync(prepareTopics(admin, settings, [{topic: second, partitions: 1}], log), {
    instanceOf: PipelineError,
  });
  t.like(error, {code: 'kafka.topic_refused', reaction: 'halt'});
  t.true(error?.message.includes(second));
});

test('messages stay for hardly longer than they are to be kept: those of dead letters ten times as long', async t => {
  if (!server('TEST_KAFKA_BROKERS')) return skip(t, 'no Kafka');
  const {settings, log} = await makeWorld(t, '', {FRESHET_TOPIC_RETENTION_HOURS: '14'});
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  const prefix = settings.FRESHET_TOPIC_PREFIX;
  const topics = [topicName(prefix, 'public', 'a'), deadLetterTopic(prefix)];
  await prepareTopics(
    admin,
    settings,
    topics.map(topic => ({topic, partitions: 1})),
    log,
  );
  const {resources} = await admin.describeConfigs({
    includeSynonyms: false,
    resources: topics.map(name => ({type: 2, name, configNames: ['retention.ms', 'segment.ms']})),
  });
  const HOUR = 3_600_000;
  t.deepEqual(
    Object.fromEntries(
      resources.map(({resourceName, configEntries}) => [
        resourceName,
        Object.fromEntries(
          configEntries.map(({configName, configValue}) => [configName, Number(configValue)]),
        ),
      ]),
    ),
    {
      [topics[0]!]: {'retention.ms': 14 * HOUR, 'segment.ms': 2 * HOUR},
      [topics[1]!]: {'retention.ms': 140 * HOUR, 'segment.ms': 20 * HOUR},
    },
  );
});

test('many tables have topics with fewer partitions, unless somebody has said how many', t => {
  const settings = {FRESHET_TOPIC_PARTITIONS: undefined};
  t.deepEqual(
    [1, 50, 51, 100, 200, 500].map(tables => partitionsFor(settings, tables)),
    [4, 4, 3, 2, 1, 1],
  );
  t.is(partitionsFor({FRESHET_TOPIC_PARTITIONS: 6}, 500), 6);
});
