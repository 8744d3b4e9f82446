import {randomBytes} from 'node:crypto';
import type {ExecutionContext} from 'ava';
import type {Admin, Kafka} from 'kafkajs';
import {skip} from '../../scripts/stack/skip.ts';
import {kafkaClient} from '../kafka/client.ts';
import {loadSettings, type Settings} from '../settings/settings.ts';
import {quietLog} from './quiet-log.ts';
import {server} from './start-pipeline.ts';

export interface OwnTopics {
  readonly kafka: Kafka;
  readonly settings: Settings;
  readonly topics: readonly string[];
}

type TopicConfig = Parameters<Admin['createTopics']>[0]['topics'][number];

/** Topics that go with the test; undefined, and the test is skipped, where there is no Kafka. */
export async function ownTopics(
  t: ExecutionContext,
  names: readonly string[],
  config: Omit<TopicConfig, 'topic'>,
): Promise<OwnTopics | undefined> {
  const brokers = server('TEST_KAFKA_BROKERS');
  if (!brokers) return void skip(t, 'there is no Kafka');
  const prefix = `p${randomBytes(5).toString('hex')}`;
  const topics = names.map(name => `${prefix}.${name}`);
  const settings = loadSettings({
    FRESHET_PG_URL: 'postgres://localhost/none',
    FRESHET_KAFKA_BROKERS: brokers,
    FRESHET_TOPIC_PREFIX: prefix,
  });
  const kafka = kafkaClient(settings, quietLog());
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({
    topics: topics.map(topic => ({topic, ...config})),
    waitForLeaders: false, // kafkajs asks a broker that may not know of them yet
  });
  t.teardown(async () => {
    await admin.deleteTopics({topics});
    await admin.disconnect();
  });
  return {kafka, settings, topics};
}
