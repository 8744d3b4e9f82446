import {setTimeout as sleep} from 'node:timers/promises';
import {aborted} from './aborted.ts';
import {capture} from './capture.ts';
import {type Context, type PipelineOptions, withContext} from './context.ts';
import {asPipelineError, PipelineError} from './failures.ts';
import {UnannouncedChange} from './kafka/change-decoder.ts';
import {kafkaClient} from './kafka/client.ts';
import {KafkaDeadLetterTopic} from './kafka/dead-letter-topic.ts';
import {DirectTransport} from './kafka/direct.ts';
import {KafkaPublisher} from './kafka/kafka-publisher.ts';
import {KafkaSubscriber} from './kafka/kafka-subscriber.ts';
import type {DeadLetterTopic, Publisher, Subscriber} from './kafka/transport.ts';
import {guardSlot} from './observe/slot-guard.ts';
import {type Landmark, Remembered} from './remembered.ts';
import {keepRollups} from './rollups/keep.ts';
import {SchemaChanges} from './schema-changes.ts';
import {refuse, type Source, setAside} from './set-aside.ts';
import type {Settings} from './settings/settings.ts';
import {DeadLetters} from './sink/dead-letters.ts';
import {runSink} from './sink/sink.ts';
import type {SinkOptions} from './sink/sink-options.ts';
import {TableReads} from './snapshot/beside-stream.ts';
import {CatalogWatch} from './source/catalog-watch.ts';
import {type Lsn, NO_LSN} from './source/lsn.ts';
import {clientConfig} from './source/postgres.ts';
import {problemLines} from './source/preflight.ts';
import {requestRead} from './source/read-request.ts';
import {ReplicationConnection} from './source/replication-connection.ts';
import {holdingSlot} from './source/slot-lock.ts';
import {StreamedTransactions} from './source/streamed-transactions.ts';
import type {SchemaAction, TableTracker} from './source/table-tracker.ts';
import {WalClock} from './source/wal-clock.ts';
import {type Prepared, prepareSource} from './start.ts';
import {supervise, together} from './supervisor.ts';

/** Capture and sink in one process. Resolves when the signal has stopped both; rejects on what halts. */
export async function run(options: PipelineOptions): Promise<void> {
  await withContext(options, context =>
    guarded(context, async () => {
      const rollups = (signal: AbortSignal): Promise<void> => keepRollups({...context, signal});
      if (context.settings.FRESHET_TRANSPORT === 'direct') {
        await together(
          [supervised('pipeline', context, stage => holdingSlot(stage, runDirect)), rollups],
          context.signal,
        );
        return;
      }
      const ready = Promise.withResolvers<void>();
      await together(
        [
          rollups,
          supervised('capture', context, stage =>
            holdingSlot(stage, own => captureStage(own, ready.resolve)),
          ),
          supervised('sink', context, stage => sinkStage(stage, ready.promise)),
        ],
        context.signal,
      );
    }),
  );
}

/** PostgreSQL → Kafka alone. Snapshots go to ClickHouse directly. */
export async function runCapture(options: PipelineOptions): Promise<void> {
  requireKafka(options.settings);
  await withContext(options, context =>
    guarded(context, () =>
      supervise(
        'capture',
        signal => holdingSlot({...context, signal}, own => captureStage(own, () => {})),
        context,
      ),
    ),
  );
}

/** A stage beside others: it is started again after its failures, until the signal aborts. */
const supervised =
  (name: string, context: Context, stage: (context: Context) => Promise<void>) =>
  (signal: AbortSignal): Promise<void> =>
    supervise(name, own => stage({...context, signal: own}), {...context, signal});

/** The slot is watched as long as the work goes on. */
async function guarded(context: Context, work: () => Promise<void>): Promise<void> {
  const over = new AbortController();
  const guard = guardSlot({...context, signal: AbortSignal.any([context.signal, over.signal])});
  try {
    await work();
  } finally {
    over.abort();
    await guard;
  }
}

