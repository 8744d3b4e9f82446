import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {type ClickHouseClient, rows} from './clickhouse.ts';
import {lookUp, namesOf} from './look-up.ts';
import type {IncompleteRow} from './toast.ts';

/** Rows that are looked up together whatever their size. */
const FEW = 16;
/** So many at a time that PostgreSQL is asked for: nobody knows how large they are. */
const ASKED_AT_A_TIME = 64;

const Size = z.object({key: z.string(), bytes: z.coerce.number()});

/**
 * Cuts rows, in their order, into pieces whose looked-up values are about a batch at most. A piece must be in
 * ClickHouse before the next is resolved.
 */
export async function inPieces<Row extends IncompleteRow>(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  rowsInOrder: readonly Row[],
): Promise<Row[][]> {
  const incomplete = rowsInOrder.filter(row => row.unchanged.length > 0);
  if (incomplete.length <= FEW) return [[...rowsInOrder]];
  const names = namesOf(table, incomplete);
  const stored = incomplete.filter(row => !row.moved);
  const {from, key, value} = lookUp(settings, table, stored, '');
  const sizes = new Map(
    (stored.length === 0
      ? []
      : await rows(
          client,
          Size,
          `${from(`${key} AS key, max(byteSize(${names.map(value).join(', ')})) AS bytes`)} GROUP BY ${key}`,
        )
    ).map(({key, bytes}) => [key, bytes]),
  );
  const pieces: Row[][] = [];
  let [bytes, asked] = [0, 0];
  for (const row of rowsInOrder) {
    const size = row.unchanged.length === 0 ? 0 : row.moved ? undefined : sizes.get(row.key);
    bytes += size ?? 0;
    asked += size === undefined ? 1 : 0;
    const last = pieces.at(-1);
    if (last && bytes <= settings.FRESHET_BATCH_BYTES && asked <= ASKED_AT_A_TIME) last.push(row);
    else {
      pieces.push([row]);
      [bytes, asked] = [size ?? 0, size === undefined ? 1 : 0];
    }
  }
  return pieces;
}
