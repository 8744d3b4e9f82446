import {z} from 'zod';
import {
  filledIn,
  type MigrationFile,
  type Names,
  type RollupRules,
  rollupStatements,
} from '../../clickhouse/migration-files.ts';
import {columnsOf, imagesTable, isKeyed, keysTable} from '../../clickhouse/rollup-tables.ts';
import {type ClickHouseClient, chLiteral, chName, rows} from '../sink/clickhouse.ts';

/** A rollup whose table is there. */
export interface Rollup {
  readonly object: string;
  /** Quoted, with its database. */
  readonly table: string;
  readonly uuid: string;
  readonly rules: RollupRules;
  /** Quoted columns but the technical ones → type. */
  readonly columns: ReadonlyMap<string, string>;
  /** Quoted, as a list. */
  readonly key: string;
  readonly bucket: string;
  /** Type of a bucket, as a literal of one is cast to it. */
  readonly bucketType: string;
  /** Where to find every key that a bucket ever had. */
  readonly keysIn: string;
  readonly isKeyed: boolean;
  readonly isCompared: boolean;
  /** Images of its rows, with `_sign` 1 and, of what was, -1; where they are kept. */
  readonly images: {readonly table: string; readonly query: string} | undefined;
  /** Rows of the buckets that stand for `{dirty}`. */
  readonly query: string;
  /** The same from the images of a run that nothing is missing of, and what was stored. */
  readonly increment: string | undefined;
}

