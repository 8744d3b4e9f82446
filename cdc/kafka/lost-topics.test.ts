import test, {type ExecutionContext} from 'ava';
import type {Admin} from 'kafkajs';
import {skip} from '../../scripts/stack/skip.ts';
import type {PipelineOptions} from '../context.ts';
import {runCapture, runSinkOnly} from '../pipeline.ts';
import {nameOf, Registry} from '../sink/registry.ts';
import {parseLsn} from '../source/lsn.ts';
import {currentPosition} from '../source/postgres.ts';
import {readSlot} from '../source/slot.ts';
import {makeWorld, transport, type World} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {kafkaClient} from './client.ts';
import {topicName, watermarkTopic} from './topics.ts';

const DDL = `CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, v int);
  INSERT INTO a SELECT i, 0 FROM generate_series(1, 50) i; INSERT INTO b SELECT i, 0 FROM generate_series(1, 50) i`;

interface Stage {
  stop(): Promise<void>;
}

interface Stages extends World {
  readonly admin: Admin;
  readonly topic: (table: string) => string;
  capture(): Stage;
  sink(): Stage;
  /** Resolves when capture has sent, and acknowledged, all that is committed. */
  sent(): Promise<void>;
}

async function stages(t: ExecutionContext): Promise<Stages> {
  const world = await makeWorld(t, DDL, {FRESHET_TOPIC_PARTITIONS: '2'});
  const {pg, settings, log} = world;
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  const start = (stage: (options: PipelineOptions) => Promise<void>): Stage => {
    const stopper = new AbortController();
    const ended = stage({settings, log, signal: stopper.signal});
    ended.catch(() => {});
    const stop = async (): Promise<void> => {
      stopper.abort();
      await ended;
    };
    t.teardown(() => stop().catch(() => {}));
    return {stop};
  };
  return {
    ...world,
    admin,
    topic: table => topicName(settings.FRESHET_TOPIC_PREFIX, 'public', table),
    capture: () => start(runCapture),
    sink: () => start(runSinkOnly),
    async sent() {
      const position = await currentPosition(pg);
      await until(async () => {
        const slot = await readSlot(pg, settings.FRESHET_SLOT);
        return slot?.confirmedFlush != null && parseLsn(slot.confirmedFlush) >= position;
      });
    },
  };
}

/** Deletes all that a topic holds, as its retention would. */
async function expire(admin: Admin, topic: string): Promise<void> {
  const offsets = await admin.fetchTopicOffsets(topic);
  const partitions = offsets
    .filter(({low, high}) => low !== high)
    .map(({partition, high}) => ({partition, offset: high}));
  if (partitions.length > 0) await admin.deleteTopicRecords({topic, partitions});
}

/** A topic of the same name, by somebody who knows nothing of the first one. */
async function makeAgain(admin: Admin, topic: string, numPartitions = 2): Promise<void> {
  await admin.deleteTopics({topics: [topic]});
  await until(async () => !(await admin.listTopics()).includes(topic));
  await admin.createTopics({topics: [{topic, numPartitions, replicationFactor: 1}], waitForLeaders: true});
}

/** Changes that only the topics have, when the sink is away. */
const ONLY_THERE = `DELETE FROM a WHERE id % 5 = 0; UPDATE a SET v = v + 1 WHERE id % 2 = 0; INSERT INTO a VALUES (100, 1);
  UPDATE b SET v = v + 1 WHERE id % 2 = 0`;

/** What is lost while the sink is away, or both are; whether `a` is read again for it, and what is told. */
const LOST: Readonly<
  Record<
    string,
    {
      readonly captureToo?: true;
      readonly lose: (world: Stages) => Promise<unknown>;
      readonly told: RegExp;
      readonly again: boolean;
    }
  >
> = {
  'messages that were deleted before they were read': {
    lose: ({admin, topic}) => expire(admin, topic('a')),
    told: /holds \d+ to \d+, and the group (stands at \d+|has no offset)/,
    again: true,
  },
  'a topic that was deleted': {
    captureToo: true,
    lose: ({admin, topic}) => admin.deleteTopics({topics: [topic('a')]}),
    told: /tables are read again: its topic is gone/,
    again: true,
  },
  'a topic that was deleted and made again': {
    captureToo: true,
    lose: ({admin, topic}) => makeAgain(admin, topic('a')),
    told: /its topic was made again, or lost messages: partition \d ends at 0, and ended at \d+/,
    again: true,
  },
  'a topic that was made again with fewer partitions': {
    captureToo: true,
    lose: ({admin, topic}) => makeAgain(admin, topic('a'), 1),
    told: /its topic was made again, or lost messages/,
    again: true,
  },
  'a topic that was made again while capture goes on': {
    lose: async ({admin, topic, pg}) => {
      await makeAgain(admin, topic('a'));
      await pg.query('UPDATE a SET v = v + 100');
    },
    told: /was made again, or lost messages|its topic is gone/,
    again: true,
  },
  'the group, whose messages are all still there': {
    lose: ({admin, settings}) => admin.deleteGroups([settings.FRESHET_CONSUMER_GROUP]),
    told: /is read from its beginning/,
    again: false,
  },
  'the group, and messages from before': {
    lose: async ({admin, settings, topic}) => {
      await admin.deleteGroups([settings.FRESHET_CONSUMER_GROUP]);
      await expire(admin, topic('a'));
    },
    told: /and the group has no offset/,
    again: true,
  },
  'the watermarks': {
    captureToo: true,
    lose: ({admin, settings}) => makeAgain(admin, watermarkTopic(settings.FRESHET_TOPIC_PREFIX), 1),
    told: /streaming/,
    again: false,
  },
};
for (const [what, {captureToo, lose, told, again}] of Object.entries(LOST)) {
  test(`lost: ${what}`, async t => {
    if (transport() === 'direct') return skip(t, 'topics are Kafka’s');
    const world = await stages(t);
    const {pg, query, ch, settings, log} = world;
    const capture = world.capture();
    let sink = world.sink();
    await world.caughtUp();
    await pg.query('UPDATE a SET v = 1; UPDATE b SET v = 1');
    await world.caughtUp();
    await sink.stop();
    await pg.query(ONLY_THERE);
    await world.sent();
    if (captureToo) await capture.stop();
    await lose(world);
    if (captureToo) world.capture();
    sink = world.sink();
    await pg.query(
      'UPDATE a SET v = v + 10 WHERE id % 3 = 0; DELETE FROM a WHERE id < 4; DELETE FROM b WHERE id < 4',
    );
    const registry = new Registry(ch, settings);
    const target = async (table: string) =>
      (await registry.tables()).find(row => nameOf(row) === `public.${table}`)?.target;
    if (again) await until(async () => (await target('a')) !== 'public__a');
    await world.caughtUp();
    for (const table of ['a', 'b']) {
      t.deepEqual(
        await query(`SELECT id, v FROM {an}.${table} ORDER BY id`),
        (await pg.query(`SELECT * FROM ${table} ORDER BY id`)).rows,
        table,
      );
    }
    t.is(await target('b'), 'public__b'); // the others go on
    if (!again) t.is(await target('a'), 'public__a');
    t.true(
      log.lines.some(line => told.test(line)),
      log.lines.filter(line => !line.startsWith('debug')).join('\n'),
    );
  });
}
