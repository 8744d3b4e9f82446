import type {TableSchema} from '../source/table-schema.ts';
import type {ColumnHashes} from './readings.ts';
import type {Unit} from './settling.ts';

export interface Difference {
  /** The key as JSON of texts. */
  readonly key: string;
  /** `missing` in ClickHouse, `extra` where PostgreSQL has no such row, `changed` in the columns named. */
  readonly what: 'missing' | 'extra' | 'changed';
  readonly columns: readonly string[];
}

export interface TableVerdict {
  /** 'schema.table' */
  readonly table: string;
  readonly verdict: 'equal' | 'different' | 'unsettled';
  readonly rows: {readonly postgres: bigint; readonly clickhouse: bigint};
  /** Sums of the row hashes, as hexadecimal numbers. */
  readonly checksum: {readonly postgres: string; readonly clickhouse: string};
  readonly rounds: number;
  readonly seconds: number;
  /** The first ones, by key. */
  readonly differences: readonly Difference[];
  /** Why it has not settled; '' otherwise. */
  readonly reason: string;
}

/** 1 on any difference, else 2 where something has not settled, else 0. */
export function exitCode(verdicts: readonly Pick<TableVerdict, 'verdict'>[]): 0 | 1 | 2 {
  if (verdicts.some(({verdict}) => verdict === 'different')) return 1;
  return verdicts.some(({verdict}) => verdict === 'unsettled') ? 2 : 0;
}

export function describe(
  table: TableSchema,
  key: string,
  {postgres, clickhouse}: Unit,
  columns: {source: ColumnHashes; target: ColumnHashes},
): Difference {
  const what = clickhouse.count === 0n ? 'missing' : postgres.count === 0n ? 'extra' : 'changed';
  const [before, after] = [columns.source.get(key), columns.target.get(key)];
  const differ = table.columns.filter((_, i) => before?.[i] !== after?.[i]).map(({name}) => name);
  return {key: keyJson(table, key), what, columns: what === 'changed' ? differ : []};
}

/** `1:5` → `{"id":"5"}`: lengths are in bytes. */
function keyJson(table: TableSchema, key: string): string {
  const bytes = Buffer.from(key);
  let at = 0;
  const values = table.definition.key.map((name): [string, string | null] => {
    if (bytes[at] === 0x6e) {
      at += 1;
      return [name, null];
    }
    const start = bytes.indexOf(':', at) + 1;
    const end = start + Number(bytes.toString('latin1', at, start - 1));
    at = end;
    return [name, bytes.toString('utf8', start, end)];
  });
  return JSON.stringify(Object.fromEntries(values));
}
