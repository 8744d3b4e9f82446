import {type Context, migrateAll} from './context.ts';
import {type Found, History, whyAnew} from './continuity.ts';
import {PipelineError} from './failures.ts';
import type {Ends} from './kafka/message.ts';
import type {Publisher} from './kafka/transport.ts';
import {type Acknowledged, type Landmark, Remembered} from './remembered.ts';
import {resumeTables} from './resume-tables.ts';
import type {SchemaChanges} from './schema-changes.ts';
import {isSetAsideBySink, nameOf, readingSince, type SourceRow} from './sink/registry.ts';
import {existingTargets} from './sink/target.ts';
import {snapshotAll, transportName, unfinished} from './snapshot/all-tables.ts';
import {type Lsn, NO_LSN, parseLsn} from './source/lsn.ts';
import {clientConfig, withClient} from './source/postgres.ts';
import {type Preflight, preflight, problemLines} from './source/preflight.ts';
import {ReplicationConnection} from './source/replication-connection.ts';
import {ensureTriggers} from './source/schema-messages.ts';
import {dropSlot, readSlot} from './source/slot.ts';
import {TableTracker} from './source/table-tracker.ts';
import type {CapturedTable} from './source/tables.ts';

/** All that streaming starts from. */
export interface Prepared {
  readonly tracker: TableTracker;
  readonly database: string;
  readonly serverVersion: number;
  readonly epoch: number;
  readonly ends: Ends;
  /** OIDs of tables that are to be read beside the stream. */
  readonly toRead: readonly number[];
  readonly history: History;
  readonly remembered: Remembered;
  /** Where the slot stands. */
  readonly confirmed: Lsn;
  /** What is written down of what was sent: up to where, and the last transaction. The next start looks for that until more was sent. */
  readonly position: Lsn;
  readonly last: Landmark | undefined;
  /** Written down with every position that is acknowledged. */
  readonly circumstances: Pick<Acknowledged, 'epoch' | 'failover' | 'cluster'>;
}

/**
 * Gets everything to the point where changes can stream: preflight, publication, event triggers, targets, topics, and
 * the first snapshot, or another one where the old stream cannot be continued without a gap. Single tables that are
 * new, or must be read again, are read beside the stream.
 */
export async function prepareSource(
  context: Context,
  publisher: Publisher,
  changes: SchemaChanges,
): Promise<Prepared> {
  const {settings, registry, log} = context;
  const config = clientConfig(settings);
  let before = await registry.source();
  const highest = await registry.highestEpoch();
  const {checked, slot} = await withClient(config, async postgres => {
    const first = await preflight(postgres, settings);
    refuse(first, before);
    if (first.createPublication) {
      // What changed while there was none was not sent. Creating it is the only change made to the source but the slot
      // and the triggers.
      await readAgain(context, 'the publication is gone', first.captured, () => true);
      if (before && !before.snapshot_done) {
        before = {...before, consistent_point: '0'}; // nothing of an unfinished snapshot counts
        await registry.saveSource(before);
      }
      // The slot decodes what was changed without it by a catalog that has none, which is an error there.
      if (before && first.serverVersion < PASSES_OVER_PUBLICATIONS) {
        await dropSlot(postgres, settings.FRESHET_SLOT);
      }
      await postgres.query(first.createPublication);
    }
    const triggers = await ensureTriggers(postgres, settings, first.serverVersion);
    log.info(
      {},
      triggers
        ? 'event triggers announce schema changes'
        : 'schema changes are found by watching the catalog',
    );
    const checked = first.createPublication ? await preflight(postgres, settings) : first;
    refuse(checked, before);
    return {checked, slot: await readSlot(postgres, settings.FRESHET_SLOT)};
  });
  const connection = await ReplicationConnection.connect(config);
  // A slot in the making waits for older transactions; a stop does not.
  context.signal.addEventListener('abort', () => connection.close(), {once: true});
  try {
    const [server, cluster] = [await connection.identify(), await publisher.cluster()];
    const remembered = new Remembered(context.client, settings);
    const found = {server, transport: transportName(settings), cluster, slot, highest};
    const acknowledged = before && (await lastAcknowledged(remembered, publisher, {...found, before}));
    const anew = before
      ? whyAnew({...found, before, acknowledged})
      : {why: 'this pipeline is new', newEpoch: false};
    let epoch = before?.epoch ?? highest + 1;
    let goesOn = acknowledged?.epoch === epoch ? acknowledged : undefined;
    if (anew || !before?.snapshot_done) {
      const left = anew ? undefined : await unfinished(context, before, slot, checked);
      const why = anew?.why ?? 'the last one was not finished';
      if (!left) log.info({tables: checked.captured.length}, `reading a snapshot: ${why}`);
      if (anew?.newEpoch) epoch = highest + 1;
      const beginning = {before, server, left, epoch, remembered};
      await snapshotAll(context, publisher, changes, connection, checked, beginning);
      goesOn = undefined;
    } else if (before.timeline !== server.timeline) {
      log.warn(
        {timeline: server.timeline},
        'the source was promoted, and its failover slot goes on where it stood',
      );
      await registry.saveSource({...before, timeline: server.timeline});
    }
    const now = await withClient(config, postgres => readSlot(postgres, settings.FRESHET_SLOT));
    const keepOnStandbys = settings.FRESHET_SLOT_FAILOVER && now?.failover === false;
    if (keepOnStandbys) await connection.setFailover(settings.FRESHET_SLOT);
    const confirmed = parseLsn(now?.confirmedFlush ?? '0/0');
    await markLost(context, publisher, checked.captured);
    const tracked = await resumeTables(context, changes, checked, epoch);
    await publisher.prepare([...tracked.tables.values()].map(({history}) => history.at(-1)!.table.schema));
    await migrateAll(context.client, settings, log);
    return {
      tracker: new TableTracker({settings, serverVersion: checked.serverVersion, ...tracked}),
      database: checked.database,
      serverVersion: checked.serverVersion,
      epoch,
      // The first watermark waits for all that was sent before, also by a run that ended between send and watermark.
      ends: await publisher.ends(),
      toRead: tracked.toRead,
      history: new History(goesOn?.last, confirmed),
      remembered,
      confirmed,
      position: goesOn?.position ?? NO_LSN,
      last: goesOn?.last,
      circumstances: {
        epoch,
        failover: (keepOnStandbys || now?.failover === true) && checked.standbySlots !== '',
        cluster,
      },
    };
  } finally {
    connection.close();
  }
}

