import {setTimeout as sleep} from 'node:timers/promises';
import {capture} from './capture.ts';
import {type Context, type PipelineOptions, withContext} from './context.ts';
import {PipelineError} from './failures.ts';
import {kafkaClient} from './kafka/client.ts';
import {DirectTransport} from './kafka/direct.ts';
import {KafkaPublisher} from './kafka/kafka-publisher.ts';
import {KafkaSubscriber} from './kafka/kafka-subscriber.ts';
import type {Publisher, Subscriber} from './kafka/transport.ts';
import type {Settings} from './settings/settings.ts';
import {nameOf} from './sink/registry.ts';
import {runSink} from './sink/sink.ts';
import {clientConfig} from './source/postgres.ts';
import {ReplicationConnection} from './source/replication-connection.ts';
import {WalClock} from './source/wal-clock.ts';
import {type Prepared, prepareSource} from './start.ts';
import {supervise, together} from './supervisor.ts';

/** Capture and sink in one process. Resolves when the signal has stopped both; rejects on what halts. */
export async function run(options: PipelineOptions): Promise<void> {
  await withContext(options, async context => {
    if (context.settings.FRESHET_TRANSPORT === 'direct') {
      await supervise('pipeline', signal => runDirect({...context, signal}), context);
      return;
    }
    const ready = Promise.withResolvers<void>();
    await together(
      [
        signal =>
          supervise('capture', stage => captureStage({...context, signal: stage}, ready.resolve), {
            ...context,
            signal,
          }),
        signal =>
          supervise('sink', stage => sinkStage({...context, signal: stage}, ready.promise), {
            ...context,
            signal,
          }),
      ],
      context.signal,
    );
  });
}

/** PostgreSQL → Kafka alone. Snapshots go to ClickHouse directly. */
export async function runCapture(options: PipelineOptions): Promise<void> {
  requireKafka(options.settings);
  await withContext(options, context =>
    supervise('capture', signal => captureStage({...context, signal}, () => {}), context),
  );
}

/** Kafka → ClickHouse alone; as many processes as the topics have partitions can share the work. */
export async function runSinkOnly(options: PipelineOptions): Promise<void> {
  requireKafka(options.settings);
  await withContext(options, context =>
    supervise('sink', signal => sinkStage({...context, signal}, Promise.resolve()), context),
  );
}

function requireKafka({FRESHET_TRANSPORT}: Settings): void {
  if (FRESHET_TRANSPORT === 'direct') {
    throw new PipelineError(
      'settings.invalid',
      'FRESHET_TRANSPORT=direct has both stages in one process: freshet run',
    );
  }
}

async function captureStage(context: Context, ready: () => void): Promise<void> {
  const {settings, log} = context;
  const publisher = new KafkaPublisher(kafkaClient(settings, log), settings, log);
  try {
    const prepared = await prepareSource(context, publisher);
    ready();
    await stream(context, publisher, prepared);
  } finally {
    await publisher.close();
  }
}

/** How often a sink looks whether tables were added. */
const TABLES_MS = 5_000;

async function sinkStage(context: Context, ready: Promise<void>): Promise<void> {
  const {settings, log, registry, signal} = context;
  await Promise.race([ready, aborted(signal)]);
  if (signal.aborted) return;
  await registry.unpark();
  const tables = await registry.tables();
  if (tables.length === 0) {
    log.info({}, 'no tables yet: waiting for a capture to start');
    await sleep(TABLES_MS, undefined, {signal}).catch(() => {});
    return;
  }
  const named = tables.map(row => ({schema: row.schema_name, table: row.table_name, name: nameOf(row)}));
  // A table that was added is consumed from the next start of this stage on.
  const changed = new AbortController();
  const watch = setInterval(() => {
    registry.tables().then(
      now => now.length !== tables.length && changed.abort(),
      () => {},
    );
  }, TABLES_MS);
  try {
    const subscriber = new KafkaSubscriber(kafkaClient(settings, log), settings, log, named);
    await sink(context, subscriber, AbortSignal.any([signal, changed.signal]));
  } finally {
    clearInterval(watch);
  }
}

async function runDirect(context: Context): Promise<void> {
  const transport = new DirectTransport();
  // The sink stops last: what capture still sends must become visible before it is acknowledged.
  const captured = new AbortController();
  const failed = new AbortController();
  const reading = (async () => {
    try {
      const prepared = await prepareSource(context, transport);
      await stream(
        {...context, signal: AbortSignal.any([context.signal, failed.signal])},
        transport,
        prepared,
      );
    } finally {
      captured.abort();
    }
  })();
  const writing = sink(context, transport, captured.signal).catch(error => {
    failed.abort();
    throw error;
  });
  const [written, read] = await Promise.allSettled([writing, reading]);
  for (const result of [written, read]) if (result.status === 'rejected') throw result.reason;
}

function sink(context: Context, subscriber: Subscriber, signal: AbortSignal): Promise<void> {
  const {client, settings, registry, log} = context;
  return runSink({client, settings, registry, subscriber, log}, signal);
}

async function stream(context: Context, publisher: Publisher, prepared: Prepared): Promise<void> {
  const {settings, log, signal} = context;
  const config = clientConfig(settings);
  const clock = await WalClock.start(config, settings.FRESHET_SLOT, log);
  try {
    const connection = await ReplicationConnection.connect(config);
    log.info({tables: prepared.tables.length, slot: settings.FRESHET_SLOT}, 'streaming');
    await capture({...prepared, connection, clock, publisher, settings, log}, signal);
  } finally {
    await clock.close();
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise(resolve => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), {once: true});
  });
