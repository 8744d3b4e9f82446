import {type Context, migrateAll} from './context.ts';
import {PipelineError} from './failures.ts';
import {Batch, writeHorizon} from './kafka/envelope.ts';
import type {Ends} from './kafka/message.ts';
import type {Publisher} from './kafka/transport.ts';
import {retrying} from './retry.ts';
import type {Settings} from './settings/settings.ts';
import {nameOf, type SourceRow} from './sink/registry.ts';
import {applySnapshotChunk} from './sink/table-writer.ts';
import {createTarget, existingTargets} from './sink/target.ts';
import {rowVersion} from './source/lsn.ts';
import {clientConfig, withClient} from './source/postgres.ts';
import {type Preflight, preflight, problemLines} from './source/preflight.ts';
import {ReplicationConnection} from './source/replication-connection.ts';
import {createSlot, readSlot} from './source/slot.ts';
import {readSnapshot} from './source/snapshot.ts';
import {type TableSchema, targetName} from './source/table-schema.ts';
import type {CapturedTable} from './source/tables.ts';

/** All that streaming starts from. */
export interface Prepared {
  readonly tables: readonly CapturedTable[];
  readonly database: string;
  readonly epoch: number;
  readonly ends: Ends;
}

/**
 * Gets everything to the point where changes can stream: preflight, publication, targets, topics, and the first
 * snapshot, or another one where the old stream cannot be continued without a gap.
 */
export async function prepareSource(context: Context, publisher: Publisher): Promise<Prepared> {
  const {settings, registry, client, log} = context;
  const config = clientConfig(settings);
  const {checked, slot} = await withClient(config, async postgres => {
    const first = await preflight(postgres, settings);
    refuse(first);
    if (first.createPublication) {
      // What changed while there was none was not sent. Creating it is the only change made to the source but the slot.
      await readAgain(context, 'the publication is gone', schemasOf(first), () => true);
      await postgres.query(first.createPublication);
    }
    const checked = first.createPublication ? await preflight(postgres, settings) : first;
    refuse(checked);
    return {checked, slot: await readSlot(postgres, settings.FRESHET_SLOT)};
  });
  const tables = checked.captured;
  const schemas = schemasOf(checked);
  const targets = await existingTargets(client, settings);
  await readAgain(
    context,
    'its target table is gone',
    schemas,
    schema => !targets.has(targetName(schema.definition)),
  );
  const topicless = new Set(await publisher.missing(schemas));
  await readAgain(context, 'its topic is gone', schemas, schema => topicless.has(schema.name));
  for (const schema of schemas) await createTarget(client, settings, schema);
  await migrateAll(client, settings, log);
  await registry.saveSchemas(schemas);
  await publisher.prepare(schemas);

  const connection = await ReplicationConnection.connect(config);
  try {
    const server = await connection.identify();
    const before = await registry.source();
    const known = new Map((await registry.tables()).map(row => [nameOf(row), row]));
    const transport = transportName(settings);
    const reason = whyAnew({before, server, transport, slot}, tables, known);
    let epoch = before?.epoch ?? 0;
    if (reason !== undefined) {
      log.info({tables: tables.length}, `reading a snapshot: ${reason}`);
      epoch = await snapshot(context, publisher, connection, tables, {before, server});
    }
    // The first watermark waits for all that was sent before, also by a run that ended between send and watermark.
    return {tables, database: checked.database, epoch, ends: await publisher.ends()};
  } finally {
    connection.close();
  }
}

const schemasOf = ({captured}: Preflight): TableSchema[] => captured.map(table => table.schema);

/**
 * A table that was read already, and cannot go on where it stood, is read again. That is written down before what is
 * gone is made anew, so that it holds through a crash.
 */
async function readAgain(
  {registry, log}: Context,
  reason: string,
  schemas: readonly TableSchema[],
  which: (schema: TableSchema) => boolean,
): Promise<void> {
  const read = new Set((await registry.tables()).filter(({state}) => state !== 'snapshot').map(nameOf));
  const again = schemas.filter(schema => read.has(schema.name) && which(schema));
  if (again.length === 0) return;
  log.warn({tables: again.map(({name}) => name)}, `tables are read again: ${reason}`);
  await registry.setTables(again, 'snapshot', 0n);
}

