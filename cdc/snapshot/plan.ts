import type {ClientBase} from 'pg';
import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, insertRows, rows} from '../sink/clickhouse.ts';
import type {Registry} from '../sink/registry.ts';
import {CatalogTable} from '../source/catalog.ts';
import type {Chunk} from '../source/chunk-rows.ts';
import type {Lsn} from '../source/lsn.ts';
import {type CapturedTable, capturedTable} from '../source/tables.ts';

/** A table of a snapshot and how it is divided: each chunk is the same range of blocks in every partition of it. */
export interface PlannedTable {
  readonly table: CapturedTable;
  /** 0: it is one chunk. */
  readonly blocks: number;
  readonly chunks: number;
  /** Numbers of the chunks whose rows are all in the target. */
  readonly finished: ReadonlySet<number>;
  /** Rows and bytes in them. */
  readonly done: {readonly rows: number; readonly bytes: number};
}

/** A chunk is remembered by a row: tables beyond this many have larger chunks. */
const MOST_CHUNKS = 10_000;

/** Divides tables by the size that their heaps have now. Tables of another kind than a heap are one chunk. */
export async function planChunks(
  postgres: ClientBase,
  tables: readonly CapturedTable[],
  {FRESHET_SNAPSHOT_CHUNK_BYTES: chunkBytes}: Settings,
): Promise<PlannedTable[]> {
  const {rows: sizes} = await postgres.query<{
    oid: number;
    size: number;
    parts: number;
    heap: boolean;
    block: number;
  }>(
    `SELECT t.oid::bigint::float8 AS oid, max(pg_relation_size(l.oid))::float8 AS size, count(*)::float8 AS parts,
       bool_and(coalesce(a.amname = 'heap', false)) AS heap, current_setting('block_size')::float8 AS block
     FROM unnest($1::oid[]) t(oid)
     CROSS JOIN LATERAL (SELECT t.oid AS leaf WHERE NOT EXISTS (SELECT FROM pg_partition_tree(t.oid))
       UNION ALL SELECT relid FROM pg_partition_tree(t.oid) WHERE isleaf) p
     JOIN pg_class l ON l.oid = p.leaf LEFT JOIN pg_am a ON a.oid = l.relam
     GROUP BY t.oid`,
    [tables.map(({oid}) => oid)],
  );
  const sizeOf = new Map(sizes.map(row => [row.oid, row]));
  return tables.map(table => {
    const found = sizeOf.get(table.oid);
    const none = {table, finished: new Set<number>(), done: {rows: 0, bytes: 0}};
    if (!found?.heap) return {...none, blocks: 0, chunks: 1};
    const total = Math.ceil(found.size / found.block);
    const blocks = Math.max(
      1,
      Math.floor(chunkBytes / found.block / found.parts),
      Math.ceil(total / MOST_CHUNKS),
    );
    return total <= blocks
      ? {...none, blocks: 0, chunks: 1}
      : {...none, blocks, chunks: Math.ceil(total / blocks)};
  });
}

/** What is still to be read. The last chunk has no end: rows may have been added behind it. */
export function chunksLeft({blocks, chunks, finished}: PlannedTable): Chunk[] {
  return Array.from({length: chunks}, (_, number) => ({
    number,
    from: number * blocks,
    to: number === chunks - 1 ? undefined : (number + 1) * blocks,
  })).filter(({number}) => !finished.has(number));
}

const PlanRow = z.object({
  oid: z.number(),
  schema_id: z.string(),
  source: z.string(),
  blocks: z.number(),
  chunks: z.number(),
});
const ChunkRow = z.object({
  oid: z.number(),
  chunk: z.number(),
  rows: z.coerce.number(),
  bytes: z.coerce.number(),
});

/** What is remembered of a snapshot that began at one point, in ClickHouse beside its rows. */
export class SnapshotLog {
  readonly #client: ClickHouseClient;
  readonly #database: string;
  readonly #run: {readonly pipeline: string; readonly point: string};

  constructor(client: ClickHouseClient, settings: Settings, point: Lsn) {
    this.#client = client;
    this.#database = settings.FRESHET_CLICKHOUSE_DATABASE;
    this.#run = {pipeline: settings.FRESHET_SLOT, point: point.toString()};
  }

  async begin(planned: readonly PlannedTable[]): Promise<void> {
    await insertRows(
      this.#client,
      chName(this.#database, '_snapshots'),
      planned.map(({table: {schema, source}, blocks, chunks}) => ({
        ...this.#run,
        schema_name: schema.definition.schema,
        table_name: schema.definition.table,
        oid: source.oid,
        schema_id: schema.id,
        source: JSON.stringify(source),
        blocks,
        chunks,
        at: now(),
      })),
    );
  }

  /** All rows of the chunk are in the target. */
  async finish(
    {oid}: CapturedTable,
    {number}: Chunk,
    read: {at: Lsn; rows: number; bytes: number},
  ): Promise<void> {
    await insertRows(this.#client, chName(this.#database, '_snapshot_chunks'), [
      {
        ...this.#run,
        oid,
        chunk: number,
        read_at_point: read.at.toString(),
        rows: read.rows,
        bytes: read.bytes,
        at: now(),
      },
    ]);
  }

  /** As it was begun, with what was finished; empty where nothing is remembered. */
  async load(registry: Registry): Promise<PlannedTable[]> {
    const of = '{pipeline: String} = pipeline AND point = {point: UInt64}';
    const [plan, chunks] = await Promise.all([
      rows(
        this.#client,
        PlanRow,
        `SELECT oid, schema_id, source, blocks, chunks FROM ${chName(this.#database, '_snapshots')} FINAL WHERE ${of}`,
        this.#run,
      ),
      rows(
        this.#client,
        ChunkRow,
        `SELECT oid, chunk, rows, bytes FROM ${chName(this.#database, '_snapshot_chunks')} WHERE ${of} LIMIT 1 BY oid, chunk`,
        this.#run,
      ),
    ]);
    return Promise.all(
      plan.map(async row => {
        const own = chunks.filter(({oid}) => oid === row.oid);
        const sum = (of: 'rows' | 'bytes'): number => own.reduce((all, chunk) => all + chunk[of], 0);
        const source = CatalogTable.parse(JSON.parse(row.source));
        return {
          table: capturedTable(await registry.schema(row.schema_id), source),
          blocks: row.blocks,
          chunks: row.chunks,
          finished: new Set(own.map(({chunk}) => chunk)),
          done: {rows: sum('rows'), bytes: sum('bytes')},
        };
      }),
    );
  }
}

const now = (): string => (BigInt(Date.now()) * 1000n).toString();
