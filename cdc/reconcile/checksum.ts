import {chLiteral} from '../sink/clickhouse.ts';
import {type Blocks, inBlocks} from '../source/blocks.ts';
import {pgName} from '../source/table-schema.ts';
import type {CapturedTable} from '../source/tables.ts';
import {framed} from '../types/framed.ts';
import {inTarget, keyParameters} from './keys.ts';
import type {Pieces} from './pieces.ts';

/** Rows are told apart by piece (see `Pieces`) or by key, which is its framed text. */
export type Level = 'piece' | 'key';

/** What is read of a table; all of it where nothing is named. */
export interface Scope {
  readonly pieces?: readonly string[];
  readonly keys?: readonly string[];
  readonly blocks?: Blocks;
}

export interface PgQuery {
  readonly text: string;
  readonly values: readonly unknown[];
}

/**
 * The queries of one table in both servers. A row's hash is the first 60 bits of MD5 over its columns' texts, framed
 * so that two rows cannot have one text; sums of hashes do not depend on any order. Each server makes the texts from
 * its own values by its own means, so an error of our encoders cannot hide on both sides.
 */
export interface ChecksumSql {
  readonly pieces: Pieces;
  /** → unit, count, sum of the row hashes, bytes of the texts. */
  source(level: Level, scope: Scope): PgQuery;
  target(level: Level, scope: Scope): string;
  /**
   * → key, the hash ('' for a deletion) at version `floor`, the hashes after it: what is still stored of the past of
   * keys that change all the time.
   */
  versions(scope: Scope, floor: bigint): string;
  /** → key, its newest version. */
  newest(keys: readonly string[]): string;
  /** → key, a hash for each column. */
  sourceColumns(keys: readonly string[]): PgQuery;
  targetColumns(keys: readonly string[]): string;
}

const pgHash = (text: string): string => `('x' || substr(md5(${text}), 1, 15))::bit(60)::bigint`;
const chHash = (text: string): string =>
  `bitShiftRight(reinterpretAsUInt64(reverse(substring(MD5(${text}), 1, 8))), 4)`;
const chConcat = (parts: readonly string[]): string => `concat('', ${parts.join(', ')})`;
// Columns of several collations have none together; of the values only the bytes count.
const pgConcat = (texts: readonly string[]): string => `(${texts.map(framed.pg).join(' || ')}) COLLATE "C"`;

/** The table as PostgreSQL's FROM names it. */
export const sourceTable = ({schema: {definition}, partitioned}: CapturedTable): string =>
  `${partitioned ? '' : 'ONLY '}${pgName(definition.schema, definition.table)}`;

/** SQL of a row's framed key in PostgreSQL, from its columns. */
export const sourceKey = ({schema: {columns, keyColumns}}: CapturedTable): string =>
  pgConcat(keyColumns.map(i => columns[i]!.stored.pgText(pgName(columns[i]!.name))));

/** The same in ClickHouse. */
export const targetKey = ({schema: {columns, keyColumns}}: CapturedTable): string =>
  chConcat(keyColumns.map(i => framed.ch(columns[i]!.stored.chText(inTarget(columns[i]!)))));

/**
 * The rows with these keys, as a condition. They are found by index where the keys tell the values of their columns.
 * @param types of the key columns, as PostgreSQL's SQL names them
 * @param list the SQL of a text[]
 */
export function withKeys(
  table: CapturedTable,
  types: readonly string[],
  keys: readonly string[],
  list: (values: readonly string[]) => string,
): string {
  const values = keyParameters(table.schema, keys);
  if (!values) return `${sourceKey(table)} = ANY(${list(keys)})`;
  const names = table.schema.definition.key.map(name => pgName(name)).join(', ');
  const wanted = types.map((type, i) => `k${i}::${type}`).join(', ');
  const given = types.map((_, i) => `k${i}`).join(', ');
  return `(${names}) IN (SELECT ${wanted} FROM unnest(${values.map(list).join(', ')}) AS given(${given}))`;
}

/** @param keyTypes as in `withKeys` */
export interface ChecksumOptions {
  readonly table: CapturedTable;
  /** The target table, quoted. */
  readonly target: string;
  readonly keyTypes: readonly string[];
  readonly pieces: Pieces;
}

/** Hashes of the framed key, in both servers: what buckets are made of. */
export const keyHashes = (table: CapturedTable): {pg: string; ch: string} => ({
  pg: pgHash(sourceKey(table)),
  ch: chHash(targetKey(table)),
});

