import {setTimeout as sleep} from 'node:timers/promises';
import type {Kafka} from 'kafkajs';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import type {Lsn} from '../source/lsn.ts';
import {watermarkTopic} from './topics.ts';
import {WatermarkMessage} from './watermark-message.ts';

const TIMEOUT_MS = 30_000;

/** The position of the last watermark that Kafka has; undefined where there is none, or it may not be read. */
export async function lastWatermark(
  kafka: Kafka,
  {FRESHET_TOPIC_PREFIX, FRESHET_CONSUMER_GROUP}: Settings,
  log: Log,
): Promise<Lsn | undefined> {
  const topic = watermarkTopic(FRESHET_TOPIC_PREFIX);
  // kafkajs reads as a member of a group alone; this one commits nothing.
  const groupId = `${FRESHET_CONSUMER_GROUP}.position`;
  const [admin, consumer] = [kafka.admin(), kafka.consumer({groupId, maxWaitTimeInMs: 100})];
  try {
    await admin.connect();
    const [offsets] = await admin.fetchTopicOffsets(topic);
    if (!offsets || BigInt(offsets.high) <= BigInt(offsets.low)) return undefined;
    const last = (BigInt(offsets.high) - 1n).toString();
    const found = Promise.withResolvers<Lsn | undefined>();
    await consumer.connect();
    await consumer.subscribe({topics: [topic], fromBeginning: true});
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({message: {offset, value}}) => {
        if (BigInt(offset) < BigInt(last) || value === null) return;
        found.resolve(BigInt(WatermarkMessage.parse(JSON.parse(value.toString('utf8'))).position) as Lsn);
      },
    });
    consumer.seek({topic, partition: 0, offset: last});
    return await Promise.race([found.promise, sleep(TIMEOUT_MS, undefined, {ref: false})]);
  } catch (error) {
    log.warn({error: String(error)}, 'the last watermark could not be read');
    return undefined;
  } finally {
    await consumer.disconnect().catch(() => {});
    await admin.deleteGroups([groupId]).catch(() => {});
    await admin.disconnect().catch(() => {});
  }
}