/** First version whose walsender passes over a publication that was not there when a change was made. */
const PASSES_OVER_PUBLICATIONS = 180_000;

/** A table whose target or topic somebody dropped is read again. */
async function markLost(
  context: Context,
  publisher: Publisher,
  captured: readonly CapturedTable[],
): Promise<void> {
  const {settings, registry, client} = context;
  const targets = await existingTargets(client, settings);
  const rows = new Map((await registry.tables()).map(row => [nameOf(row), row]));
  await readAgain(context, 'its target table is gone', captured, ({schema}) => {
    const target = rows.get(schema.name)?.target ?? '';
    return target !== '' && !targets.has(target);
  });
  const lost = await publisher.lost(captured.map(({schema}) => schema));
  for (const reason of new Set(lost.values()))
    await readAgain(context, reason, captured, ({schema}) => lost.get(schema.name) === reason);
}

/**
 * A table that was read already, or is being read, and cannot go on where it stood, is read again. That is written down before what is
 * gone is made anew, so that it holds through a crash.
 */
async function readAgain(
  {registry, log}: Context,
  reason: string,
  captured: readonly CapturedTable[],
  which: (table: CapturedTable) => boolean,
): Promise<void> {
  const read = new Set(
    (await registry.tables())
      .filter(row => row.state === 'streaming' || isSetAsideBySink(row) || readingSince(row) !== undefined)
      .map(nameOf),
  );
  const again = captured.filter(table => read.has(table.schema.name) && which(table));
  if (again.length === 0) return;
  log.warn({tables: again.map(({schema}) => schema.name)}, `tables are read again: ${reason}`);
  await registry.setTables(
    again.map(({schema}) => schema),
    'snapshot',
    {reason},
  );
}

/** A pipeline that runs already sets aside what it cannot capture any more; a new one does not begin with less than asked for. */
function refuse({problems}: Preflight, before: SourceRow | undefined): void {
  const own = problems.filter(
    ({table, onlyAtFirst}) => before === undefined || (table === undefined && !onlyAtFirst),
  );
  if (own.length > 0) throw new PipelineError('pg.preflight', `\n${problemLines(own).join('\n')}`);
}

/**
 * What may have been acknowledged at the most. Where the slot stands behind what was written down, ClickHouse may have
 * been away: then Kafka's last watermark tells.
 */
async function lastAcknowledged(
  remembered: Remembered,
  publisher: Publisher,
  found: Omit<Found, 'acknowledged'>,
): Promise<Acknowledged | undefined> {
  const known = await remembered.acknowledged();
  if (!known || whyAnew({...found, acknowledged: known})?.row !== 'a slot ahead of us') return known;
  const position = (await publisher.lastPosition()) ?? known.position;
  return position > known.position ? {...known, position} : known;
}