function refuse({problems}: Preflight): void {
  if (problems.length > 0) throw new PipelineError('pg.preflight', `\n${problemLines(problems).join('\n')}`);
}

/** What was sent one way and not applied yet would be missing from the other. */
const transportName = ({FRESHET_TRANSPORT: transport, FRESHET_TOPIC_PREFIX: prefix}: Settings): string =>
  transport === 'kafka' ? `kafka ${prefix}` : transport;

interface Known {
  readonly before: SourceRow | undefined;
  readonly server: {systemIdentifier: string; timeline: number};
  readonly transport: string;
  readonly slot: {walStatus: string | null} | undefined;
}

/** Why the stream cannot go on from where it stood; undefined where it can. */
function whyAnew(
  {before, server, transport, slot}: Known,
  tables: readonly CapturedTable[],
  states: ReadonlyMap<string, {state: string}>,
): string | undefined {
  if (!before) return 'this pipeline is new';
  if (!before.snapshot_done) return 'the last one was not finished';
  if (before.system_identifier !== server.systemIdentifier) return 'the source is another server';
  if (before.timeline !== server.timeline) return `the source is on timeline ${server.timeline} now`;
  if (before.transport !== transport) return `the transport was ${before.transport}`;
  if (!slot) return 'the replication slot is gone';
  if (slot.walStatus === 'lost') return 'the replication slot lost WAL that it needed';
  const added = tables.filter(
    table => !states.has(table.schema.name) || states.get(table.schema.name)?.state === 'snapshot',
  );
  if (added.length > 0) return `${added.map(table => table.schema.name).join(', ')} was not read yet`;
  return undefined;
}

async function snapshot(
  context: Context,
  publisher: Publisher,
  connection: ReplicationConnection,
  tables: readonly CapturedTable[],
  {before, server}: Pick<Known, 'before' | 'server'>,
): Promise<number> {
  const {settings, registry, log, signal, client} = context;
  const config = clientConfig(settings);
  const schemas = tables.map(table => table.schema);
  const moved =
    before !== undefined &&
    (before.system_identifier !== server.systemIdentifier || before.timeline !== server.timeline);
  const epoch = (before?.epoch ?? 0) + (moved ? 1 : 0);
  const source = {
    system_identifier: server.systemIdentifier,
    timeline: server.timeline,
    epoch,
    transport: transportName(settings),
  };
  // Written first: a crash from here on finds an unfinished snapshot, whatever was done to the slot.
  await registry.saveSource({...source, consistent_point: before?.consistent_point ?? '0', snapshot_done: 0});
  await registry.setTables(schemas, 'snapshot', 0n);
  const {consistentPoint, snapshotName} = await withClient(config, postgres =>
    createSlot(postgres, connection, settings.FRESHET_SLOT),
  );
  const version = rowVersion(epoch, consistentPoint, 0);
  const commitMicros = BigInt(Date.now()) * 1000n;
  await readSnapshot({
    config,
    tables,
    snapshotName,
    version,
    commitMicros,
    signal,
    workers: settings.FRESHET_SNAPSHOT_WORKERS,
    chunkBytes: settings.FRESHET_BATCH_BYTES,
    write: chunk =>
      retrying(
        `snapshot of ${chunk.table.name}`,
        () => applySnapshotChunk({client, settings, table: chunk.table}, chunk),
        {
          log,
          signal,
        },
      ),
    onProgress: progress => context.onProgress?.(progress),
  });
  await publishHorizons(publisher, schemas, {version, commitMicros});
  await registry.setTables(schemas, 'streaming', consistentPoint);
  await registry.saveSource({...source, consistent_point: consistentPoint.toString(), snapshot_done: 1});
  log.info({tables: tables.length, position: consistentPoint.toString()}, 'the snapshot is complete');
  return epoch;
}

/** What was not read again was deleted meanwhile: each partition is told behind its last older message. */
async function publishHorizons(
  publisher: Publisher,
  schemas: readonly CapturedTable['schema'][],
  horizon: {version: bigint; commitMicros: bigint},
): Promise<void> {
  const batch = new Batch();
  for (const schema of schemas) {
    writeHorizon(batch, schema, horizon, publisher.partitions(schema.name));
  }
  await publisher.publish(batch.messages());
}
