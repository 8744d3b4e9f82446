import {z} from 'zod';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import type {Rollup} from './rollup.ts';
import type {Source} from './sources.ts';

/** Queries of buckets: all that the parents have, and all that the rollup ever had, in parts. */
export async function bucketParts(
  client: ClickHouseClient,
  {rules, bucketType, keysIn}: Rollup,
  {
    sources,
    table,
    guard,
    most,
  }: {
    sources: readonly Source[];
    /** A rollup's name, quoted and with its database. */
    table: (name: string) => string;
    /** A condition that each of them has. */
    guard: string;
    /** Buckets of one part. */
    most: number;
  },
): Promise<string[]> {
  const names = rules.bucket.map((_, i) => `b${i}`);
  const aliases = (expressions: readonly string[]): string =>
    expressions.map((expression, i) => `${expression} AS ${names[i]}`).join(', ');
  const all = [
    ...rules.parents.map(({name, expressions}) => {
      const source = sources.find(candidate => candidate.name === name);
      return `SELECT ${aliases(source ? source.keyColumns : expressions)} FROM ${source?.target ?? table(name)}`;
    }),
    `SELECT ${aliases(rules.bucket.map(column => chName(column)))} FROM ${keysIn}`,
  ].join(' UNION ALL ');
  const found = await ranges(client, {columns: names.join(', '), from: `(${all})`, type: bucketType, most});
  return found.map(range => `SELECT DISTINCT ${names.join(', ')} FROM (${all}) WHERE ${range} AND ${guard}`);
}

/**
 * What one run works at: a condition on the marks of each source.
 * @param taken how many each has
 * @param most of one run
 */
export async function markPieces(
  client: ClickHouseClient,
  sources: readonly Source[],
  taken: readonly number[],
  most: number,
): Promise<ReadonlyMap<Source, string>[]> {
  if (taken.every(count => count <= most)) {
    return [new Map(sources.flatMap((source, i) => (taken[i]! > 0 ? [[source, '1']] : [])))];
  }
  const pieces: ReadonlyMap<Source, string>[] = [];
  for (const [i, source] of sources.entries()) {
    if (taken[i] === 0) continue;
    const [found] = await rows(
      client,
      z.object({type: z.string()}),
      `SELECT toTypeName(any((${source.key}))) AS type FROM ${source.batch}`,
    );
    const all = {columns: source.key, from: source.batch, type: found!.type, most};
    for (const range of await ranges(client, all)) pieces.push(new Map([[source, range]]));
  }
  return pieces;
}

/** Conditions that cut what is there into parts of `most` rows, in the order of the columns. */
async function ranges(
  client: ClickHouseClient,
  {columns, from, type, most}: {columns: string; from: string; type: string; most: number},
): Promise<string[]> {
  const cuts = await rows(
    client,
    z.object({cut: z.string()}),
    `SELECT formatRow('Values', ${columns}) AS cut FROM (
       SELECT ${columns}, rowNumberInAllBlocks() AS n FROM (SELECT ${columns} FROM ${from} ORDER BY ${columns})
     ) WHERE n % ${most} = ${most - 1} ORDER BY ${columns}`,
  );
  const edges = [...new Set(cuts.map(({cut}) => `CAST(${cut} AS ${type})`))];
  const place = columns.includes(',') ? `(${columns})` : columns;
  return [...edges, undefined].map((edge, i) => {
    const above = i > 0 ? [`${place} > ${edges[i - 1]}`] : [];
    const below = edge === undefined ? [] : [`${place} <= ${edge}`];
    return [...above, ...below, '1'].join(' AND ');
  });
}