/** Kafka → ClickHouse alone; as many processes as the topics have partitions can share the work. */
export async function runSinkOnly(options: PipelineOptions): Promise<void> {
  requireKafka(options.settings);
  await withContext(options, context =>
    together(
      [
        supervised('sink', context, stage => sinkStage(stage, Promise.resolve())),
        signal => keepRollups({...context, signal}),
      ],
      context.signal,
    ),
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
  const publisher = new KafkaPublisher(
    kafkaClient(settings, log),
    settings,
    log,
    new Remembered(context.client, settings),
  );
  try {
    await captureInto(context, publisher, ready);
  } finally {
    await publisher.close();
  }
}

/** How often a sink looks whether tables were added. */
const TABLES_MS = 1_000;

async function sinkStage(context: Context, ready: Promise<void>): Promise<void> {
  const {settings, log, registry, signal} = context;
  await Promise.race([ready, aborted(signal)]);
  if (signal.aborted) return;
  await registry.unpark();
  const tables = await registry.everCaptured();
  if (tables.length === 0) {
    log.info({}, 'no tables yet: waiting for a capture to start');
    await sleep(TABLES_MS, undefined, {signal}).catch(() => {});
    return;
  }
  // A table that was added is consumed from the next start of this stage on.
  const changed = new AbortController();
  const watch = setInterval(() => {
    registry.everCaptured().then(
      now => now.length !== tables.length && changed.abort(),
      () => {},
    );
  }, TABLES_MS);
  try {
    const kafka = kafkaClient(settings, log);
    const subscriber = new KafkaSubscriber(kafka, settings, log, tables, async (table, reason) => {
      if (!(await registry.readAgain(table, reason))) return;
      const asked = await requestRead(settings, [table]);
      if ('problems' in asked) log.warn({table}, `${table}: ${problemLines(asked.problems).join(' ')}`);
    });
    const topic = new KafkaDeadLetterTopic(kafka, settings);
    await sink(context, subscriber, AbortSignal.any([signal, changed.signal]), {topic});
  } finally {
    clearInterval(watch);
  }
}

async function runDirect(context: Context): Promise<void> {
  const transport = new DirectTransport();
  let source: Source | undefined;
  // The sink stops last: what capture still sends must become visible before it is acknowledged.
  const captured = new AbortController();
  const failed = new AbortController();
  const reading = (async () => {
    try {
      await captureInto(
        {...context, signal: AbortSignal.any([context.signal, failed.signal])},
        transport,
        ready => {
          source = ready;
        },
      );
    } finally {
      captured.abort();
    }
  })();
  const passOver: SinkOptions['passOver'] = async (name, generation, error) => {
    if (source) await setAside(source, name, generation, error);
    return source !== undefined;
  };
  const writing = sink(context, transport, captured.signal, {passOver}).catch(error => {
    failed.abort();
    throw error;
  });
  const [written, read] = await Promise.allSettled([writing, reading]);
  for (const result of [written, read]) if (result.status === 'rejected') throw result.reason;
}

async function sink(
  context: Context,
  subscriber: Subscriber,
  signal: AbortSignal,
  more: {topic?: DeadLetterTopic} & Pick<SinkOptions, 'passOver'> = {},
): Promise<void> {
  const {client, settings, registry, log, budget} = context;
  const letters = new DeadLetters(client, settings, more.topic);
  try {
    await runSink({client, settings, registry, subscriber, letters, log, budget, ...more}, signal);
  } finally {
    await more.topic?.close();
  }
}

async function captureInto(
  context: Context,
  publisher: Publisher,
  ready: (source: Source) => void,
): Promise<void> {
  const changes = new SchemaChanges(context, publisher, {
    onRead: oid => reads?.add(oid),
    onParked: oid => tracker?.park(oid),
  });
  let reads: TableReads | undefined;
  let tracker: TableTracker | undefined;
  const prepared = await prepareSource(context, publisher, changes);
  ({tracker} = prepared);
  const source = {changes, tracker};
  publisher.onTooLarge = (message, error) => refuse(context, source, message, error);
  ready(source);
  changes.begin(tracker.tables);
  let streamed = NO_LSN;
  reads = new TableReads(context, {...prepared, changes, publisher, streamed: () => streamed});
  for (const oid of prepared.toRead) reads.add(oid);
  const reading = reads;
  await together(
    [
      signal =>
        stream({...context, signal}, publisher, prepared, {
          changes,
          onStreamed: position => {
            streamed = position;
          },
        }),
      signal => reading.run(signal),
    ],
    context.signal,
  );
}

async function stream(
  context: Context,
  publisher: Publisher,
  prepared: Prepared,
  {changes, onStreamed}: {changes: SchemaChanges; onStreamed: (position: Lsn) => void},
): Promise<void> {
  const {settings, log, signal, budget, streaming} = context;
  const {tracker, serverVersion, remembered} = prepared;
  const config = clientConfig(settings);
  const known = tracker.tables.map(({source}) => source);
  const [clock, watch] = await Promise.all([
    WalClock.start(config, settings.FRESHET_SLOT, log),
    CatalogWatch.start(config, {settings, serverVersion, log, known}),
  ]);
  try {
    const walsender = await ReplicationConnection.connect(config);
    const connection = streaming.on ? new StreamedTransactions(walsender, settings) : walsender;
    log.info({tables: known.length, slot: settings.FRESHET_SLOT}, 'streaming');
    const apply = (action: SchemaAction): Promise<void> => changes.apply(action);
    const remember = async (position: Lsn, last: Landmark | undefined): Promise<boolean> => {
      try {
        await publisher.rememberEnds();
        await remembered.saveAcknowledged({...prepared.circumstances, position, last});
        return true;
      } catch (error) {
        log.debug({error: String(error)}, 'what may be acknowledged could not be written down');
        return false;
      }
    };
    await capture(
      {...prepared, connection, clock, watch, apply, remember, onStreamed, publisher, settings, log, budget},
      signal,
    );
  } catch (error) {
    const {code, table, message} = asPipelineError(error);
    if (code === 'pg.other_history') await forgetHistory(context);
    if (code === 'kafka.topic_lost' && table) await context.registry.readAgain(table, message);
    if (code === 'pg.streaming') streaming.on = false;
    if (error instanceof UnannouncedChange) await changes.adopt(error, tracker, serverVersion);
    throw error;
  } finally {
    await clock.close();
    await watch.close();
  }
}

/** The next start reads all tables again, under versions above all that were written. */
async function forgetHistory({registry}: Context): Promise<void> {
  const source = await registry.source();
  if (source)
    await registry.saveSource({...source, epoch: source.epoch + 1, consistent_point: '0', snapshot_done: 0});
}
