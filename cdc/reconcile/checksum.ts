import type {Settings} from '../settings/settings.ts';
import {chLiteral, chName} from '../sink/clickhouse.ts';
import {targetTable} from '../sink/target.ts';
import {pgName} from '../source/table-schema.ts';
import type {CapturedTable} from '../source/tables.ts';
import {framed} from '../types/framed.ts';

/** Rows are told apart by bucket (a hash of the key) or by key, which is its framed text. */
export type Level = 'bucket' | 'key';

/**
 * The queries of one table in both servers. A row's hash is the first 60 bits of MD5 over its columns' texts, framed
 * so that two rows cannot have one text; sums of hashes do not depend on any order. Each server makes the texts from
 * its own values by its own means, so an error of our encoders cannot hide on both sides.
 */
export interface ChecksumSql {
  /** → unit, count, sum of the row hashes. `buckets` limits what is read. */
  source(level: Level, buckets: readonly string[] | undefined): string;
  target(level: Level, buckets: readonly string[] | undefined): string;
  /** → key, the values of its columns as parameters. The keys are the parameter $1. */
  sourceKeys(): string;
  /** → key, count, sum, of so many keys by their index; the parameters are the values of their columns in turn. */
  sourceAt(count: number): string;
  /**
   * → key, the hash ('' for a deletion) at version `floor`, the hashes after it: what is still stored of the past of
   * keys that change all the time.
   */
  versions(buckets: readonly string[], floor: bigint): string;
  /** → key, a hash for each column. The keys are the parameter $1 of the source's. */
  sourceColumns(): string;
  targetColumns(keys: readonly string[]): string;
}

type TargetSql = Pick<ChecksumSql, 'target' | 'targetColumns' | 'versions'>;

const pgHash = (text: string): string => `('x' || substr(md5(${text}), 1, 15))::bit(60)::bigint`;
const chHash = (text: string): string =>
  `bitShiftRight(reinterpretAsUInt64(reverse(substring(MD5(${text}), 1, 8))), 4)`;
const chConcat = (parts: readonly string[]): string => `concat('', ${parts.join(', ')})`;

export function checksumSql(settings: Settings, table: CapturedTable, buckets: number): ChecksumSql {
  return {...sourceSql(table, buckets), ...targetSql(settings, table, buckets)};
}

function sourceSql(
  {schema, partitioned, rowFilter}: CapturedTable,
  buckets: number,
): Omit<ChecksumSql, keyof TargetSql> {
  const {definition, columns, keyColumns} = schema;
  const texts = columns.map(({name, stored}) => stored.pgText(pgName(name)));
  const from = `${partitioned ? '' : 'ONLY '}${pgName(definition.schema, definition.table)}`;
  // Columns of several collations have none together; of the values only the bytes count.
  const joined = (parts: readonly string[]): string => `(${parts.map(framed.pg).join(' || ')}) COLLATE "C"`;
  const bucket = (key: string): string => `${pgHash(key)} % ${buckets}`;
  const keyOf = (text: (column: number) => string): string => joined(keyColumns.map(text));
  const named = columns.map((_, i) => `t${i}`);
  const key = keyOf(i => `t${i}`);
  const readKey = keyOf(i => texts[i]!);
  // OFFSET 0 keeps the texts from being made once for each place that names them.
  const inner = (condition: string | undefined): string => {
    const where = [rowFilter, condition].flatMap(part => (part ? [`(${part})`] : [])).join(' AND ');
    const list = texts.map((text, i) => `${text} AS t${i}`).join(', ');
    return `(SELECT ${list} FROM ${from}${where && ` WHERE ${where}`} OFFSET 0) AS texts`;
  };
  const byUnit = (unit: string, condition: string | undefined): string =>
    `SELECT ${unit}, count(*)::text, sum(${pgHash(joined(named))})::text FROM ${inner(condition)} GROUP BY 1`;
  const keyNames = definition.key.map(name => pgName(name));
  return {
    source: (level, only) =>
      byUnit(level === 'key' ? key : bucket(key), only && `${bucket(readKey)} IN (${only.join(', ')})`),
    sourceKeys: () =>
      `SELECT ${readKey}, ARRAY[${keyNames.map(name => `concat(${name})`).join(', ')}]
       FROM ${from} WHERE ${readKey} = ANY($1)`,
    sourceAt: count => {
      const parameters = (row: number): string =>
        keyNames.map((_, i) => `$${row * keyNames.length + i + 1}`).join(', ');
      const wanted = Array.from({length: count}, (_, row) => `(${parameters(row)})`);
      return byUnit(key, `(${keyNames.join(', ')}) IN (${wanted.join(', ')})`);
    },
    sourceColumns: () =>
      `SELECT ${key}, ARRAY[${named.map(name => `md5(${framed.pg(name)})`).join(', ')}]
       FROM ${inner(`${readKey} = ANY($1)`)}`,
  };
}

function targetSql(settings: Settings, {schema}: CapturedTable, buckets: number): TargetSql {
  const {columns, keyColumns} = schema;
  const parts = columns.map(({name, stored}) => framed.ch(stored.chText(chName(name))));
  const target = targetTable(settings, schema);
  const key = chConcat(keyColumns.map(i => parts[i]!));
  const bucket = `${chHash(key)} % ${buckets}`;
  const hash = chHash(chConcat(parts));
  // A key's versions share its bucket, so this may be decided before FINAL: the other columns are then not read.
  const inBuckets = (only: readonly string[]): string => `PREWHERE ${bucket} IN (${only.join(', ')})`;
  return {
    target: (level, only) => {
      const unit = level === 'key' ? key : `toString(${bucket})`;
      return `SELECT ${unit}, toString(count()), toString(sum(toUInt128(${hash})))
        FROM ${target} FINAL ${only ? inBuckets(only) : ''} WHERE _is_deleted = 0 GROUP BY ${unit}`;
    },
    versions: (only, floor) => {
      const value = `if(_is_deleted = 1, '', toString(${hash}))`;
      const before = `_version <= toUInt128('${floor}')`;
      return `SELECT ${key},
          if(countIf(${before}) = 0, [], [argMaxIf(${value}, _version, ${before})]),
          groupUniqArrayIf(1000)(${value}, NOT ${before})
        FROM ${target} ${inBuckets(only)} GROUP BY ${key} HAVING count() > 1 OR NOT max(${before})`;
    },
    targetColumns: keys =>
      `SELECT ${key}, [${parts.map(part => `lower(hex(MD5(${part})))`).join(', ')}]
       FROM ${target} FINAL PREWHERE ${key} IN (${keys.map(chLiteral).join(', ')}) WHERE _is_deleted = 0`,
  };
}
