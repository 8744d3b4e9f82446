import type pg from 'pg';
import type {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, lockSql, readCatalog} from './catalog.ts';
import {type Chunk, type Read, type RowTarget, readRows} from './chunk-rows.ts';
import {type Lsn, NO_LSN} from './lsn.ts';
import {
  asSourceError,
  type ClientConfig,
  connect,
  currentPosition,
  liftTimeLimits,
  RENAMED,
  readServerVersion,
} from './postgres.ts';
import {compareTables} from './schema-change.ts';
import {pgLiteral} from './table-schema.ts';
import {type CapturedTable, capturedTable, planTable} from './tables.ts';

export interface SnapshotProgress {
  readonly table: string;
  rows: number;
  bytes: number;
  /** Rows that were read before, by a run that was broken off. */
  readonly rowsBefore?: number;
  /** Not above 0 where PostgreSQL does not know. */
  readonly estimatedRows: number;
  done: boolean;
}

/** All of a table. */
export const WHOLE: readonly Chunk[] = [{number: 0, from: 0, to: undefined}];

export interface TableToRead {
  readonly table: CapturedTable;
  /** What is to be read of it; the rest was read before. */
  readonly chunks: readonly Chunk[];
  /** Rows and bytes of chunks that were read before, under another snapshot. */
  readonly done?: {readonly rows: number; readonly bytes: number};
}

export interface SnapshotOptions extends RowTarget {
  readonly config: ClientConfig;
  readonly settings: Settings;
  /** In the order in which they are read. */
  readonly tables: readonly TableToRead[];
  readonly snapshotName: string;
  readonly workers: number;
  /** All rows of the chunk are visible. */
  readonly onChunk?: (table: CapturedTable, chunk: Chunk, read: Readonly<Read>) => Promise<void>;
  readonly onProgress: (progress: Readonly<SnapshotProgress>) => void;
}

/** What became of a table that was to be read. */
export interface ReadTable {
  readonly table: CapturedTable;
  /**
   * Up to here nobody altered it since the snapshot, and its rows were read; undefined where it was altered, dropped or
   * truncated meanwhile. Rows that a command rewrote are not seen by an older snapshot, so none were read then.
   */
  readonly unaltered: Lsn | undefined;
  /** Why it cannot be read, where that is the table's own affair. */
  readonly failed?: PipelineError;
}

/** A table while it is read. */
interface Work extends TableToRead {
  readonly left: Chunk[];
  readonly progress: SnapshotProgress;
  /** Chunks that workers have taken and not finished. */
  taken: number;
  outcome: ReadTable;
}

/**
 * Reads the tables under an exported snapshot, several chunks at a time. All workers have taken the snapshot before
 * the first row is read. Each holds a table's lock for one chunk only: whoever wants to alter the table, and all who
 * wait behind him, need not wait for all of it; then it is not read on.
 */
export async function readSnapshot(options: SnapshotOptions): Promise<ReadTable[]> {
  const works = options.tables.map((todo): Work => {
    const {name} = todo.table.schema;
    const {rows = 0, bytes = 0} = todo.done ?? {};
    const {estimatedRows} = todo.table;
    return {
      ...todo,
      left: [...todo.chunks],
      progress: {table: name, rows, bytes, rowsBefore: rows, estimatedRows, done: false},
      taken: 0,
      outcome: {table: todo.table, unaltered: NO_LSN},
    };
  });
  const chunks = works.reduce((sum, {left}) => sum + left.length, 0);
  const count = Math.max(1, Math.min(options.workers, chunks));
  const clients: pg.Client[] = [];
  try {
    const look = await connect(options.config);
    clients.push(look);
    const serverVersion = await readServerVersion(look);
    for (let i = 0; i < count; i++) clients.push(await takeSnapshot(options));
    await Promise.all(
      clients.slice(1).map(async first => {
        let client = first;
        for (let work = next(works); work; work = next(works)) {
          const chunk = work.left.shift()!;
          work.taken += 1;
          const renew = async (): Promise<void> => {
            // The connection is in the middle of this table's rows.
            destroyed(client);
            client = await takeSnapshot(options);
            clients.push(client);
          };
          try {
            const todo = {work, chunk, serverVersion};
            if (!(await readChunk(client, look, {...todo, encoded: false}, options))) {
              await renew();
              await readChunk(client, look, {...todo, encoded: true}, options);
            }
          } catch (thrown) {
            const failed = asSourceError(thrown);
            if (failed.reaction !== 'park') throw failed;
            giveUp(work, {table: work.table, unaltered: undefined, failed});
            await renew();
          }
          work.taken -= 1;
          if (work.taken === 0 && work.left.length === 0) options.onProgress({...work.progress, done: true});
        }
      }),
    );
    return works.map(({outcome}) => outcome);
  } catch (error) {
    throw asSourceError(error);
  } finally {
    // A worker in the middle of a COPY does not read a goodbye.
    await Promise.all(clients.map(client => Promise.race([client.end().catch(() => {}), destroyed(client)])));
  }
}

