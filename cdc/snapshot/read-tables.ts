import type {Context} from '../context.ts';
import {asPipelineError} from '../failures.ts';
import {Transaction} from '../kafka/transaction.ts';
import type {Publisher} from '../kafka/transport.ts';
import {retrying} from '../retry.ts';
import {insertCopyText} from '../sink/clickhouse.ts';
import {SnapshotBatch} from '../sink/snapshot-batch.ts';
import {copyStatement} from '../sink/target.ts';
import type {RowTarget} from '../source/chunk-rows.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import {clientConfig} from '../source/postgres.ts';
import {type ReadTable, readSnapshot, type SnapshotOptions} from '../source/snapshot.ts';
import {EnvelopeBatch} from './envelope-batch.ts';
import {RateLimit} from './rate-limit.ts';

export interface ReadOptions
  extends Pick<SnapshotOptions, 'tables' | 'snapshotName' | 'signal' | 'workers' | 'onChunk'> {
  readonly publisher: Publisher;
  readonly database: string;
  /** What the rows are of. */
  readonly epoch: number;
  readonly position: Lsn;
}

/**
 * Reads tables under an exported snapshot, with progress: into their targets, written again until they are there, or
 * into their topics.
 */
export function readTables(context: Context, options: ReadOptions): Promise<ReadTable[]> {
  const {settings, budget, onProgress} = context;
  const {signal} = options;
  const rate = settings.FRESHET_SNAPSHOT_RATE_BYTES;
  const limit = rate > 0 ? new RateLimit(rate) : undefined;
  const way = settings.FRESHET_SNAPSHOT_VIA === 'kafka' ? intoTopics : intoClickHouse;
  return readSnapshot({
    ...options,
    ...way(context, options),
    config: clientConfig(settings),
    settings,
    budget,
    batchBytes: settings.FRESHET_BATCH_BYTES,
    onProgress: progress => onProgress?.(progress),
    ...(limit && {mayRead: bytes => limit.pass(bytes, signal)}),
  });
}

const nowMicros = (): bigint => BigInt(Date.now()) * 1000n;

function intoTopics(
  {settings}: Context,
  {publisher, database, epoch, position}: ReadOptions,
): Pick<RowTarget, 'newBatch'> {
  const origin = {prefix: settings.FRESHET_TOPIC_PREFIX, database};
  const point = new Transaction({epoch, commitLsn: position, commitMicros: nowMicros(), xid: 0});
  return {newBatch: table => new EnvelopeBatch(table, publisher, {origin, point})};
}

/** Bytes as they are where ClickHouse takes them; what went by the encoder is sent until it is there. */
function intoClickHouse(
  {settings, client, log}: Context,
  {epoch, position, signal}: ReadOptions,
): Pick<RowTarget, 'newBatch' | 'pipe'> {
  const point = {version: rowVersion(epoch, position, 0), commitMicros: nowMicros()};
  return {
    newBatch: table =>
      new SnapshotBatch({client, settings, table}, point, write =>
        retrying(`snapshot of ${table.name}`, write, {log, signal}),
      ),
    pipe: async (table, data) => {
      try {
        await insertCopyText(client, copyStatement(settings, table, point), data, signal);
        return true;
      } catch (thrown) {
        const error = asPipelineError(thrown);
        if (signal.aborted) throw error;
        const {code, message} = error;
        log.warn({code, table: table.name}, `${table.name}: a chunk goes by the encoder: ${message}`);
        return false;
      }
    },
  };
}
