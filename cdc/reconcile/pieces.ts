import type {ClientBase} from 'pg';
import {z} from 'zod';
import {type ClickHouseClient, rows as chRows} from '../sink/clickhouse.ts';
import {type ColumnSchema, pgName, type TableSchema} from '../source/table-schema.ts';
import {inTarget} from './keys.ts';

/** How a table is divided for a first comparison, in the same way in both servers. A piece is named by a text. */
export interface Pieces {
  /** What is compared, for people. */
  readonly kind: 'key ranges' | 'buckets of keys';
  /** The column in ClickHouse that ranges are made of, quoted. */
  readonly column: string | undefined;
  /** SQL of the name of a row's piece. */
  readonly pg: string;
  readonly ch: string;
  /** All of them in order, where that can be said. */
  readonly names: readonly string[] | undefined;
  /** The rows of some pieces. Ranges are read by the index of the key; a bucket's rows lie everywhere. */
  pgIn(pieces: readonly string[]): string;
  chIn(pieces: readonly string[]): string;
}

/** A piece is a remainder of a hash of the key: even for every kind of key. */
export function hashPieces(count: number, pgHash: string, chHash: string): Pieces {
  const [pg, ch] = [`${pgHash} % ${count}`, `${chHash} % ${count}`];
  return {
    kind: 'buckets of keys',
    column: undefined,
    pg: `(${pg})::text`,
    ch: `toString(${ch})`,
    names: undefined,
    pgIn: pieces => `${pg} IN (${pieces.join(', ')})`,
    chIn: pieces => `${ch} IN (${pieces.join(', ')})`,
  };
}

/**
 * A piece is a range of an integer column that leads the key, named by its lower bound; the first one has all below
 * it too. Rows that are near each other in time are in one piece, and looking at it again reads nothing else.
 */
export function rangePieces(
  bounds: readonly string[],
  column: Pick<ColumnSchema, 'name' | 'target'>,
): Pieces {
  const [pg, ch] = [pgName(column.name), inTarget(column)];
  const place = new Map(bounds.map((bound, i) => [bound, i]));
  const list = bounds.join(', ');
  const inRuns =
    (name: string, below: (bound: string) => string) =>
    (pieces: readonly string[]): string => {
      const places = pieces.map(piece => place.get(piece) ?? 0).sort((a, b) => a - b);
      const starts = places.filter((at, i) => i === 0 || at !== places[i - 1]! + 1);
      const ends = places.filter((at, i) => at + 1 !== places[i + 1]);
      const runs = starts.map((start, i) => {
        const limits = [
          start === 0 ? [] : `${name} >= ${below(bounds[start]!)}`,
          ends[i] === bounds.length - 1 ? [] : `${name} < ${below(bounds[ends[i]! + 1]!)}`,
        ].flat();
        return limits.length === 0 ? 'true' : `(${limits.join(' AND ')})`;
      });
      return runs.length === 0 ? 'false' : `(${runs.join(' OR ')})`;
    };
  const array = `'{${list}}'::bigint[]`;
  return {
    kind: 'key ranges',
    column: ch,
    pg: `((${array})[greatest(width_bucket(${pg}::bigint, ${array}), 1)])::text`,
    // One text, as a list of so many numbers would have more elements than ClickHouse takes.
    ch: `toString(roundDown(toInt64(${ch}), CAST('[${list}]', 'Array(Int64)')))`,
    names: bounds,
    pgIn: inRuns(pg, bound => `'${bound}'::bigint`),
    chIn: inRuns(ch, bound => `toInt64('${bound}')`),
  };
}

/** Types of a leading key column that both servers order alike, and compare with bigint by index. */
const RANGE_TYPES: ReadonlySet<string> = new Set(['int2', 'int4', 'int8']);
const ROWS_A_PIECE = 2_048;
const MIN_BUCKETS = 64;
/** What a first reading holds in memory. */
const MAX_PIECES = 65_536;

/** Divides a table of about so many rows. `hashes` are SQL of a hash of the key. */
export async function divide(
  postgres: ClientBase,
  client: ClickHouseClient,
  options: {
    table: TableSchema;
    from: string;
    target: string;
    rows: number;
    hashes: {pg: string; ch: string};
  },
): Promise<Pieces> {
  const {table, rows, hashes} = options;
  const first = table.columns[table.keyColumns[0]!]!;
  if (first.type.kind === 'b' && RANGE_TYPES.has(first.type.name) && !first.type.array) {
    const step = Math.max(ROWS_A_PIECE, Math.ceil(rows / MAX_PIECES));
    const bounds = await readBounds(postgres, client, {...options, column: first, step});
    if (bounds) return rangePieces(bounds, first);
  }
  const count = Math.min(MAX_PIECES, Math.max(MIN_BUCKETS, Math.ceil(rows / ROWS_A_PIECE)));
  return hashPieces(count, hashes.pg, hashes.ch);
}

const Bound = z.object({bound: z.string()});

/**
 * Bounds so that no range has more than `step` rows on either side: each server gives every so-and-so-many-th value,
 * read from its index alone. Undefined where the column has too few values to divide the table by.
 */
async function readBounds(
  postgres: ClientBase,
  client: ClickHouseClient,
  {
    column,
    from,
    target,
    step,
  }: {column: Pick<ColumnSchema, 'name' | 'target'>; from: string; target: string; step: number},
): Promise<string[] | undefined> {
  const [pg, ch] = [pgName(column.name), inTarget(column)];
  const {rows: source} = await postgres.query(
    `SELECT bound::text FROM (SELECT ${pg} AS bound, row_number() OVER (ORDER BY ${pg}) AS n FROM ${from}) AS numbered
     WHERE n % ${step} = 1`,
  );
  const stored = await chRows(
    client,
    Bound,
    `SELECT toString(bound) AS bound FROM (
       SELECT bound, rowNumberInAllBlocks() AS n FROM (SELECT ${ch} AS bound FROM ${target} ORDER BY ${ch})
     ) WHERE n % ${step} = 0`,
  );
  const values = z
    .array(Bound)
    .parse(source)
    .map(({bound}) => bound);
  // The same value again and again: the ranges would be larger than was asked for.
  if (new Set(values).size < values.length) return undefined;
  const bounds = new Set([...values, ...stored.map(({bound}) => bound)]);
  if (bounds.size === 0) return ['0'];
  return [...bounds].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
}