const next = (works: readonly Work[]): Work | undefined => works.find(({left}) => left.length > 0);

/** Nothing more of it is read. */
function giveUp(work: Work, outcome: ReadTable): void {
  work.left.length = 0;
  work.outcome = outcome;
}

/** False where ClickHouse did not take the rows as they are: then the connection is of no more use. */
async function readChunk(
  client: pg.Client,
  look: pg.Client,
  {work, chunk, serverVersion, encoded}: {work: Work; chunk: Chunk; serverVersion: number; encoded: boolean},
  options: SnapshotOptions,
): Promise<boolean> {
  const {table, progress} = work;
  const resumed = work.done !== undefined;
  const {settings, signal} = options;
  // Without the second one each chunk would be a level deeper than the one before.
  const release = () => client.query('ROLLBACK TO SAVEPOINT held; RELEASE SAVEPOINT held');
  const unaltered = await hold(client, look, table, {settings, signal, serverVersion, resumed});
  if (unaltered === undefined) {
    giveUp(work, {table, unaltered});
    await release();
  } else {
    const read = {rows: 0, bytes: 0};
    const tell = ({rows, bytes}: Read): void => {
      for (const sum of [read, progress]) {
        sum.rows += rows;
        sum.bytes += bytes;
      }
      options.onProgress(progress);
    };
    if (!(await readRows(client, {table, chunk, encoded}, options, tell))) {
      tell({rows: -read.rows, bytes: -read.bytes});
      return false;
    }
    // First: where the lock is gone, the rows may have come behind what it kept away.
    await release();
    failpoint('snapshot.before_chunk_done');
    await options.onChunk?.(table, chunk, read);
    // Another worker may have given the table up meanwhile.
    const known = work.outcome.unaltered;
    if (known !== undefined && unaltered > known) work.outcome = {table, unaltered};
  }
  return true;
}

function destroyed(client: pg.Client): void {
  (client as unknown as {connection: {stream: {destroy(): void}}}).connection.stream.destroy();
}

async function takeSnapshot({config, settings, snapshotName}: SnapshotOptions): Promise<pg.Client> {
  const client = await connect(config);
  await liftTimeLimits(client);
  await client.query(
    `SET lock_timeout = ${settings.FRESHET_SILENCE_MS / 2}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`,
  );
  await client.query(`SET TRANSACTION SNAPSHOT ${pgLiteral(snapshotName)}`);
  return client;
}

/** SQLSTATE: lock_timeout has run out. */
const LOCKED = '55P03';

/** Takes the table's lock; gives the position at which it is as it was described and as the snapshot has it. */
async function hold(
  client: pg.Client,
  look: pg.Client,
  table: CapturedTable,
  options: {settings: Settings; signal: AbortSignal; serverVersion: number; resumed: boolean},
): Promise<Lsn | undefined> {
  const {settings, signal, serverVersion, resumed} = options;
  const {schema, source} = table;
  await client.query('SAVEPOINT held');
  for (;;) {
    try {
      await client.query(lockSql(source));
      break;
    } catch (error) {
      const code = String((error as {code?: string}).code);
      if (RENAMED.has(code)) return undefined;
      if (code !== LOCKED || signal.aborted) throw error;
      await client.query('ROLLBACK TO SAVEPOINT held'); // whoever holds it may hold it long; a stop is heard between
    }
  }
  const condition = `c.oid = ${source.oid}`;
  const position = await currentPosition(look);
  const [now] = await readCatalog(look, settings, serverVersion, condition);
  const [then] = await readCatalog(client, settings, serverVersion, condition);
  if (!now || !then || files(now) !== files(then)) return undefined;
  // Since chunks were read under another snapshot a rewrite may have moved its rows, and nobody is told of that.
  if (resumed && files(now) !== files(source)) return undefined;
  const plan = planTable(now, settings, serverVersion);
  if (!plan.schema || plan.schema.name !== schema.name) return undefined;
  // `look` does not wait for locks, and so does not know which partitions are empty.
  const after = capturedTable(plan.schema, {...now, leaves: then.leaves});
  const change = compareTables(table, after, {rewritten: false, late: false});
  return change.kind === 'none' ? position : undefined;
}

const files = ({fileNode, leaves}: CatalogTable): string =>
  JSON.stringify([fileNode, leaves.map(leaf => [leaf.oid, leaf.fileNode])]);
