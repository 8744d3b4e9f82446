import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {asTargetError, type ClickHouseClient, chLiteral, LONG_STATEMENT} from '../sink/clickhouse.ts';
import {SnapshotBatch} from '../sink/snapshot-batch.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import {clientConfig, liftTimeLimits, withClient} from '../source/postgres.ts';
import {ReplicationConnection} from '../source/replication-connection.ts';
import {createTemporarySlot} from '../source/slot.ts';
import {readSnapshot, WHOLE} from '../source/snapshot.ts';
import {pgLiteral} from '../source/table-schema.ts';
import type {CapturedTable} from '../source/tables.ts';
import {sourceKey, sourceTable, targetKey, withKeys} from './checksum.ts';
import {inTarget} from './keys.ts';
import type {Difference} from './verdict.ts';

/** What a repair did. */
export interface Repair {
  /** Keys that differed, and were read again. */
  readonly keys: number;
  /** The first ones, as they were found. */
  readonly differences: readonly Difference[];
  /** The position in the WAL that they were read at, the last one where it took several. */
  readonly position: string;
  /** Keys that ClickHouse has a version of above all that PostgreSQL has written: no repair can win over it. */
  readonly ahead: readonly {readonly key: string; readonly version: bigint}[];
  /** The target table, quoted. */
  readonly target: string;
}

export interface RepairOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly table: CapturedTable;
  /** The target table, quoted. */
  readonly target: string;
  /** As in `withKeys`. */
  readonly keyTypes: readonly string[];
  readonly epoch: number;
}

const KEYS_A_BATCH = 5_000;

/**
 * Reads the rows with these framed keys under the snapshot of a temporary slot, and writes them with its consistent
 * point as their version: what was committed before it is in the snapshot, what comes after it wins. Keys that
 * PostgreSQL does not have get a deletion. Gives the point. Values that ClickHouse cannot hold go by the same policy
 * as anywhere. Throws `pg.slot_blocked` where an old transaction holds the slot up.
 */
export async function repairKeys(options: RepairOptions, keys: readonly string[]): Promise<Lsn> {
  const {client, settings, table, epoch} = options;
  const config = clientConfig(settings);
  const connection = await ReplicationConnection.connect(config);
  try {
    return await withClient(config, async postgres => {
      const {consistentPoint, snapshotName} = await createTemporarySlot(
        postgres,
        connection,
        settings.FRESHET_SLOT,
      );
      const version = rowVersion(epoch, consistentPoint, 0);
      const commitMicros = BigInt(Date.now()) * 1000n;
      await liftTimeLimits(postgres);
      await postgres.query(
        `SET lock_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT ${pgLiteral(snapshotName)}`,
      );
      for (let at = 0; at < keys.length; at += KEYS_A_BATCH) {
        const batch = keys.slice(at, at + KEYS_A_BATCH);
        const wanted = conditionOf(options, batch);
        const {rows} = await postgres.query<{key: string}>(
          `SELECT ${sourceKey(table)} AS key FROM ${sourceTable(table)} WHERE ${wanted}`,
        );
        const [read] = await readSnapshot({
          config,
          settings,
          tables: [{table: {...table, rowFilter: wanted}, chunks: WHOLE}],
          snapshotName,
          workers: 1,
          batchBytes: settings.FRESHET_BATCH_BYTES,
          newBatch: table => new SnapshotBatch({client, settings, table}, {version, commitMicros}),
          onProgress: () => {},
          signal: new AbortController().signal,
        });
        // A rewritten table looks empty to an older snapshot.
        if (read?.unaltered === undefined) {
          throw new PipelineError(
            'pg.schema_changed',
            `${table.schema.name} was altered while it was repaired`,
            {
              table: table.schema.name,
            },
          );
        }
        const present = new Set(rows.map(({key}) => key));
        await deleteKeys(
          options,
          batch.filter(key => !present.has(key)),
          {version, commitMicros},
        );
      }
      return consistentPoint;
    });
  } finally {
    connection.close(); // the slot goes with it
  }
}

/** The rows with these keys that are published. COPY takes no parameters. */
function conditionOf({table, keyTypes}: RepairOptions, keys: readonly string[]): string {
  const list = (values: readonly string[]): string => `ARRAY[${values.map(pgLiteral).join(', ')}]::text[]`;
  const wanted = withKeys(table, keyTypes, keys, list);
  return table.rowFilter === null ? wanted : `(${table.rowFilter}) AND ${wanted}`;
}

/** Writes a deletion of each key; ClickHouse knows the values of their columns. */
async function deleteKeys(
  {client, table, target}: RepairOptions,
  keys: readonly string[],
  {version, commitMicros}: {version: bigint; commitMicros: bigint},
): Promise<void> {
  if (keys.length === 0) return;
  const columns = table.schema.keyColumns.map(index => inTarget(table.schema.columns[index]!)).join(', ');
  const query = `INSERT INTO ${target} (${columns}, _version, _is_deleted, _commit_ts)
    SELECT DISTINCT ${columns}, toUInt128('${version}'), 1, fromUnixTimestamp64Micro(${commitMicros}, 'UTC')
    FROM ${target} WHERE ${targetKey(table)} IN (${keys.map(chLiteral).join(', ')})`;
  try {
    await client.command({query, clickhouse_settings: LONG_STATEMENT});
  } catch (error) {
    throw asTargetError(error);
  }
}
