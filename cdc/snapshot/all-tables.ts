import type {Context} from '../context.ts';
import {PipelineError} from '../failures.ts';
import {Batch} from '../kafka/batch.ts';
import {writeHorizon} from '../kafka/envelope.ts';
import type {Publisher} from '../kafka/transport.ts';
import type {Remembered} from '../remembered.ts';
import {inTarget, placed} from '../resume-tables.ts';
import type {SchemaChanges} from '../schema-changes.ts';
import type {Settings} from '../settings/settings.ts';
import {FIRST_READ, type SourceRow} from '../sink/registry.ts';
import {existingTargets, showTarget} from '../sink/target.ts';
import {nameMatcher} from '../source/catalog.ts';
import {formatLsn, type Lsn, rowVersion} from '../source/lsn.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import type {Preflight} from '../source/preflight.ts';
import type {ReplicationConnection} from '../source/replication-connection.ts';
import {createSlot, createTemporarySlot, readSlot, type SlotRow} from '../source/slot.ts';
import {targetName} from '../source/table-schema.ts';
import type {CapturedTable} from '../source/tables.ts';
import {chunksLeft, type PlannedTable, planChunks, SnapshotLog} from './plan.ts';
import {readTables} from './read-tables.ts';

/** What was sent one way and not applied yet would be missing from the other. */
export const transportName = ({
  FRESHET_TRANSPORT: transport,
  FRESHET_TOPIC_PREFIX: prefix,
}: Settings): string => (transport === 'kafka' ? `kafka ${prefix}` : transport);

export interface Beginning {
  readonly before: SourceRow | undefined;
  readonly server: {readonly systemIdentifier: string; readonly timeline: number};
  readonly epoch: number;
  /** What the last run left unfinished, and can be gone on with; see `unfinished`. */
  readonly left: readonly PlannedTable[] | undefined;
  readonly remembered: Remembered;
}

/**
 * What is left of a snapshot that was killed: the slot must be where it was then, so that the stream tells all that
 * happened since to what was read; undefined where everything is to be read anew.
 */
export async function unfinished(
  {client, settings, registry}: Context,
  before: SourceRow | undefined,
  slot: SlotRow | undefined,
  {captured}: Preflight,
): Promise<PlannedTable[] | undefined> {
  if (!before || before.snapshot_done || before.consistent_point === '0') return undefined;
  const point = BigInt(before.consistent_point) as Lsn;
  if (slot?.confirmedFlush !== formatLsn(point)) return undefined;
  const planned = await new SnapshotLog(client, settings, point).load(registry);
  const targets = await existingTargets(client, settings);
  const there = new Set(captured.map(({oid, schema}) => `${oid} ${schema.name}`));
  const left = planned.filter(
    ({table: {oid, schema}}) =>
      there.has(`${oid} ${schema.name}`) && targets.has(targetName(schema.definition)),
  );
  return left.length > 0 ? left : undefined;
}

/**
 * Reads all tables under the snapshot of a new slot; or what was left of that, under the snapshot of a temporary one:
 * its rows are of a later point, which the stream from the first one runs into.
 */