export function checksumSql(options: ChecksumOptions): ChecksumSql {
  return {pieces: options.pieces, ...sourceSql(options), ...targetSql(options)};
}

function sourceSql({
  table,
  keyTypes,
  pieces,
}: ChecksumOptions): Pick<ChecksumSql, 'source' | 'sourceColumns'> {
  const {columns, keyColumns} = table.schema;
  const named = columns.map((_, i) => `t${i}`);
  const key = pgConcat(keyColumns.map(i => `t${i}`));
  // OFFSET 0 keeps the texts from being made once for each place that names them.
  const texts = (first: string, {keys, pieces: only, blocks}: Scope): PgQuery => {
    const values: unknown[] = [];
    const parameter = (list: readonly string[]): string => `$${values.push(list)}::text[]`;
    const where = [
      table.rowFilter,
      keys && withKeys(table, keyTypes, keys, parameter),
      !keys && only && pieces.pgIn(only),
      ...(blocks ? inBlocks(blocks) : []),
    ].flatMap(part => (part ? [`(${part})`] : []));
    const list = columns.map(({name, stored}, i) => `${stored.pgText(pgName(name))} AS t${i}`);
    return {
      text: `(SELECT ${[first, ...list].join(', ')} FROM ${sourceTable(table)}
        ${where.length > 0 ? `WHERE ${where.join(' AND ')}` : ''} OFFSET 0) AS texts`,
      values,
    };
  };
  return {
    source: (level, scope) => {
      const {text, values} = texts(`${level === 'key' ? 'NULL' : pieces.pg} AS piece`, scope);
      return {
        text: `SELECT unit, count(*)::text, sum(${pgHash('line')})::text, sum(octet_length(line))::text
          FROM (SELECT ${level === 'key' ? key : 'piece'} AS unit, ${pgConcat(named)} AS line FROM ${text} OFFSET 0) AS lines
          GROUP BY unit`,
        values,
      };
    },
    sourceColumns: keys => {
      const {text, values} = texts('NULL', {keys});
      const hashes = named.map(name => `md5(${framed.pg(name)})`).join(', ');
      return {text: `SELECT ${key}, ARRAY[${hashes}] FROM ${text}`, values};
    },
  };
}

function targetSql({
  table,
  target,
  pieces,
}: ChecksumOptions): Pick<ChecksumSql, 'target' | 'versions' | 'newest' | 'targetColumns'> {
  const parts = table.schema.columns.map(column => framed.ch(column.stored.chText(inTarget(column))));
  const key = targetKey(table);
  const line = chConcat(parts);
  const hash = chHash(line);
  // A key's versions share its piece, so this may be decided before FINAL: the other columns are then not read.
  const before = ({keys, pieces: only}: Scope): string => {
    const first = keys && pieces.column !== undefined ? keyParameters(table.schema, keys)?.[0] : undefined;
    const where = [
      only && pieces.chIn(only),
      first && `${pieces.column} IN (${first.join(', ')})`,
      keys && `${key} IN (${keys.map(chLiteral).join(', ')})`,
    ].flatMap(part => (part ? [part] : []));
    return where.length > 0 ? `PREWHERE ${where.join(' AND ')}` : '';
  };
  return {
    target: (level, scope) => {
      // Without aliases, which could be names of columns. What stands here twice is made once.
      const unit = level === 'key' ? key : pieces.ch;
      return `SELECT ${unit}, toString(count()), toString(sum(toUInt128(${hash}))), toString(sum(length(${line})))
        FROM ${target} FINAL ${before(scope)} WHERE _is_deleted = 0 GROUP BY ${unit}`;
    },
    versions: (scope, floor) => {
      const value = `if(_is_deleted = 1, '', toString(${hash}))`;
      const old = `_version <= toUInt128('${floor}')`;
      return `SELECT ${key},
          if(countIf(${old}) = 0, [], [argMaxIf(${value}, _version, ${old})]),
          groupUniqArrayIf(1000)(${value}, NOT ${old})
        FROM ${target} ${before(scope)} GROUP BY ${key} HAVING count() > 1 OR NOT max(${old})`;
    },
    newest: keys => `SELECT ${key}, toString(max(_version)) FROM ${target} ${before({keys})} GROUP BY ${key}`,
    targetColumns: keys =>
      `SELECT ${key}, [${parts.map(part => `lower(hex(MD5(${part})))`).join(', ')}]
       FROM ${target} FINAL ${before({keys})} WHERE _is_deleted = 0`,
  };
}