/** Types without an equality that can be relied on: what has them counts as changed. */
const UNCOMPARABLE = /AggregateFunction\(|Map\(|JSON|Variant|Dynamic|Nested|Float|Geometry/;

const TECHNICAL = ['_run', '_is_deleted'];

/** Rows of the dirty buckets in a rollup of the same buckets: as they are stored, or as the images of a run have them. */
const ROWS_OF = /\{rows of (\w+)\}/g;
const IMAGES_OF = /\{images of (\w+)\}/g;

const Found = z.object({
  name: z.string(),
  uuid: z.string(),
  sorting_key: z.string(),
  columns: z.array(z.tuple([z.string(), z.string(), z.string()])),
});

/** The rollups of the files that have a table, each after those that it is computed from. */
export async function readRollups(
  client: ClickHouseClient,
  names: Names,
  files: readonly MigrationFile[],
): Promise<Rollup[]> {
  const found = await rows(
    client,
    Found,
    `SELECT name, toString(uuid) AS uuid, sorting_key, columns FROM system.tables AS t JOIN (
       SELECT table, arrayMap(c -> (c.2, c.3, c.4), arraySort(groupArray((position, name, type, default_kind)))) AS columns
       FROM system.columns WHERE database = {cdc: String} AND table IN {objects: Array(String)} GROUP BY table
     ) AS c ON c.table = t.name
     WHERE database = {cdc: String} AND name IN {objects: Array(String)}`,
    {cdc: names.cdc, objects: files.flatMap(({kind, object}) => (kind === 'rollup' ? [object] : []))},
  );
  const columnsIn = (object: string): string =>
    list(found.find(({name}) => name === object)?.columns.map(([name]) => name) ?? []);
  /** A query as it is outside of a run. */
  const whole = (query: string): string =>
    query.replaceAll(ROWS_OF, (_, object: string) => {
      const {bucket} = files.find(file => file.object === object)!.rollup!;
      return `(SELECT ${columnsIn(object)} FROM ${chName(names.cdc, object)} FINAL WHERE (${list(bucket)}) IN {dirty})`;
    });
  return files.flatMap(({object, rollup: rules, text}) => {
    const made = found.find(({name}) => name === object);
    if (!rules || !made) return [];
    const stored = made.columns.filter(([, , kind]) => kind !== 'ALIAS');
    const types = new Map(stored.map(([name, type]) => [name, type]));
    const {query, increment} = rollupStatements(text, names);
    const images = chName(names.cdc, imagesTable(object));
    const key = columnsOf(made.sorting_key);
    const keyed = isKeyed(rules, key);
    const bucketTypes = rules.bucket.map(column => types.get(column) ?? 'String');
    return {
      object,
      table: chName(names.cdc, object),
      uuid: made.uuid,
      rules: {
        ...rules,
        parents: rules.parents.map(({name, expressions}) => ({
          name,
          expressions: expressions.map(expression => filledIn(expression, names)),
        })),
      },
      columns: new Map(
        stored.filter(([name]) => !TECHNICAL.includes(name)).map(([name, type]) => [chName(name), type]),
      ),
      key: list(key),
      bucket: list(rules.bucket),
      bucketType: bucketTypes.length === 1 ? bucketTypes[0]! : `Tuple(${bucketTypes.join(', ')})`,
      keysIn: chName(names.cdc, keyed ? keysTable(object) : object),
      isKeyed: keyed,
      isCompared: rules.isCompared && stored.every(([, type]) => !UNCOMPARABLE.test(type)),
      images: rules.keepsImages
        ? {
            table: images,
            query: `SELECT ${columnsIn(object)}, if(_is_deleted, -1, 1) AS _sign FROM ${images}`,
          }
        : undefined,
      query: whole(query),
      increment: increment ?? (query.match(ROWS_OF) ? query : undefined),
    };
  });
}

const list = (columns: readonly string[]): string => columns.map(name => chName(name)).join(', ');

/**
 * The statement that brings the dirty buckets up to date, as run number `run`: rows that they have now, and deletions of
 * keys that they had. What is compared and the same as before is not written, so that nothing is computed from it again.
 * Done again in part or whole, by any later run, it comes to the same.
 * @param dirty a query of buckets
 * @param query of what they are to hold
 */
export function writeStatement(
  rollup: Rollup,
  dirty: string,
  run: bigint,
  query = rowsOf(rollup, dirty),
): string {
  const {table, isCompared} = rollup;
  const {keys, rest, joined, isSame} = comparison(rollup, dirty, query);
  return `INSERT INTO ${table} (${[...keys, ...rest].join(', ')}, _run, _is_deleted)
    SELECT ${keys.map(key => `if(_is_now, ${key}, ${before(key)})`).join(', ')}, ${[...rest, run, 'NOT _is_now'].join(', ')}
    FROM ${joined} ${isCompared ? `WHERE NOT ${isSame}` : ''}`;
}

/**
 * The same in two statements, for a rollup that keeps images: these of the buckets in which something changes, and from
 * them its rows. The second may be done only where the first was done as a whole.
 */
export function imagesStatements(rollup: Rollup, dirty: string, run: bigint): [images: string, rows: string] {
  const {table, key, bucket} = rollup;
  const images = rollup.images!.table;
  const {keys, rest, joined, isSame} = comparison(rollup, dirty, rowsOf(rollup, dirty));
  const columns = [...keys, ...rest];
  const all = `${columns.join(', ')}, _run, _is_deleted`;
  const image = columns.map(column => `if(_is_before, ${before(column)}, ${column})`);
  const own = `FROM ${images} WHERE _run = ${run}`;
  const buckets = bucket.split(', ').map(column => `if(_is_now, ${column}, ${before(column)})`);
  return [
    `INSERT INTO ${images} (${all}) SELECT ${image.join(', ')}, ${run}, _is_before
     FROM (SELECT *, max(NOT ${isSame}) OVER (PARTITION BY ${buckets.join(', ')}) AS _differs FROM ${joined})
     ARRAY JOIN [false, true] AS _is_before WHERE _differs AND if(_is_before, _was, _is_now)`,
    `INSERT INTO ${table} (${all}) SELECT ${all} ${own} AND (_is_deleted = 0 OR (${key}) NOT IN (SELECT ${key} ${own} AND _is_deleted = 0))`,
  ];
}

/** What the buckets are to hold, beside what is stored of them: `_is_now` and `_was` tell which of the two there is. */
function comparison(
  {table, columns, key, bucket, keysIn, isKeyed, isCompared}: Rollup,
  dirty: string,
  query: string,
): {keys: string[]; rest: string[]; joined: string; isSame: string} {
  const keys = key.split(', ');
  const rest = [...columns.keys()].filter(column => !keys.includes(column));
  const stored = [...keys, ...(isCompared ? rest : [])].map(column => `${column} AS ${before(column)}`);
  const same = rest.map(
    column => `ifNull(${column} = ${before(column)}, isNull(${column}) AND isNull(${before(column)}))`,
  );
  // Every key that the buckets ever had, and the rows that they have.
  const ever = `FROM ${keysIn} WHERE (${bucket}) IN (${dirty})`;
  const current = `FROM ${table} FINAL WHERE ${isKeyed ? `(${key}) IN (SELECT ${key} ${ever})` : `(${bucket}) IN (${dirty})`}`;
  const joined = `(
      SELECT ${[...columns].map(([column, type]) => `CAST(${column}, ${chLiteral(type)}) AS ${column}`).join(', ')}, true AS _is_now
      FROM (${query})
    ) AS computed
    FULL JOIN (
      SELECT ${isCompared ? '' : 'DISTINCT '}${stored.join(', ')}, true AS _was ${isCompared ? current : ever}
    ) AS stored ON ${keys.map(key => `computed.${key} = stored.${before(key)}`).join(' AND ')}`;
  return {keys, rest, joined, isSame: `(${['_is_now', '_was', ...same].join(' AND ')})`};
}

/** Name that a column has beside what it is computed to be now. */
const before = (column: string): string => column.replace(/^`/, '`_before_');

/** What the rollup is to hold of these buckets. */
const rowsOf = ({query}: Rollup, dirty: string): string => query.replaceAll('{dirty}', `(${dirty})`);

/**
 * The same where all that changed since the rows were stored is in the images of this run; undefined where there is no such query.
 * @param images gives the query of the images of a rollup
 */
export const incrementOf = (
  {increment}: Rollup,
  dirty: string,
  images: (object: string) => string,
): string | undefined =>
  increment
    ?.replaceAll('{dirty}', `(${dirty})`)
    .replaceAll(IMAGES_OF, (_, object: string) => `(${images(object)})`)
    .replaceAll(ROWS_OF, (_, object: string) => `(${images(object)} AND _is_deleted = 0)`);

/**
 * Those of the buckets that hold something else than they are to, each as a literal.
 * @param dirty a query of buckets
 */
export function differencesQuery(rollup: Rollup, dirty: string, most: number): string {
  const {table, columns, key, bucket} = rollup;
  const all = [...columns.keys()].join(', ');
  const inKey = new Set(key.split(', '));
  const states = [...columns].filter(([, type]) => type.startsWith('AggregateFunction('));
  const plain = [...columns.keys()].filter(
    name => !inKey.has(name) && states.every(([state]) => state !== name),
  );
  const wrong = [
    'countIf(_side = 0) <> 1',
    'countIf(_side = 1) <> 1',
    ...(plain.length > 0 ? [`uniqExact(toString(tuple(${plain.join(', ')}))) <> 1`] : []),
    ...states.flatMap(([name, type]) => [
      `uniqExact(toString(finalizeAggregation(${name}))) <> 1`,
      // As many as the other, and the same ones.
      ...(type.startsWith('AggregateFunction(uniqExact,')
        ? [`uniqExactMerge(${name}) <> any(finalizeAggregation(${name}))`]
        : []),
    ]),
  ];
  return `SELECT DISTINCT formatRow('Values', ${bucket}) AS bucket FROM (
      SELECT ${key} FROM (
        SELECT ${all}, 0 AS _side FROM ${table} FINAL WHERE (${bucket}) IN (${dirty})
        UNION ALL
        SELECT ${all}, 1 AS _side FROM (${rowsOf(rollup, dirty)})
      ) GROUP BY ${key} HAVING ${wrong.join(' OR ')}
    ) LIMIT ${most}`;
}

/** A query of buckets that are given as literals. */
export const literalBuckets = ({bucketType, rules}: Rollup, literals: readonly string[]): string => {
  const list = `arrayJoin([${literals.map(literal => `CAST(${literal} AS ${bucketType})`).join(', ')}])`;
  return rules.bucket.length === 1
    ? `SELECT ${list} AS b0`
    : `SELECT ${rules.bucket.map((_, i) => `b.${i + 1} AS b${i}`).join(', ')} FROM (SELECT ${list} AS b)`;
};

/** Writes down the keys of rows that runs wrote, behind these. */
export const keysStatement = ({table, keysIn, key, bucket}: Rollup, which: string): string =>
  `INSERT INTO ${keysIn} (${union(bucket, key)}) SELECT DISTINCT ${union(bucket, key)} FROM ${table} WHERE ${which} AND _is_deleted = 0`;

const union = (...lists: string[]): string =>
  [...new Set(lists.flatMap(text => text.split(', ')))].join(', ');
