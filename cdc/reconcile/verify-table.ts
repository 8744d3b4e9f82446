import type {ClientBase} from 'pg';
import {formatLsn, type Lsn, NO_LSN, rowVersion} from '../source/lsn.ts';
import {currentPosition} from '../source/postgres.ts';
import type {CapturedTable} from '../source/tables.ts';
import {checksumSql, keyHashes, sourceTable} from './checksum.ts';
import {keyJson} from './keys.ts';
import {divide} from './pieces.ts';
import {readNewest, readSourceColumns, readTargetColumns} from './readings.ts';
import {type Repair, type RepairOptions, repairKeys} from './repair.ts';
import {TableCheck, type TableOptions} from './table-check.ts';
import {type Difference, describe, NO_PASS, type TableVerdict} from './verdict.ts';

export interface VerifyTableOptions
  extends Omit<TableOptions, 'sql' | 'estimatedRows' | 'maxDifferent'>,
    Omit<RepairOptions, 'keyTypes'> {
  /** Of all versions. */
  readonly storedRows: number;
  readonly repair: boolean;
}

/** What is told of differences. */
const MAX_DIFFERENCES = 20;
/** When so many keys are found to differ without a repair, the table is not looked at any further. */
const MANY_DIFFERENCES = 10_000;
/** More are not read key by key: reading the whole table again is quicker. */
const MAX_REPAIRED = 1_000_000;
/** A large value of a wrong row may have been taken over by a change that came after the first repair's position. */
const ATTEMPTS = 3;
const LAST_ORDINAL = (1n << 48n) - 1n;

/** Compares one table, and repairs it where that is wanted. */
export async function verifyTable(options: VerifyTableOptions): Promise<TableVerdict> {
  const startedAt = Date.now();
  const {postgres, client, table, target} = options;
  const keyTypes = await typesOfKey(postgres, table);
  const rows = Math.max(table.estimatedRows, options.storedRows);
  const from = sourceTable(table);
  const pieces = await divide(postgres, client, {
    table: table.schema,
    from,
    target,
    rows,
    hashes: keyHashes(table),
  });
  const sql = checksumSql({table, target, keyTypes, pieces});
  const check = new TableCheck({
    ...options,
    sql,
    estimatedRows: rows,
    maxDifferent: options.repair ? MAX_REPAIRED : MANY_DIFFERENCES,
  });
  await check.run();
  const repair =
    options.repair && check.different.size > 0 ? await repaired({...options, keyTypes}) : undefined;
  const {postgres: source, clickhouse: shown} = check.total;
  const {unsettled} = check;
  return {
    table: table.schema.name,
    verdict: check.different.size > 0 ? 'different' : unsettled === undefined ? 'equal' : 'unsettled',
    rows: {postgres: source.count, clickhouse: shown.count},
    checksum: {postgres: source.sum.toString(16), clickhouse: shown.sum.toString(16)},
    passes: check.passes ?? {postgres: NO_PASS, clickhouse: NO_PASS},
    rounds: check.rounds,
    seconds: (Date.now() - startedAt) / 1000,
    found: check.different.size,
    differences: await described(),
    reason: unsettled ?? '',
    repair,
  };

  async function described(): Promise<Difference[]> {
    const first = [...check.different].sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, MAX_DIFFERENCES);
    if (first.length === 0) return [];
    const keys = first.map(([key]) => key);
    const columns = {
      source: await readSourceColumns(postgres, sql.sourceColumns(keys)),
      target: await readTargetColumns(client, sql.targetColumns(keys)),
    };
    return first
      .map(([key, unit]) => describe(table.schema, key, unit, columns))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  async function repaired(repairing: RepairOptions): Promise<Repair> {
    const keys = check.different.size;
    const differences = await described();
    let position: Lsn = NO_LSN;
    let ahead: Repair['ahead'] = [];
    for (let attempt = 1; attempt <= ATTEMPTS && check.different.size > ahead.length; attempt++) {
      position = await repairKeys(repairing, [...check.different.keys()]);
      await check.again();
      ahead = await keysAhead([...check.different.keys()]);
    }
    return {keys, differences, position: formatLsn(position), ahead, target};
  }

  /** Keys that ClickHouse has a version of that PostgreSQL cannot have written yet. */
  async function keysAhead(keys: readonly string[]): Promise<Repair['ahead']> {
    if (keys.length === 0) return [];
    const newest = await readNewest(client, sql.newest(keys));
    const written = rowVersion(options.epoch, await currentPosition(postgres), LAST_ORDINAL);
    return [...newest]
      .filter(([, version]) => version > written)
      .map(([key, version]) => ({key: keyJson(table.schema, key), version}));
  }
}

/** The types of the key columns, as PostgreSQL's SQL names them. */
export async function typesOfKey(postgres: ClientBase, table: CapturedTable): Promise<string[]> {
  const oids = table.schema.keyColumns.map(index => table.schema.columns[index]!.typeOid);
  const {rows} = await postgres.query<{type: string}>(
    // -1: without it `character` would be one of length 1.
    'SELECT format_type(oid, -1) AS type FROM unnest($1::oid[]) WITH ORDINALITY AS t(oid, n) ORDER BY n',
    [oids],
  );
  return rows.map(({type}) => type);
}
