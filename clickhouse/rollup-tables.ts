import type {ClickHouseClient} from '@clickhouse/client';
import {z} from 'zod';
import {chName, rows} from '../cdc/sink/clickhouse.ts';
import type {Names, RollupRules} from './migration-files.ts';

/** The sorting key of a table in `cdc`, column by column. */
export async function sortingKey(
  client: ClickHouseClient,
  {cdc}: Pick<Names, 'cdc'>,
  table: string,
): Promise<string[]> {
  const [found] = await rows(
    client,
    z.object({key: z.string()}),
    'SELECT sorting_key AS key FROM system.tables WHERE database = {cdc: String} AND name = {table: String}',
    {cdc, table},
  );
  return found ? columnsOf(found.key) : [];
}

/** A name in ClickHouse's SQL, as part of a pattern: its groups are the name in quotes, or as it is. */
export const NAME = '(?:`((?:[^`\\\\]|\\\\.)+)`|(\\w+))';

/** What the two groups of `NAME` stand for; undefined where neither was found. */
export const nameIn = (quoted: string | undefined, plain: string | undefined): string | undefined =>
  quoted?.replaceAll(/\\(.)/g, '$1') ?? plain;

/** `a, \`b c\`` as a list of names. */
export const columnsOf = (key: string): string[] =>
  [...key.matchAll(new RegExp(NAME, 'g'))].map(([, quoted, plain]) => nameIn(quoted, plain)!);

/**
 * Where rows of one bucket lie apart, because the key does not begin with it, the table of all keys that each bucket
 * ever had: a row that is gone can be found by it.
 */
export const keysTable = (object: string): string => `${object}_keys`;

export const isKeyed = ({bucket}: RollupRules, key: readonly string[]): boolean =>
  bucket.some((column, i) => key[i] !== column);

/** Makes the table of keys where the rollup needs one. */
export async function createKeys(
  client: ClickHouseClient,
  names: Names,
  object: string,
  rules: RollupRules,
): Promise<void> {
  const key = await sortingKey(client, names, object);
  if (!isKeyed(rules, key)) return;
  const columns = keyColumns(rules, key);
  const onCluster = names.cluster ? `ON CLUSTER ${chName(names.cluster)}` : '';
  await client.command({
    query: `CREATE TABLE IF NOT EXISTS ${chName(names.cdc, keysTable(object))} ${onCluster}
      ENGINE = ReplacingMergeTree ORDER BY (${columns}) SETTINGS index_granularity = 512
      COMMENT 'Every key that each bucket of ${object} ever had'
      EMPTY AS SELECT ${columns} FROM ${chName(names.cdc, object)}`,
  });
}

/** Bucket first, then the rest of the key. */
export const keyColumns = ({bucket}: RollupRules, key: readonly string[]): string =>
  [...bucket, ...key.filter(column => !bucket.includes(column))].map(name => chName(name)).join(', ');
