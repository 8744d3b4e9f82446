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

/**
 * Rows of the buckets that a run changed, whole: as they were (`_is_deleted` 1), and as they are. Each run has a partition,
 * which it throws away: nobody else's is in it.
 */
export const imagesTable = (object: string): string => `${object}_images`;

/** All tables of a rollup, that of its rows first. */
export const tablesOf = (object: string): string[] => [object, keysTable(object), imagesTable(object)];

/** Makes the tables of keys and of images where the rollup needs them. */
export async function createBeside(
  client: ClickHouseClient,
  names: Names,
  object: string,
  rules: RollupRules,
): Promise<void> {
  const key = await sortingKey(client, names, object);
  const onCluster = names.cluster ? `ON CLUSTER ${chName(names.cluster)}` : '';
  if (rules.keepsImages)
    await client.command({
      query: `CREATE TABLE IF NOT EXISTS ${chName(names.cdc, imagesTable(object))} ${onCluster}
        AS ${chName(names.cdc, object)} ENGINE = MergeTree PARTITION BY _run ORDER BY tuple()
        COMMENT 'What the run under way changes in ${object}: rows as they were (_is_deleted 1), and as they are'`,
    });
  if (!isKeyed(rules, key)) return;
  const columns = keyColumns(rules, key);
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