export async function snapshotAll(
  context: Context,
  publisher: Publisher,
  changes: SchemaChanges,
  connection: ReplicationConnection,
  {captured, database}: Preflight,
  {before, server, left, epoch, remembered}: Beginning,
): Promise<void> {
  const {settings, registry, log, signal, client} = context;
  const config = clientConfig(settings);
  const source = {
    system_identifier: server.systemIdentifier,
    timeline: server.timeline,
    epoch,
    transport: transportName(settings),
  };
  const {planned, first, point, snapshotName} = await withClient(config, async postgres => {
    if (left) {
      const sum = (of: (one: PlannedTable) => number): number => left.reduce((all, one) => all + of(one), 0);
      const [read, all] = [sum(({finished}) => finished.size), sum(({chunks}) => chunks)];
      log.info({tables: left.length}, `going on with the snapshot: ${read} of ${all} chunks were read`);
      await publisher.prepare(left.map(({table}) => table.schema));
      const {consistentPoint, snapshotName} = await createTemporarySlot(
        postgres,
        connection,
        settings.FRESHET_SLOT,
      );
      const first = BigInt(before!.consistent_point) as Lsn;
      return {planned: left, first, point: consistentPoint, snapshotName};
    }
    const history = await registry.history();
    const tables = (await placed(context, captured)).map(table => inTarget(table, history));
    const schemas = tables.map(table => table.schema);
    // Written first: a crash from here on finds an unfinished snapshot, whatever was done to the slot.
    await registry.saveSource({...source, consistent_point: '0', snapshot_done: 0});
    await changes.prepareTargets(schemas);
    await registry.setTables(schemas, 'snapshot');
    await registry.forgetWatermarks();
    const {consistentPoint, snapshotName} = await createSlot(
      postgres,
      connection,
      settings.FRESHET_SLOT,
      undefined,
      {failover: settings.FRESHET_SLOT_FAILOVER},
    );
    const planned = await planChunks(postgres, inOrder(tables, settings), settings);
    await new SnapshotLog(client, settings, consistentPoint).begin(planned);
    await registry.saveSource({...source, consistent_point: consistentPoint.toString(), snapshot_done: 0});
    return {planned, first: consistentPoint, point: consistentPoint, snapshotName};
  });
  const done = new SnapshotLog(client, settings, first);
  const read = await readTables(context, {
    tables: planned.map(one => ({
      table: one.table,
      chunks: chunksLeft(one),
      ...(one.finished.size > 0 && {done: one.done}),
    })),
    snapshotName,
    publisher,
    database,
    epoch,
    position: point,
    signal,
    workers: settings.FRESHET_SNAPSHOT_WORKERS,
    onChunk: (table, chunk, sizes) => done.finish(table, chunk, {...sizes, at: point}),
  });
  const slot = await withClient(config, postgres => readSlot(postgres, settings.FRESHET_SLOT));
  if (slot?.confirmedFlush !== formatLsn(first)) {
    throw new PipelineError(
      'pg.slot_active',
      `slot ${settings.FRESHET_SLOT} stands at ${slot?.confirmedFlush}, and the snapshot began at ${formatLsn(first)}: somebody made it anew, or read from it`,
    );
  }
  // What was altered meanwhile stays to be read, beside the stream.
  const tables = read.filter(({unaltered}) => unaltered !== undefined).map(({table}) => table);
  const shown = tables.map(({schema}) => schema);
  const version = rowVersion(epoch, first, 0);
  // Below the rows that were read: in another partition those may come behind the horizon, and equal versions have no winner.
  await publishHorizons(publisher, shown, {version: version - 1n, commitMicros: BigInt(Date.now()) * 1000n});
  await registry.saveHistory(
    tables.map(table => ({since: version, table, kind: 'read', change: FIRST_READ, views: []})),
  );
  for (const schema of shown) await showTarget(client, settings, schema);
  await registry.setTables(shown, 'streaming', {position: first, shown: true});
  // First: where it is missing, a slot that was moved is not noticed.
  await remembered.saveAcknowledged({
    epoch,
    position: first,
    last: undefined,
    failover: false,
    cluster: await publisher.cluster(),
  });
  await registry.saveSource({...source, consistent_point: first.toString(), snapshot_done: 1});
  log.info({tables: tables.length, position: first.toString()}, 'the snapshot is complete');
}

/** Tables of the first pattern of `FRESHET_TABLES_INCLUDE` come first, and of those the largest. */
function inOrder(tables: readonly CapturedTable[], {FRESHET_TABLES_INCLUDE}: Settings): CapturedTable[] {
  const patterns = FRESHET_TABLES_INCLUDE.map(pattern => nameMatcher([pattern]));
  const place = ({schema}: CapturedTable): number => patterns.findIndex(matches => matches(schema.name));
  return [...tables].sort((a, b) => place(a) - place(b) || b.estimatedRows - a.estimatedRows);
}

/** What was not read again was deleted meanwhile: each partition is told behind its last older message. */
async function publishHorizons(
  publisher: Publisher,
  schemas: readonly CapturedTable['schema'][],
  horizon: {version: bigint; commitMicros: bigint},
): Promise<void> {
  const batch = new Batch();
  for (const schema of schemas) writeHorizon(batch, schema, horizon);
  const {durable} = await publisher.publish(batch);
  await durable;
}
