import type {TableSchema} from '../source/table-schema.ts';
import {keyJson} from './keys.ts';
import type {ColumnHashes} from './readings.ts';
import type {Repair} from './repair.ts';
import type {Unit} from './settling.ts';

export interface Difference {
  /** The key as JSON of texts. */
  readonly key: string;
  /** `missing` in ClickHouse, `extra` where PostgreSQL has no such row, `changed` in the columns named. */
  readonly what: 'missing' | 'extra' | 'changed';
  readonly columns: readonly string[];
}

/** One reading of all rows. */
export interface Pass {
  readonly rows: bigint;
  /** Of the values' texts, which are what is compared. */
  readonly bytes: bigint;
  readonly seconds: number;
}

export interface TableVerdict {
  /** 'schema.table' */
  readonly table: string;
  readonly verdict: 'equal' | 'different' | 'unsettled';
  readonly rows: {readonly postgres: bigint; readonly clickhouse: bigint};
  /** Sums of the row hashes, as hexadecimal numbers. */
  readonly checksum: {readonly postgres: string; readonly clickhouse: string};
  readonly passes: {readonly postgres: Pass; readonly clickhouse: Pass};
  readonly rounds: number;
  readonly seconds: number;
  /** How many keys are known to differ. */
  readonly found: number;
  /** The first ones of them, by key. */
  readonly differences: readonly Difference[];
  /** Why not all has settled; '' otherwise. */
  readonly reason: string;
  /** What was done about differences; undefined where nothing was. */
  readonly repair: Repair | undefined;
}

export const NO_PASS: Pass = {rows: 0n, bytes: 0n, seconds: 0};

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
